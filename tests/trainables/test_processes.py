"""Whoever finds the name of a process can tell whether it still runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainables import processes
from trainables.processes import is_gone, this_process

NAMED = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="here the pid is all that names a process")
SAY = "from trainables.processes import this_process; print(this_process(), flush=True)"


@NAMED
def test_this_process_runs_and_its_name_can_be_that_of_a_file() -> None:
    assert is_gone(this_process()) is False
    assert not {" ", "/"} & set(this_process())


@NAMED
def test_one_that_has_ended_is_gone_also_before_its_parent_knows() -> None:
    with subprocess.Popen([sys.executable, "-c", f"{SAY}; input()"], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert is_gone(name) is False
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(name) is True
    assert is_gone(name) is True


@NAMED
@pytest.mark.parametrize(
    ("place", "gone"),
    [(0, None), (1, True), (2, None), (3, True)],
    ids=["another host", "before the machine was started again", "another container", "who had the pid before"],
)
def test_another_process_that_has_the_same_pid_is_not_taken_for_it(place: int, gone: bool | None) -> None:
    parts = this_process().rsplit("-", 4)
    parts[place] += "0"
    assert is_gone("-".join(parts)) is gone


def test_where_the_system_tells_no_start_the_pid_alone_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: somebody else may have it by now."""
    monkeypatch.setattr(processes, "_state_and_start", lambda pid: ("", ""))
    assert is_gone(this_process()) is None


def test_of_what_is_no_name_of_a_process_nothing_is_known() -> None:
    for text in ("", "elsewhere-1", "a-b-c-d-e", this_process() + "x"):
        assert is_gone(text) is None, text
