"""Sensitivity, specificity and predictive values of one network at stated operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, Heading, Note, Table, Text
from reports.scores import interval_cells
from reports.scores.resampled_scores import Scores, score_runs
from reports.scores.resampling import Resamples
from reports.scores.shown import UNTUNED, ReportedModel, Runs, alone_on, repeats_of_winner
from trainables.metrics import decide

RATIOS = {"sensitivity": "recall", "specificity": "specificity", "PPV": "precision", "NPV": "npv"}

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """One way to decide K classes of N images. words: of each class, when it is decided.

    threshold: the least probability of the class that decides it, NaN where the likeliest class is. truth, decided:
    bool [N, K].
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    threshold: tuple[float, ...]
    truth: Bools
    decided: Bools


@dataclass(frozen=True)
class Cut:
    """A threshold on the probability of ``label``. positives, images, runs: what it was chosen on, in validation."""

    label: str
    threshold: float
    positives: int
    images: int
    runs: int


def blocks(evidence: ReportData, network: ReportedModel) -> list[Block]:
    """The part of section 4 on operating points: of the split that judges the network."""
    split = network.judged
    if split is None:
        return []
    images = alone_on(evidence, network, split)
    positive = positive_class(evidence)
    cut = chosen_cut(evidence, positive)
    rules = decision_rules(images, network.thresholds, positive, cut)
    frame, scores = table(rules, images.resamples)
    name = wording.SPLIT_NAMES[split]
    columns = (
        Column("class", "label" if images.labels.ndim == 2 else "class"),
        Column("decided if", "decided if"),
        *(Column(key, key, "integer") for key in ("TP", "FN", "FP", "TN")),
        *interval_cells.columns({key: key for key in RATIOS}),
    )
    pairs = ((one, f"{ratio}:{label}") for one in scores for label in one.classes for ratio in RATIOS.values())
    caption = f"{name.capitalize()}, {network.title}; each class against the rest. {interval_cells.below(pairs)}"
    found: list[Block] = [Heading(f"Operating points ({name})"), Text(_story(images, network, split, cut))]
    found.append(Text("PPV and NPV hold where a class is as frequent as here; elsewhere they change with its share."))
    asked = evidence.run.sweep.get("positive_class")
    if asked and positive is None:
        found.append(Note("warning", f"--positive-class {asked}: there is no such class in the data."))
    return [*found, Table(name=f"operating_points_{split}", caption=caption, frame=frame, columns=columns)]


def positive_class(evidence: ReportData) -> str | None:
    """The class that --positive-class names, if the data has it."""
    asked = evidence.run.sweep.get("positive_class")
    return str(asked) if asked in evidence.classes else None


def chosen_cut(evidence: ReportData, positive: str | None) -> Cut | None:
    """Youden's threshold on the validation predictions of all repeats of the winner, pooled: one for all of them.

    Of ``positive``, or of the second class of two. None for other tasks, and where validation lacks a class.
    """
    parts = [part.of("val") for part in repeats_of_winner(evidence)]
    if not parts or parts[0].label.ndim == 2 or not (positive or len(parts[0].classes) == 2):
        return None
    label = positive or parts[0].classes[1]
    place = parts[0].classes.index(label)
    truth = np.concatenate([part.label == place for part in parts])
    threshold = youden(truth, np.concatenate([part.probability[:, place] for part in parts]))
    if threshold is None:
        return None
    _, once = np.unique(np.concatenate([part.path for part in parts]), return_index=True)
    return Cut(label, threshold, int(truth[once].sum()), len(once), len(parts))


def youden(truth: Bools, probability: npt.NDArray[np.float32]) -> float | None:
    """The threshold with the greatest sensitivity + specificity - 1 (Youden, Cancer 3, 1950).

    truth, probability: [N]. Decided is what has at least the threshold. Candidates lie halfway between neighbouring
    probabilities; of equally good ones the nearest to 0.5 is taken. None where a class is absent.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-probability, kind="stable")
    falling = probability[order].astype(np.float64)
    index = truth[order].cumsum() / positives - (~truth[order]).cumsum() / negatives
    following = np.append(falling[1:], 0.0)
    # A cut is possible only where the probability changes; the last one decides every image.
    possible = np.append(falling[1:] < falling[:-1], True)
    cuts, index = (falling[possible] + following[possible]) / 2, index[possible]
    best = cuts[index >= index.max() - 1e-12]
    return float(best[np.abs(best - UNTUNED).argmin()])


def decision_rules(
    images: Runs, thresholds: dict[str, float] | None, positive: str | None, cut: Cut | None
) -> list[Rule]:
    """The rules by which the first run of ``images`` decides: the usual one, then those of chosen thresholds, if any.

    The usual one is of ``positive`` alone, or of every class where that is None.
    """
    probability = images.probabilities[0].astype(np.float64)
    classes = images.classes
    if images.labels.ndim == 2:
        truth = images.labels == 1
        rules = [_by_thresholds(classes, truth, probability, [UNTUNED] * len(classes))]
        tuned = {name: value for name, value in (thresholds or {}).items() if name in classes and value != UNTUNED}
        if tuned:
            places = [classes.index(name) for name in tuned]
            chosen = truth[:, places], probability[:, places]
            rules.append(_by_thresholds(tuple(tuned), *chosen, list(tuned.values())))
        return rules
    truth = np.equal(images.labels[:, None], np.arange(len(classes)))
    likeliest = np.equal(decide(probability, "single_label")[:, None], np.arange(len(classes)))
    places = [classes.index(positive)] if positive else list(range(len(classes)))
    named = tuple(classes[place] for place in places)
    words = ("likeliest",) * len(named)
    rules = [Rule(named, words, (np.nan,) * len(named), truth[:, places], likeliest[:, places])]
    if cut is not None:
        place = classes.index(cut.label)
        above = _by_thresholds((cut.label,), truth[:, [place]], probability[:, [place]], [cut.threshold])
        rules.append(above if positive or len(classes) != 2 else _with_other(above, classes[1 - place]))
    return rules


def table(rules: Sequence[Rule], resamples: Resamples) -> tuple[pd.DataFrame, list[Scores]]:
    """One row a class and rule, the rules of a class together, and the scores that the rows show.

    Columns: class, decided if, threshold, TP, FN, FP, TN, then ``interval_cells.cells`` of RATIOS.
    """
    scores, rows = [], []
    for rule in rules:
        # Decisions are probabilities of 0 and 1: scored as the labels of a multi-label task.
        found = score_runs(rule.truth.astype(np.uint8), rule.decided[None], rule.classes, resamples, auroc=False)
        scores.append(found)
        for place, name in enumerate(rule.classes):
            truth, decided = rule.truth[:, place], rule.decided[:, place]
            counts = {
                "TP": int((truth & decided).sum()),
                "FN": int((truth & ~decided).sum()),
                "FP": int((~truth & decided).sum()),
                "TN": int((~truth & ~decided).sum()),
            }
            facts = {"class": name, "decided if": rule.words[place], "threshold": rule.threshold[place]}
            ratios = interval_cells.cells(found, {key: f"{ratio}:{name}" for key, ratio in RATIOS.items()})
            rows.append(facts | counts | ratios)
    order = list(dict.fromkeys(name for rule in rules for name in rule.classes))
    rows.sort(key=lambda row: order.index(str(row["class"])))
    return pd.DataFrame(rows), scores


def _by_thresholds(
    classes: tuple[str, ...], truth: Bools, probability: npt.NDArray[np.float64], least: list[float]
) -> Rule:
    words = tuple(f"p ≥ {_digits(value)}" for value in least)
    return Rule(classes, words, tuple(least), truth, probability >= np.array(least))


def _with_other(rule: Rule, other: str) -> Rule:
    """A rule for one class of two, and what it means for the other one."""
    return Rule(
        (*rule.classes, other),
        (*rule.words, f"{rule.classes[0]} < {_digits(rule.threshold[0])}"),
        (*rule.threshold, np.nan),
        np.concatenate([rule.truth, ~rule.truth], axis=1),
        np.concatenate([rule.decided, ~rule.decided], axis=1),
    )


def _story(images: Runs, network: ReportedModel, split: str, cut: Cut | None) -> str:
    if images.labels.ndim == 2:
        text = "Each label is decided by itself, at a probability of 0.5 as in the search"
        if not network.thresholds:
            return f"{text}; no thresholds were tuned."
        kept = [name for name in images.classes if network.thresholds.get(name, UNTUNED) == UNTUNED]
        text += " and at the threshold with the best F1 on the validation predictions of all repeats, pooled."
        few = f" Not tuned, for lack of positives on validation: {wording.listing(kept)}." if kept else ""
        return text + few + _optimistic(split)
    text = "The network answers with the likeliest class."
    if cut is None:
        return text
    pooled = (
        f"the validation predictions of {cut.runs} repeats, pooled" if cut.runs > 1 else "its validation predictions"
    )
    return (
        f"{text} Beside it, {cut.label} is decided from a probability of {_digits(cut.threshold)}: the threshold with "
        f"the greatest sensitivity plus specificity (Youden's J, 1950) on {pooled} ({cut.positives:,} images of "
        f"{cut.label} among {cut.images:,})." + _optimistic(split)
    )


def _optimistic(split: str) -> str:
    return "" if split == "test" else " It was chosen on the very images scored here, which flatters it."


def _digits(threshold: float) -> str:
    """Three digits, more where they would read as 0 or 1."""
    return formats.score(threshold) if 0.0005 <= threshold < 0.9995 else f"{threshold:.3g}"
