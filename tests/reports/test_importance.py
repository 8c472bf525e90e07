"""Importance against chance, and the trials that it compares: who, at which epoch, with which parameters."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from run_files import rewrite_epochs
from searched_run import write_searched

from reports import importance
from reports.data import read_report_data
from reports.importance import used_trials
from sweep.run_folder import RunPaths


def by_rate_of_sgd(params, epoch):
    return 0.9 - 0.05 * (math.log10(params.lr) + 2) ** 2 if params.optimizer == "sgd" else 0.5


def noise(params, epoch):
    return 0.5 + 0.4 * ((params.lr * 1e7) % 1)


def found_for(tmp_path, score, mode="max", trials=60):
    root = write_searched(tmp_path / "run", score, trials=trials, statuses=("completed",), epochs=1)
    return importance.importances(used_trials(read_report_data(root)), mode)


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


@pytest.fixture
def few_shuffles(monkeypatch):
    monkeypatch.setattr(importance, "SHUFFLES", 5)


@pytest.mark.usefixtures("few_shuffles")
def test_where_lower_is_better_the_best_are_the_lowest(tmp_path):
    frame = found_for(tmp_path, by_rate_of_sgd, mode="min").set_index("parameter")
    rates = [float(value) for value in frame.loc["lr.sgd", "best"].split(" to ")]
    assert max(rates) < 1e-4, "far from 1e-2, where the score is highest"


@pytest.mark.usefixtures("few_shuffles")
def test_the_same_trials_give_the_same_table(tmp_path):
    root = write_searched(tmp_path / "run", by_rate_of_sgd, trials=30, epochs=3)
    found = used_trials(read_report_data(root))
    pd.testing.assert_frame_equal(importance.importances(found, "max"), importance.importances(found, "max"))


@pytest.mark.usefixtures("few_shuffles")
def test_of_many_trials_a_sample_of_fixed_size_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(importance, "MOST_TRIALS", 20)
    frame = found_for(tmp_path, by_rate_of_sgd).set_index("parameter")
    assert frame.loc["optimizer", "trials"] == 60
    assert np.isfinite(frame["importance"]).all()


@pytest.mark.usefixtures("few_shuffles")
def test_a_parameter_that_none_of_the_drawn_trials_has_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(importance, "MOST_TRIALS", 20)
    root = write_searched(tmp_path / "run", by_rate_of_sgd, trials=60, statuses=("completed",), epochs=1)
    used = used_trials(read_report_data(root))
    drawn = set(np.random.default_rng(0).choice(60, 20, replace=False).tolist())
    trials = list(used.trials)
    for place in [place for place in range(60) if place not in drawn][:2]:
        one, more = trials[place], {"rare": FloatDistribution(0.0, 100.0)}
        trials[place] = optuna.trial.create_trial(
            params=one.params | {"rare": float(place)}, distributions=one.distributions | more, value=one.value
        )
    frame = importance.importances(dataclasses.replace(used, trials=tuple(trials)), "max")
    assert "optimizer" in set(frame["parameter"])
    assert "rare" not in set(frame["parameter"])


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


def rising(params, epoch):
    return 0.5 + 0.01 * epoch + 0.1 * (params.backbone == "resnet18")


def test_trials_stopped_early_are_compared_with_the_others_after_equally_many_epochs(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=12, statuses=("completed", "pruned"), epochs=9)
    found = used_trials(read_report_data(root))
    assert found.epoch == 3
    assert set(np.round(found.scores, 6)) == {0.53, 0.63}
    assert list(found.numbers) == list(range(12))


def test_without_a_stopped_trial_all_epochs_count(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=4, statuses=("completed",), epochs=9)
    found = used_trials(read_report_data(root))
    assert found.epoch is None
    assert set(np.round(found.scores, 6)) <= {0.59, 0.69}


def test_failed_and_unended_trials_and_those_without_a_score_are_left_out_and_counted(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=8, statuses=("completed", "pruned", "failed", "running"))
    rewrite_epochs(RunPaths(root).trial("t00000").result, lambda row: row | {"val_f1_macro": float("nan")})
    found = used_trials(read_report_data(root))
    assert list(found.numbers) == [1, 4, 5]
    assert found.left_out == {"failed": 2, "unfinished": 2, "without a score": 1}


def test_parameters_keep_the_name_and_range_that_the_sampler_was_asked_for(tmp_path):
    found = used_trials(read_report_data(write_searched(tmp_path / "run", rising, statuses=("completed",))))
    ranges = found.distributions
    assert ranges["lr.sgd"] == FloatDistribution(1e-5, 1e-1, log=True)
    assert ranges["unfreeze_depth"] == IntDistribution(0, 4)
    assert ranges["backbone"] == CategoricalDistribution(("mobilenet_v2", "resnet18", "vgg16"))
    with_sgd = {place for place, trial in enumerate(found.trials) if trial.params["optimizer"] == "sgd"}
    assert set(found.values("lr.sgd").index) == set(found.values("momentum").index) == with_sgd
    assert set(found.values("lr.adamw").index) == set(range(len(found.trials))) - with_sgd
    assert "lr" not in ranges


def test_a_fixed_list_has_ranges_that_hold_what_its_rows_took(write_run):
    found = used_trials(read_report_data(write_run(trials=12, statuses=("completed",))))
    ranges = found.distributions
    assert ranges["lr"] == FloatDistribution(1e-3, 7e-3, log=True)
    assert ranges["batch_size"] == IntDistribution(16, 64)
    assert ranges["head_widths"] == CategoricalDistribution(("256", "none"))
    assert "momentum" not in ranges, "the same in all rows"


def test_a_parameter_of_a_record_that_is_out_of_its_range_costs_that_trial_alone(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=6, statuses=("completed",))
    path = RunPaths(root).trial("t00002").params
    record = json.loads(path.read_text())
    record["suggestion"]["suggested"]["dropout"] = 7.0
    path.write_text(json.dumps(record))
    found = used_trials(read_report_data(root))
    assert list(found.numbers) == [0, 1, 3, 4, 5]
    assert found.left_out == {"with a value outside its range": 1}


@pytest.mark.parametrize(
    "damage", [{}, {"suggestion": None}, {"suggestion": {"distributions": {"lr": 3}}}, {"suggestion": [1]}]
)
def test_a_record_without_what_was_asked_is_taken_by_its_parameters(tmp_path, damage):
    root = write_searched(tmp_path / "run", rising, trials=3, statuses=("completed",))
    for folder in RunPaths(root).trial_folders():
        path = RunPaths(root).trial(folder.name).params
        record = json.loads(path.read_text())
        del record["suggestion"]
        path.write_text(json.dumps(record | damage))
    found = used_trials(read_report_data(root))
    assert len(found.trials) == 3
    assert "dropout" in found.distributions


def test_a_run_without_trials_has_nothing_to_compare(write_run):
    found = used_trials(read_report_data(write_run(trials=0)))
    assert (len(found.trials), found.epoch, dict(found.left_out)) == (0, None, {})


@pytest.mark.usefixtures("few_shuffles")
def test_optuna_says_nothing_meanwhile_and_is_as_loud_as_before_afterwards(tmp_path, capfd):
    before = optuna.logging.get_verbosity()
    found_for(tmp_path, rising, trials=12)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""
