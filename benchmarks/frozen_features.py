"""Does fine-tuning pay? A run's best configuration with other seeds beside frozen features + logistic regression.

    python -m benchmarks.frozen_features RUN [--seeds 3] [--cpus 1]

Both use the run's own images, split and weights. The configuration is trained again with seeds that the search did
not see; each seed's epoch is chosen on validation, as is the regression's strength. Here, and only here outside the
finalists, the test split is read: run it after the search, not to choose by it. The standard error resamples groups
(patients) of the split, 1000 times.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from search_spaces.params import TrialParams
from sweep.records import read_run
from trainables.augment import normalise
from trainables.batches import Batches, plan_batches
from trainables.data.opened import open_data
from trainables.engine import evaluate
from trainables.finetuning import build_model
from trainables.settings import TrialSettings
from trainables.trial import FinetuneTrial
from trainables.weights import find_weights

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder, single-label")
    parser.add_argument("--seeds", type=int, default=3, help="how often the best configuration is trained again")
    parser.add_argument("--cpus", type=int, default=2, help="torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.cpus)
    run = read_run(arguments.run)
    assert run.dataset["task"] == "single_label", "macro F1 of a logistic regression needs one label an image"
    table = read_splits(arguments.run)
    best = run.trials[run.trials.status.isin(["finished", "stopped"])].sort_values("score").iloc[-1]
    print(f"{arguments.run}: best of {len(run.trials)} trials is {best.trial_id}, search score {best.score:.3f}")
    print(f"{'what':52} {'val F1':>7} {'test F1':>8} {'test acc':>9}")
    tuned = repeats(arguments.run, run.sweep, str(best.trial_id), table, arguments.seeds, arguments.cpus)
    for backbone in run.provenance["weights"]:
        frozen(arguments.run, run.sweep, str(backbone), table)
    for name in ("val", "test"):
        print(f"{name}: fine-tuned mean {tuned[name].mean():.3f}, standard error {tuned[name + '_error'].mean():.3f}")


def read_splits(run: Path) -> dict[str, dict[str, np.ndarray]]:
    """rows int64 [n], labels int64 [n], groups str [n] of each split, the test split among them."""
    classes = json.loads((run / "dataset.json").read_text())["classes"]
    with (run / "splits.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return {
        split: {
            "rows": np.array([int(line["row"]) for line in lines if line["split"] == split]),
            "labels": np.array([classes.index(line["label"]) for line in lines if line["split"] == split]),
            "groups": np.array([line["group"] or line["path"] for line in lines if line["split"] == split]),
        }
        for split in ("train", "val", "test")
    }


def repeats(
    run: Path, sweep: dict[str, Any], trial_id: str, table: dict[str, Any], seeds: int, cpus: int
) -> dict[str, np.ndarray]:
    """Train the configuration of ``trial_id`` with fresh seeds; scores and standard errors, an entry a seed."""
    params = TrialParams.from_flat(json.loads((run / "trials" / trial_id / "params.json").read_text())["params"])
    scores: dict[str, list[float]] = {"val": [], "test": [], "val_error": [], "test_error": []}
    for seed in range(1000, 1000 + seeds):
        trial = FinetuneTrial(params, settings_of(run, sweep, cpus, seed), 0)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.pt"
            done = False
            while not done:
                done = bool(trial.run_epoch().get("done"))
                if trial.improved:
                    trial.save_best(weights, Path(folder) / "predictions.npz")
            trial.model.load_trained_state(torch.load(weights, weights_only=True)["trained"])
        shown = []
        for split in ("val", "test"):
            part = table[split]
            batches = Batches(trial.data.images, part["rows"], part["labels"], torch.device("cpu"))
            found = evaluate(trial.model, trial._loss, batches, task="single_label", precision=sweep["precision"])
            decided = found.probabilities.argmax(1)
            shown += score(part["labels"], decided)
            scores[split].append(shown[-2])
            scores[split + "_error"].append(standard_error(part, decided))
        print(f"{'fine-tuned, seed ' + str(seed):52} {shown[0]:7.3f} {shown[2]:8.3f} {shown[3]:9.3f}")
        trial.close()
    return {name: np.array(values) for name, values in scores.items()}


def frozen(run: Path, sweep: dict[str, Any], backbone: str, table: dict[str, Any]) -> None:
    """Logistic regression on the pooled features of the untouched backbone; its strength is chosen on validation."""
    data = open_data(run)
    found, _ = find_weights(sweep["weights"], [backbone])
    params = TrialParams(backbone=backbone, unfreeze_depth=0)
    model = build_model(params, len(data.classes), found[backbone], data.image_size, seed=0).eval()
    features = {}
    for split, part in table.items():
        batches = Batches(data.images, part["rows"], part["labels"], torch.device("cpu"))
        pieces = plan_batches(len(batches), 32, None)
        features[split] = np.concatenate(
            [model.forward_frozen(normalise(batches.take(piece)[0])).numpy() for piece in pieces]
        )
    best = None
    for strength in STRENGTHS:
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        regression.fit(features["train"], table["train"]["labels"])
        val = score(table["val"]["labels"], regression.predict(features["val"]))
        if best is None or val[0] > best[0]:
            best = (*val, *score(table["test"]["labels"], regression.predict(features["test"])), strength)
    assert best is not None
    label = f"frozen {backbone} + logistic regression, C {best[4]:g}"
    print(f"{label:52} {best[0]:7.3f} {best[2]:8.3f} {best[3]:9.3f}")


def settings_of(run: Path, sweep: dict[str, Any], cpus: int, seed: int) -> TrialSettings:
    return TrialSettings(
        run_dir=str(run.absolute()),
        epochs=sweep["epochs"],
        weights=sweep["weights"],
        precision=sweep["precision"],
        metric=sweep["metric"],
        mode=sweep["mode"],
        patience=sweep["patience"],
        time_limit_s=None,
        seed=seed,
        cpus=cpus,
        use_gpu=False,
        deterministic=False,
    )


def score(labels: np.ndarray, decided: np.ndarray) -> tuple[float, float]:
    """Macro F1 and accuracy."""
    return float(f1_score(labels, decided, average="macro", zero_division=0)), float((labels == decided).mean())


def standard_error(part: dict[str, np.ndarray], decided: np.ndarray) -> float:
    """Of macro F1, by resampling groups."""
    chance = np.random.default_rng(0)
    groups = [np.flatnonzero(part["groups"] == name) for name in np.unique(part["groups"])]
    resampled = [
        np.concatenate([groups[k] for k in chance.integers(len(groups), size=len(groups))]) for _ in range(RESAMPLES)
    ]
    return float(np.std([score(part["labels"][rows], decided[rows])[0] for rows in resampled]))


if __name__ == "__main__":
    main()
