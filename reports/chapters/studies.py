"""A published study run again: what each of its rows claimed, beside what came out here; None in any other run."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports import figures, formats, intervals
from reports.blocks import Block, Chapter, Column, Figure, Figures, Folded, Note, Table, Text
from reports.chapters.errors import confusion_figure
from reports.data import checked, without_test
from reports.intervals import wilson
from reports.leaderboard import ConfigurationResult
from reports.results import Results
from reports.tables import LAYERS, SPLITS
from search_spaces.errors import by_reason
from search_spaces.params import TrialParams
from search_spaces.studies import PublishedRow, published
from sweep.records import StudyRowRecord, read_predictions
from trainables.metrics import confusion_matrix, evaluate_predictions
from trainables.predictions import Predictions

TITLE = "The published study beside this run"
PREFIX = "studies."
CLASSES = {"two_findings": ("infected", "normal"), "three_findings": ("covid", "normal", "pneumonia")}
WATCHED = {"two_findings": "infected", "three_findings": "covid"}  # the class that must not be missed
SCORES = ("accuracy", "f1_macro")
LOSS_FIELDS = ("loss", "focal_gamma", "focal_alpha", "class_weights")
TRAINED = {"unfreeze_depth", "unfreeze_layers"}
NOT_COMPARABLE = (
    "The studies had other images, other splits and often another measure: no number of theirs can be compared with "
    "one of this run. They show what was claimed, and on what grounds."
)
# number: what went wrong, and how it stands with a run of ours
FLAWS: dict[int, tuple[str, str]] = {
    1: ("nothing was frozen, through a misspelt attribute", "what trains is checked and counted in every table"),
    2: ("nothing was unfrozen: the flag was set on layers, not on parameters", "what trains is checked and counted"),
    3: ("the new head was never used, or had thousands of outputs", "the width of the output is checked"),
    4: ("evaluated in training mode, with dropout or moving BatchNorm", "one evaluation, in evaluation mode"),
    5: ("BatchNorm of frozen layers moved on", "frozen blocks do not move"),
    6: ("chosen on the test split, or validation called test", "test is opened once, after the choice"),
    7: ("F1 of the last mini-batch alone", "every score is of a whole split"),
    8: ("F1 of one class only, or of pooled label bits", "macro F1, and each class by itself"),
    9: ("scores or images of another network", "predictions lie in their own trial's folder"),
    10: ("a confusion matrix summed over epochs or of an earlier run", "matrices are computed from saved predictions"),
    11: ("a loss computed wrongly", "losses are tested against their formulas"),
    12: ("best and worst images picked from the wrong list", "images are ranked with their file names"),
    13: ("one run, one seed, several things changed at once", "repeats, intervals and paired comparisons"),
    14: ("went on from another run's weights", "a trial starts from named weights"),
    15: ("predictions paired with the wrong file names", "predictions carry their file names"),
    16: ("validation images augmented, test images of another size", "all splits are prepared alike"),
    17: ("no covid image found at all, behind a high accuracy", "macro F1 selects; class counts stand by it"),
    18: ("“accuracy” of a kind that other studies do not mean", "each measure is named for what it is"),
    19: ("test scores above validation: the splits differ", "both are shown, with intervals"),
    20: (
        "images of validation were in the training of the weights it began with",
        "duplicates across splits stop a run",
    ),
    21: ("class and source of the images go together", "a source column is held against the class"),
    22: ("a number typed in by hand differs from the record", "every number comes from the records"),
    23: ("table, text and figure contradict each other", "every number comes from one record"),
}
# Of a study's pictures, not of a row's numbers.
OF_STUDIES = {9: "msds18022", 12: "bscs17028, msds18022", 15: "msds19005, msds19042", 22: "msds19058"}


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row of the study as it ran here. runs: its repeats' predictions, or the search's alone; at least one.

    repeated: whether ``runs`` are repeats with fresh seeds. result: the finalist, scored, or None.
    """

    id: str
    number: int
    params: TrialParams
    runs: tuple[Predictions, ...]
    repeated: bool
    result: ConfigurationResult | None


def chapter(results: Results) -> Chapter | None:
    space = results.data.run.sweep.space or ""
    study = space.removeprefix(PREFIX)
    rows = published(study) if space.startswith(PREFIX) else []
    if not rows:
        return None
    ran = {row.id: row for row in results.data.run.sweep.study_rows}
    own = [row for row in rows if row.id in ran]
    text = f"This run repeats study {formats.escape(study)}, each row as the study described it, run correctly. "
    blocks: list[Block] = [Text(text + NOT_COMPARABLE)]
    if not own:
        blocks.append(Text("No row of the study is recorded in sweep.json."))
    else:
        blocks += [_claimed(results, own, ran), *_left_out(results), *_shortened(results), *_measured(results)]
    blocks.append(_flaws([row for row in rows if row.id in ran or not own]))
    return Chapter("studies", TITLE, (*blocks, _all_rows()))


def rows_of(results: Results) -> list[RowResult]:
    """Each row of the study whose predictions can be read, in the study's order."""
    data, board = results.data, results.leaderboard
    trials = {int(row["number"]): row for row in data.trials.to_dict("records") if row["number"] >= 0}
    of_number = {} if board is None else {one.finalist.number: one for one in board.configurations}
    found = []
    for row in data.run.sweep.study_rows:
        trial = trials.get(row.number) if row.number is not None else None
        params = None if trial is None else formats.trial_params({str(key): value for key, value in trial.items()})
        if trial is None or params is None or row.number is None:
            continue
        result = of_number.get(row.number)
        completed = () if result is None else result.finalist.completed
        repeats = tuple(data.repeats[one.trial_id] for one in completed if one.trial_id in data.repeats)
        key = str(trial["trial_id"])
        saved = None if repeats else checked(data.run, read_predictions(data.run, key), f"predictions of {key}")
        runs = repeats or (() if saved is None else (without_test(saved),))
        if runs:
            more: dict[str, Any] = {"runs": runs, "repeated": bool(repeats), "result": result}
            found.append(RowResult(id=row.id, number=row.number, params=params, **more))
    return found


def focal_pairs(rows: Sequence[RowResult]) -> list[tuple[RowResult, RowResult, tuple[str, ...]]]:
    """Each row with focal loss, the row without it that is most like it, and what else differs between the two."""
    found = []
    for focal in (row for row in rows if row.params.loss == "focal"):
        same = [row for row in rows if row.params.loss != "focal" and row.params.backbone == focal.params.backbone]
        apart = [_also_differs(row.params, focal.params) for row in same]
        # What trains comes first: at another depth it is another network.
        places = sorted(range(len(same)), key=lambda place: (bool(TRAINED & set(apart[place])), len(apart[place])))
        found += [(same[place], focal, apart[place]) for place in places[:1]]
    return found


def flaws_of(rows: Sequence[PublishedRow]) -> pd.DataFrame:
    """The flaws of these rows: number, flaw, rows (their ids, or "all"), here. And those of their studies' pictures."""
    found = []
    studies = {row.study for row in rows}
    for number, (flaw, here) in FLAWS.items():
        ids = [row.id for row in rows if number in row.flaws]
        where = ["all" if len(ids) == len(rows) else in_short(ids)] if ids else []
        pictures = [name for name in OF_STUDIES.get(number, "").split(", ") if name in studies]
        where += [f"figures of {', '.join(pictures)}"] if pictures else []
        if where:
            found.append({"number": number, "flaw": flaw, "rows": "; ".join(where), "here": here})
    return pd.DataFrame(found, columns=["number", "flaw", "rows", "here"])


def in_short(ids: Iterable[str]) -> str:
    """ "M1–M8, M10, Z5a" for ids in their order."""
    parts: list[list[str]] = []
    for name in ids:
        if parts and _follows(parts[-1][-1], name):
            parts[-1].append(name)
        else:
            parts.append([name])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 2 else ", ".join(part) for part in parts)


def from_matrix(row: PublishedRow) -> dict[str, float]:
    """What follows from the matrix that a study printed, 0/0 as 0: accuracy, low, high (Wilson, as if every image were
    another patient), f1_macro, recall (of ``WATCHED``); NaN where no matrix allows it."""
    found = dict.fromkeys(("accuracy", "low", "high", "f1_macro", "recall"), math.nan)
    cells, classes = np.array(row.matrix, dtype=np.float64), CLASSES[row.findings]
    if row.matrix_kind == "confusion":
        table = cells.reshape(len(classes), len(classes))
        hits, answered, there = np.diag(table), table.sum(axis=0), table.sum(axis=1)
        share = float(hits.sum() / table.sum())
        found["accuracy"], (found["low"], found["high"]) = share, wilson(share, float(table.sum()))
    elif row.matrix_kind == "labels":
        _, false_positives, misses, hits = cells.reshape(len(classes), 4).T
        answered, there = hits + false_positives, hits + misses
    else:  # no matrix, or one of all labels pooled, which hides the single ones
        return found
    found["f1_macro"] = float(_share(2 * hits, answered + there).mean())
    found["recall"] = float(_share(hits, there)[classes.index(WATCHED[row.findings])])
    return found


def _claimed(results: Results, rows: Sequence[PublishedRow], ran: dict[str, StudyRowRecord]) -> Table:
    """Each row as published, beside the trial that ran it."""
    trials = {int(row["number"]): row for row in results.data.trials.to_dict("records") if row["number"] >= 0}
    finals = results.data.run.finals
    repeated = {one.number: one for one in finals.finalists} if finals else {}
    facts = []
    for row in rows:
        record = ran[row.id]
        number = -1 if record.number is None else record.number
        trial, finalist = trials.get(number, {}), repeated.get(number)
        ours: dict[str, Any] = {key: trial.get(key, math.nan) for key in ("number", "val_accuracy", "val_f1_macro")}
        ours["status"] = trial.get("status", "not begun")
        ours["repeats"] = math.nan if finalist is None else float(len(finalist.scores))
        ours["mean"] = math.nan if finalist is None else finalist.mean
        facts.append(_published_cells(row) | ours | {"claim": record.claim, "note": record.note})
    frame = pd.DataFrame(facts)
    again = frame["repeats"].notna().any()
    columns = (
        *(Column(key, title) for key, title in (("id", "row"), ("flaws", "flaws"), ("network", "network"))),
        Column("trained", "trained, as claimed"),
        Column("claim", "claim"),
        Column("note", "what was really run"),
        Column("reported", "its accuracy", "score"),
        Column("matrix_f1_macro", "its macro F1", "score"),
        Column("val_accuracy", "our val accuracy", "score"),
        Column("val_f1_macro", "our val macro F1", "score"),
        *((Column("repeats", "repeats", "integer"), Column("mean", "their mean", "score")) if again else ()),
        Column("status", "status"),
        Column("number", "trial", "integer"),
    )
    caption = (
        "What the study reported, and what the same row scored here, once, on validation. Its macro F1 was computed "
    )
    caption += f"from the matrix that it printed. {results.data.basis('val')}"
    return Table("study_rows", caption, frame, columns)


def _left_out(results: Results) -> list[Block]:
    missing = tuple(by_reason(results.data.run.sweep.study_rows_left_out))
    return [Note("info", "Rows of the study that were not run:", missing)] if missing else []


def _shortened(results: Results) -> list[Block]:
    """A warning where rows were trained for fewer epochs than in the study."""
    sweep = results.data.run.sweep
    if sweep.own_epochs or sweep.epochs is None:
        return []
    longer = {row.id: row.epochs for row in sweep.study_rows if row.epochs is not None and row.epochs > sweep.epochs}
    if not longer:
        return []
    few, most = min(longer.values()), max(longer.values())
    text = f"Not run as long as the study did: {sweep.epochs} epochs at most, and "
    return [Note("warning", f"{text}{most if few == most else f'{few} to {most}'} there ({', '.join(longer)}).")]


def _measured(results: Results) -> list[Block]:
    """What the study showed of its rows: scores on three splits, focal loss, counts, curves and matrices."""
    rows = rows_of(results)
    if not rows:
        return []
    pairs = focal_pairs(rows)
    drawn = tuple(Figures((*_curves(results, row), *(_matrix(row, split) for split in _splits(row)))) for row in rows)
    text = (
        "Curves are of the search's training. Matrices and counts are of the first repeat where the row was repeated, "
        "else of the search's training, and then there is none of test."
    )
    blocks: list[Block] = [_split_scores(results, rows), *([_focal(results, pairs)] if pairs else [])]
    return [*blocks, Folded("Curves, confusion matrices and counts of each row", (Text(text), *drawn, _counts(rows)))]


def _split_scores(results: Results, rows: Sequence[RowResult]) -> Table:
    """Accuracy and macro F1 of each row on each split, means over its repeats; intervals where the winner is judged."""
    judged = results.leaderboard.split if results.leaderboard is not None else None
    facts, pairs = [], []
    for row in rows:
        many = f"{len(row.runs)} repeat{'s' * (len(row.runs) > 1)}" if row.repeated else "1 of the search"
        fact = _named(row) | {"runs": many}
        for split in SPLITS:
            scores = row.result.scores if row.repeated and row.result is not None and split == judged else None
            for name in SCORES:
                key = f"{split}_{name}"
                if scores is not None:
                    fact |= intervals.cells(scores, {key: name})
                    pairs.append((scores, name))
                else:
                    value = mean_of(row, split, name)
                    fact |= {key: value, f"{key}_shown": formats.show("score", value)}
        facts.append(fact)
    accuracy = "exact match" if results.data.task == "multi_label" else "accuracy"
    titles = {
        f"{split}_{name}": f"{split} {title}"
        for name, title in zip(SCORES, (accuracy, "macro F1"), strict=True)
        for split in SPLITS
    }
    frame = pd.DataFrame(facts)
    shown = (column for column in intervals.columns(titles) if (frame[column.key] != formats.ABSENT).any())
    caption = "Each row trained here: means over the repeats where it was repeated, else of one training. "
    if not frame[[f"test_{name}" for name in SCORES]].notna().any(axis=None):
        caption += "No row was scored on test: that takes finalists. "
    columns = (*_name_columns(), Column("runs", "runs"), *shown)
    return Table("study_splits", (caption + intervals.below(pairs)).strip(), frame, columns)


def _focal(results: Results, pairs: Sequence[tuple[RowResult, RowResult, tuple[str, ...]]]) -> Table:
    """Pairs of rows side by side, on test where both were scored there, else on validation."""
    counts = results.data.dataset.counts.get("train") or {}
    rare = min(results.data.classes, key=lambda name: (counts.get(name, 0), name))
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
    columns = (
        Column("backbone", "network"),
        Column("without", "without"),
        Column("with", "with"),
        Column("also", "also differs"),
        Column("split", "split"),
        Column("accuracy_shown", "exact match" if results.data.task == "multi_label" else "accuracy"),
        Column("f1_macro_shown", "macro F1"),
        Column("f1_shown", f"F1 of {rare}"),
        Column("recall_shown", f"recall of {rare}"),
    )
    caption = "Rows without → with focal loss: no interval, so no proof. “Also differs”: what else the study changed."
    return Table("study_focal", caption, pd.DataFrame(facts), columns)


def _counts(rows: Sequence[RowResult]) -> Table:
    """TN, FP, FN, TP of each class, one against the rest, of each row and split."""
    facts = []
    for row in rows:
        for split in _splits(row):
            part = row.runs[0].of(split)
            counts = _matrix_of(part)
            scores = evaluate_predictions(part.label, part.probability, part.classes, _task(part))
            for place, name in enumerate(part.classes):
                fact = _named(row) | {"split": split, "class": name} | _against_the_rest(counts, place)
                facts.append(fact | {key: scores[f"{key}:{name}"] for key in ("precision", "recall", "f1")})
    columns = (
        *_name_columns(),
        *(Column(name, name) for name in ("split", "class")),
        *(Column(name, name, "integer") for name in ("TN", "FP", "FN", "TP")),
        *(Column(name, name, "score") for name in ("precision", "recall", "f1")),
    )
    return Table("study_counts", "Every class of every row against the rest, counted.", pd.DataFrame(facts), columns)


def _against_the_rest(counts: NDArray[np.int64], place: int) -> dict[str, int]:
    if counts.ndim == 3:
        (tn, fp), (fn, tp) = counts[place].tolist()
    else:
        tp, there, answered = int(counts[place, place]), int(counts[place].sum()), int(counts[:, place].sum())
        tn, fp, fn = int(counts.sum()) - there - answered + tp, answered - tp, there - tp
    return {"TN": tn, "FP": fp, "FN": fn, "TP": tp}


def _curves(results: Results, row: RowResult) -> list[Figure]:
    trial = results.data.trials.loc[results.data.trials["number"] == row.number].iloc[0]
    epochs = results.data.run.epochs
    own = epochs[epochs["trial_id"] == trial["trial_id"]]
    found = []
    for name in ("loss", "accuracy") if len(own) else ():
        drawing = figures.curve(own, f"train_{name}", f"val_{name}", name, float(trial["best_epoch"]))
        caption = f"{row.id}, {row.params.backbone}: {name}."
        alt = f"{name.capitalize()} of row {row.id} by epoch, training and validation."
        found.append(Figure(f"study_{row.id}_{name}", caption, alt, drawing))
    return found


def _matrix(row: RowResult, split: str) -> Figure:
    part = row.runs[0].of(split)
    return confusion_figure(_matrix_of(part), part.classes, split, f"study_{row.id}_{split}", f"{row.id}, ")


def _flaws(rows: Sequence[PublishedRow]) -> Table:
    columns = (
        Column("number", "no.", "integer"),
        *(Column(key, title) for key, title in (("flaw", "what went wrong"), ("rows", "rows"), ("here", "here"))),
    )
    return Table(
        "study_flaws", "What went wrong in the study, in which rows, and how it stands here.", flaws_of(rows), columns
    )


def _all_rows() -> Table:
    frame = pd.DataFrame([{"findings": row.findings.replace("_", " "), **_published_cells(row)} for row in published()])
    text = ("id", "study", "findings", "flaws", "network", "trained", "split", "accuracy_is", "f1")
    numbers = ("reported", "matrix_accuracy", "matrix_low", "matrix_high", "matrix_f1_macro", "matrix_recall")
    columns = (
        *(Column(key, {"accuracy_is": "which accuracy", "f1": "F1 as reported"}.get(key, key)) for key in text),
        *(Column(key, key.replace("matrix_", "of matrix: ").replace("_", " "), "score") for key in numbers),
    )
    caption = (
        "All rows of the five studies as published; of matrix: computed from the matrix that a study printed, with "
    )
    caption += "Wilson's interval as if every image were another patient; recall: of infected or covid."
    return Table("studies_published", caption, frame, columns, folded=True)


def _published_cells(row: PublishedRow) -> dict[str, Any]:
    loss = {"cross-entropy": "", "binary cross-entropy": ", BCE"}.get(row.loss, f", {row.loss}")
    return {
        "id": row.id,
        "study": row.study,
        "network": f"{row.backbone}{loss}",
        "trained": row.claimed + (f" (really {row.really})" if row.really else ""),
        "split": row.split or "not said",
        "reported": math.nan if row.accuracy is None else row.accuracy,
        "accuracy_is": row.accuracy_is,
        "flaws": " ".join(map(str, row.flaws)),
        "f1": row.f1 or formats.ABSENT,
        **{f"matrix_{key}": value for key, value in from_matrix(row).items()},
    }


def mean_of(row: RowResult, split: str, name: str) -> float:
    """The mean over the row's runs of one score of ``split``; NaN where a run has no image of it."""
    parts = [run.of(split) for run in row.runs]
    if not all(len(part.path) for part in parts):
        return math.nan
    scores = [evaluate_predictions(part.label, part.probability, part.classes, _task(part)) for part in parts]
    return statistics.fmean(one.get(name, math.nan) for one in scores)


def _task(part: Predictions) -> str:
    return "multi_label" if part.label.ndim == 2 else "single_label"


def _matrix_of(part: Predictions) -> NDArray[np.int64]:
    return confusion_matrix(part.label, part.probability, part.classes, _task(part))


def _splits(row: RowResult) -> list[str]:
    return [split for split in SPLITS if (row.runs[0].split == split).any()]


def _named(row: RowResult) -> dict[str, Any]:
    depth = LAYERS if row.params.unfreeze_layers else formats.DEPTH_NAMES[row.params.unfreeze_depth or 0]
    facts = {"id": row.id, "number": row.number, "backbone": row.params.backbone}
    return facts | {"trained": depth, "loss": row.params.loss}


def _name_columns() -> tuple[Column, ...]:
    return Column("id", "row"), Column("backbone", "network"), Column("trained", "trained"), Column("loss", "loss")


def _also_differs(one: TrialParams, other: TrialParams) -> tuple[str, ...]:
    first, second = one.to_flat(), other.to_flat()
    return tuple(name for name in first if name not in LOSS_FIELDS and first[name] != second[name])


def _follows(before: str, name: str) -> bool:
    first, second = re.fullmatch(r"([A-Z])(\d+)", before), re.fullmatch(r"([A-Z])(\d+)", name)
    return bool(first and second and first[1] == second[1] and int(second[2]) == int(first[2]) + 1)


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
