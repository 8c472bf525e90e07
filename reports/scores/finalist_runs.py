"""The repeats of a finalist read back: on the images of one split in one order, and their scores on validation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.data import ReportData
from reports.page import formats
from reports.scores.shown import ALL_FOLDS, Runs, groups_of
from sweep.records import Finalist, Finals, Predictions
from trainables.metrics import evaluate_predictions

TOLERANCE = 1e-3
"""By how much a score of the saved predictions may differ from the recorded one, which other kernels computed."""


def runs_of(evidence: ReportData, finals: Finals, one: Finalist, split: str) -> tuple[Runs | None, tuple[str, ...]]:
    """The repeats of a finalist on ``split``, all in the order of the first one's images; what was left out and why."""
    remarks = [f"{name}: failed ({reason})" for name, status, reason in _not_ended(one) if status == "failed"]
    parts: dict[str, Predictions] = {}
    for repeat in one.ended:
        saved = evidence.repeats.get(repeat.trial_id)
        part = None if saved is None else saved.of(split)
        if part is not None and len(part.path):
            parts[repeat.name] = part
        else:
            remarks.append(f"{repeat.name}: no {'' if saved is None else split + ' '}predictions that can be read")
    if not parts:
        return None, tuple(remarks)
    if split == "val" and finals.folds is not None:
        rows = [
            np.concatenate([getattr(part, name) for part in parts.values()])
            for name in ("label", "probability", "path")
        ]
        label, probability, path = rows
        classes = next(iter(parts.values())).classes
        return Runs((ALL_FOLDS,), classes, label, probability[None], path, groups_of(evidence, path)), tuple(remarks)
    first = next(iter(parts.values()))
    kept: dict[str, npt.NDArray[np.float32]] = {}
    for name, part in parts.items():
        order = order_of(part.path, part.label, first.path, first.label)
        if order is None:
            remarks.append(f"{name}: predictions of other images")
        else:
            kept[name] = part.probability[order]
    if not kept:  # even the first does not fit itself: its file names are not its images' own
        return None, tuple(remarks)
    stacked = np.stack(list(kept.values()))
    groups = groups_of(evidence, first.path)
    return Runs(tuple(kept), first.classes, first.label, stacked, first.path, groups), tuple(remarks)


def validation_of(evidence: ReportData, one: Finalist) -> tuple[dict[str, float], list[str]]:
    """The selection metric of each repeat on its own validation images, and where files contradict each other."""
    name = evidence.metric.removeprefix("val_")
    found: dict[str, float] = {}
    doubts = []
    for repeat in one.ended:
        found[repeat.name] = repeat.score
        saved = evidence.repeats.get(repeat.trial_id)
        part = None if saved is None else saved.of("val")
        if part is None or not len(part.path):
            continue
        task = "multi_label" if part.label.ndim == 2 else "single_label"
        score = evaluate_predictions(part.label, part.probability, part.classes, task).get(name, math.nan)
        if math.isnan(score):
            continue
        found[repeat.name] = score
        if abs(score - repeat.score) > TOLERANCE:
            doubts.append(
                f"{repeat.name}: its predictions give {formats.score(score)}, the run recorded "
                f"{formats.score(repeat.score)}; one of the two is damaged"
            )
    return found, doubts


def order_of(
    paths: npt.NDArray[Any], labels: npt.NDArray[Any], wanted: npt.NDArray[Any], truth: npt.NDArray[Any]
) -> npt.NDArray[np.int64] | None:
    """int64 [N]: where the images ``wanted`` stand in ``paths``; None if these are others, or labelled otherwise."""
    place = {str(path): row for row, path in enumerate(paths)}
    if len(paths) != len(wanted) or not all(str(path) in place for path in wanted):
        return None
    order = np.array([place[str(path)] for path in wanted], dtype=np.int64)
    return order if np.array_equal(labels[order], truth) else None


def _not_ended(one: Finalist) -> list[tuple[str, str, str]]:
    return [(each.name, each.status, each.reason) for each in one.repeats if each not in one.ended]
