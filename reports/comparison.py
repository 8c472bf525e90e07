"""Section 3: the best trial of each backbone and depth."""

from __future__ import annotations

import pandas as pd

from reports import figures, tables, wording
from reports.blocks import Block, Column, Picture, Section, Table, Text
from reports.evidence import Evidence


def section(evidence: Evidence) -> Section:
    title = "Backbones and depths compared"
    if evidence.trials.empty:
        return Section("comparison", title, (Text("No trial has begun: there is nothing to compare."),))
    cells = tables.by_cell(evidence.trials, evidence.mode)
    metric = wording.metric_name(evidence.metric)
    blocks: list[Block] = [Text(_in_words(evidence, cells["score"].notna().sum()))]
    if cells["score"].notna().any():
        scores, tried = tables.cell_grid(cells, "score"), tables.cell_grid(cells, "trials")
        drawing = figures.heat_map(scores, tried, metric, evidence.mode == "min")
        top = tables.ranked(evidence.trials, evidence.mode).iloc[0]
        blocks.append(
            Picture(
                name="backbone_depth",
                caption=f"Best {metric} of each backbone and depth. Gray: no score. {evidence.basis('val')}",
                alt=f"Heat map of the best {metric}, backbones by depth; the highest cell is {top['backbone']}, "
                f"{top['unfrozen']}, {top['score']:.3f}. The table below holds all values.",
                drawing=drawing,
            )
        )
    blocks.append(_table(evidence, cells))
    return Section("comparison", title, tuple(blocks))


def _in_words(evidence: Evidence, scored: int) -> str:
    text = "Equal depth is not equal capacity: the number of trainable parameters stands beside it. "
    text += "Each cell shows its best trial, and cells with more trials had more chances to be lucky. "
    ranked = evidence.ranked.drop_duplicates(["backbone", "unfrozen"])
    if scored >= 2:
        first, second = ranked.iloc[0], ranked.iloc[1]
        gap = abs(first["score"] - second["score"])
        text += f"The best cell ({first['backbone']}, {first['unfrozen']}) lies {gap:.3f} before the second "
        text += f"({second['backbone']}, {second['unfrozen']}). "
    return text + "Every configuration ran once, with one seed: these differences are hints, not evidence."


def _table(evidence: Evidence, cells: pd.DataFrame) -> Table:
    metric = wording.metric_name(evidence.metric)
    columns = [Column("backbone", "backbone"), Column("unfrozen", "trained"), Column("trials", "trials", "integer")]
    if evidence.metric not in ("val_accuracy", "val_f1_macro"):
        columns.append(Column("score", metric, "score"))
    columns += [
        Column("val_f1_macro", "val macro F1", "score"),
        Column("val_accuracy", "val accuracy", "score"),
        Column("best_epoch", "best epoch", "integer"),
        Column("epochs_run", "epochs run", "integer"),
        Column("trainable_params", "trainable", "si"),
        Column("seconds", "time", "duration"),
        Column("number", "trial", "integer"),
    ]
    return Table(
        name="backbone_depth",
        caption=f"The best trial of each backbone and depth by {metric}, at its best epoch. {evidence.basis('val')}",
        frame=cells,
        columns=tuple(columns),
    )
