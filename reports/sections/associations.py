"""Section 8: what went with good scores in the search; associations, not causes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from reports.data import ReportData
from reports.page import association_figures, wording
from reports.page.blocks import Block, Column, Heading, Note, Picture, Pictures, Section, Table, Text
from reports.trials.importance import FEWEST_TRIALS, MOST_TRIALS, importances, title, top_count
from reports.trials.optuna_study import Compared, compared

SLICES = 6
AXES = 7
BEST_LINES, OTHER_LINES = 40, 110
WARNING = (
    "Associations, not causes. The sampler chose where to look and looked most where scores were good; many things "
    "differed between any two trials; each configuration ran once. What stands out here is worth a test with repeats "
    "(--compare), and is no result."
)


def section(evidence: ReportData) -> Section:
    heading = "What went with good scores"
    found = compared(evidence)
    few = _too_few(found)
    if few:
        return Section("associations", heading, (Text(few),))
    facts = importances(found, evidence.mode)
    blocks: list[Block] = [Note("warning", WARNING), Text(_basis(evidence, found)), *_importance(facts, found)]
    top = [str(name) for name in facts["parameter"].head(SLICES)]
    blocks += [
        Heading("Score against each parameter"),
        Text("One mark a trial; the diamond is the best of these trials, a bar the median of a choice."),
        Pictures(tuple(_slice(evidence, found, name, place) for place, name in enumerate(top, start=1))),
        Heading("All together"),
        _parallel(evidence, found, [str(name) for name in facts["parameter"]]),
    ]
    return Section("associations", heading, tuple(blocks))


def _too_few(found: Compared) -> str:
    """Why nothing is drawn, or ""."""
    count = len(found.trials)
    if count < FEWEST_TRIALS:
        return (
            f"{count} trial{'s' * (count != 1)} can be compared ({_why_not(found) or 'all that there are'}): at least "
            f"{FEWEST_TRIALS} are needed before it means anything to ask what went with good scores."
        )
    if not found.distributions:
        return "No hyperparameter differed between the trials: there is nothing that could go with good scores."
    if np.ptp(found.scores) == 0:
        return "All trials have the same score: there is nothing that could go with good scores."
    return ""


def _why_not(found: Compared) -> str:
    return wording.listing(f"{count} {reason}" for reason, count in found.left_out.items())


def _basis(evidence: ReportData, found: Compared) -> str:
    metric = wording.metric_name(evidence.metric)
    text = f"{len(found.trials):,} trials are compared by their best {metric} "
    if found.epoch is None:
        text += "over all their epochs. "
    else:
        one = found.epoch == 1
        text += f"within {'the first epoch' if one else f'the first {found.epoch} epochs'}: as many as the first trial "
        text += "that was stopped early had run, so that all were given the same. What learns fast is favoured. "
    if found.left_out:
        text += f"Left out: {_why_not(found)}. "
    return text + evidence.basis("val")


def _importance(facts: pd.DataFrame, found: Compared) -> list[Block]:
    titles = [title(str(name)) for name in facts["parameter"]]
    count = len(found.trials)
    beyond = [name for name, ratio in zip(titles, facts["times_chance"], strict=True) if ratio > 1]
    text = (
        f"Importance says how far a parameter's values among the {top_count(count)} best trials depart from those "
        "among all (PED-ANOVA, Watanabe et al. 2023, Optuna's default). Shuffling the scores among the trials shows "
        "how much of that chance alone gives: a dot right of the line exceeds what 95 of 100 shuffles stay below. "
    )
    expected = f"of {len(titles)} parameters about {len(titles) / 20:.2g} would be by luck alone"
    if beyond:
        text += f"Beyond chance: {wording.listing(beyond)}" + f" ({expected})."
    else:
        text += "No parameter departs further than chance would: this search does not show what mattered."
    if count > MOST_TRIALS:
        text += f" Computed from {MOST_TRIALS} of the {count:,} trials, drawn at random."
    frame = facts.assign(title=titles)
    table = Table(
        name="importance",
        caption="Parameters by importance, and what they were among the best trials: the middle half of a number's "
        "values, or the most frequent choice.",
        frame=frame,
        columns=(
            Column("title", "parameter"),
            Column("trials", "trials that have it", "integer"),
            Column("times_chance", "times chance", "general"),
            Column("importance", "share", "percent"),
            Column("best", "among the best"),
            Column("all", "among all"),
        ),
    )
    picture = Picture(
        name="importance",
        caption="Importance of each parameter as a multiple of chance. Filled: beyond chance.",
        alt=f"Importance as a multiple of chance; beyond chance: {wording.listing(beyond) or 'none'}. "
        "The table below holds all values.",
        drawing=association_figures.importance_dots(facts, titles),
    )
    return [Heading("Importance"), Text(text), picture, table]


def _slice(evidence: ReportData, found: Compared, name: str, place: int) -> Picture:
    metric = wording.metric_name(evidence.metric)
    words = title(name)
    values, scores = found.values(name), found.scores
    best = int(np.argmax(scores) if evidence.mode == "max" else np.argmin(scores))
    drawing = association_figures.slice_plot(
        values, scores, found.distributions[name], words, metric.replace("validation", "val"), best
    )
    missing = len(scores) - len(values)
    caption = words[:1].upper() + words[1:] + (f"; {missing:,} trials do not have it." if missing else ".")
    of_best = f"; the best trial has {values[best]}" if best in values.index else ""
    return Picture(
        name=f"slice_{place}",
        caption=caption,
        alt=f"{metric} of {len(values)} trials against {words}{of_best}.",
        drawing=drawing,
    )


def _parallel(evidence: ReportData, found: Compared, names: list[str]) -> Picture:
    """By field, so that a parameter of several branches (lr.sgd, lr.adamw) has one axis."""
    fields = list(dict.fromkeys(name.partition(".")[0] for name in names))[:AXES]
    table = pd.DataFrame({"score": found.scores})
    logarithmic = []
    for field in fields:
        own = [name for name in names if name.partition(".")[0] == field]
        table[field] = pd.concat([_shown(found, name) for name in own]).reindex(table.index)
        if all(association_figures.is_log(found.distributions[name]) for name in own):
            logarithmic.append(field)
    drawn = _drawn(found.scores, evidence.mode)
    few = (
        "" if len(drawn) == len(table) else f" Drawn: the {BEST_LINES} best and {OTHER_LINES} others, picked at random."
    )
    table = table.iloc[drawn]
    metric = wording.metric_name(evidence.metric)
    drawing = association_figures.parallel_coordinates(
        table,
        logarithmic,
        [title(field) for field in fields],
        metric.replace("validation", "val"),
        evidence.mode == "min",
    )
    kept = f" The first {AXES} parameters of the table." if len(fields) == AXES else ""
    without = " “Without”: not in use in that trial." if table.isna().any(axis=None) else ""
    return Picture(
        name="parallel_coordinates",
        caption=f"One line a trial, from its score through its parameters; the darker, the better.{few}{kept}{without}",
        alt=f"Parallel coordinates of {len(table)} trials: {wording.listing([metric, *map(title, fields)])}.",
        drawing=drawing,
    )


def _drawn(scores: NDArray[np.float64], mode: str) -> NDArray[np.int64]:
    """The places of the trials that have a line: all, or of too many the best and some of the others."""
    if len(scores) <= BEST_LINES + OTHER_LINES:
        return np.arange(len(scores))
    order = np.argsort(scores if mode == "min" else -scores, kind="stable")
    others = np.random.default_rng(0).choice(order[BEST_LINES:], OTHER_LINES, replace=False)
    return np.sort(np.concatenate([order[:BEST_LINES], others]))


def _shown(found: Compared, name: str) -> pd.Series[Any]:
    values = found.values(name)
    return values.map(str) if isinstance(found.distributions[name], CategoricalDistribution) else values
