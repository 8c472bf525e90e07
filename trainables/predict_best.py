"""Predictions of a trial that has ended, from the weights that it kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from search_spaces.params import TrialParams
from trainables.predictions import Predictions, join, read_predictions
from trainables.settings import TrialSettings
from trainables.trial import FinetuneTrial

SAME_PROBABILITY = {"fp32": 5e-3, "bf16": 5e-2}
"""How far probabilities of the same weights may lie apart on another device or with another batch size."""


def predict_best(
    params: TrialParams,
    settings: TrialSettings,
    number: int,
    weights_path: Path,
    splits: tuple[str, ...] = ("train", "val"),
    predictions_path: Path | None = None,
) -> Predictions:
    """Complete the predictions of a trial's best epoch: the rows of ``splits``, computed with its saved weights.

    predictions_path: ``predictions.npz`` beside the weights by default; returned as it is if it has all splits already.
    Validation rows in it stay, as the trial's score is theirs; they are computed again, and if they differ by more than
    ``SAME_PROBABILITY`` the saved weights are not those of that epoch: ValueError.
    """
    predictions_path = predictions_path or weights_path.with_name("predictions.npz")
    known = read_predictions(predictions_path) if predictions_path.exists() else None
    if known is not None and set(splits) <= set(known.split.tolist()):
        return known
    # The time limit is of training; what it left behind must not be lost to it.
    trial = FinetuneTrial(params, dataclasses.replace(settings, time_limit_s=None), number)
    try:
        parts = trial.predict_with(weights_path, dict.fromkeys([*splits, "val"]))
    finally:
        trial.close()
    if known is not None:
        before, again = known.of("val").probability, parts["val"].probability
        difference = float(np.abs(before - again).max())
        if known.epoch != parts["val"].epoch or not difference <= SAME_PROBABILITY[settings.precision]:
            raise ValueError(
                f"{weights_path}: these weights of epoch {parts['val'].epoch} do not give the validation predictions "
                f"saved for epoch {known.epoch}; probabilities differ by up to {difference:.2g}"
            )
        parts["val"] = known.of("val")
    whole = join([parts[split] for split in splits])
    whole.write(predictions_path)
    return whole
