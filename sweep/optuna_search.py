"""The search: asks Optuna for the next trial and tells it, in the right state, what became of the others.

What plain use of Optuna under Ray Tune gets wrong is put right here. A trial that the scheduler stopped is told
PRUNED with all its intermediate values, a failed one FAIL, one that ran its budget COMPLETE with its best value. A
configuration that was tried before is not run again. Every draw has a generator of its own, seeded by the sweep's
seed and the trial's number, so that a sweep that was killed and resumed goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, BruteForceSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from search_spaces.errors import UserError, raise_all
from search_spaces.params import TrialParams
from search_spaces.space import Space
from sweep.history import TrialHistory, TrialState, to_json_scalars
from sweep.trial_records import Suggestion

SEEDED_SAMPLERS = ("tpe", "gp")
DUPLICATES_IN_A_ROW = 20
RANDOM_DRAWS = 200


class Exhausted(Exception):
    """Every configuration of the space has been tried, or none that is new could be drawn."""


class OptunaSearch:
    """One search over ``space``, on top of a ``history`` that may already hold trials of an earlier session.

    trials: how many the sweep runs in all; seed points take at most half of them. concurrency: how many run at once.
    deterministic: the k-th ask sees exactly the trials up to k - concurrency, all ended, in order; without it, all
    that have ended. Raises ``UserError`` if the space is no longer that of the trials in the history.

    on_refused: called with each problem, once, for which the space refused to give a configuration: a user's space
    may raise in a branch so rare that trying it out did not find it. Such a draw is left out; the sweep goes on.
    """

    def __init__(
        self,
        space: Space,
        history: TrialHistory,
        *,
        sampler: str,
        trials: int,
        seed: int,
        concurrency: int,
        deterministic: bool,
    ) -> None:
        self._space = space
        self._ledger = history
        self._sampler = sampler
        self._seed = seed
        self._concurrency = concurrency
        self._deterministic = deterministic
        self._seeds = space.seed_points[: trials // 2] if sampler in SEEDED_SAMPLERS else []
        self._seen: dict[str, int] = {}
        self._running: dict[int, list[optuna.Trial]] = {}
        self.on_refused: list[Callable[[str], None]] = []
        self._refused: set[str] = set()
        raise_all(_changes(space, history))
        self._study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(),
            direction="maximize" if history.mode == "max" else "minimize",
            sampler=RandomSampler(),
        )
        for _, entry in sorted(history.entries.items()):
            self._replay(entry)

    def ask(self) -> TrialState | None:
        """Begin the next trial, or return None while it must wait for others to end.

        Raises ``Exhausted`` when the space, or the list of a study, has no new configuration.
        """
        if self._space.fixed is not None:
            missing = [number for number in range(len(self._space.fixed)) if number not in self._ledger.entries]
            if not missing:
                raise Exhausted
            if self._must_wait(missing[0]):
                return None
            return self._ledger.begin(missing[0], self._space.fixed[missing[0]])
        number = self._ledger.next_number
        if self._must_wait(number):
            return None
        self._tell_ended(number)
        return self._draw(number)

    def _must_wait(self, number: int) -> bool:
        return self._deterministic and any(not entry.ended for entry in self._visible(number))

    def _visible(self, number: int) -> list[TrialState]:
        """The trials that the ask for trial ``number`` may know the outcome of, by number."""
        last = number - self._concurrency if self._deterministic else number
        return [entry for k, entry in sorted(self._ledger.entries.items()) if k <= last]

    def _tell_ended(self, number: int) -> None:
        for entry in self._visible(number):
            if entry.ended and entry.number in self._running:
                for position, trial in enumerate(self._running.pop(entry.number)):
                    self._tell(trial, entry, duplicate=position > 0)

    def _draw(self, number: int) -> TrialState:
        duplicates: list[Suggestion] = []
        refused: list[Suggestion] = []
        for attempt in range(DUPLICATES_IN_A_ROW + RANDOM_DRAWS):
            self._study.sampler = self._sampler_of(number, attempt)
            if attempt == 0 and number < len(self._seeds):
                self._study.enqueue_trial(self._seeds[number])
            trial = self._begin()
            try:
                params = self._suggest(trial)
            except UserError as error:
                refused.append(self._asked(trial))
                self._refuse(trial, error)
                continue
            asked = self._asked(trial)
            key = _key(params)
            if key not in self._seen:
                self._seen[key] = number
                self._running[number] = [trial]
                before = {"duplicates": tuple(duplicates), "refused": tuple(refused)}
                return self._ledger.begin(number, params, asked.model_copy(update=before))
            original = self._ledger.entries[self._seen[key]]
            duplicates.append(asked.model_copy(update={"of": original.number}))
            self._settle(trial, original)
        raise Exhausted

    def _begin(self) -> optuna.Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._study.ask()

    def _suggest(self, trial: optuna.Trial) -> TrialParams:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._space.suggest(trial)

    def _refuse(self, trial: optuna.Trial, error: UserError) -> None:
        self._study.sampler = RandomSampler()
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        for problem in error.problems:
            if problem not in self._refused:
                self._refused.add(problem)
                for listener in self.on_refused:
                    listener(f"a draw is left out, as the space refuses it: {problem}")

    def _settle(self, duplicate: optuna.Trial, original: TrialState) -> None:
        """Give a duplicate the outcome of its original, now or when that one ends."""
        if original.number in self._running:
            self._running[original.number].append(duplicate)
        else:
            self._tell(duplicate, original, duplicate=True)

    def _tell(self, trial: optuna.Trial, entry: TrialState, duplicate: bool = False) -> None:
        outcome = _outcome(entry, self._ledger, duplicate)
        for epoch, score in outcome["intermediate_values"].items():
            trial.report(score, epoch)
        trial.set_user_attr("trial_id", entry.trial_id)
        self._study.sampler = RandomSampler()  # BruteForceSampler would stop the study from within tell().
        value = outcome["value"] if outcome["state"] is optuna.trial.TrialState.COMPLETE else None
        self._study.tell(trial, value, state=outcome["state"])

    def _replay(self, entry: TrialState) -> None:
        """Put a trial of an earlier session into the study, in the state in which it would be there now."""
        if self._space.fixed is not None:
            return
        for asked in entry.suggestion.refused:
            self._study.add_trial(
                create_trial(
                    state=optuna.trial.TrialState.FAIL, params=asked.suggested, distributions=_distributions(asked)
                )
            )
        for asked in (*entry.suggestion.duplicates, entry.suggestion):
            original = self._ledger.entries.get(entry.number if asked.of is None else asked.of)
            if original is None:
                continue
            if original.ended and original.number <= self._ledger.next_number - self._lag():
                self._study.add_trial(frozen_trial(original, asked, self._ledger))
                continue
            self._study.enqueue_trial(asked.suggested)
            trial = self._begin()
            self._suggest(trial)
            self._running.setdefault(original.number, []).append(trial)
        self._seen[_key(entry.params)] = entry.number
        for name, value in entry.suggestion.positions.items():
            self._study._storage.set_study_system_attr(self._study._study_id, name, value)

    def _lag(self) -> int:
        return self._concurrency if self._deterministic else 0

    def _asked(self, trial: optuna.Trial) -> Suggestion:
        frozen = trial._get_latest_trial()
        attrs = self._study._storage.get_study_system_attrs(self._study._study_id)
        return Suggestion(
            suggested=to_json_scalars(frozen.params),
            distributions={name: json.loads(distribution_to_json(d)) for name, d in frozen.distributions.items()},
            positions={name: value for name, value in attrs.items() if name.startswith("qmc:")},
        )

    def _sampler_of(self, number: int, attempt: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
        if attempt >= DUPLICATES_IN_A_ROW:
            # What a finite space still holds is found by enumerating it; elsewhere chance finds it.
            return _quiet(BruteForceSampler, seed=seed) if not self._space.continuous else RandomSampler(seed=seed)
        match self._sampler:
            case "tpe":
                return _quiet(TPESampler, seed=seed, multivariate=True, group=True, constant_liar=True)
            case "gp":
                independent = RandomSampler(seed=seed)
                return _quiet(GPSampler, seed=seed, independent_sampler=independent, warn_independent_sampling=False)
            case "qmc":
                # One scrambled Sobol sequence for the whole sweep; what it cannot cover is drawn afresh each time.
                independent = RandomSampler(seed=seed)
                return _quiet(
                    QMCSampler,
                    scramble=True,
                    seed=self._seed,
                    independent_sampler=independent,
                    warn_independent_sampling=False,
                )
            case "grid":
                return _quiet(BruteForceSampler, seed=seed)
            case "random":
                return RandomSampler(seed=seed)
        raise AssertionError(self._sampler)


def frozen_trial(entry: TrialState, asked: Suggestion, history: TrialHistory) -> FrozenTrial:
    """An ended trial as Optuna has it: parameters as ``asked``, outcome of ``entry``."""
    return create_trial(
        params=asked.suggested,
        distributions=_distributions(asked),
        user_attrs={"trial_id": entry.trial_id, "reason": entry.reason},
        **_outcome(entry, history, duplicate=asked.of is not None),
    )


def _outcome(entry: TrialState, history: TrialHistory, duplicate: bool = False) -> dict[str, Any]:
    """state, value and intermediate_values of an ended trial, or of a duplicate that shares its outcome.

    COMPLETE is worth its best value, PRUNED its last one, as Optuna itself has it for a pruned trial. The duplicate of
    a failed trial is PRUNED without a value, the worst there is: TPE leaves FAIL out and would ask for it for ever.
    """
    values = {epoch: score for epoch, score in sorted(entry.scores.items()) if not math.isnan(score)}
    value: float | None
    if entry.status == "completed" and values:
        state, value = optuna.trial.TrialState.COMPLETE, history.best_score(entry)
    elif entry.status == "pruned":
        state, value = optuna.trial.TrialState.PRUNED, next(reversed(values.values()), None)
    elif duplicate:
        state, value, values = optuna.trial.TrialState.PRUNED, None, {}
    else:
        state, value = optuna.trial.TrialState.FAIL, None
    return {"state": state, "value": value, "intermediate_values": values}


def _distributions(asked: Suggestion) -> dict[str, BaseDistribution]:
    return {name: json_to_distribution(json.dumps(value)) for name, value in asked.distributions.items()}


def _changes(space: Space, history: TrialHistory) -> list[str]:
    """How the space differs from the one that the trials so far were drawn from, where that rules out going on."""
    back = "bring it back (it may be for want of a weights file), or start a new run under another --name"
    if space.fixed is not None:
        changed = [k for k, entry in history.entries.items() if space.fixed[k : k + 1] != (entry.params,)]
        if not changed:
            return []
        return [f"the list {space.name} is not the one that this run began with: trial {changed[0]} differs; {back}"]
    before = {name: d for entry in history.entries.values() for name, d in _distributions(entry.suggestion).items()}
    return [
        f"{name} of space {space.name} offers {_choices(now)}, but {_choices(before[name])} when the run began; {back}"
        for name, now in space.distributions.items()
        if name in before and _choices(now) != _choices(before[name])
    ]


def _choices(distribution: BaseDistribution) -> str:
    """What Optuna does not let change within a study: the choices of a categorical, or the kind of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    return type(distribution).__name__


def _key(params: TrialParams) -> str:
    return json.dumps(params.active(), sort_keys=True)


def _quiet(make: Any, **arguments: Any) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: BaseSampler = make(**arguments)
        return sampler
