"""Section 7, second half: whether a probability can be taken at its word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.data import ReportData
from reports.page import figures_evaluation, formats, wording
from reports.page.blocks import Column, Picture, Section, Table, Text
from reports.page.figures_evaluation import MOST_PANELS, ReliabilityPanel
from reports.scores import interval_cells
from reports.scores.added_scores import with_means
from reports.scores.calibration import Reliability, reliability
from reports.scores.resampled_scores import Scores
from reports.scores.shown import ALL_FOLDS, Runs, runs_on, shown
from reports.scores.statistics import wilson

TITLE = "Calibration"
BINS = 10
SELECTION = "the answer given"


@dataclass(frozen=True)
class Claim:
    """What a probability is of. given: float64 [R, N] in [0, 1]; came_true: bool [R, N].

    key: ends the names of its scores.
    """

    name: str
    key: str
    given: npt.NDArray[np.float64]
    came_true: npt.NDArray[np.bool_]


def section(evidence: ReportData) -> Section:
    network = shown(evidence)
    images = runs_on(evidence, network.judged) if network and network.judged else None
    if network is None or images is None:
        return Section("calibration", TITLE, (Text("There are no predictions to check probabilities of."),))
    split = wording.SPLIT_NAMES[str(network.judged)]
    stated = claims(images)
    scores = scored(images, stated)
    whose = f"mean of {len(images.names)} repeats" if len(images.names) > 1 else network.title
    if images.names == (ALL_FOLDS,):
        whose = "every image by the fold that did not train on it"
    columns = (
        Column("probability of", "probability of"),
        Column("given", "mean given", "score"),
        Column("observed", "observed share", "score"),
        *interval_cells.columns({"difference": "given less observed"}),
        Column("ECE", "ECE", "score"),
        *interval_cells.columns({"Brier": "Brier score"}),
        Column("Brier of the share", "Brier score of the share", "score"),
    )
    names = [name for one in stated for name in (f"difference{one.key}", f"brier{one.key}")]
    caption = f"{split.capitalize()} split, {whose}. {interval_cells.below((scores, name) for name in names)}"
    frame = table(images, stated, scores)
    picture = _picture(images, stated, str(network.judged))
    listed = Table(name=f"calibration_{network.judged}", caption=caption, frame=frame, columns=columns)
    return Section("calibration", TITLE, (Text(_meaning(images)), picture, Text(_measures(images)), listed))


def claims(images: Runs) -> list[Claim]:
    """What the network claims: of a single-label task that its answer is right, of every task that a class is there."""
    probabilities = images.probabilities.astype(np.float64)
    labels = images.labels
    found = []
    if labels.ndim == 1:
        right = probabilities.argmax(axis=2) == labels
        found.append(Claim(SELECTION, "_decision", probabilities.max(axis=2), right))
    for place, name in enumerate(images.classes):
        truth = labels[:, place] == 1 if labels.ndim == 2 else labels == place
        given = probabilities[:, :, place]
        found.append(Claim(name, f":{name}", given, np.broadcast_to(truth, given.shape)))
    return found


def scored(images: Runs, stated: list[Claim]) -> Scores:
    """With ``difference<key>`` (mean given less observed) and ``brier<key>`` of every claim, and ``brier_all``.

    brier_all: summed over classes, 0 to 2 (Brier, Monthly Weather Review 78, 1950); multi-label: the mean over labels.
    """
    values = {}
    for one in stated:
        values[f"difference{one.key}"] = one.given - one.came_true
        values[f"brier{one.key}"] = (one.given - one.came_true) ** 2
    of_classes = np.stack([values[f"brier:{name}"] for name in images.classes])
    values["brier_all"] = of_classes.mean(axis=0) if images.labels.ndim == 2 else of_classes.sum(axis=0)
    return with_means(images.scores(), values)


def table(images: Runs, stated: list[Claim], scores: Scores) -> pd.DataFrame:
    """One row a claim, then the Brier score of all classes.

    Columns: probability of, given, observed, ``interval_cells.cells`` of difference and Brier, ECE (mean of the runs),
    ECE of each repeat (text), Brier of the share (of a network that always says how frequent the class is).
    """
    rows: list[dict[str, Any]] = []
    of_shares = []
    for one in stated:
        errors = [bins.error for bins in _bins(one)]
        share = float(one.came_true.mean())
        is_class = one.key.startswith(":")
        cells = interval_cells.cells(scores, {"difference": f"difference{one.key}", "Brier": f"brier{one.key}"})
        row = {"probability of": one.name, "given": float(one.given.mean()), "observed": share, **cells}
        row |= {"ECE": float(np.mean(errors)), "ECE of each repeat": ", ".join(map(formats.score, errors))}
        row["Brier of the share"] = share * (1 - share) if is_class else math.nan
        of_shares += [row["Brier of the share"]] if is_class else []
        rows.append(row)
    every = "all labels (mean)" if images.labels.ndim == 2 else "all classes (sum)"
    total = float(np.mean(of_shares) if images.labels.ndim == 2 else np.sum(of_shares))
    rows.append(
        {"probability of": every, **interval_cells.cells(scores, {"Brier": "brier_all"}), "Brier of the share": total}
    )
    return pd.DataFrame(rows)


def _bins(one: Claim) -> list[Reliability]:
    """Of each run."""
    return [reliability(true, given, bins=BINS) for true, given in zip(one.came_true, one.given, strict=True)]


def _meaning(images: Runs) -> str:
    text = (
        "Of the images that get a probability near 0.8, eight in ten should have the class. Points below the diagonal: "
        "the network claims more than comes true (overconfident); above: less. A model can discriminate well and still "
        "be badly calibrated."
    )
    first = " The first panel is of the answer given, whatever the class; the others are of one class each."
    return text if images.labels.ndim == 2 else text + first


def _measures(images: Runs) -> str:
    every = "its mean over labels" if images.labels.ndim == 2 else "its sum over classes"
    return (
        "ECE, the expected calibration error: the distance of the points from the diagonal, weighted by images, in "
        f"{BINS} bins of equal width. Chance alone keeps it above 0, the more so the fewer the images, so it has no "
        "interval. Brier score: the mean squared distance of the probability from what was true, for the whole task "
        f"{every}; lower is better. The last column is that of a network that always says the share of the class."
    )


def _picture(images: Runs, stated: list[Claim], split: str) -> Picture:
    panels = [_panel(one) for one in stated[:MOST_PANELS]]
    title = wording.SPLIT_NAMES[split].capitalize()
    rest = f" The first {MOST_PANELS} of {len(stated)} panels." if len(stated) > MOST_PANELS else ""
    errors = ", ".join(f"{one.name} {formats.score(_bins(one)[0].error)}" for one in stated[:MOST_PANELS])
    return Picture(
        name=f"reliability_{split}",
        caption=f"{title}: reliability in {BINS} bins of equal width. Lines at the points: Wilson's 95 % interval of a "
        f"bin, as if its images were independent; gray bars: how many images. ECE: of the shown network.{rest}",
        alt=f"Reliability diagrams, {title.lower()} split. Expected calibration error of each: {errors}.",
        drawing=figures_evaluation.reliability(panels),
    )


def _panel(one: Claim) -> ReliabilityPanel:
    first, *others = _bins(one)
    bounds = [
        wilson(float(share), int(count)) if count else (math.nan, math.nan)
        for share, count in zip(first.observed, first.counts, strict=True)
    ]
    low, high = np.array(bounds).T
    return ReliabilityPanel(
        title=one.name,
        text=f"ECE {formats.score(first.error)}",
        confidence=first.confidence,
        observed=first.observed,
        low=low,
        high=high,
        counts=first.counts,
        others=[(bins.confidence, bins.observed) for bins in others],
    )
