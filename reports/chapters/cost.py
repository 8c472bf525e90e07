"""Cost and accuracy: the validation score of each trial against the parameters that it trains."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports import figures, formats
from reports.blocks import Chapter, Column, Figure, Table, Text
from reports.results import Results

TITLE = "Cost and accuracy"


def chapter(results: Results) -> Chapter:
    data = results.data
    ranked = data.ranked[data.ranked["trainable_params"] > 0].reset_index(drop=True)
    if ranked["trainable_params"].nunique() < 2 or len(ranked) < 3:
        text = "Fewer than three trials have a score, or all train equally many parameters: there is nothing to weigh."
        return Chapter("cost", TITLE, (Text(text),))
    prices, scores = (ranked[name].to_numpy(dtype=np.float64) for name in ("trainable_params", "score"))
    on = ranked.iloc[front(prices, scores, data.mode)]
    metric = formats.metric_name(data.metric)
    steps = ", ".join(
        f"trial {row['number']:.0f} ({formats.si(row['trainable_params'])}, {row['score']:.3f})"
        for row in on.to_dict("records")
    )
    finalists = _finalists(results)
    figure = Figure(
        "cost",
        f"{metric[:1].upper()}{metric[1:]} against trainable parameters; blue: the Pareto front, with trial numbers"
        + ("; diamonds: finalists, mean over repeats with one standard error." if finalists else "."),
        f"{metric} against trainable parameters; on the front, the cheapest first: {steps}.",
        figures.cost(
            _points(ranked), _points(on), finalists, "trainable parameters", metric.replace("validation", "val")
        ),
        ranked[["number", "trainable_params", "score"]],
    )
    columns = (
        Column("number", "trial", "integer"),
        Column("backbone", "backbone"),
        Column("unfrozen", "trained"),
        Column("score", metric.replace("validation", "val"), "score"),
        Column("trainable_params", "trainable", "si"),
        Column("total_params", "parameters in all", "si"),
        Column("seconds", "time to train", "duration"),
        Column("inference_ms_per_image", "ms an image to answer", "general"),
    )
    frame = on.reindex(columns=[*(column.key for column in columns), "trial_id"])
    caption = (
        "The trials on the front, the cheapest first; times are of each trial's own device, with others beside it."
    )
    return Chapter(
        "cost", TITLE, (Text(_noise(results)), figure, Table("cost_front", caption, frame, columns, folded=True))
    )


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


def _points(rows: pd.DataFrame) -> list[figures.CostPoint]:
    return [
        figures.CostPoint(number=int(row["number"]), price=row["trainable_params"], score=row["score"])
        for row in rows.to_dict("records")
    ]


def _finalists(results: Results) -> list[figures.CostPoint]:
    """Means over the repeats on validation."""
    finals = results.data.run.finals
    return [
        figures.CostPoint(
            number=one.number,
            price=float(one.trainable_params),
            score=one.mean,
            error=0.0 if math.isnan(one.standard_error) else one.standard_error,
        )
        for one in (finals.finalists if finals else ())
        if one.trainable_params and not math.isnan(one.mean)
    ]


def _noise(results: Results) -> str:
    """How far apart scores must be to mean anything."""
    finals = results.data.run.finals
    several = [one.scores for one in finals.finalists if len(one.scores) > 1] if finals else []
    text = "Scores are of one run each on validation, optimistic as all in the search."
    if not several:
        return text
    freedom = sum(len(scores) - 1 for scores in several)
    spread = math.sqrt(sum(statistics.variance(scores) * (len(scores) - 1) for scores in several) / freedom)
    text += (
        f" Repeats of one configuration differ by a standard deviation of {formats.score(spread)}: smaller steps are "
    )
    return f"{text}noise."
