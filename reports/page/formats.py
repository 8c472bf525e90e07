"""Numbers as a reader wants them: sensible digits, and a dash where there is no number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

ABSENT = "–"


def show(kind: str, value: Any) -> str:
    """``value`` as text by the rule named ``kind``; ``ABSENT`` for None, NaN and infinities."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return ABSENT
    return FORMATS[kind](value)


def is_number(kind: str) -> bool:
    """Whether values of this kind stand flush right."""
    return kind != "text"


def score(value: float) -> str:
    """Three decimals: 0.893."""
    return f"{float(value):.3f}"


def integer(value: float) -> str:
    """1,123: thousands separated."""
    return f"{round(float(value)):,}"


def si(value: float) -> str:
    """Three significant digits with k, M, G: 11.2 M."""
    number = float(value)
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,950 must not become "1000 k": the rounding to three digits decides the unit.
        if abs(number) >= factor * 0.9995:
            return f"{_three_digits(number / factor)} {unit}"
    return f"{number:.0f}" if number.is_integer() else _three_digits(number)


def duration(seconds: float) -> str:
    """3.2 s, 48 s, 3 min 20 s, 1 h 05 min, 2 d 3 h."""
    value = float(seconds)
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(value / 3600)
    return f"{hours // 24} d {hours % 24} h"


def percent(share: float) -> str:
    """A share in [0, 1] as 43 %."""
    return f"{100 * float(share):.0f} %"


def general(value: Any) -> str:
    """A hyperparameter: at most three significant digits for fractions, whole numbers and text as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.3g}"


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "score": score,
    "integer": integer,
    "si": si,
    "duration": duration,
    "percent": percent,
    "general": general,
}


def _three_digits(value: float) -> str:
    digits = 2 - max(0, math.floor(math.log10(abs(value) * 1.0005))) if value else 0
    return f"{value:.{max(0, digits)}f}"
