"""Whether a sweep runs, and how it ended, is told from outside: of every end but a kill it says why itself."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep import heartbeat
from sweep.endings import CLUSTER_LOST, INTERRUPTED, SIGNAL, SweepStopped
from sweep.heartbeat import SILENT_S, Heartbeat, beats_elsewhere, last_beat
from sweep.history import TrialHistory
from sweep.progress import Progress, SweepProgress
from sweep.run_folder import RunPaths
from trainables.atomic import write_json
from trainables.processes import this_process

HOLD = """
import pathlib, sys
from sweep.heartbeat import Heartbeat
from sweep.run_folder import RunPaths
with Heartbeat(RunPaths(pathlib.Path(sys.argv[1])), 2):
    print("beats", flush=True)
    input()
"""
FULL = """
import os, pathlib, resource, sys
from sweep.heartbeat import Heartbeat
from sweep.run_folder import RunPaths
paths = RunPaths(pathlib.Path(sys.argv[1]))
with Heartbeat(paths, 2) as beat:
    os.utime(paths.heartbeat, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    beat._write()
    print(paths.heartbeat.stat().st_mtime)
"""


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    write_json(RunPaths(tmp_path).sweep, {"ended": None})
    return RunPaths(tmp_path)


def test_a_sweep_runs_until_it_has_written_its_end(paths: RunPaths) -> None:
    with Heartbeat(paths, 3) as beat:
        told = last_beat(paths, [])
        assert (told.state, told.phase, told.slots, told.busy, told.pid) == ("running", "search", 3, 0, os.getpid())
        beat.enter("report")
        write_json(paths.sweep, {"ended": "now"})
        beat.exit_code = 1
    told = last_beat(paths, [])
    assert (told.state, told.phase, told.exit_code, told.reason) == ("done", "report", 1, "")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SweepStopped("no node is left", CLUSTER_LOST), ("interrupted", CLUSTER_LOST, "no node is left")),
        (KeyboardInterrupt(), ("interrupted", INTERRUPTED, "Ctrl-C or a termination signal")),
        (UserError("a is gone", "so is b"), ("interrupted", 2, "a is gone; so is b")),
        (RuntimeError("at http://me:secret@host"), ("dead", 1, "RuntimeError: at http://***@host")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_ends_a_sweep_is_written_down(paths: RunPaths, error: BaseException, told: tuple[str, int, str]) -> None:
    with pytest.raises(type(error)), Heartbeat(paths, 1):
        raise error
    beat = last_beat(paths, [])
    assert (beat.state, beat.exit_code, beat.reason) == told


@pytest.mark.parametrize(("code", "reason"), [(0, "the time budget is used up"), (INTERRUPTED, SIGNAL)])
def test_a_sweep_that_stopped_before_its_end_is_interrupted(paths: RunPaths, code: int, reason: str) -> None:
    with Heartbeat(paths, 1) as beat:
        beat.exit_code = code
    told = last_beat(paths, [])
    assert (told.state, told.exit_code, told.reason) == ("interrupted", code, reason)


def test_a_sweep_that_was_killed_is_dead_at_once(paths: RunPaths) -> None:
    command = [sys.executable, "-c", HOLD, str(paths.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"beats\n"
        driver.send_signal(signal.SIGSTOP)
        assert last_beat(paths, []).state == "running"
        driver.kill()
    beat = last_beat(paths, [])
    assert (beat.state, beat.reason, beat.busy) == ("dead", "its process is gone without recording an end", 0)


def test_a_sweep_that_ends_while_one_looks_is_not_dead(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    with Heartbeat(paths, 1):
        running = paths.heartbeat.read_text()
    ended = paths.heartbeat.read_text()
    paths.heartbeat.write_text(running)

    def gone_by_now(name: str) -> bool:
        paths.heartbeat.write_text(ended)
        return True

    monkeypatch.setattr(heartbeat, "is_gone", gone_by_now)
    assert last_beat(paths, []).state == "interrupted"


def of_another_host(paths: RunPaths, age_s: float) -> None:
    write_json(paths.heartbeat, {"process": "elsewhere" + this_process(), "host": "there", "state": "running"})
    os.utime(paths.heartbeat, (time.time() - age_s,) * 2)


@pytest.mark.parametrize("beats", [True, False])
def test_a_run_that_beats_on_another_host_is_not_taken_over(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    of_another_host(paths, 1.0)
    monkeypatch.setattr(heartbeat.time, "sleep", lambda seconds: of_another_host(paths, 0.0) if beats else None)
    assert beats_elsewhere(paths) == ("there" if beats else None)


@pytest.mark.parametrize("beats", [True, False])
def test_nor_is_one_of_this_host_where_its_file_system_has_no_locks(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    monkeypatch.setattr(heartbeat.time, "sleep", lambda seconds: os.utime(paths.heartbeat, (0, 0)) if beats else None)
    command = [sys.executable, "-c", HOLD, str(paths.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"beats\n"
        driver.send_signal(signal.SIGSTOP)
        assert beats_elsewhere(paths) == (socket.gethostname() if beats else None)
        driver.kill()
    assert beats_elsewhere(paths) is None


def test_what_this_process_runs_needs_no_look(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat.time, "sleep", lambda seconds: pytest.fail("it was looked at"))
    assert beats_elsewhere(paths) is None
    with Heartbeat(paths, 1):
        assert beats_elsewhere(paths) is None


@pytest.mark.parametrize("age_s", [0.0, SILENT_S / 2, -SILENT_S / 2])
def test_on_another_host_a_young_heartbeat_is_that_of_a_sweep_that_runs(paths: RunPaths, age_s: float) -> None:
    of_another_host(paths, age_s)
    assert last_beat(paths, []).state == "running"


@pytest.mark.parametrize("age_s", [4000.0, -4000.0], ids=["clock ahead", "clock behind"])
@pytest.mark.parametrize(("beats", "state"), [(True, "running"), (False, "dead")])
def test_a_heartbeat_that_seems_old_is_watched_as_clocks_of_hosts_differ(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, age_s: float, beats: bool, state: str
) -> None:
    of_another_host(paths, age_s)

    def watch(seconds: float) -> None:
        if beats:
            of_another_host(paths, age_s - 1)

    monkeypatch.setattr(heartbeat.time, "sleep", watch)
    assert last_beat(paths, []).state == state


@pytest.mark.parametrize(("ended", "state"), [("now", "done"), (None, "dead")])
@pytest.mark.parametrize("content", [None, "", "[1]", '{"process": 3, "state": "fine"}'])
def test_a_lost_or_damaged_heartbeat_is_said_and_what_sweep_json_knows_holds(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, ended: str | None, state: str, content: str | None
) -> None:
    write_json(paths.sweep, {"ended": ended})
    if content is not None:
        paths.heartbeat.write_text(content)
        os.utime(paths.heartbeat, (0, 0))
    monkeypatch.setattr(heartbeat, "WATCH_S", 0.0)
    problems: list[str] = []
    assert last_beat(paths, problems).state == state
    assert problems
    assert all(problem.startswith("heartbeat.json") for problem in problems)


def test_a_disk_that_takes_nothing_ends_no_sweep_and_it_still_shows_that_it_lives(paths: RunPaths) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(paths.root)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) > 0
    assert json.loads(paths.heartbeat.read_text())["state"] == "running"


def test_it_tells_how_the_trials_get_on_as_the_terminal_does(paths: RunPaths) -> None:
    history, now = TrialHistory(paths, "val_f1_macro", "max"), [0.0]
    progress = Progress(SweepProgress(history, 4, 6), stream=io.StringIO(), clock=lambda: now[0])
    trial = history.begin(0, TrialParams(backbone="resnet18", unfreeze_depth=2, lr=0.01))
    progress.trial_started(trial)
    for trial.scores[len(trial.scores) + 1] in (0.1, 0.2, 0.3):
        progress.epoch(trial)
    now[0] = 60.0
    beat = Heartbeat(paths, 2)
    beat.progress = progress
    with beat:
        told = last_beat(paths, [])
        progress.slots = lambda: 3  # A machine has joined.
        beat._write()
        assert last_beat(paths, []).slots == 3
        beat.enter("finalists")
    assert (told.slots, told.busy, told.epochs_per_minute, told.seconds_left) == (2, 1, 3.0, (3 + 3 * 6) / 3 * 60)
    after = last_beat(paths, [])
    assert (after.phase, after.busy, after.epochs_per_minute, after.seconds_left) == ("finalists", 0, None, None)
