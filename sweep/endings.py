"""How a command can end: its exit codes, and what ends a sweep that cannot go on."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

DONE = 0
ALL_FAILED = 1
BAD_INPUT = 2
CLUSTER_LOST = 3
DISK_FULL = 4
INTERRUPTED = 130

STATUS = {"done": DONE, "running": 10, "interrupted": 11, "dead": 12}
"""Exit codes of ``python -m sweep.status``, by the state of the run."""


class SweepStopped(Exception):
    """The sweep cannot go on, and nothing of it is lost: what had not ended goes on after ``--resume``.

    reason: one sentence that names the thing and the way out; exit_code: one of this module.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason, exit_code)
        self.reason, self.exit_code = reason, exit_code


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
