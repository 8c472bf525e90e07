"""What ``sweep.evaluate`` and ``reports.external`` write: typed records of an evaluation on other images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pydantic import Field

from search_spaces.errors import UserError
from search_spaces.paths import unreachable
from sweep.record_reader import Number, Record, Score, Task, Whole, read_file, read_json, read_record
from sweep.records import IMAGE_COLUMNS, DroppedRecord, GroupsRecord, ModelRecord, SourceRecord, image_table
from sweep.run_folder import EvaluationPaths
from trainables import predictions
from trainables.predictions import Predictions


class EvaluatedModel(ModelRecord):
    """The model of an evaluation. file: its path."""

    file: str | None = None
    sha256: str | None = None


class EvaluationRecord(Record):
    """evaluation.json of ``sweep.evaluate``. evaluated: ISO time; run: its name, None for a model alone; renamed: the
    data's classes to the model's (--map); counts: by class; scores: of the decisions of the model file."""

    name: str = ""
    evaluated: str | None = None
    command: str = ""
    run: str | None = None
    model: EvaluatedModel = EvaluatedModel()
    data: SourceRecord = SourceRecord()
    renamed: dict[str, str] = Field(default={}, alias="map")
    split: str | None = None
    task: Task = "single_label"
    classes: tuple[str, ...] = ()
    thresholds: dict[str, Number] | None = None
    images: Whole = 0
    counts: dict[str, Whole] = {}
    groups: GroupsRecord = GroupsRecord()
    scores: dict[str, Score] = {}
    dropped: tuple[DroppedRecord, ...] = ()
    warnings: tuple[str, ...] = ()


class IntervalRecord(Record):
    """A score, or a difference of scores, and its 95 % bounds; NaN: undefined."""

    estimate: Score = math.nan
    low: Score = math.nan
    high: Score = math.nan


class ClassConclusion(Record):
    """F1 of one class on the external images, on the run's own, and external less own."""

    name: str = ""
    external: IntervalRecord = IntervalRecord()
    own: IntervalRecord = IntervalRecord()
    difference: IntervalRecord = IntervalRecord()


class ConclusionRecord(Record):
    """conclusion.json of ``reports.external``: an evaluation against the run's own images, see ``reports.conclusion``.

    metric: "f1_macro", "accuracy" if a class has no image, "recall:c" if all images are of class c. own: score of the
    same network on ``own_split``, None if unknown; difference: external less own. calibration_error: by "external" and
    "own". sentence: what was compared, or why nothing was; warnings: one sentence each.
    """

    metric: str = ""
    external: IntervalRecord = IntervalRecord()
    own_split: str | None = None
    own_images: Whole = 0
    own: IntervalRecord | None = None
    difference: IntervalRecord | None = None
    calibration_error: dict[str, Score] = {}
    classes: tuple[ClassConclusion, ...] = ()
    sentence: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """predictions: their one split is "external". rows: rows.csv, in the format of splits.csv, every column as text, in
    the order of the predictions. images: images.csv, as in ``Run``."""

    paths: EvaluationPaths
    facts: EvaluationRecord
    predictions: Predictions
    rows: pd.DataFrame
    images: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=IMAGE_COLUMNS))


def read_evaluation(root: Path) -> Evaluation:
    """Read the folder that ``python -m sweep.evaluate`` wrote.

    Raises ``UserError`` if it is none, damaged, or of another format.
    """
    paths = EvaluationPaths(Path(root))
    if why := unreachable(paths.evaluation):
        raise UserError(why)
    if not paths.evaluation.is_file():
        raise UserError(f"{root} is not an evaluation: it has no {paths.evaluation.name}")
    problems: list[str] = []
    content = read_json(paths.evaluation, problems, paths.evaluation.name, check=True)
    facts = read_record(EvaluationRecord, content, paths.evaluation.name, problems)
    if problems:
        raise UserError(f"{root} cannot be read: {problems[0]}")
    try:
        saved = predictions.read_predictions(paths.predictions)
        rows = pd.read_csv(paths.rows, dtype=str, keep_default_na=False)
        if lacking := [name for name in ("path", "group") if name not in rows]:
            raise ValueError(f"{paths.rows.name} has no column {' and no column '.join(lacking)}")
    except Exception as error:  # a damaged file can raise any error
        raise UserError(f"{root} cannot be read: {error}") from None
    if list(rows["path"]) != saved.path.tolist():
        raise UserError(f"{root} is damaged: {paths.rows.name} and {paths.predictions.name} name other images")
    return Evaluation(paths, facts, saved, rows, image_table(paths.images, []))


def read_conclusion(paths: EvaluationPaths) -> ConclusionRecord:
    """The conclusion; empty if it is missing or damaged, as building the page writes it again."""
    problems: list[str] = []
    found = read_file(ConclusionRecord, paths.conclusion, problems)
    return ConclusionRecord() if problems else found
