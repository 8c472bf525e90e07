"""``python -m sweep.evaluate``: other people's labels in the classes of a model, what it writes, or why it cannot."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trained_run import trained_run, with_model

from reports import external
from search_spaces.errors import UserError
from sweep.evaluate import DATA_OPTIONS, main, own_images, read_labelled
from sweep.evaluation_records import read_conclusion, read_evaluation
from sweep.records import read_predictions, read_run
from sweep.run_folder import IMAGE_CACHE, EvaluationPaths, ModelPaths
from trainables.data.config import DataConfig, dashed
from trainables.data.image import PREPROCESSING_VERSION, prepare_image
from trainables.data.samples import MISSING, Samples
from trainables.metrics import OperatingPoint

Said = Callable[..., tuple[int, list[str], list[str]]]
Manifest = Callable[[str, Sequence[str]], Path]
OURS = ("covid", "normal", "pneumonia")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes bright, dark and gray, with its model."""
    made = trained_run(tmp_path_factory.mktemp("runs") / "run", DataConfig(data=str(small_data), image_size=32))
    return with_model(made)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


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
    monkeypatch.setattr("sweep.evaluate.build_page", lambda module, folder: ([], None))


@pytest.fixture
def page_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page without a process of its own, which takes seconds to load what draws it."""

    def build(module: str, folder: Path) -> tuple[list[str], None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of that process nobody hears them.
            return external.build(folder), None

    monkeypatch.setattr("sweep.evaluate.build_page", build)


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
        "warning: dark is never predicted: none of 8 images was found.",
        "warning: gray is never predicted: none of 8 images was found.",
        "warning: 24 of 24 images are identical to validation images of the run: the model was selected on them, so "
        "the scores are optimistic.",
    ]
    assert any(line.lower().startswith(f"macro f1: {score:.3f} (") for line in lines)
    assert lines[-1] == f"report: {folder / 'report.html'}"
    (compared,) = (line for line in lines if "the run's own 24 validation images" in line)
    assert "the difference is +0.000 (" in compared
    assert sum("Not for clinical use." in line for line in lines) == 1


@pytest.mark.usefixtures("page_here")
def test_other_images_are_judged_and_written_down(run: Path, other: Path, said: Said) -> None:
    options = ("--map", "dim=dark", "--group-column", "patient", "--subgroup-column", "site")
    code, lines, _ = said(run, "--data", other, *COLUMNS, *options)
    assert code == 0
    folder = run / "external" / "hospital-b"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"evaluation.json", "predictions.npz", "rows.csv", "report.html", "report.md"} <= names
    made = {
        "tables/operating_points_external.csv",
        "tables/subgroup_scores_external.csv",
        "figures/confusion_external.png",
    }
    assert made <= names
    assert folder.stat().st_mode & 0o777 == 0o755
    facts = read_evaluation(folder).facts
    assert facts.counts == {"bright": 12, "dark": 12, "gray": 0}
    assert (facts.groups.source, facts.groups.count) == ("patient", 12)
    assert facts.renamed == {"dim": "dark"}
    assert facts.model.trial == "t0000"
    assert facts.warnings == ("No image is labelled gray: scores over all classes are hardly comparable.",)
    rows = read_evaluation(folder).rows
    assert rows["group"].nunique() == 12
    assert not rows["group"].str.startswith("p").any(), "no patient's number leaves the user's table"
    assert rows["subgroup_site"].tolist() == ["north"] * 8 + ["south"] * 16
    assert "24 images of 12 patients: bright 12, dark 12, gray 0" in lines
    assert not any(line.lower().startswith("macro f1") for line in lines), "it would count 0 for a class of no image"
    again, lines, _ = said(run, "--data", other, *COLUMNS, *options)
    assert (again, lines[-1]) == (0, f"report: {run / 'external' / 'hospital-b-2' / 'report.html'}")


@pytest.mark.usefixtures("page_here")
@pytest.mark.parametrize("form", ["folder", "table"])
def test_images_of_one_class_are_scored(run: Path, other: Path, said: Said, tmp_path: Path, form: str) -> None:
    if form == "folder":
        (tmp_path / "b" / "bright").mkdir(parents=True)
        for number in range(1, 24, 2):
            shutil.copy(tmp_path / f"{number}.png", tmp_path / "b" / "bright")
        code, lines, problems = said(run, "--data", tmp_path / "b")
    else:
        asked = (run, "--data", other, *COLUMNS, "--where", "finding=bright")
        mapped = said(*asked, "--map", "dim=dark", "--out", tmp_path / "mapped")
        assert mapped[0] == 0, "a map of a class that has no image here is no error"
        code, lines, problems = said(*asked)
    assert (code, problems) == (0, [""])
    (folder,) = (run / "external").iterdir()
    found = read_evaluation(folder)
    assert found.facts.counts == {"bright": 12, "dark": 0, "gray": 0}
    named = found.predictions.probability.argmax(axis=1) == found.predictions.classes.index("bright")
    assert found.facts.scores["accuracy"] == found.facts.scores["recall:bright"] == named.mean()
    assert math.isnan(found.facts.scores["auroc:bright"])
    conclusion = read_conclusion(EvaluationPaths(folder))
    assert (conclusion.metric, conclusion.external.estimate) == ("recall:bright", named.mean())
    assert conclusion.classes == ()
    assert any(line.startswith("Recall of bright is ") and "the run's own 24 val" in line for line in lines)
    assert "<table" in (page := (folder / "report.html").read_text(encoding="utf-8"))
    assert "Recall of bright on 12 images" in page
    assert "Matthews" not in page


def test_a_model_with_an_operating_point_is_judged_by_it(run: Path, other: Path, said: Said, no_page: None) -> None:
    point = OperatingPoint("gray", "sensitivity", 0.95, 0.0, positives=7, images=21, runs=3)
    model = ModelPaths(run / "models").model
    facts = {"thresholds": point.thresholds, "operating_point": dataclasses.asdict(point)}
    torch.save(torch.load(model, weights_only=True) | facts, model)
    code, _, errors = said(run, "--data", other, *COLUMNS, "--map", "dim=dark")
    assert code == 0, errors
    found = read_evaluation(run / "external" / "hospital-b").facts
    assert (found.thresholds, found.model.operating_point) == ({"gray": 0.0}, point)
    assert (found.scores["accuracy"], found.scores["recall:dark"]) == (0, 0), "all of them are said to be gray"


def test_an_evaluation_warns_of_images_that_were_decoded_otherwise(
    run: Path, other: Path, said: Said, no_page: None
) -> None:
    model = ModelPaths(run / "models").model
    torch.save(torch.load(model, weights_only=True) | {"preprocessing": PREPROCESSING_VERSION - 1}, model)
    code, lines, errors = said(run, "--data", other, *COLUMNS, "--map", "dim=dark")
    assert code == 0, errors
    warning = read_evaluation(run / "external" / "hospital-b").facts.warnings[0]
    assert f"preprocessing version {PREPROCESSING_VERSION - 1}, " in warning
    assert f"warning: {warning}" in lines


@pytest.mark.usefixtures("page_here")
def test_a_multi_label_model_is_judged_on_the_labels_that_the_data_knows(tmp_path: Path, said: Said) -> None:
    lines, chance = ["path,split,high,often,rare"], np.random.default_rng(0)
    for number in range(32):
        Image.fromarray(chance.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 16 else "val"
        lines.append(f"{number}.png,{split},{number % 2},{int(number % 3 > 0)},{int(number % 4 == 0)}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    columns = ("high", "often", "rare")
    request = DataConfig(data=str(tmp_path / "all.csv"), image_size=32, label_column=columns)
    run = with_model(trained_run(tmp_path / "run", request))
    asked = ("--data", tmp_path / "all.csv", "--label-column", "rare", "--label-column", "high", "--split", "val")
    code, lines, errors = said(run, *asked, "--out", tmp_path / "judged")
    assert code == 0, errors
    found = read_evaluation(tmp_path / "judged")
    assert found.predictions.classes == ("high", "rare")
    own = read_predictions(read_run(run), "t0000")
    assert own is not None
    np.testing.assert_allclose(found.predictions.probability, own.probability[:, [0, 2]], atol=1e-4)
    np.testing.assert_array_equal(found.predictions.label, own.label[:, [0, 2]])
    assert found.facts.warnings[0] == "The data has no labels for often: not evaluated."
    assert any(line.lower().startswith("exact match: ") for line in lines)


def test_unreadable_images_are_listed_and_left_out_only_if_asked(
    run: Path, other: Path, said: Said, no_page: None
) -> None:
    (other.parent / "3.png").write_bytes(b"")
    arguments = (run, "--data", other, *COLUMNS, "--map", "dim=dark")
    code, _, (problem,) = said(*arguments)
    assert code == 2
    assert problem == (
        "1 of 24 image files cannot be read: repair or remove them, or skip them with --skip-unreadable\n"
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
    assert lines[1].startswith("warning: Whether the model was trained on some of these images is unknown")
    assert lines[2] == "warning: 1 image(s) occur more than once, 1 of them with different labels."


def test_patients_that_are_told_and_not_used_are_a_warning(
    run: Path, other: Path, said: Said, tmp_path: Path, no_page: None
) -> None:
    for number in range(24):
        folder = tmp_path / "by class" / ("dark", "bright")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / f"{number}.png", folder / f"patient{number // 4}_{number}.png")
    for option, asked in (
        ("--group-column", (other, *COLUMNS, "--map", "dim=dark")),
        ("--group-from", (tmp_path / "by class",)),
    ):
        code, lines, _ = said(run, "--data", *asked)
        assert code == 0
        (warning,) = (line for line in lines if "of one patient" in line)
        assert f"are not used ({option}): these count as independent in the intervals" in warning
    _, lines, _ = said(run, "--data", *asked, "--group-from", r"(patient\d+)")
    assert not any("of one patient" in line for line in lines)


def test_a_model_file_alone_needs_a_place(
    trained: Path, other: Path, said: Said, tmp_path: Path, no_page: None
) -> None:
    alone = shutil.copy(trained / "models" / "best.pt", tmp_path / "alone.pt")
    arguments = (alone, "--data", other, *COLUMNS, "--map", "dim=dark")
    assert said(*arguments)[::2] == (
        2,
        ["--out FOLDER is required, as the model is not in a run folder"],
    )
    code, lines, _ = said(*arguments, "--out", tmp_path / "new" / "place")
    assert (code, lines[-1]) == (0, f"report: {tmp_path}/new/place/report.html")
    assert read_evaluation(tmp_path / "new" / "place").facts.run is None


def test_all_that_is_wrong_with_a_command_is_told_at_once(said: Said, tmp_path: Path) -> None:
    code, lines, errors = said(
        *(tmp_path / "gone", "--data", "x", "--map", "a", "--map", "b=c", "--map", "b=d"),
        *("--device", "gpu", "--batch-size", "many", "--out", tmp_path, "--group-column", ""),
    )
    assert (code, lines) == (2, [])
    assert [error.split(":")[0].split(",")[0] for error in errors] == [
        "--batch-size must be a whole number",
        "--device",
        "--group-column must not be empty",
        "--map a",
        "--map b is given twice",
        f"--out {tmp_path}",
        f"{tmp_path / 'gone'}",
    ]


def test_labels_that_are_not_the_models_and_data_that_is_not_there(run: Path, other: Path, said: Said) -> None:
    code, _, (problem,) = said(run, "--data", other, *COLUMNS)
    assert code == 2
    assert "'dim' is not a class of the model, which has bright, dark, gray: map it with --map 'dim'=" in problem
    code, _, (problem,) = said(run, "--data", other.parent / "gone", *COLUMNS)
    assert (code, "no such folder or file" in problem) == (2, True)
    code, _, (problem,) = said(run, "--data", other, "--path-column", "file")
    assert (code, "--label-column is not given" in problem) == (2, True)
    assert said(run)[2] == ["--data PATH is required: the images to evaluate the model on"]
    assert not (run / "external").exists()


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


def read(
    data: Path,
    *columns: str,
    task: str = "single_label",
    split: str | None = None,
    nothing: str | None = None,
    **renamed: str,
) -> Samples:
    request = DataConfig(data=str(data), label_column=columns, no_finding=nothing)
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
    assert "'COVID-19' is not a class of the model, which has covid, normal, pneumonia" in told[2]
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


def test_a_column_of_0_and_1_tells_of_its_own_label_alone(manifest: Manifest) -> None:
    samples = read(manifest("pneumonia", ["1", "0", "0"]), "pneumonia", task="multi_label")
    assert (samples.classes, samples.labels.tolist()) == (("pneumonia",), [[1], [0], [0]])
    every = read(
        manifest("finding", ["pneumonia", "none", "covid|pneumonia"]), "finding", task="multi_label", nothing="none"
    )
    assert (every.classes, every.labels.tolist()) == (OURS, [[0, 0, 1], [0, 0, 0], [1, 0, 1]])


def test_labels_that_an_option_leaves_out_are_not_taken_as_absent(manifest: Manifest, tmp_path: Path) -> None:
    data = manifest("finding", ["pneumonia", "normal", "covid|pneumonia"])
    of_two = DataConfig(data=str(data), label_column=("finding",), classes=("normal", "pneumonia"))
    samples = read_labelled(of_two, OURS, "multi_label", {}, None)
    assert (samples.classes, samples.labels.tolist()) == (("normal", "pneumonia"), [[0, 1], [1, 0], [0, 1]])
    least = {"label_column": ("finding",), "min_class_images": 2}  # as a preset may have it
    rare = DataConfig(data=str(data), **least)
    assert read_labelled(rare, OURS, "multi_label", {}, None).labels.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 1]]
    rare = DataConfig(data=str(manifest("finding", ["pneumonia", "rib", "covid|pneumonia"])), **least)
    samples = read_labelled(rare, OURS, "multi_label", {}, None)
    assert samples.labels.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert "labels unknown to the model with fewer than 2 images are left out: rib" in samples.notes
    arrays = {"train_images": np.zeros((2, 8, 8), np.uint8), "train_labels": np.array([[1, 0], [0, 1]], np.uint8)}
    np.savez(tmp_path / "set.npz", **arrays)
    known = DataConfig(data=str(tmp_path / "set.npz"), class_names={"0": "normal", "1": "covid"})
    samples = read_labelled(known, OURS, "multi_label", {}, None)
    assert (samples.classes, samples.labels.tolist()) == (("covid", "normal"), [[0, 1], [1, 0]])


def test_a_label_of_theirs_that_is_none_of_the_models_has_its_own_ways_out(manifest: Manifest) -> None:
    (told,) = problems(manifest("finding", ["pneumonia", "No Finding"]), "finding", task="multi_label")
    assert "--no-finding 'No Finding'" in told
    assert "--class-from" not in told


def test_a_label_that_is_known_of_no_image_is_not_evaluated(manifest: Manifest) -> None:
    path = manifest("covid,normal", ["-1,0", "-1,1", "-1,0"])
    columns = {"label_column": ("covid", "normal"), "uncertain_label": ("missing",)}
    found = read_labelled(DataConfig(data=str(path), **columns), OURS, "multi_label", {}, None)
    assert (found.classes, found.labels.tolist()) == (("normal",), [[0], [1], [0]])


def test_classes_without_an_image_are_asked_for_nothing(manifest: Manifest, folders: Path) -> None:
    rows = ["normal,train", "rare,train", "normal,test", "covid,test"]
    assert read(manifest("finding,split", rows), "finding", split="test").labels.tolist() == [1, 0]
    (folders / "tuberculosis").mkdir()
    assert "'tuberculosis'" not in "".join(problems(folders))


def test_healthy_images_alone_are_evaluated_by_a_multi_label_model(manifest: Manifest) -> None:
    path = manifest("finding", ["none", "none"])
    found = read(path, "finding", task="multi_label", nothing="none")
    assert (found.classes, found.labels.tolist()) == (OURS, [[0, 0, 0], [0, 0, 0]])


def test_a_label_that_is_not_known_stays_so_unless_another_of_the_same_class_is_there(manifest: Manifest) -> None:
    path = manifest("viral,bacterial,normal", ["-1,0,0", "-1,-1,1", "1,-1,0", "0,-1,-1", "-1,1,0", "0,0,1"])
    columns = {"label_column": ("viral", "bacterial", "normal"), "uncertain_label": ("missing",)}
    request = DataConfig(data=str(path), **columns)
    renamed = {"viral": "pneumonia", "bacterial": "pneumonia"}
    found = read_labelled(request, ("normal", "pneumonia"), "multi_label", renamed, None)
    assert found.labels[:, 1].tolist() == [-1, -1, 1, -1, 1, 0]
    assert found.labels[:, 0].tolist() == [0, 1, 0, -1, 0, 1]
    with pytest.raises(UserError, match="3 of 6 images have none or several"):
        read_labelled(request, ("normal", "pneumonia"), "single_label", renamed, None)


def test_cells_of_several_labels_tell_of_all(manifest: Manifest) -> None:
    path = manifest("finding", ["viral|covid", "viral", "viral|bacterial"])
    found = read(path, "finding", task="multi_label", viral="pneumonia", bacterial="pneumonia")
    assert found.classes == OURS
    assert found.labels.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_no_way_out_is_the_task_that_the_model_says(manifest: Manifest) -> None:
    path = manifest("finding", ["normal", "covid", "covid"])
    assert problems(path, "finding", nothing="none") == [
        "--no-finding none: this is one of the classes of a single-label set; omit it"
    ]
    for twice in (("0.png,covid",), ("0.png,covid", "1.png,normal", "2.png,normal")):
        with path.open("a") as file:
            file.write("\n".join(twice) + "\n")
        told = problems(path, "finding")[0]
        assert " with rows of different labels: 0.png" in told
        assert told.endswith("; keep one row of each")


def test_columns_of_which_one_is_set_are_classes(manifest: Manifest) -> None:
    path = manifest("covid,normal", ["1,0", "0,1", "0,1"])
    found = read(path, "covid", "normal")
    assert found.labels.tolist() == [0, 1, 1]
    assert "--task" not in "".join(found.notes)
    path = manifest("covid,normal", ["1,0", "1,1", "0,0"])
    (problem,) = problems(path, "covid", "normal")
    assert problem.startswith("2 of 3 images have none or several of the labels (1.png, 2.png), and the model predicts")


def test_one_split_of_theirs_alone(manifest: Manifest, folders: Path) -> None:
    rows = ["normal,train", "covid,test", "normal,test", "covid,val"]
    assert read(manifest("finding,split", rows), "finding", split="Testing").paths == ("1.png", "2.png")
    path = manifest("finding,split", rows[:1] + rows[3:])
    assert problems(path, "finding", split="test") == [f"--split test: no image of {path} is in it"]
    names = {"COVID_19": "covid", "viral": "pneumonia", "bacterial": "pneumonia"}
    assert "has no splits: omit it" in problems(folders, split="test", **names)[0]
    assert "--split: unknown split 'tset'" in problems(folders, split="tset", **names)[0]


def test_data_that_cannot_be_read_is_told(folders: Path, manifest: Manifest, tmp_path: Path) -> None:
    assert problems(tmp_path / "gone")[0].startswith(
        f"--data {tmp_path / 'gone'}: no such folder or file; allowed: a folder"
    )
    assert problems(folders, "finding")[0].startswith("--label-column finding: the folder")
    assert "give a table with the label columns" in problems(folders, task="multi_label")[0]
    path = manifest("finding", ["normal", "covid", "normal"])
    (tmp_path / "2.png").unlink()
    assert "1 of 3 rows name a file that is missing" in "\n".join(problems(path, "finding"))
    assert "--label-column is not given" in problems(path)[0]


def test_every_option_about_what_is_read_is_one_here(capsys: pytest.CaptureFixture[str]) -> None:
    of_training = {
        "image_size",
        "fit",
        "seed",
        "max_images",
        "ordered_classes",
        "allow_leakage",
        "task",
        "min_class_images",
        "source_column",
    }
    assert {*DATA_OPTIONS} == DataConfig.model_fields.keys() - of_training
    for asked in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            main([asked])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        for name, one in DataConfig.options().items():
            expected = name in DATA_OPTIONS and not one.in_files_only and (asked == "--help-all" or not one.rare)
            assert (f"  {dashed(name)} " in shown) == expected, name


def test_rows_and_cells_are_read_as_the_options_say(run: Path, other: Path, said: Said, no_page: None) -> None:
    options = (*COLUMNS, "--where", "site=south", "--map", "dim=dark")
    code, lines, errors = said(run, "--data", other, *options)
    assert code == 0, errors
    facts = read_evaluation(run / "external" / "hospital-b").facts
    assert (facts.images, facts.counts) == (16, {"bright": 8, "dark": 8, "gray": 0})
    assert [line.split(" left out")[0] for line in lines if " left out: " in line] == ["warning: 8"]


def test_a_label_that_is_missing_takes_part_in_no_score(manifest: Manifest) -> None:
    path = manifest("a,b,normal", [",1,1", ",,0", "0,0,1", "0,,0"])
    config = DataConfig(data=str(path), label_column=("a", "b", "normal"), blank_label={"": "missing"})
    found = read_labelled(config, OURS, "multi_label", {"a": "covid", "b": "covid"}, None)
    assert found.classes == ("covid", "normal")
    assert found.labels.tolist() == [[1, 1], [MISSING, 0], [0, 1], [MISSING, 0]]


def test_drawn_pixels_are_predicted_without_a_file(run: Path, said: Said, tmp_path: Path, no_page: None) -> None:
    chance = np.random.default_rng(0)
    parts = {
        f"{split}_images": chance.integers(0, 256, (6, 28, 28), dtype=np.uint8) for split in ("train", "val", "test")
    }
    labels = {f"{split}_labels": np.arange(6).reshape(6, 1) % 2 for split in ("train", "val", "test")}
    np.savez(tmp_path / "set.npz", **parts, **labels)
    code, _, errors = said(
        *(run, "--data", tmp_path / "set.npz", "--split", "test", "--map", "0=dark", "--map", "1=bright"),
    )
    assert code == 0, errors
    found = read_evaluation(run / "external" / "set")
    assert (found.facts.images, found.facts.counts) == (6, {"bright": 3, "dark": 3, "gray": 0})
    assert len({tuple(row) for row in found.predictions.probability.tolist()}) == 6


def test_data_that_may_not_be_read_is_not_laid_to_the_place_of_the_answers(
    run: Path, other: Path, said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: object) -> Samples:
        raise PermissionError(13, "Permission denied", str(other))

    monkeypatch.setattr("sweep.evaluate.list_samples", refused)
    code, _, problems = said(run, "--data", other, *COLUMNS, "--out", tmp_path / "new")
    assert (code, problems) == (2, [f"--data {other}: {other} cannot be read: Permission denied"])
    assert not (tmp_path / "new").exists()


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
    splits, written = run / "splits.csv", (run / "splits.csv").read_text()
    splits.write_text(written.replace(",test,", ",train,"))
    assert own_images(run) is None
    splits.write_text(written)
    assert own_images(run) == own
    for file in (tmp_path / IMAGE_CACHE).iterdir():
        file.unlink()
    assert own_images(run) is None
    assert own_images(tmp_path) is None
