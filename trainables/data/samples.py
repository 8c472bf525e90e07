"""The rows of a data set before any image is opened: one type for folders, manifests and the demo set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
MOST_ITEMS = 50


@dataclass(frozen=True)
class Finding:
    """Something about the data that the user should know; ``dataset.json`` keeps all of them.

    check: a short name. severity: "error" (stops, unless the user goes on by an option), "warning" or "info".
    items: up to 50 lists of paths, each list one occurrence; count: how many there are in all.
    """

    check: str
    severity: str
    message: str
    count: int
    items: tuple[tuple[str, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        values["items"] = [list(item) for item in self.items[:MOST_ITEMS]]
        return values


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The rows of a data set, in a fixed order.

    paths: as the user would recognise them. files: absolute; empty if ``pixels`` is given.
    labels: int64 [n] (single_label), or uint8 [n, classes] of 0 and 1 (multi_label).
    splits: "train", "val", "test" each, or None for all rows: none given.
    groups: None = no group column; a value "" = not known, the row is a group of its own.
    pixels: uint8 [n, H, W], for a set that is drawn, not read.
    problems: rows that cannot be used, in words; those rows are not in the listing.
    """

    kind: str
    path: str
    task: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    files: tuple[Path, ...]
    labels: npt.NDArray[Any]
    splits: tuple[str, ...] | None
    group_column: str | None = None
    groups: tuple[str, ...] | None = None
    subgroups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: tuple[str, ...] | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    findings: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def __post_init__(self) -> None:
        assert len(self.labels) == len(self.paths)
        assert self.splits is None or set(self.splits) <= set(SPLITS)

    def take(self, rows: npt.NDArray[np.int64]) -> Samples:
        """The listing of ``rows`` only, in their order."""

        def of(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[row] for row in rows)

        return dataclasses.replace(
            self,
            paths=of(self.paths),
            files=of(self.files) if self.files else (),
            labels=self.labels[rows],
            splits=None if self.splits is None else of(self.splits),
            groups=None if self.groups is None else of(self.groups),
            subgroups={column: of(values) for column, values in self.subgroups.items()},
            sources=None if self.sources is None else of(self.sources),
            pixels=None if self.pixels is None else self.pixels[rows],
        )

    def label_names(self, row: int) -> tuple[str, ...]:
        """The classes of an image: one (single_label), or none, one or several (multi_label)."""
        if self.task == "single_label":
            return (self.classes[int(self.labels[row])],)
        return tuple(name for name, present in zip(self.classes, self.labels[row], strict=True) if present)

    def label_text(self, row: int) -> str:
        """As written in splits.csv: the class's name, or ``a|b`` (empty: none)."""
        return "|".join(self.label_names(row))
