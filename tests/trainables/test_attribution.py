"""Grad-CAM of every backbone, and maps.npz of a trained trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import EVERY_NETWORK
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from trained_run import SMALL, trained_run

from sweep.run_folder import RunPaths
from trainables.attribution import MOST_LABELS, attribute_split, classes_of_interest, grad_cam
from trainables.backbones import BACKBONES, Backbone
from trainables.batches import normalise
from trainables.data.config import DataConfig
from trainables.data.image import prepare_image
from trainables.export import plain_network, restore
from trainables.finetune import FineTunedModel, make_head, unfrozen_modules
from trainables.maps import Maps, read_maps
from trainables.predictions import Predictions, read_predictions
from trainables.seeding import seeded
from trainables.weights import find_weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, IMAGES, CLASSES = 128, 4, 6
CELLS = {"vgg16": 8, "vgg16_bn": 8, "squeezenet1_0": 7, "squeezenet1_1": 7, "vit_b_16": 8}
"""Positions a side at 128 px where it is not 4."""


Heads = Callable[[int], nn.Module]


def with_heads(name: str) -> tuple[Backbone, Heads]:
    """A backbone of random weights, and its exported network with the head of a seed."""
    backbone = BACKBONES[name]
    with seeded(0):
        trunk = backbone.drop_classifier(backbone.network(SIZE))

    def with_head(seed: int) -> nn.Module:
        with seeded(seed):
            head = make_head(backbone.feature_width, (), 0.0, CLASSES)
        layers = unfrozen_modules(backbone, 0)  # all of the trunk is frozen, which must not matter
        return (
            plain_network(FineTunedModel(backbone, trunk, head, layers, keeps_all=False)).requires_grad_(False).eval()
        )

    return backbone, with_head


def maps_of(backbone: Backbone, network: nn.Module, wanted: Tensor) -> Tensor:
    images = torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    return grad_cam(network, backbone, images, wanted)


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_every_backbone_has_maps_and_they_follow_the_head(name: str) -> None:
    """Sanity check of Adebayo et al., NeurIPS 2018: another head gives other maps of the same images."""
    backbone, with_head = with_heads(name)
    every = torch.ones(IMAGES, CLASSES, dtype=torch.bool)
    maps, others = (maps_of(backbone, with_head(seed), every) for seed in (1, 2))
    side = CELLS.get(backbone.name, 4)
    assert maps.shape == (IMAGES * CLASSES, side, side)
    assert maps.dtype == torch.float32
    assert (maps >= 0).all()
    total = maps.sum(dim=(1, 2))
    assert total[total > 0].numel() >= len(maps) // 4
    torch.testing.assert_close(total[total > 0], torch.ones(int((total > 0).sum())))
    pairs = [(a, b) for a, b in zip(maps.flatten(1), others.flatten(1), strict=True) if a.any() and b.any()]
    assert len(pairs) >= 5
    assert np.mean([spearmanr(a, b).statistic for a, b in pairs]) < 0.5


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_1"])
def test_of_several_classes_each_has_the_map_that_it_has_alone(name: str) -> None:
    backbone, with_head = with_heads(name)
    network = with_head(1)
    wanted = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]]).bool()
    together = maps_of(backbone, network, wanted)
    for row, (image, label) in enumerate(wanted.nonzero().tolist()):
        alone = torch.zeros_like(wanted)
        alone[image, label] = True
        torch.testing.assert_close(together[row : row + 1], maps_of(backbone, network, alone))


def test_behind_pooling_and_a_linear_head_the_map_is_cam() -> None:
    """There the gradient is the head's weight, and Grad-CAM is CAM (Selvaraju et al., section 3.1)."""
    backbone, with_head = with_heads("resnet18")
    network = with_head(1)
    images = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    features: list[Tensor] = []
    hook = network.get_submodule("layer4").register_forward_hook(lambda *seen: features.append(seen[2]))
    network(images)
    hook.remove()
    cam = torch.einsum("ck,bkhw->bchw", network.get_submodule("fc")[-1].weight, features[0])[0].relu()  # type: ignore[index]
    cam = cam / cam.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    torch.testing.assert_close(grad_cam(network, backbone, images, torch.ones(1, CLASSES, dtype=torch.bool)), cam)


def attribute(run: Path, split: str = "val") -> Maps:
    files = RunPaths(run).trial("t0000")
    weights, _ = find_weights("random", [SMALL.backbone])
    attribute_split(run, files.weights, weights, split, None, torch.device("cpu"))
    return read_maps(files.maps)


def test_maps_of_a_trial_are_those_of_true_and_answered_classes_in_split_order(
    small_data: Path, tmp_path: Path
) -> None:
    run = trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=SIZE))
    files = RunPaths(run).trial("t0000")
    maps, val = attribute(run), read_predictions(files.predictions).of("val")
    assert (maps.split, maps.classes, maps.epoch, maps.map.dtype) == ("val", val.classes, 1, np.float16)
    assert maps.grid == (7, 7)
    expected = [
        (path, label, label == true)
        for path, true, given in zip(val.path, val.label, val.probability.argmax(axis=1), strict=True)
        for label in sorted({int(true), int(given)})
    ]
    assert list(zip(maps.path, maps.label, maps.has, strict=True)) == expected
    assert maps.map.any(axis=(1, 2)).sum() > 0
    # One of them, from the image as it is read anew.
    weights, _ = find_weights("random", [SMALL.backbone])
    model, found, _ = restore(files.weights, lambda backbone: weights[backbone])
    row = int(np.flatnonzero(maps.map.any(axis=(1, 2)))[0])
    square = prepare_image(small_data / str(maps.path[row]), SIZE, "squash").square
    assert square is not None
    inputs = normalise(torch.from_numpy(square.copy())[None, None], found.scale)
    wanted = functional.one_hot(torch.tensor([int(maps.label[row])]), len(val.classes)).bool()
    (again,) = grad_cam(plain_network(model).requires_grad_(False), model.backbone, inputs, wanted)
    np.testing.assert_allclose(maps.map[row], again, atol=1e-3)


def test_a_coarse_grid_has_no_rows_and_a_closed_split_no_maps(small_data: Path, tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", DataConfig(data=str(small_data), image_size=32))
    maps = attribute(run)
    assert len(maps.path) == len(maps.map) == 0
    assert maps.grid == (1, 1)
    with pytest.raises(PermissionError, match="closed"):
        attribute(run, "test")


def test_of_many_labels_those_that_an_image_has_come_first() -> None:
    classes = tuple("abcdefghij")
    label = np.array([[1, -1] + [0] * 8, [0] * 9 + [1]], dtype=np.int8)
    probability = np.array([[0.1, 0.9, 0.6] + [0.2] * 7, [0.9] * 9 + [0.1]], dtype=np.float32)
    part = Predictions(np.array(["1", "2"]), np.array(["val"] * 2), label, probability, classes, 1)
    wanted, truth = classes_of_interest(part, {"c": 0.7})
    assert np.flatnonzero(wanted[0]).tolist() == [0, 1]
    assert wanted[1].sum() == MOST_LABELS
    assert wanted[1, 9]
    assert truth.tolist() == (label == 1).tolist()
