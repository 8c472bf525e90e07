"""The studies' ResNet-18 rows in epochs of 12,000 images, longest first, as many as time allows."""

from __future__ import annotations

import dataclasses
import math
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.gpu_session import Label, Row, Session, print_row, write_run_folder
from search_spaces.params import TrialParams
from search_spaces.studies import DESCRIPTIONS, published, rows_of
from trainables.metrics import evaluate_predictions

BACKBONE = "resnet18"
IMAGES_AN_EPOCH = 12_000
"""Our training split is repeated to this size: as many images as most studies had of two findings. msds19058 had 1,594,
and three findings were 6,200: these rows take more steps than in the studies."""
MOST_IMAGES = 60_000
QUICK_IMAGES, QUICK_RUNS = 32, 2
AT_ONCE = 6
"""Runs that share the GPU: with batches of 8 to 32 a single one leaves most of it idle."""
STEP_S = {False: 0.006, True: 0.012}
"""Estimated seconds per step, of the head only and of more, to decide whether a run is started."""
START_S = 5.0
"""Seconds of building, of the first steps and of the predictions, per run."""
NORMAL, BOTH = "normal", "covid|pneumonia"


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """Rows (``ids``) with the same settings. data: "two", "three" or "several" findings; epochs: limited by
    ``MOST_IMAGES``; cut: the rows that had more.
    """

    ids: tuple[str, ...]
    params: TrialParams
    data: str
    epochs: int
    cut: tuple[str, ...]

    @property
    def trunk_trains(self) -> bool:
        return self.params.unfreeze_depth != 0

    @property
    def steps(self) -> int:
        return self.epochs * math.ceil(IMAGES_AN_EPOCH / self.params.batch_size)


def measure(session: Session) -> None:
    runs = study_runs()
    if session.quick:
        runs = [next(run for run in runs if run.data == data) for data in ("two", "several")][:QUICK_RUNS]
    for run in runs:  # Created before several processes need them.
        _run_folder(session, run.data)
    left_out: list[str] = []
    with ProcessPoolExecutor(1 if session.quick else AT_ONCE, mp_context=get_context("spawn")) as pool:
        for run, answer in [(run, pool.submit(measured, session, run)) for run in runs]:
            if (row := answer.result()) is None:
                left_out += run.ids
            else:
                print_row(row)
    print_row({"study": "rows that there was no time for", "rows": left_out})


def measured(session: Session, run: StudyRun) -> Row | None:
    """The result of one run; None if too little time is left for it."""
    if session.left_s < START_S + run.steps * STEP_S[run.trunk_trains] and not session.quick:
        return None
    began_s = time.monotonic()
    name: Row = {"study": ", ".join(run.ids), "steps": run.steps, "cut": run.cut, "trains": run.params.summary()}
    return name | scores(session, run) | {"row_s": round(time.monotonic() - began_s, 1)}


def study_runs() -> list[StudyRun]:
    """All rows of ``BACKBONE`` that can be run, those with the same settings together, the most steps first."""
    findings = {row.id: row.findings for row in published()}
    same: dict[tuple[TrialParams, str, int], list[str]] = {}
    cut: set[str] = set()
    for study in DESCRIPTIONS:
        for row in rows_of(study):
            if row.params is None or row.params.backbone != BACKBONE:
                continue
            three = "three" if findings.get(row.id) == "three_findings" else "two"
            data = "several" if row.task == "multi_label" else three
            epochs = min(row.epochs, MOST_IMAGES // IMAGES_AN_EPOCH)
            same.setdefault((row.params, data, epochs), []).append(row.id)
            cut |= {row.id} if epochs < row.epochs else set()
    runs = [StudyRun(tuple(ids), *asked, cut=tuple(row for row in ids if row in cut)) for asked, ids in same.items()]
    return sorted(runs, key=lambda run: -run.steps)


def scores(session: Session, run: StudyRun) -> Row:
    """Macro F1 on validation and test of the epoch that is best on validation."""
    batch = min(run.params.batch_size, 8) if session.quick else run.params.batch_size
    params = dataclasses.replace(run.params, batch_size=batch)
    trial = session.trial(
        _run_folder(session, run.data), params, precision="bf16", epochs=run.epochs, cache=session.folder / "features"
    )
    own = session.folder / run.ids[0]
    weights, done, record = own / "best.pt", False, {}
    while not done:
        record = trial.run_epoch()
        done = bool(record.get("done"))
        if trial.tracker.improved:
            trial.save_best(weights, own / "predictions.npz")
    found = trial.predict_with(weights, ("val", "test"))
    names = {"val": "val_f1_macro", "test": "test_f1_macro"}
    result: Row = {"precision": "bf16", "end": record.get("end"), "best_epoch": record.get("best_epoch")}
    for split, part in found.items():
        values = evaluate_predictions(part.label, part.probability, part.classes, trial.data.task)
        result[names[split]] = round(values["f1_macro"], 4)
    trial.close()
    return result


def _run_folder(session: Session, data: str) -> Path:
    folder = session.folder / f"study_{data}"
    if folder.exists():
        return folder
    images = session.images
    findings = sorted(set(images.finding))
    labels: dict[str, tuple[Label, list[str]]] = {
        "two": (lambda finding: finding if finding == NORMAL else "infected", ["infected", NORMAL]),
        "three": (str, findings),
        "several": (lambda finding: BOTH if finding == "covid" else finding, findings),
    }
    label_of, classes = labels[data]
    count = QUICK_IMAGES if session.quick else IMAGES_AN_EPOCH
    rows = {split: images.rows_of(split, count if split == "train" else None) for split in ("train", "val", "test")}
    return write_run_folder(folder, images, rows, label_of, classes)
