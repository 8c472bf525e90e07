"""A disk that takes no more is named, and there is room for the last records."""

from __future__ import annotations

import contextlib
import errno
import sys
from pathlib import Path

import pytest
from full_disk import fill, no_file_beyond, tiny_disk
from ray._common.utils import get_default_ray_temp_dir

from search_spaces.errors import UserError
from sweep.disk import RESERVE_BYTES, is_full, ray_folder, reserve, stopped_by
from sweep.endings import DISK_FULL, SweepStopped
from sweep.run_folder import RunPaths, staging


def test_the_reserve_takes_room_and_gives_it_back(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    with contextlib.suppress(SweepStopped), reserve(paths):
        assert paths.reserve.stat().st_blocks * 512 >= RESERVE_BYTES
        raise SweepStopped("", DISK_FULL)
    assert not paths.reserve.exists()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full (at {}): free space"),
        (errno.EDQUOT, "the disk quota is used up (at {}): free space"),
        (errno.EROFS, "the file system has become read-only (at {}): have this fixed"),
        (errno.EIO, "the disk fails (input/output error) (at {}): have this fixed"),
        (
            errno.ESHUTDOWN,
            "the file server has shut this machine out (as Lustre evicts a client) (at {}): have this fixed",
        ),
        (errno.EFBIG, "files may not grow that large (ulimit -f, or the file system) (at {}): have this fixed"),
    ],
)
def test_what_a_disk_has_is_told_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "rays"))
    storage, session = tmp_path / "runs", tmp_path / "rays" / "ray"
    for name, file in (("--storage", storage / "run" / "a.pt"), ("Ray's temporary folder", session / "b.sock")):
        stopped = stopped_by(OSError(number, "", str(file)), storage)
        place = storage if name == "--storage" else session
        assert stopped.reason == f"{name} {place}: {told.format(file)}"
        assert stopped.exit_code == 4


def test_of_an_error_without_a_file_the_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny_disk(tmp_path / "rays", 2) as disk:
        monkeypatch.setenv("RAY_TMPDIR", str(disk))
        fill(disk)
        assert is_full(disk / "ray")
        stopped = stopped_by(OSError(errno.ENOSPC, ""), tmp_path)
        assert stopped.reason == f"Ray's temporary folder {disk}/ray: the disk is full: free space"


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("names", [(), ("TMPDIR",), ("TMPDIR", "RAY_TMPDIR"), ("TEMP",)])
def test_rays_temporary_folder_is_where_ray_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, names: tuple[str, ...]
) -> None:
    """On macOS TMPDIR is a long path below /var/folders: every sweep would be refused if Ray put its sockets there."""
    for name in ("RAY_TMPDIR", "TMPDIR", "TEMP"):
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(sys, "platform", platform)
    assert str(ray_folder()) == get_default_ray_temp_dir()


def test_other_errors_are_not_taken_for_a_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stopped_by(FileNotFoundError(errno.ENOENT, "gone", "file"), tmp_path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_storage_that_denies_permission_is_told_and_no_other_file(tmp_path: Path, number: int) -> None:
    storage = tmp_path / "runs"
    file = storage / "run" / "trials" / "t0000" / "status.json"
    stopped = stopped_by(OSError(number, "", str(file)), storage)
    assert stopped.reason.startswith(f"--storage {storage}: permission is denied (")
    assert stopped.reason.endswith(f" (at {file}): have this fixed")
    assert stopped.exit_code == 4
    of_data = OSError(number, "", str(tmp_path / "data" / "a.png"))
    for other in (of_data, PermissionError("the test split is closed")):
        with pytest.raises(PermissionError):
            stopped_by(other, storage)


def test_a_folder_for_a_new_run_on_a_full_disk_is_one_problem(tmp_path: Path) -> None:
    def make() -> None:
        with staging(RunPaths(tmp_path / "run"), []) as beside, no_file_beyond(0):
            assert beside is not None
            beside.splits.write_text("a,b\n")

    with pytest.raises(UserError, match=f"--storage {tmp_path}: File too large: free space, or give another"):
        make()
