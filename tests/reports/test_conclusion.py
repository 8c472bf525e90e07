"""An evaluation beside its run's own images: numbers by direct computation, and a warning for each way to fail."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from run_files import WriteRun
from sklearn.metrics import f1_score

from reports.blocks import Table
from reports.bootstrap import Runs
from reports.build import build as build_report
from reports.caveats import _does_not_travel
from reports.chapters.finalists import _external
from reports.comparisons import ExternalResult, change
from reports.conclusion import _compared, _own_images, conclude
from reports.data import read_report_data
from reports.external import build
from reports.probabilities import claims_of
from reports.results import Results
from sweep.evaluation_records import ConclusionRecord, read_conclusion, read_evaluation
from sweep.run_folder import EvaluationPaths, RunPaths
from trainables.atomic import FORMAT
from trainables.predictions import Predictions, read_predictions

MODEL = "t0000/seed_1001"
CLASSES = ("covid", "normal", "pneumonia")


@pytest.fixture(scope="module")
def run(written: Callable[[str, dict[str, Any]], Path]) -> Path:
    """With repeats, an opened test split, and sizes of its images; nobody may change it."""
    return written("run", {"finals": {}})


def own(run: Path, split: str = "test", trial: str = MODEL) -> Predictions:
    paths = RunPaths(run)
    return read_predictions(paths.trial(trial).predictions).of(split)


def evaluation(
    root: Path,
    run: Path,
    label: NDArray[Any],
    probability: NDArray[Any],
    *,
    images: dict[str, object] | None = None,
    classes: tuple[str, ...] = CLASSES,
    trial: str = MODEL,
    epoch: int | None = None,
    **changes: Any,
) -> Path:
    """Of images that are all patients of their own, by the model of ``run``. images: columns of images.csv; epoch: of
    the model's weights."""
    epoch = own(run, trial=trial).epoch if epoch is None else epoch
    paths = [f"{number}.png" for number in range(len(label))]
    root.mkdir(parents=True)
    Predictions.of_split("external", paths, label, probability.astype(np.float32), classes, epoch).write(
        root / "predictions.npz"
    )
    with (root / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "path", "split", "label", "group"])
        table.writerows([number, path, "external", "", ""] for number, path in enumerate(paths))
    columns = {"mode": "L", "width": 505, "height": 512, "bits": 8, "jpeg_quality": "", "mean": 123, "sd": 40}
    columns |= images or {}
    with (root / "images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["row", "path", *columns])
        table.writerows([number, path, *columns.values()] for number, path in enumerate(paths))
    truth = label if label.ndim == 2 else np.eye(len(classes), dtype=np.int64)[label]
    facts = {
        "format": FORMAT,
        "name": root.name,
        "model": {"file": str(RunPaths(run).root / "models" / "best.pt"), "trial": trial, "epoch": epoch},
        "task": "single_label" if label.ndim == 1 else "multi_label",
        "classes": list(classes),
        "images": len(label),
        "counts": {name: int(count) for name, count in zip(classes, truth.sum(axis=0), strict=True)},
    }
    (root / "evaluation.json").write_text(json.dumps(facts | changes))
    return root


def concluded(root: Path) -> ConclusionRecord:
    found = conclude(ExternalResult(read_evaluation(root)))
    assert read_conclusion(EvaluationPaths(root)) == found
    return found


def as_on_test(run: Path, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and probabilities of as many images as the test split has, drawn from it."""
    part = own(run)
    drawn = np.random.default_rng(seed).integers(0, len(part.path), len(part.path))
    return part.label[drawn], part.probability[drawn]


def test_images_like_its_own_give_no_warning(run: Path, tmp_path: Path) -> None:
    part = own(run)
    found = concluded(evaluation(tmp_path / "same", run, part.label, part.probability))
    assert found.own is not None
    assert found.difference is not None
    assert found.external.estimate == found.own.estimate
    assert found.difference.estimate == 0
    assert found.difference.low < 0 < found.difference.high
    assert found.warnings == ()
    assert "the run's own 169 test images" in found.sentence


def test_a_lower_score_is_the_first_warning_and_its_interval_that_of_independent_samples(
    run: Path, tmp_path: Path
) -> None:
    label, probability = as_on_test(run)
    chance = np.random.default_rng(1)
    wrong = chance.random(len(label)) < 0.4
    probability = np.where(wrong[:, None], probability[chance.permutation(len(label))], probability)
    found = concluded(evaluation(tmp_path / "b", run, label, probability))
    part = own(run)
    here = f1_score(label, probability.argmax(axis=1), average="macro")
    there = f1_score(part.label, part.probability.argmax(axis=1), average="macro")
    assert found.difference is not None
    assert found.external.estimate == pytest.approx(here)
    assert found.difference.estimate == pytest.approx(here - there)
    drawn = []
    for _ in range(400):
        one, other = (chance.integers(0, len(label), len(label)) for _ in range(2))
        drawn.append(
            f1_score(label[one], probability[one].argmax(axis=1), average="macro")
            - f1_score(part.label[other], part.probability[other].argmax(axis=1), average="macro")
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.difference.high - found.difference.low == pytest.approx(high - low, rel=0.3)
    assert found.difference.high < 0
    assert "the run's own 169 test images" in found.warnings[0]
    for place, one in enumerate(found.classes):
        expected = [
            f1_score(y == place, p.argmax(axis=1) == place)
            for y, p in ((label, probability), (part.label, part.probability))
        ]
        assert (one.external.estimate, one.own.estimate) == pytest.approx(tuple(expected))
        assert one.difference.estimate == pytest.approx(expected[0] - expected[1])


def test_a_class_that_is_never_predicted_or_never_right_is_named(run: Path, tmp_path: Path) -> None:
    label, probability = as_on_test(run)
    probability = probability.copy()
    probability[:, 0] = 0  # never said
    probability[label == 2] = (0.0, 1.0, 0.0)
    probability[label == 1] = (0.0, 0.0, 1.0)  # said, never rightly
    texts = concluded(evaluation(tmp_path / "b", run, label, probability)).warnings
    assert any(text.startswith("covid is never predicted") for text in texts)
    said = (probability.argmax(axis=1) == 2).sum()
    assert any(text.startswith(f"pneumonia is never correct (predicted for {said} images") for text in texts)


def test_calibration_and_shares_that_differ_are_named(run: Path, tmp_path: Path) -> None:
    part = own(run)
    few = np.flatnonzero(part.label != 1)[:60]
    surer = part.probability[few] ** 8
    surer /= surer.sum(axis=1, keepdims=True)
    found = concluded(
        evaluation(tmp_path / "b", run, part.label[few], surer, counts={"covid": 19, "normal": 0, "pneumonia": 41})
    )
    assert found.metric == "accuracy", "a class without an image would count as 0"
    right = surer.argmax(axis=1) == part.label[few]
    bins = np.ceil(surer.max(axis=1) * 10).clip(1, 10)
    expected = sum(
        (bins == one).mean() * abs(surer.max(axis=1)[bins == one].mean() - right[bins == one].mean())
        for one in np.unique(bins)
    )
    assert found.calibration_error["external"] == pytest.approx(expected, abs=1e-6)
    apart = found.calibration_error["external"] - found.calibration_error["own"]
    assert any("calibration error" in text for text in found.warnings) == (apart > 0.05)
    assert any(text.startswith("normal is 0 % of the images here and 44 % of") for text in found.warnings)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({"mode": "RGBA"}, "100 % of the images have a mode that no training image has: RGBA."),
        ({"width": 3000, "height": 2500}, "100 % of the images have a shorter side outside"),
        ({"mean": 250}, "The mean intensity is 250 of 255 here"),
    ],
)
def test_files_unlike_those_of_training_are_named(
    run: Path, tmp_path: Path, images: dict[str, object], said: str
) -> None:
    part = own(run)
    (text,) = concluded(evaluation(tmp_path / "b", run, part.label, part.probability, images=images)).warnings
    assert text.startswith(said)


def test_one_image_and_a_run_that_is_not_at_hand_are_no_error(run: Path, tmp_path: Path) -> None:
    part = own(run)
    one = concluded(evaluation(tmp_path / "one", run, part.label[:1], part.probability[:1]))
    assert one.difference is not None
    assert one.metric == f"recall:{CLASSES[part.label[0]]}"
    assert one.difference.low < 0 < one.difference.high, "one image shows nothing"
    root = evaluation(tmp_path / "far", run, part.label, part.probability, model={"file": "/nowhere/models/best.pt"})
    found = concluded(root)
    assert (found.own, found.difference, found.warnings) == (None, None, ())
    assert found.sentence.startswith("Not compared with the run's own images")
    build(root)
    assert found.sentence[:40].replace("'", "&#39;") in (root / "report.html").read_text()


def test_a_score_that_no_resample_moves_proves_no_difference(run: Path, tmp_path: Path) -> None:
    part = own(run)
    right = np.eye(len(CLASSES))[part.label]
    one_wrong = np.where(np.arange(len(right))[:, None] == 3, np.roll(right, 1, axis=1), right)
    perfect = Runs(("a",), CLASSES, part.label, right[None], part.path, ("",) * len(right))
    other = replace(perfect, probabilities=one_wrong[None])
    found = change(perfect.scores(), other.scores(), "f1_macro")
    assert found.difference < 0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    both = change(perfect.scores(), other.scores(), "accuracy")
    assert both.low < both.difference < both.high


def test_a_class_that_the_runs_own_images_lack_is_not_compared(run: Path, tmp_path: Path) -> None:
    part = own(run)
    root = evaluation(tmp_path / "b", run, part.label, part.probability)
    result = ExternalResult(read_evaluation(root))
    found = _own_images(result)
    assert found is not None
    few = found.runs.of(found.runs.labels != 0)
    less = replace(found, runs=few, scores=few.scores())
    assert [one.name for one in _compared(result, less, "accuracy")["classes"]] == list(CLASSES[1:])


def test_another_network_of_the_same_name_is_not_compared(run: Path, tmp_path: Path) -> None:
    part = own(run)
    root = evaluation(tmp_path / "b", run, part.label, part.probability, epoch=part.epoch + 1)
    assert concluded(root).own is None


def test_without_an_opened_test_split_validation_stands_beside_it(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run()
    trial = min(path.parents[1].name for path in RunPaths(run).trials.glob("*/best/predictions.npz"))
    val = own(run, "val", trial)
    found = concluded(evaluation(tmp_path / "b", run, val.label, val.probability, trial=trial))
    assert found.own_split == "val"
    assert "selected on these images" in found.sentence


def test_the_models_operating_point_decides_on_both_sides(run: Path, tmp_path: Path) -> None:
    part, label, probability = own(run), *as_on_test(run)
    root = evaluation(tmp_path / "b", run, label, probability, thresholds={"covid": 0.05})
    found = concluded(root)
    assert found.own is not None
    for score, truth, given in (
        (found.external, label, probability),
        (found.own, part.label, part.probability),
    ):
        decided = np.where(given[:, 0] >= 0.05, 0, 1 + given[:, 1:].argmax(axis=1))
        assert score.estimate == pytest.approx(f1_score(truth, decided, average="macro"))


def test_labels_that_the_data_lacks_are_compared_on_neither_side(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run(task="multi_label", finals={})
    part = own(run)
    kept = [0, 2]
    classes = (part.classes[0], part.classes[2])
    root = evaluation(tmp_path / "b", run, part.label[:, kept], part.probability[:, kept], classes=classes)
    found = concluded(root)
    assert found.own is not None
    assert found.own.estimate == pytest.approx(found.external.estimate)
    assert [one.name for one in found.classes] == list(classes)


def test_the_page_and_the_runs_own_report_say_it(write_run: WriteRun) -> None:
    run = write_run(finals={})
    label, probability = as_on_test(run)
    shuffled = probability[np.random.default_rng(0).permutation(len(label))]
    root = evaluation(run / "external" / "hospital", run, label, shuffled)
    build(root)
    found = read_conclusion(EvaluationPaths(root))
    assert found.own is not None
    page = (root / "report.html").read_text(encoding="utf-8")
    assert page.index(found.warnings[0].replace("'", "&#39;")) < page.index('id="errors"')
    build_report(run)
    report = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "The model does worse on other images: macro F1" in report
    table = (run / "report" / "tables" / "external.csv").read_text()
    assert f"{found.own.estimate - found.external.estimate:.3f}" in table


def test_an_evaluation_of_an_earlier_model_is_not_laid_to_this_one(write_run: WriteRun) -> None:
    run = write_run(finals={})
    label, probability = as_on_test(run)
    shuffled = probability[np.random.default_rng(0).permutation(len(label))]
    build(evaluation(run / "external" / "hospital", run, label, shuffled))
    epoch = own(run).epoch
    (run / "models").mkdir(exist_ok=True)
    for changed, is_its in (
        ({}, True),
        ({"trial": "t0001/seed_1001"}, False),
        ({"thresholds": {"covid": 0.3}}, False),
    ):
        facts = {"format": FORMAT, "trial": MODEL, "epoch": epoch} | changed
        (run / "models" / "best.json").write_text(json.dumps(facts))
        results = Results(read_report_data(run))
        assert bool(_does_not_travel(results)) == is_its
        assert [one.facts.name for one in results.external] == ["hospital"] * is_its
        assert not any("auroc_macro" in one.scores.values for one in results.external), "no area is shown there"
        *_, last = _external(results)
        said = last.caption if isinstance(last, Table) else last.markdown
        assert ("or of other thresholds: hospital." in said) != is_its


def test_what_an_operating_point_answers_is_what_its_calibration_is_of() -> None:
    """Of two classes: the first from .2 on."""
    probability = np.array([[0.3, 0.7], [0.1, 0.9], [0.6, 0.4]], dtype=np.float32)
    runs = Runs(("a",), ("ill", "well"), np.array([0, 1, 1]), probability[None], np.array(["x", "y", "z"]), ("",) * 3)
    likeliest, decided = claims_of(runs)[0], claims_of(runs, {"ill": 0.2})[0]
    np.testing.assert_allclose(likeliest.given, [[0.7, 0.9, 0.6]])
    np.testing.assert_array_equal(likeliest.came_true, [[False, True, False]])
    np.testing.assert_allclose(decided.given, [[0.3, 0.9, 0.6]])
    np.testing.assert_array_equal(decided.came_true, [[True, True, False]])
