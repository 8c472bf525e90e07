"""The hyperparameters of a trial (``TrialParams``), the input of a space (``SpaceContext``), and values of --set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from search_spaces.errors import UserError, gathered, raise_all, unknown
from search_spaces.paths import shortened

DEFAULT_BACKBONES = (
    *("resnet18", "resnet34", "resnet50", "vgg16", "vgg16_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_large"),
    *("efficientnet_b0", "squeezenet1_0", "squeezenet1_1", "convnext_tiny"),
)
"""What a sweep tries by default."""
BACKBONE_NAMES = (
    *DEFAULT_BACKBONES,
    *("resnext50_32x4d", "wide_resnet50_2", "efficientnet_v2_s", "regnet_y_1_6gf", "vit_b_16", "swin_t"),
)
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("constant", "cosine", "plateau")
LOSSES = ("cross_entropy", "bce", "focal")
LOSS_FIELDS = ("loss", "focal_gamma", "focal_alpha", "class_weights")
"""Fields that change the scale of the loss: trials that differ in one cannot be compared by their loss."""
CLASS_WEIGHTS = ("none", "balanced")
AUGMENTS = ("none", "flip", "standard")

LARGEST = 16_384
"""The most units of a hidden layer, and the largest batch size."""
LARGEST_RATE = 1_000.0
"""The largest lr, backbone_lr_factor, weight_decay and focal_gamma."""

Scalar = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class Range:
    """The part of a searched number that ``--set lr=1e-4..1e-2`` leaves to the search; both ends belong to it."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclasses.dataclass(frozen=True)
class Choices:
    """The values that ``--set batch_size=16,32`` leaves to the search; at least one, each once."""

    values: tuple[Scalar, ...]

    def __str__(self) -> str:
        return ",".join("none" if value is None else str(value) for value in self.values)


Override = Scalar | Range | Choices
"""What ``--set`` gives a hyperparameter: one value in every trial, or the part of it that is searched."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceContext:
    """What a space may depend on, so that it offers only losses and batch sizes that fit.

    task: "single_label" or "multi_label"; class_count: 2 or more (1 or more if multi-label);
    train_count: images of the training split; backbones: those whose weights are available.
    """

    task: str
    class_count: int
    train_count: int
    backbones: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialParams:
    """The hyperparameters of one trial. Construction checks each value and raises ``UserError`` with all problems.

    backbone: one of ``BACKBONE_NAMES``.
    unfreeze_depth: 0 (new head only) to 4 (all blocks), counted from the head; None if ``unfreeze_layers`` is used.
    unfreeze_layers: names of submodules of the torchvision network that train besides the head.
    head_widths: 0 to 2 hidden widths of the new head, 1 to ``LARGEST`` each; () is one linear layer.
    dropout: probability in [0, 1) before the last linear layer (after each hidden activation).
    lr: learning rate of the head; backbone_lr_factor: that of the unfrozen backbone layers, relative; both in
    (0, ``LARGEST_RATE``]. weight_decay, focal_gamma: [0, ``LARGEST_RATE``]. momentum: [0, 1), used by sgd alone.
    batch_size: images a step, 1 to ``LARGEST``.
    focal_alpha: weight of the positive element in [0, 1] or None (off); it and focal_gamma are used by focal alone.
    class_weights: "balanced" cannot go together with focal_alpha.
    """

    backbone: str
    unfreeze_depth: int | None = 0
    unfreeze_layers: tuple[str, ...] = ()
    head_widths: tuple[int, ...] = ()
    dropout: float = 0.0
    optimizer: str = "sgd"
    lr: float = 1e-3
    backbone_lr_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 32
    lr_schedule: str = "constant"
    loss: str = "cross_entropy"
    focal_gamma: float = 2.0
    focal_alpha: float | None = None
    class_weights: str = "none"
    augment: str = "none"

    def __post_init__(self) -> None:
        raise_all(_problems(self))

    @classmethod
    def from_flat(cls, flat: Mapping[str, Scalar]) -> Self:
        """Build from a flat dict of scalars, as spaces, the command line and ``params.json`` hold it.

        ``head_widths`` stands there as text, ``"none"``, ``"380"`` or ``"1024+512"``; ``unfreeze_layers`` as
        ``"none"`` or ``"features.10+features.12"``. Unknown keys and values of the wrong type raise ``UserError``.
        """
        problems = [] if "backbone" in flat else [f"a trial has no backbone: give one of {', '.join(BACKBONE_NAMES)}"]
        values: dict[str, Any] = {}
        for key, value in flat.items():
            with gathered(problems):
                values[key] = _parse(key, value)
        raise_all(problems)
        return cls(**values)

    def to_flat(self) -> dict[str, Scalar]:
        """The flat dict that ``from_flat`` reads, every field present."""
        flat: dict[str, Scalar] = dataclasses.asdict(self)
        flat["head_widths"] = "+".join(str(width) for width in self.head_widths) or "none"
        flat["unfreeze_layers"] = "+".join(self.unfreeze_layers) or "none"
        return flat

    def summary(self) -> str:
        """One line that tells a trial from the others."""
        trained = "+".join(self.unfreeze_layers) or f"depth {self.unfreeze_depth}"
        rest = f"{self.optimizer} lr {self.lr:.2g}, batch {self.batch_size}, {self.loss}"
        return f"{self.backbone} {trained}, {rest}"

    def active(self) -> dict[str, Scalar]:
        """``to_flat`` without the fields that have no effect here: the key by which duplicates are found.

        Without momentum if not sgd, focal_* if not focal, backbone_lr_factor if only the head trains. Dropout 0 stays.
        """
        flat = self.to_flat()
        if self.optimizer != "sgd":
            del flat["momentum"]
        if self.loss != "focal":
            del flat["focal_gamma"], flat["focal_alpha"]
        if not self.unfreeze_layers and self.unfreeze_depth == 0:
            del flat["backbone_lr_factor"]
        return flat


def field_of(name: str) -> str:
    """The field of ``TrialParams`` that ``lr`` or ``lr.sgd`` gives a value to; ``UserError`` if there is none."""
    field = str(name).partition(".")[0]
    if field not in FIELDS:
        raise UserError(
            f"{unknown('hyperparameter', name, FIELDS)} (a conditional value is named <hyperparameter>.<branch>)"
        )
    return field


def parse_text(key: str, given: object) -> Override:
    """What ``--set key=given`` stands for; ``UserError`` if ``key`` has no such value, range or choices.

    given: text from the command line, or what a configuration file holds: a number, None, a list of choices.
    "1e-4..1e-2" is a range of a number, "16,32" choices of anything, all else one value.
    """
    if isinstance(given, Range):
        return _checked_range(key, given.low, given.high)
    if isinstance(given, Choices | list | tuple):
        return _checked_choices(key, given.values if isinstance(given, Choices) else given)
    if isinstance(given, str) and "," in given:
        return _checked_choices(key, [part.strip() for part in given.split(",")])
    if isinstance(given, str) and ".." in given:
        low, _, high = given.partition("..")
        return _checked_range(key, low.strip(), high.strip())
    return _checked_value(key, given)


def override_to_json(override: Override) -> Scalar | dict[str, Any]:
    """As JSON holds it: a scalar, ``{"low": 1e-4, "high": 1e-2}``, or ``{"choices": [16, 32]}``."""
    if isinstance(override, Choices):
        return {"choices": list(override.values)}
    return dataclasses.asdict(override) if isinstance(override, Range) else override


def override_from_json(key: str, saved: object) -> Override:
    """What ``override_to_json`` wrote for ``key``; ``UserError`` for all else."""
    match saved:
        case {"low": int() | float() as low, "high": int() | float() as high, **rest} if not rest:
            return _checked_range(key, low, high)
        case {"choices": list(values), **rest} if not rest:
            return _checked_choices(key, values)
        case str() | int() | float() | None:
            return _checked_value(key, saved)
    raise UserError(f'{key} must be a value, {{"low": .., "high": ..}} or {{"choices": [..]}}, received {saved!r}')


def allows(override: Override, key: str, value: Scalar) -> bool:
    """Whether ``value`` of ``key`` is one of those that ``override`` leaves."""
    try:
        found = _parse(key, value)
    except UserError:
        return False
    if isinstance(override, Range):
        return found is not None and bool(override.low <= found <= override.high)
    return any(found == _parse(key, one) for one in (override.values if isinstance(override, Choices) else [override]))


def _checked_range(key: str, low: object, high: object) -> Range:
    """The range of two valid values of ``key`` in ascending order; ``UserError`` for others."""
    if key in FIELDS and FIELDS[key].partition(" ")[0] not in ("int", "float"):
        raise UserError(f"{key} is not a number: give one value, or choices such as a,b; received {low}..{high}")
    ends = [_checked_value(key, end) for end in (low, high)]
    if not all(isinstance(end, int | float) for end in ends) or ends[0] > ends[1]:  # type: ignore[operator]
        raise UserError(f"a range of {key} must go from a lower to a higher number, received {low}..{high}")
    return Range(*ends)  # type: ignore[arg-type]


def _checked_choices(key: str, values: Sequence[object]) -> Choices:
    """The choices of valid values of ``key``, each once; ``UserError`` for others."""
    shown = ",".join(map(str, values))
    if not values or "" in values or any(isinstance(value, str) and ".." in value for value in values):
        raise UserError(f"choices of {key} must be single values such as a,b, received {shown!r}")
    chosen = [_checked_value(key, value) for value in values]
    if len({repr(_parse(key, value)) for value in chosen}) < len(chosen):
        raise UserError(f"choices of {key} must differ, received {shown}")
    return Choices(tuple(chosen))


def _checked_value(key: str, given: Any) -> Scalar:
    """One value with the type of its field; ``UserError`` if it is out of range whatever the other fields are."""
    if not isinstance(given, Scalar):
        raise UserError(f"{key} must be one value, received {given!r}")
    value = _parse(key, given)
    if value is not None:
        layers: dict[str, Any] = {"unfreeze_depth": None} if key == "unfreeze_layers" and value else {}
        TrialParams(**({"backbone": BACKBONE_NAMES[0]} | layers | {key: value}))
    scalar: Scalar = given if isinstance(value, tuple) else value  # flat dicts hold the text of a tuple
    return scalar


def _parse(key: str, value: Any) -> Any:
    """``value``, from a flat dict or the command line, with the type of the field ``key``."""
    if key not in FIELDS:
        raise UserError(unknown("hyperparameter", key, FIELDS))
    kind = FIELDS[key]
    if kind.startswith("tuple"):
        if kind == "tuple[int, ...]" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value) if value else "none"
        if not isinstance(value, tuple | list):
            value = () if value in (None, "", "none") else _single(key, value, "str").split("+")
        return tuple(_single(key, part, kind.removeprefix("tuple[").removesuffix(", ...]")) for part in value)
    if kind.endswith("| None") and value in (None, "none"):
        return None
    return _single(key, value, kind.removesuffix(" | None"))


def _single(key: str, value: Any, kind: str) -> Any:
    """``value`` as "str", "int" or "float"."""
    if kind == "str":
        if not isinstance(value, str):
            raise UserError(f"{key} must be text, received {value!r}")
        return value
    whole = kind == "int"
    try:
        if isinstance(value, bool) or (whole and isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value) if whole else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{key} must be a {'whole ' if whole else ''}number, received {shortened(repr(value))}"
        ) from None


FIELDS = {field.name: str(field.type) for field in dataclasses.fields(TrialParams)}
"""The hyperparameters, each with its annotation."""


def _problems(params: TrialParams) -> list[str]:
    names = {
        "backbone": BACKBONE_NAMES,
        "optimizer": OPTIMIZERS,
        "lr_schedule": LR_SCHEDULES,
        "loss": LOSSES,
        "class_weights": CLASS_WEIGHTS,
        "augment": AUGMENTS,
    }
    values = vars(params)
    found = [unknown(name, values[name], allowed) for name, allowed in names.items() if values[name] not in allowed]
    if (params.unfreeze_depth is None) != bool(params.unfreeze_layers):
        found.append(
            f"give unfreeze_depth or unfreeze_layers, not both or none: received unfreeze_depth="
            f"{params.unfreeze_depth!r}, unfreeze_layers={params.unfreeze_layers!r}"
        )
    if params.unfreeze_depth is not None and not 0 <= params.unfreeze_depth <= 4:
        found.append(f"unfreeze_depth must be 0 to 4, received {params.unfreeze_depth}")
    if len(params.head_widths) > 2 or not all(1 <= width <= LARGEST for width in params.head_widths):
        found.append(f"head_widths must be at most two widths of 1 to {LARGEST}, received {params.head_widths}")
    positive, not_negative = f"above 0 and at most {LARGEST_RATE:g}", f"in [0, {LARGEST_RATE:g}]"
    in_range = (
        ("dropout", 0 <= params.dropout < 1, "in [0, 1)"),
        ("lr", 0 < params.lr <= LARGEST_RATE, positive),
        ("backbone_lr_factor", 0 < params.backbone_lr_factor <= LARGEST_RATE, positive),
        ("momentum", 0 <= params.momentum < 1, "in [0, 1)"),
        ("weight_decay", 0 <= params.weight_decay <= LARGEST_RATE, not_negative),
        ("batch_size", 1 <= params.batch_size <= LARGEST, f"1 to {LARGEST}"),
        ("focal_gamma", 0 <= params.focal_gamma <= LARGEST_RATE, not_negative),
        ("focal_alpha", params.focal_alpha is None or 0 <= params.focal_alpha <= 1, "in [0, 1] or none"),
    )
    found += [f"{name} must be {allowed}, received {values[name]}" for name, ok, allowed in in_range if not ok]
    if params.loss == "focal" and params.focal_alpha is not None and params.class_weights != "none":
        found.append("focal_alpha and class_weights=balanced both weight the classes: give only one of them")
    return found
