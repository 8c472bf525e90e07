"""Splits and folds: no group is cut in two, every class is where it has to be."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables.data.splits import (
    GIVEN,
    SEEDED,
    VAL_FROM_TRAIN,
    Assignment,
    assign_folds,
    assign_splits,
    first_try,
    kept_together,
    label_strata,
    missing_classes,
    write_folds,
)

SPLITS = {"train", "val", "test"}


@st.composite
def grouped_labels(draw: st.DrawFn) -> tuple[np.ndarray, list[str]]:
    """Labels of 3 classes and groups of 1 to 4 rows; some groups are not known."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = rng.integers(1, 5, size=draw(st.integers(5, 120)))
    groups = np.repeat([f"p{i}" if rng.random() > 0.1 else "" for i in range(len(sizes))], sizes)
    labels = rng.choice(3, size=len(groups), p=[0.6, 0.3, 0.1])
    return labels.astype(np.int64), [str(group) for group in groups]


@settings(max_examples=40)
@given(grouped_labels(), st.integers(0, 1000))
def test_no_group_crosses_splits_and_every_row_has_one(data: tuple[np.ndarray, list[str]], seed: int) -> None:
    labels, groups = data
    assignment = assign_splits(None, labels, groups, seed)
    assert assignment.origin == SEEDED
    assert set(assignment.splits) <= SPLITS
    assert "train" in assignment.splits
    for group in set(groups) - {""}:
        assert len({split for split, name in zip(assignment.splits, groups, strict=True) if name == group}) == 1


@settings(max_examples=25)
@given(grouped_labels(), st.integers(0, 1000))
def test_same_seed_gives_the_same_splits(data: tuple[np.ndarray, list[str]], seed: int) -> None:
    labels, groups = data
    first, second = (assign_splits(None, labels, groups, seed).splits for _ in range(2))
    assert np.array_equal(first, second)


def test_another_seed_gives_other_splits() -> None:
    labels = np.repeat(np.arange(2), 100)
    assert not np.array_equal(assign_splits(None, labels, None, 0).splits, assign_splits(None, labels, None, 1).splits)


@settings(max_examples=40)
@given(counts=st.lists(st.integers(3, 400), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_each_class_is_split_about_70_15_15(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    assignment = assign_splits(None, labels, None, seed)
    splits = assignment.splits
    for name, count in enumerate(counts):
        for split, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs((splits[labels == name] == split).sum() - share * count) <= 1.3
    assert missing_classes(labels, assignment, [str(name) for name in range(len(counts))]) == []


def test_groups_are_split_about_70_15_15_and_stratified() -> None:
    rng = np.random.default_rng(0)
    groups = [f"p{number}" for number in rng.integers(0, 400, 1500)]
    labels = rng.choice(3, 1500, p=[0.5, 0.4, 0.1])
    splits = assign_splits(None, labels, groups, 3).splits
    for name in range(3):
        shares = [(splits[labels == name] == split).mean() for split in ("train", "val", "test")]
        assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


def test_a_class_of_seven_patients_is_in_every_split() -> None:
    labels = np.array([0] * 200 + [1] * 14)
    groups = [f"p{row // 2}" for row in range(214)]
    splits = assign_splits(None, labels, groups, 0).splits
    assert set(splits[labels == 1]) == SPLITS


def test_no_table_of_images_times_classes_is_made() -> None:
    labels, classes = np.arange(40_000) % 2_000, [str(number) for number in range(2_000)]
    tracemalloc.start()
    assignment = assign_splits(None, labels, None, 0)
    assert missing_classes(labels, assignment, classes) == []
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < len(labels) * len(classes) / 4


def test_folds_of_many_classes_take_a_byte_an_image_and_class() -> None:
    classes = [f"class {number}" for number in range(400)]
    labels = [classes[row % 400] for row in range(4_000)]
    tracemalloc.start()
    assign_folds(labels, [""] * len(labels), classes, 2, 0)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 4 * len(labels) * len(classes)


def test_given_splits_are_kept() -> None:
    given_splits = ["train", "val", "test", "train"]
    assignment = assign_splits(given_splits, np.array([0, 1, 0, 1]), None, 0)
    assert list(assignment.splits) == given_splits
    assert assignment.origin == GIVEN


def test_val_is_taken_from_train_only() -> None:
    labels = np.tile([0, 1], 100)
    given_splits = ["train"] * 150 + ["test"] * 50
    assignment = assign_splits(given_splits, labels, None, 0)
    assert assignment.origin == VAL_FROM_TRAIN
    assert set(assignment.splits[150:]) == {"test"}
    assert 20 <= (assignment.splits[:150] == "val").sum() <= 24


def test_no_test_split_is_allowed_but_no_train_is_not() -> None:
    assert assign_splits(["train", "val"], np.array([0, 1]), None, 0).origin == GIVEN
    with pytest.raises(UserError, match="no image is in train"):
        assign_splits(["val", "test"], np.array([0, 1]), None, 0)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(UserError, match="2 groups cannot be split into train, val, test"):
        assign_splits(None, np.tile([0, 1], 10), ["a"] * 10 + ["b"] * 10, 0)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(40, 300))
def test_multi_label_splits_hold_every_common_label(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 4)) < [0.5, 0.4, 0.3, 0.3]).astype(np.uint8)
    splits = assign_splits(None, labels, None, 0).splits
    assert all(labels[splits == split].sum(axis=0).min() > 0 for split in SPLITS)


def test_rare_label_combinations_are_merged_by_their_rarest_label() -> None:
    common = [[1, 0, 0]] * 20 + [[0, 1, 0]] * 20
    rare = [[1, 0, 1]] * 3 + [[0, 1, 1]] * 2
    strata = label_strata(np.array(common + rare, dtype=np.uint8))
    assert len(set(strata[:20])) == len(set(strata[20:40])) == len(set(strata[40:])) == 1
    assert len(set(strata)) == 3


def assigned(splits: list[str], origin: str = GIVEN) -> Assignment:
    return Assignment(np.array(splits), origin)


def test_missing_class_is_named_with_its_split() -> None:
    splits = assigned(["train", "train", "val", "test"])
    problems = missing_classes(np.array([0, 1, 0, 0]), splits, ["ill", "well"])
    assert problems == [
        "class 'well' has no image in val, which has 1 images: every class must be in train and val; list those to "
        "keep in --classes"
    ]


def test_classes_too_rare_for_a_drawn_split_are_told_in_one_sentence_with_the_way_out() -> None:
    labels, classes = np.repeat([0, 1, 2, 3, 4], [20, 2, 1, 2, 9]), ["common", "rare_a", "rare_b", "rare_c", "second"]
    assert missing_classes(labels, assign_splits(None, labels, None, 0), classes) == [
        "too rare to be in train, val and test: rare_a (2 images), rare_b (1 image), rare_c (2 images); leave out "
        "small classes with --min-class-images 3, or list those to keep: --classes common,second"
    ]


def test_a_class_of_few_groups_is_not_told_to_go_by_its_images() -> None:
    labels, classes = np.repeat([0, 1, 2], [9, 9, 20]), ["a", "b", "c"]
    groups = [f"p{row}" for row in range(18)] + ["q"] * 20
    assert missing_classes(labels, assign_splits(None, labels, groups, 0), classes, groups) == [
        "too rare to be in train, val and test: c (20 images of 1 group); list those to keep: --classes a,b"
    ]


def test_where_every_class_is_rare_they_are_hardly_classes() -> None:
    labels = np.arange(20)
    (problem,) = missing_classes(labels, assign_splits(None, labels, None, 0), [str(label) for label in labels])
    assert "and 10 more; hardly any class is left: check that these are classes" in problem


def test_splits_that_name_a_class_differently_are_told_so() -> None:
    labels = np.array([0, 1, 0, 1, 2, 3])
    given_splits = ["train"] * 4 + ["test"] * 2
    assignment = assign_splits(given_splits, labels, None, 0)
    problems = missing_classes(labels, assignment, ["Normal", "Ill", "normal", "ill"])
    assert [problem.split(",")[0] for problem in problems[:2]] == [
        "class 'normal' has no image in train",
        "class 'ill' has no image in train",
    ]
    assert problems[2].startswith("test has normal, ill where train has Normal, Ill: if these are the same classes")


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 99))
def test_a_class_of_three_groups_is_in_every_split(chance: int, seed: int) -> None:
    rng = np.random.default_rng(chance)
    sizes = rng.integers(1, 9, size=40)
    of_group = np.concatenate([np.repeat([0, 1, 2], 3), rng.integers(0, 3, size=31)])
    labels, groups = np.repeat(of_group, sizes), np.repeat([f"p{group}" for group in range(40)], sizes).tolist()
    splits = assign_splits(None, labels, groups, seed).splits
    assert {(str(split), int(label)) for split, label in zip(splits, labels, strict=True)} == {
        (split, label) for split in SPLITS for label in range(3)
    }


@pytest.mark.parametrize("seed", range(20))
def test_a_label_that_nobody_has_decided_is_not_there(seed: int) -> None:
    """Six patients have it; of all others it is not known."""
    rng = np.random.default_rng(seed)
    other = np.tile([0, 1], 30)[:, None]
    labels = np.concatenate([np.where(np.arange(60)[:, None] < 6, 1, -1), other], axis=1).astype(np.int8)
    order = rng.permutation(60)
    labels, groups = labels[order].repeat(2, axis=0), np.repeat([f"p{patient}" for patient in order], 2).tolist()
    assignment = assign_splits(None, labels, groups, seed)
    assert all((labels[assignment.splits == split] == 1).any(axis=0).all() for split in SPLITS)


def test_label_that_all_images_carry_is_refused() -> None:
    labels = np.array([[1, 0], [1, 1], [1, 1], [0, 0]], dtype=np.int8)
    problems = missing_classes(labels, assigned(["train", "train", "val", "val"]), ["lung", "opacity"])
    assert problems == ["label 'lung' is set for all 2 images in train: it cannot be learned"]


def test_a_label_that_all_images_carry_of_which_it_is_known_is_refused_too() -> None:
    labels = np.array([[1, 0], [-1, 1], [1, 1], [0, 0]], dtype=np.int8)
    problems = missing_classes(labels, assigned(["train", "train", "val", "val"]), ["lung", "opacity"])
    assert problems == ["label 'lung' is set for all 1 images in train: it cannot be learned"]


@settings(max_examples=40)
@given(grouped_labels(), st.integers(0, 1000))
def test_equal_images_stay_together_across_groups(data: tuple[np.ndarray, list[str]], seed: int) -> None:
    labels, groups = data
    same = np.random.default_rng(seed).integers(0, len(labels) * 2, size=len(labels))
    assume(len(np.unique(kept_together(groups, len(labels), same))) >= 3)
    splits = assign_splits(None, labels, groups, seed, same).splits
    for keys in (same.tolist(), groups):
        for key in set(keys) - {""}:
            assert len({split for split, name in zip(splits, keys, strict=True) if name == key}) == 1


def test_images_linked_by_a_third_one_are_kept_together() -> None:
    units = kept_together(["a", "a", "b", "", ""], 5, np.array([0, 1, 1, 2, 3]))
    assert units[0] == units[1] == units[2]
    assert len(set(units)) == 3


@settings(max_examples=40)
@given(grouped_labels(), st.integers(10, 100), st.booleans())
def test_a_first_try_takes_whole_groups_from_every_split(
    data: tuple[np.ndarray, list[str]], most: int, given_splits: bool
) -> None:
    labels, groups = data
    units = kept_together(groups, len(labels))
    splits = assign_splits(None, labels, groups, 0).splits.tolist() if given_splits else None
    rows = first_try(labels, splits, units, min(most, len(labels)), 0)
    assert len(rows) <= most
    assert not set(units[rows]) & set(np.delete(units, rows))
    assert np.array_equal(rows, np.unique(rows))


def test_a_first_try_keeps_the_shares_of_classes_and_splits() -> None:
    labels, splits = np.tile([0, 0, 0, 1], 250), np.repeat(["train", "test"], [800, 200])
    rows = first_try(labels, splits.tolist(), np.arange(1000), 100, 0)
    assert sorted(
        zip(*np.unique([f"{splits[row]} {labels[row]}" for row in rows], return_counts=True), strict=True)
    ) == [
        ("test 0", 15),
        ("test 1", 5),
        ("train 0", 60),
        ("train 1", 20),
    ]


FINDINGS = ("covid", "normal", "pneumonia")


def rows_of(patients: int, seed: int) -> tuple[list[str], list[str]]:
    labels, groups = [], []
    for patient in range(patients):
        for image in range(1 + (patient * 7 + seed) % 3):
            labels.append(FINDINGS[patient % 3] if image < 2 else FINDINGS[(patient + 1) % 3])
            groups.append(f"p{patient}")
    return labels, groups


@settings(max_examples=25)
@given(patients=st.integers(30, 90), count=st.integers(2, 5), seed=st.integers(0, 2**32 + 5))
def test_no_patient_is_in_two_folds_and_every_class_is_in_each(patients: int, count: int, seed: int) -> None:
    labels, groups = rows_of(patients, seed)
    folds = assign_folds(labels, groups, FINDINGS, count, seed)
    assert set(folds) == set(range(count))
    fold_of = {}
    for group, fold in zip(groups, folds, strict=True):
        assert fold_of.setdefault(group, fold) == fold
    assert {(fold, label) for fold, label in zip(folds, labels, strict=True)} == {
        (fold, label) for fold in range(count) for label in FINDINGS
    }
    renamed = [f"{hash(group)}" for group in groups]
    assert (folds == assign_folds(labels, renamed, FINDINGS, count, seed)).all(), "names change nothing"


def test_equal_images_are_in_one_fold_with_their_groups() -> None:
    labels, same = [FINDINGS[place % 3] for place in range(90)], np.arange(90)
    same[45:75] = np.arange(30)
    groups = [""] * 75 + [f"p{place % 5}" for place in range(15)]
    folds = assign_folds(labels, groups, FINDINGS, 3, 0, same)
    assert (folds[45:75] == folds[:30]).all()
    assert (assign_folds(labels, groups, FINDINGS, 3, 0)[45:75] != folds[:30]).any()


def test_a_name_with_a_bar_is_one_class_and_no_two() -> None:
    folds = assign_folds(["a|b", "a", "b"] * 10, [""] * 30, ("a", "a|b", "b"), 5, 0)
    assert sorted(np.bincount(folds).tolist()) == [6] * 5


def test_several_labels_are_in_every_fold() -> None:
    labels = ["covid|pneumonia", "pneumonia", "", "normal"] * 12
    folds = assign_folds(labels, [""] * 48, FINDINGS, 4, 0)
    for name in FINDINGS:
        assert {fold for fold, label in zip(folds, labels, strict=True) if name in label.split("|")} == {0, 1, 2, 3}


def test_a_class_of_fewer_patients_than_folds_is_refused_by_name() -> None:
    labels = ["covid"] * 6 + ["normal"] * 30
    groups = ["a", "a", "a", "b", "b", "b", *(f"n{k}" for k in range(30))]
    with pytest.raises(UserError, match="--folds 3: class 'covid' has 2 groups in train and val: give fewer folds"):
        assign_folds(labels, groups, ("covid", "normal"), 3, 0)


def test_each_image_validates_once_and_test_stays_test(tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["row", "path", "split", "label", "group", "equal", "subgroup_sex"])
        for place in range(60):
            split = ("train", "train", "val", "test")[place % 4]
            equal = str(place % 30) if place in (8, 38) else ""
            writer.writerow([place, f"ü {place}.png", split, FINDINGS[place % 3], f"g{place // 2}", equal, "f"])
    folds = [tmp_path / f"fold_{k}.csv" for k in (1, 2, 3)]
    write_folds(table, folds, FINDINGS, 0)
    validated = []
    for path in folds:
        with path.open(encoding="utf-8", newline="") as stream:
            assigned = list(csv.DictReader(stream))
        assert [row["path"] for row in assigned] == [f"ü {place}.png" for place in range(60)]
        assert [row["row"] for row in assigned if row["split"] == "test"] == [str(place) for place in range(3, 60, 4)]
        validated += [row["row"] for row in assigned if row["split"] == "val"]
        assert assigned[8]["split"] == assigned[38]["split"]
    assert sorted(validated, key=int) == [str(place) for place in range(60) if place % 4 != 3]
