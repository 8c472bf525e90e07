"""Cost and accuracy: the validation score of each trial against the parameters that it trains."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports import figures, formats
from reports.blocks import Chapter, Figure, Table, Text, columns
from reports.figures import CostPoint
from reports.results import Results

TITLE = "Cost and accuracy"


def chapter(results: Results) -> Chapter:
    data, metric = results.data, formats.metric_name(results.data.metric)
    ranked = data.ranked[data.ranked["trainable_params"] > 0].reset_index(drop=True)
    if ranked["trainable_params"].nunique() < 2 or len(ranked) < 3:
        text = "Fewer than three trials have a score, or all train equally many parameters: there is nothing to weigh."
        return Chapter("cost", TITLE, (Text(text),))
    prices, scores = (ranked[name].to_numpy(dtype=np.float64) for name in ("trainable_params", "score"))
    on, label = ranked.iloc[front(prices, scores, data.mode)], metric.replace("validation", "val")
    steps = ", ".join(f"trial {one.number} ({formats.si(one.price)}, {one.score:.3f})" for one in _points(on))
    finalists = _finalists(results)
    caption = f"{formats.capital(metric)} against trainable parameters; blue: the Pareto front, with trial numbers"
    caption += "; diamonds: finalists, mean over repeats with one standard error." if finalists else "."
    figure = Figure(
        "cost",
        caption,
        f"{metric} against trainable parameters; on the front, the cheapest first: {steps}.",
        figures.cost(_points(ranked), _points(on), finalists, "trainable parameters", label),
        ranked[["number", "trainable_params", "score"]],
    )
    titles = {"score": label, "trainable_params": "trainable", "total_params": "parameters in all"}
    titles |= {"seconds": "time to train", "inference_ms_per_image": "ms an image to answer"}
    shown = columns("number", "backbone", "unfrozen", **titles)
    frame = on.reindex(columns=[*(column.key for column in shown), "trial_id"])
    caption = "The trials on the front, the cheapest first; times are of each trial's own device, shared with others."
    return Chapter(
        "cost", TITLE, (Text(_noise(results)), figure, Table("cost_front", caption, frame, shown, folded=True))
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


def _points(rows: pd.DataFrame) -> list[CostPoint]:
    cells = zip(rows["number"], rows["trainable_params"], rows["score"], strict=True)
    return [CostPoint(number=int(number), price=price, score=score) for number, price, score in cells]


def _finalists(results: Results) -> list[CostPoint]:
    """Means over the repeats on validation."""
    finals = results.data.run.finals
    return [
        CostPoint(
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
    text += " Repeats of one configuration differ by a standard deviation of"
    return f"{text} {formats.score(spread)}: smaller steps are noise."
