"""A space by its name: found, described, fixed in part, counted, and sent to another process."""

from __future__ import annotations

import pickle

import optuna
import pytest

from search_spaces.check import random_study
from search_spaces.errors import UserError
from search_spaces.params import SpaceContext
from search_spaces.space import SPACES, load_space

CONTEXT = SpaceContext(task="single_label", class_count=3, train_count=785, backbones=("resnet18", "vgg16"))


@pytest.mark.parametrize("name", SPACES)
def test_every_name_loads_and_describes_itself(name: str) -> None:
    assert len(load_space(name, CONTEXT).description) > 20


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("partial_unfreez", "partial_unfreeze"), ("studies.bscs17082", "studies.bscs17028"), ("headonly", "head_only")],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UserError, match=f"unknown search space '{wrong}': did you mean '{near}'"):
        load_space(wrong, CONTEXT)


def test_a_fixed_value_is_in_every_trial_and_is_not_sampled() -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"lr": "2e-3", "batch_size": 24})
    with random_study() as study:
        trials = [study.ask() for _ in range(20)]
        params = [space.suggest(trial) for trial in trials]
    assert {(p.lr, p.batch_size) for p in params} == {(2e-3, 24)}
    assert not {"lr.sgd", "lr.adamw", "batch_size"} & {name for trial in trials for name in trial.params}
    assert "batch_size" not in space.distributions


def test_a_fixed_value_decides_the_branches_behind_it() -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"optimizer": "adamw"})
    assert "lr.sgd" not in space.distributions
    assert "momentum" not in space.distributions


def test_a_field_that_the_space_does_not_know_can_be_fixed() -> None:
    space = load_space("imbalance", CONTEXT, {"head_widths": "320"})
    with random_study() as study:
        assert space.suggest(study.ask()).head_widths == (320,)


def test_fixed_layers_take_the_place_of_the_depth() -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"backbone": "vgg16", "unfreeze_layers": "features.28"})
    with random_study() as study:
        params = [space.suggest(study.ask()) for _ in range(20)]
    assert {(p.unfreeze_depth, p.unfreeze_layers) for p in params} == {(None, ("features.28",))}
    assert "unfreeze_depth" not in space.distributions


def test_seed_points_lose_what_is_fixed_and_what_that_puts_out_of_play() -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"optimizer": "adamw", "backbone": "vgg16"})
    names = {name for point in space.seed_points for name in point}
    assert not names & {"optimizer", "backbone", "lr.sgd", "momentum"}
    assert len(space.seed_points) == 3


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"batch_size": "2000"}, "batch_size 2000 is above the 785 images"),
        ({"backbone": "densenet121"}, "backbone densenet121 is not among those of this sweep: resnet18, vgg16"),
        ({"lr": "-1"}, "lr must be above 0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"momentun": "0.9"}, "did you mean 'momentum'"),
    ],
)
def test_a_fixed_value_that_cannot_run_is_refused(overrides: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_space("partial_unfreeze", CONTEXT, overrides)


def test_cross_entropy_cannot_be_forced_on_several_labels() -> None:
    context = SpaceContext(task="multi_label", class_count=3, train_count=785, backbones=("resnet18",))
    with pytest.raises(UserError, match="cross_entropy cannot train a multi-label task"):
        load_space("partial_unfreeze", context, {"loss": "cross_entropy"})


def test_one_problem_of_all_random_trials_is_told_once() -> None:
    with pytest.raises(UserError) as caught:
        load_space("partial_unfreeze", CONTEXT, {"batch_size": "2000"})
    assert len(caught.value.problems) == 1


def test_a_space_arrives_whole_in_another_process() -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"lr": "1e-3"})
    twin = pickle.loads(pickle.dumps(space))
    assert twin.overrides == {"lr": 1e-3}
    with random_study() as one, random_study() as other:
        assert space.suggest(one.ask()) == twin.suggest(other.ask())


def test_continuous_parameters_are_named_until_they_are_fixed() -> None:
    assert load_space("imbalance", CONTEXT).continuous == ("lr", "focal_gamma")
    assert load_space("imbalance", CONTEXT).count() is None
    finite = load_space("imbalance", CONTEXT, {"lr": "1e-2", "focal_gamma": "2"})
    assert finite.continuous == ()
    # per backbone: two losses x weights on or off, and focal: balanced, or five alphas
    assert finite.count() == 2 * (2 * 2 + 1 + 5)
    assert finite.count(limit=10) is None


def test_loading_leaves_optunas_log_level_and_its_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    load_space("partial_unfreeze", CONTEXT)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
