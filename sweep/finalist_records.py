"""The finalists of a run folder read back: what was repeated, what came out, and what was decided when."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.record_shapes import CHOSEN, SELECTION, TEST_ACCESS, fitting
from sweep.run_folder import RunPaths
from sweep.trial_records import TrialRecord, best_row, is_there, read_json, read_trials


@dataclass(frozen=True)
class Repeat:
    """One retraining of a finalist. trial_id: "t0007/seed_1001" or "t0007/fold_2"; fold: from 1, or None.

    best: the record of its best epoch ({} if it has none); score: the selection metric there, or NaN.
    """

    trial_id: str
    seed: int
    fold: int | None
    status: str
    reason: str
    epochs: list[dict[str, Any]]
    best: dict[str, Any]
    score: float

    @property
    def finalist(self) -> str:
        return self.trial_id.partition("/")[0]

    @property
    def name(self) -> str:
        return self.trial_id.partition("/")[2]

    @property
    def best_epoch(self) -> int | None:
        return self.best.get("epoch")


@dataclass(frozen=True)
class Finalist:
    """One configuration that is repeated. role: "finalist", by its place ``rank`` (from 1) in the search, or "compare",
    the best of the ``cell`` that --compare made. params: flat, as in params.json."""

    trial_id: str
    number: int
    role: str
    rank: int | None
    cell: dict[str, Any] | None
    search_score: float
    params: dict[str, Any]
    repeats: tuple[Repeat, ...]

    @property
    def ended(self) -> tuple[Repeat, ...]:
        """The repeats that ran to their end and have a score."""
        return tuple(one for one in self.repeats if one.status == "completed" and not math.isnan(one.score))

    @property
    def scores(self) -> list[float]:
        return [one.score for one in self.ended]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def standard_error(self) -> float:
        """Of the mean over repeats: standard deviation (n - 1) / sqrt(n); NaN below two."""
        count = len(self.scores)
        return statistics.stdev(self.scores) / math.sqrt(count) if count > 1 else math.nan

    @property
    def trainable_params(self) -> int | None:
        return next((one.best.get("trainable_params") for one in self.repeats if one.best), None)


@dataclass(frozen=True)
class Finals:
    """The finalists of a run. asked: repeats of each that were asked for; folds: K of --folds, or None.

    decided: when the winner was fixed (ISO time), None before; winner: its trial_id; model: the repeat whose weights
    are ``models/best.pt``; reason: why it won. thresholds: by finalist and label, where tuned (multi-label).
    test_access: one dict for each time that the test split was opened.
    """

    finalists: tuple[Finalist, ...]
    asked: int
    folds: int | None
    decided: str | None
    winner: str | None
    model: str | None
    reason: str
    thresholds: dict[str, dict[str, float]]
    test_access: tuple[dict[str, Any], ...]

    def of(self, trial_id: str) -> Finalist:
        return next(one for one in self.finalists if one.trial_id == trial_id)

    @property
    def winning(self) -> Finalist | None:
        return next((one for one in self.finalists if one.trial_id == self.winner), None)

    @property
    def opened(self) -> bool:
        return bool(self.test_access)


def read_finals(paths: RunPaths, metric: str, mode: str, problems: list[str]) -> Finals | None:
    """The finalists; None where none were chosen. What cannot be read is said in ``problems``."""
    if not is_there(paths.chosen):
        if is_there(paths.selection) or is_there(paths.test_access):
            problems.append(f"finalists/{paths.chosen.name} is missing: {_without(paths)}")
        return None
    chosen = _read(paths.chosen, CHOSEN, problems)
    rows = _rows(chosen, paths, problems)
    if not rows:
        problems.append(f"finalists/{paths.chosen.name} names no finalist: {_without(paths)}")
        return None
    runs = chosen.get("runs") or []
    wanted = {(str(row["trial_id"]), name) for row in rows for name in runs}
    records = read_trials(paths.repeat_folders(), paths.finalists, problems)
    repeats = [_repeat(record, metric, mode) for record in records]
    decision = _read(paths.selection, SELECTION, problems) if is_there(paths.selection) else {}
    return Finals(
        finalists=tuple(
            _finalist(row, [one for one in repeats if one.finalist == row["trial_id"] and _of(one) in wanted])
            for row in rows
        ),
        asked=len(runs),
        folds=chosen.get("folds"),
        decided=decision.get("decided"),
        winner=decision.get("winner"),
        model=decision.get("model"),
        reason=str(decision.get("reason") or ""),
        thresholds=decision.get("thresholds") or {},
        test_access=tuple(read_test_access(paths)),
    )


def read_test_access(paths: RunPaths) -> list[dict[str, Any]]:
    """The lines of test_access.jsonl; a damaged one counts as an opening all the same."""
    try:
        lines = paths.test_access.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError:
        return [{}]  # it is there: the test split was opened
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        found.append(fitting(value, TEST_ACCESS, "", []) if isinstance(value, dict) else {})
    return found


def _read(path: Path, shape: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    name = f"finalists/{path.name}"
    return fitting(read_json(path, problems, name), shape, name, problems)


def _rows(chosen: dict[str, Any], paths: RunPaths, problems: list[str]) -> list[dict[str, Any]]:
    """The finalists that are whole, one for each trial_id."""
    listed = chosen.get("finalists") or []
    found = {str(row["trial_id"]): row for row in listed if row.get("trial_id") and row.get("params")}
    if found and len(found) < len(listed):
        lost = f"{len(listed) - len(found)} of {len(listed)}"
        problems.append(f"finalists/{paths.chosen.name} does not say what each finalist is: {lost} left out")
    return list(found.values())


def _without(paths: RunPaths) -> str:
    times = len(read_test_access(paths))
    opened = {0: "was not opened", 1: "was opened once"}.get(times, f"was opened {times} times")
    return f"the finalists are left out; the test split {opened}"


def _of(repeat: Repeat) -> tuple[str, str]:
    return repeat.finalist, repeat.name


def _repeat(record: TrialRecord, metric: str, mode: str) -> Repeat:
    best = best_row(record, metric, mode) or {}
    asked = record.start.get("asked") or {}
    return Repeat(
        trial_id=record.trial_id,
        seed=int(-1 if asked.get("seed") is None else asked["seed"]),
        fold=asked.get("fold"),
        status=record.status,
        reason=record.reason,
        epochs=record.epochs,
        best=best,
        score=float(best.get(metric, math.nan)),
    )


def _finalist(row: dict[str, Any], repeats: list[Repeat]) -> Finalist:
    score = row.get("search_score")
    return Finalist(
        trial_id=str(row["trial_id"]),
        number=int(-1 if row.get("number") is None else row["number"]),
        role=str(row.get("role") or "finalist"),
        rank=row.get("rank"),
        cell=row.get("cell"),
        search_score=math.nan if score is None else float(score),
        params=dict(row.get("params") or {}),
        repeats=tuple(repeats),
    )
