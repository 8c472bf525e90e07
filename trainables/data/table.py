"""A table, in any form that it is published in, to a frame of texts: every cell as it stands."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from search_spaces.errors import UserError
from trainables.data.file_form import Opened, opened

SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
_LONGEST_LINE = 16 * 1024**2
_SAMPLE_LINES = 200
_SAMPLE_CHARACTERS = 1_000_000
_CHUNK_ROWS = 50_000


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table: CSV (commas, semicolons, tabs, bars or blanks), Parquet or JSON Lines, also in gzip or zip.

    columns: the names of the columns of a table without header. Cells are texts ("NA" and "007" too) without white
    space around them, "" for nothing. The index is the row's number as a spreadsheet shows it (the header is row 1;
    Parquet and JSON Lines: the first row is row 1); rows without any text are left out. Raises ``UserError``: not a
    table by its content, not UTF-8, ragged (each with the line), no rows, or a header that seems to be none.
    """
    with opened(path) as stream:
        head = stream.peek(1 << 12)
        if head.startswith(b"PAR1"):
            cells = _parquet(path, stream)
            named = "Parquet"
        elif re.match(rb"(\xef\xbb\xbf)?\s*(\{\s*[\"}]|\[\s*\{)", head):
            cells = _json(path, stream)
            named = "JSON"
        else:
            return _text_table(path, stream, columns)
    if columns:
        raise UserError(
            f"--columns {','.join(columns)}: {path.name} is {named}, whose columns have names: leave it out"
        )
    if not len(cells):
        raise UserError(f"{path}: no rows")
    return cells


def _text_table(path: Path, stream: Opened, columns: Sequence[str]) -> pd.DataFrame:
    lines = _lines(path, stream)
    sample, separator = _sample(lines)
    records = _records(path, itertools.chain(sample, lines), separator)
    number, line, header = _first(path, records)
    if columns and len(columns) != len(header):
        raise UserError(
            f"--columns {','.join(columns)}: {len(columns)} names, but {path} has {len(header)} columns, "
            f"separated by {SEPARATORS[separator]} (line {line}: {' | '.join(header[:4])})"
        )
    names = list(columns) or [cell.strip() for cell in header]
    above = [(number, line, header)] if columns else []
    cells = _frame(path, itertools.chain(above, records), names, separator)
    if not len(cells):
        raise UserError(f"{path}: a header and no rows")
    cells.columns = pd.Index(names)
    return cells


def _lines(path: Path, stream: Opened) -> Iterator[str]:
    """The lines with their ends, decoded; old Macs end them by CR only."""
    if stream.peek(2).startswith((b"\xff\xfe", b"\xfe\xff")):
        lines: Iterable[str] = _utf_16(path, stream)
    else:
        lines = _utf_8(path, stream)
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise UserError(f"{path}: line {number} holds a NUL byte: no text; save the file as CSV in UTF-8")
        yield line


def _utf_8(path: Path, stream: Opened) -> Iterator[str]:
    number = 0
    while content := stream.readline(_LONGEST_LINE):
        number += 1
        _check_length(path, len(content), number)
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"byte 0x{content[error.start]:02x} in line {number} is not UTF-8; save the file as CSV in UTF-8"
            raise UserError(f"{path}: {what}") from None
        if "\r" in line[:-2]:
            yield from re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", line)
        else:
            yield line


def _utf_16(path: Path, stream: Opened) -> Iterator[str]:
    text = io.TextIOWrapper(stream, "utf-16", newline="")
    number = 0
    try:
        while line := text.readline(_LONGEST_LINE):
            number += 1
            _check_length(path, len(line), number)
            yield line
    except UnicodeError as error:
        raise UserError(f"{path}: after line {number} not UTF-16, as it begins: {error}; save it as UTF-8") from None
    finally:
        text.detach()


def _check_length(path: Path, length: int, number: int) -> None:
    if length >= _LONGEST_LINE:
        raise UserError(f"{path}: line {number} has more than {_LONGEST_LINE:,} characters: not a table")


def _sample(lines: Iterator[str]) -> tuple[list[str], str]:
    """The first lines, without a ``sep=`` line, and what separates their cells."""
    sample: list[str] = []
    for line in lines:
        sample.append(line)
        if len(sample) == _SAMPLE_LINES or sum(map(len, sample[-1:])) > _SAMPLE_CHARACTERS:
            break
    return sample, _separator(sample)


def _separator(sample: Sequence[str]) -> str:
    """What divides most of the lines into as many cells as the first; blanks only where nothing else divides it."""
    best, most = ",", (0.0, 0)
    for separator in SEPARATORS:
        counts = [len(cells) for cells in _split(sample, separator) if any(cells)]
        counts = counts[:-1] if len(counts) > 2 else counts  # The last may be cut.
        if not counts or counts[0] < 2:
            continue
        share = sum(count == counts[0] for count in counts) / len(counts)
        if separator == " " and (share < 1 or most[1]):
            continue
        if (share, counts[0]) > most:
            best, most = separator, (share, counts[0])
    return best


def _split(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        lines = (line.replace("\t", " ").strip() + "\n" for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


Record = tuple[int, int, list[str]]
"""The number of the row, of the line that it begins in, and the cells."""


def _records(path: Path, lines: Iterator[str], separator: str) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    line = 1
    for number, cells in enumerate(reader, start=1):
        yield number, line, cells
        line = reader.line_num + 1


def _first(path: Path, records: Iterator[Record]) -> Record:
    for number, line, cells in records:
        if any(cell.strip() for cell in cells):
            return number, line, cells
    raise UserError(f"{path}: the file is empty")


def _frame(path: Path, records: Iterable[Record], names: Sequence[str], separator: str) -> pd.DataFrame:
    width = len(names)
    parts, rows, numbers, ragged = [], [], [], []
    for number, line, cells in records:
        if len(cells) != width:
            if not any(cell.strip() for cell in cells):
                continue
            ragged.append(f"line {line} has {len(cells)} cells")
            continue
        rows.append(cells)
        numbers.append(number)
        if len(rows) == _CHUNK_ROWS:
            parts.append(_part(rows, width))
            rows = []
    parts.append(_part(rows, width))
    if ragged:
        raise UserError(
            f"{path}: not a table separated by {SEPARATORS[separator]}: {ragged[0]}, the header has {width}"
        )
    frame = pd.concat(parts, ignore_index=True)
    frame.index = pd.Index(numbers, dtype="int64")
    return _with_text(frame)


def _part(rows: Sequence[Sequence[str]], width: int) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * width
    return pd.DataFrame(
        {place: pd.Series([cell.strip() for cell in column], dtype=str) for place, column in enumerate(columns)}
    )


def _parquet(path: Path, stream: Opened) -> pd.DataFrame:
    table = pq.read_table(path)
    return _of_values({name: table[name].to_pylist() for name in table.column_names})


def _json(path: Path, stream: Opened) -> pd.DataFrame:
    rows = [json.loads(line) for line in _lines(path, stream) if line.strip()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _of_values({name: [row.get(name) for row in rows] for name in names})


def _of_values(columns: dict[str, list[Any]]) -> pd.DataFrame:
    cells = pd.DataFrame({name: pd.Series(list(map(_cell, values)), dtype=str) for name, values in columns.items()})
    cells.index = pd.RangeIndex(1, len(cells) + 1)
    return _with_text(cells)


def _with_text(cells: pd.DataFrame) -> pd.DataFrame:
    """Without the rows whose cells are all empty."""
    found: pd.DataFrame = cells[(cells != "").any(axis=1)]
    return found.copy()


def _cell(value: object) -> str:
    return "" if value is None or value != value else str(value).strip()


def read_list(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def neighbours(path: Path, rows: pd.DataFrame, label_columns: Sequence[str]) -> dict[str, Path]:
    return {}
