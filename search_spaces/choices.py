"""The choices that the spaces share, and those that depend on the data."""

from __future__ import annotations

from search_spaces.params import Scalar, SpaceContext

# Studies used none, 150 to 1360, 256+128 and 1024+512 (and one 4300, 108 million weights on VGG-16's features).
HEAD_WIDTHS = ("none", "128", "320", "512", "1024", "256+128", "1024+512")
# Nothing rescales their activations, so that the rates of the others make them diverge.
WITHOUT_BATCHNORM = ("vgg16", "squeezenet1_0", "squeezenet1_1")
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


def usual_optimizer(backbone: str) -> dict[str, Scalar]:
    """Where seed points start: SGD at the rate usual for fine-tuning, lower without BatchNorm.

    ConvNeXt was trained by AdamW, and SGD moves it little; a tenth of AdamW's default keeps its features.
    """
    if backbone == "convnext_tiny":
        return {"optimizer": "adamw", "lr.adamw": 1e-4}
    return {"optimizer": "sgd", "lr.sgd": 3e-3 if backbone in WITHOUT_BATCHNORM else 1e-2, "momentum": 0.9}
