"""The best trials of an earlier sweep are tried first, or it is said why not."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_files import change_sweep
from searched_run import write_searched

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.config import SweepConfig, resolve
from sweep.history import TrialHistory
from sweep.machine import Machine
from sweep.optuna_search import OptunaSearch
from sweep.plan import Plan, make_plan
from sweep.run_folder import RunPaths
from sweep.trial_records import TrialRecord, rank, read_trials

BACKBONES = ("mobilenet_v2", "resnet18", "vgg16")
OWN = """
def space(trial, context):
    trial.suggest_categorical("batch_size", [8, 16, 32, 64])
    trial.suggest_int("unfreeze_depth", 0, {deepest})
    return {{"backbone": "resnet18", "lr": {lr}}}
"""


def by_rate(params: TrialParams, epoch: int) -> float:
    return 0.9 - 0.1 * abs(math.log10(params.lr) + 2.5) - 0.01 * abs(epoch - 3)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run of 20 trials of ``partial_unfreeze``, one in four of them failed."""
    return write_searched(tmp_path / "earlier", by_rate, trials=20)


def planned(run: Path, **asked: Any) -> Plan:
    """For data of three classes and 800 training images, with random weights of three networks."""
    images = {"train": 800, "val": 20, "test": 0}
    dataset = {"task": "single_label", "classes": ["a", "b", "c"], "images": images, "fingerprint": ""}
    given = {"data": "x", "weights": "random", "backbones": BACKBONES, "image_size": 64, "warm_start": str(run)}
    machine = Machine(cpus=2, gpus=0)
    return make_plan(
        resolve(SweepConfig(**given | asked), machine), [], lambda _: dataset, own_epochs=False, machine=machine
    )


def refused(run: Path, **asked: Any) -> str:
    with pytest.raises(UserError) as raised:
        planned(run, **asked)
    (problem,) = raised.value.problems
    return problem


def drawn(plan: Plan, root: Path, count: int) -> list[TrialParams]:
    """The first trials of a sweep."""
    search = OptunaSearch(
        plan.space,
        TrialHistory(RunPaths(root), plan.config.metric, plan.mode),
        sampler=plan.config.sampler,
        trials=plan.config.trials,
        seed=0,
        concurrency=count,
        deterministic=False,
        warm=[one.point for one in plan.warm_trials],
    )
    states = [search.ask() for _ in range(count)]
    return [state.params for state in states if state is not None]


def best_of(run: Path) -> list[TrialRecord]:
    paths = RunPaths(run)
    records = read_trials(paths.trial_folders(), paths.trials, "val_f1_macro", "max", [])
    return rank(records, "max")


def own_space(folder: Path, name: str = "mine", *, deepest: int = 4, lr: float = 0.01, points: str = "[]") -> str:
    path = folder / f"{name}.py"
    path.write_text(OWN.format(deepest=deepest, lr=lr) + f"def seed_points(context):\n    return {points}\n")
    return str(path)


def write_own(run: Path, depths: list[int], batch_size: int = 32, lr: float = 0.01) -> Path:
    """A run whose trials, the best first, differ in their depth."""
    write_searched(run, lambda params, epoch: 0.5, trials=len(depths), statuses=("completed",))
    for place, folder in enumerate(RunPaths(run).trial_folders()):
        paths = RunPaths(run).trial(folder.name)
        params = TrialParams(backbone="resnet18", unfreeze_depth=depths[place], batch_size=batch_size, lr=lr)
        paths.params.write_text(json.dumps({"number": place, "params": params.to_flat()}))
        paths.result.write_text(json.dumps({"epoch": 1, "val_f1_macro": 0.9 - 0.1 * place}) + "\n")
    return run


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc", "random"])
def test_the_ten_best_trials_are_tried_first_the_best_of_them_first(
    earlier: Path, tmp_path: Path, sampler: str
) -> None:
    plan = planned(earlier, sampler=sampler)
    best = best_of(earlier)[:10]
    assert [one.trial_id for one in plan.warm_trials] == [one.trial_id for one in best]
    assert [one.score for one in plan.warm_trials] == [one.score for one in best]
    first = drawn(plan, tmp_path / "run", 10)
    assert [params.to_flat() for params in first] == [one.params for one in best]
    (said,) = [note for note in plan.notes() if "tried first" in note]
    assert ", ".join(one.trial_id for one in best) in said
    assert not [note for note in plan.notes() if "seed points" in note], "a warm start takes the place of our points"


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_the_users_own_seed_points_come_before_them(tmp_path: Path, sampler: str) -> None:
    run = write_own(tmp_path / "earlier", [3, 1, 2])
    points = "[{'batch_size': 8, 'unfreeze_depth': 0}, {'batch_size': 32, 'unfreeze_depth': 1}]"
    plan = planned(run, space=own_space(tmp_path, points=points), backbones=("resnet18",), sampler=sampler, trials=5)
    first = drawn(plan, tmp_path / "run", 5)
    assert [(one.batch_size, one.unfreeze_depth) for one in first[:4]] == [(8, 0), (32, 1), (32, 3), (32, 2)]
    assert any("left out t00001: the same point as an earlier one" in note for note in plan.notes())
    cut = planned(run, space=own_space(tmp_path, points=points), backbones=("resnet18",), sampler=sampler, trials=3)
    assert [one.trial_id for one in cut.warm_trials] == ["t00000"]
    assert any("--trials 3 leaves no room for it" in note for note in cut.notes())


def test_a_trial_that_the_space_cannot_draw_is_left_out_with_the_reason(tmp_path: Path) -> None:
    run = write_own(tmp_path / "earlier", [4, 1, 2])
    asked = {"backbones": ("resnet18",), "space": own_space(tmp_path, deepest=3)}
    plan = planned(run, **asked)
    assert [one.trial_id for one in plan.warm_trials] == ["t00001", "t00002"]
    (said,) = [note for note in plan.notes() if "left out" in note]
    assert "t00000" in said
    assert "unfreeze_depth=4 is outside its range [0, 3]" in said
    plan = planned(run, **asked, set={"unfreeze_depth": "2..3"})
    assert [one.trial_id for one in plan.warm_trials] == ["t00002"]
    assert any("t00001: unfreeze_depth=1 is outside the range of --set" in note for note in plan.notes())


def test_what_set_fixes_is_no_matter(earlier: Path, tmp_path: Path) -> None:
    plan = planned(earlier, set={"batch_size": 16, "unfreeze_depth": 0})
    best = best_of(earlier)[:10]
    assert [one.trial_id for one in plan.warm_trials] == [one.trial_id for one in best]
    for params, one in zip(drawn(plan, tmp_path / "run", 10), best, strict=True):
        fixed = dataclasses.replace(TrialParams.from_flat(one.params), batch_size=16, unfreeze_depth=0)
        assert params.active() == fixed.active()


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"lr": 0.02}, "lr is 0.02 in space"),
        ({"deepest": 2}, "unfreeze_depth=3 is outside its range [0, 2]"),
    ],
)
def test_where_no_trial_fits_the_answer_says_why_and_the_way_out(
    tmp_path: Path, asked: dict[str, Any], why: str
) -> None:
    run = write_own(tmp_path / "earlier", [3])
    told = refused(run, backbones=("resnet18",), space=own_space(tmp_path, **asked))
    assert told.startswith(f"--warm-start {run}: none of its 1 best trials fits")
    assert why in told
    assert "or omit --warm-start" in told


def test_looks_at_the_earlier_runs_test_split_are_counted(earlier: Path) -> None:
    assert {one.opened for one in planned(earlier).warm_trials} == {0}
    paths = RunPaths(earlier)
    paths.test_access.parent.mkdir(exist_ok=True)
    paths.test_access.write_text('{"opened": "2026-01-05T11:20:01+00:00"}\n' * 2)
    assert {one.opened for one in planned(earlier).warm_trials} == {2}


def test_networks_without_weights_are_left_out(earlier: Path) -> None:
    plan = planned(earlier, backbones=("resnet18",))
    kept = {one.trial_id for one in plan.warm_trials}
    assert kept == {one.trial_id for one in best_of(earlier)[:10] if one.params["backbone"] == "resnet18"}
    assert any("backbone='mobilenet_v2' is outside its choices 'resnet18'" in note for note in plan.notes())


def test_a_run_that_was_compared_by_another_metric_is_refused(earlier: Path) -> None:
    told = refused(earlier, metric="val_accuracy")
    assert "compared trials by val_f1_macro (max), this sweep uses val_accuracy (max)" in told
    assert "give --metric val_f1_macro" in told
    change_sweep(RunPaths(earlier), mode="min")
    assert "val_f1_macro (min)" in refused(earlier)


def test_what_is_no_run_or_has_no_score_is_refused(earlier: Path, tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(f"--warm-start: {tmp_path} is not a run folder")
    assert "is a URL" in refused(Path("x"), warm_start="s3://bucket/run")
    shutil.rmtree(RunPaths(earlier).trials)
    assert "none of its 0 trials has a score" in refused(earlier)
    RunPaths(earlier).sweep.write_text("{")
    assert "sweep.json cannot be read" in refused(earlier)


def test_a_damaged_trial_of_it_is_told(earlier: Path) -> None:
    paths = RunPaths(earlier)
    paths.trial("t00000").params.write_text("{")
    assert any("t00000/params.json cannot be read" in note for note in planned(earlier).notes())
