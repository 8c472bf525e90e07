"""A user's CSV file as a table of texts: every cell as it stands, nothing guessed but the separator."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from search_spaces.errors import UserError, unknown

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Table:
    """cells: one str a cell, without white space around it; the index is the row's number as a spreadsheet shows it
    (the header is row 1). Rows without any text are left out.
    """

    path: Path
    cells: pd.DataFrame

    def __len__(self) -> int:
        return len(self.cells)

    def column(self, name: str) -> list[str]:
        return [str(cell) for cell in self.cells[name]]

    def row_number(self, index: int) -> int:
        return int(self.cells.index[index])

    def missing_columns(self, wanted: dict[str, tuple[str, ...]]) -> list[str]:
        """A sentence for each name in ``wanted`` (option -> columns) that is no column, or that is one twice."""
        names = list(self.cells.columns)
        problems = []
        for option, columns in wanted.items():
            for name in columns:
                if name not in names:
                    problems.append(f"{option} {name}: {unknown(f'column of {self.path.name}', name, names)}")
                elif names.count(name) > 1:
                    problems.append(f"{option} {name}: {self.path.name} has {names.count(name)} columns of that name")
        return problems


def read_table(path: Path) -> Table:
    """Read a .csv or .tsv file in UTF-8 (with or without its mark), separated by comma, semicolon or tab.

    Cells stay texts ("NA" and "007" too). Raises ``UserError``: not a table by its name, not UTF-8 (with the line),
    empty, no rows, or rows with more cells than the header (with the line).
    """
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UserError(f"--data {path}: neither a folder nor a .csv manifest (unpack an archive first)")
    text = _text(path)
    above = next((number for number, line in enumerate(text.splitlines()) if line.strip()), None)
    if above is None:
        raise UserError(f"--data {path}: the file is empty")
    lines = text.splitlines(keepends=True)[above:]  # pandas would count no columns in a blank first line
    header = lines[0]
    separator = max(SEPARATORS, key=header.count)
    try:
        cells = pd.read_csv(
            io.StringIO("".join(lines)),
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
    return Table(path, _with_header(cells.fillna(""), above, path))


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
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise UserError(
            f"--data {path}: byte 0x{byte:02x} in line {line} is not UTF-8; save the file as CSV in UTF-8"
        ) from None


def _with_header(cells: pd.DataFrame, above: int, path: Path) -> pd.DataFrame:
    cells = cells.apply(lambda column: column.str.strip())
    cells.index = pd.RangeIndex(above + 1, above + len(cells) + 1)
    cells = cells[(cells != "").any(axis=1)]
    names = [str(name) for name in cells.iloc[0]]
    rows = cells.iloc[1:].copy()
    rows.columns = pd.Index(names)
    if not len(rows):
        raise UserError(f"--data {path}: a header and no rows")
    return rows
