from __future__ import annotations

import dataclasses

import pytest

from benchmarks.cpu_steps import WAYS, ms_an_image
from benchmarks.limits import Cost, Part, count_flops, flop_limit, lower_bound_s, measure_cost
from benchmarks.own_process import two_at_once
from search_spaces.params import TrialParams

HEAD = TrialParams(backbone="resnet18", augment="flip", batch_size=10)
LAST_BLOCK = dataclasses.replace(HEAD, unfreeze_depth=1)
# Seconds of one image: 1 frozen, 0.1 to train, 0.01 to validate; 1000 trained parameters, 8000 bytes of activations.
COST = Cost(Part(1e9, 1.0), Part(1e8, 0.1), Part(1e7, 0.01), trained_params=1000, boundary_bytes=8000)
COSTS = {("resnet18", 0): COST, ("resnet18", 1): COST}
FAST = 1e12


def bound_s(*runs: tuple[TrialParams, int], bandwidth: float = FAST) -> float:
    return lower_bound_s(runs, 100, 20, COSTS, bandwidth)


def test_what_is_frozen_is_computed_once_for_all_trials_and_epochs() -> None:
    epoch_s = 100 * 0.1 + 20 * 0.01
    assert bound_s((HEAD, 1)) == pytest.approx((220 + epoch_s) / 2)
    assert bound_s((HEAD, 3), (HEAD, 2)) == pytest.approx((220 + 5 * epoch_s) / 2)


def test_each_boundary_is_computed_for_itself_and_each_view() -> None:
    unchanged = dataclasses.replace(HEAD, augment="none")
    assert bound_s((HEAD, 1), (unchanged, 1)) == bound_s((HEAD, 2))
    assert bound_s((HEAD, 1), (LAST_BLOCK, 1)) == pytest.approx(2 * bound_s((HEAD, 1)))
    assert bound_s((HEAD, 1)) - bound_s((unchanged, 1)) == pytest.approx(100 / 2)


def test_images_that_are_never_alike_go_through_the_frozen_layers_in_each_epoch() -> None:
    warped = dataclasses.replace(HEAD, augment="standard")
    assert bound_s((warped, 3)) == pytest.approx((3 * (100 + 10.2) + 20) / 2)


def test_an_epoch_takes_at_least_as_long_as_its_bytes_to_move() -> None:
    slow = 1e4  # bytes/s: 10 steps of 24,000 bytes and 100 images of 8,000 are 104 s, more than the 10 of the FLOPs.
    assert bound_s((HEAD, 1), bandwidth=slow) - bound_s((HEAD, 1)) == pytest.approx((104 - 10) / 2)


def test_flops_of_resnet18_are_those_of_its_layers() -> None:
    """1.814 G multiply-adds at 224 px; its last block has .411, and its backward pass no gradient of the input."""
    head, last_block = (count_flops(params, 224) for params in (HEAD, LAST_BLOCK))
    assert head.frozen.flops == pytest.approx(2 * 1.814e9, rel=0.005)
    assert head.trained_params == 513 * 3
    assert head.boundary_bytes == 4 * 512
    assert last_block.frozen.flops + last_block.validated.flops == pytest.approx(2 * 1.814e9, rel=0.005)
    assert last_block.validated.flops == pytest.approx(2 * 0.411e9, rel=0.005)
    assert 2.5 < last_block.trained.flops / last_block.validated.flops < 3
    assert last_block.boundary_bytes == 4 * 256 * 14 * 14
    assert flop_limit([(LAST_BLOCK, 5)] * 12, 785, 169, last_block) == pytest.approx(2.26, abs=0.01)


def test_a_network_without_frozen_layers_has_no_boundary() -> None:
    cost = measure_cost(TrialParams(backbone="squeezenet1_1", unfreeze_depth=4), 64, 0.01)
    assert (cost.frozen.flops, cost.frozen.seconds, cost.boundary_bytes) == (0, 0, 0)
    assert min(cost.trained.flops_per_s, cost.validated.flops_per_s) > 0


def test_of_two_processes_one_that_fails_does_not_leave_the_other_waiting() -> None:
    with pytest.raises(ZeroDivisionError):
        two_at_once(divmod, 1, 0)


@pytest.mark.parametrize("way", WAYS)
def test_a_forward_pass_and_a_step_take_time_in_each_way(way: str) -> None:
    forward_ms, step_ms = ms_an_image("squeezenet1_1", way, batch=2, seconds=0.0)
    assert forward_ms > 0
    assert step_ms > 0
