"""Section 3: the best trial of each backbone and depth, and what repeating them gave."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports.data import ReportData
from reports.page import figures, figures_finals, formats, wording
from reports.page.blocks import Block, Column, Heading, Picture, Section, Table, Text
from reports.page.figures_finals import Bars
from reports.scores import finals_tables, finals_words, interval_cells
from reports.scores.finals import ConfigurationResult, Leaderboard
from reports.scores.statistics import interval
from reports.trials import tables

TITLE = "Backbones and depths compared"
REPEATED = ("accuracy", "f1_macro")
MOST_BARS = 16


def section(evidence: ReportData) -> Section:
    if evidence.trials.empty:
        return Section("comparison", TITLE, (Text("No trial has begun: there is nothing to compare."),))
    cells = repeated_cells(evidence)
    metric = wording.metric_name(evidence.metric)
    blocks: list[Block] = [Text(_in_words(evidence, cells))]
    if cells["score"].notna().any():
        scores, tried = tables.cell_grid(cells, "score"), tables.cell_grid(cells, "trials")
        drawing = figures.heat_map(scores, tried, metric, evidence.mode == "min")
        top = tables.ranked(evidence.trials, evidence.mode).iloc[0]
        blocks.append(
            Picture(
                name="backbone_depth",
                caption=f"Best {metric} of each backbone and depth. Gray: no score. {evidence.basis('val')}",
                alt=f"Heat map of the best {metric}, backbones by depth; the best cell is {top['backbone']}, "
                f"{top['unfrozen']}, {top['score']:.3f}. The table below holds all values.",
                drawing=drawing,
            )
        )
    blocks.append(_table(evidence, cells))
    standing = evidence.standing
    scored = [] if standing is None else [one for one in standing.contenders if one.scores is not None]
    if standing is not None and scored:
        blocks += [Heading("Accuracy and F1 of what was repeated"), _bars(evidence, standing, scored)]
    return Section("comparison", TITLE, tuple(blocks))


def repeated_cells(evidence: ReportData) -> pd.DataFrame:
    """``tables.by_cell``, and where the cell's best trial was trained again: mean, standard_error, repeated (text), and
    ``interval_cells.cells`` of accuracy and f1_macro on the split that judges. Elsewhere NaN and dashes."""
    cells = tables.by_cell(evidence.trials, evidence.mode)
    standing = evidence.standing
    of_number: dict[float, ConfigurationResult] = (
        {} if standing is None else {float(one.finalist.number): one for one in standing.contenders}
    )
    rows = [_repeated(of_number.get(number)) for number in cells["number"]]
    return pd.concat([cells, pd.DataFrame(rows, index=cells.index)], axis=1)


def _repeated(one: ConfigurationResult | None) -> dict[str, Any]:
    mean, error = (math.nan, math.nan) if one is None else (one.mean, one.standard_error)
    shown = formats.show("score", mean) + (f" ± {formats.score(error)}" if not math.isnan(error) else "")
    row: dict[str, Any] = {"mean": mean, "standard_error": error, "repeated": shown}
    for name in REPEATED:
        row |= finals_tables.score_cells(one, f"judged_{name}", name)
    return row


def _in_words(evidence: ReportData, cells: pd.DataFrame) -> str:
    text = "Equal depth is not equal capacity: the number of trainable parameters stands beside it. "
    text += "Each cell shows its best trial, and cells with more trials had more chances to be lucky. "
    ranked = evidence.ranked.drop_duplicates(["backbone", "unfrozen"])
    if cells["score"].notna().sum() >= 2:
        first, second = ranked.iloc[0], ranked.iloc[1]
        gap = abs(first["score"] - second["score"])
        text += f"The best cell ({first['backbone']}, {first['unfrozen']}) lies {gap:.3f} before the second "
        text += f"({second['backbone']}, {second['unfrozen']}). "
    repeated = int(cells["mean"].notna().sum())
    if not repeated:
        return text + "Every configuration ran once, with one seed: these differences are hints, not evidence."
    few = f"{repeated} of {len(cells)} cells" if repeated < len(cells) else "All cells"
    return text + (
        f"{few} had their best trial trained again; what stands for those under mean of repeats is worth more than the "
        "best of a search. Every other number comes from one training with one seed: a hint, not evidence."
    )


def _table(evidence: ReportData, cells: pd.DataFrame) -> Table:
    metric = wording.metric_name(evidence.metric)
    columns = [Column("backbone", "backbone"), Column("unfrozen", "trained"), Column("trials", "trials", "integer")]
    columns.append(Column("trainable_params", "trainable", "si"))
    if evidence.metric not in ("val_accuracy", "val_f1_macro"):
        columns.append(Column("score", metric, "score"))
    columns += [Column("val_f1_macro", "val macro F1", "score"), Column("val_accuracy", "val accuracy", "score")]
    caption = f"The best trial of each backbone and depth by {metric}, at its best epoch. {evidence.basis('val')}"
    standing = evidence.standing
    if standing is not None and cells["mean"].notna().any():
        where = finals_words.split_name(standing)
        columns.append(Column("repeated", "mean of repeats ± SE"))
        columns += interval_cells.columns({f"judged_{name}": f"{where} {title}" for name, title in _titles(evidence)})
        caption += f" Where that trial was trained again: mean of repeats, {metric} with its standard error; "
        caption += f"{where} scores, mean over the repeats. {_beyond_validation(evidence, standing)} "
        numbers = set(cells["number"])
        caption += interval_cells.below(
            (one.scores, name)
            for one in standing.contenders
            if one.scores is not None and one.finalist.number in numbers
            for name in REPEATED
        )
    columns += [
        Column("best_epoch", "best epoch", "integer"),
        Column("epochs_run", "epochs run", "integer"),
        Column("seconds", "time", "duration"),
        Column("number", "trial", "integer"),
    ]
    return Table(name="backbone_depth", caption=" ".join(caption.split()), frame=cells, columns=tuple(columns))


def _bars(evidence: ReportData, standing: Leaderboard, scored: list[ConfigurationResult]) -> Picture:
    """Validation accuracy (mean of the repeats' best epochs), accuracy and macro F1 on the split that judges."""
    on_test = standing.split == "test"
    where = finals_words.split_name(standing)
    titles = dict(_titles(evidence))
    names = ([f"validation {titles['accuracy']}"] if on_test else []) + [
        f"{where} {title}" for title in titles.values()
    ]
    drawn = scored[:MOST_BARS]
    groups = []
    for one in drawn:
        assert one.scores is not None
        values = [(_validation_accuracy(one), math.nan, math.nan)] if on_test else []
        for name in REPEATED:
            known = interval(one.scores, name)
            values.append((known.estimate, known.low, known.high))
        groups.append(Bars(name=f"{one.finalist.number}: {finals_tables.network(one)}", values=values))
    parts = [", ".join(formats.show("score", value) for value, *_ in group.values) for group in groups]
    worded = "; ".join(f"trial {group.name} {part}" for group, part in zip(groups, parts, strict=True))
    more = f" The first {MOST_BARS} of {len(scored)}." if len(scored) > MOST_BARS else ""
    return Picture(
        name="repeated_scores",
        caption=f"Configurations that were trained again: means over the repeats; lines: 95 % intervals.{more} "
        f"{_beyond_validation(evidence, standing) or finals_words.basis(evidence, standing)}",
        alt=f"Bars of {wording.listing(names)}: {worded}.",
        drawing=figures_finals.bars(groups, names),
    )


def _validation_accuracy(one: ConfigurationResult) -> float:
    values = [float(repeat.best.get("val_accuracy", math.nan)) for repeat in one.finalist.ended]
    return sum(values) / len(values) if values else math.nan


def _titles(evidence: ReportData) -> list[tuple[str, str]]:
    return [("accuracy", "exact match" if evidence.task == "multi_label" else "accuracy"), ("f1_macro", "macro F1")]


def _beyond_validation(evidence: ReportData, standing: Leaderboard) -> str:
    """What the judged scores rest on, where that is not said already."""
    return finals_words.basis(evidence, standing) if standing.split == "test" or standing.finals.folds else ""
