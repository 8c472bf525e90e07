"""Which network's predictions the sections show, and the runs that its scores are the mean of.

The model file once it was decided, with the repeats of its configuration beside it; before that the best trial alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from reports.data import ReportData
from reports.scores.resampled_scores import Scores, score_runs
from reports.scores.resampling import Resamples, draw_resamples
from sweep.records import Finals, Predictions

SPLITS = ("train", "val", "test")
UNTUNED = 0.5  # the decision threshold of a label of a multi-label task
ALL_FOLDS = "all folds"


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """One network. title: what it is, in words. splits: those of SPLITS that may be shown and have images.

    thresholds: tuned for each label of a multi-label task, or None. recorded: the selection metric that the run wrote
    down for it, or NaN. remark: why it is not the network that was asked for, or "".
    """

    title: str
    predictions: Predictions
    thresholds: dict[str, float] | None
    splits: tuple[str, ...]
    recorded: float
    remark: str = ""

    @property
    def judged(self) -> str | None:
        """The split that tells how good it is: test once opened, else validation; None where it has neither."""
        return next((split for split in ("test", "val") if split in self.splits), None)


@dataclass(frozen=True)
class Runs:
    """One configuration's runs on the same N images of a split. names: of R runs, that of the shown network first.

    labels: int64 [N] or uint8 [N, C]; probabilities: float32 [R, N, C]; paths: str [N]; groups: N hashed patients, "" =
    a patient of its own.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    paths: npt.NDArray[np.str_]
    groups: tuple[str, ...]

    @property
    def patients(self) -> float:
        """How many there are, an image without a group counting as one; NaN where no image has a group."""
        return len(set(self.groups) - {""}) + self.groups.count("") if any(self.groups) else math.nan

    @cached_property
    def resamples(self) -> Resamples:
        """Of its patients: the same for every configuration on the same images."""
        return draw_resamples(self.groups, self.labels, len(self.classes))

    def scores(self, *, auroc: bool = False) -> Scores:
        return score_runs(self.labels, self.probabilities, self.classes, self.resamples, auroc=auroc)

    def of(self, chosen: npt.NDArray[np.bool_]) -> Runs:
        """On the images ``chosen``, bool [N]."""
        groups = tuple(group for group, one in zip(self.groups, chosen, strict=True) if one)
        rows = self.labels[chosen], self.probabilities[:, chosen], self.paths[chosen]
        return Runs(self.names, self.classes, *rows, groups)


def shown(evidence: ReportData) -> ReportedModel | None:
    """The network whose predictions the page shows; None where none can be read."""
    finals = evidence.run.finals
    if finals is None or not finals.decided or finals.winning is None:
        return _best_trial(evidence, "")
    winner = finals.winning
    readable = [one for one in winner.ended if one.trial_id in evidence.repeats]
    if not readable:
        return _best_trial(evidence, f"No predictions of trial {winner.number}, which won, can be read")
    repeat = next((one for one in readable if one.trial_id == finals.model), readable[0])
    is_model = repeat.trial_id == finals.model
    title = f"repeat {repeat.name} of trial {winner.number}" + (", the model file" if is_model else "")
    remark = "" if is_model else f"The predictions of {finals.model or 'the model file'} cannot be read"
    predictions = evidence.repeats[repeat.trial_id]
    return _with_splits(title, predictions, finals.thresholds.get(winner.trial_id), repeat.score, remark)


def repeats_of_winner(evidence: ReportData) -> list[Predictions]:
    """The predictions of every repeat of the winner that can be read, the shown one first; of the best trial alone
    where no winner was decided."""
    return list(_runs(evidence).values())


def runs_on(evidence: ReportData, split: str) -> Runs | None:
    """The repeats of the shown configuration on ``split``, their images brought into one order; None without images.

    A repeat that saw other images is left out. With folds, where each repeat has validation images of its own, all of
    these are one run: every image is judged by the fold that did not train on it.
    """
    parts = {name: predictions.of(split) for name, predictions in _runs(evidence).items()}
    parts = {name: part for name, part in parts.items() if len(part.path)}
    if not parts:
        return None
    first = next(iter(parts.values()))
    if split == "val" and _folds(evidence.run.finals) and len(parts) > 1:
        label, probability, path = (
            np.concatenate([getattr(part, name) for part in parts.values()])
            for name in ("label", "probability", "path")
        )
        return Runs((ALL_FOLDS,), first.classes, label, probability[None], path, groups_of(evidence, path))
    aligned = {name: _aligned(part, first) for name, part in parts.items()}
    same = {name: rows for name, rows in aligned.items() if rows is not None}
    return Runs(
        names=tuple(same),
        classes=first.classes,
        labels=first.label,
        probabilities=np.stack(list(same.values())),
        paths=first.path,
        groups=groups_of(evidence, first.path),
    )


def alone_on(evidence: ReportData, network: ReportedModel, split: str) -> Runs:
    """The shown network by itself on a split that it has."""
    part = network.predictions.of(split)
    groups = groups_of(evidence, part.path)
    return Runs((network.title,), part.classes, part.label, part.probability[None], part.path, groups)


def groups_of(evidence: ReportData, paths: npt.NDArray[np.str_]) -> tuple[str, ...]:
    """The hashed patient of each image; "" where none is known."""
    rows = evidence.run.rows
    if "group" not in rows or "path" not in rows:
        return ("",) * len(paths)
    of_path = dict(zip(rows["path"], rows["group"], strict=True))
    return tuple(str(of_path.get(str(path), "")) for path in paths)


def _best_trial(evidence: ReportData, remark: str) -> ReportedModel | None:
    if evidence.predictions is None or evidence.best is None:
        return None
    best = evidence.best
    # A search never predicts test; rows that claim to be of it were not opened by the one function that may.
    return _with_splits(
        f"trial {best['number']:.0f}", evidence.predictions, None, float(best["score"]), remark, ("train", "val")
    )


def _with_splits(
    title: str,
    predictions: Predictions,
    thresholds: dict[str, float] | None,
    recorded: float | None,
    remark: str,
    allowed: tuple[str, ...] = SPLITS,
) -> ReportedModel:
    return ReportedModel(
        title=title,
        predictions=predictions,
        thresholds=thresholds,
        splits=tuple(split for split in allowed if (predictions.split == split).any()),
        recorded=math.nan if recorded is None else recorded,
        remark=remark,
    )


def _runs(evidence: ReportData) -> dict[str, Predictions]:
    """By name, the shown network first."""
    network = shown(evidence)
    if network is None:
        return {}
    if network.predictions is evidence.predictions:
        return {network.title: network.predictions}
    finals = evidence.run.finals
    assert finals is not None
    assert finals.winning is not None
    runs = {
        one.name: evidence.repeats[one.trial_id] for one in finals.winning.ended if one.trial_id in evidence.repeats
    }
    return dict(sorted(runs.items(), key=lambda item: item[1] is not network.predictions))


def _folds(finals: Finals | None) -> int | None:
    return None if finals is None else finals.folds


def _aligned(part: Predictions, first: Predictions) -> npt.NDArray[np.float32] | None:
    """The probabilities of ``part`` in the order of the images of ``first``; None if they are of other images."""
    if np.array_equal(part.path, first.path):
        order = np.arange(len(part.path))
    elif np.array_equal(np.sort(part.path), np.sort(first.path)):
        order = np.argsort(part.path, kind="stable")[np.argsort(np.argsort(first.path, kind="stable"), kind="stable")]
    else:
        return None
    return part.probability[order] if np.array_equal(part.label[order], first.label) else None
