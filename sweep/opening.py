"""How a run folder comes to be: all of it at once when everything has been checked, or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from search_spaces.problems import UserError
from sweep.config import SweepConfig
from sweep.paths import RunPaths
from sweep.plan import Plan
from sweep.provenance import Machine, available_cpus, provenance
from sweep.resume import check_same_data, check_same_space
from trainables.atomic import write_atomically, write_json
from trainables.data.prepare import prepare
from trainables.data.request import DataRequest

STORE_FOLDER = ".store"
"""Below the storage: the decoded images, shared by all runs there."""


def this_machine() -> Machine:
    """The CPUs and GPUs of this machine that this process may use."""
    names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Machine(cpus=available_cpus(), gpus=len(names), gpu_names=names)


def new_run_paths(config: SweepConfig) -> RunPaths:
    """The folder of a new run: ``--name``, or the space and the time."""
    space = Path(config.space).stem if config.space.endswith(".py") else config.space
    name = config.name or f"{space}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    return RunPaths(Path(config.storage) / name)


def place_problems(paths: RunPaths) -> list[str]:
    """Why a new run cannot be written at ``paths``, one sentence each."""
    if paths.root.exists():
        way_out = f"go on with it by --resume {paths.root.name}, or give another --name"
        return [f"--name {paths.root.name}: {paths.root} exists already: {way_out}"]
    parent = next(folder for folder in paths.root.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        return [f"--storage {paths.root.parent}: {parent} is no folder that can be written to"]
    return []


@contextmanager
def staging(paths: RunPaths) -> Iterator[RunPaths]:
    """A folder beside the run's in which it takes shape; removed unless it was moved into place."""
    paths.root.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=paths.root.parent, prefix=f".{paths.root.name}-"))
    try:
        yield RunPaths(beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        for parent in (paths.root.parent / STORE_FOLDER, paths.root.parent):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def prepare_into(beside: RunPaths, paths: RunPaths, workers: int) -> Callable[[DataRequest], dict[str, Any]]:
    """Reads a data set into the run folder ``beside``, its decoded images into the store that runs share."""
    store = paths.root.parent.absolute() / STORE_FOLDER
    return lambda request: prepare(request, beside.root, store, workers)


def create_run(paths: RunPaths, beside: RunPaths, plan: Plan, machine: Machine, arguments: list[str]) -> None:
    """Write what was asked and on what it runs, and move the new run folder into place."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    times = {"created": now, "finished": None, "command": arguments}
    write_json(
        beside.sweep,
        plan.config.to_dict() | {"mode": plan.mode, "own_epochs": plan.own_epochs} | times | _space_facts(plan),
    )
    write_json(beside.provenance, _provenance(plan, machine))
    if plan.space.source is not None:
        write_atomically(beside.space, lambda path: path.write_text(str(plan.space.source), encoding="utf-8"))
    beside.root.chmod(0o755)
    try:
        os.rename(beside.root, paths.root)
    except OSError as error:
        raise UserError(f"--name {paths.root.name}: {paths.root} cannot be made: {error}") from None


def reopen_run(paths: RunPaths, beside: RunPaths, plan: Plan) -> None:
    """Check that data and space are the run's own, and write down what the resumed sweep was asked anew."""
    check_same_data(paths, plan.dataset)
    check_same_space(paths, plan.space.source)
    os.replace(beside.dataset, paths.dataset)  # the data set or the store may have moved
    saved = json.loads(paths.sweep.read_text(encoding="utf-8"))
    write_json(paths.sweep, saved | plan.config.to_dict() | {"finished": None})


def _space_facts(plan: Plan) -> dict[str, Any]:
    rows = [
        {"id": row.id, "number": number, "epochs": row.epochs, "claim": row.claim, "note": row.note}
        for number, row in enumerate(plan.space.rows)
    ]
    return {"study_rows": rows, "study_rows_left_out": dict(plan.space.left_out)}


def _provenance(plan: Plan, machine: Machine) -> dict[str, Any]:
    return provenance(machine) | {
        "weights": {name: dataclasses.asdict(found) for name, found in plan.weights.items()},
        "missing_weights": plan.missing_weights,
    }
