from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path

import pytest
import torch

from search_spaces.errors import UserError
from search_spaces.params import BACKBONE_NAMES, TrialParams
from trainables.backbones import BACKBONES
from trainables.checkpoints import hash_prefix
from trainables.finetune import build_model
from trainables.random_weights import seeded
from trainables.weights import (
    FoundWeights,
    cache_folder,
    check_weights,
    fetch,
    find_weights,
    load_pretrained,
    local_path,
    weights_url,
)

REAL = ("mobilenet_v2", "resnet18", "squeezenet1_0", "squeezenet1_1")
NOWHERE = "http://127.0.0.1:9"


pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert checked.sha256_prefix is not None
    assert checked.sha256.startswith(checked.sha256_prefix)
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
    assert found["efficientnet_b0"].sha256_prefix == "7f5810bc"


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
