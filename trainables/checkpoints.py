"""Checkpoints: published weights, read into a backbone, and our own files.

The file's name, the dicts around its tensors and the prefix of their names do not matter: the network is where all of
its tensors are found, by torchvision's names or others of ``_namings``. Nothing is loaded in part.
"""

from __future__ import annotations

import functools
import math
import pickle
import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from search_spaces.errors import UserError, some
from trainables.atomic import write_atomically
from trainables.backbones import BACKBONES, Backbone
from trainables.batches import InputScale

_COUNTER = "num_batches_tracked"
_DEEPEST = 8
_POSITIONS = "encoder.pos_embedding"
_OLD_KINDS = ("norm", "relu", "conv")


@dataclass(frozen=True)
class Loaded:
    """trunk: the network without its classifier, float32, on the CPU. done: how its tensors were found and changed.

    ignored: the file's names of the tensors that are not the trunk's. own_classifier: whether they are all in
    torchvision's classifier, which our head replaces anyway. scale: of the network's inputs, if the file has it (our
    own ``best.pt`` does), else None.
    """

    trunk: nn.Module
    done: tuple[str, ...]
    ignored: tuple[str, ...]
    own_classifier: bool
    scale: InputScale | None


def load_trunk(path: Path, backbone: Backbone, image_size: int = 224) -> Loaded:
    """The trunk of ``backbone`` for images of this side in pixels, from a file of any form; see ``Loaded``.

    Half precision becomes float32. A one-channel first convolution is repeated over three channels and divided by
    three, position embeddings are interpolated to ``image_size``, BatchNorm's counters become 0 if an old file lacks
    them. ``UserError`` (one sentence): the file cannot be read safely; tensors of the trunk are missing, have another
    shape or are not plain, finite floats; the file has other tensors in the trunk's parts, or two different networks.
    """
    content = read_checkpoint(path)
    held = _tensors(content)
    if not held:
        keys = f" (its keys are {some(map(str, content))})" if isinstance(content, dict) and content else ""
        raise UserError(f"{path} has no named tensors, so it is not a network's state_dict(){keys}")
    fit = _best_fit(path, backbone, held)
    wanted = _trunk_state(backbone, image_size)
    tensors = {ours: held[theirs] for ours, theirs in fit.names.items() if theirs in held}
    # Shapes are compared later: until the position embeddings are interpolated, they may be of another image size.
    _check_kinds(path, wanted, tensors)
    done = fit.words() + _three_channels(wanted, tensors) + _interpolated(backbone, image_size, wanted, tensors)
    parts = differences(_without_counters(wanted), _without_counters(tensors))
    strange = fit.strange(backbone, held)
    if parts or strange:
        parts += [f"{len(strange)} are unexpected: {some(strange)}"] if strange else []
        raise UserError(_misfit(path, backbone, held, parts))
    if bad := [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _finite(tensor)]:
        raise UserError(f"{path} has NaN or infinite values in {len(bad)} tensors: {some(bad)}")
    trunk = backbone.empty_trunk(image_size).to_empty(device="cpu")
    # Copied: tensors of a file may share storage, or be one value that is expanded.
    trunk.load_state_dict({name: tensors.get(name, torch.zeros((), dtype=wanted[name].dtype)) for name in wanted})
    used = set(fit.names.values())
    ignored = tuple(name for name in held if name not in used)
    classifier = tuple(f"{fit.prefix}{part}." for part in backbone.dropped)
    return Loaded(trunk, done, ignored, all(name.startswith(classifier) for name in ignored), _scale(content))


def write_checkpoint(path: Path, content: Any) -> None:
    """``torch.save``, atomically."""

    def write(beside: Path) -> None:
        with beside.open("wb") as stream:  # Given a path, torch hides a full disk behind an error of its own.
            torch.save(content, stream)

    write_atomically(path, write)


def read_checkpoint(path: Path, *, ours: bool = False) -> Any:
    """The content of a file of ``torch.save`` or safetensors, on the CPU, whatever its name.

    ours: ``write_checkpoint`` wrote it, so check its checksums: torch reads changed bytes as changed weights.
    ``UserError`` (one sentence) if it cannot be read safely.
    """
    why = "it is not a PyTorch or safetensors checkpoint, or it is truncated"
    try:
        with path.open("rb") as file:
            head = file.read(9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About pickle protocols: a refused file is reported as an error below.
            if head[8:] == b"{":  # safetensors: the header is JSON, after its length
                return safetensors.torch.load_file(path)
            if ours and zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    if (damaged := archive.testzip()) is not None:
                        raise zipfile.BadZipFile(f"it is damaged in {damaged}")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except MemoryError:
        raise  # The file may be fine.
    except Exception as error:  # A foreign file may raise any error: KeyError, EOFError, ...
        if isinstance(error, OSError) and error.strerror:
            why = error.strerror
        elif isinstance(error, zipfile.BadZipFile):
            why = str(error)
        elif "TorchScript" in str(error):
            why = "it is a TorchScript program, not named tensors: save only the network's state_dict()"
        elif isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            why = (
                "it was refused, since it has Python objects besides tensors and could run code: save only the "
                "network's state_dict()"
            )
        raise UserError(f"{path} cannot be read as a model: {why}") from error


def differences(expected: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> list[str]:
    """How the names and shapes of ``held`` differ from those of ``expected``, in parts of a sentence; at most ten each.

    One part each for missing tensors, unexpected tensors, and other shapes.
    """
    missing, strange = ([n for n in some if n not in others] for some, others in ((expected, held), (held, expected)))
    both = [(name, held[name].shape, tensor.shape) for name, tensor in expected.items() if name in held]
    other = [f"{name} has shape {list(has)} instead of {list(wants)}" for name, has, wants in both if has != wants]
    parts = [f"{len(missing)} tensors are missing: {some(missing)}"] if missing else []
    parts += [f"{len(strange)} are unexpected: {some(strange)}"] if strange else []
    return parts + ([some(other)] if other else [])


def _tensors(content: object) -> dict[str, Tensor]:
    """Every tensor in a dict and its nested dicts, by its keys joined with dots, with old names ``_renamed``.

    To a depth of ``_DEEPEST``, which real files do not exceed: an attacker's file may nest dicts endlessly.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()  # A pickle may hold a dict that holds itself.
    waiting: deque[tuple[tuple[str, ...], object]] = deque([((), content)])
    while waiting:
        keys, value = waiting.popleft()
        if isinstance(value, Tensor) and keys:
            found[_renamed(".".join(keys))] = value
        elif isinstance(value, dict) and id(value) not in seen and len(keys) < _DEEPEST:
            seen.add(id(value))
            waiting += [((*keys, str(key)), inner) for key, inner in value.items()]
    return found


def _renamed(name: str) -> str:
    """torchvision's DenseNet files predate the rule against dots in module names: norm.1 is now norm1."""
    if "denselayer" not in name:
        return name
    for kind in _OLD_KINDS:
        for number in "12":
            name = name.replace(f".{kind}.{number}.", f".{kind}{number}.")
    return name


@dataclass(frozen=True)
class _Fit:
    """A way to find a network in a file.

    names: from ours to the file's, which may lack some. theirs: from any name of ours to the file's, without prefix.
    """

    prefix: str
    names: dict[str, str]
    naming: str
    theirs: Callable[[str], str]

    def words(self) -> tuple[str, ...]:
        prefix = f"its names begin with {self.prefix}" if self.prefix else ""
        return tuple(words for words in (prefix, self.naming) if words)

    def strange(self, backbone: Backbone, held: Mapping[str, Tensor]) -> list[str]:
        """Tensors inside the trunk's parts that it does not have: those of a larger network of the same kind."""
        parents = {stage.rpartition(".")[0] for stage in backbone.stages} - {""}
        parents = {one for one in parents if not any(f"{name}.".startswith(f"{one}.") for name in backbone.dropped)}
        inside = tuple(f"{self.prefix}{self.theirs(part)}." for part in (*backbone.stages, *sorted(parents)))
        used = set(self.names.values())
        return [name for name in held if name.startswith(inside) and name not in used]


@functools.lru_cache(maxsize=64)
def _namings(backbone: Backbone) -> list[tuple[str, Callable[[str], str]]]:
    """How a file may name the trunk's parts, in words and as a function of our names: torchvision's names; positions
    in ``nn.Sequential(*network.children())``; torchvision's names within ``features``; positions within it.
    """
    network = backbone.empty_network()

    def positional(within: str) -> Callable[[str], str]:
        children = network.get_submodule(within.removesuffix(".")).named_children()
        places = {name: str(place) for place, (name, _) in enumerate(children)}

        def theirs(name: str) -> str:
            first, dot, rest = name.removeprefix(within).partition(".")
            return places.get(first, first) + dot + rest

        return theirs

    at = "its names are positions in nn.Sequential(*network.{}children())".format
    found: list[tuple[str, Callable[[str], str]]] = [("", str), (at(""), positional(""))]
    if all(stage.startswith("features.") for stage in backbone.stages):
        found.append(("its names lack features.", lambda name: name.removeprefix("features.")))
        found.append((at("features."), positional("features.")))
    return found


def _fits(backbone: Backbone, held: Mapping[str, Tensor]) -> list[_Fit]:
    """The fit that finds the most names of the trunk, or several if their prefixes find equally many."""
    wanted = list(_trunk_state(backbone))
    needed = [name for name in wanted if not name.endswith(_COUNTER)]
    counted: list[tuple[int, _Fit]] = []
    for naming, theirs in _namings(backbone):
        names = {theirs(name) for name in needed}
        dots = {key: [0, *(place + 1 for place, letter in enumerate(key) if letter == ".")] for key in held}
        prefixes = Counter(key[:start] for key in held for start in dots[key] if key[start:] in names)
        for prefix, count in prefixes.items():
            counted.append((count, _Fit(prefix, {name: prefix + theirs(name) for name in wanted}, naming, theirs)))
    most = max((count for count, _ in counted), default=0)
    best = [fit for count, fit in counted if count == most]
    return [fit for fit in best if fit.naming == best[0].naming] or [_Fit("", {name: name for name in wanted}, "", str)]


def _best_fit(path: Path, backbone: Backbone, held: Mapping[str, Tensor]) -> _Fit:
    first, *others = _fits(backbone, held)
    pairs = [(first.names[name], other.names[name]) for other in others for name in first.names]
    pairs = [pair for pair in pairs if not pair[0].endswith(_COUNTER)]
    whole = all(name in held for pair in pairs for name in pair)
    if whole and any(not _equal(held[one], held[two]) for one, two in pairs):
        prefixes = some(fit.prefix or "no prefix" for fit in (first, *others))
        raise UserError(
            f"{path} has several {backbone.name} that differ ({prefixes}): save the state_dict() of only one"
        )
    return first


@functools.lru_cache(maxsize=64)
def _trunk_state(backbone: Backbone, image_size: int = 224) -> dict[str, Tensor]:
    """Names, shapes and types of the trunk's tensors, without values."""
    return backbone.empty_trunk(image_size).state_dict()


def _equal(one: Tensor, two: Tensor) -> bool:
    return not _odd(one, one.dtype) and not _odd(two, two.dtype) and torch.equal(one, two)


def _check_kinds(path: Path, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    kinds = {name: _odd(tensor, wanted[name].dtype) for name, tensor in tensors.items()}
    if odd := [f"{name} is {kind}" for name, kind in kinds.items() if kind]:
        raise UserError(
            f"{path}: {some(odd)}: must be plain float tensors: save the network's state_dict() before it is "
            "quantised, made sparse or emptied"
        )


def _odd(tensor: Tensor, wanted: torch.dtype) -> str | None:
    """Why the values of a tensor cannot be read as numbers of the wanted type; None if they can."""
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "sparse" if not tensor.is_nested else "nested"
    if tensor.is_meta:
        return "on the meta device, without values"
    if wanted.is_floating_point and not tensor.is_floating_point():
        return str(tensor.dtype).removeprefix("torch.")
    return None


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.float().isfinite().all())


def _three_channels(wanted: Mapping[str, Tensor], tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """In ``tensors``, replace a one-channel first convolution by three equal channels, each divided by 3."""
    name = next(name for name, tensor in wanted.items() if tensor.ndim == 4 and tensor.shape[1] == 3)
    held, shape = tensors.get(name), wanted[name].shape
    if held is None or held.shape != (shape[0], 1, *shape[2:]):
        return ()
    tensors[name] = held.float().expand(shape) / 3
    return (f"{name} has one channel: it was repeated to three and divided by 3",)


def _interpolated(
    backbone: Backbone, image_size: int, wanted: Mapping[str, Tensor], tensors: dict[str, Tensor]
) -> tuple[str, ...]:
    """In ``tensors``, replace position embeddings of another image size by interpolated ones."""
    held = tensors.get(_POSITIONS)
    if backbone.patch_size is None or held is None or held.shape == wanted[_POSITIONS].shape:
        return ()
    side = math.isqrt(max(0, held.shape[1] - 1)) if held.ndim == 3 else 0
    if side < 1 or held.shape != (1, side**2 + 1, wanted[_POSITIONS].shape[2]):
        return ()
    state = interpolate_embeddings(image_size, backbone.patch_size, {_POSITIONS: held.float()})
    tensors[_POSITIONS] = state[_POSITIONS]
    now = image_size // backbone.patch_size
    return (f"{_POSITIONS} was interpolated from {side} x {side} to {now} x {now} patches",)


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without BatchNorm's batch counters, which old files lack and nothing uses."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def _misfit(path: Path, backbone: Backbone, held: Mapping[str, Tensor], parts: list[str]) -> str:
    for name, other in BACKBONES.items():
        if name == backbone.name:
            continue
        fit = _fits(other, held)[0]
        wanted = _without_counters(_trunk_state(other))
        found = {ours: held[fit.names[ours]] for ours in wanted if fit.names[ours] in held}
        if not differences(wanted, found) and not fit.strange(other, held):
            return f"{path} contains {name}, not {backbone.name}"
    return f"{path} does not contain all of torchvision's {backbone.name}: {'; '.join(parts)}"


def _scale(content: object) -> InputScale | None:
    """The input scale in our own ``best.pt``; None if there is none."""
    if not isinstance(content, dict):
        return None
    values = [content.get(name) for name in ("mean", "std")]
    if not all(isinstance(one, tuple | list) and len(one) == 3 and all(map(_number, one)) for one in values):
        return None
    mean, std = (tuple(map(float, one)) for one in values if one is not None)
    return InputScale(mean, std) if all(std) else None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
