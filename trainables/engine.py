"""One epoch of training and one evaluation: plain functions of a network, a loss and batches."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.batches import Batches, plan_batches
from trainables.losses import Loss, mean_loss, probabilities_of
from trainables.optimizers import Schedule

_Out = TypeVar("_Out")
_Batch = tuple[Tensor, Tensor, int, Tensor | float]
"""Inputs, labels, how many stages the inputs have passed, and the weight of the batch's loss."""
EVALUATION_BATCH = {"cpu": 32, "cuda": 256}
"""Images at once in evaluation, where the size of a batch changes nothing but speed."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""See mallopt(3)."""


@dataclass(frozen=True, kw_only=True)
class TrainingEpoch:
    """loss, accuracy: running means over the epoch's images, in train mode, each image with the weights of its step.

    accuracy: part of images decided correctly (multi-label: every known label).
    bad_step: the first step (from 1) whose loss was NaN or infinite, which ended the epoch; None = no such step.
    micro_batch: images computed at once from now on, fewer than a batch after memory ran out; None = whole batches.
    """

    loss: float
    accuracy: float
    bad_step: int | None
    micro_batch: int | None


@dataclass(frozen=True)
class Evaluation:
    """loss: over the whole split, in eval mode. probabilities: float32 [N, C] in the order of the split."""

    loss: float
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Forward:
    """A network with its loss. task: "single_label" or "multi_label"; precision: "fp32", or "bf16" for
    autocast (weights and loss stay float32).
    """

    model: nn.Module
    loss: Loss
    task: str
    precision: str

    def __call__(self, inputs: Tensor, labels: Tensor, stages: int = 0) -> tuple[Tensor, Tensor]:
        """The summed loss and the logits. stages: as in ``Batches``."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self.model(inputs, stages) if stages else self.model(inputs)
        return self.loss.total(logits, labels), logits

    def right(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How many images ``metrics.decide`` decides correctly: in every known label, of which there is one or more."""
        if self.task == "single_label":
            return (logits.argmax(dim=1) == labels).sum()
        known = labels >= 0
        wrong = known & ((logits.float().sigmoid() >= 0.5) != (labels == 1))
        return (known.any(dim=1) & ~wrong.any(dim=1)).sum()


def set_up_cpu(threads: int) -> None:
    """Set this process's torch threads, and make glibc keep freed memory for later allocations.

    glibc returns large blocks to the system, which fills each page with zeros before it is used again: at 224 px that
    is half the time of MobileNetV2's forward pass. Other C libraries are not changed.
    """
    torch.set_num_threads(threads)
    _of_glibc("mallopt", M_MMAP_MAX, 0)
    _of_glibc("mallopt", M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Return to the system the freed memory that ``set_up_cpu`` makes glibc keep."""
    _of_glibc("malloc_trim", 0)


def _of_glibc(name: str, *numbers: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*numbers)


def train_epoch(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    data: Batches,
    *,
    batch_size: int,
    shuffling: torch.Generator,
    augmentation: torch.Generator,
    micro_batch: int | None = None,
    autotune: bool = False,
    between_steps: Callable[[], None] = lambda: None,
) -> TrainingEpoch:
    """Train one epoch on ``data``. The caller sets the network's train mode, as the network knows what is frozen.

    Out of GPU memory: the batch is repeated in micro-batches of half the size, with accumulated gradients, and so are
    all later batches (a BatchNorm in train mode then normalises by, and counts, smaller batches). between_steps is
    called before each step and may raise. autotune: cuDNN measures which algorithms are fastest for a whole batch,
    once per process, network and batch size, which takes some ten seconds.
    """
    sums: list[tuple[Tensor, Tensor | float, Tensor, Tensor | float]] = []
    before: Callable[[], float] = float
    for step, indices in enumerate(plan_batches(len(data), batch_size, shuffling), start=1):
        between_steps()
        inputs, labels = data.batch(indices, augmentation)
        schedule.before_step()
        weight = forward.loss.weight(labels)
        batch = inputs, labels, data.stages, weight
        torch.backends.cudnn.benchmark = autotune and len(indices) == batch_size
        try:
            summed, right, micro_batch = _backward_in_memory(forward, optimizer, batch, micro_batch)
        finally:
            torch.backends.cudnn.benchmark = False
        optimizer.step()
        # Summed after the loop: on a GPU, an operation on one number takes as long as one on a layer.
        seen = len(labels) if labels.ndim == 1 else (labels >= 0).any(dim=1).sum()
        sums.append((summed, weight, right, seen))
        # A step's loss is checked while the next step runs, so that a GPU never waits for the check.
        if not math.isfinite(before()):
            step -= 1
            break
        before = on_its_way(summed)
    bad_step = None if math.isfinite(before()) else step
    totals, weights, correct, known = zip(*sums, strict=True)
    loss, accuracy = _ratio(totals, weights), _ratio(correct, known)
    return TrainingEpoch(loss=loss, accuracy=accuracy, bad_step=bad_step, micro_batch=micro_batch)


def _ratio(above: Sequence[Tensor], below: Sequence[Tensor | float]) -> float:
    """The ratio of two sums, in double precision; 0 / 0 is 0. below: all floats, or all scalar tensors on a device."""
    tensors = [one for one in below if isinstance(one, Tensor)]
    divisor = float(torch.stack(tensors).sum(dtype=torch.float64)) if tensors else math.fsum(below)
    return float(torch.stack([*above]).sum(dtype=torch.float64)) / (divisor or 1.0)


def on_its_way(value: Tensor) -> Callable[[], float]:
    """A function that returns the scalar ``value`` as a number, and waits only for the GPU's work up to it.

    ``value.item()`` would wait for all work that the GPU has been given by the time of the call.
    """
    if value.device.type != "cuda":
        return value.item
    number = torch.empty((), dtype=value.dtype, pin_memory=True)
    number.copy_(value, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> float:
        arrived.synchronize()
        return float(number)

    return wait


def evaluate(forward: Forward, data: Batches, between_steps: Callable[[], None] = lambda: None) -> Evaluation:
    """The loss over ``data``, and the probabilities of its images, in eval mode (the network stays in it).

    between_steps: as for ``map_batches``.
    """
    forward.model.eval()

    def judged(indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | float, Tensor]:
        inputs, labels = data.batch(indices)
        summed, logits = forward(inputs, labels, data.stages)
        return summed, forward.loss.weight(labels), probabilities_of(logits, forward.task)

    batches = map_batches(judged, len(data), EVALUATION_BATCH[data.device.type], between_steps)
    totals, weights, parts = zip(*batches, strict=True)
    return Evaluation(_ratio(totals, weights), torch.cat(parts).cpu().numpy())


@torch.inference_mode()
def map_batches(
    function: Callable[[NDArray[np.int64]], _Out],
    count: int,
    size: int,
    between_steps: Callable[[], None] = lambda: None,
) -> list[_Out]:
    """``function`` of the indices 0..count-1, int64 [B] per batch, in order, without gradients.

    ``size`` indices at a time, halved if GPU memory runs out. between_steps is called before each batch and may raise.
    """
    found: list[_Out] = []
    start = 0
    while start < count:
        between_steps()
        indices = np.arange(start, min(start + size, count))
        try:
            found.append(function(indices))
            start += len(indices)
        except torch.OutOfMemoryError:
            if len(indices) == 1:
                raise
            size = math.ceil(len(indices) / 2)
    return found


def _backward_in_memory(
    forward: Forward, optimizer: torch.optim.Optimizer, batch: _Batch, micro_batch: int | None
) -> tuple[Tensor, Tensor, int | None]:
    """``_backward``, in ever smaller micro-batches until memory suffices; also their size, for the next batch."""
    while True:
        try:
            return *_backward(forward, optimizer, batch, micro_batch), micro_batch
        except torch.OutOfMemoryError:
            tried = min(micro_batch or len(batch[0]), len(batch[0]))
            if tried == 1:
                raise
        # Outside of the handler: the traceback would keep the failed attempt's tensors alive.
        micro_batch = math.ceil(tried / 2)
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


def _backward(
    forward: Forward, optimizer: torch.optim.Optimizer, batch: _Batch, micro_batch: int | None
) -> tuple[Tensor, Tensor]:
    """Set the parameters' gradients of the batch's mean loss; return the summed loss and the count of correct images.

    Micro-batches are divided by the weight of the whole batch and summed: the gradient is that of the undivided batch.
    """
    inputs, labels, stages, weight = batch
    optimizer.zero_grad(set_to_none=True)
    parts = math.ceil(len(inputs) / (micro_batch or len(inputs)))
    totals, right = [], []
    for some, their_labels in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
        summed, logits = forward(some, their_labels, stages)
        mean_loss(summed, weight).backward()  # type: ignore[no-untyped-call]
        totals.append(summed.detach())
        right.append(forward.right(logits.detach(), their_labels))
    return functools.reduce(operator.add, totals), functools.reduce(operator.add, right)
