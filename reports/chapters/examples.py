"""The best and worst classified images, where the network looks, and the pairs of classes that it confuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import formats, thumbnails
from reports.blocks import Block, Note, Table, Text, columns
from reports.chapters import attribution
from reports.chapters.attribution import gallery
from reports.drawing import short
from reports.leaderboard import ReportedModel
from reports.results import Results
from trainables.metrics import decisions, has_class, is_known
from trainables.predictions import Predictions

MOST_PAIRS = 10
PER_CLASS, PER_CLASS_OF_MANY, MANY = 4, 3, 6
FEWEST_SHOWN = 0.5
"""If a smaller share of the chosen images has a thumbnail, the galleries choose among images that have one."""
NO_LABEL = "no label"
BEST, WORST = "Best classified", "Worst classified"
FALSE_POSITIVES, FALSE_NEGATIVES = "Most confident false positives", "Most confident false negatives"
ORDERS = {
    BEST: "Sorted by the probability p of the true class, highest first.",
    WORST: "Sorted by the probability p of the true class, lowest first.",
    FALSE_POSITIVES: "Images wrongly given the label, sorted by its probability p, highest first.",
    FALSE_NEGATIVES: "Images whose label was missed, sorted by its probability p, lowest first.",
}


def chapter(results: Results) -> list[Block]:
    """Galleries first, then the files of the extremes of the split, then the confused pairs of classes, then maps.

    Of a large split, a run keeps thumbnails of some images only: then the galleries show the extremes of these.
    """
    model = results.model
    if model is None or model.judged is None:
        return [Text("There are no predictions to choose images from.")]
    part = model.predictions.of(model.judged)
    rows = shown = examples(part, model.thresholds)
    images = thumbnails.of_files(results.data.run.paths.thumbnails, part.path.tolist())
    which, caption = "", "Files of the images above."
    if images and rows["path"].isin([*images]).mean() < FEWEST_SHOWN:
        shown = examples(part.subset(np.isin(part.path, [*images])), model.thresholds)
        which = f"Of its {len(part.path):,} images {len(images):,} have a thumbnail in the run folder: "
        which += "the best and worst of these are shown. "
        caption = "Files of the best and worst classified of all images of the split."
    shown["uri"] = [thumbnails.data_uri(images[path]) if path in images else "" for path in shown["path"]]
    blocks: list[Block] = [Text(_how_chosen(model, part, which))]
    if len(rows) and not images:
        blocks.append(Note("info", "thumbnails.npz is missing or damaged, or has none of these images: names only."))
    for kind in dict.fromkeys(shown["kind"]):
        of_kind = shown[shown["kind"] == kind]
        blocks += [Text(f"### {kind}"), gallery(ORDERS[kind], of_kind, part.classes, model.judged)]
    titles = {"kind": "list", "class": "class", "path": "file", "probability": "probability of the class"}
    told = columns(**titles, truth="true", decision="decided")
    frame, name = rows.drop(columns=["note", "uri"], errors="ignore"), f"examples_{model.judged}"
    listed = Table(name, caption, frame, told, folded=True)
    looked = attribution.blocks(results, shown, images)
    return [*blocks, listed, *_pairs(model, part), *looked]


def examples(part: Predictions, thresholds: Mapping[str, float] | None) -> pd.DataFrame:
    """The images to show of each class, by kind.

    Columns: kind, class, path, probability (of the class), truth, decision, note (short, shown below the image).
    Single-label: those with the highest and the lowest probability of their true class; none is in both lists.
    Multi-label: the most confident false positives and false negatives; truth, decision: all labels, joined by " + ";
    a label whose truth is not known appears only in decision.
    """
    limit = PER_CLASS if len(part.classes) <= MANY else PER_CLASS_OF_MANY
    truth, decided, known = truth_and_decisions(part, thresholds)
    multi_label = part.label.ndim == 2
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(part.classes):
        p, has, given = part.probability[:, place], truth[:, place], decided[:, place]
        falling = _sorted(part, np.flatnonzero(has), -p)
        half = min(limit, -(-len(falling) // 2))
        chosen = {BEST: falling[:half], WORST: falling[half:][::-1][:limit]}
        if multi_label:
            false_positives = _sorted(part, np.flatnonzero(known[:, place] & ~has & given), -p)[:limit]
            chosen = {FALSE_POSITIVES: false_positives, FALSE_NEGATIVES: _sorted(part, np.flatnonzero(has & ~given), p)}
        for kind, row in ((kind, row) for kind, images in chosen.items() for row in images[:limit]):
            true, answer = (
                [one for one, on in zip(part.classes, of[row], strict=True) if on] for of in (truth, decided)
            )
            said = "correct" if answer == [name] else f"predicted {short(' + '.join(answer))}"
            fact = {"kind": kind, "class": name, "path": str(part.path[row]), "probability": float(p[row])}
            fact |= {"truth": " + ".join(true) or NO_LABEL, "decision": " + ".join(answer) or NO_LABEL}
            rows.append(fact | {"note": f"true: {_first_of(true)}" if multi_label else said})
    frame = pd.DataFrame(rows, columns=["kind", "class", "path", "probability", "truth", "decision", "note"])
    return frame.sort_values("kind", key=lambda kinds: kinds.map(list(ORDERS).index), kind="stable", ignore_index=True)


def confused_pairs(part: Predictions, thresholds: Mapping[str, float] | None) -> pd.DataFrame:
    """How often each class is mistaken for each other one, the most frequent first.

    Columns: true, predicted, images, of (images of the true class; multi-label: those where it was missed), share.
    Multi-label: the true label was missed while the predicted one was wrongly given to the same image.
    """
    truth, decided, known = truth_and_decisions(part, thresholds)
    missed = truth & ~decided
    counts = missed.T.astype(np.int64) @ (decided & known & ~truth).astype(np.int64)
    of = (missed if part.label.ndim == 2 else truth).sum(axis=0)
    rows = [
        (part.classes[i], part.classes[j], int(counts[i, j]), int(of[i]), counts[i, j] / of[i])
        for i, j in np.argwhere(counts > 0)
    ]
    rows.sort(key=lambda row: (-row[2], -row[4]))
    return pd.DataFrame(rows, columns=["true", "predicted", "images", "of", "share"])


def truth_and_decisions(
    part: Predictions, thresholds: Mapping[str, float] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Truth, decisions, and whether the truth is known: bool [N, C] each. thresholds: as for ``metrics.decide``."""
    count = len(part.classes)
    decided = decisions(part.probability, part.classes, thresholds, part.task)
    return has_class(part.label, count), decided, is_known(part.label, count)


def _sorted(part: Predictions, rows: npt.NDArray[np.int64], key: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """``rows`` sorted by ``key``, [N], ascending; equal ones by file name."""
    return rows[np.lexsort((part.path[rows], key[rows]))]


def _first_of(names: list[str]) -> str:
    if not names:
        return NO_LABEL
    return short(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _how_chosen(model: ReportedModel, part: Predictions, which: str) -> str:
    split = formats.SPLIT_NAMES[str(model.judged)]
    text = f"From the {split} split, classified by {formats.escape(model.title)}; file names as in splits.csv. {which}"
    if part.label.ndim == 2:
        tuned = "its tuned threshold" if model.thresholds else "a probability of 0.5"
        return text + f"Each label is decided at {tuned}. Below an image: the label's probability and the true labels."
    if model.thresholds:
        text += "Decided at the operating point. "
    return text + "A few images suggest where to look; they do not prove why the network errs."


def _pairs(model: ReportedModel, part: Predictions) -> list[Block]:
    split = formats.SPLIT_NAMES[str(model.judged)]
    pairs = confused_pairs(part, model.thresholds)
    if pairs.empty:
        return [Text(f"No pair of classes is confused on the {split} split.")]
    caption = "Most confused pairs: images of one class that were predicted as another."
    titles = {"true": "true class", "predicted": "predicted class", "images": "images", "of": "of the class"}
    if part.label.ndim == 2:
        caption = "Most confused pairs: a label is missed while another is wrongly given to the same image."
        titles = {"true": "missed label", "predicted": "given instead", "images": "images", "of": "of those missed"}
    if len(pairs) > MOST_PAIRS:
        caption += f" The {MOST_PAIRS} most frequent of {len(pairs)} pairs."
    shown = columns(**titles, share="share")
    return [Table(f"confused_pairs_{model.judged}", caption, pairs.head(MOST_PAIRS), shown)]
