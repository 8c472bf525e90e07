"""TrialParams: one trial's hyperparameters, checked at the boundary."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError
from search_spaces.params import BACKBONE_NAMES, LOSSES, TrialParams, parse_text

trial_params = st.builds(
    TrialParams,
    backbone=st.sampled_from(BACKBONE_NAMES),
    unfreeze_depth=st.integers(0, 4),
    head_widths=st.lists(st.integers(1, 4300), max_size=2).map(tuple),
    dropout=st.floats(0, 0.99),
    optimizer=st.sampled_from(("sgd", "adamw")),
    lr=st.floats(1e-8, 1.0),
    momentum=st.floats(0, 0.99),
    batch_size=st.integers(1, 512),
    loss=st.sampled_from(LOSSES),
    focal_alpha=st.none() | st.floats(0, 1),
)


@given(trial_params)
def test_the_flat_dict_gives_the_same_params_back(params: TrialParams) -> None:
    assert TrialParams.from_flat(params.to_flat()) == params


def test_layers_by_name_survive_the_flat_dict() -> None:
    params = TrialParams(backbone="vgg16", unfreeze_depth=None, unfreeze_layers=("features.10", "features.12"))
    assert params.to_flat()["unfreeze_layers"] == "features.10+features.12"
    assert TrialParams.from_flat(params.to_flat()) == params


def test_all_problems_of_one_trial_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        TrialParams(backbone="resnet19", lr=0.0, dropout=1.0, head_widths=(1, 2, 3), batch_size=0)
    assert len(caught.value.problems) == 5
    assert "did you mean 'resnet18'?" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("flat", "problem"),
    [
        ({"backbone": "vgg16", "learning_rate": 1e-3}, "unknown hyperparameter 'learning_rate'"),
        ({"backbone": "vgg16", "batch_size": 2.5}, "batch_size must be a whole number, received 2.5"),
        ({"backbone": "vgg16", "lr": "fast"}, "lr must be a number, received 'fast'"),
        ({"backbone": "vgg16", "lr": float("nan")}, "lr must be above 0"),
        ({"lr": 1e-3}, "names no backbone"),
        ({"backbone": "vgg16", "unfreeze_layers": "features.10"}, "not both or none"),
        (
            {"backbone": "vgg16", "loss": "focal", "focal_alpha": 0.5, "class_weights": "balanced"},
            "both weigh the classes",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(flat: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        TrialParams.from_flat(flat)  # type: ignore[arg-type]


def test_trials_that_differ_only_in_what_does_nothing_count_as_one() -> None:
    one = TrialParams(backbone="vgg16", optimizer="adamw", momentum=0.9, focal_gamma=1.0, backbone_lr_factor=0.1)
    other = dataclasses.replace(one, momentum=0.5, focal_gamma=2.0, backbone_lr_factor=1.0)
    assert one.active() == other.active()
    assert one.active() != dataclasses.replace(one, dropout=0.5).active()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("lr", "1e-3", 1e-3),
        ("unfreeze_depth", "none", None),
        ("head_widths", "1024+512", "1024+512"),
        ("focal_alpha", "none", None),
        ("batch_size", "32", 32),
        ("loss", "bce", "bce"),
    ],
)
def test_text_from_the_command_line_gets_the_type_of_its_field(key: str, text: str, value: object) -> None:
    assert parse_text(key, text) == value


def test_text_for_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'momentum'"):
        parse_text("momentun", "0.9")
