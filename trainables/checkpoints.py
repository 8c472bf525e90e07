"""One file of pretrained weights: read without running its code, checked, and put into a network."""

from __future__ import annotations

import functools
import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from trainables.backbones import BACKBONES, Backbone

_OLD_DENSENET_KEY = re.compile(r"^(features\.\w+\.denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
_FOLDED_TOLERANCE = 1e-3


def load_network(path: Path, backbone: Backbone) -> nn.Module:
    """torchvision's whole network with the weights of ``path``: every tensor of it and no other, float32, on the CPU.

    ``UserError`` (one sentence) if the file is not there, does not have the SHA-256 that its name ends in, is no
    checkpoint, could run code, holds another network, or holds values that are not finite.
    """
    if not path.is_file():
        raise UserError(f"weights of {backbone.name}: {path} is not there; every node must see this path")
    stat = path.stat()
    _check_hash(path, stat.st_size, stat.st_mtime_ns)
    tensors = _read(path)
    _rename_old_densenet(tensors)
    _check_network(path, backbone, tensors)
    network = backbone.empty_network()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.float()
    # The storage of the checkpoint becomes that of the network: no random numbers drawn for nothing, no second copy.
    network.load_state_dict(tensors, assign=True)
    return network


def batchnorm_state(network: nn.Module) -> tuple[int, int]:
    """How many BatchNorm layers of ``network`` hold no statistics (all means 0, variances 1), and how many it has.

    All of them: the statistics were folded into the convolutions. In eval mode nothing is wrong; in train mode a batch
    is normalised by its own statistics, which the convolutions no longer expect, and the network falls to chance.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    empty = [
        layer
        for layer in layers
        if layer.running_mean is not None
        and layer.running_var is not None
        and bool((layer.running_mean.abs() <= _FOLDED_TOLERANCE).all())
        and bool(((layer.running_var - 1).abs() <= _FOLDED_TOLERANCE).all())
    ]
    return len(empty), len(layers)


def hash_prefix(path: Path) -> str | None:
    """The hex digits that the name of a weight file ends in (``resnet18-f37072fd.pth``), None if it has none."""
    match = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    return match.group(1) if match else None


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.lru_cache(maxsize=64)
def _check_hash(path: Path, size_bytes: int, mtime_ns: int) -> None:
    """Checked once a process and state of the file (raising is not cached): 2 s for a GB."""
    expected = hash_prefix(path)
    if expected is None:
        raise UserError(f"{path.name} must end in the first 8 digits of its SHA-256: <name>-<8 hex digits>.pth")
    actual = sha256(path)
    if not actual.startswith(expected):
        raise UserError(
            f"{path} is damaged or not what its name says: its SHA-256 begins with {actual[: len(expected)]}, not "
            f"{expected}; delete it and get it again"
        )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About pickle protocols: what is refused is told as an error below.
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"{path} was refused, since it could run code: it holds Python objects besides tensors; save the "
                f"network's state_dict() alone"
            ) from None
        raise UserError(_no_checkpoint(path)) from None
    except Exception:  # A foreign file ends in whatever error its first bytes lead to: KeyError, EOFError, ...
        raise UserError(_no_checkpoint(path)) from None
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        kind = (
            f"a dict with the keys {', '.join(map(str, list(loaded)[:4]))}" if isinstance(loaded, dict) else "no dict"
        )
        raise UserError(f"{path} holds {kind}, not a network's state_dict() (tensors by parameter name)")
    return loaded


def _no_checkpoint(path: Path) -> str:
    return f"{path} is no PyTorch checkpoint, or a truncated one"


def _rename_old_densenet(tensors: dict[str, Tensor]) -> None:
    """torchvision's own DenseNet files are older than the rule against dots in module names: norm.1 became norm1."""
    for name in list(tensors):
        match = _OLD_DENSENET_KEY.match(name)
        if match:
            tensors[match.group(1) + match.group(2)] = tensors.pop(name)


def _check_network(path: Path, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    expected, held = _shapes(backbone.empty_network().state_dict()), _shapes(tensors)
    problem = _difference(backbone.name, expected, held)
    if problem:
        twin = next((name for name, other in BACKBONES.items() if _shapes(_state_of(other)) == held), None)
        raise UserError(f"{path} holds {twin}, not {backbone.name}" if twin else f"{path} {problem}")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise UserError(f"{path} holds values that are not finite in {len(bad)} tensors, the first {bad[0]}")


def _state_of(backbone: Backbone) -> Mapping[str, Tensor]:
    return backbone.empty_network().state_dict()


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without BatchNorm's counters, which old files lack and torch fills in."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def _difference(
    backbone: str, expected: Mapping[str, tuple[int, ...]], held: Mapping[str, tuple[int, ...]]
) -> str | None:
    missing = [name for name in expected if name not in held]
    strange = [name for name in held if name not in expected]
    other = [name for name in expected if name in held and held[name] != expected[name]]
    parts = [f"{len(missing)} tensors are missing, the first {missing[0]}"] if missing else []
    parts += [f"{len(strange)} have no place in it, the first {strange[0]}"] if strange else []
    parts += [f"{name} has shape {list(held[name])} instead of {list(expected[name])}" for name in other[:2]]
    return f"does not hold torchvision's {backbone} with its 1000 classes: " + "; ".join(parts) if parts else None
