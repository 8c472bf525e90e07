"""A published study run again: row by row beside the trials that ran it, counted from their predictions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from in_chapter import facts, figures, notes, results_of, tables, texts
from run_files import WriteRun
from sklearn.metrics import f1_score, multilabel_confusion_matrix, recall_score
from study_run import write_study

from reports.caveats import caveats
from reports.chapters import methods, summary
from reports.chapters.studies import chapter, flaws_of, from_matrix
from reports.render import csv, latex_table
from search_spaces.studies import FLAWS, published
from sweep.run_folder import RunPaths

MULTI = ("W9", "W10")
ROWS = published()
BY_ID = {row.id: row for row in ROWS}


def test_a_run_of_no_study_has_no_such_chapter(write_run: WriteRun) -> None:
    assert chapter(results_of(write_run(finals={}))) == []


def test_a_repeated_study_stands_row_by_row_beside_the_trials_that_ran_it(write_run: WriteRun) -> None:
    rows = [{"id": f"W{number + 1}", "number": number, "claim": f"claim {number}"} for number in range(5)]
    changes = {"space": "studies.bscs17028", "study_rows": rows, "study_rows_left_out": {"W6": "no weights"}}
    root = write_run(classes=("infected", "normal"), trials=4, sweep=changes, finals={"finalists": (0, 3)})
    results = results_of(root)
    found = chapter(results)
    frame = tables(found)["study_rows"].frame.set_index("id")
    assert list(frame.index) == ["W1", "W2", "W3", "W4", "W5"]
    assert frame.loc["W1", "reported"] == pytest.approx(0.9267)
    assert frame.loc["W2", "val_accuracy"] == pytest.approx(results.data.trials["val_accuracy"][1])
    assert frame.loc["W1", "val_f1_macro"] == pytest.approx(results.winner.finalist.mean)
    assert list(frame["runs"]) == ["3 repeats", "1 of the search", "none", "3 repeats", "none"]
    assert frame.loc["W5", "status"] == "not begun"
    assert frame.loc["W5", "claim"] == "claim 4"
    assert {"study_counts", "studies_published"} <= set(tables(found))
    assert any(name.startswith("study_W1_") for name in figures(found))
    assert "W6: no weights" in notes(found)
    assert "can be compared with one of this run" in texts(found)
    assert set(tables(found)["study_flaws"].frame["number"]) >= {5, 6, 8, 12, 13, 19, 21, 22}


def test_all_published_rows_stand_folded(write_run: WriteRun) -> None:
    table = tables(chapter(results_of(write_run(sweep={"space": "studies.msds18022"}))))["studies_published"]
    assert table.folded
    assert list(table.frame["id"]) == [row.id for row in ROWS]
    assert len(table.frame) == 75
    network = table.frame.set_index("id")["network"]
    assert list(network[["W4", "W9", "W10"]]) == ["resnet18", "resnet18, BCE", "resnet18, focal"]


def test_a_study_run_whose_rows_are_not_recorded_says_so(write_run: WriteRun) -> None:
    found = chapter(results_of(write_run(sweep={"space": "studies.msds18022"})))
    assert "No row of the study is recorded" in texts(found)


def test_every_flaw_number_in_the_rows_is_explained(write_run: WriteRun) -> None:
    found = tables(chapter(results_of(write_study(write_run, "bscs17028", ("W2", "W4")))))
    explained = set(found["study_flaws"].frame["number"])
    assert {int(number) for text in found["study_rows"].frame["flaws"] for number in text.split()} <= explained


def test_each_row_stands_on_three_splits_with_the_interval_where_it_is_judged(write_run: WriteRun) -> None:
    results = results_of(write_study(write_run, "msds19042", ("A7", "A9", "A1"), finals={"finalists": (0, 1)}))
    frame = tables(chapter(results))["study_rows"].frame.set_index("id")
    assert frame["runs"].to_dict() == {"A1": "1 of the search", "A7": "3 repeats", "A9": "3 repeats"}
    of_a7 = [results.data.repeats[f"t0000/seed_{seed}"] for seed in (1001, 1002, 1003)]
    for split in ("train", "val", "test"):
        parts = [run.of(split) for run in of_a7]
        expected = [f1_score(part.label, part.probability.argmax(axis=1), average="macro") for part in parts]
        assert frame.loc["A7", f"{split}_f1_macro"] == pytest.approx(np.mean(expected))
    assert frame.loc["A7", "test_f1_macro_low"] < frame.loc["A7", "test_f1_macro"]
    assert np.isnan(frame.loc["A1", "test_accuracy"])
    assert frame.loc["A1", "val_accuracy"] == pytest.approx(results.data.trials["val_accuracy"][2])


def test_a_row_with_focal_loss_stands_beside_the_one_most_like_it_and_says_what_else_differs(
    write_run: WriteRun,
) -> None:
    results = results_of(write_study(write_run, "msds19042", ("A1", "A7", "A9"), finals={"finalists": (1, 2)}))
    (row,) = tables(chapter(results))["study_focal"].frame.to_dict("records")
    assert (row["without"], row["with"], row["split"]) == ("A7", "A9", "test")
    assert row["also"] == "lr"
    for column, name in (("without", "t0001"), ("with", "t0002")):
        runs = [results.data.repeats[f"{name}/seed_{seed}"].of("test") for seed in (1001, 1002, 1003)]
        found = [recall_score(run.label, run.probability.argmax(axis=1), average=None)[0] for run in runs]
        assert row[f"recall_{column}"] == pytest.approx(np.mean(found))


def test_without_test_the_focal_rows_are_compared_on_validation(write_run: WriteRun) -> None:
    found = tables(chapter(results_of(write_study(write_run, "bscs17028", MULTI, task="multi_label"))))
    (row,) = found["study_focal"].frame.to_dict("records")
    assert (row["without"], row["with"], row["also"], row["split"]) == ("W9", "W10", "nothing", "val")
    assert "No row was scored on test" in found["study_rows"].caption


def test_without_a_row_of_focal_loss_there_is_no_table_of_it(write_run: WriteRun) -> None:
    assert "study_focal" not in tables(chapter(results_of(write_study(write_run, "bscs17028", ("W2", "W4")))))


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_counts_of_each_class_are_those_of_scikit_learn(write_run: WriteRun, task: str) -> None:
    study, ids = ("bscs17028", MULTI) if task == "multi_label" else ("msds19042", ("A7", "A9"))
    results = results_of(write_study(write_run, study, ids, task=task, finals={"finalists": (0, 1)}))
    frame = tables(chapter(results))["study_counts"].frame
    run = results.data.repeats["t0000/seed_1001"].of("test")
    decided = run.probability >= 0.5 if task == "multi_label" else run.probability.argmax(axis=1)
    expected = multilabel_confusion_matrix(run.label, decided).reshape(-1, 4)  # TN FP FN TP
    ours = frame[(frame["id"] == ids[0]) & (frame["split"] == "test")]
    assert np.array_equal(ours[["TN", "FP", "FN", "TP"]].to_numpy(), expected)


def test_fewer_epochs_than_the_study_had_are_said(write_run: WriteRun) -> None:
    changes = {"own_epochs": False, "epochs": 6}
    found = chapter(results_of(write_study(write_run, "bscs17028", ("W2", "W4"), sweep=changes)))
    assert "6 epochs at most, and 10 there (W2, W4)" in notes(found)


def test_a_study_that_ran_its_own_epochs_is_told_with_them(write_run: WriteRun) -> None:
    root = write_study(write_run, "msds19042", ("A7", "A3"), sweep={"own_epochs": True})
    results = results_of(root)
    sweep = results.data.run.sweep
    assert (sweep.epochs, sweep.epochs_of(), sweep.epochs_of(0), sweep.epochs_of(1)) == (6, 20, 10, 20)
    assert "for at most 20 epochs" in texts(methods.chapter(results))
    assert "at most 20 epochs per trial" in facts(summary.chapter(results))["Search"]
    assert not [one for one in caveats(results) if "last of the budget" in one.text], "6 epochs, of 10 or 20"


def test_rows_without_readable_predictions_are_left_out(write_run: WriteRun) -> None:
    root = write_study(write_run, "bscs17028", ("W2", "W4"))
    RunPaths(root).trial("t00000").predictions.write_bytes(b"torn")
    RunPaths(root).trial("t00001").predictions.unlink()
    found = chapter(results_of(root))
    assert figures(found) == {}
    assert set(tables(found)["study_rows"].frame["runs"]) == {"none"}


def test_every_row_has_curves_and_a_matrix_of_each_split_that_it_was_scored_on(write_run: WriteRun) -> None:
    results = results_of(write_study(write_run, "msds19042", ("A7", "A9"), finals={"finalists": (0,)}))
    found = figures(chapter(results))
    shown = ["loss", "accuracy", "train", "val", "test"]
    assert list(found) == [f"study_A7_{name}" for name in shown] + [f"study_A9_{name}" for name in shown[:-1]]
    test = results.data.repeats["t0000/seed_1001"].of("test")
    right = int((test.label == test.probability.argmax(axis=1)).sum())
    assert f"{right} of {len(test.label)} on the diagonal" in found["study_A7_test"].alt


def test_the_labels_of_a_multi_label_row_have_a_matrix_each(write_run: WriteRun) -> None:
    found = figures(chapter(results_of(write_study(write_run, "bscs17028", ("W9",), task="multi_label"))))
    assert "one matrix per label" in found["study_W9_val"].caption


def test_the_tables_can_be_written(write_run: WriteRun) -> None:
    results = results_of(write_study(write_run, "msds19042", ("A7", "A9"), finals={"finalists": (0, 1)}))
    for table in tables(chapter(results)).values():
        assert csv(table.frame).count(b"\n") == len(table.frame) + 1
        assert "tabular" in latex_table(table)


# What follows from what was published


def test_macro_f1_of_a_two_class_matrix_is_scikit_learns() -> None:
    found = from_matrix(BY_ID["W1"])  # 515 100 / 10 875
    truth = np.repeat([0, 0, 1, 1], [515, 100, 10, 875])
    answer = np.repeat([0, 1, 0, 1], [515, 100, 10, 875])
    assert found["f1_macro"] == pytest.approx(f1_score(truth, answer, average="macro"))
    assert found["recall"] == pytest.approx(515 / 615)
    assert found["accuracy"] == pytest.approx(1390 / 1500)
    assert found["low"] < 1390 / 1500 < found["high"]


def test_macro_f1_of_label_matrices_is_the_mean_of_the_labels_own() -> None:
    found = from_matrix(BY_ID["W9"])  # covid never found: 0, .939, .891
    assert found["f1_macro"] == pytest.approx((0 + 0.939 + 0.891) / 3, abs=1e-3)
    assert found["recall"] == 0
    assert math.isnan(found["accuracy"])


def test_pooled_bits_and_rows_without_a_matrix_have_no_macro_f1() -> None:
    assert all(math.isnan(from_matrix(BY_ID[name])["f1_macro"]) for name in ("M13", "M22", "Z5a", "H13"))


def test_reported_accuracies_are_those_of_the_matrices_but_for_rounding_and_the_row_that_is_known_to_differ() -> None:
    away = {row.id: abs(row.accuracy - from_matrix(row)["accuracy"]) for row in ROWS if row.accuracy is not None}
    assert {name for name, difference in away.items() if difference > 0.011} == {"H5"}


def test_an_f1_is_the_last_mini_batchs_exactly_where_the_matrix_gives_another() -> None:
    for row in ROWS:
        kind, _, value = row.f1.rpartition(" ")
        assert (kind == "last mini-batch") == (7 in row.flaws), row.id
        if row.matrix and kind in ("last mini-batch", "macro"):
            assert (abs(from_matrix(row)["f1_macro"] - float(value)) < 0.001) == (kind == "macro"), row.id


def test_no_covid_found_is_marked_exactly_where_the_matrix_says_so() -> None:
    three = [row for row in ROWS if row.findings == "three_findings"]
    assert {row.id for row in three if from_matrix(row)["recall"] == 0} == {row.id for row in three if 17 in row.flaws}


def test_every_flaw_is_explained_and_stands_somewhere() -> None:
    used = {number for row in ROWS for number in row.flaws} | {
        number for number, flaw in FLAWS.items() if flaw.pictures
    }
    assert used == set(FLAWS) == set(range(1, 24))
    assert all(13 in row.flaws for row in ROWS)


def test_flaws_name_their_rows() -> None:
    facts = flaws_of([row for row in ROWS if row.findings == "two_findings"]).set_index("number")
    assert facts.loc[13, "rows"] == "all"
    assert facts.loc[2, "rows"] == "H5, H6, A5"
    assert facts.loc[12, "rows"] == "figures of bscs17028, msds18022"
    assert 17 not in facts.index
