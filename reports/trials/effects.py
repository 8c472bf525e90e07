"""What repeats of --compare show: cells that differ in one factor, on the same images, resample by resample."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pandas as pd

from reports.page import wording
from reports.scores.finals import ConfigurationResult, Leaderboard, lower_is_better
from reports.scores.paired import compare, holm

COLUMNS = ["factor", "within", "first", "second", "difference", "low", "high", "p", "p_holm", "verdict"]


def effects(standing: Leaderboard) -> pd.DataFrame:
    """One row a pair of cells whose values differ in one factor alone.

    Columns: factor, within (the values that both share, in words), first, second (their values of the factor),
    difference (the first's score less the second's), low, high, p, p_holm (corrected over all rows), verdict: 1 the
    first is better, -1 worse, 0 no difference shown, NaN not tested. Of a factor of numbers each value is held against
    the lowest, of others each against each. The best trial of a cell stands for it: other hyperparameters than the
    factor differ, too, as the search chose them.
    """
    rows: list[dict[str, Any]] = []
    for place, factor in enumerate(standing.cell_names):
        blocks: dict[tuple[Any, ...], dict[Any, ConfigurationResult]] = {}
        for values, one in standing.cells.items():
            rest = (*values[:place], *values[place + 1 :])
            blocks.setdefault(rest, {})[values[place]] = one
        others = (*standing.cell_names[:place], *standing.cell_names[place + 1 :])
        for rest, levels in blocks.items():
            words = ", ".join(wording.choice(name, value) for name, value in zip(others, rest, strict=True))
            rows += [_row(standing, factor, words, first, second, levels) for first, second in _pairs(list(levels))]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    tested = frame["p"].notna()
    frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].tolist())
    sign = -1 if lower_is_better(standing.metric) else 1
    for row in frame.index[tested]:
        shown = frame.loc[row, "p_holm"] <= 0.05
        frame.loc[row, "verdict"] = float(sign * (1 if frame.loc[row, "difference"] > 0 else -1)) if shown else 0.0
    return frame


def _pairs(levels: list[Any]) -> list[tuple[Any, Any]]:
    if all(isinstance(level, int | float) for level in levels):
        return [(level, min(levels)) for level in sorted(levels)[1:]]
    return list(itertools.combinations(levels, 2))


def _row(
    standing: Leaderboard, factor: str, within: str, first: Any, second: Any, levels: dict[Any, ConfigurationResult]
) -> dict[str, Any]:
    one, other = levels[first].scores, levels[second].scores
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan) | {
        "factor": factor,
        "within": within,
        "first": wording.choice(factor, first),
        "second": wording.choice(factor, second),
    }
    if one is not None and other is not None and one.resamples is other.resamples:
        found = compare(one, {"other": other}, standing.metric)["other"]
        row |= {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}
    return row
