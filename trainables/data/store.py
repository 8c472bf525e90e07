"""All images decoded once, into one uint8 array on disk that every trial of a node maps and shares."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from search_spaces.problems import UserError
from trainables.atomic import write_json
from trainables.data.facts import SMALL, ImageFacts, content_hash, prepare_image
from trainables.data.images import PREPROCESSING_VERSION, Pixels, quiet_decoders
from trainables.data.near import NearPair, find_near_pairs

Sources = npt.NDArray[np.uint8] | tuple[Path, ...]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Store:
    """The decoded images and what is known of each; row i belongs to source i.

    path: the .npy, uint8 [N, C, S, S] (an unreadable image's row is 0); None = decoded without being kept.
    hashes: sha256 of each file's content. near: pairs of images that look nearly the same.
    """

    path: Path | None
    channels: int
    hashes: tuple[str, ...]
    facts: tuple[ImageFacts, ...]
    near: tuple[NearPair, ...]


def open_or_build(sources: Sources, size: int, fit: str, store_dir: Path | None, workers: int) -> Store:
    """Decode all images in parallel, or take the whole store that an earlier sweep left under the same key.

    sources: files, or drawn pixels uint8 [N, H, W]. The key is made of all contents in order, size, fit and the
    version of the preprocessing. store_dir None: nothing is written. Memory: some images a worker and 4 KB an image.
    Raises ``UserError`` if the disk is too small.
    """
    with quiet_decoders(), ThreadPoolExecutor(max(1, workers)) as pool:
        hashes = tuple(pool.map(content_hash, sources, chunksize=64))
        key = store_key(hashes, size, fit)
        if store_dir is None:
            facts, near, channels = _decode_all(pool, workers, sources, size, fit, _Discard())
            return Store(None, channels, hashes, facts, near)
        path = store_dir / f"{key}.npy"
        kept = _read_whole(path)
        if kept is None:
            try:
                kept = _build(pool, workers, sources, size, fit, path)
            except OSError as error:  # the disk filled up in the meantime, or cannot be written
                raise UserError(f"the decoded images cannot be written to {store_dir}: {error.strerror}") from error
    facts = tuple(ImageFacts.from_dict(values) for values in kept["facts"])
    near = tuple(NearPair(*values) for values in kept["near"])
    return Store(path, kept["channels"], hashes, facts, near)


def store_key(hashes: Iterable[str], size: int, fit: str) -> str:
    """The file name of a store, 24 hex digits."""
    settings = {"preprocessing": PREPROCESSING_VERSION, "size": size, "fit": fit}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for value in hashes:
        digest.update(bytes.fromhex(value))
    return digest.hexdigest()[:24]


def store_bytes(count: int, channels: int, size: int) -> int:
    """Size of a store on disk, in bytes (without its header of 128 bytes and some 200 bytes an image beside it)."""
    return count * channels * size * size


def _build(pool: ThreadPoolExecutor, workers: int, sources: Sources, size: int, fit: str, path: Path) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _Writer(path, len(sources), size) as writer:
        facts, near, channels = _decode_all(pool, workers, sources, size, fit, writer)
        sha256 = writer.move_into_place()
    kept = {
        "shape": [len(sources), channels, size, size],
        "sha256": sha256,
        "channels": channels,
        "facts": [fact.to_dict() for fact in facts],
        "near": [list(pair) for pair in near],
    }
    write_json(path.with_suffix(".json"), kept)  # last: a store counts only with its description
    return kept


def _decode_all(
    pool: ThreadPoolExecutor, workers: int, sources: Sources, size: int, fit: str, writer: _Writer | _Discard
) -> tuple[tuple[ImageFacts, ...], tuple[NearPair, ...], int]:
    smalls = np.zeros((len(sources), SMALL, SMALL), dtype=np.uint8)
    facts = []
    prepared = _in_order(pool, lambda source: prepare_image(source, size, fit), sources, ahead=4 * max(1, workers))
    for row, image in enumerate(prepared):
        facts.append(image.facts)
        smalls[row] = image.small
        writer.add(image.square)
    readable = np.array([fact.reason is None and not fact.blank for fact in facts], dtype=bool)
    phashes = np.array([int(fact.phash or "0", 16) for fact in facts], dtype=np.uint64)
    same = np.unique([fact.pixel_hash for fact in facts], return_inverse=True)[1]
    near = find_near_pairs(phashes, smalls, same, np.flatnonzero(readable))
    colour = any(not fact.gray for fact in facts)
    return tuple(facts), tuple(near), 3 if colour else 1


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], items: Iterable[_In], ahead: int
) -> Iterator[_Out]:
    """``work`` of each item in order, at most ``ahead`` results in memory (``pool.map`` would hold all of them)."""
    waiting: deque[Future[_Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_whole(path: Path) -> dict[str, Any] | None:
    """The description of a store that is there, whole and undamaged; None = build it."""
    try:
        kept: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == kept["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if whole else None


class _Discard:
    """Takes the images of a dry run."""

    def add(self, square: Pixels | None) -> None:
        pass


class _Writer:
    """Appends rows to a .npy file beside its place: gray until the first colour image comes, then three channels.

    Plain writes, not a memory map: on a full disk a write raises, a map kills the process.
    """

    def __init__(self, path: Path, count: int, size: int) -> None:
        self._path, self._count, self._size = path, count, size
        self._channels, self._done = 1, 0
        self._beside, self._file = self._start()

    def __enter__(self) -> _Writer:
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
        needed = store_bytes(self._count, self._channels, self._size)
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
