"""``python -m sweep.evaluate``: what it writes, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trained_run import trained_run

from sweep import model
from sweep.evaluate import main
from sweep.model import write_models
from sweep.records import read_evaluation, read_predictions, read_run
from trainables.data.config import DataConfig

Said = Callable[..., tuple[int, list[str], list[str]]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes bright, dark and gray, with its model."""
    made = trained_run(tmp_path_factory.mktemp("runs") / "run", DataConfig(data=str(small_data), image_size=32))
    export(made)
    return made


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def export(run: Path) -> None:
    """Without ONNX, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "write_onnx", lambda path, network, facts: None)
        assert write_models(read_run(run)) == []


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Images of another source: their names for two of the classes, patients of two images, a column of subgroups."""
    chance = np.random.default_rng(5)
    lines = ["file,finding,patient,site"]
    for number in range(24):
        level, name = ((70, "dim"), (170, "bright"))[number % 2]
        pixels = np.clip(chance.normal(level, 45, (40, 36)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{name},p{number // 2},{'north' if number < 8 else 'south'}")
    (tmp_path / "hospital b.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "hospital b.csv"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def say(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = main([*map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.removeprefix("error: ").rstrip().split("\nerror: ")

    return say


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes seconds, in a process of its own."""
    monkeypatch.setattr("sweep.evaluate._write_report", lambda folder: ([], None))


COLUMNS = ("--path-column", "file", "--label-column", "finding")


def test_the_runs_own_validation_images_give_the_runs_own_score_and_a_warning(
    run: Path, small_data: Path, said: Said
) -> None:
    code, lines, _ = said(run, "--data", small_data, "--split", "val")
    assert code == 0
    (folder,) = (run / "external").iterdir()
    found = read_evaluation(folder)
    own = read_predictions(read_run(run), "t0000")
    assert own is not None
    assert found.predictions.path.tolist() == own.path.tolist()
    np.testing.assert_allclose(found.predictions.probability, own.probability, atol=1e-4)
    score = float(read_run(run).trials.iloc[0]["val_f1_macro"])
    assert found.facts.scores["f1_macro"] == pytest.approx(score, abs=1e-6)
    assert [line for line in lines if line.startswith("warning: ")] == [
        "warning: 24 of 24 images are the run's own validation images, pixel by pixel: the model was chosen on them, "
        "so the scores are too good."
    ]
    assert any(line.startswith(f"macro F1: {score:.3f} (") for line in lines)
    assert lines[-1] == f"report: {folder / 'report.html'}"
    assert sum("Not for clinical use." in line for line in lines) == 1


def test_other_images_are_judged_and_written_down(run: Path, other: Path, said: Said) -> None:
    options = ("--map", "dim=dark", "--group-column", "patient", "--subgroup-column", "site")
    code, lines, _ = said(run, "--data", other, *COLUMNS, *options)
    assert code == 0
    folder = run / "external" / "hospital-b"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"evaluation.json", "predictions.npz", "rows.csv", "report.html", "report.md"} <= names
    assert {"tables/decisions.csv", "tables/subgroups.csv", "figures/confusion.png"} <= names
    assert folder.stat().st_mode & 0o777 == 0o755
    facts = read_evaluation(folder).facts
    assert facts.counts == {"bright": 12, "dark": 12, "gray": 0}
    assert (facts.groups.column, facts.groups.count) == ("patient", 12)
    assert facts.renamed == {"dim": "dark"}
    assert facts.model.trial == "t0000"
    assert facts.warnings == ("No image is labelled gray: scores over all classes are hardly to be compared.",)
    rows = read_evaluation(folder).rows
    assert rows["group"].nunique() == 12
    assert not rows["group"].str.startswith("p").any(), "no patient's number leaves the user's table"
    assert rows["subgroup_site"].tolist() == ["north"] * 8 + ["south"] * 16
    assert "24 images of 12 patients: bright 12, dark 12, gray 0" in lines
    assert not any(line.startswith("macro F1") for line in lines), "it would count 0 for a class of no image"
    again, lines, _ = said(run, "--data", other, *COLUMNS, *options)
    assert (again, lines[-1]) == (0, f"report: {run / 'external' / 'hospital-b-2' / 'report.html'}")


def test_a_multi_label_model_is_judged_on_the_labels_that_the_data_knows(tmp_path: Path, said: Said) -> None:
    lines, chance = ["path,split,high,often,rare"], np.random.default_rng(0)
    for number in range(32):
        Image.fromarray(chance.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 16 else "val"
        lines.append(f"{number}.png,{split},{number % 2},{int(number % 3 > 0)},{int(number % 4 == 0)}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    columns = ("high", "often", "rare")
    run = trained_run(tmp_path / "run", DataConfig(data=str(tmp_path / "all.csv"), image_size=32, label_column=columns))
    export(run)
    asked = ("--data", tmp_path / "all.csv", "--label-column", "rare", "--label-column", "high", "--split", "val")
    code, lines, errors = said(run, *asked, "--out", tmp_path / "judged")
    assert code == 0, errors
    found = read_evaluation(tmp_path / "judged")
    assert found.predictions.classes == ("high", "rare")
    own = read_predictions(read_run(run), "t0000")
    assert own is not None
    np.testing.assert_allclose(found.predictions.probability, own.probability[:, [0, 2]], atol=1e-4)
    np.testing.assert_array_equal(found.predictions.label, own.label[:, [0, 2]])
    assert found.facts.warnings[0] == "The data has no column for often: not evaluated."
    assert any(line.startswith("exact match: ") for line in lines)


def test_unreadable_images_are_listed_and_left_out_only_if_asked(
    run: Path, other: Path, said: Said, no_page: None
) -> None:
    (other.parent / "3.png").write_bytes(b"")
    arguments = (run, "--data", other, *COLUMNS, "--map", "dim=dark")
    code, _, (problem,) = said(*arguments)
    assert code == 2
    assert problem == (
        "1 of 24 image files cannot be read: mend or remove them, or go on without them by --skip-unreadable\n"
        "  3.png: the file is empty (0 bytes)"
    )
    assert not (run / "external").exists(), "nothing is left behind"
    code, lines, _ = said(*arguments, "--skip-unreadable")
    assert code == 0
    assert "warning: 1 image file(s) could not be read and were left out (--skip-unreadable)." in lines
    facts = read_evaluation(run / "external" / "hospital-b").facts
    assert [(one.path, one.reason) for one in facts.dropped] == [("3.png", "the file is empty (0 bytes)")]
    assert facts.images == 23


def test_images_that_stand_twice_and_a_run_without_its_images_are_told(
    run: Path, other: Path, said: Said, no_page: None
) -> None:
    shutil.copy(other.parent / "2.png", other.parent / "3.png")
    dataset = json.loads((run / "dataset.json").read_text())
    (run / "dataset.json").write_text(json.dumps(dataset | {"cache": str(run / "gone.npy")}))
    _, lines, _ = said(run, "--data", other, *COLUMNS, "--map", "dim=dark")
    assert lines[1].startswith("warning: Whether the model was trained on some of these images is not known")
    assert lines[2] == "warning: 1 image(s) stand more than once, 1 of them with different labels."


def test_a_model_file_alone_needs_a_place(
    trained: Path, other: Path, said: Said, tmp_path: Path, no_page: None
) -> None:
    alone = shutil.copy(trained / "models" / "best.pt", tmp_path / "alone.pt")
    arguments = (alone, "--data", other, *COLUMNS, "--map", "dim=dark")
    assert said(*arguments)[::2] == (
        2,
        ["--out FOLDER is needed: the model is in no run folder that the evaluation could be written to"],
    )
    code, lines, _ = said(*arguments, "--out", tmp_path / "new" / "place")
    assert (code, lines[-1]) == (0, f"report: {tmp_path}/new/place/report.html")
    assert read_evaluation(tmp_path / "new" / "place").facts.run is None


def test_all_that_is_wrong_with_a_command_is_told_at_once(said: Said, tmp_path: Path) -> None:
    code, lines, errors = said(
        *(tmp_path / "gone", "--data", "x", "--map", "a", "--map", "b=c", "--map", "b=d"),
        *("--device", "gpu", "--batch-size", "many", "--out", tmp_path),
    )
    assert (code, lines) == (2, [])
    assert [error.split(":")[0].split(",")[0] for error in errors] == [
        "--batch-size must be a whole number",
        "--device",
        "--map a",
        "--map b is given twice",
        f"--out {tmp_path}",
        f"{tmp_path / 'gone'}",
    ]


def test_labels_that_are_not_the_models_and_data_that_is_not_there(run: Path, other: Path, said: Said) -> None:
    code, _, (problem,) = said(run, "--data", other, *COLUMNS)
    assert code == 2
    assert "'dim' is no class of the model, which knows bright, dark, gray: say which it is by --map 'dim'=" in problem
    code, _, (problem,) = said(run, "--data", other.parent / "gone", *COLUMNS)
    assert (code, "no such folder or file" in problem) == (2, True)
    code, _, (problem,) = said(run, "--data", other, "--path-column", "file")
    assert (code, "--label-column is not given" in problem) == (2, True)
    assert said(run)[2] == [
        "the following arguments are required: --data; python -m sweep.evaluate --help shows all options"
    ]
    assert not (run / "external").exists()
