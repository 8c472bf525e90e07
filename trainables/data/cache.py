"""All images decoded once, into one uint8 array on disk that every trial of a node maps and shares."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError
from trainables.atomic import write_json
from trainables.data.cache_file import ImageCacheWriter, remove_leftovers
from trainables.data.image import PREPROCESSING_VERSION, Pixels, quiet_decoders
from trainables.data.image_stats import SMALL, ImageStats, Prepared, content_hash, prepare_image
from trainables.data.near_duplicates import NearPair, find_near_pairs

Sources = npt.NDArray[np.uint8] | tuple[Path, ...]
Progress = Callable[[int, int], object]
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
    facts: tuple[ImageStats, ...]
    near: tuple[NearPair, ...]


def open_or_build(
    sources: Sources, size: int, fit: str, cache_dir: Path | None, workers: int, progress: Progress | None = None
) -> Store:
    """Decode all images in parallel, or take the whole store that an earlier sweep left under the same key.

    sources: files, or drawn pixels uint8 [N, H, W]. The key is made of all contents in order, size, fit and the
    version of the preprocessing. cache_dir None: nothing is written. Memory: some images a worker and 4 KB an image.
    Raises ``UserError`` if the disk is too small.
    """

    def decode(source: Path | Pixels) -> Prepared:
        return prepare_image(source, size, fit)

    ahead = 4 * max(1, workers)
    # Threads, not processes: Pillow, NumPy and hashlib work outside Python's lock, and nothing needs to be copied.
    with quiet_decoders(), ThreadPoolExecutor(max(1, workers)) as pool:
        hashes = tuple(pool.map(content_hash, sources, chunksize=64))
        key = cache_key(hashes, size, fit)
        if cache_dir is None:
            facts, near, channels = _decode_all(
                _in_order(pool, decode, sources, ahead), len(sources), _Discard(), progress
            )
            return Store(None, channels, hashes, facts, near)
        path = cache_dir / f"{key}.npy"
        kept = _read_whole(path)
        if kept is None:
            try:
                kept = _build(_in_order(pool, decode, sources, ahead), len(sources), size, path, progress)
            except OSError as error:  # the disk filled up in the meantime, or cannot be written
                raise UserError(f"the decoded images cannot be written to {cache_dir}: {error.strerror}") from error
    facts = tuple(ImageStats.from_dict(values) for values in kept["facts"])
    near = tuple(NearPair(*values) for values in kept["near"])
    return Store(path, kept["channels"], hashes, facts, near)


def cache_key(hashes: Iterable[str], size: int, fit: str) -> str:
    """The file name of a store, 24 hex digits."""
    settings = {"preprocessing": PREPROCESSING_VERSION, "size": size, "fit": fit}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for value in hashes:
        digest.update(bytes.fromhex(value))
    return digest.hexdigest()[:24]


def _build(
    prepared: Iterator[Prepared], count: int, size: int, path: Path, progress: Progress | None
) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    with ImageCacheWriter(path, count, size) as writer:
        facts, near, channels = _decode_all(prepared, count, writer, progress)
        sha256 = writer.move_into_place()
    kept = {
        "shape": [count, channels, size, size],
        "sha256": sha256,
        "channels": channels,
        "facts": [fact.to_dict() for fact in facts],
        "near": [list(pair) for pair in near],
    }
    write_json(path.with_suffix(".json"), kept)  # last: a store counts only with its description
    return kept


def _decode_all(
    prepared: Iterator[Prepared], count: int, writer: ImageCacheWriter | _Discard, progress: Progress | None
) -> tuple[tuple[ImageStats, ...], tuple[NearPair, ...], int]:
    smalls = np.zeros((count, SMALL, SMALL), dtype=np.uint8)
    facts = []
    for row, image in enumerate(prepared):
        facts.append(image.facts)
        smalls[row] = image.small
        writer.add(image.square)
        if progress is not None:
            progress(row + 1, count)
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
