"""Small images of the files that are asked for, from ``thumbnails.npz``."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from reports.page.thumbnails import is_pictures

QUALITY = 88


def of_files(path: Path, names: Collection[str]) -> dict[str, str]:
    """A JPEG data URI for each of ``names`` that ``path`` has an image of; {} if the file is no use.

    JPEG, a third of PNG's size: with fifteen classes there are a hundred images on the page.
    """
    wanted = set(names)
    try:
        # Opened here, since numpy leaves a damaged zip open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            paths, images = saved["path"], saved["image"]
    except Exception:  # whatever a damaged zip raises: the page says that there are no thumbnails
        return {}
    if paths.shape != images.shape[:1] or not is_pictures(images):
        return {}
    return {str(name): _data_uri(images[row]) for row, name in enumerate(paths) if str(name) in wanted}


def _data_uri(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
