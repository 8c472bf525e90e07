"""The processes of a sweep: the same ones from work to work, and what fails in one of them is told."""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from own_cluster import own_cluster
from ray import cloudpickle, tune

from sweep.workers import RESTARTS, Tasks, Workers, _Stopper
from trainables.ray_trainable import FinetuneTrainable

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with own_cluster():
        made = Workers(FinetuneTrainable, {"cpu": 1.0, "gpu": 0.0}, 2, tmp_path_factory.mktemp("tune"))
        yield made
        made.close()


def note_process(folder: Path, number: int) -> None:
    """Two calls wait for each other, so that each has a process of its own."""
    # Opening a named pipe returns when both its ends are open.
    (folder / "meeting").open("wb" if number else "rb").close()
    (folder / f"{number}.pid").write_text(str(os.getpid()))


def refuse(number: int) -> None:
    if number == 1:
        raise ValueError("no good\nat all")
    if number == 3:
        raise MemoryError  # without a word
    if number == 4:
        raise RuntimeError("CUDA error: unknown\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.")


def fill_up(number: int) -> None:
    if number == 1:
        raise OSError(errno.ENOSPC, "no space", "/some/file")


def test_all_processes_of_one_work_do_the_next_one(workers: Workers, tmp_path: Path) -> None:
    """By a name that is Ray's own affair: this fails on the day that a new Ray has another."""
    processes = []
    for name in ("search", "predictions"):
        folder = tmp_path / name
        folder.mkdir()
        os.mkfifo(folder / "meeting")
        tasks = Tasks(note_process, [(folder, 0), (folder, 1)])
        assert not workers.do(tasks)
        assert tasks.problems == [None, None]
        processes.append({path.read_text() for path in folder.glob("*.pid")})
    assert len(processes[0]) == 2
    assert processes[0] == processes[1]
    assert workers.alive


def test_tune_keeps_of_an_epoch_that_was_reported_no_record() -> None:
    told: list[str] = []
    workers: Any = SimpleNamespace(trial_reported=lambda result: told.append(result["record"]))
    result = {"epoch": 1, "record": "{}"}
    _Stopper(workers)("", result)
    assert told == ["{}"]
    assert result == {"epoch": 1}


def test_a_call_that_raises_says_why_and_the_others_go_on(workers: Workers) -> None:
    tasks = Tasks(refuse, [(0,), (1,), (2,), (3,), (4,)])
    assert not workers.do(tasks)
    assert tasks.problems == [None, "at all", None, "MemoryError", "CUDA error: unknown"]


def test_a_disk_that_takes_no_more_ends_the_work_with_its_name(workers: Workers) -> None:
    """It is no fault of the call, and the calls after it would meet the same."""
    tasks = Tasks(fill_up, [(number,) for number in range(20)])
    with pytest.raises(OSError) as caught:
        workers.do(tasks)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/some/file")
    assert not workers.alive
    assert tasks.left()


class Caller(tune.Trainable):
    """Calls, without torch, which takes a process seconds to import."""

    def setup(self, config: dict[str, Any]) -> None:
        self._call = config["call"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._call = new_config["call"]
        return True

    def step(self) -> dict[str, Any]:
        function, arguments = cloudpickle.loads(self._call)
        function(*arguments)
        return {"epoch": 0, "score": math.nan, "record": "", "done": True, "end": "budget"}


def meet(folder: Path, count: int) -> None:
    """Note this process, and wait until so many have."""
    (folder / f"{os.getpid()}.pid").touch()
    for _ in range(1200):
        if len(list(folder.glob("*.pid"))) >= count:
            return
        time.sleep(0.1)
    raise TimeoutError


@pytest.mark.cluster
def test_idle_processes_that_have_died_cost_the_next_task_nothing(workers: Workers, tmp_path: Path) -> None:
    """As those of a machine that was switched off: Tune gives the task to one after the other."""
    count = RESTARTS + 2
    several = Workers(Caller, {"cpu": 0.25, "gpu": 0.0}, count, tmp_path / "tune")
    try:
        first = Tasks(meet, [(tmp_path, count)] * count)
        assert not several.do(first)
        assert first.problems == [None] * count
        for process in tmp_path.glob("*.pid"):
            os.kill(int(process.stem), signal.SIGKILL)
        (tmp_path / "again").mkdir()
        second = Tasks(meet, [(tmp_path / "again", 1)])
        assert not several.do(second)
        assert second.problems == [None]
    finally:
        several.close()
