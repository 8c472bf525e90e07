from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.samples import SPLIT_WORDS, Samples
from trainables.data.table import list_table

ROWS = [
    {"file": "a.png", "finding": "ill", "fold": "train", "pid": "1", "sex": "f", "site": "x"},
    {"file": "b.png", "finding": "well", "fold": "train", "pid": "2", "sex": "m", "site": "x"},
    {"file": "c.png", "finding": "ill", "fold": "val", "pid": "3", "sex": "f", "site": "y"},
    {"file": "d.png", "finding": "well", "fold": "test", "pid": "4", "sex": "", "site": "y"},
]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """``table(rows)`` writes a CSV file, and an empty file for each path in it unless told not to."""

    def write(
        rows: list[dict[str, str]], make_files: bool = True, delimiter: str = ",", encoding: str = "utf-8"
    ) -> Path:
        path = tmp_path / "manifest.csv"
        with path.open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        if make_files:
            for row in rows:
                name = row.get("file") or row.get("path")
                if name:
                    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / name).touch()
        return path

    return write


def read(path: Path, **options: Any) -> Samples:
    defaults: dict[str, Any] = {"path_column": "file", "label_column": ("finding",), "split_column": "fold"}
    return list_table(path, DataConfig(data=str(path), **(defaults | options)))


def changed(row: int, **cells: str) -> list[dict[str, str]]:
    return [{**cells_of, **(cells if index == row else {})} for index, cells_of in enumerate(ROWS)]


def problems_of(path: Path, **options: Any) -> str:
    """The problems that a manifest leaves for the end, or raises at once."""
    try:
        return "\n".join(read(path, **options).problems)
    except UserError as error:
        return str(error)


def test_columns_are_read_under_the_users_own_names(table: Callable[..., Path], tmp_path: Path) -> None:
    samples = read(table(ROWS), group_column="pid", subgroup_column=("sex",), source_column="site")
    assert samples.classes == ("ill", "well")
    assert list(samples.labels) == [0, 1, 0, 1]
    assert samples.splits == ("train", "train", "val", "test")
    assert samples.groups == ("1", "2", "3", "4")
    assert samples.subgroups == {"sex": ("f", "m", "f", "")}
    assert samples.sources == ("x", "x", "y", "y")
    assert samples.files[0] == tmp_path / "a.png"
    assert samples.problems == ()


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_semicolons_tabs_and_byte_order_marks_are_read(
    table: Callable[..., Path], delimiter: str, encoding: str
) -> None:
    assert len(read(table(ROWS, delimiter=delimiter, encoding=encoding))) == 4


def test_cells_stay_texts_and_lose_the_space_around_them(table: Callable[..., Path]) -> None:
    rows = [
        {**row, "finding": cell, "pid": "007"} for row, cell in zip(ROWS, [" NA ", "None", "NA", "1.0"], strict=True)
    ]
    samples = read(table(rows), group_column="pid")
    assert samples.classes == ("1.0", "NA", "None")
    assert samples.groups == ("007",) * 4


def test_split_column_called_split_is_used_unasked(table: Callable[..., Path]) -> None:
    rows = [{"file": row["file"], "finding": row["finding"], "split": "train"} for row in ROWS]
    assert read(table(rows), split_column=None).splits == ("train",) * 4


def test_no_split_column_leaves_the_splits_to_us(table: Callable[..., Path]) -> None:
    assert read(table(ROWS), split_column=None).splits is None


@given(st.sampled_from(sorted(SPLIT_WORDS)), st.sampled_from([str.lower, str.upper, str.title]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_split_words_go_in_any_case(table: Callable[..., Path], word: str, case: Callable[[str], str]) -> None:
    samples = read(table(changed(2, fold=case(word))))
    assert samples.splits is not None
    assert samples.splits[2] == SPLIT_WORDS[word]


def test_absolute_windows_and_unicode_paths_are_found(table: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "Zoë 1.png").touch()
    (tmp_path / "sub" / "w.png").touch()
    rows = changed(0, file=str(tmp_path / "sub" / "Zoë 1.png"))
    rows[1]["file"] = "sub\\w.png"
    for name in ("c.png", "d.png"):
        (tmp_path / name).touch()
    samples = read(table(rows, make_files=False))
    assert samples.problems == ()
    assert samples.paths[:2] == ("sub/Zoë 1.png", "sub\\w.png")
    assert samples.files[1] == tmp_path / "sub" / "w.png"


def test_a_bar_in_a_cell_makes_it_multi_label(table: Callable[..., Path]) -> None:
    samples = read(table(changed(0, finding="well | ill")))
    assert samples.task == "multi_label"
    assert samples.labels.tolist() == [[1, 1], [0, 1], [1, 0], [0, 1]]


def test_several_columns_of_0_and_1_make_it_multi_label_in_their_order(table: Callable[..., Path]) -> None:
    marks = [("1", "0"), ("0.0", "True"), ("1.0", "yes"), ("no", "FALSE")]
    rows = [{**row, "mass": mass, "edema": edema} for row, (mass, edema) in zip(ROWS, marks, strict=True)]
    samples = read(table(rows), label_column=("mass", "edema"))
    assert samples.classes == ("mass", "edema")
    assert samples.labels.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert [result.message for result in samples.checks] == ["1 of 4 images carry none of the labels"]


def test_one_hot_columns_can_be_single_label(table: Callable[..., Path]) -> None:
    rows = [{**row, "well": str(place % 2), "ill": str(1 - place % 2)} for place, row in enumerate(ROWS)]
    samples = read(table(rows), label_column=("well", "ill"), task="single_label")
    assert samples.classes == ("ill", "well")
    assert samples.labels.tolist() == [0, 1, 0, 1]


def test_uncertain_and_empty_0_1_cells_are_never_guessed(table: Callable[..., Path]) -> None:
    rows = [{**row, "mass": mass, "edema": "1"} for row, mass in zip(ROWS, ["-1.0", "", "1", "0"], strict=True)]
    text = problems_of(table(rows), label_column=("mass", "edema"))
    assert "label column 'mass', rows 2, 3: '-1.0' is neither 0 nor 1" in text


def test_all_problems_of_the_rows_are_told_together(table: Callable[..., Path], tmp_path: Path) -> None:
    rows = [*changed(1, fold="trian"), {**ROWS[0], "finding": "well"}, {**ROWS[0], "file": "e.png", "finding": ""}]
    path = table(rows)
    (tmp_path / "c.png").unlink()
    text = problems_of(path)
    assert "column 'fold', row 3: unknown split 'trian'; allowed: train, training, val" in text
    assert "1 of 6 rows name a missing file" in text
    assert "c.png" in text
    assert "a.png stands 2 times, with different labels (rows 2, 6): keep one row" in text
    assert "column 'finding', row 7: the label is empty" in text


def test_rows_at_fault_are_not_in_the_samples(table: Callable[..., Path]) -> None:
    assert read(table(changed(1, fold="trian"))).paths == ("a.png", "c.png", "d.png")


def test_missing_files_are_counted_and_the_first_five_named(table: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{**ROWS[place % 2], "file": f"x{place}.png"} for place in range(8)]
    path = table(rows)
    for place in range(1, 8):
        (tmp_path / f"x{place}.png").unlink()
    text = problems_of(path)
    assert "7 of 8 rows name a missing file" in text
    assert "x1.png, x2.png, x3.png, x4.png, x5.png and 2 more" in text


def test_missing_columns_are_told_together_with_the_nearest_names(table: Callable[..., Path]) -> None:
    with pytest.raises(UserError) as error:
        read(table(ROWS), path_column="filee", label_column=("findings",), group_column="patient")
    first, second, third = error.value.problems
    assert "--path-column filee: unknown column of manifest.csv 'filee': did you mean 'file'?" in first
    assert "--label-column findings" in second
    assert "did you mean 'finding'?" in second
    assert "--group-column patient" in third
    assert "allowed: file, finding, fold, pid, sex, site" in third


def test_label_column_must_be_named(table: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"--label-column is not given; .* manifest.csv has file, finding, fold"):
        read(table(ROWS), label_column=())


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,l,l\na.png,x,y\n")
    with pytest.raises(UserError, match=r"--label-column l: m.csv has 2 columns of that name"):
        read(path, path_column="path", label_column=("l",), split_column=None)


def test_a_byte_that_is_not_utf_8_is_told_with_its_line(table: Callable[..., Path]) -> None:
    path = table(ROWS)
    path.write_bytes(path.read_bytes().replace(b"c.png", b"c\xe9.png"))
    with pytest.raises(UserError, match="byte 0xe9 in line 4 is not UTF-8"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("file,finding,fold\n", "a header and no rows"),
        (
            "file,finding,fold\na,b,c\na,b,c,d,e\n",
            "not a table separated by commas: line 3 has 5 cells, the header has 3",
        ),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read(path)


def test_one_class_only_is_refused(table: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="one class only \\('ill'\\)"):
        read(table([{**row, "finding": "ill"} for row in ROWS]))


def test_several_labels_with_single_label_are_refused(table: Callable[..., Path]) -> None:
    text = problems_of(table(changed(3, finding="ill|well")), task="single_label")
    assert "column 'finding', row 5: more than one label ('ill|well') with --task single_label" in text


def test_blank_lines_do_not_shift_the_row_numbers(table: Callable[..., Path]) -> None:
    path = table(changed(3, fold="tset"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["", *lines[:2], "", *lines[2:]]) + "\n")
    assert "row 7: unknown split 'tset'" in problems_of(path)


names = st.text(
    st.characters(codec="utf-8", exclude_characters="|/\\\0", exclude_categories=["Cc", "Zs", "Zl", "Zp"]),
    min_size=1,
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(
    cells=st.lists(st.lists(names, max_size=3, unique=True), min_size=2, max_size=8), delimiter=st.sampled_from(",;\t")
)
def test_any_label_names_survive_the_table(table: Callable[..., Path], cells: list[list[str]], delimiter: str) -> None:
    rows = [{"path": f"{place}.png", "label": "|".join(cell), "more": "x"} for place, cell in enumerate(cells)]
    path = table(rows, delimiter=delimiter)
    classes = sorted({name for cell in cells for name in cell})
    config = DataConfig(data=str(path), label_column=("label",), task="multi_label")
    if len(classes) < 2:
        with pytest.raises(UserError, match="one class only"):
            list_table(path, config)
        return
    samples = list_table(path, config)
    assert samples.classes == tuple(classes)
    assert [set(samples.label_names(row)) for row in range(len(cells))] == [set(cell) for cell in cells]
    assert np.array_equal(samples.labels.sum(axis=1), [len(cell) for cell in cells])
