"""``python -m sweep.run`` as a user runs it: in a process of its own, its lines read as they come."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    code: int
    lines: list[str]
    errors: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def ray_folder() -> Iterator[str]:
    """A folder for Ray's session, short enough for the names of its sockets."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_sweep(
    *arguments: object,
    at: Callable[[list[str], subprocess.Popen[str]], object] | None = None,
    pass_fds: Sequence[int] = (),
    cwd: Path = ROOT,
    program: Sequence[object] = ("-m", "sweep.run"),
    **environment: str,
) -> Done:
    """Run a sweep to its end, with a feature cache of its own, which is gone afterwards.

    ``at`` sees the lines so far after each new line, and the process, which it may kill.

    pass_fds: open files that the process, but none that it joins, has too. program: what Python is to run.
    """
    with ray_folder() as folder, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *map(str, [*program, *arguments])],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            pass_fds=pass_fds,
            env=os.environ
            | {"RAY_TMPDIR": folder, "PYTHONWARNINGS": "default"}
            | {"XDG_CACHE_HOME": f"{folder}/cache", "MPLCONFIGDIR": matplotlib.get_cachedir()}
            | environment,
        )
        lines: list[str] = []
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if at is not None:
                    at(lines, process)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        errors.seek(0)
        return Done(code, lines, errors.read())


def after_ends(count: int, number: signal.Signals) -> Callable[[list[str], subprocess.Popen[str]], object]:
    """Send the signal ``number`` once, when ``count`` trials have ended."""
    sent: list[bool] = []

    def look(lines: list[str], process: subprocess.Popen[str]) -> None:
        ended = [line for line in lines if line.startswith("[")]
        if len(ended) >= count and not sent:
            sent.append(True)
            process.send_signal(number)

    return look
