"""The threshold chosen on validation by Youden's J, and reliability bins, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_chapter import repeats, results_of
from sklearn import metrics
from sklearn.calibration import calibration_curve

from reports.bootstrap import Runs
from reports.probabilities import BINS, calibration_error, chance_calibration_error, reliability, youden


@settings(max_examples=80)
@given(seed=st.integers(0, 10_000), images=st.integers(2, 50), decimals=st.integers(1, 5))
def test_youdens_threshold_has_the_greatest_sensitivity_plus_specificity_of_all(seed, images, decimals):
    rng = np.random.default_rng(seed)
    truth = rng.random(images) < 0.4
    probability = rng.random(images).round(decimals).astype(np.float32)
    threshold = youden(truth, probability)
    if truth.all() or not truth.any():
        assert threshold is None
        return
    decided = probability >= threshold
    index = decided[truth].mean() - decided[~truth].mean()
    false_positive_rate, sensitivity, _ = metrics.roc_curve(truth, probability, drop_intermediate=False)
    # Deciding nothing, which roc_curve adds, is worth no more than deciding everything.
    assert index == pytest.approx((sensitivity - false_positive_rate)[1:].max())


@pytest.mark.parametrize(("images", "least", "most"), [(40, 0.07, 0.2), (4000, 0.0, 0.03)])
def test_what_chance_makes_of_a_calibrated_networks_error(images, least, most):
    rng, errors, by_chance = np.random.default_rng(0), [], []
    for _ in range(30):
        sure = rng.uniform(0.5, 1, images).astype(np.float32)
        truth = (rng.random(images) >= sure).astype(np.int64)
        names, places = np.array([str(row) for row in range(images)]), ("",) * images
        runs = Runs(("a",), ("x", "y"), truth, np.stack([sure, 1 - sure], axis=1)[None], names, places)
        errors.append(calibration_error(runs))
        by_chance.append(chance_calibration_error(runs))
    assert np.mean(by_chance) == pytest.approx(np.mean(errors), abs=0.015)
    assert least < np.mean(by_chance) < most


def test_of_equally_good_thresholds_the_one_nearest_to_one_half_is_taken():
    truth = np.array([True, False, True, False, False])
    # Cuts at 0.85 and 0.45 find one and both positives; 0.45 is better. Without the second positive they are equal.
    probability = np.array([0.9, 0.8, 0.5, 0.4, 0.1], dtype=np.float32)
    assert youden(truth, probability) == pytest.approx(0.45)
    tied = np.array([True, False, True, False])
    assert youden(tied, np.array([0.95, 0.7, 0.5, 0.3], dtype=np.float32)) == pytest.approx(0.4)


def test_the_threshold_is_of_the_validation_images_of_all_repeats_pooled(write_run):
    results = results_of(write_run(finals={}, sweep={"positive_class": "covid"}))
    pooled = repeats(results, "val")
    truth = np.concatenate([part.label == 0 for part in pooled])
    expected = youden(truth, np.concatenate([part.probability[:, 0] for part in pooled]))
    assert results.operating.cut.threshold == expected


OUTCOMES = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60)


@given(OUTCOMES)
def test_every_image_is_in_the_bin_of_its_confidence(pairs):
    outcome, confidence = np.array([o for o, _ in pairs]), np.array([c for _, c in pairs])
    found = reliability(outcome, confidence)
    assert found.counts.sum() == len(pairs)
    edges = np.linspace(0, 1, BINS + 1)
    for m in range(BINS):
        inside = (confidence > edges[m]) & (confidence <= edges[m + 1]) | ((m == 0) & (confidence == 0))
        assert found.counts[m] == inside.sum()
        assert found.observed[m] == pytest.approx(outcome[inside].mean() if inside.any() else np.nan, nan_ok=True)
        assert found.confidence[m] == pytest.approx(confidence[inside].mean() if inside.any() else np.nan, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_bins_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(300)
    outcome = rng.random(300) < confidence
    observed, mean = calibration_curve(outcome, confidence, n_bins=10)
    found = reliability(outcome, confidence)
    np.testing.assert_allclose(found.observed[found.counts > 0], observed)
    np.testing.assert_allclose(found.confidence[found.counts > 0], mean)
    gaps = np.abs(observed - mean) * found.counts[found.counts > 0]
    assert found.error == pytest.approx(gaps.sum() / 300)


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_images():
    outcome = np.array([True, True, False, True, False])
    found = reliability(outcome, np.array([0.95, 0.95, 0.95, 0.55, 0.55]))
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert found.error == pytest.approx(3 / 5 * (0.95 - 2 / 3) + 2 / 5 * 0.05)
