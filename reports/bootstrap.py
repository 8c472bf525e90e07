"""The uncertainty of scores: a configuration scored on the images and on bootstrap resamples of patients.

Images of one patient are not independent, so whole patients are drawn with replacement, as many as there are
(Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8: resampling of clusters). They are drawn
once, so that every network is scored on the same resamples. scipy and scikit-learn take a hundred times as long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainables.metrics import decisions, has_class, is_known, ratio, sum_by_group, weighted_scores

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

# If fewer than one draw in fifty has every class, there are fewer replicates rather than a long wait.
_DRAWS_PER_REPLICATE = 50
_ROUND = 256
_MOST_LEFT_OUT = 1000

REPLICATES = 2000
PPV_AT_PREVALENCE = "precision_at_prevalence"
ALL_FOLDS = "all folds"
"""The name of the run that joins all folds."""


@dataclass(frozen=True)
class Resamples:
    """The resamples drawn: B replicates of G groups (in order of their first image) with N images.

    counts: uint16 [B, G], how often a replicate has each group; a row sums to G. member: int64 [N] in 0..G-1, the
    group of each image. redrawn: draws that lacked a class and were repeated. named: whether any image has a named
    group, that is, whether groups are patients rather than single images.
    """

    counts: NDArray[np.uint16]
    member: NDArray[np.int64]
    redrawn: int
    named: bool

    @property
    def replicates(self) -> int:
        return len(self.counts)

    @property
    def groups(self) -> int:
        return int(self.counts.shape[1])

    @property
    def one_image_each(self) -> bool:
        """Whether every group has one image, as Wilson's interval and McNemar's test require."""
        return self.groups == len(self.member)

    @property
    def left_out(self) -> NDArray[np.uint16]:
        """uint16 [J, G]: the jackknife, one row per group with that group left out; no rows if G is 1.

        Above 1000 groups, 1000 random blocks of groups are left out instead. The rows are used only for the
        acceleration of an interval, which is the same in expectation: it is proportional to the skewness over the root
        of the number of blocks, and both fall with the root of the block size.
        """
        rows = min(self.groups, _MOST_LEFT_OUT) if self.groups > 1 else 0
        block = np.random.default_rng(0).permutation(self.groups) % max(1, rows)
        rest: NDArray[np.uint16] = (block[None, :] != np.arange(rows)[:, None]).astype(np.uint16)
        return rest

    @property
    def weights(self) -> NDArray[np.uint16]:
        """uint16 [1 + B + J, G], the weight of each group: 1 (the images themselves), ``counts``, ``left_out``."""
        once = np.ones((1, self.groups), dtype=np.uint16)
        return np.concatenate([once, self.counts, self.left_out])

    def groups_with(self, chosen: NDArray[np.bool_]) -> int:
        """How many groups have an image among ``chosen``, bool [N]."""
        return int(np.count_nonzero(np.bincount(self.member[chosen])))


def draw_resamples(
    groups: Sequence[str], labels: NDArray[Any], class_count: int, *, replicates: int = REPLICATES, seed: int = 0
) -> Resamples:
    """Draw groups with replacement until ``replicates`` of the draws have every class.

    groups: [N], "" = a group of its own. labels: int [N] in 0..class_count-1, or [N, class_count] of 0, 1 and
    ``MISSING`` (multi-label).
    A draw is kept if it has every class that the images have (multi-label: an image with and one without each label);
    others are repeated, and counted in ``redrawn``. If fewer than about one draw in fifty is kept, there are fewer than
    ``replicates``, perhaps none. The same arguments give the same resamples.
    """
    # Numbered in order of their first image.
    member = pd.factorize(np.array([name or place for place, name in enumerate(groups)], dtype=object))[0]
    group_count = int(member.max()) + 1
    assert len(labels) == len(member), "one label and one group an image"
    needed = _needed(labels, class_count, member, group_count)
    rng = np.random.default_rng(seed)
    kept: list[NDArray[np.uint16]] = []
    have = drawn = 0
    while have < replicates and drawn < _DRAWS_PER_REPLICATE * replicates:
        picked = rng.integers(0, group_count, size=(_ROUND, group_count)) + np.arange(_ROUND)[:, None] * group_count
        counts = np.bincount(picked.ravel(), minlength=picked.size).reshape(picked.shape).astype(np.float32)
        whole = np.flatnonzero(((counts @ needed) > 0).all(axis=1))[: replicates - have]
        # Draws after the last one needed were never looked at: they are not "redrawn".
        drawn += int(whole[-1]) + 1 if have + len(whole) == replicates and len(whole) else _ROUND
        have += len(whole)
        kept.append(counts[whole].astype(np.uint16))
    return Resamples(
        counts=np.concatenate(kept),
        member=member,
        redrawn=drawn - have,
        named=any(groups),
    )


def _needed(labels: NDArray[Any], class_count: int, member: NDArray[np.int64], groups: int) -> NDArray[np.float32]:
    """float32 [G, K]: 1 where a group has an image of the k-th kind that every replicate must have."""
    kinds = has_class(labels, class_count)
    if labels.ndim == 2:
        kinds = np.concatenate([kinds, labels == 0], axis=1)
    needed = np.zeros((groups, kinds.shape[1]), dtype=np.float32)
    np.maximum.at(needed, member, kinds.astype(np.float32))
    return needed[:, kinds.any(axis=0)]


@dataclass(frozen=True)
class Scores:
    """A configuration's scores by name ("f1_macro", "recall:covid", ...).

    values: [R, 1 + B + J], each of R runs by ``Resamples.weights``; NaN where an AUROC is undefined. proportion_of: the
    number of images of which a score is a proportion, the mean over the runs; other scores have no entry. groups_of:
    the number of groups of these images. positives, negatives: for each class, the number of groups with an image known
    to have it, and with one known not to. ordered: as for ``evaluate_predictions``. prevalence: by class, that of
    ``with_prevalence``.
    """

    classes: tuple[str, ...]
    values: dict[str, Array]
    proportion_of: dict[str, float]
    groups_of: dict[str, float]
    positives: dict[str, int]
    negatives: dict[str, int]
    resamples: Resamples
    ordered: bool = False
    prevalence: Mapping[str, float] = field(default_factory=dict)

    @property
    def defined(self) -> list[str]:
        """The classes in the macro mean of ``AREAS``: those with both positive and negative images."""
        return [name for name in self.classes if self.positives[name] and self.negatives[name]]

    @cached_property
    def by_run(self) -> dict[str, Array]:
        """[R], the score of each run."""
        return {name: value[:, 0] for name, value in self.values.items()}

    @cached_property
    def estimate(self) -> dict[str, float]:
        """The mean over the runs on the images themselves."""
        return {name: float(value.mean()) for name, value in self.by_run.items()}

    @cached_property
    def replicates(self) -> dict[str, Array]:
        """[B], the mean over the runs on each resample."""
        end = 1 + self.resamples.replicates
        return {name: value[:, 1:end].mean(axis=0) for name, value in self.values.items()}

    @property
    def runs(self) -> int:
        """R."""
        return len(self.values["f1_macro"])

    def between_runs(self, name: str) -> float:
        """The variance of a run's score due to its training seed; 0 for a single run, or without resamples.

        Runs and images are crossed: the variance between the runs on these images (divisor n - 1) is due to the seed
        and to the interaction of seed and image. The latter is the variance between runs of their change from these
        images to a resample. It is subtracted, since the resamples already show it; not below 0 (method of moments:
        Searle, Casella & McCulloch, Variance Components, 1992, chapter 4).
        """
        if self.runs < 2 or not self.resamples.replicates:
            return 0.0
        own, end = self.by_run[name], 1 + self.resamples.replicates
        away = self.values[name][:, 1:end] - own[:, None]
        return max(0.0, float(own.var(ddof=1) - away.var(axis=0, ddof=1).mean()))

    @cached_property
    def left_out(self) -> dict[str, Array]:
        """[J], the mean over the runs with each group left out."""
        start = 1 + self.resamples.replicates
        return {name: value[:, start:].mean(axis=0) for name, value in self.values.items()}


def score_runs(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    resamples: Resamples,
    *,
    thresholds: Mapping[str, float] | None = None,
    areas: bool = True,
    ordered: bool = False,
) -> Scores:
    """Score the runs (repeats) of one configuration on the same images.

    labels: int [N] in 0..C-1, or [N, C] of 0, 1 and ``MISSING`` (multi-label). probabilities: [R, N, C] in [0, 1], rows
    in the order of ``labels`` and of ``resamples``. thresholds: as for ``metrics.decide``. areas: score
    ``metrics.AREAS`` too, which take longest. ordered: as for ``evaluate_predictions``.

    The names are those of ``evaluate_predictions``, and ``npv:c``, the share of the images decided not to be c that are
    not c. A ratio 0/0 is 0; an area undefined on these images is NaN throughout, and not part of the macro mean.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    assert probabilities.ndim == 3, "probabilities are [runs, images, classes]"
    assert probabilities.shape[1:] == (len(labels), len(classes)), "one row an image, one column a class"
    assert len(resamples.member) == len(labels), "resamples of other images"
    assert not thresholds or set(thresholds) <= set(classes), "thresholds are by class"

    truth, known = has_class(labels, len(classes)), is_known(labels, len(classes))
    decided = decisions(probabilities, classes, thresholds, "multi_label" if labels.ndim == 2 else "single_label")
    scored = labels, probabilities, decided, classes, resamples.weights, resamples.member
    counted = _counted(truth, decided, known, classes)
    groups_of = {name: float(np.mean([*map(resamples.groups_with, rows)])) for name, rows in counted.items()}
    return Scores(
        classes=tuple(classes),
        values=weighted_scores(*scored, areas=areas, ordered=ordered),
        proportion_of={name: float(rows.sum(axis=1).mean()) for name, rows in counted.items()},
        groups_of=groups_of,
        positives={c: int(groups_of[f"recall:{c}"]) for c in classes},
        negatives={c: int(groups_of[f"specificity:{c}"]) for c in classes},
        resamples=resamples,
        ordered=ordered,
    )


@dataclass(frozen=True)
class Runs:
    """One configuration's runs on the same N images of a split. names: of the R runs, the model file's first.

    labels: int64 [N] or int8 [N, C] of 0, 1 and ``MISSING``; probabilities: float32 [R, N, C]; paths: str [N]; groups:
    N hashed patients, "" = a patient of its own. ordered: as for ``evaluate_predictions``.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[Any]
    probabilities: NDArray[np.float32]
    paths: NDArray[np.str_]
    groups: tuple[str, ...]
    ordered: bool = False

    @property
    def patients(self) -> float:
        """The number of patients, each image without a group counting as one; NaN if no image has a group."""
        return len(set(self.groups) - {""}) + self.groups.count("") if any(self.groups) else math.nan

    @property
    def pooled(self) -> bool:
        """Whether it joins all folds: each image is predicted by the network that was not trained on it."""
        return self.names == (ALL_FOLDS,)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def task(self) -> str:
        return "multi_label" if self.multi_label else "single_label"

    @property
    def truth(self) -> NDArray[np.bool_]:
        """bool [N, C]: which classes each image is known to have."""
        return has_class(self.labels, len(self.classes))

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool [N, C]: which labels are known."""
        return is_known(self.labels, len(self.classes))

    def right(self, name: str) -> NDArray[np.bool_]:
        """bool [N]: which images the run of that name decides correctly in every known label."""
        decided = decisions(self.probabilities[self.names.index(name)], self.classes, None, self.task)
        right: NDArray[np.bool_] = ((decided == self.truth) | ~self.known).all(axis=1)
        return right

    @cached_property
    def resamples(self) -> Resamples:
        """Resamples of its patients: the same for every configuration on the same images."""
        return draw_resamples(self.groups, self.labels, len(self.classes))

    def scores(
        self, resamples: Resamples | None = None, *, areas: bool = False, thresholds: Mapping[str, float] | None = None
    ) -> Scores:
        """Arguments as for ``score_runs``. resamples: of the same images; None: its own."""
        scored = self.labels, self.probabilities, self.classes, resamples or self.resamples
        return score_runs(*scored, thresholds=thresholds, areas=areas, ordered=self.ordered)

    def of(self, chosen: NDArray[np.bool_]) -> Runs:
        """The same runs on the images ``chosen``, bool [N]."""
        groups = tuple(itertools.compress(self.groups, chosen))
        rows = self.labels[chosen], self.probabilities[:, chosen], self.paths[chosen]
        return Runs(self.names, self.classes, *rows, groups, self.ordered)


def _counted(truth: Bools, decided: Bools, known: Bools, classes: Sequence[str]) -> dict[str, Bools]:
    """For each score that is a proportion, bool [R or 1, N]: the images of which it is one."""
    some = np.asarray(known.any(axis=1))[None]
    found = {"accuracy": some, "exact_match": some}
    parts = {"recall": truth[None], "specificity": (known & ~truth)[None]}
    parts |= {"precision": decided & known, "npv": ~decided & known}
    return found | {f"{name}:{c}": rows[..., i] for name, rows in parts.items() for i, c in enumerate(classes)}


def with_prevalence(scores: Scores, name: str, prevalence: float) -> Scores:
    """``scores`` with ``precision_at_prevalence:name``: the PPV of a class at another prevalence.

    By Bayes' theorem from sensitivity and specificity, sens * prev / (sens * prev + (1 - spec) * (1 - prev)) (Altman &
    Bland, BMJ 309:102, 1994), in each resample; prevalence: in (0, 1). Undefined, as precision is, if no image is
    decided to be of the class, and if either ratio is 0/0.
    """
    key, ratios = f"{PPV_AT_PREVALENCE}:{name}", (f"recall:{name}", f"specificity:{name}")
    recall, specificity = (scores.values[one] for one in ratios)
    values = scores.values | {key: ppv_at(recall, specificity, prevalence)}
    undefined = any(scores.proportion_of[one] == 0 for one in (*ratios, f"precision:{name}"))
    sizes = scores.proportion_of | ({key: 0.0} if undefined else {})
    return replace(scores, values=values, proportion_of=sizes, prevalence={**scores.prevalence, name: prevalence})


def ppv_at(sensitivity: Array, specificity: Array, prevalence: float) -> Array:
    """The formula of ``with_prevalence``; 0/0 is 0."""
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return ratio(true, true + false)


def with_means(scores: Scores, values: Mapping[str, NDArray[Any]]) -> Scores:
    """``scores`` with the mean over images of each of ``values``, [R, N]; images with NaN are ignored."""
    resamples, weights = scores.resamples, scores.resamples.weights
    rows = {}
    for name, value in values.items():
        counted = np.isfinite(value)
        columns = np.where(counted, value, 0.0), counted.astype(np.float64)
        total, images = (weights @ sum_by_group(one.T, resamples.member, resamples.groups) for one in columns)
        rows[name] = ratio(total, images, math.nan).T
    return replace(scores, values=scores.values | rows)
