"""Which network the page shows: the model file once decided, and its repeats brought into one order."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from reports.data import gather
from reports.scores.shown import repeats_of_winner, runs_on, shown
from sweep.records import read_run
from sweep.run_folder import RunPaths


def rewrite(root: Path, trial_id: str, **changed) -> None:
    """Change arrays of a repeat's predictions."""
    path = RunPaths(root).repeat(trial_id).predictions
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    np.savez(path, **(arrays | {key: change(arrays) for key, change in changed.items()}))


def test_without_finalists_the_best_trial_is_shown_on_train_and_validation(write_run):
    evidence = gather(write_run())
    network = shown(evidence)
    assert network.predictions is evidence.predictions
    assert network.title == f"trial {evidence.best['number']:.0f}"
    assert (network.splits, network.judged, network.thresholds) == (("train", "val"), "val", None)
    assert network.recorded == evidence.best["score"]
    assert [len(one.path) for one in repeats_of_winner(evidence)] == [len(evidence.predictions.path)]


def test_once_decided_and_opened_the_model_file_is_shown_on_all_three_splits(write_run):
    evidence = gather(write_run(finals={}))
    network = shown(evidence)
    assert network.title == "repeat seed_1001 of trial 0, the model file"
    assert (network.splits, network.judged, network.remark) == (("train", "val", "test"), "test", "")
    assert network.recorded == evidence.run.finals.winning.repeats[0].score
    assert len(repeats_of_winner(evidence)) == 3


def test_rows_of_a_test_split_that_was_not_opened_are_never_shown(write_run):
    root = write_run(finals={})
    RunPaths(root).test_access.unlink()
    evidence = gather(root)
    assert shown(evidence).splits == ("train", "val")
    assert not any((one.split == "test").any() for one in evidence.repeats.values())
    assert runs_on(evidence, "test") is None


def test_before_the_decision_the_best_trial_stays(write_run):
    evidence = gather(write_run(finals={"selected": False, "opened": 0}))
    assert shown(evidence).predictions is evidence.predictions


def test_where_the_model_files_predictions_are_damaged_another_repeat_stands_in_and_is_named(write_run):
    root = write_run(finals={})
    RunPaths(root).repeat("t0000/seed_1001").predictions.write_bytes(b"no zip")
    evidence = gather(root)
    network = shown(evidence)
    assert network.title == "repeat seed_1002 of trial 0"
    assert "t0000/seed_1001" in network.remark
    assert runs_on(evidence, "test").names == ("seed_1002", "seed_1003")
    assert any("t0000/seed_1001" in problem for problem in evidence.problems)


def test_where_no_repeat_of_the_winner_can_be_read_the_best_trial_stands_in(write_run):
    root = write_run(finals={"repeats": 2})
    for name in ("seed_1001", "seed_1002"):
        RunPaths(root).repeat(f"t0000/{name}").predictions.unlink()
    evidence = gather(root)
    network = shown(evidence)
    assert network.predictions is evidence.predictions
    assert "trial 0, which won" in network.remark
    assert "finalists/t0000/seed_1001/best/predictions.npz is missing" in evidence.problems
    assert len(runs_on(evidence, "val").names) == 1


def test_nothing_is_shown_where_nothing_can_be_read(write_run):
    evidence = gather(write_run(statuses=("failed",)))
    assert shown(evidence) is None
    assert repeats_of_winner(evidence) == []
    assert runs_on(evidence, "val") is None


def test_a_failed_repeat_is_no_run(write_run):
    evidence = gather(write_run(finals={"failed": ("t0000/seed_1002",)}))
    assert runs_on(evidence, "test").names == ("seed_1001", "seed_1003")


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_runs_that_list_the_images_in_another_order_are_brought_into_one(write_run, task):
    root = write_run(finals={}, task=task, classes=("a", "b"))
    before = runs_on(gather(root), "test")
    backwards = {
        name: (lambda arrays, name=name: arrays[name][::-1]) for name in ("path", "split", "label", "probability")
    }
    rewrite(root, "t0000/seed_1002", **backwards)
    after = runs_on(gather(root), "test")
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    np.testing.assert_array_equal(after.labels, before.labels)


def test_a_run_on_other_images_is_left_out(write_run):
    root = write_run(finals={})
    rewrite(root, "t0000/seed_1003", path=lambda arrays: np.char.add("other/", arrays["path"]))
    assert runs_on(gather(root), "test").names == ("seed_1001", "seed_1002")


def test_folds_are_one_run_over_all_images_that_they_validated(write_run):
    root = write_run(finals={})
    chosen = RunPaths(root).chosen
    chosen.write_text(json.dumps(json.loads(chosen.read_text()) | {"folds": 3}))
    for fold, name in enumerate(("seed_1001", "seed_1002", "seed_1003")):
        rewrite(root, f"t0000/{name}", path=lambda arrays, fold=fold: np.char.add(f"{fold}/", arrays["path"]))
    evidence = gather(root)
    runs = runs_on(evidence, "val")
    assert runs.probabilities.shape[0] == 1
    assert runs.probabilities.shape[1] == len(runs.labels) == 3 * (shown(evidence).predictions.split == "val").sum()


def test_groups_are_those_of_splits_csv(write_run):
    root = write_run(finals={})
    evidence = gather(root)
    rows = read_run(root).rows
    expected = rows.loc[rows["split"] == "test", "group"].tolist()
    assert list(runs_on(evidence, "test").groups) == expected
    RunPaths(root).splits.unlink()
    assert set(runs_on(gather(root), "test").groups) == {""}


def test_patients_are_counted_where_they_are_known(write_run):
    root = write_run(finals={})
    evidence = gather(root)
    rows = evidence.run.rows
    assert runs_on(evidence, "test").patients == rows.loc[rows["split"] == "test", "group"].nunique()
    RunPaths(root).splits.unlink()
    assert math.isnan(runs_on(gather(root), "test").patients)
