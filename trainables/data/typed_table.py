"""A table whose columns have names and types, Parquet or JSON, to frames of texts, a part at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from search_spaces.errors import UserError
from trainables.data.delimited import CHUNK_CELLS
from trainables.data.file_form import MOST_BYTES, Opened

MOST_COLUMNS = 20_000


def parquet_parts(where: str, path: Path, stream: Opened) -> Iterator[pd.DataFrame]:
    with path.open("rb") as file:
        packed = file.read(4) != b"PAR1"
    try:
        table = pq.ParquetFile(pa.BufferReader(stream.read()) if packed else path)
        names = table.schema_arrow.names
        again = next((name for name in names if names.count(name) > 1), None)
        if again is not None:
            raise UserError(f"{where}: has {names.count(again)} columns called {again!r}; rename them")
        for field in table.schema_arrow:
            if pa.types.is_struct(field.type) and any(pa.types.is_binary(child.type) for child in field.type):
                raise UserError(_no_texts(where, field.name))
        size = 0
        for batch in table.iter_batches(max(1, CHUNK_CELLS // max(1, len(names)))):
            size += batch.nbytes
            if size > MOST_BYTES:
                raise UserError(f"{where}: a table of more than {MOST_BYTES / 1024**3:g} GB; remove columns from it")
            yield _texts(where, {name: _values(batch[place]) for place, name in enumerate(names)})
    except (pa.ArrowException, OSError, OverflowError, MemoryError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{where}: a Parquet file that cannot be read: {reason}; get it again") from None


def _values(column: pa.Array) -> list[Any]:
    """Python's values; single precision as itself: 0.1, not 0.10000000149."""
    single = pa.types.is_float32(column.type) or pa.types.is_float16(column.type)
    return list(column.to_numpy(zero_copy_only=False) if single else column.to_pylist())


def json_parts(where: str, stream: Opened) -> Iterator[pd.DataFrame]:
    """The objects of JSON Lines, or of one array."""
    text = _json_text(where, stream.read())
    array = text.lstrip().startswith("[")
    decode, between = json.JSONDecoder().raw_decode, re.compile(r"\s*,?\s*" if array else r"\s*")
    columns: dict[str, list[Any]] = {}
    rows = count = 0
    place = len(text) - len(text.lstrip(" \t\r\n[" if array else None))
    row: dict[str, Any] = {}
    while place < len(text) and not (array and text[place] == "]"):
        try:
            row, place = decode(text, place)
            if not isinstance(row, dict):
                raise ValueError(f"{str(row)[:40]} is no object")
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None) or text.count("\n", 0, place) + 1
            reason = getattr(error, "msg", None) or str(error)
            raise UserError(f"{where}: line {line} is not JSON Lines, an object a row: {reason}") from None
        for name, value in row.items():
            columns.setdefault(name, [None] * rows).append(value)
        rows, count = rows + 1, count + 1
        for values in columns.values() if len(row) < len(columns) else ():
            values += [None] * (rows - len(values))
        if rows * len(columns) >= CHUNK_CELLS:
            yield _texts(where, columns)
            columns, rows = {}, 0
        place = _after(between, text, place)
    if array and text[place:].strip() != "]":
        raise UserError(f"{where}: the JSON array does not end where the file ends: it is cut, or more follows")
    nested = [name for name, value in row.items() if isinstance(value, dict) or "{" in str(value)[:2]]
    if count == 1 and nested:
        raise UserError(f"{where}: one JSON object ({', '.join(map(repr, row))}), not one a row; save it as CSV")
    if columns:
        yield _texts(where, columns)


def _json_text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} in line {line} is not UTF-8; save the file in UTF-8"
        raise UserError(f"{where}: {what}") from None


def _after(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


def _texts(where: str, columns: dict[str, list[Any]]) -> pd.DataFrame:
    if len(columns) > MOST_COLUMNS:
        raise UserError(f"{where}: {len(columns):,} columns, more than {MOST_COLUMNS:,}: not a table")
    found = {}
    for name, values in columns.items():
        try:
            found[name.strip()] = pd.Series([_text(value) for value in values], dtype=str)
        except (ValueError, RecursionError):
            raise UserError(_no_texts(where, name)) from None
    return pd.DataFrame(found)


def _text(value: object) -> str:
    """As a CSV file has it; a list as ``['a', 'b']``. Raises ``ValueError`` for bytes that are no text."""
    if isinstance(value, bytes):
        value = value.decode()
    text = value if isinstance(value, str) else "" if value is None or value != value else str(value)
    if "\0" in text:
        raise ValueError("a NUL character")
    return text.strip()


def _no_texts(where: str, column: str) -> str:
    what = f"column {column!r} holds what is no text, such as the images themselves"
    return f"{where}: {what}; save each image as a file, and its path in the column"
