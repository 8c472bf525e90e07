"""Run folders for the tests, written file by file as a sweep writes them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.build import build
from search_spaces.params import TrialParams
from sweep.paths import RunPaths
from trainables.metrics import evaluate_predictions

WriteRun = Callable[..., Path]
COUNTS = {
    "train": {"covid": 86, "normal": 349, "pneumonia": 350},
    "val": {"covid": 19, "normal": 75, "pneumonia": 75},
    "test": {"covid": 19, "normal": 75, "pneumonia": 75},
}
MOST_PREDICTIONS = 40  # of a run of a thousand trials the others do without, for speed
BACKBONES = ("mobilenet_v2", "resnet18", "squeezenet1_1")


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """A function that writes a run folder below ``tmp_path`` and returns it; see ``write``."""
    return lambda name="run", **changes: write(tmp_path / name, **changes)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a report, for tests that only read."""
    root = write(tmp_path_factory.mktemp("built") / "run")
    build(root)
    return root


def write(
    root: Path,
    *,
    trials: int = 6,
    statuses: Sequence[str] = ("finished", "stopped", "failed", "finished"),
    classes: Sequence[str] = ("covid", "normal", "pneumonia"),
    task: str = "single_label",
    epochs: int = 6,
    sweep: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    labels_per_split: dict[str, int] | None = None,
    never_predicted: str | None = None,
) -> Path:
    """Write a run folder. ``statuses`` repeat over the trials; ``sweep`` and its like change a file."""
    paths = RunPaths(root)
    root.mkdir(parents=True)
    sizes = labels_per_split or {"train": 60, "val": 30, "test": 30}
    counts = COUNTS if tuple(classes) == tuple(COUNTS["val"]) and task == "single_label" else _even(classes, sizes)
    write_json(paths.sweep, _sweep(root.name, trials, epochs, statuses) | (sweep or {}))
    write_json(paths.provenance, _provenance() | (provenance or {}))
    write_json(paths.dataset, _dataset(classes, task, counts) | (dataset or {}))
    _write_thumbnails(paths.thumbnails, classes, task)
    _write_splits(paths.splits, counts, task)
    for number in range(trials):
        _write_trial(paths, number, statuses[number % len(statuses)], classes, task, epochs, counts, never_predicted)
    return root


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def _even(classes: Sequence[str], sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    return {split: {name: max(1, size // len(classes)) for name in classes} for split, size in sizes.items()}


def _sweep(name: str, trials: int, epochs: int, statuses: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "command": ["--space", "partial_unfreeze", "--data", "xrays/manifest.csv", "--trials", "6", "--seed", "3"],
        "space": "partial_unfreeze",
        "data": "xrays/manifest.csv",
        "metric": "val_f1_macro",
        "mode": "max",
        "trials": trials,
        "epochs": epochs,
        "sampler": "tpe",
        "scheduler": "asha",
        "grace_period": 3,
        "reduction_factor": 3,
        "seed": 3,
        "deterministic": False,
        "set": {},
        "created": "2026-01-05T10:00:00+00:00",
        "finished": None if "running" in statuses else "2026-01-05T11:23:20+00:00",
    }


def _provenance() -> dict[str, Any]:
    return {
        "python": "3.11.9",
        "packages": {"torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0"},
        "commit": "0123456789abcdef",
        "cpus": 8,
        "memory_bytes": 2**35,
        "platform": "Linux-6.8-x86_64",
        "cpu": "a processor, 8 cores",
        "gpus": [],
        "weights": {
            "mobilenet_v2": {
                "path": "/home/someone/weights/mobilenet_v2-b0353104.pth",
                "sha256": "b0353104" + "0" * 56,
                "origin": "imagenet",
                "folded_batchnorm": False,
                "note": "",
            },
            "resnet18": {
                "path": "resnet18-f37072fd.pth",
                "sha256": "f37072fd" + "1" * 56,
                "origin": "folder",
                "folded_batchnorm": False,
                "note": "",
            },
        },
        "missing_weights": {"vgg16": "vgg16-397923af.pth is not in the folder"},
    }


def _dataset(classes: Sequence[str], task: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "source": {"kind": "manifest", "path": "/home/someone/xrays/manifest.csv"},
        "task": task,
        "classes": list(classes),
        "image_size": 224,
        "fit": "squash",
        "channels": 1,
        "store": "/home/someone/store/ab12.npy",
        "fingerprint": "ab12" * 16,
        "counts": counts,
        "images": {split: sum(of_class.values()) for split, of_class in counts.items()},
        "groups": {"column": "patient_id", "counts": {"train": 500, "val": 110, "test": 112}},
        "split_origin": "given",
        "hygiene": [
            {
                "check": "near_duplicates",
                "severity": "warning",
                "message": "One pair of nearly equal images within a split.",
                "count": 1,
                "items": [["train/covid/a.png", "train/covid/b.png"]],
            }
        ],
        "dropped": [],
        "subgroups": {"view": {"AP": 400, "PA": 723}},
        "source_by_class": {"covid": {"cohen": 124, "nih": 0}, "normal": {"cohen": 9, "nih": 490}},
        "marks": [],
        "demo": False,
    }


def _params(number: int) -> TrialParams:
    backbone = BACKBONES[number % len(BACKBONES)]
    depth = (number // len(BACKBONES) + number) % 5
    return TrialParams(
        backbone=backbone,
        unfreeze_depth=depth,
        lr=1e-3 * (1 + number % 7),
        batch_size=(16, 32, 64)[number % 3],
        head_widths=((), (256,))[number % 2],
        dropout=0.1 * (number % 4),
    )


def _write_trial(
    paths: RunPaths,
    number: int,
    status: str,
    classes: Sequence[str],
    task: str,
    epochs: int,
    counts: dict[str, dict[str, int]],
    never_predicted: str | None,
) -> None:
    trial_id = f"t{number:05d}"
    trial = paths.trial(trial_id)
    trial.predictions.parent.mkdir(parents=True)
    write_json(trial.params, {"trial_id": trial_id, "number": number, "params": _params(number).to_flat()})
    run = {"finished": epochs, "stopped": min(3, epochs), "failed": min(2, epochs), "running": 1}[status]
    predictions = _predictions(number, classes, task, counts, never_predicted)
    scores = evaluate_predictions(*_val_of(predictions), list(classes), task)
    depth = number % 5
    lines = []
    for epoch in range(1, run + 1):
        short_of_best = 0.35 * (1 - epoch / run) ** 2
        row: dict[str, Any] = {
            "epoch": epoch,
            "train_loss": 1.1 * math.exp(-0.3 * epoch),
            "train_accuracy": min(1.0, scores["accuracy"] + 0.05 - short_of_best),
            "val_loss": 1.0 * math.exp(-0.2 * epoch) + 0.2,
            "lr": 1e-3,
            "epoch_seconds": 12.5 + number % 3,
            "images_per_second": 63.0 + number % 3,
            "trainable_params": 1539 * 10**depth,
            "total_params": 2_227_715,
        }
        row |= {f"val_{key}": value - short_of_best * (key != "nll") for key, value in scores.items()}
        lines.append(json.dumps(row))
    trial.result.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if status == "failed":
        trial.error.write_text("RuntimeError: out of memory\n", encoding="utf-8")
    reasons = {"finished": "budget", "stopped": "asha, epoch 3", "failed": "RuntimeError: out of memory"}
    if status != "running":
        write_json(trial.end, {"status": status, "reason": reasons[status]})
    if status in ("finished", "stopped") and number < MOST_PREDICTIONS:
        trial.weights.write_bytes(b"weights")
        np.savez(trial.predictions, **predictions, classes=np.array(classes), epoch=np.array(run))


def _predictions(
    number: int, classes: Sequence[str], task: str, counts: dict[str, dict[str, int]], never_predicted: str | None
) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    found: dict[str, list[Any]] = {"path": [], "split": [], "label": []}
    for split in ("train", "val"):
        for place, name in enumerate(classes):
            for image in range(counts[split][name]):
                found["path"].append(f"{split}/{place}/{image:04d}.png")
                found["split"].append(split)
                found["label"].append(place)
    truth = np.eye(len(classes), dtype=np.uint8)[found["label"]]
    logits = 2.4 * truth + rng.normal(size=truth.shape)
    if never_predicted is not None:
        logits[:, list(classes).index(never_predicted)] = -9
    if task == "multi_label":
        truth = truth | (rng.random(truth.shape) < 0.15)
        probability = 1 / (1 + np.exp(-(3 * truth - 1.5 + rng.normal(size=truth.shape))))
    else:
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = truth.astype(np.uint8) if task == "multi_label" else np.array(found["label"], dtype=np.int64)
    return {
        "path": np.array(found["path"]),
        "split": np.array(found["split"]),
        "label": labels,
        "probability": probability.astype(np.float32),
    }


def _val_of(predictions: dict[str, Any]) -> tuple[Any, Any]:
    chosen = predictions["split"] == "val"
    return predictions["label"][chosen], predictions["probability"][chosen]


def _write_thumbnails(path: Path, classes: Sequence[str], task: str) -> None:
    rng = np.random.default_rng(0)
    names, splits, labels, images = [], [], [], []
    for name in classes:
        for image in range(6):
            y, x = np.mgrid[0:64, 0:64] / 63
            lungs = np.exp(-(((x - 0.3) / 0.15) ** 2) - ((y - 0.5) / 0.3) ** 2)
            lungs += np.exp(-(((x - 0.7) / 0.15) ** 2) - ((y - 0.5) / 0.3) ** 2)
            pixels = 190 - 130 * lungs + 12 * rng.normal(size=(64, 64))
            names.append(f"train/{name[:20]}/patient_{image:03d}_view_frontal.png")
            splits.append("train")
            labels.append(name)
            images.append(np.clip(pixels, 0, 255).astype(np.uint8))
    if task == "multi_label":
        labels[0] = f"{classes[0]}|{classes[-1]}"
    np.savez(path, path=np.array(names), split=np.array(splits), label=np.array(labels), image=np.stack(images))


def _write_splits(path: Path, counts: dict[str, dict[str, int]], task: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "path", "split", "label", "group"])
        row = 0
        for split, of_class in counts.items():
            for name, count in of_class.items():
                for image in range(count):
                    writer.writerow([row, f"{split}/{name}/{image:04d}.png", split, name, ""])
                    row += 1
