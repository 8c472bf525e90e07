"""The rows of a data set before any image is opened: one type for folders, tables, .npz files and the demo set."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from trainables.metrics import MISSING as MISSING
from trainables.metrics import has_class

SPLITS = ("train", "val", "test")
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing"),
}
SPLIT_WORDS = {word: split for split, words in _WORDS.items() for word in words}
MOST_ITEMS = 50
FILE_MISSING = "the file is missing (--skip-missing)"
"""Why such a row is left out."""
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class CheckResult:
    """Something about the data that the user should know; ``dataset.json`` keeps all of them.

    check: a short name. severity: "error" (stops, unless an option allows it), "warning" or "info".
    items: up to 50 lists of paths, each list one occurrence; count: how many there are in all.
    """

    check: str
    severity: str
    message: str
    count: int
    items: tuple[tuple[str, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"items": [list(item) for item in self.items[:MOST_ITEMS]]}


@dataclass(frozen=True)
class LeftOut:
    """Images or rows that are not used, and why. examples: up to 50, a path or "row 7" each."""

    why: str
    count: int
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"examples": list(self.examples[:MOST_ITEMS])}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The rows of a data set, in a fixed order.

    paths: as shown to the user. files: absolute; empty if ``pixels`` is given.
    labels: int64 [n] (single_label), or int8 [n, classes] of 0, 1 and ``MISSING`` (multi_label).
    splits: "train", "val" or "test" of each row; None = none given.
    groups: None = unknown for all rows; a value "" = unknown, the row is a group of its own. group_from: their origin
    as the user gave it: a column's name, or the regular expression.
    pixels: uint8 [n, H, W] or [n, H, W, 3], of an .npz or the demo set.
    checks: results found while listing. problems: rows that cannot be used, in words; they are not among the samples.
    nothing_to_tell: why nothing can be learned, in words, if there is only one class or no label; else "".
    left_out: everything that a rule or an option excludes. notes: how the set was read, one sentence each.
    """

    kind: str
    path: str
    task: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    files: tuple[Path, ...]
    labels: npt.NDArray[Any]
    splits: tuple[str, ...] | None
    group_from: str | None = None
    groups: tuple[str, ...] | None = None
    subgroups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: tuple[str, ...] | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    checks: tuple[CheckResult, ...] = ()
    problems: tuple[str, ...] = ()
    nothing_to_tell: str = ""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __post_init__(self) -> None:
        assert len(self.labels) == len(self.paths)
        assert self.splits is None or set(self.splits) <= set(SPLITS)

    @property
    def hot(self) -> npt.NDArray[np.bool_]:
        """bool [n, classes]: which classes each image has."""
        return has_class(self.labels, len(self.classes))

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class."""
        return dict(zip(self.classes, class_counts(self.labels, len(self.classes)).tolist(), strict=True))

    def subset(self, rows: npt.NDArray[np.int64]) -> Samples:
        """The samples of ``rows`` only, in their order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self

        def of(values: Sequence[Any] | None) -> Any:
            return values and tuple(values[row] for row in rows)

        return dataclasses.replace(
            self,
            **{name: of(getattr(self, name)) for name in ("paths", "files", "splits", "groups", "sources")},
            labels=self.labels[rows],
            subgroups={column: of(values) for column, values in self.subgroups.items()},
            pixels=None if self.pixels is None else self.pixels[rows],
        )

    def label_names(self, row: int) -> tuple[str, ...]:
        """The classes of an image: one (single_label), or none, one or several (multi_label)."""
        if self.task == "single_label":
            return (self.classes[int(self.labels[row])],)
        return tuple(name for name, present in zip(self.classes, self.labels[row], strict=True) if present == 1)

    def missing_text(self, row: int) -> str:
        """The missing labels, ``a|b``: it is not known whether the image has them."""
        if self.labels.ndim == 1:
            return ""
        return "|".join(name for name, cell in zip(self.classes, self.labels[row], strict=True) if cell == MISSING)

    def label_text(self, row: int) -> str:
        """As written in splits.csv: the class's name, or ``a|b`` (empty: none)."""
        return "|".join(self.label_names(row))


def class_counts(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    """int64 [classes]: how many images have each class. labels: as of ``Samples``."""
    counts = np.bincount(labels, minlength=classes) if labels.ndim == 1 else (labels == 1).sum(axis=0)
    return np.asarray(counts, dtype=np.int64)


def rows_by(keys: Iterable[_Key]) -> dict[_Key, list[int]]:
    """The rows, from 0, of each key; keys in order of first occurrence."""
    rows: dict[_Key, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    return rows
