"""Section 4: what the best trial confuses, recomputed from its saved predictions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports import evaluation_tables, figures, formats, wording
from reports.blocks import Block, Column, Heading, Note, Picture, Pictures, Section, Table, Text
from reports.evidence import Evidence
from sweep.records import Predictions

SPLITS = ("train", "val")
TOLERANCE = 5e-4


def section(evidence: Evidence) -> Section:
    title = "Confusion matrices of the best trial"
    predictions = evidence.predictions
    if evidence.best is None:
        return Section("confusion", title, (Text("There is no best trial."),))
    if predictions is None:
        text = "The best trial's predictions are not on disk (they are written when a trial ends), or are damaged."
        return Section("confusion", title, (Note("info", text),))
    splits = [split for split in SPLITS if (predictions.split == split).any()]
    blocks: list[Block] = [
        Text(
            f"Trial {evidence.best['number']:.0f}, weights of epoch {predictions.epoch}, counted from its saved "
            "predictions in evaluation mode: dropout and augmentation off. Training accuracy in the curves below is a "
            "running mean in train mode and may differ."
        )
    ]
    blocks += _checks(evidence, predictions, splits)
    pictures, counted = [], []
    for split in splits:
        counts = evaluation_tables.matrix(predictions, split)
        picture, table = _of_split(evidence, predictions, split, counts)
        pictures.append(picture)
        counted += table
    blocks += [Pictures(tuple(pictures)), Heading("Scores of each class")]
    blocks += [_per_class(evidence, predictions, split) for split in reversed(splits)]
    blocks += [Heading("The matrices as tables"), *counted]
    return Section("confusion", title, tuple(blocks))


def _checks(evidence: Evidence, predictions: Predictions, splits: list[str]) -> list[Block]:
    blocks: list[Block] = []
    if "val" not in splits:
        return [Note("warning", "The saved predictions hold no validation images.")]
    never = evaluation_tables.never_predicted(predictions, "val")
    if never:
        blocks.append(Note("warning", f"Never predicted on validation: {wording.listing(never)}."))
    recomputed = evaluation_tables.overall(predictions, "val").get(evidence.metric.removeprefix("val_"), math.nan)
    recorded = float((evidence.best or {})["score"])
    if math.isfinite(recomputed) and abs(recomputed - recorded) > TOLERANCE:
        text = f"The saved predictions give {formats.score(recomputed)}, the trial recorded {formats.score(recorded)}"
        blocks.append(Note("error", text + ": one of the two is damaged."))
    return blocks


def _of_split(
    evidence: Evidence, predictions: Predictions, split: str, counts: np.ndarray
) -> tuple[Picture, list[Table]]:
    name = wording.SPLIT_NAMES[split]
    shares = evaluation_tables.row_normalised(counts)
    classes = predictions.classes
    basis = evidence.basis(split)
    if counts.ndim == 3:
        drawing = figures.label_matrices(counts, shares, classes)
        frame = evaluation_tables.label_frame(counts, classes)
        wrong = int(counts[:, 0, 1].sum() + counts[:, 1, 0].sum())
        alt = f"One 2 by 2 matrix a label, {name} split: {wrong} of {int(counts.sum())} label decisions are wrong."
        whole = tuple(Column(key, key, "integer") for key in ("TN", "FP", "FN", "TP"))
        ratios = tuple(Column(key, key, "score") for key in ("sensitivity", "specificity", "PPV", "NPV"))
        tables = [
            Table(
                name=f"labels_{split}",
                caption=f"Decisions at a probability of 0.5, {name}. {basis}",
                frame=frame,
                columns=(Column("label", "label"), *whole, *ratios),
            )
        ]
        picture_caption = f"{name.capitalize()}: one matrix a label, rows true, at a probability of 0.5. {basis}"
    else:
        drawing = figures.confusion(counts, shares, classes)
        right = int(np.trace(counts))
        alt = f"Confusion matrix, {name} split: {right} of {int(counts.sum())} images on the diagonal."
        shown = evaluation_tables.matrix_frame(counts, classes)
        tables = [
            _matrix_table(
                f"confusion_{split}", f"{name.capitalize()}: images, rows true, columns predicted.", shown, "integer"
            ),
            _matrix_table(
                f"confusion_{split}_shares",
                f"{name.capitalize()}: share of each true class. {basis}",
                _with_shares(shown, shares),
                "score",
            ),
        ]
        picture_caption = f"{name.capitalize()}: images, and the share of the true class (shade). {basis}"
    picture = Picture(
        name=f"confusion_{split}",
        caption=picture_caption,
        alt=alt,
        drawing=drawing,
    )
    return picture, tables


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


def _per_class(evidence: Evidence, predictions: Predictions, split: str) -> Table:
    names = {"recall": "recall (sensitivity)", "f1": "F1", "auroc": "AUROC"}
    return Table(
        name=f"per_class_{split}",
        caption=f"{wording.SPLIT_NAMES[split].capitalize()}: scores of each class, one against the rest.",
        frame=evaluation_tables.per_class(predictions, split),
        columns=(
            Column("class", "class"),
            Column("images", "images", "integer"),
            *(Column(key, names.get(key, key), "score") for key in evaluation_tables.PER_CLASS),
        ),
    )
