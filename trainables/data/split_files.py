"""The files of a run folder about the images that were used: splits.csv, images.csv and thumbnails.npz."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from trainables.atomic import write_atomically, write_text
from trainables.data.image import ImageStats
from trainables.data.samples import MISSING, Samples

THUMBNAIL_SIZE = 96
MOST_THUMBNAILS = 1500
TRAIN_THUMBNAILS = 6
IMAGE_STATS = ("width", "height", "mode", "bits", "jpeg_quality", "mean", "sd")

Rows = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


def write_splits(path: Path, samples: Samples, rows: Rows, splits: Names, same: Rows) -> None:
    """splits.csv: row (in the image cache), path, split, label, group, then subgroup_<column> for each subgroup column.

    If some images are equal (``same``: int64 [n], equal for these): ``equal``, a number that they share, "" for all
    others. If some labels are missing: ``missing``, the missing labels of a row, separated by ``|``.
    The group is hashed: no patient's number leaves the user's own table. The hash has a random salt that is not stored,
    as the few possible numbers could all be tried.
    """
    salt = secrets.token_bytes(16)
    groups = samples.groups or [""] * len(samples)
    columns: dict[str, Sequence[object]] = {
        "row": rows.tolist(),
        "path": samples.paths,
        "split": splits.tolist(),
        "label": [samples.label_text(row) for row in range(len(samples))],
        "group": [group_id(group, salt) for group in groups],
    }
    alike = np.bincount(same, minlength=1)[same] > 1
    if alike.any():
        columns["equal"] = np.where(alike, same.astype(np.str_), "").tolist()
    if samples.labels.ndim == 2 and (samples.labels == MISSING).any():
        columns["missing"] = [samples.missing_text(row) for row in range(len(samples))]
    columns |= {f"subgroup_{name}": values for name, values in samples.subgroups.items()}
    write_text(path, pd.DataFrame(columns).to_csv(index=False, lineterminator="\n"))


def write_image_stats(path: Path, samples: Samples, rows: Rows, stats: Sequence[ImageStats]) -> None:
    """images.csv: row, path, width, height (pixels of the file), mode, bits, jpeg_quality, mean, sd (0..255), and,
    if there is a source column, source."""
    columns: dict[str, Sequence[object]] = {"row": rows.tolist(), "path": samples.paths}
    columns |= {name: [getattr(one, name) for one in stats] for name in IMAGE_STATS}
    columns |= {} if samples.sources is None else {"source": samples.sources}
    table = pd.DataFrame(columns).astype({"jpeg_quality": "Int64"})  # whole numbers, though some are missing
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def group_id(group: str, salt: bytes) -> str:
    """12 hex digits that replace the name of a group; "" stays ""."""
    return hashlib.sha256(salt + group.encode()).hexdigest()[:12] if group else ""


def write_thumbnails(
    path: Path, samples: Samples, rows: Rows, splits: Names, cache: Path, seed: int, also: Collection[str] = ()
) -> None:
    """thumbnails.npz: path, split, label: str [M]; image: uint8 [M, T, T] (gray) or [M, T, T, 3], T <= 96.

    All of val and of test (of each at most 1500, drawn by ``seed`` if there are more), 6 of each class from train, and
    the paths in ``also``.
    """
    chosen = _choose(samples, splits, np.random.default_rng([seed, 96]))
    more = {row for row, shown in enumerate(samples.paths) if shown in also}
    chosen += sorted(more - set(chosen))
    images = np.load(cache, mmap_mode="r")
    size = min(THUMBNAIL_SIZE, images.shape[-1])
    small = np.stack([_shrink(images[rows[index]], size) for index in chosen])

    arrays: dict[str, Any] = {
        "path": np.array([samples.paths[row] for row in chosen], dtype=np.str_),
        "split": splits[chosen].astype(np.str_),
        "label": np.array([samples.label_text(row) for row in chosen], dtype=np.str_),
        "image": small,
    }
    write_atomically(path, lambda beside: np.savez_compressed(beside, **arrays))


def _choose(samples: Samples, splits: Names, rng: np.random.Generator) -> list[int]:
    chosen: list[int] = []
    for split in ("val", "test"):
        rows = np.flatnonzero(splits == split)
        if len(rows) > MOST_THUMBNAILS:
            rows = np.sort(rng.choice(rows, MOST_THUMBNAILS, replace=False))
        chosen += rows.tolist()
    from_train: set[int] = set()
    train = np.flatnonzero(splits == "train")
    labels = samples.labels[train]
    for place in range(len(samples.classes)):
        rows = train[labels == place if labels.ndim == 1 else labels[:, place] == 1]
        from_train |= set(rng.choice(rows, min(TRAIN_THUMBNAILS, len(rows)), replace=False).tolist())
    return [*chosen, *sorted(from_train)]


def _shrink(planes: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """uint8 [C, S, S] -> [size, size] or [size, size, 3]."""
    pixels = planes[0] if planes.shape[0] == 1 else planes.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
