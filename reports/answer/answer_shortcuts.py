"""Simple methods beside the answer: a row of its figure each, and a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Note, Text
from reports.page.figures_finals import Mark
from reports.scores import interval_cells
from reports.scores.resampled_scores import Scores
from reports.scores.shortcut_tables import PIXELS, Contest, contest_on, read_shortcuts
from reports.scores.statistics import interval
from reports.trials import data_tables

METRIC = "f1_macro"


def contest(evidence: ReportData, split: str) -> Contest | None:
    """The measured baselines against the shown configuration on ``split``; None where either is missing."""
    shortcuts = read_shortcuts(evidence.run)
    found = contest_on(evidence, shortcuts, split) if shortcuts else None
    return found if found is not None and found.shortcuts else None


def marks(found: Contest | None, metric: str) -> list[Mark]:
    """A row for each baseline that has the score ``metric``, the best first."""
    if found is None:
        return []
    rows = [
        mark(found.labels.get(name, name), "shortcut", scores, metric)
        for name, scores in found.shortcuts.items()
        if metric in scores.estimate
    ]
    return sorted(rows, key=lambda row: row.value if metric == "nll" else -row.value)


def mark(name: str, kind: str, scores: Scores, metric: str) -> Mark:
    """One configuration's row of ``figures_finals.standing``."""
    known = interval(scores, metric)
    points = tuple(float(value) for value in scores.by_run[metric])
    low, high, text = known.low, known.high, interval_cells.as_text(known)
    return Mark(name=name, kind=kind, value=known.estimate, low=low, high=high, points=points, text=text)


def blocks(evidence: ReportData, found: Contest | None, split: str) -> list[Block]:
    """What the baselines say of the winner: a warning where a shortcut comes close, else a sentence."""
    if found is None:
        return _majority(evidence, split)
    score = {name: scores.estimate[METRIC] for name, scores in found.shortcuts.items()}
    pixels = [name for name in PIXELS if name in score]
    close = [name for name in pixels if found.is_close(name)]
    winner = formats.score(found.winner.estimate[METRIC])
    if close:
        does = "does as well or better" if any(found.leads[name].difference <= 0 for name in close) else "comes close"
        text = (
            f"A shortcut {does}: {_listed(found, close)}, the winner ({winner}), in macro F1. The labels "
            "may be told by how the images were made, not by what they show. See “Shortcut baselines”."
        )
        return [Note("warning", text)]
    rest = sorted((name for name in score), key=lambda name: -score[name])
    text = f"Simple methods on the same images, in macro F1: {_listed(found, rest)}; the winner ({winner})."
    if pixels:
        text += " No shortcut comes close."
    blocks: list[Block] = [Text(text)]
    others = [name for name in score if name not in PIXELS and found.not_told_apart(name)]
    if others:
        blocks.append(Note("warning", f"It is not shown to be better than: {_listed(found, others)}."))
    return blocks


def _listed(found: Contest, names: Sequence[str]) -> str:
    scores = ((name, formats.score(found.shortcuts[name].estimate[METRIC])) for name in names)
    return wording.listing(f"{found.in_words(name)} ({score})" for name, score in scores)


def _majority(evidence: ReportData, split: str) -> list[Block]:
    base = data_tables.majority_baseline(evidence.dataset, split)
    if base is None:
        return []
    text = (
        f"Always answering the most frequent class would score an accuracy of {formats.score(base['accuracy'])} and a "
        f"macro F1 of {formats.score(base['f1_macro'])} on {wording.SPLIT_NAMES[split]}."
    )
    return [Text(text)]
