"""Average precision and means over images, on the images and on every resample, against scikit-learn and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from reports.scores.added_scores import with_average_precision, with_means
from reports.scores.resampled_scores import score_runs
from reports.scores.resampling import draw_resamples
from reports.scores.statistics import interval


def some_runs(seed: int, images: int, classes: int, *, multi_label: bool, decimals: int):
    """Labels, probabilities [2, N, C] with ties, and scores on resamples of patients."""
    rng = np.random.default_rng(seed)
    names = [f"c{place}" for place in range(classes)]
    if multi_label:
        labels = (rng.random((images, classes)) < 0.3).astype(np.uint8)
        probabilities = rng.random((2, images, classes)).round(decimals)
    else:
        labels = rng.integers(0, classes, images)
        probabilities = rng.dirichlet(np.ones(classes), (2, images)).round(decimals)
    groups = [f"patient {rng.integers(0, images)}" for _ in range(images)]
    resamples = draw_resamples(groups, labels, classes, replicates=8)
    return labels, probabilities, score_runs(labels, probabilities, names, resamples, auroc=False)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(5, 60),
    classes=st.integers(2, 4),
    multi_label=st.booleans(),
    decimals=st.integers(1, 6),
)
def test_average_precision_is_that_of_scikit_learn_on_the_images_and_on_every_resample(
    seed, images, classes, multi_label, decimals
):
    labels, probabilities, scores = some_runs(seed, images, classes, multi_label=multi_label, decimals=decimals)
    found = with_average_precision(scores, labels, probabilities)
    truth = labels == 1 if multi_label else labels[:, None] == np.arange(classes)
    member = scores.resamples.member
    for place, name in enumerate(scores.classes):
        one = truth[:, place]
        if not one.any() or one.all():
            assert math.isnan(found.estimate[f"ap:{name}"])
            continue
        of_runs = [average_precision_score(one, run[:, place]) for run in probabilities]
        np.testing.assert_allclose(found.by_run[f"ap:{name}"], of_runs)
        assert found.estimate[f"ap:{name}"] == pytest.approx(np.mean(of_runs))
        for row, counts in zip(found.replicates[f"ap:{name}"], scores.resamples.counts, strict=True):
            weights = counts[member]
            expected = [average_precision_score(one, run[:, place], sample_weight=weights) for run in probabilities]
            assert row == pytest.approx(np.mean(expected))


def test_a_mean_over_images_weighs_a_patient_as_often_as_it_was_drawn():
    labels, _, scores = some_runs(1, 30, 2, multi_label=False, decimals=3)
    values = np.random.default_rng(0).normal(size=(2, len(labels)))
    found = with_means(scores, {"size": values})
    np.testing.assert_allclose(found.by_run["size"], values.mean(axis=1))
    for row, counts in zip(found.replicates["size"], scores.resamples.counts, strict=True):
        weights = counts[scores.resamples.member]
        assert row == pytest.approx(np.mean([np.average(one, weights=weights) for one in values]))
    out = values[:, scores.resamples.member != 0].mean()
    assert found.left_out["size"][np.flatnonzero(scores.resamples.left_out[:, 0] == 0)[0]] == pytest.approx(out)


def test_an_added_score_gets_its_interval_like_the_others():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 80)
    probabilities = rng.dirichlet(np.ones(2), (3, 80))
    resamples = draw_resamples([""] * 80, labels, 2, replicates=400)
    scores = score_runs(labels, probabilities, ["a", "b"], resamples, auroc=False)
    found = interval(with_average_precision(scores, labels, probabilities), "ap:b")
    assert found.method == "bootstrap"
    assert found.low < found.estimate < found.high


def test_a_mean_over_classes_says_of_which_few_patients_have_any():
    labels = np.repeat([0, 1], [100, 8])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2), (1, 108))
    resamples = draw_resamples([f"p{place}" for place in range(108)], labels, 2, replicates=300)
    scores = score_runs(labels, probabilities, ["many", "few"], resamples, auroc=False)
    found = interval(with_average_precision(scores, labels, probabilities), "ap_macro")
    assert found.warning == "fewer than 20 patients with few (8): interval too narrow"
