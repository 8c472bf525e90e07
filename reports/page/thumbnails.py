"""Sample images for the page, from ``thumbnails.npz`` alone."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.page.blocks import Sample

PER_CLASS = 5
PER_CLASS_OF_MANY = 3
MANY = 6
_PLACE = {"train": 0, "val": 1, "test": 2}


def samples(path: Path, classes: tuple[str, ...]) -> tuple[tuple[str, tuple[Sample, ...]], ...] | None:
    """A few images of each class, those of the training split first; None if the file is no use.

    An image with several labels stands with the first of them, with the others only if they have no more; one with none
    under "no label".
    """
    try:
        # Opened here, since numpy leaves a damaged zip open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            names, splits, labels, images = (saved[key] for key in ("path", "split", "label", "image"))
    except Exception:  # whatever a damaged zip raises: the page says that there are no samples
        return None
    if {names.shape, splits.shape, labels.shape} != {images.shape[:1]} or not is_pictures(images):
        return None
    order = sorted(range(len(names)), key=lambda row: (_PLACE.get(str(splits[row]), 3), row))
    of_row = [set(str(label).split("|")) | {str(label)} for label in labels]
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


def is_pictures(images: npt.NDArray[Any]) -> bool:
    """Whether ``images`` is uint8 [N, H, W] or [N, H, W, 3]."""
    gray_or_color = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    return images.dtype == np.uint8 and gray_or_color and 0 not in images.shape[1:]


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """``image`` (uint8 [H, W] or [H, W, 3]) as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
