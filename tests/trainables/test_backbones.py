from __future__ import annotations

import pytest
import torch
from networks import EVERY_NETWORK
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.params import BACKBONE_NAMES, DEFAULT_BACKBONES
from trainables.backbones import BACKBONES, Backbone, flattened_7x7, part_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=EVERY_NETWORK)
def built(request: pytest.FixtureRequest) -> tuple[Backbone, nn.Module]:
    """A backbone and its whole torchvision network, BatchNorm moved off its initial means and variances."""
    backbone = BACKBONES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = backbone.network(64).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        if backbone.name == "vit_b_16":
            nn.init.normal_(network.class_token)  # torchvision's are zeros, which would hide where they go
    return backbone, network


def images(size: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def run_blocks(backbone: Backbone, network: nn.Module, inputs: Tensor) -> Tensor:
    for block in backbone.blocks:
        for name in block:
            inputs = backbone.run(network, name, inputs)
    return backbone.to_vector(inputs)


def torchvision_features(backbone: Backbone, network: nn.Module, inputs: Tensor) -> Tensor:
    """What torchvision's own forward hands to its classifier; SqueezeNet's pools behind its last convolution."""
    seen: list[Tensor] = []
    classifier = network.get_submodule(backbone.dropped[0])
    handle = classifier.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    network(inputs)
    handle.remove()
    features = functional.adaptive_avg_pool2d(seen[0], 1) if "squeezenet" in backbone.name else seen[0]
    return torch.flatten(features, 1)


def test_every_name_that_a_trial_may_give_has_a_backbone() -> None:
    assert tuple(BACKBONES) == BACKBONE_NAMES
    assert len(DEFAULT_BACKBONES) == 12
    assert set(DEFAULT_BACKBONES) < set(BACKBONE_NAMES)


def parameters_of(network: nn.Module, part: str) -> list[str]:
    owner = part_of(network, part)
    if isinstance(owner, nn.Parameter):
        return [part]
    return [f"{part}.{name}" for name, _ in owner.named_parameters()]


def test_the_four_blocks_compute_torchvisions_own_features_exactly(built: tuple[Backbone, nn.Module]) -> None:
    backbone, network = built
    others = {"vgg16": [224], "vit_b_16": []}
    for size in [64, *others.get(backbone.name, [75])]:
        inputs = images(size, count=1 if size == 224 else 2)
        with torch.no_grad():
            ours = run_blocks(backbone, network, inputs)
            assert ours.shape == (len(inputs), backbone.feature_width)
            assert (ours - torchvision_features(backbone, network, inputs)).abs().max() == 0.0


def test_every_parameter_but_the_classifiers_lies_in_exactly_one_block(built: tuple[Backbone, nn.Module]) -> None:
    backbone, network = built
    whole = [name for name, _ in network.named_parameters()]
    old_head = [name for name in whole if name.startswith(tuple(f"{part}." for part in backbone.dropped))]
    in_blocks = [name for block in backbone.blocks for part in block for name in parameters_of(network, part)]
    assert sorted(in_blocks) == sorted(set(whole) - set(old_head))
    assert len(in_blocks) == len(set(in_blocks))
    assert old_head
    assert all(any(parameters_of(network, name) for name in block) for block in backbone.blocks)


def test_the_smallest_image_runs_and_a_smaller_one_does_not(built: tuple[Backbone, nn.Module]) -> None:
    backbone, network = built
    least, step = backbone.min_image_size, backbone.patch_size or 4
    with torch.no_grad():
        for size in range(least, least + 2 * step + 1, step):
            assert backbone.size_needed(size) is None
            sized = network if backbone.patch_size is None else backbone.network(size).eval()
            assert run_blocks(backbone, sized, images(size)).isfinite().all()
        if least > 1:
            assert str(least) in str(backbone.size_needed(least - 1))
            with pytest.raises(RuntimeError):
                run_blocks(backbone, network, images(least - 1))


def test_the_smallest_image_trains(built: tuple[Backbone, nn.Module]) -> None:
    backbone, network = built
    sized = network if backbone.patch_size is None else backbone.network(backbone.min_image_size)
    run_blocks(backbone, sized.train(), images(backbone.min_image_size)).sum().backward()
    sized.eval()
    first = next(sized.parameters())
    assert first.grad is not None
    sized.zero_grad()


@pytest.mark.parametrize(
    ("size", "needed"), [(64, None), (224, None), (15, "at least 16"), (70, "a multiple of 16 px, such as 64 or 80")]
)
def test_patches_must_fill_the_image(size: int, needed: str | None) -> None:
    says = BACKBONES["vit_b_16"].size_needed(size)
    assert says is None if needed is None else needed in str(says)


def test_dropping_the_classifier_leaves_the_names_of_all_else(built: tuple[Backbone, nn.Module]) -> None:
    backbone, network = built
    whole = network.state_dict().keys()
    left = backbone.drop_classifier(backbone.empty_network()).state_dict().keys()
    assert left == {name for name in whole if not name.startswith(tuple(f"{part}." for part in backbone.dropped))}


def test_vgg_takes_7_by_7_positions_as_they_are() -> None:
    features = images(7)
    assert torch.equal(flattened_7x7(features), features.flatten(1))


@pytest.mark.parametrize("size", [2, 3, 5, 10, 14])
def test_vggs_deterministic_pooling_is_adaptive_pooling(size: int) -> None:
    plain, exact = images(size).requires_grad_(), images(size).requires_grad_()
    wanted = flattened_7x7(plain)
    wanted.square().sum().backward()
    torch.use_deterministic_algorithms(True)
    try:
        got = flattened_7x7(exact)
        got.square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(exact.grad, plain.grad)
    torch.testing.assert_close(wanted, functional.adaptive_avg_pool2d(plain, 7).flatten(1))
