"""The trials as Ray Tune runs them: a cluster to run on, the run of the trials, and what is done with their weights."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_spaces.errors import UserError
from sweep.history import TrialHistory, TrialState
from sweep.machine import Machine, Node, this_node
from sweep.optuna_search import Exhausted
from sweep.plan import Plan
from sweep.progress import Progress
from sweep.pruning import PruningRule
from sweep.run_folder import RunPaths
from sweep.workers import Tasks, Workers
from trainables.ray_trainable import FinetuneTrainable
from trainables.trial import TrialSettings, predict_trial

NODE_ANSWERS_WITHIN_S = 60.0
ADDRESS_ANSWERS_WITHIN_S = 5.0
OBJECT_STORE_BYTES = 200_000_000  # Images go through memory-mapped files: Ray has next to nothing to carry.
LOGGERS = ("ray", "optuna", "sweep")
TRIAL_FILES = ("state", "weights", "predictions", "error", "stacks")

SettingsOf = Callable[[TrialState], tuple[TrialSettings, int]]
"""The settings of a trial, and the stream of its random numbers."""


@dataclass(frozen=True)
class Outcome:
    """Why ``run_trials`` returned, where it was not because all was done."""

    interrupted: bool
    out_of_time: bool

    def then(self, after: Outcome) -> Outcome:
        """Of this and what came after it."""
        return Outcome(self.interrupted or after.interrupted, self.out_of_time or after.out_of_time)


def in_use() -> list[str]:
    """Why no sweep can start Ray in this process, one sentence; [] if it can."""
    taken = "Ray is in use in this process already: call ray.shutdown() first, or run the sweep in a process of its own"
    return [taken] if ray.is_initialized() else []


@contextlib.contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[Machine]:
    """``connect``, and at the end leave the cluster, or stop Ray; within it processes are kept from work to work."""
    machine = connect(address, cpus)
    _connection.open = True
    try:
        yield machine
    finally:
        _connection.close()
        ray.shutdown()


class _Connection:
    """That of ``connected``: as Ray, one for a process. workers: those kept. noted: a note of a trial was told."""

    def __init__(self) -> None:
        self.open = self.noted = False
        self.workers: Workers | None = None

    def close(self) -> None:
        if self.workers is not None:
            self.workers.close()
        self.open, self.noted, self.workers = False, False, None


_connection = _Connection()


def connect(address: str, cpus: int | None = None) -> Machine:
    """Start Ray on this machine (``address`` "local"), or join the cluster at ``address``; what it has to offer.

    cpus: how many to use of this machine. Raises ``UserError`` if there is no cluster at ``address``.
    """
    if address != "local":
        if silence := _silence_at(address):
            raise UserError(_no_cluster(address, silence))
        # What answers may be no Ray: one attempt takes it half a minute, and it would make twenty.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    local = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(
            address=address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            **(local if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        if address == "local":
            raise UserError(f"Ray cannot be started on this machine: {error}") from error
        raise UserError(_no_cluster(address, str(error))) from None
    resources = ray.cluster_resources()
    prefix = "accelerator_type:"
    return Machine(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        gpu_names=tuple(key.removeprefix(prefix) for key in resources if key.startswith(prefix)),
        nodes=(this_node(),) if address == "local" else _nodes(),
    )


def _nodes() -> tuple[Node, ...]:
    return tuple(answer for _, answer in on_every_node(this_node) if isinstance(answer, Node))


def _silence_at(address: str) -> str | None:
    """Why nobody can be reached at ``address`` ("host:port", or "auto": ``$RAY_ADDRESS``); None if somebody can.

    Ray itself tries for a quarter of an hour before it gives up. Other forms of addresses are left to it.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ADDRESS_ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def _no_cluster(address: str, why: str) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({why}); start one by `ray start --head` or "
        "`ray up cluster.yaml`, with RAY_AUTH_MODE=token on every host, or leave --address out"
    )


def on_every_node(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Call an importable ``function`` on each node that has CPUs; the nodes' names with the results, or exceptions."""
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = [
        (
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                *arguments
            ),
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    answers: list[tuple[str, Any]] = []
    for name, answer in asked:
        try:
            answers.append((name, ray.get(answer, timeout=NODE_ANSWERS_WITHIN_S)))
        except RayError as error:
            answers.append((name, error))
    return answers


def log_to(path: Path) -> None:
    """Send what Ray and Optuna have to say into the file ``path``, away from the screen."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO if name == "sweep" else logging.WARNING)
        logger.propagate = False
    # What its nodes say of dead workers, a paragraph each, Ray prints from a thread whatever its options are.
    ray._private.worker.print_to_stdstream = _logged


@contextlib.contextmanager
def log_restored() -> Iterator[None]:
    """Undo ``log_to`` at the end, for whoever uses Ray or Optuna after the sweep in the same process."""
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
    searcher: TuneSearcher,
    pruning: PruningRule,
    progress: Progress,
    budget: TimeBudget,
    *,
    trials: int,
    trainable: type[tune.Trainable] = FinetuneTrainable,
    reuse_actors: bool = True,
) -> Outcome:
    """Run trials until ``trials`` in all have begun and ended, nothing new is left, the time is up, or Ctrl-C.

    What is unfinished then stays "running" in the history, and a resumed sweep goes on with it. trainable: reports an
    epoch a step, as ``FinetuneTrainable`` has it. reuse_actors: trials follow each other in the same processes.
    """
    remaining = len(history.unfinished()) + max(0, trials - len(history.entries))
    if not remaining:
        return Outcome(interrupted=False, out_of_time=False)
    lag = plan.config.concurrency if plan.config.deterministic else None
    with _workers(plan, history.paths, trainable, reuse_actors) as workers:
        interrupted = workers.do(_Trials(searcher, history, pruning, lag, progress, budget, remaining))
    # Between two trials none is unfinished, and still the sweep may have been interrupted.
    done = not history.unfinished() and (searcher.exhausted or len(history.entries) >= trials)
    return Outcome(interrupted=not done and interrupted, out_of_time=not done and not interrupted)


def predict_trials(
    plan: Plan,
    history: TrialHistory,
    trials: Sequence[TrialState],
    settings_of: SettingsOf,
    splits: tuple[str, ...],
    precision: str | None = None,
) -> list[str]:
    """Predict ``splits`` with the saved weights of each of the ended ``trials`` that lacks one of them.

    Beside each other, by the processes that ran the trials; returns what failed, one sentence each. precision: None =
    that of the trials.
    """
    saved = [trial for trial in trials if trial.ended and history.files(trial).weights.exists()]
    arguments = [
        (trial.params, *settings_of(trial), history.files(trial).weights.absolute(), splits, precision)
        for trial in saved
    ]
    return [
        f"{trial.trial_id} could not be predicted on {', '.join(splits)}: {problem}"
        for trial, problem in zip(saved, run_tasks(plan, history.paths, predict_trial, arguments), strict=True)
        if problem is not None
    ]


def run_tasks(
    plan: Plan, paths: RunPaths, function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]
) -> list[str | None]:
    """Call an importable ``function`` with each of ``arguments``, where and beside each other as the trials ran.

    Why a call failed, one line, by call; None where it did not. KeyboardInterrupt on Ctrl-C.
    """
    if not arguments:
        return []
    tasks = Tasks(function, arguments)
    with _workers(plan, paths, FinetuneTrainable, reuse_actors=True) as workers:
        if workers.do(tasks):
            raise KeyboardInterrupt
    return tasks.problems


@contextlib.contextmanager
def _workers(plan: Plan, paths: RunPaths, trainable: type[tune.Trainable], reuse_actors: bool) -> Iterator[Workers]:
    """Processes for the next work: those of the last one where they are of use, and kept within ``connected``."""
    kept = _connection.workers
    if kept is not None and kept.alive and kept.serves(trainable, plan.resources, reuse_actors):
        yield kept
        return
    if kept is not None:
        kept.close()
    made = Workers(trainable, plan.resources, plan.config.concurrency, paths.tune, reuse=reuse_actors)
    if _connection.open:
        _connection.workers = made
        yield made
        return
    try:
        yield made
    finally:
        made.close()


class Source(Protocol):
    """Where new trials come from: ``OptunaSearch``, or the list of the finalists' repeats."""

    def ask(self) -> TrialState | None:
        """Begin the next trial; None while it must wait for others, ``Exhausted`` when there is no more."""


class TuneSearcher:
    """The trials to run: unfinished ones of an earlier session first, then new ones from ``source``.

    exhausted: nothing new is left.
    """

    def __init__(self, source: Source, history: TrialHistory, settings_of: SettingsOf) -> None:
        self._source = source
        self._history = history
        self._settings_of = settings_of
        self._resumed = history.unfinished()
        self.exhausted = False

    def next(self) -> dict[str, Any] | None:
        """The config of ``FinetuneTrainable`` for the next trial; None: ask again later. Raises ``Exhausted``."""
        try:
            trial = self._resumed.pop(0) if self._resumed else self._source.ask()
        except Exhausted:
            self.exhausted = True
            raise
        if trial is None:
            return None
        settings, stream = self._settings_of(trial)
        files = self._history.files(trial)
        return {
            "number": trial.number,
            "stream": stream,
            "params": trial.params.to_flat(),
            "settings": settings.to_dict(),
            # Absolute, as a worker has another working directory.
            "files": {name: str(getattr(files, name).absolute()) for name in TRIAL_FILES},
        }


class _Trials:
    """The work of ``run_trials``: every result and every end goes into the history, and is shown.

    lag: a trial is compared with those only whose number is lower by that much or more; None: with all. remaining: how
    many are to begin.
    """

    def __init__(
        self,
        searcher: TuneSearcher,
        history: TrialHistory,
        rule: PruningRule,
        lag: int | None,
        progress: Progress,
        budget: TimeBudget,
        remaining: int,
    ) -> None:
        self._searcher = searcher
        self._history = history
        self._rule = rule
        self._lag = lag
        self._progress = progress
        self._budget = budget
        self._remaining = remaining

    def next(self) -> dict[str, Any] | None:
        if not self._remaining:
            raise Exhausted
        config = self._searcher.next()
        self._remaining -= config is not None
        return config

    def started(self, number: int) -> None:
        self._progress.trial_started(self._history.entries[number])

    def reason_to_stop(self, number: int, result: dict[str, Any]) -> str | None:
        self._history.report(number, result["epoch"], result["score"], result["record"])
        peers = [k for k in self._history.entries if self._lag is None or k <= number - self._lag]
        reason = self._rule.reason_to_stop(self._history, number, result["epoch"], peers)
        if reason is not None:
            self._history.entries[number].reason = reason
        return reason

    def reported(self, number: int, result: dict[str, Any]) -> None:
        self._history.report(number, result["epoch"], result["score"], result["record"])
        self._progress.epoch(self._history.entries[number])
        if (note := result.get("note")) and not _connection.noted:  # Of many trials the first says it.
            _connection.noted = True
            self._progress.message(note)

    def ended(self, number: int, result: dict[str, Any]) -> None:
        end = result.get("end")
        if end is None:
            self._end(number, "pruned", self._history.entries[number].reason)
        else:
            self._end(number, "completed" if end in ("budget", "plateau") else "failed", result.get("reason", end))

    def restarted(self, number: int, reason: str) -> None:
        name = self._history.entries[number].trial_id
        self._progress.message(f"trial {name} lost its worker ({reason}): started again where it was")

    def failed(self, number: int, reason: str) -> None:
        self._end(number, "failed", reason)

    def time_is_up(self) -> bool:
        return self._budget.stop_all()

    def _end(self, number: int, status: str, reason: str) -> None:
        state = self._history.entries[number]
        self._history.end(number, status, reason)
        self._progress.trial_ended(state)


class TimeBudget:
    """Ends the sweep, not the trials: what runs when the time is up stays unfinished and can be resumed.

    seconds: from now on; None = no end. reserve_s: how much of it is to be left for what comes after the search; asked
    again at most every few seconds, and never more than half of the time counts.
    """

    ASK_AGAIN_S = 5.0

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._start_s = time.monotonic()
        self._asked_s = -self.ASK_AGAIN_S
        self._reserved_s = 0.0
        self.reserve_s: Callable[[], float] = float

    def stop_all(self) -> bool:
        """Whether the time is up."""
        if self._seconds is None:
            return False
        spent_s = time.monotonic() - self._start_s
        if spent_s - self._asked_s >= self.ASK_AGAIN_S:
            self._asked_s = spent_s
            self._reserved_s = min(self.reserve_s(), self._seconds / 2)
        return spent_s >= self._seconds - self._reserved_s
