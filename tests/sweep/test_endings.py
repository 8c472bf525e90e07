"""How a command ends its process."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest

from sweep.endings import DISK_FULL, INTERRUPTED, run_command, say, tell

COMMAND = """
import atexit, sys
from sweep.endings import leave_with

class Torch:
    def __del__(self):
        print("taken apart")

imported = Torch()

def main():
    atexit.register(print, "done at exit")
    print("answer")
    return {code}

leave_with(main)
"""


def test_what_is_due_at_exit_is_done_and_nothing_is_taken_apart() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND.format(code=7)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "answer\ndone at exit\n", "")


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE])
def test_a_terminal_that_has_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, os.strerror(number))

    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Gone())
    say("one line", "another")
    tell(["a problem"])


def test_an_error_is_shown_as_it_would_be() -> None:
    failing = [sys.executable, "-c", COMMAND.format(code="1 / 0")]
    done = subprocess.run(failing, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_ctrl_c_on_a_terminal_that_has_gone_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "gone")

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stderr", Gone())
    assert run_command(interrupted, []) == INTERRUPTED


def test_a_file_server_that_shuts_this_machine_out_is_no_reader_that_has_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Python has one class for both."""

    def evicted(_: object) -> int:
        raise BrokenPipeError(errno.ESHUTDOWN, "shut down", "/lustre/runs/a/result.jsonl")

    assert run_command(evicted, []) == DISK_FULL
    assert "/lustre/runs/a/result.jsonl: the file server has shut this machine out" in capsys.readouterr().err


@pytest.mark.parametrize(("closed", "expected"), [("", "zapalenie p\\u0142uc\n"), (">&- 2>&-", "")])
def test_output_that_cannot_hold_a_name_or_is_closed_ends_nothing(closed: str, expected: str) -> None:
    count = "ImageCount()('images', 1, 1)"
    run = f"from sweep.cli import ImageCount; print('zapalenie p\u0142uc'); {count}; return 0"
    code = f"from sweep.endings import *\ndef main(_):\n {run}\nleave_with(lambda: run_command(main, []))"
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
