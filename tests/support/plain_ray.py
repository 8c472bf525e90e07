"""A sweep as the documentation of Ray Tune shows it: ``tune.Tuner`` with ``OptunaSearch`` and ASHA."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch
from seen import Seen
from toy_trainable import BUDGET, GRACE_PERIOD, REDUCTION_FACTOR

NAME = "plain"
SEED = 7
WAITS_S = 120


def wide(trial: optuna.Trial) -> dict[str, Any]:
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    trial.suggest_int("unfreeze_depth", 0, 4)
    return {"number": trial.number}


def finite(trial: optuna.Trial) -> dict[str, Any]:
    trial.suggest_int("unfreeze_depth", 0, 4)
    return {"number": trial.number, "lr": 0.01}


SPACES = {"wide": wide, "finite": finite}


class Counted(tune.Callback):
    """Counts the trials that begin; kills the driver, as a reboot does, when so many have ended."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.began = self.ended = 0
        self._kill_after = kill_after

    def on_trial_start(self, **info: Any) -> None:
        self.began += 1

    def on_trial_complete(self, **info: Any) -> None:
        self.ended += 1
        if self.ended == self._kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def __getstate__(self) -> dict[str, Any]:
        """As ``Tuner.restore`` brings it back: it kills but once."""
        return self.__dict__ | {"_kill_after": None}


def sweep(
    root: Path,
    trainable: type[tune.Trainable],
    *,
    trials: int,
    space: str = "wide",
    concurrency: int = 1,
    scheduler: str = "asha",
    database: bool = False,
    metric: str = "score",
    time_attr: str = "epoch",
    kill_after: int | None = None,
) -> Seen:
    """Run a sweep in the folder ``root``. kill_after: so many trials have ended, the driver is killed.

    database: the study is kept in a file, to look at and to go on with. metric, time_attr: what the scheduler looks at.
    """
    storage = optuna.storages.RDBStorage(f"sqlite:///{root / 'study.db'}") if database else None
    asha = AsyncHyperBandScheduler(
        metric=metric,
        mode="max",
        time_attr=time_attr,
        max_t=BUDGET,
        grace_period=GRACE_PERIOD,
        reduction_factor=REDUCTION_FACTOR,
    )
    counted = Counted(kill_after)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(SPACES[space], metric="score", mode="max", seed=SEED, storage=storage),
            scheduler=asha if scheduler == "asha" else None,
            num_samples=trials,
            max_concurrent_trials=concurrency,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=NAME, storage_path=str(root), callbacks=[counted], verbose=0),
    )
    return _fitted(tuner, counted)


def resume(root: Path, trainable: type[tune.Trainable]) -> Seen:
    """Go on with the sweep in ``root``, whose driver was killed.

    After a snapshot that is not whole Tune may take a trial for live that is not there, and wait for its end.
    """

    gave_up = []

    def give_up(number: int, frame: object) -> None:
        gave_up.append(number)
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(WAITS_S)
    try:
        seen = _fitted(tune.Tuner.restore(str(root / NAME), trainable=trainable), Counted())
        return Seen(error="it waits for ever") if gave_up else seen
    except KeyError as error:  # of a snapshot that is not whole
        return Seen(error=f"KeyError: {error}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _fitted(tuner: tune.Tuner, counted: Counted) -> Seen:
    try:
        results = tuner.fit()
    except Exception as error:
        return Seen(error=f"{type(error).__name__}: {error}", began=counted.began)
    if results.errors:
        return Seen(error=str(results.errors[0]), began=counted.began)
    by_number = sorted(results, key=lambda result: int(result.config["number"]))
    # The tuner keeps a pickled copy of the searcher; the one that ran is only known to the trials' controller.
    searcher = tuner._local_tuner._tune_config.search_alg
    while hasattr(searcher, "searcher"):
        searcher = searcher.searcher
    return Seen(
        told=searcher._ot_study.trials,
        epochs=[result.metrics["epoch"] for result in by_number],
        configs=[{"lr": result.config["lr"], "depth": result.config["unfreeze_depth"]} for result in by_number],
        best=results.get_best_result("score", "max").config["number"],
        folders=[Path(result.path).name for result in by_number],
        began=counted.began,
    )
