"""How a sweep under Ray ends, and what it says of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from our_sweep import sweep
from own_cluster import own_cluster
from toy_trainable import learning, toy

from sweep.ray_tune import log_to


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    with own_cluster() as address:
        yield address


def test_ctrl_c_between_two_trials_is_an_interruption_and_the_sweep_goes_on_from_there(tmp_path: Path) -> None:
    """Nothing is unfinished at that moment, but most has not begun."""
    first = sweep(tmp_path, toy(learning), trials=5, interrupt_after=2)
    assert first.began == 2
    assert first.interrupted
    second = sweep(tmp_path, toy(learning), trials=5)
    assert second.began == 5
    assert not second.interrupted


def test_an_exhausted_space_ends_a_sweep_and_more_trials_change_nothing(tmp_path: Path) -> None:
    for trials in (8, 12):
        seen = sweep(tmp_path, toy(learning), trials=trials, space="finite", scheduler="none", concurrency=2)
        assert seen.began == 5
        assert not seen.interrupted


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
    log_to(tmp_path / "ray.log")
    worker.print_to_stdstream({"lines": ["a worker", "died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    logging.getLogger("ray").handlers[0].close()
    assert (tmp_path / "ray.log").read_text().endswith("WARNING ray: raylet: a worker\ndied\n")
    assert capfd.readouterr() == ("", "")
