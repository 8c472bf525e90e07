"""Learning curves: of the winner and of all trials, where ASHA decides, and what was pruned at which depth."""

from __future__ import annotations

import pytest
from in_chapter import figures, notes, results_of, tables, texts

from reports.chapters.learning_curves import chapter, rungs
from sweep.records import SweepRecord


def test_the_winners_curves_hold_the_epochs_of_its_trial_in_the_search(write_run):
    results = results_of(write_run(finals={"finalists": (3, 0)}))
    found = figures(chapter(results))
    epochs = results.data.run.epochs
    mine = epochs[epochs["trial_id"] == results.trial["trial_id"]]
    assert results.trial["number"] == 3
    assert found["loss_by_epoch"].frame["val_loss"].tolist() == mine["val_loss"].tolist()
    assert "trial 3" in found["accuracy_by_epoch"].caption
    assert f"{mine['val_accuracy'].iloc[-1]:.3f} in {len(mine)} epochs" in found["accuracy_by_epoch"].alt


def test_all_trials_are_drawn_with_the_rungs_where_the_scheduler_decides(write_run):
    figure = figures(chapter(results_of(write_run())))["all_scores"]
    assert "all 6 trials" in figure.caption
    assert "rungs, where the scheduler decides (epoch 3)" in figure.caption
    assert "2 of 6 were pruned" in figure.alt
    assert figure.frame["trial_id"].nunique() == 6


@pytest.mark.parametrize(
    ("scheduler", "epochs", "expected"), [("asha", 30, [3, 9, 27]), ("asha", 3, []), ("median", 30, [])]
)
def test_rungs_are_the_grace_period_times_powers_of_the_reduction_factor(scheduler, epochs, expected):
    sweep = SweepRecord(scheduler=scheduler, epochs=epochs, grace_period=3, reduction_factor=3)
    assert rungs(sweep, epochs) == expected
    assert rungs(SweepRecord(scheduler="asha"), 10) == []


def test_pruned_trials_are_counted_by_depth(write_run):
    results = results_of(write_run())
    frame = tables(chapter(results))["pruned_by_depth"].frame.set_index("unfrozen")
    assert frame["trials"].sum() == 6
    trials = results.data.trials
    for depth, row in frame.iterrows():
        assert row["pruned"] == ((trials["unfrozen"] == depth) & (trials["status"] == "pruned")).sum()


@pytest.mark.parametrize("changes", [{"sweep": {"scheduler": "none"}}, {"statuses": ("completed",)}])
def test_without_pruning_a_sentence_says_so(write_run, changes):
    found = chapter(results_of(write_run(**changes)))
    assert "No trial was pruned." in texts(found) or "pruned_by_depth" in tables(found)
    assert ("pruned_by_depth" in tables(found)) is False


def test_a_metric_without_a_number_and_a_run_without_an_epoch_are_told(write_run):
    found = chapter(results_of(write_run(sweep={"metric": "val_nothing"})))
    assert "No epoch has a valid" in notes(found)
    assert "No trial has completed an epoch." in texts(chapter(results_of(write_run("none", trials=0))))
