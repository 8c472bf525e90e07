"""The table of all trials: every one with its score, its cost and its end."""

from __future__ import annotations

import pytest
from in_chapter import facts, results_of, tables, texts

from reports.chapters.trials import chapter


def test_every_trial_stands_in_the_table_with_what_differs_between_them(write_run):
    results = results_of(write_run())
    found = chapter(results)
    table = tables(found)["trials"]
    assert table.filterable
    assert "status" in table.frame
    assert table.frame["number"].tolist() == [0, 1, 2, 3, 4, 5]
    assert table.frame["reason"].tolist()[:3] == ["budget", "asha, epoch 3", "RuntimeError: out of memory"]
    titles = {column.key: column.title for column in table.columns}
    assert titles["param_lr"] == "learning rate"
    assert titles["trainable_params"] == "trainable"
    assert "param_momentum" not in titles
    assert facts(found)["momentum"] == "0.9"


@pytest.mark.parametrize("metric", ["val_f1_macro", "val_accuracy", "val_recall:covid"])
def test_the_selection_metric_is_one_column(write_run, metric):
    table = tables(chapter(results_of(write_run(sweep={"metric": metric}))))["trials"]
    keys = [column.key for column in table.columns]
    assert len(set(keys)) == len(keys)
    assert metric not in keys
    assert table.columns[2].title.startswith("val ")


def test_failures_are_grouped_by_their_reason(write_run):
    frame = tables(chapter(results_of(write_run())))["failures"].frame
    assert frame.values.tolist() == [["RuntimeError: out of memory", 1, "2"]]
    assert "failures" not in tables(chapter(results_of(write_run("all", statuses=("completed",)))))


def test_a_run_without_trials_says_so(write_run):
    assert "No trial has begun." in texts(chapter(results_of(write_run(trials=0))))
