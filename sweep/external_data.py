"""A labelled set of other images, in the classes of a model: what an external validation reads."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search_spaces.errors import UserError, raise_all, unknown
from sweep.run_folder import RunPaths
from trainables.data.config import DataConfig
from trainables.data.folder import list_folder
from trainables.data.samples import SPLIT_WORDS, Samples
from trainables.data.table import list_table

Hot = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """listing: with the model's task, and its classes in its order; without splits.

    Of several label columns the listing has those labels only that the set knows; notes says which it does not.
    """

    listing: Samples
    notes: tuple[str, ...]


def read_labelled(
    request: DataConfig, classes: Sequence[str], task: str, renamed: dict[str, str], split: str | None
) -> Labelled:
    """List the images of ``request`` and bring their labels into ``classes``, the model's, by ``renamed`` first.

    split: only the rows of this split, if the set has some; None = all rows. No image is opened. Raises ``UserError``
    with all problems together.
    """
    listing = _list(request, task)
    problems = list(listing.problems)
    renamed = {theirs: ours for theirs, ours in renamed.items() if theirs != ours}
    problems += [
        f"--map {theirs}={ours}: {unknown('class of the data', theirs, listing.classes)}"
        for theirs, ours in renamed.items()
        if theirs not in listing.classes
    ]
    problems += [
        f"--map {theirs}={ours}: {unknown('class of the model', ours, classes)}"
        for theirs, ours in renamed.items()
        if ours not in classes
    ]
    if split is not None:
        listing, of_split = _only(listing, split)
        problems += of_split
    names = [renamed.get(name, name) for name in listing.classes]
    problems += [_stranger(request, name, classes) for name in names if name not in (*classes, *renamed.values())]
    raise_all(problems)
    hot = _in_classes(_hot(listing), names, classes)
    if task == "single_label":
        return Labelled(_single(listing, hot, classes), ())
    return _several(listing, hot, names, classes, columns=len(request.label_columns) > 1)


def own_images(run_root: Path) -> dict[str, str] | None:
    """Of each image that the run was made with its split, by the hash of its pixels; None if that is not known.

    It is read from beside the decoded images, which may have gone since.
    """
    paths = RunPaths(run_root)
    try:
        dataset = json.loads(paths.dataset.read_text(encoding="utf-8"))
        stats = json.loads(Path(dataset["cache"]).with_suffix(".json").read_text(encoding="utf-8"))["stats"]
        rows = pd.read_csv(paths.splits, dtype=str, keep_default_na=False)
        places = zip(rows["row"], rows["split"], strict=True)
        return {str(stats[int(row)]["pixel_hash"]): str(split) for row, split in places}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def _list(request: DataConfig, task: str) -> Samples:
    raise_all(request.problems())
    place = Path(request.data).expanduser()
    if place.is_file():
        # Columns of 0 and 1 of which one is set are classes, too: whether they are is looked at below.
        asked = "multi_label" if task == "multi_label" else "auto"
        return list_table(place.absolute(), dataclasses.replace(request, task=asked))
    if not place.is_dir():
        raise UserError(f"--data {request.data}: no such folder or file; allowed: a folder or a .csv manifest")
    if task == "multi_label":
        raise UserError(
            f"--data {request.data}: the model decides several labels of an image, and a folder gives it one; give a "
            ".csv manifest with the label columns"
        )
    raise_all(
        [
            f"{option} {value}: the folder {place} has no columns; give a .csv manifest"
            for option, value in request.manifest_options().items()
        ]
    )
    try:
        return list_folder(place.absolute(), request)
    except OSError as error:
        raise UserError(f"--data {request.data}: {error.filename} cannot be read: {error.strerror}") from None


def _only(listing: Samples, split: str) -> tuple[Samples, list[str]]:
    wanted = SPLIT_WORDS.get(split.lower())
    if wanted is None:
        return listing, [f"--split: {unknown('split', split, SPLIT_WORDS)}"]
    if listing.splits is None:
        return listing, [f"--split {split}: {listing.path} has no splits; leave it out to use all images"]
    rows = np.flatnonzero(np.array(listing.splits) == wanted).astype(np.int64)
    return listing.subset(rows), [] if len(rows) else [f"--split {split}: no image of {listing.path} is in it"]


def _stranger(request: DataConfig, name: str, classes: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in classes], n=1)
    like = next((one for one in classes if near and one.lower() == near[0]), "CLASS")
    return (
        f"--data {request.data}: {name!r} is no class of the model, which knows {', '.join(classes)}: say which it is "
        f"by --map {name!r}={like}, or leave its images out"
    )


def _hot(listing: Samples) -> Hot:
    """uint8 [N, classes of the listing]."""
    if listing.labels.ndim == 2:
        return np.asarray(listing.labels, dtype=np.uint8)
    return np.asarray(listing.labels[:, None] == np.arange(len(listing.classes)), dtype=np.uint8)


def _in_classes(hot: Hot, names: Sequence[str], classes: Sequence[str]) -> Hot:
    """uint8 [N, C]: several of their classes may be one of ours."""
    found = np.zeros((len(hot), len(classes)), dtype=np.uint8)
    for column, name in enumerate(names):
        found[:, classes.index(name)] |= hot[:, column]
    return found


def _single(listing: Samples, hot: Hot, classes: Sequence[str]) -> Samples:
    odd = np.flatnonzero(hot.sum(axis=1) != 1)
    if len(odd):
        shown = ", ".join(listing.paths[row] for row in odd[:5])
        raise UserError(
            f"{len(odd)} of {len(hot)} images carry none or several of the labels ({shown}), and the model decides one "
            "class of an image: leave them out, or evaluate a multi-label model"
        )
    return _with(listing, "single_label", hot.argmax(axis=1).astype(np.int64), classes)


def _several(listing: Samples, hot: Hot, names: Sequence[str], classes: Sequence[str], *, columns: bool) -> Labelled:
    """With a column a label, a label without a column is not known; a cell ``a|b`` tells of all labels."""
    known = [name for name in classes if name in names] if columns else list(classes)
    unknown_labels = [name for name in classes if name not in known]
    chosen = hot[:, [classes.index(name) for name in known]]
    notes = [f"The data has no column for {', '.join(unknown_labels)}: not evaluated."] if unknown_labels else []
    return Labelled(_with(listing, "multi_label", chosen, known), tuple(notes))


def _with(listing: Samples, task: str, labels: NDArray[Any], classes: Sequence[str]) -> Samples:
    return dataclasses.replace(listing, task=task, labels=labels, classes=tuple(classes), splits=None)
