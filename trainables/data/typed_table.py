"""Read a table whose columns have names and types (Parquet, JSON) into frames of strings, a part at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from search_spaces.errors import UserError, some
from trainables.data.delimited import CHUNK_CELLS
from trainables.data.file_form import Opened
from trainables.data.files import has_image_suffix

MOST_COLUMNS = 20_000
_MOST_CHARACTERS = 500_000_000  # of one part


def parquet_columns(path: Path, stream: Opened) -> list[str]:
    """The column names; no row is read."""
    with _readable(path, stream) as source:
        return [name.strip() for name in pq.read_schema(source()).names]


def parquet_parts(path: Path, stream: Opened) -> Iterator[pd.DataFrame]:
    with _readable(path, stream) as source:
        schema = pq.read_schema(source())
        again = next((name for name in schema.names if schema.names.count(name) > 1), None)
        if again is not None:
            raise UserError(f"{path}: has {schema.names.count(again)} columns called {again!r}; rename them")
        for field in schema:
            if pa.types.is_struct(field.type) and any(pa.types.is_binary(child.type) for child in field.type):
                raise UserError(_no_texts(str(path), field.name))
        # As dictionaries, repeated strings take no more memory than in the file.
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        table = pq.ParquetFile(source(), read_dictionary=texts)
        for batch in table.iter_batches(max(1, CHUNK_CELLS // max(1, len(schema.names)))):
            batch.validate(full=True)
            yield _texts(str(path), dict(zip(schema.names, batch.columns, strict=True)))


@contextmanager
def _readable(path: Path, stream: Opened) -> Iterator[Callable[[], Path | pa.BufferReader]]:
    """Yield a function that returns what pyarrow reads; its errors, also later ones, become one ``UserError``."""
    with path.open("rb") as file:
        packed = file.read(4) != b"PAR1"
    try:
        content = pa.py_buffer(stream.read()) if packed else None
        yield lambda: path if content is None else pa.BufferReader(content)
    except (pa.ArrowException, OSError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path}: a Parquet file that cannot be read: {reason}; download it again") from None


def _values(column: list[Any] | pa.Array) -> list[Any]:
    """The column as Python values; single precision keeps its digits: 0.1, not 0.10000000149."""
    if isinstance(column, list):
        return column
    if pa.types.is_dictionary(column.type):
        known = [*_values(column.dictionary), None]
        return [known[-1 if place is None else place] for place in column.indices.to_pylist()]
    single = pa.types.is_float32(column.type) or pa.types.is_float16(column.type)
    return list(column.to_numpy(zero_copy_only=False) if single else column.to_pylist())


def json_parts(where: str, stream: Opened) -> Iterator[pd.DataFrame]:
    """The rows, one per object, of JSON Lines or of one JSON array."""
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
                raise ValueError(f"{str(row)[:40]} is not an object")
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None) or text.count("\n", 0, place) + 1
            reason = getattr(error, "msg", None) or str(error)
            raise UserError(f"{where}: line {line} is not JSON Lines (one object per row): {reason}") from None
        for name, value in row.items():
            columns.setdefault(name, [None] * rows).append(value)
        rows, count = rows + 1, count + 1
        for values in columns.values() if len(row) < len(columns) else ():
            values += [None] * (rows - len(values))
        if rows * len(columns) >= CHUNK_CELLS:
            yield _texts(where, columns)
            columns, rows = {}, 0
        after = between.match(text, place)
        assert after is not None  # The pattern also matches an empty string.
        place = after.end()
    if array and text[place:].strip() != "]":
        raise UserError(f"{where}: the JSON array does not end at the end of the file: it is cut, or more follows")
    nested = any(isinstance(one, dict) or "{" in str(one)[:2] or has_image_suffix(name) for name, one in row.items())
    if count == 1 and nested:
        raise UserError(f"{where}: one JSON object ({some(map(repr, row))}), not one per row; save it as CSV")
    if columns:
        yield _texts(where, columns)


def _json_text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} in line {line} is not UTF-8; save the file in UTF-8"
        raise UserError(f"{where}: {what}") from None


def _texts(where: str, columns: Mapping[str, list[Any] | pa.Array]) -> pd.DataFrame:
    if len(columns) > MOST_COLUMNS:
        raise UserError(f"{where}: {len(columns):,} columns, more than {MOST_COLUMNS:,}: not a table")
    found, length = {}, 0
    for name, values in columns.items():
        try:
            title, *texts = map(_text, [name, *_values(values)])
            if title in found:
                raise UserError(f"{where}: has two columns called {title!r} except for white space; rename one")
            length += sum(map(len, texts))
            if length > _MOST_CHARACTERS:
                what = f"more than {_MOST_CHARACTERS:,} characters in {len(texts):,} rows; remove columns from it"
                raise UserError(f"{where}: {what}")
            found[title] = pd.Series(texts, dtype=str)
        except UserError:
            raise
        except (ValueError, RecursionError):
            raise UserError(_no_texts(where, name)) from None
    return pd.DataFrame(found)


def _text(value: object) -> str:
    """A value as in a CSV file; a list as ``['a', 'b']``. Raises ``ValueError`` if it is not text."""
    if isinstance(value, bytes):
        value = value.decode()
    text = value if isinstance(value, str) else "" if value is None or value != value else str(value)
    if "\0" in text:
        raise ValueError("a NUL character")
    text.encode()  # Raises for a lone surrogate, "\ud800" in JSON: pandas before 3 accepts it, but no file does.
    return text.strip()


def _no_texts(where: str, column: str) -> str:
    what = f"column {column!r} contains data that is not text, such as the images themselves"
    return f"{where}: {what}; save each image as a file, and its path in the column"
