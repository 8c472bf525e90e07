"""A run folder belongs to one process at a time, wherever it lies."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import filelock._unix
import pytest

from search_spaces.errors import UserError
from sweep.run_folder import RunPaths, claim

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
