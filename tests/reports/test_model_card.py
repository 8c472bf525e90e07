"""The model's card: its facts are those of the files, and it claims no more than they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from in_chapter import results_of
from run_files import WriteRun, change_sweep

from reports import intervals
from reports.chapters.errors import at_operating_point
from reports.intervals import interval
from reports.model_card import card
from search_spaces.params import TrialParams
from sweep.finalists import select
from sweep.records import read_run
from sweep.run_folder import RunPaths
from trainables.atomic import FORMAT

CLASSES = ("covid", "normal", "pneumonia")


def with_model(run: Path, **changes: Any) -> Path:
    """Give a run the best.json that an export leaves."""
    facts = {
        "format": FORMAT,
        "backbone": "resnet18",
        "params": TrialParams(backbone="resnet18", unfreeze_depth=2).to_flat(),
        "task": "single_label",
        "classes": list(CLASSES),
        "image_size": 224,
        "channels": 1,
        "fit": "pad",
        "thresholds": None,
        "trial": "t0000/seed_1001",
        "seed": 1001,
        "epoch": 4,
        "code": "0123abc",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "starting_weights": {"origin": "imagenet", "sha256": "ef" * 32, "url": None},
        "files": {"best.pt": {"sha256": "ab" * 32, "bytes": 44_000_000}},
        "onnx_difference": 3e-7,
        "loading": "import torch\n",
    }
    (run / "models").mkdir()
    (run / "models" / "best.json").write_text(json.dumps(facts | changes))
    return run


def of(run: Path) -> str:
    text = card(results_of(run))
    assert text is not None
    return text


def decided_model(run: Path) -> str:
    return str(json.loads((run / "finalists" / "selection.json").read_text())["model"])


def test_the_card_of_a_winner_has_test_scores_with_intervals_and_the_mean_of_its_repeats(write_run: WriteRun) -> None:
    run = write_run(finals={})
    with_model(run, trial=decided_model(run))
    text, results = of(run), results_of(run)
    scores, mean = results.model_scores("test"), results.scores("test")
    assert scores is not None
    assert mean is not None
    line = next(line for line in text.splitlines() if line.startswith("| macro F1"))
    assert intervals.as_text(interval(scores, "f1_macro")) in line
    assert intervals.as_text(interval(mean, "f1_macro")) in line
    of_covid = next(line for line in text.splitlines() if line.startswith("| covid"))
    assert intervals.as_text(interval(mean, "auroc:covid")) in of_covid, "the AUROC of the page"
    assert "mean of 3 repeats" in text
    assert "Test split: 169 images" in text
    assert "The model was fixed before these images were looked at." in text


def test_a_test_split_that_was_opened_again_is_told(write_run: WriteRun) -> None:
    run = write_run(finals={"opened": 2})
    with_model(run, trial=decided_model(run))
    assert "The test split was opened 2 times" in of(run)


@pytest.mark.parametrize(("precision", "told"), [("bf16", True), ("fp32", False)])
def test_scores_of_another_precision_than_the_files_are_told(write_run: WriteRun, precision: str, told: bool) -> None:
    text = str(card(results_of(with_model(write_run(finals={}, sweep={"precision": precision})))))
    assert ("computed in bfloat16" in text) is told


def test_without_finalists_the_scores_are_called_optimistic(write_run: WriteRun) -> None:
    run = write_run()
    best = results_of(run).data.best
    assert best is not None
    with_model(run, trial=best["trial_id"])
    text = of(run)
    assert "The model was selected on these images, so the scores are optimistic." in text
    assert "It was never scored on images that were not used to select it." in text
    assert "repeats" not in text


def test_scores_of_another_network_are_not_given_as_the_models(write_run: WriteRun) -> None:
    run = with_model(write_run(finals={}), trial="t0005")
    assert "The model's own predictions cannot be read, so no score is given here." in of(run)


def test_the_card_says_what_the_files_say(write_run: WriteRun) -> None:
    run = write_run(finals={}, sweep={"storage": "/data/my runs"})
    with_model(run, trial=decided_model(run))
    text = of(run)
    for fact in (
        "**Not for clinical use.**",
        "Not for diagnosis, triage, or any other decision about a patient.",
        "Images are resized and padded with black to 224 x 224 pixels with antialiasing, made gray",
        "torchvision's ImageNet weights (SHA-256 " + "ef" * 32,
        "| best.pt | 44,000,000 | " + "ab" * 32 + " |",
        "differ from torch's by at most 3e-07",
        "python -m sweep.predict '/data/my runs/run' image.png",
        "```python\nimport torch\n```",
        "it had not been evaluated on images from another source",
    ):
        assert fact in text


def test_the_demo_is_called_what_it_is(write_run: WriteRun) -> None:
    text = of(with_model(write_run(dataset={"demo": True})))
    assert "its images are phantoms drawn by a program" in text
    assert "Research on images" not in text


def test_thresholds_of_several_labels_are_stated(write_run: WriteRun) -> None:
    run = write_run(task="multi_label", finals={"thresholds": {"covid": 0.31}})
    thresholds = {"covid": 0.31, "normal": 0.5, "pneumonia": 0.5}
    with_model(run, task="multi_label", thresholds=thresholds, trial=decided_model(run))
    text = of(run)
    assert "**Decision thresholds:** covid 0.31, normal 0.5, pneumonia 0.5" in text
    assert "By class, decided at 0.5:" in text


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
def test_a_run_without_a_model_has_no_card(content: str | None, write_run: WriteRun) -> None:
    run = write_run()
    if content is not None:
        (run / "models").mkdir()
        (run / "models" / "best.json").write_text(content)
    assert card(results_of(run)) is None


def test_the_operating_point_stands_on_the_card(write_run: WriteRun) -> None:
    root = write_run(finals={})
    change_sweep(RunPaths(root), target_sensitivity={"covid": 0.9}, prevalence={"covid": 0.02})
    select(read_run(root))
    selected = json.loads(RunPaths(root).selection.read_text())
    point = selected["operating_point"]
    with_model(root, trial=selected["model"], thresholds={"covid": point["threshold"]}, operating_point=point)
    text = of(root)
    assert at_operating_point(results_of(root)) in text.replace("\\", "")
    assert "at a prevalence of 0.02" in text
    assert "the class of the operating point at or above its threshold, else the likeliest other" in text
