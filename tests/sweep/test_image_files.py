"""Which files a list of files and folders means."""

from __future__ import annotations

from pathlib import Path

from sweep.image_files import image_files


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_to_the_bottom_and_files_are_taken_as_they_are_named(tmp_path: Path) -> None:
    inside = [tmp_path / "a" / "1.PNG", tmp_path / "a" / "deep" / "2.dcm", tmp_path / "a" / "z.jpg"]
    odd, gone = tmp_path / "odd.txt", tmp_path / "gone.png"
    touch(*inside, odd, tmp_path / "a" / "notes.txt", tmp_path / "a" / ".hidden.png", tmp_path / "a" / ".dir" / "3.png")
    (tmp_path / "a" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    found, problems = image_files([odd, gone, tmp_path / "a"])
    assert found[:2] == [odd, gone]
    assert sorted(found[2:]) == sorted([*inside, tmp_path / "a" / "IM0001"])
    assert problems == []


def test_a_file_named_twice_is_one_and_a_link_back_up_ends(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found, _ = image_files([tmp_path / "a" / "1.png", tmp_path / "a"])
    assert [file for file in found if "up" not in file.parts] == [tmp_path / "a" / "1.png"]
    assert len(found) <= 2


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "empty" / "notes.txt")
    found, (problem,) = image_files([tmp_path / "empty"])
    assert found == []
    assert problem.startswith(f"{tmp_path / 'empty'}: no images in this folder")
