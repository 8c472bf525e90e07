"""A run folder belongs to one process at a time, wherever it lies."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import filelock._unix
import pytest

from search_spaces.errors import UserError
from sweep.run_folder import RunPaths, claim, staging

HOLD = "import sys, pathlib; from sweep.run_folder import *; held = claim(RunPaths(pathlib.Path(sys.argv[1])))"


def test_a_run_that_is_going_on_cannot_be_claimed_until_its_process_ends(tmp_path: Path) -> None:
    code = f"{HOLD}; print('held', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="is going on in another process: wait for it, or stop it first"):
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
    assert problems == [
        f"--storage {tmp_path}/file/runs is no folder that can be written to (Not a directory): give another"
    ]


@pytest.mark.parametrize(("depth", "fits"), [(1200, True), (1600, False)])
def test_a_storage_may_lie_deep_but_not_deeper_than_the_system_has_names(
    tmp_path: Path, depth: int, fits: bool
) -> None:
    problems: list[str] = []
    with staging(RunPaths(tmp_path / "/".join("d" * depth) / "run"), problems) as beside:
        assert (beside is not None and beside.root.is_dir()) == fits
    assert [*tmp_path.iterdir()] == [], "nothing is left behind"
    assert len(problems) == (not fits)
    for problem in problems:
        assert "is no folder that can be written to (its path is longer than 3000 bytes): give another" in problem
        assert len(problem) < 500
