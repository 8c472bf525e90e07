"""What simple methods reach on the sweep's own images and split, measured where a trial would run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sweep.plan import Plan
from sweep.ray_tune import run_tasks
from sweep.records import Run
from trainables.baselines import measure_baselines
from trainables.data.dataset import open_dataset, open_test_split
from trainables.trial import TrialSettings
from trainables.weights import FoundWeights


def measure(plan: Plan, run: Run, settings: TrialSettings) -> list[str]:
    """Write ``baselines/`` unless it is there already; returns what failed, one sentence each.

    The frozen networks are those of the finalists, without finalists that of the best trial. On the test split, too,
    once it has been opened.
    """
    opened = run.finals is not None and run.finals.opened
    backbones = {name: plan.weights[name] for name in _backbones(run) if name in plan.weights}
    if _measured(run, set(backbones), opened):
        return []
    arguments = (run.paths.baselines.absolute(), settings, backbones, opened)
    problem = run_tasks(plan, _measure, [arguments])[0]
    if isinstance(problem, Exception):
        return [f"the baselines could not be measured: {str(problem).strip().splitlines()[-1]}"]
    return []


def _backbones(run: Run) -> list[str]:
    if run.finals is not None:
        return sorted({str(one.params["backbone"]) for one in run.finals.finalists})
    scored = run.trials[run.trials["score"].notna() & (run.trials["status"] != "failed")]
    if scored.empty:
        return []
    ranked = scored.sort_values("score", ascending=run.sweep.get("mode") == "min")
    return [str(ranked.iloc[0]["param_backbone"])]


def _measured(run: Run, backbones: set[str], opened: bool) -> bool:
    try:
        rows: list[dict[str, Any]] = json.loads(run.paths.baselines_table.read_text(encoding="utf-8"))["baselines"]
    except (OSError, ValueError, KeyError):
        return False
    names = {str(row["name"]) for row in rows}
    complete = all(row.get("failed") or not opened or row.get("test") is not None for row in rows)
    return complete and {f"frozen_{name}" for name in backbones} <= names


def _measure(folder: Path, settings: TrialSettings, backbones: dict[str, FoundWeights], opened: bool) -> None:
    root = Path(settings.run_dir)
    measure_baselines(
        open_dataset(root),
        open_test_split(root) if opened else None,
        backbones,
        folder,
        threads=settings.cpus,
        device=torch.device("cuda" if settings.use_gpu else "cpu"),
        precision=settings.precision,
    )
