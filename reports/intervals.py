"""Scores with their intervals as cells of a table, and what has to be said below it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from reports import formats
from reports.bootstrap import Interval, Resamples, Scores, interval

MARK = "†"
MOST_WARNINGS = 2


class Warned(Protocol):
    """What may come with a warning: an interval, a comparison."""

    @property
    def warning(self) -> str: ...


def cells(scores: Scores | None, names: Mapping[str, str]) -> dict[str, Any]:
    """For each key of ``names``, the score of that name: key, key_low, key_high (NaN: undefined) and key_shown.

    NaN and a dash where there are no scores."""
    row: dict[str, Any] = {}
    for key, name in names.items():
        row |= {key: math.nan, f"{key}_low": math.nan, f"{key}_high": math.nan, f"{key}_shown": formats.ABSENT}
        if scores is not None:
            found = interval(scores, name)
            row |= {f"{key}_low": found.low, f"{key}_high": found.high}
            if not is_undefined(scores, name):
                row |= {key: found.estimate, f"{key}_shown": as_text(found)}
    return row


def as_text(found: Interval) -> str:
    """0.893 (0.812–0.941), with a mark where the interval comes with a warning."""
    if math.isnan(found.estimate):
        return formats.ABSENT
    text = formats.score(found.estimate)
    if not math.isnan(found.low):
        dash = " to " if found.low < 0 else "–"
        text += f" ({formats.score(found.low)}{dash}{formats.score(found.high)})"
    return text + (f" {MARK}" if found.warning else "")


def plain(found: Interval) -> str:
    """As ``as_text`` in a sentence, without the mark of a warning."""
    return as_text(found).removesuffix(f" {MARK}")


def in_two_lines(scores: Scores, name: str) -> str:
    """The score, and its interval below it where it has one: for a figure."""
    return plain(interval(scores, name)).replace(" (", "\n(")


def is_undefined(scores: Scores, name: str) -> bool:
    """Whether the score is 0/0, or an AUROC or the like of a class that no image, or every image, has."""
    return math.isnan(scores.estimate[name]) or scores.proportion_of.get(name) == 0


def below(asked: Iterable[tuple[Scores, str]], *, method: bool = True) -> str:
    """How the intervals of these scores were made (once a chapter: ``method``), and what their marks mean."""
    pairs = list(asked)
    found = [interval(scores, name) for scores, name in pairs if not is_undefined(scores, name)]
    sentences = []
    if method and any(not math.isnan(one.low) for one in found):
        sentences.append(_method({one.method for one in found}, [scores.resamples for scores, _ in pairs]))
    warnings = _short_warnings([one.warning for one in found if one.warning])
    if warnings:
        sentences.append(f"{MARK} {'; '.join(warnings)}.")
    if len(found) < len(pairs):
        sentences.append("A dash: undefined, since no image counts towards it.")
    return " ".join(sentences)


def _method(methods: set[str], resamples: list[Resamples]) -> str:
    named = any(one.named for one in resamples)
    parts = []
    if "Wilson" in methods:
        why = "no patients are known, so each image counts alone"
        if named:
            why = f"{'' if all(one.one_image_each for one in resamples) else 'where '}every patient has one image"
        parts.append(f"Wilson's for proportions ({why})")
    if methods & {"bootstrap", "Wilson over groups"}:
        counts = {one.groups for one in resamples}
        unit = "patients" if named else "images (no patients are known)"
        over = f"{counts.pop():,} {unit}" if len(counts) == 1 else unit
        redrawn = max(one.redrawn for one in resamples)
        again = f" (up to {redrawn:,} redrawn for lack of a class)" if redrawn else ""
        parts.append(f"bootstrap over {over}, {max(one.replicates for one in resamples):,} resamples{again}")
    if "Wilson over groups" in methods:
        parts.append("Wilson's over patients where a proportion is 0 or 1")
    return f"In brackets 95\N{NO-BREAK SPACE}% intervals: {formats.listing(parts)}."


def _short_warnings(warnings: list[str]) -> list[str]:
    """Each once, without its count, which differs from row to row; without the class where it would be one of many."""
    found = list(dict.fromkeys(re.sub(r" \(\d+\)", "", one) for one in warnings))
    if len(found) > MOST_WARNINGS:
        found = list(
            dict.fromkeys(re.sub(r" (with|without) .*: interval", r" \1 the class: interval", one) for one in found)
        )
    return found


def warned(found: Iterable[Warned]) -> str:
    """What the marks of paired differences mean; "" where there are none."""
    warnings = sorted({one.warning for one in found if one.warning})
    return f"{MARK} {'; '.join(warnings)}." if warnings else ""
