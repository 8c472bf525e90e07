"""Reliability bins and the expected calibration error against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from reports.calibration import reliability

OUTCOMES = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60)


@given(OUTCOMES, st.integers(1, 20))
def test_every_image_is_in_the_bin_of_its_confidence(pairs, bins):
    outcome, confidence = np.array([o for o, _ in pairs]), np.array([c for _, c in pairs])
    found = reliability(outcome, confidence, bins=bins)
    assert found.counts.sum() == len(pairs)
    for m in range(bins):
        inside = (confidence > found.edges[m]) & (confidence <= found.edges[m + 1]) | ((m == 0) & (confidence == 0))
        assert found.counts[m] == inside.sum()
        assert found.observed[m] == pytest.approx(outcome[inside].mean() if inside.any() else np.nan, nan_ok=True)
        assert found.confidence[m] == pytest.approx(confidence[inside].mean() if inside.any() else np.nan, nan_ok=True)


@pytest.mark.parametrize("seed", range(5))
def test_bins_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(300)
    outcome = rng.random(300) < confidence
    observed, mean = calibration_curve(outcome, confidence, n_bins=10)
    found = reliability(outcome, confidence, bins=10)
    np.testing.assert_allclose(found.observed[found.counts > 0], observed)
    np.testing.assert_allclose(found.confidence[found.counts > 0], mean)
    gaps = np.abs(observed - mean) * found.counts[found.counts > 0]
    assert found.error == pytest.approx(gaps.sum() / 300)


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_images():
    outcome = np.array([True, True, False, True, False])
    found = reliability(outcome, np.array([0.95, 0.95, 0.95, 0.55, 0.55]), bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert found.error == pytest.approx(3 / 5 * (0.95 - 2 / 3) + 2 / 5 * 0.05)
