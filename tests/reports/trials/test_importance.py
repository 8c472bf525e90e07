"""Importance against chance: what a score hangs on stands out, what it does not hang on rarely does."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from searched_run import write_searched

from reports.data import gather
from reports.trials import importance
from reports.trials.optuna_study import compared


def by_rate_of_sgd(params, epoch):
    return 0.9 - 0.05 * (math.log10(params.lr) + 2) ** 2 if params.optimizer == "sgd" else 0.5


def noise(params, epoch):
    return 0.5 + 0.4 * ((params.lr * 1e7) % 1)


def found_for(tmp_path, score, mode="max", trials=60):
    root = write_searched(tmp_path / "run", score, trials=trials, statuses=("completed",), epochs=1)
    return importance.importances(compared(gather(root)), mode)


def test_a_conditional_parameter_that_decides_the_score_stands_out(tmp_path):
    frame = found_for(tmp_path, by_rate_of_sgd)
    beyond = set(frame.loc[frame["times_chance"] > 1, "parameter"])
    assert {"lr.sgd", "optimizer"} <= beyond
    row = frame.set_index("parameter").loc["optimizer"]
    assert row["best"] == "sgd (6 of 6)"
    assert frame["importance"].sum() == pytest.approx(1)
    assert frame["times_chance"].dropna().is_monotonic_decreasing


def test_scores_that_hang_on_nothing_leave_hardly_any_parameter_beyond_chance(tmp_path):
    frame = found_for(tmp_path, noise)
    assert (frame["times_chance"] > 1).sum() <= 3


def test_where_lower_is_better_the_best_are_the_lowest(tmp_path):
    frame = found_for(tmp_path, by_rate_of_sgd, mode="min").set_index("parameter")
    rates = [float(value) for value in frame.loc["lr.sgd", "best"].split(" to ")]
    assert max(rates) < 1e-4, "far from 1e-2, where the score is highest"


def test_the_same_trials_give_the_same_table(tmp_path):
    root = write_searched(tmp_path / "run", by_rate_of_sgd, trials=30, epochs=3)
    found = compared(gather(root))
    pd.testing.assert_frame_equal(importance.importances(found, "max"), importance.importances(found, "max"))


def test_of_many_trials_a_sample_of_fixed_size_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(importance, "MOST_TRIALS", 20)
    monkeypatch.setattr(importance, "SHUFFLES", 5)
    frame = found_for(tmp_path, by_rate_of_sgd).set_index("parameter")
    assert frame.loc["optimizer", "trials"] == 60
    assert np.isfinite(frame["importance"]).all()


@pytest.mark.parametrize(("trials", "best"), [(10, 5), (50, 5), (51, 6), (1000, 100)])
def test_a_tenth_of_the_trials_but_five_at_least_are_the_best(trials, best):
    assert importance.top_count(trials) == best


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lr", "learning rate"),
        ("lr.sgd", "learning rate (sgd)"),
        ("focal_gamma", "focal gamma"),
        ("lr.a b", "learning rate (a b)"),
    ],
)
def test_parameters_have_words(name, words):
    assert importance.title(name) == words
