"""What a trial sees of a data set: decoded images, and the rows that train and validate. Never the test split.

``open_test_split`` is the only way to the test images. It raises until the run has recorded that it opens them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError
from trainables.atomic import sha256_of

# The files named in sweep/run_folder.py that this package reads or writes.
DATASET_FILE = "dataset.json"
SPLITS_FILE = "splits.csv"
IMAGES_FILE = "images.csv"
THUMBNAILS_FILE = "thumbnails.npz"
TEST_ACCESS_FILE = "finalists/test_access.jsonl"
BASELINES_FILE = "baselines.json"
PREDICTIONS_FILE = "predictions.npz"
MAPS_FILE = "maps.npz"


@dataclass(frozen=True)
class Split:
    """rows: int64 [n] into ``TrialData.images``. labels: int64 [n], or float32 [n, classes] of 0, 1 and NaN (missing:
    not known whether the image has the label; multi_label).

    paths: [n], as in splits.csv.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    paths: list[str]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class TrialData:
    """images: uint8 [N, channels, image_size, image_size], mapped read-only: all trials of a node share its pages.

    ordered: the classes are ordered, such as grades.
    """

    task: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    images: np.memmap[Any, np.dtype[np.uint8]]
    train: Split
    val: Split
    ordered: bool = False


def open_dataset(run_dir: Path, splits: Path | None = None) -> TrialData:
    """Open what ``prepare`` wrote; the test split cannot be reached from here.

    splits: a file in the format of splits.csv that assigns train and val differently; default: the run's own.
    Raises ``UserError`` if the decoded images are gone, or splits.csv is not ``unchanged``.
    """
    dataset = _dataset(run_dir)
    train, val = _read_splits(splits or run_dir / SPLITS_FILE, ("train", "val"), dataset)
    facts = {name: dataset[name] for name in ("task", "channels", "image_size")}
    facts["ordered"] = dataset.get("ordered", False)
    return TrialData(**facts, classes=tuple(dataset["classes"]), images=_map_images(dataset), train=train, val=val)


def open_test_split(run_dir: Path) -> Split:
    """The test rows of a run. Raises PermissionError until its winner is fixed and the opening is recorded."""
    test_access = run_dir / TEST_ACCESS_FILE
    if not (test_access.exists() and test_access.read_text(encoding="utf-8").strip()):
        raise PermissionError(f"the test split of {run_dir} is closed: {TEST_ACCESS_FILE} records no opening")
    (test,) = _read_splits(run_dir / SPLITS_FILE, ("test",), _dataset(run_dir))
    return test


def unchanged(path: Path, sha256: Mapping[str, str]) -> bool:
    """Whether a file of a run is as ``prepare`` wrote it. sha256: by name, of dataset.json; True for other names."""
    if path.name not in sha256:
        return True
    try:
        return sha256_of(path) == sha256[path.name]
    except OSError:
        return False


def _dataset(run_dir: Path) -> dict[str, Any]:
    dataset: dict[str, Any] = json.loads((run_dir / DATASET_FILE).read_text(encoding="utf-8"))
    splits = run_dir / SPLITS_FILE
    if not unchanged(splits, dataset.get("sha256", {})):
        raise UserError(f"{splits} is missing or was changed: --resume rewrites it from the data")
    return dataset


def _map_images(dataset: dict[str, Any]) -> np.memmap[Any, np.dtype[np.uint8]]:
    cache = Path(dataset["cache"])
    try:
        images = np.load(cache, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"the decoded images at {cache} cannot be opened ({error}): run the sweep again") from None
    assert isinstance(images, np.memmap)
    expected = (dataset["channels"], dataset["image_size"], dataset["image_size"])
    if images.shape[1:] != expected or images.dtype != np.uint8:
        raise UserError(f"the decoded images at {cache} are {images.dtype} {images.shape}: run the sweep again")
    return images


def _read_splits(path: Path, splits: tuple[str, ...], dataset: dict[str, Any]) -> list[Split]:
    """The rows of ``splits`` in a file in the format of splits.csv."""
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in splits}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] in rows:
                rows[row["split"]].append(row)
    return [_split(some, dataset) for some in rows.values()]


def _split(rows: list[dict[str, str]], dataset: dict[str, Any]) -> Split:
    place = {name: index for index, name in enumerate(dataset["classes"])}
    labels: npt.NDArray[Any]
    if dataset["task"] == "single_label":
        labels = np.array([place[row["label"]] for row in rows], dtype=np.int64)
    else:
        labels = np.zeros((len(rows), len(place)), dtype=np.float32)
        for index, row in enumerate(rows):
            for name in row["label"].split("|") if row["label"] else ():
                labels[index, place[name]] = 1.0
            for name in row["missing"].split("|") if row.get("missing") else ():
                labels[index, place[name]] = np.nan
    return Split(np.array([int(row["row"]) for row in rows], dtype=np.int64), labels, [row["path"] for row in rows])
