from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from trainables.backbones import BACKBONES
from trainables.checkpoints import batchnorm_state, load_network

TENSORS = {"squeezenet1_1": 52, "mobilenet_v2": 314, "densenet121": 727}


pytestmark = pytest.mark.usefixtures("one_thread")


def state_of(backbone: str) -> dict[str, Tensor]:
    return BACKBONES[backbone].network().state_dict()


def named_by_hash(folder: Path, backbone: str, content: bytes) -> Path:
    path = folder / f"{backbone}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path


def saved(folder: Path, backbone: str, value: Any, **options: Any) -> Path:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return named_by_hash(folder, backbone, buffer.getvalue())


def refusal(path: Path, backbone: str) -> str:
    with pytest.raises(UserError) as caught:
        load_network(path, BACKBONES[backbone])
    (problem,) = caught.value.problems
    assert str(path) in problem
    return problem


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_fills_every_tensor_of_the_network(tmp_path: Path, zipped: bool) -> None:
    state = state_of("squeezenet1_1")
    path = saved(tmp_path, "squeezenet1_1", state, _use_new_zipfile_serialization=zipped)
    network = load_network(path, BACKBONES["squeezenet1_1"])
    assert len(state) == TENSORS["squeezenet1_1"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_half_precision_checkpoints_become_float32(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in state_of("squeezenet1_1").items()}
    network = load_network(saved(tmp_path, "squeezenet1_1", state), BACKBONES["squeezenet1_1"])
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}


def test_densenets_old_names_are_renamed_and_missing_counters_filled_in(tmp_path: Path) -> None:
    state = state_of("densenet121")
    old = {}
    for name, tensor in state.items():
        for kind in ("norm", "relu", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        if not name.endswith("num_batches_tracked"):
            old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    network = load_network(saved(tmp_path, "densenet121", old), BACKBONES["densenet121"])
    assert len(state) == TENSORS["densenet121"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "squeezenet1_1-01234567.pth", "squeezenet1_1")


def test_a_changed_file_does_not_match_its_name_even_if_it_was_right_before(tmp_path: Path) -> None:
    path = saved(tmp_path, "squeezenet1_1", state_of("squeezenet1_1"))
    load_network(path, BACKBONES["squeezenet1_1"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    problem = refusal(path, "squeezenet1_1")
    assert hashlib.sha256(content).hexdigest()[:8] in problem
    assert path.stem[-8:] in problem


def test_a_file_without_a_hash_in_its_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(state_of("squeezenet1_1"), path)
    with pytest.raises(UserError, match="first 8 digits of its SHA-256"):
        load_network(path, BACKBONES["squeezenet1_1"])


@pytest.mark.parametrize(
    "content",
    [b"hello world\n", b"", b"<html>404</html>", b"PK\x03\x04 truncated", pickle.dumps({"a": 1})],
    ids=["text", "empty", "html", "zip", "pickle"],
)
def test_a_file_that_is_no_checkpoint_is_called_that(tmp_path: Path, content: bytes) -> None:
    problem = refusal(named_by_hash(tmp_path, "squeezenet1_1", content), "squeezenet1_1")
    assert "no PyTorch checkpoint" in problem or "not a network's state_dict" in problem


def test_a_truncated_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    whole = saved(tmp_path, "squeezenet1_1", state_of("squeezenet1_1")).read_bytes()
    path = named_by_hash(tmp_path, "squeezenet1_1", whole[: len(whole) // 2])
    assert "truncated" in refusal(path, "squeezenet1_1")


@pytest.mark.parametrize("value", [torch.zeros(3), {}, {"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, [1]])
def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path: Path, value: Any) -> None:
    assert "not a network's state_dict()" in refusal(saved(tmp_path, "squeezenet1_1", value), "squeezenet1_1")


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path, how: str) -> None:
    trace = tmp_path / "ran"
    value = {"weight": torch.zeros(1), "code": Touch(trace)}
    if how == "pickle":
        path = named_by_hash(tmp_path, "squeezenet1_1", pickle.dumps(Touch(trace), protocol=2))
    else:
        path = saved(tmp_path, "squeezenet1_1", value, _use_new_zipfile_serialization=how == "zip")
    assert "could run code" in refusal(path, "squeezenet1_1")
    assert not trace.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the file was harmless, so the test shows nothing"


def test_a_whole_saved_module_is_refused(tmp_path: Path) -> None:
    assert "state_dict() alone" in refusal(saved(tmp_path, "squeezenet1_1", nn.Linear(2, 2)), "squeezenet1_1")


def test_another_network_is_called_by_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path, "mobilenet_v2", state_of("resnet18"))
    assert "holds resnet18, not mobilenet_v2" in refusal(path, "mobilenet_v2")
    path = saved(tmp_path, "squeezenet1_1", state_of("squeezenet1_0"))
    assert "holds squeezenet1_0, not squeezenet1_1" in refusal(path, "squeezenet1_1")


def test_a_network_that_differs_is_told_by_what_differs(tmp_path: Path) -> None:
    state = state_of("squeezenet1_1")
    state["classifier.1.weight"] = torch.zeros(3, 512, 1, 1)
    problem = refusal(saved(tmp_path, "squeezenet1_1", state), "squeezenet1_1")
    assert "classifier.1.weight has shape [3, 512, 1, 1] instead of [1000, 512, 1, 1]" in problem
    state = {f"module.{name}": tensor for name, tensor in state_of("squeezenet1_1").items()}
    problem = refusal(saved(tmp_path, "squeezenet1_1", state), "squeezenet1_1")
    assert "52 tensors are missing, the first features.0.weight" in problem
    assert "52 have no place in it, the first module.features.0.weight" in problem


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = state_of("squeezenet1_1")
    state["features.3.squeeze.bias"][2] = float("nan")
    problem = refusal(saved(tmp_path, "squeezenet1_1", state), "squeezenet1_1")
    assert "not finite in 1 tensors, the first features.3.squeeze.bias" in problem


def test_batchnorm_without_statistics_is_counted() -> None:
    network = BACKBONES["mobilenet_v2"].network()
    assert batchnorm_state(network) == (52, 52)
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    layers[0].running_mean[0] = 0.1
    layers[1].running_var[0] = 1.1
    assert batchnorm_state(network) == (50, 52)
    assert batchnorm_state(BACKBONES["squeezenet1_1"].network()) == (0, 0)
