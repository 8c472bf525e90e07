"""Every layer trains: which backbone, how fast beside its new head, with which optimiser and regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.choices import HEAD_WIDTHS, batch_size_near, batch_sizes, losses, usual_optimizer
from search_spaces.params import AUGMENTS, CLASS_WEIGHTS, LR_SCHEDULES, Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
    """``lr`` is the head's; the backbone trains at ``lr * backbone_lr_factor``."""
    trial.suggest_categorical("backbone", context.backbones)
    trial.suggest_float("backbone_lr_factor", 0.01, 1.0, log=True)
    trial.suggest_categorical("head_widths", HEAD_WIDTHS)
    trial.suggest_float("dropout", 0.0, 0.7)
    if trial.suggest_categorical("optimizer", ("sgd", "adamw")) == "sgd":
        trial.suggest_float("lr.sgd", 1e-5, 5e-2, log=True)
        trial.suggest_float("momentum", 0.8, 0.99)
    else:
        trial.suggest_float("lr.adamw", 1e-6, 5e-3, log=True)
    trial.suggest_categorical("lr_schedule", LR_SCHEDULES)
    trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    trial.suggest_categorical("batch_size", batch_sizes(context))
    if trial.suggest_categorical("loss", losses(context)) == "focal":
        trial.suggest_float("focal_gamma", 0.5, 4.0)
    trial.suggest_categorical("class_weights", CLASS_WEIGHTS)
    trial.suggest_categorical("augment", AUGMENTS)
    return {"unfreeze_depth": 4}


def seed_points(context: SpaceContext) -> list[dict[str, Scalar]]:
    """Each backbone with its usual optimiser and rate."""
    return [
        usual_optimizer(backbone)
        | {
            "backbone": backbone,
            "backbone_lr_factor": 1.0,
            "head_widths": "none",
            "dropout": 0.2,
            "lr_schedule": "cosine",
            "weight_decay": 1e-4,
            "batch_size": batch_size_near(32, context),
            "loss": losses(context)[0],
            "class_weights": "none",
            "augment": "flip",
        }
        for backbone in context.backbones
    ]
