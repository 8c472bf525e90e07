"""A run folder whose trials were drawn from one of our spaces, with scores that follow from a rule."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from run_files import rewrite_epochs, write

from search_spaces.params import SpaceContext, TrialParams
from search_spaces.space import load_space
from sweep.run_folder import RunPaths

BACKBONES = ("mobilenet_v2", "resnet18", "vgg16")


def write_searched(
    root: Path,
    score: Callable[[TrialParams, int], float],
    *,
    trials: int = 40,
    space: str = "partial_unfreeze",
    seed: int = 1,
    **changes: Any,
) -> Path:
    """Draw ``trials`` configurations at random; epoch e of each has val_f1_macro = ``score``(its parameters, e)."""
    write(root, trials=trials, **changes)
    context = SpaceContext(task="single_label", class_count=3, train_count=800, backbones=BACKBONES)
    found = load_space(space, context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        optuna.logging.set_verbosity(before)
    for folder in sorted(RunPaths(root).trial_folders()):
        trial = study.ask()
        params = found.suggest(trial)
        paths = RunPaths(root).trial(folder.name)
        record = json.loads(paths.params.read_text())
        record["params"] = params.to_flat()
        record["suggestion"] = {
            "suggested": trial.params,
            "distributions": {name: json.loads(distribution_to_json(d)) for name, d in trial.distributions.items()},
        }
        paths.params.write_text(json.dumps(record))
        rewrite_epochs(paths.result, lambda row, params=params: row | {"val_f1_macro": score(params, row["epoch"])})
    return root
