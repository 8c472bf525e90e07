"""Attribution maps: Grad-CAM on the exported network, for the model that a report shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.backbones import Backbone
from trainables.batches import ImageBatches
from trainables.data.dataset import MAPS_FILE, PREDICTIONS_FILE, open_dataset, open_test_split
from trainables.engine import EVALUATION_BATCH, map_batches
from trainables.export import plain_network, restore
from trainables.maps import SMALLEST_GRID, Maps
from trainables.metrics import decisions, has_class
from trainables.predictions import Predictions, read_predictions
from trainables.weights import FoundWeights

MOST_LABELS = 8
"""At most so many maps per image: true labels first, then predicted ones, both by falling probability."""


def attribute_split(
    run_dir: Path,
    weights_path: Path,
    weights: Mapping[str, FoundWeights],
    split: str,
    thresholds: Mapping[str, float] | None,
    device: torch.device,
) -> None:
    """Write ``maps.npz`` beside a trial's weights and predictions: Grad-CAM of the predicted rows of ``split``.

    Each image gets a map for each of its ``classes_of_interest``. weights: the starting weights, by backbone. split:
    "val", or "test" (PermissionError unless the run has opened it). thresholds: as for ``metrics.decide``. Afterwards
    the process may use algorithms that are not deterministic.
    """
    part = read_predictions(weights_path.with_name(PREDICTIONS_FILE)).of(split)
    data = open_dataset(run_dir)
    places = [open_test_split(run_dir)] if split == "test" else [data.train, data.val]  # a fold validates on both
    row_of = {path: row for one in places for path, row in zip(one.paths, one.rows.tolist(), strict=True)}
    rows = np.array([row_of[path] for path in part.path.tolist()], dtype=np.int64)
    wanted, truth = classes_of_interest(part, thresholds)
    # VGG's pooling has no deterministic backward pass on CUDA; the differences vanish in float16.
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled(), warn_only=True)
    model, found, _ = restore(weights_path, lambda backbone: weights[backbone])
    network = plain_network(model).requires_grad_(False).to(memory_format=torch.channels_last).to(device)
    batches = ImageBatches(data.images, rows, part.label, device, scale=found.scale)
    size = EVALUATION_BATCH[device.type]
    maps = maps_of(network, model.backbone, lambda some: batches.batch(some)[0], wanted, size)
    images, labels = np.nonzero(wanted) if len(maps) else (np.zeros(0, np.int64),) * 2
    has = truth[images, labels]
    whole = Maps(part.path[images], labels, has, maps, split, part.classes, part.epoch)
    whole.write(weights_path.with_name(MAPS_FILE))


def classes_of_interest(
    part: Predictions, thresholds: Mapping[str, float] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The classes for which each image gets a map, and its true classes: bool [N, C] each.

    Maps are for the true and the predicted classes; multi-label: at most ``MOST_LABELS`` of them.
    """
    truth = has_class(part.label, len(part.classes))
    wanted = truth | decisions(part.probability, part.classes, thresholds, part.task)
    if part.task == "multi_label":
        rank = np.argsort(np.argsort(-(2.0 * truth + part.probability), axis=1, kind="stable"), axis=1)
        wanted &= rank < MOST_LABELS
    return wanted, truth


def is_of(maps: Maps, part: Predictions, thresholds: Mapping[str, float] | None) -> bool:
    """Whether ``maps`` has the epoch, images and classes that ``attribute_split`` gives for one split's predictions."""
    images, labels = np.nonzero(classes_of_interest(part, thresholds)[0])
    same = np.array_equal(maps.path, part.path[images]) and np.array_equal(maps.label, labels)
    return maps.epoch == part.epoch and (same or min(maps.grid) < SMALLEST_GRID)


def grad_cam(network: nn.Module, backbone: Backbone, inputs: Tensor, wanted: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, section 3): one map of the logit per True of ``wanted``, row by row.

    network: torchvision's with our head, in eval mode, no parameter requires gradients. inputs: float32 [B, 3, S, S];
    wanted: bool [B, C]. Returns float32 [M, h, w] on the grid of the backbone's ``attribution_layer``: the sum of the
    channels, each weighted by the mean of the logit's gradient over all positions; negative values become 0; each map
    sums to 1 (or 0). Earlier layers run without gradients: memory is that of evaluation plus the few later layers.
    """
    layers: list[Tensor] = []

    def begin_here(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        layers.append(output.detach().requires_grad_())
        return layers[0].clone()  # later layers may work in place, which a leaf does not allow

    hook = network.get_submodule(backbone.attribution_layer).register_forward_hook(begin_here)
    try:
        logits: Tensor = network(inputs)
    finally:
        hook.remove()
    (layer,) = layers
    channels = backbone.to_maps(layer.detach())
    maps = channels.new_zeros(int(wanted.sum()), *channels.shape[2:])
    order = wanted.cumsum(dim=1) * wanted  # 1, 2, ... for the wanted classes of an image
    for place in range(1, int(order.max()) + 1):
        chosen = order == place  # at most one class per image: in eval mode no logit depends on another image
        (gradient,) = torch.autograd.grad(logits[chosen].sum(), layer, retain_graph=True)
        weights = backbone.to_maps(gradient).mean(dim=(2, 3), keepdim=True)
        maps[chosen[wanted]] = (weights * channels).sum(dim=1).relu()[chosen.any(dim=1)]
    total = maps.sum(dim=(1, 2), keepdim=True)
    return maps / torch.where(total > 0, total, 1)


def maps_of(
    network: nn.Module,
    backbone: Backbone,
    inputs: Callable[[NDArray[np.int64]], Tensor],
    wanted: NDArray[np.bool_],
    batch_size: int,
) -> NDArray[np.float16]:
    """``grad_cam`` of many images: float16 [M, h, w]; M is 0 if the grid is too coarse to report.

    inputs: gives the network's inputs for image indices, on its device. wanted: bool [N, C]. batch_size: images per
    batch, fewer if GPU memory runs out.
    """

    def of(indices: NDArray[np.int64]) -> NDArray[np.float16]:
        with torch.inference_mode(False), torch.enable_grad():
            batch = inputs(indices)
            chosen = torch.from_numpy(wanted[indices]).to(batch.device)
            maps: NDArray[np.float16] = grad_cam(network, backbone, batch, chosen).half().cpu().numpy()
        return maps

    first = of(np.arange(1))
    if min(first.shape[1:]) < SMALLEST_GRID:
        return first[:0]
    return np.concatenate(map_batches(of, len(wanted), batch_size))
