"""A trial's folder read back: what it was asked, its epochs, and how it ended.

Reads only what the driver wrote as it went, so it works on a trial that is finished, killed, or still running.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.record_shapes import END, START, fitting
from sweep.run_folder import TrialPaths

_MEASURES = ("lr", "epoch_seconds", "images_per_second", "inference_ms_per_image")
_COUNTS = ("trainable_params", "total_params")
STATUSES = ("completed", "pruned", "failed", "running")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its folder tells it.

    trial_id: the folder's name below ``trials``, or below ``finalists`` ("t0007/seed_1001").
    epochs: one dict an epoch, in order of ``epoch``, the last line of an epoch that stands twice.
    status: "completed" (ran its budget, or ended by its own patience), "pruned" (by the scheduler), "failed",
    or "running" (no end was written: it runs, or the driver died). start: what the driver wrote before the
    trial began: trial_id, number, params (flat), asked, ...
    """

    trial_id: str
    number: int
    start: dict[str, Any]
    epochs: list[dict[str, Any]]
    status: str
    reason: str

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.start["params"])


def read_trials(folders: Iterable[Path], parent: Path, problems: list[str]) -> list[TrialRecord]:
    """The trials in ``folders``, by number, named by their place below ``parent``.

    What cannot be read is said in ``problems`` and left out.
    """
    found = (read_trial(folder, folder.relative_to(parent).as_posix(), problems) for folder in folders)
    return sorted((record for record in found if record is not None), key=lambda record: record.number)


def read_trial(folder: Path, trial_id: str, problems: list[str]) -> TrialRecord | None:
    """The trial in ``folder``; None, with the reason in ``problems``, if it cannot be told what it was."""
    paths = TrialPaths(folder)
    name = f"{trial_id}/{paths.params.name}"
    start = fitting(read_json(paths.params, problems, name), START, name, problems)
    if start.get("number") is None or start.get("params") is None:
        if start:
            problems.append(f"{name} lacks number or params: trial left out")
        return None
    epochs = {row["epoch"]: row for row in _read_lines(paths.result, trial_id, problems)}
    name = f"{trial_id}/{paths.status.name}"
    end = fitting(read_json(paths.status, problems, name), END, name, problems) if is_there(paths.status) else {}
    status = end.get("status", "failed" if is_there(paths.status) else "running")
    if status not in STATUSES:
        problems.append(f"{trial_id}/{paths.status.name} has status {status!r}: taken as failed")
        status = "failed"
    return TrialRecord(
        trial_id=trial_id,
        number=int(start["number"]),
        start=start,
        epochs=[epochs[epoch] for epoch in sorted(epochs)],
        status=status,
        reason=str(end.get("reason") or ""),
    )


def best_row(record: TrialRecord, metric: str, mode: str) -> dict[str, Any] | None:
    """The epoch at which ``metric`` was best (the first of equals); None if it never was a number."""
    scored = [row for row in record.epochs if is_number(row.get(metric))]
    if not scored:
        return None
    sign = 1.0 if mode == "max" else -1.0
    return max(scored, key=lambda row: (sign * row[metric], -row["epoch"]))


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def read_json(path: Path, problems: list[str], name: str | None = None) -> dict[str, Any]:
    """The JSON object in ``path``; {} with the reason, under ``name``, in ``problems`` if there is none."""
    name = name or path.name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{name} cannot be read: {reason(error)}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{name} holds no JSON object")
        return {}
    return value


def is_there(path: Path) -> bool:
    """Whether ``path`` exists; what lies behind a folder that may not be entered counts as there, to be told of."""
    try:
        return path.exists()
    except OSError:
        return True


def reason(error: Exception) -> str:
    """What went wrong, without the path, which the sentence before it names in its short form."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_lines(path: Path, trial_id: str, problems: list[str]) -> Iterator[dict[str, Any]]:
    name = f"{trial_id}/{path.name}"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        problems.append(f"{name} cannot be read: {reason(error)}")
        return
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and is_number(row.get("epoch")) and row["epoch"] == int(row["epoch"]) > 0:
            yield _sound(row, f"{name} line {number}", problems)
        # A torn last line is what a kill leaves behind; anywhere else it is damage.
        elif row is not None or number < len(lines):
            problems.append(f"{name} line {number} is damaged: left out")


def _sound(row: dict[str, Any], name: str, problems: list[str]) -> dict[str, Any]:
    """An epoch whose measures are all numbers, or None; infinite ones become NaN, which a score may rightly be."""
    kept: dict[str, Any] = {"epoch": int(row["epoch"])}
    for key, value in row.items():
        count = key in _COUNTS
        measured = count or key in _MEASURES or key.startswith(("train_", "val_"))
        if key == "epoch":
            continue
        if not measured or value is None or (is_number(value) and not (count and value != int(value))):
            kept[key] = value
        elif isinstance(value, float) and not count:
            kept[key] = math.nan
        else:
            problems.append(f"{name}: {key} is not a{' whole' if count else ''} number: left out")
    return kept
