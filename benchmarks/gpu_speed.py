"""Images per second of our trials on one GPU, compared with a bare loop of the same network in the same mode."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.gpu_session import Row, Session, synchronize
from search_spaces.params import TrialParams
from trainables.backbones import BACKBONES
from trainables.batches import IMAGENET
from trainables.trial import AUTOTUNE_FROM_IMAGES, FinetuneTrial, TrialSettings

FULL = ("resnet18", "resnet50", "vgg16", "densenet121", "mobilenet_v2", "efficientnet_b0", "squeezenet1_1")
FULL = (*FULL, "convnext_tiny")
COMPILED = ("resnet18", "resnet50")
FROZEN = ("resnet18", "mobilenet_v2")
AUTOTUNED = ("resnet50", "densenet121")
AT_ONCE = (1, 2, 4)
PAIRS = 3
ENOUGH_S = 5.0
"""Seconds after which no further pair of measurements is started."""
WARM_UP_STEPS = 10


def measure(session: Session) -> None:
    full, frozen = (("squeezenet1_1",), ("squeezenet1_1",)) if session.quick else (FULL, FROZEN)
    for backbone in frozen:
        for depth, what in ((0, "head"), (1, "last block")):
            for cached in (False, True):
                name = {"speed": f"{backbone}, {what}", "feature_cache": cached}
                session.row(name, 8, lambda b=backbone, d=depth, c=cached: frozen_training(session, b, d, c))
    for backbone in ("squeezenet1_1",) if session.quick else AUTOTUNED:
        session.row({"speed": f"{backbone}, first epochs"}, 60, lambda b=backbone: first_epochs(session, b))
    for backbone in full:
        session.row({"speed": f"{backbone}, everything"}, 15, lambda b=backbone: full_training(session, b))
    session.row({"speed": f"trials at once: {full[0]}, everything"}, 45, lambda: trials_at_once(session))
    for backbone in () if session.quick else COMPILED:
        session.row({"speed": f"{backbone}, bare and compiled"}, 60, lambda b=backbone: compiled(session, b))


def _sizes(session: Session) -> tuple[int, int]:
    """Images per epoch, and per batch."""
    return (16, 4) if session.quick else (4096, 64)


def full_training(session: Session, backbone: str) -> Row:
    """Ours and the bare loop alternately; the first epoch and the first steps are not counted."""
    count, batch = _sizes(session)
    _reset_peak(session)
    trial = session.trial(session.few(count, batch), _params(backbone, 4, batch), precision="bf16")
    trial.run_epoch()
    peak_gb = _peak_gb(session)
    bare = BareLoop(session, backbone, len(trial.data.classes), batch)
    bare.images_per_second(WARM_UP_STEPS if not session.quick else 1)
    ours, theirs = [], []
    began_s = time.monotonic()
    while not ours or (len(ours) < PAIRS and time.monotonic() - began_s < ENOUGH_S):
        ours.append(_epoch(session, trial))
        theirs.append(bare.images_per_second(count // batch))
    trial.close()
    mine, its = statistics.median(ours), statistics.median(theirs)
    found = {"ours": round(mine), "bare": round(its), "unit": "images/s", "ratio": round(mine / its, 3)}
    return found | {"pairs": len(ours), "ours_peak_gb": peak_gb}


def frozen_training(session: Session, backbone: str, depth: int, cached: bool) -> Row:
    count, batch = _sizes(session)
    _reset_peak(session)
    trial = session.trial(
        session.few(count, batch),
        _params(backbone, depth, batch),
        precision="bf16",
        cache=session.folder / "features" if cached else None,
    )
    began_s = time.monotonic()
    trial.run_epoch()
    first_s = time.monotonic() - began_s
    ours = [_epoch(session, trial) for _ in range(PAIRS)]
    trial.close()
    found = {"ours": round(statistics.median(ours)), "unit": "images/s", "first_epoch_s": round(first_s, 2)}
    return found | {"ours_peak_gb": _peak_gb(session)}


def first_epochs(session: Session, backbone: str) -> Row:
    """Seconds of the first two epochs on all training images, fp32, without and with cuDNN's autotuning."""
    _, batch = _sizes(session)
    found: Row = {"unit": "s"}
    for name, epochs in (("as_they_are", 2), ("tried", AUTOTUNE_FROM_IMAGES)):
        trial = session.trial(session.whole(), _params(backbone, 4, batch // 2), precision="fp32", epochs=epochs)
        found[name] = [round(float(trial.run_epoch()["epoch_seconds"]), 2) for _ in range(2)]
        trial.close()
    return found


def compiled(session: Session, backbone: str) -> Row:
    count, batch = _sizes(session)
    rates = []
    for compile_it in (False, True):
        began_s = time.monotonic()
        bare = BareLoop(session, backbone, 3, batch, compile_it=compile_it)
        bare.images_per_second(WARM_UP_STEPS)
        ready_s = time.monotonic() - began_s
        rates.append(statistics.median(bare.images_per_second(count // batch) for _ in range(PAIRS)))
    found = {"compiled": round(rates[1]), "bare": round(rates[0]), "unit": "images/s"}
    return found | {"ratio": round(rates[1] / rates[0], 3), "compilation_s": round(ready_s, 1)}


class BareLoop:
    """torchvision's network with one linear layer after its features, one batch that stays on the GPU, nothing else.

    The mode is that of a trial: bf16 autocast, channels_last, cuDNN's fastest algorithms, fused SGD.
    """

    def __init__(
        self, session: Session, backbone: str, class_count: int, batch: int, *, compile_it: bool = False
    ) -> None:
        self._device, self._batch = session.device, batch
        network = BACKBONES[backbone].drop_classifier(BACKBONES[backbone].network())
        if backbone.startswith("squeezenet"):  # Its pooling is part of the classifier.
            network.classifier = nn.AdaptiveAvgPool2d(1)
        model = nn.Sequential(network, nn.Linear(BACKBONES[backbone].feature_width, class_count))
        model = model.to(self._device, memory_format=torch.channels_last).train()
        self._optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
        self._model: Callable[[Tensor], Tensor] = torch.compile(model) if compile_it else model
        _, channels, size, _ = session.images.shape
        self._images = torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8, device=self._device)
        self._labels = torch.randint(0, class_count, (batch,), device=self._device)
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std)
        )
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def images_per_second(self, steps: int) -> float:
        torch.backends.cudnn.benchmark = True  # A trial's epoch, measured in between, leaves it off.
        synchronize(self._device)
        began_s = time.monotonic()
        for _ in range(steps):
            inputs = (self._images.float() * self._scale + self._shift).contiguous(memory_format=torch.channels_last)
            with torch.autocast(self._device.type, torch.bfloat16):
                logits = self._model(inputs)
            self._optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits.float(), self._labels).backward()
            self._optimizer.step()
        synchronize(self._device)
        return steps * self._batch / (time.monotonic() - began_s)


def trials_at_once(session: Session) -> Row:
    """Processes with one trial each; all are ready before some of them train ``epochs`` epochs concurrently."""
    count, batch = _sizes(session)
    backbone, at_once, epochs = ("squeezenet1_1", (1, 2), 1) if session.quick else ("resnet18", AT_ONCE, 2)
    settings = session.settings(session.few(count, batch), backbone, precision="bf16")
    context = get_context("spawn")
    workers, lines = [], []
    try:
        for _ in range(max(at_once)):
            line, its = context.Pipe()
            worker = context.Process(target=_train_on_demand, args=(its, _params(backbone, 4, batch), settings))
            worker.start()
            its.close()  # So that the connection ends if the worker dies.
            workers.append(worker)
            lines.append(line)
        for line in lines:
            line.recv()
        rates = {}
        for number in at_once:
            began_s = time.monotonic()
            for line in lines[:number]:
                line.send(epochs)
            for line in lines[:number]:
                line.recv()
            rates[str(number)] = round(number * epochs * count / (time.monotonic() - began_s))
        for line in lines:
            line.send(0)
    finally:
        for line in lines:
            line.close()
        for worker in workers:
            worker.join(10)
            worker.kill()
    return {"images_per_second": rates, "ratio": round(rates[str(max(at_once))] / rates["1"], 3)}


def _train_on_demand(line: Connection, params: TrialParams, settings: TrialSettings) -> None:
    trial = FinetuneTrial(params, settings, 0)
    trial.run_epoch()
    line.send("ready")
    while epochs := line.recv():
        for _ in range(epochs):
            trial.run_epoch()
        line.send("done")


def _params(backbone: str, depth: int, batch: int) -> TrialParams:
    return TrialParams(backbone=backbone, unfreeze_depth=depth, batch_size=batch, lr=1e-3)


def _epoch(session: Session, trial: FinetuneTrial) -> float:
    """Images per second of training only, as the trial measures it, after all other GPU work is done."""
    synchronize(session.device)
    record: dict[str, Any] = trial.run_epoch()
    return float(record["images_per_second"])


def _reset_peak(session: Session) -> None:
    if session.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(session.device)


def _peak_gb(session: Session) -> float | None:
    if session.device.type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(session.device) / 1e9, 2)
