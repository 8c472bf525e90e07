"""Whatever a user gets wrong: exit code 2, all of it told in one answer, a sentence each, and nothing left behind."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from refused import SMALL, Answer, Asked, draw, expect

HEADER = "path,label,split,patient"


@pytest.fixture
def manifest(images: Path) -> Callable[..., Path]:
    """Writes a manifest of the images; ``edit`` changes its lines."""

    def write(edit: Callable[[list[str]], list[str]] = list, header: str = HEADER) -> Path:
        lines = [header]
        for number, path in enumerate(sorted(images.rglob("*.png"))):
            split, label, _ = path.relative_to(images).parts
            lines.append(f"{path.relative_to(images)},{label},{split},p{number}")
        (images / "manifest.csv").write_text("\n".join(edit(lines)) + "\n", encoding="latin-1")
        return images / "manifest.csv"

    return write


class TestData:
    def test_a_folder_that_is_not_there(self, asked: Asked, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        expect(asked("--data", gone, *SMALL), f"--data {gone}: no such folder or file; allowed: a folder, a table")

    def test_no_images(self, asked: Asked, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        expect(asked("--data", tmp_path / "empty", *SMALL), "no images found; expected train|val|test/<class>/*")

    def test_images_without_a_folder_for_their_class(self, asked: Asked, tmp_path: Path) -> None:
        draw(tmp_path / "flat" / "0.png", 90)
        answer = asked("--data", tmp_path / "flat", *SMALL)
        expect(answer, "1 image(s), but none in a class folder; expected train|val|test/<class>/*")

    def test_columns_that_are_missing(self, asked: Asked, manifest: Callable[..., Path]) -> None:
        answer = asked("--data", manifest(), "--label-column", "lable", "--group-column", "patent", *SMALL)
        expect(answer, ("--label-column lable", "did you mean 'label'?"), ("--group-column patent", "'patient'"))

    def test_no_label_column_named(self, asked: Asked, manifest: Callable[..., Path]) -> None:
        expect(asked("--data", manifest(), *SMALL), "--label-column is not given; name the column(s) with the labels")

    def test_all_that_is_wrong_with_rows_and_files(
        self, asked: Asked, images: Path, manifest: Callable[..., Path]
    ) -> None:
        (images / "train/dark/dark0.png").write_bytes(b"")
        extra = ["train/dark/none.png,dark,train,x", "val/dark/dark0.png,dark,vall,y", "train/dark/dark1.png,,train,z"]
        answer = asked("--data", manifest(lambda lines: lines + extra), "--label-column", "label", *SMALL)
        expect(
            answer,
            "'label' has 1 blank cells (row 22): none is a class; leave these rows out with --blank-label drop",
            ("row 21: unknown split 'vall'", "allowed: train,", "--split-names vall=train"),
            ("1 of 21 rows name a file that is missing", "train/dark/none.png", "--skip-missing"),
            ("1 of 18 image files cannot be read", "--skip-unreadable", "dark0.png: the file is empty (0 bytes)"),
        )

    def test_a_byte_that_is_not_utf8(self, asked: Asked, manifest: Callable[..., Path]) -> None:
        path = manifest(lambda lines: [*lines[:3], "train/dark/é.png,dark,train,x", *lines[3:]])
        answer = asked("--data", path, "--label-column", "label", *SMALL)
        expect(answer, "byte 0xe9 in line 4 is not UTF-8; save the file as CSV in UTF-8")

    def test_files_that_are_no_images(self, asked: Asked, images: Path) -> None:
        (images / "train/dark/text.jpg").write_text("hello")
        (images / "train/dark/zero.png").write_bytes(b"")
        jpeg = io.BytesIO()
        Image.new("L", (64, 64), 90).save(jpeg, "JPEG")
        (images / "train/dark/half.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
        reasons = ("text.jpg: a text file, not an image", "zero.png: the file is empty (0 bytes)")
        expect(asked("--data", images, *SMALL), ("2 of 21 image files cannot be read", "--skip-unreadable", *reasons))
        for name in ("text.jpg", "zero.png"):
            (images / "train/dark" / name).unlink()
        phrases = ("1 of 19 image files cannot be read", "--skip-unreadable", "half.jpg: damaged")
        expect(asked("--data", images, *SMALL), phrases)

    def test_one_class_only(self, asked: Asked, images: Path) -> None:
        for split in ("train", "val"):
            shutil.rmtree(images / split / "dark")
        expect(asked("--data", images, *SMALL), f"--data {images}: one class only ('bright'); at least two are needed")

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_a_class_missing_from_a_split(self, asked: Asked, images: Path, split: str) -> None:
        shutil.rmtree(images / split / "dark")
        answer = asked("--data", images, *SMALL)
        has = {"train": "6 images", "val": "3 images"}[split]
        phrases = (f"class 'dark' has no image in {split}, which has {has}: every class must be in", "--classes")
        expect(answer, phrases)

    def test_a_patient_in_two_splits(self, asked: Asked, manifest: Callable[..., Path]) -> None:
        path = manifest(lambda lines: [lines[0], *(line.rpartition(",")[0] + ",one" for line in lines[1:])])
        answer = asked("--data", path, "--label-column", "label", "--group-column", "patient", *SMALL)
        expect(answer, ("1 group(s) of 'patient' are in more than one split", "--allow-leakage", "(val)"))

    def test_the_same_image_in_two_splits(self, asked: Asked, images: Path) -> None:
        shutil.copy(images / "train/dark/dark0.png", images / "val/dark/again.png")
        phrases = ("1 image(s) are in more than one split", "--allow-leakage", "val/dark/again.png (val)")
        expect(asked("--data", images, *SMALL), phrases)


OPTIONS = [
    (["--space", "partial_unfreze"], [("--space: unknown search space", "did you mean 'partial_unfreeze'?")]),
    (["--metric", "val_defined_classes"], [("--metric val_defined_classes: a count of classes", "val_auroc_macro")]),
    (["--metric", "train_loss"], [("--metric: unknown metric 'train_loss'", "did you mean 'val_loss'?")]),
    (["--metric", "val_f1_makro"], [("--metric: unknown metric 'val_f1_makro'", "did you mean 'val_f1_macro'?")]),
    (["--sampler", "tpee"], [("--sampler: unknown sampler 'tpee'", "did you mean 'tpe'?")]),
    (["--scheduler", "asah"], [("--scheduler: unknown scheduler 'asah'", "did you mean 'asha'?")]),
    (["--precision", "fp23"], [("--precision: unknown precision", "did you mean 'fp32'?")]),
    (["--fit", "sqash"], ["--fit: unknown fit 'sqash': did you mean 'squash'?"]),
    (["--patience", "often"], ["--patience must be a whole number, received 'often'"]),
    (["--epoch", "3"], ["unknown option --epoch: did you mean --epochs?"]),
    (["--set", "backbone=resnet81"], [("--set backbone=resnet81: unknown backbone", "did you mean 'resnet18'?")]),
    (["--set", "dropout=3"], ["--set dropout=3: dropout must be in [0, 1), received 3.0"]),
    (["--set", "batch_size=1000"], ["batch_size 1000 is above the 12 images of the training split"]),
    (["--set", "unfreeze_layers=nowhere"], ["--set: unfreeze_layers: squeezenet1_1 has no module 'nowhere'"]),
    (
        ["--set", "lr=10..20"],
        ["--set lr=10.0..20.0 leaves nothing of lr.sgd: its range [1e-05, 0.1]", "leaves nothing of lr.adamw: "],
    ),
    (["--set", "lr=1..x", "--set", "optimizer=a..b"], ["received 'x'", "optimizer is not a number"]),
    (["--set", "lr=high", "--set", "lrr=1"], ["lr must be a number, received 'high'", "did you mean 'lr'?"]),
    (["--cpus-per-trial", "999"], ["--cpus-per-trial 999: this machine has "]),
    (["--concurrency", "999"], ["--concurrency 999 with 1 CPUs per trial needs 999 CPUs: this machine has "]),
    (["--gpus-per-trial", "2"], ["--gpus-per-trial 2.0: must be from 0 to 1"]),
    (["--folds", "10"], ["--folds 10: class 'bright' has 9 images in train and val: give fewer folds"]),
    (["--sampler", "grid"], ["--sampler grid cannot try every value of backbone_lr_factor, "]),
    (["--target-sensitivity", "drak=0.95"], [("drak=0.95: unknown class 'drak'", "did you mean 'dark'?", "bright")]),
    (["--target-specificity", "dark=1"], ["--target-specificity dark=1: must be between 0 and 1, neither included"]),
    (["--prevalence", "dark=0.1"], ["--prevalence dark=0.1 needs a target for the class"]),
    (["--name", "a/b"], ["--name 'a/b': must be a folder name"]),
    (["--name", "n" * 300], ["at most 200 bytes"]),
    (["--name", ".."], ["--name '..': must be a folder name"]),
]


@pytest.mark.parametrize(("given", "phrases"), OPTIONS, ids=lambda value: " ".join(map(str, value))[:40])
def test_an_option_that_cannot_be(
    asked: Asked, images: Path, given: list[str], phrases: list[str | tuple[str, ...]]
) -> None:
    expect(asked("--data", images, *SMALL, *given), *phrases)


def without(options: tuple[str, ...], *names: str) -> list[str]:
    pairs = zip(options[::2], options[1::2], strict=True)
    return [text for name, value in pairs if name not in names for text in (name, value)]


def test_no_trials_and_no_epochs(asked: Asked, images: Path) -> None:
    answer = asked("--data", images, *without(SMALL, "--trials", "--epochs"), "--trials", 0, "--epochs", 0)
    expect(answer, "--trials 0: must be 1 or more", "--epochs 0: must be 1 or more")


def test_images_below_the_smallest_that_a_backbone_takes(asked: Asked, images: Path) -> None:
    for size, phrase in ((16, "--image-size 16: squeezenet1_1 needs images of at least 17 px"), (3, "at least 8")):
        expect(asked("--data", images, *without(SMALL, "--image-size"), "--image-size", size), phrase)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to ask for")
def test_a_gpu_on_a_machine_without(asked: Asked, images: Path) -> None:
    expect(asked("--data", images, *SMALL, "--gpus-per-trial", 1), "--gpus-per-trial 1: this machine has 0")


def test_a_study_that_needs_more_images_is_one_problem(asked: Asked, images: Path) -> None:
    answer = asked("--data", images, *without(SMALL, "--backbones", "--trials"), "--space", "studies.bscs17028")
    expect(answer, ("studies.bscs17028 cannot run W1, W2, ", "batch_size 128 is above the 12 images"))


@pytest.mark.parametrize(("option", "value"), [("--trials", 4), ("--sampler", "gp")])
def test_what_a_list_of_trials_cannot_follow(asked: Asked, images: Path, option: str, value: object) -> None:
    small = without(SMALL, "--backbones", "--trials")
    answer = asked("--data", images, *small, "--space", "studies.msds18022", "--rows", "H1", option, value)
    expect(answer, f"{option} {value} has no effect, as --space studies.msds18022 runs a fixed list of trials")


@pytest.mark.parametrize(
    ("option", "beside"),
    [
        (("--patience", 2), ("--epochs", 3)),
        (("--repeats", 5), ("--finalists", 0)),
        (("--grace-period", 1), ("--scheduler", "none")),
        (("--reduction-factor", 4), ("--scheduler", "median")),
        (("--cache-size", 2000), ("--cache-dir", "none")),
    ],
)
def test_an_option_that_another_one_makes_idle(asked: Asked, images: Path, option: tuple, beside: tuple) -> None:
    small = without(SMALL, "--epochs")
    why = f"{option[0]} {option[1]} has no effect, as {' '.join(map(str, beside))} "
    expect(asked("--data", images, *small, *option, *beside), why)


def test_a_range_cannot_be_compared(asked: Asked, images: Path) -> None:
    answer = asked("--data", images, *SMALL, "--compare", "lr,unfreeze_depth")
    expect(answer, ("--compare lr: space partial_unfreeze draws it from a range", "--set lr=A,B"))
    assert asked("--data", images, *SMALL, "--compare", "lr", "--set", "lr=0.1,0.01", "--dry-run").code == 0


GOOD = "    return {'backbone': 'squeezenet1_1', 'batch_size': 4}\n"
SPACES = {
    "raises": (f"def space(trial, context):\n    {{}}['x']\n{GOOD}", ["raises KeyError: 'x' at line 2 (in space)"]),
    "syntax": ("def space(trial, context)\n", ["raises SyntaxError: expected ':' at line 1"]),
    "import": ("import nowhere\n", ["raises ModuleNotFoundError: No module named 'nowhere' at line 1"]),
    "none": ("x = 1\n", ["defines no space: write `def space(trial, context)`"]),
    "range": (
        "def space(trial, context):\n    trial.suggest_float('dropout', 1, 2)\n"
        f"    trial.suggest_float('lr', -2, -1)\n{GOOD}",
        ["dropout must be in [0, 1), received 1.", "lr must be above 0 and at most 1000, received -1."],
    ),
    "exit": ("import sys\nsys.exit(0)\n", ["raises SystemExit: 0 at line 2 (in <module>)"]),
    "layers": (
        "def space(trial, context):\n"
        "    return {'backbone': 'squeezenet1_1', 'batch_size': 4, 'unfreeze_layers': 'x'}\n",
        ["unfreeze_layers: squeezenet1_1 has no module 'x'"],
    ),
}


@pytest.mark.parametrize("kind", SPACES)
def test_a_space_file_that_cannot_be_searched(asked: Asked, images: Path, tmp_path: Path, kind: str) -> None:
    text, phrases = SPACES[kind]
    (tmp_path / "mine.py").write_text(text)
    answer = asked("--data", images, *SMALL, "--space", tmp_path / "mine.py")
    expect(answer, *((str(tmp_path / "mine.py"), phrase) for phrase in phrases))


def test_a_space_file_that_is_not_there(asked: Asked, images: Path, tmp_path: Path) -> None:
    answer = asked("--data", images, *SMALL, "--space", tmp_path / "gone.py")
    expect(answer, f"--space: no such space file: {tmp_path / 'gone.py'}")


class Code:
    """Unpickled by a careless loader, it would leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.mark),)


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


class TestWeights:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        (tmp_path / "weights").mkdir()
        return tmp_path / "weights"

    def asked_with(self, asked: Asked, images: Path, weights: object, *more: object) -> Answer:
        return asked("--data", images, *without(SMALL, "--weights"), "--weights", weights, *more)

    def test_no_such_folder(self, asked: Asked, images: Path) -> None:
        answer = self.asked_with(asked, images, "imagnet")
        expect(answer, "--weights 'imagnet' is not a folder: did you mean 'imagenet'? give imagenet, random, a folder")

    def test_none_in_it(self, asked: Asked, images: Path, weights: Path) -> None:
        answer = self.asked_with(asked, images, weights)
        expect(answer, ("weights of squeezenet1_1", f"{weights} has neither", "or --weights random"))

    def test_none_for_any_backbone_is_one_problem(self, asked: Asked, images: Path, weights: Path) -> None:
        answer = asked("--data", images, *without(SMALL, "--weights", "--backbones"), "--weights", weights)
        expect(answer, ("weights of resnet18", "or --weights random (likewise resnet34, ", "no backbone is left)"))

    def test_another_hash_than_the_name_says(self, asked: Asked, images: Path, weights: Path) -> None:
        (weights / "squeezenet1_1-deadbeef.pth").write_bytes(b"x")
        expect(self.asked_with(asked, images, weights), "its SHA-256 begins with 2d711642, not deadbeef; delete it and")

    @pytest.mark.parametrize("kind", ["network", "no checkpoint", "code", "pickle", "wrapped"])
    def test_no_weights_of_this_network(self, asked: Asked, images: Path, weights: Path, kind: str) -> None:
        mark = weights / "ran"
        content, phrase = {
            "network": (
                saved(torchvision.models.squeezenet1_0().state_dict()),
                "contains squeezenet1_0, not squeezenet1_1",
            ),
            "no checkpoint": (b"hello", "it is not a PyTorch or safetensors checkpoint"),
            "code": (
                saved({"a": Code(mark)}),
                "was refused, since it has Python objects besides tensors and could run code",
            ),
            "pickle": (pickle.dumps({"a": Code(mark)}), "it is not a PyTorch or safetensors checkpoint"),
            "wrapped": (saved({"state_dict": {}, "epoch": 3}), "has no named tensors"),
        }[kind]
        name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        (weights / name).write_bytes(content)
        expect(self.asked_with(asked, images, weights), (str(weights / name), phrase))
        assert not mark.exists()


class TestPlaces:
    def test_a_name_that_is_taken(self, asked: Asked, images: Path, tmp_path: Path) -> None:
        (tmp_path / "storage" / "mine").mkdir(parents=True)
        phrases = ("--name mine: ", "exists already: continue it with --resume mine, or give another --name")
        expect(asked("--data", images, *SMALL, "--name", "mine"), phrases)

    @pytest.mark.parametrize("below", ["", "deep/er"])
    def test_a_storage_that_is_a_file(self, asked: Asked, images: Path, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_text("mine")
        answer = asked("--data", images, *SMALL, "--metric", "nix", storage=tmp_path / "file" / below)
        expect(answer, (f"--storage {tmp_path / 'file' / below}", "is not a writable folder"), "--metric")
        assert (tmp_path / "file").read_text() == "mine"

    def test_folders_made_for_a_run_that_cannot_be_are_removed(self, asked: Asked, tmp_path: Path) -> None:
        expect(asked("--data", tmp_path / "gone", *SMALL, storage=tmp_path / "new" / "er"), "no such folder or file")
        assert not (tmp_path / "new").exists()
        (tmp_path / "mine").mkdir()
        expect(asked("--data", tmp_path / "gone", *SMALL, storage=tmp_path / "mine"), "no such folder or file")
        assert (tmp_path / "mine").is_dir(), "an empty folder of the user's own stays"

    def test_a_disk_that_is_too_small(self, asked: Asked, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        total, used, _ = shutil.disk_usage(images)
        for free, phrase in ((1000, "18 decoded images of 32 px with 1 channel(s) need"), (10**6, "0.0 GB free, the")):
            usage = type(shutil.disk_usage(images))(total, used, free)
            with monkeypatch.context() as patch:
                patch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
                expect(asked("--data", images, *SMALL), (phrase, "free space"))

    def test_an_address_where_no_cluster_answers_is_told_in_seconds(self, asked: Asked, images: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "{}:{}".format(*free.getsockname())
        answer = asked("--data", images, *SMALL, "--address", address, "--metric", "nix")
        # The words of the first knock: Ray by itself would ask for a quarter of an hour.
        expect(answer, (f"--address {address}: no Ray cluster answers there (Connection refused)",), "--metric")


def test_everything_wrong_with_one_command_is_told_in_one_answer(asked: Asked, tmp_path: Path) -> None:
    places = ["--data", tmp_path / "gone", "--weights", tmp_path / "none", "--name", "a/b"]
    names = ["--space", "head_onli", "--metric", "val_akuracy", "--sampler", "tpee", "--backbones", "resnet81"]
    values = ["--trials", 0, "--epochs", "many", "--cpus-per-trial", 999, "--set", "lrr=1", "--optoin", "2"]
    told = (
        "unknown option --optoin",
        "--epochs must be a whole number, received 'many'",
        "--set lrr=1: unknown hyperparameter",
        "--backbones: unknown backbone 'resnet81'",
        "--trials 0: must be 1 or more",
        "--sampler: unknown sampler 'tpee'",
        "--name 'a/b': must be a folder name",
        "--cpus-per-trial 999",
        f"--data {tmp_path / 'gone'}",
        f"--weights '{tmp_path / 'none'}' is not a folder",
    )
    answer = asked(*places, *names, *values)
    expect(answer._replace(problems=answer.problems[:10]), *told)
    assert answer.problems[9].endswith("\n… and 2 more"), "ten are enough for one answer"
    expect(
        asked("--data", tmp_path / "gone", *names),
        *told[3:4],
        *told[5:6],
        *told[8:9],
        ("--space: unknown search space 'head_onli'", "did you mean 'head_only'?"),
        ("--metric: unknown metric 'val_akuracy'", "did you mean 'val_accuracy'?"),
    )
