from __future__ import annotations

import csv
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.dataset import open_dataset
from trainables.data.prepare import equal_files, inspect, list_samples, prepare
from trainables.data.samples import Samples

KEYS = {
    *("source", "task", "classes", "image_size", "fit", "channels", "cache", "fingerprint", "counts", "images"),
    *("groups", "split_origin", "checks", "dropped", "subgroups", "source_by_class", "caveats", "demo", "config"),
    *("preset", "left_out", "notes", "missing", "ordered", "sha256"),
}


def prepared(tmp_path: Path, **options: Any) -> dict[str, Any]:
    return prepare(DataConfig(**({"image_size": 16} | options)), tmp_path / "run", tmp_path / "cache", workers=2)


def checks(dataset: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in dataset["checks"]}


def manifest_of(folder: Path, **columns: Callable[[str], str]) -> Path:
    """A manifest of a split folder, with more columns computed from the path."""
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "finding", *columns])
        for image in sorted(folder.rglob("*.png")):
            shown = image.relative_to(folder).as_posix()
            split, name, _ = shown.split("/")
            writer.writerow([shown, split, name, *(value(shown) for value in columns.values())])
    return path


def test_a_folder_becomes_a_run_that_trials_can_open(split_folder: Path, tmp_path: Path) -> None:
    dataset = prepared(tmp_path, data=str(split_folder))
    assert set(dataset) == KEYS
    assert json.loads((tmp_path / "run" / "dataset.json").read_text()) == dataset
    assert dataset["counts"]["train"] == {"ill": 12, "well": 12}
    assert dataset["images"] == {"train": 24, "val": 8, "test": 8}
    assert dataset["split_origin"] == "given"
    data = open_dataset(tmp_path / "run")
    assert data.images.shape == (40, 1, 16, 16)
    assert (len(data.train), len(data.val)) == (24, 8)
    for split in (data.train, data.val):
        for row, label, path in zip(split.rows, split.labels, split.paths, strict=True):
            assert path.split("/")[1] == data.classes[label]
            original = Image.open(split_folder / path).resize((16, 16), Image.Resampling.BILINEAR)
            assert np.array_equal(data.images[row, 0], np.asarray(original))


def test_only_missing_files_are_a_caveat_of_missing_files(split_folder: Path) -> None:
    path = manifest_of(split_folder, missing=lambda image: "yes" if image.endswith("01.png") else "no")
    (split_folder / "train" / "well" / "00.png").unlink()
    asked = DataConfig(data=str(path), label_column=("finding",), where={"missing": ("no",)}, skip_missing=True)
    assert inspect(asked)["caveats"] == ["1 row(s) are left out: the file is missing (--skip-missing)."]


def test_the_test_split_cannot_be_reached_by_a_trial(split_folder: Path, tmp_path: Path) -> None:
    prepared(tmp_path, data=str(split_folder))
    data = open_dataset(tmp_path / "run")
    assert not hasattr(data, "test")
    assert not any(path.startswith("test") for path in data.train.paths + data.val.paths)


def test_decoded_images_are_mapped_and_cannot_be_written(split_folder: Path, tmp_path: Path) -> None:
    prepared(tmp_path, data=str(split_folder))
    data = open_dataset(tmp_path / "run")
    assert isinstance(data.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        data.images[0] = 1


def test_decoded_images_that_have_gone_are_told(split_folder: Path, tmp_path: Path) -> None:
    prepared(tmp_path, data=str(split_folder))
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=r"cannot be opened .* run the sweep again"):
        open_dataset(tmp_path / "run")


def test_multi_label_goes_through_to_the_trial(split_folder: Path, tmp_path: Path) -> None:
    def findings(path: str) -> str:
        number = int(path[-6:-4])
        return "|".join(name for name, there in (("mass", number % 2), ("edema", number % 3 == 0)) if there)

    path = manifest_of(split_folder, labels=findings)
    with pytest.raises(UserError, match=r"'labels' has 12 blank cells .*--blank-label"):
        prepared(tmp_path, data=str(path), label_column=("labels",))
    dataset = prepared(tmp_path, data=str(path), label_column=("labels",), blank_label={"": "0"})
    assert dataset["task"] == "multi_label"
    data = open_dataset(tmp_path / "run")
    assert data.classes == ("edema", "mass")
    assert data.train.labels.dtype == np.float32
    for path_of, hot in zip(data.train.paths, data.train.labels, strict=True):
        assert "|".join(sorted(findings(path_of).split("|"))) == "|".join(np.array(data.classes)[hot == 1])


def test_splits_table_hides_groups_and_keeps_subgroups(split_folder: Path, tmp_path: Path) -> None:
    path = manifest_of(split_folder, patient=lambda shown: "Doe^John-" + shown, sex=lambda shown: "fm"["ill" in shown])
    dataset = prepared(
        tmp_path, data=str(path), label_column=("finding",), group_column="patient", subgroup_column=("sex",)
    )
    text = (tmp_path / "run" / "splits.csv").read_text()
    assert text.splitlines()[0] == "row,path,split,label,group,subgroup_sex"
    assert "Doe" not in text + json.dumps(dataset)
    assert dataset["groups"] == {"from": "patient", "count": 40, "counts": {"train": 24, "val": 8, "test": 8}}
    assert dataset["subgroups"] == {"sex": {"f": 20, "m": 20}}


def test_thumbnails_hold_all_of_val_and_test_and_six_of_each_class_from_train(
    split_folder: Path, tmp_path: Path
) -> None:
    prepared(tmp_path, data=str(split_folder))
    with np.load(tmp_path / "run" / "thumbnails.npz", allow_pickle=False) as thumbnails:
        assert thumbnails["image"].shape == (28, 16, 16)
        assert [list(thumbnails["split"]).count(split) for split in ("train", "val", "test")] == [12, 8, 8]
        assert all(path.split("/")[:2] == [split, label] for path, split, label in zip(
            thumbnails["path"], thumbnails["split"], thumbnails["label"], strict=True))  # fmt: skip


def test_fingerprint_is_of_the_data_alone(split_folder: Path, tmp_path: Path) -> None:
    first = prepared(tmp_path, data=str(split_folder))["fingerprint"]
    moved = shutil.move(split_folder, tmp_path / "elsewhere")
    assert prepared(tmp_path / "again", data=str(moved), image_size=20)["fingerprint"] == first
    (moved / "train" / "ill" / "00.png").rename(moved / "train" / "well" / "99.png")
    assert prepared(tmp_path / "third", data=str(moved))["fingerprint"] != first


def test_dry_run_gives_the_same_summary_and_writes_nothing(split_folder: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    looked = inspect(DataConfig(data=str(split_folder), image_size=16))
    assert set(tmp_path.rglob("*")) == before
    read = prepared(tmp_path, data=str(split_folder))
    decoded = ("cache", "fingerprint", "sha256", "channels", "checks")
    assert {**read, **{name: looked[name] for name in decoded}} == looked
    assert [looked[name] for name in decoded[:2]] == [None, None]
    assert {one["check"] for one in looked["checks"]} <= {one["check"] for one in read["checks"]}


def test_the_split_that_is_shown_is_the_one_that_is_drawn(split_folder: Path, tmp_path: Path) -> None:
    folder = split_folder / "train"
    for number in range(3):
        shutil.copy(folder / "ill" / f"0{number}.png", folder / "ill" / f"copy{number}.png")
    looked = inspect(DataConfig(data=str(folder), image_size=16))
    read = prepared(tmp_path, data=str(folder))
    assert read["images"] == looked["images"]
    assert read["counts"] == looked["counts"]
    assert "3 image(s) are identical to another: identical images were kept in one split" in looked["notes"]
    with (tmp_path / "run" / "splits.csv").open(newline="") as file:
        split_of = {Path(row["path"]).name: row["split"] for row in csv.DictReader(file) if row["label"] == "ill"}
    assert [split_of[f"0{number}.png"] for number in range(3)] == [split_of[f"copy{number}.png"] for number in range(3)]


def samples_of(files: list[Path]) -> Samples:
    return Samples(
        kind="folder",
        path=".",
        task="single_label",
        classes=("a",),
        paths=tuple(file.name for file in files),
        files=tuple(files),
        labels=np.zeros(len(files), dtype=np.int64),
        splits=None,
    )


def test_files_are_equal_where_all_their_bytes_are(tmp_path: Path) -> None:
    ends, middle = b"x" * 4096, b"y" * 50
    contents = (ends + middle + ends, ends + b"z" * 50 + ends, ends + middle + ends, ends * 2 + middle, ends, middle)
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    same = equal_files(samples_of([*files, tmp_path / "absent"]))
    assert same.tolist() == [0, 1, 0, 2, 3, 4, 5]


def test_of_files_of_one_size_no_contents_are_kept_in_memory(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(1000)]
    for number, file in enumerate(files):
        file.write_bytes(number.to_bytes(10_000))
    samples = samples_of(files)
    tracemalloc.start()
    assert len(set(equal_files(samples).tolist())) == len(files)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 4000 * len(files)


def test_equal_pixels_in_files_that_differ_are_kept_together_and_the_new_draw_is_said(
    split_folder: Path, tmp_path: Path
) -> None:
    folder = split_folder / "train"
    for number in range(4):
        Image.open(folder / "ill" / f"0{number}.png").save(folder / "ill" / f"copy{number}.bmp")
    read = prepared(tmp_path, data=str(folder))
    assert any("drawn again after decoding" in note for note in read["notes"])
    assert not any(one["severity"] == "error" for one in read["checks"])
    with (tmp_path / "run" / "splits.csv").open(newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file) if row["label"] == "ill"}
    for number in range(4):
        both = rows[f"0{number}.png"], rows[f"copy{number}.bmp"]
        assert len({one["split"] for one in both}) == 1
        assert len({one["equal"] for one in both}) == 1, "folds are drawn from the file alone"
    assert sum(row["equal"] != "" for row in rows.values()) == 8


def test_a_first_try_takes_fewer_images_and_says_so(split_folder: Path, tmp_path: Path) -> None:
    dataset = prepared(tmp_path, data=str(split_folder), max_images=20)
    assert dataset["images"] == {"train": 12, "val": 4, "test": 4}
    assert [(one["why"], one["count"]) for one in dataset["left_out"]] == [("beyond --max-images 20", 20)]
    assert any("--max-images" in caveat for caveat in dataset["caveats"])


def test_properties_of_the_files_are_written_beside_the_splits(split_folder: Path, tmp_path: Path) -> None:
    Image.open(split_folder / "train" / "ill" / "00.png").save(split_folder / "train" / "ill" / "00.jpg", quality=80)
    (split_folder / "train" / "ill" / "00.png").unlink()
    prepared(tmp_path, data=str(split_folder))
    with (tmp_path / "run" / "images.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 40
    assert rows["train/ill/00.jpg"]["jpeg_quality"] == "80"
    other = rows["train/ill/01.png"]
    pixels = np.asarray(Image.open(split_folder / "train" / "ill" / "01.png"))
    assert (int(other["height"]), int(other["width"])) == pixels.shape
    assert (other["mode"], other["bits"], other["jpeg_quality"]) == ("L", "8", "")
    assert float(other["mean"]) == pytest.approx(pixels.mean(), abs=0.01)
    assert float(other["sd"]) == pytest.approx(pixels.std(), abs=0.01)


def test_a_missing_label_is_missing_for_the_trial(split_folder: Path, tmp_path: Path) -> None:
    path = manifest_of(
        split_folder,
        mass=lambda shown: "" if shown.endswith("01.png") else str(int("ill" in shown)),
        edema=lambda shown: str(int(shown[-5]) % 2),
    )
    dataset = prepared(
        tmp_path, data=str(path), label_column=("mass", "edema"), blank_label={"mass": "missing"}, path_column="path"
    )
    assert dataset["missing"] == {split: {"mass": 2, "edema": 0} for split in ("train", "val", "test")}
    data = open_dataset(tmp_path / "run")
    unknown = [path for path, cells in zip(data.train.paths, data.train.labels, strict=True) if np.isnan(cells[0])]
    assert unknown == ["train/ill/01.png", "train/well/01.png"]
    assert not np.isnan(data.train.labels[:, 1]).any()


def test_unreadable_files_stop_the_sweep_or_are_dropped_with_a_mark(split_folder: Path, tmp_path: Path) -> None:
    (split_folder / "train" / "ill" / "00.png").write_text("not an image\n" * 9)
    (split_folder / "val" / "ill" / "01.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        prepared(tmp_path, data=str(split_folder))
    assert "2 of 40 image files cannot be read" in str(error.value)
    assert "--skip-unreadable" in str(error.value)
    assert "train/ill/00.png: a text file, not an image" in str(error.value)
    assert not (tmp_path / "run").exists()
    dataset = prepared(tmp_path, data=str(split_folder), skip_unreadable=True)
    assert [row["path"] for row in dataset["dropped"]] == ["train/ill/00.png", "val/ill/01.png"]
    assert any("2 of 40 image files cannot be read" in mark for mark in dataset["caveats"])
    data = open_dataset(tmp_path / "run")
    assert len(data.train) == 23
    assert data.images[data.train.rows].reshape(23, -1).max(axis=1).min() > 0


def test_same_pixels_in_two_splits_stop_the_sweep_even_in_another_format(split_folder: Path, tmp_path: Path) -> None:
    Image.open(split_folder / "train" / "ill" / "03.png").save(split_folder / "test" / "ill" / "copy.bmp")
    with pytest.raises(UserError) as error:
        prepared(tmp_path, data=str(split_folder))
    assert "1 image(s) are in more than one split" in str(error.value)
    assert "test/ill/copy.bmp (test), train/ill/03.png (train)" in str(error.value)
    assert "--allow-leakage" in str(error.value)
    dataset = prepared(tmp_path, data=str(split_folder), allow_leakage=True)
    assert checks(dataset)["duplicates_across_splits"]["items"] == [["test/ill/copy.bmp", "train/ill/03.png"]]
    assert any("Leakage allowed" in mark for mark in dataset["caveats"])


def test_a_patient_in_two_splits_stops_the_sweep(split_folder: Path, tmp_path: Path) -> None:
    path = manifest_of(split_folder, patient=lambda shown: "same" if shown.endswith("ill/00.png") else shown)
    options: dict[str, Any] = {"data": str(path), "label_column": ("finding",), "group_column": "patient"}
    with pytest.raises(UserError) as error:
        prepared(tmp_path, **options)
    assert "1 group(s) of 'patient' are in more than one split" in str(error.value)
    assert "test/ill/00.png (test), train/ill/00.png (train), val/ill/00.png (val)" in str(error.value)
    assert len(prepared(tmp_path, **options, allow_leakage=True)["caveats"]) == 1


def test_an_image_in_two_splits_is_shown_with_both(split_folder: Path, tmp_path: Path) -> None:
    path = manifest_of(split_folder)
    with path.open("a") as file:
        file.write("train/ill/00.png,test,ill\n")
    with pytest.raises(UserError, match=r"\n  train/ill/00.png \(train, test\)$"):
        inspect(DataConfig(data=str(path), label_column=("finding",)))


def test_duplicates_within_a_split_and_two_labels_warn(split_folder: Path, tmp_path: Path) -> None:
    train = split_folder / "train"
    shutil.copy(train / "ill" / "00.png", train / "ill" / "again.png")
    shutil.copy(train / "ill" / "01.png", train / "well" / "other.png")
    found = checks(prepared(tmp_path, data=str(split_folder)))
    assert found["duplicates"]["count"] == 2
    assert found["two_labels"]["items"] == [["train/ill/01.png", "train/well/other.png"]]
    assert found["two_labels"]["severity"] == "warning"


def test_a_copied_class_stops_the_sweep(split_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(split_folder / "train" / "ill", split_folder / "train" / "ill - Copy")
    with pytest.raises(UserError) as error:
        prepared(tmp_path, data=str(split_folder / "train"))
    assert [problem for problem in error.value.problems if "--classes" in problem] == [
        "every image of 'ill' and of 'ill - Copy' is also in another class: remove the copy, or list the "
        "other classes in --classes"
    ]
    assert prepared(tmp_path, data=str(split_folder / "train"), classes=("ill", "well"))["classes"] == ["ill", "well"]


def test_near_duplicates_warn(split_folder: Path, tmp_path: Path) -> None:
    Image.open(split_folder / "train" / "ill" / "00.png").save(split_folder / "val" / "ill" / "c.jpg", quality=85)
    found = checks(prepared(tmp_path, data=str(split_folder)))
    assert found["near_duplicates_across_splits"]["items"] == [["train/ill/00.png", "val/ill/c.jpg"]]
    assert found["near_duplicates_across_splits"]["severity"] == "warning"


def test_both_images_of_a_pair_in_two_splits_have_thumbnails(split_folder: Path, tmp_path: Path) -> None:
    for number in range(12):
        copy = split_folder / "val" / "ill" / f"c{number}.png"
        ImageOps.mirror(Image.open(split_folder / "train" / "ill" / f"{number:02d}.png")).save(copy)
    found = checks(prepared(tmp_path, data=str(split_folder)))["near_duplicates_across_splits"]
    assert found["count"] == 12
    with np.load(tmp_path / "run" / "thumbnails.npz") as saved:
        kept = saved["path"].tolist()
    assert {path for pair in found["items"][:10] for path in pair} <= set(kept)
    assert len(kept) == len(set(kept))


def test_source_is_tabulated_against_class_and_warns_when_they_go_together(split_folder: Path, tmp_path: Path) -> None:
    path = manifest_of(split_folder, site=lambda shown: "A" if "ill" in shown else "B")
    dataset = prepared(tmp_path, data=str(path), label_column=("finding",), source_column="site")
    assert dataset["source_by_class"] == {"ill": {"A": 20}, "well": {"B": 20}}
    finding = checks(dataset)["source_by_class"]
    assert finding["severity"] == "warning"
    assert "Cramer's V = 1.00" in finding["message"]


def test_tiny_and_similar_classes_and_blank_images_are_shown(split_folder: Path, tmp_path: Path) -> None:
    for number in range(5, 12):
        (split_folder / "train" / "ill" / f"{number:02d}.png").unlink()
    Image.new("L", (9, 9), 7).save(split_folder / "train" / "well" / "blank.png")
    for split in ("train", "val", "test"):
        (split_folder / split / "well").rename(split_folder / split / "ILL")
    found = checks(prepared(tmp_path, data=str(split_folder)))
    assert "class 'ill' has 5 training image(s)" in found["tiny_class"]["message"]
    assert "differ only in case" in found["similar_classes"]["message"]
    assert found["blank"]["items"] == [["train/ILL/blank.png"]]


def test_class_missing_from_a_split_is_named(split_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(split_folder / "val" / "well")
    with pytest.raises(UserError, match="class 'well' has no image in val"):
        prepared(tmp_path, data=str(split_folder))


def test_val_is_taken_from_train(split_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(split_folder / "val")
    dataset = prepared(tmp_path, data=str(split_folder))
    assert dataset["split_origin"] == "val taken from train"
    assert dataset["images"] == {"train": 20, "val": 4, "test": 8}


def test_a_missing_test_is_marked(split_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(split_folder / "test")
    dataset = prepared(tmp_path, data=str(split_folder))
    assert dataset["images"] == {"train": 24, "val": 8, "test": 0}
    assert any("No test split" in mark for mark in dataset["caveats"])


def test_class_folders_are_split_by_us_the_same_for_a_seed(split_folder: Path, tmp_path: Path) -> None:
    one, two, other = (
        prepared(tmp_path / name, data=str(split_folder / "train"), seed=seed)
        for name, seed in (("one", 4), ("two", 4), ("other", 5))
    )
    assert one["split_origin"] == "seeded"
    assert one["images"] == {"train": 16, "val": 4, "test": 4}
    assert one["fingerprint"] == two["fingerprint"] != other["fingerprint"]


def test_all_problems_of_the_data_are_told_in_one_answer(split_folder: Path, tmp_path: Path) -> None:
    path = manifest_of(split_folder, patient=lambda shown: "same" if shown.endswith("ill/00.png") else shown)
    with path.open("a") as file:
        file.write("gone.png,train,ill,9\nval/well/02.png,tset,well,10\n")
    shutil.copy(split_folder / "val" / "ill" / "01.png", split_folder / "train" / "ill" / "05.png")
    (split_folder / "train" / "well" / "07.png").write_bytes(b"")
    for name in ("00", "01", "02", "03"):
        (split_folder / "val" / "well" / f"{name}.png").unlink()
    with pytest.raises(UserError) as error:
        prepared(tmp_path, data=str(path), label_column=("finding",), group_column="patient")
    text = str(error.value)
    for part in (
        "5 of 42 rows name a file that is missing",
        "unknown split 'tset'",
        "1 of 36 image files cannot be read",
        "class 'well' has no image in val",
        "1 image(s) are in more than one split",
        "1 group(s) of 'patient'",
    ):
        assert part in text
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nowhere"}, "--data nowhere: no such folder or file; allowed: a folder, a table, an .npz, or demo"),
        ({"data": "demo", "group_column": "p"}, "--group-column p: the demo set has no columns"),
        ({"data": "demo", "task": "multi_label"}, "the demo set has one class per image"),
        ({"data": "demo", "task": "multilabel"}, "unknown task 'multilabel': did you mean 'multi_label'?"),
        ({"data": "demo", "fit": "squish"}, "--fit: unknown fit 'squish': did you mean 'squash'?"),
        ({"data": "demo", "image_size": 0}, "--image-size 0: must be at least 8 pixels"),
    ],
)
def test_requests_that_cannot_be_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepared(tmp_path, **options)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_column_options_with_a_folder_are_refused_not_ignored(split_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepared(tmp_path, data=str(split_folder), label_column=("a",), subgroup_column=("sex",))
    assert str(error.value).startswith("--label-column a, --subgroup-column sex: the folder")


@pytest.mark.parametrize(
    ("paths", "given"),
    [
        (("0.png", "1.png", "2.png", "3.png"), "a.csv names images: give --data ROOT/a.csv --path-column path"),
        ((), "give a table with --data, such as ROOT/a.csv"),
    ],
)
def test_column_options_with_a_folder_name_the_table_that_lies_there(
    tmp_path: Path, paths: tuple[str, ...], given: str, draw: Callable[..., Path]
) -> None:
    for seed, path in enumerate(paths):
        draw(tmp_path / path, seed)
    (tmp_path / "a.csv").write_text("path,finding\n0.png,ill\n1.png,well\n2.png,ill\n3.png,well\n")
    with pytest.raises(UserError) as error:
        list_samples(DataConfig(data=str(tmp_path), label_column=("finding",)))
    assert given.replace("ROOT", str(tmp_path)) in str(error.value)


def test_a_pattern_is_no_path(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").touch()
    with pytest.raises(UserError, match=r"patterns are not supported: give one of 2 files, such as .*/a\.csv"):
        list_samples(DataConfig(data=str(tmp_path / "*.csv")))


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoded")


@pytest.mark.parametrize("column", ["class", "binary"])
@pytest.mark.parametrize("group", ["patient_id", "group_id"])
def test_real_x_rays_pass_without_a_false_alarm(
    shared_dir: Path, tmp_path: Path, decoded: Path, column: str, group: str
) -> None:
    manifest = str(shared_dir / "data" / "xray_a" / "manifest.csv")
    config = DataConfig(data=manifest, label_column=(column,), group_column=group, image_size=32)
    dataset = prepare(config, tmp_path / "run", decoded, workers=2)
    assert dataset["images"] == {"train": 785, "val": 169, "test": 169}
    assert dataset["channels"] == 1
    assert dataset["caveats"] == []
    (pairs,) = dataset["checks"]
    assert (pairs["check"], pairs["severity"]) == ("near_duplicates", "info")
    manifest = pd.read_csv(shared_dir / "data" / "xray_a" / "manifest.csv").set_index("path")["group_id"]
    ((first, second),) = pairs["items"]  # one film that the set holds twice; films of a patient do not count
    assert manifest[first] == manifest[second]
