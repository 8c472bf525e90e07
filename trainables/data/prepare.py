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
from trainables.data.cache import Progress, Store, open_or_build
from trainables.data.checks import examine, unreadable
from trainables.data.config import DataConfig
from trainables.data.dataset import DATASET_FILE, SPLITS_FILE, THUMBNAILS_FILE
from trainables.data.folder import list_folder
from trainables.data.folds import deal
from trainables.data.manifest import list_manifest
from trainables.data.samples import SPLITS, Finding, Samples
from trainables.data.split_files import write_splits, write_thumbnails
from trainables.data.splits import assign_splits, missing_classes
from trainables.data.synthetic import list_demo

_MOST_SHOWN = 10
WAYS_OUT = {
    "unreadable": "mend or remove them, or go on without them by --skip-unreadable",
    "duplicates_across_splits": "remove all but one of each, or go on by --allow-leakage (the report will say so)",
    "groups_across_splits": "move each group into one split, or go on by --allow-leakage (the report will say so)",
}


def prepare(
    request: DataConfig,
    run_dir: Path,
    cache_dir: Path,
    workers: int,
    progress: Progress | None = None,
    folds: int | None = None,
) -> dict[str, Any]:
    """Make a data set ready for trials and return the content of dataset.json.

    Writes dataset.json, splits.csv and thumbnails.npz into ``run_dir`` only when all is well; the decoded images go to
    ``cache_dir``, where the next sweep on the same images finds them. workers: images decoded at the same time;
    progress: called with images decoded and images in all, unless the store is there already. folds: into how many
    train and val have to be divisible for cross-validation, if at all.
    Raises ``UserError`` with all problems of the data together.
    """
    ready = _examine(request, cache_dir, workers, progress, folds)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_splits(run_dir / SPLITS_FILE, ready.listing, ready.rows, ready.splits)
    assert ready.store.path is not None
    write_thumbnails(run_dir / THUMBNAILS_FILE, ready.listing, ready.rows, ready.splits, ready.store.path, request.seed)
    dataset = ready.summary()
    write_json(run_dir / DATASET_FILE, dataset)
    return dataset


def inspect(
    request: DataConfig, workers: int, progress: Progress | None = None, folds: int | None = None
) -> dict[str, Any]:
    """The same checks and the same summary (``store`` is null), with nothing written."""
    return _examine(request, None, workers, progress, folds).summary()


@dataclass(frozen=True)
class _Ready:
    """A data set that passed. rows: int64 [n], row in the store of each row of ``listing``; splits: str [n]."""

    request: DataConfig
    listing: Samples
    store: Store
    rows: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    split_origin: str
    findings: tuple[Finding, ...]
    dropped: tuple[dict[str, str], ...]

    def summary(self) -> dict[str, Any]:
        listing = self.listing
        return {
            "source": {"kind": listing.kind, "path": listing.path},
            "task": listing.task,
            "classes": list(listing.classes),
            "image_size": self.request.image_size,
            "fit": self.request.fit,
            "channels": self.store.channels,
            "store": None if self.store.path is None else str(self.store.path.absolute()),
            "fingerprint": self._fingerprint(),
            "counts": {split: self._class_counts(split) for split in SPLITS},
            "images": {split: int((self.splits == split).sum()) for split in SPLITS},
            "groups": {"column": listing.group_column, "counts": self._group_counts()},
            "split_origin": self.split_origin,
            "checks": [finding.to_dict() for finding in self.findings],
            "dropped": list(self.dropped),
            "subgroups": {column: dict(sorted(Counter(v).items())) for column, v in listing.subgroups.items()},
            "source_by_class": self._source_by_class(),
            "caveats": self._marks(),
            "demo": listing.kind == "demo",
            "request": self.request.to_json(),
        }

    def _fingerprint(self) -> str:
        """sha256 over content, label and split of each row in order, and the classes."""
        digest = hashlib.sha256("\n".join(self.listing.classes).encode())
        for index, row in enumerate(self.rows):
            line = f"{self.store.hashes[row]} {self.splits[index]} {self.listing.label_text(index)}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    def _class_counts(self, split: str) -> dict[str, int]:
        labels = self.listing.labels[self.splits == split]
        hot = labels if labels.ndim == 2 else labels[:, None] == np.arange(len(self.listing.classes))
        return dict(zip(self.listing.classes, map(int, hot.sum(axis=0)), strict=True))

    def _group_counts(self) -> dict[str, int]:
        """Groups in each split; a row without a group's name is one."""
        if self.listing.groups is None:
            return {}
        names = np.array([group or f"\0{row}" for row, group in enumerate(self.listing.groups)])
        return {split: len(np.unique(names[self.splits == split])) for split in SPLITS}

    def _source_by_class(self) -> dict[str, dict[str, int]] | None:
        if self.listing.sources is None:
            return None
        table: dict[str, Counter[str]] = {name: Counter() for name in self.listing.classes}
        for row, source in enumerate(self.listing.sources):
            for name in self.listing.label_names(row):
                table[name][source] += 1
        return {name: dict(sorted(counts.items())) for name, counts in table.items()}

    def _marks(self) -> list[str]:
        marks = []
        if self.listing.kind == "demo":
            marks.append("Demo set: phantoms drawn by code, no patients' images; scores say nothing about real X-rays.")
        if not (self.splits == "test").any():
            marks.append("No test split: scores are of validation images that also chose the model, so optimistic.")
        for finding in self.findings:
            if finding.check == "unreadable":
                marks.append(f"{finding.message}; they were left out (--skip-unreadable).")
            elif finding.severity == "error":
                marks.append(f"Leakage allowed (--allow-leakage): {finding.message}; scores are too good.")
        return marks


def _examine(
    request: DataConfig, cache_dir: Path | None, workers: int, progress: Progress | None, folds: int | None
) -> _Ready:
    raise_all(request.problems())
    listing = _list(request)
    if listing.problems:
        cache_dir = None  # it will end in an error; decode all the same, to tell all problems at once
    sources = tuple(listing.files) if listing.pixels is None else listing.pixels
    store = open_or_build(sources, request.image_size, request.fit, cache_dir, workers, progress)
    broken = unreadable(listing, store.facts)
    rows = np.flatnonzero([fact.reason is None for fact in store.facts]).astype(np.int64)
    dropped = tuple(
        {"path": path, "reason": fact.reason}
        for path, fact in zip(listing.paths, store.facts, strict=True)
        if fact.reason is not None
    )
    place = {int(row): index for index, row in enumerate(rows)}
    near = [
        pair._replace(first=place[pair.first], second=place[pair.second])
        for pair in store.near
        if listing.kind != "demo" and pair.first in place and pair.second in place  # phantoms all look alike
    ]
    usable, problems = listing.take(rows), list(listing.problems)
    findings = list(broken)
    splits, origin = np.full(len(rows), "train"), ""
    if not len(rows):  # nothing is left that could be split
        raise_all([*problems, *(_as_problem(finding, usable, np.array([], dtype=np.str_)) for finding in broken)])
    try:
        assignment = assign_splits(usable.splits, usable.labels, usable.groups, request.seed)
    except UserError as error:
        problems += error.problems
    else:
        splits, origin = assignment.splits, assignment.origin
        problems += missing_classes(usable.labels, splits, usable.classes)
        problems += _fold_problems(usable, splits, folds, request.seed)
        findings += examine(usable, [store.facts[row] for row in rows], near, splits)
    problems += [_as_problem(finding, usable, splits) for finding in findings if _stops(finding, request)]
    raise_all(problems)
    return _Ready(request, usable, store, rows, splits, origin, (*findings, *usable.findings), dropped)


def _fold_problems(listing: Samples, splits: npt.NDArray[np.str_], folds: int | None, seed: int) -> list[str]:
    """Why train and val cannot be dealt into so many folds."""
    if folds is None or folds < 2:
        return []
    rows = [int(row) for row in np.flatnonzero(splits != "test")]
    groups = [listing.groups[row] if listing.groups is not None else "" for row in rows]
    try:
        deal([listing.label_text(row) for row in rows], groups, listing.classes, folds, seed)
    except UserError as error:
        return list(error.problems)
    return []


def _list(request: DataConfig) -> Samples:
    if request.data == "demo":
        _refuse_manifest_options(request, "the demo set")
        if request.task == "multi_label":
            raise UserError("--task multi_label: the demo set has one finding an image")
        return list_demo()
    place = Path(request.data).expanduser()
    if place.is_dir():
        _refuse_manifest_options(request, f"the folder {place}")
        try:
            return list_folder(place.absolute(), request)
        except OSError as error:
            raise UserError(f"--data {request.data}: {error.filename} cannot be read: {error.strerror}") from None
    if place.is_file():
        return list_manifest(place.absolute(), request)
    raise UserError(f"--data {request.data}: no such folder or file; allowed: a folder, a .csv manifest, or demo")


def _refuse_manifest_options(request: DataConfig, what: str) -> None:
    raise_all(
        [
            f"{option} {value}: {what} has no columns; give a .csv manifest"
            for option, value in request.manifest_options().items()
        ]
    )


def _stops(finding: Finding, request: DataConfig) -> bool:
    if finding.severity != "error":
        return False
    return not (request.skip_unreadable if finding.check == "unreadable" else request.allow_leakage)


def _as_problem(finding: Finding, listing: Samples, splits: npt.NDArray[np.str_]) -> str:
    """An error with its first occurrences and the way out, in one text of several lines."""
    split_of = dict(zip(listing.paths, map(str, splits), strict=True))
    lines = [f"{finding.message}: {WAYS_OUT[finding.check]}"]
    for item in finding.items[:_MOST_SHOWN]:
        if finding.check == "unreadable":
            lines.append(f"  {item[0]}: {item[1]}")
        else:
            lines.append("  " + ", ".join(f"{path} ({split_of[path]})" for path in item))
    if finding.count > _MOST_SHOWN:
        lines.append(f"  ... and {finding.count - _MOST_SHOWN} more")
    return "\n".join(lines)
