"""What a sweep runs on and what it will cost there, before it starts: disk, and time from a few measured steps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from search_spaces.space import RANDOM_TRIALS
from sweep.history import WEIGHTS_KEPT
from sweep.machine import Machine, available_memory_bytes, of_processors
from sweep.plan import Plan, sampled_trials
from sweep.progress import duration
from sweep.run_folder import RunPaths
from trainables.atomic import free_bytes
from trainables.backbones import BACKBONES
from trainables.engine import set_up_cpu
from trainables.feature_cache import CachePlace
from trainables.finetune import build_model, frozen_stages
from trainables.frozen_features import VIEWS, features_bytes, stages_kept

PACKAGES = ("torch", "torchvision", "ray", "optuna", "scikit-learn", "pandas", "numpy", "pillow", "onnx")
BYTES_PER_PARAMETER = BYTES_PER_PROBABILITY = 4
RUNNING_COPIES = 7  # best weights (1), a state (3: weights and AdamW's two moments of each), and the next state (3)
MODEL_FILES = 2  # best.pt and best.onnx
HEAD_WIDTH = 1024  # the widest first layer that the spaces offer
SAMPLED_TRIALS = 5
MEASURED_IMAGES = {"cpu": 8, "cuda": 32}


def provenance(machine: Machine) -> dict[str, Any]:
    """Versions of what a result depends on, the commit of our code, and the machine that the driver ran on."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(Path(__file__).resolve().parents[1]),
        "platform": platform.platform(),
        "cpu": next(iter(of_processors("model name")), platform.processor()),
        "cpus": machine.cpus,
        "memory_bytes": available_memory_bytes(),
        "gpus": list(machine.gpu_names),
        "nodes": len(machine.nodes),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of a checkout, with "+changes" if files differ from it; None if ``folder`` is no checkout.

    Also None for an installed copy in the checkout of another project, which does not track our files.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", "--", "sweep/estimate.py")
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def check_disk(plan: Plan, paths: RunPaths) -> None:
    """Raise ``UserError`` if the storage has less free space than the sweep may still need."""
    free, needed = free_bytes(paths.root), disk_bytes(plan) - _held_bytes(plan, paths)
    if needed > free:
        raise UserError(
            f"--storage {paths.root.parent} has {free / 1e9:.1f} GB free, the sweep may need {needed / 1e9:.1f} GB: "
            "free space, or choose another --storage, smaller --backbones, or a lower --concurrency"
        )


def _held_bytes(plan: Plan, paths: RunPaths) -> int:
    """Bytes already written. Compressed predictions count at full size, as in ``disk_bytes``: they will not grow."""
    held, predictions = 0, _predictions_bytes(plan, plan.dataset.images["val"])
    for folder, _, names in itertools.chain(os.walk(paths.trials), os.walk(paths.finalists)):
        for name in names:
            if name.endswith((".pt", "predictions.npz")):
                with contextlib.suppress(FileNotFoundError):  # Another process may be running the sweep.
                    size = os.stat(os.path.join(folder, name)).st_size
                    held += size if name.endswith(".pt") else max(size, predictions)
    return held


def disk_line(plan: Plan, paths: RunPaths) -> str:
    """The disk estimate in words."""
    most, free = disk_bytes(plan) / 1e9, free_bytes(paths.root) / 1e9
    return f"disk: at most {most:.2f} GB in {paths.root} if no trial fails, {free:.1f} GB are free"


def disk_bytes(plan: Plan) -> int:
    """The most bytes that the trials write: weights of the ten best, of each repeat, and of the model; weights and
    states of running trials; validation predictions of each trial; predictions of all images of the best trial and of
    each repeat. Excludes weights and states of failed trials, which are kept until the sweep has ended."""
    largest = max(_most_parameters(name) for name in plan.weights) * BYTES_PER_PARAMETER
    kept = min(WEIGHTS_KEPT, plan.config.trials) + plan.repeats + MODEL_FILES
    running = min(plan.at_once, max(plan.config.trials, plan.repeats))
    images = plan.dataset.images
    predicted = plan.config.trials * images["val"] + (1 + plan.repeats) * sum(images.values())
    return largest * (kept + RUNNING_COPIES * running) + _predictions_bytes(plan, predicted)


def _predictions_bytes(plan: Plan, images: int) -> int:
    return images * len(plan.dataset.classes) * BYTES_PER_PROBABILITY


def _most_parameters(backbone: str) -> int:
    known = BACKBONES[backbone]
    trunk = known.empty_trunk()
    return sum(parameter.numel() for parameter in trunk.parameters()) + known.feature_width * HEAD_WIDTH


def description(plan: Plan, paths: RunPaths) -> str:
    """What ``--dry-run`` prints: the resolved configuration, five sampled trials, and the estimates."""
    trials = sampled_trials(plan.space, SAMPLED_TRIALS, plan.config.seed)
    images = plan.dataset.images
    measured = [_seconds_per_image(plan, params) for params in trials]
    an_epoch = sum(one.train * images["train"] + one.evaluate * images["val"] for one in measured) / len(measured)
    once = {_cached(plan, params): one.once for params, one in zip(trials, measured, strict=True)}
    views = VIEWS["flip"] * images["train"] + images["val"]
    count = plan.config.trials
    seconds = (an_epoch * plan.budget * count + sum(once.values()) * views) / _at_full_speed(plan, count)
    elsewhere = plan.config.gpus_per_trial and _device(plan).type == "cpu"
    unlike = ", on this machine's CPU, as it has no GPU: the cluster's GPUs are faster" if elsewhere else ""
    return "\n".join(
        [
            *(f"{name}: {json.dumps(value)}" for name, value in sorted(plan.config.to_json().items())),
            "",
            "data: " + ", ".join(f"{count} {split}" for split, count in plan.dataset.images.items()),
            f"classes: {', '.join(plan.dataset.classes)}",
            "",
            *plan.notes(),
            "",
            f"{len(trials)} sampled trials:",
            *("  " + " ".join(f"{key}={value}" for key, value in params.active().items()) for params in trials),
            "",
            f"estimated time: at most {duration(seconds)} for {plan.config.trials} trials of {plan.budget} epochs, "
            f"{plan.at_once} at a time, if none is stopped early (measured on the sampled trials{unlike})",
            _finalists_line(plan, an_epoch),
            disk_line(plan, paths),
            cache_line(plan),
        ]
    )


def _at_full_speed(plan: Plan, trials: int) -> float:
    """How many of ``trials`` run in parallel at the speed of one alone: trials on one GPU share its speed."""
    share, at_once = plan.config.gpus_per_trial, min(plan.at_once, trials)
    return max(1.0, at_once * share) if 0 < share < 1 else at_once


def _finalists_line(plan: Plan, an_epoch: float) -> str:
    if not plan.repeats:
        return "no finalists (--finalists 0): only the search is scored, and the test split stays closed"
    cells = ", and the best of each combination of " + ", ".join(plan.config.compare) if plan.config.compare else ""
    seconds = an_epoch * plan.budget * plan.repeats / _at_full_speed(plan, plan.repeats)
    return (
        f"then {plan.finalists} finalist{'s are' if plan.finalists > 1 else ' is'} retrained, "
        f"{plan.repeats} training{'s' * (plan.repeats > 1)}{cells}: "
        f"{'at least' if cells else 'about'} {duration(seconds)}"
    )


def cache_line(plan: Plan) -> str:
    """What the feature cache will hold at most, if the trials are like ``RANDOM_TRIALS`` random ones."""
    config, images = plan.config, plan.dataset.images
    if config.cache_dir is None:
        return "feature cache: none (--cache-dir none)"
    kept = {_cached(plan, params) for params in sampled_trials(plan.space, RANDOM_TRIALS, config.seed)} - {None}
    sizes = [
        features_bytes(backbone, config.image_size, stages, images["train"] + images["val"], config.precision)
        for backbone, stages in filter(None, kept)
    ]
    place = CachePlace(config.cache_dir, config.cache_size)
    # Finalists are also predicted in fp32: one view, which is at most as large as both views in bf16.
    most = sum(sizes) * (2 if config.precision != "fp32" and plan.repeats else 1)
    return (
        f"feature cache: {len(sizes)} kinds of frozen layers, at most {most / 1e9:.2f} GB, the largest "
        f"{max(sizes, default=0) / 1e9:.2f}, on each node in {config.cache_dir} (limit "
        f"{place.limit(0) / 1e9:.1f} GB; each trial computes what does not fit)"
    )


def _cached(plan: Plan, params: TrialParams) -> tuple[str, int] | None:
    """The backbone, and how many of its stages a trial reads from the cache; None = it starts from images."""
    if not plan.cached_stages.get(params.backbone):
        return None
    frozen = frozen_stages(params.backbone, params.unfreeze_depth, params.unfreeze_layers)
    stages = stages_kept(params, frozen, plan.cached_stages)
    return (params.backbone, stages) if stages else None


@dataclasses.dataclass(frozen=True)
class _Seconds:
    """Seconds per image: of training, of evaluation, and, once only, of the frozen layers that are cached."""

    train: float
    evaluate: float
    once: float


def _seconds_per_image(plan: Plan, params: TrialParams) -> _Seconds:
    """Measured on a few random images after a warm-up; on fewer if the GPU lacks memory.

    Raises ``UserError`` if not even one image fits, or if the GPU fails otherwise.
    """
    device = _device(plan)
    count = MEASURED_IMAGES[device.type]
    while True:
        try:
            return _measured(plan, params, device, count)
        except RuntimeError as error:
            if device.type == "cpu":
                raise
            if count == 1 or not isinstance(error, torch.OutOfMemoryError):
                why = str(error).splitlines()[0]
                way_out = "free its memory, or give --gpus-per-trial 0"
                raise UserError(f"--dry-run: the GPU cannot be used to estimate the time ({why}): {way_out}") from error
        # Outside of the handler: the traceback would keep the failed attempt's tensors alive.
        count //= 2
        torch.cuda.empty_cache()


def _measured(plan: Plan, params: TrialParams, device: torch.device, count: int) -> _Seconds:
    config = plan.config
    set_up_cpu(max(1, config.cpus_per_trial))
    weights = plan.weights[params.backbone]
    model = build_model(params, len(plan.dataset.classes), weights, config.image_size, config.seed)
    model.to(memory_format=torch.channels_last).to(device).train()
    size = config.image_size
    images = torch.randn(count, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    in_precision = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=config.precision == "bf16")
    _, stages = _cached(plan, params) or ("", 0)

    def freeze() -> Tensor:
        with in_precision():
            return model.forward_frozen(images, 0, stages)

    inputs = freeze()

    def train() -> None:
        with in_precision():
            outputs = model(inputs, stages)
        outputs.float().square().mean().backward()

    def evaluate() -> None:
        with torch.inference_mode(), in_precision():
            model(inputs, stages)

    train_s, evaluate_s, once_s = (_timed(work, device) / count for work in (train, evaluate, freeze))
    return _Seconds(train_s, evaluate_s, once_s if stages else 0.0)


def _device(plan: Plan) -> torch.device:
    """Where the estimate is measured: on a GPU if the trials use one and this machine has one."""
    return torch.device("cuda" if plan.config.gpus_per_trial and torch.cuda.is_available() else "cpu")


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second of two runs."""
    start = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return time.perf_counter() - start
