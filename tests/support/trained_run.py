"""A run folder with one trial that was trained, made in a second: without Ray and without a search."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_files import write_sweep
from trial_settings import trial_settings

from search_spaces.params import TrialParams
from sweep.model import write_models
from sweep.records import read_run
from sweep.run_folder import IMAGE_CACHE, RunPaths
from trainables.atomic import write_json
from trainables.data.config import DataConfig
from trainables.data.prepare import prepare
from trainables.trial import FinetuneTrial
from trainables.weights import find_weights

SMALL = TrialParams(backbone="squeezenet1_1", unfreeze_depth=1, head_widths=(8,), batch_size=8, lr=0.005)


def trained_run(
    root: Path, request: DataConfig, params: TrialParams = SMALL, weights: str = "random", **sweep: Any
) -> Path:
    """Write the run folder ``root``, its decoded images beside it; returns it."""
    paths = RunPaths(root)
    dataset = prepare(request, root, root.parent / IMAGE_CACHE, workers=1)
    if dataset["task"] == "multi_label":
        params = dataclasses.replace(params, loss="bce")
    found, missing = find_weights(weights, [params.backbone])
    assert not missing, missing
    metric = {"metric": "val_f1_macro", "mode": "max"}
    write_sweep(paths, {"name": root.name, "weights": weights, "precision": "fp32", "epochs": 1} | metric | sweep)
    provenance = {"commit": "0123abc", "weights": {params.backbone: dataclasses.asdict(found[params.backbone])}}
    write_json(paths.provenance, provenance)
    files = paths.trial("t0000")
    write_json(files.params, {"trial_id": "t0000", "number": 0, "params": params.to_flat(), "suggestion": {}})
    trial = FinetuneTrial(params, trial_settings(root, epochs=1, weights=weights), 0)
    record = trial.run_epoch()
    trial.save_best(files.weights, files.predictions)
    trial.close()
    files.result.write_text(json.dumps(record) + "\n", encoding="utf-8")
    write_json(files.status, {"status": "completed", "reason": "all 1 epochs done"})
    return root


def with_model(run: Path) -> Path:
    """The run, after its model was written, but not as ONNX, which takes seconds and is tested by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweep.model.write_onnx", lambda path, network, facts: None)
        assert write_models(read_run(run)) == []
    return run


def of_two_labels(folder: Path) -> DataConfig:
    """24 images of noise in ``folder``, each with the labels "high" and "often", or one of them, or none."""
    lines, chance = ["path,split,high,often"], np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(chance.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'train' if number < 16 else 'val'},{number % 2},{int(number % 3 > 0)}")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    return DataConfig(data=str(folder / "all.csv"), image_size=32, label_column=("high", "often"))


def repeated(run: Path) -> None:
    """Give the run a finalist, one repeat of it, and a decision for that."""
    paths = RunPaths(run)
    shutil.copytree(paths.trials / "t0000", paths.finalists / "t0000" / "seed_1001")
    start = json.loads(paths.trial("t0000").params.read_text())
    start |= {"trial_id": "t0000/seed_1001", "suggestion": {"seed": 1001}}
    write_json(paths.trial("t0000/seed_1001").params, start)
    finalist = {"trial_id": "t0000", "number": 0, "role": "finalist", "rank": 1, "params": start["params"]}
    write_json(paths.chosen, {"repeats": ["seed_1001"], "folds": None, "finalists": [finalist]})
    decision = {"selected": "2026-01-05T11:20:00+00:00", "winner": "t0000", "model": "t0000/seed_1001"}
    write_json(paths.selection, decision | {"reason": "", "thresholds": None})
