"""Trials, and finalists with their repeats, read back; ``rank`` is the one place that orders trials.

Reads only what the driver wrote as it went, so it works on a trial that is finished, killed, or still running.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field, JsonValue, RootModel

from sweep.record_reader import (
    MOST,
    Number,
    Record,
    Score,
    Setting,
    Whole,
    is_there,
    is_whole,
    read_file,
    read_json,
    read_lines,
    read_record,
)
from sweep.run_folder import RunPaths, TrialPaths
from trainables.metrics import OperatingPoint

STATUSES = ("completed", "pruned", "failed", "running")
_READ_AT_ONCE = 16
"""Trials whose files are read in parallel: a file server takes milliseconds for each answer."""


class Ranked(Protocol):
    """What ``rank`` orders. score: the selection metric at the best epoch, NaN if there is none."""

    @property
    def number(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def trainable_params(self) -> int | None: ...


T = TypeVar("T", bound=Ranked)


def rank(trials: Iterable[T], mode: str) -> list[T]:
    """Those that did not fail and have a score, the best first: by score, then fewer trainable parameters, then number.
    mode: "max" or "min"."""

    def place(trial: T) -> tuple[float, float, int]:
        score, size = -trial.score if mode == "max" else trial.score, trial.trainable_params
        return score, math.inf if size is None else size, trial.number

    return sorted((one for one in trials if one.status != "failed" and not math.isnan(one.score)), key=place)


def best(trials: Iterable[T], mode: str) -> T | None:
    """The first of ``rank``; None if there is none."""
    return next(iter(rank(trials, mode)), None)


class Suggestion(Record):
    """Where a trial's parameters come from.

    In the search: the values that the sampler suggested, their distributions (Optuna's JSON), and positions in its
    sequence; duplicates: earlier suggestions that repeat trial ``of``; refused: earlier ones that the space refused;
    all empty for a fixed list. For a repeat: the finalist, the seed, and the fold (from 1).
    """

    suggested: dict[str, Setting] = {}
    distributions: dict[str, JsonValue] = {}
    positions: dict[str, JsonValue] = {}
    of: Whole | None = None
    duplicates: tuple[Suggestion, ...] = ()
    refused: tuple[Suggestion, ...] = ()
    finalist: str | None = None
    seed: Whole | None = None
    fold: Whole | None = None


_Metrics = RootModel[dict[str, Score]]


class EpochRecord(Record):
    """One line of result.jsonl, where ``metrics`` (train_* and val_*; NaN if undefined) stand beside the rest.

    epoch: from 1; lr: of the head; images_per_second: of training; inference_ms_per_image: of validation.
    """

    epoch: Whole = 0
    lr: Score | None = None
    epoch_seconds: Score | None = None
    images_per_second: Score | None = None
    inference_ms_per_image: Score | None = None
    trainable_params: Whole | None = None
    total_params: Whole | None = None
    metrics: dict[str, Score] = {}

    @classmethod
    def from_line(cls, row: dict[str, Any], name: str, problems: list[str]) -> Self:
        # Up to millions of lines have the same names: each is kept in memory once.
        metrics = {sys.intern(key): row[key] for key in row if key.startswith(("train_", "val_"))}
        fixed = {key: row[key] for key in row if key in cls.model_fields and key not in ("metrics", *metrics)}
        found = read_record(_Metrics, metrics, name, problems)
        return read_record(cls, fixed, name, problems).model_copy(update={"metrics": found.root})

    def score(self, metric: str) -> float:
        """The value of ``metric``; NaN without one."""
        return self.metrics.get(metric, math.nan)


class TrialRecord(Record):
    """One trial as its folder tells it.

    trial_id: the folder's name below ``trials``, or below ``finalists`` ("t0007/seed_1001"); number: -1 if unknown;
    params: flat. epochs: in order; if an epoch occurs twice, the last line counts, and voids later epochs before it.
    status: "completed" (ran its budget, or ended by its own patience), "pruned" (by the scheduler), "failed", or
    "running" (no end was written: it runs, or the driver died). best: the epoch at which the selection metric was best
    (the first of equals), None if it never was a number; score: the metric there, or NaN.
    """

    trial_id: str = ""
    number: Whole = -1
    params: dict[str, Setting] = {}
    suggestion: Suggestion = Suggestion()
    epochs: tuple[EpochRecord, ...] = ()
    status: str = "running"
    reason: str = ""
    best: EpochRecord | None = None
    score: Score = math.nan

    @property
    def trainable_params(self) -> int | None:
        return self.epochs[-1].trainable_params if self.epochs else None

    @property
    def best_epoch(self) -> int | None:
        return None if self.best is None else self.best.epoch

    @property
    def finalist(self) -> str:
        """Of a repeat: the trial that it repeats."""
        return self.trial_id.partition("/")[0]

    @property
    def name(self) -> str:
        """Of a repeat: "seed_1001" or "fold_2_of_5"."""
        return self.trial_id.partition("/")[2]

    @property
    def seed(self) -> int:
        """Of a repeat; -1 if unknown."""
        return -1 if self.suggestion.seed is None else self.suggestion.seed


class Finalist(Record):
    """One configuration that is repeated. role: "finalist", by its ``rank`` (from 1) in the search, or "compare", the
    best of its ``cell`` of --compare. params: flat, as in params.json."""

    trial_id: str = ""
    number: int = Field(default=-1, ge=-1, le=MOST)
    role: str = "finalist"
    rank: Whole | None = None
    cell: dict[str, Setting] | None = None
    search_score: Score = math.nan
    params: dict[str, Setting] = {}
    repeats: tuple[TrialRecord, ...] = ()

    @property
    def completed(self) -> tuple[TrialRecord, ...]:
        """The repeats that ran to their end and have a score."""
        return tuple(one for one in self.repeats if one.status == "completed" and not math.isnan(one.score))

    @property
    def scores(self) -> list[float]:
        return [one.score for one in self.completed]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean over repeats: standard deviation (n - 1) / sqrt(n); NaN below two scores."""
        count = len(self.scores)
        return statistics.stdev(self.scores) / math.sqrt(count) if count > 1 else math.nan

    @property
    def trainable_params(self) -> int | None:
        return next((one.best.trainable_params for one in self.repeats if one.best is not None), None)


class TestAccess(Record):
    """One opening of the test split; a damaged line counts as one about which nothing is known."""

    __test__: ClassVar[bool] = False
    opened: str | None = None
    winner: str | None = None
    finalists: tuple[str, ...] = ()
    images: Whole | None = None


class Finals(Record):
    """The finalists of a run, and the selection among them, if it was made.

    Of finalists.json: finalists; chosen: when (ISO time); repeats: the names of each one's repeats that were asked for;
    folds: K of --folds, or None. Of selection.json: selected: when the winner was fixed (ISO time); winner: its
    trial_id; model: the repeat whose weights are ``models/best.pt``; thresholds: by finalist and label, where tuned
    (multi-label); operating_point: the winner's, where one was asked for. test_access: each opening of the test split.
    """

    finalists: tuple[Finalist, ...] = ()
    chosen: str | None = None
    repeats: tuple[str, ...] = ()
    folds: Whole | None = None
    selected: str | None = None
    winner: str | None = None
    model: str | None = None
    reason: str = ""
    thresholds: dict[str, dict[str, Number]] = {}
    operating_point: OperatingPoint | None = None
    test_access: tuple[TestAccess, ...] = ()

    @property
    def asked(self) -> int:
        """Repeats of each finalist that were asked for."""
        return len(self.repeats)

    @property
    def winning(self) -> Finalist | None:
        return next((one for one in self.finalists if one.trial_id == self.winner), None)

    @property
    def done(self) -> bool:
        """Whether all repeats that were asked for have ended."""
        ended = sum(one.status in ("completed", "failed") for each in self.finalists for one in each.repeats)
        return ended >= self.asked * len(self.finalists)

    @property
    def superseded(self) -> bool:
        """Whether other finalists or repeats were asked for after the winner was selected, and are not done."""
        later = self.selected is not None and self.chosen is not None and self.chosen > self.selected
        return later and not self.done

    @property
    def selected_when(self) -> str:
        """When the winner was fixed, relative to the first opening of the test split, as the end of a clause; "" if
        unknown. Both times are in UTC."""
        first = self.test_access[0].opened if self.test_access else None
        if first is None or self.selected is None:
            return ""
        if self.selected <= first:
            return ", before the test split was opened"
        return ", again, after the test split had been opened for another selection"

    @property
    def opened(self) -> bool:
        return bool(self.test_access)

    def thresholds_of(self, trial_id: str | None) -> dict[str, float]:
        """Thresholds for ``metrics.decide``: its tuned ones; for the winner, the operating point's takes precedence."""
        point = self.operating_point if trial_id == self.winner else None
        return self.thresholds.get(trial_id or "", {}) | (point.thresholds if point is not None else {})


def read_trials(
    folders: Iterable[Path], parent: Path, metric: str, mode: str, problems: list[str]
) -> list[TrialRecord]:
    """The trials in ``folders``, sorted by number, named by their path below ``parent``.

    metric, mode ("max" or "min"): what a trial is selected by. What cannot be read is left out and reported in
    ``problems``.
    """

    def read(folder: Path) -> tuple[TrialRecord | None, list[str]]:
        said: list[str] = []
        return _read_trial(TrialPaths(folder), folder.relative_to(parent).as_posix(), metric, mode, said), said

    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = [*pool.map(read, folders)]
    problems += [problem for _, said in found for problem in said]
    return sorted((record for record, _ in found if record is not None), key=lambda record: record.number)


def _read_trial(paths: TrialPaths, trial_id: str, metric: str, mode: str, problems: list[str]) -> TrialRecord | None:
    name = f"{trial_id}/{paths.params.name}"
    content = read_json(paths.params, problems, name)
    start = read_record(TrialRecord, {key: content[key] for key in content if key in _STARTS}, name, problems)
    if not {"number", "params"} <= start.model_fields_set:
        if content:
            problems.append(f"{name} lacks number or params: trial left out")
        return None
    end = _End(status="running")
    if is_there(paths.status):
        end = read_file(_End, paths.status, problems, f"{trial_id}/{paths.status.name}")
    if end.status not in STATUSES:
        problems.append(f"{trial_id}/{paths.status.name} has status {end.status!r}: counted as failed")
        end = end.model_copy(update={"status": "failed"})
    epochs: list[EpochRecord] = []
    for row in _read_epochs(paths.result, trial_id, problems):
        while epochs and epochs[-1].epoch >= row.epoch:  # Trained again from this epoch: the older lines are void.
            epochs.pop()
        epochs.append(row)
    scored = [row for row in epochs if not math.isnan(row.score(metric))]
    best_row = (max if mode == "max" else min)(scored, key=lambda row: row.score(metric), default=None)
    score = math.nan if best_row is None else best_row.score(metric)
    known = {"trial_id": trial_id, "epochs": tuple(epochs), "best": best_row, "score": score}
    return start.model_copy(update=known | dict(end))


_SELECTED = ("selected", "winner", "model", "reason", "thresholds", "operating_point")
_STARTS = ("number", "params", "suggestion")


class _End(Record):
    """status.json of a trial."""

    status: str = "failed"
    reason: str = ""


def _read_epochs(path: Path, trial_id: str, problems: list[str]) -> Iterable[EpochRecord]:
    name = f"{trial_id}/{path.name}"
    rows = read_lines(path, problems, name)
    for number, row in enumerate(rows, start=1):
        epoch = row.get("epoch") if isinstance(row, dict) else None
        if is_whole(epoch) and epoch:
            yield EpochRecord.from_line(row, f"{name} line {number}", problems)
        # A kill can leave a torn last line; anywhere else it is damage.
        elif row is not None or number < len(rows):
            problems.append(f"{name} line {number} is damaged: left out")


def trials_table(records: list[TrialRecord], paths: RunPaths) -> pd.DataFrame:
    """One row per trial.

    Columns: trial_id, number, status (``STATUSES``), reason, best_epoch (from 1), score (the selection metric there),
    all train_* and val_* of the best epoch, epochs_run, trainable_params, total_params, seconds (of its epochs),
    images_per_second and inference_ms_per_image (medians), weights_kept, param_<name> for each hyperparameter.
    """
    of_trial = ("trial_id", "number", "status", "reason", "best_epoch", "score")
    sizes, speeds = ("trainable_params", "total_params"), ("images_per_second", "inference_ms_per_image")
    rows = [
        {name: getattr(record, name) for name in of_trial}
        | ({} if record.best is None else record.best.metrics)
        | {"epochs_run": len(record.epochs)}
        | {name: getattr(record.epochs[-1], name) if record.epochs else None for name in sizes}
        | {"seconds": math.fsum(row.epoch_seconds or 0.0 for row in record.epochs)}
        | {name: _median(getattr(row, name) for row in record.epochs) for name in speeds}
        | {"weights_kept": paths.trial(record.trial_id).weights.is_file()}
        | {f"param_{key}": value for key, value in record.params.items()}
        for record in records
    ]
    columns = [*of_trial, "epochs_run", *sizes, "seconds", *speeds, "weights_kept"]
    table = pd.DataFrame(rows, columns=None if rows else columns)
    integers = ["number", "best_epoch", "epochs_run", "trainable_params", "total_params"]
    table[integers] = table[integers].astype("Int64")
    measured = [name for name in table.columns if name == "score" or name.startswith(("train_", "val_"))]
    table[measured] = table[measured].astype("float64")
    return table


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.median(known)) if known else None


def epochs_table(records: list[TrialRecord]) -> pd.DataFrame:
    """One row per trial and epoch: trial_id, epoch, train_*, val_*, lr, and its seconds and speeds."""
    kept = ("epoch", "lr", "epoch_seconds", "images_per_second", "inference_ms_per_image")
    rows = [
        {"trial_id": record.trial_id, **{name: getattr(row, name) for name in kept}, **row.metrics}
        for record in records
        for row in record.epochs
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["trial_id", *kept])
    measured = table.columns.difference(["trial_id", "epoch"])
    table[measured] = table[measured].astype("float64")
    return table


def read_finals(paths: RunPaths, metric: str, mode: str, problems: list[str]) -> Finals | None:
    """The finalists; None if none were chosen."""
    name = f"finalists/{paths.chosen.name}"
    lines = (row if isinstance(row, dict) else {} for row in openings_of(paths))
    openings = tuple(read_record(TestAccess, row, "", []) for row in lines)
    times = {0: "was not opened", 1: "was opened once"}.get(len(openings), f"was opened {len(openings)} times")
    without = f"the finalists are left out; the test split {times}"
    if not is_there(paths.chosen):
        if is_there(paths.selection) or openings:
            problems.append(f"{name} is missing: {without}")
        return None
    finals = read_file(Finals, paths.chosen, problems, name)
    whole = {one.trial_id: one for one in finals.finalists if one.trial_id and one.params}
    if not whole:
        problems.append(f"{name} names no finalist: {without}")
        return None
    if lost := len(finals.finalists) - len(whole):
        problems.append(f"{name} does not say what each finalist is: {lost} of {len(finals.finalists)} left out")
    known: dict[str, Any] = {"test_access": openings}
    if is_there(paths.selection):
        selection = read_file(Finals, paths.selection, problems, f"finalists/{paths.selection.name}")
        known |= {key: getattr(selection, key) for key in _SELECTED}
    repeats = read_trials(paths.repeat_folders(), paths.finalists, metric, mode, problems)
    known["finalists"] = tuple(
        one.model_copy(
            update={"repeats": tuple(each for each in repeats if each.finalist == key and each.name in finals.repeats)}
        )
        for key, one in whole.items()
    )
    return finals.model_copy(update=known)


def openings_of(paths: RunPaths) -> list[Any]:
    """The lines of test_access.jsonl; if it exists but cannot be read, one opening."""
    problems: list[str] = []
    lines = read_lines(paths.test_access, problems, "")
    return [None] if problems else lines
