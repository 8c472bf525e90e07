"""What a sweep will cost, before it starts: disk, and time from a few measured steps."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import torch

from search_spaces.check import random_study
from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.history import WEIGHTS_KEPT
from sweep.plan import Plan
from sweep.run_folder import RunPaths
from trainables.backbones import BACKBONES
from trainables.finetune import build_model

BYTES_PER_PARAMETER = 4
STATE_COPIES = 3  # the weights and, with AdamW, two moments of each
MODEL_FILES = 2  # best.pt and best.onnx
HEAD_WIDTH = 1024  # the widest first layer that the spaces offer
SAMPLED_TRIALS = 5
MEASURED_IMAGES = 8


def disk_bytes(plan: Plan) -> int:
    """What the trials write at most: weights of the ten best, of each repeat, and as a model; the state of each that
    runs."""
    largest = max(_most_parameters(name) for name in plan.weights) * BYTES_PER_PARAMETER
    assert plan.config.concurrency is not None
    kept = min(WEIGHTS_KEPT, plan.trials) + plan.repeats + MODEL_FILES
    return largest * (kept + STATE_COPIES * plan.config.concurrency)


def check_disk(plan: Plan, paths: RunPaths) -> None:
    """Raise ``UserError`` if the storage has less room than the sweep may need."""
    free = shutil.disk_usage(_existing(paths.root)).free
    if disk_bytes(plan) > free:
        raise UserError(
            f"--storage {paths.root.parent} has {free / 1e9:.1f} GB free, the sweep may need "
            f"{disk_bytes(plan) / 1e9:.1f} GB: make room, choose another --storage, smaller --backbones, or a lower "
            "--concurrency"
        )


def disk_line(plan: Plan, paths: RunPaths) -> str:
    """The estimate in words."""
    free = shutil.disk_usage(_existing(paths.root)).free
    return f"disk: at most {disk_bytes(plan) / 1e9:.2f} GB in {paths.root}, {free / 1e9:.1f} GB are free"


def sampled_trials(plan: Plan) -> list[TrialParams]:
    """Five trials as the sweep may draw them, at random; of a study its first."""
    if plan.space.fixed is not None:
        return list(plan.space.fixed[:SAMPLED_TRIALS])
    with random_study(plan.config.seed) as study:
        return [plan.space.suggest(study.ask()) for _ in range(SAMPLED_TRIALS)]


def description(plan: Plan, paths: RunPaths) -> str:
    """What ``--dry-run`` prints: the resolved configuration, five sampled trials, and the estimates."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in sorted(plan.config.to_dict().items())]
    images = plan.dataset["images"]
    lines += ["", "data: " + ", ".join(f"{count} {split}" for split, count in images.items())]
    lines += [f"classes: {', '.join(plan.dataset['classes'])}", f"backbones: {', '.join(plan.weights)}"]
    lines += ["", *plan.notes()]
    trials = sampled_trials(plan)
    lines += ["", f"{len(trials)} sampled trials:"]
    lines += ["  " + " ".join(f"{key}={value}" for key, value in params.active().items()) for params in trials]
    an_epoch = _mean_epoch_seconds(plan, trials)
    seconds = an_epoch * plan.budget * plan.trials / plan.concurrency
    lines += [
        "",
        f"estimated time: at most {_duration(seconds)} for {plan.trials} trials of {plan.budget} epochs, "
        f"{plan.config.concurrency} at a time, if none is stopped early (measured on the sampled trials"
        f"{_unlike_the_trials(plan)})",
        *_finalists_lines(plan, an_epoch),
        disk_line(plan, paths),
    ]
    return "\n".join(lines)


def _finalists_lines(plan: Plan, an_epoch: float) -> list[str]:
    if not plan.repeats:
        return ["no finalists: the search's own scores are all there will be, and the test split stays closed"]
    cells = ", and the best of each cell of " + ", ".join(plan.config.compare) if plan.config.compare else ""
    seconds = an_epoch * plan.budget * plan.repeats / plan.concurrency
    return [
        f"then {plan.finalists} finalist{'s are' if plan.finalists > 1 else ' is'} trained again, "
        f"{plan.repeats} training{'s' * (plan.repeats > 1)}{cells}: "
        f"{'at least' if cells else 'about'} {_duration(seconds)}"
    ]


def _mean_epoch_seconds(plan: Plan, trials: list[TrialParams]) -> float:
    """Of the sampled trials."""
    images = plan.dataset["images"]
    epochs: list[float] = []
    for params in trials:
        training, evaluation = _seconds_per_image(plan, params)
        epochs.append(training * images["train"] + evaluation * images["val"])
    return sum(epochs) / len(epochs)


def _seconds_per_image(plan: Plan, params: TrialParams) -> tuple[float, float]:
    """Seconds to train on one image and to evaluate one, measured on a few random ones after a warm-up."""
    config = plan.config
    assert config.image_size is not None
    device = torch.device(_device(plan))
    torch.set_num_threads(max(1, int(config.cpus_per_trial or 1)))
    model = build_model(
        params, len(plan.dataset["classes"]), plan.weights[params.backbone], config.image_size, config.seed
    ).to(device)
    images = torch.randn(MEASURED_IMAGES, 3, config.image_size, config.image_size, device=device)
    model.train()

    def train() -> None:
        model(images).square().mean().backward()

    def evaluate() -> None:
        with torch.inference_mode():
            model(images)

    return _timed(train, device), _timed(evaluate, device)


def _device(plan: Plan) -> str:
    """Where the estimate is measured: as the trials run if this machine, which may have no GPU, can."""
    return "cuda" if plan.config.gpus_per_trial and torch.cuda.is_available() else "cpu"


def _unlike_the_trials(plan: Plan) -> str:
    if plan.config.gpus_per_trial and _device(plan) == "cpu":
        return ", on the CPU of this machine, which has no GPU: those of the cluster are faster"
    return ""


def _timed(work: object, device: torch.device) -> float:
    assert callable(work)
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / MEASURED_IMAGES


def _most_parameters(backbone: str) -> int:
    known = BACKBONES[backbone]
    network = known.drop_classifier(known.empty_network())
    return sum(parameter.numel() for parameter in network.parameters()) + known.feature_width * HEAD_WIDTH


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
