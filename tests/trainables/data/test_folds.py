"""Folds for grouped cross-validation."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables.data.folds import deal, write_folds

CLASSES = ("covid", "normal", "pneumonia")


def rows(patients: int, seed: int) -> tuple[list[str], list[str]]:
    labels, groups = [], []
    for patient in range(patients):
        for image in range(1 + (patient * 7 + seed) % 3):
            labels.append(CLASSES[patient % 3] if image < 2 else CLASSES[(patient + 1) % 3])
            groups.append(f"p{patient}")
    return labels, groups


@settings(deadline=None, max_examples=25)
@given(patients=st.integers(30, 90), count=st.integers(2, 5), seed=st.integers(0, 2**32 + 5))
def test_no_patient_is_in_two_folds_and_every_class_is_in_each(patients: int, count: int, seed: int) -> None:
    labels, groups = rows(patients, seed)
    folds = deal(labels, groups, CLASSES, count, seed)
    assert set(folds) == set(range(count))
    fold_of = {}
    for group, fold in zip(groups, folds, strict=True):
        assert fold_of.setdefault(group, fold) == fold
    assert {(fold, label) for fold, label in zip(folds, labels, strict=True)} == {
        (fold, label) for fold in range(count) for label in CLASSES
    }
    assert folds == deal(labels, [f"{hash(group)}" for group in groups], CLASSES, count, seed), "names change nothing"


def test_several_labels_are_in_every_fold() -> None:
    labels = ["covid|pneumonia", "pneumonia", "", "normal"] * 12
    folds = deal(labels, [""] * 48, CLASSES, 4, 0)
    for name in CLASSES:
        assert {fold for fold, label in zip(folds, labels, strict=True) if name in label.split("|")} == {0, 1, 2, 3}


def test_a_class_of_fewer_patients_than_folds_is_refused_by_name() -> None:
    labels = ["covid"] * 6 + ["normal"] * 30
    groups = ["a", "a", "a", "b", "b", "b", *(f"n{k}" for k in range(30))]
    with pytest.raises(UserError, match="--folds 3: class 'covid' has 2 groups in train and val: give fewer folds"):
        deal(labels, groups, ("covid", "normal"), 3, 0)


def test_each_image_validates_once_and_test_stays_test(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "path", "split", "label", "group", "subgroup_sex"])
        for place in range(60):
            split = ("train", "train", "val", "test")[place % 4]
            writer.writerow([place, f"ü {place}.png", split, CLASSES[place % 3], f"g{place // 2}", "f"])
    folds = [tmp_path / f"fold_{k}.csv" for k in (1, 2, 3)]
    write_folds(table, folds, CLASSES, 0)
    validated = []
    for path in folds:
        with path.open(encoding="utf-8", newline="") as stream:
            dealt = list(csv.DictReader(stream))
        assert [row["path"] for row in dealt] == [f"ü {place}.png" for place in range(60)]
        assert [row["row"] for row in dealt if row["split"] == "test"] == [str(place) for place in range(3, 60, 4)]
        validated += [row["row"] for row in dealt if row["split"] == "val"]
    assert sorted(validated, key=int) == [str(place) for place in range(60) if place % 4 != 3]
