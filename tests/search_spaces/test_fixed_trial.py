"""The trial that a space sees: fixed values answered, the rest passed on and remembered."""

from __future__ import annotations

import pytest

from search_spaces.check import random_study
from search_spaces.errors import UserError
from search_spaces.fixed_trial import FixedTrial


def test_a_fixed_field_answers_for_all_its_branches_and_never_reaches_optuna() -> None:
    with random_study() as study:
        trial = study.ask()
        guided = FixedTrial(trial, {"lr": 0.5})
        assert guided.suggest_float("lr.sgd", 1e-4, 1e-2) == guided.suggest_float("lr", 1e-5, 1e-3) == 0.5
        assert trial.params == guided.suggested == guided.distributions == {}


def test_what_is_not_fixed_is_asked_of_optuna_and_remembered() -> None:
    with random_study() as study:
        trial = study.ask()
        guided = FixedTrial(trial, {"lr": 0.5})
        dropout = guided.suggest_float("dropout", 0.0, 0.5)
        depth = guided.suggest_int("unfreeze_depth", 0, 4)
        loss = guided.suggest_categorical("loss", ("bce", "focal"))
        assert guided.suggested == trial.params == {"dropout": dropout, "unfreeze_depth": depth, "loss": loss}
        assert guided.distributions == trial.distributions
        assert guided.suggest_float("dropout", 0.0, 0.5) == dropout


def test_a_point_is_replayed_before_anything_is_drawn() -> None:
    with random_study() as study:
        guided = FixedTrial(study.ask(), {}, {"unfreeze_depth": 3, "dropout": 0.25})
        assert guided.suggest_int("unfreeze_depth", 0, 4) == 3
        assert guided.suggest_float("dropout", 0.0, 0.5, step=0.25) == 0.25


@pytest.mark.parametrize("value", [5, 2.5, "two", None])
def test_a_point_outside_the_range_is_refused(value: object) -> None:
    with random_study() as study, pytest.raises(UserError, match=r"unfreeze_depth=.* is outside its range \[0, 4\]"):
        FixedTrial(study.ask(), {}, {"unfreeze_depth": value}).suggest_int("unfreeze_depth", 0, 4)  # type: ignore[dict-item]


def test_layers_that_are_fixed_leave_no_depth_to_search() -> None:
    with random_study() as study:
        trial = study.ask()
        assert FixedTrial(trial, {"unfreeze_layers": "features.28"}).suggest_int("unfreeze_depth", 0, 4) > 0
        assert trial.params == {}
