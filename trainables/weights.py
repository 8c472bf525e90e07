"""Where the weights of each backbone come from: torchvision's, a folder of files, or chance."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import math
import pickle
import re
import socket
import sys
import urllib.error
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.errors import UserError, raise_all, unknown
from trainables.backbones import BACKBONES, Backbone
from trainables.seeding import seeded

CONNECT_TIMEOUT_S = 30.0
_OLD_DENSENET_KEY = re.compile(r"^(features\.\w+\.denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
_FOLDED_TOLERANCE = 1e-3
_NOISE_IMAGES, _NOISE_SIZE, _NOISE_GRAIN = 4, 64, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """The weights of one backbone.

    origin: "imagenet", "folder" or "random". path: the file, None if random; url: where it can be fetched, None unless
    imagenet. sha256: all 64 hex digits. folded_batchnorm: no BatchNorm layer holds statistics (``batchnorm_state``);
    note: what the report should say of them, or "". The three are found by ``check_weights``.
    """

    backbone: str
    origin: str
    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    folded_batchnorm: bool = False
    note: str = ""


def find_weights(
    source: str, backbones: Sequence[str], *, download: bool = False
) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    """The weights at hand for ``backbones``, and for each other one a sentence that names the file and ways to get it.

    source: "imagenet" (torchvision's first ImageNet weights, in torch's cache folder), "random", or a folder, which
    holds torchvision's file name or ``<backbone>-<first 8 hex digits of its SHA-256>.pth``.
    download: fetch what the cache lacks; without it nothing is fetched.
    Only names are looked at here; ``check_weights`` opens the files. ``UserError``: no such folder, unknown backbone.
    """
    problems = [unknown("backbone", name, BACKBONES) for name in backbones if name not in BACKBONES]
    folder = Path(source).expanduser()
    if source not in ("imagenet", "random") and not folder.is_dir():
        near = difflib.get_close_matches(source, ("imagenet", "random"), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        problems.append(f"--weights {source!r} is no folder: {hint}give imagenet, random or a folder of weight files")
    raise_all(problems)
    if source == "random":
        return {name: FoundWeights(backbone=name, origin="random") for name in backbones}, {}
    if source == "imagenet":
        return _find_imagenet(backbones, download)
    return _find_in_folder(folder, backbones)


def check_weights(found: FoundWeights) -> FoundWeights:
    """Open the file, check its hash, load it strictly; return ``found`` with its ``sha256`` and BatchNorm's state.

    Random weights are returned as they are. ``UserError``: see ``load_network``.
    """
    if found.origin == "random":
        return found
    path = local_path(found)
    empty, layers = batchnorm_state(load_network(path, BACKBONES[found.backbone]))
    note, folded = "", 0 < empty == layers
    if folded:
        note = (
            "BatchNorm is folded (all running means 0, variances 1): the network falls to chance as soon as a "
            "BatchNorm layer trains"
        )
    elif empty:
        note = f"{empty} of {layers} BatchNorm layers hold no statistics (means 0, variances 1): random or folded there"
    return dataclasses.replace(found, sha256=sha256(path), folded_batchnorm=folded, note=note)


def load_pretrained(found: FoundWeights, seed: int) -> nn.Module:
    """torchvision's whole network with these weights, float32, on the CPU.

    seed: of random weights; the same seed gives the same weights, and no global random state is touched.
    """
    backbone = BACKBONES[found.backbone]
    return random_network(backbone, seed) if found.origin == "random" else load_network(local_path(found), backbone)


def local_path(found: FoundWeights) -> Path:
    """The file on this machine: on a cluster each node has a cache of its own, and fetches what is not in it.

    ``UserError`` if it can be neither found nor fetched.
    """
    assert found.path is not None, "random weights have no file"
    if found.origin == "folder":
        return Path(found.path)
    assert found.url is not None
    path = cache_folder() / Path(found.path).name
    if not path.is_file():
        try:
            fetch(found.url, path)
        except OSError as error:
            raise UserError(_missing(found.backbone, found.url, path, error)) from None
    return path


def cache_folder() -> Path:
    """Where torch keeps downloaded weights on this machine (``TORCH_HOME`` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(url: str, path: Path) -> None:
    """Download ``url`` to ``path``: under a name of its own, its hash checked, then moved into place.

    ``OSError`` if it cannot be had or is not what the hash in the name of ``path`` says.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)  # torch sets none: behind a silent firewall it would wait for minutes.
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix(path), progress=sys.stderr.isatty())
    except RuntimeError as error:
        raise OSError(str(error)) from error
    finally:
        socket.setdefaulttimeout(before)


def weights_url(backbone: str) -> str:
    """The address of torchvision's first ImageNet weights (IMAGENET1K_V1) of a backbone."""
    return str(torchvision.models.get_model_weights(backbone).IMAGENET1K_V1.url)


def _find_imagenet(backbones: Sequence[str], download: bool) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    found: dict[str, FoundWeights] = {}
    missing: dict[str, str] = {}
    offline: OSError | None = None
    for name in backbones:
        url = weights_url(name)
        path = cache_folder() / url.rsplit("/", 1)[-1]
        error = offline
        if download and not (offline or path.is_file()):
            try:
                fetch(url, path)
            except OSError as raised:
                error = raised
                if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
                    offline = error  # No network: the others need not wait for their own time-out.
        if path.is_file():
            found[name] = FoundWeights(backbone=name, origin="imagenet", path=str(path), url=url)
        else:
            missing[name] = _missing(name, url, path, error)
    return found, missing


def _missing(backbone: str, url: str, path: Path, error: OSError | None) -> str:
    why = f"could not be downloaded ({getattr(error, 'reason', error)})" if error else f"is not in {path.parent}"
    ask = "" if error else f"name it in --backbones {backbone} to have it downloaded, "
    return (
        f"weights of {backbone}: {path.name} {why}: {ask}put {url} into {path.parent} by hand, "
        f"or give --weights FOLDER or --weights random"
    )


def _find_in_folder(folder: Path, backbones: Sequence[str]) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    found: dict[str, FoundWeights] = {}
    missing: dict[str, str] = {}
    files = sorted(path for path in folder.iterdir() if path.suffix == ".pth")
    for name in backbones:
        url = weights_url(name)
        wanted = url.rsplit("/", 1)[-1]
        mine = [path for path in files if path.name == wanted or path.stem == f"{name}-{hash_prefix(path)}"]
        if len(mine) == 1:
            found[name] = FoundWeights(backbone=name, origin="folder", path=str(mine[0].absolute()))
        elif mine:
            missing[name] = f"weights of {name}: {folder} holds {' and '.join(path.name for path in mine)}: keep one"
        else:
            missing[name] = (
                f"weights of {name}: {folder} holds neither {wanted} nor {name}-<first 8 digits of its SHA-256>.pth: "
                f"put one there ({url}), or give --weights imagenet or --weights random"
            )
    return found, missing


def load_network(path: Path, backbone: Backbone) -> nn.Module:
    """torchvision's whole network with the weights of ``path``: every tensor of it and no other, float32, on the CPU.

    ``UserError`` (one sentence) if the file is not there, does not have the SHA-256 that its name ends in, is no
    checkpoint, could run code, holds another network, or holds values that are not finite.
    """
    if not path.is_file():
        raise UserError(f"weights of {backbone.name}: {path} is not there; every node must see this path")
    stat = path.stat()
    _check_hash(path, stat.st_size, stat.st_mtime_ns)
    held = read_checkpoint(path)
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        keys = f"a dict with the keys {', '.join(map(str, list(held)[:4]))}" if isinstance(held, dict) else "no dict"
        raise UserError(f"{path} holds {keys}, not a network's state_dict() (tensors by parameter name)")
    # torchvision's own DenseNet files are older than the rule against dots in module names: norm.1 became norm1.
    tensors = {_OLD_DENSENET_KEY.sub(r"\1\2", name): tensor for name, tensor in held.items()}
    _check_network(path, backbone, tensors)
    network = backbone.empty_network()
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    # The storage of the checkpoint becomes that of the network: no random numbers drawn for nothing, no second copy.
    network.load_state_dict(tensors, assign=True)
    return network


def batchnorm_state(network: nn.Module) -> tuple[int, int]:
    """How many BatchNorm layers of ``network`` hold no statistics (all means 0, variances 1), and how many it has.

    All of them: the statistics were folded into the convolutions. In eval mode nothing is wrong; in train mode a batch
    is normalised by its own statistics, which the convolutions no longer expect, and the network falls to chance.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = [(layer.running_mean, layer.running_var) for layer in layers]
    empty = [
        bool((mean.abs() <= _FOLDED_TOLERANCE).all() and ((variance - 1).abs() <= _FOLDED_TOLERANCE).all())
        for mean, variance in statistics
        if mean is not None and variance is not None
    ]
    return sum(empty), len(layers)


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


def read_checkpoint(path: Path) -> Any:
    """What a file of ``torch.save`` holds, on the CPU; ``UserError`` (one sentence) if it cannot be read safely."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About pickle protocols: what is refused is told as an error below.
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except Exception as error:  # A foreign file ends in whatever error its first bytes lead to: KeyError, EOFError, ...
        why = "it is no PyTorch checkpoint, or a truncated one"
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            why = (
                "it was refused, since it could run code: it holds Python objects besides tensors; save the network's "
                "state_dict() alone"
            )
        raise UserError(f"{path} cannot be read as a model: {why}") from None


def _check_network(path: Path, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
    def misfits(name: str) -> list[str]:
        wanted = BACKBONES[name].empty_network().state_dict()
        # Old files lack BatchNorm's counters, and torch fills them in.
        counters = {one: tensor for one, tensor in wanted.items() if one.endswith("num_batches_tracked")}
        return differences(wanted, {**counters, **tensors})

    if parts := misfits(backbone.name):
        if twin := next((name for name in BACKBONES if not misfits(name)), None):
            raise UserError(f"{path} holds {twin}, not {backbone.name}")
        whole = f"does not hold torchvision's {backbone.name} with its 1000 classes"
        raise UserError(f"{path} {whole}: {'; '.join(parts)}")
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise UserError(f"{path} holds values that are not finite in {len(bad)} tensors, the first {bad[0]}")


def differences(expected: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> list[str]:
    """How the names and shapes of ``held`` differ from those of ``expected``, in parts of a sentence."""
    missing, strange = ([n for n in some if n not in others] for some, others in ((expected, held), (held, expected)))
    parts = [f"{len(missing)} tensors are missing, the first {missing[0]}"] if missing else []
    parts += [f"{len(strange)} have no place in it, the first {strange[0]}"] if strange else []
    both = [(name, held[name].shape, tensor.shape) for name, tensor in expected.items() if name in held]
    other = [f"{name} has shape {list(has)} instead of {list(wants)}" for name, has, wants in both if has != wants]
    return parts + other[:2]


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
