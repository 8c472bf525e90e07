"""Section 7, first half: how well the probabilities of each class tell its images from the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from reports.data import ReportData
from reports.page import figures_evaluation, formats, wording
from reports.page.blocks import Block, Column, Note, Picture, Pictures, Section, Table, Text
from reports.page.figures_evaluation import MOST_PANELS, CurvePanel, thinned
from reports.scores import interval_cells
from reports.scores.added_scores import with_average_precision
from reports.scores.resampled_scores import Scores
from reports.scores.shown import ALL_FOLDS, Runs, alone_on, runs_on, shown
from reports.sections.operating import Rule, chosen_cut, decision_rules, positive_class

TITLE = "Discrimination: ROC and precision-recall"
MACRO = "mean of all classes"
AREAS = {"AUROC": "auroc", "AP": "ap"}
TITLES = {"AUROC": "AUROC", "AP": "average precision (AP)"}


def section(evidence: ReportData) -> Section:
    network = shown(evidence)
    images = runs_on(evidence, network.judged) if network and network.judged else None
    if network is None or images is None:
        return Section("discrimination", TITLE, (Text("There are no predictions to draw curves from."),))
    split = wording.SPLIT_NAMES[str(network.judged)]
    scores = with_average_precision(images.scores(auroc=True), images.labels, images.probabilities)
    frame = table(images, scores)
    blocks: list[Block] = [Text(_meaning(images, network.title, split))]
    undefined = [name for name in images.classes if math.isnan(scores.estimate[f"auroc:{name}"])]
    if undefined:
        text = f"Undefined for {wording.listing(undefined)}: no {split} image is of such a class, or every one is. "
        blocks.append(Note("warning", text + "The mean of all classes is undefined with it."))
    rules = []
    if images.names != (ALL_FOLDS,):
        cut = chosen_cut(evidence, positive_class(evidence))
        rules = decision_rules(alone_on(evidence, network, str(network.judged)), network.thresholds, None, cut)
    blocks.append(Pictures(_pictures(images, scores, rules, str(network.judged))))
    pairs = [(scores, f"{area}:{name}") for area in AREAS.values() for name in images.classes]
    several = f"mean of {len(images.names)} repeats" if len(images.names) > 1 else network.title
    columns = [
        Column("class", "class"),
        Column("images", "images", "integer"),
        Column("patients", "patients", "integer"),
        Column("share", "share", "percent"),
        *interval_cells.columns(TITLES),
    ]
    if len(images.names) > 1:
        columns.append(Column("AUROC_of_each_repeat", "AUROC of each repeat"))
    caption = f"{split.capitalize()} split, {several}, each class against the rest. {interval_cells.below(pairs)}"
    name = f"discrimination_{network.judged}"
    return Section(
        "discrimination", TITLE, (*blocks, Table(name=name, caption=caption, frame=frame, columns=tuple(columns)))
    )


def table(images: Runs, scores: Scores) -> pd.DataFrame:
    """One row a class, then the mean of all.

    Columns: class, images, patients (that have it), share of the images, ``interval_cells.cells`` of AUROC and AP
    (average precision), and each run's own as text.
    """
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(images.classes):
        count = int(_truth(images)[:, place].sum())
        facts = {"class": name, "images": count, "share": count / len(images.paths)}
        facts["patients"] = scores.positives[name] if images.resamples.named else math.nan
        rows.append(facts | _areas(scores, f":{name}"))
    rows.append({"class": MACRO, "images": len(images.paths)} | _areas(scores, "_macro"))
    return pd.DataFrame(rows)


def _areas(scores: Scores, of: str) -> dict[str, Any]:
    cells = interval_cells.cells(scores, {title: f"{area}{of}" for title, area in AREAS.items()})
    for title, area in AREAS.items():
        values = scores.by_run[f"{area}{of}"]
        cells[f"{title}_of_each_repeat"] = ", ".join(formats.show("score", float(value)) for value in values)
    return cells


def _truth(images: Runs) -> npt.NDArray[np.bool_]:
    """bool [N, C]."""
    labels = images.labels
    return labels == 1 if labels.ndim == 2 else np.equal(labels[:, None], np.arange(len(images.classes)))


def _meaning(images: Runs, title: str, split: str) -> str:
    runs = f"{title[0].upper()}{title[1:]} (bold)"
    others = len(images.names) - 1
    runs += f" and the other {f'{others} repeats' if others > 1 else 'repeat'} (thin)" if others else ""
    if images.names == (ALL_FOLDS,):
        runs = "Every image by the fold that did not train on it"
    beside = ""
    if images.labels.ndim == 1 and len(images.classes) > 2:
        beside = " The likeliest class is decided, which is no threshold of one class: its point may lie off the curve."
    return (
        f"{runs}, {split} split. The AUROC is the chance that an image of the class gets a higher probability of it "
        "than another image: 0.5 without knowledge. Average precision sums up the precision-recall curve; without "
        "knowledge it is the share of the class, so that a rare class has a harder task. Neither depends on a "
        f"threshold.{beside}"
    )


def _pictures(images: Runs, scores: Scores, rules: list[Rule], split: str) -> tuple[Picture, ...]:
    names = images.classes[:MOST_PANELS]
    curves: dict[str, list[CurvePanel]] = {"roc": [], "precision_recall": []}
    for place, name in enumerate(names):
        truth = _truth(images)[:, place]
        probability = images.probabilities[:, :, place]
        curves["roc"].append(_roc_panel(name, truth, probability, scores, rules))
        curves["precision_recall"].append(_precision_panel(name, truth, probability, scores, rules))
    title = wording.SPLIT_NAMES[split].capitalize()
    rest = f" The first {MOST_PANELS} of {len(images.classes)} classes." if len(names) < len(images.classes) else ""
    areas = f"; areas: mean of {len(images.names)} repeats" if len(images.names) > 1 else ""
    found = []
    for kind, draw, words, area in (
        ("roc", figures_evaluation.roc, "ROC curves", "auroc"),
        ("precision_recall", figures_evaluation.precision_recall, "precision-recall curves", "ap"),
    ):
        shown_areas = ", ".join(f"{name} {formats.show('score', scores.estimate[f'{area}:{name}'])}" for name in names)
        found.append(
            Picture(
                name=f"{kind}_{split}",
                caption=f"{title}: {words}, one against the rest{areas}.{rest}",
                alt=f"{title} split, {words}; area of each: {shown_areas}.",
                drawing=draw(curves[kind]),
            )
        )
    return tuple(found)


def _roc_panel(
    name: str, truth: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32], scores: Scores, rules: list[Rule]
) -> CurvePanel:
    if not truth.any() or truth.all():
        return _undefined(name, truth)
    runs = [thinned(*roc_curve(truth, one)[:2]) for one in probability]
    text = f"AUROC {interval_cells.in_two_lines(scores, f'auroc:{name}')}"
    points = []
    for words, is_true, decided in _decisions(name, rules):
        points.append((words, float(decided[~is_true].mean()), float(decided[is_true].mean())))
    return CurvePanel(name, runs, text, points=points)


def _precision_panel(
    name: str, truth: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32], scores: Scores, rules: list[Rule]
) -> CurvePanel:
    if not truth.any() or truth.all():
        return _undefined(name, truth)
    runs = []
    for one in probability:
        precision, recall, _ = precision_recall_curve(truth, one)
        # The last point, precision 1 at recall 0, is scikit-learn's convention and no threshold's.
        runs.append(thinned(recall, np.append(precision[:-1], precision[-2])))
    text = f"AP {interval_cells.in_two_lines(scores, f'ap:{name}')}"
    points = []
    for words, is_true, decided in _decisions(name, rules):
        if decided.any():
            points.append((words, float(decided[is_true].mean()), float(is_true[decided].mean())))
    return CurvePanel(name, runs, text, level=float(truth.mean()), points=points)


def _undefined(name: str, truth: npt.NDArray[np.bool_]) -> CurvePanel:
    return CurvePanel(name, (), "undefined:\nevery image has it" if truth.any() else "undefined:\nno image has it")


def _decisions(name: str, rules: list[Rule]) -> list[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """What each rule decides about a class: words, truth and decision, bool [N]."""
    found = []
    for rule, words in zip(rules, ("decided", "decided at the chosen threshold"), strict=False):
        if name in rule.classes:
            place = rule.classes.index(name)
            found.append((words, rule.truth[:, place], rule.decided[:, place]))
    return found
