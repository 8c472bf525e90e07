"""Confusion matrices, scores of each split and class, operating points, and scores of subgroups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import figures, formats, intervals
from reports.blocks import Block, Figure, Figures, Note, Table, Text, columns
from reports.bootstrap import PPV_AT_PREVALENCE, Scores
from reports.class_panels import MOST_PANELS
from reports.intervals import FEW_GROUPS, interval
from reports.leaderboard import ReportedModel, contradict
from reports.probabilities import MOST_VALUES, OperatingPoints, Subgroup
from reports.results import Results
from trainables.metrics import UNTUNED, shown_threshold

MOST_CLASSES = 6
"""Most classes of a matrix in the summary."""
OVERALL = ("accuracy", "balanced_accuracy", "f1_macro", "mcc", "kappa")
OF_A_CLASS = {"precision": "precision", "recall": "recall", "specificity": "specificity", "f1": "F1", "auroc": "AUROC"}
AT_PREVALENCE = "PPV at a prevalence of"
RATIOS = {"sensitivity": "recall", "specificity": "specificity", "PPV": "precision", "NPV": "npv"}


def chapter(results: Results) -> list[Block]:
    """The matrix of the judging split is in the summary instead, if it has room for it."""
    model = results.model
    if model is None:
        text = "There is no best trial."
        if results.data.best is not None:
            text = "The best trial's predictions are not on disk (they are written when a trial ends) or are damaged."
        return [Note("info", text)]
    bases = " ".join(dict.fromkeys(map(results.basis, model.splits)))
    if any(runs is not None and runs.pooled for runs in map(results.runs, model.splits)):
        bases += " Matrices, operating points and the table of splits are of this network, on the images of its fold."
    network = f"{formats.capital(model.title)}, weights of epoch {model.predictions.epoch}."
    blocks: list[Block] = [Text(formats.escape(f"{network} {bases} {_below(results, model)}"))]
    matrices = tuple(
        confusion_figure(results.confusion(split), model.predictions.classes, split)
        for split in model.splits
        if not in_summary(results, split)
    )
    blocks += [*_notes(results, model), *((Figures(matrices),) if matrices else ()), _split_scores(results, model)]
    blocks += [_per_class(results, split) for split in _scored(model)[::-1]]
    split, asked = str(results.split), results.data.run.sweep.positive_class
    positive = asked if asked in results.data.classes else None
    point = results.operating_point
    listed = positive if point is None or point.label == positive else None
    if results.operating is not None:
        text = formats.escape(_story(results, results.operating, model))
        blocks.append(Text(f"### Operating points\n\n{text} PPV and NPV hold only at these class frequencies."))
        if asked and positive is None:
            blocks.append(Note("warning", f"--positive-class {asked}: there is no such class in the data."))
        blocks.append(operating_table(results.operating, split, listed, results.prevalence))
    if results.subgroups is not None:
        chosen = "" if split == "test" else " The network was selected on these images."
        text, table = subgroups(*results.subgroups, split, positive)
        blocks += [Text(f"### Subgroups\n\n{text}{chosen}"), table]
    return blocks


def in_summary(results: Results, split: str) -> bool:
    """Whether the summary shows the matrix of ``split``; it has no room for multi-label, or for many classes."""
    model = results.model
    if model is None or split != results.split or split not in model.splits:
        return False
    return model.predictions.label.ndim == 1 and len(model.predictions.classes) <= MOST_CLASSES


def confusion_figure(
    counts: npt.NDArray[np.int64],
    classes: Sequence[str],
    split: str,
    name: str = "",
    of: str = "",
    at: str = f"a probability of {UNTUNED}",
) -> Figure:
    """The matrix of counts, shaded by the share of each true class; its numbers go to the figure's CSV.

    counts: [C, C] with true classes as rows, or [C, 2, 2] if multi-label. name: "confusion_<split>" if it is empty.
    of: whose matrix it is, the beginning of the caption. at: the threshold of multi-label decisions, in words.
    """
    title = formats.capital(of + formats.SPLIT_NAMES.get(split, split))
    totals = counts.sum(axis=-1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, math.nan), where=totals > 0)
    if counts.ndim == 3:
        wrong = int(counts[:, 0, 1].sum() + counts[:, 1, 0].sum())
        drawn = slice(MOST_PANELS)
        drawing = figures.label_matrices(counts[drawn], shares[drawn], classes[drawn])
        alt = f"One 2 by 2 matrix per label, {title}: {wrong} of {int(counts.sum())} decisions are wrong."
        which = "per label" if len(classes) <= MOST_PANELS else f"for the first {MOST_PANELS} of {len(classes)} labels"
        caption = f"{title}: one matrix {which}, rows: true, decided at {at}."
        frame = pd.DataFrame(counts.reshape(len(counts), 4), columns=["TN", "FP", "FN", "TP"])
    else:
        drawing = figures.confusion(counts, shares, classes)
        alt = f"Confusion matrix, {title}: {int(np.trace(counts))} of {int(counts.sum())} on the diagonal."
        caption = f"{title}: images; shading: share of the true class."
        frame = pd.DataFrame(counts, columns=[f"predicted {one}" for one in classes])
    frame.insert(0, "label" if counts.ndim == 3 else "true class", list(classes))
    return Figure(name or f"confusion_{split}", caption, alt, drawing, frame)


def operating_table(
    points: OperatingPoints, split: str, positive: str | None = None, prevalence: float | None = None
) -> Table:
    """One row per class and rule, the rules of a class together; only of ``positive`` if it is given.

    prevalence: the one at which the scores have a PPV.
    """
    ratios = RATIOS if prevalence is None else RATIOS | {AT_PREVALENCE: PPV_AT_PREVALENCE}
    rows: list[dict[str, Any]] = []
    for name in points.rules[0].classes if positive is None else (positive,):
        for rule, scores in zip(points.rules, points.scores, strict=True):
            if name not in rule.classes:
                continue
            place = rule.classes.index(name)
            facts = {"class": name, "decided if": rule.words[place], "threshold": rule.threshold[place]}
            names = {key: f"{ratio}:{name}" for key, ratio in ratios.items()}
            there = {key: score for key, score in names.items() if score in scores.estimate}
            cells = intervals.cells(None, names) | intervals.cells(scores, there)
            rows.append(facts | counted(*rule.of(place)) | cells)
    titles = {f"{key}_shown": f"{key} {prevalence:g}" if key == AT_PREVALENCE else key for key in ratios}
    caption = "Decisions of the network, each class against the rest."
    shown = columns("class", "decided if", "TP", "FN", "FP", "TN", **titles)
    return Table(f"operating_points_{split}", caption, pd.DataFrame(rows), shown)


def counted(truth: npt.NDArray[np.bool_], decided: npt.NDArray[np.bool_]) -> dict[str, int]:
    """TP, FN, FP and TN of one class, bool [N] each."""
    cells = {"TP": truth & decided, "FN": truth & ~decided, "FP": ~truth & decided, "TN": ~(truth | decided)}
    return {name: int(cell.sum()) for name, cell in cells.items()}


def subgroups(
    found: Sequence[Subgroup], cut_short: Sequence[str], split: str, positive: str | None = None
) -> tuple[str, Table]:
    """Text on subgroups as Markdown; and a table with one row each, the first of all images. Macro F1 is given only if
    every class is present. cut_short: the columns of which rare values were left out."""
    wanted = {"accuracy": "accuracy", "f1_macro": "f1_macro"}
    titles = {f"{name}_shown": formats.score_name(name, found[0].images.task) for name in wanted}
    if positive:
        wanted["sensitivity"], titles["sensitivity_shown"] = f"recall:{positive}", f"sensitivity, {positive}"
    rows: list[dict[str, Any]] = []
    pairs = []
    for column, value, images, scores in found:
        absent = [name for name in images.classes if not scores.positives[name]]
        defined = {key: score for key, score in wanted.items() if key != "f1_macro" or not absent}
        pairs += [(scores, score) for score in defined.values()]
        row = {"column": column, "value": value, "images": len(images.paths), "patients": images.patients}
        row |= intervals.cells(None, wanted) | intervals.cells(scores, defined)
        unit = "patients" if scores.resamples.named else "images"
        remarks = [f"small: fewer than {FEW_GROUPS} {unit}"] if scores.resamples.groups < FEW_GROUPS else []
        remarks += [f"without {formats.listing(absent)}: no macro F1"] if absent else []
        rows.append(row | {"remark": "; ".join(remarks)})
    text = "Differences between subgroups may be due to chance or to different class frequencies."
    if cut_short:
        listed = formats.escape(formats.listing(cut_short))
        text += f" Only the {MOST_VALUES} most frequent values of {listed} are shown."
    caption, shown = f"Scores by subgroup. {intervals.below(pairs)}", columns("column", "value", "images", "patients")
    frame = pd.DataFrame(rows)
    return text, Table(f"subgroup_scores_{split}", caption, frame, (*shown, *columns(**titles, remark="remark")))


def _scored(model: ReportedModel) -> list[str]:
    """The splits that were not trained on."""
    return [split for split in model.splits if split != "train"]


def _notes(results: Results, model: ReportedModel) -> list[Block]:
    """Notes on problems of the predictions."""
    found: list[Block] = []
    if model.remark:
        found.append(Note("warning", f"{model.remark}: {model.title} is shown instead."))
    if results.data.finals.opened and "test" not in model.splits:
        found.append(Note("warning", "The test split was opened, but these predictions contain no test images."))
    for split in model.splits:
        name = formats.SPLIT_NAMES[split]
        never = results.never_predicted(split) if split != "train" else []
        if never:
            found.append(Note("warning", f"Never predicted on {name}: {formats.some_of(never)}."))
        absent = results.absent(split)
        if absent:
            text = f"No {name} image has {formats.some_of(absent)}: recall, F1 and AUROC of such a class are undefined "
            found.append(Note("warning", text + "(a dash), and its F1 counts as 0 in macro F1."))
    if "val" not in model.splits:
        return [*found, Note("warning", "The saved predictions contain no validation images.")]
    recomputed = results.point_scores("val").get(results.data.metric.removeprefix("val_"), math.nan)
    if wrong := contradict(recomputed, model.recorded, results.data.run.sweep, model.predictions.of("val")):
        found.append(Note("error", f"The saved {wrong}."))
    return found


def _below(results: Results, model: ReportedModel) -> str:
    """How the intervals of the chapter were computed: stated once."""
    points, classes = results.operating, model.predictions.classes
    pairs: list[tuple[Scores | None, str]] = []
    for split in _scored(model):
        scores, mean, absent = results.model_scores(split), results.scores(split), results.absent(split)
        pairs += [(scores, name) for name in OVERALL]
        pairs += [
            (mean, f"{key}:{name}") for name in classes for key in OF_A_CLASS if key != "f1" or name not in absent
        ]
    for one in points.scores if points is not None else ():
        names = (f"{key}:{name}" for name in one.classes for key in (*RATIOS.values(), PPV_AT_PREVALENCE))
        pairs += [(one, name) for name in names if name in one.estimate]
    return intervals.below(pairs)


def _split_scores(results: Results, model: ReportedModel) -> Table:
    """Train, validation and test side by side, to show overfitting."""
    rows: list[dict[str, Any]] = []
    titles = {f"{key}_shown": formats.score_name(key, results.data.task) for key in OVERALL}
    # Training images may be many: they are resampled only if there are no other images.
    scores = results.model_scores(next(iter(_scored(model)), "train"))
    titles["kappa_shown"] += "" if scores is None else intervals.qualifier(scores, "kappa")
    for split in model.splits:
        runs, alone, seen = results.runs(split), results.model_runs(split), split == "train"
        assert runs is not None
        assert alone is not None
        row: dict[str, Any] = {"split": formats.SPLIT_NAMES[split], "images": len(alone.paths)}
        row |= {"patients": alone.patients}
        row |= intervals.cells(None if seen else results.model_scores(split), {key: key for key in OVERALL})
        if seen:  # no interval: training splits are large, and their scores optimistic
            point = {key: results.point_scores(split)[key] for key in OVERALL}
            row |= point | {f"{key}_shown": formats.show("score", value) for key, value in point.items()}
        elif len(runs.names) > 1:
            titles["f1_macro_mean_shown"] = f"macro F1, mean of {len(runs.names)} repeats"
            row |= intervals.cells(results.scores(split), {"f1_macro_mean": "f1_macro"})
        rows.append(row)
    caption = "The same network on each split; it was trained on the training images."
    return Table("split_scores", caption, pd.DataFrame(rows), columns("split", "images", "patients", **titles))


def _per_class(results: Results, split: str) -> Table:
    """Scores by class, means over all repeats; AUROC is the same as everywhere on the page."""
    scores, runs = results.scores(split), results.runs(split)
    assert runs is not None
    counts = zip(runs.classes, runs.truth.sum(axis=0), runs.known.sum(axis=0), strict=True)
    rows = [
        {"class": name, "images": int(images), "known": int(known)}
        | intervals.cells(scores, {key: f"{key}:{name}" for key in OF_A_CLASS})
        | (intervals.cells(None, {"f1": ""}) if not images else {})  # 0/0, which counts as 0 only in a mean
        for name, images, known in counts
    ]
    caption = f"Scores by class: {formats.SPLIT_NAMES[split]}, {results.whose(split)}."
    facts = ("class", "images", *(() if runs.known.all() else ("known",)))
    shown = columns(*facts, **{f"{key}_shown": title for key, title in OF_A_CLASS.items()})
    folded = split != results.split
    return Table(f"per_class_{split}", caption, pd.DataFrame(rows), shown, folded=folded, latex=not folded)


def at_operating_point(results: Results) -> str:
    """The operating point and the model file's scores there, or why there is none; "" if none was requested."""
    point, scores, found = results.operating_point, results.point_scored, _point(results)
    if point is None or point.threshold is None:
        return found
    if scores is None:
        return f"{found}; the winner's predictions cannot be read"
    reached = [f"{key} {_in_words(scores, f'{ratio}:{point.label}')}" for key, ratio in RATIOS.items()]
    if results.prevalence is not None:
        elsewhere = _in_words(scores, f"{PPV_AT_PREVALENCE}:{point.label}")
        reached.append(f"PPV {elsewhere} at a prevalence of {results.prevalence:g}")
    return f"{found}; the model file on {results.split_name}: {', '.join(reached)}"


def _point(results: Results) -> str:
    asked, point = results.data.run.sweep.target, results.operating_point
    if point is not None or asked is None:
        return "" if point is None else point.words
    kind, label, target = asked
    return f"none: {kind} {target:g} of {label} was asked for, but no winner with validation predictions was selected"


def _in_words(scores: Scores, name: str) -> str:
    if intervals.is_undefined(scores, name):
        return "undefined"
    return intervals.plain(interval(scores, name))


def _story(results: Results, points: OperatingPoints, model: ReportedModel) -> str:
    """How the network decides, and where thresholds come from."""
    point, single = results.operating_point, model.predictions.label.ndim == 1
    if results.data.run.sweep.target is None:
        return _usual(results, points, model)
    text = f"Operating point: {_point(results)}."
    if point is None or point.threshold is None:
        return f"{text} {_usual(results, points, model)}"
    text += f" It was chosen on {point.positives:,} images of {point.label} among {point.images:,}."
    if not single:
        return f"{text} {_usual(results, points, model)}"
    text += " Below the threshold, the likeliest other class is predicted."
    return f"{text}{_flattered(results)} All other results on this page except the examples use the likeliest class."


def _flattered(results: Results) -> str:
    return "" if results.split == "test" else " It was chosen on the images scored here: the scores are optimistic."


def _usual(results: Results, points: OperatingPoints, model: ReportedModel) -> str:
    flattered = _flattered(results)
    cut = points.cut
    if model.predictions.label.ndim == 2:
        text = f"Each label is decided separately, at a probability of {UNTUNED} as in the search"
        if not model.thresholds:
            return f"{text}; no thresholds were tuned."
        kept = [name for name in model.predictions.classes if model.thresholds.get(name, UNTUNED) == UNTUNED]
        few = f" Not tuned, because of too few positives on validation: {formats.listing(kept)}." if kept else ""
        return f"{text} and at its tuned threshold (see the methods).{few}{flattered}"
    if cut is None or cut.threshold is None:
        return "The network predicts the likeliest class."
    many = cut.runs > 1
    pooled = f"the validation predictions of {cut.runs} repeats, pooled" if many else "its validation predictions"
    return (
        f"The network predicts the likeliest class. An alternative rule predicts {cut.label} at a probability of at "
        f"least {shown_threshold(cut.threshold)}, which maximises sensitivity plus specificity (Youden's J) on "
        f"{pooled} ({cut.positives:,} images of {cut.label} among {cut.images:,}).{flattered}"
    )
