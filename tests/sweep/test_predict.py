"""``python -m sweep.predict``: answers for good images, sentences for bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trained_run import of_two_labels, trained_run, with_model

from sweep import predictor
from sweep.predict import image_files, main
from sweep.predictor import open_model
from sweep.records import read_predictions, read_run
from sweep.run_folder import RunPaths
from trainables.attribution import attribute_split
from trainables.data.config import DataConfig
from trainables.data.image import PREPROCESSING_VERSION, prepare_image
from trainables.maps import overlay, read_maps
from trainables.metrics import OperatingPoint
from trainables.weights import find_weights

Said = Callable[..., tuple[int, list[str], list[str]]]


pytestmark = pytest.mark.usefixtures("one_thread")


ROOT = Path(__file__).resolve().parents[2]
HELP = "python -m sweep.predict --help lists the options"


@pytest.fixture(scope="module")
def run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes bright, dark and gray, with its model."""
    made = trained_run(tmp_path_factory.mktemp("runs") / "run", DataConfig(data=str(small_data), image_size=32))
    return with_model(made)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs the command: its exit code, its lines, and its errors without "error: "."""

    def say(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main([*map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), [line.removeprefix("error: ") for line in printed.err.splitlines()]

    return say


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_answers_are_the_runs_own(run: Path, small_data: Path, said: Said, tmp_path: Path) -> None:
    code, lines, errors = said(run, small_data / "val", "--csv", tmp_path / "answers.csv", "--batch-size", 5)
    assert (code, errors) == (0, [])
    known = read_predictions(read_run(run), "t0000")
    assert known is not None
    rows = {str(Path(row["file"]).relative_to(small_data)): row for row in rows_of(tmp_path / "answers.csv")}
    validation = known.of("val")
    assert sorted(rows) == sorted(validation.path)
    for path, expected in zip(validation.path, validation.probability, strict=True):
        row = rows[str(path)]
        found = [float(row[f"probability_{name}"]) for name in known.classes]
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (row["decision"], row["threshold"], row["problem"]) == (
            known.classes[expected.argmax()],
            "likeliest",
            "",
        )
    assert lines[1].split() == ["file", *known.classes, "decision", "(the", "likeliest)"]
    assert len(lines) == 2 + len(rows)
    assert "\n".join(lines).count("Not for clinical use.") == 1


def test_no_cell_of_the_table_is_a_formula(
    run: Path, small_data: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1.png", "+1.png", "@1.png", "-1.png"]
    for name in names:
        shutil.copy(small_data / "val" / "dark" / "dark 0.png", name)
    model = torch.load(run / "models" / "best.pt", weights_only=True)
    torch.save(model | {"classes": ["=bright", "@dark", "+gray"]}, "mine.pt")
    code, lines, errors = said("mine.pt", *names[:3], "./-1.png", "--csv", "answers.csv")
    assert (code, errors) == (0, [])
    assert [line.split()[0] for line in lines[2:]] == names
    rows = rows_of(tmp_path / "answers.csv")
    assert [row["file"] for row in rows] == ["'=1.png", "'+1.png", "'@1.png", "'-1.png"]
    assert {row["decision"] for row in rows} <= {"'=bright", "'@dark", "'+gray"}
    assert "probability_=bright" in rows[0]
    assert all(float(row["probability_=bright"]) >= 0 for row in rows)


def test_a_model_file_is_enough(run: Path, small_data: Path, said: Said, tmp_path: Path) -> None:
    shutil.copy(run / "models" / "best.pt", tmp_path / "mine.pt")
    code, lines, _ = said(tmp_path / "mine.pt", small_data / "val" / "dark" / "dark 0.png", "--device", "cpu")
    assert code == 0
    assert lines[0].startswith(f"{tmp_path / 'mine.pt'}: t0000, squeezenet1_1 at 32 px")


def test_a_model_of_images_that_were_decoded_otherwise_warns_and_one_that_does_not_say_is_used(
    run: Path, small_data: Path, said: Said, tmp_path: Path
) -> None:
    image, saved = small_data / "val" / "dark" / "dark 0.png", torch.load(run / "models" / "best.pt", weights_only=True)
    assert saved["preprocessing"] == PREPROCESSING_VERSION
    torch.save(saved | {"preprocessing": PREPROCESSING_VERSION - 1}, tmp_path / "mine.pt")
    code, lines, errors = said(tmp_path / "mine.pt", image)
    assert (code, errors) == (0, [])
    assert lines[1].startswith("warning: ")
    assert f"preprocessing version {PREPROCESSING_VERSION - 1}, " in lines[1]
    torch.save({name: value for name, value in saved.items() if name != "preprocessing"}, tmp_path / "mine.pt")
    code, lines, errors = said(tmp_path / "mine.pt", image)
    assert (code, errors, len(lines)) == (0, [], 3)


def test_broken_images_cost_nothing_but_themselves(run: Path, small_data: Path, said: Said, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(small_data / "test" / "dark", folder)
    good = len(list(folder.iterdir()))
    whole = (folder / "dark 0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("not an image")
    code, lines, errors = said(run, folder, tmp_path / "gone.png", "--csv", tmp_path / "answers.csv")
    assert code == 2
    assert len(lines) == 2 + good
    told = dict(error.split(": ", 1) for error in errors[:-1])
    assert told[str(folder / "empty.jpg")] == "the file is empty (0 bytes)"
    assert told[str(folder / "text.png")] == "a text file, not an image"
    assert told[str(folder / "cut.png")].startswith("damaged: ")
    assert told[str(tmp_path / "gone.png")] == "cannot be opened: No such file or directory"
    assert errors[-1] == f"4 of {good + 4} images could not be read; the others are predicted"
    rows = rows_of(tmp_path / "answers.csv")
    assert {row["file"]: row["problem"] for row in rows if row["problem"]} == told
    assert sum(bool(row["decision"]) for row in rows) == good
    assert said(run, folder / "cut.png")[2][-1] == "1 of 1 images could not be read"


def test_any_format_and_size_is_read(run: Path, said: Said, tmp_path: Path) -> None:
    level = np.linspace(0, 1, 90 * 61).reshape(90, 61)
    Image.fromarray((level * 65535).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((level * 255).astype(np.uint8)).save(tmp_path / "plain.png")
    colour = np.stack([level * 255, 255 - level * 255, level * 0], axis=2).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.webp")
    frames = [Image.new("L", (40, 40), shade) for shade in (50, 200)]
    frames[0].save(tmp_path / "frames.tiff", save_all=True, append_images=frames[1:])
    code, lines, errors = said(run, tmp_path)
    assert (code, errors) == (0, [])
    answer = {Path(line.split()[0]).name: line.split()[1:] for line in lines[2:6]}
    assert answer["deep.png"][-1] == answer["plain.png"][-1]
    np.testing.assert_allclose(*([float(x) for x in answer[f"{n}.png"][:3]] for n in ("deep", "plain")), atol=2e-2)
    assert lines[6:] == [
        "1 colour image(s) were converted to gray: the model was trained on gray images only",
        "1 file(s) contain several frames: the first was used",
    ]


def test_several_labels_are_decided_by_their_thresholds(said: Said, tmp_path: Path) -> None:
    run = with_model(trained_run(tmp_path / "run", of_two_labels(tmp_path)))
    saved = torch.load(run / "models" / "best.pt", weights_only=True)
    for thresholds, decision in (({"high": 0.0, "often": 0.0}, "high|often"), ({"high": 1.0, "often": 1.0}, "")):
        torch.save(saved | {"thresholds": thresholds}, run / "models" / "best.pt")
        code, lines, _ = said(run, tmp_path / "3.png", "--csv", tmp_path / "answers.csv")
        assert code == 0
        assert lines[2].split() == ["threshold", *(f"{value:.4f}" for value in thresholds.values())]
        assert lines[3].endswith(decision.replace("|", " | ") or "none of them")
        (row,) = rows_of(tmp_path / "answers.csv")
        assert (row["decision"], row["threshold"]) == (decision, "|".join(f"{v:g}" for v in thresholds.values()))


def test_the_decision_follows_the_operating_point(run: Path, small_data: Path, said: Said, tmp_path: Path) -> None:
    point = OperatingPoint("gray", "sensitivity", 0.95, 0.0, positives=7, images=21, runs=3)
    saved = torch.load(run / "models" / "best.pt", weights_only=True)
    for threshold in (0.0, 2.0):
        point = dataclasses.replace(point, threshold=threshold)
        facts = {"thresholds": point.thresholds, "operating_point": dataclasses.asdict(point)}
        torch.save(saved | facts, tmp_path / "mine.pt")
        code, lines, _ = said(tmp_path / "mine.pt", small_data / "val", "--csv", tmp_path / "answers.csv")
        assert code == 0
        assert lines[1] == f"operating point: {point.words}, else the likeliest other class"
        assert lines[2].split() == ["file", *saved["classes"], "decision"]
        assert lines[3].split() == ["threshold", f"{threshold:.4f}"]
        for row in rows_of(tmp_path / "answers.csv"):
            others = max(("bright", "dark"), key=lambda name: float(row[f"probability_{name}"]))
            assert row["decision"] == ("gray" if threshold == 0 else others)
            assert row["threshold"] == f"gray from {threshold:g}, else likeliest"
    facts = {"operating_point": dataclasses.asdict(dataclasses.replace(point, threshold=None))}
    torch.save(saved | facts, tmp_path / "mine.pt")
    _, lines, _ = said(tmp_path / "mine.pt", small_data / "val")
    none = "none: no threshold of gray reaches sensitivity at least 0.95 on validation, 3 networks pooled"
    assert lines[1] == f"operating point: {none}"
    assert lines[2].endswith("decision (the likeliest)")


def test_ctrl_c_leaves_what_is_done(
    run: Path, small_data: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predictor.Predictor.predict

    def interrupted(self: predictor.Predictor, *arguments: object, **more: object) -> Iterator[predictor.Prediction]:
        for number, answer in enumerate(whole(self, *arguments, **more)):  # type: ignore[arg-type]
            if number == 3:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(predictor.Predictor, "predict", interrupted)
    code, _, errors = said(run, small_data / "val", "--csv", tmp_path / "answers.csv")
    assert (code, errors) == (130, ["interrupted"])
    assert len(rows_of(tmp_path / "answers.csv")) == 3


def test_a_reader_that_has_seen_enough_costs_no_row_of_the_table(run: Path, small_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweep.predict", str(run), str(small_data / "val"), "--batch-size", "4"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT}
    with (
        subprocess.Popen([*command, "--csv", str(tmp_path / "answers.csv")], **pipes) as table,
        subprocess.Popen(command, **pipes) as lines,
    ):
        for process in (table, lines):
            process.stdout.close()
        assert (table.stderr.read(), lines.stderr.read()) == (b"", b"")
    assert (table.returncode, lines.returncode) == (0, 130)
    assert len(rows_of(tmp_path / "answers.csv")) == len(list((small_data / "val").rglob("*.png")))


@pytest.fixture(scope="module")
def fine(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose maps have 7 x 7 positions."""
    made = trained_run(tmp_path_factory.mktemp("runs") / "fine", DataConfig(data=str(small_data), image_size=128))
    return with_model(made)


def test_maps_are_drawn_over_the_images_by_row_and_class_for_the_owner_alone(
    fine: Path, small_data: Path, said: Said, tmp_path: Path
) -> None:
    maps, broken = tmp_path / "maps", tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    arguments = fine, broken, small_data / "val", "--csv", tmp_path / "answers.csv", "--batch-size", 5
    plain = said(*arguments)
    code, lines, errors = said(*arguments, "--maps", maps)
    assert lines[-1].startswith(f"maps: {maps}")
    assert (code, lines[:-1], errors) == plain
    rows, classes = rows_of(tmp_path / "answers.csv"), ("bright", "dark", "gray")
    expected = [f"{row:05d}_{classes.index(one['decision']) + 1}.png" for row, one in enumerate(rows, 1) if row > 1]
    assert sorted(file.name for file in maps.iterdir()) == expected
    assert maps.stat().st_mode & 0o777 == 0o700
    drawn = [np.asarray(Image.open(maps / name)) for name in expected]
    assert {(one.shape, one.dtype.name) for one in drawn} == {((128, 128, 3), "uint8")}
    assert any((one[..., 0] != one[..., 2]).any() for one in drawn), "some map is not 0"


def test_a_map_over_an_image_is_the_runs_own(fine: Path, small_data: Path) -> None:
    files = RunPaths(fine).trial("t0000")
    weights, _ = find_weights("random", ["squeezenet1_1"])
    attribute_split(fine, files.weights, weights, "val", None, torch.device("cpu"))
    known = read_maps(files.maps)
    opened = open_model(fine, "cpu")
    assert opened.map_grid() == known.grid == (7, 7)
    row = int(np.flatnonzero(known.map.any(axis=(1, 2)))[0])
    (answer,) = opened.predict([small_data / str(known.path[row])], maps=True)
    (decided,) = answer.under_maps
    mine = np.flatnonzero((known.path == known.path[row]) & (known.label == known.classes.index(decided)))
    square = prepare_image(small_data / str(known.path[row]), 128, "squash").square
    assert square is not None
    expected = overlay(square, known.map[mine[0]]).astype(int)
    assert np.abs(answer.under_maps[decided].astype(int) - expected).max() <= 2


def test_why_maps_cannot_be_drawn_is_told_before_anything_is_predicted(
    run: Path, fine: Path, small_data: Path, said: Said, tmp_path: Path
) -> None:
    image = small_data / "val" / "dark" / "dark 0.png"
    assert said(fine, image, "--maps", tmp_path) == (
        2,
        [],
        [f"--maps {tmp_path}: exists already: give a new folder"],
    )
    code, _, (problem,) = said(fine, image, "--maps", tmp_path / "gone" / "maps")
    assert (code, problem) == (2, f"--maps {tmp_path}/gone/maps: {tmp_path}/gone is not a folder: create it first")
    code, _, (problem,) = said(run, image, "--maps", tmp_path / "maps")
    assert code == 2
    assert "squeezenet1_1 at 32 px have 1 x 1 positions" in problem
    assert not (tmp_path / "maps").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_no_maps_is_told(fine: Path, small_data: Path, said: Said, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, _, (problem,) = said(fine, small_data / "val", "--maps", tmp_path / "maps")
    assert (code, problem) == (2, f"--maps {tmp_path / 'maps'}: {tmp_path} is not writable: give another folder")


def test_all_that_is_wrong_with_a_command_is_told_at_once(said: Said, tmp_path: Path) -> None:
    (tmp_path / "no run").mkdir()
    code, lines, errors = said(
        tmp_path / "no run",
        tmp_path / "gone.png",
        *("--csv", tmp_path, "--device", "gpu", "--batch-size", "0"),
    )
    assert (code, lines) == (2, [])
    told = "\n".join(errors)
    assert len(errors) == 5
    assert "--batch-size must be a whole number, 1 or more, received '0'" in told
    assert "--device: unknown device 'gpu'" in told
    assert f"--csv {tmp_path}: exists and is not a file" in told
    assert f"{tmp_path / 'gone.png'}: no such file or folder" in told
    assert f"{tmp_path / 'no run'} is not a run folder: it has no sweep.json" in told


def test_what_is_no_model_is_told_in_one_sentence(run: Path, small_data: Path, said: Said, tmp_path: Path) -> None:
    image = small_data / "val" / "dark" / "dark 0.png"
    assert said() == (2, [], ["the following arguments are required: RUN, IMAGE; " + HELP])
    wrong = [
        "unknown option --csb: did you mean --csv? --help lists all",
        "--batch-size must be a whole number, 1 or more, received '0'",
    ]
    assert said(run, image, "--csb", "x", "--batch-size", "0") == (2, [], wrong)
    code, _, (problem,) = said(tmp_path / "gone", image)
    assert (code, problem.startswith(f"{tmp_path / 'gone'}: no such folder or file: give")) == (2, True)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "sweep.json").write_text(json.dumps({"format": 1}))
    code, _, (problem,) = said(unfinished, image)
    assert code == 2
    assert f"python -m sweep.model {unfinished} creates it now" in problem
    code, _, (problem,) = said(image, image)
    assert code == 2
    assert problem.startswith(f"{image} ")
    (tmp_path / "file").touch()
    code, _, (problem,) = said(run, image, "--csv", tmp_path / "file" / "answers.csv")
    assert (code, problem) == (
        2,
        f"--csv {tmp_path}/file/answers.csv: {tmp_path}/file is not a folder: create it first",
    )
    code, _, (problem,) = said(run, tmp_path / "unfinished")
    assert code == 2
    assert "no images in this folder" in problem


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(run: Path, small_data: Path, said: Said) -> None:
    code, _, (problem,) = said(run, small_data / "val", "--device", "cuda")
    assert (code, problem.startswith("--device cuda: torch finds no GPU")) == (2, True)


def test_a_gpu_that_has_no_room_is_told(
    run: Path, small_data: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is where a sweep holds the card."""

    def full(self: object, *_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(predictor.Predictor, "__init__", full)
    code, _, (problem,) = said(run, small_data / "val")
    assert (code, problem) == (2, "the GPU cannot be used (CUDA out of memory.): give --device cpu")


def test_a_gpu_that_fails_as_it_computes_is_told_and_leaves_what_is_done(
    run: Path, small_data: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is too old for this torch, or that a sweep fills meanwhile: it takes the network, and no more."""
    opened, batches = open_model(run, "cpu"), list[int]()
    opened._device = torch.device("cuda")

    def fail(self: object, images: list[object]) -> object:
        batches.append(len(images))
        if len(batches) > 1:
            raise torch.AcceleratorError("CUDA error: no kernel image\nCompile with TORCH_USE_CUDA_DSA")
        return np.full((len(images), 3), 1 / 3, dtype=np.float32)

    monkeypatch.setattr(predictor, "open_model", lambda *_: opened)
    monkeypatch.setattr(predictor.Predictor, "_probabilities", fail)
    table = tmp_path / "answers.csv"
    code, _, (problem,) = said(run, small_data / "val", "--csv", table, "--batch-size", 4)
    assert (code, problem) == (2, "the GPU cannot be used (CUDA error: no kernel image): give --device cpu")
    assert len(rows_of(table)) == 4


def test_torch_computes_with_the_cpus_of_the_quota_at_most(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "available_cpus", lambda: 2)
    for threads, expected in ((4, 2), (1, 1)):
        torch.set_num_threads(threads)
        open_model(run, "cpu")
        assert torch.get_num_threads() == expected


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_to_the_bottom_and_files_are_taken_as_they_are_named(tmp_path: Path) -> None:
    inside = [tmp_path / "a" / "1.PNG", tmp_path / "a" / "deep" / "2.dcm", tmp_path / "a" / "z.jpg"]
    odd, gone = tmp_path / "odd.txt", tmp_path / "gone.png"
    touch(*inside, odd, tmp_path / "a" / "notes.txt", tmp_path / "a" / ".hidden.png", tmp_path / "a" / ".dir" / "3.png")
    (tmp_path / "a" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    found, problems, _ = image_files([odd, gone, tmp_path / "a"])
    assert found[:2] == [odd, gone]
    assert sorted(found[2:]) == sorted([*inside, tmp_path / "a" / "IM0001"])
    assert problems == []


def test_a_file_named_twice_is_one_and_a_link_back_up_ends(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found, _, _ = image_files([tmp_path / "a" / "1.png", tmp_path / "a"])
    assert [file for file in found if "up" not in file.parts] == [tmp_path / "a" / "1.png"]
    assert len(found) <= 2


def test_a_folder_that_may_not_be_entered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.png", tmp_path / "a" / "closed" / "2.png", tmp_path / "3.png")
    scandir = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    found, (problem,), _ = image_files([tmp_path / "a", tmp_path / "3.png"])
    assert found == [tmp_path / "3.png"]
    assert "1 folder(s) in it cannot be entered" in problem
    assert "closed (Permission denied)" in problem


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "empty" / "notes.txt")
    found, (problem,), _ = image_files([tmp_path / "empty"])
    assert found == []
    assert problem.startswith(f"{tmp_path / 'empty'}: no images in this folder")


def test_what_else_of_a_folder_may_be_an_image_is_told(tmp_path: Path) -> None:
    for name in ("1.png", "2.heic", "3.dcm.gz", "notes.txt", ".4.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    found, problems, notes = image_files([tmp_path])
    assert ([file.name for file in found], problems) == (["1.png", "2.heic", "3.dcm.gz", "notes.txt"], [])
    (tmp_path / "2.heic").write_bytes(b"ftypheic")
    (tmp_path / "3.dcm.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "notes.txt").write_bytes(b"text")
    found, problems, notes = image_files([tmp_path])
    assert ([file.name for file in found], problems) == (["1.png"], [])
    assert notes == [
        f"{tmp_path}: not predicted: 2 file(s) in an unsupported format (.heic: 1, .dcm.gz: 1)",
        f"{tmp_path}: not predicted: 1 image(s): a hidden file, or in a hidden folder",
    ]
