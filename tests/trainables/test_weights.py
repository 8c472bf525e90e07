"""Weights found, read without running their code, checked, or drawn so that they can be frozen."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import EVERY_NETWORK
from PIL import Image
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.params import BACKBONE_NAMES, TrialParams
from trainables.backbones import BACKBONES
from trainables.batches import IMAGENET, InputScale, normalise
from trainables.finetune import build_model
from trainables.seeding import seeded
from trainables.weights import (
    FoundWeights,
    WeightSources,
    batchnorm_state,
    cache_folder,
    check_weights,
    fetch,
    find_weights,
    hash_prefix,
    input_problem,
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
    assert "gone' is not a folder: give imagenet, random, a folder" in caught.value.problems[1]


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
    assert "drops to chance" in checked.note


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
        assert f"download {weights_url(name)} to {cache} by hand" in missing[name]
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


def test_a_process_reads_a_file_once_and_gives_each_trial_a_network_of_its_own(tmp_path: Path) -> None:
    path = in_folder(tmp_path, "squeezenet1_1")
    found = find_weights(str(tmp_path), ["squeezenet1_1"])[0]["squeezenet1_1"]
    first = load_pretrained(found, 0)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    with torch.no_grad():
        next(first.parameters()).zero_()  # as a trial trains
    # The same bytes cannot be read any more, and nothing tells by the file's state.
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = load_pretrained(found, 1).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match="damaged"):
        load_pretrained(found, 0)


def named(tmp_path: Path, backbone: str, value: Any, ending: str = "") -> FoundWeights:
    """The weights that ``--weights BACKBONE=FILE`` finds."""
    torch.save(value, tmp_path / "mine.pt")
    found, missing = find_weights(f"{backbone}={tmp_path / 'mine.pt'}{ending}", [backbone])
    assert not missing
    return found[backbone]


def test_sources_are_read_from_one_text() -> None:
    read = WeightSources.parse
    assert read("imagenet") == WeightSources("imagenet", {})
    assert read("/data/a,b") == WeightSources("/data/a,b", {})
    assert read("resnet50=a.pt, densenet121=b,c.pt,range=-1024:1024") == WeightSources(
        None, {"resnet50": ("a.pt", None), "densenet121": ("b,c.pt", (-1024.0, 1024.0))}
    )
    one = {"resnet50": ("a.pt", None)}
    assert read("resnet50=a.pt,imagenet") == read("imagenet,resnet50=a.pt") == WeightSources("imagenet", one)
    absolute = WeightSources.parse(read("random,resnet50=a.pt,range=0:1").absolute())
    assert absolute == WeightSources("random", {"resnet50": (str(Path("a.pt").absolute()), (0.0, 1.0))})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resnet5O=a.pt", "did you mean 'resnet50'"),
        ("resnet50=", "write NAME=FILE"),
        ("resnet50=a.pt,resnet50=b.pt", "is given two files, a.pt and b.pt"),
        ("imagenet,random", "give one of imagenet, random or a folder"),
        ("range=0:1", "write NAME=FILE,range=LOW:HIGH"),
        *((f"resnet50=a.pt,range={wrong}", "range=LOW:HIGH") for wrong in ("1:0", "1", "0:1:2", "0:inf", "a:b")),
    ],
)
def test_sources_that_make_no_sense_are_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_weights(text, ["resnet50"])


def test_a_named_file_replaces_one_and_alone_leaves_the_others_missing(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    in_folder(tmp_path, "squeezenet1_1")
    names = ["squeezenet1_0", "squeezenet1_1"]
    found, missing = find_weights(f"squeezenet1_0={tmp_path / 'mine.pt'}", names)
    assert (found["squeezenet1_0"].origin, list(found)) == ("file", ["squeezenet1_0"])
    assert "gives files only for squeezenet1_0: add imagenet" in missing["squeezenet1_1"]
    found, missing = find_weights(f"{tmp_path},squeezenet1_0={tmp_path / 'mine.pt'}", names)
    assert [found[name].origin for name in names] == ["file", "folder"]
    found, missing = find_weights(f"random,squeezenet1_0={tmp_path / 'mine.pt'}", names)
    assert [found[name].origin for name in names] == ["file", "random"]
    assert not missing


def test_a_named_file_that_another_takes_the_place_of_is_not_used(tmp_path: Path) -> None:
    checked = check_weights(
        named(tmp_path, "squeezenet1_1", random_network(BACKBONES["squeezenet1_1"], 0).state_dict())
    )
    load_pretrained(checked, 0)
    named(tmp_path, "squeezenet1_1", random_network(BACKBONES["squeezenet1_1"], 1).state_dict())
    with pytest.raises(UserError, match=r"mine.pt is not the file that the sweep began with: restore it"):
        load_pretrained(checked, 0)
    load_pretrained(dataclasses.replace(checked, sha256=None), 0)


def test_what_was_done_to_a_named_file_and_ignored_in_it_is_said(tmp_path: Path) -> None:
    state = BACKBONES["resnet18"].network().state_dict()
    state["bn1.running_var"] += 1
    content = {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    checked = check_weights(named(tmp_path, "resnet18", content, ",range=0:1"))
    assert "its names begin with state_dict.module." in checked.note
    assert "pixels of 0 to 255 become 0 to 1" in checked.note
    assert "ignored: state_dict.module.fc.weight, state_dict.module.fc.bias" in checked.note
    assert "19 of 20 BatchNorm layers have no statistics" in checked.note
    assert checked.sha256 == hashlib.sha256((tmp_path / "mine.pt").read_bytes()).hexdigest()
    network = load_pretrained(checked, 0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_network_without_batchnorm_cannot_tell_its_input_values(tmp_path: Path) -> None:
    checked = check_weights(named(tmp_path, "squeezenet1_1", BACKBONES["squeezenet1_1"].network().state_dict()))
    assert "it has no BatchNorm, so its expected input range cannot be checked" in checked.note


def test_a_named_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        ("gone.pt", "does not exist"),
        ("pipe", "is not a file"),
        (".", "is not a file"),
        ("a" * 300, "too long"),
    ):
        found = find_weights(f"resnet18={tmp_path / path}", ["resnet18"])[0]["resnet18"]
        assert says in refusal(found)


def calibrated(backbone: str, scale: InputScale, images: Tensor) -> dict[str, Tensor]:
    """A state_dict whose BatchNorm has seen ``images`` on this scale, as one that was trained on them has."""
    with seeded(0):
        network = BACKBONES[backbone].network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(normalise(images, scale))
    return network.state_dict()


def pictures(low: int, high: int) -> Tensor:
    """uint8 [8, 1, 64, 64], smooth."""
    grain = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(low))
    smooth = nn.functional.interpolate(grain, size=64, mode="bilinear")
    return (low + (high - low) * smooth).to(torch.uint8)


BYTES, XRAYVISION = InputScale.of_range(0, 255), InputScale.of_range(-1024, 1024)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "densenet121"])
@pytest.mark.parametrize(
    ("trained", "ending", "fits"),
    [
        (IMAGENET, "", True),
        (IMAGENET, ",range=-1:1", True),
        (IMAGENET, ",range=-1024:1024", False),
        (XRAYVISION, "", False),
        (XRAYVISION, ",range=-1024:1024", True),
        (BYTES, "", False),
        (BYTES, ",range=0:255", True),
    ],
)
def test_weights_made_for_other_input_values_are_told_by_the_first_batchnorm(
    backbone: str, trained: InputScale, ending: str, fits: bool, tmp_path: Path
) -> None:
    found = named(tmp_path, backbone, calibrated(backbone, trained, pictures(0, 255)), ending)
    problem = input_problem(found, pictures(20, 200))
    assert (problem is None) == fits, problem
    if problem is not None:
        assert "was made for other input values" in problem
        assert f"--weights {backbone}={tmp_path / 'mine.pt'},range=-1024:1024" in problem


def test_torchvisions_own_and_networks_that_cannot_tell_are_not_looked_at(tmp_path: Path) -> None:
    fresh = BACKBONES["resnet18"].network().state_dict()  # BatchNorm without statistics
    assert input_problem(named(tmp_path, "resnet18", fresh), pictures(0, 255)) is None
    plain = BACKBONES["squeezenet1_1"].network().state_dict()
    assert input_problem(named(tmp_path, "squeezenet1_1", plain), pictures(0, 255)) is None
    assert input_problem(FoundWeights(backbone="resnet18", origin="random"), pictures(0, 255)) is None
    own = FoundWeights(backbone="resnet18", origin="folder", path="/not/there/resnet18-f37072fd.pth")
    assert own.torchvisions
    assert input_problem(own, pictures(0, 255)) is None


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_real_weights_are_made_for_real_images_on_imagenets_scale(shared_dir: Path, backbone: str) -> None:
    files = sorted((shared_dir / "data" / "xray_a" / "train" / "normal").glob("*.jpg"))[:32]
    squares = [np.asarray(Image.open(file).convert("L").resize((64, 64)))[None] for file in files]
    found = find_weights(str(shared_dir / "weights"), [backbone])[0][backbone]
    images = torch.from_numpy(np.stack(squares))
    assert input_problem(found, images) is None
    assert input_problem(dataclasses.replace(found, range=(-1024.0, 1024.0)), images) is not None


def test_our_own_best_pt_says_on_which_values_it_was_trained(tmp_path: Path) -> None:
    state = calibrated("resnet18", XRAYVISION, pictures(0, 255))
    content = {"state_dict": state, "mean": XRAYVISION.mean, "std": XRAYVISION.std}
    assert f"write resnet18={tmp_path / 'mine.pt'},range=-1024:1024" in refusal(named(tmp_path, "resnet18", content))
    check_weights(named(tmp_path, "resnet18", content, ",range=-1024:1024"))
    content = {"state_dict": state, "mean": IMAGENET.mean, "std": IMAGENET.std}
    check_weights(named(tmp_path, "resnet18", content))
    assert "write it without range=" in refusal(named(tmp_path, "resnet18", content, ",range=0:1"))


def test_batchnorm_without_statistics_is_counted() -> None:
    network = BACKBONES["mobilenet_v2"].network()
    assert batchnorm_state(network) == (52, 52)
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    layers[0].running_mean[0] = 0.1
    layers[1].running_var[0] = 1.1
    assert batchnorm_state(network) == (50, 52)
    assert batchnorm_state(BACKBONES["squeezenet1_1"].network()) == (0, 0)


NO_BATCHNORM = ("vgg16", "squeezenet", "convnext", "vit", "swin")
WITH_BATCHNORM = [one for one in EVERY_NETWORK if not one.values[0].startswith(NO_BATCHNORM)]


def frozen_features(backbone: str, network: nn.Module) -> Tensor:
    features = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        for stage in BACKBONES[backbone].stages:
            features = BACKBONES[backbone].run(network.eval(), stage, features)
        return BACKBONES[backbone].to_vector(features)


@pytest.mark.parametrize("backbone", WITH_BATCHNORM)
def test_a_frozen_random_network_hands_a_signal_to_its_head(backbone: str) -> None:
    features = frozen_features(backbone, random_network(BACKBONES[backbone], 0))
    least = 0.001 if backbone == "efficientnet_v2_s" else 0.01  # 40 blocks deep: 0.004
    assert least < features.abs().mean() < 10


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
