"""A model as ``best.onnx``, for programs that have neither Python nor torch."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainables.atomic import write_atomically
from trainables.export import ModelFacts

AGREES_WITHIN = 1e-4
"""The most that a probability of onnxruntime may lie from torch's."""


class OnnxDisagreesError(Exception):
    """The exported network gives other probabilities than torch."""


def write_onnx(path: Path, network: nn.Module, facts: ModelFacts) -> float | None:
    """Write the network with its softmax or sigmoid inside.

    network: on the CPU, float32, in eval mode, from images to logits. Input "image": float32 [batch, 3, S, S],
    normalised by ``mean`` and ``std``; output "probability": float32 [batch, C]. ``classes``, ``mean``, ``std``,
    ``image_size``, ``fit``, ``channels``, ``task`` and ``thresholds`` are in the file's metadata, as JSON.
    Returns the largest difference from torch that onnxruntime gave on noise, None where it is not installed. Raises
    ImportError (onnx or onnxscript is not installed), OnnxDisagreesError, or what torch's exporter raises.
    """
    whole = _WithProbabilities(network, facts.task).eval()
    example = torch.zeros(2, 3, facts.image_size, facts.image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own inner workings
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            program = torch.onnx.export(
                whole,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["image"],
                output_names=["probability"],
                verbose=False,
            )
        finally:
            logging.disable(before)
    assert program is not None
    program.model.metadata_props.update(_metadata(facts))
    differences: list[float | None] = []

    def save(beside: Path) -> None:
        program.save(str(beside), external_data=False)
        differences.append(_difference(beside, whole, facts.image_size))

    write_atomically(path, save)
    return differences[0]


class _WithProbabilities(nn.Module):
    def __init__(self, network: nn.Module, task: str) -> None:
        super().__init__()
        self.network = network
        self.task = task

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits.softmax(dim=1) if self.task == "single_label" else logits.sigmoid()


def _metadata(facts: ModelFacts) -> dict[str, str]:
    names = ("classes", "mean", "std", "image_size", "fit", "channels", "task", "thresholds")
    return {name: json.dumps(getattr(facts, name), ensure_ascii=False) for name in names}


def _difference(path: Path, network: nn.Module, size: int) -> float | None:
    """On three images of noise, another number than the file was made with."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probability"], {"image": images.numpy()})
    with torch.inference_mode():
        difference = float(np.abs(found - network(images).numpy()).max())
    if not difference <= AGREES_WITHIN:
        raise OnnxDisagreesError(f"probabilities of onnxruntime differ from torch's by up to {difference:.2g}")
    return difference
