"""The trials as Ray Tune runs them: a cluster to run on, the run of the trials, and what is done with their weights."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.exceptions import AuthenticationError, RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.history import TrialHistory, TrialState, trial_id
from sweep.machine import Machine, Node, this_node
from sweep.optuna_search import Exhausted
from sweep.plan import Plan
from sweep.progress import Progress
from sweep.pruning import PruningRule
from trainables.ray_trainable import FinetuneTrainable
from trainables.trial import TrialSettings, predict_trial

RESTARTS_AFTER_LOST_WORKER = 3
NODE_ANSWERS_WITHIN_S = 60.0
ADDRESS_ANSWERS_WITHIN_S = 5.0
OBJECT_STORE_BYTES = 200_000_000  # Images go through memory-mapped files: Ray has next to nothing to carry.
DIED = "its process died without a word: killed, or out of memory"
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
    """``connect``, and at the end leave the cluster, or stop Ray."""
    machine = connect(address, cpus)
    try:
        yield machine
    finally:
        ray.shutdown()


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
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.config.concurrency)
    tuner = tune.Tuner(
        tune.with_resources(trainable, plan.resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(pruning, history, plan.config.concurrency if plan.config.deterministic else None),
            num_samples=remaining,
            reuse_actors=reuse_actors,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=time.strftime("session-%Y%m%d-%H%M%S"),
            storage_path=str(history.paths.tune.absolute()),
            callbacks=[HistoryCallback(history, progress)],
            failure_config=tune.FailureConfig(max_failures=RESTARTS_AFTER_LOST_WORKER),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            stop=budget,
            verbose=0,
        ),
    )
    with _sigterm_as_ctrl_c():
        tuner.fit()
    # Between two trials none is unfinished, and still the sweep may have been interrupted.
    done = not history.unfinished() and (searcher.exhausted or len(history.entries) >= trials)
    out_of_time = not done and budget.stop_all()
    return Outcome(interrupted=not done and not out_of_time, out_of_time=out_of_time)


def run_tasks(plan: Plan, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call an importable ``function`` with each of ``arguments``, where and beside each other as the trials ran.

    The results in order; an exception where a call ended in one.
    """
    task = ray.remote(
        num_cpus=plan.resources["cpu"], num_gpus=plan.resources["gpu"], max_retries=RESTARTS_AFTER_LOST_WORKER
    )(function)
    results: list[Any] = []
    for answer in [task.remote(*one) for one in arguments]:
        try:
            results.append(ray.get(answer))
        except Exception as error:
            results.append(error)
    return results


def predict_trials(
    plan: Plan, history: TrialHistory, trials: Sequence[TrialState], settings_of: SettingsOf, splits: tuple[str, ...]
) -> list[str]:
    """Predict ``splits`` with the saved weights of each of the ended ``trials`` that lacks one of them.

    Beside each other, as the trials ran; returns what failed, one sentence each.
    """
    saved = [trial for trial in trials if trial.ended and history.files(trial).weights.exists()]
    arguments = [
        (trial.params, *settings_of(trial), history.files(trial).weights.absolute(), splits) for trial in saved
    ]
    return [
        f"{trial.trial_id} could not be predicted on {', '.join(splits)}: {str(result).strip().splitlines()[-1]}"
        for trial, result in zip(saved, run_tasks(plan, _predict, arguments), strict=True)
        if isinstance(result, Exception)
    ]


def _predict(params: TrialParams, settings: TrialSettings, stream: int, weights: Path, splits: tuple[str, ...]) -> None:
    # Without a result: the predictions would travel back through Ray for nothing.
    predict_trial(params, settings, stream, weights, splits)


class _WithoutState:
    """Leaves nothing in the snapshots that Ray pickles: all that there is to know is in the history."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Source(Protocol):
    """Where new trials come from: ``OptunaSearch``, or the list of the finalists' repeats."""

    def ask(self) -> TrialState | None:
        """Begin the next trial; None while it must wait for others, ``Exhausted`` when there is no more."""


class TuneSearcher(_WithoutState, Searcher):
    """The search as Ray Tune knows it: unfinished trials of an earlier session first, then new ones from ``source``.

    concurrency: how many run at most at once. exhausted: nothing new is left.
    """

    def __init__(self, source: Source, history: TrialHistory, settings_of: SettingsOf, concurrency: int) -> None:
        super().__init__(metric="score", mode=history.mode)
        self._source = source
        self._history = history
        self._settings_of = settings_of
        self._concurrency = concurrency
        self._resumed = history.unfinished()
        self._begun: list[TrialState] = []
        self.exhausted = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The config of ``FinetuneTrainable`` for the next trial; None: ask again later."""
        if sum(not trial.ended for trial in self._begun) >= self._concurrency:
            return None
        try:
            trial = self._resumed.pop(0) if self._resumed else self._source.ask()
        except Exhausted:
            self.exhausted = True
            return str(Searcher.FINISHED)
        if trial is None:
            return None
        self._begun.append(trial)
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

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the history hears of every end from the callback, which knows why."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Ray warns of a searcher that saves nothing.


class TuneScheduler(_WithoutState, FIFOScheduler):
    """Asks the pruning rule after every epoch; the rungs are what the history has written down.

    lag: a trial is compared with those only whose number is lower by that much or more; None: with all.
    """

    def __init__(self, rule: PruningRule, history: TrialHistory, lag: int | None) -> None:
        super().__init__()
        self._rule = rule
        self._history = history
        self._lag = lag

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = _number_of(trial)
        self._history.report(number, result["epoch"], result["score"], result["record"])
        peers = [k for k in self._history.entries if self._lag is None or k <= number - self._lag]
        reason = self._rule.reason_to_stop(self._history, number, result["epoch"], peers)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self._history.entries[number].reason = reason
        return str(TrialScheduler.STOP)


class HistoryCallback(_WithoutState, tune.Callback):
    """Writes every result and every end into the history, and shows them."""

    def __init__(self, history: TrialHistory, progress: Progress) -> None:
        self._history = history
        self._progress = progress

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._progress.trial_started(self._state(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        state = self._state(trial)
        self._history.report(state.number, result["epoch"], result["score"], result["record"])
        self._progress.epoch(state)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        end = trial.last_result.get("end")
        if end is None:
            self._end(trial, "pruned", self._state(trial).reason)
        else:
            status = "completed" if end in ("budget", "plateau") else "failed"
            self._end(trial, status, trial.last_result.get("reason", end))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = self._state(trial).trial_id
        self._progress.message(f"trial {name} lost its worker ({_reason_of(trial)}): started again where it was")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial, "failed", _reason_of(trial))

    def _end(self, trial: Trial, status: str, reason: str) -> None:
        state = self._state(trial)
        self._history.end(state.number, status, reason)
        self._progress.trial_ended(state)

    def _state(self, trial: Trial) -> TrialState:
        return self._history.entries[_number_of(trial)]


class TimeBudget(_WithoutState, tune.Stopper):
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

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._seconds is None:
            return False
        spent_s = time.monotonic() - self._start_s
        if spent_s - self._asked_s >= self.ASK_AGAIN_S:
            self._asked_s = spent_s
            self._reserved_s = min(self.reserve_s(), self._seconds / 2)
        return spent_s >= self._seconds - self._reserved_s


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, as a scheduler or a shutdown sends it, ends ``fit`` as cleanly as Ctrl-C (Ray listens to SIGUSR1)."""
    if threading.current_thread() is not threading.main_thread():  # no other may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _number_of(trial: Trial) -> int:
    return int(trial.config["number"])


def _name_of(trial: Trial) -> str:
    return trial_id(_number_of(trial))


def _reason_of(trial: Trial) -> str:
    lines = [line.strip() for line in str(trial.get_error() or trial.get_pickled_error() or "").splitlines()]
    return next((line for line in reversed(lines) if line), DIED)
