"""Tables whose columns have names and types, and those in several files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folder_trees import make, refusal

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.rows import list_table
from trainables.data.table import read_table

FIRST, LAST = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"


@pytest.fixture
def parts(tmp_path: Path) -> Callable[..., Path]:
    """``parts(split, count)`` writes a table of four rows a file, and their images: the first file."""

    def write(split: str, count: int) -> Path:
        names = [f"{split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
        for number, name in enumerate(names):
            files = [f"{split}{number}{letter}.png" for letter in "abcd"]
            make(tmp_path, *files)
            pd.DataFrame({"path": files, "finding": ["ill", "well"] * 2}).to_parquet(tmp_path / name)
        return tmp_path / names[0]

    return write


def listed(path: Path, **options: Any) -> Any:
    return list_table(path, DataConfig(data=str(path), label_column=("finding",), **options))


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_a_table_in_several_files_is_read_whole_and_said(parts: Callable[..., Path], name: str) -> None:
    samples = listed(parts("train", 2).with_name(name))
    assert samples.paths == tuple(f"train{number}{letter}.png" for number in range(2) for letter in "abcd")
    assert f"{FIRST} and the following numbered files are read as one table of 2 files" in samples.notes


def test_a_row_of_a_table_in_several_files_is_named_with_its_file(parts: Callable[..., Path]) -> None:
    first = parts("train", 2)
    first.with_name("train1c.png").unlink()
    assert read_table(first).index[-1] == f"4 of {LAST}"


def test_a_table_in_several_files_has_neighbours_in_as_few_or_many(parts: Callable[..., Path]) -> None:
    parts("validation", 1)
    parts("test", 3)
    samples = listed(parts("train", 2))
    assert [samples.splits.count(split) for split in ("train", "val", "test")] == [8, 4, 12]


def test_files_of_a_table_that_lack_or_differ_are_named(parts: Callable[..., Path]) -> None:
    first = parts("train", 2)
    pd.DataFrame({"path": ["x.png"], "label": ["ill"]}).to_parquet(first.with_name(LAST))
    with pytest.raises(UserError, match=f"{LAST}: has other columns than {FIRST}"):
        read_table(first)
    first.with_name(LAST).unlink()
    with pytest.raises(UserError, match=f"{FIRST}: one of 2 files of a table, some of which are missing: {LAST}"):
        read_table(first)


def test_of_a_table_in_several_files_the_first_is_named_in_place_of_a_folder(parts: Callable[..., Path]) -> None:
    first = parts("train", 2)
    assert f"give --data {first} --path-column path --label-column finding" in refusal(first.parent)


def test_columns_that_differ_in_white_space_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"path": "a.png", "label": 1, " label": 2}\n')
    with pytest.raises(UserError, match="two columns called 'label' except for white space"):
        read_table(tmp_path / "a.jsonl")


def problem_of(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_table(path)
    return str(error.value)


def test_a_parquet_is_not_unpacked_beyond_limits(tmp_path: Path) -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000), pa.array(["x" * 100_000]))
    for table in (pa.table({"a": long}), pa.table({"a": long}).replace_schema_metadata(None)):
        pq.write_table(table, tmp_path / "m.parquet", store_schema=False)
        assert "more than 500,000,000 characters in 10,000 rows" in problem_of(tmp_path / "m.parquet")


@pytest.mark.parametrize("text", [b"wxyz", b"name"])
def test_texts_of_a_parquet_that_are_none_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"name": ["wxyz"] * 3}), path, compression="none")
    path.write_bytes(path.read_bytes().replace(text, b"w\xff\xfe\xff"))
    assert "a Parquet file that cannot be read" in problem_of(path)


@pytest.mark.parametrize("image", [{"bytes": b"\x89PNG\r\n", "path": "a.png"}, b"\x89PNG\r\n"])
def test_images_in_a_parquet_are_named_by_column(tmp_path: Path, image: object) -> None:
    pd.DataFrame({"image": [image], "label": [0]}).to_parquet(tmp_path / "m.parquet")
    said = problem_of(tmp_path / "m.parquet")
    assert "column 'image' contains data that is not text, such as the images themselves" in said
