"""Section 4 as a whole: which splits it shows, and what it says where something is odd."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from reports.data import gather
from reports.page.blocks import Note, Picture, Pictures
from reports.scores.shown import repeats_of_winner, shown
from reports.sections.confusion import section
from sweep.run_folder import RunPaths


def notes(found) -> str:
    return " ".join(block.text for block in found.blocks if isinstance(block, Note))


def tables(found):
    return {table.name: table for table in found.tables()}


def keep_rows(root, trial_id, chosen):
    """Keep only those rows of a repeat's predictions; chosen: a function of its arrays."""
    path = RunPaths(root).repeat(trial_id).predictions
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    rows = chosen(arrays)
    for name in ("path", "split", "label", "probability"):
        arrays[name] = arrays[name][rows]
    np.savez(path, **arrays)


def test_the_matrices_of_train_validation_and_test_are_counts_and_shares_of_the_model_files_predictions(write_run):
    evidence = gather(write_run(finals={}))
    found = tables(section(evidence))
    predictions = shown(evidence).predictions
    for split in ("train", "val", "test"):
        part = predictions.of(split)
        expected = metrics.confusion_matrix(part.label, part.probability.argmax(axis=1))
        np.testing.assert_array_equal(found[f"confusion_{split}"].frame.iloc[:, 1:-1], expected)
        np.testing.assert_allclose(
            found[f"confusion_{split}_shares"].frame.iloc[:, 1:-1].astype(float),
            expected / expected.sum(axis=1, keepdims=True),
        )


def test_the_splits_stand_side_by_side_with_the_mean_of_the_repeats(write_run):
    evidence = gather(write_run(finals={}))
    frame = tables(section(evidence))["split_scores"].frame.set_index("split")
    assert frame.index.tolist() == ["training", "validation", "test"]
    of_each = [
        metrics.f1_score(part.label, part.probability.argmax(axis=1), average="macro")
        for part in (one.of("test") for one in repeats_of_winner(evidence))
    ]
    assert frame.loc["test", "f1_macro"] == pytest.approx(of_each[0])
    assert frame.loc["test", "f1_macro_mean"] == pytest.approx(np.mean(of_each))
    assert frame.loc["test", "f1_macro_low"] < frame.loc["test", "f1_macro"] < frame.loc["test", "f1_macro_high"]
    assert frame.loc["training", "f1_macro_shown"] == f"{frame.loc['training', 'f1_macro']:.3f}"


def test_pictures_have_words_for_who_cannot_see_them(write_run):
    found = section(gather(write_run(finals={})))
    pictures = [picture for block in found.blocks if isinstance(block, Pictures) for picture in block.items]
    assert [picture.name for picture in pictures] == ["confusion_train", "confusion_val", "confusion_test"]
    assert all(isinstance(picture, Picture) and "on the diagonal" in picture.alt for picture in pictures)


def test_a_class_that_is_missing_from_a_split_is_named_and_its_scores_are_undefined(write_run):
    root = write_run(finals={})
    for name in ("seed_1001", "seed_1002", "seed_1003"):
        keep_rows(root, f"t0000/{name}", lambda arrays: (arrays["split"] != "test") | (arrays["label"] != 0))
    found = section(gather(root))
    assert "No test image has covid" in notes(found)
    row = tables(found)["per_class_test"].frame.iloc[0]
    assert row["images"] == 0
    assert np.isnan(row["recall"])
    assert np.isnan(row["auroc"])


def test_a_class_that_is_never_predicted_is_named_for_each_split(write_run):
    found = section(gather(write_run(finals={}, never_predicted="covid")))
    assert tables(found)["per_class_val"].frame.shape[0] == 3
    evidence = gather(write_run("single", never_predicted="covid"))
    assert "Never predicted on validation: covid." in notes(section(evidence))


def test_an_opened_test_split_without_saved_rows_is_told(write_run):
    root = write_run(finals={})
    keep_rows(root, "t0000/seed_1001", lambda arrays: arrays["split"] != "test")
    assert "these predictions hold no test images" in notes(section(gather(root)))


def test_a_substitute_for_the_model_files_predictions_is_told(write_run):
    root = write_run(finals={})
    RunPaths(root).repeat("t0000/seed_1001").predictions.write_bytes(b"torn")
    found = notes(section(gather(root)))
    assert "The predictions of t0000/seed_1001 cannot be read: repeat seed_1002 of trial 0 is shown instead." in found


def test_predictions_of_a_repeat_that_contradict_its_record_are_told(write_run):
    root = write_run(finals={})
    keep_rows(root, "t0000/seed_1001", lambda arrays: np.arange(len(arrays["path"])) % 2 == 0)
    assert "one of the two is damaged" in notes(section(gather(root)))


@pytest.mark.parametrize("count", [2, 15])
def test_any_number_of_labels_makes_a_section(write_run, count):
    labels = [f"label <{place}>" for place in range(count)]
    sizes = {"train": 60, "val": 60, "test": 60}
    root = write_run(finals={}, task="multi_label", classes=labels, labels_per_split=sizes, trials=1)
    found = tables(section(gather(root)))
    assert found["labels_test"].frame["label"].tolist() == labels
    assert len(found["operating_points_test"].frame) == count
