"""What is written down is on disk at once, can be read back after any kill, and never grows without bound."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tracemalloc
from pathlib import Path

import optuna
import pytest
from full_disk import no_file_beyond
from toy_sweep import CONTEXT, ToySweep, history_of

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from search_spaces.space import Space, load_space
from sweep.history import (
    FAILED_KEPT,
    WEIGHTS_KEPT,
    RepeatHistory,
    TrialHistory,
    TrialState,
    drop_failed_states,
    retry_failed,
)
from sweep.optuna_search import STUDY_NAME, OptunaExport
from sweep.records import read_run
from sweep.run_folder import RunPaths
from sweep.trial_records import Suggestion


@pytest.fixture
def history(tmp_path: Path) -> TrialHistory:
    return TrialHistory(RunPaths(tmp_path), "val_f1_macro", "max")


def report(history: TrialHistory, number: int, epoch: int, score: float, **more: float) -> None:
    history.report(number, json.dumps({"epoch": epoch, "val_f1_macro": score, **more}))


def test_a_trial_is_read_back_as_it_was_written(history: TrialHistory) -> None:
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.10",), head_widths=(380,))
    history.begin(0, params, Suggestion(suggested={"lr.sgd": 0.1}))
    report(history, 0, 1, 0.5)
    report(history, 0, 2, 0.7)
    history.end(0, "pruned", "asha: too low")
    again = history_of(history.paths.root)
    assert again.entries == history.entries


def test_an_epoch_that_stands_twice_counts_once_and_the_later_line_wins(history: TrialHistory) -> None:
    history.begin(0, TrialParams(backbone="resnet18"))
    report(history, 0, 1, 0.5)
    report(history, 0, 1, 0.5)
    assert len(history.files(history.entries[0]).result.read_text().splitlines()) == 1, "what is told again stands once"
    again = history_of(history.paths.root)
    report(again, 0, 1, 0.5)
    assert len(history.files(history.entries[0]).result.read_text().splitlines()) == 1, "and a resumed trial its last"
    report(history, 0, 1, 0.5, epoch_seconds=2.0)
    report(history, 0, 1, 0.6)
    again = history_of(history.paths.root)
    assert again.entries[0].scores == {1: 0.6}


def test_a_trial_that_is_trained_again_leaves_nothing_of_what_came_after(history: TrialHistory) -> None:
    history.begin(0, TrialParams(backbone="resnet18"))
    for epoch, score in ((1, 0.5), (2, 0.9), (3, 0.7), (1, 0.6), (2, 0.8)):
        report(history, 0, epoch, score)
    again = history_of(history.paths.root)
    for found in (history.entries[0], again.entries[0]):
        assert (found.scores, list(found.seconds), found.score) == ({1: 0.6, 2: 0.8}, [1, 2], 0.8)


def test_a_torn_last_line_is_dropped_and_the_next_record_starts_a_line(history: TrialHistory) -> None:
    history.begin(0, TrialParams(backbone="resnet18"))
    report(history, 0, 1, 0.5)
    result = history.files(history.entries[0]).result
    result.write_text(result.read_text() + '{"epoch": 2, "val_f1')
    again = history_of(history.paths.root)
    assert again.entries[0].scores == {1: 0.5}
    report(again, 0, 2, 0.8)
    third = TrialHistory(history.paths, "val_f1_macro", "max")
    assert "line 2 is damaged" in third.load()[0]
    assert third.entries[0].scores == {1: 0.5, 2: 0.8}


def test_a_record_that_a_full_disk_refuses_is_not_there_in_part(history: TrialHistory) -> None:
    history.begin(0, TrialParams(backbone="resnet18"))
    report(history, 0, 1, 0.5)
    result = history.files(history.entries[0]).result
    with no_file_beyond(result.stat().st_size + 5), pytest.raises(OSError, match=str(result)):
        report(history, 0, 2, 0.7)
    again = history_of(history.paths.root)
    report(again, 0, 2, 0.7)
    third = history_of(history.paths.root)
    assert third.entries[0].scores == {1: 0.5, 2: 0.7}


def test_only_the_ten_best_trials_keep_their_weights_also_after_a_resume(history: TrialHistory) -> None:
    chance = [0.1 * (k * 7 % 15) for k in range(15)]
    for number, score in enumerate(chance):
        history = history_of(history.paths.root)
        history.begin(number, TrialParams(backbone="resnet18"))
        weights = history.files(history.entries[number]).weights
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"w")
        report(history, number, 1, score)
        history.end(number, "completed", "")
    kept = {entry.number for entry in history.entries.values() if history.files(entry).weights.exists()}
    assert kept == set(sorted(range(15), key=lambda k: -chance[k])[:WEIGHTS_KEPT])


def test_of_trials_that_have_ended_no_record_stays_in_memory(history: TrialHistory) -> None:
    tracemalloc.start()
    for number in range(50):
        history.begin(number, TrialParams(backbone="resnet18"))
        record = json.dumps({"epoch": 1, "val_f1_macro": 0.5, "of many classes": "x" * 200_000})
        history.report(number, record)
        history.end(number, "completed", "")
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 50 * 200_000 / 4


def test_a_trial_ends_once(history: TrialHistory) -> None:
    entry = history.begin(0, TrialParams(backbone="resnet18"))
    files = history.files(entry)
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
    again = history_of(history.paths.root)
    finished, failed = (again.files(again.entries[number]) for number in (0, 1))
    assert not finished.state.exists()
    assert failed.error.read_text() == "why\n"
    assert not finished.error.exists()


def fail(history: TrialHistory, number: int, scores: list[float], name: str | None = None) -> TrialState:
    """A trial that failed after epochs with these scores, with all that one leaves behind."""
    entry = history.begin(number, TrialParams(backbone="resnet18"), name=name)
    files = history.files(entry)
    files.weights.parent.mkdir()
    for path in (files.state, files.weights, files.stacks, files.error):
        path.write_text(f"attempt of {number}")
    for epoch, score in enumerate(scores, start=1):
        report(history, number, epoch, score)
    history.end(number, "failed", "why")
    return entry


def retried(history: TrialHistory, *, broken_too: bool = False) -> str:
    return retry_failed(history.paths, "val_f1_macro", "max", broken_too=broken_too)


def test_a_failed_trial_runs_again_from_its_last_epoch_and_nothing_of_its_failure_is_lost(
    history: TrialHistory,
) -> None:
    files = history.files(fail(history, 0, [0.5, 0.7]))
    assert "t0000 (from epoch 3)" in retried(history_of(history.paths.root))
    again = history_of(history.paths.root)
    assert [(entry.status, entry.reason, entry.scores) for entry in again.unfinished()] == [
        ("running", "", {1: 0.5, 2: 0.7})
    ]
    assert files.state.exists()
    assert files.weights.exists(), "those of its best epoch, which may stay the best"
    assert not any(path.exists() for path in (files.status, files.error, files.stacks))
    assert json.loads((files.root / "status-1.json").read_text()) == {"status": "failed", "reason": "why"}
    assert (files.root / "error-1.txt").read_text() == (files.root / "stacks-1.txt").read_text() == "attempt of 0"
    again.end(0, "failed", "again")
    retried(again)
    assert json.loads((files.root / "status-2.json").read_text())["reason"] == "again"
    assert (files.root / "error-2.txt").read_text() == "again\n"
    assert "none" in retried(again), "what runs has not failed"


def test_a_failed_trial_without_a_state_begins_anew(history: TrialHistory) -> None:
    """What it reported is of weights that are gone."""
    files = history.files(fail(history, 0, [0.5, 0.7]))
    files.state.unlink()
    assert "t0000 (from its beginning)" in retried(history)
    assert history_of(history.paths.root).entries[0].scores == {}
    assert len((files.root / "result-1.jsonl").read_text().splitlines()) == 2
    assert not files.weights.exists()


def test_a_trial_whose_loss_was_no_number_runs_again_only_where_all_are_asked_for(history: TrialHistory) -> None:
    files = history.files(fail(history, 0, [0.5, math.nan]))
    assert not files.state.exists(), "there is no number in it to go on from"
    line = retried(history)
    assert "rerun: none" in line
    assert "--retry-failed all" in line
    assert history_of(history.paths.root).count("failed") == 1
    assert "t0000 (from its beginning)" in retried(history, broken_too=True)
    assert history_of(history.paths.root).unfinished()[0].scores == {}


def test_a_failed_repeat_of_a_finalist_runs_again_too(history: TrialHistory) -> None:
    repeats = RepeatHistory(history.paths, "val_f1_macro", "max", ["t0007/seed_1001"])
    fail(repeats, 0, [0.5], "t0007/seed_1001")
    assert "t0007/seed_1001 (from epoch 2)" in retried(history)
    repeats = RepeatHistory(history.paths, "val_f1_macro", "max", ["t0007/seed_1001"])
    repeats.load()
    assert [entry.trial_id for entry in repeats.unfinished()] == ["t0007/seed_1001"]


def test_of_failed_trials_those_that_came_furthest_keep_their_state_until_the_sweep_has_ended(
    history: TrialHistory,
) -> None:
    lengths = [1 + k * 7 % 12 for k in range(12)]
    for number, length in enumerate(lengths):
        fail(history, number, [0.5] * length)
    history.begin(12, TrialParams(backbone="resnet18"))
    running = history.files(history.entries[12])
    running.state.touch()

    def kept() -> set[int]:
        states = {number for number, entry in history.entries.items() if history.files(entry).state.exists()} - {12}
        assert states == {n for n, entry in history.entries.items() if history.files(entry).weights.exists()}
        return states

    furthest = set(sorted(range(12), key=lambda number: -lengths[number])[:FAILED_KEPT])
    assert kept() == furthest
    history_of(history.paths.root)
    assert kept() == furthest
    drop_failed_states(history.paths)
    assert kept() == set()
    assert running.state.exists()


def test_a_trial_takes_nothing_over_from_one_whose_parameters_were_lost(history: TrialHistory) -> None:
    entry = history.begin(0, TrialParams(backbone="vgg16"))
    report(history, 0, 1, 0.9)
    history.files(entry).state.touch()
    history.files(entry).params.write_text("{")
    again = TrialHistory(history.paths, "val_f1_macro", "max")
    assert "params.json cannot be read" in again.load()[0]
    again.begin(again.next_number, TrialParams(backbone="resnet18"))
    third = history_of(history.paths.root)
    assert third.entries[0].scores == {}
    assert not third.files(third.entries[0]).state.exists()


def trials_of(study: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{study}")
    trials = optuna.load_study(study_name=STUDY_NAME, storage=storage).trials
    storage.engine.dispose()
    return trials


def test_study_db_shows_every_ended_trial_and_is_rebuilt_after_a_kill(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=8)
    export = OptunaExport(sweep.history)
    sweep.run(epochs=20)
    export.close()
    resumed = ToySweep(tmp_path, wide_space, trials=8)
    export = OptunaExport(resumed.history)
    resumed.run()
    export.close()
    opened = [os.readlink(link) for link in Path("/dev/fd").iterdir() if link.is_symlink()]
    assert str(tmp_path / "study.db") not in opened
    trials = trials_of(tmp_path / "study.db")
    shown = {trial.user_attrs["trial_id"]: trial for trial in trials}
    assert len(trials) == len(shown) == 8
    for entry in resumed.history.entries.values():
        assert shown[entry.trial_id].params == entry.suggestion.suggested
        assert shown[entry.trial_id].intermediate_values == entry.scores


def test_study_db_shows_every_trial_of_a_fixed_list(tmp_path: Path) -> None:
    """Optuna takes no second set of choices for a name, so each trial's own value cannot be all there is."""
    context = dataclasses.replace(CONTEXT, class_count=2, backbones=("resnet18", "vgg16"))
    space = load_space("studies.bscs17028", context)
    assert space.fixed is not None
    sweep = ToySweep(tmp_path, space, curve=lambda params, epoch: 0.5)
    export = OptunaExport(sweep.history, space.fixed)
    sweep.run()
    export.close()
    trials = trials_of(tmp_path / "study.db")
    assert [trial.params for trial in trials] == [params.active() for params in space.fixed]
    assert len({trial.params["backbone"] for trial in trials}) == 2


def test_a_study_db_that_cannot_be_written_does_not_end_the_sweep(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=2)
    sweep.history.paths.study.mkdir()
    (sweep.history.paths.study / "in the way").touch()
    export = OptunaExport(sweep.history)
    assert len(sweep.run().history.entries) == 2
    export.close()


def test_a_trial_whose_parameters_are_none_of_ours_is_named_and_kept(history: TrialHistory) -> None:
    files = history.files(history.begin(0, TrialParams(backbone="resnet18")))
    files.params.write_text(files.params.read_text().replace("resnet18", "resnet19"))
    said = f"{files.params}: unknown backbone 'resnet19'.*move {files.params.parent} away"
    with pytest.raises(UserError, match=said):
        TrialHistory(history.paths, "val_f1_macro", "max").load()
    assert "resnet19" in files.params.read_text()
