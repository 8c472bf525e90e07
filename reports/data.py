"""The report's input: a run read once, its trials ranked, and the predictions that can be scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import formats, tables
from sweep.records import DatasetRecord, Run, read_predictions, read_run
from sweep.trial_records import Finals
from trainables.metrics import confusion_matrix
from trainables.predictions import Predictions


@dataclass(frozen=True)
class ReportData:
    """A run and what is derived from it.

    finals: the run's, without finalists where none were chosen. trials: ``tables.trial_frame``. ranked: those that may
    win, in the order of ``sweep.trial_records.rank``. best: its first row, or None where no trial has a score.
    predictions: the best one's, or None. repeats: by trial_id ("t0007/seed_1001"), the predictions of every finalist's
    repeats that completed and can be scored; rows of test only if the test split was opened.
    """

    run: Run
    finals: Finals
    trials: pd.DataFrame
    ranked: pd.DataFrame
    best: dict[str, Any] | None
    predictions: Predictions | None
    repeats: dict[str, Predictions]

    @property
    def metric(self) -> str:
        """The selection metric's column, such as val_f1_macro."""
        return self.run.sweep.metric

    @property
    def dataset(self) -> DatasetRecord:
        return self.run.dataset

    @property
    def name(self) -> str:
        """The run's name from its settings, else that of its folder."""
        return self.run.sweep.name or self.run.paths.root.resolve().name

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes from dataset.json, else from predictions; () if neither can be read."""
        return self.dataset.classes or (self._known.classes if self._known is not None else ())

    @property
    def task(self) -> str:
        """From the same source as ``classes``."""
        return self.dataset.task if self.dataset.classes or self._known is None else self._known.task

    @property
    def _known(self) -> Predictions | None:
        return self.predictions or next(iter(self.repeats.values()), None)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; True if that is not recorded."""
        return self.dataset.images.get("test") != 0

    def basis(self, split: str = "val") -> str:
        """The images of a split, class by class, in one sentence."""
        counts = self.dataset.counts.get(split) or {}
        if not counts:
            return "Class counts are not recorded."
        total = self.dataset.images.get(split) or sum(counts.values())
        label = formats.SPLIT_NAMES.get(split, split).capitalize()
        if len(counts) <= 6 and sum(map(len, counts)) <= 120:
            parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        else:
            rarest = min(counts, key=lambda name: (counts[name], name))
            few, most = counts[rarest], max(counts.values())
            span = f"{few:,} images each" if few == most else f"{few:,} ({rarest}) to {most:,} images"
            parts = f"{len(counts)} classes of {span}"
        return f"{label} split: {total:,} images ({parts})."

    def trial(self, number: int | None) -> dict[str, Any] | None:
        """The row of ``trials`` with that number."""
        rows = self.trials[self.trials["number"] == number].to_dict("records")
        return {str(key): value for key, value in rows[0].items()} if rows else None

    def groups_of(self, paths: npt.NDArray[np.str_]) -> tuple[str, ...]:
        """The hashed patient of each image; "" where none is known."""
        return tuple(self._groups.get(path, "") for path in paths.tolist())

    @cached_property
    def _groups(self) -> dict[str, str]:
        return dict(zip(self.run.rows["path"], self.run.rows["group"], strict=True))


def read_report_data(root: Path) -> ReportData:
    """Read the run folder ``root``. Raises ``UserError`` if it is no run folder, or of another format."""
    run = read_run(root)
    trials = tables.trial_frame(run.trials)
    ranked = tables.ranked(trials, run.sweep.mode)
    best = None if ranked.empty else {str(key): value for key, value in ranked.iloc[0].items()}
    saved = read_predictions(run, str(best["trial_id"])) if best else None
    predictions = checked(run, saved, "the best trial's predictions.npz")
    finals = run.finals or Finals()
    return ReportData(run, finals, trials, ranked, best, predictions, _repeats(run, finals))


def checked(run: Run, predictions: Predictions | None, file: str) -> Predictions | None:
    """The predictions if they can be scored and fit dataset.json; else None, and a problem of ``file`` is recorded."""
    if predictions is None:
        return None
    try:
        if predictions.classes != (run.dataset.classes or predictions.classes):
            raise ValueError("it names other classes than dataset.json")
        if run.dataset.classes and predictions.task != run.dataset.task:
            raise ValueError("it is of another task than dataset.json")
        for split in np.unique(predictions.split):
            part = predictions.of(str(split))
            # Raises if no score can be computed, at a fraction of the cost of all scores.
            confusion_matrix(part.label, part.probability, part.classes, part.task)
    except ValueError as error:
        run.problems.append(f"{file} is left out: {error}")
        return None
    return predictions


def without_test(predictions: Predictions) -> Predictions:
    """The rows of training and validation alone."""
    return predictions.of("train", "val")


def _repeats(run: Run, finals: Finals) -> dict[str, Predictions]:
    found: dict[str, Predictions] = {}
    for repeat in (one for finalist in finals.finalists for one in finalist.completed):
        file = f"finalists/{repeat.trial_id}/best/predictions.npz"
        known = len(run.problems)
        saved = read_predictions(run, repeat.trial_id)
        if saved is None and len(run.problems) == known:
            run.problems.append(f"{file} is missing")
        sound = checked(run, saved, file)
        if sound is not None:
            found[repeat.trial_id] = sound if finals.opened else without_test(sound)
    return found
