"""Whether a probability of 0.8 is right eight times in ten: reliability bins, their error, and the Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from reports.bootstrap import Runs, Scores, with_means

BINS = 10
SELECTION = "the answer given"

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


@dataclass(frozen=True)
class Claim:
    """What a probability is of. given: float64 [R, N] in [0, 1]; came_true: bool [R, N].

    key: ends the names of its scores.
    """

    name: str
    key: str
    given: Array
    came_true: NDArray[np.bool_]

    @cached_property
    def bins(self) -> list[Reliability]:
        """Of each run."""
        return [reliability(true, given, bins=BINS) for true, given in zip(self.came_true, self.given, strict=True)]


@dataclass(frozen=True)
class Calibration:
    """What a network claims, and scores of it.

    scores: with ``difference<key>`` (mean given less observed) and ``brier<key>`` of every claim, and ``brier_all``:
    summed over classes, 0 to 2 (Brier, Monthly Weather Review 78, 1950); multi-label: the mean over labels.
    brier_of_shares: the Brier score of a network that always says how frequent a class is, by key, ``_all`` too.
    """

    claims: tuple[Claim, ...]
    scores: Scores
    brier_of_shares: dict[str, float]


def calibration(images: Runs) -> Calibration:
    """Of a single-label task that the answer is right, of every task that a class is there."""
    given, truth = images.probabilities.astype(np.float64), images.truth
    claims = []
    if not images.multi_label:
        right = given.argmax(axis=2) == images.labels
        claims.append(Claim(SELECTION, "_decision", given.max(axis=2), right))
    for place, name in enumerate(images.classes):
        true = np.broadcast_to(truth[:, place], given.shape[:2])
        claims.append(Claim(name, f":{name}", given[:, :, place], true))
    values = {}
    for one in claims:
        values[f"difference{one.key}"] = one.given - one.came_true
        values[f"brier{one.key}"] = (one.given - one.came_true) ** 2
    over_classes = np.mean if images.multi_label else np.sum
    values["brier_all"] = over_classes([values[f"brier:{name}"] for name in images.classes], axis=0)
    shares = truth.mean(axis=0)
    of_shares = {f":{name}": float(share * (1 - share)) for name, share in zip(images.classes, shares, strict=True)}
    of_shares["_all"] = float(over_classes(list(of_shares.values())))
    return Calibration(tuple(claims), with_means(images.scores(), values), of_shares)


def reliability(outcome: NDArray[np.bool_], confidence: Array, *, bins: int) -> Reliability:
    """A probability against how often what it is of came true; of one label of a multi-label task, for example.

    outcome: bool [N]; confidence: [N] in [0, 1], N > 0.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    counts = np.bincount(place, minlength=bins)
    mean, observed = (
        np.divide(np.bincount(place, weights=x, minlength=bins), counts, out=np.full(bins, np.nan), where=counts > 0)
        for x in (confidence, outcome)
    )
    error = float((counts * np.nan_to_num(np.abs(mean - observed))).sum() / len(outcome))
    return Reliability(edges, counts.astype(np.int64), mean, observed, error)
