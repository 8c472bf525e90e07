"""What one trial is told (``TrialParams``) and what a search space is told (``SpaceContext``)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from search_spaces.errors import UserError, unknown

BACKBONE_NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg16",
    "vgg16_bn",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "squeezenet1_0",
    "squeezenet1_1",
    "convnext_tiny",
)
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("constant", "cosine", "plateau")
LOSSES = ("cross_entropy", "bce", "focal")
CLASS_WEIGHTS = ("none", "balanced")
AUGMENTS = ("none", "flip", "standard")
TASKS = ("single_label", "multi_label")

Scalar = str | int | float | bool | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceContext:
    """What a space may depend on, so that it offers only losses and batch sizes that fit.

    task: "single_label" or "multi_label"; class_count: 2 or more (1 or more if multi-label);
    train_count: images of the training split; backbones: those whose weights are at hand.
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
    head_widths: 0 to 2 hidden widths of the new head; () is one linear layer.
    dropout: probability in [0, 1) before the last linear layer (after each hidden activation).
    lr: learning rate of the head, > 0; backbone_lr_factor: that of the unfrozen backbone layers, relative, > 0.
    momentum: [0, 1), used by sgd alone. weight_decay: >= 0. batch_size: images a step, >= 1.
    focal_gamma: >= 0, focal_alpha: weight of the positive element in [0, 1] or None (off); used by focal alone.
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
        problems = list(_problems(self))
        if problems:
            raise UserError(*problems)

    @classmethod
    def from_flat(cls, flat: Mapping[str, Scalar]) -> Self:
        """Build from a flat dict of scalars, as spaces, the command line and ``params.json`` hold it.

        ``head_widths`` stands there as text, ``"none"``, ``"380"`` or ``"1024+512"``; ``unfreeze_layers`` as
        ``"none"`` or ``"features.10+features.12"``. Unknown keys and values of the wrong type raise ``UserError``.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        problems = [unknown("hyperparameter", key, fields) for key in flat if key not in fields]
        if "backbone" not in flat:
            problems.append("a trial names no backbone: give one of " + ", ".join(BACKBONE_NAMES))
        values: dict[str, Any] = {}
        for key, value in flat.items():
            if key in fields:
                try:
                    values[key] = _parse(key, value)
                except ValueError as error:
                    problems.append(str(error))
        if problems:
            raise UserError(*problems)
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
        """``to_flat`` without the fields that change nothing here: the key by which duplicates are found.

        Momentum without sgd, focal_gamma and focal_alpha without focal loss, dropout at 0 kept (it is a value).
        """
        flat = self.to_flat()
        if self.optimizer != "sgd":
            del flat["momentum"]
        if self.loss != "focal":
            del flat["focal_gamma"], flat["focal_alpha"]
        if not self.unfreeze_layers and self.unfreeze_depth == 0:
            del flat["backbone_lr_factor"]
        return flat


def parse_text(key: str, text: str) -> Scalar:
    """The scalar that ``text`` (from ``--set key=text``) stands for; ``UserError`` if ``key`` has no such value."""
    try:
        value = _parse(key, text)
    except KeyError:
        raise UserError(unknown("hyperparameter", key, _PARSERS)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    if value is not None:
        _check_alone(key, value)
    return text if isinstance(value, tuple) else value


def _check_alone(key: str, value: Any) -> None:
    """Raise ``UserError`` for a value that is out of range whatever the others are."""
    rest: dict[str, Any] = {"backbone": BACKBONE_NAMES[0]}
    if key == "unfreeze_layers" and value:
        rest["unfreeze_depth"] = None
    TrialParams(**rest | {key: value})


def _parse(key: str, value: Scalar) -> Any:
    return _PARSERS[key](key, value)


def _text(key: str, value: Scalar) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text, received {value!r}")
    return value


def _integer(key: str, value: Scalar) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a whole number, received {value!r}") from None


def _number(key: str, value: Scalar) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a number, received {value!r}") from None


def _optional_integer(key: str, value: Scalar) -> int | None:
    return None if value is None or value == "none" else _integer(key, value)


def _optional_number(key: str, value: Scalar) -> float | None:
    return None if value is None or value == "none" else _number(key, value)


def _names(key: str, value: Scalar | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    if isinstance(value, tuple | list):
        return tuple(value)
    return tuple(_text(key, value).split("+")) if value not in (None, "", "none") else ()


def _widths(key: str, value: Scalar) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value else "none"
    return tuple(_integer(key, part) for part in _names(key, value))


_PARSERS = {
    "backbone": _text,
    "unfreeze_depth": _optional_integer,
    "unfreeze_layers": _names,
    "head_widths": _widths,
    "dropout": _number,
    "optimizer": _text,
    "lr": _number,
    "backbone_lr_factor": _number,
    "momentum": _number,
    "weight_decay": _number,
    "batch_size": _integer,
    "lr_schedule": _text,
    "loss": _text,
    "focal_gamma": _number,
    "focal_alpha": _optional_number,
    "class_weights": _text,
    "augment": _text,
}


def _problems(params: TrialParams) -> list[str]:
    found = [
        unknown(name, getattr(params, name), allowed)
        for name, allowed in (
            ("backbone", BACKBONE_NAMES),
            ("optimizer", OPTIMIZERS),
            ("lr_schedule", LR_SCHEDULES),
            ("loss", LOSSES),
            ("class_weights", CLASS_WEIGHTS),
            ("augment", AUGMENTS),
        )
        if getattr(params, name) not in allowed
    ]
    if (params.unfreeze_depth is None) != bool(params.unfreeze_layers):
        found.append(
            f"give unfreeze_depth or unfreeze_layers, not both or none: received unfreeze_depth="
            f"{params.unfreeze_depth!r}, unfreeze_layers={params.unfreeze_layers!r}"
        )
    if params.unfreeze_depth is not None and not 0 <= params.unfreeze_depth <= 4:
        found.append(f"unfreeze_depth must be 0 to 4, received {params.unfreeze_depth}")
    if len(params.head_widths) > 2 or any(width < 1 for width in params.head_widths):
        found.append(f"head_widths must be at most two widths of 1 or more, received {params.head_widths}")
    in_range = (
        ("dropout", 0 <= params.dropout < 1, "in [0, 1)"),
        ("lr", 0 < params.lr < math.inf, "above 0"),
        ("backbone_lr_factor", 0 < params.backbone_lr_factor < math.inf, "above 0"),
        ("momentum", 0 <= params.momentum < 1, "in [0, 1)"),
        ("weight_decay", 0 <= params.weight_decay < math.inf, "0 or more"),
        ("batch_size", params.batch_size >= 1, "1 or more"),
        ("focal_gamma", 0 <= params.focal_gamma < math.inf, "0 or more"),
        ("focal_alpha", params.focal_alpha is None or 0 <= params.focal_alpha <= 1, "in [0, 1] or none"),
    )
    found += [f"{name} must be {allowed}, received {getattr(params, name)}" for name, ok, allowed in in_range if not ok]
    if params.loss == "focal" and params.focal_alpha is not None and params.class_weights != "none":
        found.append("focal_alpha and class_weights=balanced both weigh the classes: give one of them")
    return found
