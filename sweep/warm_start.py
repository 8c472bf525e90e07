"""A warm start: the best trials of an earlier sweep become the first points of this one."""

from __future__ import annotations

from search_spaces.errors import UserError, by_reason, shown_problems
from search_spaces.fixed_trial import FixedTrial
from search_spaces.params import Choices, Range, Scalar, TrialParams, field_of
from search_spaces.paths import path_of
from search_spaces.space import Space, random_study
from search_spaces.user_file import ProcessLost
from sweep.config import ResolvedConfig
from sweep.optuna_search import own_points
from sweep.records import WarmTrial, read_sweep
from sweep.run_folder import RunPaths
from sweep.trial_records import TrialRecord, openings_of, rank, read_trials
from trainables.metrics import metric_mode

BEST_TRIALS = 10
DEPTH = {"unfreeze_depth", "unfreeze_layers"}
"""A value that --set gives one of them replaces both."""


def warm_trials(config: ResolvedConfig, space: Space | None) -> tuple[tuple[WarmTrial, ...], list[str]]:
    """The ten best trials of the run ``config.warm_start`` as points of ``space``, and what is left out, a line each.

    A trial fits if the space can draw its hyperparameters, except those that --set fixes. space: None = unknown, and
    none is returned. Raises ``UserError`` if there is no such run, it was selected by another metric, no trial of it
    has a score, or none fits.
    """
    named = f"--warm-start {config.warm_start}"
    notes: list[str] = []
    paths = RunPaths(path_of("--warm-start", str(config.warm_start)))
    ranked = _best_trials(paths, named, config.metric, notes)
    opened = len(openings_of(paths))
    if space is None:
        return (), []
    before = own_points(space)
    found: list[WarmTrial] = []
    left_out: dict[str, str] = {}
    for one in ranked:
        try:
            point = _point_of(one, space)
            if point in [*before, *(other.point for other in found)]:
                raise UserError("the same point as an earlier one")
            if len(before) + len(found) >= config.trials:
                raise UserError(f"--trials {config.trials} leaves no room for it")
            found.append(WarmTrial(trial_id=one.trial_id, score=one.score, point=point, opened=opened))
        except ProcessLost:
            raise
        except UserError as error:
            left_out[one.trial_id] = "; ".join(error.problems)
    if not found:
        reasons = "; ".join(shown_problems(by_reason(left_out), 3))
        raise UserError(
            f"{named}: none of its {len(ranked)} best trials fits this sweep ({reasons}): give the --space, "
            "--backbones and --set of that run, or omit --warm-start"
        )
    return tuple(found), shown_problems(notes) + [f"left out {alike}" for alike in by_reason(left_out)]


def _best_trials(paths: RunPaths, named: str, metric: str, notes: list[str]) -> list[TrialRecord]:
    """The best trials of the run, best first. What cannot be read of its trials is added to ``notes``."""
    damage: list[str] = []
    try:
        sweep = read_sweep(paths, damage)
    except UserError as error:
        raise UserError(f"--warm-start: {error}") from None
    if damage:
        raise UserError(f"{named}: {damage[0]}; restore the file, or give another run")
    if (sweep.metric, sweep.mode) != (metric, metric_mode(metric)):
        raise UserError(
            f"{named}: that run compared trials by {sweep.metric} ({sweep.mode}), this sweep uses {metric} "
            f"({metric_mode(metric)}): give --metric {sweep.metric}, or another run"
        )
    records = read_trials(paths.trial_folders(), paths.trials, metric, sweep.mode, notes)
    ranked = rank(records, sweep.mode)
    if not ranked:
        raise UserError(f"{named}: none of its {len(records)} trials has a score: give another run")
    return ranked[:BEST_TRIALS]


class _ByField(dict[str, Scalar]):
    """Hyperparameters under every name that a space may ask for them by: ``lr.sgd`` is ``lr``."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Scalar:
        return self[field_of(name)]


def _point_of(record: TrialRecord, space: Space) -> dict[str, Scalar]:
    """The values, by suggested name, for which ``space`` gives this trial; ``UserError`` if there are none."""
    wanted = TrialParams.from_flat(record.params).to_flat()
    with random_study() as study:
        trial = FixedTrial(study.ask(), space.overrides, _ByField(wanted))
        given = space.params_of(trial).active()
    fixed = {field for field, value in space.overrides.items() if not isinstance(value, Range | Choices)}
    fixed |= DEPTH if fixed & DEPTH else set()
    problems = [f"{name}={trial.suggested[name]} is outside the range of --set" for name in sorted(trial.outside)]
    problems += [
        f"{name} is {value} in space {space.name}, not {wanted[name]}"
        for name, value in given.items()
        if name not in fixed and value != wanted[name]
    ]
    if problems:
        raise UserError(*problems)
    return trial.suggested
