"""Hyperparameters that are associated with good scores in the search; associations, not causes."""

from __future__ import annotations

import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from reports import figures, formats
from reports.blocks import Block, Figure, Note, Table, Text, columns
from reports.importance import MOST_TRIALS, UsedTrials, title, top_count
from reports.results import Results

MOST_SLICES = 4
NEAR_EDGE = 0.02
WARNING = (
    "Associations, not causes: the sampler favoured regions with good scores, trials differ in many hyperparameters at "
    "once, and each ran once. What stands out is worth a test with repeats (--compare), but is not a result."
)


def chapter(results: Results) -> list[Block]:
    frame, used = results.importance, results.used_trials
    if frame is None:
        return [Text(f"Importance is not computed. {used.too_few}")]
    blocks: list[Block] = [Note("info", WARNING), Text(_basis(results)), _importance(frame, used)]
    beyond = frame[frame["times_chance"] > 1]
    if beyond.empty:
        return [*blocks, Text("No hyperparameter stands out beyond chance.")]
    figure = slices(results, [str(name) for name in beyond["parameter"].head(MOST_SLICES)])
    return [*blocks, figure, *_edge(results)]


def slices(results: Results, names: list[str]) -> Figure:
    """Score against each of the parameters ``names``, the winner marked."""
    used, metric = results.used_trials, formats.metric_name(results.data.metric)
    parts = []
    for name in names:
        values = used.values(name)
        numbers = [int(used.numbers[place]) for place in values.index]
        facts = {"parameter": name, "number": numbers, "value": values, "score": used.scores[values.index.to_numpy()]}
        parts.append(pd.DataFrame(facts))
    panels = [(title(name), scale(used.distributions[name]), part) for name, part in zip(names, parts, strict=True)]
    is_used = any(number == results.number for number in used.numbers)
    marked = f"; diamond: trial {results.number}" if is_used else ""
    return Figure(
        "hyperparameters",
        f"Score against each hyperparameter beyond chance, one mark per trial; bars: median of each choice{marked}.",
        f"{metric} of {len(used.numbers)} trials against {formats.listing(title(name) for name in names)}{marked}.",
        figures.slices(panels, results.number, metric.replace("validation", "val")),
        pd.concat(parts, ignore_index=True).infer_objects(),
    )


def _basis(results: Results) -> str:
    used, metric = results.used_trials, formats.escape(formats.metric_name(results.data.metric))
    text = f"{len(used.trials):,} trials are compared by their best {metric} "
    if used.epoch is None:
        text += "over all their epochs."
    else:
        first = "the first epoch" if used.epoch == 1 else f"the first {used.epoch} epochs"
        text += f"within {first}, as many as the first pruned trial had run: this favours fast learners."
    if used.left_out:
        text += f" Excluded: {formats.listing(f'{count} {reason}' for reason, count in used.left_out.items())}."
    # Two draws from a continuous range are never equal, so equal values come from seed points.
    drawn = [
        name for name, one in used.distributions.items() if isinstance(one, FloatDistribution) and one.step is None
    ]
    equal = [used.values(name).value_counts().max() for name in drawn if name not in used.derived]
    if (given := max(equal, default=0)) > 2:
        text += f" At least {given} of them began at seed points, which have most values in common: importance cannot "
        text += "tell the effects of such values from each other."
    return text


def _importance(frame: pd.DataFrame, used: UsedTrials) -> Table:
    count = len(used.trials)
    sampled = f" Computed on {MOST_TRIALS} trials drawn from {count:,}." if count > MOST_TRIALS else ""
    caption = (
        f"PED-ANOVA importance, relative to what shuffled scores exceed 5 times in 100 (chance) and as a share. Best: "
        f"the {top_count(count)} best trials; values: interquartile range or most frequent choice.{sampled}"
    )
    titles = {"trials": "trials with it", "times_chance": "times chance", "importance": "share"}
    shown = columns(**{"title": "parameter", **titles, "best": "among the best", "all": "among all"})
    return Table("importance", caption, frame, shown)


def _edge(results: Results) -> list[Block]:
    """Whether the reported trial's learning rate lies at a bound of its range."""
    place = results.used_trials.place_at_bound(results.number, "lr", NEAR_EDGE)
    if place is None:
        return []
    text = f"The learning rate of trial {results.number} lies at the {place} bound of its range: a wider range may"
    return [Text(f"{text} contain a better one.")]


def scale(distribution: BaseDistribution) -> figures.Scale:
    """The scale of a hyperparameter's axis."""
    if isinstance(distribution, CategoricalDistribution):
        return "categorical"
    facts = distribution._asdict()
    return "logarithmic" if facts["log"] else "integer" if isinstance(facts["low"], int) else "linear"
