"""Decisions of one network at stated operating points, and the scores of its configuration in each subgroup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reports import formats
from reports.bootstrap import Runs, Scores, score_runs
from reports.intervals import FEW_GROUPS
from trainables.metrics import decide
from trainables.predictions import Predictions

UNTUNED = 0.5
"""The decision threshold of a label of a multi-label task that was not tuned."""
MOST_VALUES = 12
NOT_GIVEN = "not given"

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """One way to decide K classes of N images. words: of each class, when it is decided.

    threshold: the least probability of the class that decides it, NaN where the likeliest class is. truth, decided:
    bool [N, K].
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    threshold: tuple[float, ...]
    truth: Bools
    decided: Bools


@dataclass(frozen=True)
class Cut:
    """A threshold on the probability of ``label``. positives, images, runs: what it was chosen on, in validation."""

    label: str
    threshold: float
    positives: int
    images: int
    runs: int


@dataclass(frozen=True)
class OperatingPoints:
    """The rules by which a network decides, the usual one first, and the scores of each rule's decisions."""

    rules: tuple[Rule, ...]
    scores: tuple[Scores, ...]
    cut: Cut | None

    def of(self, name: str) -> list[tuple[Bools, Bools]]:
        """Truth and decision, bool [N] each, of one class by each rule that decides it."""
        places = [(rule, rule.classes.index(name)) for rule in self.rules if name in rule.classes]
        return [(rule.truth[:, place], rule.decided[:, place]) for rule, place in places]


@dataclass(frozen=True)
class Subgroup:
    """The images of one value of a subgroup column. absent: classes of none of them. small: below FEW_GROUPS groups."""

    column: str
    value: str
    images: int
    patients: float
    scores: Scores
    absent: tuple[str, ...]

    @property
    def small(self) -> bool:
        return self.scores.resamples.groups < FEW_GROUPS


def operating_points(images: Runs, thresholds: Mapping[str, float] | None, cut: Cut | None) -> OperatingPoints:
    """How the first run of ``images`` decides each class: as usual, and at chosen thresholds where there are any.

    thresholds: tuned, by label of a multi-label task. cut: of one class of a single-label task.
    """
    rules = _multi_label_rules(images, thresholds or {}) if images.multi_label else _single_label_rules(images, cut)
    # Decisions are probabilities of 0 and 1: scored as the labels of a multi-label task.
    scores = [
        score_runs(rule.truth.astype(np.uint8), rule.decided[None], rule.classes, images.resamples) for rule in rules
    ]
    return OperatingPoints(tuple(rules), tuple(scores), cut)


def pooled_cut(parts: Sequence[Predictions], label: str) -> Cut | None:
    """Youden's threshold of ``label`` on the predictions of several networks, pooled: one for all of them.

    parts: single-label, each of its own images; None where there are none, or the class or its absence is missing.
    """
    if not parts:
        return None
    place = parts[0].classes.index(label)
    truth = np.concatenate([part.label == place for part in parts])
    threshold = youden(truth, np.concatenate([part.probability[:, place] for part in parts]))
    if threshold is None:
        return None
    _, once = np.unique(np.concatenate([part.path for part in parts]), return_index=True)
    return Cut(label, threshold, int(truth[once].sum()), len(once), len(parts))


def youden(truth: Bools, probability: npt.NDArray[np.float32]) -> float | None:
    """The threshold with the greatest sensitivity + specificity - 1 (Youden, Cancer 3, 1950).

    truth, probability: [N]. Decided is what has at least the threshold. Candidates lie halfway between neighbouring
    probabilities; of equally good ones the nearest to 0.5 is taken. None where a class is absent.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-probability, kind="stable")
    falling = probability[order].astype(np.float64)
    index = truth[order].cumsum() / positives - (~truth[order]).cumsum() / negatives
    following = np.append(falling[1:], 0.0)
    # A cut is possible only where the probability changes; the last one decides every image.
    possible = np.append(falling[1:] < falling[:-1], True)
    cuts, index = (falling[possible] + following[possible]) / 2, index[possible]
    best = cuts[index >= index.max() - 1e-12]
    return float(best[np.abs(best - UNTUNED).argmin()])


def subgroup_scores(
    images: Runs, values: Mapping[str, npt.NDArray[np.str_]]
) -> tuple[tuple[Subgroup, ...], tuple[str, ...]]:
    """All images first, then each value of each column, and the columns of which rare values were left out.

    values: by column, str [N], "" where an image has none.
    """
    parts = [("all images", "", np.ones(len(images.paths), dtype=bool))]
    cut_short = []
    for column, of_image in values.items():
        names, counts = np.unique(of_image, return_counts=True)
        frequent = sorted(zip(map(str, names), counts, strict=True), key=lambda pair: (-pair[1], pair[0]))
        if len(names) > MOST_VALUES:
            cut_short.append(column)
        kept = sorted((name for name, _ in frequent[:MOST_VALUES]), key=lambda name: (name == "", name))
        parts += [(column, name or NOT_GIVEN, of_image == name) for name in kept]
    found = []
    for column, value, chosen in parts:
        part = images.of(chosen)
        scores = part.scores()
        absent = tuple(name for name in part.classes if not scores.positives[name])
        found.append(Subgroup(column, value, len(part.paths), part.patients, scores, absent))
    return tuple(found), tuple(cut_short)


def _multi_label_rules(images: Runs, thresholds: Mapping[str, float]) -> list[Rule]:
    probability, classes = images.probabilities[0].astype(np.float64), images.classes
    rules = [_by_thresholds(classes, images.truth, probability, [UNTUNED] * len(classes))]
    tuned = {name: value for name, value in thresholds.items() if name in classes and value != UNTUNED}
    if tuned:
        places = [classes.index(name) for name in tuned]
        rules.append(
            _by_thresholds(tuple(tuned), images.truth[:, places], probability[:, places], list(tuned.values()))
        )
    return rules


def _single_label_rules(images: Runs, cut: Cut | None) -> list[Rule]:
    probability, classes = images.probabilities[0].astype(np.float64), images.classes
    likeliest = np.equal(decide(probability, "single_label")[:, None], np.arange(len(classes)))
    rules = [Rule(classes, ("likeliest",) * len(classes), (math.nan,) * len(classes), images.truth, likeliest)]
    if cut is not None:
        place = classes.index(cut.label)
        one = _by_thresholds((cut.label,), images.truth[:, [place]], probability[:, [place]], [cut.threshold])
        rules.append(_with_other(one, classes[1 - place]) if len(classes) == 2 else one)
    return rules


def _by_thresholds(
    classes: tuple[str, ...], truth: Bools, probability: npt.NDArray[np.float64], least: list[float]
) -> Rule:
    words = tuple(f"p ≥ {digits(value)}" for value in least)
    return Rule(classes, words, tuple(least), truth, probability >= np.array(least))


def _with_other(rule: Rule, other: str) -> Rule:
    """A rule for one class of two, and what it means for the other one."""
    return Rule(
        (*rule.classes, other),
        (*rule.words, f"{rule.classes[0]} < {digits(rule.threshold[0])}"),
        (*rule.threshold, math.nan),
        np.concatenate([rule.truth, ~rule.truth], axis=1),
        np.concatenate([rule.decided, ~rule.decided], axis=1),
    )


def digits(threshold: float) -> str:
    """Three digits, more where they would read as 0 or 1."""
    return formats.score(threshold) if 0.0005 <= threshold < 0.9995 else f"{threshold:.3g}"
