"""How a run folder comes to be: all of it at once when everything has been checked, or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import torch

from search_spaces.errors import UserError
from sweep.cli import available_cpus
from sweep.config import FORMAT, SweepConfig, name_problems
from sweep.estimate import Machine, provenance
from sweep.plan import Plan
from sweep.run_folder import RunPaths
from trainables.atomic import write_atomically, write_json
from trainables.data.config import DataConfig
from trainables.data.prepare import inspect, prepare

STORE_FOLDER = ".store"
"""Below the storage: the decoded images, shared by all runs there."""


def this_machine() -> Machine:
    """The CPUs and GPUs of this machine that this process may use."""
    names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Machine(cpus=available_cpus(), gpus=len(names), gpu_names=names)


def new_run_paths(config: SweepConfig) -> RunPaths:
    """The folder of a new run: ``--name``, or the space and the time where it gives none that can be."""
    if config.name is not None and not name_problems(config):
        return RunPaths(Path(config.storage) / config.name)
    name = f"{Path(config.space).name.removesuffix('.py')}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    return RunPaths(Path(config.storage) / name)


def place_problems(paths: RunPaths) -> list[str]:
    """Why a new run cannot be called as ``paths`` has it, one sentence each."""
    if not os.path.lexists(paths.root):
        return []
    way_out = f"go on with it by --resume {paths.root.name}, or give another --name"
    return [f"--name {paths.root.name}: {paths.root} exists already: {way_out}"]


@contextlib.contextmanager
def staging(paths: RunPaths, problems: list[str]) -> Iterator[RunPaths | None]:
    """A folder beside the run's in which it takes shape; removed unless it was moved into place.

    None where the storage cannot be written to: why is added to ``problems``, and what else is wrong can still be
    found. Raises ``UserError`` if the disk fills up meanwhile.
    """
    storage = paths.root.parent
    made = [folder for folder in (storage / STORE_FOLDER, storage, *storage.parents) if not os.path.lexists(folder)]
    try:
        storage.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=storage, prefix=f".{paths.root.name}-"))
    except OSError as error:
        problems.append(f"--storage {storage} is no folder that can be written to ({error.strerror}): give another")
        _remove_empty(made)
        yield None
        return
    try:
        yield RunPaths(beside)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"--storage {storage}: {error.strerror}; make room, or give another --storage") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    """Those of ``folders`` that nothing was put into; the deepest come first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def prepare_into(
    beside: RunPaths | None, paths: RunPaths, workers: int, folds: int | None
) -> Callable[[DataConfig], dict[str, Any]]:
    """Reads a data set into the run folder ``beside``, its decoded images into the store that runs share.

    Without a folder it only looks for what is wrong with the data. folds: into how many it has to be divisible.
    """
    if beside is None:
        return lambda request: inspect(request, workers, folds=folds)
    store = paths.root.parent.absolute() / STORE_FOLDER
    return lambda request: prepare(request, beside.root, store, workers, folds=folds)


def create_run(
    paths: RunPaths, beside: RunPaths, asked: SweepConfig, plan: Plan, machine: Machine, arguments: list[str]
) -> None:
    """Write what was asked and on what it runs, and move the new run folder into place."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    times = {"created": now, "ended": None, "command": arguments}
    settings = {"format": FORMAT, "asked": asked.to_json(), "resolved": plan.config.to_json()}
    facts = {"mode": plan.mode, "own_epochs": plan.own_epochs}
    write_json(beside.sweep, settings | facts | times | _space_facts(plan))
    write_json(beside.provenance, _provenance(plan, machine))
    if plan.space.source is not None:
        write_atomically(beside.space, lambda path: path.write_text(str(plan.space.source), encoding="utf-8"))
    beside.root.chmod(0o755)
    try:
        os.rename(beside.root, paths.root)
    except OSError as error:
        raise UserError(f"--name {paths.root.name}: {paths.root} cannot be made: {error}") from None


def claim(paths: RunPaths) -> IO[str]:
    """Hold the run folder for this process until it ends, however it ends; ``UserError`` if another one holds it."""
    stream = paths.lock.open("a", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UserError(f"the run {paths.root} is going on in another process: wait for it, or stop it first") from None
    except OSError:
        pass  # A file system without locks: two drivers at once are then the user's to avoid.
    return stream


def reopen_run(paths: RunPaths, beside: RunPaths, plan: Plan) -> None:
    """Write down what the resumed sweep was asked anew."""
    os.replace(beside.dataset, paths.dataset)  # the data set or the store may have moved
    saved = json.loads(paths.sweep.read_text(encoding="utf-8"))
    write_json(paths.sweep, saved | {"resolved": plan.config.to_json(), "ended": None})


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
