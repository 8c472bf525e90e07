"""What Ray Tune calls while trials run: the stopping rule, what writes down what happens, the time budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from sweep.history import TrialHistory, TrialState, trial_id
from sweep.progress import Progress
from sweep.pruning import PruningRule

DIED = "its process died without a word: killed, or out of memory"


class TuneScheduler(FIFOScheduler):
    """Asks the stopping rule after every epoch. It keeps nothing: the rungs are what the history has written down."""

    def __init__(self, stopping: PruningRule, history: TrialHistory, lag: int | None) -> None:
        super().__init__()
        self._stopping = stopping
        self._ledger = history
        self._lag = lag

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = _number_of(trial)
        self._ledger.report(number, result["epoch"], result["score"], result["record"])
        entries = self._ledger.entries
        peers = entries.keys() if self._lag is None else [k for k in entries if k <= number - self._lag]
        reason = self._stopping.reason_to_stop(self._ledger, number, result["epoch"], peers)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self._ledger.entries[number].reason = reason
        return str(TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class HistoryCallback(tune.Callback):
    """Writes every result and every end into the history, and shows them."""

    def __init__(self, history: TrialHistory, progress: Progress) -> None:
        self._ledger = history
        self._progress = progress

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        entry = self._entry(trial)
        self._progress.trial_started(entry.trial_id, entry.number, entry.params.summary())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        entry = self._entry(trial)
        self._ledger.report(entry.number, result["epoch"], result["score"], result["record"])
        best = self._ledger.best_score(entry)
        self._progress.epoch(entry.trial_id, entry.number, result["epoch"], result["score"], best)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        entry = self._entry(trial)
        end = trial.last_result.get("end")
        if end in ("budget", "plateau"):
            self._end(entry, "completed", trial.last_result.get("reason", ""))
        elif end is not None:
            self._end(entry, "failed", trial.last_result.get("reason", end))
        else:
            self._end(entry, "pruned", entry.reason)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = self._entry(trial).trial_id
        self._progress.message(f"trial {name} lost its worker ({_reason_of(trial)}): started again where it was")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(self._entry(trial), "failed", _reason_of(trial))

    def _end(self, entry: TrialState, status: str, reason: str) -> None:
        self._ledger.end(entry.number, status, reason)
        self._progress.trial_ended(entry.trial_id, entry.number, status, reason, self._ledger.best_score(entry))

    def _entry(self, trial: Trial) -> TrialState:
        return self._ledger.entries[_number_of(trial)]

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TimeBudget(tune.Stopper):
    """Ends the sweep, not the trials: what runs when the time is up stays unfinished and can be resumed.

    seconds: from now on; None = no end. reserve_s: how much of it is to be left for what comes after the search; asked
    again at most every few seconds, and never more than half of the time counts.
    """

    ASK_AGAIN_S = 5.0

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._start_s = time.monotonic()
        self._asked_s = -self.ASK_AGAIN_S
        self._reserved_s = 0.0
        self.reserve_s: Callable[[], float] = float

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        if self._seconds is None:
            return False
        spent_s = time.monotonic() - self._start_s
        if spent_s - self._asked_s >= self.ASK_AGAIN_S:
            self._asked_s = spent_s
            self._reserved_s = min(self.reserve_s(), self._seconds / 2)
        return spent_s >= self._seconds - self._reserved_s

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _reason_of(trial: Trial) -> str:
    lines = str(trial.get_error() or trial.get_pickled_error() or DIED).strip().splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), DIED)


def name_of(trial: Trial) -> str:
    return trial_id(_number_of(trial))


def _number_of(trial: Trial) -> int:
    return int(trial.config["number"])
