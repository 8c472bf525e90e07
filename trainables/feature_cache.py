"""A cache of arrays on a node's disk, which many processes fill shard by shard, and map. It may vanish at any time.

An entry is a folder named by a hash of all that determines its content. It holds ``array`` (a header, a checksum per
shard, and the rows), ``claims`` (the shards that a process is computing; ``array`` while a process creates it) and
``users`` (the processes that map it). There are no locks, which are unreliable on network file systems: files created
with O_EXCL decide who does what.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.atomic import free_bytes
from trainables.processes import is_gone, this_process

FORMAT = 1
"""Format of ``array``; one of another format is made again."""
SHARD = 256
"""Rows that are claimed, written and checked together."""
STALE_S = 60.0
"""A claim that has not been touched for this long is taken over."""
LARGEST_CACHE_BYTES = 50_000_000_000
PART_OF_DISK = 0.2
"""Part of the disk space that would be free without the cache."""
_SUFFIX = ".features"
"""Ends each entry's name; nothing else in the folder is counted or removed."""
_HEADER_BYTES = 4096
_SLOT = np.dtype([("done", "<u4"), ("crc32", "<u4")])
_DONE = 0x454E4F44
_FOREIGN_USER_S = 86_400.0
_POLL_S = 0.05
_RESERVED_AT_ONCE = 1 << 26
"""Bytes; the claim is touched after each such part, as a network file system may write only a few MB a second."""
_verified: set[tuple[int, int, int]] = set()
"""Device, inode and shard: what this process has written, or read and found undamaged."""


@dataclass(frozen=True)
class RowForm:
    """The form of a row. shape: as stored. dtype: NumPy's. meaning: text that only the owner of the rows interprets."""

    shape: tuple[int, ...]
    dtype: str
    meaning: str = ""

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class MemoryShards:
    """An array of rows, [count, *form.shape], filled shard by shard, in the memory of one process.

    done: whether a shard is filled and undamaged; other shards have no valid rows. claim: whether the caller is to
    fill a shard; touch: the caller is still at work on it; release: the caller has filled it, or gives it up.
    """

    def __init__(self, count: int, form: RowForm) -> None:
        self.form = form
        self._array = np.empty((count, *form.shape), dtype=form.dtype)
        self._done: set[int] = set()

    def done(self, shard: int) -> bool:
        return shard in self._done

    def claim(self, shard: int) -> bool:
        return True

    def touch(self, shard: int) -> None: ...

    def release(self, shard: int) -> None: ...

    def write(self, shard: int, rows: NDArray[Any]) -> None:
        self._array[shard * SHARD :][: len(rows)] = rows
        self._done.add(shard)

    def array(self) -> NDArray[Any]:
        return self._array


@dataclass(frozen=True)
class CachePlace:
    """The folder and the size limit of a node's cache.

    folder: ``~`` is the home of the user on that node; ``$XDG_CACHE_HOME`` replaces ``~/.cache``, unless it is
    relative. The folder is made with mode 0700, as its content may be patients' data. limit_bytes: of all entries
    together, at most what the disk has for them; None = ``PART_OF_DISK``, at most ``LARGEST_CACHE_BYTES``.
    """

    folder: str
    limit_bytes: int | None = None

    @property
    def path(self) -> Path:
        folder, caches = Path(self.folder), os.environ.get("XDG_CACHE_HOME", "")
        if os.path.isabs(caches) and folder.parts[:2] == ("~", ".cache"):
            return Path(caches, *folder.parts[2:])
        try:
            return folder.expanduser()
        except RuntimeError:  # There is no home folder, as in some containers.
            return Path(tempfile.gettempdir(), *folder.parts[1:])

    def limit(self, held_bytes: int) -> int:
        """How many bytes all entries may take; held_bytes: what they take now."""
        room = free_bytes(self.path) + held_bytes
        if self.limit_bytes is not None:
            return min(self.limit_bytes, room)
        return int(min(PART_OF_DISK * room, LARGEST_CACHE_BYTES))


class CacheEntry:
    """``MemoryShards`` on disk: an entry of ``count`` rows, opened or created. key: its name, of letters and digits.

    form: called only to create the entry. Every method may raise ``OSError``: then the cache cannot be used, or no
    longer. To make room, entries that no process uses are removed, the least recently used first; if the new one would
    not fit even then, none is removed, and ``OSError`` with ENOSPC is raised.
    """

    def __init__(self, place: CachePlace, key: str, count: int, form: Callable[[], RowForm]) -> None:
        self._folder, self._key, self._count = place.path / (key + _SUFFIX), key, count
        for folder in (place.path, self._folder, self._folder / "claims", self._folder / "users"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._user = self._folder / "users" / this_process()
        self._user.touch()
        self._file = self._open_or_make(place, form)
        os.utime(self._path)  # the last use
        state = os.fstat(self._file)
        self._identity = state.st_dev, state.st_ino

    @staticmethod
    def is_there(place: CachePlace, key: str) -> bool:
        """Whether the entry has been created."""
        return os.path.isfile(place.path / (key + _SUFFIX) / "array")  # False, too, without permission to look.

    def __del__(self) -> None:
        if (file := getattr(self, "_file", None)) is not None:
            os.close(file)
        if (user := getattr(self, "_user", None)) is not None:
            with suppress(OSError):  # A process outlives its trials. Mapped rows stay readable if the entry is removed.
                user.unlink()

    def done(self, shard: int) -> bool:
        slot = np.frombuffer(os.pread(self._file, _SLOT.itemsize, self._slot_at(shard)), _SLOT)[0]
        if slot["done"] != _DONE:
            return False
        if (*self._identity, shard) not in _verified:
            if self._crc32(shard) != slot["crc32"]:
                os.pwrite(self._file, bytes(_SLOT.itemsize), self._slot_at(shard))
                return False
            _verified.add((*self._identity, shard))
        return True

    def claim(self, shard: int) -> bool:
        if not _take(self._claim_of(shard)):
            return False
        if self.done(shard):  # Another process has filled it since the caller asked.
            self.release(shard)
            return False
        return True

    def touch(self, shard: int) -> None:
        _touch(self._claim_of(shard))

    def release(self, shard: int) -> None:
        _release(self._claim_of(shard))

    def write(self, shard: int, rows: NDArray[Any]) -> None:
        content = np.ascontiguousarray(rows, dtype=self.form.dtype).data.cast("B")
        _write_all(self._file, content, self._rows_at(shard))
        slot = np.array([(_DONE, zlib.crc32(content))], _SLOT)
        os.pwrite(self._file, slot.tobytes(), self._slot_at(shard))
        _verified.add((*self._identity, shard))

    def array(self) -> NDArray[Any]:
        whole = mmap.mmap(self._file, self._size(self.form), prot=mmap.PROT_READ)
        rows = np.frombuffer(whole, self.form.dtype, offset=self._rows_at(0))
        return rows.reshape(self._count, *self.form.shape)

    @property
    def _path(self) -> Path:
        return self._folder / "array"

    def _claim_of(self, shard: int) -> Path:
        return self._folder / "claims" / str(shard)

    def _slot_at(self, shard: int) -> int:
        return _HEADER_BYTES + shard * _SLOT.itemsize

    def _rows_at(self, shard: int) -> int:
        slots_end = self._slot_at(-(-self._count // SHARD))
        return -(-slots_end // mmap.PAGESIZE) * mmap.PAGESIZE + shard * SHARD * self.form.row_bytes

    def _size(self, form: RowForm) -> int:
        self.form = form
        return self._rows_at(0) + self._count * form.row_bytes

    def _header(self, form: RowForm) -> bytes:
        facts = {"format": FORMAT, "key": self._key, "count": self._count, "shard": SHARD, **asdict(form)}
        facts |= {"bytes": self._size(form)}
        header = json.dumps(facts | {"crc32": zlib.crc32(json.dumps(facts).encode())}).encode()
        assert len(header) <= _HEADER_BYTES
        return header.ljust(_HEADER_BYTES)

    def _open_or_make(self, place: CachePlace, form: Callable[[], RowForm]) -> int:
        """Only one of the processes that find no array creates it, or the disk would have to hold one per process."""
        claim = self._folder / "claims" / "array"
        while (file := self._open()) is None:
            if not _take(claim):
                time.sleep(_POLL_S)
                continue
            try:
                file = self._open()  # Another process may have made it since.
                return self._make(place, form(), claim) if file is None else file
            finally:
                _release(claim)
        return file

    def _open(self) -> int | None:
        """The open file, if it exists, has today's format and is complete; else None."""
        try:
            file = os.open(self._path, os.O_RDWR)
        except FileNotFoundError:
            return None
        header = os.pread(file, _HEADER_BYTES, 0)
        try:
            facts = json.loads(header)
            form = RowForm(tuple(facts["shape"]), facts["dtype"], facts["meaning"])
            if self._header(form) == header and os.fstat(file).st_size == self._size(form):
                return file
        except Exception:  # It has no header of this cache.
            pass
        os.close(file)
        return None

    def _make(self, place: CachePlace, form: RowForm, claim: Path) -> int:
        beside = self._path.with_suffix(".new")
        for left_over in (self._path, beside):
            left_over.unlink(missing_ok=True)
        size = self._size(form)
        _make_room(place, size, self._folder)
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for at in range(0, size, _RESERVED_AT_ONCE):
                _reserve(file, at, min(_RESERVED_AT_ONCE, size - at))
                _touch(claim)
            os.pwrite(file, self._header(form), 0)
            os.replace(beside, self._path)
        except OSError:
            os.close(file)
            beside.unlink(missing_ok=True)
            raise
        return file

    def _crc32(self, shard: int) -> int:
        at = self._rows_at(shard)
        rows = min(SHARD, self._count - shard * SHARD)
        end, found = at + rows * self.form.row_bytes, 0
        while at < end:
            part = os.pread(self._file, min(1 << 22, end - at), at)
            if not part:
                return -1  # The file is truncated.
            found, at = zlib.crc32(part, found), at + len(part)
        return found


Shards = MemoryShards | CacheEntry


@contextmanager
def claimed(shards: Shards, shard: int) -> Iterator[bool]:
    """``with claimed(...) as mine:`` if ``mine``, the caller is to write the shard; it is released at the end."""
    mine = shards.claim(shard)
    try:
        yield mine
    finally:
        if mine:
            with suppress(OSError):  # A claim that cannot be released is soon stale.
                shards.release(shard)


def _make_room(place: CachePlace, needed: int, mine: Path) -> None:
    """Remove unused entries, the least recently used first, until ``needed`` bytes fit; none if they cannot fit."""
    sizes: dict[Path, int] = {}
    used_at: dict[Path, float] = {}
    for folder in place.path.glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            files = [one.stat() for one in folder.iterdir() if one.is_file()]
            sizes[folder] = sum(state.st_size for state in files)
            used_at[folder] = max((state.st_mtime for state in files), default=0.0)
    unused = [one for one in used_at if one != mine and not any(_uses(user) for user in one.glob("users/*"))]
    held = sum(sizes.values())
    limit = place.limit(held)
    left = limit - held + sum(sizes[folder] for folder in unused)
    if needed > left:
        told = f"{needed / 1e9:.1f} GB are needed, {max(0, left) / 1e9:.1f} of {limit / 1e9:.1f} GB are left"
        raise OSError(errno.ENOSPC, told)
    for folder in sorted(unused, key=lambda one: used_at[one]):
        if held + needed <= limit:
            return
        shutil.rmtree(folder, ignore_errors=True)
        held -= sizes[folder]


def _uses(user: Path) -> bool:
    gone = is_gone(user.name)
    if gone is not None:
        return not gone
    with suppress(FileNotFoundError):
        return time.time() - user.stat().st_mtime < _FOREIGN_USER_S
    return False


def _reserve(file: int, at: int, size: int) -> None:
    """Reserve the disk space now: a mapped file without it would kill the process that reads it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, at, size)
    else:  # macOS
        os.truncate(file, at + size)


def _write_all(file: int, content: memoryview, at: int) -> None:
    while content:
        written = os.pwrite(file, content[: 1 << 28], at)
        content, at = content[written:], at + written


def _take(claim: Path) -> bool:
    """Take a claim that nobody holds, or whose holder is dead or idle; return whether the caller now holds it."""
    with suppress(FileExistsError), claim.open("x", encoding="utf-8") as stream:
        stream.write(this_process())
        return True
    try:
        state, owner = claim.stat(), claim.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False  # It was released a moment ago; the caller will ask again.
    if not is_gone(owner) and _now_s(claim) - state.st_mtime < STALE_S:
        return False
    # A claim named after this stale state: of the processes that found the state, only one gets it.
    if not _take(claim.with_name(f"{claim.name}.{state.st_mtime_ns}")):
        return False
    claim.write_text(this_process(), encoding="utf-8")
    return True


def _now_s(claim: Path) -> float:
    """The time by the clock that dates ``claim``, which may be a file server's: touch our own file of the entry."""
    user = claim.parent.with_name("users") / this_process()
    user.touch(0o600)
    return user.stat().st_mtime


def _touch(claim: Path) -> None:
    with suppress(FileNotFoundError):  # Another process has taken it over, done the work and released it.
        os.utime(claim)


def _release(claim: Path) -> None:
    for path in (*claim.parent.glob(f"{claim.name}.*"), claim):
        path.unlink(missing_ok=True)
