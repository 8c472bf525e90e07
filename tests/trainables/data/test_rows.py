from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError, raise_all
from trainables.data.config import DataConfig
from trainables.data.rows import list_table
from trainables.data.samples import SPLIT_WORDS, Samples

ROWS = [
    {"file": "a.png", "finding": "ill", "fold": "train", "pid": "1", "sex": "f", "site": "x"},
    {"file": "b.png", "finding": "well", "fold": "train", "pid": "2", "sex": "m", "site": "x"},
    {"file": "c.png", "finding": "ill", "fold": "val", "pid": "3", "sex": "f", "site": "y"},
    {"file": "d.png", "finding": "well", "fold": "test", "pid": "4", "sex": "", "site": "y"},
]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """``table(rows)`` writes a CSV file, and an empty file for each path in it unless others are given."""

    def write(
        rows: list[dict[str, str]], files: list[str] | None = None, name: str = "manifest.csv", delimiter: str = ","
    ) -> Path:
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        for image in [row.get("file") or row.get("path") for row in rows] if files is None else files:
            if image:
                (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / image).touch()
        return path

    return write


def read(path: Path, **options: Any) -> Samples:
    defaults: dict[str, Any] = {"path_column": "file", "label_column": ("finding",), "preset": "none"}
    return list_table(path, DataConfig.model_validate({"data": str(path), **defaults, **options}))


def problems_of(path: Path, **options: Any) -> str:
    """What is wrong, whether rows are left or none is."""
    try:
        return "\n".join(read(path, **options).problems)
    except UserError as error:
        return str(error)


def changed(row: int, **cells: str) -> list[dict[str, str]]:
    return [{**cells_of, **(cells if index == row else {})} for index, cells_of in enumerate(ROWS)]


def named(*names: str, **more: str) -> list[dict[str, str]]:
    """Rows of these files, ill and well by turns."""
    return [{"file": name, "finding": ("ill", "well")[place % 2], **more} for place, name in enumerate(names)]


def test_columns_are_read_under_the_users_own_names(table: Callable[..., Path], tmp_path: Path) -> None:
    samples = read(table(ROWS), split_column="fold", group_column="pid", subgroup_column=("sex",), source_column="site")
    assert (samples.task, samples.classes, samples.labels.tolist()) == ("single_label", ("ill", "well"), [0, 1, 0, 1])
    assert samples.splits == ("train", "train", "val", "test")
    assert (samples.groups, samples.group_from) == (("1", "2", "3", "4"), "pid")
    assert samples.subgroups == {"sex": ("f", "m", "f", "")}
    assert samples.sources == ("x", "x", "y", "y")
    assert samples.paths == ("a.png", "b.png", "c.png", "d.png")
    assert samples.files[0] == tmp_path / "a.png"
    assert (samples.problems, samples.left_out, samples.notes) == ((), (), ())


def test_all_problems_are_told_together(table: Callable[..., Path]) -> None:
    rows = [*changed(1, fold="trian"), {**ROWS[0], "finding": "well"}, {**ROWS[0], "file": "e.png", "finding": "-"}]
    rows[2]["file"] = "gone.png"
    rows.append({**ROWS[1], "file": ""})
    text = problems_of(table(rows, ["a.png", "b.png", "d.png", "e.png"]), split_column="fold")
    assert len(text.splitlines()) == 4
    assert "column 'file', row 8: the path is empty" in text
    assert "column 'fold', row 3: unknown split 'trian' (1 rows)" in text
    assert "--split-names trian=train" in text
    assert "1 of 7 rows name a file that is missing" in text
    assert "gone.png" in text
    assert "1 image with rows of different labels: a.png; --task multi_label" in text


def test_rows_at_fault_are_not_in_the_samples(table: Callable[..., Path]) -> None:
    samples = read(table(changed(1, fold="trian")), split_column="fold")
    assert (samples.paths, samples.labels.tolist()) == (("a.png", "c.png", "d.png"), [0, 0, 1])


def test_undecided_cells_are_told_with_missing_files_at_once(table: Callable[..., Path]) -> None:
    rows = [{"file": f"{place}.png", "finding": cell} for place, cell in enumerate(["0", "1", "-1", ""])]
    with pytest.raises(UserError) as error:
        read(table(rows, ["0.png", "1.png", "2.png"]))
    options = ("--uncertain-label", "--blank-label", "--skip-missing")
    assert [option in problem for option, problem in zip(options, error.value.problems, strict=True)] == [True] * 3


def test_columns_that_are_not_there_are_told_together_with_the_nearest(table: Callable[..., Path]) -> None:
    with pytest.raises(UserError) as error:
        read(table(ROWS), path_column="path", label_column="findings", group_column="patient", where=["Sex=f"])
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        *("--path-column path", "--label-column findings", "--group-column patient", "--where Sex")
    ]
    assert "'file' contains the names of image files" in error.value.problems[0]
    assert "did you mean 'finding'?" in error.value.problems[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_column": ()}, "--label-column is not given; .* manifest.csv has file, finding, fold"),
        ({"group_column": "pid", "group_from": "(a)"}, "--group-column and --group-from: give only one"),
        ({"images_dir": "nowhere"}, "--images-dir nowhere: no such folder"),
        ({"images_dir": "manifest.csv"}, "--images-dir manifest.csv: is not a folder"),
        ({"test_data": "test.cvs"}, "--test-data test.cvs: no such file or folder"),
        ({"where": ["sex=x"]}, "--where sex=x: unknown value of sex 'x'"),
        ({"where": ["sex=m", "site=y"]}, "--where: no row has all"),
    ],
)
def test_what_an_option_cannot_be_is_refused(table: Callable[..., Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(table(ROWS), **options)


def test_a_column_that_is_there_twice_is_refused(table: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("file,finding,finding\na.png,x,y\nb.png,y,z\n")
    assert "m.csv has 2 columns of that name" in problems_of(tmp_path / "m.csv")


# ---- where the files are


@pytest.mark.parametrize(
    ("cells", "files"),
    [
        (["/home/x/data/images/a.png", "/home/x/data/images/b.png"], ["images/a.png", "images/b.png"]),
        (["C:\\data\\images\\a.png", "C:\\data\\images\\b.png"], ["images/a.png", "images/b.png"]),
        (["a", "b"], ["part_1/a.dcm", "part_2/b.dcm"]),
        (["1.2.840.1", "1.2.840.2"], ["x/1.2.840.1.dcm", "x/1.2.840.2.dcm"]),
        (["img/a.PNG", "img/b.PNG"], ["img/a.png", "img/b.png"]),
        (["Zoë 1.png", "b.png"], ["sub/Zoë 1.png", "sub/b.png"]),
    ],
)
def test_files_are_found_below_the_tables_folder(
    table: Callable[..., Path], cells: list[str], files: list[str]
) -> None:
    samples = read(table(named(*cells), files))
    assert (samples.problems, samples.paths) == ((), tuple(files))
    assert any(note.startswith("2 of 2 paths were found by") for note in samples.notes)


def test_a_row_may_name_a_folder_of_images(table: Callable[..., Path]) -> None:
    samples = read(table(named("s1/", "s2"), ["s1/1.png", "s1/2.png", "s2/1.png"]))
    assert samples.paths == ("s1/1.png", "s1/2.png", "s2/1.png")
    assert samples.labels.tolist() == [0, 0, 1]


def test_images_of_one_row_are_one_group_unless_groups_are_given(table: Callable[..., Path]) -> None:
    files = [
        f"patient{patient:03d}/study{study}/{place}.png" for patient in range(9) for study in (1, 2) for place in "ab"
    ]
    studies = list(dict.fromkeys(file.rpartition("/")[0] for file in files))
    path = table(named(*studies, pid="1"), files)
    samples = read(path)
    assert (samples.groups, samples.group_from) == (tuple(study for study in studies for _ in "ab"), "file")
    assert any(note.startswith("images of one row are one group") for note in samples.notes)
    [check] = samples.checks  # Patients of two studies are not known by that.
    assert check.message.startswith("9 patients seem to have several images")
    for options in ({"group_column": "pid"}, {"group_from": r"(patient\d+)"}):
        samples = read(path, **options)
        assert samples.group_from in options.values()
        assert not any(note.startswith("images of one row") for note in samples.notes)
    assert read(table(named(*studies[::2]), files)).checks == ()


def test_a_name_of_two_files_is_refused_with_both(table: Callable[..., Path]) -> None:
    text = problems_of(table(named("a.png", "b.png"), ["x/a.png", "y/a.png", "x/b.png"]))
    assert "x/a.png or y/a.png" in text
    assert read(table(named("a.png", "b.png")), images_dir="x").paths == ("a.png", "b.png")


def test_missing_files_are_named_ten_at_most_or_left_out_by_option(table: Callable[..., Path]) -> None:
    path = table(named(*(f"{place}.png" for place in range(15))), ["0.png", "1.png"])
    text = problems_of(path)
    assert "13 of 15 rows name a file that is missing" in text
    assert "11.png and 3 more" in text
    assert "--skip-missing" in text
    samples = read(path, skip_missing=True)
    assert (len(samples), samples.problems) == (2, ())
    assert [(one.why, one.count, one.examples[0]) for one in samples.left_out] == [
        ("the file is missing (--skip-missing)", 13, "2.png")
    ]


def test_a_table_without_any_of_its_files_is_refused_whatever_the_option(table: Callable[..., Path]) -> None:
    with pytest.raises(UserError) as error:
        read(table(named("a.png", "b.png"), ["other.png"]), skip_missing=True)
    assert "--images-dir" in str(error.value)
    assert "--skip-missing" not in str(error.value)


def test_urls_are_files_to_download(table: Callable[..., Path]) -> None:
    names = [f"https://example.org/{place}.png?size=large" for place in range(3)]
    assert "these are URLs: download the files" in problems_of(table(named(*names), ["0.png", "1.png"]))
    assert "URL" not in problems_of(table(named("a.png", "b.png"), ["a.png"]))


def test_ids_that_lost_their_zeros_are_named(table: Callable[..., Path]) -> None:
    text = problems_of(table(named("0", "12"), ["img/0000.png", "img/0012.png"]))
    assert "0 for img/0000.png, 12 for img/0012.png" in text


def test_files_that_no_row_names_are_counted(table: Callable[..., Path]) -> None:
    assert (
        "files that no row names: 2"
        in read(table(named("a.png", "b.png"), ["a.png", "b.png", "c", "x/d.jpg", "y/e.jpg"])).notes
    )


def test_a_class_without_images_is_none(table: Callable[..., Path]) -> None:
    rows = [{**row, "finding": cell} for row, cell in zip(ROWS, ["x", "y", "x", "z"], strict=True)]
    samples = read(table(rows, ["a.png", "b.png", "c.png"]), skip_missing=True)
    assert (samples.classes, samples.labels.tolist()) == (("x", "y"), [0, 1, 0])
    assert "no image has the class z" in samples.notes
    unusable = problems_of(table(rows, ["a.png", "b.png", "c.png"]), skip_missing=True, classes="x,z")
    assert "--classes z: the table has it, but no row of it can be used" in unusable
    assert "one class only ('1')" in read(table([{**row, "finding": "1"} for row in ROWS])).nothing_to_tell
    assert not [note for note in read(table(rows), classes="x,y").notes if "no image has" in note]


# ---- rows of one image


def test_equal_rows_of_an_image_count_once(table: Callable[..., Path]) -> None:
    samples = read(table([*ROWS, ROWS[0], ROWS[0]]), split_column="fold", subgroup_column="sex")
    assert (len(samples), samples.problems) == (4, ())
    assert "2 rows repeat an image with equal labels: counted once" in samples.notes


def test_unequal_rows_of_an_image_are_united_only_by_option(table: Callable[..., Path]) -> None:
    names = ("a.png", "b.png", "c.png", "d.png", "e.png")
    path = table([*named(*names), *({"file": name, "finding": "new"} for name in names)])
    text = problems_of(path)
    assert "5 images with rows of different labels: a.png, b.png, c.png and 2 more; --task multi_label" in text
    samples = read(path, task="multi_label")
    assert (samples.problems, samples.classes) == ((), ("ill", "new", "well"))
    assert samples.labels.tolist() == [[1, 1, 0], [0, 1, 1], [1, 1, 0], [0, 1, 1], [1, 1, 0]]
    assert "5 images have rows of different labels: an image has the labels of all its rows" in samples.notes


def test_uniting_takes_a_known_label_before_a_missing_one(table: Callable[..., Path]) -> None:
    rows = [{"file": "a.png", "x": x, "y": y} for x, y in (("", "0"), ("0", ""), ("0", "1"))]
    rows += [{"file": "b.png", "x": "1", "y": ""}]
    options: dict[str, Any] = {"label_column": ("x", "y"), "blank_label": "missing"}
    assert read(table(rows), task="multi_label", **options).labels.tolist() == [[0, 1], [1, -1]]
    assert "1 image with rows of different labels" in problems_of(table(rows), **options)


def test_rows_of_an_image_have_one_patient_and_may_differ_elsewhere(table: Callable[..., Path]) -> None:
    rows = [*ROWS, {**ROWS[0], "pid": "9", "sex": "m"}]
    assert "--group-column pid" in problems_of(table(rows), group_column="pid")
    samples = read(table(rows), subgroup_column="sex")
    assert samples.subgroups == {"sex": ("f", "m", "f", "")}
    assert "column 'sex' differs between the rows of 1 image: the first row counts" in samples.notes


def test_an_image_in_two_splits_stays_there_twice_for_the_checks(table: Callable[..., Path]) -> None:
    samples = read(table([*ROWS, {**ROWS[0], "fold": "test"}]), split_column="fold")
    assert [
        (path, split) for path, split in zip(samples.paths, samples.splits or (), strict=True) if path == "a.png"
    ] == [
        ("a.png", "train"),
        ("a.png", "test"),
    ]


# ---- which rows


def test_rows_are_chosen_by_value_and_the_others_counted(table: Callable[..., Path]) -> None:
    samples = read(table(ROWS), where=["sex=f,m", "site=x"])
    assert samples.paths == ("a.png", "b.png")
    assert [(one.why, one.count, one.examples) for one in samples.left_out] == [
        ("sex is not f or m (--where)", 1, ("row 5",)),
        ("site is not x (--where)", 1, ("row 4",)),
    ]


def test_a_row_that_is_not_chosen_keeps_its_image(table: Callable[..., Path]) -> None:
    files = ["p1/a.png", "p2/b.png", "p3/b.png"]
    rows = [{"file": file, "finding": cell, "sex": sex} for file, cell, sex in zip(files, "011", "ffm", strict=True)]
    assert "1 of 2 rows name a file that is missing" in problems_of(
        table(rows, files=["p1/a.png", "p3/b.png"]), where=["sex=f"]
    )


def test_rows_that_are_not_chosen_are_not_asked_about(table: Callable[..., Path]) -> None:
    rows = [{**row, "finding": cell} for row, cell in zip(ROWS, ["0", "1", "-1", ""], strict=True)]
    assert read(table(rows), where=["site=x"]).classes == ("0", "1")


def test_tables_are_joined_by_a_column(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table([{"file": f"{place}.png", "study": str(place // 2)} for place in range(6)])
    (tmp_path / "labels.csv").write_text("study,finding,note\n0,ill,x\n1,well,y\n2,ill,z\n2,ill,z\n7,well,z\n")
    join = [{"table": "labels.csv", "on": "study", "columns": ["finding"]}]
    assert read(path, join=join).labels.tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("other", "join", "message"),
    [
        ("study,finding\n0,ill\n0,well\n", {}, "labels.csv has rows that differ for one study, such as 0"),
        ("study,finding\nx,ill\ny,well\n", {}, r"no row of manifest.csv has a study of labels.csv \(it has 0\)"),
        ("0 ill\n1 well\n0 well\n", {}, "join: .* no header: .* such as header: column1,column2"),
        ("0 ill\n1 well\n", {"header": ["study"]}, r"join: header: study: 1 name\(s\), but line 1 .* has 2 cells"),
        ("study,finding\n0,ill\n", {"on": "patient"}, "has no column 'patient'"),
        ("study,finding\n0,ill\n", {"columns": ["label"]}, "labels.csv has no column 'label'"),
        ("study,file\n0,ill\n", {"columns": ["file"]}, "'file' is a column of manifest.csv already"),
        ("study,finding\n0,ill\n1,well\n", {}, "'finding' has 2 blank cells"),
    ],
)
def test_a_join_that_does_not_fit_is_refused(
    table: Callable[..., Path], tmp_path: Path, other: str, join: dict[str, Any], message: str
) -> None:
    path = table([{"file": f"{place}.png", "study": str(place // 2)} for place in range(6)])
    (tmp_path / "labels.csv").write_text(other)
    with pytest.raises(UserError, match=message):
        raise_all(read(path, join=[{"table": "labels.csv", "on": "study", **join}]).problems)


def test_tables_without_header_are_joined_by_the_names_given_for_their_columns(tmp_path: Path) -> None:
    for name, lines in {
        "images.txt": ["1 001.Jay/b.jpg", "2 001.Jay/a.jpg", "3 002.Owl/a.jpg", "4 002.Owl/b.jpg"],
        "image_class_labels.txt": ["1 1", "2 1", "3 2", "4 2"],
        "train_test_split.txt": ["4 0", "3 1", "2 1", "1 0"],
        "classes.txt": ["1 Jay", "2 Owl"],
    }.items():
        (tmp_path / name).write_text("\n".join(lines))
        for line in lines if name == "images.txt" else ():
            (tmp_path / line.split()[1]).parent.mkdir(exist_ok=True)
            (tmp_path / line.split()[1]).touch()
    join = [
        {"table": "image_class_labels.txt", "on": "id", "header": ["id", "class"]},
        {"table": "train_test_split.txt", "on": "id", "header": ["id", "split"]},
        {"table": "classes.txt", "on": "class", "header": ["class", "finding"]},
    ]
    samples = read(tmp_path / "images.txt", columns="id,file", join=join, split_names="1=train,0=test")
    assert (samples.problems, samples.classes, samples.labels.tolist()) == ((), ("Jay", "Owl"), [0, 0, 1, 1])
    assert samples.splits == ("test", "train", "train", "test")


def test_rows_of_another_split_need_no_partner_in_a_join_for_groups(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table(named("a.png", "b.png"), name="train.csv")
    table(named("c.png", "d.png"), name="val.csv")
    (tmp_path / "lesions.csv").write_text("file,lesion\na.png,1\nb.png,2\n")
    join = [{"table": "lesions.csv", "on": "file"}]
    samples = read(path, join=join, group_column="lesion")
    assert (samples.problems, samples.groups) == ((), ("1", "2", "", ""))
    assert "2 of 2 rows of val.csv have no match in lesions.csv: lesion left blank" in samples.notes
    with pytest.raises(UserError, match=r"no row of val.csv .* \(it has c.png\); leave .* with --val-data none"):
        read(path, join=join, label_column=("lesion",), val_data="val.csv")


# ---- splits


def test_no_split_column_leaves_the_splits_to_us(table: Callable[..., Path]) -> None:
    assert read(table(ROWS)).splits is None


def test_split_column_called_split_is_used_unasked(table: Callable[..., Path]) -> None:
    rows = [*named("a.png", "b.png", split="train"), *named("c.png", split="val")]
    samples = read(table(rows))
    assert (samples.splits, samples.checks) == (("train", "train", "val"), ())


@pytest.mark.parametrize("options", [{}, {"split_names": "UNASSIGNED=train"}, {"val_data": "none"}])
def test_rows_that_are_all_of_train_leave_the_splits_to_us(table: Callable[..., Path], options: dict[str, Any]) -> None:
    samples = read(
        table(named("a.png", "b.png", split="UNASSIGNED" if "split_names" in options else "train")), **options
    )
    assert samples.splits is None
    assert "all rows are train: val and test are drawn from them" in samples.notes


@pytest.mark.parametrize(
    ("refused", "splits"), [("val", ("train", "train", "test")), ("test", ("train", "train", "val"))]
)
def test_none_in_place_of_a_split_leaves_its_rows_out(
    table: Callable[..., Path], refused: str, splits: tuple[str, ...]
) -> None:
    path = table(ROWS)
    samples = read(path, split_column="fold", **{f"{refused}_data": "none"})
    assert samples.splits == splits
    why = f"{refused} by column 'fold' (--{refused}-data none)"
    assert [(one.why, one.count) for one in samples.left_out] == [(why, 1)]
    own = path.with_name("own.yaml")
    for said, rows in ((f"{refused}_data: none\n", 4), ("title: mine\n", 3)):
        own.write_text(said)
        assert len(read(path, split_column="fold", preset=str(own), **{f"{refused}_data": "none"})) == rows


@given(st.sampled_from(sorted(SPLIT_WORDS)), st.sampled_from([str.lower, str.upper, str.title]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30)
def test_split_words_go_in_any_case(table: Callable[..., Path], word: str, case: Callable[[str], str]) -> None:
    samples = read(table(changed(2, fold=case(word))), split_column="fold")
    assert samples.splits is not None
    assert samples.splits[2] == SPLIT_WORDS[word]


def test_other_split_words_are_said_by_option_and_blank_ones_are_counted(table: Callable[..., Path]) -> None:
    rows = [{**row, "fold": word} for row, word in zip(ROWS, ["TR", "validate", "hold-out", ""], strict=True)]
    text = problems_of(table(rows), split_column="fold", split_names="TR=train")
    assert "column 'fold', row 5: the split is blank in 1 rows" in text
    assert "column 'fold', row 4: unknown split 'hold-out' (1 rows)" in text
    samples = read(table(rows[:3]), split_column="fold", split_names="tr=train,hold-out=test")
    assert samples.splits == ("train", "val", "test")


@pytest.fixture
def with_splits(table: Callable[..., Path], tmp_path: Path) -> Path:
    """A table of six files; beside it a list, a table of two more and a folder of two more."""
    images = [f"img/{place}.png" for place in range(8)]
    path = table(named(*images[:6]), [*images, "held/ill/x.png", "held/well/y.png"])
    (tmp_path / "list.txt").write_text("filename\n0.png\nimg/3.png\nimg/99.png\n")
    (tmp_path / "more.csv").write_text("file,finding\nimg/6.png,ill\nimg/7.png,well\n")
    return path


def test_a_list_of_files_takes_its_rows_out_of_the_table(with_splits: Path) -> None:
    samples = read(with_splits, test_data="list.txt")
    assert samples.splits == ("test", "train", "train", "test", "train", "train")
    assert "1 of 3 names of list.txt are not in the table: img/99.png" in samples.notes


def test_a_table_or_a_folder_adds_its_rows(with_splits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = read(with_splits, val_data="more.csv", test_data="held")
    assert samples.splits == ("train",) * 6 + ("val",) * 2 + ("test",) * 2
    assert samples.labels.tolist() == [0, 1] * 5
    assert samples.paths[-2:] == ("held/ill/x.png", "held/well/y.png")
    (with_splits.parent / "elsewhere").mkdir()
    monkeypatch.chdir(with_splits.parent / "elsewhere")
    assert read(with_splits, val_data="../more.csv").splits == ("train",) * 6 + ("val",) * 2


def test_further_tables_may_lack_the_header_that_columns_name(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table(named("a.png", "b.png"), ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "bare.csv").write_text("c.png,ill\nd.png,well\n")
    assert read(path, columns="file,finding", val_data="bare.csv").splits == ("train", "train", "val", "val")
    assert read(tmp_path / "bare.csv", columns="file,finding", test_data="manifest.csv").splits == (
        *("train", "train", "test", "test"),
    )


def test_a_table_in_another_folder_names_files_of_its_own(table: Callable[..., Path], tmp_path: Path) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    for folder, labels in ((train, "a.png,ill\nb.png,well\n"), (test, "a.png,well\nb.png,ill\n")):
        folder.mkdir()
        (folder / "labels.csv").write_text(f"file,finding\n{labels}")
        for name in ("a.png", "b.png"):
            (folder / name).touch()
    samples = read(train / "labels.csv", test_data=str(test / "labels.csv"))
    assert samples.files == (train / "a.png", train / "b.png", test / "a.png", test / "b.png")
    assert samples.labels.tolist() == [0, 1, 1, 0]
    assert len(set(samples.paths)) == 4


def test_a_neighbouring_table_is_taken_and_said_or_refused(table: Callable[..., Path]) -> None:
    table(named("c.png", "d.png"), name="test.csv")
    path = table(named("a.png", "b.png"), name="train.csv")
    samples = read(path)
    assert samples.splits == ("train", "train", "test", "test")
    assert "test.csv next to train.csv is used as the test split; --test-data none ignores it" in samples.notes
    assert read(path, test_data="none").splits is None
    (path.parent / "d.png").unlink()
    assert "leave test.csv out with --test-data none" in problems_of(path)


def test_tables_in_split_folders_are_taken_with_the_images_of_each(table: Callable[..., Path], tmp_path: Path) -> None:
    """The same file names in each folder, as Roboflow and RFMiD have them."""
    for folder, cells in (("train", "abcd"), ("valid", "ab"), ("test", "bc")):
        (tmp_path / folder).mkdir()
        table(named(*cells), [f"{folder}/img/{name}.png" for name in cells], name=f"{folder}/labels.csv")
    samples = read(tmp_path / "train/labels.csv")
    assert samples.splits == (*["train"] * 4, "val", "val", "test", "test")
    assert samples.files[4:] == tuple(
        tmp_path / f"{place}.png" for place in ("valid/img/a", "valid/img/b", "test/img/b", "test/img/c")
    )
    assert (
        "valid/labels.csv next to train/labels.csv is used as the val split; --val-data none ignores it"
        in samples.notes
    )
    assert read(tmp_path / "train/labels.csv", images_dir=str(tmp_path / "train/img")).files == samples.files
    assert read(tmp_path / "train/labels.csv", group_from="^img/(.)").groups == tuple("abcdabbc")
    alone = read(tmp_path / "train/labels.csv", val_data="none", test_data="none")
    assert (len(alone), alone.splits) == (4, None)
    shutil.rmtree(tmp_path / "valid/img")
    text = problems_of(tmp_path / "train/labels.csv", skip_missing=True)
    assert "2 of 2 rows name a file that is missing" in text
    assert "leave labels.csv out with --val-data none" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_data": "list.txt", "val_data": "list.txt"}, "--val-data and --test-data both name 2 images: img/0.png"),
        ({"test_data": "none.txt"}, "none of its 1 names is in manifest.csv, such as zz.png"),
        ({"val_data": "wrong.csv"}, "--label-column finding: unknown column of wrong.csv"),
        ({"val_data": "held", "task": "multi_label"}, "--val-data .*held: folders give one class per image"),
        ({"val_data": "strange"}, "--val-data .*strange: unknown class 'sick'"),
        ({"test_data": "more.csv", "split_column": "part"}, "--test-data: column 'part' says test in 1 rows, too"),
    ],
)
def test_splits_that_do_not_fit_are_refused(with_splits: Path, options: dict[str, Any], message: str) -> None:
    folder = with_splits.parent
    (folder / "none.txt").write_text("zz.png\n")
    (folder / "wrong.csv").write_text("file,label\nimg/6.png,ill\n")
    for name in ("ill", "sick"):
        (folder / "strange" / name).mkdir(parents=True)
        (folder / "strange" / name / "1.png").touch()
    if "split_column" in options:
        lines = with_splits.read_text().splitlines()
        words = ["part", "test", *["train"] * 5]
        with_splits.write_text("\n".join(f"{line},{word}" for line, word in zip(lines, words, strict=True)))
    assert re.search(message, problems_of(with_splits, **options))


# ---- groups


def test_groups_come_from_paths_by_a_pattern(table: Callable[..., Path]) -> None:
    names = ("p1/a.png", "p1/b.png", "p2/a.png", "x/c.png")
    samples = read(table(named(*names[:3])), group_from=r"(p\d)/")
    assert (samples.groups, samples.group_from) == (("p1", "p1", "p2"), r"(p\d)/")
    text = problems_of(table(named(*names)), group_from=r"(p\d)/")
    assert r"--group-from '(p\d)/': 1 of 4 files have no match: x/c.png" in text


def test_names_that_look_like_patients_are_a_warning(table: Callable[..., Path]) -> None:
    rows = named(*(f"patient{place // 2:03d}_{place % 2}.png" for place in range(20)), pid="1")
    check = read(table(rows)).checks[0]
    assert (check.check, check.severity) == ("patients_in_file_names", "warning")
    assert "--group-from" in check.message
    assert read(table(rows), group_column="pid").checks == ()


@pytest.mark.parametrize(
    ("column", "images_of_each", "warned"),
    [
        ("patient_id", 2, True),
        ("Subject", 2, True),
        ("PatientID", 1, False),
        ("Patient Age", 2, False),
        ("lesion_id", 2, True),
        ("StudyInstanceUID", 2, True),
        ("lesion", 2, False),
    ],
)
def test_a_column_of_patients_that_is_not_used_is_a_warning(
    table: Callable[..., Path], column: str, images_of_each: int, warned: bool
) -> None:
    images = named(*(f"{place}.png" for place in range(8)))
    rows = [{**row, column: f"n{place // images_of_each}"} for place, row in enumerate(images)]
    path = table([*rows, rows[0]])
    checks = read(path).checks
    assert [(one.check, one.severity) for one in checks] == [("unused_patients", "warning")] * warned
    assert all(f"--group-column '{column}' keeps them in one" in one.message for one in checks)
    assert read(path, group_column=column).checks == read(path, group_from=r"(\d)").checks == ()


@pytest.mark.parametrize(("last", "told"), [("val", "may be in two splits"), ("test", "1 of these are in two of the")])
def test_of_patients_that_are_not_used_it_is_said_how_many_are_in_two_given_splits(
    table: Callable[..., Path], last: str, told: str
) -> None:
    splits = ["train"] * 4 + ["test"] * 2 + ["val", last]
    images = named(*(f"{place}.png" for place in range(8)))
    rows = [{**row, "pid": f"n{n // 2}", "split": splits[n]} for n, row in enumerate(images)]
    (check,) = read(table(rows)).checks
    assert told in check.message


def test_rows_without_a_patient_or_a_split_put_no_patient_into_two_splits(table: Callable[..., Path]) -> None:
    images = named(*(f"{place}.png" for place in range(8)))
    rows = [{**row, "pid": f"n{n // 2}", "split": "test" if n < 2 else "train"} for n, row in enumerate(images)]
    rows[1] |= {"pid": "NA"}
    rows[2] |= {"pid": "NA"}
    rows[4] |= {"finding": "", "split": ""}
    (check,) = read(table(rows), blank_label="drop").checks
    assert "may be in two splits" in check.message


# ---- any names


names = st.text(
    st.characters(codec="utf-8", exclude_characters="|/\\\0;,", exclude_categories=["Cc", "Zs", "Zl", "Zp"]),
    max_size=12,
).map("x{}".format)  # not 1, nan or [a list]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50)
@given(
    cells=st.lists(st.lists(names, min_size=1, max_size=3, unique=True), min_size=2, max_size=8),
    delimiter=st.sampled_from(",;\t"),
)
def test_any_label_names_survive_the_table(table: Callable[..., Path], cells: list[list[str]], delimiter: str) -> None:
    rows = [{"file": f"{place}.png", "finding": "|".join(cell), "more": "x y"} for place, cell in enumerate(cells)]
    samples = read(table(rows, delimiter=delimiter), task="multi_label")
    assert list(samples.classes) == sorted({name for cell in cells for name in cell})
    assert [set(samples.label_names(row)) for row in range(len(cells))] == [set(cell) for cell in cells]
