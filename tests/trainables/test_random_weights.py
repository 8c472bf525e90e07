from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from search_spaces.params import BACKBONE_NAMES
from trainables.backbones import BACKBONES
from trainables.random_weights import random_network, seeded

WITH_BATCHNORM = tuple(name for name in BACKBONE_NAMES if not name.startswith(("vgg16", "squeezenet", "convnext")))


pytestmark = pytest.mark.usefixtures("one_thread")


def frozen_features(backbone: str, network: nn.Module) -> Tensor:
    features = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        for stage in BACKBONES[backbone].stages:
            features = network.get_submodule(stage).eval()(features)
        return BACKBONES[backbone].to_vector(features)


@pytest.mark.parametrize("backbone", WITH_BATCHNORM)
def test_a_frozen_random_network_hands_a_signal_to_its_head(backbone: str) -> None:
    features = frozen_features(backbone, random_network(BACKBONES[backbone], 0))
    assert 0.01 < features.abs().mean() < 10


def test_without_the_scales_the_signal_would_be_gone() -> None:
    assert frozen_features("efficientnet_b0", BACKBONES["efficientnet_b0"].network()).abs().mean() < 1e-9


def test_random_networks_follow_from_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first = random_network(BACKBONES["mobilenet_v2"], 3).state_dict()
    torch.set_num_threads(2)
    again = random_network(BACKBONES["mobilenet_v2"], 3).state_dict()
    other = random_network(BACKBONES["mobilenet_v2"], 4).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.0.weight"], other["features.0.0.weight"])


def test_parameters_are_those_of_torchvisions_own_initialisation() -> None:
    with seeded(3):
        plain = dict(BACKBONES["resnet18"].network().named_parameters())
    network = random_network(BACKBONES["resnet18"], 3)
    assert all(torch.equal(parameter, plain[name]) for name, parameter in network.named_parameters())
    assert all(module.training for module in network.modules())
