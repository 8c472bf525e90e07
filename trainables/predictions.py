"""A network's predictions on disk: ``predictions.npz``, every row with the file it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.atomic import write_atomically


@dataclass(frozen=True)
class Predictions:
    """path, split: str [N]; label: int64 [N], or uint8 [N, C] (multi-label); probability: float32 [N, C] of the best
    epoch's weights; classes: str [C]; epoch: the best one, from 1."""

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
        """The rows of one split, in its order. labels: int64 [N], or 0/1 [N, C]."""
        return cls(
            path=np.array(paths, dtype=np.str_),
            split=np.full(len(paths), split),
            label=labels.astype(np.int64 if labels.ndim == 1 else np.uint8),
            probability=probabilities.astype(np.float32),
            classes=tuple(classes),
            epoch=epoch,
        )

    def of(self, split: str) -> Predictions:
        """The rows of one split."""
        mine = self.split == split
        return Predictions(
            self.path[mine], self.split[mine], self.label[mine], self.probability[mine], self.classes, self.epoch
        )

    def write(self, path: Path) -> None:
        """Write the file atomically; numpy reads it without pickle."""
        write_atomically(path, lambda beside: np.savez_compressed(beside, **vars(self)))


def read_predictions(path: Path) -> Predictions:
    """The predictions in a file that ``Predictions.write`` wrote."""
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:  # numpy leaks a truncated file
        arrays = {name: saved[name] for name in ("path", "split", "label", "probability")}
        return Predictions(**arrays, classes=tuple(map(str, saved["classes"])), epoch=int(saved["epoch"]))


def join(parts: Sequence[Predictions]) -> Predictions:
    """All rows one after the other; the parts are of one network and one epoch."""
    assert len({part.epoch for part in parts}) == 1, "predictions of different epochs"
    rows = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("path", "split", "label", "probability")
    }
    return Predictions(**rows, classes=parts[0].classes, epoch=parts[0].epoch)
