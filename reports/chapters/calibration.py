"""Whether probabilities are reliable: reliability diagrams, calibration error and Brier score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from reports import class_panels, formats, intervals
from reports.blocks import Block, Figure, Table, Text, columns
from reports.class_panels import MOST_PANELS, ReliabilityPanel
from reports.intervals import wilson
from reports.probabilities import BINS, SELECTION, Calibration, Claim
from reports.results import Results

MEANING = (
    "Of the images with a probability near 0.8, 80 % should have the class. Points below the diagonal: overconfident; "
    "above: underconfident. The expected calibration error (ECE) is the mean distance from the diagonal, weighted by "
    f"images, in {BINS} bins of equal width; chance alone keeps it above 0, so it has no interval. The Brier score is "
    "the mean squared difference between probability and outcome; its reference always predicts the class frequency."
)


def chapter(results: Results) -> list[Block]:
    found, split = results.calibration, results.split
    if found is None or split is None:
        return [Text("There are no predictions to check the calibration of.")]
    return [*blocks(found, split, formats.escape(results.basis(split)), results.whose(split))]


def blocks(found: Calibration, split: str, basis: str, whose: str) -> tuple[Text, Figure, Table]:
    """Text, diagrams and table. basis: what the images are, in Markdown; whose: the network."""
    first = " The first panel is of the predicted class." if found.claims[0].name == SELECTION else ""
    return Text(f"{basis} {MEANING}{first}"), reliability_figure(found, split), calibration_table(found, split, whose)


def reliability_figure(found: Calibration, split: str) -> Figure:
    """One panel per claim, of the first run; the others are thin lines."""
    shown = found.claims[:MOST_PANELS]
    rest = f" The first {MOST_PANELS} of {len(found.claims)} panels." if len(shown) < len(found.claims) else ""
    errors = ", ".join(f"{one.name} {formats.score(one.bins[0].error)}" for one in shown)
    caption = (
        "Reliability diagrams. Lines: Wilson's 95 % interval of each bin, as if its images were independent; gray "
        f"bars: number of images. ECE: of the reported model.{rest}"
    )
    alt = f"Reliability diagrams. Expected calibration error of each: {errors}."
    panels = [_panel(one) for one in shown]
    frame = class_panels.bin_frame(panels)
    return Figure(f"reliability_{split}", caption, alt, class_panels.reliability(panels), frame)


def calibration_table(found: Calibration, split: str, whose: str) -> Table:
    """One row per claim, then the Brier score of all classes."""
    rows: list[dict[str, Any]] = []
    for one in found.claims:
        errors = [bins.error for bins in one.bins]
        names = {"difference": f"difference{one.key}", "Brier": f"brier{one.key}"}
        row = {"probability of": one.name, "given": one.given.mean(), "observed": one.came_true.mean()}
        row |= {"ECE": float(np.mean(errors)), "ECE of each repeat": ", ".join(map(formats.score, errors))}
        row |= intervals.cells(found.scores, names)
        rows.append(row | {"Brier of the share": found.brier_of_shares.get(one.key, math.nan)})
    every = "all labels (mean)" if found.scores.by_run.get("exact_match") is not None else "all classes (sum)"
    total = intervals.cells(found.scores, {"Brier": "brier_all"})
    rows.append({"probability of": every, "Brier of the share": found.brier_of_shares["_all"]} | total)
    titles = {"given": "mean predicted", "observed": "observed share", "difference_shown": "predicted minus observed"}
    titles |= {"ECE": "ECE", "Brier_shown": "Brier score", "Brier of the share": "reference Brier score"}
    shown = [f"{measure}{one.key}" for one in found.claims for measure in ("difference", "brier")]
    caption = f"{formats.capital(whose)}. {intervals.below((found.scores, name) for name in shown)}"
    return Table(f"calibration_{split}", caption, pd.DataFrame(rows), columns("probability of", **titles))


def _panel(one: Claim) -> ReliabilityPanel:
    first, *others = one.bins
    bounds = [
        wilson(float(share), int(count)) if count else (math.nan, math.nan)
        for share, count in zip(first.observed, first.counts, strict=True)
    ]
    low, high = np.array(bounds).T
    bins = pd.DataFrame({"confidence": first.confidence, "observed": first.observed, "low": low, "high": high})
    curves = [(other.confidence, other.observed) for other in others]
    return ReliabilityPanel(one.name, f"ECE {formats.score(first.error)}", bins.assign(counts=first.counts), curves)
