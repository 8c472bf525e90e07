"""Which hyperparameters are associated with good scores, compared with what shuffled scores show.

The trials are an Optuna study in memory, all scored after equally many epochs. It is rebuilt from the records, not read
from study.db, which may be missing or out of date after a kill, and marks trials as pruned: Optuna's importances leave
those out. That would compare only survivors; taking their last scores would compare 3 epochs with 20.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
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
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from reports import formats, tables
from reports.data import ReportData
from sweep.trial_records import Suggestion

FEWEST_TRIALS = 10
MOST_TRIALS = 250  # bounds the time: one evaluation a shuffle
SHUFFLES = 60
_TOP_SHARE, _TOP_TRIALS = 0.1, 5
_LOG_FIELDS = ("lr", "weight_decay", "backbone_lr_factor")
_distribution = cache(json_to_distribution)
_TITLES = {
    "lr": "learning rate",
    "batch_size": "batch size",
    "backbone_lr_factor": "backbone lr factor",
    "head_widths": "head",
    "lr_schedule": "schedule",
    "unfreeze_depth": "unfrozen blocks",
    "unfreeze_layers": "unfrozen layers",
}


@dataclass(frozen=True)
class UsedTrials:
    """Trials that can be compared, by number.

    trials: COMPLETE, one value each: the best of the selection metric within the first ``epoch`` epochs, or within all
    that the trial ran (``epoch`` is None: none was pruned); its number in the run is a user attribute. Parameters are
    named as the search suggested them ("lr.sgd"), or by their field if it did not; the ranges of the latter
    (``derived``) span the values that trials used. left_out: the number of the run's other trials, by reason.
    """

    trials: tuple[FrozenTrial, ...]
    epoch: int | None
    left_out: Mapping[str, int]
    derived: frozenset[str] = frozenset()

    @cached_property
    def numbers(self) -> list[int]:
        """[n], the trials' numbers in the run."""
        return [trial.user_attrs["number"] for trial in self.trials]

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """[n]."""
        return np.array([trial.value for trial in self.trials], dtype=np.float64)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of every parameter that took at least two values, by name; that of the latest trial that has it."""
        found: dict[str, BaseDistribution] = {}
        for trial in self.trials:
            found |= trial.distributions
        return {name: found[name] for name in sorted(found) if self.values(name).nunique() > 1}

    def values(self, name: str) -> pd.Series[Any]:
        """The parameter's value in each trial that has it, by the trial's index in ``trials``."""
        taken = {place: one.params[name] for place, one in enumerate(self.trials) if name in one.params}
        return pd.Series(taken, dtype=object)

    def place_at_bound(self, number: int | None, field: str, share: float) -> str | None:
        """ "upper" or "lower" if the trial's suggested number for ``field`` is within ``share`` of its range of that
        bound; else None."""
        of = next((one for one in self.trials if one.user_attrs["number"] == number), None)
        for name, one in of.distributions.items() if of is not None else ():
            suggested = name.partition(".")[0] == field and name not in self.derived
            if of is not None and suggested and isinstance(one, FloatDistribution) and not one.single():
                scale = math.log if one.log else float
                at = (scale(of.params[name]) - scale(one.low)) / (scale(one.high) - scale(one.low))
                return "lower" if at <= share else "upper" if at >= 1 - share else None
        return None

    @property
    def too_few(self) -> str:
        """Why importance is not computed, a sentence; "" where it is."""
        count = len(self.trials)
        if count < FEWEST_TRIALS:
            why = formats.listing(f"{number} {reason}" for reason, number in self.left_out.items())
            return (
                f"{count} trial{'s' * (count != 1)} can be compared ({why or 'all that there are'}); at least "
                f"{FEWEST_TRIALS} are needed."
            )
        if not self.distributions:
            return "No hyperparameter differed between the trials."
        return "All trials have the same score." if np.ptp(self.scores) == 0 else ""


def used_trials(data: ReportData) -> UsedTrials:
    """The trials that completed or were pruned, at the epoch that the first pruned one had reached."""
    trials = data.trials
    ended = trials[trials["status"].isin(["completed", "pruned"])]
    pruned = ended.loc[(ended["status"] == "pruned") & (ended["epochs_run"] >= 1), "epochs_run"]
    epoch = int(pruned.min()) if len(pruned) else None
    scores = _scores(data, epoch)
    counts = tables.status_counts(trials)
    left_out = {
        "failed": counts["failed"],
        "unfinished": counts["running"],
        "without a score": int((~ended["trial_id"].isin(list(scores))).sum()),
        "with a value outside its range": 0,
    }
    rows = {str(row["trial_id"]): row for row in ended.to_dict("records") if row["trial_id"] in scores}
    suggested = {key: _suggested(data.run.suggestions[key]) for key in rows}
    fields = {name.partition(".")[0] for names in suggested.values() for name in names}
    flat = {key: _active(row, fields) for key, row in rows.items()}
    taken = {name: [own[name] for own in flat.values() if name in own] for name in sorted(set().union(*flat.values()))}
    derived = {name: _holding(name, values) for name, values in taken.items() if len(set(values)) > 1}
    found = []
    for key, row in rows.items():
        pairs = suggested[key] | {name: (value, derived[name]) for name, value in flat[key].items() if name in derived}
        params, ranges = ({name: pair[place] for name, pair in pairs.items()} for place in (0, 1))
        own = {"number": int(row["number"])}
        try:
            found.append(create_trial(params=params, distributions=ranges, value=scores[key], user_attrs=own))
        except ValueError:
            left_out["with a value outside its range"] += 1
    return UsedTrials(
        trials=tuple(found),
        epoch=epoch,
        left_out={reason: count for reason, count in left_out.items() if count},
        derived=frozenset(derived),
    )


def importances(used: UsedTrials, mode: str) -> pd.DataFrame:
    """One row per parameter with several values, the one furthest beyond chance first.

    Columns: parameter (as suggested), title (in words), trials (that have it), importance (a share; they sum to 1),
    chance (what the same parameter exceeds in 5 of 100 shuffles of the scores among the trials), times_chance (their
    ratio, NaN if chance is 0), best, all (the middle half of its values, or the most frequent one, among the best
    trials and among all).

    The importance is PED-ANOVA (Watanabe et al., IJCAI 2023), Optuna's default: how far the parameter's distribution
    among the ``top_count`` best trials differs from that among all. Unlike fANOVA it handles conditional
    parameters, is deterministic, and does not take minutes for a thousand trials. The shares favour parameters with
    many values, especially with few trials; their ratio to chance does not.
    """
    losses = used.scores if mode == "min" else -used.scores
    best = np.argsort(losses, kind="stable")[: top_count(len(losses))]
    chosen = np.arange(len(losses))
    if len(losses) > MOST_TRIALS:  # a random sample, always the same
        chosen = np.sort(np.random.default_rng(0).choice(len(losses), MOST_TRIALS, replace=False))
    drawn = replace(used, trials=tuple(used.trials[place] for place in chosen))
    distributions = drawn.distributions  # A parameter that no sampled trial has cannot be judged.
    names, rng = list(distributions), np.random.default_rng(0)
    with _quiet():
        study = optuna.create_study()
        study.add_trials(drawn.trials)
        found = _raw(study, names, losses[chosen])
        shuffled = [_raw(study, names, rng.permutation(losses[chosen])) for _ in range(SHUFFLES)]
    total = sum(found.values()) or 1.0
    rows = []
    for name in names:
        values = used.values(name)
        categorical = isinstance(distributions[name], CategoricalDistribution)
        chance = float(np.quantile([one[name] for one in shuffled], 0.95))
        rows.append(
            {
                "parameter": name,
                "title": title(name),
                "trials": len(values),
                "importance": found[name] / total,
                "chance": chance / total,
                "times_chance": found[name] / chance if chance > 0 else math.nan,
                "best": _typical(values[values.index.isin(best)], categorical),
                "all": _typical(values, categorical),
            }
        )
    frame = pd.DataFrame(rows).sort_values("parameter")
    return frame.sort_values("times_chance", ascending=False, kind="stable", ignore_index=True)


def top_count(trials: int) -> int:
    """How many of the trials count as the best: a tenth, at least five."""
    return max(_TOP_TRIALS, math.ceil(_TOP_SHARE * trials))


def title(name: str) -> str:
    """A parameter in words: "learning rate (sgd)" for "lr.sgd"."""
    field, _, branch = name.partition(".")
    return _TITLES.get(field, field.replace("_", " ")) + (f" ({branch})" if branch else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log and its warnings about experimental features; restore both afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _scores(data: ReportData, epoch: int | None) -> dict[str, float]:
    """By trial_id, the best of the selection metric within the first ``epoch`` epochs; finite ones only."""
    epochs = data.run.epochs
    if data.metric not in epochs:
        return {}
    known = epochs[np.isfinite(epochs[data.metric].to_numpy(dtype=np.float64))]
    if epoch is not None:
        known = known[known["epoch"] <= epoch]
    best = known.groupby("trial_id")[data.metric].agg(data.run.sweep.mode)
    return {str(key): float(value) for key, value in best.items()}


def _suggested(suggestion: Suggestion) -> dict[str, tuple[Any, BaseDistribution]]:
    """What the search suggested: by name, value and distribution; {} for a fixed list or a damaged record."""
    try:
        return {
            name: (suggestion.suggested[name], _distribution(json.dumps(value)))
            for name, value in suggestion.distributions.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _active(row: Mapping[Any, Any], suggested: set[str]) -> dict[str, Any]:
    """The hyperparameters that are active in a trial and were not suggested, flat."""
    params = formats.trial_params(row)
    flat = {} if params is None else params.active()
    return {name: "none" if value is None else value for name, value in flat.items() if name not in suggested}


def _holding(name: str, taken: list[Any]) -> BaseDistribution:
    """A distribution that contains the values that the trials used."""
    if any(isinstance(value, str | bool) for value in taken):
        return CategoricalDistribution(sorted(set(taken), key=str))
    low, high = min(taken), max(taken)
    if all(isinstance(value, int) for value in taken):
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=name in _LOG_FIELDS and low > 0)


def _raw(study: optuna.Study, names: list[str], losses: NDArray[np.float64]) -> dict[str, float]:
    """Importances by name, not normalised. losses: [n], lower is better, used in place of the study's own values."""
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, top_count(len(losses)) / len(losses)))
    # With a target, the evaluator treats lower as better, whatever the study's direction.
    return get_param_importances(
        study, evaluator=evaluator, params=names, target=lambda one: losses[one.number], normalize=False
    )


def _typical(values: pd.Series[Any], categorical: bool) -> str:
    if values.empty:
        return formats.ABSENT
    if categorical:
        counts = values.map(str).value_counts()
        most = min(counts.index, key=lambda value: (-counts[value], value))
        return f"{most} ({counts[most]} of {len(values)})"
    numbers = values.astype(float)
    low, high = (float(numbers.quantile(share, interpolation="nearest")) for share in (0.25, 0.75))
    return f"{formats.general(low)} to {formats.general(high)}" if low != high else formats.general(low)
