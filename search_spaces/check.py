"""A space tried out before a sweep depends on it: many random trials, every seed point, all problems in one answer."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import BaseDistribution

from search_spaces.errors import UserError, raise_all
from search_spaces.fixed_trial import FixedTrial
from search_spaces.params import Scalar, SpaceContext, TrialParams
from search_spaces.resolve import misfits, resolve

SpaceFunction = Callable[[optuna.Trial, SpaceContext], dict[str, Scalar]]
RANDOM_TRIALS = 32
MOST_SHOWN = 8


def sample(
    function: SpaceFunction, guided: FixedTrial, context: SpaceContext, overrides: Mapping[str, Scalar], origin: str
) -> TrialParams:
    """One trial's parameters from ``function``; ``UserError`` naming ``origin`` and the line where it goes wrong."""
    try:
        constants = function(guided.as_trial(), context)
    except UserError as error:
        raise UserError(*(f"{origin}: {problem}" for problem in error.problems)) from None
    except Exception as error:
        raise UserError(f"{origin} raises {described(error, origin)}") from error
    if not isinstance(constants, Mapping):
        raise UserError(f"{origin}: space() must return a dict of constants ({{}} for none), received {constants!r}")
    try:
        params = resolve(guided.suggested, constants, overrides)
        raise_all(misfits(params, context))
    except UserError as error:
        raise UserError(*(f"{origin}: {problem}" for problem in error.problems)) from None
    return params


def try_out(
    function: SpaceFunction, context: SpaceContext, overrides: Mapping[str, Scalar], origin: str
) -> dict[str, BaseDistribution]:
    """Sample ``RANDOM_TRIALS`` random trials; the distributions seen, by name. ``UserError`` with all problems found.

    One study serves all trials, so that Optuna's own rule shows: a categorical's choices may not change.
    """
    distributions: dict[str, BaseDistribution] = {}
    problems: dict[str, list[str]] = {}  # by what is the same whatever value was drawn
    with random_study() as study:
        for _ in range(RANDOM_TRIALS):
            guided = FixedTrial(study.ask(), overrides)
            try:
                sample(function, guided, context, overrides, origin)
            except UserError as error:
                for problem in error.problems:
                    problems.setdefault(problem.partition(", received")[0], []).append(problem)
            distributions |= guided.distributions
    raise_all(_first([_with_count(alike) for alike in problems.values()]))
    return distributions


def fitted_seed_points(
    function: SpaceFunction,
    points: object,
    context: SpaceContext,
    overrides: Mapping[str, Scalar],
    origin: str,
) -> list[dict[str, Scalar]]:
    """The seed points without what ``overrides`` fixes, each once; ``UserError`` with all that is wrong in them.

    Optuna ignores unknown and inactive names of an enqueued point in silence and raises for values out of range in
    the middle of the sweep: here both are problems of the file. A point may leave names out; these are sampled.
    """
    if not isinstance(points, Sequence) or not all(isinstance(point, Mapping) for point in points):
        raise UserError(f"{origin}: seed_points() must return a list of dicts, received {points!r}")
    problems: list[str] = []
    fitted: list[dict[str, Scalar]] = []
    for index, point in enumerate(points):
        try:
            unused = set(point) - _used(function, point, context, {}, origin)
            if unused:
                raise UserError(f"{origin}: never asked for here: {', '.join(sorted(unused))}")
        except UserError as error:
            problems += [f"seed point {index} of {problem}" for problem in error.problems]
            continue
        used = _used(function, point, context, overrides, origin) if overrides else set(point)
        kept = {name: value for name, value in point.items() if name in used}
        if kept not in fitted and kept:
            fitted.append(kept)
    raise_all(_first(problems))
    return fitted


@contextmanager
def random_study(seed: int = 0) -> Iterator[optuna.Study]:
    """A seeded random study in memory; Optuna's greeting on the terminal is held back, its log level restored."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(level)


def described(error: BaseException, origin: str) -> str:
    """``KeyError: 'x' at line 7 (in space)``: the innermost line of the user's own file, where there is one."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"SyntaxError: {error.msg} at line {error.lineno}"
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    return f"{text} at line {own[-1].lineno} (in {own[-1].name})" if own else text


def _used(
    function: SpaceFunction,
    point: Mapping[str, Scalar],
    context: SpaceContext,
    overrides: Mapping[str, Scalar],
    origin: str,
) -> set[str]:
    """Names of ``point`` that the space asks for; a name left out may decide, so several draws of it are tried."""
    used: set[str] = set()
    with random_study() as study:
        for _ in range(RANDOM_TRIALS):
            guided = FixedTrial(study.ask(), overrides, point)
            sample(function, guided, context, overrides, origin)
            used |= set(point) & set(guided.suggested)
            if used == set(point) or set(guided.suggested) <= set(point):
                break
    return used


def _with_count(alike: list[str]) -> str:
    """The first of problems that differ in the value drawn alone."""
    return alike[0] if len(set(alike)) == 1 else f"{alike[0]} ({len(alike)} of {RANDOM_TRIALS} random trials)"


def _first(problems: list[str]) -> list[str]:
    more = len(problems) - MOST_SHOWN
    return [*problems[:MOST_SHOWN], f"and {more} more of this kind"] if more > 0 else problems
