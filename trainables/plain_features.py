"""An image as a plain vector, with nothing learned on the data: a thumbnail, its border, or a frozen network's view."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from search_spaces.params import TrialParams
from trainables.augment import normalise
from trainables.backbones import flattened_7x7
from trainables.batches import Batches, plan_batches
from trainables.engine import EVALUATION_BATCH
from trainables.finetune import build_model
from trainables.weights import FoundWeights

Features = NDArray[np.float32]

THUMBNAIL_SIDE = 16
BORDER_OF_SIDE = 64
"""Side, in pixels, to which an image is reduced before its border is taken; a smaller image stays as it is."""
BORDER_PART = 1 / 16
"""Width of the border as a part of the side: 4 of 64 pixels, a quarter of the image's area (.234)."""


def thumbnails(data: Batches) -> Features:
    """float32 [N, channels x 16 x 16] in 0..1: brightness in large patches, and no finding that could be seen."""
    return _gathered(data, lambda images: _reduced(images, THUMBNAIL_SIDE).flatten(1), EVALUATION_BATCH["cuda"])


def borders(data: Batches) -> Features:
    """float32 [N, channels x pixels of the frame] in 0..1: the outermost sixteenth of each side, and nothing inside.

    The image is reduced to 64 x 64 first, so the frame is 4 pixels wide and has 960 of them.
    """

    def frame(images: Tensor) -> Tensor:
        side = min(BORDER_OF_SIDE, images.shape[-1])
        width = max(1, round(side * BORDER_PART))
        outside = torch.ones(side, side, dtype=torch.bool, device=images.device)
        outside[width:-width, width:-width] = False
        return _reduced(images, side)[:, :, outside].flatten(1)

    return _gathered(data, frame, EVALUATION_BATCH["cuda"])


def frozen_features(found: FoundWeights, data: Batches, image_size: int, precision: str) -> Features:
    """float32 [N, width]: what a new head on the untouched network would see, in eval mode and without augmentation.

    VGG's 25088 numbers, 512 channels at 7 x 7 positions, are averaged over the positions: a regression on all of them
    would take hours, and other networks hand over means, too. Random weights are those of seed 0. precision: "fp32", or
    "bf16" for autocast. ``UserError`` if the weights do not load or the images are too small for the network. Where GPU
    memory does not suffice, batches are halved.
    """
    params = TrialParams(backbone=found.backbone, unfreeze_depth=0)
    model = build_model(params, 1, found, image_size, seed=0)
    model = model.to(memory_format=torch.channels_last).to(data.device).eval()
    positions = 49 if model.backbone.to_vector is flattened_7x7 else 1

    def features(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
            vectors = model.forward_frozen(normalise(images))
        return vectors.float().reshape(len(vectors), -1, positions).mean(2)

    size = EVALUATION_BATCH[data.device.type]
    while True:
        try:
            return _gathered(data, features, size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size = math.ceil(size / 2)
        torch.cuda.empty_cache()


@torch.inference_mode()
def _gathered(data: Batches, function: Callable[[Tensor], Tensor], batch_size: int) -> Features:
    """``function`` of all images, uint8 [B, C, S, S] at a time; only its results are held together."""
    parts = [function(data.take(indices)[0]).cpu().numpy() for indices in plan_batches(len(data), batch_size, None)]
    return np.concatenate(parts)


def _reduced(images: Tensor, side: int) -> Tensor:
    """uint8 [B, C, S, S] -> float32 [B, C, side, side] in 0..1, antialiased."""
    return functional.interpolate(images.float() / 255, size=(side, side), mode="bilinear", antialias=True)
