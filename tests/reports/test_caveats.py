"""What the report says of scores that do not travel from validation to test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_chapter import results_of
from run_files import WriteRun
from sklearn.metrics import f1_score, roc_auc_score

from reports.caveats import caveats, from_validation_to_test
from sweep.run_folder import RunPaths

SIZES: dict[str, Any] = {"labels_per_split": {"train": 30, "val": 300, "test": 300}, "classes": ("a", "b")}


def run_whose(write_run: WriteRun, split: str, changed: Callable[[Any], Any]) -> Path:
    """A run whose winner's probabilities [N, 2] on ``split`` are ``changed``, in every repeat."""
    root = write_run(finals={"finalists": (0,)}, **SIZES)
    for folder in (RunPaths(root).finalists / "t0000").iterdir():
        path = folder / "best" / "predictions.npz"
        with np.load(path) as saved:
            arrays = {key: saved[key] for key in saved.files}
        rows = arrays["split"] == split
        arrays["probability"][rows] = changed(arrays["probability"][rows])
        np.savez(path, **arrays)
    return root


def surer_of_a(probability: Any) -> Any:
    """The same order, other decisions."""
    odds = 20 * probability[:, 0] / probability[:, 1]
    return np.stack([odds / (1 + odds), 1 / (1 + odds)], axis=1).astype(np.float32)


def chance(probability: Any) -> Any:
    first = np.random.default_rng(0).random(len(probability)).astype(np.float32)
    return np.stack([first, 1 - first], axis=1)


def calibration_error(runs: Any) -> float:
    """Of the answer, in ten bins, the mean over the repeats."""
    errors = []
    for probability in runs.probabilities.astype(np.float64):
        sure, right = probability.max(axis=1), probability.argmax(axis=1) == runs.labels
        place = np.ceil(sure * 10)
        parts = [abs(right[place == one].sum() - sure[place == one].sum()) for one in range(1, 11)]
        errors.append(sum(parts) / len(runs.labels))
    return float(np.mean(errors))


def test_where_only_decisions_fail_it_says_so_and_what_differs(write_run: WriteRun) -> None:
    results = results_of(run_whose(write_run, "test", surer_of_a))
    text = from_validation_to_test(results)
    assert text == caveats(results)[0].text, "the first of all"
    saved = results.model_runs("test")
    assert saved is not None
    scores = {}
    for split in ("val", "test"):
        runs = results.runs(split)
        assert runs is not None
        decided = runs.probabilities.argmax(axis=2)
        scores[split] = np.mean([f1_score(runs.labels, one, average="macro") for one in decided])
        scores[f"{split} area"] = np.mean([roc_auc_score(runs.labels, one[:, 1]) for one in runs.probabilities])
    assert text.startswith(
        f"Test macro F1 is {scores['test']:.3f}, on validation {scores['val']:.3f}: the difference is "
    )
    areas = f"{scores['test area']:.3f} on test and {scores['val area']:.3f} on validation"
    assert f"The ranking held (mean AUROC {areas})" in text
    errors = [f"{calibration_error(results.runs(split)):.3f}" for split in ("val", "test")]
    assert f"the calibration error is {errors[0]} on validation and {errors[1]} on test." in text
    runs = {split: results.runs(split) for split in ("val", "test")}
    pooled = runs["val"].probabilities[:, runs["val"].labels == 1, 1]
    threshold = max(value for value in np.unique(pooled) if (pooled >= value).mean() >= 0.9)
    given = runs["test"].probabilities[:, :, 1] >= threshold
    has = runs["test"].labels == 1
    reached = f"sensitivity {given[:, has].mean():.3f} and specificity {1 - given[:, ~has].mean():.3f}"
    assert f"On test, --target-sensitivity b=0.9 would have given b {reached}" in text


def test_where_the_ranking_fails_too_the_splits_are_to_blame(write_run: WriteRun) -> None:
    text = from_validation_to_test(results_of(run_whose(write_run, "test", chance)))
    assert "The ranking is also worse" in text
    assert text.endswith(
        "the splits differ, or validation resembles training more than test does, or selecting epoch and winner on "
        "validation made its score optimistic."
    )


def test_a_warm_start_from_a_run_whose_test_split_was_opened_is_said(write_run: WriteRun) -> None:
    def said(opened: int) -> list[str]:
        warm = {"trial_id": "t0001", "score": 0.9, "point": {"lr": 0.02}, "opened": opened}
        root = write_run(f"run {opened}", sweep={"warm_start": "runs/earlier", "warm_trials": [warm]})
        return [one.text for one in caveats(results_of(root)) if "best of the run earlier" in one.text]

    assert said(0) == []
    assert len(said(1)) == 1


def test_finalists_that_were_chosen_anew_and_are_not_done_are_said(write_run: WriteRun) -> None:
    root = write_run(finals={"finalists": (0, 1)})
    paths = RunPaths(root)
    chosen = json.loads(paths.chosen.read_text()) | {"chosen": "2026-02-09T09:00:00+00:00"}

    def said() -> list[str]:
        paths.chosen.write_text(json.dumps(chosen))
        return [one.text for one in caveats(results_of(root)) if "not done" in one.text]

    assert said() == [], "all that was asked for has ended"
    chosen["repeats"].append("seed_1004")
    (text,) = said()
    assert "6 of 8 repeats have completed. The finalists were chosen again" in text
    chosen["chosen"] = "2026-01-05T09:00:00+00:00"
    assert said() == [], "that would be lost files, which are told elsewhere"


def test_of_many_classes_with_few_images_the_first_are_named_and_the_others_counted(write_run: WriteRun) -> None:
    classes = tuple(f"finding {number}" for number in range(40))
    root = write_run(trials=1, classes=classes, labels_per_split=dict.fromkeys(("train", "val", "test"), 80))
    (text,) = (one.text for one in caveats(results_of(root)) if one.text.startswith("Fewer than"))
    assert "finding 9 (2) and 30 more: their intervals are too narrow." in text
    assert "finding 10" not in text


def test_a_better_test_score_is_said_too(write_run: WriteRun) -> None:
    text = from_validation_to_test(results_of(run_whose(write_run, "val", chance)))
    assert "The ranking is also better" in text
    assert text.endswith("the splits differ, or test resembles training more than validation does.")


@pytest.mark.parametrize("changes", [{}, {"opened": False}])
def test_nothing_is_said_where_nothing_shows_or_test_is_closed(write_run: WriteRun, changes: dict[str, Any]) -> None:
    root = write_run(finals={"finalists": (0,)} | changes, **SIZES)
    assert from_validation_to_test(results_of(root)) == ""
