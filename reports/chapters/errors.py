"""What the network confuses, how well it does in each split and class, where it decides, and in whom it fails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import figures, formats, intervals
from reports.blocks import Block, Chapter, Column, Figure, Figures, Note, Table, Text
from reports.intervals import FEW_GROUPS
from reports.probabilities import MOST_VALUES, OperatingPoints, Subgroup, digits
from reports.results import ReportedModel, Results
from trainables.metrics import UNTUNED

MOST_CLASSES = 6
"""Of a matrix in the summary."""
TITLE = "Confusion and operating points"
TOLERANCE = 5e-4
OVERALL = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1_macro": "macro F1"}
OF_A_CLASS = {"precision": "precision", "recall": "recall", "specificity": "specificity", "f1": "F1", "auroc": "AUROC"}
RATIOS = {"sensitivity": "recall", "specificity": "specificity", "PPV": "precision", "NPV": "npv"}
COUNTS = ("TP", "FN", "FP", "TN")
CAUTION = "Differences between subgroups may come from chance, or from another mix of classes within them."


def chapter(results: Results) -> Chapter:
    """The matrix of the split that judges stands in the summary where it has room for it."""
    model = results.model
    if model is None:
        text = "There is no best trial."
        if results.data.best is not None:
            text = "The best trial's predictions are not on disk (they are written when a trial ends), or are damaged."
        return Chapter("errors", TITLE, (Note("info", text),))
    bases = " ".join(dict.fromkeys(map(results.basis, model.splits)))
    words = (
        f"{formats.capital(model.title)}, weights of epoch {model.predictions.epoch}. {bases} {_below(results, model)}"
    )
    blocks: list[Block] = [Text(formats.escape(words)), *_notes(results, model)]
    matrices = [
        confusion_figure(results.confusion(split), model.predictions.classes, split)
        for split in model.splits
        if not in_summary(results, split)
    ]
    blocks += [*([Figures(tuple(matrices))] if matrices else []), _split_scores(results, model)]
    if model.judged is not None:
        blocks += [_per_class(results, split) for split in _scored(model)[::-1]]
    if results.operating is not None:
        blocks += _operating(results, results.operating, model)
    if results.subgroups is not None:
        subgroups, cut_short = results.subgroups
        chosen = "" if results.split == "test" else " The network was selected on these images."
        text = CAUTION + chosen + _rest(cut_short)
        blocks += [Text(f"### Subgroups\n\n{text}"), subgroup_table(subgroups, _judged(results), _asked(results))]
    return Chapter("errors", TITLE, tuple(blocks))


def in_summary(results: Results, split: str) -> bool:
    """Whether the summary shows the matrix of ``split``; it has no room for several labels, or for many classes."""
    model = results.model
    if model is None or split != results.split or split not in model.splits:
        return False
    return model.predictions.label.ndim == 1 and len(model.predictions.classes) <= MOST_CLASSES


def confusion_figure(
    counts: npt.NDArray[np.int64], classes: Sequence[str], split: str, name: str = "", of: str = ""
) -> Figure:
    """The matrix of counts, shaded by the share of each true class; its numbers go to the figure's CSV.

    counts: [C, C] with true classes as rows, or [C, 2, 2] of several labels. name: "confusion_<split>" where it is
    empty. of: whose it is, the beginning of the caption.
    """
    title = formats.capital(of + formats.SPLIT_NAMES.get(split, split))
    totals = counts.sum(axis=-1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, math.nan), where=totals > 0)
    if counts.ndim == 3:
        wrong = int(counts[:, 0, 1].sum() + counts[:, 1, 0].sum())
        drawing = figures.label_matrices(counts, shares, classes)
        alt = f"One 2 by 2 matrix a label, {title}: {wrong} of {int(counts.sum())} decisions are wrong."
        caption = f"{title}: one matrix a label, rows true, decided at a probability of {UNTUNED}."
        frame = pd.DataFrame(counts.reshape(len(counts), 4), columns=["TN", "FP", "FN", "TP"])
    else:
        drawing = figures.confusion(counts, shares, classes)
        alt = f"Confusion matrix, {title}: {int(np.trace(counts))} of {int(counts.sum())} on the diagonal."
        caption = f"{title}: images, and the share of the true class (shade)."
        frame = pd.DataFrame(counts, columns=[f"predicted {one}" for one in classes])
    frame.insert(0, "label" if counts.ndim == 3 else "true class", list(classes))
    return Figure(name or f"confusion_{split}", caption, alt, drawing, frame)


def operating_table(points: OperatingPoints, split: str, positive: str | None = None) -> Table:
    """One row a class and rule, the rules of a class together; of ``positive`` alone where it is given."""
    rows: list[dict[str, Any]] = []
    for name in points.rules[0].classes if positive is None else (positive,):
        for rule, scores in zip(points.rules, points.scores, strict=True):
            if name not in rule.classes:
                continue
            place = rule.classes.index(name)
            truth, decided = rule.truth[:, place], rule.decided[:, place]
            counts = [int((truth == a)[decided == b].sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
            facts = {"class": name, "decided if": rule.words[place], "threshold": rule.threshold[place]}
            cells = intervals.cells(scores, {key: f"{ratio}:{name}" for key, ratio in RATIOS.items()})
            rows.append(facts | dict(zip(COUNTS, counts, strict=True)) | cells)
    columns = (
        *(Column(key, key) for key in ("class", "decided if")),
        *(Column(key, key, "integer") for key in COUNTS),
        *intervals.columns({key: key for key in RATIOS}),
    )
    caption = "Decisions of the network, each class against the rest."
    return Table(f"operating_points_{split}", caption, pd.DataFrame(rows), columns)


def subgroup_table(subgroups: Iterable[Subgroup], split: str, positive: str | None = None) -> Table:
    """One row a subgroup, the first of all images. A macro F1 is given only where every class is there."""
    rows: list[dict[str, Any]] = []
    pairs = []
    wanted = {"accuracy": "accuracy", "f1_macro": "f1_macro"} | (
        {"sensitivity": f"recall:{positive}"} if positive else {}
    )
    for one in subgroups:
        defined = {key: score for key, score in wanted.items() if key != "f1_macro" or not one.absent}
        pairs += [(one.scores, score) for score in defined.values()]
        row = {"column": one.column, "value": one.value, "images": one.images, "patients": one.patients}
        missing = {f"{key}{end}": math.nan for key in wanted for end in ("", "_low", "_high", "_shown")}
        rows.append(row | missing | intervals.cells(one.scores, defined) | {"remark": _remark(one)})
    titles = {"accuracy": "exact match" if "exact_match" in pairs[0][0].estimate else "accuracy"}
    titles |= {"f1_macro": "macro F1"} | ({"sensitivity": f"sensitivity, {positive}"} if positive else {})
    columns = (
        *(Column(key, key) for key in ("column", "value")),
        *(Column(key, key, "integer") for key in ("images", "patients")),
        *intervals.columns(titles),
        Column("remark", "remark"),
    )
    return Table(
        f"subgroup_scores_{split}", f"Scores by subgroup. {intervals.below(pairs)}", pd.DataFrame(rows), columns
    )


def _judged(results: Results) -> str:
    assert results.split is not None
    return results.split


def _asked(results: Results) -> str | None:
    """The class of --positive-class, if the data has it."""
    asked = results.data.run.sweep.positive_class
    return asked if asked in results.data.classes else None


def _scored(model: ReportedModel) -> list[str]:
    """The splits whose scores say something about images that were not trained on."""
    return [split for split in model.splits if split != "train"]


def _notes(results: Results, model: ReportedModel) -> list[Block]:
    """What is odd about the predictions."""
    found = []
    if model.remark:
        found.append(Note("warning", f"{model.remark}: {model.title} is shown instead."))
    finals = results.data.run.finals
    if finals is not None and finals.opened and "test" not in model.splits:
        found.append(Note("warning", "The test split was opened, but these predictions hold no test images."))
    for split in model.splits:
        name = formats.SPLIT_NAMES[split]
        never = results.never_predicted(split) if split != "train" else []
        if never:
            found.append(Note("warning", f"Never predicted on {name}: {formats.listing(never)}."))
        absent = results.absent(split)
        if absent:
            text = f"No {name} image has {formats.listing(absent)}: the scores of such a class are undefined there "
            found.append(Note("warning", text + "(a dash), and it counts as 0 in the macro F1."))
    if "val" not in model.splits:
        return [*found, Note("warning", "The saved predictions hold no validation images.")]
    recomputed = results.point_scores("val").get(results.data.metric.removeprefix("val_"), math.nan)
    if abs(recomputed - model.recorded) > TOLERANCE:
        text = f"The saved predictions give {formats.score(recomputed)}, the run recorded "
        found.append(Note("error", f"{text}{formats.score(model.recorded)}: one of the two is damaged."))
    return [*found]


def _below(results: Results, model: ReportedModel) -> str:
    """How the intervals of the chapter were made: said once."""
    points = results.operating
    pairs = []
    for split in _scored(model):
        scores, mean = results.model_scores(split), results.scores(split)
        assert scores is not None
        assert mean is not None
        pairs += [(scores, name) for name in OVERALL]
        pairs += [(mean, f"{key}:{name}") for name in mean.classes for key in OF_A_CLASS]
    for one in points.scores if points is not None else ():
        pairs += [(one, f"{key}:{name}") for name in one.classes for key in RATIOS.values()]
    return intervals.below(pairs)


def _split_scores(results: Results, model: ReportedModel) -> Table:
    """Train, validation and test side by side: what was learned by heart, and what carries over."""
    rows: list[dict[str, Any]] = []
    titles = OVERALL | ({"accuracy": "exact match"} if model.predictions.label.ndim == 2 else {})
    for split in model.splits:
        runs, alone = results.runs(split), results.model_runs(split)
        scores, mean = (None, None) if split == "train" else (results.model_scores(split), results.scores(split))
        assert runs is not None
        assert alone is not None
        row: dict[str, Any] = {
            "split": formats.SPLIT_NAMES[split],
            "images": len(alone.paths),
            "patients": alone.patients,
        }
        if scores is None:
            point = {key: results.point_scores(split)[key] for key in OVERALL}
            row |= point | {f"{key}_shown": formats.score(value) for key, value in point.items()}
        else:
            row |= intervals.cells(scores, {key: key for key in OVERALL})
        if mean is not None and len(runs.names) > 1:
            titles["f1_macro_mean"] = f"macro F1, mean of {len(runs.names)} repeats"
            row |= intervals.cells(mean, {"f1_macro_mean": "f1_macro"})
        rows.append(row)
    columns = (
        Column("split", "split"),
        *(Column(key, key, "integer") for key in ("images", "patients")),
        *intervals.columns(titles),
    )
    return Table(
        "split_scores", "The same network on each split; the training images it has seen.", pd.DataFrame(rows), columns
    )


def _per_class(results: Results, split: str) -> Table:
    """Of all repeats; AUROC as everywhere on the page."""
    scores, runs = results.scores(split), results.runs(split)
    assert scores is not None
    assert runs is not None
    rows = [
        {"class": name, "images": int(images)} | intervals.cells(scores, {key: f"{key}:{name}" for key in OF_A_CLASS})
        for name, images in zip(runs.classes, runs.truth.sum(axis=0), strict=True)
    ]
    columns = (Column("class", "class"), Column("images", "images", "integer"), *intervals.columns(OF_A_CLASS))
    caption = f"Scores of each class: {formats.SPLIT_NAMES[split]}, {results.whose(split)}."
    folded = split != results.split
    return Table(f"per_class_{split}", caption, pd.DataFrame(rows), columns, folded=folded, latex=not folded)


def _operating(results: Results, points: OperatingPoints, model: ReportedModel) -> list[Block]:
    split = _judged(results)
    text = "PPV and NPV hold where a class is as frequent as here."
    blocks: list[Block] = [Text(f"### Operating points\n\n{formats.escape(_story(results, points, model))} {text}")]
    asked = results.data.run.sweep.positive_class
    if asked and _asked(results) is None:
        blocks.append(Note("warning", f"--positive-class {asked}: there is no such class in the data."))
    return [*blocks, operating_table(points, split, _asked(results))]


def _story(results: Results, points: OperatingPoints, model: ReportedModel) -> str:
    """How the network decides, and where a second threshold comes from."""
    flattered = "" if results.split == "test" else " It was chosen on the very images scored here, which flatters it."
    cut = points.cut
    if model.predictions.label.ndim == 2:
        text = f"Each label is decided by itself, at a probability of {UNTUNED} as in the search"
        if not model.thresholds:
            return f"{text}; no thresholds were tuned."
        kept = [name for name in model.predictions.classes if model.thresholds.get(name, UNTUNED) == UNTUNED]
        few = f" Not tuned, for lack of positives on validation: {formats.listing(kept)}." if kept else ""
        return f"{text} and at its tuned threshold (see the methods).{few}{flattered}"
    if cut is None:
        return "The network answers with the likeliest class."
    pooled = (
        f"the validation predictions of {cut.runs} repeats, pooled" if cut.runs > 1 else "its validation predictions"
    )
    return (
        f"The network answers with the likeliest class. Also, {cut.label} is decided from a probability of "
        f"{digits(cut.threshold)}: the greatest sensitivity plus specificity (Youden's J) on {pooled} "
        f"({cut.positives:,} images of {cut.label} among {cut.images:,}).{flattered}"
    )


def _rest(cut_short: tuple[str, ...]) -> str:
    if not cut_short:
        return ""
    return f" Only the {MOST_VALUES} most frequent values are shown of {formats.escape(formats.listing(cut_short))}."


def _remark(one: Subgroup) -> str:
    """What makes the row's numbers weak."""
    unit = "patients" if one.scores.resamples.named else "images"
    remarks = [f"small: fewer than {FEW_GROUPS} {unit}"] if one.small else []
    return "; ".join(remarks + ([f"without {formats.listing(one.absent)}: no macro F1"] if one.absent else []))
