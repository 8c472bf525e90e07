"""How long a newcomer waits: the demo sweep, from the command to its report."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.own_process import ROOT
from benchmarks.table import Row
from sweep.records import Run, read_run

LIMIT_S = 240.0
NAME = "demo"


def measure(quick: bool) -> list[Row]:
    """Run ``python -m sweep.run --space partial_unfreeze`` as it is, into a new folder: nothing is decoded before."""
    sizes = ["--trials", "2", "--epochs", "1"] if quick else []
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, "-m", "sweep.run", "--space", "partial_unfreeze", *sizes]
        began_s = time.perf_counter()
        done = subprocess.run(
            [*command, "--storage", storage, "--name", NAME], cwd=ROOT, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - began_s
        if done.returncode:
            raise RuntimeError(f"the demo sweep ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
        run = read_run(Path(storage) / NAME)
    share = trial_share(run, seconds)
    what = f"demo sweep of {len(run.trials)} trials, {len(run.epochs)} epochs, from command to report"
    return [Row(what, seconds, "s", LIMIT_S), Row("  of that, per core, inside the trials", share, "%")]


def trial_share(run: Run, seconds: float) -> float:
    """Per cent of a sweep's ``seconds`` in which its concurrent trials built, trained and validated networks."""
    return 100 * float(run.trials.seconds.sum()) / (run.sweep["concurrency"] * seconds)
