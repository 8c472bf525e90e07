"""Label cells of a table to classes and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces.errors import UserError
from trainables.data.samples import CheckResult

SET = frozenset({"1", "1.0", "true", "yes"})
NOT_SET = frozenset({"0", "0.0", "false", "no"})
_MOST_ROWS = 5


@dataclass(frozen=True)
class Labels:
    """values: int64 [n], or uint8 [n, classes]; a row at fault has some value, too."""

    task: str
    classes: tuple[str, ...]
    values: npt.NDArray[Any]
    checks: tuple[CheckResult, ...] = ()


class RowFaults:
    """Which rows of a table cannot be used, and why; all of them are collected before anything is raised.

    row_numbers: [n], as a spreadsheet shows them. usable: bool [n]. problems: one sentence for each kind of fault.
    """

    def __init__(self, row_numbers: Sequence[int]) -> None:
        self._row_numbers = row_numbers
        self.usable = np.ones(len(row_numbers), dtype=bool)
        self.problems: list[str] = []

    def add(self, where: str, rows: Sequence[int], what: str) -> None:
        """Count ``rows`` (places from 0), if there are any, as at fault."""
        if rows:
            self.usable[rows] = False
            self.problems.append(f"{where}, {self.named(rows)}: {what}")

    def named(self, rows: Sequence[int]) -> str:
        """ "row 7" or "rows 2, 5, 6, 9, 12 and 3 more"."""
        numbers = ", ".join(str(self._row_numbers[row]) for row in rows[:_MOST_ROWS])
        more = f" and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
        return f"row{'s' if len(rows) > 1 else ''} {numbers}{more}"


def read_labels(cells: pd.DataFrame, columns: Sequence[str], task: str, faults: RowFaults) -> Labels:
    """One column holds class names or ``a|b`` cells, several hold 0 and 1 each (also true/false, yes/no).

    task "auto": multi_label if there are several columns or a ``|`` in a cell. Classes: names sorted, or the columns
    in the order given. Rows at fault go to ``faults``. Raises ``UserError`` if fewer than two classes occur.
    """
    several = len(columns) > 1
    labels = _from_columns(cells, columns, task, faults) if several else _from_cells(cells, columns[0], task, faults)
    if len(labels.classes) < 2:
        only = labels.classes[0] if labels.classes else "no label at all"
        raise UserError(f"column {columns[0]!r}: one class only ({only!r}); at least two are needed", *faults.problems)
    return labels


def _from_cells(table: pd.DataFrame, column: str, task: str, faults: RowFaults) -> Labels:
    cells = list(table[column])
    parts = [[part.strip() for part in cell.split("|") if part.strip()] for cell in cells]
    several = [row for row, cell in enumerate(cells) if "|" in cell]
    classes = tuple(sorted({name for names in parts for name in names}))
    place = {name: index for index, name in enumerate(classes)}
    if task == "multi_label" or (task == "auto" and several):
        hot = np.zeros((len(cells), len(classes)), dtype=np.uint8)
        for row, names in enumerate(parts):
            hot[row, [place[name] for name in names]] = 1
        return Labels("multi_label", classes, hot, _none_set(hot, len(cells)))
    if several:
        what = f"more than one label ({cells[several[0]]!r}) with --task single_label; choose --task multi_label"
        faults.add(f"column {column!r}", several, what)
    empty = [row for row, names in enumerate(parts) if not names]
    faults.add(f"column {column!r}", empty, "the label is empty; fill it in or remove the row")
    values = np.array([place[names[0]] if names else 0 for names in parts], dtype=np.int64)
    return Labels("single_label", classes, values)


def _from_columns(table: pd.DataFrame, columns: Sequence[str], task: str, faults: RowFaults) -> Labels:
    hot = np.zeros((len(table), len(columns)), dtype=np.uint8)
    faults.problems += [f"label column {name!r}: a label's name cannot hold '|'" for name in columns if "|" in name]
    for place, column in enumerate(columns):
        cells = [cell.lower() for cell in table[column]]
        wrong = [row for row, cell in enumerate(cells) if cell not in SET and cell not in NOT_SET]
        if wrong:
            cell = table[column].iloc[wrong[0]]
            what = f"{cell!r} is neither 0 nor 1; decide what empty or uncertain cells mean before training"
            faults.add(f"label column {column!r}", wrong, what)
        hot[:, place] = [cell in SET for cell in cells]
    if task != "single_label":
        return Labels("multi_label", tuple(columns), hot, _none_set(hot[faults.usable], len(table)))
    not_one = np.flatnonzero(faults.usable & (hot.sum(axis=1) != 1)).tolist()
    if not_one:
        what = f"{hot[not_one[0]].sum()} of them are set with --task single_label; "
        faults.add("label columns", not_one, what + "exactly one must be, or choose --task multi_label")
    order = np.argsort(np.array(columns))
    names = tuple(columns[place] for place in order)
    return Labels("single_label", names, hot[:, order].argmax(axis=1).astype(np.int64))


def _none_set(hot: npt.NDArray[np.uint8], images: int) -> tuple[CheckResult, ...]:
    count = int((hot.sum(axis=1) == 0).sum())
    message = f"{count} of {images} images carry none of the labels"
    return (CheckResult("no_label", "info", message, count),) if count else ()
