"""A repeat of a published study: the claims of its rows compared with the results here. Only for such a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports import formats, intervals
from reports.blocks import Block, Figures, Folded, Note, Table, Text, columns
from reports.chapters.errors import confusion_figure, counted
from reports.chapters.examples import truth_and_decisions
from reports.chapters.learning_curves import MEASURES, curve
from reports.data import checked, without_test
from reports.intervals import wilson
from reports.leaderboard import ConfigurationResult
from reports.results import Results
from reports.tables import SPLITS
from search_spaces.errors import by_reason
from search_spaces.params import LOSS_FIELDS, TrialParams
from search_spaces.studies import FLAWS, PublishedRow, published
from sweep.records import read_predictions
from trainables.metrics import confusion_matrix, evaluate_predictions, ratio
from trainables.predictions import Predictions

PREFIX = "studies."
CLASSES = {"two_findings": ("infected", "normal"), "three_findings": ("covid", "normal", "pneumonia")}
WATCHED = {"two_findings": "infected", "three_findings": "covid"}  # the class that must not be missed
SCORES = ("accuracy", "f1_macro")
TRAINED = {"unfreeze_depth", "unfreeze_layers"}
NOT_COMPARABLE = (
    "The studies used other images, other splits and often other measures: none of their numbers can be compared with "
    "one of this run. They show what was claimed, and on what grounds."
)


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """One row of the study as it ran here. trial: its row of the trials table (the search).

    runs: predictions of its repeats, else of the search; at least one. result: the finalist; None: not repeated.
    """

    id: str
    trial: dict[str, Any]
    params: TrialParams
    runs: tuple[Predictions, ...]
    result: ConfigurationResult | None

    @property
    def splits(self) -> list[str]:
        """The splits of its first run."""
        return [split for split in SPLITS if (self.runs[0].split == split).any()]

    def mean(self, split: str, name: str) -> float:
        """The mean of one score over its runs; NaN if a run has no image of ``split``."""
        parts = [run.of(split) for run in self.runs]
        if not all(len(part.path) for part in parts):
            return math.nan
        scores = [evaluate_predictions(part.label, part.probability, part.classes, part.task) for part in parts]
        return statistics.fmean(one.get(name, math.nan) for one in scores)


def chapter(results: Results) -> list[Block]:
    sweep = results.data.run.sweep
    study = (sweep.space or "").removeprefix(PREFIX)
    rows = published(study) if (sweep.space or "").startswith(PREFIX) else []
    if not rows:
        return []
    own = [row for row in rows if row.id in {one.id for one in sweep.study_rows}]
    text = f"This run repeats study {formats.escape(study)}, each row as the study described it, run correctly. "
    blocks: list[Block] = [Text(text + NOT_COMPARABLE)]
    if own:
        ran = rows_of(results)
        pairs = focal_pairs(ran)
        blocks += [_claimed(results, own, ran), *_remarks(results), *([_focal(results, pairs)] if pairs else [])]
        blocks += [_pictures(results, ran)] if ran else []
    else:
        blocks.append(Text("No row of the study is recorded in sweep.json."))
    caption = "Flaws of the study, the rows affected, and how this run handles them."
    shown = columns(number="no.", flaw="flaw", rows="rows", here="here")
    return [*blocks, Table("study_flaws", caption, flaws_of(own or rows), shown), _all_rows()]


def rows_of(results: Results) -> list[RowResult]:
    """Each row of the study whose predictions can be read, in the study's order."""
    data, of_number = results.data, {one.finalist.number: one for one in results.leaderboard.configurations}
    found = []
    for row in data.run.sweep.study_rows:
        trial = data.trial(row.number)
        params = None if trial is None else formats.trial_params(trial)
        if trial is None or params is None:
            continue
        result = of_number.get(int(trial["number"]))
        completed = () if result is None else result.finalist.completed
        runs = tuple(data.repeats[one.trial_id] for one in completed if one.trial_id in data.repeats)
        if not runs:
            key, result = str(trial["trial_id"]), None
            saved = checked(data.run, read_predictions(data.run, key), f"predictions of {key}")
            runs = () if saved is None else (without_test(saved),)
        if runs:
            found.append(RowResult(id=row.id, trial=trial, params=params, runs=runs, result=result))
    return found


def focal_pairs(rows: Sequence[RowResult]) -> list[tuple[RowResult, RowResult, tuple[str, ...]]]:
    """For each row with focal loss: the most similar row without it, the row itself, and what else differs."""
    found = []
    for focal in (row for row in rows if row.params.loss == "focal"):
        same = [row for row in rows if row.params.loss != "focal" and row.params.backbone == focal.params.backbone]
        apart = [_also_differs(row.params, focal.params) for row in same]
        # Equal trained layers matter most: at another depth it is another network.
        places = sorted(range(len(same)), key=lambda place: (bool(TRAINED & set(apart[place])), len(apart[place])))
        found += [(same[place], focal, apart[place]) for place in places[:1]]
    return found


def flaws_of(rows: Sequence[PublishedRow]) -> pd.DataFrame:
    """The flaws of these rows and of their studies' figures: number, flaw, rows (their ids, or "all"), here."""
    found = []
    studies = {row.study for row in rows}
    for one in FLAWS.values():
        ids = [row.id for row in rows if one.number in row.flaws]
        where = ["all" if len(ids) == len(rows) else ", ".join(ids)] if ids else []
        pictures = ", ".join(name for name in one.pictures if name in studies)
        where += [f"figures of {pictures}"] if pictures else []
        if where:
            found.append((one.number, one.flaw, "; ".join(where), one.here))
    return pd.DataFrame(found, columns=["number", "flaw", "rows", "here"])


def from_matrix(row: PublishedRow) -> dict[str, float]:
    """Scores from the matrix that a study printed, 0/0 as 0: accuracy, low, high (Wilson, as if every image were of
    another patient), f1_macro, recall (of ``WATCHED``); NaN if the matrix does not allow it."""
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
    found["f1_macro"] = float(ratio(2 * hits, answered + there).mean())
    found["recall"] = float(ratio(hits, there)[classes.index(WATCHED[row.findings])])
    return found


def _claimed(results: Results, rows: Sequence[PublishedRow], ran: Sequence[RowResult]) -> Table:
    """Each row as published, with its scores here: means over its repeats, else of the search's one training; with
    intervals for finalists on the judging split."""
    records, of_id = {one.id: one for one in results.data.run.sweep.study_rows}, {one.id: one for one in ran}
    judged, facts, pairs = results.leaderboard.split, [], []
    for row in rows:
        record, one = records[row.id], of_id.get(row.id)
        trial = results.data.trial(record.number) or {}
        runs = "none"
        if one is not None:
            runs = "1 of the search" if one.result is None else f"{len(one.runs)} repeat{'s' * (len(one.runs) > 1)}"
        fact = _published_cells(row) | {"claim": record.claim, "note": record.note, "runs": runs}
        fact |= {"status": trial.get("status", "not begun"), "number": trial.get("number", math.nan)}
        for key, split, name in ((f"{split}_{name}", split, name) for split in SPLITS for name in SCORES):
            scores = one.result.scores if one is not None and one.result is not None and split == judged else None
            value = trial.get(key, math.nan) if one is None else one.mean(split, name)
            fact |= {**intervals.cells(scores, {key: name}), key: value}
            pairs.append((scores, name))
            fact[f"{key}_shown"] = fact[f"{key}_shown"] if scores is not None else formats.show("score", value)
        facts.append(fact)
    frame = pd.DataFrame(facts)
    scored = frame[[f"test_{name}" for name in SCORES]].notna().any(axis=None)
    caption = (
        "What the study reported, and the scores of the same row here: means over repeats, else of one training run. "
        f"The study's macro F1 was computed from its published matrix. {results.data.basis('val')} "
        f"{'' if scored else 'No row was scored on test, which requires finalists. '}{intervals.below(pairs)}"
    )
    titles = {"trained": "trained, as claimed", "claim": "claim", "note": "what was really run"}
    titles |= {"reported": "its accuracy", "matrix_f1_macro": "its macro F1", "runs": "runs"}
    for split in ("val", "test") if scored else ("val",):
        titles |= {
            f"{split}_{name}_shown": f"our {split} {formats.score_name(name, results.data.task)}" for name in SCORES
        }
    shown = columns("id", "flaws", "network", **titles, status="status", number="trial")
    return Table("study_rows", caption.strip(), frame, shown)


def _remarks(results: Results) -> list[Block]:
    """Rows that were not run, and a warning where rows were trained for fewer epochs than in the study."""
    sweep = results.data.run.sweep
    missing = tuple(by_reason(sweep.study_rows_left_out))
    notes: list[Block] = [Note("info", "Rows of the study that were not run:", missing)] if missing else []
    limit = math.inf if sweep.own_epochs or sweep.epochs is None else sweep.epochs
    longer = {row.id: row.epochs for row in sweep.study_rows if row.epochs is not None and row.epochs > limit}
    if longer:
        few, most = min(longer.values()), max(longer.values())
        text = f"Trained for fewer epochs than in the study: {sweep.epochs} epochs at most, and "
        notes.append(
            Note("warning", f"{text}{most if few == most else f'{few} to {most}'} there ({', '.join(longer)}).")
        )
    return notes


def _focal(results: Results, pairs: Sequence[tuple[RowResult, RowResult, tuple[str, ...]]]) -> Table:
    """Pairs of rows side by side, on test where both were scored there, else on validation."""
    counts = results.data.dataset.counts.get("train") or {}
    rare = min(results.data.classes, key=lambda name: (counts.get(name, 0), name))
    facts = []
    for without, focal, also in pairs:
        split = "test" if all((run.split == "test").any() for row in (without, focal) for run in row.runs) else "val"
        fact: dict[str, Any] = {"backbone": focal.params.backbone, "without": without.id, "with": focal.id}
        fact |= {"also": ", ".join(also) or "nothing", "split": split}
        for key, name in (*((name, name) for name in SCORES), ("f1", f"f1:{rare}"), ("recall", f"recall:{rare}")):
            before, after = (row.mean(split, name) for row in (without, focal))
            fact |= {f"{key}_without": before, f"{key}_with": after}
            fact[f"{key}_shown"] = f"{formats.show('score', before)} → {formats.show('score', after)}"
        facts.append(fact)
    titles = {"backbone": "network", "without": "without", "with": "with", "also": "also differs", "split": "split"}
    titles |= {f"{name}_shown": formats.score_name(name, results.data.task) for name in SCORES}
    titles |= {"f1_shown": f"F1 of {rare}", "recall_shown": f"recall of {rare}"}
    caption = "Rows without → with focal loss: no intervals, so no proof. “Also differs”: what else the study changed."
    return Table("study_focal", caption, pd.DataFrame(facts), columns(**titles))


def _pictures(results: Results, rows: Sequence[RowResult]) -> Folded:
    """The figures that the study showed of its rows: curves, and matrices of the first run with their counts."""
    text = (
        "Curves are from the search. Matrices and counts are from the first repeat where the row was repeated, else "
        "from the search, which has none for test."
    )
    every, drawn, facts = set(results.data.run.epochs["trial_id"]), [], []
    for row in rows:
        of = f"{row.id}, {row.params.backbone}"
        measures = MEASURES if row.trial["trial_id"] in every else ()
        found = [curve(results, row.trial, name, f"study_{row.id}_{name}", of) for name in measures]
        for split in row.splits:
            part = row.runs[0].of(split)
            matrix = confusion_matrix(part.label, part.probability, part.classes, part.task)
            found.append(confusion_figure(matrix, part.classes, split, f"study_{row.id}_{split}", f"{row.id}, "))
            truth, decided, known = truth_and_decisions(part, None)
            scores = evaluate_predictions(part.label, part.probability, part.classes, part.task)
            for place, name in enumerate(part.classes):
                fact = {"id": row.id, "backbone": row.params.backbone, "trained": row.trial["unfrozen"]}
                fact |= {"loss": row.params.loss, "split": split, "class": name}
                fact |= counted(truth[known[:, place], place], decided[known[:, place], place])
                facts.append(fact | {key: scores[f"{key}:{name}"] for key in ("precision", "recall", "f1")})
        drawn.append(Figures(tuple(found)))
    names = ("id", "backbone", "trained", "loss", "split", "class", "TN", "FP", "FN", "TP", "precision", "recall", "f1")
    caption = "Counts for each class of each row against the rest."
    counts = Table("study_counts", caption, pd.DataFrame(facts), columns(*names))
    return Folded("Curves, confusion matrices and counts of each row", (Text(text), *drawn, counts))


def _all_rows() -> Table:
    frame = pd.DataFrame([{"findings": row.findings.replace("_", " "), **_published_cells(row)} for row in published()])
    titles = {f"matrix_{key}": f"of matrix: {key.replace('_', ' ')}" for key in from_matrix(published()[0])}
    text = ("id", "study", "findings", "flaws", "network", "trained", "split")
    shown = columns(*text, accuracy_is="which accuracy", f1_reported="F1 as reported", reported="reported", **titles)
    caption = (
        "All rows of the five studies as published; of matrix: computed from the published matrix, with Wilson's "
        "interval as if every image were of a different patient; recall: of infected or covid."
    )
    return Table("studies_published", caption, frame, shown, folded=True)


def _published_cells(row: PublishedRow) -> dict[str, Any]:
    loss = {"cross_entropy": "", "bce": ", BCE"}.get(row.loss, f", {row.loss}")
    return {
        "id": row.id,
        "study": row.study,
        "network": f"{row.backbone}{loss}",
        "trained": row.claimed + (f" (really {row.really})" if row.really else ""),
        "split": row.split or "not stated",
        "reported": math.nan if row.accuracy is None else row.accuracy,
        "accuracy_is": row.accuracy_is,
        "flaws": " ".join(map(str, row.flaws)),
        "f1_reported": row.f1 or formats.ABSENT,
        **{f"matrix_{key}": value for key, value in from_matrix(row).items()},
    }


def _also_differs(one: TrialParams, other: TrialParams) -> tuple[str, ...]:
    first, second = one.to_flat(), other.to_flat()
    return tuple(name for name in first if name not in LOSS_FIELDS and first[name] != second[name])
