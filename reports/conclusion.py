"""Whether a model generalises: its scores on other images compared with its run's own, and how the images differ."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from reports import formats
from reports.bootstrap import Runs, Scores
from reports.comparisons import Comparison, ExternalResult, change, changed_share, runs_of
from reports.data import checked, read_report_data, without_test
from reports.intervals import FEWEST_REPLICATES, interval
from reports.probabilities import calibration_error, chance_calibration_error
from search_spaces.errors import UserError
from sweep.evaluation_records import ClassConclusion, ConclusionRecord, IntervalRecord
from sweep.records import read_predictions
from sweep.run_folder import RunPaths
from trainables.atomic import FORMAT, write_json
from trainables.metrics import decisions

WORSE_CALIBRATED = 0.05
"""Increase of the calibration error on other images, beyond chance, above which it is reported."""
SHARES_DIFFER = 0.1
"""Difference in a class's share of the images above which it is reported."""
FEW_STRANGE = 0.2
"""Share of images with another mode or size than those of training above which it is reported."""
USUAL_SIZES = (1, 99)
"""Percentiles of the shorter side of training images."""


@dataclass(frozen=True)
class OwnImages:
    """The run's own images, to compare with. split: "test", or "val" if the network has no test predictions. runs: the
    same network on it, with the labels of the evaluation only. training: the training images' rows of images.csv."""

    split: str
    runs: Runs
    scores: Scores
    training: pd.DataFrame

    @property
    def present(self) -> list[str]:
        """The classes with images."""
        return [self.runs.classes[place] for place in np.flatnonzero(self.runs.truth.any(axis=0))]

    @property
    def name(self) -> str:
        """ "the run's own 169 test images"."""
        return f"the run's own {len(self.runs.paths):,} {formats.SPLIT_NAMES[self.split]} images"


def conclude(result: ExternalResult) -> ConclusionRecord:
    """Compare the evaluation with its run's own images, and write ``conclusion.json``."""
    own = _own_images(result)
    metric = result.main_score
    if own is not None and result.only not in own.present and len(own.present) < len(own.runs.classes):
        metric = "accuracy"
    found = ConclusionRecord(metric=metric, external=_interval_of(result.scores, metric))
    if own is None:
        sentence = "Not compared with the run's own images: no run with predictions of this network was found."
        found = found.model_copy(update={"sentence": sentence, "warnings": tuple(_failed_classes(result))})
    else:
        found = found.model_copy(update=_compared(result, own, metric))
    write_json(result.evaluation.paths.conclusion, {"format": FORMAT} | json.loads(found.model_dump_json()))
    return found


def _own_images(result: ExternalResult) -> OwnImages | None:
    """From the model's run: the folder around the evaluation, else around the model file; None if there is none."""
    facts, classes = result.facts, result.images.classes
    around = [result.evaluation.paths.root.absolute().parent.parent]
    if facts.model.file is not None:
        around.append(Path(facts.model.file).absolute().parent.parent)
    root = next((one for one in around if RunPaths(one).sweep.is_file()), None)
    if root is None or facts.model.trial is None:
        return None
    try:
        data = read_report_data(root)
    except UserError:
        return None
    saved = checked(data.run, read_predictions(data.run, facts.model.trial), facts.model.trial)
    if saved is None or saved.epoch != facts.model.epoch or not {*classes} <= {*saved.classes}:
        return None
    if not data.finals.opened:
        saved = without_test(saved)
    split = "test" if (saved.split == "test").any() else "val"
    runs, _ = runs_of(data, {facts.model.trial: saved}, split)
    if runs is None:
        return None
    if runs.multi_label:
        kept = [runs.classes.index(name) for name in classes]
        runs = replace(runs, classes=classes, labels=runs.labels[:, kept], probabilities=runs.probabilities[..., kept])
    rows, images = data.run.rows, data.run.images
    training = images[images["path"].isin(rows.loc[rows["split"] == "train", "path"])]
    return OwnImages(split, runs, runs.scores(thresholds=result.tuned), training)


def _compared(result: ExternalResult, own: OwnImages, metric: str) -> dict[str, object]:
    """The fields of the conclusion that depend on the run's own images."""
    difference = change(own.scores, result.scores, metric)
    measure = result.name_of(metric)
    here, there = (formats.score(scores.estimate[metric]) for scores in (result.scores, own.scores))
    sentence = (
        f"{formats.capital(measure)} is {here} here and {there} on {own.name}: the difference is "
        f"{formats.difference(difference.difference, difference.low, difference.high)}."
    )
    if math.isnan(difference.low):
        few = min(scores.resamples.replicates for scores in (own.scores, result.scores)) < FEWEST_REPLICATES
        why = "too few resamples have every class" if few else "one of the two is the same in every resample"
        sentence += f" It has no interval: {why}."
    if own.split == "val":
        sentence += " The network was selected on these images; there are no test predictions to compare with."
    classes = []
    for one in (name for name in result.with_f1 if name in own.present):
        f1 = f"f1:{one}"
        both = [_interval_of(scores, f1) for scores in (result.scores, own.scores)]
        change_of = _change_of(change(own.scores, result.scores, f1))
        classes.append(ClassConclusion(name=one, external=both[0], own=both[1], difference=change_of))
    # On images of one class even a calibrated network is over- or underconfident.
    pair = {} if result.only else {"external": result.images, "own": own.runs}
    errors = {name: calibration_error(runs, result.tuned) for name, runs in pair.items()}
    by_chance = {name: chance_calibration_error(runs, result.tuned) for name, runs in pair.items()}
    warnings = []
    if difference.high < 0:
        less = formats.difference(difference.difference, difference.low, difference.high)
        warnings.append(f"The run's scores do not hold here: {measure} differs by {less} from that on {own.name}.")
    warnings += _failed_classes(result)
    chance = max(0.0, by_chance["external"] - by_chance["own"]) if by_chance else 0.0  # larger with fewer images
    if errors and errors["external"] - errors["own"] > WORSE_CALIBRATED + chance:
        warnings.append(
            f"The calibration error is {formats.score(errors['external'])} here and {formats.score(errors['own'])} on "
            f"{own.name}: its probabilities are less reliable here."
        )
    if (changed := changed_share(own.runs, result.images, SHARES_DIFFER)) is not None:
        name, before, after = changed
        warnings.append(
            f"{name} is {formats.percent(after)} of the images here and {formats.percent(before)} of {own.name}: PPV, "
            "NPV and macro F1 depend on class frequencies."
        )
    warnings += _strange_images(result.evaluation.images, own.training)
    return {
        "own_split": own.split,
        "own_images": len(own.runs.paths),
        "own": _interval_of(own.scores, metric),
        "difference": _change_of(difference),
        "calibration_error": errors,
        "classes": tuple(classes),
        "sentence": sentence,
        "warnings": tuple(warnings),
    }


def _failed_classes(result: ExternalResult) -> list[str]:
    """Sentences on classes with images that are never predicted, or never correctly."""
    images = result.images
    decided = decisions(images.probabilities[0], images.classes, result.tuned, result.facts.task) & images.known
    texts = []
    for name, has, says in zip(images.classes, images.truth.T, decided.T, strict=True):
        if has.any() and not (has & says).any():
            how = f"never correct (predicted for {says.sum():,} images of others)" if says.any() else "never predicted"
            texts.append(f"{name} is {how}: none of {has.sum():,} image{'s' * int(has.sum() > 1)} was found.")
    return texts


def _strange_images(images: pd.DataFrame, training: pd.DataFrame) -> list[str]:
    """How the files differ from those of training, in sentences; [] if either is not known."""
    if images.empty or training.empty:
        return []
    texts = []
    unknown = ~images["mode"].isin(set(training["mode"]))
    if unknown.mean() > FEW_STRANGE:
        modes = formats.listing(sorted(set(images["mode"][unknown])))
        texts.append(
            f"{formats.percent(unknown.mean())} of the images have a mode that no training image has: {modes}."
        )
    sides, usual = (one[["width", "height"]].min(axis=1) for one in (images, training))
    low, high = np.nanpercentile(usual, USUAL_SIZES)
    outside = (sides < low) | (sides > high)
    if outside.mean() > FEW_STRANGE:
        span = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
        texts.append(
            f"{formats.percent(outside.mean())} of the images have a shorter side outside that of training images "
            f"({span} px; median here {sides.median():.0f} px)."
        )
    mean, usual_mean, sd = images["mean"].mean(), training["mean"].mean(), training["mean"].std()
    if abs(mean - usual_mean) > sd:
        texts.append(
            f"The mean intensity is {mean:.0f} of 255 here and {usual_mean:.0f} in training (SD {sd:.0f}): "
            f"{'brighter' if mean > usual_mean else 'darker'} by more than one SD."
        )
    return texts


def _interval_of(scores: Scores, name: str) -> IntervalRecord:
    found = interval(scores, name)
    return IntervalRecord(estimate=found.estimate, low=found.low, high=found.high)


def _change_of(found: Comparison) -> IntervalRecord:
    return IntervalRecord(estimate=found.difference, low=found.low, high=found.high)
