"""Shortcuts as facts: what simple methods reach beside the winner, image by image on the same split."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.data import ReportData
from reports.page import formats
from reports.scores.interval_cells import cells
from reports.scores.paired import Comparison, compare
from reports.scores.resampled_scores import Scores, score_runs
from reports.scores.shown import Runs, runs_on
from sweep.records import Predictions, Run, read_baseline_predictions

METRIC = "f1_macro"
CLOSE = 0.9
"""Part of the way from the majority class to the winner at which a shortcut is close."""
MAJORITY = "majority"
PIXELS = ("thumbnails", "borders")
SCORES = ("accuracy", METRIC)


@dataclass(frozen=True)
class Shortcut:
    """One entry of baselines.json. scores: by split (val, and test once opened) and metric; empty where it failed."""

    name: str
    label: str
    detail: str
    failed: str
    scores: dict[str, dict[str, float]]
    predictions: Predictions | None


@dataclass(frozen=True)
class Contest:
    """The winner against the shortcuts on the same images of one split.

    runs: how many of the winner's are averaged. winner: its scores. shortcuts: theirs, by name, of those whose
    predictions are of these images; leads: the winner's macro F1 less theirs, on the same resamples of patients.
    labels: what each is called, as a heading.
    """

    split: str
    runs: int
    winner: Scores
    shortcuts: dict[str, Scores]
    leads: dict[str, Comparison]
    labels: dict[str, str]

    def in_words(self, name: str) -> str:
        """What a shortcut is called within a sentence."""
        label = self.labels.get(name, name)
        return label[:1].lower() + label[1:]

    def way(self, name: str) -> float:
        """How far a shortcut comes on the way from the majority class (0) to the winner (1); NaN without a way."""
        if MAJORITY not in self.shortcuts or name not in self.shortcuts:
            return math.nan
        least = self.shortcuts[MAJORITY].estimate[METRIC]
        length = self.winner.estimate[METRIC] - least
        return (self.shortcuts[name].estimate[METRIC] - least) / length if length > 0 else math.nan

    def not_told_apart(self, name: str) -> bool:
        """Whether the interval of the winner's lead holds 0, or lies below."""
        return name in self.leads and self.leads[name].low <= 0

    def is_close(self, name: str) -> bool:
        """Whether a shortcut comes at least ``CLOSE`` of the way, or cannot be told apart from the winner, or wins."""
        return self.way(name) >= CLOSE or self.not_told_apart(name) or self._wins(name)

    def _wins(self, name: str) -> bool:
        return name in self.leads and self.leads[name].difference <= 0


def read_shortcuts(run: Run) -> list[Shortcut] | None:
    """The measured baselines; None where there are none. What cannot be read is said in ``run.problems``."""
    path = run.paths.baselines_table
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["baselines"]
        return [_shortcut(run, entry) for entry in entries]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _note(run, f"baselines/{path.name} cannot be read ({type(error).__name__}: {error}): left out")
        return None


def contest_on(evidence: ReportData, shortcuts: list[Shortcut], split: str) -> Contest | None:
    """Score the winner and the shortcuts on ``split``; None where the winner has no images there.

    With folds the winner has more validation images than the shortcuts: those of theirs count, each judged by the
    fold that did not train on it.
    """
    runs = runs_on(evidence, split)
    if runs is None:
        return None
    rows = {one.name: one.predictions.of(split) for one in shortcuts if one.predictions is not None}
    seen = next((part.path for part in rows.values() if len(part.path)), runs.paths)
    shared = np.isin(runs.paths, seen)
    if shared.any() and not shared.all():
        runs = runs.of(shared)
    winner = runs.scores()
    scored = {name: scores for name, part in rows.items() if (scores := _on_the_same(runs, part)) is not None}
    leads = compare(winner, scored, METRIC) if scored else {}
    return Contest(split, len(runs.names), winner, scored, leads, {one.name: one.label for one in shortcuts})


def shortcut_frame(shortcuts: list[Shortcut], contests: Mapping[str, Contest], winner: str) -> pd.DataFrame:
    """The winner (named so), then each shortcut: name, baseline, how, failed, way, lead, lead_low, lead_high.

    And for each split of ``contests`` (the last one judges) <split>_<accuracy, f1_macro> with _low, _high, _shown.
    Where its predictions are not of the winner's images, a shortcut has the scores of baselines.json alone.
    """
    judge = list(contests.values())[-1] if contests else None
    splits = list(contests) or ["val"]
    first: dict[str, Any] = {"name": "winner", "baseline": winner, "how": "", "failed": ""}
    if judge is not None:
        first["how"] = "fine-tuned" + (f", mean of {judge.runs} runs" if judge.runs > 1 else "")
        first["way"] = 1.0 if MAJORITY in judge.shortcuts else math.nan
    for split, contest in contests.items():
        first |= _cells(split, contest.winner)
    rows = [first] if contests else []
    for one in shortcuts:
        how = f"not measured: {one.failed}" if one.failed else one.detail
        row: dict[str, Any] = {"name": one.name, "baseline": one.label, "how": how, "failed": one.failed}
        for split in splits:
            scored = contests[split].shortcuts.get(one.name) if split in contests else None
            row |= _plain_cells(split, one.scores.get(split, {})) if scored is None else _cells(split, scored)
        if judge is not None:
            row["way"] = judge.way(one.name)
            if one.name in judge.leads:
                lead = judge.leads[one.name]
                row |= {"lead": lead.difference, "lead_low": lead.low, "lead_high": lead.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _shortcut(run: Run, entry: Mapping[str, Any]) -> Shortcut:
    opened = run.finals is not None and run.finals.opened
    splits = ("val", "test") if opened else ("val",)
    scores = {split: entry[split] for split in splits if entry.get(split)}
    name, failed = str(entry["name"]), str(entry.get("failed") or "")
    return Shortcut(
        name=name,
        label=str(entry.get("label") or name),
        detail=str(entry.get("detail") or ""),
        failed=failed,
        scores={
            split: {key: math.nan if value is None else float(value) for key, value in found.items()}
            for split, found in scores.items()
        },
        predictions=None if failed else read_baseline_predictions(run, name),
    )


def _on_the_same(runs: Runs, part: Predictions) -> Scores | None:
    """The scores of ``part`` on the images of ``runs``, in their order; None if it is of other images or classes."""
    place = {path: row for row, path in enumerate(part.path.tolist())}
    paths = runs.paths.tolist()
    if part.classes != runs.classes or len(place) != len(paths) or not all(path in place for path in paths):
        return None
    order = [place[path] for path in paths]
    if not np.array_equal(part.label[order], runs.labels):
        return None
    return score_runs(runs.labels, part.probability[order][None], runs.classes, runs.resamples, auroc=False)


def _cells(split: str, scores: Scores) -> dict[str, Any]:
    return cells(scores, {f"{split}_{name}": name for name in SCORES})


def _plain_cells(split: str, scores: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in SCORES:
        value = scores.get(name, math.nan)
        key = f"{split}_{name}"
        row |= {
            key: value,
            f"{key}_low": math.nan,
            f"{key}_high": math.nan,
            f"{key}_shown": formats.show("score", value),
        }
    return row


def _note(run: Run, problem: str) -> None:
    if problem not in run.problems:  # A section may be built twice.
        run.problems.append(problem)
