"""A data set that is a CSV manifest: one row an image, columns under the user's own names."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, raise_all
from trainables.data.config import DataConfig
from trainables.data.labels import Labels, read_labels, rows_text
from trainables.data.samples import SPLIT_WORDS, Samples
from trainables.data.table import Table, read_table

DEFAULT_SPLIT_COLUMN = "split"
_MOST_FILES = 5


def list_manifest(path: Path, request: DataConfig) -> Samples:
    """List the rows of a manifest whose files, labels and splits can be used; ``problems`` tells of the others.

    Raises ``UserError`` where no row can be understood: no table, a column that is not there, one class only.
    """
    table = read_table(path)
    split_column = _check_columns(table, request)
    labels = read_labels(table, request.label_column, request.task)
    cells = table.column(request.path_column)
    files = [_locate(path.parent, cell) for cell in cells]
    usable, problems = labels.usable.copy(), list(labels.problems)
    for found in (
        _empty_paths(table, cells, request.path_column, usable),
        _missing_files(path, cells, files, usable),
        _same_file_twice(table, cells, files, labels, usable),
    ):
        problems += found
    splits = None
    if split_column is not None:
        words = table.column(split_column)
        problems += _unknown_splits(table, words, split_column, usable)
        splits = tuple(SPLIT_WORDS.get(word.lower(), "train") for word in words)
    listing = Samples(
        kind="manifest",
        path=str(path),
        task=labels.task,
        classes=labels.classes,
        paths=tuple(_shown(path.parent, cell) for cell in cells),
        files=tuple(files),
        labels=labels.values,
        splits=splits,
        group_column=request.group_column,
        groups=None if request.group_column is None else tuple(table.column(request.group_column)),
        subgroups={name: tuple(table.column(name)) for name in request.subgroup_column},
        sources=None if request.source_column is None else tuple(table.column(request.source_column)),
        findings=labels.findings,
        problems=tuple(problems),
    )
    if not usable.any():
        raise UserError(*problems)
    return listing.take(np.flatnonzero(usable).astype(np.int64))


def _check_columns(table: Table, request: DataConfig) -> str | None:
    """All columns asked for are there; returns the split column, None if none is given and none is called "split"."""
    optional = {
        "--split-column": request.split_column,
        "--group-column": request.group_column,
        "--source-column": request.source_column,
    }
    wanted = {
        "--path-column": (request.path_column,),
        "--label-column": request.label_column,
        "--subgroup-column": request.subgroup_column,
        **{option: (name,) for option, name in optional.items() if name is not None},
    }
    problems = table.missing_columns(wanted)
    if not request.label_column:
        names = ", ".join(table.cells.columns)
        problems.append(
            f"--label-column is not given; name the column(s) with the labels: {table.path.name} has {names}"
        )
    raise_all(problems)
    if request.split_column is None and DEFAULT_SPLIT_COLUMN in table.cells.columns:
        raise_all(table.missing_columns({"--split-column": (DEFAULT_SPLIT_COLUMN,)}))
        return DEFAULT_SPLIT_COLUMN
    return request.split_column


def _locate(folder: Path, cell: str) -> Path:
    """The file that a cell names; tables made on Windows write backslashes."""
    file = folder / cell
    if "\\" in cell and not file.exists():
        file = folder / cell.replace("\\", "/")
    return Path(os.path.normpath(file))


def _shown(folder: Path, cell: str) -> str:
    """The path as in the manifest; an absolute one below the manifest's folder relative to it."""
    path = Path(cell)
    if path.is_absolute() and path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return cell


def _empty_paths(table: Table, cells: list[str], column: str, usable: npt.NDArray[np.bool_]) -> list[str]:
    empty = [index for index, cell in enumerate(cells) if not cell]
    usable[empty] = False
    return [f"column {column!r}, {rows_text(table, empty)}: the path is empty"] if empty else []


def _missing_files(path: Path, cells: list[str], files: list[Path], usable: npt.NDArray[np.bool_]) -> list[str]:
    missing = [index for index, file in enumerate(files) if cells[index] and not file.is_file()]
    if not missing:
        return []
    usable[missing] = False
    shown = ", ".join(cells[index] for index in missing[:_MOST_FILES])
    more = f" and {len(missing) - _MOST_FILES} more" if len(missing) > _MOST_FILES else ""
    return [
        f"{len(missing)} of {len(files)} rows name a missing file (paths are relative to {path.parent}): "
        f"{shown}{more}; mend the paths or remove the rows"
    ]


def _same_file_twice(
    table: Table, cells: list[str], files: list[Path], labels: Labels, usable: npt.NDArray[np.bool_]
) -> list[str]:
    rows_of: dict[Path, list[int]] = defaultdict(list)
    for index, file in enumerate(files):
        if cells[index]:
            rows_of[file].append(index)
    repeated = [rows for rows in rows_of.values() if len(rows) > 1]
    problems: list[str] = []
    for rows in repeated:
        usable[rows[1:]] = False
        if len(problems) < _MOST_FILES:
            differ = any(not np.array_equal(labels.values[row], labels.values[rows[0]]) for row in rows[1:])
            how = "with different labels" if differ else "with the same label"
            problems.append(
                f"{cells[rows[0]]} stands {len(rows)} times, {how} ({rows_text(table, rows)}): keep one row"
            )
    if len(repeated) > len(problems):
        problems.append(f"... and {len(repeated) - len(problems)} more files stand more than once")
    return problems


def _unknown_splits(table: Table, words: list[str], column: str, usable: npt.NDArray[np.bool_]) -> list[str]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for index, word in enumerate(words):
        if word.lower() not in SPLIT_WORDS:
            rows_of[word].append(index)
            usable[index] = False
    allowed = ", ".join(SPLIT_WORDS)
    return [
        f"column {column!r}, {rows_text(table, rows)}: unknown split {word!r}; allowed: {allowed}"
        for word, rows in rows_of.items()
    ]
