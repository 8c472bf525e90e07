"""What a resumed run keeps, and what may be changed about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from search_spaces.problems import UserError, raise_all
from sweep.config import SweepConfig
from sweep.paths import RunPaths

MAY_CHANGE = frozenset(
    {"resume", "storage", "trials", "time_budget", "trial_time_limit", "concurrency", "address", "config", "dry_run"}
    | {"cpus_per_trial", "gpus_per_trial", "data"}
)
"""Options that a resumed run may be given anew: they change how much is run and where, not what a trial is worth.

``data`` is among them because the data set may have moved: its content is compared.
"""


def resumed_config(asked: SweepConfig, given: Collection[str]) -> SweepConfig:
    """The saved configuration of the run ``asked.resume`` with what may change, and was given, taken from ``asked``.

    Raises ``UserError`` if there is no such run, or for each option that contradicts it.
    """
    paths = run_paths(asked)
    saved = _saved(paths)
    problems = [
        f"--{name.replace('_', '-')} {_shown(getattr(asked, name))} contradicts the run {asked.resume!r}, which has "
        f"{_shown(getattr(saved, name))}: leave it out, or start a new run under another --name"
        for name in sorted(given)
        if name not in MAY_CHANGE and getattr(asked, name) != getattr(saved, name)
    ]
    if saved.deterministic and "concurrency" in given and asked.concurrency != saved.concurrency:
        problems.append(
            f"--concurrency {asked.concurrency}: a deterministic run keeps its concurrency, {saved.concurrency}"
        )
    raise_all(problems)
    changed = {name: getattr(asked, name) for name in given if name in MAY_CHANGE}
    changed |= {"resume": asked.resume, "storage": asked.storage, "name": asked.resume}
    return dataclasses.replace(saved, **changed)


def run_paths(asked: SweepConfig) -> RunPaths:
    """The folder of the run ``asked.resume``: its name below the storage, or a path."""
    assert asked.resume is not None
    named = Path(asked.storage) / asked.resume
    return RunPaths(named if named.is_dir() or "/" not in asked.resume else Path(asked.resume))


def keeps_own_epochs(paths: RunPaths) -> bool:
    """Whether the trials of a study's list run the study's own epochs, as ``create_run`` wrote it down."""
    return bool(json.loads(paths.sweep.read_text(encoding="utf-8")).get("own_epochs", True))


def check_same_data(paths: RunPaths, dataset: dict[str, Any]) -> None:
    """Raise ``UserError`` if the data set is not the one that the run's trials were trained on."""
    saved = json.loads(paths.dataset.read_text(encoding="utf-8"))
    if saved["fingerprint"] != dataset["fingerprint"]:
        raise UserError(
            f"the data set at {dataset['source']['path']} is not the one of the run {paths.root}: images, labels or "
            f"splits differ (fingerprint {dataset['fingerprint'][:12]}, the run has {saved['fingerprint'][:12]}); "
            "restore it, or start a new run under another --name"
        )


def check_same_space(paths: RunPaths, source: str | None) -> None:
    """Raise ``UserError`` if the user's space file has changed since the run began."""
    if source is not None and (not paths.space.exists() or paths.space.read_text(encoding="utf-8") != source):
        raise UserError(
            f"the space file has changed since the run {paths.root} began: restore it (a copy is in {paths.space}), "
            "or start a new run under another --name"
        )


def _saved(paths: RunPaths) -> SweepConfig:
    if not paths.sweep.is_file():
        there = sorted(path.parent.name for path in paths.root.parent.glob(f"*/{paths.sweep.name}"))
        names = f"; runs there: {', '.join(there)}" if there else ""
        raise UserError(f"--resume: {paths.root} is no run folder: it has no {paths.sweep.name}{names}")
    try:
        values = json.loads(paths.sweep.read_text(encoding="utf-8"))
        fields = {field.name for field in dataclasses.fields(SweepConfig)}
        return SweepConfig.from_dict({name: value for name, value in values.items() if name in fields})
    except (ValueError, TypeError) as error:
        raise UserError(f"--resume: {paths.sweep} is damaged: {error}") from None


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
