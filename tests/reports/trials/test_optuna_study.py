"""The trials of a run as Optuna sees them: who is compared, at which epoch, with which parameters."""

from __future__ import annotations

import json

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from searched_run import write_searched

from reports.data import gather
from reports.trials.optuna_study import as_study, compared
from sweep.run_folder import RunPaths


def rising(params, epoch):
    return 0.5 + 0.01 * epoch + 0.1 * (params.backbone == "resnet18")


def test_trials_stopped_early_are_compared_with_the_others_after_equally_many_epochs(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=12, statuses=("completed", "pruned"), epochs=9)
    found = compared(gather(root))
    assert found.epoch == 3
    assert set(np.round(found.scores, 6)) == {0.53, 0.63}
    assert list(found.numbers) == list(range(12))


def test_without_a_stopped_trial_all_epochs_count(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=4, statuses=("completed",), epochs=9)
    found = compared(gather(root))
    assert found.epoch is None
    assert set(np.round(found.scores, 6)) <= {0.59, 0.69}


def test_failed_and_unended_trials_and_those_without_a_score_are_left_out_and_counted(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=8, statuses=("completed", "pruned", "failed", "running"))
    lost = RunPaths(root).trial("t00000").result
    rows = [json.loads(line) | {"val_f1_macro": float("nan")} for line in lost.read_text().splitlines()]
    lost.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compared(gather(root))
    assert list(found.numbers) == [1, 4, 5]
    assert found.left_out == {"failed": 2, "without an end": 2, "without a score": 1}


def test_parameters_keep_the_name_and_range_that_the_sampler_was_asked_for(tmp_path):
    found = compared(gather(write_searched(tmp_path / "run", rising, statuses=("completed",))))
    ranges = found.distributions
    assert ranges["lr.sgd"] == FloatDistribution(1e-5, 1e-1, log=True)
    assert ranges["unfreeze_depth"] == IntDistribution(0, 4)
    assert ranges["backbone"] == CategoricalDistribution(("mobilenet_v2", "resnet18", "vgg16"))
    with_sgd = {place for place, trial in enumerate(found.trials) if trial.params["optimizer"] == "sgd"}
    assert set(found.values("lr.sgd").index) == set(found.values("momentum").index) == with_sgd
    assert set(found.values("lr.adamw").index) == set(range(len(found.trials))) - with_sgd
    assert "lr" not in ranges


def test_a_fixed_list_has_ranges_that_hold_what_its_rows_took(write_run):
    found = compared(gather(write_run(trials=12, statuses=("completed",))))
    ranges = found.distributions
    assert ranges["lr"] == FloatDistribution(1e-3, 7e-3, log=True)
    assert ranges["batch_size"] == IntDistribution(16, 64)
    assert ranges["head_widths"] == CategoricalDistribution(("256", "none"))
    assert "momentum" not in ranges, "the same in all rows"


def test_a_parameter_of_a_record_that_is_out_of_its_range_costs_that_trial_alone(tmp_path):
    root = write_searched(tmp_path / "run", rising, trials=6, statuses=("completed",))
    path = RunPaths(root).trial("t00002").params
    record = json.loads(path.read_text())
    record["asked"]["suggested"]["dropout"] = 7.0
    path.write_text(json.dumps(record))
    found = compared(gather(root))
    assert list(found.numbers) == [0, 1, 3, 4, 5]
    assert found.left_out == {"with a value outside its range": 1}


@pytest.mark.parametrize("damage", [{}, {"asked": None}, {"asked": {"distributions": {"lr": 3}}}, {"asked": [1]}])
def test_a_record_without_what_was_asked_is_taken_by_its_parameters(tmp_path, damage):
    root = write_searched(tmp_path / "run", rising, trials=3, statuses=("completed",))
    for folder in RunPaths(root).trial_folders():
        path = RunPaths(root).trial(folder.name).params
        record = json.loads(path.read_text())
        del record["asked"]
        path.write_text(json.dumps(record | damage))
    found = compared(gather(root))
    assert len(found.trials) == 3
    assert "dropout" in found.distributions


def test_a_run_without_trials_has_nothing_to_compare(write_run):
    found = compared(gather(write_run(trials=0)))
    assert (len(found.trials), found.epoch, dict(found.left_out)) == (0, None, {})


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_study_has_the_trials_and_their_best_value(tmp_path, mode, capfd):
    found = compared(gather(write_searched(tmp_path / "run", rising, trials=6, statuses=("completed",))))
    before = optuna.logging.get_verbosity()
    study = as_study(found, mode)
    assert study.best_value == (found.scores.max() if mode == "max" else found.scores.min())
    assert [trial.params for trial in study.trials] == [trial.params for trial in found.trials]
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""
