"""A table that is text, of lines and cells with something between them, to a frame of texts."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from search_spaces.errors import UserError
from trainables.data.file_form import Opened

_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
CHUNK_CELLS = 1_000_000
_LONGEST_LINE = 16 * 1024**2
_SAMPLE_LINES = 200
_SAMPLE_CHARACTERS = 1_000_000
_MOST_SHOWN = 10
_SEPARATOR_LINE = re.compile(r"\"?sep=([^\w\s\"]|\t| )\"?\s*", re.IGNORECASE)

Record = tuple[int, int, int, list[str]]
"""The number of a row, the lines that it begins and ends in, and its cells."""


class DelimitedText:
    """The rows of a text.

    separator: what divides them into cells. sample: the first lines. first: the first row with any text in it.
    """

    def __init__(self, where: str, stream: Opened) -> None:
        self._where = where
        self._lines = _lines(where, stream)
        self.sample, self.separator, above = _sample(self._lines)
        self._records = _records(where, self.lines(), self.separator, above)

    @property
    def separated(self) -> str:
        """By what, in words."""
        return f"separated by {_SEPARATORS.get(self.separator, repr(self.separator))}"

    def lines(self) -> Iterator[str]:
        """All lines but a ``sep=`` line, once."""
        return itertools.chain(self.sample, self._lines)

    @functools.cached_property
    def first(self) -> Record:
        for record in self._records:
            if any(cell.strip() for cell in record[-1]):
                return record
        raise UserError(f"{self._where}: the file is empty")

    def frame(self, names: Sequence[str], with_first: bool) -> pd.DataFrame:
        """The cells of all rows that have any; columns are numbered, as a name may be there twice.

        with_first: the first row is data. Cells of columns without a name may be lacking, and empty cells may be too
        many; else a row of another number of cells than there are names is an error.
        """
        records = itertools.chain([self.first] if with_first else [], self._records)
        width = len(names)
        parts: list[pd.DataFrame] = []
        rows: list[list[str]] = []
        numbers: list[int] = []
        ragged: list[str] = []
        count = 0
        for number, line, last, cells in records:
            if len(cells) != width:
                if not any(cell.strip() for cell in cells):
                    continue
                if any(cell.strip() for cell in cells[width:]) or any(names[len(cells) :]):
                    count += 1
                    quoted = f" (a quote that opens there closes in line {last})" if last > line else ""
                    ragged += [f"line {line} has {len(cells)}{quoted}"] if count <= _MOST_SHOWN else []
                    continue
                cells = (cells + [""] * width)[:width]
            rows.append(cells)
            numbers.append(number)
            if len(rows) * width >= CHUNK_CELLS:
                parts.append(_part(rows, width))
                rows = []
        if ragged:
            shown = ", ".join(ragged) + (f" and {count - len(ragged)} more" if count > len(ragged) else "")
            way_out = "a cell that holds the separator needs quotes" if width > 1 else "remove what is above the header"
            what = f"{shown} cells, the first row {width}; give each row as many ({way_out})"
            raise UserError(f"{self._where}: not a table {self.separated}: {what}")
        frame = pd.concat([*parts, _part(rows, width)], ignore_index=True)
        frame.index = pd.Index(numbers, dtype="int64")
        return with_text(frame)


def _lines(where: str, stream: Opened) -> Iterator[str]:
    """The lines with their ends, decoded."""
    utf_16 = stream.peek(2).startswith((b"\xff\xfe", b"\xfe\xff"))
    for number, line in enumerate(_utf_16(where, stream) if utf_16 else _utf_8(where, stream), start=1):
        if "\0" in line:
            raise UserError(f"{where}: line {number} has a NUL byte, as no text has; save the file as CSV in UTF-8")
        yield line


def _utf_8(where: str, stream: Opened) -> Iterator[str]:
    number = 0
    while content := stream.readline(_LONGEST_LINE):
        number += 1
        _check_length(where, len(content), number)
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"byte 0x{content[error.start]:02x} in line {number} is not UTF-8; save the file as CSV in UTF-8"
            raise UserError(f"{where}: {what}") from None
        if "\r" in line.removesuffix("\n").removesuffix("\r"):  # old Macs ended lines so
            yield from re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", line)
        else:
            yield line


def _utf_16(where: str, stream: Opened) -> Iterator[str]:
    text = io.TextIOWrapper(stream, "utf-16", newline="")
    number = 0
    try:
        while line := text.readline(_LONGEST_LINE):
            number += 1
            _check_length(where, len(line), number)
            yield line
    except UnicodeError as error:
        what = f"not UTF-16 after line {number}, as it begins: {error}; save the file as CSV in UTF-8"
        raise UserError(f"{where}: {what}") from None
    finally:
        text.detach()


def _check_length(where: str, length: int, number: int) -> None:
    if length >= _LONGEST_LINE:
        raise UserError(f"{where}: line {number} has more than {_LONGEST_LINE:,} characters: not a table")


def _sample(lines: Iterator[str]) -> tuple[list[str], str, int]:
    """The first lines, what separates their cells, and how many lines (0 or 1) stood above.

    A line ``sep=;`` above, which Excel reads and does not show, says what separates.
    """
    sample: list[str] = []
    first = next(lines, "")
    said = _SEPARATOR_LINE.fullmatch(first)
    length, cut = 0, False
    for line in lines if said else itertools.chain([first], lines):
        sample.append(line)
        length += len(line)
        cut = len(sample) == _SAMPLE_LINES or length > _SAMPLE_CHARACTERS
        if cut:
            break
    return sample, said[1] if said else _separator(sample, cut), int(bool(said))


def _separator(sample: Sequence[str], cut: bool) -> str:
    """What divides most lines into as many cells as the first; blanks if they do so for all, and nothing else for half.

    cut: there are more lines, and the last record may be a part of one.
    """
    best, most = ",", (0.0, 0)
    for separator in _SEPARATORS:
        try:
            counts = [len(cells) for cells in _split(sample, separator) if any(cell.strip() for cell in cells)]
        except csv.Error:
            continue
        counts = counts[:-1] if cut and len(counts) > 1 else counts
        if not counts or counts[0] < 2:
            continue
        share = counts.count(counts[0]) / len(counts)
        if separator == " " and (share < 1 or most[0] >= 0.5):
            continue
        if (share, counts[0]) > most:
            best, most = separator, (share, counts[0])
    return best


def _split(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        lines = (" ".join(line.split()) + "\n" for line in lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _records(where: str, lines: Iterable[str], separator: str, above: int) -> Iterator[Record]:
    """Every row, blank ones too; ``above``: how many lines come before."""
    begun: list[str] = []
    record: list[str] = []
    line, last = above + 1, above

    def fed() -> Iterator[str]:
        nonlocal last
        for one in lines:
            last += 1
            begun.append(one)
            yield one

    try:
        for number, cells in enumerate(_split(fed(), separator), start=1):
            yield number, line, last, cells
            line, record, begun = last + 1, begun, []
    except csv.Error:  # the one kind that this dialect has: a cell of more characters than ``csv`` takes
        what = f"has a cell of more than {csv.field_size_limit():,} characters; is a quote in it never closed?"
        raise UserError(f"{where}: line {line} {what}") from None
    if record and sum(1 for _ in _split([*record, "x\n"], separator)) == 1:
        raise UserError(f'{where}: a quote (") that opens in line {line - len(record)} is never closed')


def _part(rows: Sequence[Sequence[str]], width: int) -> pd.DataFrame:
    columns: Iterable[Sequence[str]] = zip(*rows, strict=True) if rows else [()] * width
    return pd.DataFrame(
        {place: pd.Series([cell.strip() for cell in column], dtype=str) for place, column in enumerate(columns)}
    )


def with_text(cells: pd.DataFrame) -> pd.DataFrame:
    """Without the rows whose cells are all empty."""
    filled = np.zeros(len(cells), dtype=bool)
    for place in range(cells.shape[1]):
        filled |= (cells.iloc[:, place] != "").to_numpy(dtype=bool)
    return cells if filled.all() else cells.loc[filled].copy()
