"""Which hyperparameters went with good scores, and how much of that shuffled scores show as well."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from reports.page import formats
from reports.trials.optuna_study import Compared, as_study, quiet

FEWEST_TRIALS = 10
MOST_TRIALS = 250  # bounds the time: one evaluation a shuffle
SHUFFLES = 60
_TOP_SHARE, _TOP_TRIALS = 0.1, 5
_TITLES = {
    "lr": "learning rate",
    "batch_size": "batch size",
    "backbone_lr_factor": "backbone lr factor",
    "head_widths": "head",
    "lr_schedule": "schedule",
    "unfreeze_depth": "unfrozen blocks",
    "unfreeze_layers": "unfrozen layers",
}


def importances(compared: Compared, mode: str) -> pd.DataFrame:
    """One row a parameter that took several values, the one furthest beyond chance first.

    Columns: parameter (as suggested), trials (that have it), importance (a share; they sum to 1), chance (what the same
    parameter exceeds in 5 of 100 shuffles of the scores among the trials), times_chance (their ratio, NaN where chance
    is 0), best, all (the middle half of its values, or the most frequent one, among the best trials and among all).

    The importance is PED-ANOVA (Watanabe et al., IJCAI 2023), Optuna's default: how far the parameter's distribution
    among the ``top_count`` best trials departs from that among all. It takes conditional parameters and draws nothing
    at random; fANOVA takes neither, and minutes for a thousand trials. Its shares favour parameters of many values,
    above all where few trials are compared: their ratio to chance does not.
    """
    names, scores = list(compared.distributions), compared.scores
    best = _best(scores, mode)
    chosen = _sample(len(scores))
    study = as_study(dataclasses.replace(compared, trials=tuple(compared.trials[place] for place in chosen)), mode)
    found = _raw(study, names, scores[chosen], mode)
    total = sum(found.values()) or 1.0
    chance = _chance(study, names, scores[chosen], mode)
    rows = []
    for name in names:
        values = compared.values(name)
        categorical = isinstance(compared.distributions[name], CategoricalDistribution)
        rows.append(
            {
                "parameter": name,
                "trials": len(values),
                "importance": found[name] / total,
                "chance": chance[name] / total,
                "times_chance": found[name] / chance[name] if chance[name] > 0 else math.nan,
                "best": _typical(values[values.index.isin(best)], categorical),
                "all": _typical(values, categorical),
            }
        )
    columns = ["parameter", "trials", "importance", "chance", "times_chance", "best", "all"]
    frame = pd.DataFrame(rows, columns=columns).sort_values("parameter")
    return frame.sort_values("times_chance", ascending=False, kind="stable", ignore_index=True)


def top_count(trials: int) -> int:
    """How many of the trials count as the best: a tenth, at least five."""
    return max(_TOP_TRIALS, math.ceil(_TOP_SHARE * trials))


def title(name: str) -> str:
    """A parameter in words: "learning rate (sgd)" for "lr.sgd"."""
    field, _, branch = name.partition(".")
    return _TITLES.get(field, field.replace("_", " ")) + (f" ({branch})" if branch else "")


def _sample(count: int) -> NDArray[np.int64]:
    """The places of at most ``MOST_TRIALS`` of ``count`` trials, drawn at random, always the same ones."""
    if count <= MOST_TRIALS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST_TRIALS, replace=False))


def _raw(study: optuna.Study, names: list[str], scores: NDArray[np.float64], mode: str) -> dict[str, float]:
    """By name, before they are made to sum to 1. scores: [n], taken in place of the study's own."""
    sign = 1.0 if mode == "min" else -1.0
    evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.5, top_count(len(scores)) / len(scores)))
    with quiet():
        # Given a target, the evaluator takes lower for better, whatever the study's direction.
        values = get_param_importances(
            study, evaluator=evaluator, params=names, target=lambda one: sign * scores[one.number], normalize=False
        )
    return {name: float(value) for name, value in values.items()}


def _chance(study: optuna.Study, names: list[str], scores: NDArray[np.float64], mode: str) -> dict[str, float]:
    """By name, the 95th percentile of the importance over shuffles of the scores."""
    rng = np.random.default_rng(0)
    shuffled = [_raw(study, names, rng.permutation(scores), mode) for _ in range(SHUFFLES)]
    return {name: float(np.quantile([one[name] for one in shuffled], 0.95)) for name in names}


def _best(scores: NDArray[np.float64], mode: str) -> list[int]:
    """The places of the best trials."""
    order = np.argsort(scores if mode == "min" else -scores, kind="stable")
    return [int(place) for place in order[: top_count(len(scores))]]


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
