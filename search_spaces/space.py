"""The search spaces by name, and a user's own by its file."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from search_spaces.check import SpaceFunction, described, fitted_seed_points, sample, try_out
from search_spaces.errors import UserError, raise_all, unknown
from search_spaces.finite import count
from search_spaces.fixed_trial import FixedTrial
from search_spaces.params import Scalar, SpaceContext, TrialParams
from search_spaces.resolve import checked_overrides, fitting_overrides
from search_spaces.studies.row import StudyRow
from search_spaces.studies.select import runnable_rows

SPACES = {
    "partial_unfreeze": "search_spaces.partial_unfreeze",
    "head_only": "search_spaces.head_only",
    "full_finetune": "search_spaces.full_finetune",
    "imbalance": "search_spaces.imbalance",
    "studies.bscs17028": "search_spaces.studies.bscs17028",
    "studies.msds18022": "search_spaces.studies.msds18022",
    "studies.msds19058": "search_spaces.studies.msds19058",
    "studies.msds19005": "search_spaces.studies.msds19005",
    "studies.msds19042": "search_spaces.studies.msds19042",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """What one sweep may try: a function to search, or a study's fixed trials.

    name: as in ``SPACES``, or the absolute path of the user's file. overrides: the values fixed in every trial.
    seed_points: dicts of names as suggested; a sweep tries them first, in this order.
    distributions: of every name that random trials asked for; empty for a study.
    fixed: a study's trials, in its order, None for a searched space; rows: the study's rows beside them.
    asked: the ids of a study's rows that were asked for, () = all. left_out: id of a study's row to the reason why it
    is not among ``fixed``.
    source: the text of the user's file, so that a run can keep it; None for a space of ours.

    It is pickled as its name, context, overrides and asked, and loaded again on the other side.
    """

    name: str
    context: SpaceContext
    overrides: Mapping[str, Scalar]
    description: str
    seed_points: list[dict[str, Scalar]] = dataclasses.field(default_factory=list)
    distributions: Mapping[str, BaseDistribution] = dataclasses.field(default_factory=dict)
    fixed: tuple[TrialParams, ...] | None = None
    rows: tuple[StudyRow, ...] = ()
    asked: tuple[str, ...] = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    source: str | None = None
    function: SpaceFunction | None = None

    def suggest(self, trial: optuna.trial.BaseTrial) -> TrialParams:
        """Ask ``trial`` for one configuration. Fixed values are not asked for and stand in no ``trial.params``."""
        assert self.function is not None, f"{self.name} is a list of trials, not a space to search"
        guided = FixedTrial(trial, self.overrides)
        return sample(self.function, guided, self.context, self.overrides, self.name)

    @property
    def continuous(self) -> tuple[str, ...]:
        """Names drawn from a continuous range: where there is one, the space cannot be searched by grid."""
        return tuple(
            name
            for name, distribution in self.distributions.items()
            if isinstance(distribution, FloatDistribution) and distribution.step is None
        )

    def count(self, limit: int = 10_000) -> int | None:
        """How many configurations there are; None if more than ``limit``, or if there is a continuous range."""
        if self.function is None:
            return len(self.fixed or ())
        return None if self.continuous else count(self.function, self.context, self.overrides, limit)

    def __reduce__(self) -> tuple[Callable[..., Space], tuple[Any, ...]]:
        return load_space, (self.name, self.context, dict(self.overrides), self.asked)


def load_space(
    name_or_path: str,
    context: SpaceContext,
    overrides: Mapping[str, object] | None = None,
    rows: Sequence[str] = (),
) -> Space:
    """Find, read and try out a space; ``UserError`` with everything wrong in it.

    name_or_path: a name of ``SPACES``, or the path of a Python file (it ends in .py or has a slash) that defines
    ``space(trial, context)`` and, if it likes, ``seed_points(context)``. overrides: ``--set`` values. rows: ids of a
    study's rows, only these are run; () = all that fit.
    """
    fixed_values, problems = fitting_overrides(checked_overrides(overrides or {}), context)
    try:
        space = _found(name_or_path, context, fixed_values, tuple(rows))
    except UserError as error:
        raise UserError(*problems, *error.problems) from error.__cause__
    raise_all(problems)
    return space


def _found(
    name_or_path: str, context: SpaceContext, fixed_values: Mapping[str, Scalar], rows: tuple[str, ...]
) -> Space:
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = Path(name_or_path).expanduser().absolute()
        module = _module_of_file(path)
        return _searched(str(path), module, context, fixed_values, source=path.read_text(encoding="utf-8"))
    if name_or_path not in SPACES:
        raise UserError(f"--space: {unknown('search space', name_or_path, SPACES)}; or give the path of a .py file")
    module = importlib.import_module(SPACES[name_or_path])
    if hasattr(module, "TRIALS"):
        return _study(name_or_path, module, context, fixed_values, rows)
    return _searched(name_or_path, module, context, fixed_values, source=None)


def _searched(
    name: str, module: types.ModuleType, context: SpaceContext, overrides: Mapping[str, Scalar], source: str | None
) -> Space:
    function = getattr(module, "space", None)
    if not callable(function):
        raise UserError(f"{name} defines no space: write `def space(trial, context)` that returns a dict of constants")
    distributions = try_out(function, context, overrides, name)
    points = _seed_points(module, context, name)
    return Space(
        name=name,
        context=context,
        overrides=overrides,
        description=(module.__doc__ or function.__doc__ or "").strip(),
        seed_points=fitted_seed_points(function, points, context, overrides, name),
        distributions=distributions,
        source=source,
        function=function,
    )


def _study(
    name: str,
    module: types.ModuleType,
    context: SpaceContext,
    overrides: Mapping[str, Scalar],
    asked: tuple[str, ...],
) -> Space:
    rows, left_out = runnable_rows(name, module.TRIALS, context, overrides, asked)
    return Space(
        name=name,
        context=context,
        overrides=overrides,
        description=(module.__doc__ or "").strip(),
        fixed=tuple(row.params for row in rows if row.params is not None),
        rows=rows,
        asked=asked,
        left_out=left_out,
    )


def _module_of_file(path: Path) -> types.ModuleType:
    """Run the user's file as a module of its own. Not by ``import``, which would write a cache beside the file."""
    try:
        code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    except FileNotFoundError:
        raise UserError(f"--space: no such space file: {path}") from None
    except OSError as error:
        raise UserError(f"--space: the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--space: the file {path} cannot be read: {error}") from None
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} raises {described(error, str(path))}") from None
    module = types.ModuleType(f"space_file_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} raises {described(error, str(path))}") from error
    return module


def _seed_points(module: types.ModuleType, context: SpaceContext, name: str) -> object:
    function = getattr(module, "seed_points", None)
    if function is None:
        return []
    try:
        return function(context)
    except Exception as error:
        raise UserError(f"{name}: seed_points raises {described(error, name)}") from error
