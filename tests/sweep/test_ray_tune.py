"""How a sweep under Ray ends, and what it says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from our_sweep import sweep
from own_cluster import own_cluster
from toy_trainable import learning, toy


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
