"""The worker processes: kept from the first trial of a sweep to its last prediction, for all work in between.

A process takes seconds to import torch, and Ray Tune ends its processes with ``fit``. So all that a sweep computes is
one ``fit``, in a thread: the search, the repeats of finalists and tasks (predictions, baselines) are trials of it. The
rest of the sweep waits while there is ``Work``, and ``fit`` waits while there is none, so the two never run at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ray import cloudpickle, tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweep.cluster import MOST_AT_ONCE, ClusterWatch
from sweep.endings import SweepStopped, say
from sweep.history import trial_id
from sweep.optuna_search import Exhausted
from trainables.atomic import disk_error

RESTARTS = 3
"""Maximum restarts of a trial or task that lost its process, and of Ray Tune after an internal error."""
SIGNALS_ARE_SEEN_WITHIN_S = 0.2
ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that interrupt a sweep as Ctrl-C does."""
LEAVES_WITHIN_S = 3.0
"""A cluster that does not answer is left after so long, even if it has not confirmed it."""
ENDS_WITHIN_S = 5.0
"""How long the cluster may stay silent once the sweep is interrupted: a batch system, ``timeout`` or the end of a
session sends Ray's own processes the same signal, and kills what is left half a minute later."""
DIED = "its process ended without an error message"
_NEVER_BEGAN = "raised in its creation task"
"""Ray's text about a process that could not start."""


class Work(Protocol):
    """Work for the processes; ``number``: of one trial or task in it."""

    def next(self) -> dict[str, Any] | None:
        """The config of the next trial, with its ``number``; None while it must wait, ``Exhausted`` if none is left."""

    def left(self) -> int:
        """How many ``next`` may still give."""

    def started(self, number: int) -> None:
        """A process has started it."""
        return  # A protocol's method without a body would be abstract to mypy.

    def reported(self, number: int, result: dict[str, Any]) -> bool:
        """Whether it ends with this result, by itself or because it is to be stopped."""

    def lost(self, number: int, reason: str, counts: bool = True) -> None:
        """It lost its process: ``next`` gives it again, unless that has happened too often.

        counts: False if the process had died before it was given the work.
        """

    def say(self, line: str) -> None:
        """Tell the user."""
        say(line)

    def time_is_up(self) -> bool:
        return False


class Tasks(Work):
    """Calls of an importable function, each in one of the workers. problems: why a call failed, a line; None if not."""

    def __init__(self, function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> None:
        self._calls = [cloudpickle.dumps((function, one)) for one in arguments]
        self._waiting = [*range(len(arguments))]
        self._lost = [0] * len(arguments)
        self.problems: list[str | None] = [None] * len(arguments)

    def next(self) -> dict[str, Any] | None:
        if not self._waiting:
            raise Exhausted
        number = self._waiting.pop(0)
        return {"number": number, "call": self._calls[number]}

    def left(self) -> int:
        return len(self._waiting)

    def reported(self, number: int, result: dict[str, Any]) -> bool:
        self.problems[number] = result.get("reason")
        return True

    def lost(self, number: int, reason: str, counts: bool = True) -> None:
        self._lost[number] += counts
        if self._lost[number] > RESTARTS:
            self.problems[number] = reason
        else:
            self._waiting.insert(0, number)


class Workers:
    """Processes of ``trainable``, which reports one epoch per step, as ``FinetuneTrainable`` does.

    resources: of each, in Ray's terms. count: how many; None = as many as the cluster has room for at any time. folder:
    where Tune keeps its snapshots. alive: more work can be given. cluster_lost: the cluster has stopped answering. One
    thread at a time calls ``do`` and ``close``.
    """

    def __init__(
        self, trainable: type[tune.Trainable], resources: dict[str, float], count: int | None, folder: Path
    ) -> None:
        self.trainable, self.resources, self.count = trainable, resources, count
        self._folder = folder
        self._work: Work | None = None
        self._sessions = 0
        self._running: dict[str, int] = {}
        self._most_running = self._dead_at_hand = 0
        self._started: set[str] = set()
        self._given: Counter[str] = Counter()
        self._interrupted = self._closed = self.cluster_lost = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self.watch = ClusterWatch(resources, self._wanted if count is None else None)
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(MOST_AT_ONCE)
        self._thread = threading.Thread(target=self._run, name="tune", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    @property
    def slots(self) -> int:
        """How many can run at once now."""
        return self.watch.slots if self.count is None else self.count

    def serves(self, trainable: type[tune.Trainable], resources: dict[str, float]) -> bool:
        """Whether these processes suit such work."""
        return issubclass(self.trainable, trainable) and self.resources == resources

    def do(self, work: Work) -> bool:
        """Do all of ``work``, or what can be done until its time is up; True if Ctrl-C interrupted it.

        After that, and when the time was up, ``alive`` is False. Raises errors of the driver, and ``SweepStopped`` if
        the cluster is lost before Ctrl-C.
        """
        assert self.alive
        self.watch.begin()
        with _signals_call(self._interrupt), self._changed:
            self._work = work
            self._changed.notify_all()
            while self._work is work:
                # With a timeout, as a signal to another thread is handled only when this thread runs.
                self._changed.wait(SIGNALS_ARE_SEEN_WITHIN_S)
                try:
                    line = self.watch.check(ENDS_WITHIN_S if self._interrupted else None)
                except SweepStopped:
                    self._closed = self.cluster_lost = True  # ``fit`` may never return.
                    if self._interrupted:
                        break
                    raise
                if line is not None:
                    work.say(line)
        if self._error is not None:
            raise self._error
        return self._interrupted

    def close(self) -> None:
        """End the processes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(LEAVES_WITHIN_S if self.cluster_lost else None)
        self.watch.close()

    def next(self) -> dict[str, Any] | str | None:
        """For Tune: the config of the next trial; None: ask again later. Waits while there is no work."""
        with self._changed:
            while True:
                if self.must_stop():
                    return str(Searcher.FINISHED)
                if self._work is not None:
                    if len(self._running) >= self.slots:
                        return None
                    try:
                        with self.work() as work:
                            config = work.next()
                    except Exhausted:
                        if self._running:
                            return None
                        self._end_work()
                        continue
                    return None if config is None else self._named(config)
                self._changed.wait()

    @contextlib.contextmanager
    def work(self) -> Iterator[Work]:
        """For Tune: its current work; an error within counts as one of the sweep, not of Tune."""
        assert self._work is not None
        try:
            yield self._work
        except Exhausted:
            raise
        except BaseException as error:
            self._error = self._error or disk_error(error) or error
            raise

    def trial_started(self, trial: Trial) -> None:
        """For Tune: a process has started the trial."""
        self._started.add(_name_of(trial))
        self._dead_at_hand = 0
        with self.work() as work:
            work.started(_number_of(trial))

    def trial_reported(self, result: dict[str, Any]) -> bool:
        """For Tune: whether the trial ends with this result."""
        with self.work() as work:
            if disk := result.get("disk"):
                raise OSError(disk[0], os.strerror(disk[0]), disk[1])
            ends = work.reported(int(result["config"]["number"]), result)
        if ends:
            self._ended(result["config"]["name"])
        return ends

    def trial_lost(self, trial: Trial) -> None:
        """For Tune: the trial's process has died, or could not start.

        Many of the processes that Tune keeps idle may have died with their machine, and Tune gives a trial to one after
        the other. Such losses do not count, up to the most processes that have run at once.
        """
        error, started = _error_of(trial), _name_of(trial) in self._started
        counts = started or _NEVER_BEGAN in error or self._dead_at_hand >= self._most_running
        self._dead_at_hand += not counts
        self._ended(_name_of(trial))
        with self.work() as work:
            work.lost(_number_of(trial), reason_of_loss(error, self.watch.killed_for_memory), counts)

    def must_stop(self) -> bool:
        """For Tune: whether it must end, with trials unfinished if there are any."""
        if not self._closed and self._work is not None:
            with self.work() as work:
                self._closed = self._interrupted or self._error is not None or work.time_is_up()
        return self._closed

    def _named(self, config: dict[str, Any]) -> dict[str, Any]:
        """``config`` with a short name that no trial of Tune has had."""
        name = trial_id(config["number"])
        self._given[name] += 1
        if (times := self._given[name]) > 1:
            name = f"{name}-{times}"
        self._running[name] = config["number"]
        self._most_running = max(self._most_running, len(self._running))
        return config | {"name": name}

    def _ended(self, name: str) -> None:
        self._started.discard(name)
        del self._running[name]

    def _wanted(self) -> int:
        """How many trials could run now if the cluster had room for them."""
        work = self._work
        return 0 if work is None else len(self._running) + work.left()

    def _interrupt(self) -> None:
        self._interrupted = True

    def _run(self) -> None:
        try:
            while not self._fit():
                pass
        except BaseException as error:
            self._error = self._error or disk_error(error) or error
        finally:
            with self._changed:
                self._closed = True
                self._end_work()

    def _fit(self) -> bool:
        """Run Tune; False if it failed and is to be run again, its trials from where they were."""
        self._sessions += 1
        try:
            self._tuner().fit()
        except Exception as error:
            if self._error is not None or self._closed or self._sessions > RESTARTS or disk_error(error) is not None:
                raise
            logging.getLogger("ray").exception("Ray Tune ended with an internal error and is restarted")
            running, self._running = self._running, {}
            for number in running.values():
                with self.work() as work:
                    work.lost(number, reason_of_loss(str(error), self.watch.killed_for_memory))
            return False
        return True

    def _tuner(self) -> tune.Tuner:
        return tune.Tuner(
            tune.with_resources(self.trainable, self.resources),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(self, metric="score", mode="max"),
                scheduler=_Scheduler(self),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name=f"session-{time.strftime('%Y%m%d-%H%M%S')}-{self._sessions}",
                storage_path=str(self._folder.absolute()),
                callbacks=[_Callback(self)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                stop=_Stopper(self),
                verbose=0,
            ),
        )

    def _end_work(self) -> None:
        self._work = None
        self._changed.notify_all()


class _OfTune:
    """Is pickled without content into Ray's snapshots: the history has all the state."""

    def __init__(self, workers: Workers, **given: Any) -> None:
        super().__init__(**given)
        self._workers = workers

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_OfTune, Searcher):
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self._workers.next()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the stopper and the callback report every end to the work, with the reason."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Ray warns of a searcher that saves nothing.


class _Scheduler(_OfTune, FIFOScheduler):
    _kept = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        if not self._kept:
            # Tune would end all idle processes but one, each with torch loaded, although more work follows soon.
            cache = tune_controller._tune_controller._actor_cache
            cache.increase_max(trial.placement_group_factory, MOST_AT_ONCE)
            self._kept = True

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The newest. Tune's choice, the oldest, waits for its new process, which ends at its start if another is free:
        if trials are shorter than a start, one process would run them all."""
        waiting = (trial for trial in reversed(tune_controller.get_trials()) if trial.status == Trial.PENDING)
        return next(waiting, None)


class _Callback(_OfTune, tune.Callback):
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._workers.trial_started(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._workers.trial_lost(trial)


class _Stopper(_OfTune, tune.Stopper):
    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tune calls this first and once for each result, before it asks for the next trial."""
        ends = self._workers.trial_reported(result)
        result.pop("record", None)  # Tune keeps the last result of every trial, and writes all into each snapshot.
        return ends

    def stop_all(self) -> bool:
        return self._workers.must_stop()


@contextlib.contextmanager
def handlers_restored(*numbers: signal.Signals) -> Iterator[dict[signal.Signals, Any]]:
    """Give the handlers of these signals and restore them at the end, without SIGHUP if ``nohup`` has made the sweep
    ignore it. Empty outside the main thread, as no other thread may set handlers."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in numbers}
        before = {number: one for number, one in found.items() if number != signal.SIGHUP or one != signal.SIG_IGN}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def _signals_call(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call ``interrupt`` on Ctrl-C, on SIGTERM (from a scheduler or a shutdown) and on SIGHUP (a lost terminal);
    then restore the earlier handler of Ctrl-C, so that the next one ends the sweep at once."""

    def first(number: int, frame: object) -> None:
        interrupt()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    with handlers_restored(signal.SIGINT, *ENDING) as before:
        for number in before:
            signal.signal(number, first)
        yield


def _name_of(trial: Trial) -> str:
    return str(trial.config["name"])


def _number_of(trial: Trial) -> int:
    return int(trial.config["number"])


def _error_of(trial: Trial) -> str:
    """What Ray wrote about the end of a trial's process; "" if there is nothing."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):  # Without a folder the trial has no such file.
        return ""


def reason_of_loss(error: str, killed_for_memory: Callable[[str], bool]) -> str:
    """Why a process was lost, as far as Ray's text ``error`` tells; one line.

    killed_for_memory: whether the kernel has just killed a process on the node at an address for lack of memory.
    """
    ip = found[1] if (found := re.search(r"\bip: ([\w.:]+)", error, re.IGNORECASE)) else ""
    where = f" {ip}" if ip else ""
    if "running low on memory" in error:
        return f"out of memory: Ray ended its process before the memory of its machine{where} ran out"
    if "node has died" in error or "node was terminated" in error:
        return f"its machine{where} is lost: switched off or disconnected"
    if "is temporarily unavailable" in error or "RpcError" in error:
        return f"its machine{where} cannot be reached: its network connection is lost"
    if "died unexpectedly" in error and _NEVER_BEGAN not in error:
        return f"out of memory: the kernel ended its process on{where}" if killed_for_memory(ip) else DIED
    return next((line.strip() for line in reversed(error.splitlines()) if line.strip()), DIED)
