"""Text in CSV files that people open: a spreadsheet must show it, not run it as a formula."""

from __future__ import annotations

import re
from typing import TypeVar

RUN = ("=", "+", "-", "@", "\t", "\r")
"""The first characters of a cell that a spreadsheet takes for a formula."""
NUMBER = re.compile(r"[+-]\d*\.?\d+(?:[eE][+-]?\d+)?")
T = TypeVar("T")


def shown_cell(value: T) -> T | str:
    """``value``, after an apostrophe if it is text that begins like a formula (OWASP, CSV Injection).

    A carriage return becomes a space: Python before 3.13 writes it without quotes, and the rest would be a row of its
    own. Numbers, also as text and with a sign, are not changed. For tables that people read; a run's own files keep
    their values.
    """
    if not isinstance(value, str):
        return value
    formula = value.startswith(RUN) and NUMBER.fullmatch(value) is None
    return ("'" if formula else "") + value.replace("\r", " ")
