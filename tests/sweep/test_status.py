"""``python -m sweep.status``: how a run stands, whatever state it and its files are in, and without touching it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import run_files
from toy_sweep import CONTEXT, ToySweep

from search_spaces.space import load_space
from sweep import heartbeat
from sweep.heartbeat import Heartbeat
from sweep.history import TrialState
from sweep.records import read_run
from sweep.run_folder import RunPaths, claim
from sweep.status import main, read_status
from trainables.atomic import write_json

ROOT = Path(__file__).resolve().parents[2]
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs the command: its exit code, and what it said."""

    def say(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return say


@pytest.fixture
def unfinished(tmp_path: Path) -> RunPaths:
    """Two trials completed, one pruned, one failed, two unfinished."""
    statuses = ("completed", "failed", "pruned", "running", "completed", "running")
    return RunPaths(run_files.write(tmp_path / "run", statuses=statuses, sweep={"trials": 10}))


def test_the_command_that_goes_on_with_a_run_can_be_pasted(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = run_files.write(tmp_path / "my runs" / "night 1", statuses=("running",))
    expected = ["python", "-m", "sweep.run", "--resume", "night 1", "--storage", str(tmp_path / "my runs")]
    for folder, place in ((tmp_path, root), (root, ".")):
        monkeypatch.chdir(folder)
        (line,) = (line for line in said(place)[1].splitlines() if "--resume" in line)
        assert shlex.split(line.partition("continue with: ")[2]) == expected


def test_a_run_that_is_done_names_its_best_trial_and_its_winner(tmp_path: Path, said: Said) -> None:
    root = run_files.write(tmp_path / "run", finals={})
    code, told, errors = said(root)
    assert (code, errors) == (0, "")
    run = read_run(root)
    best = run.trials[run.trials.status != "failed"].sort_values("score").iloc[-1]
    assert f"{root}: done\n" in told
    assert f"best: {best.trial_id} val_f1_macro {best.score:.4f} at epoch {best.best_epoch}, " in told
    assert run.finals is not None
    assert run.finals.winning is not None
    assert f"winner: {run.finals.winner} val_f1_macro {run.finals.winning.mean:.4f}" in told
    assert "--resume" not in told


def test_a_winner_is_not_told_by_repeats_that_it_was_not_chosen_by(tmp_path: Path, said: Said) -> None:
    paths = RunPaths(run_files.write(tmp_path / "run", finals={}))
    chosen = json.loads(paths.chosen.read_text())
    later = {"chosen": "2026-01-06T11:00:00+00:00", "repeats": ["fold_1_of_2", "fold_2_of_2"], "folds": 2}
    write_json(paths.chosen, chosen | later)
    code, told, _ = said(paths.root)
    assert code == 0
    assert "repeats of the finalists: 0 of 6 ended" in told
    assert "winner:" not in told


def test_a_run_that_goes_on_tells_how(unfinished: RunPaths, said: Said) -> None:
    with Heartbeat(unfinished, 2):
        code, told, errors = said(unfinished.root)
    assert (code, errors) == (10, "")
    assert f": running, phase search, on {os.uname().nodename}, process {os.getpid()}\n" in told
    assert "trials: 4 of 10 ended (2 completed, 1 pruned, 1 failed), 2 unfinished\n" in told
    assert "0 of 2 slots busy\n" in told
    assert "failed: t00001: RuntimeError: out of memory\n" in told
    assert "--resume" not in told


def test_an_interrupted_run_tells_why_and_how_to_go_on(unfinished: RunPaths, said: Said) -> None:
    with Heartbeat(unfinished, 2):
        pass
    code, told, _ = said(unfinished.root)
    assert code == 11
    assert "why: the time budget is used up\n" in told
    assert f"continue with: python -m sweep.run --resume run --storage {unfinished.root.parent}\n" in told


def test_a_dead_run_is_told_by_its_process_and_shows_no_pace(unfinished: RunPaths, said: Said) -> None:
    naming = "from trainables.processes import this_process; print(this_process())"
    ended = subprocess.run([sys.executable, "-c", naming], cwd=ROOT, capture_output=True, text=True, check=True)
    write_json(unfinished.heartbeat, {"process": ended.stdout.strip(), "phase": "finalists", "busy": 2, "slots": 2})
    code, told, _ = said(unfinished.root)
    assert code == 12
    assert ": dead, phase finalists\nwhy: its process is gone without recording an end\n" in told
    assert "slots" not in told
    assert "continue with: python -m sweep.run --resume run" in told


def test_a_program_gets_the_same_as_json(unfinished: RunPaths, said: Said) -> None:
    with Heartbeat(unfinished, 2):
        code, told, _ = said(unfinished.root, "--json")
    facts = json.loads(told)
    assert code == 10
    assert (facts["state"], facts["phase"], facts["pid"]) == ("running", "search", os.getpid())
    assert facts["trials"] == {"completed": 2, "pruned": 1, "failed": 1, "running": 2}
    assert (facts["trials_wanted"], facts["slots"], facts["busy"]) == (10, 2, 0)
    assert (facts["repeats"], facts["winner"], facts["seconds_left"], facts["resume"]) == (None, None, None, None)
    assert facts["last_errors"] == ["t00001: RuntimeError: out of memory"]
    assert facts["score"] == read_run(unfinished.root).trials.score.max()
    assert facts["problems"] == []


def test_repeats_of_finalists_are_counted(tmp_path: Path) -> None:
    root = run_files.write(tmp_path / "run", finals={})
    status, finals = read_status(root), read_run(root).finals
    assert finals is not None
    assert status.repeats is not None
    assert sum(status.repeats.values()) == sum(len(one.repeats) for one in finals.finalists)
    assert status.repeats_wanted == len(finals.finalists) * finals.asked


@pytest.mark.parametrize("place", ["", "nothing"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, said: Said, place: str) -> None:
    code, told, errors = said(tmp_path / place)
    assert (code, told) == (2, "")
    assert "is not a run folder: it has no sweep.json; give <storage>/<name> of a sweep" in errors


def test_a_run_of_another_format_is_refused(unfinished: RunPaths, said: Said) -> None:
    write_json(unfinished.sweep, {"format": 99})
    code, _, errors = said(unfinished.root)
    assert code == 2
    assert "format 99" in errors


@pytest.mark.parametrize(
    "file", ["sweep.json", "heartbeat.json", "trials/t00000/params.json", "trials/t00000/status.json"]
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b'{"params": 1'])
def test_damaged_files_are_named_and_the_rest_is_told(
    unfinished: RunPaths, said: Said, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes
) -> None:
    monkeypatch.setattr(heartbeat, "WATCH_S", 0.2)
    with Heartbeat(unfinished, 2):
        pass
    (unfinished.root / file).write_bytes(content)
    os.utime(unfinished.root / file, (0, 0))
    code, told, errors = said(unfinished.root)
    assert code in (11, 12)
    assert errors == ""
    assert f"cannot be read: {file.removeprefix('trials/')} " in told
    assert "trials: " in told


def test_what_a_trial_says_cannot_move_the_cursor(unfinished: RunPaths, said: Said) -> None:
    write_json(unfinished.trial("t00001").status, {"status": "failed", "reason": "a\x1b[2J\nb\r"})
    with Heartbeat(unfinished, 2):
        assert "failed: t00001: a b\n" in said(unfinished.root)[1]


def test_looking_at_a_run_leaves_it_as_it_is_and_waits_for_no_lock(unfinished: RunPaths, said: Said) -> None:
    with Heartbeat(unfinished, 2):
        pass
    held = claim(unfinished)
    before = state_of(unfinished.root)
    assert said(unfinished.root)[0] == 11
    assert state_of(unfinished.root) == before
    held.release()


def state_of(root: Path) -> dict[Path, tuple[int, int, int]]:
    return {file: (file.stat().st_mtime_ns, file.stat().st_ino, file.stat().st_size) for file in root.rglob("*")}


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    run_files.write_sweep(paths, {"metric": "val_f1_macro", "mode": "max", "trials": 30})
    space = load_space("partial_unfreeze", CONTEXT)
    toys = ToySweep(tmp_path, space, trials=30, concurrency=3, sampler="random")
    looked = threading.Event()

    def wait_for_a_look(_: TrialState) -> None:
        if (len(toys.history.entries) - toys.history.count("running")) % 10 == 0:
            looked.clear()
            looked.wait()

    toys.history.on_end.append(wait_for_a_look)
    sweep = threading.Thread(target=toys.run, daemon=True)
    ended = [0]
    with Heartbeat(paths, 3):
        sweep.start()
        while sweep.is_alive():
            status = read_status(tmp_path)
            assert status.state == "running"
            ended.append(sum(status.trials.values()) - status.trials["running"])
            looked.set()
    sweep.join()
    assert ended == sorted(ended)
    assert read_status(tmp_path).trials["running"] == 0
    assert len({*ended}) > 2


def test_the_command_loads_neither_torch_nor_ray(unfinished: RunPaths) -> None:
    code = "import sys; from sweep.status import main; main(sys.argv[1:]); sys.exit({'torch', 'ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code, unfinished.root], cwd=ROOT, capture_output=True, check=False)
    assert done.stderr == b"set()\n"
