"""The published studies: 75 results of five course studies of 2020, as parameters to run and as what was reported.

``rows.csv`` says how each is run correctly, or why it cannot be; ``published.csv`` what was printed for it;
``studies.csv`` what each study was; ``flaws.csv`` what went wrong. Two findings (infected, normal) are a single-label
task. With three findings as a multi-label task, an image of covid also counts as pneumonia: both of its label columns
must be set.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from importlib import resources

from search_spaces.params import TrialParams


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One row of a study as it is run.

    id: the row's id in our list of the studies' results, unique over all five.
    params: the claimed configuration; None if it cannot be expressed, and then ``reason`` says why.
    task: "single_label" or "multi_label", as the study treated its labels. epochs: the study's own, >= 1.
    claim: the result as the study gave it, with what was measured. note: what was really run, where that differs.
    """

    id: str
    params: TrialParams | None
    task: str
    epochs: int
    claim: str
    note: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """What a study printed for one row.

    findings: "two_findings" (infected, normal) or "three_findings" (covid, normal, pneumonia). split: "test", "val",
    or "" if the study does not say. claimed: what was to train; really: what did train, "" if the same.
    loss: one of ``LOSSES``. accuracy: a share, None if none was printed;
    accuracy_is: its definition. f1: as printed, text. matrix: cells row by row: of a confusion matrix (matrix_kind
    "confusion", rows truth), TN FP FN TP of each label ("labels") or of all labels together ("pooled"); () without.
    flaws: numbers of what went wrong.
    """

    id: str
    study: str
    findings: str
    split: str
    backbone: str
    claimed: str
    really: str
    loss: str
    accuracy: float | None
    accuracy_is: str
    f1: str
    matrix_kind: str
    matrix: tuple[int, ...]
    flaws: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flaw:
    """What went wrong, and how our runs handle it. pictures: the studies in which figures have it, not rows."""

    number: int
    flaw: str
    here: str
    pictures: tuple[str, ...]


@functools.cache
def rows_of(study: str) -> tuple[StudyRow, ...]:
    """The rows of one of ``DESCRIPTIONS``, in the study's order."""
    fields = [field.name for field in dataclasses.fields(TrialParams)]
    rows = [cells for cells in _cells("rows.csv").values() if cells["study"] == study]
    return tuple(
        StudyRow(
            id=cells["row"],
            params=None
            if cells["reason"]
            else TrialParams.from_flat({name: cells[name] for name in fields if cells.get(name)}),
            epochs=int(cells["epochs"]),
            **{name: cells[name] for name in ("task", "claim", "note", "reason")},
        )
        for cells in rows
    )


def published(study: str | None = None) -> list[PublishedRow]:
    """What was printed for the rows of ``study``, or of all five: first two findings, then three."""
    run = _cells("rows.csv")
    rows = [run[row] | cells for row, cells in _cells("published.csv").items() if study in (None, run[row]["study"])]
    other = ("id", "accuracy", "matrix", "flaws")
    text = [field.name for field in dataclasses.fields(PublishedRow) if field.name not in other]
    return [
        PublishedRow(
            id=cells["row"],
            accuracy=float(cells["accuracy_pct"]) / 100 if cells["accuracy_pct"] else None,
            matrix=tuple(map(int, cells["matrix"].split())),
            flaws=tuple(map(int, cells["flaws"].split())),
            **{name: cells[name] for name in text},
        )
        for cells in rows
    ]


def _cells(name: str) -> dict[str, dict[str, str]]:
    """A table of this folder: the first cell of a row to all its cells by column, "" if empty."""
    lines = resources.files(__name__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return {next(iter(cells.values())): cells for cells in csv.DictReader(lines)}


DESCRIPTIONS = {study: cells["description"] for study, cells in _cells("studies.csv").items()}
"""What each study was."""
FLAWS = {
    int(number): Flaw(
        number=int(number), flaw=cells["flaw"], here=cells["here"], pictures=tuple(cells["pictures"].split())
    )
    for number, cells in _cells("flaws.csv").items()
}
