"""What a trial needs besides its hyperparameters: the same for all trials of a sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """The settings that all trials of a sweep share; a plain dict of scalars on its way through Ray.

    run_dir: the run folder, a path that every node sees; it holds dataset.json and splits.csv.
    epochs: the budget of a trial, >= 1. weights: "imagenet", "random" or a folder.
    precision: "fp32" or "bf16" (autocast). metric: a column of epochs.parquet; mode: "max" or "min".
    patience: epochs without a better metric after which a trial ends by itself; None = never.
    time_limit_s: wall-clock seconds after which a trial fails; None = never.
    seed: of the sweep; a trial's own is derived from it and the trial's number.
    cpus: torch threads of a trial. use_gpu: run on cuda (the device that Ray made visible).
    deterministic: torch's deterministic algorithms. splits: a file of the form of splits.csv that deals train and
    val anew (cross-validation); None = the run's own.
    """

    run_dir: str
    epochs: int
    weights: str
    precision: str
    metric: str
    mode: str
    patience: int | None
    time_limit_s: float | None
    seed: int
    cpus: int
    use_gpu: bool
    deterministic: bool
    splits: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
