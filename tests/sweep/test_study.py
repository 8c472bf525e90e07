"""What the search tells Optuna, and that it repeats: after a kill, and whatever the timing."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from toy_sweep import CONTEXT, ToySweep, learning_curve

from search_spaces.params import TrialParams
from search_spaces.registry import Space, load_space


def told(sweep: ToySweep) -> list[optuna.trial.FrozenTrial]:
    sweep.study._tell_ended(len(sweep.ledger.entries))
    return sweep.study._study.trials


def test_a_trial_that_was_stopped_early_is_told_pruned_with_its_intermediate_values(
    tmp_path: Path, wide_space: Space
) -> None:
    sweep = ToySweep(tmp_path, wide_space).run()
    stopped = [entry for entry in sweep.ledger.entries.values() if entry.status == "stopped"]
    assert stopped, "asha stopped nothing: the test shows nothing"
    by_id = {trial.user_attrs["trial_id"]: trial for trial in told(sweep)}
    for entry in stopped:
        trial = by_id[entry.trial_id]
        assert trial.state is TrialState.PRUNED
        assert trial.intermediate_values == entry.scores
        assert len(entry.scores) < sweep.budget


def test_a_trial_that_ran_its_budget_is_complete_with_its_best_epoch_not_its_last(
    tmp_path: Path, wide_space: Space
) -> None:
    def falling(params: TrialParams, epoch: int) -> float:
        return learning_curve(params, 3) - 0.01 * epoch

    sweep = ToySweep(tmp_path, wide_space, scheduler="none", trials=3, curve=falling).run()
    for trial, entry in zip(told(sweep), sweep.ledger.entries.values(), strict=True):
        assert trial.state is TrialState.COMPLETE
        assert trial.value == entry.scores[1] == max(entry.scores.values())


def test_a_nan_trial_is_told_fail_and_the_search_goes_on(tmp_path: Path, wide_space: Space) -> None:
    def sometimes_nan(params: TrialParams, epoch: int) -> float:
        return math.nan if params.optimizer == "adamw" else learning_curve(params, epoch)

    sweep = ToySweep(tmp_path, wide_space, trials=20, curve=sometimes_nan).run()
    failed = [entry for entry in sweep.ledger.entries.values() if entry.params.optimizer == "adamw"]
    assert failed
    states = {trial.user_attrs["trial_id"]: trial.state for trial in told(sweep)}
    assert all(states[entry.trial_id] is TrialState.FAIL for entry in failed)
    assert TrialState.RUNNING not in states.values()
    assert (tmp_path / "trials" / failed[0].trial_id / "error.txt").read_text() == "nan\n"


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
@pytest.mark.parametrize("killed_after", [9, 40])
def test_a_killed_sweep_goes_on_with_the_configurations_and_stops_of_one_that_was_not(
    tmp_path: Path, wide_space: Space, sampler: str, killed_after: int
) -> None:
    def sweep(name: str) -> ToySweep:
        return ToySweep(tmp_path / name, wide_space, sampler=sampler, trials=16)

    whole = sweep("whole").run()
    sweep("killed").run(epochs=killed_after)
    resumed = sweep("killed").run()
    assert resumed.outcome() == whole.outcome()


@pytest.mark.parametrize("concurrency", [2, 4])
def test_a_deterministic_sweep_repeats_under_any_timing_and_across_a_kill(
    tmp_path: Path, wide_space: Space, concurrency: int
) -> None:
    def sweep(name: str, timing: int, deterministic: bool = True) -> ToySweep:
        return ToySweep(
            tmp_path / name, wide_space, concurrency=concurrency, deterministic=deterministic, timing=timing
        )

    first = sweep("first", timing=1).run().outcome()
    assert sweep("second", timing=2).run().outcome() == first
    sweep("third", timing=3).run(epochs=37)
    assert sweep("third", timing=4).run().outcome() == first
    # Without it the same seed does not repeat, which is what makes this test worth something.
    free = [sweep(f"free{timing}", timing, deterministic=False).run().outcome() for timing in (1, 2)]
    assert free[0] != free[1]


def test_no_configuration_runs_twice_and_a_small_space_is_exhausted_exactly(
    tmp_path: Path, finite_space: Space
) -> None:
    for sampler in ("tpe", "random", "grid"):
        sweep = ToySweep(tmp_path / sampler, finite_space, sampler=sampler, trials=50, scheduler="none").run()
        configurations = [entry.params for entry in sweep.ledger.entries.values()]
        assert len(configurations) == len(set(configurations)) == 6


def test_a_duplicate_is_told_its_originals_outcome_also_after_a_kill(tmp_path: Path, finite_space: Space) -> None:
    def sweep() -> ToySweep:
        return ToySweep(tmp_path, finite_space, trials=6, scheduler="none", sampler="random", concurrency=2)

    ran = sweep().run()
    duplicates = [twin for entry in ran.ledger.entries.values() for twin in entry.asked["duplicates"]]
    assert duplicates, "no duplicate was drawn: the test shows nothing"
    values = sorted(trial.value for trial in told(ran) if trial.value is not None)
    assert len(values) == 6 + len(duplicates)
    assert sorted(trial.value for trial in told(sweep()) if trial.value is not None) == values


def test_a_grid_of_failing_trials_is_exhausted_too(tmp_path: Path, finite_space: Space) -> None:
    sweep = ToySweep(tmp_path, finite_space, sampler="tpe", trials=50, curve=lambda params, epoch: math.nan).run()
    assert len(sweep.ledger.entries) == 6


def test_seed_points_come_first_and_take_at_most_half(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=8).run()
    entries = [sweep.ledger.entries[number] for number in range(8)]
    for point, entry in zip(wide_space.seed_points, entries[:4], strict=False):
        assert entry.asked["suggested"] == point
    assert entries[4].asked["suggested"] not in wide_space.seed_points


def test_a_studys_list_runs_as_it_stands(tmp_path: Path) -> None:
    context = CONTEXT.__class__(task="single_label", class_count=2, train_count=500, backbones=("resnet18", "vgg16"))
    space = load_space("studies.bscs17028", context)
    assert space.fixed is not None
    sweep = ToySweep(tmp_path, space, trials=99, curve=lambda params, epoch: 0.5).run()
    assert tuple(entry.params for entry in sweep.ledger.entries.values()) == space.fixed


def test_a_minimised_metric_is_searched_downwards(tmp_path: Path, wide_space: Space) -> None:
    def loss(params: TrialParams, epoch: int) -> float:
        return 1 - learning_curve(params, epoch)

    sweep = ToySweep(tmp_path, wide_space, mode="min", curve=loss, trials=16).run()
    best = sweep.ledger.best()
    assert best is not None
    scores = [min(entry.scores.values()) for entry in sweep.ledger.entries.values()]
    assert sweep.ledger.best_score(best) == min(scores)
    assert sweep.study._study.direction is optuna.study.StudyDirection.MINIMIZE
