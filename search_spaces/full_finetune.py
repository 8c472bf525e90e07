"""Every layer trains: searches the backbone, its rate relative to the new head's, optimiser and regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.choices import suggest_head_and_training, usual_training
from search_spaces.params import Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
    """``lr`` is the head's; the backbone trains at ``lr * backbone_lr_factor``."""
    trial.suggest_categorical("backbone", context.backbones)
    trial.suggest_float("backbone_lr_factor", 0.01, 1.0, log=True)
    suggest_head_and_training(trial, context, sgd=(1e-5, 5e-2), adamw=(1e-6, 5e-3))
    return {"unfreeze_depth": 4}


def seed_points(context: SpaceContext) -> list[dict[str, Scalar]]:
    """Each backbone with its usual optimiser and rate."""
    return [usual_training(backbone, context) | {"backbone_lr_factor": 1.0} for backbone in context.backbones]
