"""A run folder read back: two tidy tables, the facts beside them, and what could not be read.

Reads only files that the driver and the trials wrote as they went, so it works on a run that is finished, killed,
or still running. Imports neither torch nor ray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from search_spaces.errors import UserError
from sweep.finalist_records import Finalist as Finalist
from sweep.finalist_records import Finals as Finals
from sweep.finalist_records import Repeat as Repeat
from sweep.finalist_records import read_finals
from sweep.model_paths import ModelPaths
from sweep.record_shapes import DATASET, MODEL, PROVENANCE, SWEEP, fitting
from sweep.run_folder import RunPaths
from sweep.trial_records import STATUSES as STATUSES
from sweep.trial_records import TrialRecord, best_row, is_number, read_json, read_trials, reason
from sweep.trial_records import is_there as is_there
from trainables import predictions
from trainables.predictions import Predictions as Predictions


@dataclass(frozen=True)
class Run:
    """A run folder. ``trials`` and ``epochs`` are described in ``trials_table`` and ``epochs_table``.

    finals: the finalists and what was decided between them; None before any were chosen. rows: splits.csv, every
    column as text ("" where empty). model: models/best.json, {} where no model is written. problems: one sentence for
    each file that is damaged or missing.
    """

    paths: RunPaths
    sweep: dict[str, Any]
    provenance: dict[str, Any]
    dataset: dict[str, Any]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    finals: Finals | None = None
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    model: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_run(root: Path) -> Run:
    """Read the run folder ``root``. Raises ``UserError`` if it is none."""
    paths = RunPaths(Path(root))
    if not paths.sweep.is_file():
        raise UserError(f"{root} is no run folder: it has no {paths.sweep.name}; give <storage>/<name> of a sweep")
    problems: list[str] = []
    saved = read_json(paths.sweep, problems)
    resolved = saved.get("resolved")
    sweep = fitting(saved | (resolved if isinstance(resolved, dict) else {}), SWEEP, paths.sweep.name, problems)
    records = read_trials(paths.trial_folders(), paths.trials, problems)
    metric = str(sweep.get("metric") or "val_f1_macro")
    mode = "min" if sweep.get("mode") == "min" else "max"
    return Run(
        paths=paths,
        sweep=sweep,
        provenance=fitting(read_json(paths.provenance, problems), PROVENANCE, paths.provenance.name, problems),
        dataset=fitting(read_json(paths.dataset, problems), DATASET, paths.dataset.name, problems),
        trials=trials_table(records, metric, mode, paths),
        epochs=epochs_table(records),
        finals=read_finals(paths, metric, mode, problems),
        rows=_read_rows(paths, problems),
        model=_read_model(paths, problems),
        problems=problems,
    )


def trials_table(records: list[TrialRecord], metric: str, mode: str, paths: RunPaths) -> pd.DataFrame:
    """One row a trial.

    Columns: trial_id, number, status (``STATUSES``), reason, best_epoch (from 1), score (``metric`` at the best
    epoch), all train_* and val_* of the best epoch, epochs_run, trainable_params, total_params, seconds (of its
    epochs), images_per_second and inference_ms_per_image (medians), weights_kept, param_<name> for each hyperparameter.
    """
    rows = []
    for record in records:
        best = best_row(record, metric, mode) or {}
        last = record.epochs[-1] if record.epochs else {}
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
                "images_per_second": _median(record, "images_per_second"),
                "inference_ms_per_image": _median(record, "inference_ms_per_image"),
                "weights_kept": paths.trial(record.trial_id).weights.is_file(),
                **{f"param_{key}": value for key, value in record.params.items()},
            }
        )
    first = ["trial_id", "number", "status", "reason", "best_epoch", "score", "epochs_run", "trainable_params"]
    last_columns = ["total_params", "seconds", "images_per_second", "inference_ms_per_image", "weights_kept"]
    table = pd.DataFrame(rows, columns=None if rows else first + last_columns)
    integers = ["number", "best_epoch", "epochs_run", "trainable_params", "total_params"]
    table[integers] = table[integers].astype("Int64")
    for name in table.columns:
        if name == "score" or (str(name).startswith(("train_", "val_"))):
            table[name] = table[name].astype("float64")
    return table


def epochs_table(records: list[TrialRecord]) -> pd.DataFrame:
    """One row a trial and epoch: trial_id, epoch, train_*, val_*, lr, and its seconds and speeds."""
    kept = ("epoch", "lr", "epoch_seconds", "images_per_second", "inference_ms_per_image")
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


def _median(record: TrialRecord, key: str) -> float | None:
    values = [row[key] for row in record.epochs if is_number(row.get(key))]
    return float(np.median(values)) if values else None


def read_predictions(run: Run, trial_id: str) -> Predictions | None:
    """The predictions of a trial's best epoch, or None where there are none or they are damaged."""
    return _predictions(run, run.paths.trial(trial_id).predictions)


def read_repeat_predictions(run: Run, repeat: Repeat) -> Predictions | None:
    """As ``read_predictions``, of one repeat of a finalist."""
    return _predictions(run, run.paths.repeat(repeat.trial_id).predictions)


def read_baseline_predictions(run: Run, name: str) -> Predictions | None:
    """As ``read_predictions``, of one baseline: its rows of val, and of test once it was opened."""
    return _predictions(run, run.paths.baselines / f"{name}.npz")


def _predictions(run: Run, path: Path) -> Predictions | None:
    name = path.relative_to(run.paths.root)
    try:
        saved = predictions.read_predictions(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        run.problems.append(f"{name} cannot be read ({reason(error)}): left out")
        return None
    if _fits_together(saved):
        return saved
    run.problems.append(
        f"{name} is left out: its arrays do not fit each other, or hold something else than they should"
    )
    return None


def _fits_together(saved: Predictions) -> bool:
    """Whether the arrays are of the kinds and shapes that ``Predictions`` promises, and no class stands twice."""
    count, classes = saved.path.shape, len(saved.classes)
    return (
        len(count) == 1
        and saved.split.shape == count
        and {saved.path.dtype.kind, saved.split.dtype.kind} == {"U"}
        and saved.label.dtype.kind in "iu"
        and saved.label.shape in (count, (*count, classes))
        and saved.probability.dtype.kind == "f"
        and saved.probability.shape == (*count, classes)
        and len(set(saved.classes)) == classes > 0
    )


def _read_model(paths: RunPaths, problems: list[str]) -> dict[str, Any]:
    files = ModelPaths(paths.models)
    if not is_there(files.model) and not is_there(files.facts):
        return {}
    name = f"{paths.models.name}/{files.facts.name}"
    return fitting(read_json(files.facts, problems, name), MODEL, name, problems)


def _read_rows(paths: RunPaths, problems: list[str]) -> pd.DataFrame:
    columns = ["row", "path", "split", "label", "group"]
    try:
        rows = pd.read_csv(paths.splits, dtype=str, keep_default_na=False, encoding="utf-8", index_col=False)
        lacking = [name for name in columns if name not in rows]
        if not lacking:
            return rows
        problems.append(f"{paths.splits.name} lacks {', '.join(lacking)}: left out")
    except FileNotFoundError:
        problems.append(f"{paths.splits.name} is missing")
    except (OSError, ValueError, pd.errors.ParserError) as error:
        problems.append(f"{paths.splits.name} cannot be read: {reason(error)}")
    return pd.DataFrame(columns=columns)
