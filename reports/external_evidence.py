"""What the page of an external evaluation draws from: one model on other images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from reports.data import ReportData
from reports.scores.added_scores import with_average_precision
from reports.scores.resampled_scores import Scores, score_runs
from reports.scores.shown import UNTUNED, Runs
from sweep.records import Evaluation
from sweep.records import Run
from sweep.run_folder import RunPaths

SPLIT = "external"


@dataclass(frozen=True)
class External:
    """An evaluation and what follows from it."""

    evaluation: Evaluation

    @property
    def facts(self) -> dict[str, Any]:
        return self.evaluation.facts

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def model(self) -> dict[str, Any]:
        return dict(self.facts["model"])

    @property
    def several(self) -> bool:
        """Whether an image has any number of labels."""
        return bool(self.facts["task"] == "multi_label")

    @cached_property
    def images(self) -> Runs:
        """The one run of the model on the images, with their patients."""
        found = self.evaluation.predictions
        groups = tuple(map(str, self.evaluation.rows["group"]))
        return Runs(
            (str(self.model["trial"]),), found.classes, found.label, found.probability[None], found.path, groups
        )

    @property
    def tuned(self) -> dict[str, float] | None:
        """The thresholds of a multi-label model, if any is not 0.5."""
        found: dict[str, float] = self.facts["thresholds"] or {}
        return found if any(value != UNTUNED for value in found.values()) else None

    @cached_property
    def scores(self) -> Scores:
        """Of the decisions that ``python -m sweep.predict`` makes: by the thresholds, or for the likeliest class."""
        labels, probabilities, classes = self.images.labels, self.images.probabilities, self.images.classes
        found = score_runs(labels, probabilities, classes, self.images.resamples, thresholds=self.tuned)
        return with_average_precision(found, labels, probabilities)

    @property
    def absent(self) -> list[str]:
        """Classes of no image."""
        return [str(name) for name, count in self.facts["counts"].items() if not count]

    @property
    def main_score(self) -> str:
        """Macro F1, but where a class has no image: it would count as 0."""
        return "accuracy" if self.absent else "f1_macro"

    def as_rows(self) -> ReportData:
        """For those parts of the report that look up an image's row by its path, and nothing else."""
        nothing = pd.DataFrame()
        run = Run(RunPaths(self.evaluation.paths.root), {}, {}, {}, nothing, nothing, rows=self.evaluation.rows)
        return ReportData(run, "val_f1_macro", "max", nothing, nothing, None, None)
