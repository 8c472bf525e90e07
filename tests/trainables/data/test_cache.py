from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, get_ident
from types import SimpleNamespace

import filelock._unix
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from search_spaces.errors import UserError
from trainables.data import cache as cache_module
from trainables.data.cache import ImageCache, open_or_build
from trainables.data.decoded import DecodedRows, Record
from trainables.data.image import Prepared, prepare_image


@pytest.fixture
def files(tmp_path: Path, draw: Callable[..., Path]) -> tuple[Path, ...]:
    return tuple(draw(tmp_path / "images" / f"{number}.png", number) for number in range(9))


def test_gray_set_is_kept_in_one_channel_in_the_order_of_the_files(files: tuple[Path, ...], tmp_path: Path) -> None:
    cache = open_or_build(files, 24, "squash", tmp_path / "cache", workers=2)
    images = np.load(cache.path, mmap_mode="r")
    assert images.shape == (9, 1, 24, 24)
    assert images.dtype == np.uint8
    for row, file in enumerate(files):
        assert np.array_equal(images[row, 0], np.asarray(Image.open(file)))


@pytest.mark.parametrize("place", [0, 5, 9])
def test_one_colour_image_makes_three_channels_of_all(
    files: tuple[Path, ...], tmp_path: Path, draw: Callable[..., Path], place: int
) -> None:
    coloured = draw(tmp_path / "images" / "colour.png", 99, mode="RGB")
    mixed = (*files[:place], coloured, *files[place:])
    cache = open_or_build(mixed, 24, "squash", tmp_path / "cache", workers=2)
    images = np.load(cache.path, mmap_mode="r")
    assert images.shape == (10, 3, 24, 24)
    for row, file in enumerate(mixed):
        assert np.array_equal(images[row].transpose(1, 2, 0), np.asarray(Image.open(file).convert("RGB")))
    assert [one.gray for one in cache.stats].count(False) == 1


def test_the_cache_is_the_same_for_any_number_of_workers(files: tuple[Path, ...], tmp_path: Path) -> None:
    caches = [open_or_build(files, 16, "pad", tmp_path / str(workers), workers) for workers in (1, 4)]
    first, second = (cache.path.read_bytes() for cache in caches if cache.path)
    assert first == second


def test_an_existing_cache_is_used_and_not_written_again(files: tuple[Path, ...], tmp_path: Path) -> None:
    first = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    inode = first.path.stat().st_ino
    second = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert second == first
    assert first.path.stat().st_ino == inode


def test_a_cache_made_without_looking_for_near_duplicates_is_not_taken_for_one_with(
    files: tuple[Path, ...], tmp_path: Path
) -> None:
    copy = tmp_path / "images" / "copy.png"
    Image.fromarray(np.asarray(Image.open(files[0])) // 2 + 9).save(copy)
    made = [open_or_build((*files, copy), 16, "squash", tmp_path / "cache", 1, None, wanted) for wanted in (0, 1, 0)]
    assert [[pair[:2] for pair in cache.near.pairs] for cache in made] == [[], [(0, 9)], [(0, 9)]]


def test_size_fit_content_and_order_each_give_another_cache(files: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    variants = [
        open_or_build(files, 16, "squash", folder, 1),
        open_or_build(files, 20, "squash", folder, 1),
        open_or_build(files, 16, "crop", folder, 1),
        open_or_build(files[::-1], 16, "squash", folder, 1),
        open_or_build(files[1:], 16, "squash", folder, 1),
    ]
    assert len({cache.path for cache in variants}) == 5


def test_moved_files_find_their_cache_again(files: tuple[Path, ...], tmp_path: Path) -> None:
    first = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    moved = Path(shutil.move(tmp_path / "images", tmp_path / "elsewhere"))
    second = open_or_build(tuple(moved / file.name for file in files), 16, "squash", tmp_path / "cache", 1)
    assert second.path == first.path


@pytest.mark.parametrize("damage", ["cut", "flip", "no description", "torn description", "torn records"])
def test_a_damaged_cache_is_built_again(files: tuple[Path, ...], tmp_path: Path, damage: str) -> None:
    first = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    whole = first.path.read_bytes()
    description = first.path.with_suffix(".json")
    if damage == "cut":
        first.path.write_bytes(whole[:-100])
    elif damage == "flip":
        first.path.write_bytes(whole[:-100] + b"\x55" + whole[-99:])
    elif damage == "no description":
        description.unlink()
    elif damage == "torn records":
        records = first.path.with_suffix(".jsonl")
        records.write_text(records.read_text()[:-20])
    else:
        description.write_text(description.read_text()[:-20])
    second = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert second == first
    assert first.path.read_bytes() == whole


class Stopped(Exception):
    """Stands for Ctrl-C, which pytest takes for its own."""


def stop_at(row: int) -> Callable[[str, int, int], None]:
    def stop(what: str, done: int, count: int) -> None:
        if (what, done) == ("images read", row):
            raise Stopped

    return stop


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded, as they are."""
    seen: list[Path] = []

    def seeing(source: Path, size: int, fit: str) -> Prepared:
        seen.append(source)
        return prepare_image(source, size, fit)

    monkeypatch.setattr(cache_module, "prepare_image", seeing)
    return seen


def content(cache: ImageCache) -> tuple[object, ...]:
    kept = [cache.path.with_suffix(suffix).read_bytes() for suffix in (".npy", ".smalls", ".jsonl", ".json")]
    return cache.path.name, cache.channels, cache.stats, cache.near, kept


@pytest.mark.parametrize(
    ("damage", "whole"), [("none", 6), ("images", 2), ("smalls", 2), ("records", 5), ("header", 0)]
)
@pytest.mark.parametrize("coloured", [(), (3,), (7,)])
def test_an_interrupted_sweep_goes_on_from_its_last_whole_row(
    files: tuple[Path, ...],
    tmp_path: Path,
    draw: Callable[..., Path],
    decoded: list[Path],
    damage: str,
    whole: int,
    coloured: tuple[int, ...],
) -> None:
    for row in coloured:
        draw(files[row], 50, mode="RGB")
    with pytest.raises(Stopped):
        open_or_build(files, 24, "squash", tmp_path / "cache", 1, stop_at(6))
    (part,) = (tmp_path / "cache").glob(".*.npy")
    if damage == "images":
        damaged = bytearray(part.read_bytes())
        damaged[128 + 2 * 24 * 24 * (3 if 3 in coloured else 1) + 5] ^= 1
        part.write_bytes(damaged)
    elif damage == "smalls":
        smalls = part.with_suffix(".smalls")
        smalls.write_bytes(smalls.read_bytes()[: 3 * 56 * 56 - 1])
    elif damage == "records":
        records = part.with_suffix(".jsonl")
        records.write_bytes(records.read_bytes()[:-9])
    elif damage == "header":
        part.write_bytes(part.read_bytes()[:20])
    decoded.clear()
    cache = open_or_build(files, 24, "squash", tmp_path / "cache", 1)
    assert decoded == list(files[whole:])
    assert content(cache) == content(open_or_build(files, 24, "squash", tmp_path / "other", 1))
    assert sorted((tmp_path / "cache").iterdir()) == sorted((tmp_path / "cache").glob(f"{cache.path.stem}.*"))


@pytest.mark.parametrize("stopped", [None, 6])
@pytest.mark.parametrize("coloured", [False, True])
def test_another_list_decodes_only_what_is_new_to_it(
    files: tuple[Path, ...],
    tmp_path: Path,
    draw: Callable[..., Path],
    decoded: list[Path],
    stopped: int | None,
    coloured: bool,
) -> None:
    if coloured:
        draw(files[0], 50, mode="RGB")
    with contextlib.suppress(Stopped):
        open_or_build(files, 16, "pad", tmp_path / "cache", 1, stop_at(stopped or 0))
    decoded.clear()
    new = draw(tmp_path / "images" / "new.png", 99)
    changed = (*files[8:2:-1], new, files[1])
    cache = open_or_build(changed, 16, "pad", tmp_path / "cache", 1)
    assert sorted(decoded) == sorted([new, *files[stopped or 9 :]])
    assert content(cache) == content(open_or_build(changed, 16, "pad", tmp_path / "other", 1))


def test_rows_of_another_size_fit_or_damaged_are_not_reused(
    files: tuple[Path, ...], tmp_path: Path, decoded: list[Path]
) -> None:
    first = open_or_build(files, 16, "pad", tmp_path / "cache", 1)
    decoded.clear()
    open_or_build(files[1:], 16, "crop", tmp_path / "cache", 1)
    open_or_build(files[1:], 20, "pad", tmp_path / "cache", 1)
    assert decoded == [*files[1:], *files[1:]]
    damaged = bytearray(first.path.read_bytes())
    damaged[128 + 4 * 16 * 16] ^= 1
    first.path.write_bytes(damaged)
    decoded.clear()
    open_or_build(files[2:], 16, "pad", tmp_path / "cache", 1)
    assert decoded == [files[4]]


def test_an_interrupted_set_stays_until_a_whole_one_has_all_its_images(files: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(Stopped):
        open_or_build(files, 16, "squash", folder, 1, stop_at(6))
    open_or_build(files[:4], 16, "squash", folder, 1)
    assert len(list(folder.glob(".*.npy"))) == 1
    open_or_build(files[:7], 16, "squash", folder, 1)
    assert list(folder.glob(".*")) == []


def test_what_could_not_be_read_is_tried_again_and_the_rest_kept(
    files: tuple[Path, ...], tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pydicom")
    examples = pytest.importorskip("pydicom.examples")
    shutil.copy(examples.get_path("ct"), files[3])
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pydicom", None)
        first = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
        assert str(first.stats[3].reason).startswith("a DICOM file, and pydicom is not installed")
        assert open_or_build(files, 16, "squash", tmp_path / "cache", 1) == first
    decoded.clear()
    second = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert set(decoded) == {files[3]}
    assert content(second) == content(open_or_build(files, 16, "squash", tmp_path / "other", 1))
    assert second.stats[3].reason is None


def test_what_an_interrupted_sweep_left_is_read_by_several_workers_at_a_time(
    files: tuple[Path, ...], tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        open_or_build(files, 16, "squash", tmp_path / "cache", 1, stop_at(6))
    reading, three_read, read = set[int](), Event(), DecodedRows.read

    def answered(rows: DecodedRows, row: int, record: Record) -> Prepared | None:
        reading.add(get_ident())
        if len(reading) == 3:
            three_read.set()
        assert three_read.wait(timeout=30)
        return read(rows, row, record)

    monkeypatch.setattr(DecodedRows, "read", answered)
    decoded.clear()
    cache = open_or_build(files, 16, "squash", tmp_path / "cache", 3)
    assert set(decoded) == {*files[6:]}
    assert content(cache) == content(open_or_build(files, 16, "squash", tmp_path / "other", 1))


def test_waiting_for_another_sweep_shows_how_far_that_is(files: tuple[Path, ...], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        open_or_build(files, 16, "squash", tmp_path / "cache", 1, stop_at(4))
    (part,) = (tmp_path / "cache").glob(".*.npy")
    other = FileLock(part.with_suffix(".lock"))
    other.acquire()
    seen: list[int] = []

    def see(what: str, done: int, count: int) -> None:
        if what == "images read":
            seen.append(done)
            other.release()

    open_or_build(files, 16, "squash", tmp_path / "cache", 1, see)
    assert seen == [4, *range(1, 10)]


@pytest.mark.parametrize("shape", [(6, 28, 28), (6, 28, 28, 3)])
def test_arrays_are_decoded_as_files_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    cache = open_or_build(pixels, 28, "squash", tmp_path / "cache", 2)
    images = np.load(cache.path)
    assert np.array_equal(images[:, 0] if len(shape) == 3 else images.transpose(0, 2, 3, 1), pixels)
    assert {(one.width, one.height, one.mode) for one in cache.stats} == {(28, 28, "L" if len(shape) == 3 else "RGB")}


def test_two_sweeps_building_at_once_leave_one_whole_cache(files: tuple[Path, ...], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: open_or_build(files, 16, "squash", tmp_path / "cache", 2), range(4)))
    assert len({cache.path for cache in caches}) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json", ".jsonl", ".npy", ".smalls"]
    assert open_or_build(files, 16, "squash", tmp_path / "cache", 1) == caches[0]


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSYS, "no locks here")


def test_so_they_do_where_the_file_system_has_no_locks(
    files: tuple[Path, ...], tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_or_build(files, 16, "squash", tmp_path / "other", 1)
    monkeypatch.setattr(filelock._unix.fcntl, "flock", refuse)
    with pytest.raises(Stopped):
        open_or_build(files, 16, "squash", tmp_path / "cache", 1, stop_at(6))
    decoded.clear()
    begun = Barrier(4)

    def together(what: str, done: int, count: int) -> None:
        if (what, done) == ("images read", 1):
            begun.wait()

    def build(_: int) -> ImageCache:
        return open_or_build(files, 16, "squash", tmp_path / "cache", 1, together)

    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(build, range(4)))
    assert {*decoded} == {*files[6:]}, "what was interrupted is used"
    assert [content(cache) for cache in caches] == [content(whole)] * 4


def test_unreadable_file_leaves_a_black_row_and_its_reason(files: tuple[Path, ...], tmp_path: Path) -> None:
    files[3].write_bytes(b"")
    files[4].unlink()
    cache = open_or_build(files, 16, "squash", tmp_path / "cache", 2)
    images = np.load(cache.path, mmap_mode="r")
    assert images[3].max() == images[4].max() == 0
    assert cache.stats[3].reason == "the file is empty (0 bytes)"
    assert cache.stats[4].reason == "cannot be opened: No such file or directory"


def test_a_full_disk_is_told_before_decoding(
    files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"need 0\.00 GB.*--image-size.*--storage"):
        open_or_build(files, 24, "squash", tmp_path / "cache", 1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_twelve_thousand_gray_images_at_224_px_fit_in_0_65_gb(files: tuple[Path, ...], tmp_path: Path) -> None:
    cache = open_or_build(files, 224, "squash", tmp_path / "cache", 1)
    header = cache.path.stat().st_size - len(files) * 224 * 224
    assert 0 < header < 200
    beside = sum(cache.path.with_suffix(suffix).stat().st_size for suffix in (".json", ".jsonl", ".smalls")) / len(
        files
    )
    assert 12_000 * (224 * 224 + beside) < 0.65e9


def test_description_names_no_file(files: tuple[Path, ...], tmp_path: Path) -> None:
    cache = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    text = cache.path.with_suffix(".json").read_text()
    assert "images" not in text + cache.path.with_suffix(".jsonl").read_text()
    assert json.loads(text)["shape"] == [9, 1, 16, 16]


@pytest.mark.parametrize("locks", [True, False])
def test_leftovers_of_a_sweep_killed_long_ago_are_removed(
    files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(filelock._unix.fcntl, "flock", refuse)
    folder = tmp_path / "cache"
    folder.mkdir()
    old, young = folder / ".aa-1.npy", folder / ".bb-2.npy"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    open_or_build(files, 16, "squash", folder, 1)
    assert not old.exists()
    assert young.exists()


def test_progress_counts_files_and_of_no_cache_that_is_there_images(files: tuple[Path, ...], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    for _ in range(2):
        open_or_build(files, 16, "squash", tmp_path / "cache", 2, lambda *told: seen.append(told))
    recognised, read = ([(what, done, 9) for done in range(1, 10)] for what in ("files recognised", "images read"))
    assert seen == [*recognised, *read, *recognised]


def test_a_place_that_cannot_be_written_is_named(files: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*file/cache: Not a directory"):
        open_or_build(files, 16, "squash", tmp_path / "file" / "cache", 1)
