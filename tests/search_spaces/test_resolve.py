"""Suggested, returned and fixed values become one trial's parameters."""

from __future__ import annotations

import pytest

from search_spaces.errors import UserError
from search_spaces.params import SpaceContext, TrialParams
from search_spaces.resolve import checked_overrides, fitting_overrides, misfits, resolve


def test_a_conditional_name_gives_its_value_to_its_field() -> None:
    assert resolve({"backbone": "vgg16", "lr.sgd": 0.02}, {}) == TrialParams(backbone="vgg16", lr=0.02)


def test_two_branches_of_one_field_in_one_trial_are_refused() -> None:
    with pytest.raises(UserError, match=r"two values for lr: suggested as lr.sgd=0.02 and suggested as lr.adamw=0.001"):
        resolve({"backbone": "vgg16", "lr.sgd": 0.02, "lr.adamw": 0.001}, {})


def test_returning_a_suggested_field_again_is_fine_with_the_same_value_only() -> None:
    assert resolve({"backbone": "vgg16", "lr": 0.02}, {"lr": 0.02}).lr == 0.02
    with pytest.raises(UserError, match="two values for lr"):
        resolve({"backbone": "vgg16", "lr": 0.02}, {"lr": 0.2})


def test_what_the_user_fixed_wins_over_both() -> None:
    params = resolve({"backbone": "vgg16", "lr": 0.02}, {"dropout": 0.5}, {"lr": 0.1, "dropout": 0.0})
    assert (params.lr, params.dropout) == (0.1, 0.0)


def test_unknown_names_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        resolve({"backbone": "vgg16", "learning_rate.sgd": 0.1}, {"droput": 0.5})
    assert len(caught.value.problems) == 2


def test_a_branch_is_no_name_for_a_returned_constant() -> None:
    with pytest.raises(UserError, match=r"unknown hyperparameter 'lr.sgd'"):
        resolve({"backbone": "vgg16"}, {"lr.sgd": 0.1})


@pytest.mark.parametrize(
    ("suggested", "overrides", "depth", "layers"),
    [
        ({"unfreeze_depth": 2}, {"unfreeze_layers": "features.10"}, None, ("features.10",)),
        ({"unfreeze_layers": "features.10"}, {"unfreeze_depth": 2}, 2, ()),
        ({"unfreeze_layers": "features.10"}, {}, None, ("features.10",)),
        ({"unfreeze_layers": "features.10", "unfreeze_depth": None}, {"lr": 0.1}, None, ("features.10",)),
        ({"unfreeze_depth": 3, "unfreeze_layers": "none"}, {}, 3, ()),
    ],
)
def test_layers_and_depth_take_each_others_place(
    suggested: dict[str, object], overrides: dict[str, object], depth: int | None, layers: tuple[str, ...]
) -> None:
    params = resolve({"backbone": "vgg16", **suggested}, {}, overrides)  # type: ignore[arg-type]
    assert (params.unfreeze_depth, params.unfreeze_layers) == (depth, layers)


def test_fixed_values_get_the_type_of_their_field() -> None:
    assert checked_overrides({"lr": "1e-3", "batch_size": 16, "head_widths": 320, "focal_alpha": None}) == {
        "lr": 1e-3,
        "batch_size": 16,
        "head_widths": 320,
        "focal_alpha": None,
    }


def test_all_wrong_fixed_values_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        checked_overrides({"lr": "fast", "momentun": 0.9})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["--set lr=fast", "--set momentun=0.9"]


def test_what_does_not_fit_the_data_is_said() -> None:
    context = SpaceContext(task="multi_label", class_count=3, train_count=20, backbones=("resnet18",))
    found = misfits(TrialParams(backbone="vgg16", batch_size=32), context)
    assert len(found) == 3
    assert not misfits(TrialParams(backbone="resnet18", batch_size=20, loss="bce"), context)


def test_fixed_values_out_of_range_are_refused_whatever_the_space_is() -> None:
    with pytest.raises(UserError) as caught:
        checked_overrides({"dropout": "3", "loss": "crossentropy", "unfreeze_layers": "features.10"})
    dropout, loss = caught.value.problems
    assert dropout == "--set dropout=3: dropout must be in [0, 1), received 3.0"
    assert loss.startswith("--set loss=crossentropy: unknown loss 'crossentropy': did you mean 'cross_entropy'?")


def test_fixed_values_that_the_data_cannot_take_are_told_from_those_it_can() -> None:
    context = SpaceContext(task="multi_label", class_count=3, train_count=40, backbones=("resnet18",))
    fixed = {"batch_size": 64, "loss": "cross_entropy", "backbone": "vgg16", "lr": 0.1}
    fitting, problems = fitting_overrides(fixed, context)
    assert fitting == {"lr": 0.1}
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "--set backbone=vgg16",
        "--set batch_size=64",
        "--set loss=cross_entropy",
    ]
