"""Section 6: the images that the network is surest of and those it gets most wrong, and the pairs it mixes up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from reports.data import ReportData
from reports.page import formats, thumbnail_lookup, wording
from reports.page.blocks import Block, Column, Heading, Note, Sample, Samples, Section, Table, Text
from reports.page.figure_style import short
from reports.scores.evaluation_tables import task_of
from reports.scores.resampled_scores import decisions
from reports.scores.shown import UNTUNED, ReportedModel, shown
from sweep.records import Predictions

TITLE = "Best and worst classified images"
MOST_PAIRS = 10
PER_CLASS = 4
PER_CLASS_OF_MANY = 3
MANY = 6
NO_LABEL = "no label"
BEST, WORST = "Best classified", "Worst classified"
FALSE_POSITIVES, FALSE_NEGATIVES = "Most confident false positives", "Most confident false negatives"
ORDERS = {
    BEST: "Images by the probability p of their true class, the highest first.",
    WORST: "Images by the probability p of their true class, the lowest first.",
    FALSE_POSITIVES: "Images that lack the label and were given it, by its probability p, the highest first.",
    FALSE_NEGATIVES: "Images that have the label and were not given it, by its probability p, the lowest first.",
}


def section(evidence: ReportData) -> Section:
    network = shown(evidence)
    if network is None or network.judged is None:
        return Section("examples", TITLE, (Text("There are no predictions to choose images from."),))
    part = network.predictions.of(network.judged)
    rows = multi_label_examples(part, network.thresholds) if task_of(part) == "multi_label" else examples(part)
    uris = thumbnail_lookup.of_files(evidence.run.paths.thumbnails, rows["path"].tolist())
    blocks: list[Block] = [Text(_how_chosen(network, part))]
    if len(rows) and not uris:
        blocks.append(Note("info", "thumbnails.npz is missing or damaged, or has none of these images: names only."))
    for kind in dict.fromkeys(rows["kind"]):
        of_kind = rows[rows["kind"] == kind]
        blocks += [Heading(kind), _gallery(of_kind, part.classes, network.judged, uris)]
    split = wording.SPLIT_NAMES[network.judged]
    listed = Table(
        name=f"examples_{network.judged}",
        caption=f"The images above, {split} split, by file.",
        frame=rows.drop(columns="note"),
        columns=(
            Column("kind", "list"),
            Column("class", "class"),
            Column("path", "file"),
            Column("probability", "probability of the class", "score"),
            Column("truth", "true"),
            Column("decision", "decided"),
        ),
        folded=True,
    )
    return Section("examples", TITLE, (*blocks, listed, *_pairs(network, part, split)))


def examples(part: Predictions) -> pd.DataFrame:
    """The images of each class with the highest and the lowest probability of it, single-label.

    Columns: kind, class, path, probability (of the true class), truth, decision, note (short, for below the image). No
    image is in both lists.
    """
    limit = _limit(part.classes)
    decided = part.probability.argmax(axis=1)
    of_truth = part.probability[np.arange(len(part.path)), part.label]
    rows: dict[str, list[dict[str, Any]]] = {BEST: [], WORST: []}
    for place, name in enumerate(part.classes):
        falling = _sorted(part, np.flatnonzero(part.label == place), -of_truth)
        half = min(limit, -(-len(falling) // 2))
        chosen = {BEST: falling[:half], WORST: falling[half:][::-1][:limit]}
        for kind, images in chosen.items():
            for row in images:
                answer = part.classes[decided[row]]
                facts = {"kind": kind, "class": name, "path": str(part.path[row]), "probability": float(of_truth[row])}
                note = "right" if answer == name else f"says {short(answer)}"
                rows[kind].append(facts | {"truth": name, "decision": answer, "note": note})
    return _frame(rows)


def multi_label_examples(part: Predictions, thresholds: dict[str, float] | None) -> pd.DataFrame:
    """The most confident false positives and false negatives of each label; columns as for ``examples``.

    probability: of the label. truth, decision: all labels of the image, joined by " + ".
    """
    limit = _limit(part.classes)
    truth = part.label == 1
    decided = decisions(part.probability, part.classes, thresholds, "multi_label")
    rows: dict[str, list[dict[str, Any]]] = {FALSE_POSITIVES: [], FALSE_NEGATIVES: []}
    for place, name in enumerate(part.classes):
        p = part.probability[:, place]
        wrong = {
            FALSE_POSITIVES: _sorted(part, np.flatnonzero(~truth[:, place] & decided[:, place]), -p),
            FALSE_NEGATIVES: _sorted(part, np.flatnonzero(truth[:, place] & ~decided[:, place]), p),
        }
        for kind, images in wrong.items():
            for row in images[:limit]:
                facts = {"kind": kind, "class": name, "path": str(part.path[row]), "probability": float(p[row])}
                has, given = _labels(part, truth[row]), _labels(part, decided[row])
                facts |= {"truth": " + ".join(has) or NO_LABEL, "decision": " + ".join(given) or NO_LABEL}
                rows[kind].append(facts | {"note": f"true: {_first_of(has)}"})
    return _frame(rows)


def confused_pairs(part: Predictions, thresholds: dict[str, float] | None) -> pd.DataFrame:
    """How often each class is taken for each other one, the most frequent first.

    Columns: true, predicted, images, of (images of the true class; multi-label: those where it was missed), share.
    Multi-label: the true label was missed while the predicted one was wrongly given to the same image.
    """
    if task_of(part) == "multi_label":
        truth = part.label == 1
        decided = decisions(part.probability, part.classes, thresholds, "multi_label")
        missed = truth & ~decided
        counts = missed.T.astype(np.int64) @ (decided & ~truth).astype(np.int64)
        of = missed.sum(axis=0)
    else:
        number = len(part.classes)
        answers = part.probability.argmax(axis=1)
        counts = np.bincount(part.label * number + answers, minlength=number**2).reshape(number, number)
        of = counts.sum(axis=1)
    rows = [
        {
            "true": part.classes[i],
            "predicted": part.classes[j],
            "images": int(counts[i, j]),
            "of": int(of[i]),
            "share": counts[i, j] / of[i],
        }
        for i, j in np.argwhere(counts > 0)
        if i != j
    ]
    rows.sort(key=lambda row: (-row["images"], -row["share"]))
    return pd.DataFrame(rows, columns=["true", "predicted", "images", "of", "share"])


def _limit(classes: Sequence[str]) -> int:
    return PER_CLASS if len(classes) <= MANY else PER_CLASS_OF_MANY


def _sorted(part: Predictions, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """``rows`` by ``key``, [N], rising; equal ones by file name."""
    order: np.ndarray = rows[np.lexsort((part.path[rows], key[rows]))]
    return order


def _labels(part: Predictions, chosen: np.ndarray) -> list[str]:
    return [name for name, one in zip(part.classes, chosen, strict=True) if one]


def _frame(rows: dict[str, list[dict[str, Any]]]) -> pd.DataFrame:
    columns = ["kind", "class", "path", "probability", "truth", "decision", "note"]
    return pd.DataFrame([row for of_kind in rows.values() for row in of_kind], columns=columns)


def _gallery(rows: pd.DataFrame, classes: tuple[str, ...], split: str, uris: dict[str, str]) -> Samples:
    found = []
    for name in classes:
        images = tuple(
            Sample(
                uris.get(row["path"], ""), row["path"], split, f"p {formats.score(row['probability'])}, {row['note']}"
            )
            for row in rows[rows["class"] == name].to_dict("records")
        )
        if images:
            found.append((name, images))
    return Samples(ORDERS[str(rows["kind"].iloc[0])], tuple(found))


def _first_of(names: list[str]) -> str:
    if not names:
        return NO_LABEL
    return short(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _how_chosen(network: ReportedModel, part: Predictions) -> str:
    split = wording.SPLIT_NAMES[str(network.judged)]
    start = f"From the {split} split, by {network.title}; file names as in splits.csv. "
    if task_of(part) == "multi_label":
        tuned = "its tuned threshold" if network.thresholds else f"a probability of {UNTUNED}"
        return start + (
            f"Each label is decided at {tuned}. Below an image stand the probability of the label and the true labels."
        )
    return start + (
        "Ranked by the probability of the true class, which stands below each image with the answer given. Such images "
        "show where to look; a few of them prove nothing about why the network errs."
    )


def _pairs(network: ReportedModel, part: Predictions, split: str) -> list[Block]:
    heading = Heading("Most confused pairs")
    pairs = confused_pairs(part, network.thresholds)
    if pairs.empty:
        return [heading, Text(f"No pair of classes is confused on the {split} split.")]
    multi_label = task_of(part) == "multi_label"
    if multi_label:
        caption = f"{split.capitalize()} split: a label is missed while another is wrongly given to the same image."
    else:
        caption = f"{split.capitalize()} split: images of one class that were taken for another."
    shown_pairs = pairs.head(MOST_PAIRS)
    if len(pairs) > len(shown_pairs):
        caption += f" The {MOST_PAIRS} most frequent of {len(pairs)} pairs."
    table = Table(
        name=f"confused_pairs_{network.judged}",
        caption=caption,
        frame=shown_pairs,
        columns=(
            Column("true", "missed label" if multi_label else "true class"),
            Column("predicted", "given instead" if multi_label else "predicted class"),
            Column("images", "images", "integer"),
            Column("of", "of those missed" if multi_label else "of the class", "integer"),
            Column("share", "share", "percent"),
        ),
    )
    return [heading, table]
