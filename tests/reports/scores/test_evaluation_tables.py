"""Confusion matrices and scores, recomputed from the predictions on disk, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from reports.scores import evaluation_tables
from sweep.records import Predictions, read_predictions, read_run


def best_predictions(root) -> Predictions:
    predictions = read_predictions(read_run(root), "t00000")
    assert predictions is not None
    return predictions


def test_the_matrix_of_a_split_is_that_of_its_images_alone(built):
    predictions = best_predictions(built)
    chosen = predictions.split == "val"
    expected = metrics.confusion_matrix(predictions.label[chosen], predictions.probability[chosen].argmax(axis=1))
    np.testing.assert_array_equal(evaluation_tables.matrix(predictions, "val"), expected)


def test_rows_are_normalised_to_one_and_an_empty_row_is_undefined():
    shares = evaluation_tables.row_normalised(np.array([[3, 1], [0, 0]]))
    np.testing.assert_array_equal(shares, [[0.75, 0.25], [np.nan, np.nan]])


def test_per_class_scores_equal_those_of_scikit_learn(built):
    predictions = best_predictions(built)
    labels, probabilities = evaluation_tables.of_split(predictions, "val")
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, probabilities.argmax(axis=1))
    found = evaluation_tables.per_class(predictions, "val")
    np.testing.assert_allclose(found[["precision", "recall", "f1"]], np.column_stack([precision, recall, f1]))
    np.testing.assert_array_equal(found["images"], support)


def test_a_label_table_gives_the_ratios_of_its_two_by_two(write_run):
    predictions = best_predictions(write_run(task="multi_label", classes=("a", "b"), trials=1))
    found = evaluation_tables.label_frame(evaluation_tables.matrix(predictions, "train"), ("a", "b"))
    labels, probabilities = evaluation_tables.of_split(predictions, "train")
    for place, row in enumerate(found.to_dict("records")):
        truth, answer = labels[:, place], probabilities[:, place] >= 0.5
        assert [row["TN"], row["FP"], row["FN"], row["TP"]] == metrics.confusion_matrix(truth, answer).ravel().tolist()
        assert row["sensitivity"] == pytest.approx(metrics.recall_score(truth, answer))
        assert row["PPV"] == pytest.approx(metrics.precision_score(truth, answer))
        assert row["specificity"] == pytest.approx(metrics.recall_score(truth, answer, pos_label=0))
        assert row["NPV"] == pytest.approx(metrics.precision_score(truth, answer, pos_label=0))


def test_a_class_that_is_never_answered_is_found(write_run):
    predictions = best_predictions(write_run(never_predicted="normal", trials=1))
    assert evaluation_tables.never_predicted(predictions, "val") == ["normal"]
