"""Shared by the parts of ``benchmarks.gpu``: images, run folders, trials, and one line of JSON per row."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables.atomic import write_json
from trainables.data.dataset import DATASET_FILE, SPLITS_FILE, TEST_ACCESS_FILE
from trainables.data.image import decode, fit_square
from trainables.frozen_features import stages_worth_keeping
from trainables.trial import FinetuneTrial, TrialSettings
from trainables.weights import find_weights

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")
QUICK_FILES = 8
"""Files of each class and split."""
CACHE_BYTES = 20_000_000_000
MEMORY_BYTES = 16_000_000_000
"""Memory of a trial, which decides what is cached."""

Row = dict[str, Any]
Label = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class DecodedImages:
    """pixels: the .npy, uint8 [N, C, S, S]. split, finding (the class's folder), path: [N], of each image."""

    pixels: Path
    shape: tuple[int, ...]
    split: list[str]
    finding: list[str]
    path: list[str]

    def rows_of(self, split: str, count: int | None = None) -> NDArray[np.int64]:
        """Indices of the images of ``split`` in random order; ``count`` of them, repeated if there are fewer."""
        rows = np.random.default_rng(0).permutation([i for i, its in enumerate(self.split) if its == split])
        return rows if count is None else np.resize(rows, count)


def decode_folder(data: Path, pixels: Path, image_size: int, files_a_class: int | None) -> DecodedImages:
    """Decode ``data``/split/class/file of the splits train, val and test into ``pixels``, squares of ``image_size``.

    files_a_class: at most so many of each class and split; None = all. ``UserError`` if a split has no images.
    """
    found: list[tuple[str, str, Path]] = []
    for split in SPLITS:
        folders = sorted(path for path in (data / split).glob("*") if path.is_dir())
        of_split = [
            (split, folder.name, path)
            for folder in folders
            for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:files_a_class]
        ]
        if not of_split:
            raise UserError(f"--data {data}: no images in {split}/CLASS/: give a folder with train, val and test")
        found += of_split

    def square(path: Path) -> NDArray[np.uint8]:
        with path.open("rb") as file:
            return fit_square(decode(file).pixels, image_size, "squash")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        squares = list(pool.map(square, [path for _, _, path in found]))
    if all(one.ndim == 2 for one in squares):
        images = np.stack(squares)[:, None]
    else:
        images = np.stack([one if one.ndim == 3 else np.repeat(one[..., None], 3, 2) for one in squares])
        images = images.transpose(0, 3, 1, 2)
    np.save(pixels, np.ascontiguousarray(images))
    splits, findings, paths = zip(*found, strict=True)
    names = [path.relative_to(data).as_posix() for path in paths]
    return DecodedImages(pixels, images.shape, list(splits), list(findings), names)


def write_run_folder(
    run_dir: Path, images: DecodedImages, rows: Mapping[str, Sequence[int]], label_of: Label, classes: Sequence[str]
) -> Path:
    """A run folder as ``prepare`` writes it, as far as a trial reads it; its test split is open. Returns ``run_dir``.

    rows: the indices in ``images`` of each split, with any repetitions. label_of: maps a finding to its class, or to
    several joined by "|", which makes the task multi_label.
    """
    labels = [label_of(finding) for finding in images.finding]
    dataset = {
        "task": "multi_label" if any("|" in label for label in labels) else "single_label",
        "classes": list(classes),
        "channels": images.shape[1],
        "image_size": images.shape[-1],
        "cache": str(images.pixels),
    }
    access = run_dir / TEST_ACCESS_FILE
    access.parent.mkdir(parents=True)
    access.write_text('{"opened_by": "benchmarks.gpu"}\n', encoding="utf-8")
    write_json(run_dir / DATASET_FILE, dataset)
    with (run_dir / SPLITS_FILE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("split", "row", "path", "label"))
        for split, chosen in rows.items():
            table.writerows((split, row, images.path[row], labels[row]) for row in map(int, chosen))
    return run_dir


@dataclasses.dataclass
class Session:
    """One call of the benchmark. folder: for its files. weights: a folder or "random". began_s: when it started.

    seconds: no row is started that would not end within them. only: rows whose name contains this text.
    """

    folder: Path
    images: DecodedImages
    device: torch.device
    weights: str
    quick: bool
    began_s: float
    seconds: float
    only: str = ""
    _folders: dict[str, Path] = dataclasses.field(default_factory=dict)

    @property
    def threads(self) -> int:
        """torch's threads in a trial."""
        return 1 if self.quick else min(8, os.cpu_count() or 1)

    @property
    def left_s(self) -> float:
        return self.seconds - (time.monotonic() - self.began_s)

    def few(self, train: int, val: int) -> Path:
        """The run folder with so many images of each split, the findings as classes."""
        name = f"findings_{train}_{val}"
        if name not in self._folders:
            rows = {"train": self.images.rows_of("train", train), "val": self.images.rows_of("val", val)}
            classes = sorted(set(self.images.finding))
            self._folders[name] = write_run_folder(self.folder / name, self.images, rows, str, classes)
        return self._folders[name]

    def whole(self) -> Path:
        """The run folder with all training and validation images, the findings as classes."""
        splits = self.images.split
        return self.few(*(splits.count(split) for split in ("train", "val")))

    def settings(
        self,
        run_dir: Path,
        backbone: str,
        *,
        precision: str,
        epochs: int = 1000,
        deterministic: bool = False,
        cache: Path | None = None,
        device: torch.device | None = None,
        seed: int = 0,
    ) -> TrialSettings:
        """Settings of a trial on this run folder; ``backbone`` has random weights if the folder of weights lacks it.

        cache: where features are cached; None = they are not.
        """
        missing = find_weights(self.weights, [backbone])[1]
        use_gpu = (device or self.device).type == "cuda"
        kept = stages_worth_keeping(
            backbone,
            self.images.shape[-1],
            len(self.images.path),
            precision,
            threads=self.threads,
            gpu=use_gpu,
            memory_bytes=MEMORY_BYTES,
        )
        return TrialSettings(
            run_dir=str(run_dir),
            epochs=epochs,
            weights="random" if missing else self.weights,
            precision=precision,
            metric="val_f1_macro",
            patience=None,
            time_limit_s=None,
            seed=seed,
            cpus=self.threads,
            use_gpu=use_gpu,
            deterministic=deterministic,
            cached_stages={} if cache is None else {backbone: kept},
            cache_dir=None if cache is None else str(cache),
            cache_bytes=CACHE_BYTES,
        )

    def trial(self, run_dir: Path, params: TrialParams, *, precision: str, **settings: Any) -> FinetuneTrial:
        return FinetuneTrial(params, self.settings(run_dir, params.backbone, precision=precision, **settings), 0)

    def row(self, name: Row, needed_s: float, measure: Callable[[], Row]) -> None:
        """Print ``name`` with the result of ``measure``, or why there is none."""
        if self.only not in " ".join(map(str, name.values())):
            return
        if self.left_s < needed_s:
            print_row(name | {"skipped": f"{self.left_s:.0f} s are left, about {needed_s:.0f} s are needed"})
            return
        began_s = time.monotonic()
        try:
            found = measure()
        except Exception as error:  # the other rows are still measured
            last = "".join(traceback.format_exception(error)).strip().splitlines()[-6:]
            found = {"passed": False, "detail": " | ".join(line.strip() for line in last)}
        print_row(name | found | {"row_s": round(time.monotonic() - began_s, 1)})
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def print_row(row: Row) -> None:
    print(json.dumps(row), flush=True)


def machine(device: torch.device) -> Row:
    """The software and hardware that the figures are of."""
    found: Row = {"torch": torch.__version__, "cuda": torch.version.cuda, "cpus": os.cpu_count(), "card": "none (CPU)"}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"card": card.name, "capability": f"{card.major}.{card.minor}"}
        found |= {"memory_gb": round(card.total_memory / 1e9, 1), "cudnn": torch.backends.cudnn.version()}
    return found


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
