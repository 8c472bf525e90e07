"""What the spaces share: choices, some of which depend on the data, and suggestions and seed points made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.params import AUGMENTS, CLASS_WEIGHTS, LR_SCHEDULES, OPTIMIZERS, Scalar, SpaceContext

if TYPE_CHECKING:
    import optuna

# Studies used none, 150 to 1360, 256+128 and 1024+512 (and one 4300, 108 million weights on VGG-16's features).
HEAD_WIDTHS = ("none", "128", "320", "512", "1024", "256+128", "1024+512")
# Nothing rescales their activations, so they diverge at the learning rates of the others.
WITHOUT_BATCHNORM = ("vgg16", "squeezenet1_0", "squeezenet1_1")
# They were trained with AdamW, and SGD changes them little.
WANT_ADAMW = ("convnext_tiny", "vit_b_16", "swin_t")
BATCH_SIZES = (8, 16, 32, 64, 128)


def losses(context: SpaceContext) -> tuple[str, ...]:
    """The losses that fit the task: several labels at once rule out cross-entropy's softmax."""
    return ("cross_entropy", "bce", "focal") if context.task == "single_label" else ("bce", "focal")


def batch_sizes(context: SpaceContext) -> tuple[int, ...]:
    """Powers of two from 8 to 128 that the training split can fill; a smaller split is one batch."""
    return tuple(size for size in BATCH_SIZES if size <= context.train_count) or (max(1, context.train_count),)


def batch_size_near(size: int, context: SpaceContext) -> int:
    """The largest offered batch size up to ``size``; the smallest offered if there is none."""
    offered = batch_sizes(context)
    return max((fitting for fitting in offered if fitting <= size), default=offered[0])


def suggest_head_and_training(
    trial: optuna.Trial, context: SpaceContext, *, sgd: tuple[float, float], adamw: tuple[float, float]
) -> None:
    """Suggest the head and its training, with that of unfrozen layers. sgd, adamw: lowest and highest rate of each."""
    trial.suggest_categorical("head_widths", HEAD_WIDTHS)
    trial.suggest_float("dropout", 0.0, 0.7)
    if trial.suggest_categorical("optimizer", OPTIMIZERS) == "sgd":
        trial.suggest_float("lr.sgd", *sgd, log=True)
        trial.suggest_float("momentum", 0.8, 0.99)
    else:
        trial.suggest_float("lr.adamw", *adamw, log=True)
    trial.suggest_categorical("lr_schedule", LR_SCHEDULES)
    trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    trial.suggest_categorical("batch_size", batch_sizes(context))
    if trial.suggest_categorical("loss", losses(context)) == "focal":
        trial.suggest_float("focal_gamma", 0.5, 4.0)
    trial.suggest_categorical("class_weights", CLASS_WEIGHTS)
    trial.suggest_categorical("augment", AUGMENTS)


def usual_training(backbone: str, context: SpaceContext) -> dict[str, Scalar]:
    """Values of seed points for the backbone and all that ``suggest_head_and_training`` asks for.

    SGD at the usual rate for fine-tuning, lower without BatchNorm; for ``WANT_ADAMW``, AdamW at a tenth of its default
    rate, which keeps their features.
    """
    optimizer: dict[str, Scalar] = {"optimizer": "adamw", "lr.adamw": 1e-4}
    if backbone not in WANT_ADAMW:
        rate = 3e-3 if backbone in WITHOUT_BATCHNORM else 1e-2
        optimizer = {"optimizer": "sgd", "lr.sgd": rate, "momentum": 0.9}
    return optimizer | {
        "backbone": backbone,
        "head_widths": "none",
        "dropout": 0.2,
        "lr_schedule": "cosine",
        "weight_decay": 1e-4,
        "batch_size": batch_size_near(32, context),
        "loss": losses(context)[0],
        "class_weights": "none",
        "augment": "flip",
    }
