"""A repeated study's own tables: its rows split by split, with and without focal loss, and counted class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, Heading, Note, Table
from reports.scores import evaluation_tables, interval_cells
from reports.trials import tables
from reports.trials.study_rows import RowOfStudy, focal_pairs, mean_of, rows_of
from sweep.records import Predictions

SPLITS = ("train", "val", "test")
SCORES = ("accuracy", "f1_macro")
FEWER_EPOCHS = "Not run as long as the study did, so a row here says little about what the study would have found: "


def blocks(evidence: ReportData) -> list[Block]:
    """What the study showed of each of its rows; [] where the run repeats no study or no row has predictions."""
    rows = rows_of(evidence)
    if not rows:
        return []
    found: list[Block] = [
        Heading("The study's rows on the three splits"),
        *_shortened(evidence),
        _splits(evidence, rows),
    ]
    if pairs := focal_pairs(rows):
        found += [Heading("With and without focal loss"), _focal(evidence, pairs)]
    return [*found, _counts(rows)]


def _shortened(evidence: ReportData) -> list[Block]:
    """A warning where rows were trained for fewer epochs than in the study."""
    epochs = evidence.run.sweep.get("epochs")
    if evidence.run.sweep.get("own_epochs", True) or not isinstance(epochs, int):
        return []
    asked = {
        str(row.get("id")): row["epochs"]
        for row in evidence.run.sweep.get("study_rows") or []
        if isinstance(row, dict) and isinstance(row.get("epochs"), int) and row["epochs"] > epochs
    }
    if not asked:
        return []
    most = (
        f"{min(asked.values())} to {max(asked.values())}" if len(set(asked.values())) > 1 else f"{max(asked.values())}"
    )
    return [Note("warning", f"{FEWER_EPOCHS}{epochs} epochs at most, and {most} there ({', '.join(asked)}).")]


def _splits(evidence: ReportData, rows: Sequence[RowOfStudy]) -> Table:
    """Accuracy and macro F1 of each row on each split, means over its repeats; intervals where the winner is judged."""
    standing = evidence.standing
    judged = None if standing is None else standing.split
    facts, pairs = [], []
    for row in rows:
        fact = _named(row) | {"runs": _runs_in_words(row)}
        for split in SPLITS:
            scores = row.contender.scores if row.repeated and row.contender is not None and split == judged else None
            for name in SCORES:
                key = f"{split}_{name}"
                if scores is not None:
                    fact |= interval_cells.cells(scores, {key: name})
                    pairs.append((scores, name))
                else:
                    value = mean_of(row, split, name)
                    fact |= {key: value, f"{key}_shown": formats.show("score", value)}
        facts.append(fact)
    accuracy = "exact match" if evidence.task == "multi_label" else "accuracy"
    titles = {
        f"{split}_{name}": f"{split} {title}"
        for name, title in zip(SCORES, (accuracy, "macro F1"), strict=True)
        for split in SPLITS
    }
    caption = (
        "Each row of the study, trained here: means over the repeats where it was repeated, else of one training. "
    )
    caption += "On training images a network has seen the answers. "
    if not any(not math.isnan(fact[f"test_{name}"]) for fact in facts for name in SCORES):
        caption += "No row was scored on test: that takes finalists. "
    frame = pd.DataFrame(facts)
    shown = tuple(column for column in interval_cells.columns(titles) if (frame[column.key] != formats.ABSENT).any())
    return Table(
        name="study_splits",
        caption=(caption + interval_cells.below(pairs)).strip(),
        frame=frame,
        columns=(*_name_columns(), Column("runs", "runs"), *shown),
    )


def _focal(evidence: ReportData, pairs: Sequence[tuple[RowOfStudy, RowOfStudy, tuple[str, ...]]]) -> Table:
    """Pairs of rows side by side, on test where both were scored there, else on validation."""
    rare = _rarest(evidence)
    wanted = {"accuracy": "accuracy", "f1_macro": "f1_macro", "f1": f"f1:{rare}", "recall": f"recall:{rare}"}
    facts = []
    for without, focal, also in pairs:
        split = "test" if all((run.split == "test").any() for row in (without, focal) for run in row.runs) else "val"
        fact: dict[str, Any] = {"backbone": focal.params.backbone, "without": without.id, "with": focal.id}
        fact |= {"also": ", ".join(also) or "nothing", "split": split}
        for key, name in wanted.items():
            before, after = (mean_of(row, split, name) for row in (without, focal))
            fact |= {f"{key}_without": before, f"{key}_with": after}
            fact[f"{key}_shown"] = f"{formats.show('score', before)} → {formats.show('score', after)}"
        facts.append(fact)
    accuracy = "exact match" if evidence.task == "multi_label" else "accuracy"
    return Table(
        name="study_focal",
        caption="Left of each arrow the row without focal loss, right the one with it: no interval, so no proof. What "
        "else the study changed between the two stands under “also differs”; a paired comparison changes nothing "
        f"else. The rarest class is {rare}.",
        frame=pd.DataFrame(facts),
        columns=(
            Column("backbone", "network"),
            Column("without", "without"),
            Column("with", "with"),
            Column("also", "also differs"),
            Column("split", "split"),
            Column("accuracy_shown", accuracy),
            Column("f1_macro_shown", "macro F1"),
            Column("f1_shown", f"F1 of {rare}"),
            Column("recall_shown", f"recall of {rare}"),
        ),
    )


def _counts(rows: Sequence[RowOfStudy]) -> Table:
    """TN, FP, FN, TP of each class, one against the rest, of each row and split; of the first repeat alone."""
    facts = []
    for row in rows:
        network = row.runs[0]
        for split in SPLITS:
            if not (network.split == split).any():
                continue
            cells = _against_the_rest(network, split)
            scores = evaluation_tables.per_class(network, split)
            for place, name in enumerate(network.classes):
                fact = _named(row) | {"split": split, "class": name} | cells[place]
                facts.append(fact | {key: float(scores[key][place]) for key in ("precision", "recall", "f1")})
    return Table(
        name="study_counts",
        caption="Every class of every row against the rest, counted: of the first repeat where there are several, so "
        "these are counts of one network.",
        frame=pd.DataFrame(facts),
        columns=(
            *_name_columns(),
            Column("split", "split"),
            Column("class", "class"),
            *(Column(name, name, "integer") for name in ("TN", "FP", "FN", "TP")),
            Column("precision", "precision", "score"),
            Column("recall", "recall", "score"),
            Column("f1", "F1", "score"),
        ),
        folded=True,
    )


def _against_the_rest(network: Predictions, split: str) -> list[dict[str, int]]:
    counts = evaluation_tables.matrix(network, split)
    if counts.ndim == 3:
        return [{"TN": int(c[0, 0]), "FP": int(c[0, 1]), "FN": int(c[1, 0]), "TP": int(c[1, 1])} for c in counts]
    found = []
    for place in range(len(counts)):
        tp, there, answered = int(counts[place, place]), int(counts[place].sum()), int(counts[:, place].sum())
        found.append({"TN": int(counts.sum()) - there - answered + tp, "FP": answered - tp, "FN": there - tp, "TP": tp})
    return found


def _rarest(evidence: ReportData) -> str:
    """The class of the fewest training images."""
    counts: Mapping[str, int] = (evidence.dataset.get("counts") or {}).get("train") or {}
    return min(evidence.classes, key=lambda name: (counts.get(name, 0), name))


def _named(row: RowOfStudy) -> dict[str, Any]:
    depth = tables.LAYERS if row.params.unfreeze_layers else wording.DEPTH_NAMES[row.params.unfreeze_depth or 0]
    return {
        "id": row.id,
        "number": row.number,
        "backbone": row.params.backbone,
        "trained": depth,
        "loss": row.params.loss,
    }


def _name_columns() -> tuple[Column, ...]:
    return Column("id", "row"), Column("backbone", "network"), Column("trained", "trained"), Column("loss", "loss")


def _runs_in_words(row: RowOfStudy) -> str:
    if not row.repeated:
        return "1 of the search"
    return f"{len(row.runs)} repeats" if len(row.runs) > 1 else "1 repeat"
