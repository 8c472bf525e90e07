"""What trials of tests are told besides their parameters, folds of a run's images, and records without the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from trainables.trial import TrialSettings


def trial_settings(run_dir: Path | str, **changes: Any) -> TrialSettings:
    """Random weights, on one core."""
    values: dict[str, Any] = {
        "run_dir": str(run_dir),
        "epochs": 4,
        "weights": "random",
        "precision": "fp32",
        "metric": "val_f1_macro",
        "patience": None,
        "time_limit_s": None,
        "seed": 0,
        "cpus": 1,
        "use_gpu": False,
        "deterministic": False,
    }
    return TrialSettings(**(values | changes))


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """Without what a clock says."""
    clocks = ("epoch_seconds", "images_per_second", "inference_ms_per_image")
    return {name: value for name, value in record.items() if name not in clocks}


def write_fold(run_dir: Path, path: Path, every: int) -> int:
    """Split the run's training and validation images anew: each ``every``-th validates. How many there are."""
    rows = pd.read_csv(run_dir / "splits.csv", dtype=str, keep_default_na=False)
    rows = rows[rows["split"] != "test"]
    in_val = np.arange(len(rows)) % every == 0
    rows.assign(split=np.where(in_val, "val", "train")).to_csv(path, index=False)
    return len(rows)
