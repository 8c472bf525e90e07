"""A sweep whose Ray is gone ends with the reason and the way to go on, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from whole_sweep import epochs_of, run_sweep

pytestmark = pytest.mark.cluster


def child_of(parent: int, name: str) -> int:
    """The pid of the child with this name."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It has ended.
            if found := re.match(rf"(\d+) \({name}\) \S {parent} ", stat.read_text()):
                return int(found[1])
    raise LookupError(f"{name} is no child of {parent}")


@pytest.mark.parametrize(
    ("killed", "reason", "signalled"),
    [
        ("raylet", f"Ray has ended on {socket.gethostname()}, where the sweep runs", False),
        ("gcs_server", "the head of the Ray cluster has not answered for 4 s", False),
        ("gcs_server", "", True),  # As where a batch system ends all processes of a job.
    ],
)
def test_the_loss_is_told_and_the_sweep_resumed(
    killed: str, reason: str, signalled: bool, small_data: Path, tmp_path: Path
) -> None:
    data = ("--data", small_data, "--weights", "random", "--backbones", "squeezenet1_1", "--image-size", 32)
    much = ("--trials", 2, "--epochs", 20, "--scheduler", "none", "--finalists", 0, "--concurrency", 1)
    second, let_go = tmp_path / "run" / "trials" / "t0001", tmp_path / "go on"

    def kill(lines: list[str], process: subprocess.Popen[str]) -> None:
        if lines[-1].startswith("[1/2]"):
            while not (second / "result.jsonl").exists():
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(child_of(process.pid, killed), signal.SIGKILL)
            if signalled:
                process.send_signal(signal.SIGTERM)
                let_go.touch()

    place = ("--storage", tmp_path, "--name", "run")
    waits = {"HELD": "trials/t0001", "LET_GO": str(let_go)}
    soon = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "2"}  # Ray takes 15 s else
    lost = run_sweep(*data, *much, *place, at=kill, program="impatient_sweep.py", **waits, **soon)
    go_on = f"continue with: python -m sweep.run --resume run --storage {tmp_path}"
    if signalled:
        assert (lost.code, lost.errors) == (130, "")
        assert lost.lines[-1] == f"interrupted: nothing is lost, {go_on}"
    else:
        assert (lost.code, lost.errors) == (3, f"error: {reason}; {go_on}\n")
    assert "1 completed" in lost.text
    assert (tmp_path / "run" / "report" / "index.html").exists()

    if killed == "gcs_server":  # What is left in the folder is the same.
        return
    done = run_sweep("--resume", "run", "--storage", tmp_path)
    assert done.code == 0, done.errors
    table = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    assert list(table.sort_values("number").number) == [0, 1]
    assert not set(table.status) & {"failed", "running"}
    epochs = epochs_of(second)
    assert epochs == list(range(1, len(epochs) + 1))
