"""No run folder breaks the report: what is damaged or missing is named on the page, and the rest is shown."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from baseline_files import POOR, write_baselines
from in_chapter import page_text
from run_files import rewrite

from reports.build import main
from sweep.run_folder import RunPaths

FEW = {"train": 30, "val": 30, "test": 30}
Damage = Callable[[RunPaths], object]


@pytest.fixture
def run(write_run) -> RunPaths:
    """A small run of four trials, two finalists repeated twice, and baselines."""
    root = write_run(trials=4, classes=("a", "b", "c"), labels_per_split=FEW, epochs=3,
                     finals={"finalists": (0, 1), "repeats": 2})  # fmt: skip
    write_baselines(root, POOR)
    return RunPaths(root)


def page_of(paths: RunPaths) -> str:
    """The text of the page, built anew, without tags; it must go through the command line with exit code 0."""
    assert main([str(paths.root)]) == 0
    return page_text(paths.root)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def of_first(paths: RunPaths) -> Path:
    return paths.trial("t0000/seed_1001").predictions


DAMAGES: dict[str, tuple[list[Damage], list[str]]] = {
    "every JSON of the run is cut": (
        [
            lambda p: [cut(path) for path in (p.dataset, p.provenance, p.chosen, p.baselines_table)],
            lambda p: cut(p.trial("t00001").params),
        ],
        [
            "dataset.json cannot be read",
            "provenance.json cannot be read",
            "finalists/finalists.json cannot be read",
            "the test split was opened once",
            "baselines/baselines.json cannot be read",
            "t00001/params.json cannot be read",
        ],
    ),
    "only the finalists' list is lost": (
        [lambda p: p.chosen.unlink(), lambda p: cut(p.trial("t00000").status), lambda p: p.splits.unlink()],
        [
            "finalists/finalists.json is missing",
            "opened once",
            "t00000/status.json cannot be read",
            "splits.csv is missing",
        ],
    ),
    "the decision is cut and an opening is garbage": (
        [lambda p: cut(p.selection), lambda p: p.test_access.write_text("garbage\n"), lambda p: cut(p.splits)],
        ["finalists/selection.json cannot be read"],
    ),
    "the decision names a finalist that is none": (
        [lambda p: change(p.selection, winner="t0099", model="t0099/seed_1")],
        ["t0099"],
    ),
    "predictions of one repeat are cut, of another of other images": (
        [
            lambda p: cut(of_first(p)),
            lambda p: rewrite(p.trial("t0001/seed_1002").predictions, path=lambda a: np.char.add("x", a["path"])),
        ],
        ["finalists/t0000/seed_1001/best/predictions.npz", "predictions of other images"],
    ),
    "predictions are of wrong shapes, classes and kinds": (
        [
            lambda p: rewrite(of_first(p), probability=lambda a: a["probability"][:-1]),
            lambda p: rewrite(p.trial("t0000/seed_1002").predictions, classes=lambda a: a["classes"][::-1]),
            lambda p: rewrite(p.trial("t0001/seed_1001").predictions, label=lambda a: a["label"].astype(str)),
            lambda p: rewrite(p.baselines / "thumbnails.npz", label=lambda a: a["label"][:-1]),
        ],
        [
            "finalists/t0000/seed_1001/best/predictions.npz cannot be read (its arrays do not fit",
            "finalists/t0000/seed_1002/best/predictions.npz is left out: it names other classes",
            "finalists/t0001/seed_1001/best/predictions.npz cannot be read (its arrays do not fit",
            "baselines/thumbnails.npz cannot be read (its arrays do not fit",
        ],
    ),
    "lines of records are garbage and values are no numbers": (
        [
            lambda p: p.trial("t00000").result.write_text("garbage\n[1]\n" + p.trial("t00000").result.read_text()),
            lambda p: p.trial("t00001").result.write_text(
                '{"epoch": 1, "val_f1_macro": "high", "val_loss": Infinity}\n'
            ),
            lambda p: p.trial("t0000/seed_1001").result.write_text('{"epoch": 1, "val_f1_macro": NaN, "lr": [1]}\n'),
            lambda p: p.trial("t00003").params.write_text("no JSON"),
        ],
        [
            "t00000/result.jsonl line 1 is damaged",
            "t00000/result.jsonl line 2 is damaged",
            "t00001/result.jsonl line 1: val_f1_macro is not a number",
            "seed_1001/result.jsonl line 1: lr is not a number",
            "t00003/params.json cannot be read",
        ],
    ),
    "values of records are of another kind": (
        [
            lambda p: change(p.sweep, epochs="many", command="one word", seed=None, grace_period=[3]),
            lambda p: change(
                p.dataset, counts={"val": {"a": float("nan"), "b": 10}}, source=["x"], subgroups=3, demo="yes"
            ),
            lambda p: change(p.provenance, weights={"resnet18": "r.pth"}, cpus=float("inf"), gpus={"a": 1}),
            lambda p: change(p.trial("t00002").status, status="lost", reason=7),
            lambda p: change(p.selection, thresholds={"t0000": {"a": "half"}}, decided=5),
        ],
        [
            "sweep.json: epochs is not a whole number",
            "sweep.json: command is not a list",
            "dataset.json: counts: val: a is not a whole number",
            "dataset.json: source is not an object",
            "provenance.json: weights: resnet18 is not an object",
            "has status &#39;lost&#39;: counted as failed",
            "finalists/selection.json: thresholds: t0000: a is not a number",
        ],
    ),
    "numbers and words are absurd": (
        [
            lambda p: change(p.trial("t00000").params, number=10**30),
            lambda p: p.trial("t00001").result.write_text(
                '{"epoch": 1e30, "val_f1_macro": 1}\n'
                '{"epoch": 1, "val_f1_macro": 1e308, "epoch_seconds": -1e308, "trainable_params": 1e30}\n'
            ),
            lambda p: change(p.trial("t00002").params, params={"lr": 1e308, "lone \ud800": "\ud800" * 3}),
            lambda p: change(p.trial("t00002").status, status="\ud800", reason="x" * 100_000),
            lambda p: change(p.sweep, mode="sum", trials=-1, created="\udfff"),
            lambda p: change(p.dataset, task="any", images={"train": 10**30, "val": -1}),
            lambda p: change(p.chosen, repeats=10**18),
        ],
        [
            "t00000/params.json: number is not a whole number",
            "t00001/result.jsonl line 1 is damaged",
            "t00001/result.jsonl line 2: val_f1_macro is not a number",
            "t00001/result.jsonl line 2: trainable_params is not a whole number",
            "t00002/params.json: params: lr is not text or a number",
            "sweep.json: mode is not &#39;max&#39; or &#39;min&#39;",
            "dataset.json: task is not &#39;single_label&#39; or &#39;multi_label&#39;",
            "dataset.json: images: train is not a whole number",
            "finalists/finalists.json: repeats is not a list",
        ],
    ),
    "every metric has exploded": (
        [
            lambda p: [
                one.write_text(re.sub(r'("(val|train)_\w+": )[-\d.e]+', r"\g<1>-3e38", one.read_text()))
                for one in p.root.rglob("result.jsonl")
            ]
        ],
        ["-3e+38"],
    ),
    "predictions are of another task": (
        [lambda p: change(p.dataset, task="multi_label")],
        ["finalists/t0000/seed_1001/best/predictions.npz is left out: it is of another task than dataset.json"],
    ),
    "baselines lie": (
        [
            lambda p: p.baselines_table.write_text(
                '{"baselines": [{"name": "../../x", "val": {"accuracy": "good"}}, 3]}'
            ),
            lambda p: cut(p.thumbnails),
        ],
        ["baselines/baselines.json"],
    ),
    "folders are lost": (
        [
            lambda p: shutil.rmtree(p.trial("t0000/seed_1001").root),
            lambda p: shutil.rmtree(p.trial("t00001").root),
            lambda p: p.trial("t00002").params.unlink(),
            lambda p: shutil.rmtree(p.baselines),
            lambda p: p.thumbnails.unlink(),
        ],
        ["t00002/params.json is missing"],
    ),
    "there is more than a run writes": (
        [
            lambda p: (p.root / "notes").mkdir(),
            lambda p: (p.trials / "t99999").mkdir(),
            lambda p: (p.trials / "old").symlink_to("/"),
            lambda p: (p.finalists / "t0009" / "seed_1").mkdir(parents=True),
            lambda p: (p.trials / "t00007").symlink_to("nowhere"),
            lambda p: p.trial("t00001").status.write_text(json.dumps({"status": "failed", "reason": "why? " * 2000})),
        ],
        ["t99999/params.json is missing", "t0009/seed_1/params.json is missing"],
    ),
    "folders stand where files should": (
        [
            lambda p: [
                (path.unlink(), path.mkdir())
                for path in (
                    p.provenance,
                    p.splits,
                    p.thumbnails,
                    p.selection,
                    p.test_access,
                    p.trial("t00000").result,
                    of_first(p),
                )
            ]
        ],
        [
            "provenance.json cannot be read: Is a directory",
            "splits.csv cannot be read: Is a directory",
            "t00000/result.jsonl cannot be read: Is a directory",
            "finalists/selection.json cannot be read: Is a directory",
        ],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named_and_the_rest_is_reported(run, damage):
    harm, expected = DAMAGES[damage]
    for each in harm:
        each(run)
    page = page_of(run)
    missing = [words for words in expected if words not in page]
    assert missing == []
    assert "All trials" in page
    assert "Not for clinical use." in page


def test_a_run_folder_with_only_sweep_json_is_reported(run, tmp_path):
    bare = RunPaths(tmp_path / "bare")
    bare.root.mkdir()
    bare.sweep.write_text('{"format": 1}')
    page = page_of(bare)
    assert "No trial has begun." in page
    assert "dataset.json is missing" in page


def test_a_model_whose_description_is_damaged_leaves_the_report_whole(run):
    run.models.mkdir()
    (run.models / "best.pt").write_bytes(b"weights")
    facts = run.models / "best.json"
    for content, problem in {
        "{ torn": "cannot be read",
        '{"format": 1, "trial": 1, "params": [], "files": 3, "loading": {}}': "files is not an object",
    }.items():
        facts.write_text(content)
        page = page_of(run)
        assert "models/best.json" in page
        assert problem in page


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_trial_folder_that_may_not_be_read_is_named(run):
    folder = run.trial("t00001").root
    folder.chmod(0)
    try:
        assert "t00001/params.json cannot be read: Permission denied" in page_of(run)
    finally:
        folder.chmod(0o755)


def test_a_sweep_json_that_is_no_object_is_a_run_all_the_same(run):
    run.sweep.write_text("[")
    assert "sweep.json cannot be read" in page_of(run)


def test_a_class_that_no_finalist_predicts_is_named(write_run):
    root = write_run(trials=3, classes=("a", "b", "c"), labels_per_split=FEW, epochs=3, never_predicted="b")
    assert "On validation, b is never predicted." in page_of(RunPaths(root))
