"""What a space sees in place of an Optuna trial: the user's fixed values are answered without sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces.errors import UserError
from search_spaces.params import Scalar
from search_spaces.resolve import field_of


class FixedTrial:
    """Stands before ``trial``, answers what is fixed, passes the rest on, and remembers what was suggested.

    A fixed value is not sampled at all, so that it takes no part in importance or in finding duplicates;
    it is returned as it is, also outside the space's range: the user asked for it.

    overrides: field of ``TrialParams`` to value; covers the field's conditional names (``lr`` covers ``lr.sgd``).
    point: values to use instead of sampling, under the names as suggested (seed points, enumeration);
    values outside the distribution raise ``UserError``.
    """

    def __init__(
        self,
        trial: optuna.trial.BaseTrial | None,
        overrides: Mapping[str, Scalar],
        point: Mapping[str, Scalar] | None = None,
    ) -> None:
        self._trial = trial
        self._overrides = overrides
        self._point = point or {}
        self.suggested: dict[str, Scalar] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def as_trial(self) -> optuna.Trial:
        """Itself, under the type that a space is written for."""
        return cast(optuna.Trial, self)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        if low == high and step is None and not log:
            step = 1.0  # one value is finite, which Optuna's brute force only believes of steps
        distribution = FloatDistribution(low, high, log=log, step=step)
        return cast(
            float, self._ask(name, distribution, lambda t: t.suggest_float(name, low, high, step=step, log=log))
        )

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        distribution = IntDistribution(low, high, log=log, step=step)
        return cast(int, self._ask(name, distribution, lambda t: t.suggest_int(name, low, high, step=step, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        wrong = [choice for choice in choices if not isinstance(choice, str | int | float | None)]
        if wrong:  # Optuna only warns, and a list or tuple among the choices breaks its storage
            raise UserError(f"choices of {name} must be text, numbers or None, received {wrong[0]!r}")
        if not choices:
            raise UserError(f"{name} is offered no choice")
        return self._ask(name, CategoricalDistribution(choices), lambda t: t.suggest_categorical(name, choices))

    def __getattr__(self, name: str) -> Any:
        allowed = ("suggest_float", "suggest_int", "suggest_categorical")
        raise AttributeError(f"a space may ask its trial for {', '.join(allowed)} only, not for {name!r}")

    def _ask(
        self, name: str, distribution: BaseDistribution, sample: Callable[[optuna.trial.BaseTrial], Scalar]
    ) -> Scalar:
        field = field_of(name)
        if field in self._overrides:
            return self._overrides[field]
        if field == "unfreeze_depth" and self._overrides.get("unfreeze_layers") not in (None, "none"):
            return 1  # "some of the backbone trains", for the branches of the space; ``resolve`` drops the depth
        if name not in self.suggested:
            self.suggested[name] = self._point_value(name, distribution) if name in self._point else sample(self._base)
            self.distributions[name] = distribution
        return self.suggested[name]

    @property
    def _base(self) -> optuna.trial.BaseTrial:
        assert self._trial is not None, "a value is asked for that neither the point nor a trial gives"
        return self._trial

    def _point_value(self, name: str, distribution: BaseDistribution) -> Scalar:
        value = self._point[name]
        try:
            legal = distribution._contains(distribution.to_internal_repr(value))
        except (TypeError, ValueError):
            legal = False
        if not legal:
            raise UserError(f"{name}={value!r} is outside {_range(distribution)}")
        return value


def _range(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "its choices " + ", ".join(repr(choice) for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = f" in steps of {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"its range [{distribution.low}, {distribution.high}]{step}"
