"""Text in a CSV that a person opens: a spreadsheet must show it, not run it."""

from __future__ import annotations

from typing import TypeVar

RUN = ("=", "+", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""
T = TypeVar("T")


def shown_cell(value: T) -> T | str:
    """``value``, behind an apostrophe where it is text that begins as a formula does (OWASP, CSV Injection).

    A number is no text, whatever its sign. For tables that are read by people; a run's own files keep what they hold.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(RUN) else value
