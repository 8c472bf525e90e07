"""The search: asks Optuna for the next trial and tells it the outcome of the others, in the right state.

This corrects what plain Optuna under Ray Tune gets wrong. A trial that the scheduler stopped is told as PRUNED with all
its intermediate values, a failed one as FAIL, one that ran its budget as COMPLETE with its best value. A configuration
that was tried before is not run again. Every draw has a generator of its own, seeded by the sweep's seed and the
trial's number, so that a killed and resumed sweep continues as if nothing had happened.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, BruteForceSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as Outcome

from search_spaces.errors import UserError, raise_all
from search_spaces.params import FIELDS, Scalar, TrialParams
from search_spaces.space import Space, depends_on_more, is_continuous
from search_spaces.user_file import ProcessLost
from sweep.endings import BAD_INPUT, SweepStopped
from sweep.history import TrialHistory, TrialState
from sweep.trial_records import Suggestion

LEARNING_SAMPLERS = ("tpe", "gp")
DUPLICATES_IN_A_ROW = 20
RANDOM_DRAWS = 200
LOST_FOR_ONE_TRIAL = 3
DRAWN_TOGETHER = "{}:relative_params:0"
"""The key of all that Optuna's TPE and GP drew for a running trial, also for branches that it does not take."""
STUDY_NAME = "sweep"
_log = logging.getLogger(__name__)


class Exhausted(Exception):
    """Every configuration of the space has been tried, or none that is new could be drawn."""


class OptunaSearch:
    """One search over ``space``, on top of a ``history`` that may already hold trials of an earlier session.

    trials: how many the sweep runs in all. concurrency: how many run at once. warm: points of --warm-start.
    deterministic: the k-th ask sees exactly the trials up to k - concurrency, all ended, in order; without it, all
    that have ended. Raises ``UserError`` if the space is no longer that of the trials in the history.

    on_refused: called once with each problem for which the space refused a draw: a user's space may raise or hang in a
    branch so rare that trying it out did not find it. Such a draw is skipped and the sweep continues: if it ended, it
    would draw the same again when resumed. If draws for one trial hang, or end the process of the file,
    ``LOST_FOR_ONE_TRIAL`` times, ``ask`` raises ``SweepStopped``.
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
        warm: Sequence[dict[str, Scalar]] = (),
    ) -> None:
        raise_all(_changes(space, history))
        self._space = space
        self._history = history
        self._sampler = sampler
        self._seed = seed
        self._lag = concurrency if deterministic else 0
        points = first_points(space, sampler, trials, warm)
        # The additional seed points of an extended sweep come too late: its sampler has begun.
        late = (k for k, point in enumerate(points) if k in history.entries and not _tried(history.entries[k], point))
        self._seed_points = points[: next(late, len(points))]
        self._seen: dict[str, int] = {}
        self._running: dict[int, list[optuna.Trial]] = {}
        self._refused: set[str] = set()
        self.on_refused: list[Callable[[str], None]] = []
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage, direction=_direction(history), sampler=RandomSampler())
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        if space.fixed is None:
            with warnings.catch_warnings(action="ignore"):
                for _, state in sorted(history.entries.items()):
                    self._replay(state)

    def ask(self) -> TrialState | None:
        """Begin the next trial, or return None while it must wait for others to end.

        Raises ``Exhausted`` when the space, or the list of a published study, has no new configuration.
        """
        number, fixed = self._history.next_number, self._space.fixed
        if fixed is not None:
            number = next((k for k in range(len(fixed)) if k not in self._history.entries), len(fixed))
            if number == len(fixed):
                raise Exhausted
        if self._lag and any(not trial.ended for trial in self._visible(number)):
            return None
        if fixed is not None:
            return self._history.begin(number, fixed[number])
        self._tell_ended(number)
        with warnings.catch_warnings(action="ignore"):  # of experimental samplers, and of choices that are no scalars
            return self._draw(number)

    def _visible(self, number: int) -> list[TrialState]:
        """The trials whose outcomes the ask for trial ``number`` may use, by number."""
        return [trial for k, trial in sorted(self._history.entries.items()) if k <= number - self._lag]

    def _tell_ended(self, number: int) -> None:
        for state in self._visible(number):
            if state.ended:
                for position, trial in enumerate(self._running.pop(state.number, ())):
                    self._tell(trial, state, duplicate=position > 0)

    def _draw(self, number: int) -> TrialState:
        duplicates: list[Suggestion] = []
        refused: list[Suggestion] = []
        lost = 0
        for attempt in range(DUPLICATES_IN_A_ROW + RANDOM_DRAWS):
            self._study.sampler = self._sampler_of(number, attempt)
            # A seed point may leave names out; if the draw for these is refused, the point is tried again.
            if attempt == len(refused) and number < len(self._seed_points):
                self._study.enqueue_trial(self._seed_points[number])
            trial = self._study.ask()
            try:
                params = self._space.suggest(trial)
            except UserError as error:
                if isinstance(error, ProcessLost):
                    _log.warning("%s\n%s", error, error.frames)
                    lost += 1
                    if lost == LOST_FOR_ONE_TRIAL:
                        raise SweepStopped(str(error), BAD_INPUT) from None
                refused.append(self._suggestion(trial))
                self._report_refused(trial, error)
                continue
            # Drawn values that the trial did not use are hidden from other draws, as a kill would lose them.
            self._storage.set_trial_system_attr(trial._trial_id, DRAWN_TOGETHER.format(self._sampler), "")
            suggestion = self._suggestion(trial)
            original = self._seen.setdefault(key_of(params), number)
            if original == number:
                self._running[number] = [trial]
                before = {"duplicates": tuple(duplicates), "refused": tuple(refused)}
                return self._history.begin(number, params, suggestion.model_copy(update=before))
            duplicates.append(suggestion.model_copy(update={"of": original}))
            self._report_duplicate(trial, self._history.entries[original])
        raise Exhausted

    def _report_refused(self, trial: optuna.Trial, error: UserError) -> None:
        self._study.sampler = RandomSampler()
        self._study.tell(trial, state=Outcome.FAIL)
        for problem in error.problems:
            if problem not in self._refused:
                self._refused.add(problem)
                for listener in self.on_refused:
                    listener(f"skipped a draw that the space rejects: {problem}")

    def _report_duplicate(self, duplicate: optuna.Trial, original: TrialState) -> None:
        """Give a duplicate the outcome of its original, now or when that one ends."""
        if original.number in self._running:
            self._running[original.number].append(duplicate)
        else:
            self._tell(duplicate, original, duplicate=True)

    def _tell(self, trial: optuna.Trial, state: TrialState, duplicate: bool = False) -> None:
        outcome = _outcome(state, duplicate, self._sampler)
        for epoch, score in outcome["intermediate_values"].items():
            trial.report(score, epoch)
        trial.set_user_attr("trial_id", state.trial_id)
        self._study.sampler = RandomSampler()  # BruteForceSampler would stop the study from within tell().
        value = outcome["value"] if outcome["state"] is Outcome.COMPLETE else None
        self._study.tell(trial, value, state=outcome["state"])

    def _replay(self, state: TrialState) -> None:
        """Put a trial of an earlier session into the study, in the state that it would have there now."""
        for refused in state.suggestion.refused:
            self._study.add_trial(create_trial(state=Outcome.FAIL, **_sampled(refused)))
        for suggestion in (*state.suggestion.duplicates, state.suggestion):
            original = self._history.entries.get(state.number if suggestion.of is None else suggestion.of)
            if original is None:
                continue
            if original.ended and original.number <= self._history.next_number - self._lag:
                self._study.add_trial(frozen_trial(original, suggestion, self._sampler))
                continue
            self._study.enqueue_trial(suggestion.suggested)
            trial = self._study.ask()
            if key_of(self._space.suggest(trial)) != key_of(original.params):
                raise UserError(f"{depends_on_more(self._space)}: trial {original.trial_id} began with another one")
            self._running.setdefault(original.number, []).append(trial)
        self._seen[key_of(state.params)] = state.number
        for name, value in state.suggestion.positions.items():
            self._storage.set_study_system_attr(self._study_id, name, value)

    def _suggestion(self, trial: optuna.Trial) -> Suggestion:
        """The record from which ``trial`` can be put into a study again. positions: those of QMC's sequences."""
        attrs = self._storage.get_study_system_attrs(self._study_id)
        return Suggestion(
            suggested=json.loads(json.dumps(trial.params, default=lambda odd: odd.item())),  # numpy's scalars
            distributions={name: json.loads(distribution_to_json(d)) for name, d in trial.distributions.items()},
            positions={name: value for name, value in attrs.items() if name.startswith("qmc:")},
        )

    def _sampler_of(self, number: int, attempt: int) -> BaseSampler:
        """A sampler with a generator of its own for each draw."""
        seed = int(np.random.SeedSequence([self._seed, number, attempt]).generate_state(1)[0])
        by_chance = RandomSampler(seed=seed)
        independent: dict[str, Any] = {"independent_sampler": by_chance, "warn_independent_sampling": False}
        name = self._sampler
        if attempt >= DUPLICATES_IN_A_ROW:
            # A finite space is enumerated for what is left in it, a continuous one sampled at random.
            name = "random" if self._space.continuous else "grid"
        match name:
            case "random":
                return by_chance
            case "grid":
                return _Grid(seed=seed)
            case "tpe":
                return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
            case "gp":
                return GPSampler(seed=seed, **independent)
            case "qmc":
                sobol = _Sobol(scramble=True, seed=self._seed, **independent)
                sobol.space = {name: one for name, one in sorted(self._space.distributions.items()) if not one.single()}
                return sobol
        raise AssertionError(name)


class _Sobol(QMCSampler):
    """One sequence over all of ``space``; Optuna's own draws at random what the first trial did not ask for."""

    space: dict[str, BaseDistribution]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.space


class _Grid(BruteForceSampler):
    """Refuses a continuous range missing from ``Space.continuous``: in a branch so rare that the try-out missed it."""

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if is_continuous(param_distribution):
            way_out = "give it choices or steps"
            raise UserError(f"grid cannot try every value of {param_name}, drawn from a range: {way_out}")
        return super().sample_independent(study, trial, param_name, param_distribution)


class OptunaExport:
    """``study.db``: a copy of the search for Optuna's own tools; the search never reads it.

    A thread appends each ended trial, so that the next trial does not wait for it. A resumed run creates the file again
    from its history. ``close`` returns, and Python ends, when all is written. listed: the trials of a fixed list, which
    are not sampled: each parameter is exported as a categorical of all its values in the list.

    An error of the file (a full disk, a lock) is logged and ends the export, not the sweep.
    """

    def __init__(self, history: TrialHistory, listed: Sequence[TrialParams] = ()) -> None:
        values = [params.to_flat() for params in listed]
        self._choices = {
            name: CategoricalDistribution(tuple(dict.fromkeys(one[name] for one in values)))
            for name in (FIELDS if values else {})
        }
        self._study: optuna.Study | None = None
        self._storage: optuna.storages.RDBStorage | None = None
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="study.db")
        self._writer.submit(self._create, history.paths.study, _direction(history))
        for _, state in sorted(history.entries.items()):
            if state.ended:
                self.add(state)
        history.on_end.append(self.add)

    def add(self, state: TrialState) -> None:
        """Append the ended trial ``state``."""
        self._writer.submit(self._add, state)

    def close(self) -> None:
        """Wait until all is written, and close the file; nothing can be added after it."""
        self._writer.shutdown()
        if self._storage is not None:
            self._storage.engine.dispose()  # Optuna leaves its connections open.

    def _create(self, path: Path, direction: StudyDirection) -> None:
        try:
            for ending in ("", "-journal", "-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
            self._study = optuna.create_study(storage=self._storage, study_name=STUDY_NAME, direction=direction)
        except Exception as error:
            self._give_up(error)

    def _add(self, state: TrialState) -> None:
        if self._study is None:
            return
        try:
            trial = frozen_trial(state, state.suggestion)
            if self._choices:
                trial.params = state.params.active()
                trial.distributions = {name: self._choices[name] for name in trial.params}
            self._study.add_trial(trial)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._study = None
        _log.warning("study.db cannot be written (%s): the sweep continues without it", error)


def first_points(space: Space, sampler: str, trials: int, warm: Sequence[dict[str, Scalar]]) -> list[dict[str, Scalar]]:
    """The points that a sweep of so many trials tries first.

    All seed points of a user's own space, then all of a ``warm`` start. Without either, those of our space: at most
    half of the trials, and none if the sampler does not learn from them.
    """
    if space.source is not None or warm:
        return [*own_points(space), *warm]
    return space.seed_points[: trials // 2] if sampler in LEARNING_SAMPLERS else []


def _tried(state: TrialState, point: dict[str, Scalar]) -> bool:
    """Whether a draw for this trial has all values of ``point``, except of names that it did not ask for."""
    drawn = (*state.suggestion.duplicates, *state.suggestion.refused, state.suggestion)
    return any(all(one.suggested.get(name, value) == value for name, value in point.items()) for one in drawn)


def own_points(space: Space) -> list[dict[str, Scalar]]:
    """The seed points of a user's own space; [] for ours."""
    return [] if space.source is None else space.seed_points


def _direction(history: TrialHistory) -> StudyDirection:
    return StudyDirection.MAXIMIZE if history.mode == "max" else StudyDirection.MINIMIZE


def frozen_trial(state: TrialState, suggestion: Suggestion, sampler: str = "") -> FrozenTrial:
    """An ended trial in Optuna's form, or in the one for ``sampler``: parameters of ``suggestion``, outcome of
    ``state``."""
    return create_trial(
        user_attrs={"trial_id": state.trial_id, "reason": state.reason},
        **_sampled(suggestion),
        **_outcome(state, suggestion.of is not None, sampler),
    )


def _outcome(state: TrialState, duplicate: bool, sampler: str) -> dict[str, Any]:
    """state, value and intermediate_values of an ended trial, or of a duplicate that shares its outcome.

    COMPLETE has its best value; PRUNED has its last one, as in Optuna itself. The duplicate of a failed trial is PRUNED
    without a value, which ranks worst: TPE ignores FAIL and would suggest it forever. The Gaussian process ignores
    PRUNED, so for it a pruned trial is COMPLETE with its best value.
    """
    values = {epoch: score for epoch, score in sorted(state.scores.items()) if not math.isnan(score)}
    complete = state.status == "completed" or (state.status == "pruned" and sampler == "gp")
    if complete and values:
        return {"state": Outcome.COMPLETE, "value": state.score, "intermediate_values": values}
    if state.status == "pruned":
        last = next(reversed(values.values()), None)
        return {"state": Outcome.PRUNED, "value": last, "intermediate_values": values}
    if duplicate:
        return {"state": Outcome.PRUNED, "value": None, "intermediate_values": {}}
    return {"state": Outcome.FAIL, "value": None, "intermediate_values": values}


def _sampled(suggestion: Suggestion) -> dict[str, Any]:
    """params and distributions of a suggestion."""
    return {"params": suggestion.suggested, "distributions": _distributions(suggestion)}


def _distributions(suggestion: Suggestion) -> dict[str, BaseDistribution]:
    saved = suggestion.distributions
    return {name: json_to_distribution(json.dumps(value)) for name, value in saved.items()}


def _changes(space: Space, history: TrialHistory) -> list[str]:
    """How the space differs from the one of the trials so far, if that rules out continuing, one sentence each."""
    back = "restore it (a weights file may be missing), or start a new run under another --name"
    if space.fixed is not None:
        changed = [k for k, state in history.entries.items() if space.fixed[k : k + 1] != (state.params,)]
        begun_with = f"the list {space.name} has changed since this run began"
        return [f"{begun_with}: trial {changed[0]} differs; {back}"] if changed else []
    before = {name: d for state in history.entries.values() for name, d in _distributions(state.suggestion).items()}
    return [
        f"{name} of space {space.name} offers {_choices(now)}, but {_choices(before[name])} when the run began; {back}"
        for name, now in space.distributions.items()
        if name in before and _choices(now) != _choices(before[name])
    ]


def _choices(distribution: BaseDistribution) -> str:
    """What must not change within an Optuna study: the choices of a categorical, or the kind of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    return type(distribution).__name__


def key_of(params: TrialParams) -> str:
    """A key that is equal for configurations that train alike."""
    return json.dumps(params.active(), sort_keys=True)
