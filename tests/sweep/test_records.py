"""What is best is decided once: by ``rank``; and a run of another format is refused by name."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from threading import Event, get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from run_files import change_sweep, write, write_json

from search_spaces.errors import UserError
from search_spaces.params import BACKBONE_NAMES, TrialParams
from sweep import trial_records
from sweep.evaluation_records import read_evaluation
from sweep.finalists import _backbones, choose
from sweep.history import WEIGHTS_KEPT, TrialHistory
from sweep.model import choose as choose_model
from sweep.records import read_predictions, read_run
from sweep.run_folder import EvaluationPaths, RunPaths
from sweep.trial_records import Ranked, best, rank, read_trials


def trial(number: int, score: float, size: int | None = 100, status: str = "completed") -> Any:
    return SimpleNamespace(number=number, score=score, trainable_params=size, status=status)


def numbers(trials: list[Ranked]) -> list[int]:
    return [one.number for one in trials]


def test_trials_are_ranked_by_score_then_size_then_number_without_failed_ones_and_those_without_a_score() -> None:
    trials = [
        trial(0, 0.9, size=None),
        trial(1, math.nan),
        trial(2, 1.0, status="failed"),
        trial(3, 0.9, size=50),
        trial(4, 0.95, size=900, status="running"),
        trial(5, 0.9, size=50, status="pruned"),
        trial(6, math.nan, size=1, status="failed"),
    ]
    assert numbers(rank(trials, "max")) == [4, 3, 5, 0]
    assert numbers(rank(reversed(trials), "min")) == [3, 5, 0, 4]
    assert best(trials, "max") is trials[4]
    assert best([trials[1], trials[2], trials[6]], "max") is None


SIZES = (900, 800, 40, 700, 600, 500, 400, 10, 300, 200)
"""Trainable parameters of ten trials that all score 1.0: of the first four trial 2 is the smallest, of all trial 7."""


def tied(root: Path, count: int) -> TrialHistory:
    """A run whose first ``count`` trials, as far as they have not ended earlier, end with the score 1.0."""
    if not root.exists():
        write(root, trials=0)
    history = TrialHistory(RunPaths(root), "val_f1_macro", "max")
    history.load()
    for number in range(history.next_number, count):
        entry = history.begin(number, TrialParams(backbone=BACKBONE_NAMES[number], lr=0.001 * (number + 1)))
        history.files(entry).weights.parent.mkdir(parents=True)
        history.files(entry).weights.touch()
        line = {"epoch": 1, "val_f1_macro": 1.0, "trainable_params": SIZES[number]}
        history.report(number, json.dumps(line))
        history.end(number, "completed", "")
    return history


@pytest.mark.parametrize(("count", "wanted"), [(4, 2), (10, 7)])
def test_of_equal_trials_all_that_ask_for_the_best_get_the_same(tmp_path: Path, count: int, wanted: int) -> None:
    """Terminal, finalists, the model file, the frozen features and the report: fewer parameters win a tie."""
    tied(tmp_path / "run", 4)
    history = tied(tmp_path / "run", count)
    run = read_run(tmp_path / "run")
    terminal = history.best()
    assert terminal is not None
    config = SimpleNamespace(finalists=1, compare=())
    (finalist,), _ = choose(SimpleNamespace(config=config, epochs_of={}), history)  # type: ignore[arg-type]
    leader = run.best
    assert leader is not None
    assert [terminal.number, finalist.number, leader.number] == [wanted] * 3
    assert choose_model(run).trial == f"t{wanted:04d}"
    assert _backbones(run) == [BACKBONE_NAMES[wanted]]
    assert history.files(terminal).weights.exists()


def test_of_equal_trials_the_smallest_keep_their_weights(tmp_path: Path) -> None:
    history = tied(tmp_path / "run", 10)
    for number, size in ((10, 5000), (11, 1)):
        entry = history.begin(number, TrialParams(backbone="resnet18"))
        history.files(entry).weights.parent.mkdir(parents=True)
        history.files(entry).weights.touch()
        history.report(number, json.dumps({"epoch": 1, "val_f1_macro": 1.0, "trainable_params": size}))
        history.end(number, "completed", "")
    kept = [number for number, entry in history.entries.items() if history.files(entry).weights.exists()]
    assert len(kept) == WEIGHTS_KEPT
    assert set(range(12)) - set(kept) == {0, 10}


def test_the_names_of_scores_are_kept_once_for_all_epochs(tmp_path: Path) -> None:
    paths = RunPaths(write(tmp_path / "run", trials=3))
    records = read_trials(paths.trial_folders(), paths.trials, "val_f1_macro", "max", [])
    names = [name for record in records for epoch in record.epochs for name in epoch.metrics]
    assert len({*map(id, names)}) == len({*names}) < len(names)


def test_the_files_of_many_trials_are_asked_for_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "run", trials=40)
    (root / "trials" / "t00007" / "result.jsonl").write_text("torn\n{}\n")
    (root / "trials" / "t00030" / "params.json").unlink()
    (root / "trials" / "notes.txt").touch()
    paths, one_by_one = RunPaths(root), list[str]()
    alone = [
        record
        for folder in sorted(paths.trials.iterdir())
        if folder.is_dir()
        for record in read_trials([folder], paths.trials, "val_f1_macro", "max", one_by_one)
    ]
    asking, four_ask, read_json = set[int](), Event(), trial_records.read_json

    def answered(*arguments: Any) -> dict[str, Any]:
        asking.add(get_ident())
        if len(asking) == 4:
            four_ask.set()
        assert four_ask.wait(timeout=30)
        return read_json(*arguments)

    monkeypatch.setattr(trial_records, "read_json", answered)
    problems: list[str] = []
    together = read_trials(paths.trial_folders(), paths.trials, "val_f1_macro", "max", problems)
    assert [*map(repr, together)] == [*map(repr, alone)]
    assert len(together) == 39
    assert problems == one_by_one != []


@pytest.mark.parametrize("version", [None, 0, 2, "1", [1]])
def test_a_run_of_another_format_is_refused_by_its_version(tmp_path: Path, version: object) -> None:
    root = write(tmp_path / "run", trials=1)
    saved = json.loads((root / "sweep.json").read_text())
    write_json(root / "sweep.json", saved | {"format": version})
    told = r"no format|format (0|2|1|\[1\]), and this version reads only format 1"
    with pytest.raises(UserError, match=told) as refused:
        read_run(root)
    assert str(root / "sweep.json") in str(refused.value)
    write_json(root / "sweep.json", {key: saved[key] for key in saved if key != "format"})
    with pytest.raises(UserError, match="no format"):
        read_run(root)


def test_what_stands_in_a_run_is_typed(tmp_path: Path) -> None:
    root = write(tmp_path / "run", trials=2, finals={"finalists": (0,), "repeats": 2})
    change_sweep(RunPaths(root), set={"lr": 0.1}, patience=None)
    run = read_run(root)
    assert run.problems == []
    assert (run.sweep.sampler, run.sweep.patience, run.sweep.mode) == ("tpe", None, "max")
    assert run.sweep.settings["set"] == {"lr": 0.1}
    assert run.sweep.settings["grace_period"] == run.sweep.grace_period == 3
    assert run.dataset.source.path == "/home/someone/xrays/manifest.csv"
    assert run.dataset.groups.counts["val"] == 110
    assert run.dataset.checks[0].items == (("train/covid/a.png", "train/covid/b.png"),)
    assert run.provenance.weights["resnet18"].origin == "folder"
    assert run.finals is not None
    (finalist,) = run.finals.finalists
    assert [repeat.seed for repeat in finalist.completed] == [1001, 1002]
    first = finalist.completed[0]
    assert first.best is not None
    assert first.score == first.best.score("val_f1_macro") == max(one.score("val_f1_macro") for one in first.epochs)
    saved = read_predictions(run, first.trial_id)
    assert saved is not None
    assert set(saved.split) == {"train", "val", "test"}
    assert (run.model, run.baselines) == (None, None)


def test_baselines_are_of_two_kinds_and_their_test_scores_wait_for_the_opening(tmp_path: Path) -> None:
    rows = [
        {
            "name": "majority",
            "label": "Majority class",
            "val": {"accuracy": 0.4, "auroc": None},
            "test": {"accuracy": 1},
        },
        {"name": "frozen_resnet18", "failed": "out of memory"},
        {"name": "../../x"},
    ]
    for opened, test in ((0, None), (1, {"accuracy": 1.0})):
        root = write(tmp_path / str(opened), trials=2, finals={"finalists": (0,), "opened": opened})
        RunPaths(root).baselines.mkdir()
        write_json(RunPaths(root).baselines_table, {"baselines": rows})
        run = read_run(root)
        assert run.baselines is not None
        assert [(one.name, one.kind) for one in run.baselines] == [
            ("majority", "shortcut"),
            ("frozen_resnet18", "frozen"),
        ]
        first, second = run.baselines
        assert first.test == test
        assert first.val is not None
        assert math.isnan(first.val["auroc"])
        assert (second.val, second.failed) == (None, "out of memory")
        assert read_predictions(run, first) is None
        assert run.problems == ["baselines/baselines.json does not name each baseline: 1 of 3 left out"]


def test_an_evaluation_is_whole_or_refused(tmp_path: Path) -> None:
    paths = EvaluationPaths(tmp_path)
    with pytest.raises(UserError, match=r"it has no evaluation.json"):
        read_evaluation(tmp_path)
    facts = {"format": 1, "name": "b", "scores": {"accuracy": 0.5, "auroc_macro": None}, "groups": {"count": 2}}
    write_json(paths.evaluation, facts)
    np.savez(
        paths.predictions,
        path=np.array(["a.png"]),
        split=np.array(["external"]),
        label=np.array([1]),
        probability=np.array([[0.25, 0.75]], dtype=np.float32),
        classes=np.array(["x", "y"]),
        epoch=np.array(3),
    )
    paths.rows.write_text("row,path,split,label,group\n0,a.png,external,y,p1\n")
    found = read_evaluation(tmp_path)
    assert (found.facts.name, found.facts.groups.count, math.isnan(found.facts.scores["auroc_macro"])) == ("b", 2, True)
    for change, problem in (
        ({"scores": 3}, "scores is not an object"),
        ({"format": 2}, "evaluation.json has format 2, and this version reads only format 1"),
    ):
        write_json(paths.evaluation, facts | change)
        with pytest.raises(UserError, match=problem):
            read_evaluation(tmp_path)


COMMANDS = {
    "sweep.run": ["--resume", "RUN"],
    "sweep.model": ["RUN"],
    "sweep.predict": ["RUN", "IMAGE"],
    "sweep.evaluate": ["RUN", "--data", "IMAGE"],
}
VERSIONED = [(command, "sweep.json") for command in COMMANDS]
VERSIONED += [(command, "models/best.json") for command in COMMANDS if command != "sweep.run"]
VERSIONED += [(command, "models/best.pt") for command in ("sweep.predict", "sweep.evaluate")]


@pytest.mark.parametrize(("command", "file"), VERSIONED)
def test_every_command_refuses_another_format_before_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, file: str
) -> None:
    root = write(tmp_path / "run", trials=1)
    image = root / "a.png"
    image.touch()
    (root / "models").mkdir()
    write_json(root / "models" / "best.json", {"format": 1})
    torch.save({"format": 2 if file.endswith(".pt") else 1}, root / "models" / "best.pt")
    if file.endswith(".json"):
        write_json(root / file, json.loads((root / file).read_text()) | {"format": 2})
    before = sorted(root.rglob("*"))
    words = {"RUN": str(root), "IMAGE": str(image)}
    code = importlib.import_module(command).main([words.get(word, word) for word in COMMANDS[command]])
    assert code == 2
    assert f"{root / file} has format 2, and this version reads only format 1" in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before
