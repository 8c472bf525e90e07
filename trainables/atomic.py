"""Files that are whole or absent: written beside, then moved into place."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError

FORMAT = 1
"""Of sweep.json, evaluation.json, best.json and best.pt. Added keys leave it as it is; a changed meaning does not."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then move it into place: a reader sees the old or the new whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        beside.chmod(0o644)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8 as it is, atomically."""
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8", newline=""))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically; NaN is refused, since it is no JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_format(content: Mapping[str, Any], place: Path) -> None:
    """Raise ``UserError`` unless ``content``, read from ``place``, is of the format that this version writes."""
    found = content.get("format")
    if found != FORMAT:
        written = "no format" if found is None else f"format {found}"
        way_out = "use the version of the program that wrote it, or make it anew"
        raise UserError(f"{place} has {written}, and this version reads format {FORMAT} alone: {way_out}")
