"""Atomic writes of files and lines, and the disk errors that prevent them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError

FORMAT = 1
"""Version of sweep.json, evaluation.json, best.json and best.pt. A changed meaning raises it, an added key does not."""
TEMPORARY = re.compile(r"\..*-[a-z0-9_]{8}(\.[^.]*)?")
"""Names of the temporary files of ``write_atomically``; a killed process leaves them behind."""

DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not grow that large (ulimit -f, or the file system)",
    errno.EROFS: "the file system has become read-only",
    errno.EIO: "the disk fails (input/output error)",
    errno.ESTALE: "the file server no longer knows the file (stale file handle)",
    errno.ENOTCONN: "the mount is gone (not connected)",
    errno.ESHUTDOWN: "the file server has shut this machine out (as Lustre evicts a client)",
}
"""By errno: reasons that keep any process from writing, not only this one."""
_OF_SOCKETS = (errno.ENOTCONN, errno.ESHUTDOWN)
"""Errors that sockets raise as well, but without a file name."""


def disk_error(error: BaseException | None) -> OSError | None:
    """The first of ``DISK_ERRORS`` among ``error`` and its causes; None if there is none."""
    found = (one for one in _causes(error) if isinstance(one, OSError) and one.errno in DISK_ERRORS)
    return next((one for one in found if one.errno not in _OF_SOCKETS or one.filename), None)


def denied(error: BaseException | None) -> PermissionError | None:
    """The system's PermissionError (it has an errno) among ``error`` and its causes; None if there is none."""
    return next((one for one in _causes(error) if isinstance(one, PermissionError) and one.errno is not None), None)


def denied_below(folder: Path, error: BaseException | None) -> PermissionError | None:
    """``denied``, if for a file below ``folder``. If that was writable before, a server ticket may have expired."""
    found = denied(error)
    file = None if found is None else found.filename
    if not isinstance(file, str | os.PathLike):
        return None
    return found if Path(file).absolute().is_relative_to(folder.absolute()) else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if os.path.exists(one))
    return shutil.disk_usage(there).free


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then move it into place: a reader sees the whole old or new file.

    ``DISK_ERRORS`` and missing permissions are raised as an ``OSError`` that names ``path``.
    """
    with _disk_errors_name(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _new_file_beside(path)
        try:
            write(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def _new_file_beside(path: Path) -> Path:
    """Create the file with the permissions that the umask leaves; no chmod, which some shared file systems refuse."""
    while True:
        beside = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return beside


def append_line(path: Path, line: str) -> None:
    """Append ``line`` in UTF-8, whole or not at all. A partial line left by a killed process stays a line of its own.
    Raises as ``write_atomically`` does."""
    with _disk_errors_name(path):
        length, last = _end_of(path)
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(("\n" if last not in (b"", b"\n") else "") + line + "\n")
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, length)
            raise


def _end_of(path: Path) -> tuple[int, bytes]:
    """A file's length in bytes, and its last byte; 0 and ``b""`` if there is no file."""
    try:
        with path.open("rb", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - 1))
            return length, file.read(1)
    except FileNotFoundError:
        return 0, b""


@contextlib.contextmanager
def _disk_errors_name(path: Path) -> Iterator[None]:
    """Make a disk error or a denial name ``path``: by itself it often names no file, or only the temporary one."""
    try:
        yield
    except Exception as error:
        if (cause := disk_error(error) or denied(error)) is None or cause.errno is None:
            raise
        raise OSError(cause.errno, os.strerror(cause.errno), str(path)) from error


def now() -> str:
    """The current time in UTC, as in all records: ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, without newline translation, atomically."""
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8", newline=""))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically; ValueError for NaN, which is not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_format(content: Mapping[str, Any], place: Path) -> None:
    """Raise ``UserError`` unless ``content``, read from ``place``, has the format that this version writes."""
    found = content.get("format")
    if found != FORMAT:
        written = "no format" if found is None else f"format {found}"
        way_out = "use the version that wrote it, or create it again"
        raise UserError(f"{place} has {written}, and this version reads only format {FORMAT}: {way_out}")
