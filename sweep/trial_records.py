"""A trial's folder read back: what it was asked, its epochs, and how it ended.

Reads only what the driver wrote as it went, so it works on a trial that is finished, killed, or still running.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sweep.paths import TrialPaths

STATUSES = ("finished", "stopped", "failed", "running")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its folder tells it.

    trial_id: the folder's name below ``trials``, or below ``finalists`` ("t0007/seed_1001").
    epochs: one dict an epoch, in order of ``epoch``, the last line of an epoch that stands twice.
    status: "finished" (ran its budget, or ended by its own patience), "stopped" (by the scheduler), "failed",
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
    start = read_json(paths.params, problems, f"{trial_id}/{paths.params.name}")
    if not {"number", "params"} <= start.keys():
        if start:
            problems.append(f"{trial_id}/{paths.params.name} lacks number or params: trial left out")
        return None
    epochs = {row["epoch"]: row for row in _read_lines(paths.result, trial_id, problems)}
    end = read_json(paths.end, problems, f"{trial_id}/{paths.end.name}") if paths.end.exists() else {}
    status = end.get("status", "running")
    if status not in STATUSES:
        problems.append(f"{trial_id}/{paths.end.name} has status {status!r}: taken as failed")
        status = "failed"
    return TrialRecord(
        trial_id=trial_id,
        number=int(start["number"]),
        start=start,
        epochs=[epochs[epoch] for epoch in sorted(epochs)],
        status=status,
        reason=str(end.get("reason", "")),
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
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def read_json(path: Path, problems: list[str], name: str | None = None) -> dict[str, Any]:
    """The JSON object in ``path``; {} with the reason, under ``name``, in ``problems`` if there is none."""
    name = name or path.name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        problems.append(f"{name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{name} holds no JSON object")
        return {}
    return value


def _read_lines(path: Path, trial_id: str, problems: list[str]) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            # A torn last line is what a kill leaves behind; anywhere else it is damage.
            if number < len(lines):
                problems.append(f"{trial_id}/{path.name} line {number} is damaged: left out")
            continue
        if isinstance(row, dict) and isinstance(row.get("epoch"), int):
            yield row
