"""Intervals against scipy and statsmodels, and what is said where they cannot be trusted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from statsmodels.stats.proportion import proportion_confint

from reports.scores.resampled_scores import score_runs
from reports.scores.resampling import draw_resamples
from reports.scores.statistics import bca, interval, wilson


def scored(labels, decided, groups=None, classes=("a", "b"), **settings):
    """Scores of runs whose decisions are ``decided``, [images] or [runs, images]."""
    labels, decided = np.asarray(labels), np.atleast_2d(decided)
    resamples = draw_resamples(groups or [""] * len(labels), labels, len(classes), **settings)
    return score_runs(labels, np.eye(len(classes))[decided], classes, resamples)


def noisy(count, seed=0, right=0.85, class_count=2):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % class_count
    return labels, np.where(rng.random(count) < right, labels, (labels + 1) % class_count)


@given(st.integers(1, 2000), st.data())
def test_wilsons_interval_is_that_of_statsmodels(size, data):
    count = data.draw(st.integers(0, size))
    level = data.draw(st.sampled_from([0.9, 0.95, 0.99]))
    expected = proportion_confint(count, size, alpha=1 - level, method="wilson")
    assert wilson(count / size, size, level=level) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 60), st.sampled_from([0.9, 0.95]))
def test_bounds_are_those_of_scipy_from_the_same_resamples(seed, size, level):
    rng = np.random.default_rng(seed)
    data = rng.exponential(size=size).round(2) + np.arange(size) / 1000
    found = bootstrap((data,), np.mean, n_resamples=999, confidence_level=level, method="BCa", rng=rng)
    left_out = np.array([np.delete(data, i).mean() for i in range(size)])
    expected = found.confidence_interval
    assert bca(float(data.mean()), found.bootstrap_distribution, left_out, level=level) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_the_interval_of_ungrouped_images_is_that_of_scipys_own_bootstrap(name):
    labels, decided = noisy(200)
    scores = scored(labels, decided, groups=[""] * 200, replicates=4000)
    found = bca(scores.estimate[name], scores.replicates[name], scores.left_out[name])

    def statistic(truth, answer, axis=-1):
        right = truth == answer
        if name == "accuracy":
            return right.mean(axis=axis)
        f1 = [2 * (right & (truth == c)).sum(axis) / ((truth == c).sum(axis) + (answer == c).sum(axis)) for c in (0, 1)]
        return np.mean(f1, axis=0)

    expected = bootstrap(
        (labels, decided), statistic, paired=True, vectorized=True, n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx(expected, abs=0.008)


def test_a_proportion_has_wilsons_interval_where_every_patient_has_one_image():
    labels, decided = noisy(80)
    scores = scored(labels, decided, groups=[f"p{i}" for i in range(80)])
    right, positive, answered = labels == decided, labels == 1, decided == 1
    for name, share, size in (
        ("accuracy", right.mean(), 80),
        ("recall:b", right[positive].mean(), positive.sum()),
        ("specificity:b", right[~positive].mean(), (~positive).sum()),
        ("precision:b", right[answered].mean(), answered.sum()),
        ("npv:b", right[~answered].mean(), (~answered).sum()),
    ):
        found = interval(scores, name)
        assert found.method == "Wilson"
        expected = proportion_confint(round(share * size), size, method="wilson")
        assert (found.estimate, found.low, found.high) == pytest.approx((share, *expected))
    for name in ("f1_macro", "f1:a", "balanced_accuracy", "auroc:a", "nll"):
        assert interval(scores, name).method == "bootstrap"


def test_where_patients_have_several_images_a_proportion_is_resampled_by_patient():
    labels, decided = noisy(120)
    grouped = interval(scored(labels, decided, groups=[f"p{i // 3}" for i in range(120)]), "accuracy")
    assert (grouped.method, grouped.groups) == ("bootstrap", 40)
    # Three copies of an image say no more than the image.
    copied = interval(
        scored(np.repeat(labels, 3), np.repeat(decided, 3), [f"p{i // 3}" for i in range(360)]), "f1_macro"
    )
    alone = interval(scored(labels, decided), "f1_macro")
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_an_interval_holds_its_estimate_and_a_wider_level_is_wider():
    labels, decided = noisy(150, class_count=3)
    scores = scored(labels, decided, groups=[f"p{i // 2}" for i in range(150)], classes=("a", "b", "c"))
    for name in scores.estimate:
        narrow, wide = interval(scores, name, level=0.8), interval(scores, name)
        assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high


def test_several_runs_share_an_interval_narrower_than_that_of_one():
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    runs = np.where(rng.random((5, 100)) < 0.8, labels, 1 - labels)
    grouped = [f"p{i // 2}" for i in range(100)]
    one, five = (
        interval(scored(labels, runs[:1], grouped), "f1_macro"),
        interval(scored(labels, runs, grouped), "f1_macro"),
    )
    assert five.high - five.low < 0.7 * (one.high - one.low)


def test_fewer_than_twenty_patients_is_said():
    labels, decided = noisy(76)
    few = interval(scored(labels, decided, groups=[f"p{i // 4}" for i in range(76)]), "f1_macro")
    assert few.warning == "fewer than 20 patients: interval too narrow"
    enough = interval(scored(*noisy(80), groups=[f"p{i // 4}" for i in range(80)]), "f1_macro")
    assert enough.warning == ""


def test_fewer_than_twenty_patients_of_a_class_is_said_where_that_class_counts():
    labels = np.array([0] * 12 + [1] * 88)
    decided = np.where(np.arange(100) % 7 == 0, 1 - labels, labels)
    scores = scored(labels, decided, groups=[f"p{i // 2}" for i in range(100)], classes=("covid", "normal"))
    said = "fewer than 20 patients with covid (6): interval too narrow"
    assert interval(scores, "recall:covid").warning == said
    assert interval(scores, "f1_macro").warning == said
    assert interval(scores, "specificity:normal").warning == said.replace("with covid", "without normal")
    assert interval(scores, "auroc:normal").warning == said.replace("with covid", "without normal")
    assert interval(scores, "recall:normal").warning == interval(scores, "accuracy").warning == ""
    assert (interval(scores, "f1:covid").groups, interval(scores, "f1_macro").groups) == (6, 50)


def test_images_without_patients_are_called_images():
    assert interval(scored(*noisy(16)), "f1_macro").warning == "fewer than 20 images: interval too narrow"


def test_no_error_at_all_is_not_certainty():
    labels = np.arange(60) % 2
    alone = interval(scored(labels, labels), "accuracy")
    assert (alone.method, alone.low, alone.high) == ("Wilson", pytest.approx(60 / (60 + 1.96**2), abs=1e-4), 1.0)
    scores = scored(labels, labels, groups=[f"p{i // 2}" for i in range(60)])
    grouped = interval(scores, "accuracy")
    assert (grouped.method, grouped.low) == ("Wilson over groups", pytest.approx(30 / (30 + 1.96**2), abs=1e-4))
    assert "interval too narrow" in interval(scores, "f1_macro").warning


def test_an_interval_of_nothing_is_undefined_and_says_so():
    scores = scored([0, 0, 1, 1] * 10, [0] * 40, classes=("a", "b", "c"))
    for name in ("auroc:c", "precision:b", "recall:c"):
        found = interval(scores, name)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.method == ""
        assert found.warning.startswith("undefined")


def test_classes_too_rare_to_resample_leave_no_interval():
    scores = scored(np.arange(12), np.arange(12) // 2, classes=tuple("abcdefghijkl"), replicates=300)
    found = interval(scores, "f1_macro")
    assert math.isnan(found.low)
    assert found.warning == "too few groups with each class to resample"


def test_redrawn_resamples_are_reported():
    labels = np.array([0] + [1] * 19)
    found = interval(scored(labels, np.ones(20, dtype=int)), "f1_macro")
    assert found.redrawn > 500
    assert found.replicates == 2000


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1))
def test_bounds_are_finite_ordered_and_among_the_replicates(values, left_out, estimate):
    low, high = bca(estimate, np.array(values), np.array([*left_out, math.nan]))
    assert min(values) <= low <= high <= max(values)
