"""best.onnx, as a program without torch would use it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search_spaces.params import TrialParams
from trainables.export import ModelFacts, plain_network
from trainables.finetune import build_model
from trainables.onnx_export import OnnxDisagreesError, write_onnx
from trainables.weights import FoundWeights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import onnxruntime

SIZE = 48
CLASSES = ("covid", "Lungenentzündung")


pytestmark = pytest.mark.usefixtures("one_thread")


def network_and_facts(backbone: str, task: str) -> tuple[nn.Module, ModelFacts]:
    params = TrialParams(backbone=backbone, head_widths=(8,), dropout=0.5)
    model = build_model(params, 2, FoundWeights(backbone=backbone, origin="random"), SIZE, seed=3).eval()
    facts = ModelFacts(
        backbone=backbone,
        params=params.to_flat(),
        task=task,
        classes=CLASSES,
        image_size=SIZE,
        channels=1,
        fit="pad",
        thresholds={"covid": 0.25, "Lungenentzündung": 0.5} if task == "multi_label" else None,
        trial="t0003",
        seed=None,
        epoch=4,
        code=None,
    )
    return plain_network(model), facts


def session_of(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("backbone", "task"), [("squeezenet1_1", "single_label"), ("vgg16", "multi_label")])
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


def test_the_file_says_what_its_numbers_mean(tmp_path: Path) -> None:
    network, facts = network_and_facts("squeezenet1_1", "multi_label")
    write_onnx(tmp_path / "best.onnx", network, facts)
    said = session_of(tmp_path / "best.onnx").get_modelmeta().custom_metadata_map
    read = {name: json.loads(text) for name, text in said.items()}
    assert read["classes"] == ["covid", "Lungenentzündung"]
    assert read["thresholds"] == {"covid": 0.25, "Lungenentzündung": 0.5}
    assert (read["image_size"], read["fit"], read["channels"]) == (SIZE, "pad", 1)
    assert read["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert read["std"] == pytest.approx([0.229, 0.224, 0.225])


class Noisy(nn.Module):
    """No two answers of it agree."""

    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3))[:, :2] + torch.randn(image.shape[0], 2)


def test_a_file_that_disagrees_is_not_kept(tmp_path: Path) -> None:
    _, facts = network_and_facts("squeezenet1_1", "single_label")
    with pytest.raises(OnnxDisagreesError, match="differ from torch's by up to"):
        write_onnx(tmp_path / "best.onnx", Noisy(), facts)
    assert list(tmp_path.iterdir()) == []
