"""Scores that the metrics of an epoch do not have, resampled like the others: average precision, means over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.scores.resampled_scores import Array, Scores

_CELLS = 4_000_000  # weights looked at together: 16 MB


def with_average_precision(scores: Scores, labels: NDArray[Any], probabilities: NDArray[Any]) -> Scores:
    """``scores`` with ``ap:c`` of each class, one against the rest, and ``ap_macro``, their mean.

    labels: int [N] or 0/1 [N, C]; probabilities: [R, N, C]; as for ``score_runs``. Average precision is the mean of the
    precision over the recall, without interpolation (as in scikit-learn). NaN where no image, or every image, is of the
    class; NaN where leaving out a patient leaves no image of it.
    """
    truth = labels == 1 if labels.ndim == 2 else np.equal(labels[:, None], np.arange(len(scores.classes)))
    weights = _weights(scores)
    rows = {}
    for place, name in enumerate(scores.classes):
        runs = [_average_precision(truth[:, place], run[:, place], weights, scores) for run in probabilities]
        rows[f"ap:{name}"] = np.stack(runs)
    rows["ap_macro"] = np.mean(list(rows.values()), axis=0)
    return _added(scores, rows)


def with_means(scores: Scores, values: Mapping[str, NDArray[Any]]) -> Scores:
    """``scores`` with the mean over images of each of ``values``, [R, N]."""
    weights, resamples = _weights(scores), scores.resamples
    rows = {}
    for name, value in values.items():
        summed = np.stack([np.bincount(resamples.member, weights=one, minlength=resamples.groups) for one in value])
        sizes = np.bincount(resamples.member, minlength=resamples.groups)
        rows[name] = summed @ weights / (sizes @ weights)
    return _added(scores, rows)


def _weights(scores: Scores) -> NDArray[np.float32]:
    """float32 [G, 1 + B + J]: how often each group counts, first in the images themselves."""
    resamples = scores.resamples
    once = np.ones((1, resamples.groups))
    return np.ascontiguousarray(np.concatenate([once, resamples.counts, resamples.left_out]).T.astype(np.float32))


def _added(scores: Scores, rows: Mapping[str, Array]) -> Scores:
    """``scores`` and those of ``rows``, each [R, 1 + B + J]."""
    end = 1 + scores.resamples.replicates
    return replace(
        scores,
        estimate=scores.estimate | {name: float(row[:, 0].mean()) for name, row in rows.items()},
        by_run=scores.by_run | {name: row[:, 0] for name, row in rows.items()},
        replicates=scores.replicates | {name: row[:, 1:end].mean(axis=0) for name, row in rows.items()},
        left_out=scores.left_out | {name: row[:, end:].mean(axis=0) for name, row in rows.items()},
    )


def _average_precision(
    truth: NDArray[np.bool_], probability: NDArray[Any], weights: NDArray[np.float32], scores: Scores
) -> Array:
    """[1 + B + J] of one class and run: the sum over distinct probabilities of gained recall times precision."""
    found = np.full(weights.shape[1], np.nan)
    if not truth.any() or truth.all():
        return found
    order = np.argsort(-probability, kind="stable")
    falling, hit = probability[order], truth[order]
    last_of_tie = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    # Recall grows only at a probability that an image of the class has: the images between two of these are summed.
    ends = last_of_tie[np.unique(np.searchsorted(last_of_tie, np.flatnonzero(hit)))]
    starts = np.append(0, ends[:-1] + 1)
    hits = np.flatnonzero(hit)
    member = scores.resamples.member[order]
    step = max(1, _CELLS // len(member))
    for at in range(0, len(found), step):
        part = weights[:, at : at + step]
        # Whole numbers below 2^24: float32 is exact.
        count = np.add.reduceat(part[member[: ends[-1] + 1]], starts, axis=0).cumsum(axis=0)
        gained = np.add.reduceat(part[member[hits]], np.searchsorted(hits, starts), axis=0)
        precision = np.divide(
            gained.cumsum(axis=0), count, out=np.zeros(count.shape), where=count > 0, dtype=np.float64
        )
        positives = gained.sum(axis=0, dtype=np.float64)
        area = np.einsum("ek,ek->k", gained, precision, dtype=np.float64)
        found[at : at + step] = np.divide(area, positives, out=np.full(len(area), np.nan), where=positives > 0)
    return found
