"""The run folder: all its file names, and its creation: as a whole once all has been checked, or not at all.

Loads neither torch nor ray.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from search_spaces.errors import UserError
from search_spaces.paths import shortened, unreachable
from trainables.atomic import TEMPORARY, disk_error, write_json
from trainables.data import dataset as files
from trainables.processes import is_gone, this_process

LONGEST_PATH = 3000 if sys.platform == "linux" else 700
"""Of a run folder, in bytes: Linux limits paths to 4096, macOS to 1024, and there are files below the folder."""
LEFTOVER_S = 3 * 86_400.0
OWNER = ".sweep-process"
"""A file in each folder that ``folder_beside`` makes; it names the process that owns the folder."""
IMAGE_CACHE = ".image_cache"
"""Below the storage: the decoded images, shared by all runs there."""


@dataclass(frozen=True)
class _Folder:
    root: Path


class _At:
    """An attribute that is a path below the folder's ``root``."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __get__(self, folder: _Folder, owner: object) -> Path:
        return folder.root / self._place


class RunPaths(_Folder):
    """The files of one run; ``root`` is ``<storage>/<name>``."""

    sweep = _At("sweep.json")
    provenance = _At("provenance.json")
    space = _At("space.py")
    """A copy of the user's own space file."""
    dataset = _At(files.DATASET_FILE)
    splits = _At(files.SPLITS_FILE)
    images = _At(files.IMAGES_FILE)
    """Size, mode, bit depth and brightness of each image as it was read."""
    thumbnails = _At(files.THUMBNAILS_FILE)
    lock = _At(".lock")
    """Held by the process that runs the sweep."""
    heartbeat = _At("heartbeat.json")
    """Which process runs the sweep, its progress and how it ended, see ``sweep.heartbeat``."""
    log = _At("logs/ray.log")
    reserve = _At(".reserve")
    """Space reserved for the last records if the disk is full."""
    tune = _At("tune")
    trials = _At("trials")
    trials_table = _At("trials.parquet")
    epochs_table = _At("epochs.parquet")
    study = _At("study.db")
    report = _At("report")
    finalists = _At("finalists")
    chosen = _At("finalists/finalists.json")
    """Which configurations are repeated, and how often."""
    selection = _At("finalists/selection.json")
    """The winner, fixed on validation before the test split is opened."""
    test_access = _At(files.TEST_ACCESS_FILE)
    """One line for each time that the test split was opened."""
    baselines = _At("baselines")
    """Results of simple methods on the same split: a table and their predictions."""
    baselines_table = _At(f"baselines/{files.BASELINES_FILE}")
    models = _At("models")
    """The model to use, see ``ModelPaths``."""
    external = _At("external")
    """Evaluations on other images, see ``EvaluationPaths``."""

    def trial(self, trial_id: str) -> TrialPaths:
        """trial_id: such as "t0007"; of a repeat of a finalist such as "t0007/seed_1001"."""
        return TrialPaths((self.finalists if "/" in trial_id else self.trials) / trial_id)

    def trial_folders(self) -> list[Path]:
        try:
            with os.scandir(self.trials) as listed:  # It tells file types without a ``stat`` of each of thousands.
                return sorted(self.trials / one.name for one in listed if one.is_dir())
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []  # Any other error is raised: a sweep that saw no trials would overwrite those that it has.

    def repeat_folders(self) -> list[Path]:
        kinds = ("*/seed_*", "*/fold_*")
        return sorted(entry for kind in kinds for entry in self.finalists.glob(kind) if entry.is_dir())

    def fold(self, name: str) -> Path:
        """The split of one fold, in the format of splits.csv; name: that of its repeats."""
        return self.finalists / "folds" / f"{name}.csv"


class TrialPaths(_Folder):
    """The files of one trial, or of one repeat of a finalist."""

    params = _At("params.json")
    result = _At("result.jsonl")
    status = _At("status.json")
    """Written once, at the end."""
    error = _At("error.txt")
    restarts = _At("restarts.jsonl")
    """A line for each time that its process was lost: when, and why."""
    state = _At("state.pt")
    """What an unfinished trial continues from; removed when it ends, or, if it failed, when the sweep has ended."""
    stacks = _At("stacks.txt")
    """Stack traces of a hung trial, from when the watchdog ended it."""
    weights = _At("best/weights.pt")
    predictions = _At(f"best/{files.PREDICTIONS_FILE}")
    maps = _At(f"best/{files.MAPS_FILE}")
    """Attribution maps, see ``trainables.attribution``; only of the trial that became the model."""


class ModelPaths(_Folder):
    """The files of the model to use; ``root`` is ``RunPaths.models``."""

    model = _At("best.pt")
    onnx = _At("best.onnx")
    facts = _At("best.json")
    """The facts in both, and their hashes, readable without torch."""
    card = _At("card.md")


class EvaluationPaths(_Folder):
    """The files of one evaluation on other images; ``root`` is ``<run>/external/<name>`` unless the user gave one."""

    evaluation = _At("evaluation.json")
    predictions = _At(files.PREDICTIONS_FILE)
    rows = _At("rows.csv")
    images = _At(files.IMAGES_FILE)
    conclusion = _At("conclusion.json")
    page = _At("report.html")


def place_problems(paths: RunPaths) -> list[str]:
    """Why a new run cannot be created at ``paths``, one sentence; [] if it can."""
    if not os.path.lexists(paths.root):
        return []
    way_out = f"continue it with --resume {paths.root.name}, or give another --name"
    return [f"--name {paths.root.name}: {paths.root} exists already: {way_out}"]


def unwritable(paths: RunPaths) -> list[str]:
    """Why this user cannot continue a run, one sentence; [] if it is possible."""
    if os.access(paths.root, os.W_OK | os.X_OK):
        return []
    way_out = f"ask its owner, or start from its best trials with --warm-start {shlex.quote(str(paths.root))}"
    return [f"--resume {paths.root.name}: {paths.root} is not writable: {way_out}"]


def image_cache(storage: Path) -> Path:
    """Where the runs of a storage share their decoded images; a separate folder if that is not writable."""
    cache = storage.absolute() / IMAGE_CACHE
    shared = not cache.is_dir() or os.access(cache, os.W_OK | os.X_OK)
    return cache if shared else cache.with_name(f"{IMAGE_CACHE}-{os.getuid()}")


@contextlib.contextmanager
def staging(paths: RunPaths, problems: list[str], *, dry: bool = False) -> Iterator[RunPaths | None]:
    """A folder beside the run's in which the run is built; removed unless it was moved into place.

    None for a ``dry`` run, which writes nothing, and if the storage cannot be written to: the reason is added to
    ``problems``, so that others can still be found. Raises ``UserError`` if the disk fills up meanwhile.
    """
    storage = paths.root.parent
    with contextlib.ExitStack() as stack:
        try:
            check_writable(paths.root)
            beside = None if dry else stack.enter_context(folder_beside(paths.root, image_cache(storage).name))
        except OSError as error:
            named = f"--storage {shortened(storage)}"
            if not unreachable(storage):  # else it is among the problems already
                problems.append(f"{named} is not a writable folder ({error.strerror}): give another")
            beside = None
        if beside is None:
            yield None
            return
        try:
            yield RunPaths(beside)
        except OSError as error:
            if disk_error(error) is None:
                raise
            raise UserError(f"--storage {storage}: {error.strerror}: free space, or give another --storage") from error


def check_writable(place: Path) -> None:
    """Raise ``OSError`` if no folder can be made at ``place``, as far as can be seen without making it."""
    if len(os.fsencode(place.absolute())) > LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, f"its path is longer than {LONGEST_PATH} bytes")
    above = next(folder for folder in place.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(above, os.W_OK | os.X_OK):
        why = errno.EROFS if os.statvfs(above).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(why, os.strerror(why))


@contextlib.contextmanager
def folder_beside(place: Path, *neighbours: str) -> Iterator[Path]:
    """A new folder beside ``place``; removed afterwards unless it was moved, as are folders made for it and left empty.

    neighbours: names of folders beside it that may be made meanwhile. First removes the folders that earlier calls of
    this function made there, if their processes were killed.
    """
    missing = [folder for folder in place.absolute().parents if not os.path.lexists(folder)]  # the deepest come first
    beside = [place.parent / name for name in neighbours if not os.path.lexists(place.parent / name)]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, [*beside, *missing])
        for folder in reversed(missing):  # one by one: mkdir(parents=True) calls itself for each
            folder.mkdir(exist_ok=True)
        _remove_leftovers(place.parent)
        around = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
        stack.callback(shutil.rmtree, around, ignore_errors=True)
        (around / OWNER).write_text(this_process(), encoding="utf-8")
        folder = around / "new"
        folder.mkdir()
        yield folder


def _remove_leftovers(folder: Path) -> None:
    """Remove folders of dead processes; of other machines or unknown owners only those ``LEFTOVER_S`` old."""
    for owner in folder.glob(f".*-????????/{OWNER}"):
        with contextlib.suppress(OSError):
            gone = is_gone(owner.read_text(encoding="utf-8", errors="replace"))
            if gone or (gone is None and time.time() - owner.stat().st_mtime > LEFTOVER_S):
                shutil.rmtree(owner.parent, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def claim(paths: RunPaths) -> BaseFileLock:
    """Lock the run folder for this process until it ends, however it ends; ``UserError`` if another one has it."""
    # The fallback, a file that stands for the lock, would outlive a killed driver.
    lock = FileLock(paths.lock, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"the run {paths.root} is running in another process: wait for it, or stop it first") from None
    except OSError:
        pass  # A file system without locks: the user must avoid two drivers at once.
    return lock


def reopen_run(
    paths: RunPaths,
    beside: RunPaths,
    sweep: Mapping[str, Any],
    damaged: Collection[str],
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Record the changes of a resumed sweep, and remove files that a kill left half written.

    sweep: the keys of sweep.json that change. damaged: the names of files that are taken from ``beside``, where the
    same data set was read again. weights: new ones for provenance.json if the files have moved.
    """
    for folder, below, names in os.walk(paths.root):
        if Path(folder) == paths.root:  # not Ray's files, nor those of another command that may be running
            below[:] = [name for name in below if name not in (paths.tune.name, paths.external.name)]
        for name in filter(TEMPORARY.fullmatch, names):
            with contextlib.suppress(OSError):
                Path(folder, name).unlink()
    before, again = (json.loads(one.dataset.read_text(encoding="utf-8")) for one in (paths, beside))
    known = before.get("sha256")
    hashes = known if isinstance(known, dict) else {}
    if _cache_rows(paths.splits) != _cache_rows(beside.splits):
        # An unreadable file was added or removed: the same images have other rows in the image cache.
        damaged = list(again["sha256"])
    for name in damaged:
        os.replace(beside.root / name, paths.root / name)
        hashes[name] = again["sha256"][name]
    write_json(paths.dataset, again | {"sha256": hashes})  # the data set or the image cache may have moved
    if weights is not None:
        write_json(paths.provenance, json.loads(paths.provenance.read_text(encoding="utf-8")) | {"weights": weights})
    change_sweep(paths, **sweep, ended=None)


def _cache_rows(splits: Path) -> list[str | None]:
    """The cache row of each image in splits.csv; [] if it cannot be read."""
    try:
        with splits.open(encoding="utf-8", newline="") as file:
            return [row.get("row") for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error):
        return []


def change_sweep(paths: RunPaths, **changes: Any) -> None:
    """Change keys of sweep.json."""
    write_json(paths.sweep, json.loads(paths.sweep.read_text(encoding="utf-8")) | changes)
