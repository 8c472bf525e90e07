"""Whole sweeps, as a user starts, interrupts, resumes and extends them: search, repeats, decision, test, model."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from trial_settings import timeless
from whole_sweep import Done, kill_at, run_sweep

from sweep.records import read_predictions, read_run
from sweep.run import this_machine
from sweep.run_folder import RunPaths
from sweep.status import Status, read_status

pytestmark = pytest.mark.long


def arguments(data: Path, storage: Path, name: str, trials: int = 9) -> list[object]:
    """A sweep of short trials on two backbones, two at once: of many at once asha has nothing to compare with."""
    where: list[object] = ["--data", data, "--storage", storage, "--name", name, "--weights", "random"]
    what = ["--backbones", "squeezenet1_1,resnet18", "--image-size", 32, "--trials", trials, "--epochs", 4]
    machine = this_machine()
    slots = min(2, machine.slots(1, 1.0 if machine.gpus else 0.0))
    return [*where, *what, "--grace-period", 2, "--seed", 3, "--concurrency", slots]


def trials(run: Path) -> list[dict[str, Any]]:
    """Every trial as its files tell it, without what a clock says."""
    told = []
    for folder in sorted((run / "trials").iterdir()):
        lines = [timeless(json.loads(line)) for line in (folder / "result.jsonl").read_text().splitlines()]
        epochs = {line["epoch"]: line for line in lines}
        told.append(
            {
                "start": json.loads((folder / "params.json").read_text()),
                "epochs": epochs,
                "end": json.loads((folder / "status.json").read_text()),
            }
        )
    return told


def repeats(root: Path) -> dict[str, Any]:
    """Every repeat as its files tell it, without what a clock says; and its predictions."""
    run = read_run(root)
    assert run.problems == []
    assert run.finals is not None
    told = {}
    for one in (repeat for finalist in run.finals.finalists for repeat in finalist.repeats):
        predictions = read_predictions(run, one.trial_id)
        assert predictions is not None
        epochs = [timeless(row.model_dump()) for row in one.epochs]
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
    done = run_sweep(*arguments(small_data, storage, "run"), "--finalists", 2, "--repeats", 2, "--deterministic")
    assert done.code == 0, done.errors
    assert done.errors == ""
    (storage / "lines.txt").write_text(done.text)
    return storage / "run"


def test_the_winner_is_fixed_before_the_test_split_is_opened_once(whole: Path) -> None:
    run = read_run(whole)
    finals = run.finals
    assert finals is not None
    assert [one.rank for one in finals.finalists] == [1, 2]
    assert all(len(one.completed) == 2 for one in finals.finalists)
    assert finals.winner in {one.trial_id for one in finals.finalists}
    assert len(finals.test_access) == 1
    assert finals.selected is not None
    assert finals.selected <= (finals.test_access[0].opened or "")
    test = (run.rows["split"] == "test").sum()
    assert finals.test_access[0].images == test
    for finalist in finals.finalists:
        for one in finalist.repeats:
            predictions = read_predictions(run, one.trial_id)
            assert predictions is not None
            assert (predictions.split == "test").sum() == test
            assert ("train" in predictions.split) == (finalist.trial_id == finals.winner), "only the winner's are shown"
    for trial in run.trials["trial_id"]:
        of_search = read_predictions(run, trial)
        assert of_search is not None
        assert set(of_search.split) == {"val"}, "the search has never seen the test split"


def test_repeats_differ_from_each_other_and_from_the_search(whole: Path) -> None:
    run = read_run(whole)
    assert run.finals is not None
    first = run.finals.finalists[0]
    curves = [[row.metrics["train_loss"] for row in repeat.epochs] for repeat in first.repeats]
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
    networks = {f"frozen_{finalist.params['backbone']}" for finalist in run.finals.finalists}
    assert names == {"majority", "thumbnails", "borders", "file_properties", *networks}


def test_a_sweep_killed_in_its_search_and_among_its_repeats_ends_as_one_that_was_not(
    small_data: Path, whole: Path, tmp_path: Path
) -> None:
    """kill -9 loses nothing and doubles nothing: same configurations, epochs, stops and scores, to the last digit.

    The feature cache is lost each time, too.
    """
    given = [*arguments(small_data, tmp_path, "run"), "--finalists", 2, "--repeats", 2, "--deterministic"]
    assert run_sweep(*given, at=kill_at("[2/")).code == -signal.SIGKILL
    left = read_status(tmp_path / "run")
    assert (left.state, left.phase, left.busy) == ("dead", "search", 0)
    assert sum(left.trials[status] for status in ("completed", "pruned")) >= 2
    again = run_sweep("--resume", "run", "--storage", tmp_path, at=kill_at("/seed_"))
    assert again.code == -signal.SIGKILL
    run = tmp_path / "run"
    assert not RunPaths(run).test_access.exists(), "the test split stays closed until there is a winner"
    last = run_sweep("--resume", "run", "--storage", tmp_path)
    assert last.code == 0, last.errors
    assert trials(run) == trials(whole)
    statuses = {trial["end"]["status"] for trial in trials(whole)}
    assert statuses == {"completed", "pruned"}, "asha stopped nothing: the test shows less than it says"
    assert repeats(run) == repeats(whole)
    status = read_status(run)
    assert (status.state, status.phase, status.exit_code) == ("done", "report", 0)
    assert (status.best, status.winner) == (read_status(whole).best, read_status(whole).winner)
    before, after = (json.loads(RunPaths(root).selection.read_text()) for root in (whole, run))
    assert {**before, "selected": ""} == {**after, "selected": ""}
    resolved = json.loads(RunPaths(run).sweep.read_text())
    assert set(resolved["cached_stages"]) == {"squeezenet1_1", "resnet18"}
    assert all(resolved["cached_stages"].values()), "no trial read features: the test shows less than it says"
    states = list(run.glob("*/**/state.pt"))
    assert states == [], "what unfinished trials go on from is gone when they have ended"


def test_an_extended_search_is_decided_anew_and_the_second_opening_is_counted(whole: Path, tmp_path: Path) -> None:
    aimed = ("--target-specificity", "dark=0.8", "--prevalence", "dark=0.05")
    done = run_sweep("--resume", "run", "--storage", whole.parent, "--trials", 10, "--repeats", 3, *aimed)
    assert done.code == 0, done.errors
    finals = read_run(whole).finals
    assert finals is not None
    assert all(len(one.completed) == 3 for one in finals.finalists)
    assert len(finals.test_access) == 2
    assert "opened" in (whole / "report" / "report.md").read_text()
    point, model = finals.operating_point, read_run(whole).model
    assert model is not None
    assert point is not None
    assert (point, point.runs, point.label) == (model.operating_point, 3, "dark")
    assert "at a prevalence of 0.05" in (whole / "models" / "card.md").read_text()


def test_folds_validate_on_every_image_once(small_data: Path, tmp_path: Path) -> None:
    """Here, too, features of frozen layers cannot be kept: it is said once, and nothing else changes."""
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "features"
    given = ("--finalists", 1, "--folds", 3, "--cache-dir", cache, "--target-sensitivity", "dark=0.9")
    done = run_sweep(*arguments(small_data, tmp_path, "folds", trials=4), *given)
    assert done.code == 0, done.errors
    assert done.text.count(str(cache)) == 1
    run = read_run(tmp_path / "folds")
    assert run.finals is not None
    assert run.finals.folds == 3
    winner = run.finals.winning
    assert winner is not None
    paths = []
    for repeat in winner.repeats:
        predictions = read_predictions(run, repeat.trial_id)
        assert predictions is not None
        paths += predictions.of("val").path.tolist()
        assert not set(predictions.of("val").path) & set(predictions.of("train").path)
    assert sorted(paths) == sorted(run.rows[run.rows["split"] != "test"]["path"])
    assert len(np.unique(paths)) == len(paths)
    point = run.finals.operating_point
    assert point is not None
    assert (point.images, point.runs) == (len(paths), 1), "each image is judged once, by its fold"
    again = run_sweep("--resume", "folds", "--storage", tmp_path, "--folds", 2)
    assert again.code == 0, again.errors
    other = read_run(tmp_path / "folds").finals
    assert other is not None
    assert other.winning is not None
    judged = [read_predictions(run, repeat.trial_id) for repeat in other.winning.repeats]
    assert sorted(path for one in judged if one is not None for path in one.of("val").path) == sorted(paths)


def test_ctrl_c_stops_cleanly_and_a_resumed_sweep_can_be_extended(small_data: Path, tmp_path: Path) -> None:
    """And while a sweep runs, nobody else can go on with it."""
    beside: list[Done] = []
    seen: list[Status] = []
    let_go = tmp_path / "go on"

    def resume_beside_then_interrupt(lines: list[str], process: subprocess.Popen[str]) -> None:
        if lines[-1].startswith("[1/"):
            while (read_status(tmp_path / "run").epochs_per_minute or process.poll()) is None:
                time.sleep(0.05)  # the heartbeat tells of the first epoch
            process.send_signal(signal.SIGSTOP)
            beside.append(run_sweep("--resume", "run", "--storage", tmp_path))
            seen.append(read_status(tmp_path / "run"))
            let_go.touch()
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)

    few = arguments(small_data, tmp_path, "run", trials=5)
    held = {"HELD": "trials/t000[1-9]", "LET_GO": str(let_go)}
    first = run_sweep(*few, "--finalists", 0, at=resume_beside_then_interrupt, program="held_sweep.py", **held)
    assert [other.code for other in beside] == [2]
    assert "is running in another process" in beside[0].errors
    assert first.code == 130
    assert [(status.state, status.phase) for status in seen] == [("running", "search")]
    assert seen[0].epochs_per_minute
    assert seen[0].seconds_left
    left = read_status(tmp_path / "run")
    assert (left.state, left.phase, left.exit_code) == ("interrupted", "search", 130)
    assert f"python -m sweep.run --resume run --storage {tmp_path}" in first.text
    assert (tmp_path / "run" / "report" / "index.html").exists(), "what is known is reported at once"
    assert "Traceback" not in first.errors
    second = run_sweep("--resume", "run", "--storage", tmp_path, "--trials", 7)
    assert second.code == 0, second.errors
    table = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    assert sorted(table.number) == list(range(7))
    assert set(table.status) <= {"completed", "pruned"}
    epochs = pd.read_parquet(tmp_path / "run" / "epochs.parquet")
    for _, own in epochs.groupby("trial_id"):
        assert list(own.epoch) == list(range(1, len(own) + 1))


def test_the_demo_sweep_runs_without_any_option_but_its_size(tmp_path: Path) -> None:
    """With the default storage, which is relative to where the user stands."""
    done = run_sweep("--trials", 2, "--epochs", 2, "--finalists", 0, cwd=tmp_path)
    assert done.code == 0, done.errors
    assert done.errors == ""
    (run,) = (folder for folder in (tmp_path / "runs").iterdir() if not folder.name.startswith("."))
    assert run.name.startswith("partial_unfreeze-")
    assert f"report: runs/{run.name}/report/index.html" in done.text
    assert "phantoms drawn by a program" in (run / "report" / "index.html").read_text()
    best = pd.read_parquet(run / "trials.parquet").sort_values("score").iloc[-1]
    assert f"best: {best.trial_id} val_f1_macro {best.score:.4f}" in done.text
    assert f"weights: runs/{run.name}/trials/{best.trial_id}/best/weights.pt" in done.text
    with np.load(run / "trials" / best.trial_id / "best" / "predictions.npz") as predictions:
        assert set(predictions["split"]) == {"train", "val"}
