"""Baselines beside a run folder, written file by file as a sweep writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sweep.run_folder import RunPaths
from trainables.metrics import evaluate_predictions
from trainables.predictions import Predictions

LABELS = {
    "majority": "Majority class",
    "thumbnails": "Thumbnails of 16 x 16 pixels",
    "borders": "Image borders only",
    "frozen_resnet18": "Frozen features of resnet18",
}
POOR = {"majority": 0.0, "thumbnails": 0.6, "borders": 0.4, "frozen_resnet18": 0.9}


def write_baselines(
    root: Path, skills: Mapping[str, float], *, failed: tuple[str, ...] = (), splits: tuple[str, ...] = ("val", "test")
) -> None:
    """Baselines of a skill: 0 = the training split's frequencies, higher = probabilities nearer to the label."""
    paths = RunPaths(root)
    dataset = json.loads(paths.dataset.read_text())
    classes, task = dataset["classes"], dataset["task"]
    source = paths.trial("t0000/seed_1001").predictions
    with np.load(source if source.exists() else paths.trial("t00000").predictions) as saved:
        known = {key: saved[key] for key in ("path", "split", "label")}
    shown = np.isin(known["split"], splits)
    path, split, label = known["path"][shown], known["split"][shown], known["label"][shown]
    entries = []
    for place, (name, skill) in enumerate(skills.items()):
        truth = label if label.ndim == 2 else np.eye(len(classes))[label]
        noise = np.random.default_rng(place).normal(size=truth.shape)
        if task == "multi_label":
            probability = 1 / (1 + np.exp(-skill * (6 * truth - 3 + noise) - 0.1 * (skill == 0)))
        else:
            logits = 4 * skill * truth + (noise if skill else -np.arange(len(classes))[::-1])
            probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rows = Predictions(path, split, label, probability.astype(np.float32), tuple(classes), 0)
        scores = {
            part: evaluate_predictions(rows.of(part).label, rows.of(part).probability, classes, task)
            for part in ("val", "test")
            if part in split
        }
        entry = {"name": name, "label": LABELS[name], "detail": "logistic regression, C 0.01 chosen on validation"}
        if name in failed:
            entries.append(entry | {"detail": "", "val": None, "test": None, "seconds": 1.0, "failed": "out of memory"})
            continue
        rows.write(paths.baselines / f"{name}.npz")
        clean = {p: {k: v if math.isfinite(v) else None for k, v in found.items()} for p, found in scores.items()}
        entries.append(entry | {"val": None, "test": None, "seconds": 1.0, "failed": None} | clean)
    paths.baselines_table.write_text(json.dumps({"baselines": entries}))
