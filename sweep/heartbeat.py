"""The heartbeat of a run: which process runs it, its progress and how it ended, for observers outside.

While a sweep runs, a thread rewrites heartbeat.json every ``BEAT_S`` seconds. On the same host an observer can check
whether the process lives, see ``trainables.processes``. On another host, the file must be younger than ``SILENT_S`` by
the observer's clock, or change within ``WATCH_S``: its time is the file server's, and clocks differ. So a dead run
seems to run for a minute more, plus the difference of the clocks; if they differ by more than a minute, a sweep that
halts for ``WATCH_S`` seems dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from search_spaces.errors import UserError
from sweep.endings import BAD_INPUT, DONE, INTERRUPTED, SIGNAL, SweepStopped
from sweep.log import without_secrets
from sweep.progress import Progress, clean
from sweep.record_reader import Number, Record, Whole, read_file, read_json
from sweep.run_folder import RunPaths
from trainables.atomic import now, write_json
from trainables.processes import is_gone, this_process

BEAT_S = 2.0
SILENT_S = 60.0
WATCH_S = 5.0


class Beat(Record):
    """heartbeat.json. process: see ``this_process``; phase: "search", "finalists" or "report".

    state: "running", or how it ended: "done", "interrupted" (cleanly, it can be resumed), "dead" (by an exception).
    slots: how many trials can run at once; busy: how many run; epochs_per_minute, seconds_left: of this phase, None if
    unknown. written: ISO time by the writer's clock. exit_code, reason: once it has ended.
    """

    process: str = ""
    host: str = ""
    pid: Whole | None = None
    state: Literal["running", "done", "interrupted", "dead"] = "running"
    phase: str = ""
    slots: Whole | None = None
    busy: Whole = 0
    epochs_per_minute: Number | None = None
    seconds_left: Number | None = None
    written: str | None = None
    exit_code: Whole | None = None
    reason: str = ""


class Heartbeat:
    """Writes the heartbeat within ``with``, and at its end how the sweep ended. A failed write does not end a sweep.

    slots: at the start. The sweep sets ``phase`` and ``progress`` as they change, and its ``exit_code``.
    """

    def __init__(self, paths: RunPaths, slots: int) -> None:
        self.phase = "search"
        self.slots = slots
        self.progress: Progress | None = None
        self.exit_code = DONE
        self._paths = paths
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()
        self.progress = None
        state, exit_code, reason = self._ending(error)
        self._write(state=state, exit_code=exit_code, reason=clean(without_secrets(reason)))

    def enter(self, phase: str) -> None:
        """From now on the sweep is in ``phase``."""
        self.phase, self.progress = phase, None

    def _beat(self) -> None:
        while not self._left.wait(BEAT_S):
            self._write()

    def _write(self, **ending: object) -> None:
        progress = self.progress
        pace = None if progress is None else progress.pace()
        if pace is not None and pace.slots is not None:
            self.slots = pace.slots
        facts = {
            "process": this_process(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": "running",
            "phase": self.phase,
            **(dataclasses.asdict(pace) if pace is not None else {}),
            "slots": self.slots,
            "written": now(),
        }
        try:
            write_json(self._paths.heartbeat, facts | ending)
        except OSError:  # Such as a full disk: a new time on the old content still shows that the process lives.
            with contextlib.suppress(OSError):
                os.utime(self._paths.heartbeat)

    def _ending(self, error: BaseException | None) -> tuple[str, int, str]:
        match error:
            case SweepStopped():
                return "interrupted", error.exit_code, error.reason
            case UserError():
                return "interrupted", BAD_INPUT, "; ".join(error.problems)
            case KeyboardInterrupt():
                return "interrupted", INTERRUPTED, SIGNAL
            case None if read_json(self._paths.sweep, [], "").get("ended"):
                return "done", self.exit_code, ""
            case None:
                reason = SIGNAL if self.exit_code == INTERRUPTED else "the time budget is used up"
                return "interrupted", self.exit_code, reason
        return "dead", 1, f"{type(error).__name__}: {error}"


def last_beat(paths: RunPaths, problems: list[str]) -> Beat:
    """The heartbeat of a run, with ``state`` "dead" if the process that should write it is gone.

    If no heartbeat can be read: "done" if sweep.json has an end. Writes nothing; may take ``WATCH_S``.
    """
    found: list[str] = []
    beat = read_file(Beat, paths.heartbeat, found)
    if not beat.process and read_json(paths.sweep, [], "").get("ended"):
        beat = beat.model_copy(update={"state": "done"})
    if beat.state == "running":
        gone = is_gone(beat.process)
        if _is_silent(paths.heartbeat) if gone is None else gone:
            if read_file(Beat, paths.heartbeat, []) != beat:  # It has ended, or was resumed, since it was read.
                return last_beat(paths, problems)
            nothing_runs = {"busy": 0, "epochs_per_minute": None, "seconds_left": None}
            ending = {"state": "dead", "reason": "its process is gone without recording an end"}
            beat = beat.model_copy(update=nothing_runs | ending)
    problems += found
    return beat


def beats_elsewhere(paths: RunPaths) -> str | None:
    """The host of another process that runs this run, for file systems without locks; None if there is none.

    Takes ``WATCH_S`` if the heartbeat is that of a running process, unless it is known to be dead.
    """
    beat = read_file(Beat, paths.heartbeat, [])
    if beat.state != "running" or beat.process in ("", this_process()) or is_gone(beat.process):
        return None
    time_before = _time_of(paths.heartbeat)
    time.sleep(WATCH_S)
    return None if _time_of(paths.heartbeat) == time_before else beat.host


def _is_silent(path: Path) -> bool:
    """Whether the file is missing, or is old and does not change within ``WATCH_S``."""
    time_before = _time_of(path)
    if time_before is None or abs(time.time() - time_before) < SILENT_S:
        return time_before is None
    time.sleep(WATCH_S)
    return _time_of(path) == time_before


def _time_of(path: Path) -> float | None:
    """When it was last written. It is opened, as a network file system may answer ``stat`` alone from its cache."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
