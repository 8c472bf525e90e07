"""The data card's facts."""

from __future__ import annotations

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score

from reports.trials import data_tables

DATASET = {
    "task": "single_label",
    "classes": ["covid", "normal"],
    "counts": {"val": {"covid": 3, "normal": 9}, "train": {"covid": 10, "normal": 30}},
    "images": {"train": 40, "val": 12},
}


def test_class_counts_stand_in_the_order_of_the_splits_with_all_images_below():
    found = data_tables.class_counts(DATASET)
    assert list(found.columns) == ["class", "train", "val", "total"]
    assert found.to_numpy().tolist() == [["covid", 10, 3, 13], ["normal", 30, 9, 39], ["all images", 40, 12, 52]]


def test_images_with_several_labels_are_counted_once_in_the_last_row():
    dataset = DATASET | {"task": "multi_label", "images": {"train": 31, "val": 10}}
    assert data_tables.class_counts(dataset).iloc[-1].tolist() == ["all images", 31, 10, 41]


def test_the_majority_baseline_is_what_a_classifier_that_ignores_the_image_scores():
    train = ["covid"] * 10 + ["normal"] * 30
    val = ["covid"] * 3 + ["normal"] * 9
    guess = DummyClassifier(strategy="most_frequent").fit([[0]] * 40, train).predict([[0]] * 12)
    found = data_tables.majority_baseline(DATASET)
    assert found is not None
    assert found["accuracy"] == pytest.approx(accuracy_score(val, guess))
    assert found["f1_macro"] == pytest.approx(f1_score(val, guess, average="macro", zero_division=0))


def test_there_is_no_majority_baseline_of_several_labels_or_unknown_counts():
    assert data_tables.majority_baseline(DATASET | {"task": "multi_label"}) is None
    assert data_tables.majority_baseline({}) is None


def test_findings_stand_the_gravest_first_with_examples():
    dataset = {
        "checks": [
            {"check": "tiny_class", "severity": "info", "message": "m", "count": 1, "items": []},
            {"check": "groups", "severity": "error", "message": "m", "count": 9, "items": [["a", "b"]] * 9},
            {"check": "near", "severity": "warning", "message": "m", "count": 1, "items": [["c"]]},
        ]
    }
    found = data_tables.hygiene(dataset)
    assert list(found["severity"]) == ["error", "warning", "info"]
    assert found["examples"].tolist() == ["a = b; a = b; a = b", "c", ""]


def test_weights_show_their_file_without_the_folders_of_this_machine_and_say_where_batchnorm_is_folded():
    weights = {
        "resnet18": {"origin": "folder", "path": "/home/me/w/resnet18-ab.pth", "sha256": "ab" * 32},
        "vgg16": {"origin": "random", "path": None, "folded_batchnorm": False},
        "mobilenet_v2": {"origin": "folder", "path": "m.pth", "folded_batchnorm": True, "note": "n"},
    }
    found = data_tables.weights({"weights": weights}).set_index("backbone")
    assert found.loc["resnet18", "file"] == "resnet18-ab.pth"
    assert found["batchnorm"].to_dict() == {"mobilenet_v2": "FOLDED", "resnet18": "normal", "vgg16": "normal"}


def test_an_empty_record_gives_empty_tables():
    for make in (data_tables.hygiene, data_tables.dropped, data_tables.subgroups, data_tables.source_by_class):
        assert make({}).empty
    assert data_tables.weights({}).empty
    assert data_tables.class_counts({}).to_numpy().tolist() == [["all images", 0]]


def test_sources_are_rows_and_a_class_may_be_called_source():
    counts = {"source": {"a": 3}, "normal": {"a": 1, "b": 2}}
    found = data_tables.source_by_class({"source_by_class": counts})
    assert found.to_numpy().tolist() == [["a", 3, 1], ["b", 0, 2]]
    assert list(found.columns) == ["source of the images", "source", "normal"]
