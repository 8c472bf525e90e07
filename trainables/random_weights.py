"""Random weights that follow from a seed and can be frozen."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.backbones import Backbone

_NOISE_IMAGES, _NOISE_SIZE, _NOISE_GRAIN = 4, 64, 8


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within ``with seeded(seed):`` torch's CPU random numbers follow from ``seed``, and then go on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well.
        yield


def random_network(backbone: Backbone, seed: int) -> nn.Module:
    """torchvision's whole network as torchvision initialises it, but for the scale of its BatchNorm layers.

    A fresh BatchNorm divides by 1 until it has trained. Frozen, it never trains, and the signal fades from layer to
    layer: a frozen random MobileNetV2 hands features of 1e-9 to its head, EfficientNet-B0 of 1e-14, and no head learns
    from them. So each layer gets the mean square of what reaches it as its variance, from a few smooth noise images.
    """
    with seeded(seed):
        network = backbone.network()
        grain = torch.randn(_NOISE_IMAGES, 3, _NOISE_GRAIN, _NOISE_GRAIN)
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return network
    handles = [layer.register_forward_pre_hook(_set_scale) for layer in layers]
    network.eval()
    with torch.no_grad():
        features = functional.interpolate(grain, size=_NOISE_SIZE, mode="bilinear")
        for stage in backbone.stages:
            features = network.get_submodule(stage)(features)
    for handle in handles:
        handle.remove()
    return network.train()


def _set_scale(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """One power of two for the whole layer: processors and thread counts that add in another order agree."""
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.running_var is not None
    layer.running_var.fill_(2.0 ** round(math.log2(inputs[0].square().mean().item())))
