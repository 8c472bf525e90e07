"""A run folder read back: typed records of its files, two tidy tables, and what could not be read.

Reads only files that the driver and the trials wrote as they went, so it works on a run that is finished, killed,
or still running. Imports neither torch nor ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
from pydantic import AliasChoices, Field, JsonValue

from search_spaces.errors import UserError, reason_of
from search_spaces.paths import unreachable
from sweep.record_reader import (
    Flag,
    Number,
    Record,
    Score,
    Setting,
    Task,
    Whole,
    is_there,
    read_file,
    read_json,
    read_record,
)
from sweep.run_folder import ModelPaths, RunPaths
from sweep.trial_records import (
    Finals,
    Suggestion,
    TrialRecord,
    best,
    epochs_table,
    read_finals,
    read_trials,
    trials_table,
)
from trainables import maps, predictions
from trainables.atomic import check_format
from trainables.data.dataset import unchanged
from trainables.maps import Maps
from trainables.metrics import OperatingPoint
from trainables.predictions import Predictions


class StudyRowRecord(Record):
    """A row of a published study that the run was asked to try. epochs: the study's own."""

    id: str = ""
    number: Whole | None = None
    epochs: Whole | None = None
    claim: str = ""
    note: str = ""


class WarmTrial(Record):
    """A trial of the run that --warm-start named. point: what this run tried first, under the names as suggested.
    opened: how often the test split of that run had been opened."""

    trial_id: str = ""
    score: Score = math.nan
    point: dict[str, Setting] = {}
    opened: Whole = 0


class SweepRecord(Record):
    """sweep.json: the resolved settings, and what was written beside them. mode: "max" or "min" of ``metric``.

    command: the arguments; resumed: those of each --resume that changed a setting. created, ended: ISO times; ended:
    None while it runs and after a kill. settings: all resolved settings as saved.
    """

    name: str | None = None
    space: str | None = None
    data: str | None = None
    sampler: str | None = None
    scheduler: str | None = None
    storage: str | None = None
    precision: str | None = None
    weights: str | None = None
    metric: str = "val_f1_macro"
    mode: Literal["max", "min"] = "max"
    trials: Whole | None = None
    epochs: Whole | None = None
    grace_period: Whole | None = None
    finalists: Whole | None = None
    patience: Whole | None = None
    seed: Whole | None = None
    concurrency: Setting = None
    reduction_factor: Number | None = None
    deterministic: Flag = False
    own_epochs: Flag = False
    compare: tuple[str, ...] = ()
    positive_class: str | None = None
    target_sensitivity: dict[str, Number] | None = None
    target_specificity: dict[str, Number] | None = None
    prevalence: dict[str, Number] | None = None
    warm_start: str | None = None
    warm_trials: tuple[WarmTrial, ...] = ()
    created: str | None = None
    ended: str | None = None
    command: tuple[str, ...] = ()
    resumed: tuple[tuple[str, ...], ...] = ()
    study_rows: tuple[StudyRowRecord, ...] = ()
    study_rows_left_out: dict[str, str] = {}
    settings: dict[str, JsonValue] = {}

    @property
    def target(self) -> tuple[str, str, float] | None:
        """The requested operating point: kind, class and value; None without one."""
        kinds = {"sensitivity": self.target_sensitivity, "specificity": self.target_specificity}
        return next(((kind, *one) for kind, given in kinds.items() for one in (given or {}).items()), None)

    def epochs_of(self, number: int | None = None) -> int | None:
        """The most epochs that trial ``number``, or None = any trial, may run: a study's own if the user gave none."""
        rows = self.study_rows if self.own_epochs else ()
        own = [row.epochs for row in rows if row.epochs and number in (None, row.number)]
        return max(own, default=self.epochs)


class WeightsRecord(Record):
    """The file of starting weights of one backbone, see ``trainables.weights.FoundWeights``."""

    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    origin: str | None = None
    range: tuple[float, float] | None = None
    note: str | None = None
    folded_batchnorm: Flag = False


class ProvenanceRecord(Record):
    """provenance.json: what the sweep ran on. missing_weights: by backbone, why it was left out."""

    python: str | None = None
    commit: str | None = None
    platform: str | None = None
    cpu: str | None = None
    packages: dict[str, str] = {}
    missing_weights: dict[str, str] = {}
    weights: dict[str, WeightsRecord] = {}
    gpus: tuple[str, ...] = ()
    cpus: Whole | None = None
    memory_bytes: Whole | None = None
    nodes: Whole | None = None


class CheckRecord(Record):
    """A finding about the images. items: the files that belong together, at most some of them."""

    check: str = ""
    severity: str = ""
    message: str = ""
    count: Whole = 0
    items: tuple[tuple[str, ...], ...] = ()


class DroppedRecord(Record):
    path: str = ""
    reason: str = ""


class LeftOutRecord(Record):
    """Images or rows that are not used. examples: some of them, a path or "row 7" each."""

    why: str = ""
    count: Whole = 0
    examples: tuple[str, ...] = ()


class SourceRecord(Record):
    kind: str | None = None
    path: str | None = None
    fingerprint: str | None = None


class GroupsRecord(Record):
    """source: the column or regular expression (key "column" in earlier runs); None if images have no group. counts: by
    split; count: of the one split of an evaluation."""

    source: str | None = Field(default=None, validation_alias=AliasChoices("from", "column"))
    counts: dict[str, Whole] = {}
    count: Whole | None = None


class DatasetRecord(Record):
    """dataset.json. counts: by split and class; images: by split; subgroups: by column and value; source_by_class: by
    class and source; caveats: limits of the data, for every reader of a score.

    preset: by which the set was read, or None. sha256: of splits.csv, images.csv and thumbnails.npz, by name. ordered:
    whether the classes are ordered. missing: images with an unknown label, by split and class. left_out: what a rule or
    an option excludes, None in earlier runs; dropped: the files that cannot be read. notes: how the set was read, a
    sentence each.
    """

    task: Task = "single_label"
    preset: str | None = None
    ordered: Flag = False
    fit: str | None = None
    fingerprint: str | None = None
    sha256: dict[str, str] = {}
    split_origin: str | None = None
    image_size: Whole | None = None
    channels: Whole | None = None
    source: SourceRecord = SourceRecord()
    classes: tuple[str, ...] = ()
    counts: dict[str, dict[str, Whole]] = {}
    images: dict[str, Whole] = {}
    missing: dict[str, dict[str, Whole]] = {}
    groups: GroupsRecord = GroupsRecord()
    left_out: tuple[LeftOutRecord, ...] | None = None
    notes: tuple[str, ...] = ()
    checks: tuple[CheckRecord, ...] = ()
    dropped: tuple[DroppedRecord, ...] = ()
    subgroups: dict[str, dict[str, Whole]] = {}
    source_by_class: dict[str, dict[str, Whole]] | None = None
    caveats: tuple[str, ...] = ()
    demo: Flag = False


class FileRecord(Record):
    sha256: str | None = None
    bytes: Whole | None = None


class ModelRecord(Record):
    """best.json, see ``trainables.export.ModelFacts``. onnx_difference: the largest from torch; loading: code."""

    backbone: str | None = None
    task: str | None = None
    fit: str | None = None
    trial: str | None = None
    code: str | None = None
    loading: str | None = None
    image_size: Whole | None = None
    channels: Whole | None = None
    epoch: Whole | None = None
    params: dict[str, Setting] = {}
    classes: tuple[str, ...] = ()
    thresholds: dict[str, Number] | None = None
    operating_point: OperatingPoint | None = None
    ordered: Flag = False
    mean: tuple[Number, ...] = ()
    std: tuple[Number, ...] = ()
    starting_weights: WeightsRecord | None = None
    files: dict[str, FileRecord] = {}
    onnx_difference: Number | None = None
    weights_sha256: str | None = None


class BaselineRecord(Record):
    """One simple method, see ``trainables.baselines``. failed: why it has no scores, or "". val, test: its metrics;
    test: None until the test split was opened."""

    name: str = ""
    label: str = ""
    detail: str = ""
    failed: str = ""
    val: dict[str, Score] | None = None
    test: dict[str, Score] | None = None

    @property
    def kind(self) -> str:
        """ "frozen": a network's features, without fine-tuning; "shortcut": a method that needs no visible finding."""
        return "frozen" if self.name.startswith("frozen_") else "shortcut"


class Baselines(Record):
    baselines: tuple[BaselineRecord, ...] = ()


T = TypeVar("T")
IMAGE_COLUMNS = ["path", "mode", "width", "height", "bits", "jpeg_quality", "mean", "sd"]


@dataclass(frozen=True)
class Run:
    """A run folder. ``trials`` and ``epochs`` are described in ``trials_table`` and ``epochs_table``.

    suggestions: by trial_id. best: of the trials, None if none has a score. finals: None before any finalist was
    chosen. rows: splits.csv, every column as text ("" where empty). images: images.csv, ``IMAGE_COLUMNS``, path and
    mode text, the others numbers or NaN; no rows without the file. model: None if no model is written; baselines: None
    if none were measured. problems: one sentence for each file that is damaged or missing.
    """

    paths: RunPaths
    sweep: SweepRecord
    provenance: ProvenanceRecord
    dataset: DatasetRecord
    trials: pd.DataFrame
    epochs: pd.DataFrame
    suggestions: dict[str, Suggestion] = field(default_factory=dict)
    best: TrialRecord | None = None
    finals: Finals | None = None
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    images: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=IMAGE_COLUMNS))
    model: ModelRecord | None = None
    baselines: tuple[BaselineRecord, ...] | None = None
    problems: list[str] = field(default_factory=list)


def read_run(root: Path) -> Run:
    """Read the run folder ``root``. Raises ``UserError`` if it is no run folder, or of another format."""
    paths = RunPaths(Path(root))
    problems: list[str] = []
    sweep = read_sweep(paths, problems)
    records = read_trials(paths.trial_folders(), paths.trials, sweep.metric, sweep.mode, problems)
    finals = read_finals(paths, sweep.metric, sweep.mode, problems)
    dataset = read_file(DatasetRecord, paths.dataset, problems)
    return Run(
        paths=paths,
        sweep=sweep,
        provenance=read_file(ProvenanceRecord, paths.provenance, problems),
        dataset=dataset,
        trials=trials_table(records, paths),
        epochs=epochs_table(records),
        suggestions={one.trial_id: one.suggestion for one in records},
        best=best(records, sweep.mode),
        finals=finals,
        rows=_read_rows(paths, dataset, problems),
        images=_read_images(paths, dataset, problems),
        model=read_model_record(paths, problems),
        baselines=_read_baselines(paths, problems, opened=finals is not None and finals.opened),
        problems=problems,
    )


def read_sweep(paths: RunPaths, problems: list[str]) -> SweepRecord:
    """sweep.json. Raises ``UserError`` if there is none, and for any format but ``FORMAT``."""
    if why := unreachable(paths.sweep):
        raise UserError(why)
    if not paths.sweep.is_file():
        raise UserError(
            f"{paths.root} is not a run folder: it has no {paths.sweep.name}; give <storage>/<name> of a sweep"
        )
    content = read_json(paths.sweep, problems, paths.sweep.name, check=True)
    resolved = content.pop("resolved", None) or {}
    settings = resolved if isinstance(resolved, dict) else {}
    return read_record(SweepRecord, {**settings, "settings": settings, **content}, paths.sweep.name, problems)


def read_model_record(paths: RunPaths, problems: list[str]) -> ModelRecord | None:
    """best.json; None if no model is written. Raises ``UserError`` for any format but ``FORMAT``."""
    files = ModelPaths(paths.models)
    if not is_there(files.model) and not is_there(files.facts):
        return None
    name = f"{paths.models.name}/{files.facts.name}"
    content = read_json(files.facts, problems, name)
    if content:
        check_format(content, files.facts)
    return read_record(ModelRecord, content, name, problems)


def _read_baselines(paths: RunPaths, problems: list[str], opened: bool) -> tuple[BaselineRecord, ...] | None:
    if not is_there(paths.baselines_table):
        return None
    name = f"{paths.baselines.name}/{paths.baselines_table.name}"
    known = len(problems)
    found = read_file(Baselines, paths.baselines_table, problems, name).baselines
    named = tuple(one for one in found if one.name and one.name == Path(one.name).name)
    if len(named) < len(found):
        problems.append(f"{name} does not name each baseline: {len(found) - len(named)} of {len(found)} left out")
    if not named and len(problems) > known:
        return None
    return named if opened else tuple(one.model_copy(update={"test": None}) for one in named)


def _read_rows(paths: RunPaths, dataset: DatasetRecord, problems: list[str]) -> pd.DataFrame:
    columns = ["row", "path", "split", "label", "group"]
    rows = _read_table(paths.splits, columns, problems)
    if rows is not None and not unchanged(paths.splits, dataset.sha256):
        problems.append(f"{paths.splits.name} was changed: left out")
        rows = None
    return pd.DataFrame(columns=columns) if rows is None else rows


def _read_table(path: Path, columns: list[str], problems: list[str]) -> pd.DataFrame | None:
    """All cells as text ("" if empty); None if it cannot be read or lacks one of ``columns``."""
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", index_col=False)
        if not (lacking := [name for name in columns if name not in found]):
            return found
        problems.append(f"{path.name} lacks {', '.join(lacking)}: left out")
    except FileNotFoundError:
        problems.append(f"{path.name} is missing")
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {reason_of(error)}")
    return None


def _read_images(paths: RunPaths, dataset: DatasetRecord, problems: list[str]) -> pd.DataFrame:
    if not unchanged(paths.images, dataset.sha256):
        problems.append(f"{paths.images.name} is missing or was changed: left out")
        return pd.DataFrame(columns=IMAGE_COLUMNS)
    return image_table(paths.images, problems)


def image_table(path: Path, problems: list[str]) -> pd.DataFrame:
    """``IMAGE_COLUMNS``; no rows if there is no such file, as in earlier runs, or if it is damaged."""
    found = _read_table(path, IMAGE_COLUMNS, problems) if is_there(path) else None
    if found is None:
        return pd.DataFrame(columns=IMAGE_COLUMNS)
    numbers = {name: pd.to_numeric(found[name], errors="coerce") for name in IMAGE_COLUMNS[2:]}
    return found[IMAGE_COLUMNS].assign(**numbers)


def read_predictions(run: Run, of: str | BaselineRecord) -> Predictions | None:
    """The saved predictions of a trial ("t0007"), of a repeat ("t0007/seed_1001") or of a baseline.

    None if there are none, or if they are damaged, which ``run.problems`` then reports.
    """
    files = run.paths.baselines
    path = files / f"{of.name}.npz" if isinstance(of, BaselineRecord) else run.paths.trial(of).predictions
    return _saved(run, path, predictions.read_predictions)


def read_maps(run: Run, trial_id: str) -> Maps | None:
    """The attribution maps of a trial, or of a repeat; as ``read_predictions``."""
    return _saved(run, run.paths.trial(trial_id).maps, maps.read_maps)


def _saved(run: Run, path: Path, read: Callable[[Path], T]) -> T | None:
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except Exception as error:
        run.problems.append(f"{path.relative_to(run.paths.root)} cannot be read ({reason_of(error)}): left out")
        return None
