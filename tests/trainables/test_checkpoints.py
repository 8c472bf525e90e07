"""Weights in the shapes in which people publish them: read as the network they are, or refused with what is wrong."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables.backbones import BACKBONES
from trainables.batches import InputScale
from trainables.checkpoints import load_trunk
from trainables.export import ModelFacts, plain_network, write_model
from trainables.finetune import build_model
from trainables.weights import FoundWeights

pytestmark = pytest.mark.usefixtures("one_thread")

State = dict[str, Tensor]


def state_of(backbone: str) -> State:
    return BACKBONES[backbone].network().state_dict()


def trunk_of(backbone: str, state: State) -> State:
    """Without torchvision's classifier."""
    return {
        name: state[name] for name in BACKBONES[backbone].drop_classifier(BACKBONES[backbone].network()).state_dict()
    }


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def positional(backbone: str, state: State) -> State:
    """As ``nn.Sequential(*children)`` of torchvision's network names its tensors, without the classifier."""
    children = dict(BACKBONES[backbone].network().named_children())
    parts = nn.Sequential(*[child for name, child in children.items() if name not in BACKBONES[backbone].dropped])
    ours = [name for name in state if not name.startswith(tuple(f"{part}." for part in BACKBONES[backbone].dropped))]
    return dict(zip(parts.state_dict(), (state[name] for name in ours), strict=True))


def old_densenet(state: State) -> State:
    """torchvision's first names, without BatchNorm's counters."""
    names = {name: name for name in state if not name.endswith("num_batches_tracked")}
    for kind in ("norm", "conv"):
        for number in "12":
            for name in names:
                if "denselayer" in name:
                    names[name] = names[name].replace(f".{kind}{number}.", f".{kind}.{number}.")
    assert "features.denseblock1.denselayer1.norm.1.weight" in names.values()
    return {old: state[name] for name, old in names.items()}


def torchxrayvision(state: State) -> State:
    """One channel, 18 findings, and a buffer of thresholds."""
    changed = {"features.conv0.weight": state["features.conv0.weight"].sum(1, keepdim=True)}
    head = {"classifier.weight": torch.zeros(18, 1024), "classifier.bias": torch.zeros(18)}
    return state | changed | head | {"op_threshs": torch.zeros(18)}


ENCODER = "its names begin with encoder."
POSITIONS = "its names are positions in nn.Sequential(*network.children())"
SHAPES: dict[str, tuple[str, Callable[[State], Any], tuple[str, ...], tuple[str, ...]]] = {
    # what it is: the backbone, how its state_dict is published, what was done, what was ignored
    "plain": ("resnet18", lambda state: state, (), ("fc.weight", "fc.bias")),
    "features alone": (
        "squeezenet1_1",
        lambda state: {n.removeprefix("features."): t for n, t in state.items() if n.startswith("features.")},
        ("its names lack features.",),
        (),
    ),
    "another classifier": (
        "squeezenet1_1",
        lambda state: state | {"classifier.1.weight": torch.zeros(3, 512, 1, 1)},
        (),
        ("classifier.1.weight", "classifier.1.bias"),
    ),
    "state_dict": (
        "squeezenet1_1",
        lambda state: {"epoch": 3, "state_dict": state, "arch": "squeezenet", "optimizer": {"state": {0: {"step": 1}}}},
        ("its names begin with state_dict.",),
        ("state_dict.classifier.1.weight", "state_dict.classifier.1.bias"),
    ),
    "model in net": (
        "squeezenet1_1",
        lambda state: {"net": {"model": trunk_of("squeezenet1_1", state)}, "optimizer": {"state": {0: torch.zeros(2)}}},
        ("its names begin with net.model.",),
        ("optimizer.state.0",),
    ),
    "Lightning": (
        "squeezenet1_1",
        lambda state: {
            "pytorch-lightning_version": "2.4.0",
            "state_dict": under("model.net.", trunk_of("squeezenet1_1", state)) | {"criterion.weight": torch.ones(3)},
            "hyper_parameters": {"lr": 0.1},
        },
        ("its names begin with state_dict.model.net.",),
        ("state_dict.criterion.weight",),
    ),
    "DataParallel": (
        "squeezenet1_1",
        lambda state: under("module.", trunk_of("squeezenet1_1", state)),
        ("its names begin with module.",),
        (),
    ),
    "encoder of a larger network": (
        "squeezenet1_1",
        lambda state: under("encoder.", trunk_of("squeezenet1_1", state)) | {"projector.0.weight": torch.zeros(4, 4)},
        (ENCODER,),
        ("projector.0.weight",),
    ),
    "RadImageNet": (
        "resnet18",
        lambda state: under("backbone.", positional("resnet18", state)),
        ("its names begin with backbone.", POSITIONS),
        (),
    ),
    "RadImageNet's DenseNet": (
        "densenet121",
        lambda state: under("backbone.", positional("densenet121", state)),
        ("its names begin with backbone.", POSITIONS),
        (),
    ),
    "positions in features": (
        "densenet121",
        lambda state: nn.Sequential(*filled("densenet121", state).get_submodule("features").children()).state_dict(),
        ("its names are positions in nn.Sequential(*network.features.children())",),
        (),
    ),
    "old DenseNet": ("densenet121", old_densenet, (), ("classifier.weight", "classifier.bias")),
    "TorchXRayVision": (
        "densenet121",
        torchxrayvision,
        ("features.conv0.weight has one channel: it was repeated to three and divided by 3",),
        ("classifier.weight", "classifier.bias", "op_threshs"),
    ),
    "half precision": (
        "squeezenet1_1",
        lambda state: {n: t.half() for n, t in state.items()},
        (),
        ("classifier.1.weight", "classifier.1.bias"),
    ),
    "equal copies": (
        "squeezenet1_1",
        lambda state: {"model": trunk_of("squeezenet1_1", state), "best": trunk_of("squeezenet1_1", state)},
        ("its names begin with model.",),
        tuple(f"best.{name}" for name in trunk_of("squeezenet1_1", state_of("squeezenet1_1"))),
    ),
}


def filled(backbone: str, state: State) -> nn.Module:
    network = BACKBONES[backbone].network()
    network.load_state_dict(state)
    return network


@pytest.mark.parametrize("shape", SHAPES)
def test_a_network_is_found_in_whatever_it_is_wrapped(shape: str, tmp_path: Path) -> None:
    backbone, publish, done, ignored = SHAPES[shape]
    state = state_of(backbone)
    content = publish(state)
    paths = [saved(tmp_path, content)]
    if all(isinstance(value, Tensor) for value in content.values()):
        paths.append(tmp_path / "weights.safetensors")
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in content.items()}, paths[1])
    wanted = trunk_of(backbone, state)
    for path in paths:
        loaded = load_trunk(path, BACKBONES[backbone])
        assert loaded.done == done
        assert set(loaded.ignored) == set(ignored)
        got = loaded.trunk.state_dict()
        assert list(got) == list(wanted)
        assert {tensor.dtype for tensor in got.values()} <= {torch.float32, torch.int64}
        for name, tensor in got.items():
            if shape == "TorchXRayVision" and name == "features.conv0.weight":
                # A gray image has equal channels: three thirds of the kernel give what the one gave.
                torch.testing.assert_close(tensor.sum(1), wanted[name].sum(1))
                assert torch.equal(tensor[:, 0], tensor[:, 2])
            else:
                assert torch.equal(tensor, wanted[name].half() if shape == "half precision" else wanted[name]), name


def test_our_own_best_pt_is_a_file_of_weights(tmp_path: Path) -> None:
    params = TrialParams(backbone="squeezenet1_1", head_widths=(8,))
    model = build_model(params, 2, FoundWeights(backbone="squeezenet1_1", origin="random"), 64, seed=1).eval()
    facts = ModelFacts(
        backbone="squeezenet1_1",
        params=params.to_flat(),
        task="single_label",
        classes=("a", "b"),
        image_size=64,
        channels=1,
        fit="pad",
        thresholds=None,
        trial="t0003",
        seed=None,
        epoch=4,
        code=None,
    )
    wanted = {name: tensor.clone() for name, tensor in model.trunk.state_dict().items()}
    write_model(tmp_path / "best.pt", plain_network(model), facts)
    loaded = load_trunk(tmp_path / "best.pt", BACKBONES["squeezenet1_1"])
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.trunk.state_dict().items())
    assert all(name.startswith("state_dict.classifier.") for name in loaded.ignored)
    assert loaded.own_classifier
    assert loaded.scale == InputScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_position_embeddings_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    """The corners, and the class token's, stay what they were; at 224 px nothing is to be done."""
    with torch.device("meta"):
        state = state_of("vit_b_16")
    state = {name: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape) for name, tensor in state.items()}
    held = state["encoder.pos_embedding"] = torch.randn(1, 197, 768, generator=torch.Generator().manual_seed(0))
    path = saved(tmp_path, state)
    loaded = load_trunk(path, BACKBONES["vit_b_16"], 64)
    got = loaded.trunk.get_parameter("encoder.pos_embedding")
    assert got.shape == (1, 17, 768)
    torch.testing.assert_close(got[0, [0, 1, 4, 13, 16]], held[0, [0, 1, 14, 183, 196]])
    assert loaded.done == ("encoder.pos_embedding was interpolated from 14 x 14 to 4 x 4 patches",)
    unchanged = load_trunk(path, BACKBONES["vit_b_16"], 224)
    assert torch.equal(unchanged.trunk.get_parameter("encoder.pos_embedding"), held)
    assert unchanged.done == ()


def saved(folder: Path, value: Any, **options: Any) -> Path:
    torch.save(value, folder / "weights.pt", **options)
    return folder / "weights.pt"


def refusal(path: Path, backbone: str) -> str:
    with pytest.raises(UserError) as caught:
        load_trunk(path, BACKBONES[backbone])
    (problem,) = caught.value.problems
    assert str(path) in problem
    return problem


def test_what_is_missing_is_named_ten_at_most(tmp_path: Path) -> None:
    problem = refusal(saved(tmp_path, {"a": torch.zeros(1)}), "squeezenet1_1")
    assert "50 tensors are missing: features.0.weight, features.0.bias, " in problem
    assert " and 40 more" in problem
    state = under("module.", trunk_of("resnet18", state_of("resnet18")))
    del state["module.layer4.1.conv2.weight"]
    state["module.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    problem = refusal(saved(tmp_path, state), "resnet18")
    assert "1 tensors are missing: layer4.1.conv2.weight" in problem
    assert "conv1.weight has shape [64, 4, 7, 7] instead of [64, 3, 7, 7]" in problem


def test_another_network_is_called_by_its_name(tmp_path: Path) -> None:
    assert "contains resnet18, not mobilenet_v2" in refusal(saved(tmp_path, state_of("resnet18")), "mobilenet_v2")
    path = saved(tmp_path, {"state_dict": under("module.", state_of("squeezenet1_0"))})
    assert "contains squeezenet1_0, not squeezenet1_1" in refusal(path, "squeezenet1_1")


@pytest.mark.parametrize(
    "wrapped", [lambda state: state, lambda state: under("backbone.", positional("resnet34", state))]
)
def test_a_larger_network_of_the_same_kind_is_not_loaded_in_part(
    wrapped: Callable[[State], State], tmp_path: Path
) -> None:
    """Each tensor of ResNet-18 has a namesake of its shape in ResNet-34."""
    assert "contains resnet34, not resnet18" in refusal(saved(tmp_path, wrapped(state_of("resnet34"))), "resnet18")


def test_more_blocks_than_the_trunk_has_are_named(tmp_path: Path) -> None:
    state = state_of("convnext_tiny")
    state |= {
        name.replace("features.5.8.", "features.5.9."): tensor for name, tensor in state.items() if "5.8." in name
    }
    problem = refusal(saved(tmp_path, state), "convnext_tiny")
    assert "9 are unexpected: features.5.9.layer_scale, " in problem


def test_two_networks_in_one_file_are_not_chosen_between(tmp_path: Path) -> None:
    student, teacher = state_of("squeezenet1_1"), state_of("squeezenet1_1")
    teacher["features.0.weight"] = teacher["features.0.weight"] + 1
    problem = refusal(saved(tmp_path, {"student": student, "teacher": teacher}), "squeezenet1_1")
    assert "has several squeezenet1_1 that differ (student., teacher.)" in problem


def test_batchnorm_without_statistics_is_missing_them(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in state_of("resnet18").items() if "running" not in name}
    assert "40 tensors are missing: bn1.running_mean, bn1.running_var, " in refusal(saved(tmp_path, state), "resnet18")


def quantised(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "int8": (lambda tensor: tensor.to(torch.int8), "int8"),
    "sparse": (lambda tensor: tensor.to_sparse(), "sparse"),
    "compressed": (lambda tensor: tensor.flatten(1).to_sparse_csr(), "sparse"),
    "meta": (lambda tensor: tensor.to("meta"), "without values"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "complex64"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*KINDS, "quantised"])
def test_what_is_no_plain_float_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    change, says = KINDS.get(kind, (quantised, "quantised"))
    state = state_of("squeezenet1_1")
    state["features.0.weight"] = change(state["features.0.weight"])
    problem = refusal(saved(tmp_path, {"state_dict": state}), "squeezenet1_1")
    assert f"features.0.weight is {says}" in problem or (says in problem and "features.0.weight" in problem)
    assert "must be plain float tensors" in problem


def test_a_value_that_is_repeated_in_the_file_becomes_a_tensor_that_can_train(tmp_path: Path) -> None:
    state = state_of("squeezenet1_1")
    state["features.0.bias"] = torch.ones(1).expand(64)
    state["features.3.squeeze.bias"] = state["features.4.squeeze.bias"] = torch.zeros(16)
    trunk = load_trunk(saved(tmp_path, state), BACKBONES["squeezenet1_1"]).trunk
    with torch.no_grad():
        trunk.get_parameter("features.0.bias")[0] = 5
        trunk.get_parameter("features.3.squeeze.bias").add_(1)
    assert trunk.get_parameter("features.0.bias")[1] == 1
    assert trunk.get_parameter("features.4.squeeze.bias").sum() == 0


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = state_of("squeezenet1_1")
    state["features.3.squeeze.bias"][2] = float("nan")
    problem = refusal(saved(tmp_path, state), "squeezenet1_1")
    assert "NaN or infinite values in 1 tensors: features.3.squeeze.bias" in problem


def itself() -> dict[str, Any]:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    return endless


@pytest.mark.parametrize(
    "value",
    [torch.zeros(3), {}, {"epoch": 3}, [1], None, itself(), {0: {1: None}}],
    ids=["tensor", "empty", "numbers", "list", "none", "itself", "integer keys"],
)
def test_a_checkpoint_without_named_tensors_is_called_that(tmp_path: Path, value: Any) -> None:
    assert "no named tensors" in refusal(saved(tmp_path, value), "squeezenet1_1")


def test_integer_keys_are_names_like_others(tmp_path: Path) -> None:
    assert "tensors are missing" in refusal(saved(tmp_path, {0: torch.zeros(3), 1: torch.zeros(2)}), "squeezenet1_1")


def test_dicts_may_lie_hundreds_deep(tmp_path: Path) -> None:
    nested: Any = torch.zeros(1)
    for _ in range(300):
        nested = {"a": nested}
    assert "no named tensors" in refusal(saved(tmp_path, nested), "squeezenet1_1")


@pytest.mark.parametrize(
    "content",
    [b"hello world\n", b"", b"<html>404</html>", b"PK\x03\x04 truncated", b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": tru'],
    ids=["text", "empty", "html", "zip", "safetensors"],
)
def test_a_file_that_is_no_checkpoint_is_called_that(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    assert "not a PyTorch or safetensors checkpoint" in refusal(tmp_path / "weights.pt", "squeezenet1_1")


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_truncated_checkpoint_is_no_checkpoint(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, state_of("squeezenet1_1"))
    if kind == "safetensors":
        safetensors.torch.save_file(state_of("squeezenet1_1"), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in refusal(path, "squeezenet1_1")


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "gone.pt", "squeezenet1_1")
    assert "Is a directory" in refusal(tmp_path, "squeezenet1_1")
    assert "File name too long" in refusal(tmp_path / ("a" * 300), "squeezenet1_1")


class Touch:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path, how: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / "weights.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Touch(trace), protocol=2))
    else:
        value = {"weight": torch.zeros(1), "code": Touch(trace)}
        saved(tmp_path, value, _use_new_zipfile_serialization=how == "zip")
    assert "could run code" in refusal(path, "squeezenet1_1")
    assert not trace.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the file was harmless, so the test shows nothing"


def test_a_whole_saved_module_is_refused(tmp_path: Path) -> None:
    """As TorchXRayVision publishes its own."""
    assert "only the network's state_dict()" in refusal(saved(tmp_path, nn.Linear(2, 2)), "squeezenet1_1")


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_called_that(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    (tmp_path / "weights.pt").write_bytes(buffer.getvalue())
    assert "is a TorchScript program" in refusal(tmp_path / "weights.pt", "squeezenet1_1")


def test_the_old_form_of_torch_save_is_read(tmp_path: Path) -> None:
    state = state_of("squeezenet1_1")
    trunk = load_trunk(saved(tmp_path, state, _use_new_zipfile_serialization=False), BACKBONES["squeezenet1_1"]).trunk
    assert all(torch.equal(tensor, state[name]) for name, tensor in trunk.state_dict().items())
