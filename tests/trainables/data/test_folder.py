from __future__ import annotations

import os
import shutil
import string
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folder_trees import listed, make, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.samples import Samples


def counts(samples: Samples) -> dict[str, int] | None:
    return None if samples.splits is None else dict(Counter(samples.splits))


def test_split_folders_give_splits_and_classes(split_folder: Path) -> None:
    samples = listed(split_folder)
    assert samples.classes == ("ill", "well")
    assert samples.splits is not None
    assert [samples.splits.count(split) for split in ("train", "val", "test")] == [24, 8, 8]
    assert samples.paths[0] == "test/ill/00.png"
    assert all(path.split("/")[1] == samples.label_text(row) for row, path in enumerate(samples.paths))
    assert samples.checks == samples.problems == samples.left_out == samples.notes == ()


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


def test_no_images_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"no images found; expected train\|val\|test/<class>"):
        listed(tmp_path)


def test_one_class_only_is_told(split_folder: Path) -> None:
    assert listed(split_folder).nothing_to_tell == ""
    for split in ("train", "val", "test"):
        shutil.rmtree(split_folder / split / "well")
    samples = listed(split_folder)
    assert (samples.classes, set(samples.labels.tolist())) == (("ill",), {0})
    assert "one class only ('ill'); at least two are needed; --class-from REGEX" in samples.nothing_to_tell


def test_dicom_without_an_extension_is_recognised(tmp_path: Path, draw: Callable[..., Path]) -> None:
    draw(tmp_path / "a" / "1.png", 1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "b" / "1.2.840.113").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "b" / "LICENSE").write_bytes(b"text")
    assert listed(tmp_path).paths == ("a/1.png", "b/1.2.840.113", "b/IM0001")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes no such name")
def test_file_names_that_no_table_can_hold_are_a_problem(split_folder: Path) -> None:
    (split_folder / "train" / "ill" / "00.png").rename(os.fsdecode(os.fsencode(split_folder) + b"/train/ill/r\xf6.png"))
    (split_folder / "train" / "ill" / "01.png").rename(split_folder / "train" / "ill" / "a\nb.png")
    samples = listed(split_folder)
    assert len(samples) == 38
    first, second = samples.problems
    assert "1 file name(s) are not UTF-8 ('train/ill/r\\udcf6.png'): rename them" in first
    assert "1 file name(s) contain a line break ('train/ill/a\\nb.png'): rename them" in second


def test_what_is_an_image_and_not_used_is_left_out_once(split_folder: Path, draw: Callable[..., Path]) -> None:
    for path in ("train/.a.png", "train/ill/.cache/b.png", "train/stray.png", "stray2", "test/ill/@eaDir/c.png"):
        draw(split_folder / path, 500, format="PNG")
    make(split_folder, "README.md", "train/ill/notes.txt", "train/ill/._00.png", "Thumbs.db")
    samples = listed(split_folder)
    assert len(samples) == 40
    assert sorted((one.count, *one.examples) for one in samples.left_out) == [
        (1, "test/ill/@eaDir/c.png"),
        (2, "stray2", "train/stray.png"),
        (2, "train/.a.png", "train/ill/.cache/b.png"),
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "val_images", "test_images"),
        ("training_set", "validation_set", "test_set"),
        ("train_data", "dev_data", "test_data"),
        ("trainset", "valset", "testset"),
        ("1. Training Set", "2. Validation Set", "3. Test Set"),
        ("TrainingData", "ValidationData", "TestingData"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("covid19-train", "covid19-valid", "covid19-test"),
        ("archive/Data/Train", "archive/Data/Valid", "archive/Data/Test"),
        ("train/images", "val/images", "test/images"),
        ("train_images", "val", "TestSet"),
    ],
)
def test_split_words_among_others_are_understood(tmp_path: Path, names: tuple[str, ...]) -> None:
    make(tmp_path, f"{names[0]}/ill|well|other/#.png", f"{names[1]}/ill|well/#.png", f"{names[2]}/ill|well/1.png")
    samples = listed(tmp_path)
    assert samples.classes == ("ill", "other", "well")
    assert counts(samples) == {"train": 6, "val": 4, "test": 2}


def test_splits_may_lie_in_class_folders(tmp_path: Path) -> None:
    samples = listed(make(tmp_path, "ill|well/train/#.png", "ill|well/test/1.png"))
    assert (samples.classes, counts(samples)) == (("ill", "well"), {"train": 4, "test": 2})


@pytest.mark.parametrize("train", ["train", "train/train", "data/train"])
def test_a_class_that_is_alone_in_one_split_is_no_wrapper(tmp_path: Path, train: str) -> None:
    make(
        tmp_path, f"{train}/ill|well/p1|p2/1.png", f"{os.path.dirname(train) or '.'}/test/ill/p3|p4/1.png".lstrip("./")
    )
    if train == "train/train":
        shutil.move(tmp_path / "train" / "test", tmp_path / "test")
    samples = listed(tmp_path)
    assert (samples.classes, counts(samples)) == (("ill", "well"), {"train": 4, "test": 2})


@pytest.mark.parametrize("unlabelled", ["unlabeled", "predict", "seg_pred/seg_pred", "extra/images"])
def test_loose_images_beside_splits_are_left_out(tmp_path: Path, unlabelled: str) -> None:
    samples = listed(make(tmp_path, "train|test/ill|well/#.png", f"{unlabelled}/#.jpg"))
    assert counts(samples) == {"train": 4, "test": 4}
    assert [(one.count, one.examples[0]) for one in samples.left_out] == [(2, f"{unlabelled}/1.jpg")]


def test_an_unlabelled_test_folder_leaves_all_splits_to_us(tmp_path: Path) -> None:
    samples = listed(make(tmp_path, "train/ill|well/#.png", "test/#.png", "sample_submission.csv"))
    assert (len(samples), samples.splits) == (4, None)
    assert [(one.count, one.examples) for one in samples.left_out] == [(2, ("test/1.png", "test/2.png"))]
    assert any("training images" in note for note in samples.notes)


@pytest.mark.parametrize(
    ("paths", "classes", "left_out"),
    [
        (("data/set/ill|well/#.png", "README.md"), "ill well", []),
        (("data/ill|well/#.png", "preview.png"), "ill well", ["preview.png"]),
        (("ill|well/images/#.png", "ill|well/masks/#.png"), "ill well", ["ill/masks/1.png"]),
        (("ill|well/#.png", "ill/masks/#.png"), "ill well", ["ill/masks/1.png"]),
        (("images|masks/ill|well/#.png",), "ill well", ["masks/ill/1.png"]),
        (
            ("ill/a (#).png", "ill/a (#)_mask.png", "ill/a (#)_mask_1.png", "well/b.png"),
            "ill well",
            ["ill/a (1)_mask.png"],
        ),
        (("ill|well/#.png", "ill/1_segmentation.png"), "ill well", ["ill/1_segmentation.png"]),
        (("brain/yes|no/#.png", "yes|no/#.png"), "no yes", ["brain/no/1.png"]),
        (("with_mask|without_mask/#.png",), "with_mask without_mask", []),
        (("Mask|No Mask/#.png",), "Mask No Mask", []),
        (("mask|face/#.png", "mask/x_mask.png"), "face mask", []),
        (("bullet_train|cat/#.png",), "bullet_train cat", []),
        (("PCR test positive|PCR test negative/#.png",), "PCR test negative PCR test positive", []),
        (("stage 1|stage 2/#.png",), "stage 1 stage 2", []),
        (("0|1|2/#.png",), "0 1 2", []),
        (("ill|well/p1|p2/#.png",), "ill well", []),
        (("ill/#.png", "well/left|right/#.png"), "ill well", []),
        (("ill|well/#.png", "docs/paper.pdf", "annotations/1.xml"), "ill well", []),
    ],
)
def test_class_folders_as_they_are_downloaded(
    tmp_path: Path, paths: tuple[str, ...], classes: str, left_out: list[str]
) -> None:
    samples = listed(make(tmp_path, *paths))
    assert " ".join(samples.classes) == classes
    assert samples.splits is None
    assert [one.examples[0] for one in samples.left_out] == left_out


def test_a_copy_of_the_set_in_itself_is_left_out_if_it_is_one(tmp_path: Path) -> None:
    make(tmp_path, "xray/train|test/ill|well/#.png", "xray/xray/train|test/ill|well/#.png", "xray/__MACOSX/x/._1.png")
    samples = listed(tmp_path)
    assert counts(samples) == {"train": 4, "test": 4}
    assert [one.count for one in samples.left_out] == [8]
    assert samples.paths[0] == "xray/test/ill/1.png"
    (tmp_path / "xray" / "xray" / "test" / "ill" / "1.png").write_bytes(b"another image")
    assert "folder 'xray' contains images and is next to folders named as splits" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"TR": "train", "VA": "val"}, {"train": 4, "val": 4}),
        ({"VA": "test", "TR": "train"}, {"train": 4, "test": 4}),
        ({"TR": "train", "VA": "train"}, None),
    ],
)
def test_split_names_map_folders(tmp_path: Path, names: dict[str, str], wanted: dict[str, int] | None) -> None:
    samples = listed(make(tmp_path, "data/TR|VA/ill|well/#.png"), split_names=names)
    assert (samples.classes, counts(samples)) == (("ill", "well"), wanted)


def test_split_names_stand_beside_split_words(tmp_path: Path) -> None:
    make(tmp_path, "train|holdout/ill|well/#.png")
    assert counts(listed(tmp_path, split_names={"holdout": "test"})) == {"train": 4, "test": 4}
    [sentence] = DataConfig.read({"split_names": "holdout=tst"})[1]["split_names"]
    assert sentence == "--split-names holdout=tst: must be train, val or test"
    said = refusal(tmp_path / "train", split_names={"holdout": "test"})
    assert said == f"--split-names holdout: no such folder in {tmp_path}/train, which has ill, well"


def test_class_and_patient_come_from_the_path(tmp_path: Path) -> None:
    make(tmp_path, "MURA/train|valid/WRIST|HAND/patient1|patient2/study1_positive|study2_negative/#.png")
    samples = listed(tmp_path, class_from=r"_(\w+)/", group_from=r"(patient\d+)")
    assert (samples.classes, counts(samples)) == (("negative", "positive"), {"train": 16, "val": 16})
    assert samples.group_from == r"(patient\d+)"
    assert samples.groups is not None
    assert all(group in path for group, path in zip(samples.groups, samples.paths, strict=True))
    assert all(f"_{samples.label_text(row)}/" in path for row, path in enumerate(samples.paths))


def test_class_from_reads_flat_folders_and_names_what_has_no_match(tmp_path: Path) -> None:
    make(tmp_path, "train/cat.#.jpg", "train/dog.#.jpg", "test/#.jpg")
    said = refusal(tmp_path, class_from="(cat|dog)")
    assert said == "--class-from (cat|dog): 2 of 6 files have no match: test/1.jpg, test/2.jpg"
    samples = listed(tmp_path, class_from="(cat|dog)", test_data="none")
    assert (samples.classes, samples.splits, sum(one.count for one in samples.left_out)) == (("cat", "dog"), None, 2)
    classes = listed(make(tmp_path / "b", "train|bus|plane/#.png"), class_from="^([^/]+)/").classes
    assert classes == ("bus", "plane", "train")


def test_a_folder_beside_splits_is_asked_about_where_classes_come_from_paths_too(tmp_path: Path) -> None:
    make(tmp_path, "train|test|extra/x_ill|x_well/#.png")
    assert "'extra' contains images and is next to folders named as splits" in refusal(tmp_path, class_from=r"_(\w+)/")
    samples = listed(tmp_path, class_from=r"_(\w+)/", split_names={"extra": "val"})
    assert (samples.classes, counts(samples)) == (("ill", "well"), {"train": 4, "val": 4, "test": 4})


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        (("ill|well/patient1_#.png", "ill/patient2_#.png", "well/patient3_#.png"), r"(patient\d+)"),
        (
            ("ill/person-1_bacteria_#.png", "ill/person-2_#.png", "ill/person-3_#.png", "well/x#.png"),
            r"(person-\d+|[^/]+$)",
        ),
        (("ill/00001_00#.png", "ill/00002_00#.png", "well/00003_00#.png"), r"(\d{3,}(?=[_-]\d))"),
        (
            ("ill/NORMAL2-IM-0001-#.png", "ill/IM-0001-#.png", "well/IM-0002-#.png"),
            r"([^/]*?\d{3,}(?=[_-]\d{1,4}(?!\d)))",
        ),
        (("ill/subject1|subject2/#.png", "well/subject3|subject4/#.png"), r"(subject\d+)"),
        (
            ("ill/1#_left.png", "ill/1#_right.png", "well/2#_left.png"),
            r"([^/]*?\d+(?=[_-](?i:left|right|[lr])(?![A-Za-z])))",
        ),
        (("ill/900#L.png", "ill/900#R.png", "well/800#L.png"), r"([^/]*?\d+(?=[LR]\.\w+$))"),
        (("ill/ill_#.png", "well/well_#.png"), None),
        (("ill/ISIC_000000#.png", "well/ISIC_000001#.png"), None),
        (("ill/2020-03-#.png", "well/2021-03-#.png"), None),
    ],
)
def test_a_warning_names_the_regex_that_finds_patients(
    tmp_path: Path, paths: tuple[str, ...], pattern: str | None
) -> None:
    checks = listed(make(tmp_path, *paths)).checks
    assert [(one.check, one.severity) for one in checks] == ([("patients_in_file_names", "warning")] if pattern else [])
    if pattern:
        assert f"--group-from '{pattern}' keeps each in one" in checks[0].message
        groups = listed(tmp_path, group_from=pattern).groups
        assert groups is not None
        assert max(Counter(groups).values()) > 1


@pytest.mark.parametrize("name", ["patient{}_slice_{:02d}.png", "OAS1_{:04d}_MR1_mpr-1_1{:02d}.png"])
def test_a_patient_may_have_many_slices(tmp_path: Path, name: str) -> None:
    make(tmp_path, *(f"{'ill' if p % 2 else 'well'}/{name.format(p, n)}" for p in range(4) for n in range(30)))
    (check,) = listed(tmp_path).checks
    assert (check.check, check.count) == ("patients_in_file_names", 4)


def test_a_regex_that_puts_patients_into_two_given_splits_is_not_recommended(tmp_path: Path) -> None:
    make(tmp_path, "train/ill|well/patient1_#.png", "train/well/patient2_#.png", "test/ill|well/patient1_3#.png")
    make(tmp_path, "test/ill/patient3_#.png")
    (check,) = listed(tmp_path).checks
    assert "would be in two of the given splits" in check.message
    assert (check.count, len(check.items[0])) == (1, 8)


def test_validation_and_test_images_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    make(tmp_path, "set/ill|well/#.png", "set/held out/ill|well/#.png", "elsewhere/data/ill|well/patient7|p8/1.png")
    samples = listed(tmp_path / "set", val_data="held out", test_data=str(tmp_path / "elsewhere"))
    assert (samples.classes, counts(samples)) == (("ill", "well"), {"train": 4, "val": 4, "test": 4})
    assert {path for path, split in zip(samples.paths, samples.splits or (), strict=True) if split == "val"} == {
        f"held out/{name}/{number}.png" for name in ("ill", "well") for number in (1, 2)
    }
    assert all(file.is_file() for file in samples.files)
    assert samples.left_out == ()


def test_own_splits_of_the_set_can_be_refused_or_replaced(split_folder: Path, tmp_path: Path) -> None:
    samples = listed(split_folder, val_data="none")
    assert counts(samples) == {"train": 24, "test": 8}
    assert [(one.count, "--val-data none" in one.why) for one in samples.left_out] == [(8, True)]
    assert counts(listed(split_folder, test_data="none")) == {"train": 24, "val": 8}
    make(tmp_path / "other", "ill|well/#.png")
    samples = listed(split_folder, test_data=str(tmp_path / "other"))
    assert counts(samples) == {"train": 24, "val": 8, "test": 4}
    assert [one.count for one in samples.left_out] == [8]


def test_folders_of_splits_that_cannot_be_read_are_told_together(split_folder: Path) -> None:
    said = refusal(split_folder, val_data="gone", test_data=str(split_folder)).splitlines()
    assert [line.split(":")[0] for line in said] == ["--val-data gone", f"--test-data {split_folder}"]
    (split_folder / "list.txt").write_text("val/ill/00.png\nval/ill/77.png\n")
    said = refusal(split_folder, test_data="list.txt")
    assert said.endswith("list.txt: 1 of 2 names are not images here: val/ill/77.png")


def test_lists_of_files_take_images_out_of_the_rest(tmp_path: Path, split_folder: Path) -> None:
    root = make(tmp_path / "set", "ill/p1|p2/#.png", "well/p3|p4/#.png")
    (root / "test.txt").write_text("ill/p1/1.png\np1/2.png\np3\n")
    assert counts(listed(root, test_data="test.txt")) == {"train": 4, "test": 4}
    (split_folder / "list.txt").write_text("train/ill/00.png\ntest/ill/00.png\n")
    samples = listed(split_folder, test_data="list.txt")
    assert counts(samples) == {"train": 23, "val": 8, "test": 2}
    assert [one.count for one in samples.left_out] == [7]


def test_classes_are_kept_and_what_is_named_like_no_class_may_go(tmp_path: Path) -> None:
    samples = listed(make(tmp_path, "ill|well|unlabeled/#.png"), classes="ill,well")
    assert (samples.classes, [one.count for one in samples.left_out]) == (("ill", "well"), [2])
    assert listed(make(tmp_path / "b", "ill|well/#.png", "rare/1.png"), min_class_images=2).classes == ("ill", "well")


WORDS = [
    "train",
    "test_images",
    "val",
    "a",
    "b",
    "images",
    "masks",
    "part_1",
    "part_2",
    "patient1",
    "x_positive",
    "@eaDir",
]
FOLDERS = st.lists(st.sampled_from(WORDS), max_size=4).map("/".join)
FILES = st.sampled_from(
    ["1.png", "2.jpg", "1_mask.png", "00001_001.png", "IM1", ".x.png", "t.csv", "a.zip", "n\nl.png"]
)
TREES = st.lists(st.tuples(FOLDERS, FILES), max_size=12)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "split_names": st.sampled_from([{"a": "train"}, {"train": "test", "b": "val"}]),
        "class_from": st.sampled_from(["([ab])", "([^/]+)/[^/]+$"]),
        "group_from": st.sampled_from([r"(patient\d+)", r"(\d+)"]),
        "val_data": st.sampled_from(["none", "val", "a"]),
        "test_data": st.sampled_from(["none", "test_images", "b"]),
        "classes": st.sampled_from(["a,b"]),
    },
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, options=OPTIONS, name=st.text(string.printable, min_size=1, max_size=8))
def test_any_tree_is_read_or_refused_in_words(
    tmp_path: Path, tree: list[tuple[str, str]], options: dict[str, Any], name: str
) -> None:
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folder, file in [*tree, ("a", f"{name.replace('/', '_')}.png")]:
        if not any(place.is_file() for place in (root / folder, *(root / folder).parents)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / file).touch()
    try:
        samples = listed(root, **options)
    except UserError:
        return
    used = {file.relative_to(root).as_posix() for file in samples.files}
    assert len(used) == len(samples) == len(set(samples.paths))
    assert set(samples.labels.tolist()) <= set(range(len(samples.classes)))  # a class folder may be empty
    unused = [path for one in samples.left_out for path in one.examples]
    assert len(set(unused)) == len(unused) == sum(one.count for one in samples.left_out)
    assert not used & set(unused)
