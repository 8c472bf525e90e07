"""From what a user has to what trials can train on: read, decode, split, examine, write."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, raise_all
from trainables.atomic import write_json
from trainables.data.cache import ImageCache, Progress, open_or_build
from trainables.data.checks import examine, unreadable
from trainables.data.config import DataConfig
from trainables.data.dataset import DATASET_FILE, SPLITS_FILE, THUMBNAILS_FILE
from trainables.data.folder import list_folder
from trainables.data.rows import list_table
from trainables.data.samples import SPLITS, CheckResult, Samples
from trainables.data.split_files import write_splits, write_thumbnails
from trainables.data.splits import assign_folds, assign_splits, missing_classes
from trainables.data.synthetic import list_demo

_MOST_SHOWN = 10
WAYS_OUT = {
    "unreadable": "mend or remove them, or go on without them by --skip-unreadable",
    "duplicates_across_splits": "remove all but one of each, or go on by --allow-leakage (the report will say so)",
    "groups_across_splits": "move each group into one split, or go on by --allow-leakage (the report will say so)",
}


def prepare(
    config: DataConfig,
    run_dir: Path,
    cache_dir: Path,
    workers: int,
    progress: Progress | None = None,
    folds: int | None = None,
) -> dict[str, Any]:
    """Make a data set ready for trials and return the content of dataset.json.

    Writes dataset.json, splits.csv and thumbnails.npz into ``run_dir`` only when all is well; the decoded images go to
    ``cache_dir``, where the next sweep on the same images finds them. workers: images decoded at the same time;
    progress: called with images decoded and images in all, unless they are in the cache already. folds: into how many
    train and val have to be divisible for cross-validation, if at all.
    Raises ``UserError`` with all problems of the data together.
    """
    ready = _examine(config, cache_dir, workers, progress, folds)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_splits(run_dir / SPLITS_FILE, ready.samples, ready.rows, ready.splits)
    assert ready.cache.path is not None
    write_thumbnails(run_dir / THUMBNAILS_FILE, ready.samples, ready.rows, ready.splits, ready.cache.path, config.seed)
    dataset = ready.summary()
    write_json(run_dir / DATASET_FILE, dataset)
    return dataset


def inspect(
    config: DataConfig, workers: int, progress: Progress | None = None, folds: int | None = None
) -> dict[str, Any]:
    """The same checks and the same summary (``cache`` is null), with nothing written."""
    return _examine(config, None, workers, progress, folds).summary()


@dataclass(frozen=True)
class _Ready:
    """A data set that passed. rows: int64 [n], row in the cache of each row of ``samples``; splits: str [n]."""

    config: DataConfig
    samples: Samples
    cache: ImageCache
    rows: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    split_origin: str
    checks: tuple[CheckResult, ...]
    dropped: tuple[dict[str, str], ...]

    def summary(self) -> dict[str, Any]:
        samples, hot_of_all = self.samples, self.samples.hot
        hot = {split: hot_of_all[self.splits == split] for split in SPLITS}
        return {
            "source": {"kind": samples.kind, "path": samples.path},
            "task": samples.task,
            "classes": list(samples.classes),
            "image_size": self.config.image_size,
            "fit": self.config.fit,
            "channels": self.cache.channels,
            "cache": None if self.cache.path is None else str(self.cache.path.absolute()),
            "fingerprint": self._fingerprint(),
            "counts": {split: dict(zip(samples.classes, map(int, hot[split].sum(0)), strict=True)) for split in SPLITS},
            "images": {split: len(hot[split]) for split in SPLITS},
            "groups": {"column": samples.group_from, "counts": self._group_counts()},
            "split_origin": self.split_origin,
            "checks": [result.to_dict() for result in self.checks],
            "dropped": list(self.dropped),
            "subgroups": {column: dict(sorted(Counter(v).items())) for column, v in samples.subgroups.items()},
            "source_by_class": self._source_by_class(),
            "caveats": self._caveats(),
            "demo": samples.kind == "demo",
            "config": self.config.to_json(),
        }

    def _fingerprint(self) -> str:
        """sha256 over content, label and split of each row in order, and the classes."""
        digest = hashlib.sha256("\n".join(self.samples.classes).encode())
        for index, row in enumerate(self.rows):
            line = f"{self.cache.hashes[row]} {self.splits[index]} {self.samples.label_text(index)}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    def _group_counts(self) -> dict[str, int]:
        """Groups in each split; a row without a group's name is one."""
        if self.samples.groups is None:
            return {}
        names = (name or row for row, name in enumerate(self.samples.groups))
        counts = Counter(str(split) for split, _ in set(zip(self.splits, names, strict=True)))
        return {split: counts[split] for split in SPLITS}

    def _source_by_class(self) -> dict[str, dict[str, int]] | None:
        if self.samples.sources is None:
            return None
        table: dict[str, Counter[str]] = {name: Counter() for name in self.samples.classes}
        for row, source in enumerate(self.samples.sources):
            for name in self.samples.label_names(row):
                table[name][source] += 1
        return {name: dict(sorted(counts.items())) for name, counts in table.items()}

    def _caveats(self) -> list[str]:
        caveats = []
        if self.samples.kind == "demo":
            caveats.append(
                "Demo set: phantoms drawn by code, no patients' images; scores say nothing about real X-rays."
            )
        if not (self.splits == "test").any():
            caveats.append("No test split: scores are of validation images that also chose the model, so optimistic.")
        for result in self.checks:
            if result.check == "unreadable":
                caveats.append(f"{result.message}; they were left out (--skip-unreadable).")
            elif result.severity == "error":
                caveats.append(f"Leakage allowed (--allow-leakage): {result.message}; scores are too good.")
        return caveats


def _examine(
    config: DataConfig, cache_dir: Path | None, workers: int, progress: Progress | None, folds: int | None
) -> _Ready:
    raise_all(config.problems())
    listed = list_samples(config)
    if listed.problems:
        cache_dir = None  # it will end in an error; decode all the same, to tell all problems at once
    sources = listed.files if listed.pixels is None else listed.pixels
    cache = open_or_build(sources, config.image_size, config.fit, cache_dir, workers, progress)
    reasons = [one.reason for one in cache.stats]
    rows = np.flatnonzero([reason is None for reason in reasons]).astype(np.int64)
    dropped = tuple(
        {"path": path, "reason": reason}
        for path, reason in zip(listed.paths, reasons, strict=True)
        if reason is not None
    )
    place = {int(row): index for index, row in enumerate(rows)}
    near = [pair._replace(first=place[pair.first], second=place[pair.second]) for pair in cache.near]
    samples, problems = listed.subset(rows), list(listed.problems)
    checks = unreadable(listed, cache.stats)
    splits, origin = np.full(len(rows), "train"), ""
    try:
        if len(rows):  # else nothing is left that could be split
            assignment = assign_splits(samples.splits, samples.labels, samples.groups, config.seed)
            splits, origin = assignment.splits, assignment.origin
            problems += missing_classes(samples.labels, splits, samples.classes)
            problems += _fold_problems(samples, splits, folds, config.seed)
            near = [] if listed.kind == "demo" else near  # phantoms all look alike
            checks += examine(samples, [cache.stats[row] for row in rows], near, splits)
    except UserError as error:
        problems += error.problems
    problems += [_as_problem(result, samples, splits) for result in checks if _stops(result, config, len(rows))]
    raise_all(problems)
    return _Ready(config, samples, cache, rows, splits, origin, (*checks, *samples.checks), dropped)


def list_samples(config: DataConfig) -> Samples:
    """The rows of a data set, whatever its source; no image is opened. Raises ``UserError`` where there is none."""
    place = Path(config.data).expanduser()
    if config.data != "demo" and place.is_file():
        return list_table(place.absolute(), config)
    what = "the demo set" if config.data == "demo" else f"the folder {place}"
    if config.data == "demo" or place.is_dir():
        options = config.table_options().items()
        raise_all([f"{option} {value}: {what} has no columns; give a .csv manifest" for option, value in options])
    if config.data == "demo":
        if config.task == "multi_label":
            raise UserError("--task multi_label: the demo set has one finding an image")
        return list_demo()
    if not place.is_dir():
        raise UserError(f"--data {config.data}: no such folder or file; allowed: a folder, a .csv manifest, or demo")
    try:
        return list_folder(place.absolute(), config)
    except OSError as error:
        raise UserError(f"--data {config.data}: {error.filename} cannot be read: {error.strerror}") from None


def _fold_problems(samples: Samples, splits: npt.NDArray[np.str_], folds: int | None, seed: int) -> list[str]:
    """Why train and val cannot be divided into so many folds."""
    if folds is None or folds < 2:
        return []
    rows = np.flatnonzero(splits != "test").tolist()
    groups = [samples.groups[row] if samples.groups is not None else "" for row in rows]
    try:
        assign_folds([samples.label_text(row) for row in rows], groups, samples.classes, folds, seed)
    except UserError as error:
        return list(error.problems)
    return []


def _stops(result: CheckResult, config: DataConfig, readable: int) -> bool:
    if result.check == "unreadable":
        return not (config.skip_unreadable and readable)
    return result.severity == "error" and not config.allow_leakage


def _as_problem(result: CheckResult, samples: Samples, splits: npt.NDArray[np.str_]) -> str:
    """An error with its first occurrences and the way out, in one text of several lines."""
    split_of = dict(zip(samples.paths, map(str, splits), strict=True))
    lines = [f"{result.message}: {WAYS_OUT[result.check]}"]
    for item in result.items[:_MOST_SHOWN]:
        if result.check == "unreadable":
            lines.append(f"  {item[0]}: {item[1]}")
        else:
            lines.append("  " + ", ".join(f"{path} ({split_of[path]})" for path in item))
    if result.count > _MOST_SHOWN:
        lines.append(f"  ... and {result.count - _MOST_SHOWN} more")
    return "\n".join(lines)
