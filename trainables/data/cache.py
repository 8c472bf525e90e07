"""The image cache: all images decoded once, into one uint8 array on disk that every trial of a node maps and shares."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError
from trainables.atomic import write_json
from trainables.data.image import (
    PREPROCESSING_VERSION,
    SMALL,
    ImageStats,
    Pixels,
    Prepared,
    content_hash,
    prepare_image,
    quiet_decoders,
)
from trainables.data.near_duplicates import NearPair, find_near_pairs

Sources = npt.NDArray[np.uint8] | tuple[Path, ...]
Progress = Callable[[int, int], object]
_LEFT_AFTER_S = 24 * 3600
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ImageCache:
    """The decoded images and what is known of each; row i belongs to source i.

    path: the .npy, uint8 [N, C, S, S] (an unreadable image's row is 0); None = decoded without being kept.
    hashes: sha256 of each file's content. near: pairs of images that look nearly the same.
    """

    path: Path | None
    channels: int
    hashes: tuple[str, ...]
    stats: tuple[ImageStats, ...]
    near: tuple[NearPair, ...]


def open_or_build(
    sources: Sources, size: int, fit: str, cache_dir: Path | None, workers: int, progress: Progress | None = None
) -> ImageCache:
    """Decode all images in parallel, or take the whole cache that an earlier sweep left under the same key.

    sources: files, or drawn pixels uint8 [N, H, W]. The key is made of all contents in order, size, fit and the
    version of the preprocessing. cache_dir None: nothing is written. Memory: some images a worker and 4 KB an image.
    Raises ``UserError`` if the disk is too small.
    """
    # Threads, not processes: Pillow, NumPy and hashlib work outside Python's lock, and nothing needs to be copied.
    with quiet_decoders(), ThreadPoolExecutor(max(1, workers)) as pool:
        hashes = tuple(pool.map(content_hash, sources, chunksize=64))
        prepared = in_order(pool, lambda source: prepare_image(source, size, fit), sources, 4 * max(1, workers))
        if cache_dir is None:
            return _decode_all(prepared, hashes, None, lambda _: None, progress)
        path = cache_dir / f"{cache_key(hashes, size, fit)}.npy"
        found = _read_whole(path, hashes)
        try:
            return found or _build(prepared, hashes, size, path, progress)
        except OSError as error:  # the disk filled up in the meantime, or cannot be written
            raise UserError(f"the decoded images cannot be written to {cache_dir}: {error.strerror}") from error


def cache_key(hashes: Iterable[str], size: int, fit: str) -> str:
    """The file name of an image cache, 24 hex digits."""
    settings = {"preprocessing": PREPROCESSING_VERSION, "size": size, "fit": fit}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for value in hashes:
        digest.update(bytes.fromhex(value))
    return digest.hexdigest()[:24]


def cache_bytes(count: int, channels: int, size: int) -> int:
    """Size on disk, in bytes (without a header of 128 bytes and some 200 bytes an image beside it)."""
    return count * channels * size * size


def _read_whole(path: Path, hashes: tuple[str, ...]) -> ImageCache | None:
    """A cache that is there, whole and undamaged; None = build it."""
    try:
        kept = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != kept["sha256"]:
                return None
        stats = tuple(ImageStats(**values) for values in kept["stats"])
        return ImageCache(path, kept["channels"], hashes, stats, tuple(NearPair(*pair) for pair in kept["near"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(
    prepared: Iterator[Prepared], hashes: tuple[str, ...], size: int, path: Path, progress: Progress | None
) -> ImageCache:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    with _CacheWriter(path, len(hashes), size) as writer:
        cache = _decode_all(prepared, hashes, path, writer.add, progress)
        sha256 = writer.move_into_place()
    description = {
        "shape": [len(hashes), cache.channels, size, size],
        "sha256": sha256,
        "channels": cache.channels,
        "stats": [vars(one) for one in cache.stats],
        "near": cache.near,
    }
    write_json(path.with_suffix(".json"), description)  # last: a cache counts only with its description
    return cache


def _decode_all(
    prepared: Iterator[Prepared],
    hashes: tuple[str, ...],
    path: Path | None,
    add: Callable[[Pixels | None], object],
    progress: Progress | None,
) -> ImageCache:
    count = len(hashes)
    smalls = np.zeros((count, SMALL, SMALL), dtype=np.uint8)
    stats = []
    for row, image in enumerate(prepared):
        stats.append(image.stats)
        smalls[row] = image.small
        add(image.square)
        if progress is not None:
            progress(row + 1, count)
    readable = np.array([one.reason is None and not one.blank for one in stats], dtype=bool)
    phashes = np.array([int(one.phash or "0", 16) for one in stats], dtype=np.uint64)
    same = np.unique([one.pixel_hash for one in stats], return_inverse=True)[1]
    near = find_near_pairs(phashes, smalls, same, np.flatnonzero(readable))
    return ImageCache(path, 1 if all(one.gray for one in stats) else 3, hashes, tuple(stats), tuple(near))


def in_order(pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In], ahead: int) -> Iterator[_Out]:
    """``work`` of each item in order, at most ``ahead`` results in memory (``pool.map`` would hold all of them)."""
    waiting: deque[Future[_Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _remove_leftovers(cache_dir: Path) -> None:
    """Remove the unfinished files of sweeps that were killed more than a day ago."""
    for path in cache_dir.glob(".*-*.npy"):
        with contextlib.suppress(FileNotFoundError):  # its sweep lives and has finished it, or another has removed it
            if time.time() - path.stat().st_mtime > _LEFT_AFTER_S:
                path.unlink()


class _CacheWriter:
    """Appends rows to a .npy file beside its place: gray until the first colour image comes, then three channels.

    Plain writes, not a memory map: on a full disk a write raises, a map kills the process.
    """

    def __init__(self, path: Path, count: int, size: int) -> None:
        self._path, self._count, self._size = path, count, size
        self._channels, self._done = 1, 0
        self._open = contextlib.ExitStack()
        self._beside, self._file = self._start()

    def __enter__(self) -> _CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, square: Pixels | None) -> None:
        if square is None:
            square = np.zeros((self._size, self._size), np.uint8)
        if square.ndim == 3 and self._channels == 1:
            self._to_colour()
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
        self._open.callback(Path(name).unlink, missing_ok=True)
        file = self._open.enter_context(os.fdopen(handle, "w+b"))
        shape = (self._count, self._channels, self._size, self._size)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return Path(name), file

    def _to_colour(self) -> None:
        """Begin again with three channels, and copy what is there."""
        with self._open.pop_all():  # of the gray file
            gray, plane_bytes = self._file, self._size * self._size
            self._channels = 3
            self._beside, self._file = self._start()
            gray.seek(-self._done * plane_bytes, os.SEEK_END)
            for _ in range(self._done):
                self._file.write(gray.read(plane_bytes) * 3)
