"""Recognise a file by its content; and unpack the content of a table within limits."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias, cast

from search_spaces.errors import UserError, reason_of, some
from trainables.data.files import EXTENSIONS, image_kind

MOST_BYTES = 2 * 1024**3
"""Of a table, as read (unpacked)."""
MOST_RATIO = 200
"""Of unpacked to packed bytes, above ``SMALL_BYTES``: tables reach 50, zip bombs 1,000."""
SMALL_BYTES = 64 * 1024**2
_HEAD_BYTES = 1 << 16
_PACKED = {
    "a gzip file": rb"\x1f\x8b",
    "a zip archive": rb"PK\x03\x04|PK\x05\x06",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
    "a RAR archive": rb"Rar!\x1a",
    "packed with bzip2": rb"BZh[1-9]1AY&SY",
    "packed with xz": rb"\xfd7zXZ",
    "packed with zstd": rb"\x28\xb5\x2f\xfd",
    "a tar archive": rb".{257}ustar",
}
_NO_TABLES = {
    "an old Excel or Office file (save its sheet as CSV)": rb"\xd0\xcf\x11\xe0",
    "an SQLite database": rb"SQLite format 3\0",
    "an HDF5 file": rb"\x89HDF\r\n\x1a\n",
    "an LMDB database": rb".{16}\xde\xc0\xef\xbe",
    "an Arrow (Feather) file": rb"ARROW1\0",
    "an Avro file": rb"Obj\x01",
    "an ORC file": rb"ORC[\0-\x1f]",
    "an encrypted Parquet file": rb"PARE",
    "a NumPy array (.npy)": rb"\x93NUMPY",
    "a pickle": rb"\x80[\x02-\x05]",
    "a MATLAB file": rb"MATLAB 5\.0 MAT",
    "a PDF": rb"%PDF-",
    "a TFRecord file": rb".{4}\0{4}.{4}\n",
    "an HTML page, such as the login page of a failed download": rb"\s*<(!DOCTYPE|!doctype|html|HTML)",
    "an XML file": rb"\s*<\?xml",
    "a Git LFS pointer (fetch the file with git lfs pull)": rb"version https://git-lfs",
    "text in UTF-16 without a byte order mark (save it as CSV in UTF-8)": rb"([^\0]\0){8}|(\0[^\0]){8}",
}
BROKEN = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError),
    UnicodeDecodeError,  # of a name in a zip
)
"""What reading a damaged file may raise."""


def is_npz(path: Path) -> bool:
    """Whether a file is an .npz by its content. Raises the ``UserError`` of ``opened`` if it is not a table either."""
    try:
        with opened(path):
            return False
    except ArraysError:
        return True


class Limited(io.RawIOBase):
    """Counts the bytes read from a stream, and raises ``UserError`` above the limits."""

    def __init__(self, stream: IO[bytes], path: Path, packed: int) -> None:
        self._stream, self._path, self._packed, self._read = stream, path, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        self._read += len(part)
        if self._read > MOST_BYTES:
            raise UserError(f"{self._path}: a table of more than {MOST_BYTES / 1024**3:g} GB; remove columns from it")
        if self._read > max(SMALL_BYTES, MOST_RATIO * self._packed):
            what = f"unpacks to more than {MOST_RATIO} times its size, unusual for a table: unpack it by hand"
            raise UserError(f"{self._path}: {what}")
        return len(part)


Opened: TypeAlias = "io.BufferedReader[Limited]"


class ArraysError(UserError):
    """What ``opened`` raises for arrays (.npz)."""


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The content of a table, unpacked as it is read.

    Raises ``UserError`` if the file is not a table by its content, and, also later, if it cannot be read or is larger
    than the limits.
    """
    try:
        packed = _size(path)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            if head.startswith(b"\x1f\x8b"):
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=file))
            elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                stream = _only_member(path, file)
            else:
                stream = file
            limited = io.BufferedReader(Limited(stream, path, packed), _HEAD_BYTES)
            _check_head(path, head if stream is file else limited.peek(_HEAD_BYTES))
            yield limited
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read: {reason_of(error)}") from None


def _size(path: Path) -> int:
    """Bytes of a regular file. Raises ``UserError`` for others: reading a FIFO or a device might never end."""
    try:
        found = path.stat()
    except ValueError as error:  # a NUL byte in the name
        raise UserError(f"{str(path)!r}: cannot be read: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: is not a regular file; give a folder, a table or a .npz")
    if not found.st_size:
        raise UserError(f"{path}: the file is empty")
    return found.st_size


def _only_member(path: Path, file: IO[bytes]) -> IO[bytes]:
    """The one file in a zip; files that macOS adds are not counted."""
    archive = open_zip(file)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    parts = {name: PurePosixPath(name.replace("\\", "/")).parts for name in names}
    outside = [name for name in names if ".." in parts[name] or name.startswith(("/", "\\"))]
    if outside:
        raise UserError(f"{path}: a zip that contains {outside[0]!r}, a path outside of it: not read")
    if names and all(name.endswith(".npy") for name in names):
        raise ArraysError(f"{path}: arrays (.npz), not a table")
    if any(name.startswith("xl/workbook.") for name in names):
        raise UserError(f"{path}: an Excel workbook, which is not supported; save its sheet as CSV")
    if "mimetype" in names and "content.xml" in names:
        raise UserError(f"{path}: an OpenDocument file, which is not supported; save its sheet as CSV")
    names = [name for name in names if not any(part.startswith(".") or part == "__MACOSX" for part in parts[name])]
    images = sum(PurePosixPath(name.lower()).suffix in EXTENSIONS for name in names)
    if images or len(names) != 1:
        what = f"an archive of {images} images" if images else f"a zip of {len(names)} files, not of one table"
        raise UserError(f"{path}: {what} ({some(names, 3) or 'nothing'}); {_unpack(path)}")
    if archive.getinfo(names[0]).flag_bits & 1:
        raise UserError(f"{path}: {names[0]} in it is encrypted; {_unpack(path)}")
    return archive.open(names[0])


def open_zip(file: Path | IO[bytes]) -> zipfile.ZipFile:
    """Open a zip. Raises ``BadZipFile`` also for impossible names and sizes."""
    try:
        return zipfile.ZipFile(file)
    except (ValueError, OverflowError) as error:
        raise zipfile.BadZipFile(str(error)) from None


def _check_head(path: Path, head: bytes) -> None:
    """Raise if the file is not a table by its first bytes."""
    kind = image_kind(path)
    if kind and (kind != "PPM" or path.suffix.lower() in EXTENSIONS):  # a table may begin with "P2 17 ", too
        raise UserError(f"{path}: a {kind} image, not a table; give the folder that contains it")
    packed = _beginning(head, _PACKED)
    if packed:
        raise UserError(f"{path}: {packed}, which is not supported; {_unpack(path)}")
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff", b"PAR1"))
    found = _beginning(head, _NO_TABLES) or ("binary data" if b"\0" in head else None)
    if found and not marked:
        forms = "a table is CSV, TSV, Parquet or JSON Lines, optionally in gzip or zip"
        raise UserError(f"{path}: not a supported table: {found}; {forms}")


def _beginning(head: bytes, patterns: dict[str, bytes]) -> str | None:
    return next((what for what, pattern in patterns.items() if re.match(pattern, head, re.DOTALL)), None)


def _unpack(path: Path) -> str:
    """The advice to unpack an archive; the folder is named as by most programs."""
    folder = path.with_name(re.sub(r"(\.tar)?\.[a-z0-9]+$", "", path.name, flags=re.IGNORECASE))
    return f"unpack it, and give the folder ({folder}) or the table in it"
