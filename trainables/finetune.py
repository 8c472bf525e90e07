"""A pretrained network with a new head: a part of it trains, and the rest is not changed at all."""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from search_spaces.errors import raise_all
from search_spaces.params import TrialParams
from trainables.backbones import BACKBONES, Backbone, part_of
from trainables.checkpoints import differences
from trainables.seeding import seeded
from trainables.weights import FoundWeights, load_pretrained


def build_model(
    params: TrialParams, class_count: int, weights: FoundWeights, image_size: int, seed: int, trunk_seed: int = 0
) -> FineTunedModel:
    """The network of one trial, on the CPU, float32, in train mode.

    weights: of ``params.backbone``. image_size: side of the images in pixels. seed: of the head's initial weights;
    trunk_seed: of the backbone's, if they are random; both 0 or more. The same seeds give the same model; the global
    random state is not changed. ``UserError``: ``model_problems``, or weights that do not load.
    """
    assert weights.backbone == params.backbone, f"weights of {weights.backbone} for {params.backbone}"
    raise_all(model_problems(params, image_size))
    backbone = BACKBONES[params.backbone]
    trunk = load_pretrained(weights, trunk_seed, image_size)
    for module in trunk.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = _DepthwiseConv2d
    with seeded(seed):
        head = make_head(backbone.feature_width, params.head_widths, params.dropout, class_count)
    layers = params.unfreeze_layers or unfrozen_modules(backbone, params.unfreeze_depth)
    return FineTunedModel(backbone, trunk, head, layers, keeps_all=weights.origin == "random")


class _DepthwiseConv2d(nn.Conv2d):
    """Computes in float32 when it trains on a CPU under autocast: oneDNN takes two to three times as long for its
    gradients in bf16."""

    def forward(self, inputs: Tensor) -> Tensor:
        kind = inputs.device.type
        if kind != "cpu" or not (torch.is_grad_enabled() and torch.is_autocast_enabled(kind)):
            return super().forward(inputs)
        with torch.autocast(kind, enabled=False):
            return super().forward(inputs.float()).to(inputs.dtype)


def model_problems(params: TrialParams, image_size: int) -> list[str]:
    """Why ``build_model`` cannot build ``params`` for images of this side in pixels, one sentence per problem."""
    backbone = BACKBONES[params.backbone]
    problems = []
    if needed := backbone.size_needed(image_size):
        problems.append(f"{backbone.name} needs {needed}, image_size is {image_size}")
    if not params.unfreeze_layers:
        return problems
    trunk = _shared_empty_trunk(backbone.name)
    modules = {name: next(module.parameters(), None) is not None for name, module in trunk.named_modules() if name}
    modules |= {name: True for name, _ in trunk.named_parameters() if name in backbone.stages}
    for layer in params.unfreeze_layers:
        if _lies_in(layer, backbone.dropped):
            problems.append(f"unfreeze_layers: {layer!r} is part of the old classifier, which the new head replaces")
        elif layer not in modules:
            near = difflib.get_close_matches(layer, sorted(name for name in modules if modules[name]), n=3, cutoff=0.5)
            parts = f"its parts are {', '.join(backbone.stages)}"
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else parts
            problems.append(f"unfreeze_layers: {backbone.name} has no module {layer!r}: {hint}")
        elif not modules[layer]:
            nothing = "has no parameters, so there is nothing to train"
            problems.append(f"unfreeze_layers: {layer!r} of {backbone.name} {nothing}")
    return problems


def unfrozen_modules(backbone: Backbone, depth: int | None) -> tuple[str, ...]:
    """The submodules and parameters that train at ``unfreeze_depth`` 0 to 4: those of the last ``depth`` blocks."""
    assert depth in (0, 1, 2, 3, 4), f"unfreeze_depth {depth}"
    return tuple(itertools.chain.from_iterable(backbone.blocks[4 - depth :]))


@functools.lru_cache(maxsize=64)
def _shared_empty_trunk(backbone: str) -> nn.Module:
    """For its names only, which are the same at every image size."""
    return BACKBONES[backbone].empty_trunk()


@functools.lru_cache(maxsize=256)
def frozen_stages(backbone: str, unfreeze_depth: int | None, unfreeze_layers: tuple[str, ...]) -> int:
    """``FineTunedModel.frozen_stages`` of the network that ``build_model`` builds, without building it."""
    network, trunk = BACKBONES[backbone], _shared_empty_trunk(backbone)
    layers = unfreeze_layers or unfrozen_modules(network, unfreeze_depth)
    return FineTunedModel(network, trunk, nn.Sequential(), layers, keeps_all=False).frozen_stages


def make_head(feature_width: int, widths: Iterable[int], dropout: float, class_count: int) -> nn.Sequential:
    """float [B, feature_width] -> logits float [B, class_count]: hidden layers (linear, ReLU, dropout), then linear.

    Without hidden layers, dropout comes before the linear layer.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(feature_width, width), nn.ReLU(), nn.Dropout(dropout)]
        feature_width = width
    layers = layers or [nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(feature_width, class_count))


class FineTunedModel(nn.Module):
    """images float32 [B, 3, S, S], normalised -> logits float32 [B, C].

    Made by ``build_model``. Tensors have torchvision's own names (``layer4.0.conv1.weight``), or ``head.<i>.<name>``.
    frozen_stages: how many of ``backbone.stages``, from the image on, have no part that trains; all of them, and the
    pooling after them, if only the head trains.
    """

    def __init__(
        self, backbone: Backbone, trunk: nn.Module, head: nn.Sequential, layers: Iterable[str], *, keeps_all: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.trunk = trunk
        self.head = head
        self._keeps_all = keeps_all
        layers = tuple(layers)
        trunk.requires_grad_(False)
        for layer in layers:
            part_of(trunk, layer).requires_grad_(True)
        asked = {name for name, _ in trunk.named_parameters() if _lies_in(name, layers)}
        head_names = {f"head.{name}" for name, _ in head.named_parameters()}
        assert set(self.trainable_names()) == asked | head_names, "what trains is not what was asked for"
        trains = [any(_lies_in(name, (stage,)) for name in asked) for stage in backbone.stages]
        self.frozen_stages = trains.index(True) if any(trains) else len(trains)
        self.train()

    def forward(self, inputs: Tensor, stages: int = 0) -> Tensor:
        """stages: how many of ``backbone.stages``, at most ``frozen_stages``, ``inputs`` have already passed."""
        return self.forward_trained(self.forward_frozen(inputs, stages, self.frozen_stages))

    def forward_frozen(self, inputs: Tensor, first: int = 0, stop: int | None = None) -> Tensor:
        """Run stages ``first`` to ``stop`` (exclusive; at most, and by default, ``frozen_stages``), without gradients.

        The result depends on the image alone. Returns float [B, channels, H, W] (ViT: [B, tokens, width]), or after the
        last stage the features [B, feature_width].
        """
        stop = self.frozen_stages if stop is None else stop
        assert first <= stop <= self.frozen_stages, f"stages {first} to {stop} of {self.frozen_stages}"
        with torch.no_grad():
            return self._run(inputs, first, stop) if first < stop else inputs

    def forward_trained(self, boundary: Tensor) -> Tensor:
        """Run the rest, from the result of ``forward_frozen`` to the logits; ``boundary`` is not changed."""
        if self.frozen_stages < len(self.backbone.stages):
            boundary = self._run(boundary, self.frozen_stages, len(self.backbone.stages))
        logits: Tensor = self.head(boundary)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Train mode only for what trains: a plain ``train()`` would change the statistics of frozen BatchNorm layers.

        A BatchNorm layer is in train mode only if its own parameters train; dropout and stochastic depth, only from the
        first module on that trains, since the layers before it must give the same features every time.
        """
        super().train(mode)
        if not mode:
            return self
        reached = False
        for stage in self.backbone.stages:
            part = part_of(self.trunk, stage)
            if isinstance(part, nn.Parameter):
                reached = reached or part.requires_grad
                continue
            for module in part.modules():
                trains = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
                reached = reached or trains
                module.training = trains if isinstance(module, _BatchNorm) else reached
        return self

    def trainable_names(self) -> list[str]:
        """The names of the parameters that train."""
        return [name for name, tensor, _ in self._tensors() if tensor.requires_grad]

    def trainable_params(self) -> int:
        """The number of parameters that train."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def total_params(self) -> int:
        """The number of parameters of the network, with the head, without torchvision's old classifier."""
        return sum(parameter.numel() for parameter in self.parameters())

    def parameter_groups(self, lr: float, backbone_lr_factor: float) -> list[dict[str, Any]]:
        """For an optimiser: the head at ``lr``, and the backbone's part that trains, if any, at ``lr`` x factor."""
        unfrozen = [parameter for parameter in self.trunk.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": list(self.head.parameters()), "lr": lr}]
        return [*groups, {"params": unfrozen, "lr": lr * backbone_lr_factor}] if unfrozen else groups

    def trained_state(self, *, random_too: bool = True) -> dict[str, Tensor]:
        """A copy, on the CPU, of all that training changes: trained parameters and the buffers of trained BatchNorm.

        random_too: if the starting weights were random, which no file holds, copy every tensor.
        """
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._kept(random_too)}

    def load_trained_state(self, state: Mapping[str, Tensor], *, random_too: bool = True) -> None:
        """Load what ``trained_state`` of a model of the same params returned; ``UserError`` if it does not fit."""
        mine = dict(self._kept(random_too))
        raise_all([f"saved weights do not fit what trains here: {part}" for part in differences(mine, state)])
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state[name])

    def frozen_sha256(self, stages: int | None = None) -> str:
        """SHA-256, in hexadecimal, over names, types, shapes and bytes of all tensors that training does not change.

        stages: only of tensors in the first ``stages`` of ``backbone.stages``.
        """
        parts = self.backbone.stages[:stages]
        digest = hashlib.sha256()
        for name, tensor, trains in self._tensors():
            if not trains and (stages is None or _lies_in(name, parts)):
                array = tensor.detach().cpu().numpy()
                digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    def _kept(self, random_too: bool) -> Iterator[tuple[str, Tensor]]:
        everything = random_too and self._keeps_all
        return ((name, tensor) for name, tensor, trains in self._tensors() if trains or everything)

    def _tensors(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Every parameter and buffer: its name, itself, and whether the module that owns it trains."""
        return ((name, getattr(module, key), trains) for name, module, key, trains in self._places)

    @functools.cached_property
    def _places(self) -> list[tuple[str, nn.Module, str, bool]]:
        """Where the tensors of ``_tensors`` are; cached, as walking through the modules takes milliseconds."""
        found = []
        for prefix, part in (("", self.trunk), ("head.", self.head)):
            for owner, module in part.named_modules():
                own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
                trains = any(tensor.requires_grad for _, tensor in own)
                found += [(prefix + (f"{owner}.{key}" if owner else key), module, key, trains) for key, _ in own]
        return found

    def _run(self, tensor: Tensor, first: int, stop: int) -> Tensor:
        for stage in self.backbone.stages[first:stop]:
            tensor = self.backbone.run(self.trunk, stage, tensor)
        return self.backbone.to_vector(tensor) if stop == len(self.backbone.stages) else tensor


def _lies_in(name: str, parts: Iterable[str]) -> bool:
    """Whether the parameter or module is one of ``parts``, or inside one."""
    return any(f"{name}.".startswith(f"{part}.") for part in parts)
