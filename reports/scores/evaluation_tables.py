"""Confusion matrices and per-class scores, recomputed from saved predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweep.records import Predictions
from trainables.metrics import confusion_matrix, evaluate_predictions

PER_CLASS = ("precision", "recall", "specificity", "f1", "auroc")


def task_of(predictions: Predictions) -> str:
    return "multi_label" if predictions.label.ndim == 2 else "single_label"


def of_split(predictions: Predictions, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Labels and probabilities (float32 [n, C]) of one split."""
    chosen = predictions.split == split
    return predictions.label[chosen], predictions.probability[chosen]


def matrix(predictions: Predictions, split: str) -> npt.NDArray[np.int64]:
    """Counts of one split: [C, C] with true classes as rows, or [C, 2, 2] = [[TN, FP], [FN, TP]] if multi-label."""
    labels, probabilities = of_split(predictions, split)
    return np.asarray(
        confusion_matrix(labels, probabilities, predictions.classes, task_of(predictions)), dtype=np.int64
    )


def row_normalised(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """``counts`` [..., R, C] as shares of their row; NaN where a row is empty."""
    totals = counts.sum(axis=-1, keepdims=True)
    return _share(counts, np.broadcast_to(totals, counts.shape))


def matrix_frame(counts: npt.NDArray[np.int64], classes: tuple[str, ...]) -> pd.DataFrame:
    """``matrix`` of a single-label task as a table: true class, one column a predicted class, images."""
    frame = pd.DataFrame(counts, columns=list(classes))
    frame.insert(0, "true class", list(classes), allow_duplicates=True)
    frame.insert(len(frame.columns), "images", counts.sum(axis=1), allow_duplicates=True)
    return frame


def label_frame(counts: npt.NDArray[np.int64], classes: tuple[str, ...]) -> pd.DataFrame:
    """``matrix`` of a multi-label task as a table, one row a label.

    Columns: label, TN, FP, FN, TP, then shares: sensitivity TP / (TP + FN), specificity TN / (TN + FP), PPV
    TP / (TP + FP), NPV TN / (TN + FN); NaN where undefined. The operating point is a probability of 0.5.
    """
    tn, fp, fn, tp = counts[:, 0, 0], counts[:, 0, 1], counts[:, 1, 0], counts[:, 1, 1]
    return pd.DataFrame(
        {
            "label": list(classes),
            "TN": tn,
            "FP": fp,
            "FN": fn,
            "TP": tp,
            "sensitivity": _share(tp, tp + fn),
            "specificity": _share(tn, tn + fp),
            "PPV": _share(tp, tp + fp),
            "NPV": _share(tn, tn + fn),
        }
    )


def class_counts(predictions: Predictions, split: str) -> dict[str, int]:
    """How many images of ``split`` have each class."""
    labels, _ = of_split(predictions, split)
    if labels.ndim == 2:
        counts = labels.sum(axis=0, dtype=np.int64)
    else:
        counts = np.bincount(labels, minlength=len(predictions.classes))
    return {name: int(count) for name, count in zip(predictions.classes, counts, strict=True)}


def per_class(predictions: Predictions, split: str) -> pd.DataFrame:
    """Scores of each class of one split: class, images (that have it), precision, recall, specificity, f1, auroc.

    NaN where a score is 0/0: a class that no image has, or that is never answered.
    """
    labels, probabilities = of_split(predictions, split)
    scores = evaluate_predictions(labels, probabilities, predictions.classes, task_of(predictions))
    rows = []
    for place, (name, count) in enumerate(class_counts(predictions, split).items()):
        answered = _answered(matrix(predictions, split))[place]
        counted = {
            "precision": answered,
            "recall": count,
            "specificity": len(labels) - count,
            "f1": answered + count,
            "auroc": count,
        }
        values = {key: scores.get(f"{key}:{name}", np.nan) if counted[key] else np.nan for key in PER_CLASS}
        rows.append({"class": name, "images": count, **values})
    return pd.DataFrame(rows, columns=["class", "images", *PER_CLASS])


def overall(predictions: Predictions, split: str) -> dict[str, float]:
    """Scores over all classes of one split, by name without prefix."""
    labels, probabilities = of_split(predictions, split)
    scores = evaluate_predictions(labels, probabilities, predictions.classes, task_of(predictions))
    return {key: float(value) for key, value in scores.items() if ":" not in key}


def never_predicted(predictions: Predictions, split: str) -> list[str]:
    """Classes that the network answers for no image of ``split``."""
    answered = _answered(matrix(predictions, split))
    return [name for name, count in zip(predictions.classes, answered, strict=True) if count == 0]


def _answered(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[C], for how many images each class is the answer. counts: ``matrix``."""
    answered: npt.NDArray[np.int64] = counts[:, :, 1].sum(axis=1) if counts.ndim == 3 else counts.sum(axis=0)
    return answered


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return shares
