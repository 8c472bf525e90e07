"""Whether a probability of 0.8 is right eight times in ten: reliability bins, their error, and the Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of confidence, M of them; bin m holds (edges[m], edges[m + 1]], the first one also 0.

    edges: [M + 1] from 0 to 1. counts: int64 [M], images in the bin. confidence, observed: [M], the mean confidence
    and the part that was right (or positive); NaN in an empty bin. error: the expected calibration error, in [0, 1].
    """

    edges: Array
    counts: NDArray[np.int64]
    confidence: Array
    observed: Array
    error: float


def top_label_reliability(labels: NDArray[Any], probabilities: NDArray[Any], *, bins: int = 10) -> Reliability:
    """Of the class decided for: its probability against how often it is right (Guo et al., ICML 2017, section 2).

    labels: int [N]; probabilities: [N, C], N > 0. Ties of probability go to the first class, as in the metrics.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    return reliability(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1), bins=bins)


def reliability(outcome: NDArray[Any], confidence: NDArray[Any], *, bins: int = 10) -> Reliability:
    """A probability against how often what it is of came true; of one label of a multi-label task, for example.

    outcome: bool or 0/1 [N]; confidence: [N] in [0, 1], N > 0.
    """
    outcome, confidence = np.asarray(outcome, dtype=np.float64), np.asarray(confidence, dtype=np.float64)
    assert outcome.shape == confidence.shape == (len(outcome),) != (0,), "one outcome a confidence, at least one"
    edges = np.linspace(0, 1, bins + 1)
    place = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    counts = np.bincount(place, minlength=bins)
    mean, observed = (
        np.divide(np.bincount(place, weights=x, minlength=bins), counts, out=np.full(bins, np.nan), where=counts > 0)
        for x in (confidence, outcome)
    )
    error = float((counts * np.nan_to_num(np.abs(mean - observed))).sum() / len(outcome))
    return Reliability(edges, counts.astype(np.int64), mean, observed, error)


def brier_score(labels: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """The mean squared distance of probabilities from what was true (Brier, Monthly Weather Review 78, 1950).

    labels: int [N] in 0..C-1, where it is summed over classes, 0 (best) to 2; or 0/1 [N, C] (multi-label), where it
    is the mean over labels, 0 to 1. probabilities: [N, C], N > 0.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim == 2:
        return float(((probabilities - labels) ** 2).mean())
    truth = np.equal(labels[:, None], np.arange(probabilities.shape[1]))
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())
