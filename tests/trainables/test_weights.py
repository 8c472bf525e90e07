"""Weights found, read without running their code, checked, or drawn so that they can be frozen."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.params import BACKBONE_NAMES, TrialParams
from trainables.backbones import BACKBONES
from trainables.finetune import build_model
from trainables.seeding import seeded
from trainables.weights import (
    FoundWeights,
    batchnorm_state,
    cache_folder,
    check_weights,
    fetch,
    find_weights,
    hash_prefix,
    load_network,
    load_pretrained,
    local_path,
    random_network,
    weights_url,
)

pytestmark = pytest.mark.usefixtures("one_thread")


REAL = ("mobilenet_v2", "resnet18", "squeezenet1_0", "squeezenet1_1")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no way to the network: the proxy's port is closed."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


def checkpoint(backbone: str, seed: int = 0) -> tuple[str, bytes]:
    with seeded(seed):
        network = BACKBONES[backbone].network()
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest(), buffer.getvalue()


def in_folder(folder: Path, backbone: str, seed: int = 0) -> Path:
    digest, content = checkpoint(backbone, seed)
    path = folder / f"{backbone}-{digest[:8]}.pth"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("backbone", REAL)
def test_real_weights_load_and_say_what_they_are(shared_dir: Path, backbone: str) -> None:
    found, missing = find_weights(str(shared_dir / "weights"), [backbone])
    assert not missing
    checked = check_weights(found[backbone])
    assert checked.origin == "folder"
    assert checked.sha256 is not None
    assert checked.path is not None
    assert checked.sha256.startswith(str(hash_prefix(Path(checked.path))))
    assert not checked.folded_batchnorm
    assert ("5 of 20 BatchNorm" in checked.note) == (backbone == "resnet18")  # Its last block is random.
    params = TrialParams(backbone=backbone, unfreeze_depth=1)
    model = build_model(params, 3, checked, 64, seed=0)
    saved = torch.load(str(checked.path), weights_only=True)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.trunk.state_dict().items())
    assert not set(model.trained_state()) & {BACKBONES[backbone].blocks[0][0] + ".weight"}
    assert build_model(params, 3, checked, 64, seed=1).frozen_sha256() == model.frozen_sha256()


def test_real_backbones_without_a_file_are_missing_by_name(shared_dir: Path) -> None:
    found, missing = find_weights(str(shared_dir / "weights"), BACKBONE_NAMES)
    assert sorted(found) == sorted(REAL)
    assert "vgg16-397923af.pth" in missing["vgg16"]
    assert "--weights random" in missing["vgg16"]
    assert "efficientnet_b0_rwightman-7f5810bc.pth" in missing["efficientnet_b0"]


def test_random_weights_are_always_there_and_follow_from_the_seed() -> None:
    found, missing = find_weights("random", BACKBONE_NAMES)
    assert (list(found), missing) == (list(BACKBONE_NAMES), {})
    weights = check_weights(found["squeezenet1_1"])
    assert (weights.origin, weights.path, weights.folded_batchnorm) == ("random", None, False)
    first, again, other = (load_pretrained(weights, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])


def test_a_folder_that_is_not_there_and_unknown_backbones_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_weights(str(tmp_path / "gone"), ["resnet18", "resnet81"])
    assert len(caught.value.problems) == 2
    assert "did you mean 'resnet18'" in caught.value.problems[0]
    assert "gone' is no folder: give imagenet, random or a folder" in caught.value.problems[1]


def test_two_files_for_one_backbone_are_not_chosen_between(tmp_path: Path) -> None:
    names = sorted(in_folder(tmp_path, "squeezenet1_1", seed).name for seed in (1, 2))
    found, missing = find_weights(str(tmp_path), ["squeezenet1_1"])
    assert not found
    assert f"{names[0]} and {names[1]}: keep one" in missing["squeezenet1_1"]


def test_a_name_that_only_begins_like_a_backbone_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "vgg16_bn-01234567.pth").touch()
    (tmp_path / "vgg16-best.pth").touch()
    found, missing = find_weights(str(tmp_path), ["vgg16", "vgg16_bn"])
    assert (list(found), list(missing)) == (["vgg16_bn"], ["vgg16"])


def test_torchvisions_own_file_name_is_found_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "efficientnet_b0_rwightman-7f5810bc.pth").touch()
    found, _ = find_weights(str(tmp_path), ["efficientnet_b0"])
    assert found["efficientnet_b0"].path == str(tmp_path / "efficientnet_b0_rwightman-7f5810bc.pth")


def test_a_file_that_vanishes_after_it_was_found_is_told(tmp_path: Path) -> None:
    path = in_folder(tmp_path, "squeezenet1_1")
    found = find_weights(str(tmp_path), ["squeezenet1_1"])[0]["squeezenet1_1"]
    path.unlink()
    with pytest.raises(UserError, match="every node must see this path"):
        check_weights(found)


def test_folded_batchnorm_is_recognised_without_a_warning(tmp_path: Path) -> None:
    in_folder(tmp_path, "mobilenet_v2")  # Fresh from its constructor: all means 0, variances 1.
    checked = check_weights(find_weights(str(tmp_path), ["mobilenet_v2"])[0]["mobilenet_v2"])
    assert checked.folded_batchnorm
    assert "falls to chance" in checked.note


def test_networks_without_batchnorm_are_not_folded(tmp_path: Path) -> None:
    in_folder(tmp_path, "squeezenet1_1")
    checked = check_weights(find_weights(str(tmp_path), ["squeezenet1_1"])[0]["squeezenet1_1"])
    assert (checked.folded_batchnorm, checked.note) == (False, "")


def test_every_backbone_has_torchvisions_first_weights_under_a_name_with_a_hash() -> None:
    for name in BACKBONE_NAMES:
        assert hash_prefix(Path(weights_url(name))) is not None
    assert weights_url("mobilenet_v2").endswith("mobilenet_v2-b0353104.pth")
    assert weights_url("resnet50").endswith("resnet50-0676ba61.pth")


def test_looking_for_imagenet_weights_downloads_nothing(cache: Path) -> None:
    found, missing = find_weights("imagenet", BACKBONE_NAMES)
    assert not found
    assert list(missing) == list(BACKBONE_NAMES)
    for part in ("resnet18-f37072fd.pth", str(cache), "--backbones resnet18", "--weights FOLDER", "--weights random"):
        assert part in missing["resnet18"]
    assert not cache.exists()


def test_a_download_that_fails_names_the_file_and_the_ways_to_get_it(cache: Path) -> None:
    found, missing = find_weights("imagenet", ["resnet18", "vgg16"], download=True)
    assert not found
    for name in ("resnet18", "vgg16"):
        assert "could not be downloaded" in missing[name]
        assert "refused" in missing[name]
        assert f"put {weights_url(name)} into {cache} by hand" in missing[name]
        assert "--weights FOLDER or --weights random" in missing[name]
    assert list(cache.iterdir()) == []


def test_cached_imagenet_weights_are_found_and_looked_for_on_each_machine(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").touch()
    found, missing = find_weights("imagenet", ["resnet18", "resnet34"])
    assert (list(found), list(missing)) == (["resnet18"], ["resnet34"])
    assert local_path(found["resnet18"]) == cache_folder() / "resnet18-f37072fd.pth"
    with pytest.raises(UserError, match="its SHA-256 begins with e3b0c442, not f37072fd"):
        check_weights(found["resnet18"])
    shutil.rmtree(cache)
    with pytest.raises(UserError, match=r"resnet18-f37072fd\.pth could not be downloaded"):
        local_path(found["resnet18"])


def test_a_download_is_checked_and_moved_into_place(tmp_path: Path) -> None:
    digest, content = checkpoint("squeezenet1_1")
    source = tmp_path / "source.pth"
    source.write_bytes(content)
    good, bad = (tmp_path / "cache" / f"squeezenet1_1-{prefix}.pth" for prefix in (digest[:8], "00000000"))
    fetch(source.as_uri(), good)
    assert good.read_bytes() == content
    with pytest.raises(OSError, match="invalid hash value"):
        fetch(source.as_uri(), bad)
    assert list(good.parent.iterdir()) == [good]


def test_a_node_without_the_file_fetches_it(cache: Path, tmp_path: Path) -> None:
    path = in_folder(tmp_path, "squeezenet1_1")
    weights = FoundWeights(
        backbone="squeezenet1_1", origin="imagenet", path=f"/driver/cache/{path.name}", url=path.as_uri()
    )
    assert local_path(weights) == cache / path.name
    assert check_weights(weights).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def saved(folder: Path, backbone: str, value: Any) -> Path:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path = folder / f"{backbone}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    path.write_bytes(buffer.getvalue())
    return path


def refusal(found: FoundWeights, size: int = 64) -> str:
    with pytest.raises(UserError) as caught:
        check_weights(found, size)
    (problem,) = caught.value.problems
    assert str(found.path) in problem
    return problem


def test_a_changed_file_does_not_match_its_name_even_if_it_was_right_before(tmp_path: Path) -> None:
    path = in_folder(tmp_path, "squeezenet1_1")
    found = find_weights(str(tmp_path), ["squeezenet1_1"])[0]["squeezenet1_1"]
    check_weights(found)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    problem = refusal(found)
    assert hashlib.sha256(content).hexdigest()[:8] in problem
    assert path.stem[-8:] in problem


def test_batchnorm_without_statistics_is_counted() -> None:
    network = BACKBONES["mobilenet_v2"].network()
    assert batchnorm_state(network) == (52, 52)
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    layers[0].running_mean[0] = 0.1
    layers[1].running_var[0] = 1.1
    assert batchnorm_state(network) == (50, 52)
    assert batchnorm_state(BACKBONES["squeezenet1_1"].network()) == (0, 0)


WITH_BATCHNORM = tuple(name for name in BACKBONE_NAMES if not name.startswith(("vgg16", "squeezenet", "convnext")))


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
