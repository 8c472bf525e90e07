"""Confusion, scores of splits and classes, operating points and subgroups against scikit-learn, and what is odd."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from in_chapter import figures, notes, results_of, tables, texts
from run_files import keep_rows
from sklearn import metrics

from reports.chapters import summary
from reports.chapters.errors import chapter, operating_table
from reports.probabilities import MOST_VALUES, operating_points
from sweep.run_folder import RunPaths


def repeats_of_winner(results):
    return [results.data.repeats[f"{results.winner.trial_id}/{name}"] for name in results.runs("test").names]


def test_the_matrices_of_train_validation_and_test_are_those_of_the_model_file(write_run):
    results = results_of(write_run(finals={}))
    found = figures(chapter(results))
    assert list(found) == ["confusion_train", "confusion_val"]
    found |= figures(summary.chapter(results))
    for split in ("train", "val", "test"):
        part = results.model.predictions.of(split)
        expected = metrics.confusion_matrix(part.label, part.probability.argmax(axis=1))
        frame = found[f"confusion_{split}"].frame
        np.testing.assert_array_equal(frame.iloc[:, 1:], expected)
        assert frame["true class"].tolist() == list(results.data.classes)
        assert f"{np.trace(expected)} of {expected.sum()} on the diagonal" in found[f"confusion_{split}"].alt


def test_the_splits_stand_side_by_side_with_the_mean_of_the_repeats(write_run):
    results = results_of(write_run(finals={}))
    frame = tables(chapter(results))["split_scores"].frame.set_index("split")
    assert frame.index.tolist() == ["training", "validation", "test"]
    of_each = [
        metrics.f1_score(part.label, part.probability.argmax(axis=1), average="macro")
        for part in (one.of("test") for one in repeats_of_winner(results))
    ]
    assert frame.loc["test", "f1_macro"] == pytest.approx(of_each[0])
    assert frame.loc["test", "f1_macro_mean"] == pytest.approx(np.mean(of_each))
    assert frame.loc["test", "f1_macro_low"] < frame.loc["test", "f1_macro"] < frame.loc["test", "f1_macro_high"]
    assert frame.loc["training", "f1_macro_shown"] == f"{frame.loc['training', 'f1_macro']:.3f}"


def test_scores_of_a_class_are_the_mean_over_the_repeats_and_its_auroc_is_that_of_the_whole_page(write_run):
    results = results_of(write_run(finals={}))
    frame = tables(chapter(results))["per_class_test"].frame.set_index("class")
    parts = [one.of("test") for one in repeats_of_winner(results)]
    for place, name in enumerate(results.data.classes):
        recalls = [
            metrics.recall_score(part.label == place, part.probability.argmax(axis=1) == place) for part in parts
        ]
        assert frame.loc[name, "recall"] == pytest.approx(np.mean(recalls))
        assert frame.loc[name, "auroc"] == results.scores("test").estimate[f"auroc:{name}"]


def test_a_class_that_is_missing_from_a_split_is_named_and_its_scores_are_undefined(write_run):
    root = write_run(finals={})
    for name in ("seed_1001", "seed_1002", "seed_1003"):
        file = RunPaths(root).trial(f"t0000/{name}").predictions
        keep_rows(file, lambda arrays: (arrays["split"] != "test") | (arrays["label"] != 0))
    found = chapter(results_of(root))
    assert "No test image has covid" in notes(found)
    row = tables(found)["per_class_test"].frame.iloc[0]
    assert row["images"] == 0
    assert np.isnan(row["recall"])
    assert np.isnan(row["auroc"])
    assert row["f1_shown"] == "–"


def test_a_class_that_is_never_predicted_is_named(write_run):
    assert "Never predicted on validation: covid." in notes(chapter(results_of(write_run(never_predicted="covid"))))


def test_a_class_that_no_image_has_is_not_blamed_for_never_being_predicted(write_run):
    root = write_run(never_predicted="covid")
    for file in root.glob("trials/*/best/predictions.npz"):
        keep_rows(file, lambda arrays: (arrays["split"] == "train") | (arrays["label"] != 0))
    results = results_of(root)
    assert results.absent("val") == results.never_predicted("train") == ["covid"]
    assert results.never_predicted("val") == []
    assert "Never predicted" not in notes(chapter(results))


def test_an_opened_test_split_without_saved_rows_is_told(write_run):
    root = write_run(finals={})
    keep_rows(RunPaths(root).trial("t0000/seed_1001").predictions, lambda arrays: arrays["split"] != "test")
    assert "these predictions contain no test images" in notes(chapter(results_of(root)))


def test_a_substitute_for_the_model_files_predictions_is_told(write_run):
    root = write_run(finals={})
    RunPaths(root).trial("t0000/seed_1001").predictions.write_bytes(b"torn")
    found = notes(chapter(results_of(root)))
    assert "The predictions of t0000/seed_1001 cannot be read: repeat seed_1002 of trial 0 is shown instead." in found


def test_predictions_of_a_repeat_that_contradict_its_record_are_told(write_run):
    root = write_run(finals={})
    keep_rows(
        RunPaths(root).trial("t0000/seed_1001").predictions, lambda arrays: np.arange(len(arrays["path"])) % 2 == 0
    )
    assert "one of the two is damaged" in notes(chapter(results_of(root)))


@pytest.mark.parametrize("count", [2, 15])
def test_any_number_of_labels_makes_a_chapter(write_run, count):
    labels = [f"label <{place}>" for place in range(count)]
    sizes = {"train": 60, "val": 60, "test": 60}
    root = write_run(finals={}, task="multi_label", classes=labels, labels_per_split=sizes, trials=1)
    results = results_of(root)
    found = chapter(results)
    figure = figures(found)["confusion_test"]
    assert all(f"label &lt;{place}&gt;" in figure.drawing.saved.svg for place in range(count))
    frame = figure.frame
    assert frame["label"].tolist() == labels
    test = results.model.predictions.of("test")
    expected = metrics.multilabel_confusion_matrix(test.label, test.probability >= 0.5).reshape(count, 4)
    np.testing.assert_array_equal(frame[["TN", "FP", "FN", "TP"]], expected)
    assert len(tables(found)["operating_points_test"].frame) == count


def test_without_a_network_there_is_a_sentence(write_run):
    assert "no best trial" in notes(chapter(results_of(write_run(statuses=("failed",)))))
    root = write_run("torn")
    for path in root.glob("trials/*/best/predictions.npz"):
        path.unlink()
    assert "not on disk" in notes(chapter(results_of(root)))


@pytest.mark.parametrize("classes", [("covid", "normal", "pneumonia"), ("normal", "pneumonia")])
def test_the_ratios_of_every_class_are_those_of_scikit_learn(write_run, classes):
    results = results_of(write_run(finals={}, classes=classes))
    frame = tables(chapter(results))["operating_points_test"].frame
    test = results.model.predictions.of("test")
    answers = test.probability.argmax(axis=1)
    likeliest = frame[frame["decided if"] == "likeliest"]
    assert likeliest["class"].tolist() == list(classes)
    for place, row in enumerate(likeliest.to_dict("records")):
        truth, decided = test.label == place, answers == place
        tn, fp, fn, tp = metrics.confusion_matrix(truth, decided).ravel()
        assert (row["TN"], row["FP"], row["FN"], row["TP"]) == (tn, fp, fn, tp)
        assert row["sensitivity"] == pytest.approx(metrics.recall_score(truth, decided))
        assert row["specificity"] == pytest.approx(metrics.recall_score(truth, decided, pos_label=0))
        assert row["PPV"] == pytest.approx(metrics.precision_score(truth, decided))
        assert row["NPV"] == pytest.approx(metrics.precision_score(truth, decided, pos_label=0))
        assert row["sensitivity_low"] <= row["sensitivity"] <= row["sensitivity_high"]


def test_a_positive_class_is_stated_alone_with_the_threshold_from_validation_applied_to_test(write_run):
    results = results_of(write_run(finals={}, sweep={"positive_class": "covid"}))
    found = chapter(results)
    frame = tables(found)["operating_points_test"].frame
    assert frame["class"].tolist() == ["covid", "covid"]
    cut = results.operating.cut
    assert (cut.label, cut.positives, cut.images, cut.runs) == ("covid", 19, 169, 3)
    test = results.model.predictions.of("test")
    decided = test.probability[:, 0] >= cut.threshold
    assert frame["TP"].tolist()[1] == int((decided & (test.label == 0)).sum())
    assert frame["decided if"].tolist() == ["likeliest", f"p ≥ {cut.threshold:.3f}"]
    assert "validation predictions of 3 repeats, pooled (19 images of covid among 169)" in texts(found)


def test_in_a_binary_task_one_threshold_decides_both_classes(write_run):
    results = results_of(write_run(finals={}, classes=("normal", "pneumonia")))
    threshold = results.operating.cut.threshold
    chosen = tables(chapter(results))["operating_points_test"].frame.set_index("decided if")
    assert chosen.index.tolist() == ["likeliest", f"pneumonia < {threshold:.3f}", "likeliest", f"p ≥ {threshold:.3f}"]
    both, other = chosen.iloc[3], chosen.iloc[1]
    assert (both["TP"], both["FN"], both["FP"], both["TN"]) == (other["TN"], other["FP"], other["FN"], other["TP"])
    assert both["sensitivity"] == other["specificity"]


def test_a_threshold_scored_where_it_was_chosen_is_said_to_be_flattered(write_run):
    found = chapter(results_of(write_run(finals={"opened": 0}, sweep={"positive_class": "covid"})))
    assert "operating_points_val" in tables(found)
    assert "chosen on the images scored here: the scores are optimistic" in texts(found)
    found = chapter(results_of(write_run("unrepeated", sweep={"positive_class": "covid"})))
    assert "on its validation predictions (19 images" in texts(found)


def test_a_multi_label_task_is_stated_at_one_half_and_at_the_tuned_thresholds(write_run):
    thresholds = {"a": 0.31, "b": 0.5, "c": 0.72}
    root = write_run(finals={"thresholds": thresholds}, task="multi_label", classes=("a", "b", "c"))
    results = results_of(root)
    found = chapter(results)
    frame = tables(found)["operating_points_test"].frame
    expected = [["a", 0.5], ["a", 0.31], ["b", 0.5], ["c", 0.5], ["c", 0.72]]
    assert frame[["class", "threshold"]].values.tolist() == expected
    assert "Not tuned, because of too few positives on validation: b." in texts(found)
    test = results.model.predictions.of("test")
    for row in frame.to_dict("records"):
        place = ("a", "b", "c").index(row["class"])
        truth, decided = test.label[:, place] == 1, test.probability[:, place] >= row["threshold"]
        expected = metrics.confusion_matrix(truth, decided).ravel().tolist()
        assert [row[key] for key in ("TN", "FP", "FN", "TP")] == expected


def test_a_multi_label_task_without_tuned_thresholds_has_one_row_a_label(write_run):
    found = chapter(results_of(write_run(task="multi_label", classes=("a", "b"))))
    assert tables(found)["operating_points_val"].frame["threshold"].tolist() == [0.5, 0.5]
    assert "no thresholds were tuned" in texts(found)


def test_a_class_that_no_image_has_or_that_is_never_answered_has_no_ratio(write_run):
    results = results_of(write_run(finals={}, never_predicted="covid"))
    images = results.model_runs("test")
    without = images.of(images.labels != 1)
    rows = operating_table(operating_points(without, None, None), "test").frame.set_index("class")
    assert np.isnan(rows.loc["covid", "PPV"]) or rows.loc["covid", "TP"] + rows.loc["covid", "FP"] > 0
    assert np.isnan(rows.loc["normal", "sensitivity"])
    assert rows.loc["normal", "sensitivity_shown"] == "–"


def test_a_positive_class_that_the_data_lacks_is_told_and_all_classes_are_stated(write_run):
    found = chapter(results_of(write_run(sweep={"positive_class": "<b>flu</b>"})))
    assert "there is no such class" in notes(found)
    assert len(tables(found)["operating_points_val"].frame) == 3


def test_two_readings_of_one_run_give_the_same_numbers(write_run):
    root = write_run(finals={})
    first, second = (tables(chapter(results_of(root)))["operating_points_test"].frame for _ in range(2))
    assert json.dumps(first.to_dict("records")) == json.dumps(second.to_dict("records"))


def with_column(root, value_of_row, name="view"):
    """Write a subgroup column into splits.csv; value_of_row: a function of a row's number and its label."""
    path = RunPaths(root).splits
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows[f"subgroup_{name}"] = [value_of_row(place, row) for place, row in enumerate(rows.to_dict("records"))]
    rows.to_csv(path, index=False)
    return root


def subgroups(root):
    found = chapter(results_of(root))
    return next(table for name, table in tables(found).items() if name.startswith("subgroup_scores_")), texts(found)


def test_a_run_without_subgroup_columns_has_no_such_part(write_run):
    assert "Subgroups" not in texts(chapter(results_of(write_run(finals={}))))


def test_each_subgroups_scores_are_the_mean_over_the_repeats_on_its_images_alone(write_run):
    root = with_column(write_run(finals={}), lambda place, row: ("AP", "PA")[place % 2])
    table, _ = subgroups(root)
    results = results_of(root)
    rows = results.data.run.rows
    view = dict(zip(rows["path"], rows["subgroup_view"], strict=True))
    assert table.name == "subgroup_scores_test"
    assert table.frame["value"].tolist() == ["", "AP", "PA"]
    for row in table.frame.to_dict("records")[1:]:
        accuracies, f1s = [], []
        for repeat in (one.of("test") for one in repeats_of_winner(results)):
            mine = np.array([view[path] == row["value"] for path in repeat.path])
            answers = repeat.probability[mine].argmax(axis=1)
            accuracies.append(metrics.accuracy_score(repeat.label[mine], answers))
            f1s.append(metrics.f1_score(repeat.label[mine], answers, average="macro"))
        assert row["images"] == mine.sum()
        assert row["accuracy"] == pytest.approx(np.mean(accuracies))
        assert row["f1_macro"] == pytest.approx(np.mean(f1s))
        assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]


def test_patients_are_counted_and_a_small_subgroup_is_marked(write_run):
    root = with_column(write_run(finals={}), lambda place, row: "rare" if place % 40 == 0 else "frequent")
    rows = subgroups(root)[0].frame.set_index("value")
    every = results_of(root).data.run.rows
    test = every[every["split"] == "test"]
    for name in ("rare", "frequent"):
        assert rows.loc[name, "patients"] == test.loc[test["subgroup_view"] == name, "group"].nunique()
    assert rows.loc["rare", "remark"].startswith("small: fewer than 20 patients")
    assert rows.loc["frequent", "remark"] == ""


def test_a_subgroup_that_lacks_a_class_has_no_macro_f1_and_says_why(write_run):
    root = with_column(write_run(finals={}), lambda place, row: "A" if row["label"] == "covid" else "B")
    rows = subgroups(root)[0].frame.set_index("value")
    assert math.isnan(rows.loc["B", "f1_macro"])
    assert "without covid: no macro F1" in rows.loc["B", "remark"]
    assert not math.isnan(rows.loc["B", "accuracy"])


def test_the_positive_class_adds_its_sensitivity(write_run):
    root = with_column(write_run(finals={}, sweep={"positive_class": "covid"}), lambda place, row: str(place % 2))
    table, _ = subgroups(root)
    assert "sensitivity, covid" in [column.title for column in table.columns]
    assert table.frame["sensitivity"].between(0, 1).all()


def test_images_without_a_value_stand_under_not_given_and_many_values_are_cut_short(write_run):
    root = with_column(write_run(finals={}), lambda place, row: f"site {place % 30}" if place % 3 else "")
    table, words = subgroups(root)
    assert len(table.frame) == 1 + MOST_VALUES
    assert "not given" in table.frame["value"].tolist()
    assert f"Only the {MOST_VALUES} most frequent values of view are shown." in words


def test_validation_stands_in_for_a_test_split_that_was_not_opened_and_is_said_to(write_run):
    table, words = subgroups(with_column(write_run(finals={"opened": 0}), lambda place, row: str(place % 2)))
    assert table.name == "subgroup_scores_val"
    assert "selected on these images" in words


def test_a_multi_label_task_counts_images_with_every_label_right(write_run):
    sizes = {"train": 80, "val": 60, "test": 60}
    root = write_run(finals={}, task="multi_label", classes=("a", "b"), labels_per_split=sizes)
    table, _ = subgroups(with_column(root, lambda place, row: str(place % 2)))
    repeats = [one.of("test") for one in repeats_of_winner(results_of(root))]
    expected = np.mean([((one.probability >= 0.5) == one.label).all(axis=1).mean() for one in repeats])
    assert table.frame["accuracy"][0] == pytest.approx(expected)
    assert "exact match" in [column.title for column in table.columns]
