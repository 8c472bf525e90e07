from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from threading import Event, get_ident

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from search_spaces.errors import UserError
from trainables.data.files import FileIndex, image_kind, index_folder, of_files

DICOM = bytes(128) + b"DICM"


def write(root: Path, *paths: str, content: bytes = b"") -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def found(index: FileIndex, *cells: str) -> list[str]:
    """What each cell names: an image, several with blanks between, "" for nothing, "A?B" if it may be either."""
    located = index.locate(cells)
    named = [" ".join(located.images[row] for row in rows) for rows in located.rows]
    return [
        "?".join(located.ambiguous[place]) if place in located.ambiguous else text for place, text in enumerate(named)
    ]


def encoded(form: str, **options: object) -> bytes:
    content = io.BytesIO()
    Image.new("L", (8, 8), 128).save(content, form, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        *((encoded(form), kind) for form, kind in [("PNG", "PNG"), ("JPEG", "JPEG"), ("GIF", "GIF"), ("BMP", "BMP")]),
        *((encoded(form), kind) for form, kind in [("TIFF", "TIFF"), ("WEBP", "WEBP"), ("PPM", "PPM")]),
        (encoded("JPEG2000"), "JPEG2000"),
        (encoded("JPEG2000", no_jp2=True), "JPEG2000"),
        (b"P5\n# made by hand\n8 8\n255\n" + bytes(64), "PPM"),
        (DICOM, "DICOM"),
        (DICOM + b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10\0", None),  # a DICOMDIR lists images and is none
        *(
            (content, None)
            for content in (b"", b"text", b"BM, a name", b"P5 is short", gzip.compress(b"x", mtime=0), b"RIFF")
        ),
    ],
)
def test_what_an_image_is_is_told_from_its_content(tmp_path: Path, content: bytes, kind: str | None) -> None:
    write(tmp_path, "file", content=content)
    assert image_kind(tmp_path / "file") == kind
    assert index_folder(tmp_path).images == (("file",) if kind else ())


def test_an_image_by_suffix_is_one_whatever_it_holds(tmp_path: Path) -> None:
    names = ("a.PNG", "b.jp2", "c.gif", "d.dicom", "e.dic", "f.ima", "g.pgm", "h.ppm", "i.jpeg")
    assert index_folder(write(tmp_path, *names, "a.csv", content=b"text")).images == names


def test_hidden_files_and_thumbnails_are_left_out_where_they_are_images(tmp_path: Path) -> None:
    write(tmp_path, "a/.1.png", "a/@eaDir/1.png/small.jpg", ".cache/2.png", content=encoded("PNG"))
    write(tmp_path, "a/1.png", "a/._1.png", "__MACOSX/a/._1.png", "a/Thumbs.db", "a/.DS_Store", content=b"text")
    index = index_folder(tmp_path)
    assert index.images == ("a/1.png",)
    assert {(one.count, one.examples) for one in index.left_out} == {
        (2, (".cache/2.png", "a/.1.png")),
        (1, ("a/@eaDir/1.png/small.jpg",)),
    }


def test_only_regular_files_are_images(tmp_path: Path) -> None:
    write(tmp_path, "real.png")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "link.png").symlink_to("real.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    index = index_folder(tmp_path)
    assert index.images == ("gone.png", "link.png", "real.png")  # gone: an image that cannot be read, and will be named
    assert [(one.count, one.examples) for one in index.left_out] == [(2, ("pipe.png", "zero.png"))]
    assert found(index, "pipe.png", "zero", "/dev/zero") == ["", "", ""]


def test_links_are_followed_loops_end_and_each_folder_is_read_by_its_own_path(tmp_path: Path) -> None:
    write(tmp_path, "set/z/1.png", "elsewhere/2.png")
    (tmp_path / "set" / "a").symlink_to("z")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "z" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "itself").symlink_to("itself")
    index = index_folder(tmp_path / "set")
    assert index.images == ("b/2.png", "z/1.png")
    assert [(one.count, one.examples) for one in index.left_out] == [(1, ("a/1.png",))]


@pytest.mark.parametrize("closed", [["a/b"], [f"c{number:02d}" for number in range(12)]])
def test_folders_that_may_not_be_entered_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: list[str]
) -> None:
    write(tmp_path, "a/1.png", *(f"{folder}/1.png" for folder in closed))
    scandir = os.scandir

    def refuse(place: str) -> object:
        if os.path.relpath(place, tmp_path) in closed:
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError) as caught:
        index_folder(tmp_path)
    (problem,) = caught.value.problems
    assert f"{len(closed)} folder(s)" in problem
    assert all(f"{folder} (Permission denied)" in problem for folder in closed[:10])
    assert ("and 2 more" in problem) == (len(closed) == 12)


@pytest.mark.parametrize("name", ["nowhere", "x" * 300, "file", "nul\0l"])
def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str) -> None:
    write(tmp_path, "file")
    with pytest.raises(UserError, match="cannot read this folder"):
        index_folder(tmp_path / name)


TREE = ("p1/a.png", "p1/view.jpg", "p2/view.jpg", "p3/b.c.png", "s/train/x.png", "s/test/x.png", "top.dcm")


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("p1/a.png", "p1/a.png"),  # as it says
        ("./p1//a.png", "p1/a.png"),
        (r"p1\a.png", "p1/a.png"),
        ("p1/../p1/a.png", "p1/a.png"),
        ("SET/s/train/x.png", "s/train/x.png"),  # by the end of the path
        ("/mnt/other/p1/view.jpg", "p1/view.jpg"),
        (r"C:\data\p2\view.jpg", "p2/view.jpg"),
        ("train/x.png", "s/train/x.png"),
        ("images/train/x.png", "s/train/x.png"),
        ("a.png", "p1/a.png"),  # by name
        ("../gone/a.png", "p1/a.png"),
        ("x.png", "s/test/x.png?s/train/x.png"),
        ("val/x.png", "s/test/x.png?s/train/x.png"),
        ("view.jpg", "p1/view.jpg?p2/view.jpg"),
        ("a", "p1/a.png"),  # without suffix
        ("a.jpg", "p1/a.png"),
        ("b.c", "p3/b.c.png"),
        ("p2/view", "p2/view.jpg"),
        ("top", "top.dcm"),
        ("view", "p1/view.jpg?p2/view.jpg"),
        ("p1", "p1/a.png p1/view.jpg"),  # a folder
        ("SET/p1/", "p1/a.png p1/view.jpg"),
        ("s", "s/test/x.png s/train/x.png"),
        *((cell, "") for cell in ("", ".", "..", "/", "q.png", "p1/b.png", "p9/", "nul\0.png", "x" * 300, "../.")),
    ],
)
def test_a_cell_names_an_image_by_the_longest_end_of_its_path(tmp_path: Path, cell: str, named: str) -> None:
    assert found(index_folder(write(tmp_path, *TREE)), cell) == [named]


def test_absolute_paths_and_files_elsewhere_are_found(tmp_path: Path) -> None:
    write(tmp_path, "set/1.png", "other/2.png", "other/3.png")
    index = index_folder(tmp_path / "set")
    cells = [f"{tmp_path}/set/1.png", f"{tmp_path}/other/2.png", "../other/3.png", "../other/2.png"]
    other = [f"{tmp_path}/other/{number}.png" for number in (2, 3, 2)]
    assert found(index, *cells) == ["1.png", *other]
    assert index.images == ("1.png",)


def test_an_image_that_two_cells_name_is_that_of_the_cell_whose_path_agrees(tmp_path: Path) -> None:
    index = index_folder(write(tmp_path, "p1/view.jpg", "p3/scan.jpg"))
    assert found(index, "p1/view.jpg", "p2/view.jpg") == ["p1/view.jpg", ""]  # the file of p2 is missing
    assert found(index, "/mnt/p1/view.jpg", "/mnt/p2/view.jpg") == ["p1/view.jpg", ""]
    assert found(index, "p2/view.jpg", "p4/view.jpg") == ["", ""]
    assert found(index, "p1/view.jpg", "p1/view", "view.jpg", "p1/view.jpg") == ["p1/view.jpg"] * 4
    index = index_folder(write(tmp_path, "p2/view.jpg"))
    assert found(index, "p1/view.jpg", "p2/view.jpg", "p9/view.jpg") == ["p1/view.jpg", "p2/view.jpg", ""]


def test_a_row_that_is_left_out_keeps_its_image(tmp_path: Path) -> None:
    index = index_folder(write(tmp_path, "p1/a.png", "p3/b.png"))
    assert found(index, "p1/a.png", "p2/b.png") == ["p1/a.png", "p3/b.png"]
    assert index.locate(["p1/a.png", "p2/b.png"], ["p3/b.png"]).rows == ((0,), ())
    assert index.locate(["resized/a.png"], ["original/a.png"]).rows == ((0,),)  # neither agrees better
    index = index_folder(write(tmp_path, "p5/b.png"))
    assert found(index, "p2/b.png") == ["p3/b.png?p5/b.png"]
    assert index.locate(["p2/b.png"], ["p3/b.png", "p5/b.png"]).ambiguous == {}


def test_the_images_of_a_folder_are_not_those_of_one_that_is_missing(tmp_path: Path) -> None:
    studies = [f"WRIST/p{patient}/study1_positive" for patient in (1, 2, 3)]
    index = index_folder(write(tmp_path, *(f"{study}/image1.png" for study in studies)))
    assert found(index, *(f"SET/{study}/" for study in studies), "SET/ELBOW/p9/study1_positive/") == [
        *(f"{study}/image1.png" for study in studies),
        "",
    ]
    index = index_folder(write(tmp_path / "one", "p1/study1_positive/image1.png", "p1/study1_positive/image2.png"))
    assert found(index, "p1/study1_positive/", "p2/study1_positive/")[1] == ""


def test_of_two_equal_copies_the_first_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "PART_1/x.jpg", "part_1/x.jpg", content=b"x")
    write(tmp_path, "PART_1/y.jpg", "part_1/y.jpg", "other/y.jpg", content=b"y")
    write(tmp_path, "PART_1/z.jpg", content=b"z")
    index = index_folder(write(tmp_path, "part_1/z.jpg", content=b"other"))
    assert found(index, "x", "x.jpg") == ["PART_1/x.jpg"] * 2
    assert found(index, "y", "z") == ["PART_1/y.jpg?other/y.jpg", "PART_1/z.jpg?part_1/z.jpg"]
    assert found(index, "part_2/x.jpg") == ["PART_1/x.jpg?part_1/x.jpg"]  # its own may be another file
    assert index.locate(["x"]).notes[0].startswith("1 of 1 paths were found as the first of two identical files")


def test_a_folder_and_an_image_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    index = index_folder(write(tmp_path, "case1/1.png", "flat/case1.png", "case1/case1/2.png"))
    assert found(index, "case1") == ["case1?flat/case1.png"]
    assert found(index, "case1/") == ["case1/1.png case1/case1/2.png"]


def test_accents_may_be_composed_or_not(tmp_path: Path) -> None:
    index = index_folder(write(tmp_path, "Zoe\u0308/a\u0308.png", "b/\u00fc.png"))
    cells = ("Zo\u00eb/\u00e4.png", "\u00e4", "Zo\u00eb", "u\u0308.png")
    assert found(index, *cells) == [*["Zoe\u0308/a\u0308.png"] * 3, "b/\u00fc.png"]


def test_how_files_were_found_is_told_with_an_example(tmp_path: Path) -> None:
    located = index_folder(write(tmp_path, "d/1.png", "d/2.png")).locate(["d/1.png", "2", "2"])
    assert located.notes == ("1 of 2 paths were found by name without suffix, such as 2 at d/2.png",)


NAMES = st.sampled_from(["a", "b", "a.png", "b.png", "1.jpg", ".", "..", "", "a.b", "é", "\0", "x.PNG", "\udcff"])
PATHS = st.lists(NAMES, max_size=4).map("/".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.sets(st.lists(st.sampled_from("abé"), max_size=3).map("/".join), max_size=6), cells=st.lists(PATHS))
def test_whatever_cells_say_they_are_found_or_not(images: set[str], cells: list[str]) -> None:
    root = Path("/nowhere")
    paths = tuple(sorted(f"{folder}/1.png" if folder else "1.png" for folder in images))
    index = FileIndex(root, paths, ("", *sorted(images - {""})), (), ())
    located = index.locate([*cells, *paths])
    assert len(located.rows) == len(cells) + len(paths)
    assert [located.images[row] for rows in located.rows[len(cells) :] for row in rows] == list(paths)
    assert all(not located.rows[place] for place in located.ambiguous)


def test_a_file_server_is_asked_for_many_files_at_a_time_and_the_answers_are_in_order() -> None:
    asking, four_ask = set[int](), Event()

    def answer(file: Path) -> str:
        asking.add(get_ident())
        if len(asking) == 4:
            four_ask.set()
        assert four_ask.wait(timeout=30)
        return file.name

    names = [str(number) for number in range(256)]
    assert of_files(answer, [*map(Path, names)]) == names
