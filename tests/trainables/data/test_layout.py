"""Layouts of folders that are not what they seem: tables beside them, masks, patients, and forms that are not read."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from folder_trees import listed, make, refusal

from trainables.data.config import DataConfig, dashed
from trainables.data.files import FileIndex
from trainables.data.layout import _Tree, read_layout
from trainables.data.rows import list_table

TABLE = ("left/0.png,x", "left/1.png,y", "right/2.png,x", "right/3.png,y")
GRADES = ("a,g", "b,g", "c,h", "d,h")


@pytest.mark.parametrize(
    ("files", "table", "given"),
    [
        ("left/0 left/1 right/2 right/3", ("file,diagnosis", *TABLE), "--path-column file --label-column diagnosis"),
        (
            "train/left/0 train/left/1 test/right/2 test/right/3 test/left/4",
            ("file,label", *TABLE),
            "--path-column file",
        ),
        (
            "left/0 left/1 right/2 right/3",
            ("id,note,grade", "0,p,x", "1,q,x", "2,r,y", "3,s,x"),
            "--label-column grade",
        ),
        ("raw/a raw/b raw/c raw/d small/a small/b small/c small/d", ("id,grade", *GRADES), "--images-dir ROOT/raw"),
    ],
)
def test_a_table_that_names_the_images_and_contradicts_the_folders_stops(
    tmp_path: Path, files: str, table: tuple[str, ...], given: str
) -> None:
    make(tmp_path, *(f"{file}.png" for file in files.split()))
    (tmp_path / "T.csv").write_text("\n".join(table) + "\n")
    said = refusal(tmp_path)
    assert f"give --data {tmp_path}/T.csv" in said
    assert given.replace("ROOT", str(tmp_path)) in said
    assert len(listed(tmp_path, class_from="([^/]+)/[^/]+$").classes) == 2


@pytest.mark.parametrize(
    "table",
    [
        ("file,what,age", "left/0.png,left,7", "left/1.png,left,8", "right/2.png,right,7", "right/3.png,right,8"),
        ("file,code,age", "left/0.png,0,7", "left/1.png,0,8", "right/2.png,1,7", "right/3.png,1,8"),
        ("file,fold", "left/0.png,1", "left/1.png,2", "right/2.png,1", "right/3.png,2"),
        ("what,count", "left,2", "right,2"),
        ("file,label", "elsewhere/7.png,x", "elsewhere/8.png,y", "elsewhere/9.png,y", "elsewhere/10.png,x"),
    ],
)
def test_a_table_beside_folders_may_agree_with_them_or_say_nothing(tmp_path: Path, table: tuple[str, ...]) -> None:
    make(tmp_path, *(f"{row.split(',')[0]}" for row in TABLE))
    (tmp_path / "T.csv").write_text("\n".join(table) + "\n")
    assert listed(tmp_path).classes == ("left", "right")


def test_a_long_table_of_few_images_does_not_speak_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainables.data.folder_tables._ROWS", 4)
    make(tmp_path, *(f"Train/{n % 2}/{n}.png" for n in range(20)), *(f"Test/t{n}.png" for n in range(8)))
    (tmp_path / "Test.csv").write_text("Path,Id\n" + "".join(f"Test/t{n}.png,{n % 2}\n" for n in range(8)))
    samples = listed(tmp_path)
    assert (samples.classes, len(samples), [one.count for one in samples.left_out]) == (("0", "1"), 20, [8])


def test_a_table_in_a_folder_beside_the_images_is_read_as_the_message_says(tmp_path: Path) -> None:
    make(tmp_path, *(f"Training_Input/{name}.png" for name in "abcd"))
    table = make(tmp_path, "Truth/") / "Truth" / "labels.csv"
    table.write_text("id,patient_id,grade\na,1,g\nb,2,g\nc,3,h\nd,3,h\n")
    words = shlex.split(refusal(tmp_path).partition("names images: give ")[2])
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given.keys() <= {dashed(name) for name, one in DataConfig.options().items() if not one.in_files_only}
    config = DataConfig.model_validate({option[2:].replace("-", "_"): value for option, value in given.items()})
    samples = list_table(Path(config.data), config)
    assert (len(samples), samples.classes, samples.groups) == (4, ("g", "h"), ("1", "2", "3", "3"))


def test_a_table_of_patients_whose_folders_stand_where_classes_would(tmp_path: Path) -> None:
    make(tmp_path, "train/ID1001|ID1002|ID1003|ID1004|ID1005/#.png")
    (tmp_path / "train.csv").write_text(
        "Patient,Smoker\n" + "".join(f"ID{n},{'yes' if n % 2 else 'no'}\n" for n in range(1001, 1006))
    )
    assert f"give --data {tmp_path}/train.csv --path-column Patient --label-column Smoker" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (("images_001|images_002|images_003/images/#.png", "Data.csv"), "images_001, images_002, images_003|Data.csv"),
        (("HAM_part_1|HAM_part_2/#.png", "meta.csv"), "HAM_part_1, HAM_part_2|meta.csv|--label-column"),
        (("fold1|fold2/ill|well/#.png",), "fold1, fold2|--class-from"),
        (("set/ill/patient1|patient2/#.png",), "patient1, patient2|--group-from"),
        (("p10|p11/p10000032/s5/#.jpg",), "p10, p11"),
        (
            (
                "train|valid/XR_WRIST|XR_HAND/patient1|patient2|patient3/study1_positive|study2_negative/#.png",
                "train_labels.csv",
            ),
            "XR_HAND, XR_WRIST|study1_|train_labels.csv|--class-from '(negative|positive)/'|'(patient\\d+)'",
        ),
        (("breast|colon/benign|malignant/#.png",), "breast, colon|benign|--class-from"),
        (("P/Benign|InSitu|Normal/#.png", "W/small|smaller/#.png"), "the class may be P, W|/P for P only"),
        (("hand|wrist/n1|n2|n3/study1_Positive|study2_Negative/#.png",), "--class-from '(Negative|Positive)/'"),
        (("colon/colon_aca|colon_n/#.png", "lung/lung_aca|lung_n/#.png"), "colon, lung|^([^/]+)/|^[^/]+/([^/]+)/"),
        (("TR|VA/ill|well/#.png",), "TR, VA|--split-names TR=train"),
        (("Original Dataset|Augmented/ill|well/#.png",), "Augmented, Original Dataset|--data"),
        (("normal|test/#.png",), "test|--split-names test=test|--class-from"),
        (("seg_val|seg_test/#.png",), "seg_test, seg_val|--split-names"),
        (("chest|bone/train|test/ill|well/#.png",), "bone/test, bone/train, chest/test, chest/train|--data"),
        (("ill|well|unlabeled/#.png",), "unlabeled|--classes ill,well"),
        (("ill|well|masks/a/#.png",), "masks|--classes ill,well"),
        (("train|test/#.png", "labels.csv"), "test, train|labels.csv|--label-column"),
        (("train/#.png",), "train|--class-from"),
        (("train|bus|plane/#.png",), "train|--class-from"),
        (("train|test|extra/ill|well/#.png",), "'extra'|--split-names extra=train"),
        (("train|train_val|test/ill|well/#.png",), "'train_val'|--split-names train_val=train"),
        (("train_1|train_2|test/ill|well/#.png",), "'train_1' and 'train_2'|--split-names train_1=train,train_2=train"),
        (("#.png", "labels.csv"), "2 image(s)|labels.csv"),
        (("images.zip", "labels.csv"), "no images|images.zip must be unpacked"),
        (("a. Training Set|b. Testing Set/#.png",), "a. Training Set, b. Testing Set: images, but no class folders"),
        (("set/JPEGImages|SegmentationClass|SegmentationObject/#.png",), "one class only ('JPEGImages')"),
        (("training|test/images|1st_manual/#.png",), "test, training: images, but no class folders"),
        (("8860|8861|8862/0|1/#.png",), "the class may be|^[^/]+/([^/]+)/|^([^/]+)/"),
        (
            ("h1/covid|normal/#.png", "h2/covid|normal|other/#.png", "h3/normal/#.png"),
            "the class may be|^[^/]+/([^/]+)/",
        ),
        (("lower/marks|finds/a|b/#.png", "upper/marks/c/#.png"), "the class may be|'([^/]+)/[^/]+$' for the innermost"),
        (("IDRI-001|IDRI-002|IDRI-003|IDRI-004|IDRI-005/2000-01-01/#.png",), "patients or studies by their names"),
        (("|".join(f"patient_{n:03}_node_{n % 5}" for n in range(5)) + "/#.png",), "patients or studies by their name"),
        (("train/3f|0a|9c/x/a.png", "test/77|d1/x/a.png"), "patients or studies, as no two splits have a folder|REGEX"),
        (("3f|0a|9c|77|d1/a.png",), "patients or studies, as they have hardly more than one image each|REGEX"),
        (("raw|enhanced/IM3007.png", "raw|enhanced/IM3011.png"), "images of the same names, as versions|'^([^/]+)/'"),
        (("ill|well/#.png", "rare/images.zip"), "rare/images.zip (.zip: 1): unpack it|--classes ill,well"),
        (("ill|well/#.png", "rare/#.HEIC"), "(.heic: 2): save them as PNG|--classes ill,well"),
        (("ill|well/#.png", "rare/#.nii.gz"), "(.nii.gz: 2)|--classes ill,well"),
        (("original|resized/#.png",), "not named like a class"),
        (("data/scan_#_0.png", "data/scan_#_1.png"), r"--class-from '[_-]([A-Za-z]+|\d)\.\w+$'"),
        (
            ("train/cat.#.png", "train/dog.#.png", "test/#.png"),
            "--class-from '([^/]*?[A-Za-z])[_. -]*|--test-data none",
        ),
        (("set/fold_1|fold_2/ill|well/#.png",), "fold_1, fold_2|/set --class-from '^[^/]+/([^/]+)/'"),
        (("labeled-images/a|b/#.png", "unlabeled-images/x/#.png"), "/labeled-images"),
        (("mnist.npz",), "mnist.npz"),
        (("a/#.nii.gz", "readme.md"), "not supported images (.nii.gz: 2, .md: 1)|save each image as a file"),
        (
            (f"color|gray/{'|'.join(f'leaf {letter}' for letter in 'abcdefghijklmnopqrstuvw')}/#.png",),
            "the class may be color, gray|--class-from '^[^/]+/([^/]+)/'|/color for color only",
        ),
        (("jpg/image_0000#.jpg", "imagelabels.mat"), "one class only|imagelabels.mat: save the labels as CSV"),
        (("fold_1|fold_2/train|val/ill|well/#.png",), "fold_1/train|named like splits|/fold_1"),
        (("a/pictures/#.png", "b/all/train|test/ill|well/#.png"), "b/all/train: named like splits|/b, or leave it out"),
        (("jpeg/train|test/#.jpg", "train|test/#.png", "t.csv"), "folder 'jpeg'|test, train: images|t.csv"),
    ],
)
def test_what_leaves_open_what_is_a_class_stops_with_the_way_out(
    tmp_path: Path, paths: tuple[str, ...], named: str
) -> None:
    said = refusal(make(tmp_path, *paths))
    assert [words for words in re.split(r"\|(?![^()]*\))", named) if words not in said] == []


def test_tables_of_three_splits_are_named_together(tmp_path: Path) -> None:
    for split, folder in {"Training": "Training", "Validation": "Evaluation", "Test": "Test"}.items():
        place = make(tmp_path, f"{folder}_Set/{folder}_Set/{split}/#.png") / f"{folder}_Set" / f"{folder}_Set"
        (place / f"{split}_Labels.csv").write_text("ID,Risk\n1,0\n2,1\n")
    train, val, test = (f"{tmp_path}/{name}_Set/{name}_Set" for name in ("Training", "Evaluation", "Test"))
    assert refusal(tmp_path).endswith(
        f"give --data {train}/Training_Labels.csv --path-column ID --label-column COLUMN "
        f"--val-data {val}/Validation_Labels.csv --test-data {test}/Test_Labels.csv"
    )


def test_a_table_of_a_split_is_named_whatever_it_is_called_and_a_form_to_be_filled_in_is_not(tmp_path: Path) -> None:
    for split, labels in {"train_1": "0011", "valid": "0101", "test": "0000"}.items():
        make(tmp_path, *(f"{split}_images/{split}{row}.png" for row in range(4)))
        rows = "".join(f"{split}{row},{label}\n" for row, label in enumerate(labels))
        (tmp_path / f"{split}.csv").write_text(f"id,grade\n{rows}")
    assert refusal(tmp_path).endswith(
        f"give --data {tmp_path}/train_1.csv --path-column id --label-column grade --val-data {tmp_path}/valid.csv"
    )


def test_files_of_a_form_that_is_not_read_are_counted(tmp_path: Path) -> None:
    (left_out,) = listed(make(tmp_path, "ill|well/#.png", "ill/#.heic", "notes/a.pdf", "ill/a.txt")).left_out
    assert (left_out.why, left_out.count) == ("files in an unsupported format (.heic: 2)", 2)


def test_masks_of_another_tree_are_left_out(tmp_path: Path) -> None:
    samples = listed(make(tmp_path, "Annotation400/Disc/ill|well/g#.bmp", "SET400/Training400/ill|well/g#.png"))
    assert (samples.classes, len(samples), sum(one.count for one in samples.left_out)) == (("ill", "well"), 4, 4)


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        (("set/ill/Patient (1)|Patient (2)/#.png", "set/well/Patient (3)/#.png"), "^(?:[^/]+/){2}([^/]+)"),
        (("ill|well/p1 a|p2 a|p3 a/#.png",), "^(?:[^/]+/){0}([^/]+/[^/]+)"),
        (("ill/S/a/B_1|B_2/40X|100X/#.png", "well/S/b/B_3/40X|100X/#.png"), "^(?:[^/]+/){3}([^/]+)"),
        (("ill|well/40X|100X|200X/#.png",), None),
        (("ill/n01_#.png", "ill/n01_3#.png", "well/n02_#.png", "x/n03_#.png"), None),
    ],
)
def test_folders_of_patients_below_a_class_are_warned_of(
    tmp_path: Path, paths: tuple[str, ...], pattern: str | None
) -> None:
    checks = listed(make(tmp_path, *paths)).checks
    assert ["by their folders" in one.message for one in checks] == ([True] if pattern else [])
    if pattern:
        assert f"--group-from '{pattern}' keeps each in one" in checks[0].message
        assert max(Counter(listed(tmp_path, group_from=pattern).groups or ()).values()) > 1


@pytest.mark.parametrize("folder", ["", "tables/"])
def test_a_table_beside_class_folders_that_knows_the_patients_is_warned_of(tmp_path: Path, folder: str) -> None:
    make(tmp_path, *(f"images/{('ill', 'well')[n % 2]}/x{n}.png" for n in range(12)), *filter(None, [folder]))
    rows = "".join(f"x{n}.png,{('ill', 'well')[n % 2]},v{n // 4}\n" for n in range(12))
    (tmp_path / f"{folder}T.csv").write_text(f"file,finding,video_id\n{rows}")
    (check,) = listed(tmp_path).checks
    assert (check.check, check.severity) == ("unused_patients", "warning")
    assert f"column 'video_id' of {folder}T.csv" in check.message
    images = f" --images-dir {tmp_path}" if folder else ""
    columns = "--path-column file --label-column COLUMN --group-column video_id"
    assert f"--data {tmp_path}/{folder}T.csv{images} {columns} keeps them in one, where COLUMN has" in check.message
    assert "splits of the folders" not in check.message
    assert listed(tmp_path, group_from="(x.)").checks == ()


def test_a_table_in_place_of_split_folders_is_said_to_leave_their_splits(tmp_path: Path) -> None:
    make(tmp_path, *(f"{('train', 'test')[n > 7]}/{('ill', 'well')[n % 2]}/x{n}.png" for n in range(12)))
    rows = "".join(f"x{n}.png,{('ill', 'well')[n % 2]},v{n // 2}\n" for n in range(12))
    (tmp_path / "T.csv").write_text(f"file,finding,video_id\n{rows}")
    (check,) = listed(tmp_path).checks
    assert check.message.endswith("; the splits of the folders are not used then")


def test_a_table_as_test_data_of_a_folder_is_refused_with_a_way_out(tmp_path: Path) -> None:
    make(tmp_path, "ill|well/#.png")
    (tmp_path / "test.csv").write_text("file,label\nill/1.png,ill\n")
    assert "give a list of paths (one per line) or a folder" in refusal(tmp_path, test_data="test.csv")


def test_images_are_not_listed_anew_for_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [f"class {number:03d}" for number in range(300)]
    images = tuple(f"{folder}/{letter} in {folder}.png" for folder in folders for letter in "abcdefghij")
    lengths: list[int] = []
    paths = _Tree.paths

    def noted(tree: _Tree, folder: str) -> list[str]:
        found = paths(tree, folder)
        lengths.append(len(found))
        return found

    monkeypatch.setattr(_Tree, "paths", noted)
    layout = read_layout(FileIndex(Path("xrays"), images, ("", *folders), (), ()), DataConfig(data="xrays"))
    assert len(layout.images) == len(images)
    assert sum(lengths) <= 20 * len(images)
