"""Section 8, second part: what a score costs in parameters, time to train and time to answer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, Picture, Pictures, Section, Table, Text
from reports.page.figure_style import BLUE, GRAY, INK, VERMILLION, Drawing, draw
from sweep.records import Finalist, Repeat

_CROWDED = 200
_MOST_LABELS = 8


@dataclass(frozen=True)
class Cost:
    """A price of a trial. column: of the trials' table; words: on the axis; kind: its format; of: that of a repeat."""

    column: str
    words: str
    kind: str
    of: Callable[[Repeat], float]


COSTS = (
    Cost("trainable_params", "trainable parameters", "si", lambda one: _number(one.best.get("trainable_params"))),
    Cost("total_params", "parameters in all", "si", lambda one: _number(one.best.get("total_params"))),
    Cost(
        "seconds", "time to train", "duration", lambda one: sum(row.get("epoch_seconds") or 0.0 for row in one.epochs)
    ),
    Cost("inference_ms_per_image", "ms an image to answer", "general", lambda one: _milliseconds(one)),
)


def section(evidence: ReportData) -> Section:
    title = "What a score costs"
    ranked = evidence.ranked
    if len(ranked) < 3:
        return Section("pareto", title, (Text("Fewer than three trials have a score: there is nothing to weigh."),))
    costs = [cost for cost in COSTS if cost.column in ranked and _differ(_numbers(ranked, cost.column))]
    if not costs:
        return Section("pareto", title, (Text("The trials do not differ in what they cost, as far as is recorded."),))
    facts = fronts(ranked, [cost.column for cost in costs], evidence.mode)
    metric = wording.metric_name(evidence.metric)
    table = Table(
        name="pareto",
        caption=f"The trials on at least one front, the best {metric} first. {evidence.basis('val')}",
        frame=facts,
        columns=(
            Column("number", "trial", "integer"),
            Column("backbone", "backbone"),
            Column("unfrozen", "trained"),
            Column("score", metric.replace("validation", "val"), "score"),
            *(Column(cost.column, cost.words, cost.kind) for cost in costs),
            Column("fronts", "on the front of"),
        ),
    )
    blocks: list[Block] = [
        Text(_in_words(evidence, costs)),
        Pictures(tuple(_picture(evidence, c) for c in costs)),
        table,
    ]
    return Section("pareto", title, tuple(blocks))


def front(costs: NDArray[np.float64], scores: NDArray[np.float64], mode: str) -> list[int]:
    """The places of those that nobody beats: whoever costs less or the same scores worse; the cheapest first.

    costs, scores: [n]; what has NaN is passed over. Of equals in both the first stands for all.
    """
    sign = 1.0 if mode == "max" else -1.0
    able = np.flatnonzero(np.isfinite(costs) & np.isfinite(scores))
    order = sorted(able, key=lambda place: (costs[place], -sign * scores[place], place))
    found: list[int] = []
    for place in order:
        if not found or sign * scores[place] > sign * scores[found[-1]]:
            found.append(int(place))
    return found


def fronts(ranked: pd.DataFrame, columns: list[str], mode: str) -> pd.DataFrame:
    """The trials of ``ranked`` on the front of any of ``columns``, in its order; fronts: which, in words."""
    scores = ranked["score"].to_numpy(dtype=np.float64)
    words = {cost.column: cost.words for cost in COSTS}
    on: dict[int, list[str]] = {}
    for column in columns:
        for place in front(_numbers(ranked, column), scores, mode):
            on.setdefault(place, []).append(words[column])
    kept = ranked.iloc[sorted(on)]
    named = kept[["number", "backbone", "unfrozen", "score", *columns, "trial_id"]]
    return named.assign(fronts=["; ".join(on[place]) for place in sorted(on)]).reset_index(drop=True)


def _in_words(evidence: ReportData, costs: list[Cost]) -> str:
    text = (
        "A trial is on a front if every trial that costs as little or less scores worse. Scores are of one run each on "
        f"validation, optimistic as all in the search ({wording.metric_name(evidence.metric)}). "
    )
    spread = _spread_of_repeats(evidence)
    if spread is not None:
        text += (
            f"Repeats of one configuration differ by a standard deviation of {formats.score(spread)}: steps smaller "
            "than that are noise. Diamonds: finalists, mean over repeats, with one standard error. "
        )
    columns = {cost.column for cost in costs}
    if "seconds" in columns:
        text += "Time to train counts a trial's epochs on its own device, with other trials beside it. "
    if "inference_ms_per_image" in columns:
        text += (
            "Time to answer was measured while validating, in the trial's batches on its device: compare it within "
            "this run only."
        )
    else:
        text += "Time to answer was not recorded, or does not differ."
    return text.strip()


def _spread_of_repeats(evidence: ReportData) -> float | None:
    """The standard deviation within a configuration, pooled over those that ran more than once."""
    finals = evidence.run.finals
    several = [one.scores for one in finals.finalists if len(one.scores) > 1] if finals else []
    if not several:
        return None
    freedom = sum(len(scores) - 1 for scores in several)
    return math.sqrt(sum(statistics.variance(scores) * (len(scores) - 1) for scores in several) / freedom)


def _picture(evidence: ReportData, cost: Cost) -> Picture:
    metric = wording.metric_name(evidence.metric)
    ranked = evidence.ranked
    costs, scores = _numbers(ranked, cost.column), ranked["score"].to_numpy(dtype=np.float64)
    on = front(costs, scores, evidence.mode)
    numbers = ranked["number"].to_numpy(dtype=np.float64)
    steps = ", ".join(
        f"trial {numbers[place]:.0f} ({formats.show(cost.kind, float(costs[place]))}, {scores[place]:.3f})"
        for place in on
    )
    return Picture(
        name=f"pareto_{cost.column}",
        caption=f"{metric[:1].upper()}{metric[1:]} against {cost.words}. Blue: the front, with trial numbers.",
        alt=f"{metric} against {cost.words}; on the front, the cheapest first: {steps}.",
        drawing=_drawn(costs, scores, numbers, on, _finalists(evidence, cost), cost, metric),
    )


def _finalists(evidence: ReportData, cost: Cost) -> list[tuple[float, float, float]]:
    """Cost, score and its standard error (0 if unknown) of each finalist, means over its repeats."""
    finals = evidence.run.finals
    found = [(_mean_cost(one, cost), one.mean, one.standard_error) for one in finals.finalists] if finals else []
    return [
        (price, score, 0.0 if math.isnan(error) else error)
        for price, score, error in found
        if math.isfinite(price) and math.isfinite(score)
    ]


def _mean_cost(finalist: Finalist, cost: Cost) -> float:
    known = [price for one in finalist.ended if math.isfinite(price := cost.of(one))]
    return statistics.fmean(known) if known else math.nan


def _drawn(
    costs: NDArray[np.float64],
    scores: NDArray[np.float64],
    numbers: NDArray[np.float64],
    on: list[int],
    finalists: list[tuple[float, float, float]],
    cost: Cost,
    metric: str,
) -> Drawing:
    unit, divisor = _unit(cost, costs)
    known = costs[np.isfinite(costs) & (costs > 0)]
    logarithmic = bool(len(known) == np.isfinite(costs).sum() and known.max() >= 8 * known.min())

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        crowded = len(costs) > _CROWDED
        prices = costs / divisor
        axes.plot(prices, scores, ".", color=GRAY, alpha=0.45, markersize=5, rasterized=crowded, label="trial")
        axes.step(prices[on], scores[on], where="post", color=BLUE, linewidth=1.4)
        axes.plot(prices[on], scores[on], "o", color=BLUE, markersize=5.5, label="on the front")
        if len(on) <= _MOST_LABELS:
            for place in on:
                near: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "color": INK}
                axes.annotate(f"{numbers[place]:.0f}", (prices[place], scores[place]), (4, -10), **near)
        if finalists:
            price, score, error = np.array(finalists).T
            style: dict[str, Any] = {"color": VERMILLION, "markersize": 5, "elinewidth": 1.2, "capsize": 2}
            axes.errorbar(price / divisor, score, yerr=error, fmt="D", label="finalist, repeated", **style)
        if logarithmic:
            axes.set_xscale("log")
            narrow = known.max() < 40 * known.min()
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=8))
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        axes.set_xlabel(cost.words + unit)
        axes.set_ylabel(metric.replace("validation", "val"))
        axes.margins(x=0.08, y=0.08)
        figure.legend(loc="outside upper left", ncols=3)

    return draw(3.7, 2.8, paint)


def _unit(cost: Cost, costs: NDArray[np.float64]) -> tuple[str, float]:
    """What stands behind the axis' words, and what its numbers are divided by."""
    if cost.kind != "duration":
        return "", 1.0
    longest = float(np.nanmax(costs))
    name, seconds = next(
        one for one in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if longest >= 3 * one[1] or one[1] == 1
    )
    return f" ({name})", seconds


def _tick(value: float) -> str:
    """1, 200, 30 k, 4 M."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _numbers(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _differ(values: NDArray[np.float64]) -> bool:
    return len(np.unique(values[np.isfinite(values)])) > 1


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _milliseconds(repeat: Repeat) -> float:
    known = [row["inference_ms_per_image"] for row in repeat.epochs if row.get("inference_ms_per_image") is not None]
    return statistics.median(known) if known else math.nan
