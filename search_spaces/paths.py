"""Paths that a user gives: one rule for every option of every command."""

from __future__ import annotations

import os
import re
from pathlib import Path

from search_spaces.errors import UserError

LONGEST_SHOWN = 200


def path_of(named: str, given: str) -> Path:
    """The path in the argument ``named``; ``UserError`` if it is no path here, or ``unreachable``."""
    try:
        path = Path(expanded(given))
    except ValueError as error:
        raise UserError(f"{named} {error}") from None
    if problem := unreachable(path):
        raise UserError(f"{named} {problem}")
    return path


def expanded(given: str) -> str:
    """``given`` with a leading ``~`` expanded. ``ValueError`` for what is no path here, such as a URL."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", given):
        raise ValueError(f"{given}: is a URL, and only paths are supported: mount it, or sync it into a folder")
    path = os.path.expanduser(given)
    if path.startswith("~"):
        raise ValueError(f"{given}: no user has this home folder; for a file of this name write ./{given}")
    if "\0" in path:
        raise ValueError(f"{given!r}: a path cannot contain a NUL character")
    return path


def unreachable(path: str | Path) -> str | None:
    """Why the system cannot tell what is at ``path``: a folder may not be entered, a name is too long, links form a
    circle. None if it can tell, also if nothing is there."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{shortened(path)}: {error.strerror}"
    return None


def shortened(path: str | Path) -> str:
    """``path`` for a sentence; of a very long one only the beginning and the end."""
    text = str(path)
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]}…{text[-half:]}"
