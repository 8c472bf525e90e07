"""The rows of a study that a run repeats, with the predictions of each: its repeats', or the search's alone."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from reports.data import ReportData
from reports.page import wording
from reports.scores import evaluation_tables
from reports.scores.finals import ConfigurationResult
from search_spaces.params import TrialParams
from sweep.records import Predictions, read_predictions
from trainables.metrics import evaluate_predictions

LOSS_FIELDS = ("loss", "focal_gamma", "focal_alpha", "class_weights")
TRAINED = {"unfreeze_depth", "unfreeze_layers"}


@dataclass(frozen=True, kw_only=True)
class RowOfStudy:
    """One row of the study as it ran here. runs: its repeats' predictions, or the search's alone; at least one.

    repeated: whether ``runs`` are repeats with fresh seeds. contender: the finalist, scored, or None.
    """

    id: str
    number: int
    params: TrialParams
    runs: tuple[Predictions, ...]
    repeated: bool
    contender: ConfigurationResult | None


def rows_of(evidence: ReportData) -> list[RowOfStudy]:
    """Each row of the study that this run repeats and whose predictions can be read, in the study's order."""
    recorded = [row for row in evidence.run.sweep.get("study_rows") or [] if isinstance(row, dict)]
    trials = {int(row["number"]): row for row in evidence.trials.to_dict("records") if row["number"] >= 0}
    standing = evidence.standing
    contenders = {} if standing is None else {one.finalist.number: one for one in standing.contenders}
    found = []
    for row in recorded:
        number = row.get("number")
        trial = trials.get(number) if isinstance(number, int) else None
        params = None if trial is None else wording.trial_params({str(key): value for key, value in trial.items()})
        if trial is None or params is None or not isinstance(number, int):
            continue
        contender = contenders.get(number)
        repeats = _repeats(evidence, contender)
        runs = repeats or _of_search(evidence, str(trial["trial_id"]))
        if runs:
            name, repeated = str(row.get("id")), bool(repeats)
            found.append(
                RowOfStudy(id=name, number=number, params=params, runs=runs, repeated=repeated, contender=contender)
            )
    return found


def focal_pairs(rows: Sequence[RowOfStudy]) -> list[tuple[RowOfStudy, RowOfStudy, tuple[str, ...]]]:
    """Each row with focal loss, the row without it that is most like it, and what else differs between the two."""
    plain = [row for row in rows if row.params.loss != "focal"]
    found = []
    for focal in (row for row in rows if row.params.loss == "focal"):
        same = [row for row in plain if row.params.backbone == focal.params.backbone]
        if same:
            apart = [_also_differs(row.params, focal.params) for row in same]
            # What trains comes first: at another depth it is another network.
            least = min(range(len(same)), key=lambda place: (bool(TRAINED & set(apart[place])), len(apart[place])))
            found.append((same[least], focal, apart[least]))
    return found


def mean_of(row: RowOfStudy, split: str, name: str) -> float:
    """The mean over the row's runs of one score of ``split``; NaN where a run has no image of it."""
    values = []
    for run in row.runs:
        labels, probabilities = evaluation_tables.of_split(run, split)
        if not len(labels):
            return math.nan
        task = evaluation_tables.task_of(run)
        values.append(float(evaluate_predictions(labels, probabilities, run.classes, task).get(name, math.nan)))
    return statistics.fmean(values)


def _repeats(evidence: ReportData, contender: ConfigurationResult | None) -> tuple[Predictions, ...]:
    ended = () if contender is None else contender.finalist.ended
    return tuple(evidence.repeats[one.trial_id] for one in ended if one.trial_id in evidence.repeats)


def _of_search(evidence: ReportData, trial_id: str) -> tuple[Predictions, ...]:
    """The search's own predictions, never of test; () where they cannot be scored."""
    best = evidence.best is not None and evidence.best["trial_id"] == trial_id
    saved = evidence.predictions if best else read_predictions(evidence.run, trial_id)
    if saved is None or saved.classes != (evidence.classes or saved.classes):
        return ()
    try:
        evaluation_tables.overall(saved, "val")
    except (ValueError, IndexError):
        return ()
    kept = saved.split != "test"
    parts = {name: getattr(saved, name)[kept] for name in ("path", "split", "label", "probability")}
    return (dataclasses.replace(saved, **parts),)


def _also_differs(one: TrialParams, other: TrialParams) -> tuple[str, ...]:
    first, second = one.to_flat(), other.to_flat()
    return tuple(name for name in first if name not in LOSS_FIELDS and first[name] != second[name])
