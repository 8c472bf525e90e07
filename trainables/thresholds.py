"""The probability from which a label of a multi-label task is decided, chosen on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNTUNED = 0.5
FEWEST_POSITIVES = 30
"""Below so many images with a label, its best threshold on validation is chance more than knowledge."""


def tune_thresholds(labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str]) -> dict[str, float]:
    """The threshold of each label that maximises its F1, by label.

    labels: 0/1 [N, C], the distinct validation images. probabilities: float [R, N, C], of R repeats, which are pooled:
    one threshold serves all of them. A label is decided where its probability is at least the threshold. Candidates lie
    halfway between neighbouring probabilities; of equally good ones the nearest to 0.5 is taken. A label with fewer
    than ``FEWEST_POSITIVES`` positives keeps 0.5.
    """
    found = {}
    for place, name in enumerate(classes):
        truth = labels[:, place].astype(bool)
        if truth.sum() < FEWEST_POSITIVES:
            found[name] = UNTUNED
        else:
            found[name] = _best(np.tile(truth, len(probabilities)), probabilities[:, :, place].reshape(-1))
    return found


def _best(truth: NDArray[np.bool_], probability: NDArray[Any]) -> float:
    order = np.argsort(-probability, kind="stable")
    sorted_probability = probability[order].astype(np.float64)
    true_positives = truth[order].cumsum()
    decided = np.arange(1, len(order) + 1)
    f1 = 2 * true_positives / (decided + truth.sum())
    # A cut is possible only where the probability changes; the last one decides every image.
    following = np.append(sorted_probability[1:], 0.0)
    possible = sorted_probability > following
    cuts = (sorted_probability[possible] + following[possible]) / 2
    best = f1[possible] >= f1[possible].max() - 1e-12
    candidates = cuts[best]
    return float(candidates[np.abs(candidates - UNTUNED).argmin()])
