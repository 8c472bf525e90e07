"""A file or a line is there as a whole or not at all, also when the disk takes no more."""

from __future__ import annotations

import errno
import os
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from full_disk import no_file_beyond

from trainables.atomic import append_line, disk_error, write_atomically, write_text
from trainables.checkpoints import write_checkpoint

CHANCE = np.random.default_rng(0).random(50_000)
WRITERS: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x" * 50_000),
    "tensors": lambda path: write_checkpoint(path, {"a": torch.from_numpy(CHANCE), "b": [torch.ones(3)] * 3}),
    "arrays": lambda path: write_atomically(path, lambda beside: np.savez_compressed(beside, a=CHANCE)),
    "table": lambda path: write_atomically(path, pd.DataFrame({"a": CHANCE}).to_parquet),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_is_named_and_the_old_file_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "folder" / "file.npz"
    write_text(path, "old")
    with no_file_beyond(20_000), pytest.raises(OSError) as caught:
        WRITERS[kind](path)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old"
    assert [*path.parent.iterdir()] == [path]
    WRITERS[kind](path)
    assert path.stat().st_size > 20_000


def test_a_write_that_is_denied_is_named(tmp_path: Path) -> None:
    """As a file server does whose ticket has expired, often not before the file is closed."""
    path = tmp_path / "file.json"

    def refuse(_: Path) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with pytest.raises(PermissionError) as caught:
        write_atomically(path, refuse)
    assert caught.value.filename == str(path)


def test_a_line_that_cannot_be_appended_leaves_no_part_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "first")
    with no_file_beyond(10), pytest.raises(OSError) as caught:
        append_line(path, "second")
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_a_line_is_appended_without_reading_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * 20_000_000 + b"\ntorn")
    tracemalloc.start()
    append_line(path, "next")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 1_000_000
    assert path.read_bytes().splitlines()[1:] == [b"torn", b"next"]


def test_a_full_disk_is_found_behind_what_came_of_it() -> None:
    def raised() -> Exception:
        try:
            try:
                raise OSError(errno.ENOSPC, "no space")
            except OSError:
                raise RuntimeError("unexpected pos 1728 vs 1622")  # noqa: B904  as torch does
        except RuntimeError as error:
            return error

    found = disk_error(raised())
    assert found is not None
    assert found.errno == errno.ENOSPC
    assert disk_error(OSError(errno.ENOENT, "no such file")) is None
    assert disk_error(ValueError()) is None


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ESHUTDOWN])
def test_a_connection_without_a_file_is_no_disk(number: int) -> None:
    assert disk_error(OSError(number, "of a socket")) is None
    assert disk_error(OSError(number, "of a mount", "/mnt/runs/a")) is not None


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_rights_that_the_umask_leaves_and_they_are_never_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, mode: int
) -> None:
    """Network shares, and Windows' disks under WSL, refuse every chmod."""
    for name in ("chmod", "fchmod", "lchmod"):
        monkeypatch.setattr(os, name, lambda *_: 1 / 0, raising=False)
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == mode
