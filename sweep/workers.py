"""The processes that train: kept from the first trial of a sweep to its last prediction, whatever they work at between.

A process takes seconds to import torch, and Ray Tune ends its processes with ``fit``. So all that a sweep computes is
one ``fit``, in a thread: the search, the repeats of finalists and tasks (predictions, baselines) are trials of it. The
rest of the sweep waits while there is ``Work``, and ``fit`` waits while there is none: never do both run at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ray import cloudpickle, tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sweep.history import trial_id
from sweep.optuna_search import Exhausted

RESTARTS_AFTER_LOST_WORKER = 3
SIGNALS_ARE_SEEN_WITHIN_S = 0.2
DIED = "its process died without a word: killed, or out of memory"


class Work(Protocol):
    """What is to be computed; ``number``: of one trial or task in it."""

    def next(self) -> dict[str, Any] | None:
        """The config of the next trial, with its ``number``; None while it must wait, ``Exhausted`` if none is left."""

    def started(self, number: int) -> None: ...

    def reason_to_stop(self, number: int, result: dict[str, Any]) -> str | None:
        """Of a trial that has not ended by itself; None: it goes on. Called before ``reported``."""

    def reported(self, number: int, result: dict[str, Any]) -> None: ...

    def ended(self, number: int, result: dict[str, Any]) -> None: ...

    def restarted(self, number: int, reason: str) -> None:
        """It lost its process."""

    def failed(self, number: int, reason: str) -> None:
        """It lost its process once too often."""

    def time_is_up(self) -> bool: ...


class Tasks:
    """Calls of an importable function, each in one of the workers. problems: why a call failed, a line; None if not."""

    def __init__(self, function: Callable[..., object], arguments: Sequence[tuple[Any, ...]]) -> None:
        self._calls = [cloudpickle.dumps((function, one)) for one in arguments]
        self._begun = 0
        self.problems: list[str | None] = [None] * len(arguments)

    def next(self) -> dict[str, Any] | None:
        if self._begun == len(self._calls):
            raise Exhausted
        self._begun += 1
        return {"number": self._begun - 1, "call": self._calls[self._begun - 1]}

    def started(self, number: int) -> None: ...

    def reason_to_stop(self, number: int, result: dict[str, Any]) -> str | None:
        return None

    def reported(self, number: int, result: dict[str, Any]) -> None: ...

    def ended(self, number: int, result: dict[str, Any]) -> None:
        self.problems[number] = result.get("reason")

    def restarted(self, number: int, reason: str) -> None: ...

    def failed(self, number: int, reason: str) -> None:
        self.problems[number] = reason

    def time_is_up(self) -> bool:
        return False


class _WithoutState:
    """Leaves nothing in the snapshots that Ray pickles: all that there is to know is in the history."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Workers(_WithoutState):
    """At most ``count`` processes of ``trainable``, which reports an epoch a step as ``FinetuneTrainable`` has it.

    resources: of each, in Ray's terms. folder: where Tune keeps its snapshots. reuse: trials follow each other in the
    same processes. alive: more work can be given. One thread at a time calls ``do`` and ``close``.
    """

    def __init__(
        self, trainable: type[tune.Trainable], resources: dict[str, float], count: int, folder: Path, *, reuse: bool
    ) -> None:
        self.trainable, self.resources, self.count, self.reuse = trainable, resources, count, reuse
        self.work: Work | None = None
        self.works = 0
        self._running = 0
        self._interrupted = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(count)
        self._tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(self),
                scheduler=_Scheduler(self),
                num_samples=-1,
                reuse_actors=reuse,
                trial_name_creator=_name_of,
                trial_dirname_creator=_name_of,
            ),
            run_config=tune.RunConfig(
                name=time.strftime("session-%Y%m%d-%H%M%S"),
                storage_path=str(folder.absolute()),
                callbacks=[_Callback(self)],
                failure_config=tune.FailureConfig(max_failures=RESTARTS_AFTER_LOST_WORKER),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                stop=_Stopper(self),
                verbose=0,
            ),
        )
        self._thread = threading.Thread(target=self._fit, name="tune", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    def serves(self, trainable: type[tune.Trainable], resources: dict[str, float], reuse: bool) -> bool:
        """Whether these are the processes that such work needs."""
        return issubclass(self.trainable, trainable) and (self.resources, self.reuse) == (resources, reuse)

    def do(self, work: Work) -> bool:
        """Do all of ``work``, or what can be done until it says that its time is up; True if Ctrl-C cut it off.

        After that, and when the time was up, ``alive`` is False. What fails in the driver is raised here.
        """
        assert self.alive
        with _signals_call(self._interrupt), self._changed:
            self.work = work
            self.works += 1
            self._changed.notify_all()
            while self.work is work:
                # A signal that comes to another thread of the process is seen by this one when it runs.
                self._changed.wait(SIGNALS_ARE_SEEN_WITHIN_S)
        if self._error is not None:
            raise self._error
        return self._interrupted

    def close(self) -> None:
        """End the processes."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def next(self) -> dict[str, Any] | str | None:
        """For Tune: the config of the next trial; None: ask again later. Waits while there is no work."""
        with self._changed:
            while True:
                if self._closed:
                    return str(Searcher.FINISHED)
                if self.work is not None:
                    if self._running >= self.count:
                        return None
                    try:
                        config = self.work.next()
                    except Exhausted:
                        if self._running:
                            return None
                        self._end_work()
                        continue
                    if config is None:
                        return None
                    self._running += 1
                    return config | {"work": self.works}
                self._changed.wait()

    def trial_ended(self) -> None:
        """For Tune."""
        self._running -= 1

    def must_stop(self) -> bool:
        """For Tune: whether it must end, with trials unfinished if there are any."""
        if not self._closed and self.work is not None and (self._interrupted or self.work.time_is_up()):
            self._closed = True
        return self._closed

    def _interrupt(self) -> None:
        self._interrupted = True

    def _fit(self) -> None:
        try:
            self._tuner.fit()
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._closed = True
                self._end_work()

    def _end_work(self) -> None:
        self.work = None
        self._changed.notify_all()


class _Searcher(_WithoutState, Searcher):
    def __init__(self, workers: Workers) -> None:
        super().__init__(metric="score", mode="max")
        self._workers = workers

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self._workers.next()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the work hears of every end from the callback, which knows why."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Ray warns of a searcher that saves nothing.


class _Scheduler(_WithoutState, FIFOScheduler):
    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self._workers = workers
        self._kept = False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        if not self._kept:
            # Tune ends all idle processes but one, and with each a loaded torch: the next work starts within seconds.
            cache = tune_controller._tune_controller._actor_cache
            cache.increase_max(trial.placement_group_factory, self._workers.count)
            self._kept = True

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        assert self._workers.work is not None
        reason = self._workers.work.reason_to_stop(_number_of(trial), result)
        return str(TrialScheduler.CONTINUE if reason is None else TrialScheduler.STOP)


class _Callback(_WithoutState, tune.Callback):
    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    @property
    def _work(self) -> Work:
        assert self._workers.work is not None
        return self._workers.work

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._work.started(_number_of(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._work.reported(_number_of(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._work.ended(_number_of(trial), trial.last_result)
        self._workers.trial_ended()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._work.restarted(_number_of(trial), _reason_of(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._work.failed(_number_of(trial), _reason_of(trial))
        self._workers.trial_ended()


class _Stopper(_WithoutState, tune.Stopper):
    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._workers.must_stop()


@contextlib.contextmanager
def _signals_call(interrupt: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C, and SIGTERM as a scheduler or a shutdown sends it, call ``interrupt``; a second Ctrl-C ends."""
    if threading.current_thread() is not threading.main_thread():  # no other may say what a signal does
        yield
        return

    def first(number: int, frame: object) -> None:
        interrupt()
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _name_of(trial: Trial) -> str:
    """Short, and another one in each work."""
    name, work = trial_id(_number_of(trial)), trial.config["work"]
    return name if work == 1 else f"{name}-{work}"


def _number_of(trial: Trial) -> int:
    return int(trial.config["number"])


def _reason_of(trial: Trial) -> str:
    lines = [line.strip() for line in str(trial.get_error() or trial.get_pickled_error() or "").splitlines()]
    return next((line for line in reversed(lines) if line), DIED)
