"""The trials of a run as an Optuna study in memory, all of them scored after equally many epochs.

Rebuilt from the records, not read from study.db: that one may be missing or behind after a kill, and counts trials that
were stopped early as pruned, which Optuna's importances leave out. To leave them out would compare survivors only; to
take their last scores would compare 3 epochs with 20.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, create_trial

from reports.data import ReportData
from reports.page import wording

_LOG_FIELDS = ("lr", "weight_decay", "backbone_lr_factor")


@dataclass(frozen=True)
class Compared:
    """Trials that can be compared, by number.

    trials: COMPLETE, one value each: the best of the selection metric within the first ``epoch`` epochs, or within all
    that the trial ran (``epoch`` is None: none was stopped early). Parameters are named as the sampler was asked for
    them ("lr.sgd"), or by their field where it was not asked; the ranges of such (``derived``) are what trials took.
    numbers: int64 [n], the trials' own. left_out: how many trials of the run are not among them, by reason.
    """

    trials: tuple[FrozenTrial, ...]
    numbers: NDArray[np.int64]
    epoch: int | None
    left_out: Mapping[str, int]
    derived: frozenset[str] = frozenset()

    @property
    def scores(self) -> NDArray[np.float64]:
        """[n]."""
        return np.array([trial.value for trial in self.trials], dtype=np.float64)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of every parameter that took at least two values, by name; that of the latest trial that has it."""
        values: dict[str, set[Any]] = {}
        found: dict[str, BaseDistribution] = {}
        for trial in self.trials:
            found |= trial.distributions
            for name, value in trial.params.items():
                values.setdefault(name, set()).add(value)
        return {name: found[name] for name in sorted(found) if len(values[name]) > 1}

    def values(self, name: str) -> pd.Series[Any]:
        """What each trial that has the parameter took for it, by the trial's place among ``trials``."""
        taken = {place: one.params[name] for place, one in enumerate(self.trials) if name in one.params}
        return pd.Series(taken, dtype=object)


def compared(evidence: ReportData) -> Compared:
    """The trials that finished or were stopped early, at the epoch that the first stopped one had reached."""
    trials = evidence.trials
    ended = trials[trials["status"].isin(["completed", "pruned"])]
    stopped = ended.loc[(ended["status"] == "pruned") & (ended["epochs_run"] >= 1), "epochs_run"]
    epoch = int(stopped.min()) if len(stopped) else None
    scores = _scores(evidence, epoch)
    left_out = {
        "failed": int((trials["status"] == "failed").sum()),
        "without an end": int((trials["status"] == "running").sum()),
        "without a score": int((~ended["trial_id"].isin(list(scores))).sum()),
    }
    rows = [row for row in ended.to_dict("records") if row["trial_id"] in scores]
    asked = {str(row["trial_id"]): _asked(evidence, str(row["trial_id"])) for row in rows}
    fields = {name.partition(".")[0] for names in asked.values() for name in names}
    flat = {str(row["trial_id"]): _active(row) for row in rows}
    derived = _derived(flat.values(), fields)
    found: list[tuple[int, FrozenTrial]] = []
    for row in rows:
        key = str(row["trial_id"])
        own = {name: derived[name] for name in flat[key] if name in derived}
        params = {name: value for name, (value, _) in asked[key].items()} | {name: flat[key][name] for name in own}
        distributions = {name: distribution for name, (_, distribution) in asked[key].items()} | own
        try:
            trial = create_trial(params=params, distributions=distributions, value=scores[key])
        except ValueError:
            left_out["with a value outside its range"] = left_out.get("with a value outside its range", 0) + 1
            continue
        found.append((int(row["number"]), trial))
    return Compared(
        trials=tuple(trial for _, trial in found),
        numbers=np.array([number for number, _ in found], dtype=np.int64),
        epoch=epoch,
        left_out={reason: count for reason, count in left_out.items() if count},
        derived=frozenset(derived),
    )


def as_study(compared: Compared, mode: str) -> optuna.Study:
    """An in-memory study of these trials, in their order. mode: "max" or "min"."""
    with quiet():
        study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), direction="maximize" if mode == "max" else "minimize"
        )
        study.add_trials(compared.trials)
    return study


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines and its warnings about what is experimental; both as before afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _scores(evidence: ReportData, epoch: int | None) -> dict[str, float]:
    """By trial_id, the best of the selection metric within the first ``epoch`` epochs; finite ones only."""
    epochs = evidence.run.epochs
    if evidence.metric not in epochs:
        return {}
    known = epochs[np.isfinite(epochs[evidence.metric].to_numpy(dtype=np.float64))]
    if epoch is not None:
        known = known[known["epoch"] <= epoch]
    best = known.groupby("trial_id")[evidence.metric].agg("max" if evidence.mode == "max" else "min")
    return {str(key): float(value) for key, value in best.items()}


def _asked(evidence: ReportData, trial_id: str) -> dict[str, tuple[Any, BaseDistribution]]:
    """What the sampler was asked for: by name, value and distribution; {} for a fixed list or a damaged record."""
    try:
        asked = _read(evidence.run.paths.trial(trial_id).params).get("asked") or {}
        return {
            name: (asked["suggested"][name], _distribution(json.dumps(value)))
            for name, value in asked.get("distributions", {}).items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _active(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The hyperparameters of a trial that change anything there, flat."""
    params = wording.trial_params({str(key): value for key, value in row.items()})
    return {} if params is None else {name: "none" if v is None else v for name, v in params.active().items()}


def _derived(rows: Any, asked: set[str]) -> dict[str, BaseDistribution]:
    """Distributions that hold what the trials took for the fields that no sampler was asked for, where they differ."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in asked:
                values.setdefault(name, []).append(value)
    return {name: _holding(name, taken) for name, taken in values.items() if len(set(taken)) > 1}


def _holding(name: str, taken: list[Any]) -> BaseDistribution:
    if any(isinstance(value, str | bool) for value in taken):
        return CategoricalDistribution(sorted(set(taken), key=str))
    low, high = min(taken), max(taken)
    if all(isinstance(value, int) for value in taken):
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=name in _LOG_FIELDS and low > 0)
