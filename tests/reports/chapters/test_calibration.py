"""Calibration: means, errors and Brier scores against scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from in_chapter import figures, repeats, results_of, tables, texts
from run_files import rewrite
from sklearn import metrics
from sklearn.calibration import calibration_curve

from reports.chapters.calibration import chapter
from reports.probabilities import BINS, SELECTION


def rows(results):
    (table,) = tables(chapter(results)).values()
    return table.frame.set_index("probability of")


def test_each_class_has_its_brier_score_and_its_mean_probability_over_the_repeats(write_run):
    results = results_of(write_run(finals={}))
    frame, parts = rows(results), repeats(results)
    for place, name in enumerate(results.data.classes):
        truth = parts[0].label == place
        given = [one.probability[:, place].astype(float) for one in parts]
        row = frame.loc[name]
        assert row["Brier"] == pytest.approx(np.mean([metrics.brier_score_loss(truth, one) for one in given]))
        assert row["given"] == pytest.approx(np.mean(given))
        assert row["observed"] == pytest.approx(truth.mean())
        assert row["difference"] == pytest.approx(np.mean(given) - truth.mean())
        always = np.full(len(truth), truth.mean())
        assert row["Brier of the share"] == pytest.approx(metrics.brier_score_loss(truth, always))
    whole = np.mean([metrics.brier_score_loss(one.label, one.probability, scale_by_half=False) for one in parts])
    assert frame.loc["all classes (sum)", "Brier"] == pytest.approx(whole, abs=1e-6)
    assert frame.loc["all classes (sum)", "Brier_low"] < whole < frame.loc["all classes (sum)", "Brier_high"]


def test_the_answers_own_confidence_is_checked_too(write_run):
    results = results_of(write_run(finals={}))
    row, errors = rows(results).loc[SELECTION], []
    for one in repeats(results):
        right, given = one.label == one.probability.argmax(axis=1), one.probability.max(axis=1).astype(float)
        observed, mean = calibration_curve(right, given, n_bins=BINS)
        counts = np.histogram(given, bins=np.linspace(0, 1, BINS + 1))[0]
        errors.append(np.abs(observed - mean) @ counts[counts > 0] / len(right))
    assert row["ECE"] == pytest.approx(np.mean(errors))
    assert row["ECE of each repeat"] == ", ".join(f"{value:.3f}" for value in errors)
    accuracies = [metrics.accuracy_score(one.label, one.probability.argmax(1)) for one in repeats(results)]
    assert row["observed"] == pytest.approx(np.mean(accuracies))


def test_a_multi_label_task_checks_each_label_and_takes_the_mean_of_them(write_run):
    sizes = {"train": 60, "val": 60, "test": 60}
    results = results_of(write_run(finals={}, task="multi_label", classes=("a", "b"), labels_per_split=sizes))
    frame = rows(results)
    assert frame.index.tolist() == ["a", "b", "all labels (mean)"]
    each = [
        metrics.brier_score_loss(one.label[:, place], one.probability[:, place])
        for one in repeats(results)
        for place in range(2)
    ]
    assert frame.loc["all labels (mean)", "Brier"] == pytest.approx(np.mean(each))


def test_the_binning_is_stated_and_the_diagram_told_in_words(write_run):
    found = chapter(results_of(write_run(finals={"opened": 0})))
    figure = figures(found)["reliability_val"]
    assert "10 bins of equal width" in texts(found)
    assert f"covid {float(rows_text(found, 'covid')):.3f}" in figure.alt


def rows_text(found, name):
    """The ECE of the first repeat."""
    (table,) = tables(found).values()
    return table.frame.set_index("probability of").loc[name, "ECE of each repeat"].split(", ")[0]


def test_a_network_that_is_always_sure_and_right_is_drawn_without_a_warning(write_run):
    root = write_run(trials=1)
    (path,) = root.glob("trials/*/best/predictions.npz")
    rewrite(path, probability=lambda arrays: np.eye(3, dtype=np.float32)[arrays["label"]])
    frame = rows(results_of(root))
    assert (frame["ECE"].dropna() == 0).all()
    assert frame.loc["all classes (sum)", "Brier"] == 0


def test_without_predictions_there_is_a_sentence(write_run):
    assert "no predictions" in texts(chapter(results_of(write_run(statuses=("failed",)))))
