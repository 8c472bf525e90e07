"""A space by its name: found, fixed in part, tried out; how one trial gets its parameters."""

from __future__ import annotations

import optuna
import pytest

from search_spaces.errors import UserError
from search_spaces.params import SpaceContext, TrialParams
from search_spaces.space import SPACES, checked_overrides, load_space, misfits, random_study, resolve

CONTEXT = SpaceContext(task="single_label", class_count=3, train_count=785, backbones=("resnet18", "vgg16"))


@pytest.mark.parametrize("name", SPACES)
def test_every_name_loads_and_has_something_to_try(name: str) -> None:
    space = load_space(name, CONTEXT)
    assert space.seed_points or space.rows
    assert space.notes == ()


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


@pytest.mark.parametrize("depth", [{}, {"unfreeze_depth": "none"}, {"unfreeze_depth": None}])
def test_fixed_layers_take_the_place_of_the_depth(depth: dict[str, object]) -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"backbone": "vgg16", "unfreeze_layers": "features.28"} | depth)
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
        ({"backbone": "densenet121"}, "backbone densenet121 is not one of this sweep's: resnet18, vgg16"),
        ({"lr": "-1"}, "lr must be above 0"),
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"momentun": "0.9"}, "did you mean 'momentum'"),
        ({"unfreeze_depth": "none"}, "--set unfreeze_depth=none: name the layers to train beside it"),
    ],
)
def test_a_fixed_value_that_cannot_run_is_refused_once(overrides: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load_space("partial_unfreeze", CONTEXT, overrides)
    assert len(caught.value.problems) == 1


def test_continuous_parameters_are_named_until_they_are_fixed() -> None:
    assert load_space("imbalance", CONTEXT).continuous == ("lr", "focal_gamma")
    assert load_space("imbalance", CONTEXT, {"lr": "1e-2", "focal_gamma": "2"}).continuous == ()
    assert load_space("imbalance", CONTEXT, {"lr": "1e-3,1e-2", "focal_gamma": "2..2"}).continuous == ()


@pytest.mark.parametrize("name", [name for name in SPACES if not name.startswith("studies.")])
def test_every_trial_keeps_to_the_users_ranges_and_what_is_cut_is_said(name: str) -> None:
    overrides = {"lr": "1e-6..1e-3", "loss": "bce,focal", "focal_gamma": "1..2", "backbone": "vgg16,resnet34"}
    space = load_space(name, CONTEXT, overrides)
    with random_study() as study:
        params = [space.suggest(study.ask()) for _ in range(100)]
    assert all(1e-6 <= one.lr <= 1e-3 and one.backbone == "vgg16" for one in params)
    assert {one.loss for one in params} == {"bce", "focal"}
    assert all(1 <= one.focal_gamma <= 2 for one in params if one.loss == "focal")
    assert "--set backbone=vgg16,resnet34: cut to vgg16 by the choices of backbone" in space.notes
    assert any("--set lr=1e-06..0.001: cut to " in note for note in space.notes)


@pytest.mark.parametrize(
    ("name", "fixed", "idle"),
    [
        ("head_only", {"backbone_lr_factor": "0.1"}, "backbone_lr_factor=0.1"),
        ("imbalance", {"optimizer": "adamw", "momentum": "0.9"}, "momentum=0.9"),
        ("partial_unfreeze", {"loss": "bce", "focal_gamma": "3"}, "focal_gamma=3.0"),
    ],
)
def test_a_fixed_value_that_changes_no_trial_is_told(name: str, fixed: dict[str, object], idle: str) -> None:
    assert load_space(name, CONTEXT, fixed).notes == (f"--set {idle} has no effect on any trial here",)
    assert load_space("partial_unfreeze", CONTEXT, {"momentum": 0.9, "focal_gamma": 2, "dropout": 0}).notes == ()


def test_seed_points_outside_the_ranges_are_dropped_and_counted() -> None:
    whole = load_space("partial_unfreeze", CONTEXT)
    space = load_space("partial_unfreeze", CONTEXT, {"lr": "1e-4..5e-3", "unfreeze_depth": "2,4"})
    assert [p for p in whole.seed_points if p["lr.sgd"] == 3e-3 and p["unfreeze_depth"] != 0] == space.seed_points
    dropped = len(whole.seed_points) - len(space.seed_points)
    assert f"{dropped} of {len(whole.seed_points)} seed points are outside the ranges of --set and are left out" in (
        space.notes
    )


def test_a_seed_point_is_not_dropped_for_a_value_that_is_not_asked_for() -> None:
    space = load_space("partial_unfreeze", CONTEXT, {"optimizer": "adamw", "lr": "1e-4..1e-3"})
    assert len(space.seed_points) == 6  # that of SGD's rate would lie outside
    assert not any("seed points" in note for note in space.notes)


@pytest.mark.parametrize(
    ("name", "overrides", "problem"),
    [
        ("partial_unfreeze", {"lr": "2e-2..1e-1"}, r"leaves nothing of lr.adamw: its range \[1e-05, 0.01\]"),
        (
            "partial_unfreeze",
            {"batch_size": "1000,2000"},
            "leaves nothing of batch_size: its choices 8, 16, 32",
        ),
        ("imbalance", {"momentum": "0.8..0.9"}, "--set momentum=0.8..0.9: imbalance does not search it here"),
        ("head_only", {"unfreeze_depth": "0..2"}, "head_only does not search it here: give it one value"),
        (
            "head_only",
            {"loss": "bce", "focal_gamma": "1..2"},
            "focal_gamma=1.0..2.0: head_only does not search it",
        ),
        (
            "partial_unfreeze",
            {"unfreeze_layers": "features.28", "unfreeze_depth": "1..3"},
            "partial_unfreeze does not search it here",
        ),
        ("studies.bscs17028", {"lr": "1e-4..1e-2"}, "is a fixed list of trials and has no ranges: give lr one value"),
    ],
)
def test_a_range_that_leaves_nothing_to_search_is_refused(
    name: str, overrides: dict[str, object], problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load_space(name, CONTEXT, overrides)
    assert len(caught.value.problems) == 1


def test_all_ranges_that_a_space_does_not_search_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        load_space("imbalance", CONTEXT, {"momentum": "0.8..0.9", "dropout": "0.1,0.2", "lr": "fast"})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "--set lr=fast",
        "--set momentum=0.8..0.9",
        "--set dropout=0.1,0.2",
    ]


def test_loading_leaves_optunas_log_level_and_its_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    load_space("partial_unfreeze", CONTEXT)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_a_conditional_name_gives_its_value_to_its_field() -> None:
    assert resolve({"backbone": "vgg16", "lr.sgd": 0.02}, {}, {}) == TrialParams(backbone="vgg16", lr=0.02)


def test_two_branches_of_one_field_in_one_trial_are_refused() -> None:
    with pytest.raises(UserError, match=r"two values for lr: suggested as lr.sgd=0.02 and suggested as lr.adamw=0.001"):
        resolve({"backbone": "vgg16", "lr.sgd": 0.02, "lr.adamw": 0.001}, {}, {})


def test_returning_a_suggested_field_again_is_fine_with_the_same_value_only() -> None:
    assert resolve({"backbone": "vgg16", "lr": 0.02}, {"lr": 0.02}, {}).lr == 0.02
    with pytest.raises(UserError, match="two values for lr"):
        resolve({"backbone": "vgg16", "lr": 0.02}, {"lr": 0.2}, {})


def test_what_the_user_fixed_wins_over_both() -> None:
    params = resolve({"backbone": "vgg16", "lr": 0.02}, {"dropout": 0.5}, {"lr": 0.1, "dropout": 0.0})
    assert (params.lr, params.dropout) == (0.1, 0.0)


def test_unknown_names_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        resolve({"backbone": "vgg16", "learning_rate.sgd": 0.1}, {"droput": 0.5}, {})
    assert len(caught.value.problems) == 2


def test_a_branch_is_no_name_for_a_returned_constant() -> None:
    with pytest.raises(UserError, match=r"unknown hyperparameter 'lr.sgd'"):
        resolve({"backbone": "vgg16"}, {"lr.sgd": 0.1}, {})


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
    given = {"lr": "1e-3", "batch_size": 16, "head_widths": 320, "focal_alpha": None}
    typed = {"lr": 1e-3, "batch_size": 16, "head_widths": 320, "focal_alpha": None}
    assert checked_overrides(given, CONTEXT) == (typed, [])


def test_all_wrong_fixed_values_are_told_together() -> None:
    _, problems = checked_overrides({"lr": "fast", "momentun": 0.9}, CONTEXT)
    assert [problem.partition(":")[0] for problem in problems] == ["--set lr=fast", "--set momentun=0.9"]


def test_what_does_not_fit_the_data_is_said() -> None:
    context = SpaceContext(task="multi_label", class_count=3, train_count=20, backbones=("resnet18",))
    found = misfits(TrialParams(backbone="vgg16", batch_size=32), context)
    assert len(found) == 3
    assert "loss cross_entropy cannot train a multi-label task: give bce or focal" in found
    assert not misfits(TrialParams(backbone="resnet18", batch_size=20, loss="bce"), context)


def test_fixed_values_out_of_range_are_refused_whatever_the_space_is() -> None:
    _, (dropout, loss) = checked_overrides(
        {"dropout": "3", "loss": "crossentropy", "unfreeze_layers": "features.10"}, CONTEXT
    )
    assert dropout == "--set dropout=3: dropout must be in [0, 1), received 3.0"
    assert loss.startswith("--set loss=crossentropy: unknown loss 'crossentropy': did you mean 'cross_entropy'?")


def test_fixed_values_that_the_data_cannot_take_are_told_from_those_it_can() -> None:
    context = SpaceContext(task="multi_label", class_count=3, train_count=40, backbones=("resnet18",))
    fixed = {"batch_size": 64, "loss": "cross_entropy", "backbone": "vgg16", "lr": 0.1}
    fitting, problems = checked_overrides(fixed, context)
    assert fitting == {"lr": 0.1}
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        "--set backbone=vgg16",
        "--set batch_size=64",
        "--set loss=cross_entropy",
    ]
