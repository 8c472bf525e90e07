"""Inference with a run's model: image files in, probabilities and decisions out."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from search_spaces.errors import UserError, gathered, raise_all
from search_spaces.paths import unreachable
from sweep.machine import available_cpus
from sweep.records import read_model_record, read_sweep
from sweep.run_folder import ModelPaths, RunPaths
from trainables.attribution import grad_cam, maps_of
from trainables.backbones import BACKBONES
from trainables.batches import normalise
from trainables.data.image import (
    PREPROCESSING_VERSION,
    ImageStats,
    Pixels,
    Prepared,
    in_order,
    prepare_image,
    quiet_decoders,
)
from trainables.engine import EVALUATION_BATCH, map_batches, set_up_cpu
from trainables.export import ModelFacts, read_model
from trainables.losses import probabilities_of
from trainables.maps import overlay
from trainables.metrics import decide


def open_model(place: Path, device: str, problems: Sequence[str] = ()) -> Predictor:
    """The model of a run folder, or in a ``best.pt``. device: "cpu", "cuda", or "auto", a GPU if there is one.

    Raises ``UserError`` if it cannot be used, together with the ``problems`` found before.
    """
    found = list(problems)
    with gathered(found):
        path = _model_file(place)
    raise_all([*dict.fromkeys(found)])
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no GPU: omit it, or give --device cpu")
    chosen = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    set_up_cpu(min(torch.get_num_threads(), available_cpus()))  # torch ignores the CPU quota of a container.
    network, facts = read_model(path)
    with _failure_told(chosen):
        return Predictor(network, facts, path, chosen)


def _model_file(place: Path) -> Path:
    """The ``best.pt`` that ``place`` means, a run folder or the file itself; ``UserError`` if there is none."""
    if why := unreachable(place):
        raise UserError(f"RUN {why}")
    if os.path.isfile(place):
        return place
    if not os.path.lexists(place):
        raise UserError(f"{place}: no such folder or file: give <storage>/<name> of a sweep, or its models/best.pt")
    paths = RunPaths(place)
    read_sweep(paths, [])
    read_model_record(paths, [])  # another format is reported before best.pt is unpickled
    path = ModelPaths(paths.models).model
    if not path.is_file():
        now = f"python -m sweep.model {shlex.quote(str(place))} creates it now"
        raise UserError(f"{place} has no models/best.pt: a sweep writes it at its end; {now}")
    return path


@contextlib.contextmanager
def _failure_told(device: torch.device) -> Iterator[None]:
    """Raise ``UserError`` for a GPU that is full, too old for this torch, or gone: when loading or when computing."""
    try:
        yield
    except RuntimeError as error:
        if device.type == "cpu":
            raise
        raise UserError(f"the GPU cannot be used ({str(error).splitlines()[0]}): give --device cpu") from error


@dataclass(frozen=True)
class Prediction:
    """The result for one image. file: its path or its pixels. image: its facts, with the reason if it cannot be read.

    probability: float32 [C], None if the file cannot be read. coloured: a colour image that was converted to gray, as
    the model was trained on gray images. under_maps: if requested, by decided class, the network's input under the
    attribution map of that class, uint8 [S, S, 3].
    """

    file: Path | Pixels
    image: ImageStats
    probability: NDArray[np.float32] | None
    coloured: bool = False
    under_maps: Mapping[str, Pixels] = field(default_factory=dict)


class Predictor:
    """The network of a ``best.pt`` in eval mode, in float32, on ``device``."""

    def __init__(self, network: nn.Module, facts: ModelFacts, path: Path, device: torch.device) -> None:
        self.facts = facts
        self.path = path
        self._device = device
        self._network = network.to(memory_format=torch.channels_last).to(device)

    @property
    def title(self) -> str:
        """One line about the model."""
        facts = self.facts
        return f"{self.path}: {facts.trial}, {facts.backbone} at {facts.image_size} px. Not for clinical use."

    @property
    def warning(self) -> str | None:
        """Set if the model's training images were decoded by another version than images are now, as far as known."""
        trained_with = self.facts.preprocessing
        if trained_with in (None, PREPROCESSING_VERSION):
            return None
        return (
            f"The model was trained on images of preprocessing version {trained_with}, and this version of the project "
            f"has {PREPROCESSING_VERSION}: scores may differ from those of its report; use the version that trained it."
        )

    def map_grid(self) -> tuple[int, int]:
        """Positions down and across of its attribution maps."""
        with _failure_told(self._device):
            nothing = torch.zeros(1, 3, self.facts.image_size, self.facts.image_size, device=self._device)
            wanted = torch.zeros(1, len(self.facts.classes), dtype=torch.bool, device=self._device)
            down, across = grad_cam(self._network, BACKBONES[self.facts.backbone], nothing, wanted).shape[1:]
        return down, across

    def predict(
        self, files: Sequence[Path | Pixels], batch_size: int | None = None, *, maps: bool = False
    ) -> Iterator[Prediction]:
        """Read and predict ``files``, or pixels uint8 [H, W] or [H, W, 3], in order; continues after unreadable ones.

        batch_size: images per batch, by default 32 (256 on a GPU); some more are decoded ahead. maps: also draw
        ``under_maps``, for a ``map_grid`` of ``SMALLEST_GRID`` positions a side or more.
        """
        size = batch_size or EVALUATION_BATCH[self._device.type]
        batch: list[tuple[Path | Pixels, Prepared]] = []
        for one in self._read(files, ahead=size):
            batch.append(one)
            if len(batch) == size:
                yield from self._predictions(batch, maps)
                batch = []
        yield from self._predictions(batch, maps)

    def decide(self, probability: NDArray[np.float32]) -> tuple[str, ...]:
        """The decision of ``metrics.decide`` on one image, float32 [C]: one class, or any number of labels."""
        facts = self.facts
        decided = decide(probability, facts.task, facts.classes, facts.thresholds)
        if facts.task == "single_label":
            return (facts.classes[int(decided)],)
        return tuple(itertools.compress(facts.classes, decided))

    def _read(self, files: Sequence[Path | Pixels], ahead: int) -> Iterator[tuple[Path | Pixels, Prepared]]:
        """Decode each file, in order, ``ahead`` of them in advance while the network computes."""
        read = partial(prepare_image, size=self.facts.image_size, fit=self.facts.fit)
        with quiet_decoders(), ThreadPoolExecutor(available_cpus()) as pool:
            yield from zip(files, in_order(pool, read, files, ahead + 1), strict=True)

    def _predictions(self, read: Sequence[tuple[Path | Pixels, Prepared]], maps: bool) -> Iterator[Prediction]:
        images = [self._planes(prepared.square) for _, prepared in read if prepared.square is not None]
        drawn: list[dict[str, Pixels]] = [{} for _ in images]
        with _failure_told(self._device):
            probabilities = self._probabilities(images)
            if maps and images:
                drawn = self._under_maps(images, probabilities)
        found = zip(probabilities, drawn, strict=True)
        for file, prepared in read:
            if prepared.square is None:
                yield Prediction(file, prepared.stats, None)
            else:
                coloured = self.facts.channels == 1 and prepared.square.ndim == 3
                probability, under_maps = next(found)
                yield Prediction(file, prepared.stats, probability, coloured, under_maps)

    def _under_maps(self, images: Sequence[Pixels], probabilities: NDArray[np.float32]) -> list[dict[str, Pixels]]:
        """``Prediction.under_maps`` of each of ``images``, which are uint8 [C, S, S]."""
        decided = [self.decide(probability) for probability in probabilities]
        wanted = np.array([[name in names for name in self.facts.classes] for names in decided])
        inputs = partial(self._inputs, images)
        maps = iter(maps_of(self._network, BACKBONES[self.facts.backbone], inputs, wanted, len(images)))
        squares = (image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in images)
        return [
            {name: overlay(square, next(maps)) for name in names}
            for square, names in zip(squares, decided, strict=True)
        ]

    def _planes(self, square: Pixels) -> Pixels:
        """uint8 [C, S, S], with as many channels C as the model was trained on."""
        if self.facts.channels == 1:
            return np.array(Image.fromarray(square).convert("L"))[None]
        return np.stack([square] * 3) if square.ndim == 2 else np.ascontiguousarray(square.transpose(2, 0, 1))

    def _inputs(self, images: Sequence[Pixels], indices: NDArray[np.int64]) -> Tensor:
        some = np.stack([images[index] for index in indices])
        return normalise(torch.from_numpy(some).to(self._device), self.facts.scale)

    def _probabilities(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """float32 [B, C]; computed in smaller and smaller parts if GPU memory does not suffice."""

        def of(indices: NDArray[np.int64]) -> Tensor:
            return probabilities_of(self._network(self._inputs(images, indices)), self.facts.task).cpu()

        parts = map_batches(of, len(images), len(images))
        return torch.cat([torch.zeros(0, len(self.facts.classes)), *parts]).numpy()
