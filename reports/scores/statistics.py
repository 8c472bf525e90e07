"""How sure a score is: 95 % intervals of a configuration's scores, over patients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from reports.scores.resampled_scores import Array, Scores

FEW_GROUPS = 20
FEWEST_REPLICATES = 200
# In these every class weighs the same, however few have it.
_MACRO = ("f1_macro", "balanced_accuracy", "auroc_macro", "ap_macro")


@dataclass(frozen=True)
class Interval:
    """estimate: the mean over the runs. low, high: the bounds of 95 %; NaN where there is no interval.

    method: "bootstrap" (BCa over groups), "Wilson" (every group has one image), "Wilson over groups" (a proportion of
    0 or 1 that no resample can move), or "" (none). groups: those it rests on, for a class's score those with the
    class (specificity and npv: without it; auroc: the fewer). replicates, redrawn: of the bootstrap. warning: a
    clause for the reader, or "".
    """

    estimate: float
    low: float
    high: float
    method: str
    groups: int
    replicates: int
    redrawn: int
    warning: str


def interval(scores: Scores, name: str, *, level: float = 0.95) -> Interval:
    """The interval of one score of ``scores``, e.g. "f1_macro", "recall:covid".

    Proportions (accuracy, exact_match, recall, specificity, precision, npv) have Wilson's interval where every group
    has one image, all else the bootstrap over groups. With several runs Wilson's is of the runs' mean, as if it came
    from one run on as many images: somewhat too wide, since a mean varies less.
    """
    estimate, resamples = scores.estimate[name], scores.resamples
    groups, which = _resting_on(scores, name)
    size = scores.proportion_of.get(name)
    values = scores.replicates[name]

    method, low, high, warning = "bootstrap", math.nan, math.nan, ""
    if math.isnan(estimate):
        method, warning = "", "undefined: no image is positive, or none is negative"
    elif size == 0:
        method, warning = "", "undefined: no image to count"
    elif size is not None and resamples.one_image_each:
        method, (low, high) = "Wilson", wilson(estimate, size, level=level)
    elif size is not None and estimate in (0, 1):
        # No resample has an error, or none has a success. Every patient counts as one image, which is cautious.
        method = "Wilson over groups"
        low, high = wilson(estimate, size * resamples.groups / len(resamples.member), level=level)
    elif len(values) < FEWEST_REPLICATES:
        method, warning = "", "too few groups with each class to resample"
    else:
        low, high = bca(estimate, values, scores.left_out[name], level=level)
        warning = few_groups(scores, groups, which) or (few_groups(scores, *scarcest(scores)) if name in _MACRO else "")
        if low == high:
            warning = "every resample gives the same score: interval too narrow"
    return Interval(estimate, low, high, method, groups, len(values), resamples.redrawn, warning)


def few_groups(scores: Scores, groups: int, which: str = "") -> str:
    """The warning due where an interval rests on fewer than 20 groups, or ''. which: as from ``scarcest``."""
    unit = "patients" if scores.resamples.named else "images"
    rest = f" {which} ({groups})" if which else ""
    return f"fewer than {FEW_GROUPS} {unit}{rest}: interval too narrow" if groups < FEW_GROUPS else ""


def scarcest(scores: Scores) -> tuple[int, str]:
    """The groups with the class that fewest have, and "with <class>"."""
    c = min(scores.classes, key=lambda name: scores.positives[name])
    return scores.positives[c], f"with {c}"


def bca(estimate: float, replicates: Array, left_out: Array, *, level: float = 0.95) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval (Efron, JASA 82, 1987; as in scipy.stats.bootstrap).

    replicates: [B] finite. left_out: [J], the jackknife; NaN are passed over. Chosen over the percentile interval by
    ``benchmarks.coverage``: of 169 images, 19 of them of the rarest class, that one holds the class's true F1 93 times
    in 100, its recall 90 to 93, and misses on one side, where the truth is lower; this one 95 to 97 and 92 to 96.
    """
    below = ((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    edge = 0.5 / len(replicates)
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    z = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - _acceleration(left_out) * z)))
    return float(low), float(high)


def wilson(share: float, size: float, *, level: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, JASA 22, 1927). share: in [0, 1], of ``size`` > 0 images."""
    z = float(norm.ppf((1 + level) / 2))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    # At 0 and 1 the bound is exact; rounding must not leave it beside them.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def _resting_on(scores: Scores, name: str) -> tuple[int, str]:
    """How many groups a score rests on, and which, e.g. "with covid"; "" for all."""
    metric, _, c = name.partition(":")
    if c and metric in ("specificity", "npv"):
        return scores.negatives[c], f"without {c}"
    if c and metric == "auroc":
        return min((scores.positives[c], f"with {c}"), (scores.negatives[c], f"without {c}"))
    if c:
        return scores.positives[c], f"with {c}"
    return scores.resamples.groups, ""


def _acceleration(left_out: Array) -> float:
    """A sixth of the skewness of the jackknife's influence values; never beyond 1/6, so that ``bca`` has no pole."""
    known = left_out[np.isfinite(left_out)]
    away = known.mean() - known if len(known) else known
    spread = float((away**2).sum())
    return float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
