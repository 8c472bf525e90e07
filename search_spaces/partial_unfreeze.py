"""Searches the backbone, how deep to unfreeze it, head, optimiser and loss: the studies' question, more broadly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.choices import suggest_head_and_training, usual_training
from search_spaces.params import Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
    """``lr`` is the head's; unfrozen blocks train at ``lr * backbone_lr_factor``."""
    trial.suggest_categorical("backbone", context.backbones)
    if trial.suggest_int("unfreeze_depth", 0, 4) > 0:
        trial.suggest_float("backbone_lr_factor", 0.01, 1.0, log=True)
    suggest_head_and_training(trial, context, sgd=(1e-5, 1e-1), adamw=(1e-5, 1e-2))
    return {}


def seed_points(context: SpaceContext) -> list[dict[str, Scalar]]:
    """Each backbone three times: only its head, half of it, and all of it trained.

    The depth rotates along the backbones, so that a sweep too short for all points still starts from every depth.
    """
    points: list[dict[str, Scalar]] = []
    for turn in range(3):
        for place, backbone in enumerate(context.backbones):
            depth = (0, 2, 4)[(place + turn) % 3]
            factor: dict[str, Scalar] = {"backbone_lr_factor": 1.0} if depth > 0 else {}
            points.append(usual_training(backbone, context) | {"unfreeze_depth": depth} | factor)
    return points
