"""Why a trial lost its process is told as what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from our_sweep import sweep
from own_cluster import own_cluster
from toy_sweep import history_of
from toy_trainable import learning, toy

from sweep.workers import DIED, reason_of_loss

pytestmark = pytest.mark.cluster


@pytest.fixture
def full_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray takes the memory of its machine for used up."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    with own_cluster():
        yield


def test_a_process_that_ray_ended_as_memory_ran_out(full_machine: None, tmp_path: Path) -> None:
    class Waiting(toy(learning)):  # type: ignore[misc]
        def step(self) -> None:
            __import__("threading").Event().wait()

    sweep(tmp_path, Waiting, trials=1, scheduler="none")
    history = history_of(tmp_path)
    assert history.entries[0].status == "failed"
    assert history.entries[0].reason.startswith("out of memory: Ray ended its process before the memory of its machine")


DIED_IN_RAYS_WORDS = """\
The actor died unexpectedly before finishing this task.
\tclass_name: ToyTrainable
\tpid: 4711
\tip: 10.0.0.7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was \
killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed \
unexpectedly due to SIGSEGV or another unexpected error."""


@pytest.mark.parametrize(
    ("error", "killed_for_memory", "reason"),
    [
        (DIED_IN_RAYS_WORDS, False, DIED),
        (DIED_IN_RAYS_WORDS, True, "out of memory: the kernel ended its process on 10.0.0.7"),
        ("The actor died because its node has died.\n\tip: 10.0.0.7", False, "its machine 10.0.0.7 is lost"),
        ("The actor is temporarily unavailable: RpcError", False, "its machine cannot be reached"),
        (
            "The actor died because of an error raised in its creation task\nValueError: no good",
            False,
            "ValueError: no",
        ),
        ("", False, DIED),
    ],
)
def test_the_reason_in_rays_words_and_in_ours(error: str, killed_for_memory: bool, reason: str) -> None:
    asked: list[str] = []

    def answer(ip: str) -> bool:
        asked.append(ip)
        return killed_for_memory

    assert reason_of_loss(error, answer).startswith(reason)
    assert asked in ([], ["10.0.0.7"])
