"""All metrics of one evaluation, over a whole split: the only place where a prediction is scored.

Needs numpy alone, so that reports can score saved predictions without torch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

MISSING = -1
"""In multi-hot labels: it is unknown whether the image has the label."""
# Closer to 0 or 1 than float32's epsilon, probabilities carry no information. So one label costs at most 15.9.
_EPSILON = float(np.finfo(np.float32).eps)
_CHUNK = 256  # weightings scored at once: bounds memory and stays in the processor's cache
_CELLS = 200_000  # weights processed together: 800 kB stay in the processor's cache
UNTUNED = 0.5
"""The threshold of a label where none was tuned."""
SPECIFICITY = 0.9
"""The specificity at which sensitivity is reported, as ``AREAS`` names it."""
AREAS = ("auroc", "ap", "sensitivity_at_90_specificity")
"""Scores of a class that need no decision; NaN for a class that no image or every image has."""
_SHARED = ("nll", "accuracy", "balanced_accuracy", "f1_macro", "mcc", "kappa", *(f"{area}_macro" for area in AREAS))
_MULTI_LABEL_ONLY = ("exact_match", "hamming_accuracy")
_PER_CLASS = ("precision", "recall", "specificity", "f1", *AREAS)
DEFINED = "defined_classes"


def evaluate_predictions(
    labels: Array,
    probabilities: Array,
    classes: Sequence[str],
    task: str,
    *,
    ordered: bool = False,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Score ``probabilities`` of one split against ``labels``.

    labels: integer [N] in 0..C-1 (single_label), or [N, C] of 0, 1 and ``MISSING`` or NaN (multi_label): a missing
    label is part of no score. probabilities: float [N, C] in [0, 1], softmax rows or sigmoids. ordered: the classes
    have an order, such as grades. Every class counts, whether or not the split has it; a ratio 0/0 is 0, as with
    scikit-learn's ``zero_division=0``. thresholds: as for ``decide``, which makes the decisions.

    Single label:
      ``nll`` mean of -ln p(true class), whatever loss trained the network; ``accuracy`` part of images decided
      correctly; ``balanced_accuracy`` mean recall of all classes; ``mcc`` Matthews correlation (of several classes:
      Gorodkin, Comput. Biol. Chem. 28, 2004); ``kappa`` Cohen's, with quadratic weights where ``ordered`` (Cohen,
      Psychol. Bull. 70, 1968).
    Multi-label:
      ``nll`` mean binary cross-entropy over the known labels of all images; ``exact_match`` (also as ``accuracy``) part
      of the images with any known label whose known labels are all decided correctly; ``hamming_accuracy`` part of the
      known labels that are decided correctly; ``balanced_accuracy`` mean over labels of (recall + specificity) / 2;
      ``mcc``, ``kappa`` mean over labels.
    Both: ``f1_macro`` mean F1 of all classes, and for each class c ``precision:c``, ``recall:c`` (sensitivity),
      ``specificity:c``, ``f1:c``, and ``AREAS``: ``auroc:c``; ``ap:c``, the mean of the precision over the recall,
      without interpolation; ``sensitivity_at_90_specificity:c``, the highest at thresholds with at least that
      specificity. ``auroc_macro`` and the like are means over the classes in which they are defined, of which there
      are ``defined_classes``; NaN if there is none.

    Raises ValueError for shapes that do not fit, an empty split, or probabilities that are NaN or outside [0, 1].
    """
    labels, probabilities = _checked(labels, probabilities, classes, task)
    decided = decisions(probabilities, classes, thresholds, task)
    once, one_group = np.ones((1, 1), dtype=np.uint16), np.zeros(len(labels), dtype=np.int64)
    found = weighted_scores(labels, probabilities[None], decided[None], classes, once, one_group, ordered=ordered)
    return {name: float(value[0, 0]) for name, value in found.items() if not name.startswith("npv:")}


def weighted_scores(
    labels: Array,
    probabilities: Array,
    decided: NDArray[np.bool_],
    classes: Sequence[str],
    weights: NDArray[np.uint16],
    member: NDArray[np.int64],
    *,
    areas: bool = True,
    ordered: bool = False,
) -> dict[str, Floats]:
    """Every score of ``evaluate_predictions``, and ``npv:c``, as [R, K]: for R runs and K weightings of the images.

    labels: int [N] or [N, C]. probabilities: float64 [R, N, C]; decided: bool [R, N, C]. weights: [K, G], how often
    each of G groups counts; member: [N] in 0..G-1, the group of each image. areas: also ``AREAS``, which take longest.
    A ratio 0/0 is 0; an area that the images do not define is NaN throughout, and left out of the mean over classes.
    """
    truth, known = has_class(labels, len(classes)), is_known(labels, len(classes))
    of_images = _of_images(labels, truth, known, probabilities, decided)
    counted = (np.broadcast_to(one, decided.shape) for one in (known, truth, decided & known, decided & truth))
    columns = (of_images, *(np.moveaxis(one, 0, 1) for one in counted))
    summed = np.concatenate([sum_by_group(one, member, weights.shape[1]) for one in columns], axis=2)
    parts = [
        _score(weights[at : at + _CHUNK], summed, classes, multi_label=labels.ndim == 2, ordered=ordered)
        for at in range(0, len(weights), _CHUNK)
    ]
    values = {name: np.concatenate([part[name] for part in parts]).T for name in parts[0]}
    if not areas:
        return values
    by_group = np.ascontiguousarray(weights.T, dtype=np.float32)
    for i, c in enumerate(classes):
        rows = known[:, i]
        found = np.stack([_areas(truth[rows, i], run[rows, i], by_group, member[rows]) for run in probabilities])
        values |= {f"{area}:{c}": found[:, place] for place, area in enumerate(AREAS)}
    defined: NDArray[np.bool_] = np.asarray(truth.any(axis=0) & (known & ~truth).any(axis=0))
    for area in AREAS:
        of_classes = [values[f"{area}:{c}"] for c in itertools.compress(classes, defined.tolist())]
        values[f"{area}_macro"] = np.mean(of_classes, axis=0) if of_classes else np.full_like(values["nll"], np.nan)
    return values | {DEFINED: np.full_like(values["nll"], defined.sum())}


def has_class(labels: Array, class_count: int) -> NDArray[np.bool_]:
    """bool [N, C]: which classes each image is known to have. labels: int [N], or [N, C] of 0, 1 and ``MISSING``."""
    found: NDArray[np.bool_] = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(class_count)
    return found


def is_known(labels: Array, class_count: int) -> NDArray[np.bool_]:
    """bool [N, C]: which labels are known, so neither NaN nor ``MISSING``; all of them if each image has one class."""
    known: NDArray[np.bool_] = labels >= 0 if labels.ndim == 2 else np.ones((len(labels), class_count), dtype=bool)
    return known


def decide(
    probabilities: Array, task: str, classes: Sequence[str], thresholds: Mapping[str, float] | None = None
) -> Array:
    """The decisions for probabilities [..., C]: int64 [...] (single_label) or bool [..., C] (multi_label).

    All decisions are made here. thresholds: by class, the lowest probability that decides for it. Single label: at most
    one class has a threshold; from there on the decision is this class, below it the likeliest of the others. Without a
    threshold, the likeliest (ties: the first). Multi-label: 0.5 for labels without a threshold.
    """
    probabilities, least = np.asarray(probabilities, dtype=np.float64), thresholds or {}
    if task == "multi_label":
        decided: Array = probabilities >= np.array([least.get(name, UNTUNED) for name in classes])
        return decided
    assert len(least) <= 1, "an image has one class, so one threshold can decide it"
    for name, value in least.items():
        place, ranked = list(classes).index(name), probabilities.copy()
        ranked[..., place] = np.where(probabilities[..., place] >= value, np.inf, -np.inf)
        probabilities = ranked
    likeliest: NDArray[np.int64] = probabilities.argmax(axis=-1).astype(np.int64)
    return likeliest


def decisions(
    probabilities: NDArray[Any], classes: Sequence[str], thresholds: Mapping[str, float] | None, task: str
) -> NDArray[np.bool_]:
    """bool [..., N, C]: whether ``decide`` decides for each class."""
    decided = decide(probabilities, task, classes, thresholds)
    return decided if task == "multi_label" else np.equal(decided[..., None], np.arange(len(classes)))


def confusion_matrix(
    labels: Array,
    probabilities: Array,
    classes: Sequence[str],
    task: str,
    thresholds: Mapping[str, float] | None = None,
) -> NDArray[np.int64]:
    """Count decisions: int64 [C, C], rows true and columns decided (single_label), or [C, 2, 2] (multi_label).

    The 2 x 2 of a label is [[true negative, false positive], [false negative, true positive]], over the images whose
    label is known. Arguments and errors as for ``evaluate_predictions``.
    """
    labels, probabilities = _checked(labels, probabilities, classes, task)
    decided = decide(probabilities, task, classes, thresholds)
    if task == "single_label":
        pairs = np.bincount(labels * len(classes) + decided, minlength=len(classes) ** 2)
        return pairs.reshape(len(classes), -1).astype(np.int64)
    truth, known = labels == 1, is_known(labels, len(classes))
    cells = [(t & d & known).sum(axis=0) for t in (~truth, truth) for d in (~decided, decided)]
    return np.stack(cells, axis=1).reshape(-1, 2, 2).astype(np.int64)


def metric_names(classes: Sequence[str], task: str) -> list[str]:
    """The columns of an epoch's record by which a sweep may select: those of the validation split."""
    keys = ["loss", *_SHARED, *(_MULTI_LABEL_ONLY if task == "multi_label" else ())]
    keys += [f"{name}:{c}" for name in _PER_CLASS for c in classes]
    return [f"val_{key}" for key in keys]


def metric_mode(name: str) -> str:
    """Whether a higher ("max") or a lower ("min") value of the metric or column ``name`` is better."""
    return "min" if name.removeprefix("val_").removeprefix("train_") in ("loss", "nll") else "max"


def _checked(labels: Array, probabilities: Array, classes: Sequence[str], task: str) -> tuple[Array, Array]:
    """The arrays, if they are valid, with labels as int64 and missing ones as ``MISSING``; else ValueError."""
    if task not in ("single_label", "multi_label"):
        raise ValueError(f"task must be single_label or multi_label, received {task!r}")
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    count = len(labels)
    if count == 0:
        raise ValueError("a split without images cannot be scored")
    if probabilities.shape != (count, len(classes)):
        raise ValueError(f"probabilities must be [{count}, {len(classes)}], received {list(probabilities.shape)}")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():  # NaN fails both
        raise ValueError("probabilities must be numbers in [0, 1]; some are NaN or outside")
    wanted = (count,) if task == "single_label" else (count, len(classes))
    if labels.shape != wanted:
        raise ValueError(f"labels must be {list(wanted)} for {task}, received {list(labels.shape)}")
    if task == "multi_label":
        labels = np.where(np.isnan(labels), MISSING, labels)
    allowed = np.arange(len(classes)) if task == "single_label" else (0, 1, MISSING)
    if not np.isin(labels, allowed).all():
        highest = len(classes) - 1 if task == "single_label" else 1
        raise ValueError(f"labels must be whole numbers from 0 to {highest}")
    return labels.astype(np.int64), probabilities


def _of_images(labels: Array, truth: Array, known: Array, probabilities: Array, decided: Array) -> Floats:
    """[N, R, 4]: whether any label is known, whether all known ones are right, nll, and the squared distance between
    the places of the true and the decided class (multi-label: 0)."""
    if labels.ndim == 2:
        distance = np.zeros(decided.shape[:2])
        nll = -(np.log(np.maximum(np.where(truth, probabilities, 1 - probabilities), _EPSILON)) * known).sum(axis=2)
    else:
        distance = (decided.argmax(axis=2) - labels) ** 2
        of_truth = np.take_along_axis(probabilities, labels[None, :, None].astype(np.int64), axis=2)
        nll = -np.log(np.maximum(of_truth, _EPSILON))[..., 0]
    some = known.any(axis=1)
    right = some & ((decided == truth) | ~known).all(axis=2)
    parts = [np.broadcast_to(one, nll.shape)[..., None] for one in (some, right, nll, distance)]
    return np.moveaxis(np.concatenate(parts, axis=2).astype(np.float64, copy=False), 0, 1)


def sum_by_group(columns: Array, member: NDArray[np.int64], groups: int) -> Floats:
    """Sums [G, ...] of ``columns`` [N, ...], numbers or bool. member: [N] in 0..G-1, each of them at least once."""
    if groups == 1:
        return np.asarray(columns.sum(axis=0, keepdims=True, dtype=np.float64))
    order = np.argsort(member, kind="stable")
    starts = np.searchsorted(member[order], np.arange(groups))
    return np.asarray(np.add.reduceat(columns[order], starts, axis=0, dtype=np.float64))


def _score(
    weights: NDArray[np.uint16], summed: Floats, classes: Sequence[str], *, multi_label: bool, ordered: bool
) -> dict[str, Floats]:
    """The scores that follow from sums over images, as [b, R], from ``weights`` [b, G] and ``summed`` [G, R, 4 + 4C]:
    first of ``_of_images``, then of the images known, true, decided, and both true and decided, for each class."""
    totals = np.tensordot(weights.astype(np.float64), summed, axes=1)
    images, right, nll, distance = np.moveaxis(totals[..., :4], 2, 0)
    known, true, decided, tp = np.moveaxis(totals[..., 4:].reshape(*totals.shape[:2], 4, -1), 2, 0)
    tn = known - true - decided + tp
    named = {
        "precision": ratio(tp, decided),
        "recall": ratio(tp, true),
        "specificity": ratio(tn, known - true),
        "npv": ratio(tn, known - decided),
        "f1": ratio(2 * tp, true + decided),
    }
    cells = known.sum(axis=2) if multi_label else images
    values = {"nll": ratio(nll, cells, math.nan), "accuracy": ratio(right, images, math.nan)}
    recall = (named["recall"] + named["specificity"]) / 2 if multi_label else named["recall"]
    values |= {"f1_macro": named["f1"].mean(axis=2), "balanced_accuracy": recall.mean(axis=2)}
    if multi_label:
        values |= {
            "exact_match": values["accuracy"],
            "hamming_accuracy": ratio((tp + tn).sum(axis=2), cells, math.nan),
        }
        # MCC of 2 x 2 counts: the determinant, in terms of sums, over the root of the product of the margins.
        together, rest = known * tp - true * decided, (known - true) * (known - decided)
        values["mcc"] = ratio(together, np.sqrt(true * decided * rest)).mean(axis=2)
        by_chance = true * (known - decided) + decided * (known - true)
        values["kappa"] = ratio(2 * together, by_chance).mean(axis=2)
    else:
        together = images * right - (true * decided).sum(axis=2)
        spread = [images**2 - (one**2).sum(axis=2) for one in (true, decided)]
        values["mcc"] = ratio(together, np.sqrt(spread[0] * spread[1]))
        place = np.arange(len(classes))
        apart = (place[:, None] - place) ** 2 if ordered else place[:, None] != place
        by_chance = np.einsum("...i,ij,...j->...", true, apart.astype(np.float64), decided)
        missed = distance if ordered else images - right
        values["kappa"] = ratio(by_chance - missed * images, by_chance)
    return values | {f"{name}:{c}": of[..., i] for name, of in named.items() for i, c in enumerate(classes)}


def ratio(part: Floats, whole: Floats, of_nothing: float = 0.0) -> Floats:
    """``part`` / ``whole``; 0/0 is ``of_nothing``."""
    found: Floats = np.divide(part, whole, out=np.full(part.shape, of_nothing), where=whole > 0)
    return found


def _areas(
    truth: NDArray[np.bool_], probability: Floats, weights: NDArray[np.float32], member: NDArray[np.int64]
) -> Floats:
    """[3, K] of one class and run: ``AREAS`` for each column of ``weights``, [G, K].

    AUROC: the part of (positive, negative) pairs in the right order, ties counting half (Mann-Whitney U). Average
    precision: the sum over distinct probabilities of gained recall times precision.
    """
    found = np.full((len(AREAS), weights.shape[1]), np.nan)
    if not truth.any() or truth.all():
        return found
    order = np.argsort(-probability)  # Ties may be in any order: they are summed as one.
    falling, hit, member = probability[order], truth[order], member[order]
    starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
    # Neighbouring probabilities that only negatives have are summed as one.
    has = np.logical_or.reduceat(hit, starts)
    starts = starts[has | np.append(True, has[:-1])]
    has = np.logical_or.reduceat(hit, starts)
    of_hits, hits = np.searchsorted(np.flatnonzero(hit), starts[has]), member[hit]
    step = max(1, _CELLS // len(member))
    for at in range(0, weights.shape[1], step):
        part = weights[:, at : at + step]  # whole numbers below 2^24: float32 is exact
        images = np.add.reduceat(part[member], starts, axis=0)
        gained = np.zeros_like(images)
        gained[has] = np.add.reduceat(part[hits], of_hits, axis=0)
        others, above, upto = images - gained, gained.cumsum(axis=0), images.cumsum(axis=0)
        positives, negatives = above[-1].astype(np.float64), others.sum(axis=0, dtype=np.float64)
        won = np.einsum("tk,tk->k", above - gained / 2, others, dtype=np.float64)
        precision = np.divide(above, upto, out=np.zeros(upto.shape), where=upto > 0, dtype=np.float64)
        area = np.einsum("tk,tk->k", gained, precision, dtype=np.float64)
        few = upto - above <= (1 - SPECIFICITY) * negatives + 1e-9
        caught = np.where(few, above, 0).max(axis=0)
        for row, part, whole in ((0, won, positives * negatives), (1, area, positives), (2, caught, positives)):
            np.divide(part, whole, out=found[row, at : at + step], where=(positives > 0) & (negatives > 0))
    return found


FEWEST_POSITIVES = 30
"""With fewer images that have a label, its best threshold on validation is more chance than knowledge."""


def tune_thresholds(labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str]) -> dict[str, float]:
    """The threshold of each label that maximises its F1, by label.

    labels: [N, C] of 0, 1 and ``MISSING``, the distinct validation images; a label counts where it is known.
    probabilities: float [R, N, C], of R repeats, which are pooled: one threshold serves all of them. A label counts as
    present if its probability is at least the threshold. Candidates lie halfway between neighbouring probabilities; of
    equally good ones the nearest to 0.5 is taken. A label with fewer than ``FEWEST_POSITIVES`` positives keeps 0.5.
    """
    found = {}
    for place, name in enumerate(classes):
        rows = labels[:, place] >= 0
        truth = labels[rows, place] == 1
        if truth.sum() < FEWEST_POSITIVES:
            found[name] = UNTUNED
        else:
            every, total = np.tile(truth, len(probabilities)), len(probabilities) * truth.sum()
            f1 = functools.partial(lambda total, tp, fp: 2 * tp / (tp + fp + total), total)
            found[name] = best_threshold(every, probabilities[:, rows, place].reshape(-1), f1)
    return found


def best_threshold(truth: Array, probability: Array, worth: Callable[[Array, Array], Array]) -> float:
    """The threshold, the lowest probability of a positive decision, that maximises ``worth``.

    truth: bool [N]; probability: [N]. worth: from the counts of true and false positives, [M] each, at M candidates.
    These lie halfway between neighbouring probabilities; of equally good ones the nearest to 0.5 is taken.
    """
    order = np.argsort(-probability, kind="stable")
    falling, hit = probability[order].astype(np.float64), truth[order]
    # A threshold is possible only where the probability changes; at the last one every image is positive.
    following = np.append(falling[1:], 0.0)
    possible = np.append(falling[1:] < falling[:-1], True)
    found = worth(hit.cumsum()[possible], (~hit).cumsum()[possible])
    best = ((falling + following) / 2)[possible][found >= found.max() - 1e-12]
    return float(best[np.abs(best - UNTUNED).argmin()])


FEW_POSITIVES = 20
"""With fewer validation images of its class, an operating point may be far from its target on other data."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold on the probability of ``label`` with which validation reaches ``target``.

    kind: "sensitivity" or "specificity", which must be at least ``target``, in (0, 1). threshold: None if none reaches
    it. positives, images, runs: how many validation images have the label, for how many it is known, and how many
    networks were pooled. Defaults: for a damaged file.
    """

    label: str = ""
    kind: str = "sensitivity"
    target: float = math.nan
    threshold: float | None = None
    positives: int = 0
    images: int = 0
    runs: int = 0

    @property
    def thresholds(self) -> dict[str, float]:
        """As ``decide`` takes them."""
        return {} if self.threshold is None else {self.label: self.threshold}

    @property
    def words(self) -> str:
        """ "covid at a probability of at least 0.13 (sensitivity at least 0.95 on validation, 3 networks pooled)"."""
        pooled = f", {self.runs} networks pooled" if self.runs > 1 else ""
        goal = f"{self.kind} at least {self.target:g} on validation{pooled}"
        if self.threshold is None:
            return f"none: no threshold of {self.label} reaches {goal}"
        return f"{self.label} at a probability of at least {shown_threshold(self.threshold)} ({goal})"


def shown_threshold(threshold: float) -> str:
    """The threshold with three decimals, or more if it would read as 0 or 1."""
    texts = (f"{threshold:.{decimals}f}" for decimals in range(3, 18))
    return next((text for text in texts if float(text) not in (0, 1)), f"{threshold:g}")


def operating_point(
    labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str], label: str, kind: str, target: float
) -> OperatingPoint:
    """The operating point of ``label`` on validation; arguments as for ``tune_thresholds``, labels also int [N]."""
    place = list(classes).index(label)
    rows = is_known(labels, len(classes))[:, place]
    truth = has_class(labels, len(classes))[rows, place]
    pooled = probabilities[:, rows, place].reshape(-1)
    threshold = target_threshold(np.tile(truth, len(probabilities)), pooled, kind, target)
    return OperatingPoint(label, kind, target, threshold, int(truth.sum()), int(rows.sum()), len(probabilities))


def target_threshold(truth: Array, probability: Array, kind: str, target: float) -> float | None:
    """The largest threshold whose sensitivity is at least ``target``, or the smallest whose specificity is.

    truth: bool [N]; probability: [N]. A probability that equals the threshold is a positive decision. Candidates are
    the probabilities themselves, as in scikit-learn's ``roc_curve``; None if none reaches the target.
    """
    thresholds, wanted = np.unique(probability), kind == "sensitivity"
    judged = np.sort(probability[truth == wanted])
    if not len(judged):
        return None
    below = np.searchsorted(judged, thresholds, side="left")
    reached = thresholds[(len(judged) - below if wanted else below) / len(judged) >= target]
    return None if not len(reached) else float(reached[-1] if wanted else reached[0])
