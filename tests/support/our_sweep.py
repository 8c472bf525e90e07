"""A sweep of ours under Ray with toy trials: everything is the real thing but the networks and the data."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from ray import tune
from seen import Seen
from toy_sweep import CONTEXT
from toy_trainable import BUDGET, GRACE_PERIOD, REDUCTION_FACTOR

from search_spaces.space import Space, load_space
from sweep.config import SweepConfig, resolve
from sweep.history import TrialHistory, TrialState
from sweep.machine import Machine
from sweep.optuna_search import OptunaSearch
from sweep.plan import Plan
from sweep.progress import Progress, SweepProgress
from sweep.pruning import PruningRule
from sweep.ray_tune import TimeBudget, _connection, run_trials
from sweep.records import DatasetRecord
from sweep.run_folder import RunPaths

SEED = 7
SPACES = {
    "wide": "trial.suggest_float('lr', 1e-5, 1e-1, log=True); trial.suggest_int('unfreeze_depth', 0, 4)",
    "finite": "trial.suggest_int('unfreeze_depth', 0, 4)",
}


def space_named(name: str, root: Path) -> Space:
    path = root / f"{name}.py"
    path.write_text(f"def space(trial, context):\n    {SPACES[name]}\n    return {{'backbone': 'resnet18'}}\n")
    return load_space(str(path), CONTEXT)


def sweep(
    root: Path,
    trainable: type[tune.Trainable],
    *,
    trials: int,
    space: str = "wide",
    concurrency: int = 1,
    scheduler: str = "asha",
    sampler: str = "tpe",
    deterministic: bool = False,
    kill_after: int | None = None,
    interrupt_after: int | None = None,
    interrupt_by: signal.Signals = signal.SIGINT,
) -> Seen:
    """Run, or go on with, a sweep in the folder ``root``. kill_after, interrupt_after: at so many ended trials."""
    asked = SweepConfig(
        data="none",
        trials=trials,
        epochs=BUDGET,
        sampler=sampler,
        scheduler=scheduler,
        grace_period=GRACE_PERIOD,
        seed=SEED,
        concurrency=concurrency,
        deterministic=deterministic,
        cpus_per_trial=1,
        gpus_per_trial=0.0,
    )
    config = resolve(asked, Machine(cpus=2, gpus=0))
    plan = Plan(
        config=config,
        dataset=DatasetRecord(),
        space=space_named(space, root),
        weights={},
        missing_weights={},
        mode="max",
    )
    history = TrialHistory(RunPaths(root), config.metric, plan.mode)
    assert history.load() == []
    search = OptunaSearch(
        plan.space,
        history,
        sampler=sampler,
        trials=trials,
        seed=SEED,
        concurrency=concurrency,
        deterministic=deterministic,
    )
    if kill_after is not None:
        history.on_end.append(_signal(history, kill_after, signal.SIGKILL))
    if interrupt_after is not None:
        history.on_end.append(_signal(history, interrupt_after, interrupt_by))
    settings = plan.settings(history.paths)
    pruning = PruningRule(scheduler, BUDGET, GRACE_PERIOD, REDUCTION_FACTOR)
    progress = Progress(SweepProgress(history, trials, BUDGET, list(history.entries.values())))
    try:
        outcome = run_trials(
            plan,
            history,
            search.ask,
            lambda state: (settings, state.number),
            pruning,
            progress,
            TimeBudget(None),
            trials=trials,
            trainable=trainable,
        )
    finally:
        progress.close()
        _connection.close()  # as the end of ``connected`` does
    return seen(history, search, outcome.interrupted)


def seen(history: TrialHistory, search: OptunaSearch, interrupted: bool) -> Seen:
    search._tell_ended(len(history.entries))
    ran = {state.trial_id: state for _, state in sorted(history.entries.items())}
    told = {trial.user_attrs.get("trial_id"): trial for trial in reversed(search._study.trials)}
    best = history.best()
    return Seen(
        told=[told[name] for name in ran if name in told],
        epochs=[len(state.scores) for state in ran.values()],
        configs=[{"lr": state.params.lr, "depth": state.params.unfreeze_depth} for state in ran.values()],
        best=None if best is None else best.number,
        folders=[path.name for path in (*history.paths.trials.iterdir(), *history.paths.tune.glob("*/*/"))],
        began=len(ran),
        interrupted=interrupted,
    )


def _signal(history: TrialHistory, ended: int, number: signal.Signals) -> Callable[[TrialState], None]:
    """Send this process the signal when so many trials have ended, and wait until it has heard of it."""

    def send(_: TrialState) -> None:
        if len(history.entries) - history.count("running") == ended:
            before = signal.getsignal(signal.SIGINT)
            os.kill(os.getpid(), number)
            while signal.getsignal(signal.SIGINT) is before:  # a second Ctrl-C has another meaning than the first
                threading.Event().wait(0.001)

    return send
