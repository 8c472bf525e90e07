"""The published rows as facts: complete, consistent with their own matrices, every flaw explained."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from reports.trials.published_rows import FLAWS, OF_STUDIES, flaws_of, in_short, published, task_of
from search_spaces.studies import DESCRIPTIONS, rows_of

ROWS = published()


def test_every_row_of_our_study_spaces_is_there_and_no_other():
    ours = {(row.id, study) for study in DESCRIPTIONS for row in rows_of(study)}
    assert set(zip(ROWS["id"], ROWS["study"], strict=True)) == ours
    assert ROWS["id"].is_unique


def test_a_claimed_backbone_is_that_of_the_runnable_row():
    by_id = {row.id: row for study in DESCRIPTIONS for row in rows_of(study)}
    for row in ROWS.to_dict("records"):
        params = by_id[row["id"]].params
        assert params is None or params.backbone == row["backbone"], row["id"]


def test_macro_f1_of_a_two_class_matrix_is_scikit_learns():
    row = ROWS.set_index("id").loc["W1"]  # 515 100 / 10 875
    truth = np.repeat([0, 0, 1, 1], [515, 100, 10, 875])
    answer = np.repeat([0, 1, 0, 1], [515, 100, 10, 875])
    assert row["f1_macro"] == pytest.approx(f1_score(truth, answer, average="macro"))
    assert row["recall"] == pytest.approx(515 / 615)
    assert row["accuracy_matrix"] == pytest.approx(1390 / 1500)
    assert row["low"] < 1390 / 1500 < row["high"]


def test_macro_f1_of_label_matrices_is_the_mean_of_the_labels_own():
    row = ROWS.set_index("id").loc["W9"]  # covid never found: 0, .939, .891
    assert row["f1_macro"] == pytest.approx((0 + 0.939 + 0.891) / 3, abs=1e-3)
    assert row["recall"] == 0
    assert math.isnan(row["accuracy_matrix"])


def test_pooled_bits_and_rows_without_a_matrix_have_no_macro_f1():
    rows = ROWS.set_index("id")
    assert np.isnan(rows.loc[["M13", "M22", "Z5a", "H13"], "f1_macro"]).all()


def test_reported_accuracies_are_those_of_the_matrices_but_for_rounding_and_the_row_that_is_known_to_differ():
    both = ROWS.dropna(subset=["accuracy", "accuracy_matrix"])
    away = (both["accuracy"] - both["accuracy_matrix"]).abs()
    assert set(both.loc[away > 0.011, "id"]) == {"H5"}


def test_no_covid_found_is_marked_exactly_where_the_matrix_says_so():
    three = ROWS[ROWS["task"] == "three_findings"]
    assert set(three.loc[three["recall"] == 0, "id"]) == {
        row["id"] for row in three.to_dict("records") if 17 in row["flaws"]
    }


def test_every_flaw_is_explained_and_stands_somewhere():
    used = {number for flaws in ROWS["flaws"] for number in flaws} | set(OF_STUDIES)
    assert used == set(FLAWS) == set(range(1, 24))
    assert all(13 in flaws for flaws in ROWS["flaws"])


@pytest.mark.parametrize(
    ("classes", "task"),
    [
        (("covid", "normal", "pneumonia"), "three_findings"),
        (("Pneumonia", "COVID-19", "Normal"), "three_findings"),
        (("normal", "Infected"), "two_findings"),
        (("normal", "pneumonia"), None),
        (("consolidation", "diffuse", "normal"), None),
        (("normal", "normal", "covid"), None),
        ((), None),
    ],
)
def test_a_data_set_has_a_studys_task_if_it_has_its_classes(classes, task):
    assert task_of(classes) == task


def test_flaws_name_their_rows():
    two = ROWS[ROWS["task"] == "two_findings"]
    facts = flaws_of(two).set_index("number")
    assert facts.loc[13, "rows"] == "all"
    assert facts.loc[2, "rows"] == "H5, H6, A5"
    assert facts.loc[12, "rows"] == "figures of bscs17028, msds18022"
    assert 17 not in facts.index


def test_ids_in_a_row_are_written_as_a_range():
    assert in_short(["M1", "M2", "M3", "M5", "M6", "Z5a", "Z6"]) == "M1–M3, M5, M6, Z5a, Z6"
    assert in_short([]) == ""
