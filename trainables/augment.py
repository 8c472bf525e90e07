"""From decoded images to a network's input: augmented for training, the same for everything else."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.params import AUGMENTS

# Mean and standard deviation of ImageNet's channels, with which torchvision's V1 weights were trained.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

MAX_ROTATION_DEGREES = 30.0
CROP_AREA = (0.5, 1.0)
"""Part of the image's area that a crop keeps. torchvision's .08 is for photographs: it would cut a lung off."""
CROP_RATIO = (3 / 4, 4 / 3)


def normalise(images: Tensor) -> Tensor:
    """The one evaluation transform: uint8 (or float in 0..255) [B, C, S, S] -> float32 [B, 3, S, S], ImageNet's scale.

    C is 1 or 3; gray is repeated in the three channels. The result is channels_last.
    """
    batch, _, height, width = images.shape
    scale = torch.tensor([1 / (255 * std) for std in STD], device=images.device).view(1, 3, 1, 1)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)], device=images.device)
    # Broadcasting writes the three channels of a gray image at once, straight into the layout that convolutions want.
    out = torch.empty((batch, 3, height, width), device=images.device, memory_format=torch.channels_last)
    torch.mul(images.float(), scale, out=out)
    return out.add_(shift.view(1, 3, 1, 1))


def augmented(images: Tensor, augment: str, generator: torch.Generator) -> Tensor:
    """The training transform, other for every image: uint8 [B, C, S, S] -> float32 [B, 3, S, S], as ``normalise``.

    none: ``normalise`` alone. flip: left and right exchanged with probability .5. standard: a rotation of up to
    30 degrees either way, then a crop (``CROP_AREA`` of the area, ``CROP_RATIO`` width to height, log-uniform)
    resized to S x S, then flip, as one bilinear sampling; what comes from outside the image is black.
    generator: on the CPU; the draws are the same on every device and depend on B alone.
    """
    if augment == "none":
        return normalise(images)
    draws = torch.rand(len(images), _DRAWS[augment], generator=generator)
    if augment == "flip":
        mirrored = (draws[:, 0] < 0.5).to(images.device).view(-1, 1, 1, 1)
        return normalise(torch.where(mirrored, images.flip(3), images))
    grid = _sampling_grid(_warps(draws).to(images.device), images.shape[-1])
    return normalise(F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False))


_DRAWS = {"flip": 1, "standard": 6}
assert {"none", *_DRAWS} == set(AUGMENTS)


def _sampling_grid(warps: Tensor, size: int) -> Tensor:
    """``F.affine_grid(warps, [B, C, S, S], align_corners=False)``, float32 [B, S, S, 2], for a tenth of its time."""
    centres = (2 * torch.arange(size, device=warps.device) + 1) / size - 1
    by_column = warps[:, :, 0, None] * centres
    by_row = warps[:, :, 1, None] * centres + warps[:, :, 2, None]
    return by_row.transpose(1, 2)[:, :, None] + by_column.transpose(1, 2)[:, None]


def _warps(draws: Tensor) -> Tensor:
    """float32 [B, 2, 3], from output to input coordinates in [-1, 1], of draws [B, 6] uniform in [0, 1).

    A point of the output is mirrored, placed in the crop window, and turned back about the image's centre.
    """
    flip, angle, area, ratio, across, down = draws.unbind(1)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
    low, high = (math.log(bound) for bound in CROP_RATIO)
    stretch = torch.exp(0.5 * (low + (high - low) * ratio))
    # A stretched crop of nearly the whole image ends at its edges; it keeps three quarters or more.
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    x, y = (1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)
    width = torch.where(flip < 0.5, -width, width)
    radians = math.radians(MAX_ROTATION_DEGREES) * (2 * angle - 1)
    cos, sin = radians.cos(), radians.sin()
    rows = [cos * width, -sin * height, cos * x - sin * y, sin * width, cos * height, sin * x + cos * y]
    return torch.stack(rows, dim=1).view(-1, 2, 3)
