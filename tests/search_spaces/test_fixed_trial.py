"""The trial that a space sees: fixed values answered, the rest passed on and remembered."""

from __future__ import annotations

import warnings

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BruteForceSampler

from search_spaces.errors import UserError
from search_spaces.fixed_trial import FixedTrial
from search_spaces.params import Choices, Range
from search_spaces.space import random_study


def test_a_fixed_field_answers_for_all_its_branches_and_never_reaches_optuna() -> None:
    with random_study() as study:
        trial = study.ask()
        seen = FixedTrial(trial, {"lr": 0.5})
        assert seen.suggest_float("lr.sgd", 1e-4, 1e-2) == seen.suggest_float("lr", 1e-5, 1e-3) == 0.5
        assert trial.params == seen.suggested == seen.distributions == {}


def test_what_is_not_fixed_is_asked_of_optuna_and_remembered() -> None:
    with random_study() as study:
        trial = study.ask()
        seen = FixedTrial(trial, {"lr": 0.5})
        dropout = seen.suggest_float("dropout", 0.0, 0.5)
        depth = seen.suggest_int("unfreeze_depth", 0, 4)
        loss = seen.suggest_categorical("loss", ("bce", "focal"))
        assert seen.suggested == trial.params == {"dropout": dropout, "unfreeze_depth": depth, "loss": loss}
        assert seen.distributions == trial.distributions
        assert seen.suggest_float("dropout", 0.0, 0.5) == dropout
        with pytest.raises(
            UserError, match=r"dropout must be .* received its range \[0.0, 0.6\] after its range \[0.0, 0.5\]"
        ):
            seen.suggest_float("dropout", 0.0, 0.6)


def test_a_point_is_replayed_before_anything_is_drawn() -> None:
    with random_study() as study:
        seen = FixedTrial(study.ask(), {}, {"unfreeze_depth": 3, "dropout": 0.25})
        assert seen.suggest_int("unfreeze_depth", 0, 4) == 3
        assert seen.suggest_float("dropout", 0.0, 0.5, step=0.25) == 0.25


@pytest.mark.parametrize("value", [5, 2.5, "two", None])
def test_a_point_outside_the_range_is_refused(value: object) -> None:
    with random_study() as study, pytest.raises(UserError, match=r"unfreeze_depth=.* is outside its range \[0, 4\]"):
        FixedTrial(study.ask(), {}, {"unfreeze_depth": value}).suggest_int("unfreeze_depth", 0, 4)  # type: ignore[dict-item]


def test_layers_that_are_fixed_leave_no_depth_to_search() -> None:
    with random_study() as study:
        trial = study.ask()
        assert FixedTrial(trial, {"unfreeze_layers": "features.28"}).suggest_int("unfreeze_depth", 0, 4) > 0
        assert trial.params == {}


def test_a_range_is_cut_to_each_suggestion_of_its_field_and_keeps_the_scale() -> None:
    with random_study() as study:
        seen = FixedTrial(study.ask(), {"lr": Range(1e-6, 1e-2), "batch_size": Range(10, 40)})
        seen.suggest_float("lr.sgd", 1e-5, 1e-1, log=True)
        seen.suggest_float("lr.adamw", 1e-7, 1e-1, log=True)
        seen.suggest_int("batch_size", 8, 64, step=8)
    assert seen.distributions == {
        "lr.sgd": FloatDistribution(1e-5, 1e-2, log=True),
        "lr.adamw": FloatDistribution(1e-6, 1e-2, log=True),
        "batch_size": IntDistribution(16, 40, step=8),
    }
    assert seen.notes == [
        "--set lr=1e-06..0.01: cut to 1e-05..0.01 by the range of lr.sgd",
        "--set batch_size=10..40: cut to 16..40 by the range of batch_size",
    ]
    assert seen.narrowed == {"lr", "batch_size"}


def test_a_range_of_choices_and_choices_of_a_range_leave_what_both_hold() -> None:
    overrides = {"batch_size": Range(10, 40), "loss": Choices(("focal", "bce")), "dropout": Choices((0.25, 0.3, 0.9))}
    with random_study() as study:
        seen = FixedTrial(study.ask(), overrides)
        seen.suggest_categorical("batch_size", (8, 16, 32, 64))
        seen.suggest_categorical("loss", ("cross_entropy", "bce", "focal"))
        seen.suggest_float("dropout", 0.0, 0.5, step=0.25)
    assert seen.distributions == {
        "batch_size": CategoricalDistribution((16, 32)),
        "loss": CategoricalDistribution(("bce", "focal")),
        "dropout": CategoricalDistribution((0.25,)),
    }
    assert seen.notes == [
        "--set batch_size=10..40: cut to 16,32 by the choices of batch_size",
        "--set dropout=0.25,0.3,0.9: cut to 0.25 by the range of dropout",
    ]


@pytest.mark.parametrize("override", [Range(0.6, 0.9), Choices((0.6, 0.1))])
def test_nothing_left_is_refused_with_the_range_of_the_space(override: Range | Choices) -> None:
    with random_study() as study, pytest.raises(UserError, match=r"leaves nothing of dropout: its range \[0.25, 0.5\]"):
        FixedTrial(study.ask(), {"dropout": override}).suggest_float("dropout", 0.25, 0.5)
    with random_study() as study, pytest.raises(UserError, match=r"leaves nothing of dropout: its choices 0\.2, None"):
        FixedTrial(study.ask(), {"dropout": override}).suggest_categorical("dropout", [0.2, None])


@given(
    low=st.integers(0, 20), width=st.integers(0, 30), step=st.integers(1, 7), ends=st.tuples(*[st.integers(-5, 60)] * 2)
)
def test_whatever_is_cut_the_search_keeps_exactly_the_steps_inside(
    low: int, width: int, step: int, ends: tuple[int, int]
) -> None:
    override = Range(*sorted(ends))
    inside = [value for value in range(low, low + width + 1, step) if override.low <= value <= override.high]
    for scale in (1, 0.1):  # tenths, which binary numbers do not hit
        cut = Range(round(override.low * scale, 6), round(override.high * scale, 6))
        name = "batch_size" if scale == 1 else "weight_decay"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of Optuna, where the last step is cut short
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
            seen = FixedTrial(study.ask(), {name: cut})
            try:
                if scale == 1:
                    seen.suggest_int(name, low, low + width, step=step)
                else:
                    ends_of_space = (round(low * scale, 6), round((low + width) * scale, 6))
                    seen.suggest_float(name, *ends_of_space, step=round(step * scale, 6))
            except UserError:
                assert not inside
                continue
        left = seen.distributions[name]
        assert isinstance(left, IntDistribution | FloatDistribution)
        assert (left.low, left.high) == pytest.approx((inside[0] * scale, inside[-1] * scale))


def test_a_point_outside_the_users_range_is_told_from_one_outside_the_space() -> None:
    with random_study() as study:
        seen = FixedTrial(study.ask(), {"lr": Range(1e-4, 1e-3)}, {"lr": 1e-2})
        assert seen.suggest_float("lr", 1e-5, 1e-1, log=True) == 1e-2
        assert seen.outside == {"lr"}
        with pytest.raises(UserError, match=r"lr=1.0 is outside its range \[1e-05, 0.1\]"):
            FixedTrial(study.ask(), {"lr": Range(1e-4, 1e-3)}, {"lr": 1.0}).suggest_float("lr", 1e-5, 1e-1, log=True)


def test_a_space_of_steps_choices_and_single_values_is_finite_to_brute_force() -> None:
    seen: list[dict[str, object]] = []

    def objective(trial: optuna.Trial) -> float:
        fixed = FixedTrial(trial, {"lr": Range(1e-3, 1e-3), "momentum": Choices((0.5, 0.9))})
        fixed.suggest_categorical("backbone", ("resnet18", "vgg16"))
        if fixed.suggest_int("unfreeze_depth", 0, 4, step=2) > 0:
            fixed.suggest_float("backbone_lr_factor", 0.1, 0.3, step=0.1)
        fixed.suggest_float("dropout", 0.5, 0.5)
        fixed.suggest_float("lr", 1e-5, 1e-1, log=True)
        fixed.suggest_float("momentum", 0.0, 0.99)
        seen.append(trial.params)
        return 0.0

    with random_study() as study:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = BruteForceSampler(seed=0)
        study.optimize(objective, n_trials=100)
    assert len(seen) == len({str(sorted(params.items())) for params in seen}) == 2 * (1 + 2 * 3) * 2
