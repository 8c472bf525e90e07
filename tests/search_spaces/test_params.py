"""TrialParams: one trial's hyperparameters, checked at the boundary."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError
from search_spaces.params import (
    BACKBONE_NAMES,
    LOSSES,
    Choices,
    Override,
    Range,
    TrialParams,
    allows,
    override_from_json,
    override_to_json,
    parse_text,
)

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
        ({"backbone": "vgg16", "lr": 10**400}, "lr must be a number, received 1000"),
        ({"backbone": "vgg16", "lr": 1e300}, r"lr must be above 0 and at most 1000, received 1e\+300"),
        ({"backbone": "vgg16", "backbone_lr_factor": 1001}, "backbone_lr_factor must be above 0 and at most 1000"),
        ({"backbone": "vgg16", "weight_decay": 1e300}, r"weight_decay must be in \[0, 1000\]"),
        ({"backbone": "vgg16", "focal_gamma": 1e300}, r"focal_gamma must be in \[0, 1000\]"),
        ({"backbone": "vgg16", "batch_size": 10**9}, "batch_size must be 1 to 16384, received 1000000000"),
        ({"backbone": "vgg16", "head_widths": 2000000}, "head_widths must be at most two widths of 1 to 16384, rec"),
        ({"lr": 1e-3}, "has no backbone"),
        ({"backbone": "vgg16", "unfreeze_layers": "features.10"}, "not both or none"),
        (
            {"backbone": "vgg16", "loss": "focal", "focal_alpha": 0.5, "class_weights": "balanced"},
            "both weight the classes",
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


@pytest.mark.parametrize(
    ("key", "given", "override"),
    [
        ("lr", "1e-4..1e-2", Range(1e-4, 1e-2)),
        ("lr", "1e-4 .. 1e-2", Range(1e-4, 1e-2)),
        ("unfreeze_depth", "1..3", Range(1, 3)),
        ("dropout", ".1...5", Range(0.1, 0.5)),
        ("batch_size", "16,32", Choices((16, 32))),
        ("batch_size", [16, "32"], Choices((16, 32))),
        ("lr", "1e-3, 1e-2", Choices((1e-3, 1e-2))),
        ("loss", "bce,focal", Choices(("bce", "focal"))),
        ("head_widths", "none,256,1024+512", Choices(("none", "256", "1024+512"))),
        ("focal_alpha", "none,0.25", Choices((None, 0.25))),
        ("unfreeze_layers", "features.28,features.26+features.28", Choices(("features.28", "features.26+features.28"))),
    ],
)
def test_ranges_and_choices_are_read_and_read_again(key: str, given: object, override: Override) -> None:
    assert parse_text(key, given) == override
    assert parse_text(key, override) == override
    assert parse_text(key, str(override)) == override
    assert override_from_json(key, json.loads(json.dumps(override_to_json(override)))) == override


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("loss", "bce..focal", "loss is not a number: give one value, or choices such as a,b; received bce..focal"),
        ("head_widths", "128..512", "head_widths is not a number"),
        ("lr", "1e-2..1e-4", "a range of lr must go from a lower to a higher number, received 1e-2..1e-4"),
        ("lr", "0..1e-2", "lr must be above 0 and at most 1000, received 0.0"),
        ("lr", "..1e-2", "lr must be a number, received ''"),
        ("lr", "nan..1", "lr must be above 0 and at most 1000, received nan"),
        ("dropout", "0.5..1", r"dropout must be in \[0, 1\), received 1.0"),
        ("batch_size", "8..16.5", "batch_size must be a whole number, received '16.5'"),
        ("focal_alpha", "none..0.5", "a range of focal_alpha must go from a lower to a higher number"),
        ("batch_size", "16,", "choices of batch_size must be single values such as a,b, received '16,'"),
        ("lr", "1e-4..1e-3,1e-2", "choices of lr must be single values"),
        ("batch_size", "16,16", "choices of batch_size must differ, received 16,16"),
        ("loss", "bce,hinge", "unknown loss 'hinge'"),
        ("head_widths", "none,256+0", "head_widths must be at most two widths of 1 to 16384"),
        ("momentun", "0.5..0.9", "did you mean 'momentum'"),
        ("momentun", "0.5,0.9", "did you mean 'momentum'"),
    ],
)
def test_a_range_or_choice_that_cannot_be_is_refused(key: str, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        parse_text(key, text)


@pytest.mark.parametrize(
    "saved",
    [
        {"low": 1e-4},
        {"low": 1e-4, "high": 1e-2, "step": 1},
        {"low": "1e-4", "high": "1e-2"},
        {"low": 1e-2, "high": 1e-4},
        {"choices": []},
        {"choices": 0.1},
        {"choices": [0.1], "low": 0.1},
        [0.1, 0.2],
        "0.1..0.2",
        "0.1,0.2",
        True,
        {},
    ],
)
def test_json_that_holds_no_override_is_refused(saved: object) -> None:
    with pytest.raises(UserError, match="lr"):
        override_from_json("lr", saved)


@given(st.floats(1e-8, 1.0), st.floats(1e-8, 1.0), st.floats(1e-8, 1.0))
def test_a_range_allows_what_lies_between_its_ends(one: float, other: float, value: float) -> None:
    low, high = sorted((one, other))
    override = parse_text("lr", f"{low}..{high}")
    assert override_from_json("lr", json.loads(json.dumps(override_to_json(override)))) == Range(low, high)
    assert allows(override, "lr", value) == (low <= value <= high)
    assert allows(override, "lr", low)
    assert allows(override, "lr", high)


@pytest.mark.parametrize("given", [[[320], "none"], {"choices": [[320], "none"]}, {"low": 1, "high": 2}])
def test_a_list_or_a_mapping_is_no_value(given: object) -> None:
    read = override_from_json if isinstance(given, dict) and "choices" in given else parse_text
    with pytest.raises(UserError, match="head_widths must be one value, received"):
        read("head_widths", given)


def test_choices_allow_a_value_however_it_is_spelled() -> None:
    assert allows(Choices(("320", "none")), "head_widths", 320)
    assert allows(Choices(("320", "none")), "head_widths", None)
    assert not allows(Choices(("320",)), "head_widths", "256+128")
    assert not allows(Range(0.1, 0.5), "focal_alpha", None)
    assert not allows(Range(8, 64), "batch_size", "many")
