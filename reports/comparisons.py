"""Paired differences of configurations on the same images and resamples of patients; baselines; other images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, t

from reports import formats
from reports.bootstrap import ALL_FOLDS, Array, Resamples, Runs, Scores
from reports.data import ReportData
from reports.intervals import FEWEST_REPLICATES, Interval, few_groups, interval, is_undefined, qualifier
from sweep.evaluation_records import ConclusionRecord, Evaluation, EvaluationRecord, read_conclusion
from sweep.records import BaselineRecord
from trainables.metrics import UNTUNED, evaluate_predictions, has_class, metric_mode
from trainables.predictions import Predictions, join

FALLBACK = "f1_macro"
CLOSE = 0.9
"""Share of the gain from the majority class to the winner from which on a baseline is close."""
MAJORITY = "majority"
GIVES_AWAY, SUSPECT = 0.9, 0.75
"""AUROC from which on a shortcut gives a class away: in any case, and if its F1 is close to the winner's."""
NEAR = 0.05
"""Upper bound of the winner's lead in F1 up to which a suspect shortcut is close."""
FEWEST_POSITIVES = 10
"""A class with fewer images is not judged for shortcuts."""


def runs_of(
    data: ReportData, networks: Mapping[str, Predictions | None], split: str
) -> tuple[Runs | None, tuple[str, ...]]:
    """One configuration's networks on ``split``, images sorted by path; and what was left out, a clause each.

    networks: by name; None: cannot be read. With folds, each network has its own validation images. These are joined
    into one run: every image is predicted by the network that was not trained on it.
    """
    parts: dict[str, Predictions] = {}
    remarks = []
    for name, saved in networks.items():
        part = None if saved is None else saved.of(split)
        if part is not None and len(part.path):
            parts[name] = part
        else:
            remarks.append(f"{name}: no {'' if saved is None else split + ' '}predictions that can be read")
    if not parts:
        return None, tuple(remarks)
    first = next(iter(parts.values()))
    if split == "val" and data.finals.folds and len(parts) > 1:
        first = join(list(parts.values()))
        parts = {ALL_FOLDS: first}
    order = np.argsort(first.path, kind="stable")
    paths, labels = first.path[order], first.label[order]
    aligned = {name: part.align(paths, labels) for name, part in parts.items()}
    remarks += [f"{name}: predictions of other images" for name, part in aligned.items() if part is None]
    kept = {name: part.probability for name, part in aligned.items() if part is not None}
    columns = labels, np.stack(list(kept.values())), paths, data.groups_of(paths)
    return Runs(tuple(kept), first.classes, *columns, data.dataset.ordered), tuple(remarks)


@dataclass(frozen=True)
class Comparison:
    """difference: the winner's score minus the other's, means over their runs. low, high: its 95 % bounds. p: two-sided
    p value; p_holm: corrected for the number of configurations compared. NaN if there are too few resamples; all, the
    difference too, are NaN if a score is undefined."""

    difference: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    warning: str = ""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class McNemar:
    """first_only, second_only: images that only one of the two decided correctly; p: exact, two-sided."""

    first_only: int
    second_only: int
    p: float


def compare(
    winner: Scores, others: Mapping[str, Scores], name: str = FALLBACK, *, seeded: bool = True
) -> dict[str, Comparison]:
    """The winner compared with each of ``others``, by name; all were scored on the same resamples.

    The spread of the resamples' differences d* around the observed d estimates the spread of d under the null
    hypothesis (Hall & Wilson, Biometrics 47, 1991): p = (1 + number of |d* - d| >= |d|) / (B + 1), the +1 as in Davison
    & Hinkley, Bootstrap Methods and their Application, 1997, chapter 4. The interval is d -+ the matching quantile of
    |d* - d| (Hall, J. R. Statist. Soc. B 50, 1988), so that it excludes 0 exactly if p <= 0.05.

    Configurations are compared, not just these networks: the effect of other seeds is added to each d* (Bouthillier et
    al., MLSys 2021). It is Student's t times the standard error from ``Scores.between_runs``, pooled over all
    configurations as in an analysis of variance. If none has two runs, or without ``seeded``, only the networks at hand
    are compared.
    """
    repeated = [winner, *others.values()] if seeded else []
    degrees = sum(one.runs - 1 for one in repeated)
    variance = sum((one.runs - 1) * one.between_runs(name) for one in repeated) / max(1, degrees)
    warning = few_groups(winner, name)

    def comparison(other: Scores) -> Comparison:
        assert winner.resamples is other.resamples, "only scores on the same resamples can be paired"
        drawn = winner.replicates[name] - other.replicates[name]
        if degrees:
            order = np.random.default_rng(0).permutation(len(drawn))
            error = math.sqrt(variance * (1 / winner.runs + 1 / other.runs))
            drawn = drawn + error * t.ppf((order + 0.5) / max(1, len(drawn)), degrees)
        undefined = is_undefined(winner, name) or is_undefined(other, name)
        return _around(math.nan if undefined else winner.estimate[name] - other.estimate[name], drawn, warning)

    found = {key: comparison(other) for key, other in others.items()}
    corrected = holm([one.p for one in found.values()])
    return {key: replace(one, p_holm=float(p)) for (key, one), p in zip(found.items(), corrected, strict=True)}


def holm(p_values: Sequence[float]) -> Array:
    """Holm's step-down correction of p values, in the order given (Scand. J. Statist. 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def verdict_of(difference: float, p_holm: float, metric: str) -> int | None:
    """1: significantly better, -1: significantly worse, at a Holm-corrected p of 0.05; 0: no significant difference;
    None: not tested."""
    if not p_holm <= 0.05:
        return None if math.isnan(p_holm) else 0
    return 1 if difference * (1 if metric_mode(metric) == "max" else -1) > 0 else -1


def mcnemar(first_right: npt.NDArray[Any], second_right: npt.NDArray[Any], resamples: Resamples) -> McNemar | None:
    """The exact test on images that only one of two networks decides correctly (McNemar, Psychometrika 12, 1947).

    first_right, second_right: bool [N], one network each (not a mean over runs). None if any group has more than one
    image, since the test assumes that images are independent.
    """
    if not resamples.one_image_each:
        return None
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    only, other = int((first & ~second).sum()), int((second & ~first).sum())
    return McNemar(only, other, min(1.0, 2 * float(binom.cdf(min(only, other), only + other, 0.5))))


def change(before: Scores, after: Scores, name: str) -> Comparison:
    """A score on other images minus the same score before: as ``compare``, but the two are resampled independently.

    If one score is the same in every resample, such as one without any error, the interval is computed from those of
    both (Zou & Donner, Statistics in Medicine 27, 2008, equation 2; for two proportions Newcombe's). It is NaN if that
    score is no proportion, and so has no interval either.
    """
    if any(len(one.replicates[name]) and not np.ptp(one.replicates[name]) for one in (before, after)):
        return _from_intervals(interval(before, name), interval(after, name))
    count = min(before.resamples.replicates, after.resamples.replicates)
    # With equally many patients both have the same draws: pairing them at random makes them independent.
    order = np.random.default_rng(0).permutation(before.resamples.replicates)[:count]
    drawn = after.replicates[name][:count] - before.replicates[name][order]
    warning = few_groups(before, name) or few_groups(after, name)
    return _around(after.estimate[name] - before.estimate[name], drawn, warning)


def _from_intervals(before: Interval, after: Interval) -> Comparison:
    difference = after.estimate - before.estimate
    if before.low == before.high or after.low == after.high:
        return Comparison(difference, warning=before.warning or after.warning)
    down = math.hypot(after.estimate - after.low, before.high - before.estimate)
    up = math.hypot(after.high - after.estimate, before.estimate - before.low)
    return Comparison(difference, difference - down, difference + up, warning=after.warning or before.warning)


def changed_share(before: Runs, after: Runs, by: float) -> tuple[str, float, float] | None:
    """The class whose share of the images differs most, and both shares; None if the difference is at most ``by``."""
    first, second = (one.truth.sum(axis=0) / np.maximum(one.known.sum(axis=0), 1) for one in (before, after))
    most = int(np.abs(second - first).argmax())
    if abs(second[most] - first[most]) <= by:
        return None
    return before.classes[most], float(first[most]), float(second[most])


def _around(difference: float, drawn: Array, warning: str) -> Comparison:
    """drawn: the differences of the resamples. p_holm is that of a single comparison."""
    away = np.abs(drawn - difference)
    if len(away) < FEWEST_REPLICATES or math.isnan(difference):
        return Comparison(difference, warning=warning)
    # Differences of sums that are mathematically equal may differ in their last bits.
    p = (1 + int((away >= abs(difference) - 1e-12).sum())) / (len(away) + 1)
    reach = float(np.sort(away)[-math.floor(0.05 * (len(away) + 1))])
    return Comparison(difference, difference - reach, difference + reach, p, p, warning)


@dataclass(frozen=True)
class ClassShortcut:
    """How well a shortcut predicts one class. auroc, f1: the shortcut's; lead: the winner's F1 minus f1; positives:
    images of the class. test: for a result on validation, the same on test."""

    name: str
    baseline: BaselineRecord
    auroc: float
    f1: float
    winner: float
    lead: Comparison
    positives: int
    test: ClassShortcut | None = None

    @property
    def judged(self) -> bool:
        return self.positives >= FEWEST_POSITIVES and not math.isnan(self.auroc)

    @property
    def gives_away(self) -> bool:
        """Whether the shortcut predicts the class nearly perfectly, or well and hardly worse than the winner."""
        as_well = self.lead.low <= 0 or self.lead.high <= NEAR
        return self.judged and (self.auroc >= GIVES_AWAY or (self.auroc >= SUSPECT and as_well))


@dataclass(frozen=True)
class BaselineComparison:
    """The winner compared with the baselines in macro F1, on the same images of one split.

    winner: its scores. baselines: all of them, as recorded. measured: the scores, by name, of those with predictions of
    these images; leads: the macro F1 of the winner's networks minus theirs, on the same resamples of patients.
    by_class: for each class and each shortcut except the majority class. tuned: whether more than the head was trained.
    """

    split: str
    winner: Scores
    baselines: tuple[BaselineRecord, ...]
    measured: dict[str, Scores]
    leads: dict[str, Comparison]
    by_class: tuple[ClassShortcut, ...] = ()
    tuned: bool = True

    @property
    def given_away(self) -> tuple[ClassShortcut, ...]:
        """The classes that a shortcut gives away, each with its shortcut of the highest AUROC, highest first. Only this
        decides it."""
        found: dict[str, ClassShortcut] = {}
        for one in sorted(self.by_class, key=lambda one: -one.auroc):
            if one.gives_away:
                found.setdefault(one.name, one)
        return tuple(found.values())

    def close(self, kind: str) -> list[BaselineRecord]:
        """Those ``of_kind`` that reach at least ``CLOSE`` of the gain, or do not differ significantly from the winner
        (the interval of its lead includes 0), or score as well or better. Only this decides it.

        For shortcuts a caveat; for frozen features: fine-tuning gains little over them, or is not shown to gain.
        """

        def is_close(name: str) -> bool:
            lead = self.leads[name]
            return self.share_of_gain(name) >= CLOSE or lead.low <= 0 or lead.difference <= 0

        return [one for one in self.of_kind(kind) if is_close(one.name)]

    def of_kind(self, kind: str) -> list[BaselineRecord]:
        """The measured baselines of a kind, "shortcut" or "frozen", the best first."""
        found = [one for one in self.baselines if one.kind == kind and one.name in self.measured]
        return sorted(found, key=lambda one: -self.measured[one.name].estimate[FALLBACK])

    def share_of_gain(self, name: str) -> float:
        """A baseline's place between the majority class (0) and the winner (1); NaN without a gain or a score."""
        if MAJORITY not in self.measured or name not in self.measured:
            return math.nan
        least = self.measured[MAJORITY].estimate[FALLBACK]
        gain = self.winner.estimate[FALLBACK] - least
        return (self.measured[name].estimate[FALLBACK] - least) / gain if gain > 0 else math.nan

    @property
    def shortcut_sentence(self) -> str:
        """Whether a shortcut comes close; "" where none was measured."""
        best, close = self._scored(self.of_kind("shortcut")[:1]), self.close("shortcut")
        if not close:
            classes = [one.name for one in self.given_away]
            given = f", but one predicts {formats.listing(classes)}" if classes else ""
            over = " over all classes" if classes else ""
            return f"No shortcut comes close to the winner{over}: the best is {best}{given}." if best else ""
        text = f"A shortcut comes close to the winner: {self._scored(close)}. "
        if any(one.name == MAJORITY for one in close):
            return text + "There is no evidence that the network learned to distinguish the classes."
        return text + "The labels may be predictable from how the images were made, not from what they show."

    @property
    def frozen_sentence(self) -> str:
        """Whether fine-tuning gains over frozen features; "" where none were measured."""
        first, close = self.of_kind("frozen")[:1], self.close("frozen")
        best = self._scored(first)
        what = "Fine-tuning" if self.tuned else "Training the head alone"
        if unclear := [one for one in close if not self.leads[one.name].low > 0]:
            equal = self._scored(unclear)
            return f"{what} is not shown to improve on logistic regression on frozen features: {equal}."
        if close:
            return f"{what} improves little on logistic regression on frozen features: {self._scored(close)}."
        if best and math.isnan(self.leads[first[0].name].low):
            return f"{what} scores higher than logistic regression on frozen features (not tested): {best}."
        return f"{what} improves on logistic regression on frozen features: {best}." if best else ""

    def _scored(self, baselines: Sequence[BaselineRecord]) -> str:
        """ "thumbnails (macro F1 0.412, winner minus baseline +0.393 (+0.301 to +0.475))"."""
        parts = []
        for one in baselines:
            lead = self.leads[one.name]
            shown = formats.difference(lead.difference, lead.low, lead.high)
            score = formats.score(self.measured[one.name].estimate[FALLBACK])
            parts.append(f"{formats.lower(one.label)} (macro F1 {score}, winner minus baseline {shown})")
        return formats.listing(parts)


def compare_baselines(
    runs: Runs, scores: Scores, baselines: Sequence[tuple[BaselineRecord, Predictions | None]], split: str
) -> BaselineComparison:
    """Score the baselines and compare the winner with them on ``split``.

    runs, scores: the winner's. baselines: each with its predictions; None: failed or not usable. With folds the winner
    has more validation images than the baselines: only theirs are used, each predicted by the fold not trained on it.
    """
    parts = {one.name: saved.of(split) for one, saved in baselines if saved is not None}
    seen = next((part.path for part in parts.values() if len(part.path)), runs.paths)
    shared = np.isin(runs.paths, seen)
    if shared.any() and not shared.all():
        runs = runs.of(shared)
        scores = runs.scores()
    records = tuple(one for one, _ in baselines)
    measured: dict[str, Scores] = {}
    by_class: list[ClassShortcut] = []
    for one in records:
        part = parts.get(one.name)
        aligned = part.align(runs.paths, runs.labels) if part is not None and part.classes == runs.classes else None
        if aligned is None:
            continue
        alone = replace(runs, names=(one.name,), probabilities=aligned.probability[None])
        measured[one.name] = alone.scores(scores.resamples)
        if one.kind == "shortcut" and one.name != MAJORITY:
            by_class += _by_class(one, aligned, scores, measured[one.name])
    leads = compare(scores, measured, FALLBACK, seeded=False) if measured else {}
    return BaselineComparison(split, scores, records, measured, leads, tuple(by_class))


def _by_class(shortcut: BaselineRecord, saved: Predictions, winner: Scores, scores: Scores) -> Iterator[ClassShortcut]:
    """saved: the shortcut's predictions on the images that both were scored on."""
    values = evaluate_predictions(saved.label, saved.probability, saved.classes, saved.task)
    having = has_class(saved.label, len(saved.classes)).sum(axis=0)
    for place, name in enumerate(saved.classes):
        f1 = f"f1:{name}"
        yield ClassShortcut(
            name=name,
            baseline=shortcut,
            auroc=values[f"auroc:{name}"],
            f1=scores.estimate[f1],
            winner=winner.estimate[f1],
            lead=compare(winner, {shortcut.name: scores}, f1, seeded=False)[shortcut.name],
            positives=int(having[place]),
        )


@dataclass(frozen=True)
class ExternalResult:
    """An external evaluation: the model of a run on other labelled images. areas: as for ``score_runs``."""

    evaluation: Evaluation
    areas: bool = True

    @property
    def facts(self) -> EvaluationRecord:
        return self.evaluation.facts

    @cached_property
    def conclusion(self) -> ConclusionRecord:
        """As ``reports.conclusion`` wrote it; empty before."""
        return read_conclusion(self.evaluation.paths)

    @cached_property
    def images(self) -> Runs:
        """The one run of the model on the images, with their patients."""
        found = self.evaluation.predictions
        groups = tuple(map(str, self.evaluation.rows["group"]))
        names = (self.facts.model.trial or "the model",)
        columns = found.label, found.probability[None], found.path, groups
        return Runs(names, found.classes, *columns, self.facts.model.ordered)

    @property
    def tuned(self) -> dict[str, float] | None:
        """As for ``metrics.decide``; None unless exactly one (single-label), or if all are 0.5 (multi-label)."""
        found = {name: value for name, value in (self.facts.thresholds or {}).items() if name in self.facts.classes}
        if self.facts.task == "single_label":
            return found if len(found) == 1 else None
        return found if any(value != UNTUNED for value in found.values()) else None

    @cached_property
    def scores(self) -> Scores:
        """Scores of the decisions that ``python -m sweep.predict`` makes."""
        return self.images.scores(areas=self.areas, thresholds=self.tuned)

    @property
    def absent(self) -> list[str]:
        """Classes without an image."""
        return [name for name, count in self.facts.counts.items() if not count]

    @property
    def only(self) -> str | None:
        """The class of all images; None if they have several classes, or the task is multi-label."""
        present = [name for name, count in self.facts.counts.items() if count]
        return present[0] if len(present) == 1 and not self.images.multi_label else None

    @property
    def one_sided(self) -> bool:
        """Multi-label: whether some label is present on all, or on none, of the images where it is known."""
        images = self.images
        truth, known = images.truth & images.known, images.known
        return images.multi_label and bool((~truth.any(axis=0) | (truth == known).all(axis=0)).any())

    @property
    def with_f1(self) -> list[str]:
        """The classes whose F1 is informative: those with images; none if all images are of one class."""
        return [] if self.only else [name for name in self.images.classes if name not in self.absent]

    @property
    def main_score(self) -> str:
        """Macro F1; accuracy if a class has no image, whose F1 would count as 0; recall if all are of one class."""
        if self.only:
            return f"recall:{self.only}"
        return "accuracy" if self.absent else "f1_macro"

    def name_of(self, key: str) -> str:
        """ "macro F1 (2 of 3 classes)" for a score, "recall of normal" for the score of a class."""
        plain, _, label = key.partition(":")
        return formats.score_name(plain, self.images.task) + (f" of {label}" if label else qualifier(self.scores, key))

    @property
    def size(self) -> str:
        """ "120 images of 80 patients"."""
        resamples = self.images.resamples
        patients = f" of {resamples.groups:,} patients" if resamples.named else ""
        return f"{len(self.images.paths):,} images{patients}"
