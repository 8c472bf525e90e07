"""Checks of what only a GPU shows, or what must be the same there: one row per check, with its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu_session import Row, Session
from search_spaces.params import TrialParams
from trainables import batches
from trainables.backbones import BACKBONES
from trainables.batches import ImageBatches, normalise
from trainables.data.dataset import open_dataset
from trainables.engine import Forward, train_epoch
from trainables.finetune import build_model
from trainables.losses import make_loss
from trainables.optimizers import Schedule, make_optimizer
from trainables.seeding import set_determinism
from trainables.trial import SAME_PROBABILITY, FinetuneTrial
from trainables.weights import find_weights

STEPS = 10
CLOSE = 1e-3
"""Allowed difference of losses and probabilities after ``STEPS`` steps in fp32: the devices sum in different orders."""
CLOSE_CACHED = 1e-4
CACHED_STEPS = 30
CLOSE_GRADIENT = 1e-4
"""Allowed difference, as a share of the gradient's length."""
CLOCKS = ("epoch_seconds", "images_per_second", "inference_ms_per_image")
QUICK_BACKBONES = ("resnet18", "squeezenet1_1")


def measure(session: Session) -> None:
    # Determinism comes first: cuBLAS reads its setting once, at the process's first matrix product.
    for backbone in ("resnet18",) if session.quick else ("resnet18", "vgg16", "densenet121"):
        _check(session, f"--deterministic: {backbone} depth 4 twice", 15, lambda b=backbone: deterministic(session, b))
    for backbone, depth in (("resnet18", 1), ("squeezenet1_1", 4)):
        name = f"CPU and GPU: {backbone} depth {depth}, {STEPS} steps, fp32 without TF32"
        _check(session, name, 20, lambda b=backbone, d=depth: same_on_both_devices(session, b, d))
        for precision in SAME_PROBABILITY:
            name = f"CPU and GPU: {backbone}, probabilities of the same weights, {precision} as a trial runs it"
            _check(session, name, 10, lambda b=backbone, p=precision: same_probabilities(session, b, p))
    _check(session, "micro-batches have the gradient of the whole batch", 10, lambda: micro_batches(session))
    _check(session, "images on the GPU or mapped: the same records", 10, lambda: resident_or_mapped(session))
    feature_cache_rows(session)
    for backbone in QUICK_BACKBONES if session.quick else BACKBONES:
        name = f"full fine-tuning, bf16, and its state: {backbone}"
        _check(session, name, 15, lambda b=backbone: trains_and_goes_on(session, b))


def _check(session: Session, name: str, needed_s: float, check: Callable[[], Row]) -> None:
    session.row({"test": name}, needed_s, check)


def deterministic(session: Session, backbone: str) -> Row:
    """Two equal trials: records (without times) and weights are bitwise equal, in fp32 and in bf16."""
    batch = 4 if session.quick else 16
    params = TrialParams(backbone=backbone, unfreeze_depth=4, batch_size=batch, augment="standard", dropout=0.2)
    differ = []
    try:
        for precision in SAME_PROBABILITY:
            seen = []
            for _ in range(2):
                trial = session.trial(session.few(3 * batch, batch), params, precision=precision, deterministic=True)
                seen.append((_timeless(trial.run_epoch()), trial.model.trained_state()))
                trial.close()
            differ += [f"{precision}: {name}" for name in _differences(*seen)]
    finally:
        set_determinism(False)
    return {"passed": not differ, "detail": ", ".join(differ[:4]) or "records and weights equal, fp32 and bf16"}


def same_on_both_devices(session: Session, backbone: str, depth: int) -> Row:
    """Each step is an epoch of one batch, so that every record holds one step's loss."""
    batch, steps = (4, 2) if session.quick else (32, STEPS)
    run_dir = session.few(batch, batch)
    params = TrialParams(backbone=backbone, unfreeze_depth=depth, batch_size=batch, lr=1e-3)
    losses, probabilities = [], []
    with _without_tf32():
        for device in (torch.device("cpu"), session.device):
            trial = session.trial(run_dir, params, precision="fp32", device=device)
            records = [trial.run_epoch() for _ in range(steps)]
            losses.append([record[name] for record in records for name in ("train_loss", "val_loss")])
            probabilities.append(_probabilities(trial, "fp32"))
            trial.close()
    loss = float(np.abs(np.subtract(*losses)).max())
    probability = float(np.abs(np.subtract(*probabilities)).max())
    detail = f"loss differs by {loss:.1e}, probability by {probability:.1e}; allowed {CLOSE:g}"
    return {"passed": max(loss, probability) <= CLOSE, "detail": detail}


def same_probabilities(session: Session, backbone: str, precision: str) -> Row:
    """As close as the project promises on another device (``SAME_PROBABILITY``), with torch's default for TF32."""
    batch = 4 if session.quick else 32
    params = TrialParams(backbone=backbone, unfreeze_depth=4, batch_size=batch)
    found = []
    for device, its in ((torch.device("cpu"), "fp32"), (session.device, precision)):
        trial = session.trial(session.few(batch, batch), params, precision=its, device=device)
        found.append(_probabilities(trial, its))
        trial.close()
    difference, allowed = float(np.abs(np.subtract(*found)).max()), SAME_PROBABILITY[precision]
    return {"passed": difference <= allowed, "detail": f"differ by {difference:.1e}, allowed {allowed:g}"}


def micro_batches(session: Session) -> Row:
    """One step with all memory and one with too little for the batch, in a network without BatchNorm."""
    if session.device.type != "cuda":
        return {"passed": None, "detail": "a CPU does not run out of memory so"}
    batch, backbone = (16 if session.quick else 64), "squeezenet1_1"
    params = TrialParams(backbone=backbone, unfreeze_depth=4, batch_size=batch)
    data = open_dataset(session.few(batch, batch))
    settings = session.settings(session.few(batch, batch), backbone, precision="fp32")
    weights = find_weights(settings.weights, [backbone])[0][backbone]
    gradients, parts = [], []
    card_bytes = torch.cuda.get_device_properties(session.device).total_memory
    limit_bytes = card_bytes
    set_determinism(True)
    try:
        with _without_tf32():
            for _ in range(2):
                model = build_model(params, len(data.classes), weights, data.image_size, 0)
                model = model.to(memory_format=torch.channels_last).to(session.device)
                loss = make_loss(params, data.task, data.train.labels, data.classes)
                optimizer = make_optimizer(params, model.parameter_groups(params.lr, 1.0))
                train = ImageBatches(data.images, data.train.rows, data.train.labels, session.device)
                torch.cuda.empty_cache()
                base_bytes = torch.cuda.memory_reserved(session.device)
                torch.cuda.reset_peak_memory_stats(session.device)
                torch.cuda.set_per_process_memory_fraction(limit_bytes / card_bytes)
                epoch = train_epoch(
                    Forward(model, loss, data.task, "fp32"),
                    optimizer,
                    Schedule(optimizer, "constant", 1),
                    train,
                    batch_size=batch,
                    shuffling=torch.Generator().manual_seed(0),
                    augmentation=torch.Generator().manual_seed(0),
                )
                peak_bytes = torch.cuda.max_memory_reserved(session.device)
                limit_bytes = int(base_bytes + 0.6 * (peak_bytes - base_bytes))
                parts.append(epoch.micro_batch)
                gradients.append(_gradient(model))
                del model, optimizer, train
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        set_determinism(False)
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    detail = f"batch of {batch} in parts of {parts[1]}: the gradient differs by {difference:.1e} of its length"
    passed = parts[0] is None and parts[1] is not None and difference <= CLOSE_GRADIENT
    return {"passed": passed, "detail": detail}


def resident_or_mapped(session: Session) -> Row:
    batch = 4 if session.quick else 32
    params = TrialParams(backbone="resnet18", unfreeze_depth=1, batch_size=batch, augment="flip")
    before, seen = batches.RESIDENT_PART, []
    try:
        for part in (before, 0.0):
            batches.RESIDENT_PART = part
            trial = session.trial(session.few(3 * batch, batch), params, precision="bf16", deterministic=True)
            seen.append((_timeless(trial.run_epoch()), trial.model.trained_state()))
            trial.close()
    finally:
        batches.RESIDENT_PART = before
        set_determinism(False)
    differ = _differences(*seen)
    return {"passed": not differ, "detail": ", ".join(differ[:4]) or "records and weights equal"}


def trains_and_goes_on(session: Session, backbone: str) -> Row:
    batch = 4 if session.quick else 32
    params = TrialParams(backbone=backbone, unfreeze_depth=4, batch_size=batch, lr=1e-4)
    run_dir = session.few(3 * batch, batch)
    trial = session.trial(run_dir, params, precision="bf16")
    record = trial.run_epoch()
    state, weights = trial.state_dict(), trial.model.trained_state()
    other = session.trial(run_dir, params, precision="bf16")
    other.load_state_dict(state)
    restored = other.state_dict()
    moments = [_tensors(one["optimizer"]) for one in (state, restored)]
    differ = _differences((_counts(state), weights), (_counts(restored), other.model.trained_state()))
    differ += [f"optimizer {i}" for i, (one, two) in enumerate(zip(*moments, strict=True)) if not torch.equal(one, two)]
    trial.close()
    other.close()
    finite = "train_loss" in record and bool(np.isfinite(record["train_loss"]))
    detail = f"train loss {record.get('train_loss', float('nan')):.3f}; " + (", ".join(differ[:4]) or "state restored")
    return {"passed": finite and not differ, "detail": detail}


def feature_cache_rows(session: Session) -> None:
    """With and without the feature cache: the same losses and probabilities after ``CACHED_STEPS`` steps."""
    networks = ("resnet18",) if session.quick else ("resnet18", "mobilenet_v2", "vgg16")
    for backbone in networks:
        for depth in (0, 1):
            name = f"feature cache: {backbone} depth {depth}, {CACHED_STEPS} steps, fp32"
            _check(session, name, 15, lambda b=backbone, d=depth: same_with_cache(session, b, d))


def same_with_cache(session: Session, backbone: str, depth: int) -> Row:
    batch = 4 if session.quick else 32
    params = TrialParams(backbone=backbone, unfreeze_depth=depth, batch_size=batch, augment="flip", dropout=0.2)
    losses, probabilities = [], []
    with _without_tf32():
        for cache in (None, session.folder / "features"):
            trial = session.trial(
                session.few(CACHED_STEPS * batch, batch), params, precision="fp32", deterministic=True, cache=cache
            )
            record = trial.run_epoch()
            losses.append([record["train_loss"], record["val_loss"]])
            probabilities.append(_probabilities(trial, "fp32"))
            trial.close()
    set_determinism(False)
    loss = float(np.abs(np.subtract(*losses)).max())
    probability = float(np.abs(np.subtract(*probabilities)).max())
    detail = f"loss differs by {loss:.1e}, probability by {probability:.1e}; allowed {CLOSE_CACHED:g}"
    return {"passed": max(loss, probability) <= CLOSE_CACHED, "detail": detail}


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@torch.inference_mode()
def _probabilities(trial: FinetuneTrial, precision: str) -> NDArray[np.float32]:
    """Probabilities of the validation images, in eval mode: float32 [N, C]."""
    device = next(trial.model.parameters()).device
    images = torch.from_numpy(np.asarray(trial.data.images)[trial.data.val.rows]).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits: Tensor = trial.model.eval()(normalise(images))
    found: NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
    return found


def _gradient(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double().cpu()


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in CLOCKS}


def _counts(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in ("params", "micro_batch", "best", "schedule")}


def _differences(
    one: tuple[dict[str, Any], dict[str, Tensor]], two: tuple[dict[str, Any], dict[str, Tensor]]
) -> list[str]:
    """Names of what differs between two records and two sets of weights."""
    found = [name for name in {**one[0], **two[0]} if repr(one[0].get(name)) != repr(two[0].get(name))]
    return found + [name for name, tensor in one[1].items() if not torch.equal(tensor, two[1][name])]


def _tensors(state: Any) -> list[Tensor]:
    """All tensors within nested containers, in order, on the CPU."""
    if isinstance(state, Tensor):
        return [state.detach().cpu()]
    inner = list(state.values()) if isinstance(state, dict) else state if isinstance(state, list | tuple) else []
    return [tensor for one in inner for tensor in _tensors(one)]
