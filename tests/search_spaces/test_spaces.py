"""The spaces of ours: whatever the data, what they offer can run."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.params import BACKBONE_NAMES, LOSSES, SpaceContext
from search_spaces.space import SPACES, Space, load_space, misfits, random_study

SEARCHED = [name for name in SPACES if not name.startswith("studies.")]
REAL = SpaceContext(task="single_label", class_count=3, train_count=785, backbones=BACKBONE_NAMES)

contexts = st.builds(
    SpaceContext,
    task=st.sampled_from(("single_label", "multi_label")),
    class_count=st.integers(2, 14),
    train_count=st.integers(1, 12_000),
    backbones=st.lists(st.sampled_from(BACKBONE_NAMES), min_size=1, unique=True).map(tuple),
)


@pytest.mark.parametrize("name", SEARCHED)
@settings(max_examples=12)
@given(context=contexts)
def test_random_trials_all_fit_the_data(name: str, context: SpaceContext) -> None:
    space = load_space(name, context)
    with random_study() as study:
        for _ in range(40):
            assert misfits(space.suggest(study.ask()), context) == []


@pytest.mark.parametrize("name", SEARCHED)
def test_every_seed_point_is_run_as_it_is_written(name: str) -> None:
    space = load_space(name, REAL)
    for point in space.seed_points:
        with random_study() as study:
            study.enqueue_trial(point)
            trial = study.ask()
            params = space.suggest(trial)
            assert trial.params == point
            assert all(
                getattr(params, key.partition(".")[0]) == value for key, value in point.items() if value != "none"
            )


def test_seed_points_begin_with_every_backbone_and_hold_every_depth_of_each() -> None:
    points = load_space("partial_unfreeze", REAL).seed_points
    assert [point["backbone"] for point in points[: len(BACKBONE_NAMES)]] == list(BACKBONE_NAMES)
    assert {point["unfreeze_depth"] for point in points[: len(BACKBONE_NAMES)]} == {0, 2, 4}
    assert {(p["backbone"], p["unfreeze_depth"]) for p in points} == {(b, d) for b in BACKBONE_NAMES for d in (0, 2, 4)}
    assert len(points) == 3 * len(BACKBONE_NAMES)


def test_a_short_sweep_of_two_backbones_starts_from_each_depth_of_each() -> None:
    context = SpaceContext(task="multi_label", class_count=3, train_count=12, backbones=("resnet18", "vgg16"))
    points = load_space("partial_unfreeze", context).seed_points
    assert len({(point["backbone"], point["unfreeze_depth"]) for point in points}) == 6
    assert {point["loss"] for point in points} == {"bce"}
    assert {point["batch_size"] for point in points} == {8}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr.sgd", 1e-5),
        ("lr.sgd", 1e-2),
        ("batch_size", 8),
        ("batch_size", 128),
        ("momentum", 0.9),
        ("momentum", 0.95),
        ("head_widths", "none"),
        ("head_widths", "1024+512"),
        ("head_widths", "256+128"),
        ("head_widths", "320"),
        ("dropout", 0.0),
        ("dropout", 0.5),
        ("loss", "focal"),
        ("focal_gamma", 1.5),
        ("lr_schedule", "plateau"),
        ("unfreeze_depth", 4),
        ("augment", "standard"),
    ],
)
def test_partial_unfreeze_covers_what_the_studies_varied(name: str, value: object) -> None:
    distribution = load_space("partial_unfreeze", REAL).distributions[name]
    assert distribution._contains(distribution.to_internal_repr(value))


def test_imbalance_never_weighs_the_classes_twice_and_offers_the_studies_focal_loss() -> None:
    space = load_space("imbalance", REAL)
    with random_study() as study:
        trials = [space.suggest(study.ask()) for _ in range(200)]
    assert {trial.class_weights for trial in trials if trial.focal_alpha is not None} == {"none"}
    assert {trial.focal_alpha for trial in trials} >= {None, 0.25}
    assert {trial.loss for trial in trials} == set(LOSSES)


@pytest.mark.parametrize(("name", "depth"), [("head_only", 0), ("full_finetune", 4)])
def test_spaces_of_one_depth_keep_to_it(name: str, depth: int) -> None:
    space = load_space(name, REAL)
    with random_study() as study:
        assert {space.suggest(study.ask()).unfreeze_depth for _ in range(20)} == {depth}


def test_a_head_alone_may_learn_faster_than_a_whole_network() -> None:
    def highest(space: Space) -> float:
        distribution = space.distributions["lr.sgd"]
        assert isinstance(distribution, optuna.distributions.FloatDistribution)
        return distribution.high

    assert highest(load_space("head_only", REAL)) > highest(load_space("full_finetune", REAL))


@pytest.mark.parametrize("name", ["partial_unfreeze", "full_finetune", "head_only", "imbalance"])
def test_a_network_without_batchnorm_starts_at_its_own_rate_in_every_space(name: str) -> None:
    points = [point for point in load_space(name, REAL).seed_points if point["backbone"] == "vgg16"]
    assert {point.get("lr.sgd", point.get("lr")) for point in points} == {3e-3}
