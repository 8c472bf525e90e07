"""Section 10: what the five course studies reported for the same task, each flaw marked, with this run beside it."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, Heading, Note, Section, Table, Text
from reports.scores.interval_cells import as_text, below, cells
from reports.scores.shown import runs_on, shown
from reports.scores.statistics import Interval
from reports.sections import study_figures, study_tables
from reports.trials.published_rows import CLASSES, WATCHED, canonical, flaws_of, published, task_of
from search_spaces.errors import by_reason

TITLE = "The five studies beside this run"
TASK_WORDS = {
    "two_findings": "two findings (infected, normal)",
    "three_findings": "three findings (covid, normal, pneumonia)",
}
NOT_COMPARABLE = (
    "These are other images, other splits and often another measure: no number of the studies can be compared with one "
    "of this run, and hardly any with one of another study. They show what was claimed, and on what grounds."
)


def section(evidence: ReportData) -> Section:
    rows = published()
    space = str(evidence.run.sweep.get("space") or "")
    study = space.removeprefix("studies.") if space.startswith("studies.") else None
    if study in set(rows["study"]):
        return Section("published", TITLE, tuple(_of_study(evidence, rows[rows["study"] == study], str(study))))
    task = task_of(evidence.classes)
    blocks: list[Block] = []
    if task is None:
        blocks.append(
            Text(
                "The five course studies that this system grew from (2020) sorted chest X-rays by "
                f"{wording.listing(TASK_WORDS.values())}. This data set has other classes: what they reported is "
                "folded away below."
            )
        )
        blocks += [_table(evidence, rows[rows["task"] == name], name, None, folded=True) for name in CLASSES]
        blocks.append(_flaws(rows, folded=True))
    else:
        own = rows[rows["task"] == task]
        blocks += [
            Text(
                "The five course studies that this system grew from (2020) fine-tuned VGG-16 and ResNet-18 on chest "
                f"X-rays. They reported {own['accuracy'].notna().sum()} results for {TASK_WORDS[task]}."
            ),
            Note("warning", NOT_COMPARABLE),
            _table(evidence, own, task, _ours(evidence), folded=False),
            Heading("The flaws, by number"),
            _flaws(own, folded=False),
        ]
    return Section("published", TITLE, tuple(blocks))


def _table(evidence: ReportData, rows: pd.DataFrame, task: str, ours: dict[str, Any] | None, folded: bool) -> Table:
    frame = pd.DataFrame([_shown(row) for row in rows.to_dict("records")])
    caption = f"What the studies reported for {TASK_WORDS[task]}. {_of_matrix(task)}"
    if ours is not None:
        caption += f" This run: {ours.pop('below')}"
        frame = pd.concat([pd.DataFrame([ours]), frame], ignore_index=True)
    return Table(
        name=f"published_{task}",
        caption=caption,
        frame=frame,
        columns=(
            Column("id", "row"),
            Column("study", "study"),
            Column("flaws", "flaws"),
            Column("network", "network"),
            Column("trained", "trained"),
            Column("split", "split"),
            *_reported(frame, "accuracy"),
            Column("accuracy_shown", "accuracy (95 %)"),
            Column("f1_macro_shown", "macro F1"),
            Column("recall_shown", f"recall of {WATCHED[task]}"),
            Column("f1", "F1 as reported"),
        ),
        folded=folded,
    )


def _of_matrix(task: str) -> str:
    return (
        f"Accuracy (95 %), macro F1 and recall of {WATCHED[task]} were computed here from the matrix that a study "
        "printed, with Wilson's interval as if every image were another patient."
    )


def _reported(frame: pd.DataFrame, title: str) -> tuple[Column, ...]:
    """The accuracy as it was reported and, unless all mean the same, what the study meant by it."""
    kinds = set(frame["accuracy_is"]) - {"accuracy", formats.ABSENT}
    column = Column("reported", f"{title} as reported", "score")
    return (column, Column("accuracy_is", "which is")) if kinds else (column,)


def _shown(row: dict[Any, Any]) -> dict[str, Any]:
    """A published row with its numbers and how they are shown."""
    found = Interval(row["accuracy_matrix"], row["low"], row["high"], "Wilson", 0, 0, 0, "")
    loss = {"cross-entropy": "", "binary cross-entropy": ", BCE"}.get(row["loss"], f", {row['loss']}")
    return {
        "id": row["id"],
        "study": row["study"],
        "network": f"{row['backbone']}{loss}",
        "trained": row["claimed"] + (f" (really {row['really']})" if row["really"] else ""),
        "split": row["split"] or "not said",
        "reported": row["accuracy"],
        "accuracy_is": row["accuracy_is"],
        "accuracy": row["accuracy_matrix"],
        "accuracy_low": row["low"],
        "accuracy_high": row["high"],
        "accuracy_shown": as_text(found),
        "f1_macro": row["f1_macro"],
        "f1_macro_shown": formats.show("score", row["f1_macro"]),
        "recall": row["recall"],
        "recall_shown": formats.show("score", row["recall"]),
        "flaws": " ".join(str(number) for number in row["flaws"]),
        "f1": row["f1"] or formats.ABSENT,
    }


def _ours(evidence: ReportData) -> dict[str, Any] | None:
    """This run's row: the mean over the winner's repeats on the split that judges; None without predictions."""
    network = shown(evidence)
    split = None if network is None else network.judged
    runs = None if split is None else runs_on(evidence, split)
    if runs is None or evidence.best is None:
        return None
    finals = evidence.run.finals
    number = evidence.best["number"] if finals is None or finals.winning is None else finals.winning.number
    trial = evidence.trials.loc[evidence.trials["number"] == number].to_dict("records")
    facts: dict[str, Any] = {
        "id": "this run",
        "study": f"mean of {len(runs.names)} repeats" if len(runs.names) > 1 else "one run",
        "network": trial[0]["backbone"] if trial else "unknown",
        "trained": trial[0]["unfrozen"] if trial else "unknown",
        "split": split if split == "test" else "val (optimistic)",
        "reported": math.nan,
        "accuracy_is": formats.ABSENT,
        "flaws": formats.ABSENT,
        "f1": formats.ABSENT,
    }
    watched = next(name for name in runs.classes if canonical(name) in WATCHED.values())
    names = {"accuracy": "accuracy", "f1_macro": "f1_macro", "recall": f"recall:{watched}"}
    scores = runs.scores()
    return facts | cells(scores, names) | {"below": below((scores, name) for name in names.values())}


def _flaws(rows: pd.DataFrame, folded: bool) -> Table:
    return Table(
        name="published_flaws",
        caption="What went wrong in the studies, in which rows, and how it stands here.",
        frame=flaws_of(rows),
        columns=(
            Column("number", "no.", "integer"),
            Column("flaw", "what went wrong"),
            Column("rows", "rows"),
            Column("here", "here"),
        ),
        folded=folded,
    )


def _of_study(evidence: ReportData, rows: pd.DataFrame, study: str) -> list[Block]:
    """The rows of the study that this run repeats, each beside the trial that ran it as the study described it."""
    ran = {str(row.get("id")): row for row in evidence.run.sweep.get("study_rows") or [] if isinstance(row, dict)}
    left_out = evidence.run.sweep.get("study_rows_left_out") or {}
    trials = {int(row["number"]): row for row in evidence.trials.to_dict("records") if row["number"] >= 0}
    finals = evidence.run.finals
    repeated = {one.number: one for one in finals.finalists} if finals else {}
    facts = []
    for row in rows[rows["id"].isin(list(ran))].to_dict("records"):
        number = ran[str(row["id"])].get("number")
        trial = trials.get(number, {}) if number is not None else {}
        finalist = repeated.get(number) if number is not None else None
        ours = {
            "number": math.nan if number is None else float(number),
            "status": trial.get("status", "not begun"),
            "val_accuracy": trial.get("val_accuracy", math.nan),
            "val_f1_macro": trial.get("val_f1_macro", math.nan),
            "trainable_params": trial.get("trainable_params", math.nan),
            "repeats": math.nan if finalist is None else float(len(finalist.scores)),
            "mean": math.nan if finalist is None else finalist.mean,
            "claim": str(ran[str(row["id"])].get("claim") or formats.ABSENT),
            "note": str(ran[str(row["id"])].get("note") or formats.ABSENT),
        }
        facts.append(_shown(row) | ours)
    title = Text(f"This run repeats study {study}, each row as the study described it, run correctly.")
    if not facts:
        return [title, Text("No row of the study is recorded in sweep.json.")]
    frame = pd.DataFrame(facts)
    metric = wording.metric_name(evidence.metric)
    again = frame["repeats"].notna().any()
    table = Table(
        name="published_study",
        caption=f"Left what {study} reported, right what the same row scored here, once, on validation"
        + (f", and the mean {metric} of its repeats where there are any" if again else "")
        + ". Its macro F1 was computed here from the matrix that it printed. "
        + evidence.basis("val"),
        frame=frame,
        columns=(
            Column("id", "row"),
            Column("flaws", "flaws"),
            Column("network", "network"),
            Column("trained", "trained, as claimed"),
            Column("split", "its split"),
            *_reported(frame, "its accuracy"),
            Column("f1_macro_shown", "its macro F1"),
            Column("val_accuracy", "our val accuracy", "score"),
            Column("val_f1_macro", "our val macro F1", "score"),
            *((Column("repeats", "repeats", "integer"), Column("mean", "their mean", "score")) if again else ()),
            Column("status", "status"),
            Column("number", "trial", "integer"),
            Column("f1", "its F1 as reported"),
        ),
    )
    claims = Table(
        name="study_claims",
        caption="What the study claimed for each row, and what its code is known to have really run.",
        frame=frame,
        columns=(Column("id", "row"), Column("claim", "claim"), Column("note", "what was really run")),
        folded=True,
    )
    missing = tuple(by_reason(left_out))
    notes = [Note("info", "Rows of the study that were not run:", missing)] if missing else []
    heading = Heading("The flaws, by number")
    shown_rows = rows[rows["id"].isin(frame["id"])]
    blocks: list[Block] = [title, Note("warning", NOT_COMPARABLE), table, claims, *notes]
    blocks += [*study_tables.blocks(evidence), *study_figures.blocks(evidence)]
    return [*blocks, heading, _flaws(shown_rows, folded=False)]
