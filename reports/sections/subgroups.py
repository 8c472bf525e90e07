"""The scores in each subgroup of the user's own columns: view, sex, site and the like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.data import ReportData
from reports.page import wording
from reports.page.blocks import Block, Column, Heading, Table, Text
from reports.scores import interval_cells
from reports.scores.resampled_scores import Scores
from reports.scores.shown import Runs, runs_on, shown
from reports.scores.statistics import FEW_GROUPS
from reports.sections.operating import positive_class

PREFIX = "subgroup_"
MOST_VALUES = 12
NOT_GIVEN = "not given"
CAUTION = "Differences between subgroups may come from chance, or from another mix of classes within them."


def blocks(evidence: ReportData) -> list[Block]:
    """The part of section 4 on subgroups; nothing where the data set names none."""
    network = shown(evidence)
    images = runs_on(evidence, network.judged) if network and network.judged else None
    names = [str(name) for name in evidence.run.rows.columns if str(name).startswith(PREFIX)]
    if network is None or images is None or not names:
        return []
    assert network.judged is not None
    positive = positive_class(evidence)
    frame, scored, cut_short = table(evidence, images, positive)
    titles = {"accuracy": "exact match" if images.labels.ndim == 2 else "accuracy", "f1_macro": "macro F1"}
    if positive:
        titles["sensitivity"] = f"sensitivity, {positive}"
    split = wording.SPLIT_NAMES[network.judged]
    runs = f"mean of {len(images.names)} repeats" if len(images.names) > 1 else network.title
    caption = f"{split.capitalize()} split, {runs}. {interval_cells.below(scored)}"
    text = CAUTION
    if network.judged != "test":
        text += " The test split was not opened: these are validation images, on which the network was chosen."
    if cut_short:
        text += f" Only the {MOST_VALUES} most frequent values are shown of {wording.listing(cut_short)}."
    name = f"subgroup_scores_{network.judged}"
    return [
        Heading(f"Subgroups ({split})"),
        Text(text),
        Table(name=name, caption=caption, frame=frame, columns=columns(titles)),
    ]


def columns(titles: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns of ``table``; titles: of its scores."""
    return (
        Column("column", "column"),
        Column("value", "value"),
        Column("images", "images", "integer"),
        Column("patients", "patients", "integer"),
        *interval_cells.columns(titles),
        Column("remark", "remark"),
    )


def table(
    evidence: ReportData, images: Runs, positive: str | None
) -> tuple[pd.DataFrame, list[tuple[Scores, str]], list[str]]:
    """One row a subgroup, the first one of all images: the scores shown, and the columns with too many values.

    Columns: column, value, images, patients, then ``interval_cells.cells`` of accuracy, f1_macro and sensitivity (of
    ``positive``), remark. A macro F1 is given only where every class is there.
    """
    wanted = {"accuracy": "accuracy", "f1_macro": "f1_macro"} | (
        {"sensitivity": f"recall:{positive}"} if positive else {}
    )
    rows: list[dict[str, Any]] = []
    scored: list[tuple[Scores, str]] = []
    cut_short = []
    parts = [("all images", "", np.ones(len(images.paths), dtype=bool))]
    for column, of_image in _columns(evidence, images):
        values, counts = np.unique(of_image, return_counts=True)
        frequent = sorted(range(len(values)), key=lambda place: (-counts[place], str(values[place])))
        if len(values) > MOST_VALUES:
            cut_short.append(column)
        kept = sorted((str(values[place]) for place in frequent[:MOST_VALUES]), key=lambda name: (name == "", name))
        parts += [(column, name or NOT_GIVEN, of_image == name) for name in kept]
    for column, name, chosen in parts:
        part = images.of(chosen)
        scores = part.scores()
        absent = [label for label in part.classes if not scores.positives[label]]
        defined = {key: score for key, score in wanted.items() if not (key == "f1_macro" and absent)}
        scored += [(scores, score) for score in defined.values()]
        cells = interval_cells.cells(scores, defined)
        rows.append(
            {"column": column, "value": name, "images": len(part.paths), "patients": part.patients}
            | {key: cells.get(key, math.nan) for key in _keys(wanted)}
            | {"remark": _remark(part, absent)}
        )
    return pd.DataFrame(rows), scored, cut_short


def _columns(evidence: ReportData, images: Runs) -> list[tuple[str, npt.NDArray[np.str_]]]:
    """For each subgroup column its name and str [N], the value of each image."""
    rows = evidence.run.rows
    found = []
    for name in (str(name) for name in rows.columns if str(name).startswith(PREFIX)):
        of_path = dict(zip(rows["path"], rows[name], strict=True))
        values = np.array([str(of_path.get(str(path), "")) for path in images.paths], dtype=np.str_)
        found.append((name.removeprefix(PREFIX), values))
    return found


def _keys(wanted: dict[str, str]) -> list[str]:
    return [f"{key}{end}" for key in wanted for end in ("", "_low", "_high", "_shown")]


def _remark(part: Runs, absent: list[str]) -> str:
    """What makes the row's numbers weak."""
    remarks = []
    if part.resamples.groups < FEW_GROUPS:
        remarks.append(f"small: fewer than {FEW_GROUPS} {'patients' if part.resamples.named else 'images'}")
    if absent:
        remarks.append(f"without {wording.listing(absent)}: no macro F1")
    return "; ".join(remarks)
