"""The image cache: all images decoded once, into one uint8 array on disk that every trial of a node maps and shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError
from trainables.atomic import sha256_of, write_json
from trainables.data.decoded import DecodedWriter, OtherCaches, building, read_records, remove_leftovers, rows_left
from trainables.data.image import (
    PREPROCESSING_VERSION,
    SMALL,
    ImageStats,
    Prepared,
    content_hash,
    in_order,
    prepare_image,
    quiet_decoders,
)
from trainables.data.near_duplicates import NearPair, NearPairs, find_near_pairs

Sources = npt.NDArray[np.uint8] | tuple[Path, ...]
Progress = Callable[[str, int, int], object]
"""Is called with the name of the step ("images read"), the number done, and the total."""
_SETTINGS = 8


@dataclass(frozen=True)
class ImageCache:
    """The decoded images and what is known of each; row i belongs to source i.

    path: the .npy, uint8 [N, C, S, S] (an unreadable image's row is 0).
    hashes: sha256 of each file's content. near: pairs of images that seem to be one film.
    """

    path: Path
    channels: int
    hashes: tuple[str, ...]
    stats: tuple[ImageStats, ...]
    near: NearPairs


def open_or_build(
    sources: Sources,
    size: int,
    fit: str,
    cache_dir: Path,
    workers: int,
    progress: Progress | None = None,
    compare: bool = True,
) -> ImageCache:
    """Decode all images in parallel, or take the complete cache that an earlier sweep left under the same key.

    Images decoded by an interrupted sweep or for other data sets are reused: only files whose content is in no cache of
    the same settings are decoded.
    sources: files, or pixels uint8 [N, H, W] or [N, H, W, 3]. The key is made of all contents in order, size, fit and
    the version of the preprocessing. Memory: a few images per worker, and 10 KB for each image. compare: look for near
    duplicates. Raises ``UserError`` if the disk is too small.
    """
    # Threads, not processes: Pillow, NumPy and hashlib release the GIL, and nothing needs to be copied.
    with quiet_decoders(), ThreadPoolExecutor(max(1, workers)) as pool:
        hashes = []
        for digest in in_order(pool, content_hash, sources, 64 * max(1, workers)):
            hashes.append(digest)
            if progress is not None:
                progress("files recognised", len(hashes), len(sources))
        build = _Build(sources, size, fit, tuple(hashes), pool, 4 * max(1, workers), progress, compare)
        path = cache_dir / f"{cache_key(hashes, size, fit)}.npy"
        try:
            return build.found(path) or build.on_disk(path)
        except OSError as error:  # the disk has become full, or cannot be written
            raise UserError(f"the decoded images cannot be written to {cache_dir}: {error.strerror}") from error


def cache_key(hashes: Iterable[str], size: int, fit: str) -> str:
    """The file name of an image cache, 24 hex digits: 8 of the settings, 16 of the contents."""
    settings = {"preprocessing": PREPROCESSING_VERSION, "size": size, "fit": fit}
    digest = hashlib.sha256()
    for value in hashes:
        digest.update(bytes.fromhex(value))
    of_settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    return of_settings.hexdigest()[:_SETTINGS] + digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Build:
    """Finds or builds a cache. ahead: images that may be decoded before they are written."""

    sources: Sources
    size: int
    fit: str
    hashes: tuple[str, ...]
    pool: ThreadPoolExecutor
    ahead: int
    progress: Progress | None
    compare: bool

    def found(self, path: Path) -> ImageCache | None:
        """The cache, if it exists, is complete, undamaged and up to date; None = build it."""
        try:
            kept = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if any(sha256_of(path.with_suffix(suffix)) != digest for suffix, digest in kept["sha256"].items()):
                return None
            stats = tuple(record.stats for record in read_records(path))
            if self.compare and not kept["compared"]:
                return None
            near = NearPairs(tuple(NearPair(*pair) for pair in kept["pairs"]), kept["skipped"], kept["least"])
            cache = ImageCache(path, kept["channels"], self.hashes, stats, near)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        # A package installed since may read more formats: unreadable files are tried again.
        unreadable = [row for row, one in enumerate(stats) if one.reason is not None]
        return cache if all(self._decode(row).stats == stats[row] for row in unreadable) else None

    def on_disk(self, path: Path) -> ImageCache:
        """Build a cache, continuing from the row at which an interrupted sweep stopped."""
        folder, part, count = path.parent, path.with_name(f".{path.name}"), len(self.hashes)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, path.name[:_SETTINGS])
        with building(part, self._tell) as part:
            if cache := self.found(path):  # another sweep has built it meanwhile
                return cache
            stats: list[ImageStats] = []
            smalls = np.zeros((count, SMALL, SMALL), dtype=np.uint8)

            def add(image: Prepared) -> None:
                smalls[len(stats)] = image.small
                stats.append(image.stats)
                self._tell(len(stats))

            for image in rows_left(part, self.hashes, self.size, self.pool, self.ahead):
                add(image)
            done = len(stats)
            others = OtherCaches(folder, path.name[:_SETTINGS], self.hashes[done:])

            def row_of(row: int) -> Prepared:
                return others.read(self.hashes[row]) or self._decode(row)

            with DecodedWriter(part, count, self.size, done) as writer:
                for image in in_order(self.pool, row_of, range(done, count), self.ahead):
                    writer.add(self.hashes[len(stats)], image)
                    add(image)
                readable = np.array([one.reason is None and not one.blank for one in stats], dtype=bool)
                same = np.unique([one.pixel_hash for one in stats], return_inverse=True)[1]
                near = find_near_pairs(smalls, same, np.flatnonzero(readable & self.compare), self.pool)
                channels = 1 if all(one.gray for one in stats) else 3
                sha256 = writer.move_to(path)
            description = {
                "shape": [count, channels, self.size, self.size],
                "sha256": sha256,
                "channels": channels,
                "compared": self.compare,
                **near._asdict(),
            }
            write_json(path.with_suffix(".json"), description)  # last: a cache without its description is incomplete
        remove_leftovers(folder, path.name[:_SETTINGS], self.hashes)
        return ImageCache(path, channels, self.hashes, tuple(stats), near)

    def _decode(self, row: int) -> Prepared:
        return prepare_image(self.sources[row], self.size, self.fit)

    def _tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress("images read", done, len(self.hashes))
