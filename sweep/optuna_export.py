"""study.db: a copy of the search that Optuna's own tools open; written as trials end, never read by the search."""

from __future__ import annotations

import logging

import optuna
from optuna.distributions import CategoricalDistribution

from sweep.history import TrialHistory, TrialState
from sweep.optuna_search import frozen_trial

STUDY_NAME = "sweep"


class OptunaExport:
    """Appends each ended trial to ``study.db``. Made anew from the history when a run is resumed.

    Trouble with the file (a full disk, a lock) is logged and ends the export, not the sweep.
    """

    def __init__(self, history: TrialHistory) -> None:
        self._history = history
        self._study: optuna.Study | None = None
        path = history.paths.study
        try:
            for ending in ("", "-journal", "-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            self._study = optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name=STUDY_NAME,
                direction="maximize" if history.mode == "max" else "minimize",
            )
        except Exception as error:
            self._give_up(error)
        for _, state in sorted(history.entries.items()):
            if state.ended:
                self.add(state)

    def add(self, state: TrialState) -> None:
        """Append the ended trial ``state``."""
        if self._study is None:
            return
        try:
            trial = frozen_trial(state, state.suggestion, self._history)
            if not trial.distributions:
                # A fixed list samples nothing: its parameters stand there as categoricals of one choice.
                trial.params = state.params.active()
                trial.distributions = {name: CategoricalDistribution((value,)) for name, value in trial.params.items()}
            self._study.add_trial(trial)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._study = None
        logging.getLogger(__name__).warning("study.db cannot be written (%s): the sweep goes on without it", error)
