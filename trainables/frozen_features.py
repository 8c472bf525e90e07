"""The outputs of the frozen layers before the first trained one, computed once per image and shared by trials.

They depend on the image alone. They are computed in fixed batches, so that a trial gets the same bits from the node's
cache and, if that cannot be used, from its own memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.errors import reason_of
from search_spaces.params import TrialParams
from trainables.backbones import BACKBONES
from trainables.batches import Batches, InputScale, Rows, draw_mirrored, normalise, on_device
from trainables.data.dataset import TrialData
from trainables.engine import map_batches
from trainables.feature_cache import SHARD, CacheEntry, CachePlace, MemoryShards, RowForm, Shards, claimed
from trainables.finetune import FineTunedModel

VERSION = 1
"""Raise it when features are computed in another way, here or in ``normalise``: it is in every entry's key."""
BATCH = {"cpu": 32, "cuda": 256}
"""Images at once. Fixed, as the last bits of a matrix product depend on it."""
VIEWS = {"none": 1, "flip": 2}
"""How many different inputs an image gives: itself, and its mirror image. ``standard`` gives any number."""
PART_OF_MEMORY = 0.5
"""Part of a trial's memory that features may take: the rest is for its network and its other data."""
SPEED = {"cpu": (30e9, 2e9), "cuda": (30e12, 10e9)}
"""FLOP/s of a core or a GPU, and bytes/s at which it receives features: round numbers, the same on every machine."""
BYTES = {"fp32": 4, "bf16": 2}
FP32_RESIDUALS = ("convnext_tiny", "vit_b_16")
"""Backbones whose sums between blocks are float32 even under autocast."""
_POLL_S = 0.05
_TIMED = {"cpu": 8, "cuda": 256}
"""Images to time: with fewer, a GPU's launch overhead would be measured."""
_seconds_per_image: dict[tuple[Any, ...], float] = {}


@dataclass(frozen=True)
class StageCost:
    """The cost per image of all stages up to one. flops: two per multiply-add; values: numbers in the output."""

    flops: int
    values: int


@functools.lru_cache(maxsize=64)
def stage_costs(backbone: str, image_size: int) -> tuple[StageCost, ...]:
    """Of the first 1, 2, ... stages of a backbone (all of them: with the pooling), counted without computing."""
    network = BACKBONES[backbone]
    trunk = network.empty_trunk(image_size).eval()
    features = torch.empty(1, 3, image_size, image_size, device="meta")
    found = []
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for stage in network.stages:
            features = network.run(trunk, stage, features)
            found.append(StageCost(counter.get_total_flops(), features.numel()))
        found[-1] = StageCost(counter.get_total_flops(), network.to_vector(features).numel())
    return tuple(found)


def features_bytes(backbone: str, image_size: int, stages: int, images: int, precision: str) -> int:
    """Bytes of both views of so many ``images`` after the first ``stages``, 1 or more, of a backbone."""
    return (
        VIEWS["flip"] * images * stage_costs(backbone, image_size)[stages - 1].values * value_bytes(backbone, precision)
    )


def value_bytes(backbone: str, precision: str) -> int:
    """Bytes per number in the output of a stage."""
    return BYTES["fp32" if backbone in FP32_RESIDUALS else precision]


def stages_worth_keeping(
    backbone: str, image_size: int, images: int, precision: str, *, threads: int, gpu: bool, memory_bytes: int
) -> list[int]:
    """After how many stages of a backbone features are kept: where they fit, and are read faster than computed.

    images: of training and validation. memory_bytes: of a trial on the smallest node. threads: of a trial.
    """
    flops_a_second, bytes_a_second = SPEED["cuda" if gpu else "cpu"]
    flops_a_second *= 1 if gpu else threads
    return [
        stages
        for stages, cost in enumerate(stage_costs(backbone, image_size), start=1)
        if features_bytes(backbone, image_size, stages, images, precision) <= PART_OF_MEMORY * memory_bytes
        and cost.values * value_bytes(backbone, precision) / bytes_a_second < cost.flops / flops_a_second
    ]


def shared_order(data: TrialData) -> NDArray[np.int64]:
    """The image cache's rows whose features trials share: training, then validation, of the run's own split."""
    return np.concatenate([np.unique(data.train.rows), np.setdiff1d(data.val.rows, data.train.rows)])


def stages_kept(params: TrialParams, frozen_stages: int, cached_stages: Mapping[str, Sequence[int]]) -> int:
    """After how many stages a trial uses kept features, 0 = it starts from images.

    frozen_stages: of its network. cached_stages: by backbone, ``stages_worth_keeping``.
    """
    if params.augment not in VIEWS:
        return 0
    return max((one for one in cached_stages.get(params.backbone, ()) if one <= frozen_stages), default=0)


class FrozenFeatures:
    """The output of the first ``stages`` stages of ``model`` for the images of a run's training and validation splits.

    images: uint8 [M, C, S, S], the image cache, whose file's name is a hash of its content. order: int64 [n], its rows
    for which there are features. place: of the node's cache; None = features stay in memory. between_steps: called
    before each batch, may raise. note: why features meant for the cache are in memory, "" = they are not.
    """

    def __init__(
        self,
        model: FineTunedModel,
        stages: int,
        scale: InputScale,
        images: np.memmap[Any, np.dtype[np.uint8]],
        order: NDArray[np.int64],
        *,
        precision: str,
        device: torch.device,
        place: CachePlace | None,
        between_steps: Callable[[], None] = lambda: None,
    ) -> None:
        self.stages, self.device = stages, device
        self.note = ""
        self._model, self._scale, self._precision = model, scale, precision
        self._images, self._order, self._place, self._check = images, order, place, between_steps
        self._position_of = np.full(len(images), -1)
        self._position_of[order] = np.arange(len(order))
        self._shards: dict[int, Shards] = {}
        self._arrays: dict[int, NDArray[Any]] = {}

    def positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions, in ``order``, of these rows of the image cache."""
        found: NDArray[np.int64] = self._position_of[rows]
        assert (found >= 0).all(), "features are to be had of the run's training and validation images alone"
        return found

    def compute(self, wanted: Mapping[int, NDArray[np.int64]]) -> None:
        """Make features available. wanted: their positions, by view (0: the image, 1: its mirror image).

        Trials that want the same features at the same time share the work: each computes what no other has claimed, and
        then waits for what others are still computing.
        """
        place = self._place
        if place is not None and not self.note:
            try:
                count = len(self._order)
                self._fill(wanted, lambda view: CacheEntry(place, self._key(view), count, lambda: self._form))
                return
            except OSError as error:
                if error.errno is None:
                    raise  # Not from the file system: ``between_steps`` raised TrialTimeoutError.
                self.note = f"each trial computes the features of frozen layers: {place.path}: {reason_of(error)}"
                self._shards.clear()
        self._fill(wanted, lambda view: MemoryShards(len(self._order), self._form))

    def rows(self, view: int, positions: NDArray[np.int64]) -> Rows:
        """Features that ``compute`` has made available, to be taken in batches and given to ``as_inputs``."""
        return Rows(self._arrays[view], positions, self.device)

    @property
    def seconds_per_image(self) -> float:
        """Seconds that these stages take per image, which a trial that reads their output does not spend. Measured once
        per process and network, on up to ``_TIMED`` images."""
        kind = self._model.backbone.name, self.stages, self._precision, str(self.device), self._images.shape[1:]
        if kind not in _seconds_per_image:
            rows, size = self._order[: _TIMED[self.device.type]], BATCH[self.device.type]
            for _ in range(2):  # The first run includes the warm-up.
                began_s = time.perf_counter()
                map_batches(lambda some: self._forward(torch.from_numpy(self._images[rows[some]]), 0), len(rows), size)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                _seconds_per_image[kind] = (time.perf_counter() - began_s) / len(rows)
        return _seconds_per_image[kind]

    def as_inputs(self, rows: Tensor) -> Tensor:
        """Stored rows as inputs for the next stage, float [B, ...]; a view of them."""
        dtype, layout = next(iter(self._shards.values())).form.meaning.split()
        rows = rows.view(getattr(torch, dtype))
        return rows.permute(0, 3, 1, 2) if layout == "channels_last" else rows

    def _fill(self, wanted: Mapping[int, NDArray[np.int64]], opened: Callable[[int], Shards]) -> None:
        for view in wanted:
            self._shards[view] = self._shards.get(view) or opened(view)
        todo = [(view, int(shard)) for view, where in wanted.items() for shard in np.unique(where // SHARD)]
        while todo:
            left = []
            for view, shard in todo:
                shards = self._shards[view]
                if shards.done(shard):
                    continue
                with claimed(shards, shard) as mine:
                    if mine:
                        shards.write(shard, self._features_of(view, shard, shards))
                    else:
                        left.append((view, shard))
            todo = left
            if todo:
                self._check()
                time.sleep(_POLL_S)
        for view in wanted:
            self._arrays[view] = self._shards[view].array()

    def _features_of(self, view: int, shard: int, shards: Shards) -> NDArray[Any]:
        rows = self._order[shard * SHARD :][:SHARD]

        def stored(indices: NDArray[np.int64]) -> NDArray[Any]:
            features = self._forward(torch.from_numpy(self._images[rows[indices]]), view)
            shards.touch(shard)
            return _stored(features, shards.form)

        return np.concatenate(map_batches(stored, len(rows), BATCH[self.device.type], self._check))

    def _forward(self, images: Tensor, view: int) -> Tensor:
        images = images.to(self.device)
        inputs = normalise(images.flip(3) if view else images, self._scale)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16"),
        ):
            return self._model.forward_frozen(inputs, 0, self.stages)

    @functools.cached_property
    def _form(self) -> RowForm:
        """The form of a row, found by computing one image."""
        features = self._forward(torch.from_numpy(self._images[self._order[:1]]), 0)
        last = features.ndim == 4 and not features.is_contiguous()
        shape = features.permute(0, 2, 3, 1).shape[1:] if last else features.shape[1:]
        dtype = str(features.dtype).removeprefix("torch.")
        assert dtype in ("float32", "bfloat16"), dtype
        stored = {"float32": "<f4", "bfloat16": "<i2"}[dtype]  # NumPy has no bfloat16: the bits are stored.
        return RowForm(tuple(shape), stored, f"{dtype} {'channels_last' if last else 'contiguous'}")

    @functools.cached_property
    def _weights_sha256(self) -> str:
        return self._model.frozen_sha256(self.stages)

    def at_hand(self) -> bool:
        """Whether the node's cache has features of the images after these stages, all or some."""
        return self._place is not None and CacheEntry.is_there(self._place, self._key(0))

    def _key(self, view: int) -> str:
        cpu = self.device.type == "cpu"
        facts = {
            "version": VERSION,
            "torch": [torch.__version__, torchvision.__version__],
            "device": torch.backends.cpu.get_cpu_capability() if cpu else torch.cuda.get_device_name(self.device),
            "threads": torch.get_num_threads() if cpu else 0,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "precision": [self._precision, *(_bf16_products() if cpu and self._precision == "bf16" else [])],
            "backbone": self._model.backbone.name,
            "stages": self.stages,
            "weights": self._weights_sha256,
            "scale": [self._scale.mean, self._scale.std],
            "images": [Path(str(self._images.filename)).name, self._images.shape],
            "order": hashlib.sha256(self._order.tobytes()).hexdigest(),
            "view": view,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class FeatureBatches(Batches):
    """One split of ``FrozenFeatures``. rows: int64 [N], of the image cache; labels, augment: as for ``ImageBatches``,
    without "standard"."""

    def __init__(
        self, features: FrozenFeatures, rows: NDArray[np.int64], labels: NDArray[Any], augment: str = "none"
    ) -> None:
        assert len(rows) == len(labels)
        super().__init__(labels, features.device)
        self.stages = features.stages
        self.augment = augment
        self.positions = features.positions(rows)
        self._features = features
        self._rows: dict[int, Rows] = {}

    def _inputs(self, indices: NDArray[np.int64], augmentation: torch.Generator | None) -> Tensor:
        rows = self._take(0, indices)
        if augmentation is not None and self.augment == "flip":
            mirrored = np.flatnonzero(draw_mirrored(len(indices), augmentation).numpy())
            rows.index_copy_(0, on_device(mirrored, self.device), self._take(1, indices[mirrored]))
        return self._features.as_inputs(rows)

    def _take(self, view: int, indices: NDArray[np.int64]) -> Tensor:
        if view not in self._rows:
            self._features.compute({view: self.positions})
            self._rows[view] = self._features.rows(view, self.positions)
        return self._rows[view].take(indices)


def _bf16_products() -> list[str]:
    """This CPU's bf16 instructions: each gives other last bits, and different nodes may share the cache's folder."""
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every supported torch
    return [name for name in ("amx_bf16", "avx512_bf16") if known.get(name)]


def _stored(features: Tensor, form: RowForm) -> NDArray[Any]:
    if form.meaning.endswith("channels_last"):
        features = features.permute(0, 2, 3, 1)
    features = features.contiguous().cpu()
    return (features.view(torch.int16) if features.dtype == torch.bfloat16 else features).numpy()
