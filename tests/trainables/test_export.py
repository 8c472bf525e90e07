"""best.pt, and the lines that are printed to use it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from networks import EVERY_NETWORK
from PIL import Image
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables.backbones import BACKBONES
from trainables.batches import normalise
from trainables.data.image import decode, fit_square
from trainables.export import (
    ModelFacts,
    OnnxDisagreesError,
    _onnx_difference,
    plain_network,
    read_model,
    restore,
    torchvision_lines,
    write_model,
    write_onnx,
)
from trainables.finetune import FineTunedModel, build_model
from trainables.weights import FoundWeights, find_weights, random_network

pytestmark = pytest.mark.usefixtures("one_thread")


SIZE = 48
CLASSES = ("covid", "normal", "viral pneumonia")


def model_of(backbone: str, **params: Any) -> FineTunedModel:
    found = FoundWeights(backbone=backbone, origin="random")
    return build_model(TrialParams(backbone=backbone, **params), len(CLASSES), found, SIZE, seed=1).eval()


def facts_of(backbone: str, *, task: str = "single_label", **changes: Any) -> ModelFacts:
    params = {"head_widths": changes.pop("head_widths", ()), "dropout": changes.pop("dropout", 0.2)}
    facts = ModelFacts(
        backbone=backbone,
        params=TrialParams(backbone=backbone, **params).to_flat(),
        task=task,
        classes=CLASSES,
        image_size=SIZE,
        channels=1,
        fit="squash",
        thresholds=dict.fromkeys(CLASSES, 0.5) if task == "multi_label" else None,
        trial="t0003/seed_1001",
        seed=1001,
        epoch=4,
        code="0123abc",
    )
    return dataclasses.replace(facts, **changes)


@pytest.mark.parametrize("backbone", EVERY_NETWORK)
def test_the_exported_network_is_torchvisions_own_and_answers_as_the_trained_one(backbone: str, tmp_path: Path) -> None:
    model = model_of(backbone, dropout=0.2)
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(images)
        plain = plain_network(model)
        assert type(plain) is type(BACKBONES[backbone].empty_network())
        write_model(tmp_path / "best.pt", plain, facts_of(backbone))
        read, facts = read_model(tmp_path / "best.pt")
        torch.testing.assert_close(read(images), before, atol=1e-5, rtol=1e-5)
    assert facts == facts_of(backbone)


def test_a_file_that_holds_lists_in_place_of_tuples_is_read_alike(tmp_path: Path) -> None:
    path, facts = tmp_path / "best.pt", facts_of("squeezenet1_1", task="multi_label")
    write_model(path, plain_network(model_of("squeezenet1_1")), facts)
    content = torch.load(path, weights_only=True)
    torch.save({name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}, path)
    assert read_model(path)[1] == facts


PRINTED = {
    "squeezenet1_1": {"fit": "squash", "channels": 1},
    "mobilenet_v2": {"fit": "pad", "channels": 3, "task": "multi_label"},
    "resnet18": {"fit": "crop", "channels": 3, "head_widths": (16, 8)},
}
PRINTED_TOO = {
    "convnext_tiny": {"fit": "crop", "channels": 1, "head_widths": (16, 8)},
    "densenet121": {"fit": "pad", "channels": 1},
    "vit_b_16": {"fit": "squash", "channels": 1},
    "swin_t": {"fit": "pad", "channels": 3, "mean": (0.5,) * 3, "std": (1 / 2048,) * 3},
}


@pytest.mark.parametrize("printed", [PRINTED, pytest.param(PRINTED_TOO, marks=pytest.mark.long)], ids=", ".join)
def test_the_printed_lines_predict_as_the_sweep_does_with_torchvision_alone(
    printed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    chance = np.random.default_rng(0)
    Image.fromarray(chance.integers(0, 256, (51, 70), dtype=np.uint8)).save(tmp_path / "gray.png")
    upright = Image.Exif()
    upright[0x0112] = 6  # turned by 90 degrees
    coloured = Image.fromarray(chance.integers(0, 256, (8, 11, 3), dtype=np.uint8)).resize((66, 47))
    coloured.save(tmp_path / "colour.jpg", exif=upright)
    expected = {}
    for backbone, changes in printed.items():
        facts = facts_of(backbone, dropout=0.0, **changes)
        model = model_of(backbone, head_widths=changes.get("head_widths", ()))
        image = "gray.png" if facts.channels == 1 else "colour.jpg"
        expected[backbone] = _as_the_sweep_does(model, facts, tmp_path / image)
        write_model(tmp_path / f"{backbone}.pt", plain_network(model), facts)
        lines = torchvision_lines(facts).replace("best.pt", f"{backbone}.pt").replace("image.png", image)
        assert len(lines.splitlines()) <= 20
        (tmp_path / f"{backbone}.py").write_text(lines)
    # One process for all of them: loading torch takes most of the time.
    runner = "import runpy, sys, torch; torch.set_num_threads(1); [runpy.run_path(name) for name in sys.argv[1:]]; "
    runner += "assert not {'trainables', 'sweep'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", runner, *(f"{backbone}.py" for backbone in printed)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for backbone, line in zip(printed, done.stdout.splitlines(), strict=True):
        found = json.loads(line.replace("'", '"'))
        assert tuple(found) == CLASSES
        np.testing.assert_allclose(list(found.values()), expected[backbone], atol=1e-5)


def _as_the_sweep_does(model: FineTunedModel, facts: ModelFacts, image: Path) -> list[float]:
    with image.open("rb") as file:
        pixels = fit_square(decode(file).pixels, facts.image_size, facts.fit)
    assert pixels.ndim == (2 if facts.channels == 1 else 3)
    planes = torch.tensor(np.atleast_3d(pixels)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = model(normalise(planes, facts.scale))
    return (logits.softmax(1) if facts.task == "single_label" else logits.sigmoid())[0].tolist()


def save_weights(model: FineTunedModel, path: Path, **changes: Any) -> None:
    """As ``FinetuneTrial.save_best`` does."""
    content = {
        "trained": model.trained_state(),
        "frozen_sha256": model.frozen_sha256(),
        "params": TrialParams(backbone=model.backbone.name, unfreeze_depth=1).to_flat(),
        "task": "single_label",
        "classes": list(CLASSES),
        "image_size": SIZE,
        "channels": 1,
        "epoch": 4,
    }
    torch.save(content | changes, path)


@pytest.fixture
def pretrained(tmp_path: Path) -> FoundWeights:
    """SqueezeNet's starting weights in a folder."""
    torch.save(random_network(BACKBONES["squeezenet1_1"], 7).state_dict(), tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    (tmp_path / "weights.pth").rename(tmp_path / f"squeezenet1_1-{digest[:8]}.pth")
    return find_weights(str(tmp_path), ["squeezenet1_1"])[0]["squeezenet1_1"]


@pytest.mark.parametrize("origin", ["folder", "random"])
def test_a_trial_is_restored_from_what_it_kept(origin: str, pretrained: FoundWeights, tmp_path: Path) -> None:
    """Of pretrained weights only what trained was kept, of random ones everything."""
    found = pretrained if origin == "folder" else FoundWeights(backbone="squeezenet1_1", origin="random")
    params = TrialParams(backbone="squeezenet1_1", unfreeze_depth=1)
    model = build_model(params, len(CLASSES), found, SIZE, seed=99).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    save_weights(model, tmp_path / "weights.pt")
    restored, started_from, content = restore(tmp_path / "weights.pt", lambda backbone: found)
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(restored(images), model(images))
    assert (started_from, content["epoch"]) == (found, 4)


def test_frozen_layers_that_are_not_those_of_the_trial_are_refused(pretrained: FoundWeights, tmp_path: Path) -> None:
    model = build_model(TrialParams(backbone="squeezenet1_1", unfreeze_depth=1), len(CLASSES), pretrained, SIZE, seed=0)
    save_weights(model, tmp_path / "weights.pt", frozen_sha256="0" * 64)
    with pytest.raises(UserError, match="was trained on other frozen layers"):
        restore(tmp_path / "weights.pt", lambda backbone: pretrained)


def test_a_file_that_is_no_model_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    with pytest.raises(UserError, match="does not exist"):
        read_model(path)
    path.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"not a model of a sweep|cannot be read as a model"):
        read_model(path)
    torch.save(model_of("squeezenet1_1").state_dict(), path)
    with pytest.raises(UserError, match="is not a model of a sweep: it has no backbone, channels"):
        read_model(path)
    torch.save({"format": 2, "state_dict": {}}, path)
    with pytest.raises(UserError, match="has format 2, and this version reads only format 1: use the version"):
        read_model(path)
    write_model(path, plain_network(model_of("squeezenet1_1")), facts_of("squeezenet1_0"))
    with pytest.raises(UserError, match="does not contain all of squeezenet1_0"):
        read_model(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(25) + whole[middle + 25 :])
    with pytest.raises(UserError, match=r"cannot be read as a model: it is damaged in archive/data/\d+"):
        read_model(path)
    path.write_bytes(whole[:middle])
    with pytest.raises(UserError, match="cannot be read as a model"):
        read_model(path)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnxruntime

LABELS = ("covid", "Lungenentzündung", "normal")


def network_and_facts(backbone: str, task: str) -> tuple[nn.Module, ModelFacts]:
    thresholds = dict(zip(LABELS, (0.25, 0.5, 0.5), strict=True)) if task == "multi_label" else None
    facts = facts_of(backbone, task=task, head_widths=(8,), classes=LABELS, fit="pad", thresholds=thresholds)
    return plain_network(model_of(backbone, head_widths=(8,), dropout=0.5)), facts


def session_of(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("backbone", "task"),
    [
        ("squeezenet1_1", "single_label"),
        ("vgg16", "multi_label"),
        *(
            pytest.param(name, "single_label", marks=pytest.mark.long)
            for name in (
                "vit_b_16",
                "swin_t",
                "resnext50_32x4d",
                "efficientnet_v2_s",
                "regnet_y_1_6gf",
            )
        ),
    ],
)
def test_onnxruntime_gives_torchs_probabilities_for_any_number_of_images(
    backbone: str, task: str, tmp_path: Path
) -> None:
    network, facts = network_and_facts(backbone, task)
    difference = write_onnx(tmp_path / "best.onnx", network, facts)
    assert difference is not None
    assert difference <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["best.onnx"], "the tensors are inside the one file"
    session = session_of(tmp_path / "best.onnx")
    for count in (1, 5):
        images = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            logits = network(images)
        expected = logits.softmax(1) if task == "single_label" else logits.sigmoid()
        (found,) = session.run(["probability"], {"image": images.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    # What its numbers mean.
    read = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert read["classes"] == list(LABELS)
    assert read.get("thresholds") == facts.thresholds
    assert (read["image_size"], read["fit"], read["channels"]) == (SIZE, "pad", 1)
    assert read["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert read["std"] == pytest.approx([0.229, 0.224, 0.225])


class Noisy(nn.Module):
    """No two answers of it agree."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3)) + torch.randn(image.shape[0], 3)


def test_a_file_that_disagrees_is_not_kept(tmp_path: Path) -> None:
    _, facts = network_and_facts("squeezenet1_1", "single_label")
    with pytest.raises(OnnxDisagreesError, match="differ from torch's by up to"):
        write_onnx(tmp_path / "best.onnx", Noisy(), facts)
    assert list(tmp_path.iterdir()) == []


class Session:
    """Of a network whose answers are all 0."""

    threads: ClassVar[list[int]] = []

    def __init__(self, _path: str, options: Any, providers: list[str]) -> None:
        self.threads.append(options.intra_op_num_threads)

    def run(self, _names: list[str], inputs: dict[str, Any]) -> list[Any]:
        return [0 * inputs["image"]]


def test_onnxruntime_takes_the_threads_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it pins a thread to each core of the machine, and prints a line for each that a job was not given."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    assert _onnx_difference(tmp_path / "best.onnx", nn.Threshold(torch.inf, 0.0), SIZE) == 0
    assert Session.threads == [torch.get_num_threads()]
