"""Resuming a run: its saved settings, and which of them may be changed."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

from search_spaces.errors import UserError, raise_all, shown_problems
from search_spaces.paths import unreachable
from sweep.config import OR_ANEW, ResolvedConfig, SweepConfig, pair_problems
from sweep.run_folder import RunPaths
from trainables.atomic import check_format
from trainables.data.config import as_typed, dashed


class Resumed(NamedTuple):
    """A run to resume: its saved settings with the changes. problems: one sentence per contradiction.

    own_epochs, cached_stages: as in ``Plan``, decided before the first trial.
    """

    paths: RunPaths
    config: ResolvedConfig
    own_epochs: bool
    cached_stages: dict[str, list[int]]
    problems: list[str]


def resume(asked: SweepConfig) -> Resumed:
    """The run ``asked.resume``, with the given settings that may change taken from ``asked``.

    Raises ``UserError`` if there is no such run, or if its settings cannot be read.
    """
    paths = _run_paths(asked)
    saved, own_epochs, cached_stages = _saved(paths)
    as_resolved = {name for name in ("precision", "preset") if getattr(asked, name) == "auto"}
    of_rows = {"epochs": "the epochs of its rows"} if saved.study and own_epochs else {}
    given = [
        name
        for name in sorted(asked.model_fields_set - as_resolved)
        if name in of_rows or getattr(asked, name) != getattr(saved, name)
    ]
    may_change = [name for name, declared in SweepConfig.options().items() if declared.anew]
    run = shlex.quote(str(paths.root))
    longer = f"or train its best configurations longer in a new run on the same --data: --warm-start {run} --epochs "
    problems = [
        f"{dashed(name)} {as_typed(getattr(asked, name))} contradicts the run {asked.resume!r}, which has "
        f"{of_rows.get(name, as_typed(getattr(saved, name)))}: omit it, "
        + (f"{longer}{asked.epochs}" if name == "epochs" and not saved.study else OR_ANEW)
        for name in given
        if name not in may_change
    ]
    kept = ("concurrency", "cpus_per_trial", "gpus_per_trial") if saved.deterministic else ()
    problems += [
        f"{dashed(name)} {getattr(asked, name)}: a deterministic run keeps its {name.replace('_', ' ')} of "
        f"{getattr(saved, name)}: omit it"
        for name in kept
        if name in given
    ]
    changed = {name: getattr(asked, name) for name in given if name in may_change and name not in kept}
    if changed.get("address") == "local" and "wait_for_nodes" not in asked.model_fields_set:
        changed["wait_for_nodes"] = None  # There is no --wait-for-nodes none.
    place = {"resume": asked.resume, "storage": asked.storage, "name": paths.root.name}
    # Only for this command: a retry is not repeated whenever the run is resumed.
    changed |= place | {"retry_failed": asked.retry_failed}
    return Resumed(paths, saved.model_copy(update=changed), own_epochs, cached_stages, problems)


def _run_paths(asked: SweepConfig) -> RunPaths:
    """The folder of the run ``asked.resume``: its name below the storage, or a path."""
    assert asked.resume is not None
    named = Path(asked.storage) / asked.resume
    return RunPaths(named if os.path.isdir(named) or "/" not in asked.resume else Path(asked.resume))


def _saved(paths: RunPaths) -> tuple[ResolvedConfig, bool, dict[str, list[int]]]:
    """The settings in sweep.json, and what else was decided before the first trial."""
    if why := unreachable(paths.sweep):
        raise UserError(f"--resume: {why}")
    if not paths.sweep.is_file():
        there = sorted(path.parent.name for path in paths.root.parent.glob(f"*/{paths.sweep.name}"))
        names = f"; runs there: {', '.join(there)}" if there else ""
        raise UserError(f"--resume: {paths.root} is not a run folder: it has no {paths.sweep.name}{names}")
    try:
        values = json.loads(paths.sweep.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--resume: {paths.sweep} is damaged: {error}; restore it, {OR_ANEW}") from None
    if isinstance(values, dict):
        check_format(values, paths.sweep)
    try:
        if not isinstance(values, dict) or not isinstance(values.get("resolved"), dict):
            raise ValueError("it has no settings")
        saved = ResolvedConfig.from_json(values["resolved"])
        raise_all([*saved.value_problems(), *pair_problems(saved)])
    except ValueError as error:
        why = "; ".join(shown_problems(str(error).splitlines()))
        raise UserError(f"--resume: {paths.sweep} is damaged: {why}; restore it, {OR_ANEW}") from None
    return saved, bool(values.get("own_epochs", True)), values.get("cached_stages", {})
