"""Logistic regression on plain features, its strength chosen on validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from trainables.metrics import evaluate_predictions

Features = NDArray[np.float32]
Labels = NDArray[Any]
Probabilities = NDArray[np.float32]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of scikit-learn, the inverse of the penalty on squared weights: from strong regularisation to weak."""
MOST_ITERATIONS = 1000


@dataclass(frozen=True)
class Regression:
    """strength: the C that was chosen. probabilities: float32 [n, classes] by split, of all but train.

    unfinished: the strengths at which the solver did not converge; its last weights count.
    """

    strength: float
    probabilities: dict[str, Probabilities]
    unfinished: tuple[float, ...]


def fit_regression(
    features: Mapping[str, Features],
    labels: Mapping[str, Labels],
    classes: Sequence[str],
    task: str,
    *,
    threads: int = 1,
) -> Regression:
    """Fit on "train", choose C by the macro F1 of "val" (of equals the strongest penalty), predict all other splits.

    features: float32 [n, d] by split, overwritten: standardised by mean and standard deviation of "train". labels:
    int64 [n], or 0/1 [n, classes]: then one regression a label, all of the same C.
    L-BFGS; each C begins at the weights of the one before, which saves most of the work and ends at the same optimum.
    threads: labels that are fitted at once. ValueError where features are no finite numbers.
    """
    scaler = StandardScaler(copy=False).fit(features["train"])
    scaled = {split: scaler.transform(matrix) for split, matrix in features.items()}
    model = _OneOfMany(len(classes)) if task == "single_label" else _EachAlone(len(classes), threads)
    chosen: Regression | None = None
    best = -1.0
    unfinished = []
    for strength in STRENGTHS:
        if not _converges(partial(model.fit, scaled["train"], labels["train"], strength)):
            unfinished.append(strength)
        val = model.predict(scaled["val"])
        score = evaluate_predictions(labels["val"], val, classes, task)["f1_macro"]
        if score > best:
            others = {split: model.predict(matrix) for split, matrix in scaled.items() if split not in ("train", "val")}
            chosen, best = Regression(strength, {"val": val, **others}, ()), score
    assert chosen is not None, "a macro F1 is never below 0"
    return Regression(chosen.strength, chosen.probabilities, tuple(unfinished))


def _converges(fit: Callable[[], None]) -> bool:
    """Whether ``fit`` ends without a warning that it did not converge.

    BLAS gets one thread: of the thousand short steps each would wait for all threads, which takes 50 times as long
    where others use the processor, too, and hardly less where nobody does.
    """
    with warnings.catch_warnings(record=True) as caught, threadpool_limits(limits=1, user_api="blas"):
        warnings.simplefilter("always", ConvergenceWarning)
        fit()
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


class _OneOfMany:
    """Multinomial: exactly one class an image."""

    def __init__(self, class_count: int) -> None:
        self._class_count = class_count
        self._regression = LogisticRegression(max_iter=MOST_ITERATIONS, warm_start=True)

    def fit(self, features: Features, labels: Labels, strength: float) -> None:
        self._regression.set_params(C=strength).fit(features, labels)

    def predict(self, features: Features) -> Probabilities:
        """float32 [n, classes]; 0 for a class that the training split lacks."""
        whole = np.zeros((len(features), self._class_count), dtype=np.float32)
        whole[:, self._regression.classes_] = self._regression.predict_proba(features)
        return whole.clip(0, 1)


class _EachAlone:
    """Multi-label: a regression a label; one that every training image has, or none, keeps that probability."""

    def __init__(self, label_count: int, threads: int) -> None:
        self._regressions = [_OneOfMany(2) for _ in range(label_count)]
        self._constant: dict[int, float] = {}
        self._threads = threads

    def fit(self, features: Features, labels: Labels, strength: float) -> None:
        columns = dict(enumerate(labels.T.astype(np.int64)))
        self._constant = {place: float(column[0]) for place, column in columns.items() if column.min() == column.max()}
        varied = [place for place in columns if place not in self._constant]
        with ThreadPoolExecutor(self._threads) as pool:
            tasks = [pool.submit(self._regressions[place].fit, features, columns[place], strength) for place in varied]
            for task in tasks:
                task.result()

    def predict(self, features: Features) -> Probabilities:
        """float32 [n, labels]."""
        columns = [
            np.full(len(features), self._constant[place], dtype=np.float32)
            if place in self._constant
            else regression.predict(features)[:, 1]
            for place, regression in enumerate(self._regressions)
        ]
        return np.stack(columns, axis=1)
