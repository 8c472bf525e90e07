"""All metrics of one evaluation, over a whole split: the only place where a prediction is scored.

Needs numpy alone, so that reports can score saved predictions without torch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.samples import MISSING as MISSING

Array = NDArray[Any]

# Probabilities are float32: closer to 0 or 1 than its epsilon they carry no information. One image costs at most 15.9.
_EPSILON = float(np.finfo(np.float32).eps)
UNTUNED = 0.5
"""The threshold of a label where none was tuned."""
SPECIFICITY = 0.9
"""At which sensitivity is given; ``AREAS`` names it."""
AREAS = ("auroc", "ap", "sensitivity_at_90_specificity")
"""What no decision is needed for, by class; NaN for a class that no image or every image has."""
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

    labels: integer [N] in 0..C-1 (single_label), or [N, C] of 0, 1 and ``MISSING`` or NaN (multi_label): a label that
    is missing takes part in no score. probabilities: float [N, C] in [0, 1], softmax rows or sigmoids. ordered: the
    classes stand in an order, such as grades. Every class counts, whether or not the split has it; a ratio 0/0 is 0, as
    with scikit-learn's ``zero_division=0``. thresholds: as for ``decide``, which is the decision.

    Single label:
      ``nll`` mean of -ln p(true class), whatever loss trained the network; ``accuracy`` part of images decided
      rightly; ``balanced_accuracy`` mean recall of all classes; ``mcc`` Matthews correlation (of several classes:
      Gorodkin, Comput. Biol. Chem. 28, 2004); ``kappa`` Cohen's, with quadratic weights where ``ordered`` (Cohen,
      Psychol. Bull. 70, 1968).
    Multi-label:
      ``nll`` mean binary cross-entropy over the known labels of all images; ``exact_match`` part of images, of those
      with any known label, whose known labels are all right, also under the name ``accuracy``; ``hamming_accuracy``
      part of the known labels that are decided rightly; ``balanced_accuracy`` mean over labels of
      (recall + specificity) / 2; ``mcc``, ``kappa`` mean over labels.
    Both: ``f1_macro`` mean F1 of all classes, and for each class c ``precision:c``, ``recall:c`` (sensitivity),
      ``specificity:c``, ``f1:c``, and ``AREAS``: ``auroc:c``; ``ap:c``, the mean of the precision over the recall,
      without interpolation; ``sensitivity_at_90_specificity:c``, the best of all thresholds with at least so much.
      ``auroc_macro`` and its like are means over the classes in which it is defined, ``defined_classes`` of them, NaN
      where it is in none.

    Raises ValueError for shapes that do not fit, an empty split, or probabilities that are NaN or outside [0, 1].
    """
    labels, probabilities = _checked(labels, probabilities, classes, task)
    single, known = task == "single_label", is_known(labels, len(classes))
    truth = _one_hot(labels, len(classes)) if single else labels == 1
    decided = decide(probabilities, task, classes, thresholds)
    decision = _one_hot(decided, len(classes)) if single else decided
    right, some = (truth == decision) | ~known, known.any(axis=1)
    values = {"nll": _nll(labels, probabilities, task), "accuracy": _mean(right[some].all(axis=1))}

    tables = _two_by_two(truth, decision, known)
    tn, fp, fn, tp = np.moveaxis(tables.reshape(-1, 4), 1, 0)
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    f1 = _ratio(2 * tp, 2 * tp + fp + fn)
    pairs = zip(truth.T, probabilities.T, known.T, strict=True)
    areas = np.array([_areas(hit[rows], scores[rows]) for hit, scores, rows in pairs]).T
    values["balanced_accuracy"] = float((recall if single else (recall + specificity) / 2).mean())
    values["f1_macro"] = float(f1.mean())
    matrices = _matrix(labels, decided, len(classes))[None] if single else tables
    values["mcc"] = float(np.mean([_matthews(matrix) for matrix in matrices]))
    values["kappa"] = float(np.mean([_kappa(matrix, quadratic=ordered and single) for matrix in matrices]))
    defined = ~np.isnan(areas[0])
    values |= {f"{area}_macro": _mean(of[defined]) for area, of in zip(AREAS, areas, strict=True)}
    values[DEFINED] = float(defined.sum())
    if not single:
        values["exact_match"] = values["accuracy"]
        values["hamming_accuracy"] = _mean(right[known])
    columns = zip(_PER_CLASS, (_ratio(tp, tp + fp), recall, specificity, f1, *areas), strict=True)
    values.update({f"{name}:{c}": float(x) for name, column in columns for c, x in zip(classes, column, strict=True)})
    return values


def is_known(labels: Array, class_count: int | None = None) -> NDArray[np.bool_]:
    """bool [N, C]: which labels are known, all of them where each image has one class; neither NaN nor ``MISSING``."""
    if labels.ndim == 1:
        assert class_count is not None, "of one class an image the number of classes must be told"
        return np.ones((len(labels), class_count), dtype=bool)
    known: NDArray[np.bool_] = labels >= 0
    return known


def decide(
    probabilities: Array, task: str, classes: Sequence[str] = (), thresholds: Mapping[str, float] | None = None
) -> Array:
    """What is predicted of probabilities [..., C]: int64 [...] (single_label) or bool [..., C] (multi_label).

    thresholds: the least probability that decides one of ``classes``; all decisions are made here. Single label: one
    class has a threshold, and is the answer from there on, else the likeliest of the others is; without one the
    likeliest (of equals the first). Multi-label: 0.5 where a label has none.
    """
    probabilities, least = np.asarray(probabilities, dtype=np.float64), thresholds or {}
    if task == "multi_label":
        decided: Array = probabilities >= np.array([least.get(name, UNTUNED) for name in classes] or UNTUNED)
        return decided
    assert len(least) <= 1, "an image has one class, so one threshold can decide it"
    for name, value in least.items():
        place, ranked = list(classes).index(name), probabilities.copy()
        ranked[..., place] = np.where(probabilities[..., place] >= value, np.inf, -np.inf)
        probabilities = ranked
    likeliest: NDArray[np.int64] = probabilities.argmax(axis=-1).astype(np.int64)
    return likeliest


def confusion_matrix(
    labels: Array,
    probabilities: Array,
    classes: Sequence[str],
    task: str,
    thresholds: Mapping[str, float] | None = None,
) -> NDArray[np.int64]:
    """Count decisions: int64 [C, C], rows true and columns decided (single_label), or [C, 2, 2] (multi_label).

    The 2 x 2 of a label is [[true negative, false positive], [false negative, true positive]], where it is known.
    Arguments and errors as for ``evaluate_predictions``.
    """
    labels, probabilities = _checked(labels, probabilities, classes, task)
    decision = decide(probabilities, task, classes, thresholds)
    if task == "multi_label":
        return _two_by_two(labels == 1, decision, is_known(labels))
    return _matrix(labels, decision, len(classes))


def metric_names(classes: Sequence[str], task: str) -> list[str]:
    """The columns of an epoch by which a sweep may select: those of the validation split."""
    keys = ["loss", *_SHARED, *(_MULTI_LABEL_ONLY if task == "multi_label" else ())]
    keys += [f"{name}:{c}" for name in _PER_CLASS for c in classes]
    return [f"val_{key}" for key in keys]


def metric_mode(name: str) -> str:
    """Whether a higher ("max") or a lower ("min") value of the metric or column ``name`` is better."""
    return "min" if name.removeprefix("val_").removeprefix("train_") in ("loss", "nll") else "max"


def _checked(labels: Array, probabilities: Array, classes: Sequence[str], task: str) -> tuple[Array, Array]:
    """The arrays, labels as int64 and missing ones as ``MISSING``."""
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


def _one_hot(labels: Array, class_count: int) -> Array:
    return np.equal(labels[:, None], np.arange(class_count))


def _mean(values: Array) -> float:
    """NaN of nothing, without numpy's warning."""
    return float(values.mean()) if len(values) else float("nan")


def _nll(labels: Array, probabilities: Array, task: str) -> float:
    if task == "single_label":
        of_truth = probabilities[np.arange(len(labels)), labels]
    else:
        of_truth = np.where(labels == 1, probabilities, 1 - probabilities)[is_known(labels)]
    return _mean(-np.log(np.maximum(of_truth, _EPSILON)))


def _two_by_two(truth: Array, decision: Array, known: Array) -> NDArray[np.int64]:
    """int64 [C, 2, 2] of three bool arrays [N, C]: [[TN, FP], [FN, TP]] of each class."""
    cells = [(t & d & known).sum(axis=0) for t in (~truth, truth) for d in (~decision, decision)]
    return np.stack(cells, axis=1).reshape(-1, 2, 2).astype(np.int64)


def _matrix(labels: Array, decided: Array, class_count: int) -> NDArray[np.int64]:
    pairs = labels * class_count + decided
    return np.bincount(pairs, minlength=class_count**2).reshape(class_count, -1).astype(np.int64)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _matthews(matrix: NDArray[np.int64]) -> float:
    """Of counts [C, C], rows true; 0 where only one class is true, or only one decided."""
    count, true, decided = float(matrix.sum()), matrix.sum(axis=1).astype(float), matrix.sum(axis=0).astype(float)
    whole = (count**2 - (true**2).sum()) * (count**2 - (decided**2).sum())
    return float((np.trace(matrix) * count - true @ decided) / whole**0.5) if whole > 0 else 0.0


def _kappa(matrix: NDArray[np.int64], *, quadratic: bool) -> float:
    """Of counts [C, C], rows true: 1 - disagreement / disagreement by chance; 0 where chance cannot disagree."""
    place = np.arange(len(matrix))
    weights = (place[:, None] - place) ** 2 if quadratic else place[:, None] != place
    by_chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0))
    whole = float((weights * by_chance).sum())
    return 1 - float((weights * matrix).sum()) * float(matrix.sum()) / whole if whole > 0 else 0.0


def _areas(truth: Array, scores: Array) -> tuple[float, float, float]:
    """``AREAS`` of one class. AUROC: the part of (positive, negative) pairs in the right order, ties counting half."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(scores) else order
    tp = truth[order].cumsum()[ends]
    fp = ends + 1 - tp
    if not len(tp) or not tp[-1] or not fp[-1]:
        return (float("nan"),) * 3
    gained, lost = np.diff(tp, prepend=0), np.diff(fp, prepend=0)
    auroc = ((tp - gained / 2) * lost).sum() / (tp[-1] * fp[-1])
    sensitive = tp[fp <= (1 - SPECIFICITY) * fp[-1] + 1e-9]
    return float(auroc), float((gained * tp / (tp + fp)).sum() / tp[-1]), float(sensitive.max(initial=0) / tp[-1])


FEWEST_POSITIVES = 30
"""Below so many images with a label, its best threshold on validation is chance more than knowledge."""


def tune_thresholds(labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str]) -> dict[str, float]:
    """The threshold of each label that maximises its F1, by label.

    labels: [N, C] of 0, 1 and ``MISSING``, the distinct validation images; a label counts where it is known.
    probabilities: float [R, N, C], of R repeats, which are pooled: one threshold serves all of them. A label is decided
    where its probability is at least the threshold. Candidates lie halfway between neighbouring probabilities; of
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
    """The least probability of a positive decision that is worth most.

    truth: bool [N]; probability: [N]. worth: of true and false positives, [M] each, at M candidates. These lie halfway
    between neighbouring probabilities; of equally good ones the nearest to 0.5 is taken.
    """
    order = np.argsort(-probability, kind="stable")
    falling, hit = probability[order].astype(np.float64), truth[order]
    # A cut is possible only where the probability changes; the last one decides every image.
    following = np.append(falling[1:], 0.0)
    possible = np.append(falling[1:] < falling[:-1], True)
    found = worth(hit.cumsum()[possible], (~hit).cumsum()[possible])
    best = ((falling + following) / 2)[possible][found >= found.max() - 1e-12]
    return float(best[np.abs(best - UNTUNED).argmin()])


FEW_POSITIVES = 20
"""Below so many validation images of its class, an operating point may lie far from its target elsewhere."""


@dataclass(frozen=True)
class OperatingPoint:
    """The threshold at which the probability of ``label`` decides it, so that validation reaches ``target``.

    kind: "sensitivity" or "specificity", of which ``target``, in (0, 1), is the least. threshold: None where none
    reaches it. positives, images, runs: the validation images with the label, all of them, and the networks that were
    pooled. Defaults: of a damaged file.
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
        """For ``decide``."""
        return {} if self.threshold is None else {self.label: self.threshold}

    @property
    def words(self) -> str:
        """ "covid from a probability of 0.13 on (sensitivity at least 0.95 on validation)"."""
        goal = f"{self.kind} at least {self.target:g} on validation"
        if self.threshold is None:
            return f"none: no threshold of {self.label} reaches {goal}"
        return f"{self.label} from a probability of {shown_threshold(self.threshold)} on ({goal})"


def shown_threshold(threshold: float) -> str:
    """Three decimals, and more where they would read as 0 or 1."""
    texts = (f"{threshold:.{decimals}f}" for decimals in range(3, 18))
    return next((text for text in texts if float(text) not in (0, 1)), f"{threshold:g}")


def operating_point(
    labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str], label: str, kind: str, target: float
) -> OperatingPoint:
    """The operating point of ``label`` on validation; arguments as for ``tune_thresholds``, labels also int [N]."""
    place = list(classes).index(label)
    rows = is_known(labels, len(classes))[:, place]
    truth = labels[rows] == place if labels.ndim == 1 else labels[rows, place] == 1
    pooled = probabilities[:, rows, place].reshape(-1)
    threshold = target_threshold(np.tile(truth, len(probabilities)), pooled, kind, target)
    return OperatingPoint(label, kind, target, threshold, int(truth.sum()), int(rows.sum()), len(probabilities))


def target_threshold(truth: Array, probability: Array, kind: str, target: float) -> float | None:
    """The largest threshold whose sensitivity is at least ``target``, or the smallest whose specificity is.

    truth: bool [N]; probability: [N]. A probability that equals the threshold is a positive decision. The thresholds
    are the probabilities that there are, as in scikit-learn's ``roc_curve``; None where none reaches the target.
    """
    thresholds, wanted = np.unique(probability), kind == "sensitivity"
    judged = np.sort(probability[truth == wanted])
    if not len(judged):
        return None
    below = np.searchsorted(judged, thresholds, side="left")
    reached = thresholds[(len(judged) - below if wanted else below) / len(judged) >= target]
    return None if not len(reached) else float(reached[-1] if wanted else reached[0])
