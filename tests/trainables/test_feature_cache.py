"""Entries that several processes fill, that are damaged, removed or do not fit: right rows, or ``OSError``."""

from __future__ import annotations

import errno
import gc
import hashlib
import mmap
import os
import shutil
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainables import feature_cache
from trainables.feature_cache import (
    LARGEST_CACHE_BYTES,
    SHARD,
    STALE_S,
    CacheEntry,
    CachePlace,
    MemoryShards,
    RowForm,
    claimed,
)
from trainables.processes import this_process

COUNT = 2 * SHARD + 50
FORM = RowForm((3,), "<f4", "float32 contiguous")
ROWS = np.arange(COUNT * 3, dtype="<f4").reshape(COUNT, 3)

FILLER = f"""
import hashlib, os, sys, time
import numpy as np
from trainables.feature_cache import SHARD, CacheEntry, CachePlace, RowForm, claimed

folder, key, log, limit, then = sys.argv[1:]
rows = np.arange({COUNT} * 3, dtype="<f4").reshape({COUNT}, 3)
log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def say(what):
    os.write(log, (what + "\\n").encode())

def form():
    say("made")
    time.sleep(0.05)
    return RowForm((3,), "<f4", "float32 contiguous")

print("ready", flush=True)
sys.stdin.readline()
entry = CacheEntry(CachePlace(folder, int(limit) or None), key, {COUNT}, form)
todo = list(range(-(-{COUNT} // SHARD)))
while todo:
    left = []
    for shard in todo:
        if entry.done(shard):
            continue
        with claimed(entry, shard) as mine:
            if mine:
                say(str(shard))
                if then == "hang":
                    print("claimed", flush=True)
                    sys.stdin.readline()
                time.sleep(0.02)  # Others come by meanwhile.
                entry.write(shard, rows[shard * SHARD:][:SHARD])
            else:
                left.append(shard)
    todo = left
    time.sleep(0.01)
print(hashlib.sha256(entry.array().tobytes()).hexdigest(), flush=True)
"""


@pytest.fixture(autouse=True)
def new_process() -> None:
    """A test has verified nothing yet."""
    feature_cache._verified.clear()


@pytest.fixture
def place(tmp_path: Path) -> CachePlace:
    return CachePlace(str(tmp_path / "cache"))


def opened(place: CachePlace, key: str = "k1", count: int = COUNT, form: RowForm = FORM) -> CacheEntry:
    return CacheEntry(place, key, count, lambda: form)


def array_of(place: CachePlace, key: str = "k1") -> Path:
    (found,) = place.path.glob(f"{key}*/array")
    return found


def fill(entry: CacheEntry, rows: NDArray[np.float32] = ROWS) -> list[int]:
    """Which shards had to be written."""
    written = []
    for shard in range(-(-len(rows) // SHARD)):
        if not entry.done(shard):
            with claimed(entry, shard) as mine:
                assert mine
                entry.write(shard, rows[shard * SHARD :][:SHARD])
            written.append(shard)
    return written


def filler(
    place: CachePlace, log: Path, key: str = "k1", limit_bytes: int = 0, then: str = "end"
) -> subprocess.Popen[str]:
    """A process that waits for a line, and then fills an entry."""
    command = [sys.executable, "-c", FILLER, place.folder, key, str(log), str(limit_bytes), then]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def left_by_a_dead_process(place: CachePlace, log: Path, key: str = "k1") -> None:
    process = filler(place, log, key)
    process.communicate("\n")
    assert process.returncode == 0


@pytest.fixture
def dead() -> str:
    """The name of a process of this host that has ended."""
    command = [sys.executable, "-c", "from trainables.processes import this_process; print(this_process())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_what_was_written_is_read_by_whoever_opens_the_entry_later(place: CachePlace) -> None:
    assert fill(opened(place)) == [0, 1, 2]
    feature_cache._verified.clear()
    again = CacheEntry(place, "k1", COUNT, form=lambda: pytest.fail("the form is in the header"))
    assert fill(again) == []
    assert again.form == FORM
    np.testing.assert_array_equal(again.array(), ROWS)


def test_many_shards_leave_room_for_their_checksums(place: CachePlace) -> None:
    """Of 600 these take more than a page of 4 kB."""
    entry = opened(place, count=600 * SHARD, form=RowForm((), "<u2"))
    rows = np.arange(600 * SHARD).astype("<u2")
    assert fill(entry, rows) == list(range(600))
    feature_cache._verified.clear()
    assert fill(entry, rows) == []
    np.testing.assert_array_equal(entry.array(), rows)


def test_rows_in_memory_are_the_same_as_on_disk(place: CachePlace) -> None:
    memory, entry = MemoryShards(COUNT, FORM), opened(place)
    fill(entry)
    for shard in (2, 0, 1):
        assert not memory.done(shard)
        assert memory.claim(shard)
        memory.write(shard, ROWS[shard * SHARD :][:SHARD])
        assert memory.done(shard)
    assert memory.array().tobytes() == entry.array().tobytes()


def test_a_shard_is_not_done_before_it_is_written_and_is_of_one_claimant(place: CachePlace) -> None:
    one, other = opened(place), opened(place)
    assert one.claim(1)
    assert not one.done(1)
    assert not other.claim(1)
    assert other.claim(0)
    one.write(1, ROWS[SHARD : 2 * SHARD])
    one.release(1)
    assert other.done(1)
    assert not other.claim(1), "it is done"
    assert not list(place.path.glob("*/claims/1*"))


def test_an_entry_can_be_read_by_its_owner_alone(place: CachePlace) -> None:
    before = os.umask(0)
    try:
        fill(opened(place))
    finally:
        os.umask(before)
    folders = [place.path, *(path for path in place.path.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert stat.S_IMODE(array_of(place).stat().st_mode) == 0o600


def refilled(place: CachePlace) -> list[int]:
    """What a new process has to compute so that all rows are right, as it then sees them."""
    feature_cache._verified.clear()
    entry = opened(place)
    written = fill(entry)
    np.testing.assert_array_equal(entry.array(), ROWS)
    assert entry.form == FORM
    return written


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[CachePlace, bytes]:
    place = CachePlace(str(tmp_path_factory.mktemp("damaged")))
    fill(opened(place))
    return place, array_of(place).read_bytes()


FIRST_ROW = max(2 * 4096, mmap.PAGESIZE)  # Header and checksums take 4 kB each, and rows begin with a page.


@given(offset=st.integers(0, 400) | st.integers(4096, 4120) | st.integers(0, 13_000), mask=st.integers(1, 255))
def test_a_changed_byte_is_found_or_harmless(whole: tuple[CachePlace, bytes], offset: int, mask: int) -> None:
    place, content = whole
    damaged = bytearray(content)
    damaged[offset] ^= mask
    array_of(place).write_bytes(damaged)
    written = refilled(place)
    if offset < 4096:
        assert written == [0, 1, 2]
    elif offset >= FIRST_ROW:
        assert written == [(offset - FIRST_ROW) // (SHARD * FORM.row_bytes)]


def test_every_byte_of_the_header_counts(whole: tuple[CachePlace, bytes]) -> None:
    place, content = whole
    for offset in range(len(content[:4096].rstrip()) + 1):
        damaged = bytearray(content)
        damaged[offset] ^= 1
        array_of(place).write_bytes(damaged)
        assert refilled(place) == [0, 1, 2], content[offset : offset + 20]


@given(length=st.integers(0, FIRST_ROW + ROWS.nbytes - 1))
def test_a_file_that_is_cut_off_is_made_again(whole: tuple[CachePlace, bytes], length: int) -> None:
    place, content = whole
    array_of(place).write_bytes(content[:length])
    assert refilled(place) == [0, 1, 2]


@given(garbage=st.binary(max_size=5000) | st.sampled_from([b"[" * 9000, b"{}", b'{"shape": 3}', b"9" * 9000]))
def test_garbage_is_made_again(whole: tuple[CachePlace, bytes], garbage: bytes) -> None:
    place, content = whole
    array_of(place).write_bytes(garbage + content[len(garbage) :])
    assert refilled(place) == ([0, 1, 2] if garbage and garbage != content[: len(garbage)] else [])


def test_another_format_is_made_again(place: CachePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "FORMAT", feature_cache.FORMAT + 1)
    fill(opened(place))
    monkeypatch.undo()
    assert refilled(place) == [0, 1, 2]


def test_who_has_mapped_damaged_rows_keeps_them_apart_from_those_made_again(place: CachePlace) -> None:
    fill(opened(place))
    mapped = opened(place).array()
    os.truncate(array_of(place), array_of(place).stat().st_size + 1)
    assert refilled(place) == [0, 1, 2]
    np.testing.assert_array_equal(mapped, ROWS)


def test_the_claim_of_a_dead_process_is_taken_at_once(place: CachePlace, dead: str) -> None:
    entry = opened(place)
    assert entry.claim(0)
    claim_of(place, 0).write_text(dead)
    assert entry.claim(0)


def claim_of(place: CachePlace, shard: int) -> Path:
    return array_of(place).parent / "claims" / str(shard)


@pytest.mark.parametrize(
    "owner",
    ["elsewhere-1", this_process(), ""],
    ids=["of another machine", "of this one", "of nobody"],
)
def test_a_claim_that_has_not_moved_is_taken_by_one_of_all_who_try(place: CachePlace, owner: str) -> None:
    entries = [opened(place) for _ in range(8)]
    assert entries[0].claim(0)
    claim = claim_of(place, 0)
    claim.write_text(owner)
    assert not entries[1].claim(0)
    os.utime(claim, (time.time() - STALE_S - 1,) * 2)
    entries[0].touch(0)
    assert not entries[1].claim(0), "its owner is at work"
    for _ in range(5):
        os.utime(claim, (time.time() - STALE_S - 1,) * 2)
        start = Barrier(len(entries))

        def take(entry: CacheEntry, start: Barrier = start) -> bool:
            start.wait()
            return entry.claim(0)

        with ThreadPoolExecutor(len(entries)) as pool:
            assert sum(pool.map(take, entries)) == 1


@pytest.mark.parametrize("ahead_s", [300, -300])
def test_a_claim_is_judged_by_the_clock_that_dates_it(
    place: CachePlace, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """That of a file server; the machine's own may be minutes off."""
    owner, other, now = opened(place), opened(place), time.time()
    assert owner.claim(0)
    own_clock = SimpleNamespace(time=lambda: now + ahead_s, sleep=time.sleep)
    monkeypatch.setattr(feature_cache, "time", own_clock)
    assert not other.claim(0)
    os.utime(claim_of(place, 0), (now - STALE_S - 1,) * 2)
    assert other.claim(0)


def test_a_claim_is_taken_also_if_who_was_about_to_take_it_is_dead(place: CachePlace, dead: str) -> None:
    entry = opened(place)
    assert entry.claim(0)
    claim = claim_of(place, 0)
    claim.write_text(dead)
    claim.with_name(f"0.{claim.stat().st_mtime_ns}").write_text(dead)
    assert entry.claim(0)
    entry.release(0)
    assert not list(claim.parent.iterdir())


def test_who_was_overtaken_may_go_on(place: CachePlace) -> None:
    slow, other = opened(place), opened(place)
    assert slow.claim(0)
    os.utime(claim_of(place, 0), (0, 0))
    assert other.claim(0)
    other.write(0, ROWS[:SHARD])
    other.release(0)
    slow.touch(0)
    slow.write(0, ROWS[:SHARD])
    slow.release(0)
    assert refilled(place) == [1, 2]


def test_processes_share_an_entry_and_compute_each_shard_once(place: CachePlace, tmp_path: Path) -> None:
    """Though there is room for one array alone."""
    log, room = tmp_path / "log", FIRST_ROW + ROWS.nbytes
    processes = [filler(place, log, limit_bytes=room) for _ in range(4)]
    assert {heard(process) for process in processes} == {"ready"}
    for process in processes:
        tell(process)
    answers = {heard(process) for process in processes}
    assert [process.wait() for process in processes] == [0] * 4
    for process in processes:
        process.communicate()
    assert answers == {hashlib.sha256(ROWS.tobytes()).hexdigest()}
    assert sorted(log.read_text().split()) == ["0", "1", "2", "made"]


def test_what_a_killed_process_had_claimed_is_done_by_another(place: CachePlace, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with filler(place, log, then="hang") as killed:
        tell(killed)
        assert [heard(killed), heard(killed)] == ["ready", "claimed"]
        with filler(place, log) as other:
            tell(other)
            while log.read_text().split().count("2") == 0:
                time.sleep(0.01)
            assert other.poll() is None
            killed.kill()
            killed.wait()
            assert [heard(other), heard(other)] == ["ready", hashlib.sha256(ROWS.tobytes()).hexdigest()]
    assert sorted(log.read_text().split()) == ["0", "0", "1", "2", "made"]


def test_a_maker_that_died_before_the_array_was_there_is_replaced(place: CachePlace, dead: str) -> None:
    folder = array_of_nobody(place)
    (folder / "claims" / "array").write_text(dead)
    (folder / "array.new").write_bytes(bytes(FIRST_ROW + ROWS.nbytes))
    assert fill(opened(CachePlace(place.folder, FIRST_ROW + ROWS.nbytes))) == [0, 1, 2], "it needs its room only once"
    assert {path.name for path in folder.iterdir()} == {"array", "claims", "users"}


def array_of_nobody(place: CachePlace) -> Path:
    """The folder of an entry whose array is gone."""
    opened(place)
    array_of(place).unlink()
    (folder,) = place.path.iterdir()
    return folder


def test_a_file_in_place_of_the_folder_is_an_os_error(place: CachePlace) -> None:
    place.path.write_text("mine")
    with pytest.raises(OSError):
        opened(place)
    assert place.path.read_text() == "mine"


def test_too_little_room_is_an_os_error_and_takes_nothing(place: CachePlace) -> None:
    with pytest.raises(OSError) as caught:
        opened(CachePlace(place.folder, limit_bytes=FIRST_ROW + ROWS.nbytes - 1))
    assert caught.value.errno == errno.ENOSPC
    assert not list(place.path.rglob("array*"))


def test_a_disk_that_has_too_little_room_is_an_os_error_and_takes_nothing(place: CachePlace) -> None:
    code = (
        "import resource, sys\n"
        "from trainables.feature_cache import CacheEntry, CachePlace, RowForm\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    CacheEntry(CachePlace(sys.argv[1]), 'k1', 600, lambda: RowForm((100,), '<f4'))\n"
        "except OSError:\n"
        "    print('refused')\n"
    )
    said = subprocess.run([sys.executable, "-c", code, place.folder], capture_output=True, text=True, check=True)
    assert said.stdout == "refused\n"
    assert not list(place.path.rglob("array*"))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system takes no room for a file ahead")
def test_the_room_is_taken_before_the_first_row(place: CachePlace) -> None:
    """A map of a file with holes, on a disk that is full by then, would kill the process."""
    entry = opened(place)
    state = array_of(place).stat()
    assert state.st_blocks * 512 >= state.st_size == FIRST_ROW + ROWS.nbytes
    assert (entry.array() == 0).all()


def test_who_makes_a_large_array_on_a_slow_disk_keeps_its_claim(
    place: CachePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 2 MB a second."""
    steps: list[int] = []

    def reserve(file: int, at: int, size: int) -> None:
        os.truncate(file, at + size)
        steps.append(size)

    monkeypatch.setattr(feature_cache, "_reserve", reserve)
    opened(CachePlace(place.folder, 1 << 30), count=SHARD, form=RowForm((300_000,), "<f4"))
    assert sum(steps) == array_of(place).stat().st_size > 300_000_000
    assert max(steps) / 2_000_000 < STALE_S


def test_the_limit_by_default_is_a_part_of_what_the_disk_has_without_the_cache(
    place: CachePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    assert place.limit(held_bytes=0) == 200_000_000
    assert place.limit(held_bytes=10**9) == 400_000_000
    assert place.limit(held_bytes=10**15) == LARGEST_CACHE_BYTES


def test_the_folder_follows_the_users_home_and_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/me")
    assert CachePlace("~/.cache/sweeps/features").path == Path("/scratch/me/sweeps/features")
    assert CachePlace("~/features").path == Path.home() / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "scratch/me")  # The XDG standard: a relative path is to be ignored.
    assert CachePlace("~/.cache/sweeps/features").path == Path.home() / ".cache" / "sweeps" / "features"


@pytest.fixture
def crowded(place: CachePlace, tmp_path: Path) -> CacheEntry:
    """Three entries: "mine", which this process uses, and "older" and "younger", which nobody uses any more."""
    for age_s, key in ((200, "older"), (100, "younger")):
        left_by_a_dead_process(place, tmp_path / "log", key)
        os.utime(array_of(place, key), (time.time() - age_s,) * 2)
    mine = opened(place, "mine")
    os.utime(array_of(place, "mine"), (time.time() - 300,) * 2)
    return mine


@pytest.mark.parametrize(("room", "left"), [(4, ["mine", "older", "younger"]), (3, ["mine", "younger"]), (2, ["mine"])])
def test_the_entry_used_longest_ago_goes_first_and_none_that_is_in_use(
    place: CachePlace, crowded: CacheEntry, room: int, left: list[str]
) -> None:
    limit_bytes = room * (FIRST_ROW + ROWS.nbytes)
    opened(CachePlace(place.folder, limit_bytes), "new")
    assert sorted(path.stem for path in place.path.iterdir()) == sorted([*left, "new"])


def test_where_too_much_is_in_use_there_is_no_room_and_the_rest_stays(place: CachePlace, crowded: CacheEntry) -> None:
    with pytest.raises(OSError) as caught:
        opened(CachePlace(place.folder, FIRST_ROW + ROWS.nbytes), "new")
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.parent.stem for path in place.path.glob("*/array")) == ["mine", "older", "younger"]


def test_a_disk_that_is_full_before_the_limit_is_reached_gets_room_too(
    place: CachePlace, crowded: CacheEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = (FIRST_ROW + ROWS.nbytes) // 2
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    opened(CachePlace(place.folder, limit_bytes=10**15), "new")
    assert sorted(path.stem for path in place.path.iterdir()) == ["mine", "new", "younger"]


def test_an_entry_that_this_process_has_done_with_makes_room(place: CachePlace) -> None:
    """A worker lives as long as its sweep."""
    fill(opened(place, "old"))
    gc.collect()
    opened(CachePlace(place.folder, FIRST_ROW + ROWS.nbytes), "new")
    assert [path.stem for path in place.path.iterdir()] == ["new"]


def test_a_place_that_cannot_be_looked_at_holds_nothing_and_has_a_limit(tmp_path: Path) -> None:
    place = CachePlace(str(tmp_path / ("x" * 300)))
    assert not CacheEntry.is_there(place, "k1")
    assert place.limit(0) > 0


def test_an_entry_that_another_host_has_used_today_stays(place: CachePlace, crowded: CacheEntry) -> None:
    for key, age_s in (("older", 3600), ("younger", 2 * 86_400)):
        user = array_of(place, key).parent / "users" / "elsewhere-1"
        user.touch()
        os.utime(user, (time.time() - age_s,) * 2)
    opened(CachePlace(place.folder, 3 * (FIRST_ROW + ROWS.nbytes)), "new")
    assert sorted(path.stem for path in place.path.iterdir()) == ["mine", "new", "older"]


def test_what_else_lies_in_the_folder_is_left_alone(place: CachePlace) -> None:
    """The user may name a folder that holds other things."""
    other = place.path / "holidays"
    (other / "users").mkdir(parents=True)
    (other / "array").write_bytes(bytes(100_000))
    os.utime(other / "array", (0, 0))
    opened(CachePlace(place.folder, FIRST_ROW + ROWS.nbytes))
    assert (other / "array").stat().st_size == 100_000


def test_rows_stay_readable_while_the_entry_is_removed_and_claims_tell_of_it(place: CachePlace) -> None:
    entry = opened(place)
    entry.write(0, ROWS[:SHARD])
    rows = entry.array()
    shutil.rmtree(place.path)
    np.testing.assert_array_equal(rows[:SHARD], ROWS[:SHARD])
    assert entry.done(0)
    with pytest.raises(OSError):
        entry.claim(1)
    assert refilled(place) == [0, 1, 2]


def test_a_claim_is_given_back_when_computing_fails(place: CachePlace) -> None:
    entry = opened(place)
    with pytest.raises(TimeoutError), claimed(entry, 0):
        raise TimeoutError
    assert entry.claim(0)
