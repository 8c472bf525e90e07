"""Measurements in a new process, where nothing from before is in memory, and in two concurrent processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeVar

from sweep.records import Run, read_run

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 2
"""Number of concurrent processes, or trials of a sweep: one for each of the two cores."""
_T = TypeVar("_T")
_barrier: Barrier | None = None


def answer_of(module: str, *arguments: object, **environment: str) -> Any:
    """What ``python -m module`` prints as JSON in its last line. RuntimeError with all its output if it fails."""
    return json.loads(_said(module, *arguments, environment=environment).splitlines()[-1])


def timed_sweep(*arguments: object, checkout: Path = ROOT) -> tuple[float, Run]:
    """Run ``python -m sweep.run`` with ``arguments`` in a new folder, where nothing is decoded or cached in advance.

    Returns the seconds from the command to its end, and the contents of the run folder. checkout: the one to run.
    RuntimeError with all its output if it fails.
    """
    with tempfile.TemporaryDirectory() as storage:
        began_s = time.perf_counter()
        _said("sweep.run", *arguments, "--storage", storage, "--name", "run", checkout=checkout)
        return time.perf_counter() - began_s, read_run(Path(storage) / "run")


def two_at_once(function: Callable[..., _T], *arguments: Any) -> list[_T]:
    """The results of ``function`` in ``AT_ONCE`` new processes, which wait for each other in ``ready``."""
    fresh = multiprocessing.get_context("spawn")
    barrier = fresh.Barrier(AT_ONCE)
    with ProcessPoolExecutor(AT_ONCE, fresh, initializer=_take, initargs=(barrier,)) as pool:
        futures = [pool.submit(_call, function, arguments) for _ in range(AT_ONCE)]
        return [future.result() for future in futures]


def ready() -> None:
    """Wait for the other process of ``two_at_once``; returns at once outside of it."""
    if _barrier is not None:
        _barrier.wait()


def _call(function: Callable[..., _T], arguments: tuple[Any, ...]) -> _T:
    try:
        return function(*arguments)
    except BaseException:
        assert _barrier is not None
        _barrier.abort()  # Otherwise the other process would wait forever.
        raise


def _take(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _said(module: str, *arguments: object, checkout: Path = ROOT, environment: Mapping[str, str] | None = None) -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    there = os.environ | dict(environment or {})
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, env=there)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
