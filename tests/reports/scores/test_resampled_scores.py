"""Scores on the images are those of the trials, scores on resamples those of scikit-learn with weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from reports.scores.resampled_scores import score_runs
from reports.scores.resampling import draw_resamples
from trainables.metrics import evaluate_predictions

EPSILON = float(np.finfo(np.float32).eps)
TASKS = st.sampled_from(["single_label", "multi_label"])


def drawn(seed, task, *, images=40, classes=3, runs=1, decimals=None):
    """labels, probabilities [runs, images, classes], groups; with ``decimals``, many ties."""
    rng = np.random.default_rng(seed)
    names = tuple("abcdefghijklmn"[:classes])
    groups = [f"p{rng.integers(images)}" if rng.random() < 0.7 else "" for _ in range(images)]
    if task == "single_label":
        labels = rng.integers(0, classes, images)
        probabilities = rng.dirichlet(np.ones(classes), size=(runs, images))
    else:
        labels, probabilities = rng.integers(0, 2, (images, classes)), rng.random((runs, images, classes))
    probabilities = probabilities.astype(np.float32) if decimals is None else probabilities.round(decimals)
    return labels, probabilities, names, groups


@settings(deadline=None)
@given(st.integers(0, 10**6), TASKS, st.integers(1, 30), st.integers(2, 10), st.sampled_from([None, 1]))
def test_scores_on_the_images_are_exactly_those_of_the_trials(seed, task, images, classes, decimals):
    labels, probabilities, names, groups = drawn(seed, task, images=images, classes=classes, decimals=decimals)
    scores = score_runs(labels, probabilities, names, draw_resamples(groups, labels, classes, replicates=3))
    expected = evaluate_predictions(labels, probabilities[0], names, task)
    for name, value in expected.items():
        if name == "nll" or "macro" in name or name == "balanced_accuracy":  # sums of fractions, in any order
            assert scores.estimate[name] == pytest.approx(value, rel=1e-13, nan_ok=True)
        else:
            np.testing.assert_equal(scores.estimate[name], value)
    assert set(scores.estimate) == {*expected, *(f"npv:{c}" for c in names)}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([None, 1]))
def test_single_label_scores_on_a_resample_are_those_of_scikit_learn_with_weights(seed, classes, decimals):
    labels, probabilities, names, groups = drawn(seed, "single_label", classes=classes, decimals=decimals)
    labels[:classes] = np.arange(classes)
    resamples = draw_resamples(groups, labels, classes, replicates=3)
    scores = score_runs(labels, probabilities, names, resamples).replicates
    decided = probabilities[0].argmax(axis=1)
    for b, weights in enumerate(resamples.counts[:, resamples.member].astype(float)):
        by = {"sample_weight": weights}
        assert scores["accuracy"][b] == pytest.approx(reference.accuracy_score(labels, decided, **by))
        balanced = reference.recall_score(labels, decided, average="macro", zero_division=0, **by)
        assert scores["balanced_accuracy"][b] == pytest.approx(balanced)
        f1 = reference.f1_score(labels, decided, average="macro", zero_division=0, **by)
        assert scores["f1_macro"][b] == pytest.approx(f1)
        true, answer = np.equal.outer(labels, range(classes)).T, np.equal.outer(decided, range(classes)).T
        each = [auc(true[c], probabilities[0, :, c], weights) for c in range(classes)]
        assert scores["auroc_macro"][b] == pytest.approx(np.mean(each))
        for c, name in enumerate(names):
            assert_two_by_two(scores, name, b, true[c], answer[c], weights)
            assert scores[f"auroc:{name}"][b] == pytest.approx(each[c])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([None, 1]))
def test_multi_label_scores_on_a_resample_are_those_of_scikit_learn_with_weights(seed, classes, decimals):
    labels, probabilities, names, groups = drawn(seed, "multi_label", classes=classes, decimals=decimals)
    labels[:2] = [[0], [1]]
    resamples = draw_resamples(groups, labels, classes, replicates=3)
    thresholds = {names[0]: 0.3}
    scores = score_runs(labels, probabilities, names, resamples, thresholds=thresholds).replicates
    decided = probabilities[0].astype(float) >= [0.3, *[0.5] * (classes - 1)]
    for b, weights in enumerate(resamples.counts[:, resamples.member].astype(float)):
        exact = np.average((labels == decided).all(axis=1), weights=weights)
        assert scores["exact_match"][b] == scores["accuracy"][b] == pytest.approx(exact)
        hamming = np.average((labels == decided).mean(axis=1), weights=weights)
        assert scores["hamming_accuracy"][b] == pytest.approx(hamming)
        balanced = [reference.balanced_accuracy_score(t, d, sample_weight=weights) for t, d in pairs(labels, decided)]
        assert scores["balanced_accuracy"][b] == pytest.approx(np.mean(balanced))
        certain = np.clip(probabilities[0].astype(float), EPSILON, 1 - EPSILON)
        loss = [reference.log_loss(t, p, sample_weight=weights, labels=[0, 1]) for t, p in pairs(labels, certain)]
        assert scores["nll"][b] == pytest.approx(np.mean(loss), rel=1e-5)
        for c, name in enumerate(names):
            assert_two_by_two(scores, name, b, labels[:, c] == 1, decided[:, c], weights)
            assert scores[f"auroc:{name}"][b] == pytest.approx(auc(labels[:, c], probabilities[0, :, c], weights))


def pairs(labels, columns):
    return zip(labels.T, columns.T, strict=True)


def auc(truth, scores, weights):
    return reference.roc_auc_score(truth, scores, sample_weight=weights)


def assert_two_by_two(scores, name, b, truth, answer, weights):
    by = {"sample_weight": weights, "zero_division": 0}
    assert scores[f"precision:{name}"][b] == pytest.approx(reference.precision_score(truth, answer, **by))
    assert scores[f"recall:{name}"][b] == pytest.approx(reference.recall_score(truth, answer, **by))
    assert scores[f"specificity:{name}"][b] == pytest.approx(reference.recall_score(truth, answer, pos_label=0, **by))
    assert scores[f"npv:{name}"][b] == pytest.approx(reference.precision_score(truth, answer, pos_label=0, **by))
    assert scores[f"f1:{name}"][b] == pytest.approx(reference.f1_score(truth, answer, **by))


@settings(deadline=None)
@given(st.integers(0, 10**6), TASKS)
def test_a_configurations_score_is_the_mean_over_its_runs_on_every_resample(seed, task):
    labels, probabilities, names, groups = drawn(seed, task, runs=3, decimals=2)
    resamples = draw_resamples(groups, labels, 3, replicates=10)
    together = score_runs(labels, probabilities, names, resamples)
    alone = [score_runs(labels, run[None], names, resamples) for run in probabilities]
    for name, values in together.replicates.items():
        np.testing.assert_allclose(values, np.mean([one.replicates[name] for one in alone], axis=0), rtol=1e-12)
        np.testing.assert_allclose(together.by_run[name], [one.estimate[name] for one in alone], rtol=1e-12)
        assert together.estimate[name] == pytest.approx(together.by_run[name].mean(), nan_ok=True)


def test_leaving_a_patient_out_is_scoring_the_others():
    labels, probabilities, names, groups = drawn(3, "single_label", images=30)
    resamples = draw_resamples(groups, labels, 3, replicates=5)
    scores = score_runs(labels, probabilities, names, resamples)
    for group in range(resamples.groups):
        others = resamples.member != group
        row = int(np.flatnonzero(resamples.left_out[:, group] == 0)[0])
        expected = evaluate_predictions(labels[others], probabilities[0][others], names, "single_label")
        for name, value in expected.items():
            assert scores.left_out[name][row] == pytest.approx(value)


def test_an_auroc_that_leaving_a_patient_out_undefines_is_nan_there_alone():
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]])
    scores = score_runs(labels, probabilities, ("a", "b"), draw_resamples([""] * 4, labels, 2))
    assert np.isnan(scores.left_out["auroc:a"]).sum() == 1
    assert np.isfinite(scores.replicates["auroc:a"]).all()


def test_patients_and_images_behind_a_score_are_counted():
    labels = np.array([0, 0, 1, 1, 1])
    probabilities = np.eye(2)[[[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]]]
    scores = score_runs(labels, probabilities, ("a", "b"), draw_resamples(["p", "p", "q", "r", ""], labels, 2))
    assert (scores.positives, scores.negatives) == ({"a": 1, "b": 3}, {"a": 3, "b": 1})
    assert scores.proportion_of["accuracy"] == 5
    assert (scores.proportion_of["recall:a"], scores.proportion_of["specificity:a"]) == (2, 3)
    assert (scores.proportion_of["precision:a"], scores.proportion_of["npv:a"]) == (1.5, 3.5)
    assert "f1:a" not in scores.proportion_of
