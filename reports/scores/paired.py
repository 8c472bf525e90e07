"""The winner against each other finalist, on the same images, resample by resample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from reports.scores.resampled_scores import Array, Scores
from reports.scores.resampling import Resamples
from reports.scores.statistics import FEWEST_REPLICATES, few_groups, scarcest


@dataclass(frozen=True)
class Comparison:
    """difference: the winner's score less the other's, means over their runs. low, high: its 95 % bounds. p: two-sided;
    p_holm: corrected for the number of finalists compared. NaN where too few resamples were drawn. warning: or ''."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    warning: str


@dataclass(frozen=True)
class McNemar:
    """first_only, second_only: images that only one of the two decided rightly; p: exact, two-sided."""

    first_only: int
    second_only: int
    p: float


def compare(
    winner: Scores, others: Mapping[str, Scores], name: str = "f1_macro", *, level: float = 0.95
) -> dict[str, Comparison]:
    """The winner against each of ``others``, by name; all were scored on the same resamples.

    The spread of the resamples' differences d* about the observed d stands for the spread of d itself, were there no
    difference (Hall & Wilson, Biometrics 47, 1991): p = (1 + number of |d* - d| >= |d|) / (B + 1), the +1 as in Davison
    & Hinkley, Bootstrap Methods and their Application, 1997, chapter 4. The interval is d -+ the matching quantile of
    |d* - d| (Hall, J. R. Statist. Soc. B 50, 1988), so that it excludes 0 exactly where p <= 1 - level.
    """
    found = {key: _difference(winner, other, name, level) for key, other in others.items()}
    corrected = holm([p for *_, p in found.values()])
    warning = few_groups(winner, winner.resamples.groups) or few_groups(winner, *scarcest(winner))
    return {
        key: Comparison(*values, p_holm=float(p_holm), warning=warning)
        for (key, values), p_holm in zip(found.items(), corrected, strict=True)
    }


def holm(p_values: Sequence[float]) -> Array:
    """p values corrected step by step for their number, in the order given (Holm, Scand. J. Statist. 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def mcnemar(first_right: NDArray[Any], second_right: NDArray[Any], resamples: Resamples) -> McNemar | None:
    """The exact test on images that only one of two networks decides rightly (McNemar, Psychometrika 12, 1947).

    first_right, second_right: bool [N], one network each (not a mean over runs). None where any group has more than
    one image, since the test takes images for independent.
    """
    if not resamples.one_image_each:
        return None
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    only, other = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only, other, min(1.0, 2 * float(binom.cdf(min(only, other), only + other, 0.5))))


def _difference(winner: Scores, other: Scores, name: str, level: float) -> tuple[float, float, float, float]:
    """difference, low, high, p."""
    assert winner.resamples is other.resamples, "only scores on the same resamples can be paired"
    difference = winner.estimate[name] - other.estimate[name]
    away = np.abs(winner.replicates[name] - other.replicates[name] - difference)
    if len(away) < FEWEST_REPLICATES or math.isnan(difference):
        return difference, math.nan, math.nan, math.nan
    # Differences of sums that are equal on paper may differ in their last bits.
    p = (1 + int((away >= abs(difference) - 1e-12).sum())) / (len(away) + 1)
    reach = float(np.sort(away)[-math.floor((1 - level) * (len(away) + 1))])
    return difference, difference - reach, difference + reach, p
