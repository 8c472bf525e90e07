"""Scores of subgroups: of the right images, with patients counted, weak rows marked."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from reports.data import gather
from reports.page.blocks import Table, Text
from reports.scores.shown import repeats_of_winner
from reports.sections.subgroups import MOST_VALUES, blocks
from sweep.run_folder import RunPaths


def with_column(root, value_of_row, name="view"):
    """Write a subgroup column into splits.csv; value_of_row: a function of a row's number and its label."""
    path = RunPaths(root).splits
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows[f"subgroup_{name}"] = [value_of_row(place, row) for place, row in enumerate(rows.to_dict("records"))]
    rows.to_csv(path, index=False)
    return root


def parts(root):
    found = blocks(gather(root))
    table = next(block for block in found if isinstance(block, Table))
    return table, " ".join(block.text for block in found if isinstance(block, Text))


def test_a_run_without_subgroup_column_has_no_such_part(write_run):
    assert blocks(gather(write_run(finals={}))) == []


def test_each_subgroups_scores_are_the_mean_over_the_repeats_on_its_images_alone(write_run):
    root = with_column(write_run(finals={}), lambda place, row: ("AP", "PA")[place % 2])
    table, _ = parts(root)
    evidence = gather(root)
    view = dict(zip(evidence.run.rows["path"], evidence.run.rows["subgroup_view"], strict=True))
    assert table.name == "subgroup_scores_test"
    assert table.frame["value"].tolist() == ["", "AP", "PA"]
    for row in table.frame.to_dict("records")[1:]:
        accuracies, f1s = [], []
        for repeat in (one.of("test") for one in repeats_of_winner(evidence)):
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
    rows = parts(root)[0].frame.set_index("value")
    evidence = gather(root)
    test = evidence.run.rows[evidence.run.rows["split"] == "test"]
    for name in ("rare", "frequent"):
        assert rows.loc[name, "patients"] == test.loc[test["subgroup_view"] == name, "group"].nunique()
    assert rows.loc["rare", "remark"].startswith("small: fewer than 20 patients")
    assert rows.loc["frequent", "remark"] == ""


def test_a_subgroup_that_lacks_a_class_has_no_macro_f1_and_says_why(write_run):
    root = with_column(write_run(finals={}), lambda place, row: "A" if row["label"] == "covid" else "B")
    rows = parts(root)[0].frame.set_index("value")
    assert math.isnan(rows.loc["B", "f1_macro"])
    assert "without covid: no macro F1" in rows.loc["B", "remark"]
    assert not math.isnan(rows.loc["B", "accuracy"])


def test_the_positive_class_adds_its_sensitivity(write_run):
    root = with_column(write_run(finals={}, sweep={"positive_class": "covid"}), lambda place, row: str(place % 2))
    table, _ = parts(root)
    assert "sensitivity, covid" in [column.title for column in table.columns]
    assert table.frame["sensitivity"].between(0, 1).all()


def test_images_without_a_value_stand_under_not_given_and_many_values_are_cut_short(write_run):
    root = with_column(write_run(finals={}), lambda place, row: f"site {place % 30}" if place % 3 else "")
    table, words = parts(root)
    assert len(table.frame) == 1 + MOST_VALUES
    assert "not given" in table.frame["value"].tolist()
    assert f"Only the {MOST_VALUES} most frequent values are shown of view." in words


def test_validation_stands_in_for_a_test_split_that_was_not_opened_and_is_said_to(write_run):
    root = with_column(write_run(finals={"opened": 0}), lambda place, row: str(place % 2))
    table, words = parts(root)
    assert table.name == "subgroup_scores_val"
    assert "The test split was not opened" in words


def test_a_multi_label_task_counts_images_with_every_label_right(write_run):
    root = write_run(
        finals={}, task="multi_label", classes=("a", "b"), labels_per_split={"train": 80, "val": 60, "test": 60}
    )
    table, _ = parts(with_column(root, lambda place, row: str(place % 2)))
    repeats = [one.of("test") for one in repeats_of_winner(gather(root))]
    expected = np.mean([((one.probability >= 0.5) == one.label).all(axis=1).mean() for one in repeats])
    assert table.frame["accuracy"][0] == pytest.approx(expected)
    assert "exact match" in [column.title for column in table.columns]
