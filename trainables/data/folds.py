"""Grouped cross-validation of a run's training and validation images: one split a fold."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from search_spaces.errors import UserError
from trainables.atomic import write_atomically
from trainables.data.splits import label_strata


def write_folds(splits: Path, folds: Sequence[Path], classes: Sequence[str], seed: int) -> None:
    """Write for each of ``folds`` a file like ``splits`` in which its part of train + val is "val", the rest "train".

    Stratified by label (by combination where there are several) and grouped: no group is cut in two. Test rows stay as
    they are. Raises ``UserError`` if a class cannot be in train and val of every fold.
    """
    with splits.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        columns = list(reader.fieldnames or [])
    mine = [place for place, row in enumerate(rows) if row["split"] in ("train", "val")]
    labels, groups = ([rows[place][column] for place in mine] for column in ("label", "group"))
    fold_of = deal(labels, groups, classes, len(folds), seed)
    for fold, path in enumerate(folds):
        dealt = [dict(row) for row in rows]
        for place, number in zip(mine, fold_of, strict=True):
            dealt[place]["split"] = "val" if number == fold else "train"
        write_atomically(path, lambda beside, dealt=dealt: _write(beside, columns, dealt))  # type: ignore[misc]


def deal(labels: Sequence[str], groups: Sequence[str], classes: Sequence[str], count: int, seed: int) -> list[int]:
    """The fold, 0 to ``count`` - 1, of each row, the same for the same rows, whatever the groups are called.

    labels: names with "|" between; groups: "" is a group of its own.

    Raises ``UserError`` if a class is missing from train or val of a fold: then there are too few of its groups.
    """
    hot = np.array([[name in label.split("|") for name in classes] for label in labels], dtype=np.int64)
    single = bool((hot.sum(axis=1) == 1).all())
    strata = hot.argmax(axis=1) if single else label_strata(hot)
    # Numbered as they come: what groups are called, which each run hashes anew, changes no fold.
    number: dict[str, int] = {}
    units = np.array([number.setdefault(group or f"\0{row}", len(number)) for row, group in enumerate(groups)])
    for place, name in enumerate(classes):
        of_class = len(np.unique(units[hot[:, place] == 1]))
        if of_class < count:
            what = "images" if len(number) == len(units) else "groups"
            raise UserError(f"--folds {count}: class {name!r} has {of_class} {what} in train and val: give fewer folds")
    grouped = len(number) < len(units)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(count, shuffle=True, random_state=seed % 2**32)
    fold_of = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare combination of labels: each label is looked at below
        for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(labels)), strata, units)):
            fold_of[rows] = fold
    for fold in range(count):
        for place, name in enumerate(classes):
            inside = int(hot[fold_of == fold, place].sum())
            if inside in (0, int(hot[:, place].sum())):
                raise UserError(f"--folds {count}: class {name!r} is not on both sides of every fold: give fewer folds")
    return [int(fold) for fold in fold_of]


def _write(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
