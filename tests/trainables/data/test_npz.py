from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.npz import list_npz
from trainables.data.samples import Samples

Arrays = dict[str, npt.NDArray[Any]]
COUNTS = {"train": 6, "val": 3, "test": 4}


def medmnist(size: int = 28, channels: tuple[int, ...] = (), labels: int = 1) -> Arrays:
    """As MedMNIST's own files: images uint8 [N, S, S] or [N, S, S, 3], labels uint8 [N, labels]."""
    rng = np.random.default_rng(7)
    arrays: Arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size, *channels), dtype=np.uint8)
        numbers = np.arange(count)[:, None] % 3 if labels == 1 else rng.integers(0, 2, (count, labels))
        arrays[f"{split}_labels"] = numbers.astype(np.uint8)
    return arrays


def listed(folder: Path, arrays: Arrays, compressed: bool = True, **options: Any) -> Samples:
    path = folder / "set.npz"
    (np.savez_compressed if compressed else np.savez)(path, allow_pickle=True, **arrays)
    return list_npz(path, DataConfig(data=str(path), **options))


def problems_of(folder: Path, arrays: Arrays, **options: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        listed(folder, arrays, **options)
    return list(error.value.problems)


@pytest.mark.parametrize(("size", "channels", "compressed"), [(28, (), True), (28, (3,), False), (224, (3,), True)])
def test_medmnist_is_read_with_its_splits(
    tmp_path: Path, size: int, channels: tuple[int, ...], compressed: bool
) -> None:
    arrays = medmnist(size, channels)
    samples = listed(tmp_path, arrays, compressed)
    assert (samples.task, samples.classes) == ("single_label", ("0", "1", "2"))
    assert samples.splits == ("train",) * 6 + ("val",) * 3 + ("test",) * 4
    assert samples.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert samples.pixels is not None
    assert samples.pixels.dtype == np.uint8
    assert np.array_equal(samples.pixels, np.concatenate([arrays[f"{split}_images"] for split in COUNTS]))
    assert (samples.paths[0], samples.paths[-1]) == ("train_images/0", "test_images/3")
    assert samples.files == ()


def test_arrays_may_come_in_any_order_and_layout(tmp_path: Path) -> None:
    arrays = medmnist()
    other = {name: np.asfortranarray(array) for name, array in reversed(arrays.items())}
    other["train_labels"] = arrays["train_labels"].astype(">f4")
    expected, found = listed(tmp_path, arrays), listed(tmp_path, other)
    assert expected.pixels is not None
    assert np.array_equal(expected.pixels, found.pixels)  # type: ignore[arg-type]
    assert np.array_equal(expected.labels, found.labels)
    assert expected.splits == found.splits


def test_one_channel_is_gray(tmp_path: Path) -> None:
    samples = listed(tmp_path, medmnist(channels=(1,)))
    assert samples.pixels is not None
    assert samples.pixels.shape == (13, 28, 28)


def test_several_labels_an_image_are_multi_label(tmp_path: Path) -> None:
    arrays = medmnist(labels=14)
    samples = listed(tmp_path, arrays)
    assert samples.task == "multi_label"
    assert samples.classes == tuple(map(str, range(14)))
    assert samples.labels.dtype == np.int8
    assert np.array_equal(samples.labels, np.concatenate([arrays[f"{split}_labels"] for split in COUNTS]))


def test_one_hot_labels_are_single_label_where_asked(tmp_path: Path) -> None:
    arrays = medmnist()
    for split in COUNTS:
        arrays[f"{split}_labels"] = np.eye(3, dtype=np.uint8)[arrays[f"{split}_labels"][:, 0]]
    assert listed(tmp_path, arrays, task="single_label").labels.tolist()[:4] == [0, 1, 2, 0]
    arrays["val_labels"][1] = (1, 1, 0)
    [problem] = problems_of(tmp_path, arrays, task="single_label")
    assert "1 images have no or several of the 3 labels" in problem
    assert "--task multi_label" in problem


def test_classes_are_named_and_stay_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    arrays = medmnist()
    arrays["train_labels"] = np.array([[0], [1], [2], [10], [9], [11]])
    assert listed(tmp_path, arrays).classes == ("0", "1", "2", "9", "10", "11")
    samples = listed(tmp_path, medmnist(), class_names={"0": "normal", "2": "mass"})
    assert sorted(samples.classes) == ["1", "mass", "normal"]
    assert samples.label_names(2) == ("mass",)


def test_splits_that_are_not_there_are_left_open(tmp_path: Path) -> None:
    arrays = medmnist()
    train_only = {name: array for name, array in arrays.items() if name.startswith("train")}
    assert listed(tmp_path, train_only).splits is None
    no_val = {name: array for name, array in arrays.items() if not name.startswith("val")}
    assert set(listed(tmp_path, no_val).splits or ()) == {"train", "test"}


def test_other_arrays_are_a_note(tmp_path: Path) -> None:
    samples = listed(tmp_path, {**medmnist(), "weights": np.zeros(3)})
    assert samples.notes == ("arrays that are not used: weights",)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"val_labels": np.zeros((2, 1), np.uint8)}, ["val_images has the shape (3, 28, 28), val_labels (2, 1)"]),
        ({"test_images": np.zeros((4, 64, 64), np.uint8)}, ["test_images has the shape (4, 64, 64)", "of one size"]),
        ({"train_images": np.zeros((6, 28, 28), np.float32)}, ["train_images is float32", "uint8"]),
        ({"train_images": np.zeros((6, 28, 28, 28), np.uint8)}, ["train_images has the shape (6, 28, 28, 28)", "3-D"]),
        ({"train_images": np.zeros((6, 3, 28, 28), np.uint8)}, ["(6, 3, 28, 28)", "[N, H, W, 3]"]),
        ({"val_images": np.zeros((0, 28, 28), np.uint8)}, ["val_images has the shape (0, 28, 28)"]),
        ({"val_labels": np.array([["a"], ["b"], ["c"]])}, ["val_labels is <U1", "whole numbers"]),
        ({"val_labels": np.array([[0.5], [1], [2]])}, ["a label is 0.5", "whole number"]),
        ({"val_labels": np.array([[np.nan], [1], [2]])}, ["a label is nan"]),
        ({"train_labels": np.full((6, 1), {}, dtype=object)}, ["train_labels has Python objects"]),
        ({"extra": np.array([{}], dtype=object)}, ["extra has Python objects"]),
    ],
)
def test_an_array_that_cannot_be_used_is_named(tmp_path: Path, change: Arrays, facts: list[str]) -> None:
    text = "\n".join(problems_of(tmp_path, {**medmnist(), **change}))
    assert [fact for fact in facts if fact not in text] == []


def test_all_arrays_at_fault_are_told_together(tmp_path: Path) -> None:
    arrays = medmnist()
    arrays["train_images"] = arrays["train_images"].astype(np.uint16)
    arrays["val_images"] = arrays["val_images"].astype(np.int64)
    arrays.pop("test_labels")
    problems = problems_of(tmp_path, arrays)
    assert len(problems) == 3
    assert "test_labels is missing, which test_images needs" in problems[0]


def test_multi_label_cells_other_than_0_and_1_are_refused(tmp_path: Path) -> None:
    arrays = medmnist(labels=3)
    arrays["val_labels"] = np.array([[0, 1, -1]] * 3)
    assert "a label is -1; each must be 0 or 1" in problems_of(tmp_path, arrays)[0]


def test_arrays_of_another_form_are_named(tmp_path: Path) -> None:
    [problem] = problems_of(tmp_path, {"x_train": np.zeros((2, 8, 8), np.uint8), "y_train": np.zeros(2)})
    assert "it has x_train, y_train" in problem
    assert "train_images, train_labels" in problem


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"path_column": "file"}, "--path-column file"),
        ({"test_data": "x.csv"}, "--test-data x.csv"),
        ({"group_from": "(.)"}, "--group-from (.)"),
        ({"task": "multi_label"}, "--task multi_label"),
    ],
)
def test_options_that_an_npz_cannot_answer_are_refused(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    assert problems_of(tmp_path, medmnist(), **options)[0].startswith(named)


def test_nothing_is_allocated_for_a_size_that_the_file_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    head = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': (100000000, 224, 224), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", head + shape.ljust(117).encode() + b"\n" + b"\0" * 100)
        archive.writestr("train_labels.npy", head + shape.ljust(117).encode() + b"\n" + b"\0" * 100)
    with pytest.raises(UserError, match=r"train_images claims 5,017,600,000,000 bytes"):
        list_npz(path, DataConfig(data=str(path)))


def with_head(path: Path, head: str) -> Path:
    """Two images of 2 x 2 pixels and two labels; SHAPE in ``head`` stands for the shape of each."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape, values in (("images", "(2L, 2L, 2L)", b"\0\1" * 4), ("labels", "(2L,)", b"\0\1")):
            text = head.replace("SHAPE", shape).ljust(117).encode() + b"\n"
            content = np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text + values
            archive.writestr(f"train_{name}.npy", content)
    return path


def test_arrays_that_python_2_wrote_are_read(tmp_path: Path) -> None:
    path = with_head(tmp_path / "old.npz", "{'descr': '|u1', 'fortran_order': False, 'shape': SHAPE, }")
    assert len(list_npz(path, DataConfig(data=str(path)))) == 2


@pytest.mark.parametrize(
    "head", ["{'descr': '|u1', 'shape': (SHAPE", "{'descr': '''", "{'descr': [1], 'shape': SHAPE}"]
)
def test_a_damaged_head_of_an_array_is_named(tmp_path: Path, head: str) -> None:
    path = with_head(tmp_path / "damaged.npz", head)
    with pytest.raises(UserError, match="train_images is not a readable array"):
        list_npz(path, DataConfig(data=str(path)))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=6), compressed=st.booleans())
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, place: float, new: bytes, compressed: bool) -> None:
    listed(tmp_path, medmnist(size=8), compressed)
    path = tmp_path / "set.npz"
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + len(new)] = new
    path.write_bytes(content)
    try:
        samples = list_npz(path, DataConfig(data=str(path)))
    except UserError:
        return
    assert samples.pixels is not None
    assert len(samples.pixels) == len(samples)
