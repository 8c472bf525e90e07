"""How a command can end: its exit codes, and the exception of a sweep that cannot continue."""

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
    """The sweep cannot continue. Nothing is lost: unfinished trials continue with ``--resume``.

    reason: one sentence with the cause and the way out; exit_code: one of this module.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason, exit_code)
        self.reason, self.exit_code = reason, exit_code


def run_command(run: Callable[[list[str]], int], argv: Sequence[str] | None) -> int:
    """Call ``run`` with the arguments (None = the process's) and return its exit code.

    Returns 2 for a ``UserError``, with one line per problem; 130 after Ctrl-C, or if the reader of stdout (``| head``)
    has gone; the code of ``SweepStopped``; 4 for one of ``DISK_ERRORS``, such as a full disk.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # The parent process closed it.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # A class may have a name that the terminal cannot encode.
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        tell(error.problems)
        return BAD_INPUT
    except SweepStopped as stopped:
        tell([stopped.reason])
        return stopped.exit_code
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # The terminal was closed.
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
    """Print ``lines``. If the terminal or the reader has gone, nothing more is printed, but the sweep continues."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            silence_output()


def silence_output() -> None:
    """Discard all further output, as its reader has gone; otherwise Python reports an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell(problems: Sequence[str]) -> None:
    """Print up to ten of ``problems`` on stderr, each as one line, and how many more there are."""
    for problem in shown_problems([f"error: {problem}" for problem in problems]):
        with contextlib.suppress(OSError):  # The terminal was closed; the exit code remains.
            print(problem.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def leave_with(main: Callable[[], int]) -> NoReturn:
    """Run a command, and end the process with its exit code as soon as the exit handlers have run.

    Otherwise the interpreter takes seconds to unload torch.
    """
    codes: list[int] = []

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # Its reader has gone.
                stream.flush()
        if codes:
            os._exit(codes[0])

    atexit.register(leave)  # Registered before all others, so it is called last.
    codes.append(main())
    if codes == [CLUSTER_LOST]:  # Ray's threads that wait for the cluster would keep the process alive.
        leave()
    sys.exit(codes[0])
