"""Prepare a user's data for trials: read, decode, split, check, write."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, gathered, raise_all
from trainables.atomic import sha256_of, write_json
from trainables.data.cache import ImageCache, Progress, open_or_build
from trainables.data.checks import (
    NEAR_ACROSS_SPLITS,
    doubtful_classes,
    equal_images,
    equal_pixels,
    examine,
    groups_across,
    small_counts,
    unreadable_files,
)
from trainables.data.config import LEAST_IMAGE_SIZE, DataConfig
from trainables.data.dataset import DATASET_FILE, IMAGES_FILE, SPLITS_FILE, THUMBNAILS_FILE
from trainables.data.file_form import is_npz
from trainables.data.files import image_kind, index_folder, of_files
from trainables.data.folder import list_folder
from trainables.data.folder_tables import table_in
from trainables.data.image import content_hash, prepare_image
from trainables.data.npz import list_npz
from trainables.data.presets import apply_preset
from trainables.data.rows import list_table
from trainables.data.samples import (
    FILE_MISSING,
    MISSING,
    MOST_ITEMS,
    SPLITS,
    CheckResult,
    LeftOut,
    Samples,
    class_counts,
    rows_by,
)
from trainables.data.split_files import write_image_stats, write_splits, write_thumbnails
from trainables.data.splits import (
    GIVEN,
    Assignment,
    assign_folds,
    assign_splits,
    first_try,
    kept_together,
    missing_classes,
)
from trainables.data.synthetic import list_demo

_MOST_SHOWN = 10
WAYS_OUT = {
    "copied_classes": "remove the copy, or list the other classes in --classes",
    "unreadable": "repair or remove them, or skip them with --skip-unreadable",
    "duplicates_across_splits": "remove all but one of each, or continue with --allow-leakage (marked in the report)",
    "groups_across_splits": "move each group into one split, or continue with --allow-leakage (marked in the report)",
}
_DRAWN_ANEW = (
    "the split was drawn again after decoding, as some images are unreadable, or equal in different files: it differs "
    "from the one that --dry-run shows"
)


def prepare(
    config: DataConfig,
    run_dir: Path,
    cache_dir: Path,
    workers: int,
    progress: Progress | None = None,
    folds: int | None = None,
) -> dict[str, Any]:
    """Make a data set ready for trials and return the content of dataset.json.

    Writes dataset.json, splits.csv, images.csv and thumbnails.npz into ``run_dir`` only if there is no problem; the
    decoded images go to ``cache_dir``, where the next sweep on the same images finds them. workers: images decoded in
    parallel. folds: how many folds train + val must be divisible into for cross-validation, if any.
    Raises ``UserError``: for problems of names, tables and bytes before images are decoded, for the others afterwards.
    """
    ready = _decode(_look(config, folds), cache_dir, workers, progress, folds)
    assert ready.cache is not None
    run_dir.mkdir(parents=True, exist_ok=True)
    write_splits(run_dir / SPLITS_FILE, ready.samples, ready.rows, ready.splits, ready.same)
    stats = [ready.cache.stats[row] for row in ready.rows]
    write_image_stats(run_dir / IMAGES_FILE, ready.samples, ready.rows, stats)
    alike = {path for one in ready.checks if one.check == NEAR_ACROSS_SPLITS for pair in one.items for path in pair}
    thumbnails = run_dir / THUMBNAILS_FILE
    write_thumbnails(thumbnails, ready.samples, ready.rows, ready.splits, ready.cache.path, config.seed, alike)
    written = (SPLITS_FILE, IMAGES_FILE, THUMBNAILS_FILE)
    dataset = ready.summary() | {"sha256": {name: sha256_of(run_dir / name) for name in written}}
    write_json(run_dir / DATASET_FILE, dataset)
    return dataset


def inspect(config: DataConfig, folds: int | None = None) -> dict[str, Any]:
    """The content of dataset.json as known before images are decoded; ``cache`` is null and nothing is written.

    Tables are read, folders listed, files of equal size compared. ``channels``: 3, or 1 for gray pixels in memory.
    """
    return _look(config, folds).summary()


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A data set that is valid so far. rows: int64 [n], row in the cache of each row of ``samples``; splits: str [n].

    same: int64 [n], equal for equal images. cache: None before the images are decoded.
    """

    config: DataConfig
    samples: Samples
    rows: npt.NDArray[np.int64]
    same: npt.NDArray[np.int64]
    assignment: Assignment
    cache: ImageCache | None = None
    checks: tuple[CheckResult, ...] = ()
    notes: tuple[str, ...] = ()
    dropped: tuple[dict[str, str], ...] = ()

    @property
    def splits(self) -> npt.NDArray[np.str_]:
        return self.assignment.splits

    def summary(self) -> dict[str, Any]:
        samples = self.samples
        labels = {split: samples.labels[self.splits == split] for split in SPLITS}
        counts = {split: class_counts(of_split, len(samples.classes)).tolist() for split, of_split in labels.items()}
        return {
            "source": {"kind": samples.kind, "path": samples.path},
            "task": samples.task,
            "classes": list(samples.classes),
            "image_size": self.config.image_size,
            "fit": self.config.fit,
            "channels": self._channels(),
            "cache": None if self.cache is None else str(self.cache.path.absolute()),
            "fingerprint": None if self.cache is None else self._fingerprint(self.cache.hashes),
            "sha256": {},
            "counts": {split: dict(zip(samples.classes, counts[split], strict=True)) for split in SPLITS},
            "images": {split: len(labels[split]) for split in SPLITS},
            "missing": self._missing(),
            "groups": {"from": samples.group_from, **self._group_counts()},
            "split_origin": self.assignment.origin,
            "preset": None if self.config.preset == "none" else self.config.preset,
            "left_out": [one.to_dict() for one in samples.left_out],
            "notes": [*self.notes[:1], *samples.notes, *self.notes[1:]],
            "ordered": self.config.ordered_classes,
            "checks": [result.to_dict() for result in (*self.checks, *samples.checks)],
            "dropped": list(self.dropped),
            "subgroups": {column: dict(sorted(Counter(v).items())) for column, v in samples.subgroups.items()},
            "source_by_class": self._source_by_class(),
            "caveats": self._caveats(),
            "demo": samples.kind == "demo",
            "config": self.config.to_json(),
        }

    def _channels(self) -> int:
        if self.cache is not None:
            return self.cache.channels
        return 1 if self.samples.pixels is not None and self.samples.pixels.ndim == 3 else 3

    def _fingerprint(self, hashes: Sequence[str]) -> str:
        """sha256 over content, label and split of each row in order, and the classes."""
        samples = self.samples
        digest = hashlib.sha256("\n".join(samples.classes).encode())
        for index, row in enumerate(self.rows):
            missing = samples.missing_text(index)
            labels = samples.label_text(index) + (f" missing {missing}" if missing else "")
            digest.update(f"{hashes[row]} {self.splits[index]} {labels}\n".encode())
        return digest.hexdigest()

    def _missing(self) -> dict[str, dict[str, int]]:
        """How many images of each split have each label missing; {} if no label is missing."""
        missing = self.samples.labels == MISSING
        if not missing.any():
            return {}
        counts = {split: missing[self.splits == split].sum(axis=0).tolist() for split in SPLITS}
        return {split: dict(zip(self.samples.classes, counts[split], strict=True)) for split in SPLITS}

    def _group_counts(self) -> dict[str, Any]:
        """The number of groups, in total and in each split."""
        if self.samples.groups is None:
            return {"count": None, "counts": {}}
        units = kept_together(self.samples.groups, len(self.samples))
        counts = {split: len(np.unique(units[self.splits == split])) for split in SPLITS}
        return {"count": len(np.unique(units)), "counts": counts}

    def _source_by_class(self) -> dict[str, dict[str, int]] | None:
        samples, sources = self.samples, self.samples.sources
        if sources is None:
            return None
        of_class = ([sources[row] for row in np.flatnonzero(has)] for has in samples.hot.T)
        return {name: dict(sorted(Counter(of).items())) for name, of in zip(samples.classes, of_class, strict=True)}

    def _caveats(self) -> list[str]:
        caveats = []
        if self.samples.kind == "demo":
            caveats.append("Demo set: synthetic images, not patients' images; scores say nothing about real X-rays.")
        if any(one.why == _beyond(self.config) for one in self.samples.left_out):
            caveats.append(f"Only {len(self.samples)} of the images are used (--max-images): only a first try.")
        caveats += [
            f"{one.count} row(s) are left out: {one.why}." for one in self.samples.left_out if one.why == FILE_MISSING
        ]
        if not (self.splits == "test").any():
            caveats.append("No test split: scores are of validation images that also selected the model: optimistic.")
        for result in self.checks:
            if result.check == "unreadable":
                caveats.append(f"{result.message}; they were left out (--skip-unreadable).")
            elif result.severity == "error":
                caveats.append(f"Leakage allowed (--allow-leakage): {result.message}; scores are optimistic.")
        return caveats


def _look(config: DataConfig, folds: int | None) -> _Ready:
    """Check what names, tables and bytes of files show before decoding; raises ``UserError`` with all problems."""
    raise_all(config.problems())
    config, note = apply_preset(config)
    listed = list_samples(config)
    rows, dropped = _readable(listed, reasons_unread(listed.files))
    samples = listed.subset(rows)
    checks = unreadable_files(dropped, len(listed))
    problems = [*listed.problems, *(_as_problem(one, listed) for one in checks if _stops(one, config, len(rows)))]
    problems += filter(None, [listed.nothing_to_tell])
    raise_all(problems if not len(rows) or listed.nothing_to_tell else ())
    same = equal_files(samples)
    if config.max_images is not None and config.max_images < len(samples):
        units = kept_together(samples.groups, len(samples), same)
        rows = first_try(samples.labels, samples.splits, units, config.max_images, config.seed)
        others = np.setdiff1d(np.arange(len(samples)), rows)
        left_out = LeftOut(_beyond(config), len(others), tuple(samples.paths[row] for row in others[:MOST_ITEMS]))
        samples, same = dataclasses.replace(samples.subset(rows), left_out=(*samples.left_out, left_out)), same[rows]
    try:
        assignment = assign_splits(samples.splits, samples.labels, samples.groups, config.seed, same)
    except UserError as error:
        raise UserError(*problems, *error.problems) from None
    if absent := missing_classes(samples.labels, assignment, samples.classes, samples.groups):
        problems += [*absent, *(one.message for one in doubtful_classes(samples))]
    problems += _fold_problems(samples, assignment.splits, folds, config.seed, same)
    found = [] if samples.kind == "demo" else equal_images(samples, same.tolist(), assignment.splits)
    found += groups_across(samples, assignment.splits)
    problems += [_as_problem(one, samples, assignment.splits) for one in found if _stops(one, config, len(samples))]
    raise_all(problems)
    notes = [] if note is None else [note]
    if assignment.origin != GIVEN and (equal := len(samples) - len(np.unique(same))):
        notes.append(f"{equal} image(s) are identical to another: identical images were kept in one split")
    return _Ready(
        config=config,
        samples=samples,
        rows=np.arange(len(samples)),
        same=same,
        assignment=assignment,
        checks=(*checks, *found, *small_counts(samples, assignment.splits)),
        notes=tuple(notes),
        dropped=tuple(dropped),
    )


def reasons_unread(files: Sequence[Path]) -> list[str | None]:
    """Why each file cannot be decoded, else None. Only files that do not begin like an image are tried."""
    return [
        None if kind is not None else prepare_image(file, LEAST_IMAGE_SIZE, "squash").stats.reason
        for file, kind in zip(files, of_files(image_kind, files), strict=True)
    ]


def _readable(samples: Samples, reasons: Sequence[str | None]) -> tuple[npt.NDArray[np.int64], list[dict[str, str]]]:
    """The rows that can be read, and the path and the reason of each other; reasons: None = can be, [] = all can be."""
    found = {row: reason for row, reason in enumerate(reasons) if reason is not None}
    dropped = [{"path": samples.paths[row], "reason": reason} for row, reason in found.items()]
    return np.setdiff1d(np.arange(len(samples)), list(found)), dropped


def _beyond(config: DataConfig) -> str:
    return f"beyond --max-images {config.max_images}"


def _decode(looked: _Ready, cache_dir: Path, workers: int, progress: Progress | None, folds: int | None) -> _Ready:
    """Decode the images, also keep equal pixels together, run all checks; raises ``UserError`` with all problems."""
    config, listed = looked.config, looked.samples
    sources = listed.files if listed.pixels is None else listed.pixels
    compare = listed.kind != "demo"  # its splits are by design, and phantoms all look alike
    cache = open_or_build(sources, config.image_size, config.fit, cache_dir, workers, progress, compare)
    rows, unreadable = _readable(listed, [one.reason for one in cache.stats])
    # The pixels of an .npz are in the cache now: they need not stay in memory, too.
    samples = dataclasses.replace(listed, pixels=None).subset(rows)
    stats = [cache.stats[row] for row in rows]
    dropped = (*looked.dropped, *unreadable)
    broken = unreadable_files(dropped, len(dropped) + len(rows))
    problems = [_as_problem(one, listed) for one in broken if _stops(one, config, len(rows))]
    raise_all(problems if not len(rows) else ())
    assignment, notes = Assignment(looked.splits[rows], looked.assignment.origin), looked.notes
    same = kept_together(equal_pixels(stats), len(rows), looked.same[rows])
    if len(rows) < len(listed) or len(np.unique(same)) < len(np.unique(looked.same)):
        if assignment.origin != GIVEN:
            assignment = assign_splits(samples.splits, samples.labels, samples.groups, config.seed, same)
            notes = (*notes, _DRAWN_ANEW)
        problems += missing_classes(samples.labels, assignment, samples.classes, samples.groups)
        problems += _fold_problems(samples, assignment.splits, folds, config.seed, same)
    checks = examine(samples, stats, cache.near.among(rows), assignment.splits)
    problems += [_as_problem(one, samples, assignment.splits) for one in checks if _stops(one, config, len(rows))]
    raise_all(problems)
    return dataclasses.replace(
        looked,
        samples=samples,
        rows=rows,
        same=same,
        assignment=assignment,
        cache=cache,
        checks=(*broken, *checks),
        notes=notes,
        dropped=dropped,
    )


def equal_files(samples: Samples) -> npt.NDArray[np.int64]:
    """int64 [n], equal for files, or pixels in memory, of equal bytes. A file is read only if another has its size."""
    if samples.pixels is not None:
        return _numbered(map(content_hash, samples.pixels))
    keys: list[Hashable] = [*of_files(_size, samples.files)]
    for read in (_ends, content_hash):
        rows = [row for of_key in rows_by(keys).values() if len(of_key) > 1 for row in of_key]
        for row, found in zip(rows, of_files(read, [samples.files[row] for row in rows]), strict=True):
            keys[row] = keys[row], found
    return _numbered(keys)


def _size(file: Path) -> int | str:
    try:
        return file.stat().st_size
    except OSError:  # its decoding will report the error
        return str(file)


def _ends(file: Path) -> bytes:
    """A hash of the first and the last 4 KB: enough to tell most files of equal size apart."""
    try:
        with file.open("rb") as opened:
            first = opened.read(4096)
            opened.seek(-min(4096, os.fstat(opened.fileno()).st_size), os.SEEK_END)
            return hashlib.sha256(first + opened.read()).digest()
    except OSError as error:
        return str(error.strerror).encode()


def _numbered(keys: Iterable[Hashable]) -> npt.NDArray[np.int64]:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def list_samples(config: DataConfig) -> Samples:
    """The rows of a data set, whatever its source; no image is decoded. Raises ``UserError`` if it cannot be read.

    config: as ``apply_preset`` leaves it.
    """
    options = ", ".join(f"{option} {value}".strip() for option, value in config.table_options().items())
    if config.data == "demo":
        if options:
            raise UserError(f"{options}: the demo set has no columns; give a table with --data")
        if config.task == "multi_label":
            raise UserError("--task multi_label: the demo set has one class per image")
        return list_demo()
    place = Path(config.data).absolute()
    file = place if config.table is None else (place if place.is_dir() else place.parent) / config.table
    if config.table is not None or file.is_file():
        return list_npz(file, config) if is_npz(file) else list_table(file, config)
    if not place.is_dir():
        files = sorted(glob.glob(str(place)))
        pattern = f"patterns are not supported: give one of {len(files)} files, such as {files[0]}" if files else ""
        allowed = pattern or "allowed: a folder, a table, an .npz, or demo"
        raise UserError(f"--data {config.data}: no such folder or file; {allowed}")
    if options:
        raise UserError(f"{options}: the folder {place} has no columns; {table_in(index_folder(place))}")
    return list_folder(place, config)


def _fold_problems(
    samples: Samples, splits: npt.NDArray[np.str_], folds: int | None, seed: int, same: npt.NDArray[np.int64]
) -> list[str]:
    """Why train + val cannot be divided into ``folds`` folds; [] if they can."""
    if folds is None or folds < 2:
        return []
    rows = np.flatnonzero(splits != "test").tolist()
    groups = [samples.groups[row] if samples.groups is not None else "" for row in rows]
    problems: list[str] = []
    with gathered(problems):
        assign_folds([samples.label_text(row) for row in rows], groups, samples.classes, folds, seed, same[rows])
    return problems


def _stops(result: CheckResult, config: DataConfig, readable: int) -> bool:
    if result.check == "unreadable":
        return not (config.skip_unreadable and readable)
    return result.severity == "error" and not config.allow_leakage


def _as_problem(result: CheckResult, samples: Samples, splits: npt.NDArray[np.str_] | None = None) -> str:
    """An error with its first items and the way out, in several lines. splits: None = items are (path, reason)."""
    rows = {} if splits is None else rows_by(samples.paths)
    lines = [f"{result.message}: {WAYS_OUT[result.check]}"]
    for item in result.items[:_MOST_SHOWN]:
        if splits is None:
            lines.append(f"  {item[0]}: {item[1]}")
        else:
            of_path = {path: ", ".join(dict.fromkeys(splits[rows[path]])) for path in item}  # one may be in two splits
            lines.append("  " + ", ".join(f"{path} ({named})" for path, named in of_path.items()))
    if result.count > _MOST_SHOWN:
        lines.append(f"  ... and {result.count - _MOST_SHOWN} more")
    return "\n".join(lines)
