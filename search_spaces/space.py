"""A search space: found by its name or its file, tried out, and asked for the parameters of each trial."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import full_finetune, head_only, imbalance, partial_unfreeze, studies
from search_spaces.choices import losses
from search_spaces.errors import UserError, by_reason, gathered, raise_all, unknown
from search_spaces.fixed_trial import FixedTrial, Offered, names_layers
from search_spaces.params import FIELDS, Choices, Override, Range, Scalar, SpaceContext, TrialParams, parse_text
from search_spaces.paths import path_of
from search_spaces.studies import StudyRow
from search_spaces.user_file import ProcessLost, UserFile

SPACES: dict[str, types.ModuleType] = {
    "partial_unfreeze": partial_unfreeze,
    "head_only": head_only,
    "full_finetune": full_finetune,
    "imbalance": imbalance,
    "studies.bscs17028": studies,
    "studies.msds18022": studies,
    "studies.msds19058": studies,
    "studies.msds19005": studies,
    "studies.msds19042": studies,
}
RANDOM_TRIALS = 32
MOST_STEPS = 10_000
"""Of a range that can be enumerated."""

SpaceFunction = Callable[[optuna.Trial, SpaceContext], dict[str, Scalar]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """What one sweep may try: a function to search, or a study's fixed trials.

    name: as in ``SPACES``, or the absolute path of the user's file. overrides: what ``--set`` fixed or narrowed.
    seed_points: dicts of names as suggested; a sweep tries them first, in this order.
    distributions: of every name that random trials asked for; empty for a study. conditional: the names that only
    some of them asked for. notes: what was cut off the user's ranges, which fixed values change no trial, and how many
    seed points lie outside the ranges.
    fixed: a study's trials, in its order, None for a searched space; rows: the study's rows beside them.
    left_out: id of a study's row to the reason why it is not among ``fixed``.
    source: the text of the user's file, so that a run can keep it; None for a space of ours.
    """

    name: str
    context: SpaceContext
    overrides: Mapping[str, Override]
    seed_points: list[dict[str, Scalar]] = dataclasses.field(default_factory=list)
    distributions: Mapping[str, Offered] = dataclasses.field(default_factory=dict)
    conditional: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fixed: tuple[TrialParams, ...] | None = None
    rows: tuple[StudyRow, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str | None = None
    function: SpaceFunction | None = None

    def suggest(self, trial: optuna.trial.BaseTrial) -> TrialParams:
        """Ask ``trial`` for one configuration. Fixed values are not asked for and are not in ``trial.params``."""
        return self.params_of(FixedTrial(trial, self.overrides, known=self.distributions))

    def params_of(self, trial: FixedTrial) -> TrialParams:
        """The parameters that the space makes of ``trial``; ``UserError`` with the space and the line of an error."""
        assert self.function is not None, f"{self.name} is a list of trials, not a space to search"
        constants = self.function(cast(optuna.Trial, trial), self.context)
        try:
            if not isinstance(constants, Mapping):
                raise UserError(f"space() must return a dict of constants ({{}} for none), received {constants!r}")
            params = resolve(trial.suggested, constants, self.overrides)
            raise_all(misfits(params, self.context))
        except UserError as error:
            raise UserError(*(f"{self.name}: {problem}" for problem in error.problems)) from None
        return params

    @property
    def continuous(self) -> tuple[str, ...]:
        """Names drawn from a continuous range, or of too many steps: such a space cannot be searched by grid."""
        return tuple(name for name, one in self.distributions.items() if is_continuous(one))

    @property
    def most_configurations(self) -> int:
        """How many there are at most if nothing is continuous; fewer if only some of them ask for a name."""
        found = 1
        for one in self.distributions.values():
            if isinstance(one, CategoricalDistribution):
                found *= len(one.choices)
            elif one.step is not None:
                found *= round((one.high - one.low) / one.step) + 1
        return found


def is_continuous(one: BaseDistribution) -> bool:
    """Whether a distribution has more values than can be enumerated."""
    if not isinstance(one, FloatDistribution | IntDistribution):
        return False
    return one.step is None or (one.high - one.low) / one.step > MOST_STEPS


def load_space(
    name_or_path: str,
    context: SpaceContext,
    overrides: Mapping[str, object] | None = None,
    rows: Sequence[str] = (),
) -> Space:
    """Find, read and try out a space; ``UserError`` with everything wrong in it.

    name_or_path: a name of ``SPACES``, or the path of a Python file (it ends in .py or has a slash) that defines
    ``space(trial, context)`` and, optionally, ``seed_points(context)``. overrides: ``--set`` values. rows: ids of the
    only rows of a study to run; () = all that fit.
    """
    fitting, problems = checked_overrides(overrides or {}, context)
    name = name_or_path
    source: str | None = None
    module: types.ModuleType | UserFile
    try:
        if name.endswith(".py") or "/" in name:
            path = path_of("--space", name).absolute()
            module = UserFile(path)
            name, source = str(path), module.source
        elif name in SPACES:
            module = SPACES[name]
        else:
            raise UserError(f"--space: {unknown('search space', name, SPACES)}; or give the path of a .py file")
        if module is studies:
            space = _study(name, context, fitting, rows)
        else:
            space = Space(name=name, context=context, overrides=fitting, source=source, function=module.space)
            space = _with_seed_points(_tried_out(space), module.seed_points(context))
    except UserError as error:
        raise UserError(*problems, *error.problems) from error.__cause__
    raise_all(problems)
    return space


def checked_overrides(overrides: Mapping[str, object], context: SpaceContext) -> tuple[dict[str, Override], list[str]]:
    """The ``--set`` values that can run on the data and weights of ``context``, and what is wrong with the others."""
    fits: dict[str, Scalar] = {"backbone": context.backbones[0], "loss": "bce", "batch_size": 1}
    fitting: dict[str, Override] = {}
    problems: list[str] = []
    for field, given in overrides.items():
        with gathered(problems, f"--set {field}={given}: "):
            value = parse_text(field, given)
            if field in fits and not isinstance(value, Range | Choices):
                raise_all(misfits(TrialParams.from_flat(fits | {field: value}), context))
            fitting[field] = value
    if fitting.get("unfreeze_depth", 0) is None and not names_layers(fitting):
        del fitting["unfreeze_depth"]
        problems.append("--set unfreeze_depth=none: name the layers to train beside it: --set unfreeze_layers=NAMES")
    return fitting, problems


def resolve(
    suggested: Mapping[str, Scalar], constants: Mapping[str, Scalar], overrides: Mapping[str, Override]
) -> TrialParams:
    """One trial's parameters from what was suggested, what the space returned, and what the user fixed.

    suggested: a field of ``TrialParams``, or ``<field>.<branch>``, to its value. constants: fields to values; naming
    a suggested field again is fine if the value is the same. overrides: values of fields replace both; ranges and
    choices were already applied when the value was suggested.
    An override of ``unfreeze_layers`` replaces ``unfreeze_depth``, and vice versa; layers without a depth need no
    ``unfreeze_depth=None`` beside them.
    Unknown names and two values for one field raise ``UserError``, all of them together.
    """
    flat: dict[str, Scalar] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    named = [(name.partition(".")[0], f"suggested as {name}={value!r}", value) for name, value in suggested.items()]
    named += [(name, f"returned as {name}={value!r}", value) for name, value in constants.items()]
    for field, source, value in named:
        if field not in FIELDS:
            problems.append(unknown("hyperparameter", field, FIELDS))
            continue
        if field in flat and (flat[field] != value or source.startswith("suggested")):
            problems.append(f"two values for {field}: {sources[field]} and {source}; a trial takes one")
        flat[field], sources[field] = value, source
    raise_all(problems)
    fixed = {field: value for field, value in overrides.items() if not isinstance(value, Range | Choices)}
    flat.update(fixed)
    if "unfreeze_depth" in fixed and "unfreeze_layers" not in fixed:
        flat["unfreeze_layers"] = "none"
    # None must be set, as the field's default is a depth, 0.
    if "unfreeze_depth" not in fixed and (names_layers(fixed) or ("unfreeze_depth" not in flat and names_layers(flat))):
        flat["unfreeze_depth"] = None
    return TrialParams.from_flat(flat)


def misfits(params: TrialParams, context: SpaceContext) -> list[str]:
    """Why ``params`` cannot run on the data and weights of ``context``, one sentence each; empty if it can."""
    found = []
    if params.loss not in (allowed := losses(context)):
        task = context.task.replace("_", "-")
        found.append(f"loss {params.loss} cannot train a {task} task: give {' or '.join(allowed)}")
    if params.batch_size > context.train_count:
        found.append(f"batch_size {params.batch_size} is above the {context.train_count} images of the training split")
    if params.backbone not in context.backbones:
        ours = ", ".join(context.backbones)
        found.append(f"backbone {params.backbone} is not one of this sweep's: {ours}; name it in --backbones")
    return found


@contextmanager
def random_study(seed: int = 0) -> Iterator[optuna.Study]:
    """A seeded random study in memory, without Optuna's message on the terminal; its log level is restored."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(level)


def _tried_out(space: Space) -> Space:
    """``space`` with the distributions and notes of ``RANDOM_TRIALS`` random trials; ``UserError`` with all problems.

    Each is run twice, with the same values: a sweep over a space that depends on anything else could not be resumed.
    """
    trials: list[FixedTrial] = []
    distributions: dict[str, Offered] = {}
    problems: dict[str, list[str]] = {}  # by the part of a problem without the drawn value
    unseen = {field for field, override in space.overrides.items() if isinstance(override, Range | Choices)}
    idle = {*space.overrides} - unseen
    with random_study() as study:
        # Few branches may ask for a field that has a range: draw more before calling the range a mistake.
        while len(trials) < RANDOM_TRIALS or (unseen and not problems and len(trials) < 10 * RANDOM_TRIALS):
            asked = study.ask()
            trials.append(FixedTrial(asked, space.overrides, known=distributions))
            try:
                params = space.params_of(trials[-1])
                distributions |= trials[-1].distributions
                idle -= params.active().keys()
                again = FixedTrial(asked, space.overrides, known=distributions)  # Optuna gives the same values again
                if space.params_of(again) != params or again.suggested != trials[-1].suggested:
                    raise UserError(depends_on_more(space))
            except ProcessLost:
                raise
            except UserError as error:
                for problem in error.problems:
                    problems.setdefault(problem.partition(", received")[0], []).append(problem)
            unseen -= trials[-1].narrowed
    drawn = f" of {len(trials)} random trials)"
    raise_all([one[0] if len(set(one)) == 1 else f"{one[0]} ({len(one)}{drawn}" for one in problems.values()])
    why = f"{space.name} does not search it here: give it one value"
    raise_all([f"--set {field}={space.overrides[field]}: {why}" for field in space.overrides if field in unseen])
    notes = dict.fromkeys(note for trial in trials for note in trial.notes)
    notes |= {f"--set {field}={space.overrides[field]} has no effect on any trial here": None for field in sorted(idle)}
    always = set.intersection(*(set(trial.distributions) for trial in trials))
    conditional = tuple(name for name in distributions if name not in always)
    return dataclasses.replace(space, distributions=distributions, conditional=conditional, notes=tuple(notes))


def depends_on_more(space: Space) -> str:
    """The problem of a space that gives two configurations for the same values."""
    return (
        f"{space.name} does not give the same configuration for the same suggested values: it may depend only on "
        "trial and context (no random numbers, no clock, no count of its calls)"
    )


def _with_seed_points(space: Space, points: object) -> Space:
    """``space`` with these seed points: without what the user fixed, each once, none outside the user's ranges.

    Optuna silently ignores unknown and inactive names of an enqueued point, and raises for values out of range in the
    middle of the sweep: here both are problems of the file. A point may leave names out; these are sampled.
    """
    if not isinstance(points, Sequence) or not all(isinstance(point, Mapping) for point in points):
        raise UserError(f"{space.name}: seed_points() must return a list of dicts, received {points!r}")
    problems: list[str] = []
    fitted: list[dict[str, Scalar]] = []
    dropped = 0
    free = dataclasses.replace(space, overrides={})
    for index, point in enumerate(points):
        try:
            used, _ = _used(free, point)
            if unused := set(point) - used:
                raise UserError(f"{space.name}: never asked for here: {', '.join(sorted(unused))}")
            used, outside = _used(space, point) if space.overrides else (used, set())
        except ProcessLost:
            raise
        except UserError as error:
            problems += [f"seed point {index} of {problem}" for problem in error.problems]
            continue
        kept = {name: value for name, value in point.items() if name in used}
        dropped += bool(outside)
        if kept and kept not in fitted and not outside:
            fitted.append(kept)
    raise_all(problems)
    notes = [f"{dropped} of {len(points)} seed points are outside the ranges of --set and are left out"]
    return dataclasses.replace(space, seed_points=fitted, notes=(*space.notes, *(notes if dropped else ())))


def _used(space: Space, point: Mapping[str, Scalar]) -> tuple[set[str], set[str]]:
    """Names of ``point`` that ``space`` asks for, and those of them whose value lies outside the user's ranges.

    A name left out may decide which others are asked for, so several draws of it are tried.
    """
    used: set[str] = set()
    outside: set[str] = set()
    with random_study() as study:
        for _ in range(RANDOM_TRIALS):
            trial = FixedTrial(study.ask(), space.overrides, point)
            space.params_of(trial)
            used |= set(point) & set(trial.suggested)
            outside |= trial.outside
            if used == set(point) or set(trial.suggested) <= set(point):
                break
    return used, outside


def _study(name: str, context: SpaceContext, overrides: Mapping[str, Override], asked: Sequence[str]) -> Space:
    """The rows of a study that fit ``context``, with ``overrides`` in their parameters.

    asked: ids of the rows that are wanted, () = all. ``UserError`` if the study has no row for the task or none that
    can run, if a wanted row is unknown or cannot run, or if a row cannot take an override.
    """
    rows = studies.rows_of(name.removeprefix("studies."))
    ids = [row.id for row in rows]
    problems = [f"--rows: {unknown('row', one, ids)}" for one in dict.fromkeys(asked) if one not in ids]
    problems += [
        f"--set {field}={override}: {name} is a fixed list of trials and has no ranges: give {field} one value"
        for field, override in overrides.items()
        if isinstance(override, Range | Choices)
    ]
    raise_all(problems)
    chosen: list[StudyRow] = []
    left_out: dict[str, str] = {}
    for row in rows:
        if asked and row.id not in asked:
            left_out[row.id] = "not among --rows"
        elif row.params is None:
            left_out[row.id] = row.reason
        elif row.task != context.task:
            left_out[row.id] = f"a {row.task} trial, and the task is {context.task}"
        else:
            with gathered(problems, f"{name} {row.id}: "):
                params = resolve({}, row.params.to_flat(), overrides)
                if reasons := misfits(params, context):
                    left_out[row.id] = "; ".join(reasons)
                else:
                    chosen.append(dataclasses.replace(row, params=params))
    refused = [one for one in dict.fromkeys(asked) if one in left_out]
    raise_all(problems + [f"--rows {one}: {name} cannot run it here: {left_out[one]}" for one in refused])
    if not chosen:
        tasks = {row.task: None for row in rows if row.params is not None}
        if context.task not in tasks:
            raise UserError(f"{name} has no {context.task} trial: all its trials are {' and '.join(sorted(tasks))}")
        own = {row.id: left_out[row.id] for row in rows if row.params is not None and row.task == context.task}
        raise UserError(*(f"{name} cannot run {told}" for told in by_reason(own)))
    return Space(
        name=name,
        context=context,
        overrides=overrides,
        fixed=tuple(row.params for row in chosen if row.params is not None),
        rows=tuple(chosen),
        left_out=left_out,
    )
