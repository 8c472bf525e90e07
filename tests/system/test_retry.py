"""Failed trials run again: from their last epoch while the sweep has not ended, and afterwards from their beginning."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from whole_sweep import Done, epochs_of, kill_at, rates_of, run_sweep

from sweep.records import read_run
from sweep.run_folder import RunPaths, TrialPaths

pytestmark = pytest.mark.long


def arguments(storage: Path, data: Path, rates: tuple[float, ...]) -> list[object]:
    """A sweep of one trial for each rate; that of 0.0007 fails in its second epoch, but not where it is retried."""
    return [*rates_of(storage, data, rates), "--epochs", 4, "--scheduler", "none"]


def failed_one(run: Path) -> TrialPaths:
    (found,) = (path.parent for path in run.glob("trials/*/error*.txt"))
    return TrialPaths(found)


def resumed(storage: Path, *more: object) -> Done:
    done = run_sweep("--resume", "run", "--storage", storage, *more)
    assert done.code == 0, done.errors
    return done


def test_a_failed_trial_goes_on_from_its_last_epoch_where_the_sweep_has_not_ended(
    small_data: Path, tmp_path: Path
) -> None:
    asked = [*arguments(tmp_path, small_data, (0.0004, 0.0007, 0.0005, 0.0006)), "--finalists", 0]
    assert run_sweep(*asked, at=kill_at(" failed"), program="failing_sweep.py").code == -signal.SIGKILL
    trial = failed_one(tmp_path / "run")
    assert (trial.state.exists(), trial.weights.exists(), epochs_of(trial.root)) == (True, True, [1])
    done = resumed(tmp_path, "--retry-failed")
    assert f"failed trials to rerun: {trial.root.name} (from epoch 2)" in done.lines
    assert epochs_of(trial.root) == [1, 2, 3, 4], "each epoch is trained once and stands once"
    assert set(read_run(tmp_path / "run").trials.status) == {"completed"}
    assert "tired" in json.loads((trial.root / "status-1.json").read_text())["reason"]
    assert "in _keep" in (trial.root / "error-1.txt").read_text()
    assert not trial.error.exists()
    assert not [*(tmp_path / "run").rglob("state.pt")]


def test_a_sweep_that_has_ended_takes_its_failed_trials_in_and_decides_anew(small_data: Path, tmp_path: Path) -> None:
    asked = [*arguments(tmp_path, small_data, (0.0005, 0.0007)), "--finalists", 2, "--repeats", 1]
    first = run_sweep(*asked, program="failing_sweep.py")
    assert first.code == 0, first.errors
    run = tmp_path / "run"
    trial = failed_one(run)
    assert (
        f"rerun failed trials with: python -m sweep.run --resume run --storage {tmp_path} --retry-failed" in first.lines
    )
    assert not trial.state.exists(), "the sweep has ended"
    before = read_run(run).finals
    assert before is not None
    assert [len(before.finalists), len(before.test_access)] == [1, 1]
    (repeat,) = before.finalists[0].repeats
    files = RunPaths(run).trial(repeat.trial_id)
    files.status.write_text('{"status": "failed", "reason": "its process died"}')
    files.weights.unlink()
    done = resumed(tmp_path, "--retry-failed")
    again = f"{trial.root.name} (from its beginning), {repeat.trial_id} (from its beginning)"
    assert f"failed trials to rerun: {again}" in done.lines
    assert epochs_of(trial.root) == epochs_of(files.root) == [1, 2, 3, 4]
    after = read_run(run).finals
    assert after is not None
    assert {one.trial_id: len(one.completed) for one in after.finalists} == {"t0000": 1, "t0001": 1}
    assert len(after.test_access) == 2, "another decision opens the test split again, and it is counted"
    assert "failed trials to rerun: none" in resumed(tmp_path, "--retry-failed").lines
    assert len(RunPaths(run).test_access.read_text().splitlines()) == 2
