"""All metrics of one evaluation, over a whole split: the only place where a prediction is scored.

Needs numpy alone, so that reports can score saved predictions without torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Probabilities are float32: closer to 0 or 1 than its epsilon they carry no information. One image costs at most 15.9.
_EPSILON = float(np.finfo(np.float32).eps)
_SHARED = ("nll", "accuracy", "balanced_accuracy", "f1_macro", "auroc_macro")
_MULTI_LABEL_ONLY = ("exact_match", "hamming_accuracy")
_PER_CLASS = ("precision", "recall", "specificity", "f1", "auroc")


def evaluate_predictions(labels: Array, probabilities: Array, classes: Sequence[str], task: str) -> dict[str, float]:
    """Score ``probabilities`` of one split against ``labels``.

    labels: integer [N] in 0..C-1 (single_label) or 0/1 [N, C] (multi_label). probabilities: float [N, C] in [0, 1],
    softmax rows or sigmoids. Every class counts, whether or not the split has it; a ratio 0/0 is 0, as with
    scikit-learn's ``zero_division=0``.

    Single label, decision = argmax (ties: the first class):
      ``nll`` mean of -ln p(true class), whatever loss trained the network; ``accuracy`` part of images decided
      rightly; ``balanced_accuracy`` mean recall of all classes.
    Multi-label, decision = probability at least 0.5 for each label:
      ``nll`` mean binary cross-entropy over images and labels; ``exact_match`` part of images with every label right,
      also under the name ``accuracy``; ``hamming_accuracy`` part of single label decisions that are right;
      ``balanced_accuracy`` mean over labels of (recall + specificity) / 2.
    Both: ``f1_macro`` mean F1 of all classes; ``auroc_macro`` mean AUROC of all classes, one against the rest, and for
      each class c ``precision:c``, ``recall:c`` (sensitivity), ``specificity:c``, ``f1:c``, ``auroc:c``.
    The AUROC of a class that no image or every image has is undefined: NaN, and then ``auroc_macro`` is NaN, too.

    Raises ValueError for shapes that do not fit, an empty split, or probabilities that are NaN or outside [0, 1].
    """
    labels, probabilities = _checked(labels, probabilities, classes, task)
    truth = _one_hot(labels, len(classes)) if task == "single_label" else labels.astype(bool)
    decided = decide(probabilities, task)
    decision = _one_hot(decided, len(classes)) if task == "single_label" else decided
    values = {"nll": _nll(labels, probabilities, task), "accuracy": float((truth == decision).all(axis=1).mean())}

    tn, fp, fn, tp = np.moveaxis(_two_by_two(truth, decision).reshape(-1, 4), 1, 0)
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    f1 = _ratio(2 * tp, 2 * tp + fp + fn)
    auroc = np.array([_auroc(truth[:, c], probabilities[:, c]) for c in range(len(classes))])
    per_class_recall = recall if task == "single_label" else (recall + specificity) / 2
    values["balanced_accuracy"] = float(per_class_recall.mean())
    values["f1_macro"] = float(f1.mean())
    values["auroc_macro"] = float(auroc.mean())
    if task == "multi_label":
        values["exact_match"] = values["accuracy"]
        values["hamming_accuracy"] = float((truth == decision).mean())
    columns = zip(_PER_CLASS, (_ratio(tp, tp + fp), recall, specificity, f1, auroc), strict=True)
    values.update({f"{name}:{c}": float(x) for name, column in columns for c, x in zip(classes, column, strict=True)})
    return values


def decide(probabilities: Array, task: str) -> Array:
    """What is predicted: int64 [N], the likeliest class (single_label), or bool [N, C], at least 0.5 (multi_label)."""
    return probabilities.argmax(axis=1).astype(np.int64) if task == "single_label" else probabilities >= 0.5


def confusion_matrix(labels: Array, probabilities: Array, classes: Sequence[str], task: str) -> NDArray[np.int64]:
    """Count decisions: int64 [C, C], rows true and columns decided (single_label), or [C, 2, 2] (multi_label).

    The 2 x 2 of a label is [[true negative, false positive], [false negative, true positive]].
    Arguments and errors as for ``evaluate_predictions``.
    """
    labels, probabilities = _checked(labels, probabilities, classes, task)
    decision = decide(probabilities, task)
    if task == "multi_label":
        return _two_by_two(labels.astype(bool), decision)
    pairs = labels * len(classes) + decision
    return np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), -1).astype(np.int64)


def metric_names(classes: Sequence[str], task: str) -> list[str]:
    """The columns of an epoch by which a sweep may select: those of the validation split, then of training."""
    keys = ["loss", *_SHARED, *(_MULTI_LABEL_ONLY if task == "multi_label" else ())]
    keys += [f"{name}:{c}" for name in _PER_CLASS for c in classes]
    return [*(f"val_{key}" for key in keys), "train_loss", "train_accuracy"]


def metric_mode(name: str) -> str:
    """Whether a higher ("max") or a lower ("min") value of the metric or column ``name`` is better."""
    return "min" if name.removeprefix("val_").removeprefix("train_") in ("loss", "nll") else "max"


def _checked(labels: Array, probabilities: Array, classes: Sequence[str], task: str) -> tuple[Array, Array]:
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
    highest = len(classes) - 1 if task == "single_label" else 1
    if not np.isin(labels, np.arange(highest + 1)).all():
        raise ValueError(f"labels must be whole numbers from 0 to {highest}")
    return labels.astype(np.int64), probabilities


def _one_hot(labels: Array, class_count: int) -> Array:
    return np.equal(labels[:, None], np.arange(class_count))


def _nll(labels: Array, probabilities: Array, task: str) -> float:
    if task == "single_label":
        of_truth = probabilities[np.arange(len(labels)), labels]
    else:
        of_truth = np.where(labels == 1, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(of_truth, _EPSILON)).mean())


def _two_by_two(truth: Array, decision: Array) -> NDArray[np.int64]:
    """int64 [C, 2, 2] of two bool arrays [N, C]: [[TN, FP], [FN, TP]] of each class."""
    cells = [(t & d).sum(axis=0) for t in (~truth, truth) for d in (~decision, decision)]
    return np.stack(cells, axis=1).reshape(-1, 2, 2).astype(np.int64)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _auroc(truth: Array, scores: Array) -> float:
    """The part of (positive, negative) pairs in the right order, ties counting half (Mann-Whitney U)."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = count.cumsum() - (count - 1) / 2
    rank_sum = mean_rank[place][truth].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


UNTUNED = 0.5
FEWEST_POSITIVES = 30
"""Below so many images with a label, its best threshold on validation is chance more than knowledge."""


def tune_thresholds(labels: NDArray[Any], probabilities: NDArray[Any], classes: Sequence[str]) -> dict[str, float]:
    """The threshold of each label that maximises its F1, by label.

    labels: 0/1 [N, C], the distinct validation images. probabilities: float [R, N, C], of R repeats, which are pooled:
    one threshold serves all of them. A label is decided where its probability is at least the threshold. Candidates lie
    halfway between neighbouring probabilities; of equally good ones the nearest to 0.5 is taken. A label with fewer
    than ``FEWEST_POSITIVES`` positives keeps 0.5.
    """
    found = {}
    for place, name in enumerate(classes):
        truth = labels[:, place].astype(bool)
        if truth.sum() < FEWEST_POSITIVES:
            found[name] = UNTUNED
        else:
            every, total = np.tile(truth, len(probabilities)), len(probabilities) * truth.sum()
            f1 = functools.partial(lambda total, tp, fp: 2 * tp / (tp + fp + total), total)
            found[name] = best_threshold(every, probabilities[:, :, place].reshape(-1), f1)
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
