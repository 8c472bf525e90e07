"""Batches of one split, and the transform from images to network inputs: augmented in training, otherwise fixed."""

from __future__ import annotations

import contextlib
import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from search_spaces.params import AUGMENTS

RESIDENT_PART = 0.2
"""A split stays on the GPU if it takes at most this part of the memory that is free there when it is opened."""


@dataclass(frozen=True)
class InputScale:
    """How pixels become inputs: mean and std of the three channels, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_range(cls, low: float, high: float) -> Self:
        """The scale that maps pixels of 0 to ``low`` and of 255 to ``high``."""
        return cls((-low / (high - low),) * 3, (1 / (high - low),) * 3)

    @property
    def range(self) -> tuple[float, float] | None:
        """The values that pixels of 0 and 255 become, if all channels have the same; else None."""
        ends = [(-mean / std, (1 - mean) / std) for mean, std in zip(self.mean, self.std, strict=True)]
        return ends[0] if ends.count(ends[0]) == len(ends) else None

    def close_to(self, other: InputScale) -> bool:
        """Whether both are equal up to rounding."""
        return np.allclose((self.mean, self.std), (other.mean, other.std), rtol=1e-3)


IMAGENET = InputScale(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The scale with which torchvision's V1 weights were trained."""


CONTEXT_BYTES = 600_000_000
"""GPU memory that CUDA and its libraries take per process, outside torch's allocator."""
COPIED_BYTES = 32_000_000
"""Bytes per copy to a GPU: torch keeps as much host memory pinned."""


def keep_to_share(share: float) -> None:
    """Limit this process to a ``share``, in (0, 1], of the memory of a GPU that processes share.

    A trial that needs more then uses smaller batches or micro-batches, whatever the other processes do.
    """
    if share < 1:
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(max(share - CONTEXT_BYTES / total, share / 2))


def _room_bytes(device: torch.device) -> float:
    """The GPU memory that this process may still allocate."""
    free, total = torch.cuda.mem_get_info(device)
    return min(free, torch.cuda.get_per_process_memory_fraction() * total - torch.cuda.memory_reserved(device))


class Rows:
    """Rows of an array, which is usually mapped from disk, copied to a device: batch by batch, or all at once.

    array: [M, ...]; rows: int64 [N], indices into it. A GPU with enough free memory keeps all of these rows.
    """

    def __init__(self, array: NDArray[Any], rows: NDArray[np.int64], device: torch.device) -> None:
        self._array = np.asarray(array)  # A plain view: else every batch would be of np.memmap's class.
        self._rows = rows
        self._device = device
        self._resident: Tensor | None = None
        size_bytes = len(rows) * self._array[:1].nbytes
        if device.type == "cuda" and size_bytes <= RESIDENT_PART * _room_bytes(device):
            with contextlib.suppress(torch.OutOfMemoryError):  # Another trial has taken the memory meanwhile.
                resident = self._empty(len(rows), device=device)
                for part in np.array_split(np.arange(len(rows)), size_bytes // COPIED_BYTES + 1):
                    resident[torch.from_numpy(part).to(device)] = self._gather(part)
                self._resident = resident

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """A copy of the rows ``indices``, int64 [B] in 0..N-1, on the device: [B, ...]."""
        if self._resident is None:
            return self._gather(indices)
        return self._resident[on_device(indices, self._device)]

    def _gather(self, indices: NDArray[np.int64]) -> Tensor:
        if self._device.type != "cuda":
            return torch.from_numpy(self._array[self._rows[indices]])
        # Pinned memory lets the copy run while the device computes; torch keeps it until the copy is done.
        pinned = self._empty(len(indices), pin_memory=True)
        np.take(self._array, self._rows[indices], axis=0, out=pinned.numpy(), mode="clip")
        return pinned.to(self._device, non_blocking=True)

    def _empty(self, count: int, **where: Any) -> Tensor:
        dtype = torch.from_numpy(np.empty(0, self._array.dtype)).dtype
        return torch.empty((count, *self._array.shape[1:]), dtype=dtype, **where)


class Batches(ABC):
    """One split as network inputs: images, or the outputs of frozen layers.

    labels: int64 [N] or float32 [N, classes]. stages: how many of the backbone's stages the inputs have already passed;
    0 for images.
    """

    stages = 0

    def __init__(self, labels: NDArray[Any], device: torch.device) -> None:
        self.device = device
        self._labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: NDArray[np.int64], augmentation: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs, float [B, ...], and labels [B] or [B, classes], on the device.

        indices: int64 [B] in 0..N-1. augmentation: for training, a generator on the CPU; the draws depend only on B and
        the kind of augmentation. None: the inputs are not augmented.
        """
        return self._inputs(indices, augmentation), self._labels[on_device(indices, self.device)]

    @abstractmethod
    def _inputs(self, indices: NDArray[np.int64], augmentation: torch.Generator | None) -> Tensor: ...


class ImageBatches(Batches):
    """The images of one split, normalised.

    images: uint8 [M, C, S, S], the image cache, usually mapped; rows: int64 [N], indices into it. augment: as for
    ``augmented``. scale: of the inputs.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        labels: NDArray[Any],
        device: torch.device,
        augment: str = "none",
        scale: InputScale = IMAGENET,
    ) -> None:
        assert len(rows) == len(labels)
        super().__init__(labels, device)
        self._rows, self._augment, self._scale = Rows(images, rows, device), augment, scale

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """The unchanged images: uint8 [B, C, S, S]."""
        return self._rows.take(indices)

    def _inputs(self, indices: NDArray[np.int64], augmentation: torch.Generator | None) -> Tensor:
        images = self.images(indices)
        if augmentation is None:
            return normalise(images, self._scale)
        return augmented(images, self._augment, augmentation, self._scale)


def on_device(small: NDArray[np.int64] | Tensor, device: torch.device) -> Tensor:
    """A small array as a tensor on ``device``, without waiting for a GPU's pending work."""
    tensor = small if isinstance(small, Tensor) else torch.from_numpy(small)
    return tensor.to(device, non_blocking=True)


def plan_batches(count: int, batch_size: int, generator: torch.Generator | None) -> list[NDArray[np.int64]]:
    """Indices 0..count-1, each once, in batches of ``batch_size``: shuffled by ``generator``, in order without one.

    The last batch holds the rest. A single remaining image joins the batch before (BatchNorm cannot train on one value
    per channel, and no image is left out). Within a batch indices ascend, so that a disk is read in one direction.
    """
    order = np.arange(count) if generator is None else torch.randperm(count, generator=generator).numpy()
    starts = list(range(0, count, batch_size))
    if batch_size > 1 and len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [np.sort(order[start:end]) for start, end in zip(starts, [*starts[1:], count], strict=True)]


MAX_ROTATION_DEGREES = 30.0
CROP_AREA = (0.5, 1.0)
"""Part of the image's area that a crop keeps. torchvision's .08 is for photographs: it would cut a lung off."""
CROP_RATIO = (3 / 4, 4 / 3)


def normalise(images: Tensor, to: InputScale = IMAGENET) -> Tensor:
    """The one evaluation transform: uint8 (or float in 0..255) [B, C, S, S] -> float32 [B, 3, S, S].

    to: the scale of the result. C is 1 or 3; gray is repeated in the three channels. The result is channels_last.
    """
    batch, _, height, width = images.shape
    scale, shift = _scale_and_shift(to, images.device)
    # Broadcasting writes the three channels of a gray image at once, straight into the layout that convolutions want.
    out = torch.empty((batch, 3, height, width), device=images.device, memory_format=torch.channels_last)
    torch.mul(images.float(), scale, out=out)
    return out.add_(shift)


@functools.lru_cache(maxsize=16)
def _scale_and_shift(to: InputScale, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both float32 [1, 3, 1, 1] on the device. Cached: making them waits for a GPU's pending work."""
    with torch.inference_mode(False):  # Even if the first caller is in it: training cannot use inference tensors.
        scale = torch.tensor([1 / (255 * std) for std in to.std], device=device)
        shift = torch.tensor([-mean / std for mean, std in zip(to.mean, to.std, strict=True)], device=device)
        return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)


def augmented(images: Tensor, augment: str, generator: torch.Generator, to: InputScale = IMAGENET) -> Tensor:
    """The training transform, drawn for each image: uint8 [B, C, S, S] -> float32 [B, 3, S, S], as ``normalise``.

    none: ``normalise`` alone. flip: left and right exchanged with probability .5. standard: a rotation of up to
    30 degrees either way, then a crop (``CROP_AREA`` of the area, ``CROP_RATIO`` width to height, log-uniform)
    resized to S x S, then flip, all in one bilinear sampling; positions outside the image are black.
    generator: on the CPU; the draws are the same on every device and depend on B alone.
    """
    if augment == "none":
        return normalise(images, to)
    if augment == "flip":
        mirrored = on_device(draw_mirrored(len(images), generator), images.device).view(-1, 1, 1, 1)
        return normalise(torch.where(mirrored, images.flip(3), images), to)
    draws = torch.rand(len(images), 6, generator=generator)
    grid = _sampling_grid(on_device(_warps(draws), images.device), images.shape[-1])
    warped = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return normalise(warped, to)


assert set(AUGMENTS) == {"none", "flip", "standard"}


def draw_mirrored(count: int, generator: torch.Generator) -> Tensor:
    """Which of ``count`` images ``flip`` mirrors: bool [count], on the CPU."""
    return torch.rand(count, generator=generator) < 0.5


def _sampling_grid(warps: Tensor, size: int) -> Tensor:
    """``F.affine_grid(warps, [B, C, S, S], align_corners=False)``, float32 [B, S, S, 2], in a tenth of its time."""
    centres = (2 * torch.arange(size, device=warps.device) + 1) / size - 1
    by_column = warps[:, :, 0, None] * centres
    by_row = warps[:, :, 1, None] * centres + warps[:, :, 2, None]
    return by_row.transpose(1, 2)[:, :, None] + by_column.transpose(1, 2)[:, None]


def _warps(draws: Tensor) -> Tensor:
    """Affine maps, float32 [B, 2, 3], from output to input coordinates in [-1, 1]; draws: [B, 6] uniform in [0, 1).

    A point of the output is mirrored, placed in the crop window, and rotated back about the image's centre.
    """
    flip, angle, area, ratio, across, down = draws.unbind(1)
    area = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
    low, high = (math.log(bound) for bound in CROP_RATIO)
    stretch = torch.exp(0.5 * (low + (high - low) * ratio))
    # A stretched crop of nearly the whole image is cut at the image's edges; it still has 3/4 or more of the image.
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    x, y = (1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)
    width = torch.where(flip < 0.5, -width, width)
    radians = math.radians(MAX_ROTATION_DEGREES) * (2 * angle - 1)
    cos, sin = radians.cos(), radians.sin()
    rows = [cos * width, -sin * height, cos * x - sin * y, sin * width, cos * height, sin * x + cos * y]
    return torch.stack(rows, dim=1).view(-1, 2, 3)
