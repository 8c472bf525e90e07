"""What a file is, told by its content; and the content of a table, unpacked within limits."""

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

from search_spaces.errors import UserError

MOST_BYTES = 2 * 1024**3
"""Of a table, packed and unpacked."""
MOST_RATIO = 200
"""Of unpacked to packed bytes, above ``_SMALL_BYTES``: tables reach 50, bombs 1,000."""
_SMALL_BYTES = 64 * 1024**2
_HEAD_BYTES = 1 << 16
_IMAGE_SUFFIXES = "png jpg jpeg jpe jp2 j2k bmp tif tiff gif webp pgm ppm pnm dcm dicom dic ima nii mha"
IMAGE_SUFFIXES = frozenset(f".{suffix}" for suffix in _IMAGE_SUFFIXES.split())
# How a file begins, and what it is then. Images first: they go to the reader of images.
_IMAGES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"\0\0\0\x0cjP": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
}
_ARCHIVES = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
}
_OTHERS = {
    b"\xd0\xcf\x11\xe0": "an old Excel or Office file: open it there and save it as CSV",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"ARROW1": "an Arrow (Feather) file",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"MATLAB 5": "a MATLAB file",
    b"%PDF": "a PDF",
    b"\x7fELF": "a program",
    b"<!DOCTYPE html": "a web page (HTML), as is saved where a download asks to log in",
    b"<!doctype html": "a web page (HTML), as is saved where a download asks to log in",
    b"<html": "a web page (HTML), as is saved where a download asks to log in",
    b"<?xml": "an XML file",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself by git lfs pull",
}
_FORMS = "a table is CSV, TSV, Parquet or JSON Lines, also in gzip or zip"
_BROKEN = (zlib.error, lzma.LZMAError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError)


def file_form(path: Path) -> str:
    """ "table", "npz", "archive", "image" or "other", by the content.

    "archive" holds more than one table, or images. ``opened`` says why the last three are no tables. Raises
    ``UserError``: no regular file, one that may not be read, or one that is too large.
    """
    try:
        with opened(path):
            return "table"
    except _NoTableError as error:
        return error.form


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The content of a table, unpacked as it is read: never more than ``MOST_BYTES``.

    Raises ``UserError``, also while it is read: what is no table by its content is named, with the way out.
    """
    try:
        packed = _regular_bytes(path)
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            if head.startswith(b"\x1f\x8b"):
                stream = cast(IO[bytes], gzip.GzipFile(fileobj=file))
            elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                stream = _only_member(path, zipfile.ZipFile(file))
            else:
                stream = file
            limited = io.BufferedReader(Limited(stream, path, packed), _HEAD_BYTES)
            if stream is not file or packed > MOST_BYTES:
                head = limited.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            _check_head(path, head, packed, stream is not file)
            yield limited
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from None
    except _BROKEN as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read: {reason}; get the file again") from None


class _NoTableError(UserError):
    """What a file is instead of a table; ``form`` as ``file_form`` tells it."""

    form = "other"

    @classmethod
    def of(cls, form: str, problem: str) -> _NoTableError:
        error = cls(problem)
        error.form = form
        return error


class Limited(io.RawIOBase):
    """Counts what is read of a stream, and stops at the limits."""

    def __init__(self, stream: IO[bytes], path: Path, packed: int) -> None:
        self._stream, self._path, self._packed, self._read = stream, path, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._stream.read(len(buffer))
        buffer[: len(part)] = part
        self._read += len(part)
        if self._read > MOST_BYTES:
            raise UserError(f"{self._path}: more than {MOST_BYTES // 1024**3} GB unpacked; give a smaller table")
        if self._read > max(_SMALL_BYTES, MOST_RATIO * self._packed):
            what = f"unpacks to more than {MOST_RATIO} times its size, which no table does; unpack it by hand"
            raise UserError(f"{self._path}: {what}")
        return len(part)


Opened: TypeAlias = "io.BufferedReader[Limited]"


def _regular_bytes(path: Path) -> int:
    """The size of a regular file (a FIFO or a device could be read for ever)."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: is no regular file; give a folder, a table or a .npz")
    if not found.st_size:
        raise UserError(f"{path}: the file is empty")
    return found.st_size


def _only_member(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    """The one file in a zip; what packers of macOS and Windows add is not counted."""
    names = [name for name in archive.namelist() if not name.endswith("/")]
    parts = {name: PurePosixPath(name.replace("\\", "/")).parts for name in names}
    outside = [name for name in names if ".." in parts[name] or name.startswith(("/", "\\"))]
    if outside:
        raise _NoTableError.of("other", f"{path}: holds {outside[0]!r}, a path outside the archive: not read")
    if names and all(name.endswith(".npy") for name in names):
        raise _NoTableError.of("npz", f"{path}: NumPy arrays (.npz), not a table")
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        raise _NoTableError.of("other", f"{path}: an Excel workbook; save its sheet as CSV")
    if "mimetype" in names and "content.xml" in names:
        raise _NoTableError.of("other", f"{path}: an OpenDocument file; save its sheet as CSV")
    names = [name for name in names if not any(part.startswith(".") or part == "__MACOSX" for part in parts[name])]
    images = [name for name in names if PurePosixPath(name.lower()).suffix in IMAGE_SUFFIXES]
    if images:
        what = f"an archive with {len(images)} images ({images[0]}, ...)"
        raise _NoTableError.of("archive", f"{path}: {what}; unpack it and give the folder: --data {_folder(path)}")
    if len(names) != 1:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        what = f"holds {len(names)} files ({shown})" if names else "holds no file"
        raise _NoTableError.of("archive", f"{path}: {what}, not one table; unpack it and give the table in it")
    return archive.open(names[0])


def _check_head(path: Path, head: bytes, packed: int, unpacked: bool) -> None:
    """Raise if what begins so is no table."""
    found = next((what for start, what in _IMAGES.items() if head.startswith(start)), None)
    if found is None and head[128:132] == b"DICM":
        found = "a DICOM image"
    if found is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        found = "a WebP image"
    if found is None and re.match(rb"P[1-6]\s", head):
        found = "a PGM or PPM image"
    if found and (found != "a BMP image" or b"\0" in head):
        raise _NoTableError.of("image", f"{path}: {found}, not a table; give the folder it lies in")
    found = next((what for start, what in _ARCHIVES.items() if head.startswith(start)), None)
    if head[257:262] == b"ustar":
        found = "a tar archive"
    if unpacked and head.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        found = "packed twice"
    if found:
        where = f"unpack it and give the folder ({_folder(path)}) or the table in it"
        raise _NoTableError.of("archive", f"{path}: {found}; {where}")
    found = next((what for start, what in _OTHERS.items() if head.startswith(start)), None)
    if found is None and head[16:20] == b"\xde\xc0\xef\xbe":
        found = "an LMDB database"
    length = int.from_bytes(head[:8], "little")
    if found is None and length and length + 16 <= packed and head[12:13] == b"\n":
        found = "a TFRecord file"
    if found is None and b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff", b"PAR1")):
        found = "binary data"
    if found:
        raise _NoTableError.of("other", f"{path}: not a table that is read here: {found}; {_FORMS}")


def _folder(path: Path) -> Path:
    """Where an archive is unpacked to by most programs."""
    return path.with_name(re.sub(r"(\.tar)?\.\w+$", "", path.name))
