"""A disk that takes no more ends a sweep: which disk that is, and room for the last records."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from sweep.endings import DISK_FULL, SweepStopped
from sweep.run_folder import RunPaths
from trainables.atomic import DISK_ERRORS, denied_below, disk_error, free_bytes, write_atomically

RESERVE_BYTES = 4 << 20
FULL_BYTES = 1 << 20
"""With less room a disk is full: there is a block here and there, and what could not be finished is removed."""


@contextlib.contextmanager
def reserve(paths: RunPaths) -> Iterator[None]:
    """Hold a few MB of the storage, and free them at the end: what is written then has room also on a full disk."""
    # Bytes of chance: a file system that compresses could promise others more than it has.
    write_atomically(paths.reserve, lambda beside: beside.write_bytes(os.urandom(RESERVE_BYTES)))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            paths.reserve.unlink(missing_ok=True)


def stopped_by(error: OSError, storage: Path) -> SweepStopped:
    """What ends a sweep when one of ``DISK_ERRORS`` came up, or the storage allows no more: which disk, what it has,
    and the way out. Others are raised again."""
    if error.errno is None or error not in (disk_error(error), denied_below(storage, error)):
        raise error
    places = {f"--storage {storage}": storage, f"Ray's temporary folder {ray_folder()}": ray_folder()}
    if error.filename is None:  # Ray names no file of its own.
        where = [name for name, folder in places.items() if is_full(folder)] or list(places)
    else:
        file = Path(error.filename).absolute()
        where = [name for name, folder in places.items() if file.is_relative_to(folder.absolute())]
        where = where or [str(file.parent)]
    at = "" if error.filename is None else f" (at {error.filename})"
    way_out = "free space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "have this fixed"
    what = DISK_ERRORS.get(error.errno, "permission is denied (a ticket of the file server may have expired)")
    return SweepStopped(f"{' or '.join(where)}: {what}{at}: {way_out}", DISK_FULL)


def ray_folder() -> Path:
    """Where Ray, unless it was started otherwise, keeps its sockets, its logs and what has no place in memory.

    On macOS it ignores TMPDIR, which every terminal there has, and which is too long for sockets.
    """
    temporary = os.environ.get("TMPDIR") if sys.platform == "linux" else None
    return Path(os.environ.get("RAY_TMPDIR") or temporary or "/tmp") / "ray"


def is_full(folder: Path) -> bool:
    """Whether the disk of ``folder`` has next to no room."""
    return free_bytes(folder) < FULL_BYTES
