"""The system's overhead per trial: trials that import torch and end, through the real driver, search and history.

Seconds per trial: the time from asking for the first trial to recording the last one, two at a time, including the
start of the two workers, divided by the number of trials. Ray's default starts a new process for every trial.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from benchmarks.own_process import answer_of
from benchmarks.table import Row

TRIALS = 24
LIMIT_S = 0.4


def measure(quick: bool) -> list[Row]:
    trials = 4 if quick else TRIALS
    ours, default = (_in_a_process(trials, how) for how in ("reused", "new"))
    return [
        Row(f"a trial that only imports torch, mean of {trials}: our settings", ours, "s", LIMIT_S),
        Row("  beside it, Ray's default (reuse_actors=False)", default, "s"),
    ]


def _in_a_process(trials: int, how: str) -> float:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # Ray's sockets need a short path.
        return float(answer_of("benchmarks.trial_overhead", trials, how, RAY_TMPDIR=folder))


def seconds_a_trial(trials: int, reuse_actors: bool, root: Path) -> float:
    """Run ``trials`` trials that train nothing in the run folder ``root``; the mean seconds per trial."""
    from ray import tune

    from benchmarks.torch_trial import TorchTrial
    from search_spaces.params import SpaceContext
    from search_spaces.space import load_space
    from sweep import ray_tune
    from sweep.config import SweepConfig, resolve
    from sweep.history import TrialHistory
    from sweep.machine import Machine
    from sweep.optuna_search import OptunaExport, OptunaSearch
    from sweep.plan import Plan
    from sweep.progress import Progress, SweepProgress
    from sweep.pruning import PruningRule
    from sweep.records import DatasetRecord
    from sweep.run_folder import RunPaths

    paths = RunPaths(root)
    ray_tune.log_to(paths.log)
    context = SpaceContext(task="single_label", class_count=3, train_count=500, backbones=("resnet18",))
    config = resolve(SweepConfig(trials=trials, epochs=1), Machine(cpus=2, gpus=0))
    plan = Plan(
        config=config,
        dataset=DatasetRecord(),
        space=load_space(config.space, context, {}),
        weights={},
        missing_weights={},
        mode="max",
    )
    history = TrialHistory(paths, config.metric, plan.mode)
    search = OptunaSearch(
        plan.space,
        history,
        sampler=config.sampler,
        trials=trials,
        seed=config.seed,
        concurrency=plan.at_once,
        deterministic=False,
    )
    OptunaExport(history)
    settings = plan.settings(paths)
    pruning = PruningRule(str(config.scheduler), plan.budget, plan.grace_period, config.reduction_factor)
    progress = Progress(SweepProgress(history, trials, 1), stream=io.StringIO())
    budget = ray_tune.TimeBudget(None)
    ours = tune.TuneConfig
    asked = mock.patch.object(tune, "TuneConfig", lambda **given: ours(**given | {"reuse_actors": reuse_actors}))
    with asked, ray_tune.connected("local", 2):
        began_s = time.perf_counter()
        ray_tune.run_trials(
            plan,
            history,
            search.ask,
            lambda state: (settings, state.number),
            pruning,
            progress,
            budget,
            trials=plan.config.trials,
            trainable=TorchTrial,
        )
        seconds = time.perf_counter() - began_s
    assert history.count("completed") == trials, "not all trials ended well"
    return seconds / trials


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as storage:
        print(json.dumps(seconds_a_trial(int(sys.argv[1]), sys.argv[2] == "reused", Path(storage))))
