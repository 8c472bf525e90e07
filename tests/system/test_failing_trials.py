"""A trial that goes wrong fails alone, with its reason on the screen, in its folder and in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from whole_sweep import rates_of, run_sweep

pytestmark = pytest.mark.long

REASONS = {
    0.02: "ValueError: no good",
    0.03: "TimeoutError: hung past its time limit of 10.0 s",
    0.04: "its process ended without an error message",
    0.05: "out of memory: RuntimeError: ",
    1000: "the loss became NaN or infinite at step 2 of epoch 1 (lr 1000)",
}


def arguments(storage: Path, data: Path, rates: tuple[float, ...]) -> list[object]:
    return [*rates_of(storage, data, rates), "--epochs", 1, "--finalists", 0, "--trial-time-limit", 10]


def test_trials_that_go_wrong_in_every_way_fail_alone_and_the_others_go_on(small_data: Path, tmp_path: Path) -> None:
    done = run_sweep(*arguments(tmp_path, small_data, (0.01, *REASONS, 0.06)), program="failing_sweep.py")
    assert done.code == 0, done.errors
    assert "(raylet)" not in done.text, "what Ray says of dead workers belongs into the log"
    run = tmp_path / "run"
    table = pd.read_parquet(run / "trials.parquet").set_index("param_lr")
    assert dict(table.status[[0.01, 0.06]]) == {0.01: "completed", 0.06: "completed"}
    report = (run / "report" / "report.md").read_text().replace("\\", "")
    for lr, reason in REASONS.items():
        row = table.loc[lr]
        folder = run / "trials" / row.trial_id
        assert row.status == "failed"
        assert row.reason.startswith(reason)
        assert json.loads((folder / "status.json").read_text()) == {"status": "failed", "reason": row.reason}
        assert reason.partition(": ")[2] in (folder / "error.txt").read_text()
        assert reason in report
        assert any(f"{row.trial_id} failed" in line and reason in line for line in done.lines)
        assert not (folder / "state.pt").exists()
    assert "in _keep" in (run / "trials" / table.loc[0.03].trial_id / "error.txt").read_text(), "where it hung"
    assert "trials: 2 completed, 0 pruned, 5 failed" in done.lines


def test_a_sweep_of_which_every_trial_fails_ends_with_code_1(small_data: Path, tmp_path: Path) -> None:
    done = run_sweep(*arguments(tmp_path, small_data, (1000, 900)))
    assert done.code == 1, done.errors
    assert "trials: 0 completed, 0 pruned, 2 failed" in done.lines
    assert any(line.startswith("first failure: ") for line in done.lines)
    assert (tmp_path / "run" / "report" / "index.html").exists()
