"""The time of a step on a CPU: with torch's defaults, with freed memory kept as in our trials, and in bf16.

    python -m benchmarks.cpu_steps [--backbones NAMES] [--batch 16] [--seconds 4]

One thread in each of two concurrent processes, 224 px, channels_last, random weights; milliseconds per image, median
over the steps of ``--seconds``, mean of the two processes. Forward is the computation of frozen layers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.limits import images_of, network_of
from benchmarks.own_process import ready, two_at_once
from search_spaces.params import TrialParams
from trainables.batches import normalise
from trainables.engine import set_up_cpu

BACKBONES = "resnet18,resnet50,vgg16,squeezenet1_0,squeezenet1_1,mobilenet_v2,densenet121,efficientnet_b0,convnext_tiny"
WAYS = ("as torch has it", "memory kept", "memory kept, bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default=BACKBONES)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args()
    print("| network | " + " | ".join(f"{what}, {way}" for what in ("forward", "step") for way in WAYS) + " |")
    print("|---" * (1 + 2 * len(WAYS)) + "|")
    for backbone in asked.backbones.split(","):
        of_ways = [two_at_once(ms_an_image, backbone, way, asked.batch, asked.seconds) for way in WAYS]
        forward, step = zip(*(map(statistics.fmean, zip(*both, strict=True)) for both in of_ways), strict=True)
        print(f"| {backbone} | " + " | ".join(f"{ms:.1f}" for ms in (*forward, *step)) + " |", flush=True)


def ms_an_image(backbone: str, way: str, batch: int, seconds: float) -> tuple[float, float]:
    """Milliseconds per image of a forward pass of everything but the head, and of a step that trains everything."""
    if way == WAYS[0]:
        torch.set_num_threads(1)
    else:
        set_up_cpu(1)
    in_precision = torch.autocast("cpu", torch.bfloat16, enabled=way == WAYS[2])
    images, labels = normalise(images_of(batch, 224)), torch.zeros(batch, dtype=torch.int64)
    frozen, trained = (network_of(TrialParams(backbone=backbone, unfreeze_depth=depth), 224) for depth in (0, 4))

    def forward() -> None:
        with in_precision:
            frozen.forward_frozen(images)

    def step() -> None:
        trained.zero_grad(set_to_none=True)
        with in_precision:
            logits = trained(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]

    return _median_s(forward, seconds) * 1000 / batch, _median_s(step, seconds) * 1000 / batch


def _median_s(work: Callable[[], None], seconds: float) -> float:
    work()
    ready()
    times, ends_s = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < ends_s:
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)


if __name__ == "__main__":
    main()
