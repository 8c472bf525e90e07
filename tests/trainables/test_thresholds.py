"""Thresholds of labels, chosen on validation."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from trainables.thresholds import FEWEST_POSITIVES, UNTUNED, tune_thresholds


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), repeats=st.integers(1, 3), shift=st.floats(-2, 2))
def test_no_other_cut_has_a_better_f1(seed: int, repeats: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((120, 1)) < 0.5).astype(np.uint8)
    logits = 1.5 * truth + shift + rng.normal(size=(repeats, 120, 1))
    probability = (1 / (1 + np.exp(-logits))).round(2).astype(np.float32)
    threshold = tune_thresholds(truth, probability, ["effusion"])["effusion"]
    pooled = np.tile(truth[:, 0], repeats)
    scores = probability.reshape(-1)
    best = max(f1_score(pooled, scores >= cut, zero_division=0) for cut in np.linspace(0, 1, 101))
    assert f1_score(pooled, scores >= threshold, zero_division=0) >= best - 1e-12


def test_a_label_with_few_positives_keeps_one_half() -> None:
    labels = np.zeros((200, 2), dtype=np.uint8)
    labels[: FEWEST_POSITIVES - 1, 0] = 1
    labels[:FEWEST_POSITIVES, 1] = 1
    probability = np.where(labels == 1, 0.2, 0.1)[None]
    found = tune_thresholds(labels, probability, ["rare", "known"])
    assert found["rare"] == UNTUNED
    assert 0.1 < found["known"] <= 0.2


def test_repeats_count_no_positive_twice() -> None:
    labels = np.zeros((200, 1), dtype=np.uint8)
    labels[:12] = 1
    probability = np.tile(np.where(labels == 1, 0.2, 0.1)[None], (5, 1, 1))
    assert tune_thresholds(labels, probability, ["rare"]) == {"rare": UNTUNED}


def test_of_equal_cuts_the_nearest_to_one_half_is_taken() -> None:
    labels = np.repeat([[1], [0]], 40, axis=0)
    probability = np.repeat([[0.9], [0.3]], 40, axis=0)[None]
    assert abs(tune_thresholds(labels, probability, ["a"])["a"] - 0.6) < 1e-9
