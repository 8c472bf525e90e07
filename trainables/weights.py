"""Where the weights of each backbone come from: torchvision's, a folder of files, or chance."""

from __future__ import annotations

import dataclasses
import difflib
import socket
import sys
import urllib.error
from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from torch import nn

from search_spaces.errors import UserError, raise_all, unknown
from trainables.backbones import BACKBONES
from trainables.checkpoints import batchnorm_state, hash_prefix, load_network, sha256
from trainables.random_weights import random_network

CONNECT_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """The weights of one backbone.

    origin: "imagenet", "folder" or "random". path: the file, None if random; url: where it can be fetched, None unless
    imagenet. sha256_prefix: the digits that the file's name states; sha256: all 64, known once ``check_weights`` ran.
    folded_batchnorm: no BatchNorm layer holds statistics (see ``checkpoints.batchnorm_state``); note: what the report
    should say of them, or "". Both are found by ``check_weights``.
    """

    backbone: str
    origin: str
    path: str | None = None
    url: str | None = None
    sha256_prefix: str | None = None
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

    Random weights are returned as they are. ``UserError``: see ``checkpoints.load_network``.
    """
    if found.origin == "random":
        return found
    path = local_path(found)
    empty, layers = batchnorm_state(load_network(path, BACKBONES[found.backbone]))
    note = ""
    if empty and empty == layers:
        note = (
            "BatchNorm is folded (all running means 0, variances 1): the network falls to chance as soon as a "
            "BatchNorm layer trains"
        )
    elif empty:
        note = f"{empty} of {layers} BatchNorm layers hold no statistics (means 0, variances 1): random or folded there"
    return dataclasses.replace(found, sha256=sha256(path), folded_batchnorm=bool(empty) and empty == layers, note=note)


def load_pretrained(found: FoundWeights, seed: int) -> nn.Module:
    """torchvision's whole network with these weights, float32, on the CPU.

    seed: of random weights; the same seed gives the same weights, and no global random state is touched.
    """
    backbone = BACKBONES[found.backbone]
    if found.origin != "random":
        return load_network(local_path(found), backbone)
    return random_network(backbone, seed)


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
    unreachable: OSError | None = None
    for name in backbones:
        url = weights_url(name)
        path = cache_folder() / url.rsplit("/", 1)[-1]
        if not path.is_file():
            try:
                if not download:
                    raise FileNotFoundError
                if unreachable is not None:
                    raise unreachable
                fetch(url, path)
            except OSError as error:
                if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
                    unreachable = error  # No network: the others need not wait for their own time-out.
                missing[name] = _missing(name, url, path, error if download else None)
                continue
        found[name] = FoundWeights(
            backbone=name, origin="imagenet", path=str(path), url=url, sha256_prefix=hash_prefix(path)
        )
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
        wanted = weights_url(name).rsplit("/", 1)[-1]
        mine = [path for path in files if path.name == wanted or path.stem == f"{name}-{hash_prefix(path)}"]
        if len(mine) == 1:
            (path,) = mine
            found[name] = FoundWeights(
                backbone=name, origin="folder", path=str(path.absolute()), sha256_prefix=hash_prefix(path)
            )
        elif mine:
            missing[name] = f"weights of {name}: {folder} holds {' and '.join(path.name for path in mine)}: keep one"
        else:
            missing[name] = (
                f"weights of {name}: {folder} holds neither {wanted} nor {name}-<first 8 digits of its SHA-256>.pth: "
                f"put one there ({weights_url(name)}), or give --weights imagenet or --weights random"
            )
    return found, missing
