"""The measurements of a benchmark and their limits, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """measured: in ``unit``. limit: the maximum (with at_least the minimum) allowed; None = for information only."""

    what: str
    measured: float
    unit: str = ""
    limit: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """ "ok", "over" or "below"; empty without a limit. NaN (no measurement) is never ok."""
        if self.limit is None:
            return ""
        if self.at_least:
            return "ok" if self.measured >= self.limit else "below"
        return "ok" if self.measured <= self.limit else "over"


def render(rows: Sequence[Row]) -> str:
    """The table as text, one line per row."""
    cells = [("what", "measured", "limit", "")]
    for row in rows:
        side = "at least" if row.at_least else "at most"
        limit = "" if row.limit is None else f"{side} {_number(row.limit, row.unit)}"
        cells.append((row.what, _number(row.measured, row.unit), limit, row.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"{what:{widths[0]}}  {measured:>{widths[1]}}  {limit:{widths[2]}}  {verdict}".rstrip()
        for what, measured, limit, verdict in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _number(value: float, unit: str) -> str:
    return f"{value:.{0 if abs(value) >= 100 else 2}f} {unit}".rstrip()
