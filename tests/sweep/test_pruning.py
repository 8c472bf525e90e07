"""Who is stopped: the rule of the field, on the best epoch so far, and the same after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler
from toy_sweep import ToySweep, history_of

from search_spaces.params import TrialParams
from search_spaces.space import Space
from sweep.history import TrialHistory
from sweep.pruning import PruningRule
from sweep.run_folder import RunPaths


def filled(root: Path, scores: list[list[float]], mode: str = "max") -> TrialHistory:
    """A history in which trial k reported ``scores[k]``, an epoch each."""
    history = TrialHistory(RunPaths(root), "val_f1_macro", mode)
    for number, own in enumerate(scores):
        history.begin(number, TrialParams(backbone="resnet18"))
        for epoch, score in enumerate(own, start=1):
            history.report(number, json.dumps({"epoch": epoch, "val_f1_macro": score}))
    return history


@pytest.mark.parametrize("mode", ["max", "min"])
def test_asha_decides_as_rays_own_scheduler_once_enough_trials_have_reached_a_rung(tmp_path: Path, mode: str) -> None:
    budget, grace, factor = 27, 3, 3
    rays = AsyncHyperBandScheduler(
        time_attr="epoch", metric="score", mode=mode, max_t=budget, grace_period=grace, reduction_factor=factor
    )
    ours = PruningRule("asha", budget, grace, factor)
    chance = np.random.default_rng(0)
    # Curves that only improve: there the best so far is the last score, which is what Ray compares.
    steps = np.cumsum(chance.random((30, budget)), axis=1) * (1 if mode == "max" else -1)
    history = filled(tmp_path, [[] for _ in steps], mode)
    trials = [SimpleNamespace(trial_id=str(k)) for k in range(len(steps))]
    for trial in trials:
        rays.on_trial_add(None, trial)
    alive = set(range(len(steps)))
    stopped = 0
    while alive:
        number = int(chance.choice(sorted(alive)))
        epoch = len(history.entries[number].scores) + 1
        score = float(steps[number, epoch - 1])
        history.report(number, json.dumps({"epoch": epoch, "val_f1_macro": score}))
        decision = rays.on_trial_result(None, trials[number], {"epoch": epoch, "score": score})
        reason = ours.reason_to_stop(history, number, epoch, history.entries.keys())
        if epoch == budget:
            alive.discard(number)
            continue
        others = sum(epoch in state.scores for state in history.entries.values()) - 1
        if others < factor:
            assert reason is None, "too few have come to this rung to call any of them worse"
            alive -= {number} if decision == "STOP" else set()
            continue
        assert (reason is not None) == (decision == "STOP"), (number, epoch, reason)
        if reason:
            stopped += 1
            alive.discard(number)
    assert stopped > 10


def test_asha_judges_a_trial_by_its_best_epoch_so_far(tmp_path: Path) -> None:
    history = filled(tmp_path, [[0.9, 0.1, 0.1], [0.5] * 3, [0.5] * 3, [0.5] * 3])
    rule = PruningRule("asha", 9, grace_period=3, reduction_factor=3)
    assert rule.reason_to_stop(history, 0, 3, history.entries.keys()) is None


@pytest.mark.parametrize(
    ("scheduler", "decides", "passes"),
    [("asha", (3,), (1, 2, 4, 5, 9)), ("median", (3, 4, 5), (1, 2, 9)), ("none", (), (1, 2, 3, 4, 5, 9))],
)
def test_other_trials_are_looked_at_only_where_one_may_be_stopped(
    tmp_path: Path, scheduler: str, decides: tuple[int, ...], passes: tuple[int, ...]
) -> None:
    """There may be thousands, and all workers wait."""
    history = filled(tmp_path, [[0.5] * 9] * 5)
    rule = PruningRule(scheduler, 9, grace_period=3, reduction_factor=3)
    peers = [*history.entries, 99]
    for epoch in passes:
        assert rule.reason_to_stop(history, 0, epoch, peers) is None
    for epoch in decides:
        with pytest.raises(KeyError, match="99"):  # There is no such trial.
            rule.reason_to_stop(history, 0, epoch, peers)


def mirrored(scores: list[list[float]], mode: str) -> list[list[float]]:
    """The same curves for a metric of which less is better."""
    return scores if mode == "max" else [[1 - score for score in own] for own in scores]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("max", "0.3000 after 1 epochs, below the cutoff 0.6667"),
        ("min", "0.7000 after 1 epochs, above the cutoff 0.3333"),
    ],
)
def test_the_reason_names_score_epoch_and_cutoff(tmp_path: Path, mode: str, said: str) -> None:
    """A trial without a score takes no part."""
    history = filled(tmp_path, mirrored([[0.8], [0.6], [0.5], [0.3], [math.nan]], mode), mode)
    rule = PruningRule("asha", 9, grace_period=1, reduction_factor=3)
    reason = rule.reason_to_stop(history, 3, 1, history.entries.keys())
    assert reason == f"asha: best val_f1_macro {said} of 3 others"
    assert rule.reason_to_stop(history, 3, 1, [0, 1, 3]) is None, "of two others none is the best of three"


@pytest.mark.parametrize(("mode", "median"), [("max", "0.7000"), ("min", "0.3000")])
def test_median_stops_what_is_worse_than_the_median_of_running_averages(tmp_path: Path, mode: str, median: str) -> None:
    scores = [[0.5, 0.7], [0.6, 0.8], [0.7, 0.9], [0.55, 0.6], [0.72, 0.7]]
    history = filled(tmp_path, mirrored(scores, mode), mode)
    rule = PruningRule("median", 9, grace_period=2, reduction_factor=3)
    peers = [0, 1, 2]
    assert f"median {median} of 3 running averages" in str(rule.reason_to_stop(history, 3, 2, peers))
    assert rule.reason_to_stop(history, 4, 2, peers) is None
    assert rule.reason_to_stop(history, 3, 1, peers) is None, "before the grace period"
    assert rule.reason_to_stop(history, 3, 2, [0, 1]) is None, "too few to have a median worth the name"


def test_nothing_is_stopped_at_its_budget_or_without_a_scheduler(tmp_path: Path) -> None:
    history = filled(tmp_path, [[0.9] * 9, [0.1] * 9])
    for scheduler, epoch in (("asha", 9), ("none", 3)):
        rule = PruningRule(scheduler, 9, grace_period=3, reduction_factor=3)
        assert rule.reason_to_stop(history, 1, epoch, history.entries.keys()) is None


def test_rungs_survive_a_kill(tmp_path: Path, wide_space: Space) -> None:
    """After the kill, a trial at a rung is still compared with those that reached it before."""
    ToySweep(tmp_path, wide_space, trials=12).run(epochs=30)
    resumed = ToySweep(tmp_path, wide_space, trials=12)
    number = resumed.history.begin(99, TrialParams(backbone="resnet18")).number
    for epoch in (1, 2):
        resumed.history.report(number, json.dumps({"epoch": epoch, "val_f1_macro": 0.01}))
    assert resumed.pruning.reason_to_stop(resumed.history, number, 2, resumed.history.entries.keys()) is not None


def test_a_trial_killed_before_its_rung_was_decided_is_decided_when_it_reports_again(tmp_path: Path) -> None:
    """Its own record in the rung must not count as a promotion."""
    filled(tmp_path, [[0.9] * 3, [0.8] * 3, [0.1] * 3, [0.7] * 3])
    history = history_of(tmp_path)
    history.report(2, json.dumps({"epoch": 3, "val_f1_macro": 0.1}))
    rule = PruningRule("asha", 9, grace_period=3, reduction_factor=3)
    assert rule.reason_to_stop(history, 2, 3, history.entries.keys()) is not None


@pytest.mark.parametrize("status", ["completed", "pruned", "failed"])
@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_trial_that_ended_by_its_own_patience_is_still_compared_with(
    tmp_path: Path, scheduler: str, status: str
) -> None:
    history = filled(tmp_path, [[0.9], [0.8], [0.7], [0.1] * 3])
    rule = PruningRule(scheduler, 9, grace_period=3, reduction_factor=3)
    assert rule.reason_to_stop(history, 3, 3, history.entries.keys()) is None, "the others have not come so far"
    for number in range(3):
        history.end(number, status, "2 epochs without a better val_f1_macro")
    assert (rule.reason_to_stop(history, 3, 3, history.entries.keys()) is not None) == (status == "completed")
