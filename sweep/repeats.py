"""The repeats of the finalists as trials: which they are, the history that they stand in, the order they are run in."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from search_spaces.params import TrialParams
from sweep.history import TrialHistory, TrialState
from sweep.optuna_search import Exhausted
from sweep.run_folder import RunPaths, TrialPaths
from sweep.trial_records import TrialRecord, read_trials
from trainables.trial import TrialSettings

FIRST_SEED = 1001
"""Added to the sweep's seed: no trial of the search has such a one."""


@dataclasses.dataclass(frozen=True)
class Repeat:
    """One retraining that every finalist gets. fold: from 1, of cross-validation; None: the run's own split."""

    name: str
    seed: int
    fold: int | None


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A configuration to be repeated, as finalists.json has it (see ``finalist_records.Finalist``)."""

    trial_id: str
    number: int
    role: str
    rank: int | None
    cell: dict[str, Any] | None
    search_score: float
    params: TrialParams

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {
            "params": self.params.to_flat()
        }


def repeats_of(seed: int, repeats: int, folds: int | None) -> list[Repeat]:
    """What each finalist gets: ``repeats`` fresh seeds on the run's split, or each fold once. seed: of the sweep."""
    if folds is None:
        return [Repeat(f"seed_{seed + FIRST_SEED + k}", seed + FIRST_SEED + k, None) for k in range(repeats)]
    return [Repeat(f"fold_{k + 1}", seed + FIRST_SEED + k, k + 1) for k in range(folds)]


class RepeatHistory(TrialHistory):
    """The repeats that were ever begun in this run; ``wanted``: the names ("t0007/seed_1001") that are now asked for.

    An unfinished repeat of a configuration that is no finalist any more is left as it is. All weights are kept.
    """

    weights_kept = sys.maxsize

    def __init__(self, paths: RunPaths, metric: str, mode: str, wanted: Sequence[str]) -> None:
        super().__init__(paths, metric, mode)
        self.wanted = tuple(wanted)

    def files(self, entry: TrialState) -> TrialPaths:
        return self.paths.repeat(entry.trial_id)

    def unfinished(self) -> list[TrialState]:
        return [entry for entry in super().unfinished() if entry.trial_id in self.wanted]

    def of_wanted(self) -> list[TrialState]:
        """The wanted repeats that have begun, in the order in which they are wanted."""
        by_name = {entry.trial_id: entry for entry in self.entries.values()}
        return [by_name[name] for name in self.wanted if name in by_name]

    def _records(self, problems: list[str]) -> list[TrialRecord]:
        return read_trials(self.paths.repeat_folders(), self.paths.finalists, problems)


class RepeatList:
    """Gives out the repeats that have not begun: the first of every finalist, then the second of each, and so on, so
    that whenever it is interrupted all finalists have been repeated equally often."""

    def __init__(self, history: RepeatHistory, chosen: Sequence[Chosen], repeats: Sequence[Repeat]) -> None:
        self._ledger = history
        self._all = [(one, repeat) for repeat in repeats for one in chosen]

    def __len__(self) -> int:
        return len(self._left())

    def ask(self) -> TrialState | None:
        """Begin the next repeat. Raises ``Exhausted`` when all have begun."""
        left = self._left()
        if not left:
            raise Exhausted
        one, repeat = left[0]
        asked = {"finalist": one.trial_id, "seed": repeat.seed, "fold": repeat.fold}
        return self._ledger.begin(self._ledger.next_number, one.params, asked, name=f"{one.trial_id}/{repeat.name}")

    def _left(self) -> list[tuple[Chosen, Repeat]]:
        begun = {entry.trial_id for entry in self._ledger.entries.values()}
        return [(one, repeat) for one, repeat in self._all if f"{one.trial_id}/{repeat.name}" not in begun]


def settings_of_repeat(entry: TrialState, settings: TrialSettings, paths: RunPaths) -> tuple[TrialSettings, int]:
    """The settings of a repeat, and the stream of its random numbers; settings: of its finalist in the search.

    The stream is the same for all finalists at the same seed, so that what chance does to all of them alike is no
    difference between them.
    """
    fold = entry.asked["fold"]
    splits = None if fold is None else str(paths.fold(fold).absolute())
    return dataclasses.replace(settings, seed=entry.asked["seed"], splits=splits), 0
