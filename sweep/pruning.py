"""When a trial is stopped early: pure functions of what the trials have reported so far.

The score of a trial at an epoch is its best so far, since its best epoch is what counts; Ray's own schedulers compare
single epochs, and lose their rungs when the driver is restarted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

from sweep.history import TrialHistory

Threshold = tuple[float, str]
"""The score below which a trial is stopped (larger is better), and its description, with %s for the score."""


@dataclass(frozen=True)
class PruningRule:
    """A scheduler and its settings. budget: epochs of a trial, >= grace_period >= 1; reduction_factor > 1."""

    scheduler: str
    budget: int
    grace_period: int
    reduction_factor: float

    def reason_to_stop(self, history: TrialHistory, number: int, epoch: int, peers: Collection[int]) -> str | None:
        """Why trial ``number`` should end after ``epoch``, as a sentence; None to continue.

        peers: numbers of the trials that it may be compared with. At its budget a trial ends by itself.
        """
        if not self.decides(epoch):
            return None
        # A trial that its patience ended still counts, with its best score, at later epochs.
        ended = {k for k in peers if history.entries[k].status == "completed"}
        others = [k for k in peers if k != number and (k in ended or epoch in history.entries[k].scores)]
        threshold = _RULES[self.scheduler](self, history, epoch, others)
        own = _best(history, number, epoch)
        if threshold is None or own >= threshold[0]:
            return None
        sign = 1.0 if history.mode == "max" else -1.0
        limit = threshold[1] % f"{sign * threshold[0]:.4f}"
        return f"{self.scheduler}: best {history.metric} {sign * own:.4f} after {epoch} epochs, {limit}"

    def decides(self, epoch: int) -> bool:
        """Whether a trial may be stopped after ``epoch``; else the others, perhaps thousands, need not be examined."""
        if self.scheduler == "asha":
            return epoch in self.rungs()
        return self.scheduler == "median" and self.grace_period <= epoch < self.budget

    def rungs(self) -> Iterator[int]:
        """The epochs at which asha decides: grace_period * reduction_factor ** k, below the budget."""
        rung = float(self.grace_period)
        while rung < self.budget:
            yield int(rung)
            rung *= self.reduction_factor


def _asha(rule: PruningRule, history: TrialHistory, epoch: int, others: Collection[int]) -> Threshold | None:
    """Asynchronous successive halving, stopping variant (Li et al., MLSys 2020, Algorithm 2 with its section 3.2).

    At a rung a trial continues if it is at or above the (1 - 1/reduction_factor) quantile of the scores that other
    trials had there (linear between ranks, as in Ray's AsyncHyperBandScheduler). With fewer others than
    reduction_factor all continue: one in reduction_factor cannot be told yet. Ray instead stops the second to arrive if
    it is worse than the first, so that a short sweep ends with a single finished trial.
    """
    scores = [score for k in others if not math.isnan(score := _best(history, k, epoch))]
    if len(scores) < rule.reduction_factor:
        return None
    side = "below" if history.mode == "max" else "above"
    cutoff = float(np.percentile(scores, 100 * (1 - 1 / rule.reduction_factor)))
    return cutoff, f"{side} the cutoff %s of {len(scores)} others"


def _median(rule: PruningRule, history: TrialHistory, epoch: int, others: Collection[int]) -> Threshold | None:
    """The median stopping rule (Golovin et al., KDD 2017, section 3.2.1).

    From the grace period on, a trial ends if its best score so far is worse than the median of the other trials'
    running averages up to the same epoch; at least three others must have come so far.
    """
    averages = [average for k in others if not math.isnan(average := _average(history, k, epoch))]
    if len(averages) < 3:
        return None
    return float(np.median(averages)), f"worse than the median %s of {len(averages)} running averages"


_RULES: dict[str, Callable[[PruningRule, TrialHistory, int, Collection[int]], Threshold | None]] = {
    "asha": _asha,
    "median": _median,
}


def _best(history: TrialHistory, number: int, epoch: int) -> float:
    """The best score up to ``epoch``, larger is better; NaN stays."""
    score = history.entries[number].best_score(up_to=epoch)
    return score if history.mode == "max" else -score


def _average(history: TrialHistory, number: int, epoch: int) -> float:
    """The mean of the scores up to ``epoch``, larger is better; NaN if there is none."""
    scores = [score for at, score in history.entries[number].scores.items() if at <= epoch and not math.isnan(score)]
    average = float(np.mean(scores)) if scores else math.nan
    return average if history.mode == "max" else -average
