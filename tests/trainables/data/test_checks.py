from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainables.data.checks import cramers_v, doubtful_classes, examine, small_counts
from trainables.data.image import ImageStats
from trainables.data.near_duplicates import LEAST_CORRELATION, NearPair, NearPairs
from trainables.data.samples import CheckResult, Samples


def samples_of(count: int, **changes: object) -> Samples:
    whole = Samples(
        kind="table",
        path="m.csv",
        task="single_label",
        classes=("a", "b"),
        paths=tuple(f"{row}.png" for row in range(count)),
        files=(),
        labels=np.arange(count) % 2,
        splits=None,
    )
    return dataclasses.replace(whole, **changes)


def examined(
    samples: Samples,
    splits: list[str],
    hashes: str = "",
    near: tuple[NearPair, ...] = (),
    skipped: int = 0,
    least: float = LEAST_CORRELATION,
) -> list[CheckResult]:
    names = hashes or [str(row) for row in range(len(samples))]
    stats = [ImageStats(pixel_hash=name) for name in names]
    found = examine(samples, stats, NearPairs(near, skipped, least), np.array(splits))
    return [result for result in found if not result.check.startswith("tiny")]


def test_clean_data_gives_no_finding() -> None:
    assert examined(samples_of(40), ["train"] * 40) == []


@pytest.mark.parametrize(
    ("classes", "count", "found"),
    [
        (("Pos", "pos", "neg"), 40, "classes 'Pos', 'pos' differ only in case or spacing"),
        ([str(number) for number in range(60, 84)], 96, "24 different numbers, such as 60 and 83"),
        ([str(number) for number in range(24)], 240, ""),
        ([f"bird {number}" for number in range(24)], 96, ""),
        ([str(number) for number in range(10)], 40, ""),
    ],
)
def test_classes_that_may_be_none_are_a_warning(classes: tuple[str, ...], count: int, found: str) -> None:
    samples = samples_of(count, classes=tuple(classes), labels=np.arange(count) % len(classes))
    results = doubtful_classes(samples)
    assert [result.severity for result in results] == ["warning"] * bool(found)
    assert all(found in result.message for result in results)
    assert all(result in small_counts(samples, np.array(["train"] * count)) for result in results)


def test_errors_come_first() -> None:
    near = (NearPair(0, 1, 0.98),)
    found = examined(samples_of(4), ["train", "train", "train", "val"], "abcc", near)
    assert [result.severity for result in found] == ["error", "warning", "info"]
    assert [result.check for result in found] == ["duplicates_across_splits", "two_labels", "near_duplicates"]


@pytest.mark.parametrize("near", [(), (NearPair(0, 1, 0.98),)])
def test_a_search_for_near_duplicates_that_was_cut_says_how_much_was_left(near: tuple[NearPair, ...]) -> None:
    (result, *_) = examined(samples_of(1200), ["train"] * 1200, near=near, skipped=1024)
    assert (result.check, result.severity, result.count) == ("near_duplicates_cut", "warning", 1024)
    assert "1,024" in result.message


def test_near_duplicates_are_listed_with_the_most_alike_first() -> None:
    near = (NearPair(0, 1, 0.93), NearPair(0, 2, 0.99), NearPair(1, 3, 0.98))
    (across, within) = examined(samples_of(4), ["train", "train", "val", "train"], near=near)
    assert (across.check, across.count) == ("near_duplicates_across_splits", 1)
    assert within.items == (("1.png", "3.png"), ("0.png", "1.png"))


def test_a_set_in_which_all_images_are_alike_is_told_that_pairs_may_be_missed() -> None:
    (result,) = examined(samples_of(2), ["train", "train"], least=0.963)
    assert (result.check, result.severity) == ("near_duplicates_blunt", "info")
    assert "0.963" in result.message


@pytest.mark.parametrize(
    ("labels", "contradict"), [([[1, 0], [1, 0]], False), ([[1, -1], [-1, 0]], False), ([[1, 0], [0, 0]], True)]
)
def test_a_missing_label_contradicts_none(labels: list[list[int]], contradict: bool) -> None:
    samples = samples_of(2, task="multi_label", labels=np.array(labels, dtype=np.int8))
    found = [result.check for result in examined(samples, ["train", "train"], "aa")]
    assert ("two_labels" in found) == contradict


def test_missing_labels_take_no_part_in_what_goes_with_the_source() -> None:
    labels = np.array([[1, -1], [1, -1], [0, -1], [0, -1], [-1, -1], [-1, -1]], dtype=np.int8)
    sources = ("a", "b", "a", "b", "c", "c")
    samples = samples_of(6, task="multi_label", labels=labels, sources=sources)
    (result,) = [one for one in examined(samples, ["train"] * 6) if one.check == "source_by_class"]
    assert "Cramer's V = 0.00" in result.message


def test_a_long_list_is_cut_and_its_count_is_not() -> None:
    found = examined(samples_of(200), ["train"] * 200, "".join(chr(1000 + row // 2) for row in range(200)))
    assert [len(result.to_dict()["items"]) for result in found] == [0, 50, 50]  # copied classes have no list
    assert [result.count for result in found] == [2, 100, 100]


def test_rows_without_a_group_are_counted_and_cross_nothing() -> None:
    (result,) = examined(samples_of(4, group_from="pid", groups=("", "", "x", "x")), ["train", "val", "val", "val"])
    assert (result.check, result.severity, result.count) == ("group_unknown", "warning", 2)


def test_a_subgroup_of_too_many_values_is_shown() -> None:
    ages = {"age": tuple(str(row) for row in range(40))}
    (result,) = examined(samples_of(40, subgroups=ages), ["train"] * 40)
    assert result.message == "subgroup column 'age' has 40 different values: few images in each"


def test_class_missing_from_test_warns() -> None:
    found = examined(samples_of(4), ["train", "train", "val", "test"])
    assert [(result.check, result.message) for result in found] == [("missing_class", "class 'a' has no image in test")]


@pytest.mark.parametrize(
    ("first", "second", "strength"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
        ([0, 0, 1, 1], [0, 1, 0, 1], 0.0),
        ([0, 0, 1, 1], [0, 0, 0, 0], 0.0),
        ([0, 0, 0, 1, 2, 2], [0, 0, 2, 1, 1, 1], 0.5**0.5),
        ([], [], 0.0),
    ],
)
def test_cramers_v_of_the_plain_cases(first: list[int], second: list[int], strength: float) -> None:
    assert cramers_v(np.array(first), np.array(second)) == pytest.approx(strength)
