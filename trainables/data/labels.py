"""Label cells of a manifest to classes and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError
from trainables.data.samples import Finding
from trainables.data.table import Table

SET = frozenset({"1", "1.0", "true", "yes"})
NOT_SET = frozenset({"0", "0.0", "false", "no"})
_MOST_ROWS = 5


@dataclass(frozen=True)
class Labels:
    """values: int64 [n], or uint8 [n, classes]; usable: bool [n], False where a cell is at fault (see problems)."""

    task: str
    classes: tuple[str, ...]
    values: npt.NDArray[Any]
    usable: npt.NDArray[np.bool_]
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]


def read_labels(table: Table, columns: Sequence[str], task: str) -> Labels:
    """One column holds class names or ``a|b`` cells, several hold 0 and 1 each (also true/false, yes/no).

    task "auto": multi_label if there are several columns or a ``|`` in a cell. Classes: names sorted, or the columns
    in the order given. Raises ``UserError`` if fewer than two classes occur.
    """
    several = len(columns) > 1
    labels = _from_columns(table, columns, task) if several else _from_cells(table, columns[0], task)
    if len(labels.classes) < 2:
        only = labels.classes[0] if labels.classes else "no label at all"
        raise UserError(f"column {columns[0]!r}: one class only ({only!r}); at least two are needed", *labels.problems)
    return labels


def rows_text(table: Table, indices: Sequence[int]) -> str:
    """ "row 7" or "rows 2, 5, 6, 9, 12 and 3 more"."""
    numbers = ", ".join(str(table.row_number(index)) for index in indices[:_MOST_ROWS])
    more = f" and {len(indices) - _MOST_ROWS} more" if len(indices) > _MOST_ROWS else ""
    return f"row{'s' if len(indices) > 1 else ''} {numbers}{more}"


def _from_cells(table: Table, column: str, task: str) -> Labels:
    cells = table.column(column)
    parts = [[part.strip() for part in cell.split("|") if part.strip()] for cell in cells]
    several = [index for index, cell in enumerate(cells) if "|" in cell]
    empty = [index for index, names in enumerate(parts) if not names]
    if task == "auto":
        task = "multi_label" if several else "single_label"
    classes = tuple(sorted({name for names in parts for name in names}))
    place = {name: index for index, name in enumerate(classes)}
    usable = np.ones(len(cells), dtype=bool)
    if task == "multi_label":
        hot = np.zeros((len(cells), len(classes)), dtype=np.uint8)
        for index, names in enumerate(parts):
            hot[index, [place[name] for name in names]] = 1
        return Labels(task, classes, hot, usable, _none_set(hot, table), ())
    problems = []
    if several:
        problems.append(
            f"column {column!r}, {rows_text(table, several)}: more than one label ({cells[several[0]]!r}) with "
            "--task single_label; choose --task multi_label"
        )
    if empty:
        problems.append(
            f"column {column!r}, {rows_text(table, empty)}: the label is empty; fill it in or remove the row"
        )
    usable[[*several, *empty]] = False
    values = np.array([place[names[0]] if names else 0 for names in parts], dtype=np.int64)
    return Labels(task, classes, values, usable, (), tuple(problems))


def _from_columns(table: Table, columns: Sequence[str], task: str) -> Labels:
    hot = np.zeros((len(table), len(columns)), dtype=np.uint8)
    usable = np.ones(len(table), dtype=bool)
    problems = [f"label column {name!r}: a label's name cannot hold '|'" for name in columns if "|" in name]
    for place, column in enumerate(columns):
        cells = [cell.lower() for cell in table.column(column)]
        wrong = [index for index, cell in enumerate(cells) if cell not in SET and cell not in NOT_SET]
        if wrong:
            cell = table.column(column)[wrong[0]]
            problems.append(
                f"label column {column!r}, {rows_text(table, wrong)}: {cell!r} is neither 0 nor 1; "
                "decide what empty or uncertain cells mean before training"
            )
            usable[wrong] = False
        hot[:, place] = [cell in SET for cell in cells]
    if task != "single_label":
        return Labels("multi_label", tuple(columns), hot, usable, _none_set(hot[usable], table), tuple(problems))
    not_one = [int(index) for index in np.flatnonzero(usable & (hot.sum(axis=1) != 1))]
    if not_one:
        problems.append(
            f"label columns, {rows_text(table, not_one)}: {int(hot[not_one[0]].sum())} of them are set with "
            "--task single_label; exactly one must be, or choose --task multi_label"
        )
        usable[not_one] = False
    order = np.argsort(np.array(columns))
    names = tuple(columns[place] for place in order)
    return Labels("single_label", names, hot[:, order].argmax(axis=1).astype(np.int64), usable, (), tuple(problems))


def _none_set(hot: npt.NDArray[np.uint8], table: Table) -> tuple[Finding, ...]:
    count = int((hot.sum(axis=1) == 0).sum())
    if not count:
        return ()
    return (Finding("no_label", "info", f"{count} of {len(table)} images carry none of the labels", count),)
