"""How a sweep stands, told by its events: what ended how, what runs, the best so far, the time that is left."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter


@dataclasses.dataclass
class Trial:
    """One trial as it was last heard of. epoch: 0 before its first; score: of that epoch; best_epoch: of best_score,
    0 where unknown."""

    trial_id: str
    number: int
    summary: str
    epoch: int = 0
    score: float = math.nan
    best_score: float = math.nan
    best_epoch: int = 0


@dataclasses.dataclass
class SweepProgress:
    """The facts behind the view. total: trials in all; epochs: the most of a trial; mode: "max" or "min"."""

    total: int
    epochs: int
    metric: str
    mode: str
    running: dict[int, Trial] = dataclasses.field(default_factory=dict)
    ended: Counter[str] = dataclasses.field(default_factory=Counter)
    best: Trial | None = None
    _epochs_run: int = 0
    _ended_here: int = 0
    _epochs_of_ended: int = 0

    @property
    def ended_count(self) -> int:
        return sum(self.ended.values())

    @property
    def waiting(self) -> int:
        return max(0, self.total - self.ended_count - len(self.running))

    def begin(self, trial_id: str, number: int, summary: str) -> None:
        """A trial starts, or starts again where it was when its worker was lost."""
        self.running.setdefault(number, Trial(trial_id, number, summary)).summary = summary

    def report(self, trial_id: str, number: int, epoch: int, score: float, best_score: float) -> None:
        """A running trial has ended an epoch."""
        trial = self.running.setdefault(number, Trial(trial_id, number, ""))
        trial.epoch, trial.score = epoch, score
        self._epochs_run += 1
        # The best of a trial that goes on from an earlier session may be of an epoch that was not seen here.
        self._improve(trial, best_score, epoch if score == best_score else 0)

    def end(self, trial_id: str, number: int, status: str, score: float) -> Trial:
        """A trial has ended in this session, ``score`` at its best epoch. Returns what was last known of it."""
        trial = self.running.pop(number, None) or Trial(trial_id, number, "")
        self._improve(trial, score, trial.epoch)
        self.ended[status] += 1
        self._ended_here += 1
        self._epochs_of_ended += trial.epoch
        return trial

    def recall(self, trial_id: str, number: int, status: str, score: float, summary: str) -> None:
        """A trial ended in an earlier session."""
        self.ended[status] += 1
        self._improve(Trial(trial_id, number, summary), score, 0)

    def seconds_left(self, elapsed_s: float) -> float | None:
        """Estimate from the epochs run so far in ``elapsed_s`` seconds; None before the first.

        A trial still to come is taken to be as long as those that ended here were on average, and as long as the
        budget while none has.
        """
        if not self._epochs_run or elapsed_s <= 0:
            return None
        length = self._epochs_of_ended / self._ended_here if self._ended_here else self.epochs
        to_run = self.waiting * length + sum(max(0.0, length - trial.epoch) for trial in self.running.values())
        return to_run * elapsed_s / self._epochs_run

    def _improve(self, trial: Trial, score: float, epoch: int) -> None:
        if self._better(score, trial.best_score):
            trial.best_score, trial.best_epoch = score, epoch
        if self.best is None or self._better(trial.best_score, self.best.best_score):
            self.best = None if math.isnan(trial.best_score) else dataclasses.replace(trial)

    def _better(self, score: float, than: float) -> bool:
        if math.isnan(score):
            return False
        return math.isnan(than) or (score > than if self.mode == "max" else score < than)
