"""Does fine-tuning pay? A run's best configuration with other seeds beside frozen features + logistic regression.

    python -m benchmarks.frozen_features RUN [--seeds 3] [--cpus 2]

Both use the run's own images, split and weights. The configuration is trained again with seeds that the search did not
see; each seed's epoch is chosen on validation, as is the regression's strength. Beside them stand the shortcuts of the
run's report. The test split is looked at only where the run's finalists have opened it. The standard error of the mean
over the seeds resamples groups (patients) of a split 1000 times.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reports.bootstrap import draw_resamples, score_runs
from reports.data import read_report_data
from reports.formats import trial_params
from search_spaces.params import TrialParams
from sweep.records import Run
from trainables.baselines import measure_baselines
from trainables.data.dataset import Split, open_dataset, open_test_split
from trainables.metrics import evaluate_predictions
from trainables.predictions import Predictions
from trainables.trial import FinetuneTrial, TrialSettings
from trainables.weights import find_weights

FIRST_SEED = 5000
"""Far from those of the finalists' repeats."""
RESAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--seeds", type=int, default=3, help="how often the best configuration is trained again")
    parser.add_argument("--cpus", type=int, default=2, help="torch threads")
    arguments = parser.parse_args()
    data = read_report_data(arguments.run)
    run, best = data.run, data.ranked.iloc[0]
    test = opened(arguments.run)
    splits = ("val",) if test is None else ("val", "test")
    print(f"{arguments.run}: best of {len(run.trials)} trials is {best.trial_id}, search score {best.score:.3f}")
    params = trial_params({str(name): value for name, value in best.items()})
    assert params is not None, "the best trial's parameters cannot be read"
    print(f"{'what':84}" + "".join(f" {split + ' F1':>9} {split + ' acc':>9}" for split in splits))
    repeats = [repeat(run, params, FIRST_SEED + k, splits, arguments.cpus) for k in range(arguments.seeds)]
    baselines(run, test, splits, arguments.cpus)
    for split in splits:
        print(f"{split}: " + mean_and_error(run, [found[split] for found in repeats]))


def opened(run: Path) -> Split | None:
    """The test split, if the run has opened it."""
    try:
        return open_test_split(run)
    except PermissionError:
        return None


def repeat(run: Run, params: TrialParams, seed: int, splits: tuple[str, ...], cpus: int) -> dict[str, Predictions]:
    """Train ``params`` with another seed; the best epoch's predictions of ``splits``."""
    trial = FinetuneTrial(params, settings_of(run, cpus, seed), 0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        done = False
        while not done:
            done = bool(trial.run_epoch().get("done"))
            if trial.tracker.improved:
                trial.save_best(weights, Path(folder) / "predictions.npz")
        found = trial.predict_with(weights, splits)
    scores = {
        split: evaluate_predictions(part.label, part.probability, part.classes, trial.data.task)
        for split, part in found.items()
    }
    trial.close()
    print(line(f"fine-tuned, seed {seed}", scores, splits), flush=True)
    return found


def baselines(run: Run, test: Split | None, splits: tuple[str, ...], cpus: int) -> None:
    """Measure and print the shortcuts and the frozen features of each backbone that the run searched."""
    found, _ = find_weights(str(run.sweep.weights), list(run.provenance.weights))
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(run, cpus, run.sweep.seed or 0)
        content = measure_baselines(open_dataset(run.paths.root), test, found, Path(folder), settings, {})
    for entry in content["baselines"]:
        what = f"{entry['label']}: {entry['failed'] or entry['detail'].removesuffix(' chosen on validation')}"
        print(what if entry["failed"] else line(what, entry, splits))


def line(what: str, scores: dict[str, Any], splits: tuple[str, ...]) -> str:
    return f"{what:84}" + "".join(
        f" {scores[name]['f1_macro']:9.3f} {scores[name]['accuracy']:9.3f}" for name in splits
    )


def mean_and_error(run: Run, parts: list[Predictions]) -> str:
    """Mean macro F1 of the seeds on one split, and its standard error."""
    first = parts[0]
    group_of = dict(zip(run.rows["path"], run.rows["group"], strict=True))
    groups = [group_of.get(path, "") for path in first.path.tolist()]
    resamples = draw_resamples(groups, first.label, len(first.classes), replicates=RESAMPLES)
    probabilities = np.stack([part.probability for part in parts])
    scores = score_runs(first.label, probabilities, first.classes, resamples, areas=False)
    error = float(scores.replicates["f1_macro"].std())
    return f"fine-tuned mean {scores.estimate['f1_macro']:.3f}, standard error {error:.3f}"


def settings_of(run: Run, cpus: int, seed: int) -> TrialSettings:
    resolved: dict[str, Any] = run.sweep.settings
    return TrialSettings(
        run_dir=str(run.paths.root.absolute()),
        epochs=resolved["epochs"],
        weights=resolved["weights"],
        precision=resolved["precision"],
        metric=resolved["metric"],
        patience=resolved["patience"],
        time_limit_s=None,
        seed=seed,
        cpus=cpus,
        use_gpu=False,
        deterministic=False,
    )


if __name__ == "__main__":
    main()
