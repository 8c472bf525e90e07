"""A trained network as one file, ``best.pt``: complete, and with plain torchvision's names.

It can be used without this project: ``torchvision_lines`` is the whole program.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from search_spaces.errors import UserError
from search_spaces.params import Scalar, TrialParams
from trainables.atomic import FORMAT, check_format, write_atomically
from trainables.backbones import BACKBONES, Backbone
from trainables.batches import IMAGENET, InputScale
from trainables.checkpoints import read_checkpoint, write_checkpoint
from trainables.finetune import FineTunedModel, build_model, make_head
from trainables.metrics import OperatingPoint
from trainables.weights import FoundWeights

ONNX_AGREES_WITHIN = 1e-4
"""The largest allowed difference between probabilities of onnxruntime and torch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The content of ``best.pt`` besides the tensors: all that is needed to use them, and their origin.

    params: flat, as in params.json. image_size: side of the square, pixels; fit: how an image is made square; channels:
    1 if the network was trained on gray images only, else 3. mean, std: of the three channels, for pixels in [0, 1].
    thresholds: multi-label, the probability in [0, 1] from which a label counts as present (inclusive); single label,
    the one from which one class is predicted, else the likeliest of the others is; None = the likeliest class.
    operating_point: the source of one of the thresholds, if the user asked for it. ordered: the classes have an order,
    such as grades. trial: such as "t0007/seed_1001"; seed: its own, if it has one; epoch: its best, from 1. code: the
    commit that trained it, if known. preprocessing: the version of the image decoding, if known.
    """

    backbone: str
    params: dict[str, Scalar]
    task: str
    classes: tuple[str, ...]
    image_size: int
    channels: int
    fit: str
    thresholds: dict[str, float] | None
    trial: str
    seed: int | None
    epoch: int
    code: str | None
    mean: tuple[float, ...] = IMAGENET.mean
    std: tuple[float, ...] = IMAGENET.std
    ordered: bool = False
    operating_point: OperatingPoint | None = None
    preprocessing: int | None = None

    def __post_init__(self) -> None:
        names = tuple(self.thresholds or ())
        assert names == self.classes if self.task == "multi_label" else {*names} <= {*self.classes} and len(names) <= 1

    @property
    def scale(self) -> InputScale:
        """The scale of the network's inputs."""
        return InputScale(self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """As plain values; ``operating_point`` becomes a dict, which ``read_model`` turns back."""
        return dataclasses.asdict(self)


def restore(
    weights_path: Path, find: Callable[[str], FoundWeights]
) -> tuple[FineTunedModel, FoundWeights, dict[str, Any]]:
    """A trial's network at its best epoch, on the CPU, in eval mode; its starting weights; and the file's content.

    find: returns the starting weights of a backbone's trials. ``UserError`` if the trial's frozen layers differ from
    theirs, or if ``FinetuneTrial.save_best`` did not write the file.
    """
    content = _load(weights_path, {"trained", "frozen_sha256", "params", "task", "classes", "image_size", "epoch"})
    params = TrialParams.from_flat(content["params"])
    found = find(params.backbone)
    # The seed does not matter: it draws the head, or a random network, and the file has both.
    model = build_model(params, len(content["classes"]), found, content["image_size"], seed=0)
    model.load_trained_state(content["trained"])
    if model.frozen_sha256() != content["frozen_sha256"]:
        raise UserError(
            f"{weights_path} was trained on other frozen layers than those of {found.path or 'random weights'}: "
            "restore the starting weights that the sweep used"
        )
    return model.eval(), found, content


def plain_network(model: FineTunedModel) -> nn.Module:
    """torchvision's own network with our head where its classifier was: images [B, 3, S, S] -> logits [B, C].

    Do not use ``model`` afterwards: its trunk becomes that network. Its parts keep their mode (train or eval).
    """
    return _with_head(model.backbone, model.trunk, model.head)


def write_model(path: Path, network: nn.Module, facts: ModelFacts) -> None:
    """Write ``best.pt``: ``state_dict`` of a ``plain_network``, and the facts; read it with ``weights_only=True``."""
    content = {"format": FORMAT, "state_dict": dict(network.state_dict()), **facts.to_dict()}
    write_checkpoint(path, content)


def read_model(path: Path) -> tuple[nn.Module, ModelFacts]:
    """The network of ``write_model``, on the CPU, in eval mode. ``UserError`` if the file is damaged or not ours."""
    fields = {field.name for field in dataclasses.fields(ModelFacts)}
    later = {"ordered", "operating_point", "preprocessing"}  # which files of earlier versions lack
    content = _load(path, {"state_dict", *fields - later})
    check_format(content, path)
    known: dict[str, Any] = {name: content[name] for name in fields if name in content}
    if known.get("operating_point") is not None:
        known["operating_point"] = OperatingPoint(**known["operating_point"])
    # Earlier versions wrote lists, not tuples.
    known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
    facts = ModelFacts(**known)
    if facts.backbone not in BACKBONES:
        raise UserError(f"{path} contains a {facts.backbone}, which this version does not support")
    backbone = BACKBONES[facts.backbone]
    network = _with_head(backbone, backbone.empty_network(facts.image_size), _empty_head(facts))
    try:
        network.load_state_dict(content["state_dict"], assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{path} does not contain all of {facts.backbone}: {str(error).splitlines()[-1].strip()}"
        ) from None
    return network.requires_grad_(False).eval(), facts


def torchvision_lines(facts: ModelFacts) -> str:
    """A program that predicts image.png (8 bit, without transparency) as the sweep does, with torchvision alone."""
    backbone = BACKBONES[facts.backbone]
    modules = ", ".join(f"nn.{module!r}" for module in _head_in_place(backbone, _empty_head(facts)))
    *_, place = backbone.dropped[0].split(".")
    target = f"classifier[{place}]" if place.isdigit() else place
    size = ", ".join(f"{name}={value}" for name, value in backbone.size_arguments(facts.image_size).items())
    activation = "softmax(dim=1)" if facts.task == "single_label" else "sigmoid()"
    lines = [
        "import torch, torchvision",
        "from PIL import Image, ImageOps",
        "from torch import nn",
        "from torchvision.transforms.v2.functional import normalize, pil_to_tensor",
        "",
        'saved = torch.load("best.pt", weights_only=True)',
        f"model = torchvision.models.{facts.backbone}({size})",
        f"model.{target} = nn.Sequential({modules})",
        'model.load_state_dict(saved["state_dict"])',
        'image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")',
        *_resizing(facts.fit, facts.image_size),
        *(['image = image.convert("L").convert("RGB")'] if facts.channels == 1 else []),
        'inputs = normalize(pil_to_tensor(image) / 255, saved["mean"], saved["std"])',
        "with torch.inference_mode():",
        f"    probability = model.eval()(inputs[None]).{activation}[0]",
        'print(dict(zip(saved["classes"], probability.tolist())))',
    ]
    return "\n".join(lines) + "\n"


class OnnxDisagreesError(Exception):
    """The exported network gives other probabilities than torch."""


def write_onnx(path: Path, network: nn.Module, facts: ModelFacts) -> float | None:
    """Write the network, with its softmax or sigmoid, as ONNX.

    network: on the CPU, float32, in eval mode, from images to logits. Input "image": float32 [batch, 3, S, S],
    normalised by ``mean`` and ``std``; output "probability": float32 [batch, C]. ``classes``, ``mean``, ``std``,
    ``image_size``, ``fit``, ``channels``, ``task`` and ``thresholds`` are in the file's metadata, as JSON.
    Returns the largest difference between onnxruntime and torch on noise, None if onnxruntime is not installed. Raises
    ImportError (onnx or onnxscript is not installed), OnnxDisagreesError, or what torch's exporter raises.
    """
    probabilities = nn.Softmax(dim=1) if facts.task == "single_label" else nn.Sigmoid()
    whole = nn.Sequential(network, probabilities).eval()
    for module in whole.modules():
        if hasattr(module, "inplace"):  # The exporter takes twice as long for in-place activations.
            module.inplace = False  # type: ignore[assignment]
    example = torch.zeros(2, 3, facts.image_size, facts.image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own internals
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
    for name in ("classes", "mean", "std", "image_size", "fit", "channels", "task", "thresholds"):
        program.model.metadata_props[name] = json.dumps(getattr(facts, name), ensure_ascii=False)
    found: list[float | None] = []

    def save(beside: Path) -> None:
        program.save(str(beside), external_data=False)
        found.append(_onnx_difference(beside, whole, facts.image_size))

    write_atomically(path, save)
    return found[0]


def _onnx_difference(path: Path, network: nn.Module, size: int) -> float | None:
    """On three images of noise: the export's example has two, so the batch size is another one."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # Else it complains about each processor that is not ours.
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probability"], {"image": images.numpy()})
    with torch.inference_mode():
        difference = float(np.abs(found - network(images).numpy()).max())
    if not difference <= ONNX_AGREES_WITHIN:
        raise OnnxDisagreesError(f"probabilities of onnxruntime differ from torch's by up to {difference:.2g}")
    return difference


def _resizing(fit: str, size: int) -> list[str]:
    """``fit_square`` as lines of Pillow code."""
    return {
        "squash": [f"image = image.resize(({size}, {size}), Image.Resampling.BILINEAR)"],
        "crop": [f"image = ImageOps.fit(image, ({size}, {size}), Image.Resampling.BILINEAR)"],
        "pad": [
            f"width, height = (max(1, round(side * ({size} / max(image.size)))) for side in image.size)",
            "inner = image.resize((width, height), Image.Resampling.BILINEAR)",
            f'image = Image.new("RGB", ({size}, {size}))',
            f"image.paste(inner, (({size} - width) // 2, ({size} - height) // 2))",
        ],
    }[fit]


def _with_head(backbone: Backbone, network: nn.Module, head: nn.Sequential) -> nn.Module:
    (place,) = backbone.dropped
    network.set_submodule(place, _head_in_place(backbone, head))
    return network


def _empty_head(facts: ModelFacts) -> nn.Sequential:
    """The head without storage (on the meta device)."""
    params = TrialParams.from_flat(facts.params)
    with torch.device("meta"):
        return make_head(
            BACKBONES[facts.backbone].feature_width, params.head_widths, params.dropout, len(facts.classes)
        )


def _head_in_place(backbone: Backbone, head: nn.Sequential) -> nn.Sequential:
    """The module in the classifier's place. SqueezeNet's forward gives it a feature map, the others a vector."""
    if backbone.name.startswith("squeezenet"):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
    return head


def _load(path: Path, wanted: set[str]) -> dict[str, Any]:
    """The dict in a file of tensors and plain values; ``UserError`` if it is not one with these keys."""
    content = read_checkpoint(path, ours=True)
    if isinstance(content, dict) and "format" in content:  # first, as another format may lack keys
        check_format(content, path)
    lacking = sorted(wanted - content.keys()) if isinstance(content, dict) else sorted(wanted)
    if lacking:
        raise UserError(f"{path} is not a model of a sweep: it has no {', '.join(lacking)}")
    return dict(content)
