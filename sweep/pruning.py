"""When a trial is stopped early: pure functions of what the trials have reported so far.

Each returns the reason as a sentence, or None to go on. ``peers`` are the numbers of the trials that one may be
compared with. The score of a trial at an epoch is its best so far, since a trial is worth its best epoch; Ray's own
schedulers compare single epochs, and lose their rungs when the driver is restarted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from sweep.history import TrialHistory


@dataclass(frozen=True)
class PruningRule:
    """A scheduler and its settings. budget: epochs of a trial, >= grace_period >= 1; reduction_factor > 1."""

    scheduler: str
    budget: int
    grace_period: int
    reduction_factor: float

    def reason_to_stop(self, history: TrialHistory, number: int, epoch: int, peers: Collection[int]) -> str | None:
        """Why trial ``number`` should end after ``epoch``; None to go on. At its budget a trial ends by itself."""
        if epoch >= self.budget:
            return None
        return _RULES[self.scheduler](self, history, number, epoch, peers)

    def rungs(self) -> Iterator[int]:
        """The epochs at which asha decides: grace_period * reduction_factor ** k, below the budget."""
        rung = float(self.grace_period)
        while rung < self.budget:
            yield int(rung)
            rung *= self.reduction_factor


def _asha(rule: PruningRule, history: TrialHistory, number: int, epoch: int, peers: Collection[int]) -> str | None:
    """Asynchronous successive halving, stopping variant (Li et al., MLSys 2020, Algorithm 2 with its section 3.2).

    At a rung a trial goes on if it is at or above the (1 - 1/reduction_factor) quantile of the scores that other
    trials had there (linear between ranks, as Ray's AsyncHyperBandScheduler has it). Fewer others than
    reduction_factor have no best one in so many: until then all go on, where Ray stops the second to arrive if it is
    worse than the first, and a short sweep ends with a single finished trial.
    """
    if epoch not in rule.rungs():
        return None
    scores = [_signed(history, peer, epoch) for peer in peers if peer != number and _reached(history, peer, epoch)]
    scores = [score for score in scores if not math.isnan(score)]
    if len(scores) < rule.reduction_factor:
        return None
    cutoff = float(np.percentile(scores, 100 * (1 - 1 / rule.reduction_factor)))
    own = _signed(history, number, epoch)
    if own >= cutoff:
        return None
    side = "below" if history.mode == "max" else "above"
    return (
        f"asha: best {history.metric} {_shown(history, own)} after {epoch} epochs, {side} the cutoff "
        f"{_shown(history, cutoff)} of {len(scores)} others"
    )


def _median(rule: PruningRule, history: TrialHistory, number: int, epoch: int, peers: Collection[int]) -> str | None:
    """The median stopping rule (Golovin et al., KDD 2017, section 3.2.1).

    From the grace period on, a trial ends if its best score so far is worse than the median of the other trials'
    running averages up to the same epoch; at least three others must have come so far.
    """
    if epoch < rule.grace_period:
        return None
    averages = [_average(history, peer, epoch) for peer in peers if peer != number and _reached(history, peer, epoch)]
    averages = [average for average in averages if not math.isnan(average)]
    if len(averages) < 3:
        return None
    median = float(np.median(averages))
    own = _signed(history, number, epoch)
    if own >= median:
        return None
    return (
        f"median: best {history.metric} {_shown(history, own)} after {epoch} epochs, worse than the median "
        f"{_shown(history, median)} of {len(averages)} running averages"
    )


def _never(rule: PruningRule, history: TrialHistory, number: int, epoch: int, peers: Collection[int]) -> str | None:
    return None


_RULES: dict[str, Callable[[PruningRule, TrialHistory, int, int, Collection[int]], str | None]] = {
    "asha": _asha,
    "median": _median,
    "none": _never,
}


def _reached(history: TrialHistory, number: int, epoch: int) -> bool:
    return epoch in history.entries[number].scores


def _signed(history: TrialHistory, number: int, epoch: int) -> float:
    """The best score up to ``epoch``, larger is better; NaN stays."""
    score = history.best_score(history.entries[number], up_to=epoch)
    return score if history.mode == "max" else -score


def _average(history: TrialHistory, number: int, epoch: int) -> float:
    scores = [score for at, score in history.entries[number].scores.items() if at <= epoch and not math.isnan(score)]
    if not scores:
        return math.nan
    average = float(np.mean(scores))
    return average if history.mode == "max" else -average


def _shown(history: TrialHistory, signed: float) -> str:
    return f"{signed if history.mode == 'max' else -signed:.4f}"
