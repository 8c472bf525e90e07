"""What follows from a network's probabilities: decisions at operating points, scores by subgroup, and calibration."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.bootstrap import Array, Bools, Runs, Scores, score_runs, with_means
from trainables.metrics import MISSING, UNTUNED, OperatingPoint, best_threshold, decisions, shown_threshold
from trainables.predictions import Predictions, join

MOST_VALUES = 12
NOT_GIVEN = "not given"
SUBGROUP = "subgroup_"
BINS = 10
_DRAWS = 50
SELECTION = "predicted class"


@dataclass(frozen=True)
class Rule:
    """One way to decide K classes of N images. words: for each class, when it is decided.

    threshold: the lowest probability at which a class is decided; NaN if the likeliest class is. truth, decided, known
    (whether the label is): bool [N, K].
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    threshold: tuple[float, ...]
    truth: Bools
    decided: Bools
    known: Bools

    def of(self, place: int) -> tuple[Bools, Bools]:
        """Truth and decision of the class at ``place``, on the images whose label is known."""
        rows = self.known[:, place]
        return self.truth[rows, place], self.decided[rows, place]


@dataclass(frozen=True)
class OperatingPoints:
    """The rules by which a network decides, the usual one first, and the scores of each rule's decisions."""

    rules: tuple[Rule, ...]
    scores: tuple[Scores, ...]
    cut: OperatingPoint | None

    def last(self, name: str) -> int:
        """The index of the last rule that decides a class."""
        return max(place for place, rule in enumerate(self.rules) if name in rule.classes)

    def of(self, name: str) -> list[tuple[Bools, Bools]]:
        """``Rule.of`` one class, for each rule that decides it."""
        return [rule.of(rule.classes.index(name)) for rule in self.rules if name in rule.classes]


def operating_points(
    images: Runs, thresholds: Mapping[str, float] | None, cut: OperatingPoint | None
) -> OperatingPoints:
    """How the first run of ``images`` decides each class: by the usual rule, and at chosen thresholds if there are any.

    thresholds: as for ``metrics.decide``. cut: of one class of a single-label task, used if no class has a threshold.
    """
    classes, probability = images.classes, images.probabilities[0].astype(np.float64)

    def rule(shown: Collection[str], least: Mapping[str, float], otherwise: str = "") -> Rule:
        """The rule for the classes ``shown``. otherwise: in words, when a class without a threshold is decided."""
        places = [classes.index(name) for name in shown]
        return Rule(
            classes=tuple(shown),
            words=tuple(f"p ≥ {shown_threshold(least[one])}" if one in least else otherwise for one in shown),
            threshold=tuple(least.get(one, math.nan) for one in shown),
            truth=images.truth[:, places],
            decided=decisions(probability, classes, least, images.task)[:, places],
            known=images.known[:, places],
        )

    given = {name: value for name, value in (thresholds or {}).items() if name in classes}
    if images.multi_label:
        untuned = dict.fromkeys(classes, UNTUNED)
        tuned = {name: value for name, value in given.items() if value != UNTUNED}
        rules = [rule(least, least) for least in (untuned, tuned) if least]
    else:
        rules = [rule(classes, {}, "likeliest")]
        least = given or (cut.thresholds if cut is not None else {})
        for name, value in least.items():
            below = f"{name} < {shown_threshold(value)}" + (", likeliest other" if len(classes) > 2 else "")
            rules.append(rule(classes if given or len(classes) == 2 else least, least, below))
    # Decisions are scored as probabilities of 0 and 1 in a multi-label task.
    scores = [
        score_runs(np.where(rule.known, rule.truth, MISSING), rule.decided[None], rule.classes, images.resamples)
        for rule in rules
    ]
    return OperatingPoints(tuple(rules), tuple(scores), cut)


def pooled_cut(networks: Iterable[Predictions], label: str) -> OperatingPoint | None:
    """One Youden threshold of ``label`` for several networks, from their pooled validation predictions.

    networks: single-label; their images may overlap. None if there are no validation images. threshold: None if the
    class, or its absence, is missing.
    """
    parts = [part for one in networks if len((part := one.of("val")).path)]
    if not parts:
        return None
    pooled, place = join(parts), parts[0].classes.index(label)
    truth = pooled.label == place
    threshold = youden(truth, pooled.probability[:, place])
    _, once = np.unique(pooled.path, return_index=True)
    return OperatingPoint(label, "Youden's J", math.nan, threshold, int(truth[once].sum()), len(once), len(parts))


def youden(truth: Bools, probability: npt.NDArray[np.float32]) -> float | None:
    """The ``best_threshold`` by sensitivity + specificity - 1 (Youden, Cancer 3, 1950); None if ``truth`` is constant.

    truth, probability: [N].
    """
    if not truth.any() or truth.all():
        return None
    return best_threshold(truth, probability, lambda tp, fp: tp / truth.sum() - fp / (~truth).sum())


class Subgroup(NamedTuple):
    """The images of one value of a subgroup column, and their scores."""

    column: str
    value: str
    images: Runs
    scores: Scores


def subgroup_scores(
    images: Runs, rows: pd.DataFrame, thresholds: Mapping[str, float] | None = None
) -> tuple[tuple[Subgroup, ...], tuple[str, ...]] | None:
    """Scores of all images, then of each value of each column; and the columns of which rare values were left out.

    thresholds: as for ``metrics.decide``.
    rows: path and subgroup_<column> for each image, as in splits.csv; None where they have no such column.
    """
    columns = [str(name) for name in rows.columns if str(name).startswith(SUBGROUP)]
    if not columns:
        return None
    parts = [("all images", "", np.ones(len(images.paths), dtype=bool))]
    cut_short = []
    for column in columns:
        of_path = dict(zip(rows["path"], rows[column], strict=True))
        of_image = np.array([str(of_path.get(path, "")) for path in images.paths.tolist()])
        values, counts = np.unique(of_image, return_counts=True)
        if len(values) > MOST_VALUES:
            cut_short.append(column.removeprefix(SUBGROUP))
        kept = sorted(values[np.argsort(-counts, kind="stable")[:MOST_VALUES]].tolist(), key=lambda one: (not one, one))
        parts += [(column.removeprefix(SUBGROUP), value or NOT_GIVEN, of_image == value) for value in kept]
    found = []
    for column, value, chosen in parts:
        part = images.of(chosen)
        found.append(Subgroup(column, value, part, part.scores(thresholds=thresholds)))
    return tuple(found), tuple(cut_short)


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of confidence, M = ``BINS`` of them; bin m holds (m/M, (m + 1)/M], the first one also 0.

    counts: int64 [M], images in the bin. confidence, observed: [M], the mean confidence and the share that was correct
    (or positive); NaN in an empty bin. error: the expected calibration error, in [0, 1].
    """

    counts: npt.NDArray[np.int64]
    confidence: Array
    observed: Array
    error: float


@dataclass(frozen=True)
class Claim:
    """Probabilities of an event, and its outcomes. given: float64 [R, N] in [0, 1]; came_true: bool [R, N]. N >= 1
    images, those where the outcome is known.

    key: the suffix of the names of its scores.
    """

    name: str
    key: str
    given: Array
    came_true: Bools

    @cached_property
    def bins(self) -> list[Reliability]:
        """The bins of each run."""
        return [reliability(true, given) for true, given in zip(self.came_true, self.given, strict=True)]


@dataclass(frozen=True)
class Calibration:
    """A network's claims, and their scores.

    scores: with ``difference<key>`` (mean given minus observed) and ``brier<key>`` of every claim, and ``brier_all``:
    the sum over classes, 0 to 2 (Brier, Monthly Weather Review 78, 1950); multi-label: the mean over the labels that
    are known of some image.
    brier_of_shares: the Brier score of a network that always predicts a class's frequency, by key, and ``_all``.
    """

    claims: tuple[Claim, ...]
    scores: Scores
    brier_of_shares: dict[str, float]


def claims_of(images: Runs, thresholds: Mapping[str, float] | None = None) -> tuple[Claim, ...]:
    """Single-label: the claim that the decision is correct. Then, for every class known of some image, the claim that
    the image has it. thresholds: those of the decision, as for ``metrics.decide``."""
    given, truth, known = images.probabilities.astype(np.float64), images.truth, images.known
    found = []
    if not images.multi_label:
        decided = decisions(images.probabilities, images.classes, thresholds, "single_label")
        answered = np.where(decided, given, 0).sum(axis=2)
        found.append(Claim(SELECTION, "_decision", answered, decided.argmax(axis=2) == images.labels))
    for place, name in enumerate(images.classes):
        rows = known[:, place]
        if rows.any():
            true = np.broadcast_to(truth[rows, place], (len(given), rows.sum()))
            found.append(Claim(name, f":{name}", given[:, rows, place], true))
    return tuple(found)


def calibration_error(images: Runs, thresholds: Mapping[str, float] | None = None) -> float:
    """The expected calibration error (``reliability``) of the decision, multi-label: the mean over labels; in each case
    the mean over runs. thresholds: as for ``claims_of``."""
    claims = claims_of(images, thresholds)[: None if images.multi_label else 1]
    return float(np.mean([bins.error for claim in claims for bins in claim.bins]))


def chance_calibration_error(images: Runs, thresholds: Mapping[str, float] | None = None) -> float:
    """The mean ``calibration_error`` if every probability were correct: above 0 by chance, more so with fewer images.
    Over ``_DRAWS`` draws of the outcomes, always the same."""
    chance = np.random.default_rng(0)
    claims = claims_of(images, thresholds)[: None if images.multi_label else 1]
    drawn = (
        reliability(chance.random(len(given)) < given, given).error
        for claim in claims
        for given in claim.given
        for _ in range(_DRAWS)
    )
    return float(np.mean([*drawn]))


def calibration(images: Runs, scores: Scores, thresholds: Mapping[str, float] | None = None) -> Calibration:
    """The claims of ``images`` and their scores. scores: of ``images``; thresholds: as for ``claims_of``."""
    claims, over_classes = claims_of(images, thresholds), np.mean if images.multi_label else np.sum
    values: dict[str, Array] = {}
    for one in claims:
        place = images.classes.index(one.name) if one.key.startswith(":") else None
        rows = slice(None) if place is None else images.known[:, place]
        away = np.full(images.probabilities.shape[:2], np.nan)
        away[:, rows] = one.given - one.came_true
        values |= {f"difference{one.key}": away, f"brier{one.key}": away**2}
    scores, of_classes = with_means(scores, values), [one for one in claims if one.key.startswith(":")]
    every = over_classes([scores.values[f"brier{one.key}"] for one in of_classes], axis=0)
    shares = {one.key: float(one.came_true[0].mean()) for one in of_classes}
    of_shares = {key: share * (1 - share) for key, share in shares.items()}
    of_shares["_all"] = float(over_classes(list(of_shares.values())))
    return Calibration(claims, replace(scores, values=scores.values | {"brier_all": every}), of_shares)


def reliability(outcome: Bools, confidence: Array) -> Reliability:
    """Binned probabilities against the share of positive outcomes, for example of one label of a multi-label task.

    outcome: bool [N]; confidence: [N] in [0, 1], N > 0.
    """
    place = np.maximum(np.searchsorted(np.linspace(0, 1, BINS + 1), confidence, side="left") - 1, 0)
    counts = np.bincount(place, minlength=BINS)
    mean, observed = (
        np.divide(np.bincount(place, weights=x, minlength=BINS), counts, out=np.full(BINS, np.nan), where=counts > 0)
        for x in (confidence, outcome)
    )
    error = float((counts * np.nan_to_num(np.abs(mean - observed))).sum() / len(outcome))
    return Reliability(counts.astype(np.int64), mean, observed, error)
