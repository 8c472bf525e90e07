"""A data set that is a CSV table: one row an image, columns under the user's own names, every cell as it stands."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd

from search_spaces.errors import UserError, raise_all, unknown
from trainables.data.config import DataConfig
from trainables.data.labels import Labels, RowFaults, read_labels
from trainables.data.samples import SPLIT_WORDS, Samples, rows_by

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
DEFAULT_SPLIT_COLUMN = "split"
_MOST_FILES = 5


def list_table(path: Path, config: DataConfig) -> Samples:
    """List the rows of a table whose files, labels and splits can be used; ``problems`` tells of the others.

    Raises ``UserError`` where no row can be understood: no table, a column that is not there, one class only.
    """
    cells = read_table(path)
    split_column = _check_columns(path, cells, config)

    def column(name: str) -> tuple[str, ...]:
        return tuple(cells[name])

    faults = RowFaults(cells.index.tolist())
    labels = read_labels(cells, config.label_column, config.task, faults)
    names = column(config.path_column)
    files = [_locate(path.parent, name) for name in names]
    _check_files(path, names, files, config.path_column, faults)
    _check_repeated(names, files, labels, faults)
    words = None if split_column is None else column(split_column)
    for word, rows in rows_by(words or ()).items():
        if word.lower() not in SPLIT_WORDS:
            what = f"unknown split {word!r}; allowed: {', '.join(SPLIT_WORDS)}"
            faults.add(f"column {split_column!r}", rows, what)
    if not faults.usable.any():
        raise UserError(*faults.problems)
    return Samples(
        kind="table",
        path=str(path),
        task=labels.task,
        classes=labels.classes,
        paths=tuple(_shown(path.parent, name) for name in names),
        files=tuple(files),
        labels=labels.values,
        splits=words and tuple(SPLIT_WORDS.get(word.lower(), "train") for word in words),
        group_from=config.group_column,
        groups=None if config.group_column is None else column(config.group_column),
        subgroups={name: column(name) for name in config.subgroup_column},
        sources=None if config.source_column is None else column(config.source_column),
        checks=labels.checks,
        problems=tuple(faults.problems),
    ).subset(np.flatnonzero(faults.usable).astype(np.int64))


def read_table(path: Path) -> pd.DataFrame:
    """Read a .csv or .tsv file in UTF-8 (with or without its mark), separated by comma, semicolon or tab.

    Cells are texts ("NA" and "007" too) without white space around them. The index is the row's number as a spreadsheet
    shows it (the header is row 1); rows without any text are left out. Raises ``UserError``: not a table by its name,
    not UTF-8 (with the line), empty, no rows, or rows with more cells than the header (with the line).
    """
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UserError(f"--data {path}: neither a folder nor a .csv manifest (unpack an archive first)")
    lines = _text(path).splitlines(keepends=True)
    above = next((number for number, line in enumerate(lines) if line.strip()), None)
    if above is None:
        raise UserError(f"--data {path}: the file is empty")
    separator = max(SEPARATORS, key=lines[above].count)
    try:
        cells = pd.read_csv(
            io.StringIO("".join(lines[above:])),  # pandas would count no columns in a blank first line
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            index_col=False,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise UserError(f"--data {path}: not a table separated by {SEPARATORS[separator]}s: {reason}") from None
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    cells.index = pd.RangeIndex(above + 1, above + len(cells) + 1)
    cells = cells[(cells != "").any(axis=1)]
    rows: pd.DataFrame = cells.iloc[1:].copy()
    rows.columns = pd.Index([str(name) for name in cells.iloc[0]])
    if not len(rows):
        raise UserError(f"--data {path}: a header and no rows")
    return rows


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--data {path}: cannot be opened: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"--data {path}: the file is UTF-16; save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = content[error.start], content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{byte:02x} in line {line} is not UTF-8; save the file as CSV in UTF-8"
        raise UserError(f"--data {path}: {what}") from None


def _check_columns(path: Path, cells: pd.DataFrame, config: DataConfig) -> str | None:
    """All columns asked for are there; returns the split column, None if none is given and none is called "split"."""
    names = list(map(str, cells.columns))
    split_column = config.split_column
    if split_column is None and DEFAULT_SPLIT_COLUMN in names:
        split_column = DEFAULT_SPLIT_COLUMN
    wanted = {
        "--path-column": (config.path_column,),
        "--label-column": config.label_column,
        "--subgroup-column": config.subgroup_column,
        "--split-column": (split_column,),
        "--group-column": (config.group_column,),
        "--source-column": (config.source_column,),
    }
    problems = []
    for option, columns in wanted.items():
        for name in columns:
            if name is not None and name not in names:
                problems.append(f"{option} {name}: {unknown(f'column of {path.name}', name, names)}")
            elif name is not None and names.count(name) > 1:
                problems.append(f"{option} {name}: {path.name} has {names.count(name)} columns of that name")
    if not config.label_column:
        has = f"{path.name} has {', '.join(names)}"
        problems.append(f"--label-column is not given; name the column(s) with the labels: {has}")
    raise_all(problems)
    return split_column


def _locate(folder: Path, name: str) -> Path:
    """The file that a cell names; tables made on Windows write backslashes."""
    file = folder / name
    if "\\" in name and not file.exists():
        file = folder / name.replace("\\", "/")
    return Path(os.path.normpath(file))


def _shown(folder: Path, name: str) -> str:
    """The path as in the table; an absolute one below the table's folder relative to it."""
    path = Path(name)
    below = path.is_absolute() and path.is_relative_to(folder)
    return path.relative_to(folder).as_posix() if below else name


def _check_files(path: Path, names: tuple[str, ...], files: list[Path], column: str, faults: RowFaults) -> None:
    empty = [row for row, name in enumerate(names) if not name]
    faults.add(f"column {column!r}", empty, "the path is empty")
    missing = [row for row, file in enumerate(files) if names[row] and not file.is_file()]
    if missing:
        faults.usable[missing] = False
        shown = ", ".join(names[row] for row in missing[:_MOST_FILES])
        more = f" and {len(missing) - _MOST_FILES} more" if len(missing) > _MOST_FILES else ""
        faults.problems.append(
            f"{len(missing)} of {len(files)} rows name a missing file (paths are relative to {path.parent}): "
            f"{shown}{more}; mend the paths or remove the rows"
        )


def _check_repeated(names: tuple[str, ...], files: list[Path], labels: Labels, faults: RowFaults) -> None:
    repeated = [rows for rows in rows_by(files).values() if len(rows) > 1 and names[rows[0]]]
    for number, rows in enumerate(repeated):
        faults.usable[rows[1:]] = False
        if number < _MOST_FILES:
            differ = any(not np.array_equal(labels.values[row], labels.values[rows[0]]) for row in rows[1:])
            how = "with different labels" if differ else "with the same label"
            text = f"{names[rows[0]]} stands {len(rows)} times, {how} ({faults.named(rows)}): keep one row"
            faults.problems.append(text)
    if len(repeated) > _MOST_FILES:
        faults.problems.append(f"... and {len(repeated) - _MOST_FILES} more files stand more than once")
