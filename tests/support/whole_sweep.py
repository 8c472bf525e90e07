"""``python -m sweep.run`` as a user runs it: in a process of its own, its lines read as they come."""

from __future__ import annotations

import json
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
    program: str | None = None,
    **environment: str,
) -> Done:
    """Run a sweep to its end, with a feature cache of its own, which is gone afterwards.

    ``at`` sees the lines so far after each new line, and the process, which it may kill.

    pass_fds: open files that the process, but none that it joins, has too. program: the script of this folder that is
    run instead of the command.
    """
    command = ["-m", "sweep.run"] if program is None else [Path(__file__).with_name(program)]
    of_ours = {} if program is None else {"PYTHONPATH": str(ROOT)}
    with ray_folder() as folder, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *map(str, [*command, *arguments])],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            pass_fds=pass_fds,
            env=os.environ
            | {"RAY_TMPDIR": folder, "PYTHONWARNINGS": "default"}
            | {"XDG_CACHE_HOME": f"{folder}/cache", "MPLCONFIGDIR": matplotlib.get_cachedir()}
            | of_ours
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


def rates_of(storage: Path, data: Path, rates: tuple[float, ...]) -> list[object]:
    """The options of a sweep of one small trial for each learning rate; so that some fail, as in failing_sweep.py."""
    space = storage / "mine.py"
    space.write_text(
        "def space(trial, context):\n"
        f"    trial.suggest_categorical('lr', {rates})\n"
        "    return {'backbone': 'squeezenet1_1', 'unfreeze_depth': 4, 'batch_size': 8}\n"
    )
    where = ["--data", data, "--storage", storage, "--name", "run", "--space", space, "--weights", "random"]
    what = ["--backbones", "squeezenet1_1", "--image-size", 32]
    return [*where, *what, "--sampler", "grid", "--trials", len(rates)]


def epochs_of(trial: Path) -> list[int]:
    """The epochs that are on record in the folder of a trial, in the order of their lines."""
    return [json.loads(line)["epoch"] for line in (trial / "result.jsonl").read_text().splitlines()]


def kill_at(text: str) -> Callable[[list[str], subprocess.Popen[str]], object]:
    """Kill the sweep once a line holds ``text``."""

    def look(lines: list[str], process: subprocess.Popen[str]) -> None:
        if text in lines[-1]:
            process.send_signal(signal.SIGKILL)

    return look
