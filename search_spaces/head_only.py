"""The backbone is frozen: searches the backbone, the head on it, and how the head trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.choices import suggest_head_and_training, usual_training
from search_spaces.params import Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
    """A new head tolerates higher learning rates than an unfrozen network."""
    trial.suggest_categorical("backbone", context.backbones)
    suggest_head_and_training(trial, context, sgd=(1e-4, 3e-1), adamw=(1e-5, 3e-2))
    return {"unfreeze_depth": 0}


def seed_points(context: SpaceContext) -> list[dict[str, Scalar]]:
    """Each backbone under one linear layer, with its usual optimiser and rate."""
    return [usual_training(backbone, context) for backbone in context.backbones]
