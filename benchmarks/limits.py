"""The shortest time in which a sweep can be done on this machine, and the bare loop for comparison.

    python -m benchmarks.limits --backbone resnet18 --depth 1 [--trials 12 --epochs 5 --images 785,169]

The lower bound T*. A sweep has three parts that no program can leave out:

- The frozen part is a function of the image alone. Each distinct one (backbone, boundary) has to process each image
  once in each of its views (two for "flip"; once per epoch for "standard", where no two views are alike).
- In each epoch of a trial, the trained part goes forward and backward over each training image. It has to do its FLOPs
  and to move its bytes: per step 24 per trained parameter (SGD with momentum reads weight, gradient and momentum and
  writes each once, four bytes every time), and per image the boundary's activations. The slower of the two counts.
- After each epoch, the trained part goes forward over each validation image.

FLOPs are converted to seconds by the FLOP/s of a loop over the same part in its layout (channels_last, float32), with
freed memory kept as in our trials, on one thread while another process does the same; bytes by a memory copy measured
in the same way. ``AT_ONCE`` trials run at a time, so the sum is divided by that. Decoding, starting processes, and all
that a sweep writes are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.own_process import AT_ONCE, ready, two_at_once
from search_spaces.params import BACKBONE_NAMES, TrialParams
from trainables.batches import augmented, normalise
from trainables.engine import set_up_cpu
from trainables.finetune import FineTunedModel, build_model
from trainables.optimizers import make_optimizer
from trainables.weights import FoundWeights

BATCH = 32
CLASSES = 3
BYTES_A_PARAMETER_AND_STEP = 24
COPIED_BYTES = 256 * 2**20
"""Far more than fits into the CPU's caches."""
VIEWS = {"none": 1, "flip": 2}


@dataclass(frozen=True)
class Part:
    """flops: of one image, two per multiply-add. seconds: of one image in a loop over this part only."""

    flops: float
    seconds: float

    @property
    def flops_per_s(self) -> float:
        return self.flops / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Cost:
    """The cost of one image: the frozen part (forward), the trained part (forward and backward), and validation
    (the trained part forward). boundary_bytes: of the activations between frozen and trained part, float32."""

    frozen: Part
    trained: Part
    validated: Part
    trained_params: int
    boundary_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default="resnet18")
    parser.add_argument("--depth", type=int, choices=range(5), default=1, help="blocks that train besides the head (1)")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=5, help="of each trial (5)")
    parser.add_argument("--images", default="785,169", help="training and validation images (785,169)")
    parser.add_argument("--image-size", type=int, default=224)
    asked = parser.parse_args()
    train_count, val_count = map(int, asked.images.split(","))
    params = TrialParams(backbone=asked.backbone, unfreeze_depth=asked.depth, augment="flip")
    cost, bandwidth = measure_cost(params, asked.image_size, 5.0), measure_bandwidth()
    for name, part in (("frozen", cost.frozen), ("trained", cost.trained), ("validated", cost.validated)):
        rate = f"{part.flops / 1e9:8.2f} GFLOP an image at {part.flops_per_s / 1e9:.1f} GFLOP/s a thread"
        print(f"{name:9} {rate}: {1000 * part.seconds:.2f} ms")
    print(f"copying   {bandwidth / 1e9:8.2f} GB/s a thread")
    runs = [(params, asked.epochs)] * asked.trials
    bound_s = lower_bound_s(runs, train_count, val_count, {(asked.backbone, asked.depth): cost}, bandwidth)
    print(f"T*        {bound_s:8.1f} s, {AT_ONCE} at once")
    print(f"FLOP limit of a cache: {flop_limit(runs, train_count, val_count, cost):.2f} times a loop without one")


def lower_bound_s(
    runs: Sequence[tuple[TrialParams, int]],
    train_count: int,
    val_count: int,
    costs: Mapping[tuple[str, int | None], Cost],
    bandwidth: float,
) -> float:
    """T* in seconds of ``runs``: trials and the epochs that each ran.

    costs: by (backbone, unfreeze_depth). bandwidth: bytes/s.
    """
    views: dict[tuple[str, int | None], int] = {}
    seconds = 0.0
    for params, epochs in runs:
        place = params.backbone, params.unfreeze_depth
        cost = costs[place]
        if params.augment in VIEWS:
            views[place] = max(views.get(place, 0), VIEWS[params.augment])
        else:
            views.setdefault(place, 0)
            seconds += epochs * train_count * cost.frozen.seconds
        steps = -(-train_count // params.batch_size)
        optimizer_bytes = steps * BYTES_A_PARAMETER_AND_STEP * cost.trained_params
        moving_s = (optimizer_bytes + train_count * cost.boundary_bytes) / bandwidth
        seconds += epochs * (max(train_count * cost.trained.seconds, moving_s) + val_count * cost.validated.seconds)
    seconds += sum((train_count * count + val_count) * costs[place].frozen.seconds for place, count in views.items())
    return seconds / AT_ONCE


def flop_limit(runs: Sequence[tuple[TrialParams, int]], train_count: int, val_count: int, cost: Cost) -> float:
    """How many times fewer FLOPs ``runs`` of one network take if the frozen part is computed once per view."""
    epochs = sum(count for _, count in runs)
    views = max(VIEWS[params.augment] for params, _ in runs)
    every_time = epochs * (train_count + val_count) * cost.frozen.flops
    once = (train_count * views + val_count) * cost.frozen.flops
    rest = epochs * (train_count * cost.trained.flops + val_count * cost.validated.flops)
    return (every_time + rest) / (once + rest)


def measure_cost(params: TrialParams, image_size: int, seconds: float) -> Cost:
    """The cost of one image in the network of ``params``, each part's loop running for ``seconds`` in two processes."""
    counted = count_flops(params, image_size)
    rates = two_at_once(_seconds_an_image, params, image_size, seconds)
    counts = (counted.frozen, counted.trained, counted.validated)
    frozen, trained, validated = (
        Part(part.flops, statistics.fmean(both)) for part, both in zip(counts, zip(*rates, strict=True), strict=True)
    )
    if params.unfreeze_depth == 0:
        # The step time of so small a head is Python's overhead, which is no lower bound: take the trunk's rate.
        a_flop_s = frozen.seconds / frozen.flops
        trained, validated = (Part(part.flops, part.flops * a_flop_s) for part in (trained, validated))
    return replace(counted, frozen=frozen, trained=trained, validated=validated)


def count_flops(params: TrialParams, image_size: int) -> Cost:
    """``measure_cost`` without timing: the seconds are 0."""
    model, images = network_of(params, image_size), normalise(images_of(2, image_size))
    boundary = model.forward_frozen(images)
    frozen, trained, validated = (
        Part(_flops(work) / len(images), 0.0)
        for work in (
            lambda: model.forward_frozen(images),
            lambda: _backward(model, boundary),
            lambda: _forward(model, boundary),
        )
    )
    elements = boundary[0].numel() if model.frozen_stages else 0
    return Cost(frozen, trained, validated, model.trainable_params(), 4 * elements)


def measure_bandwidth(copied_bytes: int = COPIED_BYTES) -> float:
    """Bytes/s, read plus written, of a memory copy by one thread while another process copies too."""
    return statistics.fmean(two_at_once(_copy, copied_bytes))


def bare_epoch_s(params: TrialParams, train_count: int, val_count: int, image_size: int) -> list[float]:
    """Seconds of an epoch of the trial ``params`` as a bare loop, in each of two concurrent processes.

    Every layer runs in every step; the frozen ones without gradients. One thread, channels_last, float32; the decoded
    images are in memory as uint8; fused optimiser; validation after training; nothing is written.
    """
    return two_at_once(_bare_epoch, params, train_count, val_count, image_size)


def _bare_epoch(params: TrialParams, train_count: int, val_count: int, image_size: int) -> float:
    torch.set_num_threads(1)
    model, chance = network_of(params, image_size), torch.Generator().manual_seed(0)
    optimizer = make_optimizer(params, model.parameter_groups(params.lr, params.backbone_lr_factor))
    images = images_of(train_count + val_count, image_size)
    labels = torch.randint(CLASSES, (len(images),), generator=chance)

    def epoch(train: Tensor, val: Tensor) -> None:
        model.train()
        for rows in train[torch.randperm(len(train), generator=chance)].split(params.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad(set_to_none=True)
            logits = model(augmented(images[rows], params.augment, chance))
            F.cross_entropy(logits, labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for rows in val.split(BATCH):  # type: ignore[no-untyped-call]
                F.cross_entropy(model(normalise(images[rows])), labels[rows])

    everything = torch.arange(len(images))
    epoch(everything[: params.batch_size], everything[-1:])
    ready()
    began_s = time.perf_counter()
    epoch(everything[:train_count], everything[train_count:])
    return time.perf_counter() - began_s


def _seconds_an_image(params: TrialParams, image_size: int, seconds: float) -> tuple[float, float, float]:
    """Seconds per image of the frozen part, of training the rest, and of the rest's forward pass."""
    set_up_cpu(1)
    model, images = network_of(params, image_size), normalise(images_of(BATCH, image_size))
    boundary = model.forward_frozen(images)
    loops: list[tuple[bool, Callable[[], object]]] = [
        (False, lambda: model.forward_frozen(images)),
        (True, lambda: _backward(model, boundary)),
        (False, lambda: _forward(model, boundary)),
    ]
    found = []
    for in_train_mode, loop in loops:
        model.train(in_train_mode)
        loop()
        ready()
        began_s, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - began_s < seconds:
            loop()
            count += BATCH
        found.append((time.perf_counter() - began_s) / count)
    return (found[0] if model.frozen_stages else 0.0), found[1], found[2]


def _backward(model: FineTunedModel, boundary: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    labels = torch.zeros(len(boundary), dtype=torch.int64)
    F.cross_entropy(model.forward_trained(boundary), labels).backward()  # type: ignore[no-untyped-call]


@torch.no_grad()
def _forward(model: FineTunedModel, boundary: Tensor) -> Tensor:
    return model.forward_trained(boundary)


def _flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def _copy(copied_bytes: int) -> float:
    source, target = np.ones(copied_bytes, dtype=np.uint8), np.zeros(copied_bytes, dtype=np.uint8)
    np.copyto(target, source)
    ready()
    began_s = time.perf_counter()
    for _ in range(8):
        np.copyto(target, source)
    return 8 * 2 * copied_bytes / (time.perf_counter() - began_s)


def network_of(params: TrialParams, image_size: int) -> FineTunedModel:
    weights = FoundWeights(backbone=params.backbone, origin="random")
    return build_model(params, CLASSES, weights, image_size, seed=0).to(memory_format=torch.channels_last)


def images_of(count: int, image_size: int) -> Tensor:
    """uint8 [count, 1, S, S]."""
    chance = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 1, image_size, image_size), dtype=torch.uint8, generator=chance)


if __name__ == "__main__":
    main()
