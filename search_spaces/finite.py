"""Every configuration of a finite space, one after the other: how many a grid search would have to try."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

import optuna

from search_spaces.check import SpaceFunction
from search_spaces.errors import UserError
from search_spaces.fixed_trial import FixedTrial
from search_spaces.params import Scalar, SpaceContext


def combinations(
    function: SpaceFunction, context: SpaceContext, overrides: Mapping[str, Scalar]
) -> Iterator[dict[str, Scalar]]:
    """Each combination of suggested values once, as name to value; conditional names only where they are asked for.

    Raises ``UserError`` at the first name that is drawn from a continuous range.
    """
    points: list[dict[str, Scalar]] = [{}]
    while points:
        point = points.pop()
        try:
            function(FixedTrial(cast(optuna.Trial, _Asking()), overrides, point).as_trial(), context)
        except _Asked as asked:
            points += [point | {asked.name: value} for value in reversed(asked.values)]
        else:
            yield point


def count(
    function: SpaceFunction, context: SpaceContext, overrides: Mapping[str, Scalar], limit: int = 10_000
) -> int | None:
    """How many combinations there are; None if more than ``limit``. ``UserError`` if they are not finite."""
    seen = sum(1 for _ in itertools.islice(combinations(function, context, overrides), limit + 1))
    return seen if seen <= limit else None


class _Asked(BaseException):
    """Leaves the space where it asks for a new name; a space that catches every ``Exception`` cannot hold it up."""

    def __init__(self, name: str, values: Sequence[Scalar]) -> None:
        super().__init__(name)
        self.name = name
        self.values = values


class _Asking:
    """Answers each question with the list of all answers."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        raise _Asked(name, list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        raise _Asked(name, range(low, high + 1, step))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if step is None:
            raise UserError(f"{name} is drawn from a continuous range [{low}, {high}]: a grid has no end there")
        # In decimals, as Optuna counts its steps: in binary, two steps of 0.1 from 0.1 lie above 0.3.
        first, last, apart = Decimal(str(low)), Decimal(str(high)), Decimal(str(step))
        raise _Asked(name, [float(first + i * apart) for i in range(int((last - first) / apart) + 1)])
