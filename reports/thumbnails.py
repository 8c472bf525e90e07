"""Small images for the page, from ``thumbnails.npz`` alone: the data itself may be gone."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.blocks import Sample

PER_CLASS = 5
PER_CLASS_OF_MANY = 3
MANY = 6
QUALITY = 88
_PLACE = {"train": 0, "val": 1, "test": 2}


def samples(path: Path, classes: tuple[str, ...]) -> tuple[tuple[str, tuple[Sample, ...]], ...] | None:
    """A few images of each class, those of the training split first; None if the file is not usable.

    An image with several labels is shown under the first of them, and under others only if they have too few; one
    without labels is shown under "no label".
    """
    saved = _read(path, "path", "split", "label", "image")
    if saved is None:
        return None
    names, splits, labels, images = saved
    order = sorted(range(len(names)), key=lambda row: (_PLACE.get(str(splits[row]), 3), row))
    # A class may have "|" in its name.
    of_row = [{str(label)} if str(label) in classes else set(str(label).split("|")) for label in labels]
    rows, shown = [], set[int]()
    limit = PER_CLASS if len(classes) <= MANY else PER_CLASS_OF_MANY
    for name in (*classes, "no label"):
        wanted = "" if name == "no label" else name
        having = [row for row in order if wanted in of_row[row]]
        chosen = sorted(having, key=lambda row: row in shown)[:limit]
        shown |= set(chosen)
        if chosen:
            found = tuple(Sample(data_uri(images[row]), str(names[row]), str(splits[row])) for row in chosen)
            rows.append((name, found))
    return tuple(rows) or None


def of_files(path: Path, names: Collection[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """[H, W] or [H, W, 3] for each of ``names`` that ``path`` has an image of; {} if the file is not usable."""
    wanted, saved = set(names), _read(path, "path", "image")
    if saved is None:
        return {}
    paths, images = saved
    return {str(name): images[row] for row, name in enumerate(paths) if str(name) in wanted}


def _read(path: Path, *keys: str) -> list[npt.NDArray[Any]] | None:
    """The arrays, the last of them images: uint8 [N, H, W] or [N, H, W, 3], the others [N]; else None."""
    try:
        # Opened here, since numpy leaves a damaged zip open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            arrays = [saved[key] for key in keys]
    except Exception:  # whatever a damaged zip raises: the page says that there are no images
        return None
    *others, images = arrays
    gray_or_color = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    sound = images.dtype == np.uint8 and gray_or_color and 0 not in images.shape[1:]
    return arrays if sound and all(one.shape == images.shape[:1] for one in others) else None


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """As JPEG, a third of PNG's size: with fifteen classes there are a hundred images on the page."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
