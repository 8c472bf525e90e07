"""The second half of a sweep, as a user sees it: repeats, a decision, and the test split opened once."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from whole_sweep import run_sweep

from sweep.paths import RunPaths
from sweep.records import read_predictions, read_repeat_predictions, read_run

CLOCK = ("epoch_seconds", "images_per_second", "inference_ms_per_image")


def arguments(data: Path, storage: Path, name: str) -> list[object]:
    """Four short trials, of which two are repeated twice."""
    where: list[object] = ["--data", data, "--storage", storage, "--name", name, "--weights", "random"]
    what = ["--backbones", "squeezenet1_1", "--image-size", 32, "--trials", 4, "--epochs", 3, "--scheduler", "none"]
    return [*where, *what, "--seed", 3, "--deterministic", "--finalists", 2, "--repeats", 2]


def kill_at(text: str) -> Callable[[list[str], subprocess.Popen[str]], object]:
    """Kill the sweep once a line holds ``text``."""

    def look(lines: list[str], process: subprocess.Popen[str]) -> None:
        if text in lines[-1]:
            process.send_signal(signal.SIGKILL)

    return look


def repeats(root: Path) -> dict[str, Any]:
    """Every repeat as its files tell it, without what a clock says; and its predictions."""
    run = read_run(root)
    assert run.problems == []
    assert run.finals is not None
    told = {}
    for one in (repeat for finalist in run.finals.finalists for repeat in finalist.repeats):
        predictions = read_repeat_predictions(run, one)
        assert predictions is not None
        epochs = [{key: value for key, value in row.items() if key not in CLOCK} for row in one.epochs]
        told[one.trial_id] = (
            one.seed,
            one.status,
            epochs,
            predictions.split.tolist(),
            predictions.probability.tolist(),
        )
    return told


@pytest.fixture(scope="module")
def whole(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    storage = tmp_path_factory.mktemp("whole")
    done = run_sweep(*arguments(small_data, storage, "run"))
    assert done.code == 0, done.errors
    assert done.errors == ""
    (storage / "lines.txt").write_text(done.text)
    return storage / "run"


def test_the_winner_is_fixed_before_the_test_split_is_opened_once(whole: Path) -> None:
    run = read_run(whole)
    finals = run.finals
    assert finals is not None
    assert [one.rank for one in finals.finalists] == [1, 2]
    assert all(len(one.ended) == 2 for one in finals.finalists)
    assert finals.winner in {one.trial_id for one in finals.finalists}
    assert len(finals.openings) == 1
    assert finals.decided is not None
    assert finals.decided <= finals.openings[0]["opened"]
    test = (run.rows["split"] == "test").sum()
    assert finals.openings[0]["images"] == test
    for one in (repeat for finalist in finals.finalists for repeat in finalist.repeats):
        predictions = read_repeat_predictions(run, one)
        assert predictions is not None
        assert (predictions.split == "test").sum() == test
    for trial in run.trials["trial_id"]:
        of_search = read_predictions(run, trial)
        assert of_search is not None
        assert set(of_search.split) == {"train", "val"}, "the search has never seen the test split"


def test_repeats_differ_from_each_other_and_from_the_search(whole: Path) -> None:
    run = read_run(whole)
    assert run.finals is not None
    first = run.finals.finalists[0]
    curves = [[row["train_loss"] for row in repeat.epochs] for repeat in first.repeats]
    own = run.epochs[run.epochs["trial_id"] == first.trial_id]["train_loss"].tolist()
    assert len({tuple(curve) for curve in [*curves, own]}) == 3


def test_the_last_lines_name_the_winner_and_its_model(whole: Path) -> None:
    text = (whole.parent / "lines.txt").read_text()
    run = read_run(whole)
    assert run.finals is not None
    assert f"winner: {run.finals.winner} val_f1_macro {run.finals.winning.mean:.4f}" in text
    assert f"model: {whole}/models/best.pt" in text
    assert (whole / "models" / "best.onnx").exists()
    names = {row["name"] for row in json.loads((whole / "baselines" / "baselines.json").read_text())["baselines"]}
    assert names == {"majority", "thumbnails", "borders", "frozen_squeezenet1_1"}


def test_a_sweep_killed_among_its_repeats_ends_as_one_that_was_not(
    small_data: Path, whole: Path, tmp_path: Path
) -> None:
    killed = run_sweep(*arguments(small_data, tmp_path, "run"), at=kill_at("/seed_"))
    assert killed.code == -signal.SIGKILL
    assert not RunPaths(tmp_path / "run").openings.exists(), "the test split stays closed until there is a winner"
    again = run_sweep("--resume", "run", "--storage", tmp_path)
    assert again.code == 0, again.errors
    assert repeats(tmp_path / "run") == repeats(whole)
    before, after = (json.loads(RunPaths(root).decision.read_text()) for root in (whole, tmp_path / "run"))
    assert {**before, "decided": ""} == {**after, "decided": ""}
    done = run_sweep("--resume", "run", "--storage", tmp_path)
    assert done.code == 0, done.errors
    assert len(read_run(tmp_path / "run").finals.openings) == 1, "the same decision does not open it again"


def test_an_extended_search_is_decided_anew_and_the_second_opening_is_counted(whole: Path, tmp_path: Path) -> None:
    done = run_sweep("--resume", "run", "--storage", whole.parent, "--trials", 5, "--repeats", 3)
    assert done.code == 0, done.errors
    finals = read_run(whole).finals
    assert finals is not None
    assert all(len(one.ended) == 3 for one in finals.finalists)
    assert len(finals.openings) == 2
    assert "opened" in (whole / "report" / "report.md").read_text()


def test_folds_validate_on_every_image_once(small_data: Path, tmp_path: Path) -> None:
    given = arguments(small_data, tmp_path, "folds")[:-2]
    done = run_sweep(*given, "--folds", 3)
    assert done.code == 0, done.errors
    run = read_run(tmp_path / "folds")
    assert run.finals is not None
    assert run.finals.folds == 3
    winner = run.finals.winning
    assert winner is not None
    paths = []
    for repeat in winner.repeats:
        predictions = read_repeat_predictions(run, repeat)
        assert predictions is not None
        paths += predictions.of("val").path.tolist()
        assert not set(predictions.of("val").path) & set(predictions.of("train").path)
    assert sorted(paths) == sorted(run.rows[run.rows["split"] != "test"]["path"])
    assert len(np.unique(paths)) == len(paths)
