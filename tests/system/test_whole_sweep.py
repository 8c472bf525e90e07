"""Whole sweeps, as a user starts, interrupts and resumes them."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from whole_sweep import after_ends, run_sweep

CLOCK = ("epoch_seconds", "images_per_second", "inference_ms_per_image")


def arguments(data: Path, storage: Path, name: str) -> list[object]:
    """A sweep of nine short trials on two backbones."""
    where: list[object] = ["--data", data, "--storage", storage, "--name", name, "--weights", "random"]
    what = ["--backbones", "squeezenet1_1,resnet18", "--image-size", 32, "--trials", 9, "--epochs", 4]
    return [*where, *what, "--grace-period", 2, "--seed", 3, "--finalists", 0]


def trials(run: Path) -> list[dict[str, Any]]:
    """Every trial as its files tell it, without what a clock says."""
    told = []
    for folder in sorted((run / "trials").iterdir()):
        lines = [json.loads(line) for line in (folder / "result.jsonl").read_text().splitlines()]
        epochs = {line["epoch"]: {k: v for k, v in line.items() if k not in CLOCK} for line in lines}
        told.append(
            {
                "start": json.loads((folder / "params.json").read_text()),
                "epochs": epochs,
                "end": json.loads((folder / "end.json").read_text()),
            }
        )
    return told


def test_a_sweep_killed_twice_ends_as_one_that_was_not(small_data: Path, tmp_path: Path) -> None:
    """kill -9 loses nothing and doubles nothing: same configurations, epochs, stops and scores, to the last digit."""
    whole = run_sweep(*arguments(small_data, tmp_path, "whole"), "--deterministic")
    assert whole.code == 0, whole.errors
    killed = run_sweep(*arguments(small_data, tmp_path, "killed"), "--deterministic", at=after_ends(2, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    again = run_sweep("--resume", "killed", "--storage", tmp_path, at=after_ends(2, signal.SIGKILL))
    assert again.code == -signal.SIGKILL
    last = run_sweep("--resume", "killed", "--storage", tmp_path)
    assert last.code == 0, last.errors
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole")
    statuses = {trial["end"]["status"] for trial in trials(tmp_path / "whole")}
    assert statuses == {"finished", "stopped"}, "asha stopped nothing: the test shows less than it says"
    states = list((tmp_path / "killed" / "trials").glob("*/state.pt"))
    assert states == [], "what unfinished trials go on from is gone when they have ended"


def test_ctrl_c_stops_cleanly_and_a_resumed_sweep_can_be_extended(small_data: Path, tmp_path: Path) -> None:
    first = run_sweep(*arguments(small_data, tmp_path, "run"), at=after_ends(2, signal.SIGINT))
    assert first.code == 130
    assert f"python -m sweep.run --resume run --storage {tmp_path}" in first.text
    assert (tmp_path / "run" / "report" / "index.html").exists(), "what is known is reported at once"
    assert "Traceback" not in first.errors
    second = run_sweep("--resume", "run", "--storage", tmp_path, "--trials", 11)
    assert second.code == 0, second.errors
    table = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    assert sorted(table.number) == list(range(11))
    assert set(table.status) <= {"finished", "stopped"}
    epochs = pd.read_parquet(tmp_path / "run" / "epochs.parquet")
    for _, own in epochs.groupby("trial_id"):
        assert list(own.epoch) == list(range(1, len(own) + 1))


def test_a_run_that_is_going_on_is_not_run_twice(small_data: Path, tmp_path: Path) -> None:
    """And the one that was killed is free at once."""
    second: list[int] = []

    def resume_beside(lines: list[str], process: subprocess.Popen[str]) -> None:
        if lines[-1].startswith("[1/") and not second:
            other = run_sweep("--resume", "run", "--storage", tmp_path)
            assert "is going on in another process" in other.errors
            second.append(other.code)
            process.kill()

    run_sweep(*arguments(small_data, tmp_path, "run"), at=resume_beside)
    assert second == [2]
    assert run_sweep("--resume", "run", "--storage", tmp_path, "--time-budget", "1s").code == 0


def test_the_demo_sweep_runs_without_any_option_but_its_size(tmp_path: Path) -> None:
    """With the default storage, which is relative to where the user stands."""
    done = run_sweep("--trials", 3, "--epochs", 2, "--finalists", 0, cwd=tmp_path)
    assert done.code == 0, done.errors
    assert done.errors == ""
    (run,) = (folder for folder in (tmp_path / "runs").iterdir() if not folder.name.startswith("."))
    assert run.name.startswith("partial_unfreeze-")
    assert f"report: runs/{run.name}/report/index.html" in done.text
    assert "Demo data set" in (run / "report" / "index.html").read_text()
    best = pd.read_parquet(run / "trials.parquet").sort_values("score").iloc[-1]
    assert f"best: {best.trial_id} val_f1_macro {best.score:.4f}" in done.text
    assert f"weights: runs/{run.name}/trials/{best.trial_id}/best/weights.pt" in done.text
    with np.load(run / "trials" / best.trial_id / "best" / "predictions.npz") as predictions:
        assert set(predictions["split"]) == {"train", "val"}
