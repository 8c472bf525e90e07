"""What the search tells Optuna, and that it repeats: after a kill, and whatever the timing."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from toy_sweep import CONTEXT, Curve, ToySweep, learning_curve

from search_spaces import user_file
from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from search_spaces.space import Space, load_space
from sweep.endings import BAD_INPUT, SweepStopped
from sweep.history import retry_failed


def told(sweep: ToySweep) -> list[optuna.trial.FrozenTrial]:
    sweep.search._tell_ended(len(sweep.history.entries))
    return sweep.search._study.trials


def test_a_trial_that_was_stopped_early_is_told_pruned_with_its_intermediate_values(
    tmp_path: Path, wide_space: Space
) -> None:
    sweep = ToySweep(tmp_path, wide_space).run()
    stopped = [state for state in sweep.history.entries.values() if state.status == "pruned"]
    assert stopped, "asha stopped nothing: the test shows nothing"
    by_id = {trial.user_attrs["trial_id"]: trial for trial in told(sweep)}
    for state in stopped:
        trial = by_id[state.trial_id]
        assert trial.state is TrialState.PRUNED
        assert trial.intermediate_values == state.scores
        assert len(state.scores) < sweep.budget


def test_the_gaussian_process_learns_from_trials_that_were_stopped_too(tmp_path: Path, wide_space: Space) -> None:
    """Optuna's own looks at completed trials alone, of which ASHA leaves few."""
    sweep = ToySweep(tmp_path, wide_space, sampler="gp", trials=9).run()
    stopped = {state.trial_id: state for state in sweep.history.entries.values() if state.status == "pruned"}
    assert stopped, "asha stopped nothing: the test shows nothing"
    for search in (sweep, ToySweep(tmp_path, wide_space, sampler="gp", trials=9)):
        trials = {trial.user_attrs["trial_id"]: trial for trial in told(search)}
        for name, state in stopped.items():
            assert (trials[name].state, trials[name].value) == (TrialState.COMPLETE, max(state.scores.values()))


def test_a_trial_that_ran_its_budget_is_complete_with_its_best_epoch_not_its_last(
    tmp_path: Path, wide_space: Space
) -> None:
    def falling(params: TrialParams, epoch: int) -> float:
        return learning_curve(params, 3) - 0.01 * epoch

    sweep = ToySweep(tmp_path, wide_space, scheduler="none", trials=3, curve=falling).run()
    for trial, state in zip(told(sweep), sweep.history.entries.values(), strict=True):
        assert trial.state is TrialState.COMPLETE
        assert trial.value == state.scores[1] == max(state.scores.values())


def test_a_nan_trial_is_told_fail_and_the_search_goes_on(tmp_path: Path, wide_space: Space) -> None:
    def sometimes_nan(params: TrialParams, epoch: int) -> float:
        return math.nan if params.optimizer == "adamw" else learning_curve(params, epoch)

    sweep = ToySweep(tmp_path, wide_space, trials=20, curve=sometimes_nan).run()
    failed = [state for state in sweep.history.entries.values() if state.params.optimizer == "adamw"]
    assert failed
    states = {trial.user_attrs["trial_id"]: trial.state for trial in told(sweep)}
    assert all(states[state.trial_id] is TrialState.FAIL for state in failed)
    assert TrialState.RUNNING not in states.values()
    assert (tmp_path / "trials" / failed[0].trial_id / "error.txt").read_text() == "nan\n"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_failed_trial_that_runs_again_is_running_and_then_told_anew(
    tmp_path: Path, finite_space: Space, deterministic: bool
) -> None:
    """So are its duplicates."""

    def sweep(curve: Curve, trials: int) -> ToySweep:
        where = {"sampler": "random", "scheduler": "none", "concurrency": 2, "deterministic": deterministic, "seed": 4}
        return ToySweep(tmp_path, finite_space, trials=trials, curve=curve, **where)

    def first_fails(params: TrialParams, epoch: int) -> float:
        return math.nan if params == first.params else learning_curve(params, epoch)

    def states_of_it(search: ToySweep) -> list[TrialState]:
        return [trial.state for trial in told(search) if trial.params == first.suggestion.suggested]

    first = sweep(learning_curve, trials=1).run(epochs=1).history.entries[0]
    ended = sweep(first_fails, trials=5).run()
    assert ended.history.count("failed") == 1
    assert states_of_it(ended)[:2] == [TrialState.FAIL, TrialState.PRUNED], "no duplicate of it was drawn"
    retry_failed(ended.history.paths, "val_f1_macro", "max", broken_too=True)
    resumed = sweep(learning_curve, trials=6)
    assert set(states_of_it(resumed)) == {TrialState.RUNNING}
    resumed.run()
    assert len(resumed.history.entries) == 6
    assert set(states_of_it(resumed)) == {TrialState.COMPLETE}


@pytest.mark.parametrize(
    ("sampler", "killed_after"),  # the model of gp takes seconds an ask, and begins with the eleventh trial
    [("tpe", 9), ("tpe", 40), ("random", 9), ("random", 40), ("qmc", 9), ("qmc", 40), ("gp", 40)],
)
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


def test_every_name_of_every_branch_comes_from_one_sobol_sequence(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, sampler="qmc", concurrency=4, trials=16).run()
    positions = [state.suggestion.positions for _, state in sorted(sweep.history.entries.items())]
    assert len(set().union(*positions)) == 1
    assert [list(one.values()) for one in positions] == [[number] for number in range(16)]


def test_an_extended_sweep_goes_on_with_its_sampler(tmp_path: Path, wide_space: Space) -> None:
    ToySweep(tmp_path, wide_space, trials=4).run()
    states = ToySweep(tmp_path, wide_space, trials=16).run().history.entries
    seeds = [{name: states[k].suggestion.suggested[name] for name in wide_space.seed_points[k]} for k in range(2)]
    assert seeds == wide_space.seed_points[:2]
    drawn = [states[k].suggestion.suggested for k in range(2, 16)]
    assert not [one for one in drawn if any(point.items() <= one.items() for point in wide_space.seed_points)]


def test_seed_points_that_leave_open_what_decides_are_tried_after_a_kill_too(tmp_path: Path) -> None:
    rates = [0.001 * (k + 1) for k in range(12)]
    (tmp_path / "open.py").write_text(
        "def space(trial, context):\n"
        "    trial.suggest_categorical('backbone', context.backbones)\n"
        "    optimizer = trial.suggest_categorical('optimizer', ('sgd', 'adamw'))\n"
        "    trial.suggest_float(f'lr.{optimizer}', 1e-5, 1e-1, log=True)\n"
        "    return {}\n"
        f"def seed_points(context): return [{{'lr.sgd': rate}} for rate in {rates}]\n"
    )
    space = load_space(str(tmp_path / "open.py"), CONTEXT)
    ToySweep(tmp_path / "run", space, trials=6).run()
    states = ToySweep(tmp_path / "run", space, trials=12).run().history.entries
    drawn = [states[k].suggestion.suggested.get("lr.sgd") for k in range(12)]
    assert None in drawn[:6]
    assert set(drawn[6:]) > {None}
    assert [rate for rate in drawn if rate] == [rate for rate, one in zip(rates, drawn, strict=True) if one]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_gaussian_process_knows_of_a_running_trial_what_is_in_it(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, sampler="gp", scheduler="none", budget=1, trials=11).run()
    sweep.search._seed_points = []
    state = sweep.search.ask()
    assert state is not None
    (running,) = sweep.search._study.get_trials(states=(TrialState.RUNNING,))
    assert not running.system_attrs["gp:relative_params:0"], "what it drew for other branches"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_draw_knows_of_a_running_trial_what_is_in_it(tmp_path: Path, wide_space: Space) -> None:
    """Optuna's TPE would also know what it had drawn for branches that the trial does not take, until a kill."""

    def known(sweep: ToySweep) -> list[dict[str, object]]:
        sampler, study = sweep.search._sampler_of(99, 0), sweep.search._study
        assert isinstance(sampler, optuna.samplers.TPESampler)
        running = study.get_trials(states=(TrialState.RUNNING,))
        return [sampler._get_params(trial, study) for trial in running]

    def sweep() -> ToySweep:
        return ToySweep(tmp_path, wide_space, concurrency=4, trials=40)

    ran = sweep().run(epochs=60)
    running = [state.suggestion.suggested for state in ran.history.unfinished()]
    assert len(running) > 1
    assert min(state.number for state in ran.history.unfinished()) > 10, "drawn by chance: the test shows nothing"
    assert known(ran) == running
    assert known(sweep()) == running


def test_no_configuration_runs_twice_and_a_small_space_is_exhausted_exactly(
    tmp_path: Path, finite_space: Space
) -> None:
    for sampler in ("tpe", "random", "grid"):
        sweep = ToySweep(tmp_path / sampler, finite_space, sampler=sampler, trials=50, scheduler="none").run()
        configurations = [state.params for state in sweep.history.entries.values()]
        assert len(configurations) == len(set(configurations)) == 6


def test_a_duplicate_is_told_its_originals_outcome_also_after_a_kill(tmp_path: Path, finite_space: Space) -> None:
    def sweep() -> ToySweep:
        return ToySweep(tmp_path, finite_space, trials=6, scheduler="none", sampler="random", concurrency=2)

    ran = sweep().run()
    duplicates = [twin for state in ran.history.entries.values() for twin in state.suggestion.duplicates]
    assert duplicates, "no duplicate was drawn: the test shows nothing"
    values = sorted(trial.value for trial in told(ran) if trial.value is not None)
    assert len(values) == 6 + len(duplicates)
    assert sorted(trial.value for trial in told(sweep()) if trial.value is not None) == values


@pytest.mark.usefixtures("soon_exhausted")
def test_a_grid_of_failing_trials_is_exhausted_too(tmp_path: Path, finite_space: Space) -> None:
    sweep = ToySweep(tmp_path, finite_space, sampler="tpe", trials=50, curve=lambda params, epoch: math.nan).run()
    assert len(sweep.history.entries) == 6


def test_seed_points_come_first_and_take_at_most_half(tmp_path: Path, wide_space: Space) -> None:
    sweep = ToySweep(tmp_path, wide_space, trials=8).run()
    states = [sweep.history.entries[number] for number in range(8)]
    for point, state in zip(wide_space.seed_points, states[:4], strict=False):
        assert state.suggestion.suggested == point
    assert states[4].suggestion.suggested not in wide_space.seed_points


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random", "grid"])
def test_a_users_own_seed_points_are_all_tried_first_whatever_the_sampler(tmp_path: Path, sampler: str) -> None:
    points = [{"batch_size": 32, "unfreeze_depth": 3}, {"batch_size": 8, "unfreeze_depth": 0}, {"unfreeze_depth": 4}]
    (tmp_path / "mine.py").write_text(
        "def space(trial, context):\n"
        "    trial.suggest_categorical('batch_size', [8, 16, 32, 64])\n"
        "    trial.suggest_int('unfreeze_depth', 0, 4)\n"
        "    return {'backbone': context.backbones[0]}\n"
        f"def seed_points(context):\n    return {points!r}\n"
    )
    space = load_space(str(tmp_path / "mine.py"), CONTEXT)

    def sweep() -> ToySweep:
        return ToySweep(tmp_path / "run", space, sampler=sampler, trials=6, scheduler="none", concurrency=2)

    sweep().run(epochs=3)
    suggested = [state.suggestion.suggested for state in sweep().run().history.entries.values()]
    assert len(suggested) == 6, "after them the sampler goes on"
    assert suggested[:2] == points[:2]
    assert suggested[2]["unfreeze_depth"] == 4
    assert len({tuple(one.items()) for one in suggested}) == 6


def test_what_a_space_refuses_costs_no_seed_point(tmp_path: Path) -> None:
    """A point may leave a name out; of ten values drawn for it here, nine are refused."""
    (tmp_path / "mine.py").write_text(
        "import pathlib\n"
        "def space(trial, context):\n"
        "    trial.suggest_int('batch_size', 1, 99)\n"
        "    if trial.suggest_categorical('dropout', [0.1 * k for k in range(10)]) > 0 and BROKEN():\n"
        "        raise ValueError('not with this dropout')\n"
        "    return {'backbone': context.backbones[0]}\n"
        "def seed_points(context):\n    return [{'batch_size': 16}]\n"
        "BROKEN = pathlib.Path(__file__).with_name('broken').exists\n"
    )
    space = load_space(str(tmp_path / "mine.py"), CONTEXT)
    (tmp_path / "broken").touch()
    sweep = ToySweep(tmp_path / "run", space, sampler="random", trials=1, scheduler="none").run()
    (first,) = sweep.history.entries.values()
    assert first.suggestion.suggested["batch_size"] == 16
    assert first.suggestion.refused, "nothing was refused: the test shows nothing"


def test_a_studys_list_runs_as_it_stands(tmp_path: Path) -> None:
    context = CONTEXT.__class__(task="single_label", class_count=2, train_count=500, backbones=("resnet18", "vgg16"))
    space = load_space("studies.bscs17028", context)
    assert space.fixed is not None
    sweep = ToySweep(tmp_path, space, trials=99, curve=lambda params, epoch: 0.5).run()
    assert tuple(state.params for state in sweep.history.entries.values()) == space.fixed


@pytest.mark.usefixtures("soon_exhausted")
@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random", "grid"])
def test_every_sampler_runs_with_every_scheduler(
    tmp_path: Path, wide_space: Space, finite_space: Space, sampler: str, scheduler: str
) -> None:
    """Grid over a continuous space is refused before a run begins."""
    space = finite_space if sampler == "grid" else wide_space
    trials = 12 if sampler == "gp" else 16  # its model takes seconds an ask, and begins with the eleventh
    sweep = ToySweep(tmp_path, space, sampler=sampler, scheduler=scheduler, trials=trials, concurrency=2).run()
    assert len(sweep.history.entries) == (6 if sampler == "grid" else trials)
    assert sweep.history.unfinished() == []
    assert TrialState.RUNNING not in {trial.state for trial in told(sweep)}


def space_broken_later(folder: Path, branch: str, line: str) -> Space:
    """Does ``line`` in a branch, but not while it is tried out."""
    (folder / "rare.py").write_text(
        "import pathlib, time\n"
        "def space(trial, context):\n"
        "    trial.suggest_categorical('backbone', context.backbones)\n"
        "    depth = trial.suggest_int('unfreeze_depth', 0, 4)\n"
        "    rare = trial.suggest_categorical('augment', ('none', 'flip'))\n"
        f"    if {branch} and BROKEN():\n"
        f"        {line}\n"
        "    return {}\n"
        "BROKEN = pathlib.Path(__file__).with_name('broken').exists\n"
    )
    space = load_space(str(folder / "rare.py"), CONTEXT)
    (folder / "broken").touch()
    return space


@pytest.mark.usefixtures("soon_exhausted")
@pytest.mark.parametrize("sampler", ["tpe", "grid", "qmc"])
def test_a_space_that_raises_in_a_rare_branch_does_not_end_the_sweep(tmp_path: Path, sampler: str) -> None:
    space = space_broken_later(tmp_path, "rare == 'flip' and depth == 3", "raise KeyError('forgotten')")

    def sweep(name: str, said: list[str]) -> ToySweep:
        made = ToySweep(tmp_path / name, space, sampler=sampler, trials=40, scheduler="none", budget=1)
        made.search.on_refused.append(said.append)
        return made

    said: list[str] = []
    whole = sweep("whole", said).run()
    # 3 backbones x 5 depths x 2 augments, without the three that raise.
    assert len(whole.history.entries) == 27
    assert len(said) == 1
    assert "KeyError: 'forgotten' at line 7" in said[0]
    sweep("killed", []).run(epochs=20)
    assert sweep("killed", []).run().outcome() == whole.outcome()


@pytest.mark.usefixtures("soon_exhausted")
@pytest.mark.parametrize("line", ["trial.suggest_float('lr', 0.001, 0.1)", "trial.suggest_int('lr', 1, 10**12)"])
def test_a_grid_tells_of_a_range_in_a_rare_branch(tmp_path: Path, line: str) -> None:
    """Its values would be enumerated, as far as memory goes."""
    space = space_broken_later(tmp_path, "rare == 'flip' and depth == 3", line)
    sweep = ToySweep(tmp_path / "run", space, sampler="grid", trials=40, scheduler="none", budget=1)
    said: list[str] = []
    sweep.search.on_refused.append(said.append)
    sweep.run()
    assert len(sweep.history.entries) == 27
    assert len(said) == 1
    assert "grid cannot try every value of lr, drawn from a range" in said[0]
    assert "at line 7 (in space)" in said[0]


@pytest.mark.parametrize("line", ["time.sleep(10**6)", "os._exit(1)"])
def test_a_space_that_hangs_or_dies_in_a_rare_branch_does_not_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    space = space_broken_later(tmp_path, "rare == 'flip' and depth == 3 and trial", f"import os; {line}")
    monkeypatch.setattr(user_file, "CALL_WITHIN_S", 2.0)
    said: list[str] = []
    sweep = ToySweep(tmp_path / "run", space, sampler="random", trials=16, scheduler="none", budget=1)
    sweep.search.on_refused.append(said.append)
    sweep.run()
    assert len(sweep.history.entries) == 16
    assert len(said) == 1
    assert "at line 7 (in space)" in said[0] or line == "os._exit(1)"


def test_a_space_that_hangs_in_every_draw_ends_the_sweep_which_goes_on_when_it_no_longer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sweep() -> ToySweep:
        return ToySweep(tmp_path / "run", space, trials=9, scheduler="none", concurrency=2)

    space = space_broken_later(tmp_path, "True", "time.sleep(10**6)")
    (tmp_path / "broken").unlink()
    ran = sweep().run(epochs=8)
    (tmp_path / "broken").touch()
    monkeypatch.setattr(user_file, "CALL_WITHIN_S", 2.0)
    with pytest.raises(SweepStopped, match=r"rare\.py did not return within 2 s at line 7 \(in space\)") as stopped:
        ran.run()
    assert stopped.value.exit_code == BAD_INPUT
    assert "line 7 in space" in caplog.text, "the frames are in the log"
    assert ran.history.unfinished()
    (tmp_path / "broken").unlink()
    assert len(sweep().run().history.entries) == 9


def test_a_run_whose_space_now_gives_other_configurations_is_not_gone_on_with(tmp_path: Path) -> None:
    """As one that depends on the hour: trying it out cannot tell."""
    (tmp_path / "hour.py").write_text(
        "import pathlib\n"
        "def space(trial, context):\n"
        "    trial.suggest_int('unfreeze_depth', 0, 4)\n"
        "    later = pathlib.Path(__file__).with_name('later').exists()\n"
        "    return {'backbone': context.backbones[0], 'lr': 0.2 if later else 0.1}\n"
    )
    space = load_space(str(tmp_path / "hour.py"), CONTEXT)
    ToySweep(tmp_path / "run", space, trials=4).run(epochs=8)
    (tmp_path / "later").touch()
    with pytest.raises(UserError, match=r"may depend only on trial and context .*: trial t0001 began with another one"):
        ToySweep(tmp_path / "run", load_space(str(tmp_path / "hour.py"), CONTEXT), trials=4)


def test_a_run_whose_space_has_changed_is_not_gone_on_with(tmp_path: Path, wide_space: Space) -> None:
    """As when the weights of a backbone are gone, or are there at last."""
    ToySweep(tmp_path, wide_space, trials=4).run()
    fewer = load_space("partial_unfreeze", dataclasses.replace(CONTEXT, backbones=("resnet18",)))
    with pytest.raises(UserError, match="backbone of space partial_unfreeze offers resnet18, but squeezenet1_1, resn"):
        ToySweep(tmp_path, fewer, trials=8)


def test_a_study_whose_list_has_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    def study(*backbones: str) -> Space:
        return load_space("studies.bscs17028", dataclasses.replace(CONTEXT, class_count=2, backbones=backbones))

    ToySweep(tmp_path, study("vgg16"), curve=lambda params, epoch: 0.5).run(epochs=8)
    with pytest.raises(UserError, match=r"the list studies\.bscs17028 has changed since this run began: trial 1"):
        ToySweep(tmp_path, study("resnet18", "vgg16"))


def test_a_deterministic_study_waits_for_the_trials_that_its_rungs_compare(tmp_path: Path) -> None:
    space = load_space("studies.bscs17028", dataclasses.replace(CONTEXT, class_count=2, backbones=("vgg16",)))
    sweep = ToySweep(tmp_path, space, deterministic=True, concurrency=2)
    assert sweep.search.ask() is not None
    assert sweep.search.ask() is not None
    assert sweep.search.ask() is None


def test_a_trial_whose_folder_is_gone_is_replaced_by_another(tmp_path: Path, wide_space: Space) -> None:
    ToySweep(tmp_path, wide_space, trials=6).run()
    shutil.rmtree(tmp_path / "trials" / "t0002")
    again = ToySweep(tmp_path, wide_space, trials=6).run()
    assert sorted(again.history.entries) == [0, 1, 3, 4, 5, 6]
    assert again.history.unfinished() == []


def test_a_duplicate_of_a_trial_that_a_kill_left_running_learns_its_outcome(
    tmp_path: Path, finite_space: Space
) -> None:
    def sweep() -> ToySweep:
        return ToySweep(tmp_path, finite_space, trials=6, scheduler="none", sampler="random", concurrency=6)

    started = sweep()
    begun = [started.search.ask() for _ in range(6)]
    twins = {twin.of: state for state in begun if state for twin in state.suggestion.duplicates}
    original, holder = min((of, state.number) for of, state in twins.items() if of != state.number)
    for number in range(6):
        if number != original:
            started.history.report(number, json.dumps({"epoch": 1, "val_f1_macro": 0.1}))
            started.history.end(number, "completed", "")
    assert started.history.entries[holder].ended
    resumed = sweep()
    resumed.history.report(original, json.dumps({"epoch": 1, "val_f1_macro": 0.8}))
    resumed.history.end(original, "completed", "")
    name = resumed.history.entries[original].trial_id
    same = [trial for trial in told(resumed) if trial.user_attrs["trial_id"] == name]
    assert len(same) >= 2
    assert {trial.value for trial in same} == {0.8}


def test_a_minimised_metric_is_searched_downwards(tmp_path: Path, wide_space: Space) -> None:
    def loss(params: TrialParams, epoch: int) -> float:
        return 1 - learning_curve(params, epoch)

    sweep = ToySweep(tmp_path, wide_space, mode="min", curve=loss, trials=16).run()
    best = sweep.history.best()
    assert best is not None
    scores = [min(state.scores.values()) for state in sweep.history.entries.values()]
    assert best.score == min(scores)
    assert sweep.search._study.direction is optuna.study.StudyDirection.MINIMIZE
