"""Trials run by Ray Tune: the connection to a cluster, the trials themselves, and predictions with their weights."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sweep.cluster import connect
from sweep.endings import ALL_FAILED, INTERRUPTED, SIGNAL, SweepStopped
from sweep.history import TrialHistory, TrialState
from sweep.log import RunLog
from sweep.machine import Machine
from sweep.optuna_search import Exhausted
from sweep.plan import Plan
from sweep.progress import Progress
from sweep.pruning import PruningRule
from sweep.run_folder import RunPaths
from sweep.workers import ENDING, LEAVES_WITHIN_S, RESTARTS, Tasks, Workers, handlers_restored
from trainables.ray_trainable import FinetuneTrainable
from trainables.trial import TrialSettings, predict_trial

LOGGERS = ("ray", "optuna", "sweep")
MOST_ALIKE = 5
"""So many consecutive failures on one machine or GPU, before the first epoch and for one reason, end the sweep."""
TRIAL_FILES = ("state", "result", "weights", "predictions", "error", "stacks")

SettingsOf = Callable[[TrialState], tuple[TrialSettings, int]]
"""The settings of a trial, and the number of its random stream."""


@dataclass(frozen=True)
class Outcome:
    """Why ``run_trials`` returned; both are False if all was done."""

    interrupted: bool = False
    out_of_time: bool = False

    def then(self, after: Outcome) -> Outcome:
        """The outcome of this work and the work after it."""
        return Outcome(self.interrupted or after.interrupted, self.out_of_time or after.out_of_time)


@contextlib.contextmanager
def connected(
    address: str, cpus: int | None = None, wait_for_nodes: int | None = None, gpus: int | None = None
) -> Iterator[Machine]:
    """``connect``; at the end, end the worker processes and leave the cluster or stop Ray."""
    with handlers_restored(*ENDING) as before:
        machine = connect(address, cpus, wait_for_nodes, gpus)
        for number in before:
            signal.signal(number, signal.default_int_handler)  # Ray has made SIGTERM end the process at once.
        try:
            yield machine
        finally:
            lost = _connection.close()
            leaving = threading.Thread(target=ray.shutdown, name="ray.shutdown", daemon=True)
            leaving.start()
            leaving.join(LEAVES_WITHIN_S if lost else None)  # A lost cluster may never answer.


class _Connection:
    """One per process, as for Ray. workers: kept from work to work. noted: a note of a trial was shown."""

    workers: Workers | None = None
    noted = False

    def close(self) -> bool:
        """End the workers; returns whether the cluster is lost."""
        workers, self.workers, self.noted = self.workers, None, False
        if workers is None:
            return False
        workers.close()
        return workers.cluster_lost


_connection = _Connection()


def log_to(path: Path) -> None:
    """Send the logs of Ray, Optuna and the sweep to the file ``path`` instead of the screen."""
    handler = RunLog(path)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO if name == "sweep" else logging.WARNING)
        logger.propagate = False
    # A thread of Ray prints its nodes' messages about dead workers, a paragraph each, whatever its options are.
    ray._private.worker.print_to_stdstream = _logged


@contextlib.contextmanager
def log_restored() -> Iterator[None]:
    """Undo ``log_to`` at the end, for later uses of Ray or Optuna in the same process."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    printing = ray._private.worker.print_to_stdstream
    try:
        yield
    finally:
        ray._private.worker.print_to_stdstream = printing
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            for ours in {*logger.handlers} - {*handlers}:
                ours.close()
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


def _logged(message: dict[str, Any], **_: Any) -> None:
    logging.getLogger("ray").warning("%s: %s", message["pid"], "\n".join(message["lines"]))


def run_trials(
    plan: Plan,
    history: TrialHistory,
    ask: Callable[[], TrialState | None],
    settings_of: SettingsOf,
    pruning: PruningRule,
    progress: Progress,
    budget: TimeBudget,
    *,
    trials: int,
    trainable: type[tune.Trainable] = FinetuneTrainable,
) -> Outcome:
    """Run trials until ``trials`` in all have begun and ended, nothing new is left, the time is up, or Ctrl-C.

    Those that an earlier session left unfinished come first. ask: begins the next new one; None while it must wait for
    others, ``Exhausted`` if none is left. Trials unfinished at the end stay "running" in the history, and a resumed
    sweep continues them. trainable: reports one epoch per step, as ``FinetuneTrainable`` does.
    """
    lag = plan.at_once if plan.config.deterministic else None
    work = _Trials(history, ask, settings_of, pruning, progress, budget, trials, lag, history.unfinished())
    if not work.left():
        return Outcome()
    workers = _workers(plan, history.paths, trainable)
    progress.slots = lambda: workers.slots
    interrupted = workers.do(work)
    if work.exhausted and len(history.entries) < trials:
        ends = f"the search ends with {len(history.entries)} of --trials {trials}"
        progress.message(f"the space gave no configuration that is new: {ends}")
    # An interruption between two trials leaves none unfinished, although the sweep is not done.
    done = not history.unfinished() and (work.exhausted or len(history.entries) >= trials)
    return Outcome(interrupted=not done and interrupted, out_of_time=not done and not interrupted)


def predict_trials(
    plan: Plan,
    history: TrialHistory,
    trials: Sequence[TrialState],
    settings_of: SettingsOf,
    splits_of: Callable[[TrialState], tuple[str, ...]],
) -> list[str]:
    """Predict splits in fp32 with the saved weights of each of ``trials`` that ended without failing and lacks one.

    In parallel, by the processes that ran the trials; returns what failed, one sentence each.
    """
    done = ("completed", "pruned")
    saved = [trial for trial in trials if trial.status in done and history.files(trial).weights.exists()]
    arguments = [
        (trial.params, *settings_of(trial), history.files(trial).weights.absolute(), splits_of(trial), "fp32")
        for trial in saved
    ]
    return [
        f"{trial.trial_id} could not be predicted on {', '.join(splits_of(trial))}: {problem}"
        for trial, problem in zip(saved, run_tasks(plan, history.paths, predict_trial, arguments), strict=True)
        if problem is not None
    ]


def run_tasks(
    plan: Plan, paths: RunPaths, function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]
) -> list[str | None]:
    """Call an importable ``function`` with each of ``arguments``, in parallel, by the processes that ran the trials.

    Returns for each call why it failed, one line, or None. Raises ``SweepStopped`` on Ctrl-C.
    """
    if not arguments:
        return []
    tasks = Tasks(function, arguments)
    if _workers(plan, paths, FinetuneTrainable).do(tasks):
        raise SweepStopped(f"interrupted by {SIGNAL}", INTERRUPTED)
    return tasks.problems


def _workers(plan: Plan, paths: RunPaths, trainable: type[tune.Trainable]) -> Workers:
    """Processes for the next work: those of the last one if they suit it. ``connected`` ends them."""
    kept = _connection.workers
    if kept is not None and kept.alive and kept.serves(trainable, plan.resources):
        return kept
    if kept is not None:
        kept.close()
    _connection.workers = Workers(trainable, plan.resources, plan.config.fixed_concurrency, paths.tune)
    return _connection.workers


@dataclass(eq=False)
class _Trials:
    """The work of ``run_trials``: every result and every end goes into the history, and is shown.

    ask, trials: see there. lag: a trial is compared only with those whose number is lower by at least this; None = with
    all. unfinished: begun trials that wait for a process, before all new ones. exhausted: nothing new is left.
    """

    history: TrialHistory
    ask: Callable[[], TrialState | None]
    settings_of: SettingsOf
    rule: PruningRule
    progress: Progress
    budget: TimeBudget
    trials: int
    lag: int | None
    unfinished: list[TrialState]
    exhausted: bool = field(default=False, init=False)
    _failed_alike: dict[str, tuple[str, int]] = field(default_factory=dict, init=False)

    def next(self) -> dict[str, Any] | None:
        """The config of ``FinetuneTrainable`` for the next trial."""
        if not self.left():
            raise Exhausted
        try:
            trial = self.unfinished.pop(0) if self.unfinished else self.ask()
        except Exhausted:
            self.exhausted = True  # Final: hundreds more draws would not help, and Tune asks ten times a second.
            raise
        if trial is None:
            return None
        settings, stream = self.settings_of(trial)
        files = self.history.files(trial)
        return {
            "number": trial.number,
            "stream": stream,
            "params": trial.params.to_flat(),
            "settings": asdict(settings),
            # Absolute, as a worker has another working directory.
            "files": {name: str(getattr(files, name).absolute()) for name in TRIAL_FILES},
        }

    def left(self) -> int:
        new = 0 if self.exhausted else max(0, self.trials - len(self.history.entries))
        return len(self.unfinished) + new

    def started(self, number: int) -> None:
        self.progress.trial_started(self.history.entries[number])

    def reported(self, number: int, result: dict[str, Any]) -> bool:
        self.history.report(number, result["record"])
        if result["record"]:
            self.progress.epoch(self.history.entries[number])
        if result["epoch"]:
            self._failed_alike.pop(_place_of(result), None)
        if (note := result.get("note")) and not _connection.noted:  # Shown once, for the first trial.
            _connection.noted = True
            self.progress.message(note)
        if why := result.get("begun_again"):
            name = self.history.entries[number].trial_id
            self.progress.message(f"trial {name} restarts from its beginning: {why}")
        end = result.get("end")
        if end is None:
            peers = [k for k in self.history.entries if self.lag is None or k <= number - self.lag]
            pruned = self.rule.reason_to_stop(self.history, number, result["epoch"], peers)
            if pruned is None:
                return False
            self._end(number, "pruned", pruned)
        else:
            self._end(number, "completed" if end in ("budget", "plateau") else "failed", result.get("reason", end))
        if end == "error" and not result["epoch"]:
            self._judge_machine(_place_of(result), str(result.get("reason", end)))
        return True

    def _judge_machine(self, place: str, reason: str) -> None:
        """Stop the sweep if ``place`` keeps failing: a lost GPU or mount would fail all remaining trials in seconds.

        Failures caused by the parameters, memory or a time limit do not count against it.
        """
        kind = re.sub(r"[\da-f]*\d[\da-f]*", "#", reason)
        if reason.startswith(("ParameterError", "out of memory", "TrialTimeoutError", "TimeoutError")):
            self._failed_alike.pop(place, None)
            return
        before, count = self._failed_alike.get(place, ("", 0))
        self._failed_alike[place] = kind, count + 1 if kind == before else 1
        if self._failed_alike[place][1] >= MOST_ALIKE:
            what = f"the last {MOST_ALIKE} trials on {place or 'a machine'} failed before their first epoch"
            raise SweepStopped(f"{what} ({reason}): fix the cause, and resume with --retry-failed", ALL_FAILED)

    def lost(self, number: int, reason: str, counts: bool = True) -> None:
        state = self.history.entries[number]
        if counts:
            if (stacks := self.history.files(state).stacks).exists() and stacks.stat().st_size:
                reason = "hung past its time limit"  # The watchdog in its process ended it, see ``FinetuneTrainable``.
            self.history.restart(number, reason)
            if state.restarts > RESTARTS:
                self._end(number, "failed", reason)
                return
            place = "its last epoch" if state.scores else "its beginning"
            self.progress.message(f"trial {state.trial_id} lost its worker ({reason}): restarted from {place}")
        self.unfinished.insert(0, state)

    def say(self, line: str) -> None:
        self.progress.message(line)

    def time_is_up(self) -> bool:
        return self.budget.stop_all()

    def _end(self, number: int, status: str, reason: str) -> None:
        state = self.history.entries[number]
        self.history.end(number, status, reason)
        self.progress.trial_ended(state)


def _place_of(result: dict[str, Any]) -> str:
    """A machine, or one of its GPUs: if one is lost, the others still work."""
    host, gpu = str(result.get("hostname", "")), str(result.get("gpu", ""))
    return f"GPU {gpu} of {host}" if gpu else host


class TimeBudget:
    """Ends the sweep, not the trials: what runs when the time is up stays unfinished and can be resumed.

    seconds: from now on; None = no limit.
    """

    ASK_AGAIN_S = 5.0

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._start_s = time.monotonic()
        self._reserved_s = 0.0
        self.reserve(float)

    def reserve(self, seconds: Callable[[], float]) -> None:
        """From now on reserve this time for what follows: asked every few seconds, at most half of the budget."""
        self._reserve_s, self._asked_s = seconds, -self.ASK_AGAIN_S

    def stop_all(self) -> bool:
        """Whether the time is up."""
        if self._seconds is None:
            return False
        spent_s = time.monotonic() - self._start_s
        if spent_s - self._asked_s >= self.ASK_AGAIN_S:
            self._asked_s = spent_s
            self._reserved_s = min(self._reserve_s(), self._seconds / 2)
        return spent_s >= self._seconds - self._reserved_s
