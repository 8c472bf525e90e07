"""External validation: a run's model judged on a labelled set of other images, and all of it written down."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserError
from sweep.external_data import Labelled, own_images, read_labelled
from sweep.model_paths import EvaluationPaths
from sweep.predictor import Answer, Predictor
from trainables.atomic import write_json
from trainables.data.config import DataConfig
from trainables.data.image import ImageStats
from trainables.data.samples import Samples
from trainables.data.split_files import write_splits
from trainables.metrics import evaluate_predictions
from trainables.predictions import Predictions
from trainables.weights import sha256

SPLIT = "external"
"""The name of the one split of an evaluation, in its predictions.npz and rows.csv."""
_MOST_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is evaluated. command: the arguments, as they were written. renamed: a class of the model by theirs.

    split: only that one of theirs; None = all images. run_root: of the run that the model is from, if it is known.
    """

    name: str
    command: str
    request: DataConfig
    renamed: dict[str, str]
    split: str | None
    run_root: Path | None


def evaluate(
    model: Predictor,
    asked: Asked,
    files: EvaluationPaths,
    batch_size: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[str]:
    """Read and predict the images, and write evaluation.json, predictions.npz and rows.csv into ``files.root``.

    progress: called with images predicted and images in all. Returns what a reader of the scores has to know, one
    sentence each. Raises ``UserError`` with all problems of the data, and then writes nothing.
    """
    facts = model.facts
    labelled = read_labelled(asked.request, facts.classes, facts.task, asked.renamed, asked.split)
    answers: list[Answer] = []
    for answer in model.predict(labelled.listing.files, batch_size):
        answers.append(answer)
        if progress is not None:
            progress(len(answers), len(labelled.listing))
    dropped = _unreadable(labelled.listing, answers, skip=asked.request.skip_unreadable)
    rows = np.flatnonzero([answer.probability is not None for answer in answers]).astype(np.int64)
    listing, answers = labelled.listing.subset(rows), [answers[row] for row in rows]
    warnings = _warnings(asked, labelled, listing, answers, len(dropped))
    probabilities = np.stack([answer.probability for answer in answers if answer.probability is not None])
    probabilities = probabilities[:, [facts.classes.index(name) for name in listing.classes]]
    Predictions.of_split(SPLIT, listing.paths, listing.labels, probabilities, listing.classes, facts.epoch).write(
        files.predictions
    )
    write_splits(files.rows, listing, np.arange(len(listing)), np.full(len(listing), SPLIT))
    scores = evaluate_predictions(listing.labels, probabilities, listing.classes, listing.task)
    images = [answer.image for answer in answers]
    write_json(
        files.evaluation, _written(model, asked, listing, images, scores) | {"dropped": dropped, "warnings": warnings}
    )
    return warnings


def _written(
    model: Predictor, asked: Asked, listing: Samples, images: Sequence[ImageStats], scores: dict[str, float]
) -> dict[str, Any]:
    """What evaluation.json says, but for warnings. scores: those of ``evaluate_predictions``; null where undefined."""
    thresholds = model.facts.thresholds
    counts = _counts(listing)
    groups = None if listing.groups is None else len({group or row for row, group in enumerate(listing.groups)})
    return {
        "name": asked.name,
        "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": asked.command,
        "run": None if asked.run_root is None else asked.run_root.resolve().name,
        "model": {"file": str(model.path), "sha256": sha256(model.path)} | model.facts.to_dict(),
        "data": {"path": listing.path, "kind": listing.kind, "fingerprint": _fingerprint(listing, images)},
        "request": asked.request.to_dict(),
        "map": asked.renamed,
        "split": asked.split,
        "task": listing.task,
        "classes": list(listing.classes),
        "thresholds": None if thresholds is None else {name: thresholds[name] for name in listing.classes},
        "images": len(listing),
        "counts": dict(zip(listing.classes, counts, strict=True)),
        "groups": {"column": listing.group_column, "count": groups},
        "scores": {key: None if math.isnan(value) else value for key, value in scores.items()},
    }


def _unreadable(listing: Samples, answers: Sequence[Answer], *, skip: bool) -> list[dict[str, str]]:
    """The files that cannot be read, with reasons; ``UserError`` unless they are to be skipped and others are left."""
    broken = [
        {"path": path, "reason": str(answer.image.reason)}
        for path, answer in zip(listing.paths, answers, strict=True)
        if answer.probability is None
    ]
    if not broken or (skip and len(broken) < len(answers)):
        return broken
    way_out = "mend or remove them" + ("" if skip else ", or go on without them by --skip-unreadable")
    lines = [f"{len(broken)} of {len(answers)} image files cannot be read: {way_out}"]
    lines += [f"  {one['path']}: {one['reason']}" for one in broken[:_MOST_SHOWN]]
    if len(broken) > _MOST_SHOWN:
        lines.append(f"  ... and {len(broken) - _MOST_SHOWN} more")
    raise UserError("\n".join(lines))


def _warnings(asked: Asked, labelled: Labelled, listing: Samples, answers: Sequence[Answer], dropped: int) -> list[str]:
    hashes = [answer.image.pixel_hash for answer in answers]
    found = list(labelled.notes)
    if dropped:
        found.append(f"{dropped} image file(s) could not be read and were left out (--skip-unreadable).")
    found += _seen_before(asked.run_root, hashes)
    label_of: dict[str, set[str]] = {}
    for row, pixels in enumerate(hashes):
        label_of.setdefault(pixels, set()).add(listing.label_text(row))
    twice = sum(count > 1 for count in Counter(hashes).values())
    contradicting = sum(len(labels) > 1 for labels in label_of.values())
    if twice:
        found.append(f"{twice} image(s) stand more than once, {contradicting} of them with different labels.")
    absent = [name for name, count in zip(listing.classes, _counts(listing), strict=True) if not count]
    if absent:
        found.append(f"No image is labelled {', '.join(absent)}: scores over all classes are hardly to be compared.")
    coloured = sum(answer.coloured for answer in answers)
    if coloured:
        found.append(f"{coloured} image(s) in colour were made gray: the model has seen gray ones alone.")
    blank = sum(answer.image.blank for answer in answers)
    return [*found, f"{blank} image(s) are blank: all pixels are equal."] if blank else found


def _seen_before(run_root: Path | None, hashes: Sequence[str]) -> list[str]:
    """Whether images are those that the model was made with: then they say nothing about new ones."""
    own = None if run_root is None else own_images(run_root)
    if own is None:
        return ["Whether the model was trained on some of these images is not known: its run's images are not at hand."]
    counts = Counter(own[pixels] for pixels in hashes if pixels in own)
    consequences = {
        "train": ("training", "the model was trained on them, so the scores are too good"),
        "val": ("validation", "the model was chosen on them, so the scores are too good"),
        "test": ("test", "this is another look at the test split, not an external validation"),
    }
    return [
        f"{counts[split]} of {len(hashes)} images are the run's own {name} images, pixel by pixel: {consequence}."
        for split, (name, consequence) in consequences.items()
        if counts[split]
    ]


def _counts(listing: Samples) -> list[int]:
    """Images of each class."""
    if listing.labels.ndim == 2:
        return [int(count) for count in listing.labels.sum(axis=0, dtype=np.int64)]
    found: NDArray[np.int64] = np.bincount(listing.labels, minlength=len(listing.classes))
    return [int(count) for count in found]


def _fingerprint(listing: Samples, images: Sequence[ImageStats]) -> str:
    """sha256 over the pixels' hash and the label of each image in order, and the classes."""
    digest = hashlib.sha256("\n".join(listing.classes).encode())
    for row, image in enumerate(images):
        digest.update(f"{image.pixel_hash} {listing.label_text(row)}\n".encode())
    return digest.hexdigest()
