"""Remedies for a rare class: the loss, focal's gamma and alpha, or class weights. The rest is fixed at usual values.

Depth 1 (head and last block), SGD, cosine schedule, flips. The rate is searched, too, as losses differ in scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.choices import batch_size_near, losses, usual_training
from search_spaces.params import CLASS_WEIGHTS, Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna


def space(trial: optuna.Trial, context: SpaceContext) -> dict[str, Scalar]:
    """Alpha and balanced weights both weight the classes, so alpha is suggested only if the weights are off."""
    trial.suggest_categorical("backbone", context.backbones)
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    weights = trial.suggest_categorical("class_weights", CLASS_WEIGHTS)
    if trial.suggest_categorical("loss", losses(context)) == "focal":
        trial.suggest_float("focal_gamma", 0.0, 5.0)
        if weights == "none":
            trial.suggest_categorical("focal_alpha", (None, 0.25, 0.5, 0.75, 0.9))
    return {
        "unfreeze_depth": 1,
        "dropout": 0.2,
        "weight_decay": 1e-4,
        "batch_size": batch_size_near(32, context),
        "lr_schedule": "cosine",
        "augment": "flip",
    }


def seed_points(context: SpaceContext) -> list[dict[str, Scalar]]:
    """Each backbone with the plain loss, balanced weights, and focal loss at gamma 2."""
    plain = losses(context)[0]
    remedies: list[dict[str, Scalar]] = [
        {"loss": plain, "class_weights": "none"},
        {"loss": plain, "class_weights": "balanced"},
        {"loss": "focal", "class_weights": "none", "focal_gamma": 2.0, "focal_alpha": None},
    ]
    rates = {backbone: usual_training(backbone, context).get("lr.sgd", 1e-2) for backbone in context.backbones}
    return [remedy | {"backbone": backbone, "lr": rate} for remedy in remedies for backbone, rate in rates.items()]
