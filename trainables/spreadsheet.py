"""Text in a CSV that a person opens: a spreadsheet must show it, not run it."""

from __future__ import annotations

import re
from typing import TypeVar

RUN = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet takes for a formula."""
NUMBER = re.compile(r"[+-]\d*\.?\d+(?:[eE][+-]?\d+)?")
T = TypeVar("T")


def shown_cell(value: T) -> T | str:
    """``value``, behind an apostrophe where it is text that begins as a formula does (OWASP, CSV Injection).

    A carriage return becomes a blank: Python before 3.13 writes it without quotes, and what follows would be a row of
    its own. A number stays one, whatever its sign, also as text. For tables that are read by people; a run's own files
    keep what they hold.
    """
    if not isinstance(value, str):
        return value
    formula = value.startswith(RUN) and NUMBER.fullmatch(value) is None
    return ("'" if formula else "") + value.replace("\r", " ")
