from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.folder import list_folder


def listed(root: Path):
    return list_folder(root, DataConfig(data=str(root)))


def test_split_folders_give_splits_and_classes(split_folder: Path) -> None:
    samples = listed(split_folder)
    assert samples.classes == ("ill", "well")
    assert samples.splits is not None
    assert [samples.splits.count(split) for split in ("train", "val", "test")] == [24, 8, 8]
    assert samples.paths[0] == "test/ill/00.png"
    assert all(path.split("/")[1] == samples.label_text(row) for row, path in enumerate(samples.paths))
    assert samples.checks == samples.problems == ()


@pytest.mark.parametrize("names", [("Training", "VALIDATION", "Test"), ("train", "dev", "testing")])
def test_split_folders_go_by_other_names_too(split_folder: Path, names: tuple[str, str, str]) -> None:
    for old, new in zip(("train", "val", "test"), names, strict=True):
        (split_folder / old).rename(split_folder / "moved").rename(split_folder / new)
    samples = listed(split_folder)
    assert samples.splits is not None
    assert [samples.splits.count(split) for split in ("train", "val", "test")] == [24, 8, 8]


def test_class_folders_alone_leave_the_splits_to_us(split_folder: Path) -> None:
    samples = listed(split_folder / "train")
    assert samples.splits is None
    assert samples.classes == ("ill", "well")


def test_upper_case_extensions_spaces_and_other_scripts_are_read(tmp_path: Path, draw: Callable[..., Path]) -> None:
    draw(tmp_path / "with result" / "Röntgen bild 1.PNG", 1)
    draw(tmp_path / "ohne Befund" / "胸部.JPeG", 2)
    assert listed(tmp_path).paths == ("ohne Befund/胸部.JPeG", "with result/Röntgen bild 1.PNG")


def test_deeper_folders_belong_to_their_class(split_folder: Path, draw: Callable[..., Path]) -> None:
    draw(split_folder / "train" / "ill" / "patient 7" / "2020" / "a.png", 500)
    samples = listed(split_folder)
    row = samples.paths.index("train/ill/patient 7/2020/a.png")
    assert samples.label_text(row) == "ill"


def test_links_are_followed_and_a_loop_ends(split_folder: Path, tmp_path: Path) -> None:
    shutil.move(split_folder / "train" / "ill", tmp_path / "elsewhere")
    (split_folder / "train" / "ill").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert len(listed(split_folder)) == 40


def test_hidden_and_other_files_are_left_out_and_named(split_folder: Path) -> None:
    (split_folder / "train" / "ill" / "notes.txt").write_text("x")
    (split_folder / "train" / "ill" / ".DS_Store").write_text("x")
    (split_folder / "train" / "stray.png").write_text("x")
    (split_folder / "README.md").write_text("x")
    (result,) = listed(split_folder).checks
    assert (result.severity, result.count) == ("info", 4)
    assert set(result.items) == {
        ("train/ill/notes.txt",),
        ("train/ill/.DS_Store",),
        ("train/stray.png",),
        ("README.md",),
    }


def test_class_folder_without_images_is_still_a_class(split_folder: Path) -> None:
    (split_folder / "train" / "rare").mkdir()
    assert listed(split_folder).classes == ("ill", "rare", "well")


def test_no_images_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"no images found; expected train\|val\|test/<class>"):
        listed(tmp_path)


def test_a_folder_beside_the_splits_is_an_error(split_folder: Path, draw: Callable[..., Path]) -> None:
    draw(split_folder / "extra" / "ill" / "a.png", 500)
    with pytest.raises(UserError, match="folder 'extra' holds images and stands beside folders named as splits"):
        listed(split_folder)


def test_two_folders_for_one_split_are_an_error(split_folder: Path) -> None:
    shutil.copytree(split_folder / "val", split_folder / "valid")
    with pytest.raises(UserError, match="folders 'val' and 'valid' both mean val"):
        listed(split_folder)


def test_one_class_only_is_a_problem(split_folder: Path) -> None:
    for split in ("train", "val", "test"):
        shutil.rmtree(split_folder / split / "well")
    (problem,) = listed(split_folder).problems
    assert "one class only ('ill')" in problem


def test_dicom_without_an_extension_is_recognised(tmp_path: Path, draw: Callable[..., Path]) -> None:
    draw(tmp_path / "a" / "1.png", 1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "b" / "1.2.840.113").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "b" / "LICENSE").write_bytes(b"text")
    assert listed(tmp_path).paths == ("a/1.png", "b/1.2.840.113", "b/IM0001")


def test_hidden_folders_are_named_too(split_folder: Path, draw: Callable[..., Path]) -> None:
    draw(split_folder / "train" / "ill" / ".cache" / "a.png", 500)
    draw(split_folder / "__MACOSX" / "ill" / "a.png", 501)
    (result,) = listed(split_folder).checks
    assert set(result.items) == {("train/ill/.cache",), ("__MACOSX",)}


def test_a_file_name_that_is_not_utf_8_is_a_problem(split_folder: Path) -> None:
    (split_folder / "train" / "ill" / "00.png").rename(os.fsdecode(os.fsencode(split_folder) + b"/train/ill/r\xf6.png"))
    samples = listed(split_folder)
    assert len(samples) == 39
    assert "1 file name(s) are not UTF-8 ('train/ill/r\\udcf6.png'): rename them" in samples.problems[0]
