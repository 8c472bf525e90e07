from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from search_spaces.errors import UserError
from trainables.data.cache import cache_bytes, open_or_build


@pytest.fixture
def files(tmp_path: Path, draw: Callable[..., Path]) -> tuple[Path, ...]:
    return tuple(draw(tmp_path / "images" / f"{number}.png", number) for number in range(9))


def test_gray_set_is_kept_in_one_channel_in_the_order_of_the_files(files: tuple[Path, ...], tmp_path: Path) -> None:
    cache = open_or_build(files, 24, "squash", tmp_path / "cache", workers=2)
    assert cache.path is not None
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
    assert cache.path is not None
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
    assert first.path is not None
    inode = first.path.stat().st_ino
    second = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert second == first
    assert first.path.stat().st_ino == inode


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


@pytest.mark.parametrize("damage", ["cut", "flip", "no description", "torn description"])
def test_a_damaged_cache_is_built_again(files: tuple[Path, ...], tmp_path: Path, damage: str) -> None:
    first = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert first.path is not None
    whole = first.path.read_bytes()
    description = first.path.with_suffix(".json")
    if damage == "cut":
        first.path.write_bytes(whole[:-100])
    elif damage == "flip":
        first.path.write_bytes(whole[:-100] + b"\x55" + whole[-99:])
    elif damage == "no description":
        description.unlink()
    else:
        description.write_text(description.read_text()[:-20])
    second = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert second == first
    assert first.path.read_bytes() == whole


def test_two_sweeps_building_at_once_leave_one_whole_cache(files: tuple[Path, ...], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: open_or_build(files, 16, "squash", tmp_path / "cache", 2), range(4)))
    assert len({cache.path for cache in caches}) == 1
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json", ".npy"]
    assert open_or_build(files, 16, "squash", tmp_path / "cache", 1) == caches[0]


def test_unreadable_file_leaves_a_black_row_and_its_reason(files: tuple[Path, ...], tmp_path: Path) -> None:
    files[3].write_bytes(b"")
    files[4].unlink()
    cache = open_or_build(files, 16, "squash", tmp_path / "cache", 2)
    assert cache.path is not None
    images = np.load(cache.path, mmap_mode="r")
    assert images[3].max() == images[4].max() == 0
    assert cache.stats[3].reason == "the file is empty (0 bytes)"
    assert cache.stats[4].reason == "cannot be opened: No such file or directory"


def test_nothing_is_written_without_a_place(files: tuple[Path, ...], tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    cache = open_or_build(files, 16, "squash", None, 2)
    assert cache.path is None
    assert set(tmp_path.rglob("*")) == before


def test_a_full_disk_is_told_before_decoding(
    files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"need 0\.00 GB.*--image-size.*--storage"):
        open_or_build(files, 24, "squash", tmp_path / "cache", 1)
    assert list((tmp_path / "cache").iterdir()) == []


def test_twelve_thousand_gray_images_at_224_px_fit_in_0_65_gb(files: tuple[Path, ...], tmp_path: Path) -> None:
    cache = open_or_build(files, 224, "squash", tmp_path / "cache", 1)
    assert cache.path is not None
    header = cache.path.stat().st_size - cache_bytes(len(files), 1, 224)
    assert header < 200
    description_per_image = cache.path.with_suffix(".json").stat().st_size / len(files)
    assert cache_bytes(12_000, 1, 224) + 12_000 * description_per_image < 0.65e9


def test_description_names_no_file(files: tuple[Path, ...], tmp_path: Path) -> None:
    cache = open_or_build(files, 16, "squash", tmp_path / "cache", 1)
    assert cache.path is not None
    text = cache.path.with_suffix(".json").read_text()
    assert "images" not in text
    assert json.loads(text)["shape"] == [9, 1, 16, 16]


def test_leftovers_of_a_sweep_killed_long_ago_are_removed(files: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    old, young = folder / ".aa-1.npy", folder / ".bb-2.npy"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    open_or_build(files, 16, "squash", folder, 1)
    assert not old.exists()
    assert young.exists()


def test_progress_counts_images_and_is_silent_for_a_cache_that_is_there(
    files: tuple[Path, ...], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        open_or_build(files, 16, "squash", tmp_path / "cache", 2, lambda done, count: seen.append((done, count)))
    assert seen == [(done, 9) for done in range(1, 10)]


def test_a_place_that_cannot_be_written_is_named(files: tuple[Path, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*file/cache: Not a directory"):
        open_or_build(files, 16, "squash", tmp_path / "file" / "cache", 1)
