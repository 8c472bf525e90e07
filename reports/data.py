"""What all sections draw from: a run read once, its trials ranked, the best one's predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reports.scores import evaluation_tables
from reports.trials import tables
from sweep.records import Predictions, Run, read_predictions, read_repeat_predictions, read_run

if TYPE_CHECKING:
    from reports.scores.finals import Leaderboard

CURVES_SHOWN = 3


@dataclass(frozen=True)
class ReportData:
    """A run and what follows from it.

    metric, mode: what selects ("max" or "min"). trials: ``tables.trial_frame``. ranked: those that may win, the best
    first. best: its row, or None where no trial has a score. predictions: the best one's, or None. repeats: by trial_id
    ("t0007/seed_1001"), the predictions of every finalist's repeats that ended and can be scored; rows of test only if
    the test split was opened.
    """

    run: Run
    metric: str
    mode: str
    trials: pd.DataFrame
    ranked: pd.DataFrame
    best: dict[str, Any] | None
    predictions: Predictions | None
    repeats: dict[str, Predictions] = field(default_factory=dict)

    @property
    def dataset(self) -> dict[str, Any]:
        return self.run.dataset

    @property
    def name(self) -> str:
        """The run's name: what its folder or its settings say."""
        return str(self.run.sweep.get("name") or self.run.paths.root.resolve().name)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.dataset.get("classes") or ())

    @property
    def task(self) -> str:
        return str(self.dataset.get("task") or "single_label")

    @property
    def ended(self) -> bool:
        """Whether the sweep wrote its end; False while it runs, and after a kill."""
        return bool(self.run.sweep.get("ended"))

    @property
    def problems(self) -> list[str]:
        return list(self.run.problems)

    @cached_property
    def standing(self) -> Leaderboard | None:
        """How the finalists stand to each other, scored once for all sections; None where none were chosen."""
        from reports.scores.finals import stand  # it reads an ReportData

        return stand(self)

    @cached_property
    def validation_size(self) -> int:
        """Images of the validation split; 0 if unknown."""
        return int((self.dataset.get("images") or {}).get("val") or 0)

    def basis(self, split: str = "val") -> str:
        """What a score of ``split`` rests on: its images, class by class. Stands beside every score."""
        counts: dict[str, int] = (self.dataset.get("counts") or {}).get(split) or {}
        total = int((self.dataset.get("images") or {}).get(split) or sum(counts.values()))
        return in_counts(split, counts, total) if counts else "Class counts are not recorded."


def in_counts(split: str, counts: dict[str, int], total: int) -> str:
    """The images of a split, class by class, in one sentence. counts: not empty."""
    label = {"train": "Training", "val": "Validation", "test": "Test"}.get(split, split)
    if len(counts) <= 6 and sum(map(len, counts)) <= 120:
        parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    else:
        rarest = min(counts, key=lambda name: (counts[name], name))
        few, most = counts[rarest], max(counts.values())
        span = f"{few:,} images each" if few == most else f"{few:,} ({rarest}) to {most:,} images"
        parts = f"{len(counts)} classes of {span}"
    return f"{label} split: {total:,} images ({parts})."


def gather(run_root: Path) -> ReportData:
    """Read the run folder ``run_root``. Raises ``UserError`` if it is none."""
    run = read_run(run_root)
    metric = str(run.sweep.get("metric") or "val_f1_macro")
    mode = str(run.sweep.get("mode") or "max")
    trials = tables.trial_frame(run.trials)
    ranked = tables.ranked(trials, mode)
    best = None if ranked.empty else {str(key): value for key, value in ranked.iloc[0].items()}
    saved = read_predictions(run, str(best["trial_id"])) if best else None
    predictions = _checked(run, saved, "the best trial's predictions.npz")
    return ReportData(run, metric, mode, trials, ranked, best, predictions, _repeats(run))


def _repeats(run: Run) -> dict[str, Predictions]:
    found: dict[str, Predictions] = {}
    finals = run.finals
    if finals is None:
        return found
    for repeat in (repeat for finalist in finals.finalists for repeat in finalist.ended):
        file = f"finalists/{repeat.trial_id}/best/predictions.npz"
        known = len(run.problems)
        saved = read_repeat_predictions(run, repeat)
        if saved is None and len(run.problems) == known:
            run.problems.append(f"{file} is missing")
        sound = _checked(run, saved, file)
        if sound is not None:
            found[repeat.trial_id] = sound if finals.opened else _without_test(sound)
    return found


def _without_test(predictions: Predictions) -> Predictions:
    kept = predictions.split != "test"
    rows = {name: getattr(predictions, name)[kept] for name in ("path", "split", "label", "probability")}
    return Predictions(**rows, classes=predictions.classes, epoch=predictions.epoch)


def _checked(run: Run, predictions: Predictions | None, file: str) -> Predictions | None:
    """The predictions if they can be scored and name the data set's classes; else a problem of ``file`` is noted."""
    if predictions is None:
        return None
    count, classes = len(predictions.path), len(predictions.classes)
    expected = tuple(str(name) for name in run.dataset.get("classes") or predictions.classes)
    problem = None
    if predictions.classes != expected:
        problem = "it names other classes than dataset.json"
    elif (
        predictions.probability.shape != (count, classes)
        or not len(predictions.split) == len(predictions.label) == count
    ):
        problem = "its arrays do not fit each other"
    else:
        try:
            for split in np.unique(predictions.split):
                evaluation_tables.overall(predictions, str(split))
        except ValueError as error:
            problem = str(error)
    if problem is None:
        return predictions
    run.problems.append(f"{file} is left out: {problem}")
    return None
