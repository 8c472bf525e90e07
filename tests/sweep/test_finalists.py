"""Which configurations are repeated, and that the test split is opened once for each decision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from run_files import change_sweep, write
from trained_run import repeated, trained_run
from trial_settings import trial_settings

from search_spaces.params import TrialParams
from sweep import finalists, records
from sweep.config import SweepConfig
from sweep.finalists import RepeatList, choose, expected_seconds, open_test, repeats_of, select
from sweep.history import RepeatHistory, TrialHistory
from sweep.optuna_search import Exhausted
from sweep.records import Run, read_maps, read_run
from sweep.run_folder import RunPaths
from trainables.atomic import write_json
from trainables.data.config import DataConfig
from trainables.data.dataset import open_test_split
from trainables.metrics import OperatingPoint
from trainables.predictions import Predictions, join, read_predictions
from trainables.weights import FoundWeights, find_weights


def search(root: Path, trials: list[tuple[dict[str, Any], list[float], str]], mode: str = "max") -> TrialHistory:
    """A history of trials: changed parameters, the score of each epoch, how it ended."""
    history = TrialHistory(RunPaths(root), "val_f1_macro", mode)
    for number, (changes, scores, status) in enumerate(trials):
        history.begin(number, TrialParams(**{"backbone": "resnet18", "lr": 0.001 * (number + 1)} | changes))
        for epoch, score in enumerate(scores, start=1):
            record = {"epoch": epoch, "epoch_seconds": 2.0, "val_f1_macro": score}
            history.report(number, json.dumps(record))
        if status != "running":
            history.end(number, status, "")
    return history


def plan(**changes: Any) -> Any:
    config = SweepConfig(**{"finalists": 2, "repeats": 3, "epochs": 5, "concurrency": 2} | changes)
    return SimpleNamespace(config=config, epochs_of={}, at_once=2)


def test_the_best_by_their_best_epoch_are_chosen_each_configuration_once(tmp_path: Path) -> None:
    twice = {"lr": 0.5}
    history = search(
        tmp_path,
        [
            ({}, [0.7, 0.9, 0.6], "completed"),
            (twice, [0.95], "pruned"),
            (twice, [0.94], "completed"),
            ({}, [0.99], "failed"),
            ({}, [0.8], "running"),
        ],
    )
    chosen, notes = choose(plan(), history)
    assert [(one.trial_id, one.role, one.rank, one.search_score) for one in chosen] == [
        ("t0001", "finalist", 1, 0.95),
        ("t0000", "finalist", 2, 0.9),
    ]
    assert notes == []
    assert [one.number for one in choose(plan(finalists=9), history)[0]] == [1, 0, 4]


def test_rows_of_a_study_that_differ_in_epochs_alone_are_finalists_each(tmp_path: Path) -> None:
    same = {"lr": 0.5}
    history = search(tmp_path, [(same, [0.9], "completed"), (same, [0.8], "completed"), (same, [0.7], "completed")])
    rows = plan(finalists=3)
    rows.epochs_of = {0: 5, 1: 10, 2: 5}
    assert [one.number for one in choose(rows, history)[0]] == [0, 1]


def test_a_lower_metric_may_be_the_better_one(tmp_path: Path) -> None:
    history = search(
        tmp_path, [({}, [0.7, 0.3], "completed"), ({}, [0.2], "completed"), ({}, [0.9], "completed")], "min"
    )
    assert [one.number for one in choose(plan(), history)[0]] == [1, 0]


def test_compare_adds_the_best_of_each_cell_that_was_tried_three_times(tmp_path: Path) -> None:
    backbones = ["resnet18"] * 4 + ["mobilenet_v2"] * 3 + ["vgg16"] * 2
    scores = [0.9, 0.89, 0.88, 0.87, 0.5, 0.6, 0.55, 0.86, 0.1]
    trials = [
        ({"backbone": name}, [score], "pruned" if place % 2 else "completed")
        for place, (name, score) in enumerate(zip(backbones, scores, strict=True))
    ]
    chosen, notes = choose(plan(compare=("backbone",)), search(tmp_path, trials))
    assert [(one.number, one.role) for one in chosen] == [(0, "finalist"), (1, "finalist"), (5, "compare")]
    assert chosen[2].cell == {"backbone": "mobilenet_v2"}
    assert len(notes) == 1
    assert "backbone vgg16" in notes[0]


def test_repeats_are_run_in_turns_and_begun_once(tmp_path: Path) -> None:
    history = search(tmp_path, [({}, [0.9], "completed"), ({}, [0.8], "completed")])
    chosen, _ = choose(plan(), history)
    wanted = [f"{one.trial_id}/{repeat.name}" for one in chosen for repeat in repeats_of(7, 2, None)]
    repeats = RepeatHistory(history.paths, history.metric, "max", wanted)
    todo = RepeatList(repeats, chosen, repeats_of(7, 2, None))
    first = todo.ask()
    assert (first.trial_id, first.suggestion.seed) == ("t0000/seed_1008", 1008)
    assert todo.ask().trial_id == "t0001/seed_1008"
    again = RepeatHistory(history.paths, history.metric, "max", wanted)
    again.load()
    rest = RepeatList(again, chosen, repeats_of(7, 2, None))
    assert [rest.ask().trial_id for _ in range(2)] == ["t0000/seed_1009", "t0001/seed_1009"]
    with pytest.raises(Exhausted):
        rest.ask()
    assert [entry.trial_id for entry in again.unfinished()] == wanted[::2] + wanted[1::2]


def test_an_unfinished_repeat_that_is_no_longer_wanted_is_left_alone(tmp_path: Path) -> None:
    history = search(tmp_path, [({}, [0.9], "completed"), ({}, [0.8], "completed")])
    chosen, _ = choose(plan(), history)
    before = RepeatHistory(history.paths, history.metric, "max", [])
    RepeatList(before, chosen[1:], repeats_of(0, 1, None)).ask()
    after = RepeatHistory(history.paths, history.metric, "max", ["t0000/seed_1001"])
    after.load()
    assert after.unfinished() == []
    begun = RepeatList(after, chosen[:1], repeats_of(0, 1, None)).ask()
    assert begun.number == 1


def test_folds_take_the_place_of_seeds() -> None:
    names = [(one.name, one.fold) for one in repeats_of(0, 1, 3)]
    assert names == [("fold_1_of_3", 1), ("fold_2_of_3", 2), ("fold_3_of_3", 3)]


def test_folds_of_another_number_are_other_repeats_with_splits_of_their_own(tmp_path: Path) -> None:
    names = [one.name for folds in (5, 10) for one in repeats_of(0, 1, folds)]
    assert len({RunPaths(tmp_path).fold(name) for name in names}) == 15
    assert len({one.seed for one in repeats_of(0, 1, 3)}) == 3


def test_a_damaged_list_of_finalists_is_written_again(tmp_path: Path) -> None:
    chosen, whole = RunPaths(tmp_path).chosen, {"repeats": ["fold_1_of_2"], "folds": 2, "finalists": []}
    finalists.write_if_new(chosen, whole, time="chosen")
    for damaged in ('{"cho', "[]"):
        chosen.write_text(damaged)
        finalists.write_if_new(chosen, whole, time="chosen")
        assert json.loads(chosen.read_text()).items() >= whole.items()


def test_the_test_split_is_opened_once_for_a_decision_and_again_for_another(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.finalists.mkdir()
    with pytest.raises(PermissionError, match="closed"):
        open_test_split(tmp_path)
    paths.selection.write_text('{"winner": "t0000"}')
    open_test(paths, "t0000", ["t0000"], 5)
    open_test(paths, "t0000", ["t0000"], 5)
    assert len(paths.test_access.read_text().splitlines()) == 1
    paths.selection.write_text('{"winner": "t0001"}')
    open_test(paths, "t0001", ["t0000", "t0001"], 5)
    lines = [json.loads(line) for line in paths.test_access.read_text().splitlines()]
    assert [line["winner"] for line in lines] == ["t0000", "t0001"]
    assert lines[1]["images"] == 5


def selected_for(root: Path, **sweep: Any) -> dict[str, Any]:
    paths = RunPaths(root)
    change_sweep(paths, **sweep)
    assert select(read_run(root)) is not None
    found: dict[str, Any] = json.loads(paths.selection.read_text())
    return found


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_operating_point_is_of_the_winners_pooled_repeats_on_validation(tmp_path: Path, task: str) -> None:
    root = write(tmp_path / "run", finals={}, task=task)
    before = selected_for(root)
    assert "operating_point" not in before, "what was selected without a target is the same again"
    assert selected_for(root) == before
    selected = selected_for(root, target_sensitivity={"covid": 0.9})
    run = read_run(root)
    assert run.finals is not None
    point, winner = run.finals.operating_point, run.finals.winning
    assert point is not None
    assert winner is not None
    assert (selected["winner"], selected["operating_point"]) == (before["winner"], dataclasses.asdict(point))
    scores, truth = [], []
    for repeat in winner.completed:
        saved = records.read_predictions(run, repeat.trial_id)
        assert saved is not None
        part = saved.of("val")
        scores.append(part.probability[:, 0])
        truth.append(part.label == 0 if task == "single_label" else part.label[:, 0] == 1)
    pooled, has = np.concatenate(scores), np.concatenate(truth)
    allowed = [value for value in np.unique(pooled) if (pooled[has] >= value).mean() >= 0.9]
    assert (point.threshold, point.positives, point.runs) == (max(allowed), truth[0].sum(), len(winner.completed))
    assert run.finals.thresholds_of(winner.trial_id)["covid"] == point.threshold


def test_another_target_is_another_selection_and_needs_no_training(tmp_path: Path) -> None:
    root = write(tmp_path / "run", finals={})
    first = selected_for(root, target_sensitivity={"covid": 0.9})
    assert selected_for(root, target_sensitivity={"covid": 0.9}) == first
    write_json(RunPaths(root).selection, older := first | {"reason": "It won."})
    assert selected_for(root) == older, "another wording is no other selection"
    second = selected_for(root, target_sensitivity=None, target_specificity={"normal": 0.8})
    assert (second["operating_point"]["kind"], second["operating_point"]["label"]) == ("specificity", "normal")
    assert "operating_point" not in selected_for(root, target_specificity=None)


def test_what_repeats_will_take_follows_from_the_searchs_own_epochs(tmp_path: Path) -> None:
    history = search(tmp_path, [({}, [0.9, 0.8], "completed"), ({}, [0.8], "pruned")])
    # Two finalists, three repeats of five epochs of 2 s, two at once; and what comes with a training.
    assert expected_seconds(plan(), history) == pytest.approx(2 * 3 * 5 * 2.0 / 2 * 1.15)
    assert expected_seconds(plan(finalists=0), history) == 0
    four = plan()
    four.at_once = 4
    assert expected_seconds(four, history) == pytest.approx(2 * 5 * 2.0 * 1.15)  # six in four places: two rounds


def called(plan: Any, paths: RunPaths, function: Any, arguments: list[Any]) -> list[None]:
    """``run_tasks`` in this process."""
    return [function(*one) for one in arguments]


def test_maps_are_made_of_validation_and_once_test_is_open_of_test_each_once(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=128))
    run = read_run(root)
    settings: Any = SimpleNamespace(run_dir=str(root), use_gpu=False, cpus=1, deterministic=False)
    own: Any = SimpleNamespace(weights=find_weights("random", ["squeezenet1_1"])[0])
    calls: list[Any] = []
    monkeypatch.setattr(finalists, "run_tasks", lambda *these: calls.extend(these[3]) or called(*these))

    def made(run: Run) -> list[str]:
        return finalists.make(own, run, finalists.maps(own, run, settings))

    for _ in range(2):
        assert made(run) == []
    maps = read_maps(run, "t0000")
    assert maps is not None
    assert (maps.split, len(set(maps.path.tolist())), len(calls)) == ("val", 24, 1)

    run.paths.trial("t0000").maps.write_bytes(b"PK no zip")
    assert made(run) == []
    assert len(calls) == 2
    assert "trials/t0000/best/maps.npz cannot be read" in run.problems[0]

    repeated(root)
    open_test(run.paths, "t0000", ["t0000"], 12)
    test, file = open_test_split(root), run.paths.trial("t0000/seed_1001").predictions
    known, answers = read_predictions(file), np.full((12, 3), [0.2, 0.7, 0.1], np.float32)
    part = Predictions.of_split("test", test.paths, test.labels, answers, known.classes, known.epoch)
    join([known, part]).write(file)
    for _ in range(2):
        assert made(read_run(root)) == []
    maps = read_maps(run, "t0000/seed_1001")
    assert maps is not None
    assert (maps.split, len(calls)) == ("test", 3)
    assert list(dict.fromkeys(maps.path.tolist())) == test.paths
    assert len(run.paths.test_access.read_text().splitlines()) == 1

    selection = json.loads(run.paths.selection.read_text())
    point = OperatingPoint(known.classes[0], "sensitivity", 0.9, 0.1, 8, 24, 1)
    write_json(run.paths.selection, selection | {"operating_point": dataclasses.asdict(point)})
    open_test(run.paths, "t0000", ["t0000"], 12)
    for _ in range(2):
        assert made(read_run(root)) == []
    maps = read_maps(run, "t0000/seed_1001")
    assert maps is not None
    assert set(maps.path[maps.label == 0].tolist()) == {*test.paths}, "all are decided to be of this class now"
    assert len(calls) == 4


def test_why_there_are_no_maps_is_told(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=32)))
    monkeypatch.setattr(finalists, "run_tasks", lambda *_: ["out of memory"])
    own: Any = SimpleNamespace(weights={})
    (problem,) = finalists.make(own, run, finalists.maps(own, run, SimpleNamespace()))  # type: ignore[arg-type]
    assert problem == "no attribution maps of t0000: out of memory"


def test_baselines_are_measured_in_parts_of_which_one_may_fail(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=32))
    settings = trial_settings(str(root))
    own: Any = SimpleNamespace(weights=find_weights("random", ["squeezenet1_1"])[0])

    def killed(*these: Any) -> list[str | None]:
        return [*called(*these[:3], these[3][:1]), "its process was killed"]

    for tasks, problems in ((killed, ["no baselines (squeezenet1_1): its process was killed"]), (called, [])):
        monkeypatch.setattr(finalists, "run_tasks", tasks)
        run = read_run(root)
        assert finalists.make(own, run, finalists.baselines(own, run, settings)) == problems
        names = [one.name for one in read_run(root).baselines or ()]
        assert names == [
            "majority",
            "thumbnails",
            "borders",
            "file_properties",
            *([] if problems else ["frozen_squeezenet1_1"]),
        ]
        assert not [*run.paths.baselines.glob("part_*")]
    assert finalists.baselines(own, read_run(root), settings) == []


@pytest.mark.parametrize(
    ("failed", "parts"), [(None, 0), ("UserError: images of 32 px are too small", 0), ("out of memory", 2)]
)
def test_a_baseline_for_which_memory_did_not_suffice_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, failed: str | None, parts: int
) -> None:
    monkeypatch.setattr(finalists, "_backbones", lambda _: ["resnet18"])
    known = [SimpleNamespace(name=name, failed=None, test=None) for name in ("majority", "frozen_resnet18")]
    known[1].failed = failed
    run: Any = SimpleNamespace(finals=None, baselines=known, paths=RunPaths(Path("run")))
    own: Any = SimpleNamespace(weights={"resnet18": FoundWeights(backbone="resnet18", origin="random")})
    settings: Any = None
    assert len(finalists.baselines(own, run, settings)) == parts
