"""A repeated study's own figures: for each of its rows the curves, and what it confuses on each split."""

from __future__ import annotations

import math

import numpy as np

from reports.data import ReportData
from reports.page import figures, wording
from reports.page.blocks import Block, Heading, Picture, Pictures, Text
from reports.scores import evaluation_tables
from reports.trials.study_rows import RowOfStudy, rows_of

SPLITS = ("train", "val", "test")
WHAT = (
    "Curves are of the search's training. A matrix is of the first repeat where the row was repeated, else of the "
    "search's training, and then there is none of test."
)


def blocks(evidence: ReportData) -> list[Block]:
    """Loss, accuracy and confusion matrices of every row, in the study's order; [] where the run repeats no study or no
    row has predictions."""
    rows = rows_of(evidence)
    if not rows:
        return []
    pictures = (Pictures((*_curves(evidence, row), *(_matrix(row, split) for split in _splits(row)))) for row in rows)
    return [Heading("Curves and confusion matrices of the study's rows"), Text(WHAT), *pictures]


def _curves(evidence: ReportData, row: RowOfStudy) -> list[Picture]:
    trial = evidence.trials.loc[evidence.trials["number"] == row.number].iloc[0]
    epochs = evidence.run.epochs
    if epochs.empty:
        return []
    own, best = epochs[epochs["trial_id"] == trial["trial_id"]], float(trial["best_epoch"])
    pictures = []
    for name in ("loss", "accuracy"):
        column = own[f"val_{name}"].dropna() if f"val_{name}" in own else own["epoch"].head(0)
        course = "no validation value" if column.empty else f"from {column.iloc[0]:.3f} to {column.iloc[-1]:.3f}"
        at = "" if math.isnan(best) else f"; best epoch {best:.0f}"
        pictures.append(
            Picture(
                name=f"study_{row.id}_{name}",
                caption=f"{row.id}, {row.params.backbone}: {name}.",
                alt=f"{name.capitalize()} of row {row.id} by epoch, training and validation: {course}{at}.",
                drawing=figures.curve(own, f"train_{name}", f"val_{name}", name, best),
            )
        )
    return pictures


def _matrix(row: RowOfStudy, split: str) -> Picture:
    network = row.runs[0]
    counts = evaluation_tables.matrix(network, split)
    shares = evaluation_tables.row_normalised(counts)
    several = counts.ndim == 3
    draw = figures.label_matrices if several else figures.confusion
    right = int(counts[:, 0, 0].sum() + counts[:, 1, 1].sum()) if several else int(np.trace(counts))
    name = wording.SPLIT_NAMES[split]
    return Picture(
        name=f"study_{row.id}_{split}",
        caption=f"{row.id}: {name}" + (", one matrix a label, at a probability of 0.5." if several else "."),
        alt=f"Confusion of row {row.id}, {name} split: {right} of {int(counts.sum())} decisions are right.",
        drawing=draw(counts, shares, network.classes),
    )


def _splits(row: RowOfStudy) -> list[str]:
    return [split for split in SPLITS if (row.runs[0].split == split).any()]
