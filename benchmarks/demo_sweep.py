"""How long a new user waits for the demo sweep, from the command to its report."""

from __future__ import annotations

from benchmarks.own_process import timed_sweep
from benchmarks.table import Row
from sweep.records import Run

LIMIT_S = 240.0
COMMAND = ("--space", "partial_unfreeze")
QUICK = ("--trials", "2", "--epochs", "1")


def measure(quick: bool) -> list[Row]:
    """Run ``python -m sweep.run --space partial_unfreeze`` as it is in a new folder: nothing is decoded in advance."""
    seconds, run = timed_sweep(*COMMAND, *(QUICK if quick else ()))
    what = f"demo sweep of {len(run.trials)} trials, {len(run.epochs)} epochs, from command to report"
    share = Row("  of that, per core, inside the trials", trial_share(run, seconds), "%")
    return [Row(what, seconds, "s", LIMIT_S), share]


def trial_share(run: Run, seconds: float) -> float:
    """Percentage of a sweep's ``seconds`` in which its concurrent trials trained and validated networks."""
    assert isinstance(run.sweep.concurrency, int), "sweep.json names no concurrency"
    return 100 * float(run.trials.seconds.sum()) / (run.sweep.concurrency * seconds)
