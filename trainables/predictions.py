"""A network's predictions on disk: ``predictions.npz``, every row with the path of its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.atomic import write_atomically
from trainables.metrics import MISSING, is_known

_ROWS = ("path", "split", "label", "probability")


@dataclass(frozen=True)
class Predictions:
    """path, split: str [N]; label: int64 [N], or int8 [N, C] (multi-label) of 0, 1 and ``MISSING``; probability:
    float32 [N, C] of the best epoch's weights; classes: str [C]; epoch: the best one, from 1."""

    path: NDArray[np.str_]
    split: NDArray[np.str_]
    label: NDArray[Any]
    probability: NDArray[np.float32]
    classes: tuple[str, ...]
    epoch: int

    @classmethod
    def of_split(
        cls,
        split: str,
        paths: Sequence[str],
        labels: NDArray[Any],
        probabilities: NDArray[np.float32],
        classes: Sequence[str],
        epoch: int,
    ) -> Predictions:
        """The rows of one split, in its order. labels: int64 [N], or [N, C] of 0, 1, and ``MISSING`` or NaN."""
        if labels.ndim == 2:
            labels = np.where(is_known(labels, len(classes)), labels, MISSING).astype(np.int8)
        return cls(
            path=np.array(paths, dtype=np.str_),
            split=np.full(len(paths), split),
            label=labels if labels.ndim == 2 else labels.astype(np.int64),
            probability=probabilities.astype(np.float32),
            classes=tuple(classes),
            epoch=epoch,
        )

    def subset(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Predictions:
        return replace(self, **{name: getattr(self, name)[rows] for name in _ROWS})

    def of(self, *splits: str) -> Predictions:
        """The rows of these splits."""
        return self.subset(np.isin(self.split, splits))

    def align(self, paths: NDArray[np.str_], labels: NDArray[Any]) -> Predictions | None:
        """The same rows in the order of ``paths``, str [N]; None if the images or their labels are others.

        labels: of the images of ``paths``, [N] or [N, C].
        """
        if not np.array_equal(np.sort(self.path), np.sort(paths)):
            return None
        order = np.empty(len(paths), dtype=np.int64)
        order[np.argsort(paths, kind="stable")] = np.argsort(self.path, kind="stable")
        return self.subset(order) if np.array_equal(self.label[order], labels) else None

    @property
    def task(self) -> str:
        return "multi_label" if self.label.ndim == 2 else "single_label"

    def write(self, path: Path) -> None:
        """Write the file atomically; numpy reads it without pickle."""
        write_atomically(path, lambda beside: np.savez_compressed(beside, **vars(self)))


def read_predictions(path: Path) -> Predictions:
    """The predictions in a file that ``Predictions.write`` wrote; ValueError if its arrays are not of that form."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:  # numpy leaves a truncated file open
        arrays = {name: saved[name] for name in _ROWS}
        found = Predictions(**arrays, classes=tuple(map(str, saved["classes"])), epoch=int(saved["epoch"]))
    count, classes = found.path.shape, len(found.classes)
    if not (
        len(count) == 1
        and found.split.shape == count
        and {found.path.dtype.kind, found.split.dtype.kind} == {"U"}
        and found.label.dtype.kind in "iu"
        and found.label.shape in (count, (*count, classes))
        and found.probability.dtype.kind == "f"
        and found.probability.shape == (*count, classes)
        and len(set(found.classes)) == classes > 0
    ):
        raise ValueError("its arrays do not fit each other, or have wrong types or values")
    return found


def join(parts: Sequence[Predictions]) -> Predictions:
    """All rows one after the other; the epoch is that of the first part."""
    rows: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ROWS}
    return replace(parts[0], **rows)
