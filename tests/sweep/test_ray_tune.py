"""How a sweep under Ray ends, and what it says of it."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
from our_sweep import sweep
from own_cluster import own_cluster
from ray import tune
from ray.air.execution._internal import RayActorManager
from toy_sweep import history_of
from toy_trainable import BUDGET, learning, toy
from whole_sweep import epochs_of

from search_spaces.params import TrialParams
from sweep.endings import SweepStopped
from sweep.history import TrialHistory, TrialState
from sweep.optuna_search import Exhausted
from sweep.ray_tune import MOST_ALIKE, TimeBudget, _Trials, log_to
from sweep.run_folder import RunPaths
from sweep.workers import DIED, RESTARTS


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    with own_cluster() as address:
        yield address


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_between_two_trials_is_an_interruption_and_the_sweep_goes_on_from_there(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Nothing is unfinished at that moment, but most has not begun. SIGHUP is what the end of an ssh session sends."""
    before = signal.signal(number, signal.default_int_handler)  # These tests may run under ``nohup``.
    try:
        first = sweep(tmp_path, toy(learning), trials=5, interrupt_after=2, interrupt_by=number)
    finally:
        signal.signal(number, before)
    assert first.began == 2
    assert first.interrupted
    second = sweep(tmp_path, toy(learning), trials=5)
    assert second.began == 5
    assert not second.interrupted


@pytest.mark.usefixtures("soon_exhausted")
def test_an_exhausted_space_ends_a_sweep_which_is_told_and_more_trials_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for trials in (8, 12):
        seen = sweep(tmp_path, toy(learning), trials=trials, space="finite", scheduler="none", concurrency=2)
        assert seen.began == 5
        assert not seen.interrupted
        assert capsys.readouterr().out.count(f"the search ends with 5 of --trials {trials}") == 1


def trials_of(history: Any, **facts: Any) -> _Trials:
    anything = dict.fromkeys(("ask", "settings_of", "rule", "progress", "budget"), history)
    return _Trials(history, **{**anything, "trials": 0, "lag": None, "unfinished": [], **facts})


def test_an_exhausted_space_is_not_asked_again_though_tune_asks_on(tmp_path: Path) -> None:
    class Empty:
        asked = 0

        def ask(self) -> TrialState | None:
            self.asked += 1
            raise Exhausted

    history, source = TrialHistory(RunPaths(tmp_path), "val_f1_macro", "max"), Empty()
    trial = history.begin(0, TrialParams(backbone="squeezenet1_1"))
    settings: Any = dataclasses.make_dataclass("Settings", [])()
    work = trials_of(history, ask=source.ask, settings_of=lambda state: (settings, 0), trials=2, unfinished=[trial])
    assert work.next() is not None
    for _ in range(3):
        with pytest.raises(Exhausted):
            work.next()
    work.lost(0, "its process was lost", counts=False)
    assert work.next() is not None
    assert source.asked == 1


def test_a_process_that_is_slow_to_start_gets_trials_however_short_they_are(tmp_path: Path) -> None:
    """Tune itself gives the trial that waits for it to the first process that is free, and ends it as it starts."""

    class SlowToStart(toy(learning)):  # type: ignore[misc]
        _starts = True

        def setup(self, config: dict[str, Any]) -> None:
            super().setup(config)
            self._processes = Path(config["files"]["state"]).parents[2] / "processes"
            if self._starts and self._processes.exists():
                __import__("time").sleep(1)
            self._starts = False
            self._processes.mkdir(exist_ok=True)

        def step(self) -> dict[str, Any]:
            (self._processes / str(os.getpid())).touch()
            if len(list(self._processes.iterdir())) == 1:
                __import__("time").sleep(0.05)  # So 80 trials are enough until the other one is there.
            return dict(super().step())

    sweep(tmp_path, SlowToStart, trials=80, concurrency=2, scheduler="none")
    assert len(list((tmp_path / "processes").iterdir())) == 2


def dying(when: str, times: int, only: int | None = None) -> type[tune.Trainable]:
    """Whose process is killed "at reset", as it takes over its next trial, or "in step", so often in each trial.

    only: the number of the one trial in whose steps it is.
    """

    class Dying(toy(learning)):  # type: ignore[misc]
        def _die(self, config: dict[str, Any]) -> None:
            deaths = Path(config["files"]["state"]).with_name("deaths")
            count = int(deaths.read_text()) if deaths.exists() else 0
            if count < times:
                deaths.write_text(str(count + 1))
                os.kill(os.getpid(), signal.SIGKILL)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            if when == "at reset":
                self._die(new_config)
            return bool(super().reset_config(new_config))

        def step(self) -> dict[str, Any]:
            if when == "in step" and self._epoch == 2 and only in (None, self._number):
                self._die(self.config)
            return dict(super().step())

    return Dying


@pytest.mark.cluster
@pytest.mark.parametrize("when", ["at reset", "in step"])
def test_a_process_that_dies_costs_no_trial_and_no_epoch(tmp_path: Path, when: str) -> None:
    """Ray Tune itself loses a trial whose process dies as it takes it over."""
    seen = sweep(tmp_path, dying(when, 1), trials=4, concurrency=2, scheduler="none")
    assert seen.began == 4
    history = history_of(tmp_path)
    assert {state.status for state in history.entries.values()} == {"completed"}
    restarts = sum(state.restarts for state in history.entries.values())
    assert restarts == 0 if when == "at reset" else restarts >= 4
    for state in history.entries.values():
        assert epochs_of(history.files(state).root) == list(range(1, BUDGET + 1)), state.trial_id


@pytest.mark.cluster
def test_a_trial_that_ends_every_process_fails_and_the_others_go_on(tmp_path: Path) -> None:
    sweep(tmp_path, dying("in step", 99, only=0), trials=2, scheduler="none")
    history = history_of(tmp_path)
    first, second = history.entries[0], history.entries[1]
    assert (first.status, first.reason, first.restarts) == ("failed", DIED, RESTARTS + 1)
    assert (second.status, len(second.scores)) == ("completed", BUDGET)


def failing(reason: str, from_number: int) -> type[tune.Trainable]:
    """Trials that fail before their first epoch from one on, as where a GPU has gone."""

    class Failing(toy(learning)):  # type: ignore[misc]
        def step(self) -> dict[str, Any]:
            if self._number < from_number:
                return dict(super().step())
            said = reason.format(self._number)
            return {"epoch": 0, "score": math.nan, "record": "", "done": True, "end": "error", "reason": said}

    return Failing


@pytest.mark.parametrize(
    ("reason", "count"),
    [
        ("RuntimeError: No CUDA GPUs are available", 8),
        ("UserError: the images at /mnt/t{:04d} cannot be opened", 8),
        ("ParameterError: batch_size is too large", 12),
    ],
)
def test_a_machine_that_fails_every_trial_ends_the_sweep(tmp_path: Path, reason: str, count: int) -> None:
    machine = pytest.raises(SweepStopped, match=r"the last 5 trials on .* resume with --retry-failed")
    with machine if count == 8 else nullcontext():
        sweep(tmp_path, failing(reason, 3), trials=12, scheduler="none")
    history = history_of(tmp_path)
    assert [state.status for state in history.entries.values()] == ["completed"] * 3 + ["failed"] * (count - 3)


def test_parameters_memory_and_time_limits_say_nothing_against_a_machine() -> None:
    work = trials_of(None)
    for reason in ("out of memory: OutOfMemoryError", "TrialTimeoutError: over its time limit of 60 s in epoch 1"):
        for _ in range(MOST_ALIKE):
            work._judge_machine("one", reason)
    for reason in ("RuntimeError: a", "RuntimeError: b") * MOST_ALIKE:
        work._judge_machine("one", reason)
    for _ in range(MOST_ALIKE - 1):
        work._judge_machine("two", "RuntimeError: a")
        work._judge_machine("three", "RuntimeError: a")
    with pytest.raises(SweepStopped):
        work._judge_machine("two", "RuntimeError: a")


def test_a_trial_that_failed_has_not_run_another_epoch() -> None:
    anything: Any = MagicMock()
    work = trials_of(anything)
    work.reported(0, {"epoch": 3, "score": math.nan, "record": "", "end": "error"})
    anything.epoch.assert_not_called()
    work.reported(0, {"epoch": 3, "score": 0.5, "record": "{}"})
    anything.epoch.assert_called_once()


def test_the_time_that_the_search_left_is_the_finalists_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=0.0, monotonic=lambda: clock.now_s)
    monkeypatch.setattr("sweep.ray_tune.time", clock)
    budget = TimeBudget(100.0)
    budget.reserve(lambda: 40.0)
    for clock.now_s, is_up in ((59.0, False), (61.0, True)):
        assert budget.stop_all() == is_up
    budget.reserve(float)
    for clock.now_s, is_up in ((61.5, False), (100.0, True)):
        assert budget.stop_all() == is_up


def test_of_the_gpus_of_a_machine_one_may_be_gone() -> None:
    """What the others report says nothing for it."""
    anything: Any = MagicMock()
    work = trials_of(anything)
    gone = {"hostname": "one", "gpu": "1", "epoch": 0, "score": math.nan, "record": "", "end": "error"}
    gone["reason"] = "RuntimeError: No CUDA GPUs"
    well = {"hostname": "one", "gpu": "0", "epoch": 3, "score": 0.5, "record": "{}"}
    for number in range(MOST_ALIKE - 1):
        work.reported(number, gone)
        work.reported(99, well)
    with pytest.raises(SweepStopped, match=f"the last {MOST_ALIKE} trials on GPU 1 of one failed before"):
        work.reported(MOST_ALIKE, gone)


@pytest.mark.cluster
def test_an_error_of_tunes_own_costs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it raises one where it meets an error of Ray that it does not know."""
    handle = RayActorManager.next
    calls = itertools.count()

    def unexpected(self: RayActorManager, timeout: float | None = None) -> bool:
        if next(calls) == 20:
            raise RuntimeError("Caught unexpected exception: ")
        return handle(self, timeout)

    monkeypatch.setattr(RayActorManager, "next", unexpected)
    sweep(tmp_path, toy(learning), trials=3, concurrency=2, scheduler="none")
    assert next(calls) > 20
    history = history_of(tmp_path)
    assert [state.status for state in history.entries.values()] == ["completed"] * 3
    assert {len(state.scores) for state in history.entries.values()} == {BUDGET}


def test_what_ray_prints_from_a_thread_of_its_own_goes_into_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By a name that is Ray's own affair: this fails on the day that a new Ray has another."""
    worker = ray._private.worker
    assert "print_to_stdstream" in worker.listen_error_messages.__code__.co_names
    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    for name in ("ray", "optuna", "sweep"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [])
        monkeypatch.setattr(logger, "propagate", logger.propagate)
        monkeypatch.setattr(logger, "level", logger.level)
    capfd.readouterr()
    log_to(tmp_path / "logs" / "ray.log")
    worker.print_to_stdstream({"lines": ["a worker", "died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    logging.getLogger("ray").handlers[0].close()
    assert (tmp_path / "logs" / "ray.log").read_text().endswith("WARNING ray: raylet: a worker\ndied\n")
    assert capfd.readouterr() == ("", "")
