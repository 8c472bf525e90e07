"""The source of each backbone's weights: torchvision, a folder, a file, or random numbers."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import pickle
import re
import socket
import stat
import sys
import urllib.error
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.errors import UserError, gathered, raise_all, some, unknown
from search_spaces.paths import expanded
from trainables.atomic import sha256_of
from trainables.backbones import BACKBONES, Backbone
from trainables.batches import IMAGENET, InputScale, normalise
from trainables.checkpoints import Loaded, load_trunk
from trainables.seeding import seeded

CONNECT_TIMEOUT_S = 30.0
SUFFIXES = (".pth", ".pt", ".safetensors")
FAR_OFF = 5.0
"""Running standard deviations off the running mean: right inputs are about 1 off, 0..255 for ImageNet's scale 90."""
TOO_FLAT = 0.1
"""Part of the running standard deviation: right inputs have .7 to 1.2 of it, ImageNet's scale for 0..255 a sixtieth."""
NETWORKS_KEPT = 4
"""Networks in a process's cache: those that were loaded or drawn last."""
_SOURCES = re.compile(r",(?=\s*(?:\w+=|(?:imagenet|random)\s*(?:,|$)))")
_FOLDED_TOLERANCE = 1e-3
_NOISE_IMAGES, _NOISE_SIZE, _NOISE_GRAIN = 4, 64, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """The weights of one backbone.

    origin: "imagenet", "folder", "file" (given for this backbone) or "random". path: the file, None if random; url:
    where it can be downloaded, None unless imagenet. range: the inputs that pixels of 0 and 255 become, None =
    ImageNet's scale. sha256: all 64 hex digits. folded_batchnorm: no BatchNorm layer has statistics
    (``batchnorm_state``); note: what the report should say of the weights, or "". ``check_weights`` finds these three.
    """

    backbone: str
    origin: str
    path: str | None = None
    url: str | None = None
    range: tuple[float, float] | None = None
    sha256: str | None = None
    folded_batchnorm: bool = False
    note: str = ""

    @property
    def scale(self) -> InputScale:
        """How pixels become the network's inputs."""
        return IMAGENET if self.range is None else InputScale.of_range(*self.range)

    @property
    def torchvisions(self) -> bool:
        """Whether the file has the name, and so the hash, of torchvision's own."""
        return self.origin in ("imagenet", "folder") and Path(str(self.path)).name == _file_name(self.backbone)


@dataclasses.dataclass(frozen=True)
class WeightSources:
    """The parsed ``--weights``. base: "imagenet", "random" or a folder, None if there are only files.

    files: by backbone, a file and its ``range=LOW:HIGH``, if it has one.
    """

    base: str | None
    files: dict[str, tuple[str, tuple[float, float] | None]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``imagenet``, ``FOLDER``, ``random`` and ``NAME=FILE[,range=LOW:HIGH]``, separated by commas.

        ``UserError`` with a sentence for each part that is none of these, for a second source of all backbones, and for
        a second file of one backbone.
        """
        bases: list[str] = []
        files: dict[str, tuple[str, tuple[float, float] | None]] = {}
        problems: list[str] = []
        name = ""
        for part in _SOURCES.split(text):
            key, equals, value = part.strip().partition("=")
            if not (equals and key.isidentifier()):
                bases.append(_expanded("", part.strip(), problems))
                continue
            if key == "range":
                read = _range(value)
                if not name or files[name][1] is not None or read is None:
                    problems.append(f"--weights {part}: write NAME=FILE,range=LOW:HIGH, the values of pixels 0 and 255")
                else:
                    files[name] = (files[name][0], read)
                continue
            if key not in BACKBONES:
                problems.append(f"--weights {part}: {unknown('backbone', key, BACKBONES)}")
            elif not value.strip():
                problems.append(f"--weights {part}: write NAME=FILE")
            elif key in files:
                problems.append(f"--weights: {key} is given two files, {files[key][0]} and {value}: give one")
            name = key
            files.setdefault(name, (_expanded(f"{key}=", value.strip(), problems), None))
        if len(bases) > 1:
            problems.append(f"--weights {' and '.join(bases)}: give one of imagenet, random or a folder, and NAME=FILE")
        raise_all(problems)
        return cls(bases[0] if bases else None, files)

    @property
    def paths(self) -> dict[str, Path]:
        """The paths that must exist on every node, by the user's text."""
        base = {} if self.base in (None, "imagenet", "random") else {str(self.base): Path(str(self.base))}
        return base | {f"{name}={path}": Path(path) for name, (path, _) in self.files.items()}

    def absolute(self) -> str:
        """The same as text, with absolute paths."""
        base = self.base if self.base in (None, "imagenet", "random") else str(Path(str(self.base)).absolute())
        files = [
            f"{name}={Path(path).absolute()}" + ("" if ends is None else f",range={ends[0]}:{ends[1]}")
            for name, (path, ends) in self.files.items()
        ]
        return ",".join([*([] if base is None else [base]), *files])


def find_weights(
    source: str, backbones: Sequence[str], *, download: bool = False
) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    """The weights found for ``backbones``, and for each other one a sentence that names the file and ways to get it.

    source: "imagenet" (torchvision's first ImageNet weights, in torch's cache folder), "random", or a folder of files
    with torchvision's name or ``<backbone>-<first 8 hex digits of its SHA-256>.pth``; and files, as ``WeightSources``
    parses them: each replaces the source of its backbone; without another source, only their backbones have weights.
    download: download what the cache lacks; otherwise nothing is downloaded.
    Only names are checked here; ``check_weights`` opens the files. ``UserError``: no such folder, unknown backbone.
    """
    problems = [unknown("backbone", name, BACKBONES) for name in backbones if name not in BACKBONES]
    sources = WeightSources("", {})
    with gathered(problems):
        sources = WeightSources.parse(source)
    base = sources.base
    folder = Path(base or "")
    if base and base not in ("imagenet", "random") and not os.path.isdir(folder):
        near = difflib.get_close_matches(base, ("imagenet", "random"), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        problems.append(
            f"--weights {base!r} is not a folder: {hint}give imagenet, random, a folder of weight files, or NAME=FILE "
            "for the network NAME"
        )
    raise_all(problems)
    found = {
        name: FoundWeights(backbone=name, origin="file", path=str(Path(path).absolute()), range=ends)
        for name, (path, ends) in sources.files.items()
        if name in backbones
    }
    others = [name for name in backbones if name not in found]
    if base is None:
        only = f"--weights gives files only for {', '.join(sources.files)}: add imagenet, random or a folder"
        return found, {name: f"weights of {name}: {only}" for name in others}
    if base == "random":
        return {name: FoundWeights(backbone=name, origin="random") for name in others} | found, {}
    more, missing = _find_imagenet(others, download) if base == "imagenet" else _find_in_folder(folder, others)
    return {name: (more | found)[name] for name in backbones if name in more or name in found}, missing


def check_weights(found: FoundWeights, image_size: int = 224) -> FoundWeights:
    """Open the file, check its hash, load it; return ``found`` with its ``sha256``, BatchNorm's state and a note.

    image_size: side of the images in pixels. Random weights are returned as they are. ``UserError``: as
    ``load_pretrained``.
    """
    if found.origin == "random":
        return found
    loaded = _load(found, image_size)
    notes = [*_read_as(found, loaded)]
    empty, layers = batchnorm_state(loaded.trunk)
    folded = 0 < empty == layers
    if folded:
        notes.append(
            "BatchNorm is folded (all running means 0, variances 1): the network drops to chance level once a "
            "BatchNorm layer trains"
        )
    elif empty:
        notes.append(
            f"{empty} of {layers} BatchNorm layers have no statistics (means 0, variances 1): random or folded"
        )
    path = local_path(found)
    digest = _sha256(path, _state_of(found, path))
    return dataclasses.replace(found, sha256=digest, folded_batchnorm=folded, note="; ".join(notes))


def _expanded(before: str, given: str, problems: list[str]) -> str:
    """``given`` with ``~`` expanded; if that fails, the reason is added to ``problems``."""
    try:
        return expanded(given)
    except ValueError as error:
        problems.append(f"--weights {before}{error}")
        return given


def _range(text: str) -> tuple[float, float] | None:
    """LOW:HIGH, two finite numbers, LOW below HIGH; else None."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        return None
    return (low, high) if low < high and math.isfinite(high - low) else None


def _read_as(found: FoundWeights, loaded: Loaded) -> Iterator[str]:
    """Notes on what was done to a file, and which of its tensors were ignored."""
    yield from loaded.done
    if found.range is not None:
        yield "pixels of 0 to 255 become {:g} to {:g}".format(*found.range)
    if found.origin == "file" and not any(isinstance(module, nn.BatchNorm2d) for module in loaded.trunk.modules()):
        yield "it has no BatchNorm, so its expected input range cannot be checked"
    if loaded.ignored and (found.origin == "file" or not loaded.own_classifier):
        yield f"not part of the trunk, ignored: {some(loaded.ignored)}"


def load_pretrained(found: FoundWeights, seed: int, image_size: int = 224) -> nn.Module:
    """torchvision's network with these weights, without its classifier, float32, on the CPU; the caller's own copy.

    seed: of random weights; the same seed gives the same weights, and no global random state is touched. image_size:
    side of the images in pixels. ``UserError`` (one sentence) if the file does not exist, does not have the SHA-256
    that its name ends in (for NAME=FILE: that of ``found``, if it has one), says that it was trained on another scale
    than ``found.range``, or if ``checkpoints.load_trunk`` raises it.
    A process caches the last ``NETWORKS_KEPT`` networks, 3 MB (SqueezeNet) to 340 MB (ViT-B/16) of memory each: a file
    is read, hashed and checked again only when it has changed.
    """
    random = found.origin == "random"
    state = None if random else _state_of(found, local_path(found))
    network: nn.Module = pickle.loads(_pickled(found, seed if random else 0, image_size, state))
    return network


@functools.lru_cache(maxsize=NETWORKS_KEPT)
def _pickled(found: FoundWeights, seed: int, image_size: int, file_state: tuple[int, int, int] | None) -> bytes:
    """The network of ``load_pretrained`` as a pickle, which is read in a third of the time of a deep copy.

    file_state: of ``_state_of``; None for random weights.
    """
    if file_state is not None:
        return pickle.dumps(_load(found, image_size).trunk, pickle.HIGHEST_PROTOCOL)
    backbone = BACKBONES[found.backbone]
    network = backbone.drop_classifier(random_network(backbone, seed, image_size))
    return pickle.dumps(network, pickle.HIGHEST_PROTOCOL)


def input_problem(found: FoundWeights, images: Tensor) -> str | None:
    """Why the weights seem made for other input values than they will get, one sentence; None if they do not.

    images: uint8 [n, C, S, S] of the training split. They go through the trunk, in eval mode, to its first BatchNorm.
    On at least half of the channels its input must be within ``FAR_OFF`` running standard deviations of the running
    mean (root mean square), and on at least half vary by at least ``TOO_FLAT`` of one. Random weights, torchvision's
    own files, and networks whose first BatchNorm has no statistics are not checked.
    """
    if found.origin == "random" or found.torchvisions:
        return None
    backbone, trunk = BACKBONES[found.backbone], _load(found, images.shape[-1]).trunk.eval()
    name, layer = next(((n, m) for n, m in trunk.named_modules() if isinstance(m, nn.BatchNorm2d)), ("", None))
    if layer is None or _is_empty(layer):
        return None
    assert layer.running_mean is not None
    assert layer.running_var is not None
    seen: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].transpose(0, 1).flatten(1).clone()))
    with torch.inference_mode():
        features = normalise(images, found.scale)
        for stage in backbone.stages:
            features = backbone.run(trunk, stage, features)
            if seen:
                break
    scale = (layer.running_var + layer.eps).sqrt()
    spread = seen[0].std(1) / scale
    off = (seen[0] - layer.running_mean[:, None]).square().mean(1).sqrt() / scale
    if (off > FAR_OFF).float().mean() <= 0.5 and (spread < TOO_FLAT).float().mean() <= 0.5:
        return None
    return (
        f"weights of {found.backbone}: {found.path} was made for other input values: the inputs of its first BatchNorm "
        f"({name}) vary {spread.median():.2g} times as much as expected, and are {off.median():.2g} of its standard "
        f"deviations off (medians of {len(off)} channels): give the values of pixels 0 and 255, such as "
        f"--weights {found.backbone}={found.path},range=-1024:1024"
    )


def _load(found: FoundWeights, image_size: int) -> Loaded:
    path = local_path(found)
    state = _state_of(found, path)
    if found.origin != "file":
        _check_hash(path, state)
    elif found.sha256 is not None and _sha256(path, state) != found.sha256:
        raise UserError(f"weights of {found.backbone}: {path} is not the file that the sweep began with: restore it")
    loaded = load_trunk(path, BACKBONES[found.backbone], image_size)
    if loaded.scale is not None and not loaded.scale.close_to(found.scale):
        ends = loaded.scale.range
        raise UserError(
            f"weights of {found.backbone}: {path} was trained on other input values than it would get: write "
            + (f"{found.backbone}={path},range={ends[0]:g}:{ends[1]:g}" if ends else "it without range=")
        )
    return loaded


def _state_of(found: FoundWeights, path: Path) -> tuple[int, int, int]:
    """Inode, size in bytes and modification time (ns) of the file: if one differs, the content counts as changed."""
    try:
        state = path.stat()
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise UserError(f"weights of {found.backbone}: {path} {why}; every node must see this path") from None
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"weights of {found.backbone}: {path} is not a file: give a file, or a folder without NAME=")
    return state.st_ino, state.st_size, state.st_mtime_ns


def local_path(found: FoundWeights) -> Path:
    """The file on this machine: on a cluster each node has its own cache, and downloads what is not in it.

    ``UserError`` if it is not there and cannot be downloaded.
    """
    assert found.path is not None, "random weights have no file"
    if found.origin != "imagenet":
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
    """Download ``url`` to a temporary file, check its hash, and move it to ``path``.

    ``OSError`` if the download fails, or does not have the hash in the name of ``path``.
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


def _file_name(backbone: str) -> str:
    return weights_url(backbone).rsplit("/", 1)[-1]


def weights_url(backbone: str) -> str:
    """The address of torchvision's first ImageNet weights (IMAGENET1K_V1) of a backbone."""
    return str(torchvision.models.get_model_weights(backbone).IMAGENET1K_V1.url)


def _find_imagenet(backbones: Sequence[str], download: bool) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    found: dict[str, FoundWeights] = {}
    missing: dict[str, str] = {}
    offline: OSError | None = None
    for name in backbones:
        url = weights_url(name)
        path = cache_folder() / _file_name(name)
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
    ask = "" if error else f"add --backbones {backbone} to download it, "
    return (
        f"weights of {backbone}: {path.name} {why}: {ask}download {url} to {path.parent} by hand, "
        f"or give --weights FOLDER or --weights random, or --weights {backbone}=FILE"
    )


def _find_in_folder(folder: Path, backbones: Sequence[str]) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    found: dict[str, FoundWeights] = {}
    missing: dict[str, str] = {}
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    except OSError as error:
        raise UserError(f"--weights {folder} cannot be read: {error.strerror}") from None
    for name in backbones:
        url, wanted = weights_url(name), _file_name(name)
        mine = [path for path in files if path.name == wanted or path.stem == f"{name}-{hash_prefix(path)}"]
        if len(mine) == 1:
            found[name] = FoundWeights(backbone=name, origin="folder", path=str(mine[0].absolute()))
        elif mine:
            missing[name] = f"weights of {name}: {folder} contains {' and '.join(path.name for path in mine)}: keep one"
        else:
            missing[name] = (
                f"weights of {name}: {folder} has neither {wanted} nor {name}-<first 8 digits of its SHA-256>.pth: "
                f"add one ({url}), or give --weights {name}=FILE, --weights imagenet or --weights random"
            )
    return found, missing


def batchnorm_state(network: nn.Module) -> tuple[int, int]:
    """How many BatchNorm layers of ``network`` have no statistics (all means 0, variances 1), and how many it has.

    If all: the statistics were folded into the convolutions. Then eval mode is right; in train mode, a batch is
    normalised by its own statistics, which the convolutions no longer expect, and the network drops to chance level.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    return sum(map(_is_empty, layers)), len(layers)


def _is_empty(layer: nn.BatchNorm2d) -> bool:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        return True
    return bool((mean.abs() <= _FOLDED_TOLERANCE).all() and ((variance - 1).abs() <= _FOLDED_TOLERANCE).all())


def hash_prefix(path: Path) -> str | None:
    """The hex digits that the name of a weight file ends in (``resnet18-f37072fd.pth``), None if it has none."""
    match = re.search(r"-([0-9a-f]{8,64})$", path.stem)
    return match.group(1) if match else None


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, state: tuple[int, int, int]) -> str:
    """Computed once per process and state of the file, as it takes 2 s per GB."""
    return sha256_of(path)


def _check_hash(path: Path, state: tuple[int, int, int]) -> None:
    expected = hash_prefix(path)
    if expected is None:
        raise UserError(f"{path.name} must end in the first 8 digits of its SHA-256: <name>-<8 hex digits>.pth")
    actual = _sha256(path, state)
    if not actual.startswith(expected):
        raise UserError(
            f"{path} is damaged or misnamed: its SHA-256 begins with {actual[: len(expected)]}, not "
            f"{expected}; delete it and download it again"
        )


def random_network(backbone: Backbone, seed: int, image_size: int = 224) -> nn.Module:
    """torchvision's whole network with torchvision's initialisation, except for the scale of its BatchNorm layers.

    A new BatchNorm divides by 1 until it has trained. Frozen, it never trains, and the signal fades from layer to
    layer: a frozen random MobileNetV2 gives its head features of 1e-9, EfficientNet-B0 of 1e-14, and no head learns
    from them. So each layer's variance is set to the mean square of its input, from a few smooth noise images.
    """
    with seeded(seed):
        network = backbone.network(image_size)
        grain = torch.randn(_NOISE_IMAGES, 3, _NOISE_GRAIN, _NOISE_GRAIN)
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not layers:
        return network
    handles = [layer.register_forward_pre_hook(_set_scale) for layer in layers]
    network.eval()
    with torch.no_grad():
        features = functional.interpolate(grain, size=_NOISE_SIZE, mode="bilinear")
        for stage in backbone.stages:
            features = backbone.run(network, stage, features)
    for handle in handles:
        handle.remove()
    return network.train()


def _set_scale(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """One power of two for the whole layer, so that processors and thread counts with other summation orders agree."""
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.running_var is not None
    layer.running_var.fill_(2.0 ** round(math.log2(inputs[0].square().mean().item())))
