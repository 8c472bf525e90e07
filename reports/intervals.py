"""Scores with their 95 % intervals: as numbers, as cells of a table, and as the text below it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from reports import formats
from reports.bootstrap import PPV_AT_PREVALENCE, Array, Resamples, Scores, ppv_at
from trainables.metrics import AREAS

LEVEL = 0.95
FEW_GROUPS = 20
FEWEST_REPLICATES = 200
MARK = "†"
# Scores in which every class has the same weight, however rare it is.
_MACRO = ("f1_macro", "balanced_accuracy", *(f"{area}_macro" for area in AREAS))


@dataclass(frozen=True)
class Interval:
    """estimate: the mean over the runs; NaN: undefined. low, high: the bounds of 95 %; NaN where there is no interval.

    method: "bootstrap" (BCa over groups), "Wilson" (every group has one image), "Wilson over groups" (a proportion of
    0 or 1 that no resample can move), or "" (none). warning: a clause for the reader, or "".
    """

    estimate: float
    low: float
    high: float
    method: str = ""
    warning: str = ""


def interval(scores: Scores, name: str) -> Interval:
    """The interval of one score of ``scores``, e.g. "f1_macro", "recall:covid".

    Proportions (accuracy, exact_match, recall, specificity, precision, npv) have Wilson's interval if every group has
    one image; in all other cases the interval is from the bootstrap over groups. With several runs, Wilson's interval
    treats their mean as the score of one run on as many images: somewhat too wide, since a mean varies less.
    """
    estimate, resamples, size = scores.estimate[name], scores.resamples, scores.proportion_of.get(name)
    method, low, high, warning = "", math.nan, math.nan, ""
    if is_undefined(scores, name):
        estimate, warning = math.nan, "undefined: no image counts towards it"
    elif size is not None and resamples.one_image_each:
        method, (low, high) = "Wilson", wilson(estimate, size)
    elif size is not None and estimate in (0, 1):
        # No resample has an error, or none has a success. Every patient counts as one image, which is conservative.
        method = "Wilson over groups"
        low, high = wilson(estimate, scores.groups_of[name])
    elif name.startswith(f"{PPV_AT_PREVALENCE}:") and not np.ptp(scores.values[name]):
        return _ppv_interval(scores, name)
    elif resamples.replicates < FEWEST_REPLICATES:
        warning = "too few groups with each class to resample"
    else:
        method = "bootstrap"
        low, high = bca(estimate, scores.replicates[name], scores.left_out[name])
        narrow = "every resample gives the same score: interval too narrow" if low == high else ""
        warning = narrow or few_groups(scores, name)
    return Interval(estimate, low, high, method, warning)


def _ppv_interval(scores: Scores, name: str) -> Interval:
    """The interval of a PPV that is the same in every resample, such as one without a false positive: from the bounds
    of sensitivity and specificity, which is conservative."""
    label = name.partition(":")[2]
    recall, specificity = (interval(scores, f"{ratio}:{label}") for ratio in ("recall", "specificity"))
    bounds = np.array([[recall.low, recall.high], [specificity.low, specificity.high]])
    low, high = ppv_at(bounds[0], bounds[1], scores.prevalence[label]).tolist()
    warning = recall.warning or specificity.warning
    return Interval(scores.estimate[name], low, high, specificity.method, warning)


def few_groups(scores: Scores, name: str) -> str:
    """The warning if an interval of the score ``name`` is based on fewer than 20 groups, or "".

    Overall scores are based on all groups, macro means also on the groups with each class. Scores of a class are based
    on the groups with it (specificity and npv: without it; areas and PPV at a prevalence: the smaller number).
    """
    metric, _, c = name.partition(":")
    having = [(scores.positives[one], f" with {one}") for one in scores.classes if one == c or name in _MACRO]
    both = (*AREAS, PPV_AT_PREVALENCE)
    lacking = [(scores.negatives[c], f" without {c}")] if metric in ("specificity", "npv", *both) and c else []
    resting = [min(lacking if metric in ("specificity", "npv") else having + lacking, default=(FEW_GROUPS, ""))]
    unit = "patients" if scores.resamples.named else "images"
    if not c:
        resting.insert(0, (scores.resamples.groups, ""))
    for groups, which in resting:
        if groups < FEW_GROUPS:
            few = f"{which} ({groups})" if which else ""
            return f"fewer than {FEW_GROUPS} {unit}{few}: interval too narrow"
    return ""


def bca(estimate: float, replicates: Array, left_out: Array) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval (Efron, JASA 82, 1987; as in scipy.stats.bootstrap).

    replicates: [B] finite. left_out: [J], the jackknife; NaN are ignored. Chosen over the percentile interval by
    ``benchmarks.coverage``: with 169 images, 19 of the rarest class, the percentile interval covers that class's true
    F1 93 times in 100, its recall 90 to 93, and misses on one side, where the truth is lower; BCa 95 to 97, 92 to 96.
    """
    below = ((replicates < estimate).mean() + (replicates <= estimate).mean()) / 2
    edge = 0.5 / len(replicates)
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    z = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - _acceleration(left_out) * z)))
    return float(low), float(high)


def wilson(share: float, size: float) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, JASA 22, 1927). share: in [0, 1], of ``size`` > 0 images."""
    z = float(norm.ppf((1 + LEVEL) / 2))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    # At 0 and 1 the bound is exact; rounding must not move it.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def _acceleration(left_out: Array) -> float:
    """A sixth of the skewness of the jackknife's influence values; never beyond 1/6, so that ``bca`` has no pole."""
    known = left_out[np.isfinite(left_out)]
    away = known.mean() - known if len(known) else known
    largest = float(np.abs(away).max(initial=0.0))
    if largest == 0:
        return 0.0
    away = away / largest  # The result has no scale, and powers of tiny values underflow to 0.
    return float((away**3).sum() / (6 * (away**2).sum() ** 1.5))


def cells(scores: Scores | None, names: Mapping[str, str]) -> dict[str, Any]:
    """For each key of ``names``, the score of that name: key, key_low, key_high (NaN: undefined) and key_shown.

    Without scores, NaN and a dash."""
    row: dict[str, Any] = {}
    for key, name in names.items():
        found = Interval(math.nan, math.nan, math.nan) if scores is None else interval(scores, name)
        row |= {key: found.estimate, f"{key}_low": found.low, f"{key}_high": found.high, f"{key}_shown": as_text(found)}
    return row


def as_text(found: Interval) -> str:
    """0.893 (0.812–0.941), with a mark where the interval comes with a warning."""
    if math.isnan(found.estimate):
        return formats.ABSENT
    text = formats.score(found.estimate)
    if not math.isnan(found.low):
        dash = " to " if found.low < 0 else "–"
        text += f" ({formats.score(found.low)}{dash}{formats.score(found.high)})"
    return text + (f" {MARK}" if found.warning else "")


def plain(found: Interval) -> str:
    """``as_text`` without the mark of a warning, for a sentence."""
    return as_text(found).removesuffix(f" {MARK}")


def in_two_lines(scores: Scores, name: str) -> str:
    """The score with its interval, if any, on a second line, for a figure."""
    return plain(interval(scores, name)).replace(" (", "\n(")


def is_undefined(scores: Scores, name: str) -> bool:
    """Whether the score is 0/0, or an AUROC or the like of a class that no image, or every image, has."""
    return math.isnan(scores.estimate[name]) or scores.proportion_of.get(name) == 0


def qualifier(scores: Scores, name: str) -> str:
    """The suffix of a score's name: the weights of kappa, or the number of classes in a mean of areas."""
    if name == "kappa":
        return f" ({'quadratic weights' if scores.ordered else 'unweighted'})"
    partial = name.removesuffix("_macro") in AREAS and len(scores.defined) < len(scores.classes)
    return f" ({len(scores.defined)} of {len(scores.classes)} classes)" if partial else ""


def below(asked: Iterable[tuple[Scores | None, str]], *, method: bool = True) -> str:
    """How the intervals of these scores were computed (``method``: once per chapter), and what their marks mean."""
    pairs = [(scores, name) for scores, name in asked if scores is not None]
    found = [interval(scores, name) for scores, name in pairs if not is_undefined(scores, name)]
    sentences = []
    if method and any(not math.isnan(one.low) for one in found):
        sentences.append(_method({one.method for one in found}, [scores.resamples for scores, _ in pairs]))
    sentences.append(warned(one.warning for one in found))
    if len(found) < len(pairs):
        sentences.append("A dash: undefined, because no image counts towards the score.")
    return " ".join(filter(None, sentences))


def _method(methods: set[str], resamples: list[Resamples]) -> str:
    named = any(one.named for one in resamples)
    parts = []
    if "Wilson" in methods:
        why = "patients are not known, so each image counts as independent"
        if named:
            why = f"{'' if all(one.one_image_each for one in resamples) else 'where '}every patient has one image"
        parts.append(f"Wilson for proportions ({why})")
    if "bootstrap" in methods:
        counts = {one.groups for one in resamples}
        unit = "patients" if named else "images (patients are not known)"
        over = f"{counts.pop():,} {unit}" if len(counts) == 1 else unit
        redrawn = max(one.redrawn for one in resamples)
        again = f" (up to {redrawn:,} redrawn because they lacked a class)" if redrawn else ""
        parts.append(f"BCa bootstrap over {over}, {max(one.replicates for one in resamples):,} resamples{again}")
    if "Wilson over groups" in methods:
        parts.append("Wilson over patients where a proportion is 0 or 1")
    return f"95\N{NO-BREAK SPACE}% confidence intervals in brackets: {formats.listing(parts)}."


def warned(warnings: Iterable[str]) -> str:
    """What the marks mean; "" without warnings.

    Each warning appears once, without its count, which differs between rows, and without the class if several have it.
    """
    found = list(dict.fromkeys(re.sub(r" \(\d+\)", "", one) for one in warnings if one))
    of_any = dict.fromkeys(re.sub(r" (with|without) .*: interval", r" \1 the class: interval", one) for one in found)
    found = list(of_any) if len(of_any) < len(found) else found
    return f"{MARK} {'; '.join(found)}." if found else ""
