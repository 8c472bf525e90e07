"""A full or failing disk ends a sweep: which disk it is, and space reserved for the last records."""

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
"""A disk with less free space counts as full: a few blocks stay free, and unfinished files are removed."""


@contextlib.contextmanager
def reserve(paths: RunPaths) -> Iterator[None]:
    """Occupy a few MB of the storage and free them at the end, so that the last records fit on a full disk."""
    # Random bytes, since a file system that compresses would not reserve the space.
    write_atomically(paths.reserve, lambda beside: beside.write_bytes(os.urandom(RESERVE_BYTES)))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            paths.reserve.unlink(missing_ok=True)


def stopped_by(error: OSError, storage: Path) -> SweepStopped:
    """The ``SweepStopped`` for one of ``DISK_ERRORS``, or for a permission denied in the storage: which disk, what is
    wrong, and the way out. Any other ``error`` is raised again."""
    if error.errno is None or error not in (disk_error(error), denied_below(storage, error)):
        raise error
    places = {f"--storage {storage}": storage, f"Ray's temporary folder {ray_folder()}": ray_folder()}
    if error.filename is None:  # Ray's errors name no file.
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
    """Ray's default folder for sockets, logs and objects that do not fit into memory.

    On macOS Ray ignores TMPDIR, which every terminal there sets and which is too long for sockets.
    """
    temporary = os.environ.get("TMPDIR") if sys.platform == "linux" else None
    return Path(os.environ.get("RAY_TMPDIR") or temporary or "/tmp") / "ray"


def is_full(folder: Path) -> bool:
    """Whether the disk of ``folder`` has less than ``FULL_BYTES`` free."""
    return free_bytes(folder) < FULL_BYTES
