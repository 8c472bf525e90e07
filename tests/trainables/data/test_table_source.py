from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables.data.config import DataConfig
from trainables.data.rows import list_table
from trainables.data.table_source import TableSource


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (("Train", "test", "train"), True),
        (("Train", "TE", "train"), True),
        (("train", "train", "train"), False),
        (("test", "val", "val"), False),
        (("train", "0", "test"), False),
        (("train", "", "test"), False),
    ],
)
def test_a_column_of_splits_that_is_not_used_is_a_warning(tmp_path: Path, words: tuple[str, ...], warned: bool) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,finding,Part\n" + "".join(f"{n}.png,{n % 2},{word}\n" for n, word in enumerate(words)))
    for number in range(len(words)):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "list.txt").write_text("0.png\n")

    def found(**options: Any) -> list[str]:
        config = DataConfig(data=str(path), label_column=("finding",), split_names={"TE": "test"}, **options)
        return [check.message for check in TableSource.read(path, config).checks]

    message = "column 'Part' seems to say the split and is not used: --split-column 'Part' uses it"
    assert found() == [message] * warned
    samples = list_table(path, DataConfig(data=str(path), label_column=("finding",), split_names={"TE": "test"}))
    assert [check.message for check in samples.checks] == found()
    assert found(split_column="Part") == found(subgroup_column=("Part",)) == found(test_data="list.txt") == []


@pytest.mark.parametrize(
    ("train", "val", "same"),
    [
        (("7", "8"), ("7.0", ""), ["7", "8", "7", ""]),  # as pandas writes a column with a blank
        (("7", "x"), ("7.0", "y"), ["7", "x", "7.0", "y"]),
        (("007", "8"), ("NA", "nan"), ["007", "8", "", ""]),
    ],
)
def test_patients_have_one_name_in_all_tables(
    tmp_path: Path, train: tuple[str, ...], val: tuple[str, ...], same: list[str]
) -> None:
    for split, patients in (("train", train), ("val", val)):
        rows = "".join(f"{split}{row}.png,{row},{patient}\n" for row, patient in enumerate(patients))
        (tmp_path / f"{split}.csv").write_text(f"path,finding,pid\n{rows}")
        for row in range(2):
            (tmp_path / f"{split}{row}.png").touch()
    path = tmp_path / "train.csv"
    config = DataConfig(data=str(path), label_column=("finding",), val_data="val.csv", group_column="pid")
    assert list(list_table(path, config).groups or ()) == same
