"""study.db: a copy of the search that Optuna's own tools open; written as trials end, never read by the search."""

from __future__ import annotations

import logging

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from sweep.history import TrialHistory, TrialState
from sweep.optuna_search import frozen_trial
from sweep.trial_records import Suggestion

STUDY_NAME = "sweep"
_log = logging.getLogger(__name__)


class OptunaExport:
    """Appends each ended trial to ``study.db``. Made anew from the history when a run is resumed.

    Trouble with the file (a full disk, a lock) is logged and ends the mirror, not the sweep.
    """

    def __init__(self, history: TrialHistory) -> None:
        self._ledger = history
        self._study: optuna.Study | None = None
        try:
            self._study = self._create()
        except Exception as error:
            _log.warning("study.db cannot be written (%s): the sweep goes on without it", error)
        for _, entry in sorted(history.entries.items()):
            if entry.ended:
                self.add(entry)

    def add(self, entry: TrialState) -> None:
        """Append the ended trial ``entry``."""
        if self._study is None:
            return
        try:
            self._study.add_trial(self._frozen(entry))
        except Exception as error:
            _log.warning("study.db cannot be written any more (%s): the sweep goes on without it", error)
            self._study = None

    def _create(self) -> optuna.Study:
        path = self._ledger.paths.study
        for name in (path.name, path.name + "-journal", path.name + "-wal", path.name + "-shm"):
            path.with_name(name).unlink(missing_ok=True)
        return optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=STUDY_NAME,
            direction="maximize" if self._ledger.mode == "max" else "minimize",
        )

    def _frozen(self, entry: TrialState) -> FrozenTrial:
        if entry.suggestion.distributions:
            return frozen_trial(entry, entry.suggestion, self._ledger)
        # A fixed list samples nothing: its parameters stand there as categoricals of one choice.
        trial = frozen_trial(entry, Suggestion(), self._ledger)
        trial.params = entry.params.active()
        trial.distributions = {name: CategoricalDistribution((value,)) for name, value in trial.params.items()}
        return trial
