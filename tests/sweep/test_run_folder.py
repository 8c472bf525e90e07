"""A run folder belongs to one process at a time, wherever it lies."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import filelock._unix
import pytest

from search_spaces.errors import UserError
from sweep.run_folder import LEFTOVER_S, LONGEST_PATH, OWNER, RunPaths, claim, folder_beside, reopen_run, staging
from trainables.atomic import TEMPORARY, write_atomically, write_json
from trainables.processes import this_process

HOLD = "import sys, pathlib; from sweep.run_folder import *; held = claim(RunPaths(pathlib.Path(sys.argv[1])))"
PREPARE = """
import pathlib, sys
from sweep.run_folder import RunPaths, staging
with staging(RunPaths(pathlib.Path(sys.argv[1])), []) as beside:
    beside.images.write_text("half")
    print(beside.root, flush=True)
    input()
"""


def test_a_run_that_is_going_on_cannot_be_claimed_until_its_process_ends(tmp_path: Path) -> None:
    code = f"{HOLD}; print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="is running in another process: wait for it, or stop it first"):
            claim(RunPaths(tmp_path))
        other.kill()
    claim(RunPaths(tmp_path)).release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(filelock._unix.fcntl, "flock", refuse)
    for _ in range(2):  # what a killed driver left behind is in nobody's way
        claim(RunPaths(tmp_path)).release()


def test_a_dry_run_makes_no_folder_and_still_says_where_none_can_be(tmp_path: Path) -> None:
    problems: list[str] = []
    with staging(RunPaths(tmp_path / "new" / "er" / "run"), problems, dry=True) as beside:
        assert (beside, [*tmp_path.iterdir()]) == (None, [])
    assert problems == []
    (tmp_path / "file").touch()
    with staging(RunPaths(tmp_path / "file" / "runs" / "run"), problems, dry=True):
        pass
    assert problems == [f"--storage {tmp_path}/file/runs is not a writable folder (Not a directory): give another"]


@pytest.mark.parametrize(("depth", "fits"), [(LONGEST_PATH // 3, True), (LONGEST_PATH // 2, False)])
def test_a_storage_may_lie_deep_but_not_deeper_than_the_system_has_names(
    tmp_path: Path, depth: int, fits: bool
) -> None:
    problems: list[str] = []
    with staging(RunPaths(tmp_path / "/".join("d" * depth) / "run"), problems) as beside:
        assert (beside is not None and beside.root.is_dir()) == fits
    assert [*tmp_path.iterdir()] == [], "nothing is left behind"
    assert len(problems) == (not fits)
    for problem in problems:
        assert f"is not a writable folder (its path is longer than {LONGEST_PATH} bytes): give another" in problem
        assert len(problem) < 500


def test_what_a_kill_during_preparation_left_is_removed_by_the_next_sweep_there(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        with folder_beside(tmp_path / "another"):
            assert left.is_dir(), "its process is at work"
        other.kill()
    assert left.is_dir(), "a killed process tidies nothing up: the test shows less than it says"
    with folder_beside(tmp_path / "another") as mine:
        assert [*tmp_path.iterdir()] == [mine.parent]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("owner", ["elsewhere" + this_process(), ""], ids=["another host", "nobody"])
def test_the_folder_of_another_host_is_removed_when_it_is_days_old(tmp_path: Path, owner: str) -> None:
    with folder_beside(tmp_path / "run") as theirs:
        named = theirs.parent / OWNER
        named.write_text(owner)
        for age_s, stays in ((LEFTOVER_S - 600, True), (LEFTOVER_S + 600, False)):
            os.utime(named, (time.time() - age_s,) * 2)
            with folder_beside(tmp_path / "run"):
                assert theirs.is_dir() == stays


def test_what_else_is_hidden_in_a_storage_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / ".run-abcd1234" / "file"
    other.parent.mkdir()
    other.touch()
    os.utime(other.parent, (0, 0))
    with folder_beside(tmp_path / "run"):
        assert other.exists()


def test_trials_that_cannot_be_listed_are_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(tmp_path)
    assert paths.trial_folders() == []
    for name in ("t0001", "t0000"):
        paths.trial(name).root.mkdir(parents=True)
    (paths.trials / "file").touch()
    assert paths.trial_folders() == [paths.trials / "t0000", paths.trials / "t0001"]

    def fail(_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(paths.trials))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        paths.trial_folders()


def test_a_resumed_run_loses_its_half_written_files_and_nothing_else(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path / "run")
    trial, repeat = paths.trial("t0001"), paths.trial("t0001/seed_7")
    targets = [trial.state, trial.weights, repeat.predictions, paths.epochs_table, paths.models / "best.onnx.data"]
    others = [trial.state, paths.lock, paths.root / ".notes", paths.root / "my-abcd1234.txt"]
    others += [paths.tune / ".x-abcd1234.json", paths.external / "site" / ".rows-abcd1234.csv"]
    half: list[Path] = []
    for target in targets:
        write_atomically(target, half.append)
        target.unlink()
    for file in (*half, *others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    write_json(paths.sweep, {"ended": "now"})
    write_json(paths.dataset, {})
    with staging(paths, []) as beside:
        assert beside is not None
        write_json(beside.dataset, {})
        reopen_run(paths, beside, {}, ())
    assert [file for file in half if file.exists()] == []
    assert {file for file in paths.root.rglob("*") if file.is_file()} == {*others, paths.sweep, paths.dataset}
    assert all(TEMPORARY.fullmatch(file.name) for file in half)
