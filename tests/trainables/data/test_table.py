from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import os
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from search_spaces.errors import UserError
from trainables.data import file_form as forms
from trainables.data.file_form import is_npz
from trainables.data.table import neighbours, read_list, read_table

gz = functools.partial(gzip.compress, mtime=0)  # the same bytes each time: they name tests

TABLE = "path,label,pid\na.png,ill,007\nb.png, well ,NA\nc.png,,1.0\n"
CELLS = [["a.png", "ill", "007"], ["b.png", "well", "NA"], ["c.png", "", "1.0"]]

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write(content, name="m.csv")`` writes text, bytes, or what a function of a path writes."""

    def write_one(content: str | bytes | Callable[[Path], object], name: str = "m.csv") -> Path:
        path = tmp_path / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_one


def zipped(members: dict[str, bytes | str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def frame() -> pd.DataFrame:
    return pd.DataFrame([line.split(",") for line in TABLE.splitlines()[1:]], columns=["path", "label", "pid"])


def problem_of(path: Path, *columns: str) -> str:
    with pytest.raises(UserError) as error:
        read_table(path, columns)
    [problem] = error.value.problems
    assert str(path) in problem or path.name in problem
    return problem


# Forms


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", "|"),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        b"\xfe\xff" + TABLE.replace("\n", "\r\n").encode("utf-16-be"),
        "sep=;\r\n" + TABLE.replace(",", ";"),
        b"\xef\xbb\xbfsep=\t\n" + TABLE.replace(",", "\t").encode(),
        TABLE.replace("\n", ",\n"),
        TABLE.removesuffix("\n"),
        '"path","label","pid"\n"a.png", "ill","007"\nb.png,well,"NA"\nc.png,"","1.0"\n',
        gz(TABLE.encode()),
        zipped({"x/train.csv": TABLE, "__MACOSX/x/._train.csv": "junk", "x/.DS_Store": b"\0"}),
        zipped({"train.txt": TABLE.replace(",", "\t").encode("utf-16")}),
        "".join(json.dumps(dict(zip(["path", "label", "pid"], cells, strict=True))) + "\n" for cells in CELLS),
        json.dumps([dict(zip(["path", "label", "pid"], cells, strict=True)) for cells in CELLS], indent=1),
        lambda path: frame().to_parquet(path),
        lambda path: frame().astype({"label": "category"}).to_parquet(path, row_group_size=2),
        lambda path: path.write_bytes(gz(frame().to_parquet())),
    ],
)
@pytest.mark.parametrize("name", ["m.csv", "m.dat"])
def test_a_table_is_read_whatever_its_form_and_name(
    write: Callable[..., Path], content: str | bytes | Callable[[Path], object], name: str
) -> None:
    path = write(content, name)
    rows = read_table(path)
    assert not is_npz(path)
    assert rows.columns[:3].tolist() == ["path", "label", "pid"]
    assert rows.iloc[:, :3].to_numpy().tolist() == CELLS


def test_numbers_lists_and_nothing_are_the_same_texts_in_every_form(write: Callable[..., Path]) -> None:
    values = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "x": [0.1, np.nan, 20.0],
            "single": np.array([0.1, 1, np.nan], dtype=np.float32),
            "yes": [True, False, True],
            "list": [["a", "b"], [], ["c"]],
            "text": ["é", "", None],
        }
    )
    jsonl = "\n".join(
        json.dumps(
            {name: None if isinstance(value, float) and value != value else value for name, value in row.items()}
        )
        for row in [
            {"n": 1, "x": 0.1, "single": 0.1, "yes": True, "list": ["a", "b"], "text": "é"},
            {"n": None, "x": None, "single": 1.0, "yes": False, "list": [], "text": ""},
            {"n": 3, "x": 20.0, "yes": True, "list": ["c"], "text": None},
        ]
    )
    expected = [
        ["1", "0.1", "0.1", "True", "['a', 'b']", "é"],
        ["", "", "1.0", "False", "[]", ""],
        ["3", "20.0", "", "True", "['c']", ""],
    ]
    for path in (
        write(values.to_csv(index=False), "v.csv"),
        write(lambda path: values.to_parquet(path), "v.parquet"),
        write(jsonl, "v.jsonl"),
    ):
        rows = read_table(path)
        assert rows.columns.tolist() == list(values)
        assert rows.to_numpy().tolist() == expected


@pytest.mark.parametrize(
    ("content", "columns", "cells"),
    [
        ("path;label\na.png;x, y\nb.png;z, w\n", ["path", "label"], ["a.png", "x, y"]),
        ("path;score\na b.png;0,5\nc d.png;0,25\n", ["path", "score"], ["a b.png", "0,5"]),
        ("path,label\na.png,x|y\nb.png,z|w\n", ["path", "label"], ["a.png", "x|y"]),
        ("path,label\na.png,x; y\nb.png,z; w\n", ["path", "label"], ["a.png", "x; y"]),
        ("the path,the label\na b.png,x y\nc d.png,z w\n", ["the path", "the label"], ["a b.png", "x y"]),
        ("path\tlabel, all\na.png\tx, y\n", ["path", "label, all"], ["a.png", "x, y"]),
        ("path  label\ta\na.png x   1\nb.png y 2\n", ["path", "label", "a"], ["a.png", "x", "1"]),
        ('path,note\na.png,"x\ny, z"\n', ["path", "note"], ["a.png", "x\ny, z"]),
        ('path,size\na.png,5" wide\nb.png,6" wide\n', ["path", "size"], ["a.png", '5" wide']),
        ("a,b [w,h],\n1.png,x,2,3\n", ["a", "b [w", "h]", ""], ["1.png", "x", "2", "3"]),
        ("one name\nsome value\nother\n", ["one name"], ["some value"]),
    ],
)
def test_the_separator_is_what_fits_the_lines(
    write: Callable[..., Path], content: str, columns: list[str], cells: list[str]
) -> None:
    rows = read_table(write(content))
    assert rows.columns.tolist() == columns
    assert rows.iloc[0].tolist() == cells


def test_rows_have_the_numbers_that_a_spreadsheet_shows(write: Callable[..., Path]) -> None:
    rows = read_table(write('\npath,note\n"a.png","x\ny"\n\n , \nb.png,z\n'))
    assert rows.index.tolist() == [3, 6]
    assert read_table(write("sep=,\n" + TABLE)).index.tolist() == [2, 3, 4]
    assert read_table(write(TABLE.partition("\n")[2]), ["path", "label", "pid"]).index.tolist() == [1, 2, 3]
    assert read_table(write('{"a": 1}\n{"a": null}\n{"a": 2}\n')).index.tolist() == [1, 3]


def test_a_column_name_may_be_empty_or_there_twice(write: Callable[..., Path]) -> None:
    rows = read_table(write("path,l,l,\na.png,x,y,\nb.png,z,w\n"))
    assert rows.columns.tolist() == ["path", "l", "l", ""]
    assert rows.to_numpy().tolist() == [["a.png", "x", "y", ""], ["b.png", "z", "w", ""]]


# Headers


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("a.png,x\nb.png,y\n", ["'a.png' is the name of an image", "2 column(s)", "--columns path,column2"]),
        ("p1 p1_a.png neg rsna\np1 p1_b.png pos rsna\n", ["p1_a.png", "4 column(s)"]),
        ("S/train/p1/s1/,1\nS/train/p2/s1/,0\n", ["'S/train/p1/s1/' is a path", "--columns path,column2"]),
        ("C:\\x\\1,0\nC:\\x\\2,0\n", ["is a path"]),
        ("id1,normal\nid2,ill\nid3,normal\n", ["'normal' is also a cell"]),
        ("10_left,0\n10_right,0\n13_left,2\n", ["'0' is also a cell"]),
    ],
)
def test_a_table_without_header_is_asked_about(write: Callable[..., Path], content: str, facts: list[str]) -> None:
    path = write(content)
    problem = problem_of(path)
    assert [fact for fact in ("no header", "--columns", *facts) if fact not in problem] == []
    width = len(content.splitlines()[0].replace(" ", ",").split(","))
    names = [f"n{place}" for place in range(width)]
    rows = read_table(path, names)
    assert rows.columns.tolist() == names
    assert len(rows) == content.count("\n")


@pytest.mark.parametrize(
    "content",
    [
        "Path,Frontal/Lateral,AP/PA\nS/train/1.jpg,Frontal,AP\nS/train/2.jpg,Lateral,\n",
        "path,label\na.png,label\nb.png,x\n",
        "id,0,1,2\nx,0,0,1\ny,1,0,0\n",
        "0,1\na.png,1\nb.png,0\n",
        "id,age\nx,NA\ny,63\nz,20\nw,1\n",
        "id,age\nx,060Y\ny,63\nz,20\nw,1\n",
    ],
)
def test_an_odd_header_is_a_header(write: Callable[..., Path], content: str) -> None:
    assert read_table(write(content)).columns.tolist() == content.splitlines()[0].split(",")


def test_names_for_columns_must_be_as_many_and_needed(write: Callable[..., Path]) -> None:
    problem = problem_of(write("a.png,x\nb.png,y\n"), "path", "label", "more")
    assert "--columns path,label,more: 3 name(s)" in problem
    assert "has 2 cells (a.png | x)" in problem
    headed = write("file,grade\na.png,0\nb.png,1\nc.png,1\nd.png,2\n")
    assert "seems to have a header ('file', where the rows below have a path)" in problem_of(headed, "path", "label")
    assert read_table(headed, ["file", "grade"]).columns.tolist() == ["file", "grade"]
    assert len(read_table(headed, ["grade", "file"])) == 4
    parquet = write(lambda path: frame().to_parquet(path), "m.parquet")
    assert "--columns a,b,c: m.parquet is Parquet" in problem_of(parquet, "a", "b", "c")


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (f"{TABLE}path,label,pid\nd.png,x,2\n", ["the header is repeated in row 5"]),
        ("path,age\n,years\na.png,1\nb.png,2\nc.png,3\n", ["row 2", "second header", "'years'", "a number"]),
        ("path,age\nfile,age in y\na.png,1\nb.png,2\nc.png,3\n", ["row 2", "second header", "'file'", "a path"]),
        ("Table 1\n\npath,label\na.png,x\n", ["line 3 has 2, line 4 has 2 cells, the first row 1", "above the header"]),
    ],
)
def test_a_second_header_line_is_named(write: Callable[..., Path], content: str, facts: list[str]) -> None:
    problem = problem_of(write(content))
    assert [fact for fact in facts if fact not in problem] == []


# Bad input


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("", ["the file is empty"]),
        ("\n \n", ["the file is empty"]),
        ("a,b\n", ["a header and no rows (a | b)"]),
        ("a,b,c\n1,2,3\n1,2,3,4,5\n1,2\n", ["separated by commas: line 3 has 5, line 4 has 2 cells, the first row 3"]),
        ("a;b\n" + "1;2\n" * 20 + "1;2;3\n" * 12, ["semicolons: line 22 has 3", "line 31 has 3 and 2 more cells"]),
        ('a,b\n1,"2\n3,4\n"5,6\n7,8\n', ["line 2 has 3 (a quote that opens there closes in line 4) cells"]),
        ('a,b\n1,2\n3,"4\n5,6\n', ['a quote (") that opens in line 3 is never closed']),
        (b"a,b\n1,2\n3,c\xe9\n", ["byte 0xe9 in line 3 is not UTF-8", "save the file as CSV in UTF-8"]),
        (b'{"a": 1}\n{"a": "\xe9"}\n', ["byte 0xe9 in line 2 is not UTF-8"]),
        (TABLE.encode("utf-16") + b"\x00", ["not UTF-16", "save the file as CSV in UTF-8"]),
        (TABLE.encode("utf-16-le"), ["UTF-16 without a byte order mark", "save it as CSV in UTF-8"]),
        ("a,b\n1,2\n" + "x" * 70_000 + "\n1,\0\n", ["line 4 has a NUL byte"]),
        ("a,b\n1,2\n" + "x,y\n" * 20_000 + "1,\0\n", ["line 20003 has a NUL byte"]),
        ("a,b\n1," + "x" * 200_000 + "\n", ["line 2", "more than 131,072 characters", "quote"]),
        ("a,b\n" + "x" * 17_000_000, ["line 2", "more than 16,777,216 characters"]),
        ("a" + "," * 1_000_000, ["line 1 has 1,000,001 cells"]),
        (b"\x07\0\x01binary", ["binary data", "CSV, TSV, Parquet or JSON Lines"]),
        (b"PAR1" + b"\x07" * 200, ["a Parquet file that cannot be read"]),
        ('{"a": 1}\n{"a": \n', ["line 3 is not JSON Lines", "Expecting value"]),
        ('{"a": 1}\n[1, 2]\n', ["line 2 is not JSON Lines", "[1, 2] is not an object"]),
        ('{"a": ' + "[" * 100_000, ["line 1 is not JSON Lines"]),
        ('[{"a": 1},\n{"a": 2}', ["array does not end"]),
        ('{"a": "\\ud800"}\n', ["column 'a'", "not text"]),
        ('{"a": "x\\u0000"}\n', ["column 'a'", "not text"]),
        ('{"\\ud800": 1}\n', ["column '\\ud800'", "not text"]),
        ('{"images": [{"id": 1}], "annotations": []}', ["one JSON object ('images', 'annotations')"]),
        ('{"a.png": "x", "b.png": "y"}', ["one JSON object ('a.png', 'b.png')", "CSV"]),
        (b"<!DOCTYPE html><html>", ["an HTML page", "login page"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
        (zipped({"a.csv": TABLE, "b.csv": TABLE}), ["a zip of 2 files", "a.csv, b.csv", "unpack it"]),
        (zipped({}), ["a zip of 0 files"]),
        (zipped({"__MACOSX/a.csv": TABLE}), ["a zip of 0 files"]),
        (zipped({"/etc/a.csv": TABLE}), ["'/etc/a.csv', a path outside of it"]),
        (zipped({"x/../../a.csv": TABLE}), ["'x/../../a.csv', a path outside of it"]),
        (
            zipped({"x/a.png": b"1", "x/b.PNG": b"2", "labels.csv": TABLE}),
            ["an archive of 2 images", "unpack it", "folder"],
        ),
        (zipped({"[Content_Types].xml": "", "xl/workbook.xml": ""}), ["an Excel workbook", "CSV"]),
        (zipped({"mimetype": "", "content.xml": ""}), ["an OpenDocument file", "CSV"]),
        (zipped({"a.csv": gz(b"a")}), ["a gzip file", "unpack it"]),
        (zipped({"a.csv": TABLE})[:60], ["cannot be read"]),
        (zipped({"é.csv": TABLE}).replace("é".encode(), b"\xff\xff"), ["cannot be read"]),
        (zipped({"é.csv": TABLE}).replace("é".encode(), b"\xff\xff", 1), ["cannot be read"]),
        (gz(TABLE.encode())[:40], ["cannot be read"]),
        (gz(zipped({"a.csv": TABLE})), ["a zip archive", "unpack it"]),
        (b"7z\xbc\xaf\x27\x1c" + b"\0" * 40, ["a 7z archive", "unpack it"]),
        (b"SQLite format 3\0" + b"\0" * 40, ["an SQLite database"]),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, ["an HDF5 file"]),
        (b"\0" * 16 + b"\xde\xc0\xef\xbe" + b"\0" * 40, ["an LMDB database"]),
        (b"\x30" + b"\0" * 7 + b"abcd\x0a\x2e" + b"\0" * 60, ["a TFRecord file"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 40, ["an old Excel", "CSV"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_no_table_is_named(write: Callable[..., Path], content: str | bytes, facts: list[str]) -> None:
    problem = problem_of(write(content))
    assert [fact for fact in facts if fact not in problem] == []
    assert len(problem) < 700


def test_half_a_character_is_no_text_whatever_pandas_keeps_texts_in(write: Callable[..., Path]) -> None:
    with pd.option_context("mode.string_storage", "python"):  # Which takes it, as pandas before 3 does.
        assert "not text" in problem_of(write('{"a": "\\ud800"}\n'))


def test_a_table_called_parquet_that_is_none_is_named(write: Callable[..., Path]) -> None:
    assert "m.parquet (not Parquet by its content): a header and no rows" in problem_of(write("junk", "m.parquet"))
    assert "byte 0x93 in line 1 is not UTF-8" in problem_of(write(b"\x93\x94\x95", "m.parquet"))


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda path: Image.new("L", (8, 8)).save(path, "PNG"), ["a PNG image"]),
        (lambda path: path.write_bytes(zipped({"a.png": b"x", "b.png": b"y"})), ["2 images", "/m)"]),
        (lambda path: tarfile.open(path, "w").close() or path.write_bytes(tar()), ["a tar archive"]),
        (lambda path: path.write_bytes(gz(tar())), ["a tar archive", "/m)"]),
        (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), ["arrays (.npz)"]),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), ["a NumPy array"]),
        (lambda path: sqlite3.connect(path).execute("create table t (a)").connection.close(), ["SQLite"]),
        (lambda path: frame().to_pickle(path), ["a pickle"]),
        (lambda path: frame().to_feather(path), ["an Arrow (Feather) file"]),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_is_what_it_contains(
    write: Callable[..., Path], make: Callable[[Path], object], facts: list[str]
) -> None:
    path = write(make, "m.csv")
    problem = problem_of(path)
    if facts == ["arrays (.npz)"]:
        assert is_npz(path)
    else:
        with pytest.raises(UserError) as error:
            is_npz(path)
        assert error.value.problems == (problem,)
    assert [fact for fact in facts if fact not in problem] == []


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    return content.getvalue()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for path in (tmp_path / "fifo.csv", tmp_path / "zero.csv", tmp_path):
        assert "not a regular file" in problem_of(path)
    for path in (tmp_path / "absent.csv", tmp_path / ("x" * 300)):
        assert "cannot be read" in problem_of(path)
    with pytest.raises(UserError, match="cannot be read"):
        is_npz(Path("nul\0.csv"))


@pytest.mark.parametrize("packer", [gz, lambda content: zipped({"a.csv": content})])
def test_a_bomb_is_not_unpacked(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, packer: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(forms, "SMALL_BYTES", 1_000_000)
    path = write(packer(b"a,b\n" * 2_000_000))
    assert "unpacks to more than 200 times its size" in problem_of(path)
    monkeypatch.setattr(forms, "MOST_BYTES", 500_000)
    assert "a table of more than" in problem_of(path)
    assert "a table of more than" in problem_of(write("a,b\n" * 200_000))


# Lists and neighbours


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("00001_000.png\n00002_000.png\n\n", ["00001_000.png", "00002_000.png"]),
        ("Image Index\na.png\n", ["a.png"]),
        ("file_name\r\nx\\a.png\r\n", ["x\\a.png"]),
        ("COVID (1).png\nCOVID (2).png\n", ["COVID (1).png", "COVID (2).png"]),
        ('"a.png"\n"b.png"\n', ["a.png", "b.png"]),
        (gz(b"\n" * 300 + b"a\nb\n"), ["a", "b"]),
        ("a.png".encode("utf-16"), ["a.png"]),
    ],
)
def test_a_list_of_files_is_read(write: Callable[..., Path], content: str | bytes, names: list[str]) -> None:
    assert read_list(write(content)) == names


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (TABLE, ["a table of 3 columns, separated by commas"]),
        ("p1 a.png neg\np2 b.png pos\n", ["a table of 3 columns, separated by blanks"]),
        ('{"a": 1}\n', ["JSON, not a list"]),
        ("filename\n", ["a list without names"]),
        ("\n", ["the file is empty"]),
        (b"a\xe9.png\n", ["byte 0xe9 in line 1"]),
    ],
)
def test_what_is_no_list_is_named(write: Callable[..., Path], content: str | bytes, facts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        read_list(write(content))
    assert [fact for fact in facts if fact not in str(error.value)] == []


FEW = "path,label\na.png,x\nb.png,y\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"train.csv": FEW, "val.csv": FEW, "test.csv": FEW}, {"val": "val.csv", "test": "test.csv"}),
        ({"Train.csv": FEW, "Valid.tsv": FEW.replace(",", "\t")}, {"val": "Valid.tsv"}),
        ({"train.csv": FEW, "valid.jsonl": '{"label": 1, "path": "a"}\n'}, {"val": "valid.jsonl"}),
        ({"my_train_set.csv": FEW, "my_test_set.csv.gz": gz(FEW.encode())}, {"test": "my_test_set.csv.gz"}),
        ({"training.csv": FEW, "validation.csv": FEW}, {"val": "validation.csv"}),
        ({"trainLabels.csv": FEW, "testLabels.csv": FEW}, {"test": "testLabels.csv"}),
        ({"train.txt": "p1 a.png x\np2 b.png y\n", "val.txt": "p3 c.png x\np4 d.png y\n"}, {"val": "val.txt"}),
        ({"train_l.csv": "S/1/,0\nS/2/,1\n", "valid_l.csv": "S/3/,0\nS/4/,1\n"}, {"val": "valid_l.csv"}),
        ({"train.csv": FEW, "test.csv": "path\na.png\nb.png\n"}, {}),
        ({"train.csv": FEW, "test.csv": "path,label\na.png,\nb.png,\n"}, {}),
        ({"train.csv": FEW, "test.csv": "path,label\na.png,0\nb.png,0\n"}, {}),
        ({"train.csv": FEW, "test.csv": "c.png\nd.png\n", "val.csv": b"\0\1", "val": ""}, {}),
        ({"train.csv": FEW, "sample_submission.csv": FEW, "other_test.csv": FEW, "train2.csv": FEW}, {}),
        ({"manifest.csv": FEW, "test.csv": FEW}, {}),
        ({"train/_classes.csv": FEW, "valid/_classes.csv": FEW}, {"val": "valid/_classes.csv"}),
        ({"Train_Set/x/train.csv": FEW, "Evaluation_Set/x/valid.csv": FEW}, {"val": "Evaluation_Set/x/valid.csv"}),
        ({"train/train.csv": FEW} | {f"{folder}.csv": FEW for folder in ("val/test", "fold2/test", "eval/train")}, {}),
    ],
)
def test_neighbours_are_other_splits(tmp_path: Path, files: dict[str, str | bytes], found: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    train = tmp_path / next(iter(files))
    columns: list[str] = []
    if not str(next(iter(files.values()))).startswith("path"):
        columns = ["patient", "path", "label"] if "p1" in str(files[train.name]) else ["path", "label"]
    rows = read_table(train, columns)
    beside = neighbours(train, rows, ["label"])
    assert {split: path.relative_to(tmp_path).as_posix() for split, path in beside.items()} == found


def test_a_neighbour_that_is_doubtful_or_broken_is_named(tmp_path: Path) -> None:
    for name in ("train.csv", "val.csv", "valid.csv"):
        (tmp_path / name).write_text(FEW)
    rows = read_table(tmp_path / "train.csv")
    with pytest.raises(UserError, match=r"val.csv and valid.csv next to train.csv .* --val-data, or none"):
        neighbours(tmp_path / "train.csv", rows, ["label"])
    (tmp_path / "valid.csv").unlink()
    (tmp_path / "val.csv").write_text(FEW + "c.png,x,y\n")
    with pytest.raises(UserError, match=r"val.csv: .* line 4 has 3 cells.* --val-data none ignores it"):
        neighbours(tmp_path / "train.csv", rows, ["label"])


# Any content


texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), max_size=8
)


@fuzz
@given(
    cells=st.lists(st.lists(texts, min_size=2, max_size=2), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_cells_survive(tmp_path: Path, cells: list[list[str]], separator: str, encoding: str, quoting: Any) -> None:
    rows = [[f"{place}.png", *row] for place, row in enumerate(cells)]
    path = tmp_path / "m.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting)
        writer.writerows([["path", "Finding", "Patient ID"], *rows])
    assert read_table(path).to_numpy().tolist() == rows


VALID = (
    TABLE.encode(),
    TABLE.encode("utf-16"),
    gz(TABLE.encode()),
    zipped({"train.csv": TABLE}),
    frame().to_parquet(compression=None),
    frame().to_json(orient="records", lines=True).encode(),
    frame().to_json(orient="records").encode(),
)
edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8), st.integers(0, 8)), max_size=4)


@fuzz
@given(start=st.sampled_from(VALID), changes=edits, columns=st.sampled_from([(), ("a", "b", "c")]))
def test_a_damaged_table_is_a_frame_or_an_error(
    tmp_path: Path, start: bytes, changes: list[tuple[float, bytes, int]], columns: tuple[str, ...]
) -> None:
    content = start
    for place, new, removed in changes:
        at = int(place * (len(content) + 1))
        content = content[:at] + new + content[at + removed :]
    check_any(tmp_path / "m.csv", content, columns)


@fuzz
@given(content=st.one_of(st.binary(max_size=300), st.text("ab,;|\t \"'\n\r{}[]:\\0", max_size=60).map(str.encode)))
def test_any_bytes_are_a_frame_or_an_error(tmp_path: Path, content: bytes) -> None:
    check_any(tmp_path / "m.csv", content, ())


def check_any(path: Path, content: bytes, columns: tuple[str, ...]) -> None:
    path.write_bytes(content)
    for read in (is_npz, read_list, lambda path: read_table(path, columns)):
        try:
            found = read(path)
        except UserError as error:
            found = error
        if isinstance(found, UserError):
            assert all(len(problem) < 2_000 for problem in found.problems)
        elif isinstance(found, pd.DataFrame):
            assert len(found)
            assert all(isinstance(cell, str) and cell == cell.strip() for cell in found.to_numpy().ravel())
