"""Which finalist wins: selected on validation alone, and written down before the test split is opened."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sweep.record_reader import read_json
from sweep.records import Finalist, Finals, Repeat, Run, read_predictions
from trainables.atomic import write_json
from trainables.metrics import tune_thresholds

RULE = (
    "highest mean over its repeats of the selection metric on validation; finalists within one standard error of it "
    "count as equal, and of those the one with the fewest trainable parameters wins"
)


def select(run: Run) -> str | None:
    """Write selection.json for the finalists of ``run``; returns the winner's id, None if no repeat has a score.

    A selection that would be the same again stays as it is, with its time.
    """
    finals, mode = run.finals, run.sweep.mode
    assert finals is not None
    winner, reason = winner_of(finals, mode)
    if winner is None:
        return None
    made = {
        "metric": run.sweep.metric,
        "mode": mode,
        "rule": RULE,
        "winner": winner.trial_id,
        "model": _model(finals, winner, mode).trial_id,
        "reason": reason,
        "scores": {one.trial_id: _score(one) for one in finals.finalists},
        "thresholds": _thresholds(run, finals),
    }
    before = read_json(run.paths.selection, [], "")
    if {key: value for key, value in before.items() if key != "selected"} != made:
        write_json(run.paths.selection, {"selected": datetime.now(UTC).isoformat(timespec="seconds")} | made)
    return winner.trial_id


def winner_of(finals: Finals, mode: str) -> tuple[Finalist | None, str]:
    """The winner by ``RULE`` (one standard error: Breiman et al. 1984, section 3.4.3), and why in a sentence.

    mode: "max" or "min". Finalists that lost a repeat to a failure stand back behind those that have all.
    """
    able = [one for one in finals.finalists if one.role == "finalist" and one.scores]
    whole = [one for one in able if len(one.scores) == finals.asked]
    able = whole or able
    if not able:
        return None, ""
    sign = 1.0 if mode == "max" else -1.0
    best = max(able, key=lambda one: (sign * one.mean, -(one.rank or 0)))
    error = best.standard_error
    equal = [one for one in able if one is best or sign * (best.mean - one.mean) <= error]
    winner = min(equal, key=lambda one: (_size(one), -sign * one.mean, one.rank or 0))
    if winner is not best:
        return winner, (
            f"Its mean over repeats, {winner.mean:.4f}, lies within one standard error ({error:.4f}) of the highest, "
            f"{best.mean:.4f} of {best.trial_id}, and it trains fewer parameters."
        )
    others = len(equal) - 1
    if others:
        return winner, (
            f"It has the highest mean over its repeats, {best.mean:.4f}; {others} other{'s' * (others > 1)} within one "
            f"standard error ({error:.4f}) train{'s' * (others == 1)} no fewer parameters."
        )
    lone = " (one repeat each: no standard error)" if math.isnan(error) else f" (standard error {error:.4f})"
    return winner, f"It has the highest mean over its repeats, {best.mean:.4f}{lone}."


def _size(finalist: Finalist) -> float:
    size = finalist.trainable_params
    return math.inf if size is None else size


def _model(finals: Finals, winner: Finalist, mode: str) -> Repeat:
    """The repeat whose weights are given out: the best on validation; of folds, which validate on other images each,
    the first."""
    if finals.folds is not None:
        return winner.completed[0]
    sign = 1.0 if mode == "max" else -1.0
    return max(winner.completed, key=lambda one: (sign * one.score, -one.seed))


def _score(one: Finalist) -> dict[str, Any]:
    numbers = {"mean": one.mean, "standard_error": one.standard_error}
    return {key: None if math.isnan(value) else value for key, value in numbers.items()} | {"repeats": len(one.scores)}


def _thresholds(run: Run, finals: Finals) -> dict[str, dict[str, float]] | None:
    """By finalist and label, from the validation predictions of all its repeats; None on a single-label task."""
    if run.dataset.task != "multi_label":
        return None
    found = {}
    for finalist in finals.finalists:
        parts = [
            part.of("val") for one in finalist.completed if (part := read_predictions(run, one.trial_id)) is not None
        ]
        if not parts:
            continue
        if finals.folds is None:
            labels, probabilities = parts[0].label, np.stack([part.probability for part in parts])
        else:  # each fold validates on images of its own
            labels = np.concatenate([part.label for part in parts])
            probabilities = np.concatenate([part.probability for part in parts])[None]
        found[finalist.trial_id] = tune_thresholds(labels, probabilities, parts[0].classes)
    return found
