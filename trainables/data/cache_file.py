"""Writing the decoded store's array: row by row, beside its place, gray as long as it can be."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from io import BufferedRandom
from pathlib import Path

import numpy as np

from search_spaces.errors import UserError
from trainables.data.image import Pixels

_LEFT_AFTER_S = 24 * 3600


def cache_bytes(count: int, channels: int, size: int) -> int:
    """Size of a store on disk, in bytes (without its header of 128 bytes and some 200 bytes an image beside it)."""
    return count * channels * size * size


def remove_leftovers(cache_dir: Path) -> None:
    """Remove the unfinished files of sweeps that were killed more than a day ago."""
    for path in cache_dir.glob(".*-*.npy"):
        try:
            if time.time() - path.stat().st_mtime > _LEFT_AFTER_S:
                path.unlink()
        except FileNotFoundError:  # its sweep lives and has finished it, or another has removed it
            continue


class ImageCacheWriter:
    """Appends rows to a .npy file beside its place: gray until the first colour image comes, then three channels.

    Plain writes, not a memory map: on a full disk a write raises, a map kills the process.
    """

    def __init__(self, path: Path, count: int, size: int) -> None:
        self._path, self._count, self._size = path, count, size
        self._channels, self._done = 1, 0
        self._beside, self._file = self._start()

    def __enter__(self) -> ImageCacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._beside.unlink(missing_ok=True)

    def add(self, square: Pixels | None) -> None:
        if square is not None and square.ndim == 3 and self._channels == 1:
            self._to_colour()
        if square is None:
            square = np.zeros((self._size, self._size), np.uint8)
        planes = square[None] if square.ndim == 2 else square.transpose(2, 0, 1)
        self._file.write(np.broadcast_to(planes, (self._channels, self._size, self._size)).tobytes())
        self._done += 1

    def move_into_place(self) -> str:
        """Make the file whole and visible; its sha256."""
        assert self._done == self._count
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._beside.chmod(0o644)
        os.replace(self._beside, self._path)
        return sha256

    def _start(self) -> tuple[Path, BufferedRandom]:
        needed = cache_bytes(self._count, self._channels, self._size)
        free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise UserError(
                f"{self._count:,} decoded images of {self._size} px with {self._channels} channel(s) need "
                f"{needed / 1e9:.2f} GB, and {self._path.parent} has {free / 1e9:.2f} GB free: make room, choose a "
                "smaller --image-size, or another place with --storage"
            )
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.stem}-", suffix=".npy")
        file = os.fdopen(handle, "w+b")
        shape = (self._count, self._channels, self._size, self._size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return Path(name), file

    def _to_colour(self) -> None:
        """Begin again with three channels, and copy what is there."""
        gray_beside, gray = self._beside, self._file
        self._channels = 3
        try:
            self._beside, self._file = self._start()
            plane_bytes = self._size * self._size
            gray.seek(-self._done * plane_bytes, os.SEEK_END)
            for _ in range(self._done):
                self._file.write(gray.read(plane_bytes) * 3)
        finally:
            gray.close()
            gray_beside.unlink()
