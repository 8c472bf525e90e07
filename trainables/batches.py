"""Mini-batches gathered from the decoded image store."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESIDENT_PART = 0.2
"""A split stays on the GPU if it takes at most this part of the memory that is free there when it is opened."""


class Batches:
    """The images and labels of one split.

    images: uint8 [M, C, S, S], the store, usually a memory map; rows: int64 [N], which of them; labels: int64 [N] or
    float32 [N, classes]. Only the batch at hand is copied, except on a GPU with room for the whole split.
    """

    def __init__(self, images: NDArray[np.uint8], rows: NDArray[np.int64], labels: NDArray[Any], device: torch.device):
        assert len(rows) == len(labels)
        self._images = np.asarray(images)  # A plain view: the map's subclass would be carried into every batch.
        self._rows = rows
        self._labels = torch.from_numpy(np.ascontiguousarray(labels)).to(device)
        self._device = device
        self._resident: Tensor | None = None
        if device.type == "cuda" and self._bytes() <= RESIDENT_PART * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, device=device)
            for part in np.array_split(np.arange(len(rows)), len(rows) // 1024 + 1):
                self._resident[torch.from_numpy(part).to(device)] = self._gather(part)

    @property
    def device(self) -> torch.device:
        return self._device

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B, C, S, S] and labels [B] or [B, classes] on the device; indices: int64 [B] in 0..N-1."""
        chosen = torch.from_numpy(indices).to(self._device)
        images = self._gather(indices) if self._resident is None else self._resident[chosen]
        return images, self._labels[chosen]

    def _gather(self, indices: NDArray[np.int64]) -> Tensor:
        if self._device.type != "cuda":
            return torch.from_numpy(self._images[self._rows[indices]])
        # Pinned memory lets the copy run while the device computes; torch keeps it until the copy is done.
        pinned = torch.empty((len(indices), *self._images.shape[1:]), dtype=torch.uint8, pin_memory=True)
        np.take(self._images, self._rows[indices], axis=0, out=pinned.numpy(), mode="clip")
        return pinned.to(self._device, non_blocking=True)

    def _bytes(self) -> int:
        return len(self._rows) * int(np.prod(self._images.shape[1:]))


def plan_batches(count: int, batch_size: int, generator: torch.Generator | None) -> list[NDArray[np.int64]]:
    """Indices 0..count-1, each once, in batches of ``batch_size``: shuffled by ``generator``, in order without one.

    The last batch holds what is left. If that were a single image it joins the batch before (BatchNorm cannot train on
    one value a channel, and no image is left out). Within a batch indices ascend, so that a disk is read one way.
    """
    order = np.arange(count) if generator is None else torch.randperm(count, generator=generator).numpy()
    starts = list(range(0, count, batch_size))
    if batch_size > 1 and len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [np.sort(order[start:end]) for start, end in zip(starts, [*starts[1:], count], strict=True)]


def batch_count(count: int, batch_size: int) -> int:
    """How many batches ``plan_batches`` makes."""
    return len(plan_batches(count, batch_size, None))
