"""A run folder read back: two tidy tables, the facts beside them, and what could not be read.

Reads only files that the driver and the trials wrote as they went, so it works on a run that is finished, killed,
or still running. Imports neither torch nor ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from search_spaces.problems import UserError
from sweep.paths import RunPaths, TrialPaths
from trainables import predictions
from trainables.predictions import Predictions as Predictions

STATUSES = ("finished", "stopped", "failed", "running")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as its folder tells it.

    epochs: one dict an epoch, in order of ``epoch``, the last line of an epoch that stands twice.
    status: "finished" (ran its budget, or ended by its own patience), "stopped" (by the scheduler), "failed",
    or "running" (no end was written: it runs, or the driver died). start: what the driver wrote before the
    trial began: trial_id, number, params (flat), suggested, ...
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


@dataclass(frozen=True)
class Run:
    """A run folder. ``trials`` and ``epochs`` are described in ``trials_table`` and ``epochs_table``.

    problems: one sentence for each file that is damaged or missing.
    """

    paths: RunPaths
    sweep: dict[str, Any]
    provenance: dict[str, Any]
    dataset: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    problems: list[str] = field(default_factory=list)


def read_run(root: Path) -> Run:
    """Read the run folder ``root``. Raises ``UserError`` if it is none."""
    paths = RunPaths(Path(root))
    if not paths.sweep.is_file():
        raise UserError(f"{root} is no run folder: it has no {paths.sweep.name}; give <storage>/<name> of a sweep")
    problems: list[str] = []
    sweep = _read_json(paths.sweep, problems)
    records = read_trials(paths, problems)
    metric = str(sweep.get("metric") or "val_f1_macro")
    mode = str(sweep.get("mode") or "max")
    return Run(
        paths=paths,
        sweep=sweep,
        provenance=_read_json(paths.provenance, problems),
        dataset=_read_json(paths.dataset, problems),
        trials=trials_table(records, metric, mode, paths),
        epochs=epochs_table(records),
        problems=problems,
    )


def read_trials(paths: RunPaths, problems: list[str]) -> list[TrialRecord]:
    """The trials of a run by number; what cannot be read is said in ``problems`` and left out."""
    folders = sorted(entry for entry in paths.trials.glob("*") if entry.is_dir()) if paths.trials.is_dir() else []
    records = [record for folder in folders if (record := _read_trial(TrialPaths(folder), problems)) is not None]
    return sorted(records, key=lambda record: record.number)


def best_row(record: TrialRecord, metric: str, mode: str) -> dict[str, Any] | None:
    """The epoch at which ``metric`` was best (the first of equals); None if it never was a number."""
    scored = [row for row in record.epochs if _is_number(row.get(metric))]
    if not scored:
        return None
    sign = 1.0 if mode == "max" else -1.0
    return max(scored, key=lambda row: (sign * row[metric], -row["epoch"]))


def trials_table(records: list[TrialRecord], metric: str, mode: str, paths: RunPaths) -> pd.DataFrame:
    """One row a trial.

    Columns: trial_id, number, status (``STATUSES``), reason, best_epoch (from 1), score (``metric`` at the best
    epoch), all train_* and val_* of the best epoch, epochs_run, trainable_params, total_params, seconds (of its
    epochs), images_per_second (median), weights_kept, param_<name> for every hyperparameter.
    """
    rows = []
    for record in records:
        best = best_row(record, metric, mode) or {}
        last = record.epochs[-1] if record.epochs else {}
        speeds = [row["images_per_second"] for row in record.epochs if _is_number(row.get("images_per_second"))]
        rows.append(
            {
                "trial_id": record.trial_id,
                "number": record.number,
                "status": record.status,
                "reason": record.reason,
                "best_epoch": best.get("epoch"),
                "score": best.get(metric),
                **{key: value for key, value in best.items() if key.startswith(("train_", "val_"))},
                "epochs_run": len(record.epochs),
                "trainable_params": last.get("trainable_params"),
                "total_params": last.get("total_params"),
                "seconds": sum(row.get("epoch_seconds") or 0.0 for row in record.epochs),
                "images_per_second": float(np.median(speeds)) if speeds else None,
                "weights_kept": paths.trial(record.trial_id).weights.is_file(),
                **{f"param_{key}": value for key, value in record.params.items()},
            }
        )
    first = ["trial_id", "number", "status", "reason", "best_epoch", "score", "epochs_run", "trainable_params"]
    last_columns = ["total_params", "seconds", "images_per_second", "weights_kept"]
    table = pd.DataFrame(rows, columns=None if rows else first + last_columns)
    integers = ["number", "best_epoch", "epochs_run", "trainable_params", "total_params"]
    table[integers] = table[integers].astype("Int64")
    for name in table.columns:
        if name == "score" or (str(name).startswith(("train_", "val_"))):
            table[name] = table[name].astype("float64")
    return table


def epochs_table(records: list[TrialRecord]) -> pd.DataFrame:
    """One row a trial and epoch: trial_id, epoch, train_*, val_*, lr, epoch_seconds, images_per_second."""
    kept = ("epoch", "lr", "epoch_seconds", "images_per_second")
    rows = [
        {"trial_id": record.trial_id}
        | {key: value for key, value in row.items() if key in kept or key.startswith(("train_", "val_"))}
        for record in records
        for row in record.epochs
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["trial_id", *kept])
    for name in table.columns.difference(["trial_id", "epoch"]):
        table[name] = table[name].astype("float64")
    return table


def read_predictions(run: Run, trial_id: str) -> Predictions | None:
    """The predictions of a trial's best epoch, or None where there are none or they are damaged."""
    path = run.paths.trial(trial_id).predictions
    try:
        return predictions.read_predictions(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        run.problems.append(f"{path.relative_to(run.paths.root)} cannot be read ({error}): left out")
        return None


def _read_trial(paths: TrialPaths, problems: list[str]) -> TrialRecord | None:
    name = paths.root.name
    start = _read_json(paths.params, problems)
    if not {"number", "params"} <= start.keys():
        if start:
            problems.append(f"trials/{name}/{paths.params.name} lacks number or params: trial left out")
        return None
    epochs = {row["epoch"]: row for row in _read_lines(paths.result, problems) if isinstance(row.get("epoch"), int)}
    end = _read_json(paths.end, problems) if paths.end.exists() else {}
    status = end.get("status", "running")
    if status not in STATUSES:
        problems.append(f"trials/{name}/{paths.end.name} has status {status!r}: taken as failed")
        status = "failed"
    return TrialRecord(
        trial_id=name,
        number=int(start["number"]),
        start=start,
        epochs=[epochs[epoch] for epoch in sorted(epochs)],
        status=status,
        reason=str(end.get("reason", "")),
    )


def _read_lines(path: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            # A torn last line is what a kill leaves behind; anywhere else it is damage.
            if number < len(lines):
                problems.append(f"trials/{path.parent.name}/{path.name} line {number} is damaged: left out")
            continue
        if isinstance(row, dict):
            yield row


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    place = "/".join(path.parts[-3:]) if path.parent.parent.name == "trials" else path.name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{place} is missing")
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        problems.append(f"{place} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{place} holds no JSON object")
        return {}
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
