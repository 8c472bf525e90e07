"""Other people's labels in the classes of a model, or a sentence on why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from trained_run import trained_run

from search_spaces.errors import UserError
from sweep.evaluate import own_images, read_labelled
from trainables.data.config import DataConfig
from trainables.data.image import prepare_image
from trainables.data.samples import Samples

OURS = ("covid", "normal", "pneumonia")
Manifest = Callable[[str, Sequence[str]], Path]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("COVID-19", "normal", "viral", "bacterial"):
        for number in range(2):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    def write(header: str, rows: Sequence[str]) -> Path:
        for number in range(len(rows)):
            Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
        lines = [f"path,{header}", *(f"{number}.png,{row}" for number, row in enumerate(rows))]
        (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "all.csv"

    return write


def read(data: Path, *columns: str, task: str = "single_label", split: str | None = None, **renamed: str) -> Samples:
    request = DataConfig(data=str(data), label_column=columns)
    return read_labelled(request, OURS, task, {name.replace("_", "-"): ours for name, ours in renamed.items()}, split)


def problems(*arguments: object, **options: str) -> list[str]:
    with pytest.raises(UserError) as raised:
        read(*arguments, **options)  # type: ignore[arg-type]
    return list(raised.value.problems)


def test_several_of_their_classes_may_be_one_of_ours(folders: Path) -> None:
    listing = read(folders, COVID_19="covid", viral="pneumonia", bacterial="pneumonia")
    assert (listing.classes, listing.task, listing.splits) == (OURS, "single_label", None)
    label_of = {path: listing.label_text(row) for row, path in enumerate(listing.paths)}
    assert {path.split("/")[0]: label for path, label in label_of.items()} == {
        "COVID-19": "covid",
        "normal": "normal",
        "viral": "pneumonia",
        "bacterial": "pneumonia",
    }


def test_a_class_that_the_data_lacks_stays_one_of_the_models(manifest: Manifest) -> None:
    listing = read(manifest("finding", ["normal", "pneumonia", "normal"]), "finding")
    assert listing.classes == OURS
    assert listing.labels.tolist() == [1, 2, 1]


def test_all_classes_that_fit_nothing_are_told_together(folders: Path) -> None:
    told = problems(folders, viral="pneumonia", fungal="pneumonia", bacterial="pneumona")
    assert len(told) == 3
    assert "--map fungal=pneumonia: unknown class of the data 'fungal'" in told[0]
    assert "--map bacterial=pneumona: unknown class of the model 'pneumona': did you mean 'pneumonia'?" in told[1]
    assert "'COVID-19' is no class of the model, which knows covid, normal, pneumonia" in told[2]
    assert "--map 'COVID-19'=covid" in told[2], "the class it is likely to be"


def test_labels_without_a_column_are_not_evaluated(manifest: Manifest) -> None:
    """With a column a label an empty place would be a claim."""
    samples = read(
        manifest("pneumonia,COVID-19", ["1,0", "0,0", "1,1"]),
        "pneumonia",
        "COVID-19",
        task="multi_label",
        COVID_19="covid",
    )
    assert samples.classes == ("covid", "pneumonia")
    assert samples.labels.tolist() == [[0, 1], [0, 0], [1, 1]]


def test_cells_of_several_labels_tell_of_all(manifest: Manifest) -> None:
    path = manifest("finding", ["viral|covid", "", "viral|bacterial"])
    found = read(path, "finding", task="multi_label", viral="pneumonia", bacterial="pneumonia")
    assert found.classes == OURS
    assert found.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 1]]


def test_columns_of_which_one_is_set_are_classes(manifest: Manifest) -> None:
    path = manifest("covid,normal", ["1,0", "0,1", "0,1"])
    assert read(path, "covid", "normal").labels.tolist() == [0, 1, 1]
    path = manifest("covid,normal", ["1,0", "1,1", "0,0"])
    (problem,) = problems(path, "covid", "normal")
    assert problem.startswith("2 of 3 images carry none or several of the labels (1.png, 2.png), and the model decides")


def test_one_split_of_theirs_alone(manifest: Manifest, folders: Path) -> None:
    rows = ["normal,train", "covid,test", "normal,test", "covid,val"]
    assert read(manifest("finding,split", rows), "finding", split="Testing").paths == ("1.png", "2.png")
    path = manifest("finding,split", rows[:1] + rows[3:])
    assert problems(path, "finding", split="test") == [f"--split test: no image of {path} is in it"]
    names = {"COVID_19": "covid", "viral": "pneumonia", "bacterial": "pneumonia"}
    assert "has no splits; leave it out" in problems(folders, split="test", **names)[0]
    assert "--split: unknown split 'tset'" in problems(folders, split="tset", **names)[0]


def test_data_that_cannot_be_read_is_told(folders: Path, manifest: Manifest, tmp_path: Path) -> None:
    assert problems(tmp_path / "gone")[0].endswith("no such folder or file; allowed: a folder or a .csv manifest")
    assert problems(folders, "finding")[0].startswith("--label-column finding: the folder")
    assert "give a .csv manifest with the label columns" in problems(folders, task="multi_label")[0]
    path = manifest("finding", ["normal", "covid"])
    (tmp_path / "1.png").unlink()
    assert "1 of 2 rows name a missing file" in "\n".join(problems(path, "finding"))
    assert "--label-column is not given" in problems(path)[0]


def test_a_runs_own_images_are_known_by_their_pixels(small_data: Path, tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=32))
    own = own_images(run)
    assert own is not None
    for split in ("train", "val", "test"):
        for file in (small_data / split).rglob("*.png"):
            copied = tmp_path / "copied.bmp"
            Image.open(file).save(copied)
            assert own[prepare_image(copied, 16, "squash").stats.pixel_hash] == split
    assert prepare_image(tmp_path / "other.png", 16, "squash").stats.pixel_hash not in own
    for file in (tmp_path / ".image_cache").iterdir():
        file.unlink()
    assert own_images(run) is None
    assert own_images(tmp_path) is None
