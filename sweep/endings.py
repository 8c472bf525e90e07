"""How a command can end: its exit codes, and what ends a sweep that cannot go on."""

from __future__ import annotations

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
