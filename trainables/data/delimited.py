"""Read a table of delimited text, such as CSV, into a frame of strings."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from search_spaces.errors import UserError
from trainables.data.file_form import Opened

_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "blanks"}
CHUNK_CELLS = 200_000
_LONGEST_LINE = 16 * 1024**2
_SAMPLE_LINES = 200
_SAMPLE_CHARACTERS = 1_000_000
_MOST_SHOWN = 10
_END = "\0"  # added as a line after the last; no text contains it
_SEPARATOR_LINE = re.compile(r"\"?sep=([^\w\s\"]|\t| )\"?\s*", re.IGNORECASE)


class DelimitedText:
    """The rows of a delimited text.

    separator: between cells. sample: the first lines. first: the cells of the first row that is not blank.
    """

    def __init__(self, where: str, stream: Opened) -> None:
        self._where = where
        self._lines = _lines(where, stream)
        self.sample, self.separator, self._above = _sample(self._lines)
        self._reader = csv.reader(
            itertools.chain(_as_fed(self.lines(), self.separator), [_END]),
            delimiter=self.separator,
            skipinitialspace=True,
        )
        self._row = 0

    @property
    def separated(self) -> str:
        """The separator in words, such as "separated by commas"."""
        return f"separated by {_SEPARATORS.get(self.separator, repr(self.separator))}"

    def lines(self) -> Iterator[str]:
        """All lines but a ``sep=`` line; they can be read only once."""
        return itertools.chain(self.sample, self._lines)

    @functools.cached_property
    def first(self) -> list[str]:
        for _, cells in self._rows():
            if any(cell.strip() for cell in cells):
                return cells
        raise UserError(f"{self._where}: the file is empty")

    @property
    def first_line(self) -> int:
        """The number of the line in which ``first`` ends, as long as no other row was read."""
        return self._above + self._reader.line_num

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The number of lines before each row (without a ``sep=`` line), and its cells; blank rows are included."""
        line = self._reader.line_num
        try:
            for cells in self._reader:
                if cells and cells[-1].endswith(_END):
                    if cells == [_END]:
                        return
                    place = f"line {self._above + line + 1}"
                    raise UserError(f'{self._where}: a quote (") that opens in {place} is never closed')
                self._row += 1
                yield line, cells
                line = self._reader.line_num
        except csv.Error:  # this dialect has only one: a cell of more characters than ``csv`` allows
            what = f"has a cell of more than {csv.field_size_limit():,} characters; is a quote in it never closed?"
            raise UserError(f"{self._where}: line {self._above + line + 1} {what}") from None

    def frame(self, names: Sequence[str], with_first: bool) -> pd.DataFrame:
        """The cells of all rows that are not blank; columns are numbered, as a name may occur twice.

        with_first: the first row is data. A row may lack cells of unnamed columns and may have extra empty cells. Any
        other row with more or fewer cells than ``names`` raises ``UserError``.
        """
        width = len(names)
        chunk = max(1, CHUNK_CELLS // width)
        parts: list[pd.DataFrame] = []
        rows = [self.first] if with_first else []
        numbers = [self._row] if with_first else []
        ragged: list[str] = []
        count = 0
        for line, cells in self._rows():
            if len(cells) != width:
                if not any(cell.strip() for cell in cells):
                    continue
                if any(cell.strip() for cell in cells[width:]) or any(names[len(cells) :]):
                    count += 1
                    if count <= _MOST_SHOWN:
                        begin, end = self._above + line + 1, self._above + self._reader.line_num
                        quoted = f" (a quote that opens there closes in line {end})" if end > begin else ""
                        ragged.append(f"line {begin} has {len(cells)}{quoted}")
                    continue
                cells = (cells + [""] * width)[:width]
            rows.append(cells)
            numbers.append(self._row)
            if len(rows) >= chunk:
                parts.append(_part(rows, width))
                rows = []
        if ragged:
            shown = ", ".join(ragged) + (f" and {count - len(ragged)} more" if count > len(ragged) else "")
            way_out = "quote cells that contain the separator" if width > 1 else "remove what is above the header"
            what = f"{shown} cells, the first row {width}; give each row as many ({way_out})"
            raise UserError(f"{self._where}: not a table {self.separated}: {what}")
        frame = pd.concat([*parts, _part(rows, width)], ignore_index=True)
        frame.index = pd.Index(numbers, dtype="int64")
        return with_text(frame)


def _lines(where: str, stream: Opened) -> Iterator[str]:
    """The lines with their line ends (also CR, as on old Macs), decoded as they are read."""
    utf_16 = stream.peek(2).startswith((b"\xff\xfe", b"\xfe\xff"))
    text = io.TextIOWrapper(stream, "utf-16" if utf_16 else "utf-8-sig", newline="")
    number = 0
    try:
        while line := text.readline(_LONGEST_LINE):
            number += 1
            if len(line) >= _LONGEST_LINE:
                raise UserError(f"{where}: line {number} has more than {_LONGEST_LINE:,} characters: not a table")
            if "\0" in line:
                raise UserError(f"{where}: line {number} has a NUL byte, as no text has; save the file as CSV in UTF-8")
            yield line
    except UnicodeError as error:
        what = f"not UTF-16 after line {number}, as it begins: {error}"
        if isinstance(error, UnicodeDecodeError) and not utf_16:
            above = error.object[: error.start]  # of the chunk being decoded, which may begin within a line
            number += 1 + (above.count(b"\n") or above.count(b"\r"))
            what = f"byte 0x{error.object[error.start]:02x} in line {number} is not UTF-8"
        raise UserError(f"{where}: {what}; save the file as CSV in UTF-8") from None


def _sample(lines: Iterator[str]) -> tuple[list[str], str, int]:
    """The first lines, their separator, and how many lines (0 or 1) precede them.

    A preceding line ``sep=;``, which Excel reads and does not show, gives the separator.
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
    """The separator by which most lines have as many cells as the first.

    Blanks only if all lines do, and fewer than half by any other. cut: more lines follow; the last record may be cut.
    """
    best, most = ",", (0.0, 0)
    for separator in _SEPARATORS:
        try:
            rows = csv.reader(_as_fed(sample, separator), delimiter=separator, skipinitialspace=True)
            counts = [len(cells) for cells in rows if any(cell.strip() for cell in cells)]
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


def _as_fed(lines: Iterable[str], separator: str) -> Iterable[str]:
    """The lines; if blanks separate, each run of white space becomes one blank."""
    return (" ".join(line.split()) + "\n" for line in lines) if separator == " " else lines


def _part(rows: Sequence[Sequence[str]], width: int) -> pd.DataFrame:
    columns: Iterable[Sequence[str]] = zip(*rows, strict=True) if rows else [()] * width
    return pd.DataFrame(
        {place: pd.Series(list(map(str.strip, column)), dtype=str) for place, column in enumerate(columns)}
    )


def with_text(cells: pd.DataFrame) -> pd.DataFrame:
    """``cells`` without the rows whose cells are all empty."""
    filled = (cells != "").any(axis=1)
    return cells if filled.all() else cells[filled].copy()
