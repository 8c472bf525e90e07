"""The backbones: each torchvision network as four blocks, and the step from the last block to a feature vector."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from trainables.seeding import seeded

Blocks = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Backbone:
    """One network. Its torchvision module is not changed and keeps its own parameter names.

    blocks: four groups of names of submodules, or of parameters in ``JOINED``. Run in order, and followed by
    ``to_vector``, they give torchvision's own features. Every parameter outside the old classifier is in exactly one.
    to_vector: from block 4's output, float [B, channels, H, W] (ViT: [B, tokens, width]), to features, float
    [B, feature_width]; never in place.
    feature_width: length of the feature vector, at every image size.
    min_image_size: smallest image side in pixels, inclusive, that the network can run (measured). Every larger one
    works, or with patches every multiple of their size.
    dropped: submodules of torchvision's classifier that our head replaces.
    patch_size: side in pixels of the patches. Each has a position embedding, so the network is built for one image
    size; None = no patches, any image size.
    attribution: the submodule whose output ``trainables.attribution`` maps, the last one with positions, before they
    are pooled; None = the last of ``stages``. to_maps: that output, or its gradient, as float [B, channels, h, w].
    """

    name: str
    blocks: Blocks
    to_vector: Callable[[Tensor], Tensor]
    feature_width: int
    min_image_size: int
    dropped: tuple[str, ...] = ("classifier",)
    patch_size: int | None = None
    attribution: str | None = None
    to_maps: Callable[[Tensor], Tensor] = lambda output: output

    @property
    def attribution_layer(self) -> str:
        """The submodule whose output is mapped."""
        return self.attribution or self.stages[-1]

    @property
    def stages(self) -> tuple[str, ...]:
        """The submodules (and parameters) of all four blocks, in the order in which they run."""
        return tuple(name for block in self.blocks for name in block)

    def size_needed(self, image_size: int) -> str | None:
        """The images that the network needs, in words, if it cannot run images of this side in pixels; else None."""
        if image_size < self.min_image_size:
            return f"images of at least {self.min_image_size} px"
        if self.patch_size is not None and image_size % self.patch_size:
            below = image_size - image_size % self.patch_size
            return f"a multiple of {self.patch_size} px, such as {below} or {below + self.patch_size}"
        return None

    def size_arguments(self, image_size: int) -> dict[str, int]:
        """Extra arguments for torchvision to build the network for images of this side in pixels."""
        return {} if self.patch_size is None else {"image_size": image_size}

    def network(self, image_size: int = 224) -> nn.Module:
        """torchvision's whole network, old classifier included, with torchvision's random initialisation."""
        network: nn.Module = torchvision.models.get_model(self.name, weights=None, **self.size_arguments(image_size))
        return network

    def empty_network(self, image_size: int = 224) -> nn.Module:
        """``network`` without storage (on the meta device), for names and shapes, or to be filled from a checkpoint."""
        if self.name.startswith("regnet"):  # It computes its widths with tensors, which have no values on meta.
            with seeded(0):
                return self.network(image_size).to("meta")
        with torch.device("meta"):
            return self.network(image_size)

    def empty_trunk(self, image_size: int = 224) -> nn.Module:
        """``empty_network`` without the classifier."""
        return self.drop_classifier(self.empty_network(image_size))

    def run(self, network: nn.Module, stage: str, tensor: Tensor) -> Tensor:
        """Run one of the ``stages`` on the output of the stage before it; the first takes images."""
        part = part_of(network, stage)
        out: Tensor = JOINED[stage](part, tensor) if isinstance(part, nn.Parameter) else part(tensor)
        return out

    def drop_classifier(self, network: nn.Module) -> nn.Module:
        """Replace torchvision's classifier in ``network`` by identities; the four blocks are left."""
        for name in self.dropped:
            network.set_submodule(name, nn.Identity())
        return network


def part_of(network: nn.Module, name: str) -> nn.Module | nn.Parameter:
    """The submodule or parameter of this name."""
    part: nn.Module | nn.Parameter = functools.reduce(getattr, name.split("."), network)
    return part


def before_patches(token: Tensor, patches: Tensor) -> Tensor:
    """The class token [1, 1, D], then the patches [B, D, h, w] row by row: [B, 1 + h w, D]."""
    return torch.cat([token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)


JOINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "class_token": before_patches,
    "encoder.pos_embedding": torch.add,
}
"""Parameters that are stages of their own, and how each is combined with the stage's input."""


def class_token(tokens: Tensor) -> Tensor:
    """ViT: [B, tokens, D] -> [B, D], the first token."""
    return tokens[:, 0]


def patch_tokens(tokens: Tensor) -> Tensor:
    """ViT: [B, 1 + h w, D], row by row, of a square image -> [B, D, h, w], without the class token."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def pooled(features: Tensor) -> Tensor:
    """Mean over all positions: [B, C, H, W] -> [B, C]."""
    return torch.flatten(functional.adaptive_avg_pool2d(features, 1), 1)


def pooled_after_relu(features: Tensor) -> Tensor:
    """DenseNet: torchvision's own ReLU works in place, which would overwrite a tensor that others may share."""
    return pooled(functional.relu(features))


def flattened(features: Tensor) -> Tensor:
    """[B, C, 1, 1] -> [B, C]."""
    return torch.flatten(features, 1)


def flattened_7x7(features: Tensor) -> Tensor:
    """VGG: [B, 512, H, W] -> [B, 25088], averaged to 7 x 7 positions, or stretched to them from a small image.

    At 7 x 7 (224 px) there is nothing to average. Otherwise, if deterministic algorithms are on, matrix products
    compute the mean: the backward pass of torch's own pooling is not deterministic on CUDA.
    """
    if features.shape[-2:] == (7, 7):
        return torch.flatten(features, 1)
    if torch.are_deterministic_algorithms_enabled():
        rows, columns = (_averaging(size, 7, features) for size in features.shape[-2:])
        return torch.flatten(rows @ features @ columns.T, 1)
    return torch.flatten(functional.adaptive_avg_pool2d(features, 7), 1)


def _averaging(size: int, bins: int, like: Tensor) -> Tensor:
    """The matrix [bins, size] that averages as adaptive pooling does."""
    return functional.adaptive_avg_pool1d(torch.eye(size), bins).T.to(like)


def _features(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"features.{i}" for i in range(first, last + 1))


def _spans(one: tuple[int, int], two: tuple[int, int], three: tuple[int, int], four: tuple[int, int]) -> Blocks:
    return _features(*one), _features(*two), _features(*three), _features(*four)


_STEM = ("conv1", "bn1", "relu", "maxpool", "layer1")
_RESNET: Blocks = (_STEM, ("layer2",), ("layer3",), ("layer4",))
_VGG = _spans((0, 9), (10, 16), (17, 23), (24, 30))
_VGG_BN = _spans((0, 13), (14, 23), (24, 33), (34, 43))
_DENSENET: Blocks = (
    tuple(f"features.{name}" for name in ("conv0", "norm0", "relu0", "pool0", "denseblock1", "transition1")),
    ("features.denseblock2", "features.transition2"),
    ("features.denseblock3", "features.transition3"),
    ("features.denseblock4", "features.norm5"),
)
# Its last LayerNorm comes after the pooling, inside the classifier, and is pretrained: it belongs to block 4.
_CONVNEXT: Blocks = (_features(0, 1), _features(2, 3), _features(4, 5), (*_features(6, 7), "avgpool", "classifier.0"))
# Swin has its channels last until it permutes them, after its last LayerNorm.
_SWIN: Blocks = (_features(0, 1), _features(2, 3), _features(4, 5), (*_features(6, 7), "norm", "permute"))
_REGNET: Blocks = (
    ("stem", "trunk_output.block1"),
    ("trunk_output.block2",),
    ("trunk_output.block3",),
    ("trunk_output.block4",),
)
_LAYERS = tuple(f"encoder.layers.encoder_layer_{i}" for i in range(12))
_VIT: Blocks = (
    ("conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout", *_LAYERS[:3]),
    _LAYERS[3:6],
    _LAYERS[6:9],
    (*_LAYERS[9:], "encoder.ln"),
)

BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (  # name, blocks, to_vector, feature_width, min_image_size, dropped, patch_size, attribution
        Backbone("resnet18", _RESNET, pooled, 512, 1, ("fc",)),
        Backbone("resnet34", _RESNET, pooled, 512, 1, ("fc",)),
        Backbone("resnet50", _RESNET, pooled, 2048, 1, ("fc",)),
        Backbone("vgg16", _VGG, flattened_7x7, 25088, 32, attribution="features.29"),
        Backbone("vgg16_bn", _VGG_BN, flattened_7x7, 25088, 32, attribution="features.42"),
        Backbone("densenet121", _DENSENET, pooled_after_relu, 1024, 29),
        Backbone("mobilenet_v2", _spans((0, 3), (4, 6), (7, 13), (14, 18)), pooled, 1280, 1),
        Backbone("mobilenet_v3_large", _spans((0, 3), (4, 6), (7, 12), (13, 16)), pooled, 960, 1),
        Backbone("efficientnet_b0", _spans((0, 2), (3, 3), (4, 5), (6, 8)), pooled, 1280, 1),
        Backbone("squeezenet1_0", _spans((0, 4), (5, 7), (8, 9), (10, 12)), pooled, 512, 21),
        Backbone("squeezenet1_1", _spans((0, 4), (5, 7), (8, 10), (11, 12)), pooled, 512, 17),
        Backbone("convnext_tiny", _CONVNEXT, flattened, 768, 32, ("classifier.2",), attribution="features.7"),
        Backbone("resnext50_32x4d", _RESNET, pooled, 2048, 1, ("fc",)),
        Backbone("wide_resnet50_2", _RESNET, pooled, 2048, 1, ("fc",)),
        Backbone("efficientnet_v2_s", _spans((0, 2), (3, 3), (4, 5), (6, 7)), pooled, 1280, 1),
        Backbone("regnet_y_1_6gf", _REGNET, pooled, 888, 1, ("fc",)),
        Backbone("vit_b_16", _VIT, class_token, 768, 16, ("heads",), 16, f"{_LAYERS[-1]}.ln_1", patch_tokens),
        Backbone("swin_t", _SWIN, pooled, 768, 4, ("head",)),
    )
}
