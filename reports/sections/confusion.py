"""Section 4: what the network confuses, how well it does in each split, and where it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from reports.data import ReportData, in_counts
from reports.page import figures, formats, wording
from reports.page.blocks import Block, Column, Heading, Note, Picture, Pictures, Section, Table, Text
from reports.scores import evaluation_tables, interval_cells
from reports.scores.shown import ReportedModel, alone_on, runs_on, shown
from reports.sections import operating, subgroups

TITLE = "What is confused with what"
TOLERANCE = 5e-4


def section(evidence: ReportData) -> Section:
    network = shown(evidence)
    if network is None and evidence.best is None:
        return Section("confusion", TITLE, (Text("There is no best trial."),))
    if network is None:
        text = "The best trial's predictions are not on disk (they are written when a trial ends), or are damaged."
        return Section("confusion", TITLE, (Note("info", text),))
    blocks: list[Block] = [Text(_what_is_shown(network)), *_checks(evidence, network)]
    pictures, counted = [], []
    for split in network.splits:
        picture, tables = _matrix(network, split)
        pictures.append(picture)
        counted += tables
    blocks += [Pictures(tuple(pictures)), *_split_scores(evidence, network)]
    blocks += [Heading("Scores of each class"), *(_per_class(network, split) for split in reversed(network.splits))]
    blocks += operating.blocks(evidence, network)
    blocks += subgroups.blocks(evidence)
    blocks += [Heading("The matrices as tables"), *counted]
    return Section("confusion", TITLE, tuple(blocks))


def _what_is_shown(network: ReportedModel) -> str:
    name = network.title[0].upper() + network.title[1:]
    return (
        f"{name}, weights of epoch {network.predictions.epoch}, counted from its saved predictions in evaluation mode: "
        "dropout and augmentation off. Training accuracy in the curves is a running mean in train mode and may differ."
    )


def _checks(evidence: ReportData, network: ReportedModel) -> list[Block]:
    blocks: list[Block] = []
    if network.remark:
        blocks.append(Note("warning", f"{network.remark}: {network.title} is shown instead."))
    finals = evidence.run.finals
    if finals is not None and finals.opened and "test" not in network.splits:
        blocks.append(Note("warning", "The test split was opened, but these predictions hold no test images."))
    for split in ("test", "val"):
        never = evaluation_tables.never_predicted(network.predictions, split) if split in network.splits else []
        if never:
            blocks.append(
                Note("warning", f"Never predicted on {wording.SPLIT_NAMES[split]}: {wording.listing(never)}.")
            )
    absent = [(split, _absent(network, split)) for split in network.splits]
    for split, names in absent:
        if names:
            text = (
                f"No {wording.SPLIT_NAMES[split]} image has {wording.listing(names)}: the scores of such a class are "
            )
            blocks.append(Note("warning", text + "undefined there (a dash), and it counts as 0 in the macro F1."))
    if "val" not in network.splits:
        return [*blocks, Note("warning", "The saved predictions hold no validation images.")]
    scores = evaluation_tables.overall(network.predictions, "val")
    recomputed = scores.get(evidence.metric.removeprefix("val_"), math.nan)
    if abs(recomputed - network.recorded) > TOLERANCE:
        text = f"The saved predictions give {formats.score(recomputed)}, the run recorded "
        text += f"{formats.score(network.recorded)}: one of the two is damaged."
        blocks.append(Note("error", text))
    return blocks


def _absent(network: ReportedModel, split: str) -> list[str]:
    return [name for name, count in evaluation_tables.class_counts(network.predictions, split).items() if not count]


def _matrix(network: ReportedModel, split: str) -> tuple[Picture, list[Table]]:
    predictions, name = network.predictions, wording.SPLIT_NAMES[split].capitalize()
    counts = evaluation_tables.matrix(predictions, split)
    shares = evaluation_tables.row_normalised(counts)
    basis = _basis(network, split)
    if counts.ndim == 3:
        drawing = figures.label_matrices(counts, shares, predictions.classes)
        wrong = int(counts[:, 0, 1].sum() + counts[:, 1, 0].sum())
        alt = f"One 2 by 2 matrix a label, {name.lower()} split: {wrong} of {int(counts.sum())} decisions are wrong."
        caption = f"{name}: one matrix a label, rows true, at a probability of 0.5. {basis}"
        tables = [_label_table(network, split, counts, basis)]
    else:
        drawing = figures.confusion(counts, shares, predictions.classes)
        alt = f"Confusion matrix, {name.lower()} split: {int(np.trace(counts))} of {int(counts.sum())} on the diagonal."
        caption = f"{name}: images, and the share of the true class (shade). {basis}"
        frame = evaluation_tables.matrix_frame(counts, predictions.classes)
        title = f"{name}: images, rows true, columns predicted."
        tables = [
            _matrix_table(f"confusion_{split}", title, frame, "integer"),
            _matrix_table(
                f"confusion_{split}_shares",
                f"{name}: share of each true class. {basis}",
                _with_shares(frame, shares),
                "score",
            ),
        ]
    return Picture(name=f"confusion_{split}", caption=caption, alt=alt, drawing=drawing), tables


def _basis(network: ReportedModel, split: str) -> str:
    """The images counted: of a fold they are not those of the data set's own splits."""
    images = int((network.predictions.split == split).sum())
    return in_counts(split, evaluation_tables.class_counts(network.predictions, split), images)


def _label_table(network: ReportedModel, split: str, counts: np.ndarray, basis: str) -> Table:
    whole = tuple(Column(key, key, "integer") for key in ("TN", "FP", "FN", "TP"))
    ratios = tuple(Column(key, key, "score") for key in ("sensitivity", "specificity", "PPV", "NPV"))
    return Table(
        name=f"labels_{split}",
        caption=f"{wording.SPLIT_NAMES[split].capitalize()}: decisions at a probability of 0.5. {basis}",
        frame=evaluation_tables.label_frame(counts, network.predictions.classes),
        columns=(Column("label", "label"), *whole, *ratios),
        folded=True,
    )


def _with_shares(counts: pd.DataFrame, shares: np.ndarray) -> pd.DataFrame:
    frame = counts.copy()
    for place in range(shares.shape[1]):
        frame.isetitem(place + 1, shares[:, place])
    return frame


def _matrix_table(name: str, caption: str, frame: pd.DataFrame, kind: str) -> Table:
    # A class may be named "images" or "true class": columns get keys of their own.
    frame = frame.copy()
    titles = [str(title) for title in frame.columns]
    keys = ["true class", *(f"predicted {title}" for title in titles[1:-1]), "images"]
    frame.columns = pd.Index(keys)
    kinds = ["text", *([kind] * (len(keys) - 2)), "integer"]
    columns = tuple(Column(key, title, how) for key, title, how in zip(keys, titles, kinds, strict=True))
    return Table(name=name, caption=caption, frame=frame, columns=columns, folded=True)


def _split_scores(evidence: ReportData, network: ReportedModel) -> list[Block]:
    """Train, validation and test side by side: what was learned by heart, and what carries over."""
    rows: list[dict[str, Any]] = []
    pairs = []
    wanted = {"accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "f1_macro": "f1_macro"}
    several = 1
    for split in network.splits:
        images = alone_on(evidence, network, split)
        row: dict[str, Any] = {"split": wording.SPLIT_NAMES[split], "images": len(images.paths)}
        row["patients"] = images.patients
        if split == "train":
            overall = evaluation_tables.overall(network.predictions, split)
            row |= {key: overall[key] for key in wanted} | {
                f"{key}_shown": formats.score(overall[key]) for key in wanted
            }
        else:
            scores = images.scores()
            row |= interval_cells.cells(scores, wanted)
            runs = runs_on(evidence, split)
            pairs += [(scores, name) for name in wanted]
            if runs is not None and len(runs.names) > 1:
                several = len(runs.names)
                mean = runs.scores()
                row |= interval_cells.cells(mean, {"f1_macro_mean": "f1_macro"})
                pairs.append((mean, "f1_macro"))
        rows.append(row)
    titles = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1_macro": "macro F1"}
    if several > 1:
        titles["f1_macro_mean"] = f"macro F1, mean of {several} repeats"
    if evaluation_tables.task_of(network.predictions) == "multi_label":
        titles["accuracy"] = "exact match"
    columns = (
        Column("split", "split"),
        Column("images", "images", "integer"),
        Column("patients", "patients", "integer"),
    )
    caption = (
        f"The same network on each split; on training images it has seen the answers. {interval_cells.below(pairs)}"
    )
    frame = pd.DataFrame(rows)
    table = Table(
        name="split_scores", caption=caption, frame=frame, columns=(*columns, *interval_cells.columns(titles))
    )
    return [Heading("The splits side by side"), table]


def _per_class(network: ReportedModel, split: str) -> Table:
    names = {"recall": "recall (sensitivity)", "f1": "F1", "auroc": "AUROC"}
    return Table(
        name=f"per_class_{split}",
        caption=f"{wording.SPLIT_NAMES[split].capitalize()}: scores of each class, one against the rest.",
        frame=evaluation_tables.per_class(network.predictions, split),
        columns=(
            Column("class", "class"),
            Column("images", "images", "integer"),
            *(Column(key, names.get(key, key), "score") for key in evaluation_tables.PER_CLASS),
        ),
        folded=split == "train",
    )
