"""What is written down is on disk at once, can be read back after any kill, and never grows without bound."""

from __future__ import annotations

import json
import math
from pathlib import Path

import optuna
import pytest
from toy_sweep import ToySweep

from search_spaces.params import TrialParams
from search_spaces.registry import Space
from sweep.ledger import WEIGHTS_KEPT, Ledger
from sweep.mirror import STUDY_NAME, StudyMirror
from sweep.paths import RunPaths
from sweep.records import read_run


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(RunPaths(tmp_path), "val_f1_macro", "max")


def report(ledger: Ledger, number: int, epoch: int, score: float, **more: float) -> None:
    ledger.report(number, epoch, score, json.dumps({"epoch": epoch, "val_f1_macro": score, **more}))


def test_a_trial_is_read_back_as_it_was_written(ledger: Ledger) -> None:
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.10",), head_widths=(380,))
    ledger.begin(0, params, {"suggested": {"lr.sgd": 0.1}})
    report(ledger, 0, 1, 0.5)
    report(ledger, 0, 2, 0.7)
    ledger.end(0, "stopped", "asha: too low")
    again = Ledger(ledger.paths, "val_f1_macro", "max")
    assert again.load() == []
    assert again.entries == ledger.entries


def test_an_epoch_that_stands_twice_counts_once_and_the_later_line_wins(ledger: Ledger) -> None:
    ledger.begin(0, TrialParams(backbone="resnet18"), {})
    report(ledger, 0, 1, 0.5)
    report(ledger, 0, 1, 0.5)
    assert len(ledger.files(ledger.entries[0]).result.read_text().splitlines()) == 1, "Ray tells each result twice"
    report(ledger, 0, 1, 0.5, epoch_seconds=2.0)
    report(ledger, 0, 1, 0.6)
    again = Ledger(ledger.paths, "val_f1_macro", "max")
    again.load()
    assert again.entries[0].scores == {1: 0.6}


def test_a_torn_last_line_is_dropped_and_the_next_record_starts_a_line(ledger: Ledger) -> None:
    ledger.begin(0, TrialParams(backbone="resnet18"), {})
    report(ledger, 0, 1, 0.5)
    result = ledger.files(ledger.entries[0]).result
    result.write_text(result.read_text() + '{"epoch": 2, "val_f1')
    again = Ledger(ledger.paths, "val_f1_macro", "max")
    assert again.load() == []
    assert again.entries[0].scores == {1: 0.5}
    report(again, 0, 2, 0.8)
    third = Ledger(ledger.paths, "val_f1_macro", "max")
    assert "line 2 is damaged" in third.load()[0]
    assert third.entries[0].scores == {1: 0.5, 2: 0.8}


def test_only_the_ten_best_trials_keep_their_weights_also_after_a_resume(ledger: Ledger) -> None:
    chance = [0.1 * (k * 7 % 15) for k in range(15)]
    for number, score in enumerate(chance):
        ledger = Ledger(ledger.paths, "val_f1_macro", "max")
        ledger.load()
        ledger.begin(number, TrialParams(backbone="resnet18"), {})
        weights = ledger.files(ledger.entries[number]).weights
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"w")
        report(ledger, number, 1, score)
        ledger.end(number, "finished", "")
    kept = {entry.number for entry in ledger.entries.values() if ledger.files(entry).weights.exists()}
    assert kept == set(sorted(range(15), key=lambda k: -chance[k])[:WEIGHTS_KEPT])


def test_a_trial_ends_once_and_leaves_no_state_behind(ledger: Ledger) -> None:
    entry = ledger.begin(0, TrialParams(backbone="resnet18"), {})
    files = ledger.files(entry)
    files.state.write_bytes(b"s")
    files.stacks.write_text("")
    ledger.end(0, "failed", "RuntimeError: boom")
    ledger.end(0, "finished", "")
    assert entry.status == "failed"
    assert {path.name for path in files.root.iterdir()} == {"params.json", "end.json", "error.txt"}
    assert files.error.read_text() == "RuntimeError: boom\n"


def test_the_tables_hold_each_trials_best_epoch(ledger: Ledger) -> None:
    ledger.paths.sweep.write_text('{"metric": "val_f1_macro", "mode": "max"}')
    ledger.begin(0, TrialParams(backbone="resnet18"), {})
    for epoch, score in enumerate((0.4, 0.9, 0.6), start=1):
        report(ledger, 0, epoch, score, train_loss=1 / epoch, epoch_seconds=2.0, images_per_second=10.0 * epoch)
    ledger.end(0, "finished", "")
    ledger.begin(1, TrialParams(backbone="vgg16"), {})
    run = read_run(ledger.paths.root)
    first, second = run.trials.to_dict("records")
    assert first["best_epoch"] == 2
    assert first["score"] == first["val_f1_macro"] == 0.9
    assert first["train_loss"] == 0.5
    assert (first["epochs_run"], first["seconds"], first["images_per_second"]) == (3, 6.0, 20.0)
    assert second["status"] == "running"
    assert math.isnan(second["score"])
    assert second["param_backbone"] == "vgg16"
    assert list(run.epochs["epoch"]) == [1, 2, 3]


def test_of_equal_trials_the_first_keep_their_weights_and_the_best_is_among_them(ledger: Ledger) -> None:
    """On an easy data set many trials have the score 1."""
    for number in range(WEIGHTS_KEPT + 3):
        ledger.begin(number, TrialParams(backbone="resnet18"), {})
        weights = ledger.files(ledger.entries[number]).weights
        weights.parent.mkdir(parents=True)
        weights.touch()
        report(ledger, number, 1, 1.0)
        ledger.end(number, "finished", "")
    kept = [number for number, entry in ledger.entries.items() if ledger.files(entry).weights.exists()]
    assert kept == list(range(WEIGHTS_KEPT))
    best = ledger.best()
    assert best is not None
    assert best.number == 0


def test_what_a_kill_left_undone_at_the_end_of_a_trial_is_done_on_resume(ledger: Ledger) -> None:
    for number, status in enumerate(("finished", "failed")):
        entry = ledger.begin(number, TrialParams(backbone="resnet18"), {})
        report(ledger, number, 1, 0.5)
        ledger.end(number, status, "why")
        ledger.files(entry).state.touch()
        ledger.files(entry).error.unlink(missing_ok=True)
    again = Ledger(ledger.paths, "val_f1_macro", "max")
    assert again.load() == []
    finished, failed = (again.files(again.entries[number]) for number in (0, 1))
    assert not finished.state.exists()
    assert not failed.state.exists()
    assert failed.error.read_text() == "why\n"
    assert not finished.error.exists()


def test_a_trial_takes_nothing_over_from_one_whose_parameters_were_lost(ledger: Ledger) -> None:
    entry = ledger.begin(0, TrialParams(backbone="vgg16"), {})
    report(ledger, 0, 1, 0.9)
    ledger.files(entry).state.touch()
    ledger.files(entry).params.write_text("{")
    again = Ledger(ledger.paths, "val_f1_macro", "max")
    assert "params.json cannot be read" in again.load()[0]
    again.begin(again.next_number, TrialParams(backbone="resnet18"), {})
    third = Ledger(ledger.paths, "val_f1_macro", "max")
    assert third.load() == []
    assert third.entries[0].scores == {}
    assert not third.files(third.entries[0]).state.exists()


def test_study_db_shows_every_ended_trial_and_is_rebuilt_after_a_kill(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=8)
    sweep.ledger.on_end.append(StudyMirror(sweep.ledger).add)
    sweep.run(epochs=20)
    resumed = ToySweep(tmp_path, wide_space, trials=8)
    resumed.ledger.on_end.append(StudyMirror(resumed.ledger).add)
    resumed.run()
    study = optuna.load_study(study_name=STUDY_NAME, storage=f"sqlite:///{tmp_path / 'study.db'}")
    shown = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    assert len(study.trials) == len(shown) == 8
    for entry in resumed.ledger.entries.values():
        assert shown[entry.trial_id].params == entry.asked["suggested"]
        assert shown[entry.trial_id].intermediate_values == entry.scores


def test_a_study_db_that_cannot_be_written_does_not_end_the_sweep(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=2)
    sweep.ledger.paths.study.mkdir()
    (sweep.ledger.paths.study / "in the way").touch()
    sweep.ledger.on_end.append(StudyMirror(sweep.ledger).add)
    assert len(sweep.run().ledger.entries) == 2
