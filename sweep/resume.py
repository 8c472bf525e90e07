"""What a resumed run keeps, and what may be changed about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError, raise_all
from search_spaces.space import Space
from sweep.config import SweepConfig, check
from sweep.run_folder import RunPaths
from trainables.atomic import check_format

OR_ANEW = "or start a new run under another --name"
MAY_CHANGE = frozenset(
    {"resume", "storage", "trials", "time_budget", "trial_time_limit", "concurrency", "address", "config", "dry_run"}
    | {"cpus_per_trial", "gpus_per_trial", "data"}
    | {"finalists", "repeats", "folds", "compare", "positive_class"}
)
"""Options that a resumed run may be given anew: they change how much is run and where, not what a trial is worth.

``data`` is among them because the data set may have moved: its content is compared.
"""


ADDED_LATER = frozenset({"rows"})
"""Fields that a run of an earlier version does not have in its sweep.json: it was run with their defaults."""


def resumed_config(asked: SweepConfig, given: Collection[str]) -> tuple[SweepConfig, list[str]]:
    """The saved configuration of the run ``asked.resume`` with what may change, and was given, taken from ``asked``.

    Beside it one sentence for each option that contradicts the run. Raises ``UserError`` if there is no such run, or
    none that can be read.
    """
    paths = run_paths(asked)
    saved = _saved(paths)
    problems = [
        f"--{name.replace('_', '-')} {_shown(getattr(asked, name))} contradicts the run {asked.resume!r}, which has "
        f"{_shown(getattr(saved, name))}: leave it out, {OR_ANEW}"
        for name in sorted(given)
        if name not in MAY_CHANGE | {"name"} and getattr(asked, name) != getattr(saved, name)
    ]
    if saved.deterministic and "concurrency" in given and asked.concurrency != saved.concurrency:
        problems.append(
            f"--concurrency {asked.concurrency}: a deterministic run keeps its concurrency, {saved.concurrency}"
        )
    changed = {name: getattr(asked, name) for name in given if name in MAY_CHANGE}
    changed |= {"resume": asked.resume, "storage": asked.storage, "name": asked.resume}
    return dataclasses.replace(saved, **changed), problems


def run_paths(asked: SweepConfig) -> RunPaths:
    """The folder of the run ``asked.resume``: its name below the storage, or a path."""
    assert asked.resume is not None
    named = Path(asked.storage) / asked.resume
    return RunPaths(named if named.is_dir() or "/" not in asked.resume else Path(asked.resume))


def keeps_own_epochs(paths: RunPaths) -> bool:
    """Whether the trials of a study's list run the study's own epochs, as ``create_run`` wrote it down."""
    return bool(json.loads(paths.sweep.read_text(encoding="utf-8")).get("own_epochs", True))


def differences(paths: RunPaths, dataset: dict[str, Any] | None, space: Space | None) -> list[str]:
    """Why data and space (None: passed over) are not those that the run was begun with, one sentence each."""
    found = []
    if dataset is not None and (problem := _other_data(paths, dataset)):
        found.append(problem)
    source = None if space is None else space.source
    if source is not None and (not paths.space.exists() or paths.space.read_text(encoding="utf-8") != source):
        found.append(
            f"the space file has changed since the run {paths.root} began: restore it (a copy is in {paths.space}), "
            f"{OR_ANEW}"
        )
    return found


def _other_data(paths: RunPaths, dataset: dict[str, Any]) -> str | None:
    try:
        saved = str(json.loads(paths.dataset.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"--resume: {paths.dataset} is missing or damaged: restore it, {OR_ANEW}"
    if saved == dataset["fingerprint"]:
        return None
    return (
        f"the data set at {dataset['source']['path']} is not the one of the run {paths.root}: images, labels or "
        f"splits differ (fingerprint {dataset['fingerprint'][:12]}, the run has {saved[:12]}); restore it, {OR_ANEW}"
    )


def _saved(paths: RunPaths) -> SweepConfig:
    if not paths.sweep.is_file():
        there = sorted(path.parent.name for path in paths.root.parent.glob(f"*/{paths.sweep.name}"))
        names = f"; runs there: {', '.join(there)}" if there else ""
        raise UserError(f"--resume: {paths.root} is no run folder: it has no {paths.sweep.name}{names}")
    try:
        values = json.loads(paths.sweep.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            check_format(values, paths.sweep)
        if not isinstance(values, dict) or not isinstance(values.get("resolved"), dict):
            raise ValueError("it holds no settings")
        values = values["resolved"]
        fields = [field.name for field in dataclasses.fields(SweepConfig)]
        if missing := [name for name in fields if name not in {*values, *MAY_CHANGE, *ADDED_LATER}]:
            # A default in the place of what was lost would make it another sweep.
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(f"it lacks {', '.join(missing[:3])}{more}")
        saved = SweepConfig.from_dict({name: values[name] for name in fields if name in values})
        raise_all(check(dataclasses.replace(saved, name=None)))
    except (OSError, ValueError, TypeError) as error:
        why = "; ".join(str(error).splitlines())
        raise UserError(f"--resume: {paths.sweep} is damaged: {why}; restore it, {OR_ANEW}") from None
    return saved


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
