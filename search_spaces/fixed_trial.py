"""What a space gets instead of an Optuna trial: fixed values are not sampled, ranges are cut to those of ``--set``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces.errors import UserError, some
from search_spaces.params import Choices, Override, Range, Scalar, allows, field_of

Offered = FloatDistribution | IntDistribution | CategoricalDistribution


class FixedTrial:
    """Wraps ``trial``: returns fixed values, narrows ranges, and records what was suggested.

    A fixed value is not sampled at all, so that it takes no part in importance or in finding duplicates;
    it is returned as it is, also outside the space's range: the user asked for it. A range or choices are intersected
    with what the space offers; an empty intersection is a ``UserError``.

    overrides: field of ``TrialParams`` to what the user set; covers the field's conditional names (``lr`` covers
    ``lr.sgd``). point: values to use instead of sampling, under the names as suggested (seed points); values outside
    the space's own distribution raise ``UserError``. known: what earlier trials were offered; a name with another
    distribution than before, there or in this trial, is a ``UserError``, as Optuna would take the first of two ranges.

    suggested, distributions: what reached Optuna, by name. narrowed: the fields whose range was asked for. outside:
    the names whose value in ``point`` lies outside what the user allows. notes: what was cut off the user's ranges.
    """

    def __init__(
        self,
        trial: optuna.trial.BaseTrial,
        overrides: Mapping[str, Override],
        point: Mapping[str, Scalar] | None = None,
        known: Mapping[str, Offered] | None = None,
    ) -> None:
        self._trial, self._overrides, self._point, self._known = trial, overrides, point or {}, known or {}
        self.suggested: dict[str, Scalar] = {}
        self.distributions: dict[str, Offered] = {}
        self.narrowed: set[str] = set()
        self.outside: set[str] = set()
        self.notes: list[str] = []

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        value: float = self._ask(name, _float_range(low, high, step, log))
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        value: int = self._ask(name, IntDistribution(low, high, log=log, step=step))
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        wrong = [choice for choice in choices if not isinstance(choice, str | int | float | None)]
        if wrong:  # Optuna only warns, and a list or tuple among the choices breaks its storage
            raise UserError(f"choices of {name} must be text, numbers or None, received {wrong[0]!r}")
        if isinstance(choices, str) or not choices:
            raise UserError(f"{name} needs a list of choices, received {choices!r}")
        return self._ask(name, CategoricalDistribution(choices))

    def _ask(self, name: str, offered: Offered) -> Any:
        field = field_of(name)
        override = self._overrides.get(field)
        if field == "unfreeze_depth" and names_layers(self._overrides):
            return 1  # "some of the backbone trains", for the branches of the space; ``resolve`` drops the depth
        if field in self._overrides and not isinstance(override, Range | Choices):
            return override
        distribution = self._narrow(name, offered, override) if isinstance(override, Range | Choices) else offered
        before = self.distributions.get(name, self._known.get(name, distribution))
        if before != distribution:
            raise UserError(
                f"{name} must be the same in every trial, received {_range(distribution)} after "
                f"{_range(before)}: give each branch its own name, such as {field}.a and {field}.b"
            )
        if name not in self.suggested:
            if name in self._point:
                value = self.suggested[name] = self._point[name]
                if not _contains(offered, value):
                    raise UserError(f"{name}={value!r} is outside {_range(offered)}")
                if field in self._overrides and not allows(override, field, value):
                    self.outside.add(name)
            else:
                self.suggested[name] = _sample(self._trial, name, distribution)
            self.distributions[name] = distribution
        return self.suggested[name]

    def _narrow(self, name: str, offered: Offered, override: Range | Choices) -> Offered:
        """What ``offered`` and ``override`` share."""
        field = field_of(name)
        self.narrowed.add(field)
        shared = _shared(field, offered, override)
        if shared is None:
            raise UserError(f"--set {field}={override} leaves nothing of {name}: {_range(offered)}")
        left: Range | Choices
        if isinstance(shared, CategoricalDistribution):
            left = Choices(tuple(shared.choices))
            cut = not isinstance(override, Choices) or len(left.values) < len(override.values)
        else:
            left = Range(shared.low, shared.high)
            cut = left != override
        if cut:
            kind = "choices" if isinstance(offered, CategoricalDistribution) else "range"
            self.notes.append(f"--set {field}={override}: cut to {left} by the {kind} of {name}")
        return shared


def names_layers(values: Mapping[str, Override]) -> bool:
    """Whether ``values`` names layers to train, in place of a depth."""
    layers = values.get("unfreeze_layers")
    return not isinstance(layers, Choices) and layers not in (None, "", "none")


def _sample(trial: optuna.trial.BaseTrial, name: str, distribution: Offered) -> Scalar:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            value: Scalar = trial.suggest_categorical(name, choices)
            return value


def _shared(field: str, offered: Offered, override: Range | Choices) -> Offered | None:
    """The intersection: a range of the same scale and steps, or choices; None if it is empty."""
    if isinstance(offered, CategoricalDistribution) or isinstance(override, Choices):
        values = override.values if isinstance(override, Choices) else ()
        if isinstance(offered, CategoricalDistribution):
            values = offered.choices
        kept = [value for value in values if _contains(offered, value) and allows(override, field, value)]
        return CategoricalDistribution(kept) if kept else None
    low, high = max(offered.low, override.low), min(offered.high, override.high)
    if offered.step is not None:  # in decimals, as Optuna counts its steps
        first, step = Decimal(str(offered.low)), Decimal(str(offered.step))
        low = float(first + math.ceil((Decimal(str(low)) - first) / step) * step)
        high = float(first + math.floor((Decimal(str(high)) - first) / step) * step)
    if low > high:
        return None
    if isinstance(offered, IntDistribution):
        return IntDistribution(int(low), int(high), log=offered.log, step=offered.step)
    return _float_range(low, high, offered.step, offered.log)


def _float_range(low: float, high: float, step: float | None, log: bool) -> FloatDistribution:
    """A range of one value gets a step: Optuna's brute force takes only ranges with steps as finite."""
    if low == high and step is None:
        return FloatDistribution(low, high, step=1.0)
    return FloatDistribution(low, high, step=step, log=log)


def _contains(distribution: Offered, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False


def _range(distribution: Offered) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"its choices {some(map(repr, distribution.choices))}"
    step = f" in steps of {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"its range [{distribution.low}, {distribution.high}]{step}"
