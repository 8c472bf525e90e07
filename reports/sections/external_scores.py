"""The scores of an external evaluation class by class: the tables of the report, of one network on other images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_curve

from reports.external_evidence import SPLIT, External
from reports.page import figures, figures_evaluation, formats
from reports.page.blocks import Block, Column, Heading, Picture, Section, Table, Text
from reports.page.figures_evaluation import MOST_PANELS, CurvePanel
from reports.scores import evaluation_tables, interval_cells
from reports.scores.resampled_scores import decisions
from reports.sections import discrimination, operating, probabilities, subgroups

MOST_MISTAKES = 25


def confusion_section(external: External) -> Section:
    predictions = external.evaluation.predictions
    counts = evaluation_tables.matrix(predictions, SPLIT)
    shares = evaluation_tables.row_normalised(counts)
    if external.several:
        drawing = figures.label_matrices(counts, shares, predictions.classes)
        alt = "One 2 by 2 matrix a label, decided at a probability of 0.5."
        caption = "Images, and the share of those with and without the label (shade), decided at 0.5."
    else:
        drawing = figures.confusion(counts, shares, predictions.classes)
        alt = f"Confusion matrix: {int(np.trace(counts))} of {int(counts.sum())} on the diagonal."
        caption = "Images, and the share of the true class (shade)."
    picture = Picture(name="confusion", caption=caption, alt=alt, drawing=drawing)
    rules = operating.decision_rules(external.images, external.tuned, None, None)
    frame, scored = operating.table(rules, external.images.resamples)
    pairs = ((one, f"{ratio}:{name}") for one in scored for name in one.classes for ratio in operating.RATIOS.values())
    columns = (
        Column("class", "label" if external.several else "class"),
        Column("decided if", "decided if"),
        *(Column(key, key, "integer") for key in ("TP", "FN", "FP", "TN")),
        *interval_cells.columns({key: key for key in operating.RATIOS}),
    )
    text = "PPV and NPV depend on how frequent a class is among these images; elsewhere they are others."
    table = Table(name="decisions", caption=interval_cells.below(pairs), frame=frame, columns=columns)
    blocks: list[Block] = [picture, Heading("Each class against the rest"), Text(text), table, _f1(external)]
    return Section("confusion", "What is confused with what", tuple(blocks))


def discrimination_section(external: External) -> Section:
    images, scores = external.images, external.scores
    names = images.classes[:MOST_PANELS]
    areas = {name: formats.show("score", scores.estimate[f"auroc:{name}"]) for name in names}
    panels = []
    for place, name in enumerate(names):
        truth = _truth(external)[:, place]
        if not truth.any() or truth.all():
            panels.append(CurvePanel(name, (), "undefined:\nno image has it" if not truth.any() else "undefined"))
            continue
        false_positive, sensitivity, _ = roc_curve(truth, images.probabilities[0, :, place])
        curve = figures_evaluation.thinned(false_positive, sensitivity)
        panels.append(CurvePanel(name, [curve], f"AUROC {areas[name]}"))
    rest = f" The first {MOST_PANELS} of {len(images.classes)} classes." if len(names) < len(images.classes) else ""
    picture = Picture(
        name="roc",
        caption=f"ROC curves, each class against the rest.{rest}",
        alt=f"ROC curves; area of each: {', '.join(f'{name} {area}' for name, area in areas.items())}.",
        drawing=figures_evaluation.roc(panels),
    )
    pairs = [(scores, f"{area}:{name}") for area in discrimination.AREAS.values() for name in images.classes]
    columns = (
        Column("class", "class"),
        Column("images", "images", "integer"),
        Column("share", "share", "percent"),
        *interval_cells.columns(discrimination.TITLES),
    )
    frame = discrimination.table(images, scores)
    table = Table(name="discrimination", caption=interval_cells.below(pairs), frame=frame, columns=columns)
    return Section("discrimination", "Discrimination", (picture, table))


def calibration_section(external: External) -> Section:
    stated = probabilities.claims(external.images)
    scores = probabilities.scored(external.images, stated)
    columns = (
        Column("probability of", "probability of"),
        Column("given", "mean given", "score"),
        Column("observed", "observed share", "score"),
        *interval_cells.columns({"difference": "given less observed"}),
        Column("ECE", "ECE", "score"),
        *interval_cells.columns({"Brier": "Brier score"}),
    )
    text = (
        "Whether a probability can be taken at its word here: what the model gave, and how often it came true. ECE is "
        "the expected calibration error in ten bins, the Brier score the mean squared error; of both, 0 is best."
    )
    pairs = [(scores, f"{measure}{one.key}") for one in stated for measure in ("difference", "brier")]
    frame = probabilities.table(external.images, stated, scores)
    table = Table(name="calibration", caption=interval_cells.below(pairs), frame=frame, columns=columns)
    return Section("calibration", "Calibration", (Text(text), table))


def subgroup_section(external: External) -> Section | None:
    """None where no subgroup column was given."""
    if not any(str(name).startswith(subgroups.PREFIX) for name in external.evaluation.rows.columns):
        return None
    frame, scored, cut_short = subgroups.table(external.as_rows(), external.images, None)
    titles = {"accuracy": "exact match" if external.several else "accuracy", "f1_macro": "macro F1"}
    text = subgroups.CAUTION
    if external.tuned:
        text += " Labels are decided at 0.5 here."
    if cut_short:
        text += f" Only the {subgroups.MOST_VALUES} most frequent values of a column are shown."
    table = Table(
        name="subgroups", caption=interval_cells.below(scored), frame=frame, columns=subgroups.columns(titles)
    )
    return Section("subgroups", "Subgroups", (Text(text), table))


def mistakes_section(external: External) -> Section:
    frame = mistakes(external)
    if frame.empty:
        return Section("mistakes", "Mistakes", (Text("There are none."),))
    shown = min(len(frame), MOST_MISTAKES)
    caption = f"The {shown} of {len(frame):,} wrong answers that the model was surest of."
    columns = (
        Column("image", "image"),
        Column("labelled", "labelled"),
        Column("decided", "decided"),
        Column("probability", "its probability", "score"),
    )
    table = Table(name="mistakes", caption=caption, frame=frame.head(MOST_MISTAKES), columns=columns)
    return Section("mistakes", "Mistakes", (table,))


def mistakes(external: External) -> pd.DataFrame:
    """One row a wrong answer, the surest first: image, labelled, decided, probability (of what was decided)."""
    images, classes = external.images, external.images.classes
    task = "multi_label" if external.several else "single_label"
    given = images.probabilities[0].astype(np.float64)
    decided, truth = decisions(given, classes, external.tuned, task), _truth(external)
    rows = []
    for row, place in zip(*np.nonzero(decided != truth if external.several else decided & ~truth), strict=True):
        name, probability = classes[place], float(given[row, place])
        if external.several:
            labelled = name if truth[row, place] else f"no {name}"
            answer = name if decided[row, place] else f"no {name}"
            probability = probability if decided[row, place] else 1 - probability
        else:
            labelled, answer = classes[int(images.labels[row])], name
        rows.append((str(images.paths[row]), labelled, answer, probability))
    frame = pd.DataFrame(rows, columns=["image", "labelled", "decided", "probability"])
    return frame.sort_values("probability", ascending=False, kind="stable", ignore_index=True)


def _f1(external: External) -> Table:
    classes, scores = external.images.classes, external.scores
    rows = [{"class": name} | interval_cells.cells(scores, {"F1": f"f1:{name}"}) for name in classes]
    columns = (Column("class", "class"), *interval_cells.columns({"F1": "F1"}))
    caption = interval_cells.below((scores, f"f1:{name}") for name in classes)
    return Table(name="f1", caption=f"F1 of each class. {caption}", frame=pd.DataFrame(rows), columns=columns)


def _truth(external: External) -> npt.NDArray[np.bool_]:
    """bool [N, C]."""
    labels = external.images.labels
    found: npt.NDArray[np.bool_] = (
        labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(external.images.classes))
    )
    return found
