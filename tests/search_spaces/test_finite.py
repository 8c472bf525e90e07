"""Finite spaces, enumerated: each configuration once, as Optuna's brute force would find it."""

from __future__ import annotations

import warnings

import optuna
import pytest
from optuna.samplers import BruteForceSampler

from search_spaces.check import random_study
from search_spaces.errors import UserError
from search_spaces.finite import combinations, count
from search_spaces.fixed_trial import FixedTrial
from search_spaces.params import Scalar, SpaceContext

CONTEXT = SpaceContext(task="single_label", class_count=3, train_count=100, backbones=("resnet18", "vgg16"))


def finite(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
    trial.suggest_categorical("backbone", context.backbones)
    if trial.suggest_int("unfreeze_depth", 0, 4, step=2) > 0:
        trial.suggest_float("backbone_lr_factor", 0.1, 0.3, step=0.1)
    trial.suggest_float("dropout", 0.5, 0.5)
    return {}


def frozen(points: list[dict[str, Scalar]]) -> set[tuple[tuple[str, Scalar], ...]]:
    return {tuple(sorted((k, round(v, 6) if isinstance(v, float) else v) for k, v in p.items())) for p in points}


def test_every_configuration_comes_once_and_is_what_brute_force_finds() -> None:
    ours = list(combinations(finite, CONTEXT, {}))
    assert len(ours) == len(frozen(ours)) == 2 * (1 + 2 * 3)
    with random_study() as study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = BruteForceSampler(seed=0)

        def objective(trial: optuna.Trial) -> float:
            finite(FixedTrial(trial, {}).as_trial(), CONTEXT)
            return 0.0

        study.optimize(objective, n_trials=100)
        assert frozen([trial.params for trial in study.trials]) == frozen(ours)


def test_fixed_values_make_the_space_smaller() -> None:
    assert count(finite, CONTEXT, {"unfreeze_depth": 0}) == 2


def test_counting_stops_at_the_limit() -> None:
    assert count(finite, CONTEXT, {}, limit=14) == 14
    assert count(finite, CONTEXT, {}, limit=13) is None


def test_a_continuous_range_is_refused_by_name() -> None:
    def endless(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
        trial.suggest_float("lr", 1e-4, 1e-2)
        return {"backbone": "resnet18"}

    with pytest.raises(UserError, match=r"lr is drawn from a continuous range \[0.0001, 0.01\]"):
        count(endless, CONTEXT, {})
