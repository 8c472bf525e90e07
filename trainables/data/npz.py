"""Read a data set from one .npz in MedMNIST's format: ``train_images``, ``train_labels``, the same for val and test."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, raise_all, reason_of, some
from trainables.data.classes import keep_classes
from trainables.data.config import DataConfig, dashed
from trainables.data.file_form import BROKEN, MOST_RATIO, SMALL_BYTES, open_zip
from trainables.data.samples import SPLIT_WORDS, SPLITS, Samples

_READ_BYTES = 16 * 1024**2
_NOT_HERE = ("val_data", "test_data", "no_finding", "split_names", "group_from", "class_from")


def list_npz(path: Path, config: DataConfig) -> Samples:
    """Read images uint8 [N, H, W] or [N, H, W, 3], and labels of whole numbers: [N] or [N, 1] are one class per image,
    [N, k] of 0 and 1 are k labels (with ``--task single_label`` k classes, one-hot).

    Classes are named by number unless ``config.class_names`` has a name. Missing splits are drawn. Raises ``UserError``
    with all problems of the arrays; nothing is unpickled.
    """
    others = {dashed(name): getattr(config, name) for name in _NOT_HERE}
    given = {**config.table_options(), **{name: value for name, value in others.items() if value}}
    what = "an .npz has no columns, paths or tables"
    raise_all([f"{f'{name} {value}'.strip()}: {what}" for name, value in given.items()])
    try:
        with open_zip(path) as archive:
            arrays = _arrays(path, archive)
            images, labels = _of_splits(path, arrays, "images"), _of_splits(path, arrays, "labels")
            raise_all([f"{path}: {fault}" for fault in _faults(images, labels, list(arrays))])
            values = np.concatenate([one.read(archive) for one in labels.values()])
            task, classes, values = _labels(path, values.reshape(len(values), -1), config)
            pixels = _pixels(archive, list(images.values()))
    except MemoryError:
        raise UserError(f"{path}: its images do not fit in memory; give a smaller version of the set") from None
    except (*BROKEN, RuntimeError) as error:
        raise UserError(f"{path}: cannot be read: {reason_of(error)}; get the file again") from None
    splits = [split for split, one in images.items() for _ in range(one.shape[0])]
    used = {one.name for one in (*images.values(), *labels.values())}
    unused = [name for name in arrays if name not in used]
    samples = Samples(
        kind="npz",
        path=str(path),
        task=task,
        classes=classes,
        paths=tuple(f"{one.name}/{row}" for one in images.values() for row in range(one.shape[0])),
        files=(),
        labels=values,
        splits=tuple(splits) if len(images) > 1 else None,
        pixels=pixels,
        notes=(f"arrays that are not used: {', '.join(unused)}",) if unused else (),
    )
    return keep_classes(samples, config)


@dataclass(frozen=True)
class _Array:
    """An array in the file, as its header describes it."""

    name: str
    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, archive: zipfile.ZipFile) -> npt.NDArray[Any]:
        values = np.empty(math.prod(self.shape), dtype=self.dtype)
        self.read_into(archive, values)
        return values.reshape(self.shape, order="F" if self.fortran else "C")

    def read_into(self, archive: zipfile.ZipFile, values: npt.NDArray[Any]) -> None:
        """Fill a contiguous array of the same number of bytes, in the order of the file."""
        left = values.reshape(-1).view(np.uint8).data
        with archive.open(self.member) as stream:
            _read_head(stream)
            while len(left) and (part := stream.read(min(len(left), _READ_BYTES))):
                left[: len(part)] = part
                left = left[len(part) :]
            if len(left) or stream.read(1):
                raise zipfile.BadZipFile(
                    f"{self.name} does not have the {self.size_bytes:,} bytes that its shape {self.shape} needs"
                )


def _arrays(path: Path, archive: zipfile.ZipFile) -> dict[str, _Array]:
    """Every array by its name; no data is read. Raises ``UserError`` if one is damaged, pickled or far too large."""
    found, problems = {}, []
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        try:
            with archive.open(member) as stream:
                shape, fortran, dtype = _read_head(stream)
        except ValueError as error:
            problems.append(f"{path}: {name} is not a readable array: {str(error).splitlines()[0]}")
            continue
        array = _Array(name, member, shape, dtype, fortran)
        if dtype.hasobject:
            problems.append(f"{path}: {name} has Python objects, which are not read; save numbers (uint8 for images)")
        elif array.size_bytes > max(SMALL_BYTES, MOST_RATIO * member.compress_size):
            what = f"claims {array.size_bytes:,} bytes, more than {MOST_RATIO} times what is in the file"
            problems.append(f"{path}: {name} {what}; get the file again")
        found[name] = array
    raise_all(problems)
    return found


def _read_head(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first axis changes fastest, and dtype. Raises ``ValueError``."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Python 2 wrote it
            shape, fortran, dtype = read(stream)
    except ValueError:
        raise
    except Exception as error:  # The header is a Python literal, which may fail in many ways: TokenError, ...
        raise ValueError(f"a damaged head ({type(error).__name__})") from None
    if any(axis < 0 for axis in shape):
        raise ValueError(f"shape {shape}")
    return shape, fortran, dtype


def _of_splits(path: Path, arrays: dict[str, _Array], kind: str) -> dict[str, _Array]:
    """Split -> its array, such as "train_images", in the order of ``SPLITS``. kind: "images" or "labels"."""
    named: dict[str, _Array] = {}
    for name, array in arrays.items():
        split = SPLIT_WORDS.get(name.removesuffix(f"_{kind}")) if name.endswith(f"_{kind}") else None
        if split in named:
            raise UserError(f"{path}: {named[split].name} and {name} are {kind} of the same split; remove one of them")
        if split:
            named[split] = array
    return {split: named[split] for split in SPLITS if split in named}


def _faults(images: dict[str, _Array], labels: dict[str, _Array], names: Sequence[str]) -> Iterator[str]:
    """Problems of the arrays of images and labels; names: of all arrays."""
    if "train" not in images:
        what = "not in MedMNIST's format (train_images, train_labels and the same for val and test)"
        yield f"{what}: it has {some(names) or 'nothing'}"
        return
    for split in SPLITS:
        here, there = images.get(split), labels.get(split)
        if (here is None) != (there is None):
            lacking = "images" if here is None else "labels"
            yield f"{split}_{lacking} is missing, which {(here or there or images['train']).name} needs"
        elif here and there and here.shape[:1] != there.shape[:1]:
            yield f"{here.name} has the shape {here.shape}, {there.name} {there.shape}: each image needs a label"
    first = images["train"]
    for array in images.values():
        if array.dtype != np.uint8:
            yield f"{array.name} is {array.dtype}: images must be uint8, 0 to 255"
        if len(array.shape) > 4 or (len(array.shape) == 4 and array.shape[-1] not in (1, 3)):
            kind = "volumes (3-D)" if len(set(array.shape[1:4])) == 1 else "neither gray nor RGB"
            yield f"{array.name} has the shape {array.shape}, {kind}: images must be [N, H, W] or [N, H, W, 3]"
        elif len(array.shape) < 3 or 0 in array.shape:
            yield f"{array.name} has the shape {array.shape}: images must be [N, H, W] or [N, H, W, 3]"
        elif array.shape[1:] != first.shape[1:]:
            yield f"{array.name} has the shape {array.shape}, {first.name} {first.shape}: all must be of one size"
    for array in labels.values():
        if array.dtype.kind not in "iubf" or len(array.shape) not in (1, 2) or 0 in array.shape:
            what = f"is {array.dtype} of shape {array.shape}: labels must be whole numbers, [N], [N, 1] or [N, k]"
            yield f"{array.name} {what}"
        elif array.shape[1:] != labels.get("train", array).shape[1:]:
            yield f"{array.name} has the shape {array.shape}, {labels['train'].name} {labels['train'].shape}"


def _labels(path: Path, values: npt.NDArray[Any], config: DataConfig) -> tuple[str, tuple[str, ...], npt.NDArray[Any]]:
    """Task, classes and labels as in ``Samples``; values: [n, k]."""
    columns = values.shape[1]
    allowed = (values == np.floor(values)) & (np.abs(values) < 2**31) if columns == 1 else np.isin(values, (0, 1))
    if not allowed.all():
        needed = "a whole number" if columns == 1 else "0 or 1"
        raise UserError(f"{path}: a label is {values[~allowed][0]}; each must be {needed}")
    if columns == 1:
        if config.task == "multi_label":
            raise UserError("--task multi_label: the labels of the .npz are one number per image; omit it")
        numbers, labels = np.unique(values[:, 0].astype(np.int64), return_inverse=True)
        return "single_label", tuple(map(str, numbers)), labels.astype(np.int64)
    names = tuple(map(str, range(columns)))
    if config.task != "single_label" and not config.one_hot:
        return "multi_label", names, values.astype(np.int8)
    wrong = np.flatnonzero((values != 0).sum(axis=1) != 1)
    if len(wrong):
        what = f"{len(wrong)} images have no or several of the {columns} labels; choose --task multi_label"
        raise UserError(f"--task single_label: {what}")
    return "single_label", names, values.argmax(axis=1).astype(np.int64)


def _pixels(archive: zipfile.ZipFile, arrays: Sequence[_Array]) -> npt.NDArray[np.uint8]:
    """All images, uint8 [n, H, W] or [n, H, W, 3], read array by array into one."""
    shape = arrays[0].shape[1:3] if arrays[0].shape[3:] == (1,) else arrays[0].shape[1:]
    pixels = np.empty((sum(array.shape[0] for array in arrays), *shape), dtype=np.uint8)
    start = 0
    for array in arrays:
        part = pixels[start : start + array.shape[0]]
        if array.fortran:
            part[...] = array.read(archive).reshape(part.shape)
        else:
            array.read_into(archive, part)
        start += len(part)
    return pixels
