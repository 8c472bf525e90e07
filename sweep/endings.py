"""How a command can end: its exit codes, and what ends a sweep that cannot go on."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from search_spaces.errors import UserError, shown_problems
from trainables.atomic import DISK_ERRORS, disk_error

DONE = 0
ALL_FAILED = 1
BAD_INPUT = 2
CLUSTER_LOST = 3
DISK_FULL = 4
INTERRUPTED = 130

SIGNAL = "Ctrl-C or a termination signal"

STATUS = {"done": DONE, "running": 10, "interrupted": 11, "dead": 12}
"""Exit codes of ``python -m sweep.status``, by the state of the run."""


class SweepStopped(Exception):
    """The sweep cannot go on, and nothing of it is lost: what had not ended goes on after ``--resume``.

    reason: one sentence that names the thing and the way out; exit_code: one of this module.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason, exit_code)
        self.reason, self.exit_code = reason, exit_code


def run_command(run: Callable[[list[str]], int], argv: Sequence[str] | None) -> int:
    """``run`` with the arguments; its exit code, or 2 with one line a problem, or 130 after Ctrl-C, or that of
    ``SweepStopped``, or 4 where a disk takes no more.

    Also 130 where what reads our output (``| head``) has gone.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # It was closed by whoever started the command.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A class may have a name that the terminal cannot write.
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        tell(error.problems)
        return BAD_INPUT
    except SweepStopped as stopped:
        tell([stopped.reason])
        return stopped.exit_code
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # A terminal that has gone.
            print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.errno is not None and disk_error(error) is error:
            tell([f"{error.filename or 'the output'}: {DISK_ERRORS[error.errno]}"])
            return DISK_FULL
        if not isinstance(error, BrokenPipeError):
            raise
        silence_output()
        return INTERRUPTED


def say(*lines: object) -> None:
    """Print ``lines``. A terminal or a reader that has gone ends no sweep: nothing more is printed then."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            silence_output()


def silence_output() -> None:
    """Send what is still printed nowhere, as its reader has gone; Python would complain of it when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(problems: Sequence[str]) -> None:
    """The first ten problems on stderr, each as one line, and how many more there are."""
    for problem in shown_problems([f"error: {problem}" for problem in problems]):
        with contextlib.suppress(OSError):  # A terminal that has gone; the exit code tells still.
            print(problem.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def leave_with(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end its process with the code that it gives, as soon as all is done that is due at exit.

    The interpreter would go on to take apart what torch has brought with it, for seconds.
    """
    codes: list[int] = []

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # Nobody reads it any more.
                stream.flush()
        if codes:
            os._exit(codes[0])

    atexit.register(leave)  # Before all others, and so it is called after them.
    codes.append(main())
    if codes == [CLUSTER_LOST]:  # Threads of Ray that wait for it would keep this process.
        leave()
    sys.exit(codes[0])
