"""The search as Ray Tune knows it: a ``Searcher`` that hands out the trials of a study, or of the finalists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ray.tune.search import Searcher

from sweep.history import TrialHistory, TrialState
from sweep.optuna_search import Exhausted
from trainables.trial import TrialSettings


class Source(Protocol):
    """Where new trials come from: ``Study``, or the list of the finalists' repeats."""

    def ask(self) -> TrialState | None:
        """Begin the next trial; None while it must wait for others, ``Exhausted`` when there is no more."""


class TuneSearcher(Searcher):
    """Unfinished trials of an earlier session first, then new ones; at most ``concurrency`` at once.

    It keeps no state of its own: all is in the history, so Ray's snapshot of it is empty. settings_of: the settings of a
    trial, and the stream of its random numbers. exhausted: nothing new is left.
    """

    def __init__(
        self,
        source: Source,
        history: TrialHistory,
        settings_of: Callable[[TrialState], tuple[TrialSettings, int]],
        concurrency: int,
    ) -> None:
        super().__init__(metric="score", mode=history.mode)
        self._source = source
        self._ledger = history
        self._settings_of = settings_of
        self._concurrency = concurrency
        self._resumed = history.unfinished()
        self._live: set[int] = set()
        self.exhausted = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        running = [number for number in self._live if not self._ledger.entries[number].ended]
        if len(running) >= self._concurrency:
            return None
        if self._resumed:
            entry: TrialState | None = self._resumed.pop(0)
        else:
            try:
                entry = self._source.ask()
            except Exhausted:
                self.exhausted = True
                return str(Searcher.FINISHED)
        if entry is None:
            return None
        self._live.add(entry.number)
        return self._config(entry)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the history hears of every end from the callback, which knows why."""

    def save(self, checkpoint_path: str) -> None:
        with open(checkpoint_path, "wb"):
            pass

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from its run folder, by --resume")

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _config(self, entry: TrialState) -> dict[str, Any]:
        files = self._ledger.files(entry)
        settings, stream = self._settings_of(entry)
        # Absolute, as a worker has another working directory.
        return {
            "number": entry.number,
            "stream": stream,
            "params": entry.params.to_flat(),
            "settings": settings.to_dict(),
            "files": {
                name: str(getattr(files, name).absolute())
                for name in ("state", "weights", "predictions", "error", "stacks")
            },
        }
