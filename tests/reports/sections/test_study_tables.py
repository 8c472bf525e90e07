"""A repeated study's own tables, counted from the predictions of its rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, multilabel_confusion_matrix, recall_score
from study_run import write_study

from reports.data import gather
from reports.page.blocks import Note, Table
from reports.page.render import csv_table, latex_table
from reports.sections import study_tables
from sweep.run_folder import RunPaths

MULTI = ("W9", "W10")


def table(blocks, name):
    return next(block for block in blocks if isinstance(block, Table) and block.name == name)


def names(blocks):
    return [block.name for block in blocks if isinstance(block, Table)]


def test_a_run_of_no_study_has_no_such_tables(write_run):
    assert study_tables.blocks(gather(write_run(finals={}))) == []


def test_each_row_stands_on_three_splits_with_the_interval_where_it_is_judged(write_run):
    root = write_study(write_run, "msds19042", ("A7", "A9", "A1"), finals={"finalists": (0, 1)})
    evidence = gather(root)
    frame = table(study_tables.blocks(evidence), "study_splits").frame.set_index("id")
    assert list(frame.index) == ["A7", "A9", "A1"]
    assert list(frame["runs"]) == ["3 repeats", "3 repeats", "1 of the search"]
    of_a7 = [evidence.repeats[f"t0000/seed_{seed}"] for seed in (1001, 1002, 1003)]
    for split in ("train", "val", "test"):
        expected = [
            f1_score(part.label, part.probability.argmax(axis=1), average="macro")
            for part in (run.of(split) for run in of_a7)
        ]
        assert frame.loc["A7", f"{split}_f1_macro"] == pytest.approx(np.mean(expected))
    assert frame.loc["A7", "test_f1_macro_low"] < frame.loc["A7", "test_f1_macro"]
    assert np.isnan(frame.loc["A1", "test_accuracy"])
    assert frame.loc["A1", "val_accuracy"] == pytest.approx(evidence.trials["val_accuracy"][2])


def test_a_row_with_focal_loss_stands_beside_the_one_most_like_it_and_says_what_else_differs(write_run):
    evidence = gather(write_study(write_run, "msds19042", ("A1", "A7", "A9"), finals={"finalists": (1, 2)}))
    frame = table(study_tables.blocks(evidence), "study_focal").frame
    (row,) = frame.to_dict("records")
    assert (row["without"], row["with"], row["split"]) == ("A7", "A9", "test")
    assert row["also"] == "lr"
    for column, name in (("without", "t0001"), ("with", "t0002")):
        runs = [evidence.repeats[f"{name}/seed_{seed}"].of("test") for seed in (1001, 1002, 1003)]
        found = [recall_score(run.label, run.probability.argmax(axis=1), average=None)[0] for run in runs]
        assert row[f"recall_{column}"] == pytest.approx(np.mean(found))


def test_without_test_the_focal_rows_are_compared_on_validation(write_run):
    blocks = study_tables.blocks(gather(write_study(write_run, "bscs17028", MULTI, task="multi_label")))
    (row,) = table(blocks, "study_focal").frame.to_dict("records")
    assert (row["without"], row["with"], row["also"], row["split"]) == ("W9", "W10", "nothing", "val")
    assert "No row was scored on test" in table(blocks, "study_splits").caption


def test_without_a_row_of_focal_loss_there_is_no_table_of_it(write_run):
    evidence = gather(write_study(write_run, "bscs17028", ("W2", "W4")))
    assert names(study_tables.blocks(evidence)) == ["study_splits", "study_counts"]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_counts_of_each_class_are_those_of_scikit_learn(write_run, task):
    study, ids = ("bscs17028", MULTI) if task == "multi_label" else ("msds19042", ("A7", "A9"))
    evidence = gather(write_study(write_run, study, ids, task=task, finals={"finalists": (0, 1)}))
    frame = table(study_tables.blocks(evidence), "study_counts").frame
    run = evidence.repeats["t0000/seed_1001"].of("test")
    decided = run.probability >= 0.5 if task == "multi_label" else run.probability.argmax(axis=1)
    expected = multilabel_confusion_matrix(run.label, decided).reshape(-1, 4)  # TN FP FN TP
    ours = frame[(frame["id"] == ids[0]) & (frame["split"] == "test")]
    assert np.array_equal(ours[["TN", "FP", "FN", "TP"]].to_numpy(), expected)


def test_fewer_epochs_than_the_study_had_are_said(write_run):
    changes = {"own_epochs": False, "epochs": 6}
    blocks = study_tables.blocks(gather(write_study(write_run, "bscs17028", ("W2", "W4"), sweep=changes)))
    (note,) = [block for block in blocks if isinstance(block, Note)]
    assert "6 epochs at most, and 10 there (W2, W4)" in note.text


def test_rows_without_readable_predictions_are_left_out(write_run):
    root = write_study(write_run, "bscs17028", ("W2", "W4"))
    RunPaths(root).trial("t00000").predictions.write_bytes(b"torn")
    RunPaths(root).trial("t00001").predictions.unlink()
    assert study_tables.blocks(gather(root)) == []


def test_the_tables_can_be_written(write_run):
    evidence = gather(write_study(write_run, "msds19042", ("A7", "A9"), finals={"finalists": (0, 1)}))
    for block in study_tables.blocks(evidence):
        if isinstance(block, Table):
            assert csv_table(block).count("\n") == len(block.frame) + 1
            assert "tabular" in latex_table(block)
