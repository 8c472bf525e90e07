"""The two files of a run folder that say which images were used: splits.csv and thumbnails.npz."""

from __future__ import annotations

import csv
import hashlib
import secrets
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.atomic import write_atomically
from trainables.data.samples import Samples

THUMBNAIL_SIZE = 96
MOST_THUMBNAILS = 1500
TRAIN_THUMBNAILS = 6

Rows = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


def write_splits(path: Path, samples: Samples, rows: Rows, splits: Names) -> None:
    """splits.csv: row (in the image cache), path, split, label, group, then subgroup_<column> for each subgroup column.

    The group is hashed: no patient's number leaves the user's own table; with a salt that is kept nowhere, as the few
    numbers that there are could all be tried.
    """
    salt = secrets.token_bytes(16)

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(
                ["row", "path", "split", "label", "group", *(f"subgroup_{name}" for name in samples.subgroups)]
            )
            for index, row in enumerate(rows):
                group = "" if samples.groups is None else group_id(samples.groups[index], salt)
                subgroups = [values[index] for values in samples.subgroups.values()]
                label = samples.label_text(index)
                table.writerow([int(row), samples.paths[index], splits[index], label, group, *subgroups])

    write_atomically(path, write)


def group_id(group: str, salt: bytes) -> str:
    """12 hex digits that stand for a group; "" stays ""."""
    return hashlib.sha256(salt + group.encode()).hexdigest()[:12] if group else ""


def write_thumbnails(path: Path, samples: Samples, rows: Rows, splits: Names, cache: Path, seed: int) -> None:
    """thumbnails.npz: path, split, label: str [M]; image: uint8 [M, T, T] (gray) or [M, T, T, 3], T <= 96.

    All of val and of test, up to 1500 each (drawn by ``seed`` beyond), and 6 of each class from train.
    """
    chosen = _choose(samples, splits, np.random.default_rng([seed, 96]))
    images = np.load(cache, mmap_mode="r")
    size = min(THUMBNAIL_SIZE, images.shape[-1])
    small = np.stack([_shrink(images[rows[index]], size) for index in chosen])

    def write(beside: Path) -> None:
        np.savez_compressed(
            beside,
            path=np.array([samples.paths[index] for index in chosen], dtype=np.str_),
            split=np.array([splits[index] for index in chosen], dtype=np.str_),
            label=np.array([samples.label_text(index) for index in chosen], dtype=np.str_),
            image=small,
        )

    write_atomically(path, write)


def _choose(samples: Samples, splits: Names, rng: np.random.Generator) -> list[int]:
    chosen: list[int] = []
    for split in ("val", "test"):
        rows = np.flatnonzero(splits == split)
        if len(rows) > MOST_THUMBNAILS:
            rows = np.sort(rng.choice(rows, MOST_THUMBNAILS, replace=False))
        chosen += rows.tolist()
    from_train: set[int] = set()
    for place in range(len(samples.classes)):
        rows = np.flatnonzero((splits == "train") & samples.hot[:, place])
        from_train |= set(rng.choice(rows, min(TRAIN_THUMBNAILS, len(rows)), replace=False).tolist())
    return [*chosen, *sorted(from_train)]


def _shrink(planes: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """uint8 [C, S, S] -> [size, size] or [size, size, 3]."""
    pixels = planes[0] if planes.shape[0] == 1 else planes.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)
