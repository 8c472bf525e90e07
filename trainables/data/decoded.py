"""Decoded images on disk, one row each: an interrupted sweep continues from them, and another data set reuses them.

Four files of one name: ``.npy`` (uint8 [N, C, S, S]), ``.smalls`` (uint8 [N, 56, 56], raw), ``.jsonl`` (a record per
row) and, once the cache is complete, ``.json``. Until then the names begin with a dot. A record verifies its row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from search_spaces.errors import UserError
from trainables.atomic import free_bytes, sha256_of
from trainables.data.image import SMALL, ImageStats, Pixels, Prepared, in_order

SUFFIXES = (".npy", ".smalls", ".jsonl")
_SMALL_BYTES = SMALL * SMALL
_LEFT_AFTER_S = 14 * 24 * 3600


class Record(NamedTuple):
    """One line: the file's hash, a digest of everything that is stored of the image, and its stats."""

    content: str
    digest: str
    stats: ImageStats

    @classmethod
    def of(cls, content: str, image: Prepared) -> Record:
        digest = hashlib.sha256(repr((content, image.stats)).encode())
        digest.update(b"" if image.square is None else image.square.tobytes())
        digest.update(image.small.tobytes())
        return cls(content, digest.hexdigest()[:16], image.stats)

    def line(self) -> str:
        return json.dumps([self.content, self.digest, vars(self.stats)]) + "\n"


def read_records(path: Path) -> Iterator[Record]:
    """The records of a cache, up to the first incomplete line; ``path``: its .npy."""
    with contextlib.suppress(OSError, ValueError, TypeError), path.with_suffix(".jsonl").open(encoding="utf-8") as file:
        for line in file:
            content, digest, stats = json.loads(line)
            yield Record(content, digest, ImageStats(**stats))


class DecodedRows:
    """Reads rows of a cache, complete or not. Raises OSError or ValueError if there is none.

    shape: (N, C, S, S). start: byte offset of the first row. Files are opened for each row, so threads may share it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            self.shape, _, _ = np.lib.format.read_array_header_1_0(file)
            self.start = file.tell()

    def read(self, row: int, record: Record) -> Prepared | None:
        """A row as it was decoded; None if it does not match ``record``."""
        _, channels, size, _ = self.shape
        length = channels * size * size
        try:
            planes = self._bytes(".npy", self.start + row * length, length).reshape(channels, size, size)
            small = self._bytes(".smalls", row * _SMALL_BYTES, _SMALL_BYTES).reshape(SMALL, SMALL)
        except (OSError, ValueError):
            return None
        square = planes[0] if record.stats.gray else planes.transpose(1, 2, 0)
        image = Prepared(record.stats, None if record.stats.reason is not None else square, small)
        return image if Record.of(record.content, image) == record else None

    def _bytes(self, suffix: str, start: int, length: int) -> Pixels:
        with self._path.with_suffix(suffix).open("rb") as file:
            file.seek(start)
            return np.frombuffer(file.read(length), dtype=np.uint8)


def rows_left(part: Path, hashes: Sequence[str], size: int, pool: ThreadPoolExecutor, ahead: int) -> Iterator[Prepared]:
    """The rows that an interrupted sweep on the same images left in ``part``, up to the first that is damaged.

    pool, ahead: as in ``in_order``.
    """
    try:
        rows = DecodedRows(part)
    except (OSError, ValueError):
        return
    if rows.shape[0] != len(hashes) or rows.shape[2] != size:
        return

    def read(row: int, record: Record) -> Prepared | None:
        return rows.read(row, record) if record.content == hashes[row] else None

    known = zip(range(len(hashes)), read_records(part), strict=False)
    for image in in_order(pool, lambda one: read(*one), known, ahead):
        if image is None:
            return
        yield image


class OtherCaches:
    """Images that were decoded for other data sets with the same settings, found by the content of their files."""

    def __init__(self, cache_dir: Path, settings: str, wanted: Collection[str]) -> None:
        missing, self._found = set(wanted), dict[str, tuple[DecodedRows, int, Record]]()
        for path in sorted(cache_dir.glob(f"*{settings}*.npy")):
            if not missing:
                return
            with contextlib.suppress(OSError, ValueError):
                rows = DecodedRows(path)
                for row, record in enumerate(read_records(path)):
                    if record.content in missing and record.stats.reason is None:
                        missing.remove(record.content)
                        self._found[record.content] = rows, row, record

    def read(self, content: str) -> Prepared | None:
        found = self._found.get(content)
        return None if found is None else found[0].read(*found[1:])


class DecodedWriter:
    """Appends rows after the first ``done``: gray until the first colour image, then with three channels.

    Plain writes, not a memory map: on a full disk a write raises, but a map kills the process. Written rows stay.
    """

    def __init__(self, part: Path, count: int, size: int, done: int) -> None:
        self._part, self._count, self._size = part, count, size
        self._open = contextlib.ExitStack()
        self._channels = DecodedRows(part).shape[1] if done else 1
        self._images = self._open_at(part, self._channels, done)
        self._smalls = self._open_cut(part.with_suffix(".smalls"), done * _SMALL_BYTES)
        records = part.with_suffix(".jsonl")
        lines = records.read_bytes().splitlines(keepends=True)[:done] if done else []
        self._records = self._open_cut(records, sum(map(len, lines)))

    def __enter__(self) -> DecodedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, content: str, image: Prepared) -> None:
        square = np.zeros((self._size, self._size), np.uint8) if image.square is None else image.square
        if square.ndim == 3 and self._channels == 1:
            self._to_colour()
        planes = square[None] if square.ndim == 2 else square.transpose(2, 0, 1)
        self._images.write(np.broadcast_to(planes, (self._channels, self._size, self._size)).tobytes())
        self._smalls.write(image.small.tobytes())
        self._records.write(Record.of(content, image).line().encode())
        for file in (self._images, self._smalls, self._records):
            file.flush()

    def move_to(self, path: Path) -> dict[str, str]:
        """Move the files into place; returns the sha256 of the images and of the records, by suffix."""
        for file in (self._images, self._smalls, self._records):
            os.fsync(file.fileno())
        self._open.close()
        digests = {suffix: sha256_of(self._part.with_suffix(suffix)) for suffix in (".npy", ".jsonl")}
        for suffix in SUFFIXES:
            os.replace(self._part.with_suffix(suffix), path.with_suffix(suffix))
        return digests

    def _open_cut(self, path: Path, length: int) -> BufferedRandom:
        file = self._open.enter_context(path.open("r+b" if length else "w+b"))
        file.truncate(length)
        file.seek(length)
        return file

    def _open_at(self, path: Path, channels: int, done: int) -> BufferedRandom:
        shape = (self._count, channels, self._size, self._size)
        row_bytes = channels * self._size * self._size
        kept = path.stat().st_size if done else 0
        needed, free = self._count * (row_bytes + _SMALL_BYTES) - kept, free_bytes(path.parent)
        if needed > free:
            raise UserError(
                f"{self._count:,} decoded images of {self._size} px with {channels} channel(s) need {needed / 1e9:.2f} "
                f"GB, and {path.parent} has {free / 1e9:.2f} GB free: free space, choose a smaller --image-size, or "
                "another place with --storage"
            )
        file = self._open.enter_context(path.open("r+b" if done else "w+b"))
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + done * row_bytes)
        file.seek(0, os.SEEK_END)
        file.flush()
        return file

    def _to_colour(self) -> None:
        """Replace the file of the images by one with three channels, with the existing rows copied."""
        gray, plane_bytes = DecodedRows(self._part), self._size * self._size
        done = (self._images.tell() - gray.start) // plane_bytes
        self._images.seek(gray.start)
        self._channels = 3
        beside = self._part.with_suffix(".colour")
        colour = self._open_at(beside, 3, 0)
        for _ in range(done):
            colour.write(self._images.read(plane_bytes) * 3)
        os.replace(beside, self._part)
        self._images = colour


@contextlib.contextmanager
def building(part: Path, meanwhile: Callable[[int], object]) -> Iterator[Path]:
    """Wait until no other sweep builds ``part``; every second ``meanwhile`` gets the number of its rows.

    Yields where to build it: a file of its own if the file system has no locks, as others may build at the same time.
    """
    lock, smalls, place = _lock_of(part), part.with_suffix(".smalls"), part
    try:
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1)
            except Timeout:
                meanwhile(smalls.stat().st_size // _SMALL_BYTES if smalls.exists() else 0)
    except OSError:
        place = part.with_name(f".{secrets.token_hex(4)}{part.name}")
    try:
        yield place
    finally:
        for one in (part, place):
            if not one.exists():
                one.with_suffix(".lock").unlink(missing_ok=True)
        lock.release()


def remove_leftovers(cache_dir: Path, settings: str, whole: Collection[str] = ()) -> None:
    """Remove parts left by sweeps killed over two weeks ago, and those whose hashes are all in the cache ``whole``."""
    contents = set(whole)
    for part in cache_dir.glob(".*.npy"):
        with contextlib.suppress(OSError):  # its sweep is running or has finished it, or another sweep has removed it
            old = time.time() - part.stat().st_mtime > _LEFT_AFTER_S
            covered = whole and settings in part.name and all(one.content in contents for one in read_records(part))
            if old or covered:
                lock = _lock_of(part)
                try:
                    lock.acquire(timeout=0)
                except OSError as error:  # Without locks, a recent part may belong to a running sweep.
                    if isinstance(error, Timeout) or not old:
                        raise
                for suffix in (*SUFFIXES, ".colour", ".lock"):
                    part.with_suffix(suffix).unlink(missing_ok=True)
                lock.release()


def _lock_of(part: Path) -> BaseFileLock:
    return FileLock(part.with_suffix(".lock"), fallback_to_soft=False)
