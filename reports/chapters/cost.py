"""Cost and accuracy: the validation score of each trial against the parameters that it trains."""

from __future__ import annotations

import math
import statistics

import pandas as pd

from reports import figures, formats
from reports.blocks import Block, Figure, Table, Text, columns
from reports.results import Results


def chapter(results: Results) -> list[Block]:
    data, metric = results.data, formats.metric_name(results.data.metric)
    ranked = data.ranked[data.ranked["trainable_params"] > 0].reset_index(drop=True)
    if ranked["trainable_params"].nunique() < 2 or len(ranked) < 3:
        text = "Fewer than three trials have a score, or all train equally many parameters: nothing can be compared."
        return [Text(text)]
    on, finalists, label = front(ranked, data.run.sweep.mode), _finalists(results), metric.replace("validation", "val")
    rows = on.to_dict("records")
    steps = ", ".join(f"trial {r['number']:.0f} ({formats.si(r['trainable_params'])}, {r['score']:.3f})" for r in rows)
    caption = f"{formats.capital(metric)} against trainable parameters; blue: the Pareto front, with trial numbers"
    caption += "; diamonds: finalists, mean over repeats with one standard error." if len(finalists) else "."
    figure = Figure(
        "cost",
        caption,
        f"{metric} against trainable parameters; on the front, cheapest first: {steps}.",
        figures.cost(ranked, on, finalists, label),
        ranked[["number", "trainable_params", "score"]],
    )
    titles = {"score": label, "trainable_params": "trainable", "total_params": "total parameters"}
    titles |= {"seconds": "training time", "inference_ms_per_image": "inference, ms per image"}
    shown = columns("number", "backbone", "unfrozen", **titles)
    frame = on.reindex(columns=[*(column.key for column in shown), "trial_id"])
    caption = "Trials on the Pareto front, cheapest first; times are of each trial's own device, shared with others."
    return [Text(_noise(results)), figure, Table("cost_front", caption, frame, shown, folded=True)]


def front(trials: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The Pareto front, cheapest first: every other trial with at most as many trained parameters scores worse.

    Columns: trainable_params, score. Of trials equal in both only the first is kept.
    """
    ordered = trials.sort_values(["trainable_params", "score"], ascending=[True, mode == "min"], kind="stable")
    worth = ordered["score"] * (1 if mode == "max" else -1)
    return ordered[worth > worth.cummax().shift(fill_value=-math.inf)]


def _finalists(results: Results) -> pd.DataFrame:
    """Means over the repeats on validation, and their standard errors: 0 if there is only one repeat."""
    rows = [(one.trainable_params, one.mean, one.standard_error) for one in results.data.finals.finalists]
    frame = pd.DataFrame(rows, columns=["trainable_params", "score", "error"], dtype="float64")
    return frame[frame["score"].notna() & (frame["trainable_params"] > 0)].fillna(0.0)


def _noise(results: Results) -> str:
    """How large a difference of scores must be to exceed noise."""
    finals = results.data.finals
    # Each fold validates on other images, unlike the trials of the search.
    several = [] if finals.folds else [one.scores for one in finals.finalists if len(one.scores) > 1]
    text = "Each score is from one training run on validation, and optimistic like all search scores."
    if not several:
        return text
    freedom = sum(len(scores) - 1 for scores in several)
    spread = math.sqrt(sum(statistics.variance(scores) * (len(scores) - 1) for scores in several) / freedom)
    text += " Repeats of one configuration have a standard deviation of"
    return f"{text} {formats.score(spread)}: smaller differences are noise."
