"""What is written down is on disk at once, can be read back after any kill, and never grows without bound."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest
from toy_sweep import ToySweep

from search_spaces.params import TrialParams
from search_spaces.space import Space
from sweep.history import WEIGHTS_KEPT, TrialHistory
from sweep.optuna_search import STUDY_NAME, OptunaExport
from sweep.records import read_run
from sweep.run_folder import RunPaths
from sweep.trial_records import Suggestion


@pytest.fixture
def history(tmp_path: Path) -> TrialHistory:
    return TrialHistory(RunPaths(tmp_path), "val_f1_macro", "max")


def report(history: TrialHistory, number: int, epoch: int, score: float, **more: float) -> None:
    history.report(number, epoch, score, json.dumps({"epoch": epoch, "val_f1_macro": score, **more}))


def test_a_trial_is_read_back_as_it_was_written(history: TrialHistory) -> None:
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.10",), head_widths=(380,))
    history.begin(0, params, Suggestion(suggested={"lr.sgd": 0.1}))
    report(history, 0, 1, 0.5)
    report(history, 0, 2, 0.7)
    history.end(0, "pruned", "asha: too low")
    again = TrialHistory(history.paths, "val_f1_macro", "max")
    assert again.load() == []
    assert again.entries == history.entries


def test_an_epoch_that_stands_twice_counts_once_and_the_later_line_wins(history: TrialHistory) -> None:
    history.begin(0, TrialParams(backbone="resnet18"))
    report(history, 0, 1, 0.5)
    report(history, 0, 1, 0.5)
    assert len(history.files(history.entries[0]).result.read_text().splitlines()) == 1, "Ray tells each result twice"
    report(history, 0, 1, 0.5, epoch_seconds=2.0)
    report(history, 0, 1, 0.6)
    again = TrialHistory(history.paths, "val_f1_macro", "max")
    again.load()
    assert again.entries[0].scores == {1: 0.6}


def test_a_torn_last_line_is_dropped_and_the_next_record_starts_a_line(history: TrialHistory) -> None:
    history.begin(0, TrialParams(backbone="resnet18"))
    report(history, 0, 1, 0.5)
    result = history.files(history.entries[0]).result
    result.write_text(result.read_text() + '{"epoch": 2, "val_f1')
    again = TrialHistory(history.paths, "val_f1_macro", "max")
    assert again.load() == []
    assert again.entries[0].scores == {1: 0.5}
    report(again, 0, 2, 0.8)
    third = TrialHistory(history.paths, "val_f1_macro", "max")
    assert "line 2 is damaged" in third.load()[0]
    assert third.entries[0].scores == {1: 0.5, 2: 0.8}


def test_only_the_ten_best_trials_keep_their_weights_also_after_a_resume(history: TrialHistory) -> None:
    chance = [0.1 * (k * 7 % 15) for k in range(15)]
    for number, score in enumerate(chance):
        history = TrialHistory(history.paths, "val_f1_macro", "max")
        history.load()
        history.begin(number, TrialParams(backbone="resnet18"))
        weights = history.files(history.entries[number]).weights
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"w")
        report(history, number, 1, score)
        history.end(number, "completed", "")
    kept = {entry.number for entry in history.entries.values() if history.files(entry).weights.exists()}
    assert kept == set(sorted(range(15), key=lambda k: -chance[k])[:WEIGHTS_KEPT])


def test_a_trial_ends_once_and_leaves_no_state_behind(history: TrialHistory) -> None:
    entry = history.begin(0, TrialParams(backbone="resnet18"))
    files = history.files(entry)
    files.state.write_bytes(b"s")
    files.stacks.write_text("")
    history.end(0, "failed", "RuntimeError: boom")
    history.end(0, "completed", "")
    assert entry.status == "failed"
    assert {path.name for path in files.root.iterdir()} == {"params.json", "status.json", "error.txt"}
    assert files.error.read_text() == "RuntimeError: boom\n"


def test_the_tables_hold_each_trials_best_epoch(history: TrialHistory) -> None:
    history.paths.sweep.write_text('{"format": 1, "resolved": {"metric": "val_f1_macro"}, "mode": "max"}')
    history.begin(0, TrialParams(backbone="resnet18"))
    for epoch, score in enumerate((0.4, 0.9, 0.6), start=1):
        report(history, 0, epoch, score, train_loss=1 / epoch, epoch_seconds=2.0, images_per_second=10.0 * epoch)
    history.end(0, "completed", "")
    history.begin(1, TrialParams(backbone="vgg16"))
    run = read_run(history.paths.root)
    first, second = run.trials.to_dict("records")
    assert first["best_epoch"] == 2
    assert first["score"] == first["val_f1_macro"] == 0.9
    assert first["train_loss"] == 0.5
    assert (first["epochs_run"], first["seconds"], first["images_per_second"]) == (3, 6.0, 20.0)
    assert second["status"] == "running"
    assert math.isnan(second["score"])
    assert second["param_backbone"] == "vgg16"
    assert list(run.epochs["epoch"]) == [1, 2, 3]


def test_of_equal_trials_the_first_keep_their_weights_and_the_best_is_among_them(history: TrialHistory) -> None:
    """On an easy data set many trials have the score 1."""
    for number in range(WEIGHTS_KEPT + 3):
        history.begin(number, TrialParams(backbone="resnet18"))
        weights = history.files(history.entries[number]).weights
        weights.parent.mkdir(parents=True)
        weights.touch()
        report(history, number, 1, 1.0)
        history.end(number, "completed", "")
    kept = [number for number, entry in history.entries.items() if history.files(entry).weights.exists()]
    assert kept == list(range(WEIGHTS_KEPT))
    best = history.best()
    assert best is not None
    assert best.number == 0


def test_what_a_kill_left_undone_at_the_end_of_a_trial_is_done_on_resume(history: TrialHistory) -> None:
    for number, status in enumerate(("completed", "failed")):
        entry = history.begin(number, TrialParams(backbone="resnet18"))
        report(history, number, 1, 0.5)
        history.end(number, status, "why")
        history.files(entry).state.touch()
        history.files(entry).error.unlink(missing_ok=True)
    again = TrialHistory(history.paths, "val_f1_macro", "max")
    assert again.load() == []
    finished, failed = (again.files(again.entries[number]) for number in (0, 1))
    assert not finished.state.exists()
    assert not failed.state.exists()
    assert failed.error.read_text() == "why\n"
    assert not finished.error.exists()


def test_a_trial_takes_nothing_over_from_one_whose_parameters_were_lost(history: TrialHistory) -> None:
    entry = history.begin(0, TrialParams(backbone="vgg16"))
    report(history, 0, 1, 0.9)
    history.files(entry).state.touch()
    history.files(entry).params.write_text("{")
    again = TrialHistory(history.paths, "val_f1_macro", "max")
    assert "params.json cannot be read" in again.load()[0]
    again.begin(again.next_number, TrialParams(backbone="resnet18"))
    third = TrialHistory(history.paths, "val_f1_macro", "max")
    assert third.load() == []
    assert third.entries[0].scores == {}
    assert not third.files(third.entries[0]).state.exists()


def test_study_db_shows_every_ended_trial_and_is_rebuilt_after_a_kill(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=8)
    export = OptunaExport(sweep.history)
    sweep.history.on_end.append(export.add)
    sweep.run(epochs=20)
    export.close()
    resumed = ToySweep(tmp_path, wide_space, trials=8)
    export = OptunaExport(resumed.history)
    resumed.history.on_end.append(export.add)
    resumed.run()
    export.close()
    study = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{tmp_path / 'study.db'}")
    shown = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    assert len(study.trials) == len(shown) == 8
    for entry in resumed.history.entries.values():
        assert shown[entry.trial_id].params == entry.suggestion.suggested
        assert shown[entry.trial_id].intermediate_values == entry.scores


def test_a_study_db_that_cannot_be_written_does_not_end_the_sweep(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=2)
    sweep.history.paths.study.mkdir()
    (sweep.history.paths.study / "in the way").touch()
    export = OptunaExport(sweep.history)
    sweep.history.on_end.append(export.add)
    assert len(sweep.run().history.entries) == 2
    export.close()
