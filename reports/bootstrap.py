"""How sure a score is: a configuration scored on the images and on resamples of patients, and its 95 % interval.

The images of one patient are not independent, so whole patients are drawn, with replacement, as many as there are
(Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8: resampling of clusters), once, so that
every network is scored on the same resamples. scipy and scikit-learn take a hundred times as long.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from trainables.metrics import decide
from trainables.predictions import Predictions

Array = NDArray[np.float64]

FEW_GROUPS = 20
FEWEST_REPLICATES = 200
AREAS = ("auroc", "ap")
# In these every class weighs the same, however few have it.
_MACRO = ("f1_macro", "balanced_accuracy", "auroc_macro", "ap_macro")
# A set so poor in some class that fewer than one draw in fifty has every class gets fewer replicates, not a long wait.
_DRAWS_PER_REPLICATE = 50
_ROUND = 256
_MOST_LEFT_OUT = 1000
_EPSILON = float(np.finfo(np.float32).eps)  # as in trainables.metrics: what a probability of 0 or 1 is worth
_CHUNK = 256  # replicates scored at once: bounds memory and stays in the processor's cache
_PAIRS = 4_000_000  # (positive, negative) pairs looked at together
_CELLS = 4_000_000  # weights looked at together: 16 MB


@dataclass(frozen=True)
class Resamples:
    """What was drawn. G groups in order of their first image, N images, B replicates.

    counts: uint16 [B, G], how often a replicate has each group; a row sums to G. member: int64 [N] in 0..G-1, the
    group of each image. redrawn: replicates that lacked a class and were drawn anew. named: whether any image has a
    group of a name, that is, whether groups are patients rather than single images.
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
        """uint16 [J, G]: the jackknife, a row for each group with that group left out; none where G is 1.

        Above 1000 groups they are left out in as many blocks drawn by chance: the acceleration of an interval, for
        which alone the rows are used, is the same in expectation (skewness falls with the root of a block's size
        as the root of their number does).
        """
        rows = min(self.groups, _MOST_LEFT_OUT) if self.groups > 1 else 0
        block = np.random.default_rng(0).permutation(self.groups) % max(1, rows)
        rest: NDArray[np.uint16] = (block[None, :] != np.arange(rows)[:, None]).astype(np.uint16)
        return rest

    def groups_with(self, chosen: NDArray[np.bool_]) -> int:
        """How many groups have an image among ``chosen``, bool [N]."""
        return len(np.unique(self.member[chosen]))


def draw_resamples(
    groups: Sequence[str], labels: NDArray[Any], class_count: int, *, replicates: int = 2000, seed: int = 0
) -> Resamples:
    """Draw groups with replacement until ``replicates`` of the draws have every class.

    groups: [N], "" = a group of its own. labels: int [N] in 0..class_count-1, or 0/1 [N, class_count] (multi-label).
    A draw counts if it has every class (multi-label: an image with and an image without every label) that the images
    themselves have; others are drawn anew and counted. Where hardly any draw does (about one in fifty), there are
    fewer than ``replicates``, perhaps none. The same arguments give the same resamples.
    """
    member = _member(groups)
    group_count = int(member.max()) + 1
    assert len(labels) == len(member), "one label and one group an image"
    needed = _needed(labels, class_count, member, group_count)
    rng = np.random.default_rng(seed)
    kept: list[NDArray[np.uint16]] = []
    have = drawn = 0
    while have < replicates and drawn < _DRAWS_PER_REPLICATE * replicates:
        counts = _draw(rng, _ROUND, group_count)
        whole = np.flatnonzero(((counts @ needed) > 0).all(axis=1))[: replicates - have]
        # Draws after the last one needed were never looked at: they are not "redrawn".
        drawn += int(whole[-1]) + 1 if have + len(whole) == replicates and len(whole) else _ROUND
        have += len(whole)
        kept.append(counts[whole].astype(np.uint16))
    return Resamples(
        counts=np.concatenate(kept) if kept else np.zeros((0, group_count), dtype=np.uint16),
        member=member,
        redrawn=drawn - have,
        named=any(groups),
    )


def _member(groups: Sequence[str]) -> NDArray[np.int64]:
    """int64 [N]: groups numbered in order of their first image."""
    number: dict[tuple[str, int], int] = {}
    keys = ((name, 0) if name else ("", index + 1) for index, name in enumerate(map(str, groups)))
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def _needed(labels: NDArray[Any], class_count: int, member: NDArray[np.int64], groups: int) -> NDArray[np.float32]:
    """float32 [G, K]: 1 where a group has an image of the k-th kind that every replicate must have."""
    if labels.ndim == 1:
        kinds = np.equal(labels[:, None], np.arange(class_count))
    else:
        kinds = np.concatenate([labels == 1, labels == 0], axis=1)
    needed = np.zeros((groups, kinds.shape[1]), dtype=np.float32)
    np.maximum.at(needed, member, kinds.astype(np.float32))
    return needed[:, kinds.any(axis=0)]


def _draw(rng: np.random.Generator, replicates: int, groups: int) -> NDArray[np.float32]:
    """float32 [replicates, groups] of multinomial counts."""
    drawn = rng.integers(0, groups, size=(replicates, groups)) + np.arange(replicates)[:, None] * groups
    return np.bincount(drawn.ravel(), minlength=replicates * groups).reshape(replicates, groups).astype(np.float32)


@dataclass(frozen=True)
class Scores:
    """A configuration's scores by name ("f1_macro", "recall:covid", ...), the mean over its runs.

    estimate: on the images themselves. replicates: [B], on each resample. left_out: [J], with each group left out,
    NaN where that leaves an AUROC undefined. by_run: [R], each run's own. proportion_of: of how many images a score is
    a proportion, the mean over the runs; scores that are none are missing. positives, negatives: for each class, the
    groups with an image that has it, and with one that has it not.
    """

    classes: tuple[str, ...]
    estimate: dict[str, float]
    replicates: dict[str, Array]
    left_out: dict[str, Array]
    by_run: dict[str, Array]
    proportion_of: dict[str, float]
    positives: dict[str, int]
    negatives: dict[str, int]
    resamples: Resamples


def score_runs(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    resamples: Resamples,
    *,
    thresholds: Mapping[str, float] | None = None,
    areas: bool = True,
) -> Scores:
    """Score the runs (repeats) of one configuration on the same images.

    labels: int [N] in 0..C-1, or 0/1 [N, C] (multi-label). probabilities: [R, N, C] in [0, 1], one block a run, rows
    in the order of ``labels`` and of ``resamples``. thresholds: for labels of a multi-label task, the least
    probability that is a positive decision; 0.5 where a label has none. areas: AUROC and average precision, too, which
    take longest.

    The names are those of ``evaluate_predictions``; ``npv:c``, the part of the images decided not to be c that are not;
    ``ap:c`` and ``ap_macro``: average precision, the mean of the precision over the recall, without interpolation (as
    in scikit-learn). A ratio 0/0 is 0; an area that the images do not define is NaN throughout.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    assert probabilities.ndim == 3, "probabilities are [runs, images, classes]"
    assert probabilities.shape[1:] == (len(labels), len(classes)), "one row an image, one column a class"
    assert len(resamples.member) == len(labels), "resamples of other images"
    assert not thresholds or (labels.ndim == 2 and set(thresholds) <= set(classes)), "thresholds are by label"

    multi_label = labels.ndim == 2
    truth = labels == 1 if multi_label else np.equal(labels[:, None], np.arange(len(classes)))
    decided = decisions(probabilities, classes, thresholds, "multi_label" if multi_label else "single_label")
    summed = _sum_by_group(_columns(labels, truth, probabilities, decided), resamples)
    once = np.ones((1, resamples.groups), dtype=np.uint16)
    by_run = {name: value[0] for name, value in _score(once, summed, classes, multi_label).items()}

    counts = np.concatenate([resamples.counts, resamples.left_out])
    chunks = [counts[at : at + _CHUNK] for at in range(0, max(1, len(counts)), _CHUNK)]
    parts = [_score(chunk, summed, classes, multi_label) for chunk in chunks]
    rows = {name: np.concatenate([part[name].mean(axis=1) for part in parts]) for name in by_run}
    if areas:
        weights = _weights(resamples)
        for i, c in enumerate(classes):
            given = probabilities[:, :, i]
            by_run[f"auroc:{c}"], rows[f"auroc:{c}"] = _auroc(truth[:, i], given, counts, resamples.member)
            found = np.stack([_average_precision(truth[:, i], run, weights, resamples.member) for run in given])
            by_run[f"ap:{c}"], rows[f"ap:{c}"] = found[:, 0], found[:, 1:].mean(axis=0)
        for values in (by_run, rows):
            values |= {f"{area}_macro": np.mean([values[f"{area}:{c}"] for c in classes], axis=0) for area in AREAS}
    return Scores(
        classes=tuple(classes),
        estimate={name: float(value.mean()) for name, value in by_run.items()},
        replicates={name: value[: resamples.replicates] for name, value in rows.items()},
        left_out={name: value[resamples.replicates :] for name, value in rows.items()},
        by_run=by_run,
        proportion_of=_proportion_of(truth, decided, classes, multi_label),
        positives={c: resamples.groups_with(truth[:, i]) for i, c in enumerate(classes)},
        negatives={c: resamples.groups_with(~truth[:, i]) for i, c in enumerate(classes)},
        resamples=resamples,
    )


@dataclass(frozen=True)
class Runs:
    """One configuration's runs on the same N images of a split. names: of R runs, that of the model file first.

    labels: int64 [N] or uint8 [N, C]; probabilities: float32 [R, N, C]; paths: str [N]; groups: N hashed patients, "" =
    a patient of its own.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: NDArray[Any]
    probabilities: NDArray[np.float32]
    paths: NDArray[np.str_]
    groups: tuple[str, ...]

    @property
    def patients(self) -> float:
        """How many there are, an image without a group counting as one; NaN where no image has a group."""
        return len(set(self.groups) - {""}) + self.groups.count("") if any(self.groups) else math.nan

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    @property
    def truth(self) -> NDArray[np.bool_]:
        """bool [N, C]: which classes each image has."""
        found: NDArray[np.bool_] = (
            self.labels == 1 if self.multi_label else self.labels[:, None] == np.arange(len(self.classes))
        )
        return found

    @cached_property
    def resamples(self) -> Resamples:
        """Of its patients: the same for every configuration on the same images."""
        return draw_resamples(self.groups, self.labels, len(self.classes))

    def scores(self, *, areas: bool = False, thresholds: Mapping[str, float] | None = None) -> Scores:
        """On its own resamples; arguments as for ``score_runs``."""
        arguments = (self.labels, self.probabilities, self.classes, self.resamples)
        return score_runs(*arguments, areas=areas, thresholds=thresholds)

    def of(self, chosen: NDArray[np.bool_]) -> Runs:
        """On the images ``chosen``, bool [N]."""
        groups = tuple(itertools.compress(self.groups, chosen))
        rows = self.labels[chosen], self.probabilities[:, chosen], self.paths[chosen]
        return Runs(self.names, self.classes, *rows, groups)

    def align(self, other: Runs) -> Runs | None:
        """In the order of the images of ``other``; None if these are other images."""
        rows = [
            Predictions(self.paths, self.paths, self.labels, one, self.classes, 0).align(other.paths, other.labels)
            for one in self.probabilities
        ]
        same = [one.probability for one in rows if one is not None]
        if len(same) < len(rows):
            return None
        return Runs(self.names, self.classes, other.labels, np.stack(same), other.paths, other.groups)


def decisions(
    probabilities: NDArray[Any], classes: Sequence[str], thresholds: Mapping[str, float] | None, task: str
) -> NDArray[np.bool_]:
    """bool [..., N, C]: whether each class is the answer, one a row (single_label) or by ``thresholds``."""
    if task == "single_label":
        flat = decide(probabilities.reshape(-1, len(classes)), task)
        return np.equal(flat[:, None], np.arange(len(classes))).reshape(probabilities.shape)
    least = np.array([(thresholds or {}).get(name, 0.5) for name in classes])
    return np.asarray(probabilities, dtype=np.float64) >= least


def _columns(labels: NDArray[Any], truth: NDArray[np.bool_], probabilities: Array, decided: NDArray[np.bool_]) -> Array:
    """[N, R, 3 + 3C], what is summed over images: 1, all right, nll, then true, decided and both for each class."""
    if labels.ndim == 2:
        of_truth = np.where(truth, probabilities, 1 - probabilities)
    else:
        of_truth = np.take_along_axis(probabilities, labels[None, :, None].astype(np.int64), axis=2)
    nll = -np.log(np.maximum(of_truth, _EPSILON)).mean(axis=2)
    right = (decided == truth).all(axis=2)
    parts = [np.ones_like(nll)[..., None], right[..., None], nll[..., None]]
    parts += [np.broadcast_to(truth, decided.shape), decided, decided & truth]
    return np.moveaxis(np.concatenate(parts, axis=2).astype(np.float64), 0, 1)


def _sum_by_group(columns: Array, resamples: Resamples) -> Array:
    """[G, ...] of ``columns`` [N, ...]."""
    order = np.argsort(resamples.member, kind="stable")
    starts = np.searchsorted(resamples.member[order], np.arange(resamples.groups))
    return np.add.reduceat(columns[order], starts, axis=0)


def _score(counts: NDArray[np.uint16], summed: Array, classes: Sequence[str], multi_label: bool) -> dict[str, Array]:
    """Each score but AUROC as [b, R], of ``counts`` [b, G] and ``summed`` [G, R, 3 + 3C]."""
    totals = (counts.astype(np.float64) @ summed.reshape(len(summed), -1)).reshape(len(counts), *summed.shape[1:])
    images, right, nll = np.moveaxis(totals[..., :3], 2, 0)
    true, decided, tp = np.moveaxis(totals[..., 3:].reshape(*totals.shape[:2], 3, -1), 2, 0)
    tn = images[..., None] - true - decided + tp
    recall, specificity = _ratio(tp, true), _ratio(tn, images[..., None] - true)
    f1 = _ratio(2 * tp, true + decided)
    values = {
        "nll": nll / images,
        "accuracy": right / images,
        "balanced_accuracy": ((recall + specificity) / 2 if multi_label else recall).mean(axis=2),
        "f1_macro": f1.mean(axis=2),
    }
    if multi_label:
        values["exact_match"] = values["accuracy"]
        values["hamming_accuracy"] = (tp + tn).sum(axis=2) / (images * len(classes))
    npv = _ratio(tn, images[..., None] - decided)
    named = {"precision": _ratio(tp, decided), "recall": recall, "specificity": specificity, "npv": npv, "f1": f1}
    values.update({f"{name}:{c}": column[..., i] for name, column in named.items() for i, c in enumerate(classes)})
    return values


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _auroc(
    truth: NDArray[np.bool_], scores: Array, counts: NDArray[np.uint16], member: NDArray[np.int64]
) -> tuple[Array, Array]:
    """One class's AUROC by run, [R], and its mean over the runs for each row of ``counts``, [b].

    truth: [N]; scores: [R, N].
    The part of (positive, negative) pairs in the right order, ties counting half (Mann-Whitney U). The number of
    pairs does not depend on the run, so the runs' tables of pairs are added first and weighted once for all.
    """
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    if not len(positives) or not len(negatives):
        return np.full(len(scores), np.nan), np.full(len(counts), np.nan)
    of_positives = counts[:, member[positives]].astype(np.float32)
    of_negatives = counts[:, member[negatives]].astype(np.float32)
    by_run, won = np.zeros(len(scores)), np.zeros(len(counts))
    rows = max(1, _PAIRS // len(negatives))
    for at in range(0, len(positives), rows):
        block = positives[at : at + rows]
        pairs = np.zeros((len(block), len(negatives)), dtype=np.float32)
        for run, score in enumerate(scores):
            order = np.sign(score[block, None] - score[negatives]).astype(np.float32)  # 1 won, 0 tied, -1 lost
            by_run[run] += order.sum(dtype=np.float64)
            pairs += order
        # Whole numbers far below 2^24, so that float32 is exact up to here.
        of_block = of_positives[:, at : at + rows] @ pairs
        won += np.einsum("bn,bn->b", of_block, of_negatives, dtype=np.float64)
    total = len(positives) * len(negatives)
    pairs_drawn = of_positives.sum(axis=1, dtype=np.float64) * of_negatives.sum(axis=1, dtype=np.float64)
    # won + tied / 2 = (all + won - lost) / 2
    share = np.divide(
        (pairs_drawn + won / len(scores)) / 2, pairs_drawn, out=np.full(len(counts), np.nan), where=pairs_drawn > 0
    )
    return (total + by_run) / 2 / total, share


def _proportion_of(
    truth: NDArray[np.bool_], decided: NDArray[np.bool_], classes: Sequence[str], multi_label: bool
) -> dict[str, float]:
    images, positives = float(len(truth)), truth.sum(axis=0)
    answered = decided.sum(axis=1).mean(axis=0)
    sizes = {"accuracy": images, **({"exact_match": images} if multi_label else {})}
    for i, c in enumerate(classes):
        sizes[f"recall:{c}"], sizes[f"specificity:{c}"] = float(positives[i]), images - positives[i]
        sizes[f"precision:{c}"], sizes[f"npv:{c}"] = float(answered[i]), images - answered[i]
    return {name: float(size) for name, size in sizes.items()}


def with_means(scores: Scores, values: Mapping[str, NDArray[Any]]) -> Scores:
    """``scores`` with the mean over images of each of ``values``, [R, N]."""
    resamples = scores.resamples
    weights, end = _weights(resamples), 1 + resamples.replicates
    sizes = np.bincount(resamples.member, minlength=resamples.groups)
    rows = {}
    for name, value in values.items():
        summed = np.stack([np.bincount(resamples.member, weights=one, minlength=resamples.groups) for one in value])
        rows[name] = summed @ weights / (sizes @ weights)  # [R, 1 + B + J]
    return replace(
        scores,
        estimate=scores.estimate | {name: float(row[:, 0].mean()) for name, row in rows.items()},
        by_run=scores.by_run | {name: row[:, 0] for name, row in rows.items()},
        replicates=scores.replicates | {name: row[:, 1:end].mean(axis=0) for name, row in rows.items()},
        left_out=scores.left_out | {name: row[:, end:].mean(axis=0) for name, row in rows.items()},
    )


def _weights(resamples: Resamples) -> NDArray[np.float32]:
    """float32 [G, 1 + B + J]: how often each group counts, first in the images themselves."""
    once = np.ones((1, resamples.groups))
    return np.ascontiguousarray(np.concatenate([once, resamples.counts, resamples.left_out]).T.astype(np.float32))


def _average_precision(
    truth: NDArray[np.bool_], probability: NDArray[Any], weights: NDArray[np.float32], member: NDArray[np.int64]
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
    member = member[order]
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
