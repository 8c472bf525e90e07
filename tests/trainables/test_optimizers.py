"""Optimisers and the learning rates that schedules give them."""

import math

import pytest
import torch

from search_spaces.params import TrialParams
from trainables.optimizers import PLATEAU_PATIENCE, Schedule, make_optimizer


def optimizer_of(**params):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in (0.1, 0.01)]
    return make_optimizer(TrialParams(backbone="resnet18", **params), groups)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_sgd_and_adamw_take_their_own_hyperparameters():
    sgd = optimizer_of(momentum=0.7, weight_decay=0.03)
    assert [(g["momentum"], g["weight_decay"], g["nesterov"]) for g in sgd.param_groups] == [(0.7, 0.03, False)] * 2
    adamw = optimizer_of(optimizer="adamw", weight_decay=0.03)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.03] * 2


def test_groups_keep_their_own_learning_rates():
    optimizer = optimizer_of()
    Schedule(optimizer, "constant", 4).before_step()
    assert rates(optimizer) == [0.1, 0.01]


def test_cosine_falls_from_the_full_rate_through_half_to_nearly_nothing():
    optimizer = optimizer_of()
    schedule = Schedule(optimizer, "cosine", 8)
    seen = []
    for _ in range(8):
        schedule.before_step()
        seen.append(rates(optimizer)[0])
    assert seen[0] == pytest.approx(0.1)
    assert seen[4] == pytest.approx(0.05)
    assert seen[7] == pytest.approx(0.1 * (1 + math.cos(math.pi * 7 / 8)) / 2)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] > 0


def test_plateau_lowers_the_rate_tenfold_after_its_patience_and_not_before():
    optimizer = optimizer_of()
    schedule = Schedule(optimizer, "plateau", 100)
    losses = [1.0, 0.9] + [0.95] * PLATEAU_PATIENCE + [0.8] + [0.8] * PLATEAU_PATIENCE
    factors = []
    for loss in losses:
        schedule.after_epoch(loss)
        factors.append(round(schedule.factor, 6))
    assert factors == [1, 1, 1, 0.1, 0.1, 0.1, 0.01]


@pytest.mark.parametrize("kind", ["constant", "cosine", "plateau"])
def test_a_schedule_goes_on_from_its_state(kind):
    whole = Schedule(optimizer_of(), kind, 12)
    half = Schedule(optimizer_of(), kind, 12)
    for epoch in range(6):
        if epoch == 3:
            restored = Schedule(optimizer_of(), kind, 12)
            restored.load_state_dict(half.state_dict())
            half = restored
        for schedule in (whole, half):
            schedule.before_step()
            schedule.after_epoch(1.0)
        assert half.factor == whole.factor
