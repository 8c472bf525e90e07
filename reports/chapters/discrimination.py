"""How well the probabilities separate the images of each class from the others: ROC, precision-recall, their areas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from reports import class_panels, formats, intervals
from reports.blocks import Block, Figure, Figures, Note, Table, Text, columns
from reports.bootstrap import Runs, Scores
from reports.class_panels import MOST_PANELS, CurvePanel, thinned
from reports.probabilities import OperatingPoints
from reports.results import Results

MACRO = "mean of all classes"
AREAS = {"AUROC": "auroc", "AP": "ap", "sensitivity": "sensitivity_at_90_specificity"}
AT = ("decided", "decided at the chosen threshold")
MEANING = (
    "AUROC is the probability that an image of the class is ranked above an image without it (0.5 by chance); average "
    "precision summarises the precision-recall curve (by chance: the share of the class)."
)


def chapter(results: Results) -> list[Block]:
    """Areas are means over the repeats: the same numbers as in every other chapter and on the card."""
    split, images, scores = results.split, results.judged_runs, results.judged_scores
    if split is None or images is None or scores is None:
        return [Text("There are no predictions to draw curves from.")]
    text = f"{formats.escape(results.basis(split))} Areas and intervals: {formats.escape(results.whose(split))}."
    others = len(images.names) - 1
    if others:
        text += f" Bold curves: the model file; thin: the other {f'{others} repeats' if others > 1 else 'repeat'}."
    if not images.multi_label and len(images.classes) > 2:
        text += " The likeliest class is predicted, so the point of a class may lie off its curve."
    blocks: list[Block] = [Text(f"{text} {MEANING}")]
    undefined = [name for name in images.classes if math.isnan(scores.estimate[f"auroc:{name}"])]
    if undefined:
        words = f"Undefined for {formats.some_of(undefined)}: no {formats.SPLIT_NAMES[split]} image has such a class, "
        blocks.append(Note("warning", f"{words}or every one has. Means are over the other classes."))
    points = None if images.pooled else results.operating
    figures = curves(images, scores, points, split)
    return [*blocks, figures, areas_table(images, scores, split)]


def curves(images: Runs, scores: Scores, points: OperatingPoints | None, split: str) -> Figures:
    """ROC and precision-recall curves, one panel per class. points: the operating points of the first run."""
    names = images.classes[:MOST_PANELS]
    rest = f" The first {MOST_PANELS} of {len(images.classes)} classes." if len(names) < len(images.classes) else ""
    found = []
    for kind, words, area, x, y in (
        ("roc", "ROC curves", "AUROC", "1 - specificity", "sensitivity"),
        ("precision_recall", "Precision-recall curves", "AP", "recall (sensitivity)", "precision (PPV)"),
    ):
        panels = [_panel(area, place, images, scores, points) for place in range(len(names))]
        shown = ", ".join(f"{name} {formats.show('score', scores.estimate[f'{AREAS[area]}:{name}'])}" for name in names)
        caption = f"{words}, each class against the rest.{rest}"
        coordinates = (title.partition(" (")[0] for title in (x, y))  # without their synonyms
        alt, frame = f"{words}; {area} of each: {shown}.", class_panels.curve_frame(panels, *coordinates)
        found.append(Figure(f"{kind}_{split}", caption, alt, class_panels.curves(panels, x, y), frame))
    return Figures(tuple(found))


def areas_table(images: Runs, scores: Scores, split: str) -> Table:
    """One row per class, then the mean of all; the AUROC of each run if there are several."""
    rows: list[dict[str, Any]] = []
    counts = zip(images.classes, images.truth.sum(axis=0), images.known.sum(axis=0), strict=True)
    for name, count, known in counts:
        patients = scores.positives[name] if images.resamples.named else math.nan
        counted = {"class": name, "images": int(count), "known": int(known), "patients": patients}
        rows.append(counted | {"share": count / known if known else math.nan} | _areas(scores, f":{name}"))
    macro = f"mean of {len(scores.defined)} of {len(images.classes)} classes"
    macro = MACRO if len(scores.defined) == len(images.classes) else macro
    rows.append({"class": macro, "images": len(images.paths)} | _areas(scores, "_macro"))
    titles = {"AUROC_shown": "AUROC", "AP_shown": "average precision (AP)"}
    titles["sensitivity_shown"] = "sensitivity at 90 % specificity"
    if len(images.names) > 1:
        titles["AUROC_of_each_repeat"] = "AUROC of each repeat"
    caption = intervals.below((scores, f"{area}:{name}") for area in AREAS.values() for name in images.classes)
    facts = ("class", "images", *(() if images.known.all() else ("known",)), "patients", "share")
    shown = columns(*facts, **titles)
    return Table(f"discrimination_{split}", caption, pd.DataFrame(rows), shown)


def _areas(scores: Scores, of: str) -> dict[str, Any]:
    cells = intervals.cells(scores, {title: f"{area}{of}" for title, area in AREAS.items()})
    for title, area in AREAS.items():
        cells[f"{title}_of_each_repeat"] = ", ".join(formats.show("score", one) for one in scores.by_run[f"{area}{of}"])
    return cells


def _panel(area: str, place: int, images: Runs, scores: Scores, points: OperatingPoints | None) -> CurvePanel:
    name, rows = images.classes[place], images.known[:, place]
    truth = images.truth[rows, place]
    if not truth.any() or truth.all():
        return CurvePanel(name, (), f"undefined:\n{'every' if truth.any() else 'no'} image has it")
    runs = [_curve(area, truth, one) for one in images.probabilities[:, rows, place]]
    at = []
    for words, (true, decided) in zip(AT, points.of(name) if points else (), strict=False):
        if area == "AUROC":
            at.append((words, float(decided[~true].mean()), float(decided[true].mean())))
        elif decided.any():
            at.append((words, float(decided[true].mean()), float(true[decided].mean())))
    text = f"{area} {intervals.in_two_lines(scores, f'{AREAS[area]}:{name}')}"
    return CurvePanel(name, runs, text, float(truth.mean()) if area == "AP" else None, at)


def _curve(area: str, truth: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]) -> class_panels.Curve:
    """For AUROC: false positive rate and sensitivity; else recall and precision."""
    if area == "AUROC":
        return thinned(*roc_curve(truth, probability)[:2])
    precision, recall, _ = precision_recall_curve(truth, probability)
    # The last point, precision 1 at recall 0, is scikit-learn's convention; no threshold gives it.
    return thinned(recall, np.append(precision[:-1], precision[-2]))
