"""Caveats to read before the numbers: one rule each, the worst first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from reports import formats, intervals, tables
from reports.blocks import Note
from reports.bootstrap import Runs, Scores, draw_resamples
from reports.comparisons import change, changed_share
from reports.intervals import FEW_GROUPS, interval
from reports.probabilities import calibration_error
from reports.results import Results
from trainables.metrics import AREAS, FEW_POSITIVES, metric_mode, operating_point

TRAIN_REPLICATES = 400
MOST_GIVEN_AWAY = 3
RANKING = "auroc_macro"
TARGET = 0.9
"""The target sensitivity that the report tries where decisions fail."""
SHARES_DIFFER = 0.05
"""Difference in a class's share of the images above which it is reported."""
WIDE = 0.2
"""Width of an interval of recall above which it cannot rank two networks."""


@functools.lru_cache(maxsize=1)
def caveats(results: Results) -> tuple[Note, ...]:
    """The caveats of a report, one or two short plain sentences each; computed once."""
    found = []
    for level, rule in ((level, rule) for level, rules in CAVEATS for rule in rules):
        texts = rule(results)
        found += [Note(level, text) for text in ([texts] if isinstance(texts, str) else texts) if text]
    return tuple(found)


def _problems(results: Results) -> str:
    found = results.data.run.problems
    if len(found) > 1:
        return f"{len(found)} problems were found while the run folder was read; see the end of the summary."
    return f"{found[0]}." if found else ""


def _no_winner(results: Results) -> str:
    """Whether the selection, or predictions of repeats, are missing."""
    board, finals = results.leaderboard, results.data.finals
    missing = [remark for one in board.configurations for remark in one.remarks if ": failed (" not in remark]
    if finals.selected is None:
        lost = "finalists/selection.json is missing or damaged, though the test split was opened: the winner is not "
        return f"{lost}known." if finals.opened else ""
    if board.winner is None:
        return f"selection.json names {finals.winner or 'no winner'}, which is not a finalist of this run."
    count = len(missing)
    return f"Predictions of repeats are missing or do not fit ({count} remarks): {missing[0]}." if missing else ""


def _not_ended(results: Results) -> str:
    trials = results.data.trials
    running = tables.status_counts(trials)["running"]
    text = f"The sweep has not ended: {running} of {len(trials)} trials are unfinished."
    return "" if results.data.run.sweep.ended else text


def _not_selected(results: Results) -> str:
    finals = results.data.finals
    if not finals.finalists:
        return ""
    asked, ended = finals.asked * len(finals.finalists), sum(len(one.completed) for one in finals.finalists)
    text = f"Retraining of the finalists is not done: {ended} of {asked} repeats have completed"
    if finals.superseded:
        return f"{text}. The finalists were chosen again, and the winner is from the earlier selection."
    return "" if finals.selected is not None or finals.opened else f"{text}, and no winner is selected."


def _on_validation(results: Results) -> str:
    """If there is a test split, but scores are from validation."""
    board = results.leaderboard
    if board.winner is None or board.split == "test" or not results.data.has_test:
        return ""
    opened = board.finals.opened
    why = "no test predictions of the winner can be read" if opened else "the test split has not been opened yet"
    return f"Scores are from validation and optimistic: {why}."


def _data(results: Results) -> list[str]:
    dataset = results.data.dataset
    demo = "Demo data: phantoms drawn by a program, not X-rays. The numbers say nothing about any disease."
    said = [text.removesuffix(".") + "." for text in dataset.caveats if not text.startswith("Demo set")]
    return [*([demo] if dataset.demo else []), *said]


def _folded(results: Results) -> str:
    folded = [name for name, one in results.data.run.provenance.weights.items() if one.folded_batchnorm]
    text = f"Folded BatchNorm in the initial weights of {formats.listing(folded)}: such a network stays at chance "
    return f"{text}beyond depth 0. Do not compare its deeper trials with other backbones." if folded else ""


def from_validation_to_test(results: Results) -> str:
    """What a change from validation to test means, if its interval excludes 0; else "".

    The ranking held unless the mean AUROC changed significantly in the same direction.
    """
    runs, judged = results.runs("val"), results.runs("test")
    val, test, name = results.scores("val"), results.scores("test"), results.metric
    if runs is None or judged is None or val is None or test is None or results.absent("val") or results.absent("test"):
        return ""
    found = change(val, test, name)
    if not found.significant:
        return ""
    better = (found.difference > 0) == (metric_mode(name) == "max")
    before, after = val.estimate[name], test.estimate[name]
    text = (
        f"{formats.capital(formats.metric_name(f'test_{name}'))} is {formats.score(after)}, on validation "
        f"{formats.score(before)}: the difference is "
        f"{formats.difference(found.difference, found.low, found.high)}."
    )
    if name.startswith(AREAS) or RANKING not in val.estimate:
        return f"{text} {_differ(better)}"
    ranking = change(val, test, RANKING)
    areas = [formats.score(one.estimate[RANKING]) for one in (test, val)]
    mean_areas = f"(mean AUROC {areas[0]} on test and {areas[1]} on validation)"
    if ranking.significant and (ranking.difference > 0) == better:
        how = "better" if better else "worse"
        return f"{text} The ranking is also {how} {mean_areas}: {formats.lower(_differ(better))}"
    why = f"so the decisions differ: {_decisions(runs, judged)}."
    other = "" if results.data.run.sweep.target is not None else _at_target(runs, judged, val, test)
    return f"{text} The ranking held {mean_areas}, {why}{other}"


def _differ(better: bool) -> str:
    first, second = ("test", "validation") if better else ("validation", "test")
    chosen = "" if better else ", or selecting epoch and winner on validation made its score optimistic"
    return f"The splits differ, or {first} resembles training more than {second} does{chosen}."


def _decisions(val: Runs, test: Runs) -> str:
    """What changes decisions but not the ranking: class shares and calibration."""
    errors = [formats.score(calibration_error(one)) for one in (val, test)]
    found = [f"the calibration error is {errors[0]} on validation and {errors[1]} on test"]
    if (changed := changed_share(val, test, SHARES_DIFFER)) is not None:
        name, before, after = changed
        found.insert(0, f"{name} is {formats.percent(before)} of validation and {formats.percent(after)} of test")
    return formats.listing(found)


def _at_target(runs: Runs, judged: Runs, val: Scores, test: Scores) -> str:
    """The effect of a target on the class whose sensitivity fell most from validation to test; "" if none fell."""
    fell = {name: val.estimate[f"recall:{name}"] - test.estimate[f"recall:{name}"] for name in runs.classes}
    name = max(fell, key=lambda one: fell[one])
    point = operating_point(runs.labels, runs.probabilities, runs.classes, name, "sensitivity", TARGET)
    if fell[name] <= 0 or point.threshold is None:
        return ""
    there = judged.scores(thresholds=point.thresholds).estimate
    reached = f"sensitivity {formats.score(there[f'recall:{name}'])} and specificity "
    reached += f"{formats.score(there[f'specificity:{name}'])} (now {formats.score(test.estimate[f'recall:{name}'])} "
    reached += f"and {formats.score(test.estimate[f'specificity:{name}'])})"
    return f" On test, --target-sensitivity {name}={TARGET:g} would have given {name} {reached}."


def _given_away(results: Results) -> list[str]:
    """The classes that a shortcut gives away, decided on validation."""
    judge = results.judged_baselines
    texts = []
    for one in judge.given_away[:MOST_GIVEN_AWAY] if judge is not None else ():
        text = f"A shortcut predicts {one.name}: {formats.lower(one.baseline.label)}, with AUROC "
        text += f"{formats.score(one.auroc)} and F1 {formats.score(one.f1)} on validation; the winner's F1 is "
        text += formats.score(one.winner)
        if one.test is not None:
            text += f" (F1 on test: {formats.score(one.test.f1)} and {formats.score(one.test.winner)})"
        text += "."
        if one.baseline.name == "file_properties" and results.data.dataset.source_by_class is None:
            text += " If a column gives the source of the images, name it with --source-column."
        texts.append(text)
    return texts


def _does_not_travel(results: Results) -> str:
    """The external evaluation on which the model does worst, where the interval of the difference lies below 0."""
    worse = [
        (found.difference, found, one)
        for one in results.external
        if (found := one.conclusion).own is not None and found.difference is not None and found.difference.high < 0
    ]
    if not worse:
        return ""
    less, found, worst = min(worse, key=lambda one: one[0].estimate)
    assert found.own is not None
    more = "" if len(worse) == 1 else f" {len(worse) - 1} more of {len(results.external)} evaluations are also lower."
    return (
        f"The model does worse on other images: {worst.name_of(found.metric)} is "
        f"{formats.score(found.external.estimate)} on {worst.facts.name} and {formats.score(found.own.estimate)} on "
        f"the run's own images: the difference is {formats.difference(less.estimate, less.low, less.high)}.{more}"
    )


def _shortcuts(results: Results) -> str:
    found = results.judged_baselines
    return found.shortcut_sentence if found is not None and found.close("shortcut") else ""


def _never_predicted(results: Results) -> str:
    never = results.never_predicted(results.split) if results.split else []
    return f"On {results.split_name}, {formats.some_of(never)} is never predicted." if never else ""


def _at_chance(results: Results) -> str:
    scores = results.judged_scores
    if scores is None or not (all(scores.positives.values()) and all(scores.negatives.values())):
        return ""
    chance = 0.5 if results.data.task == "multi_label" else 1 / len(scores.classes)
    known = interval(scores, "balanced_accuracy")
    text = f"Balanced accuracy, {intervals.plain(known)}, is not above chance ({formats.score(chance)})."
    return text if known.low <= chance else ""


def _at_majority(results: Results) -> str:
    scores, base = results.judged_scores, tables.majority_baseline(results.data.dataset, results.split or "val")
    if scores is None or base is None:
        return ""
    known, least = interval(scores, "accuracy"), base["accuracy"]
    text = f"Accuracy, {intervals.plain(known)}, is not above that of always predicting the most frequent class "
    return f"{text}({formats.score(least)})." if known.low <= least else ""


def _few(results: Results) -> str:
    """The classes with too few patients or images for their intervals."""
    scores = results.judged_scores
    positives = {} if scores is None else scores.positives
    few = [f"{name} ({count})" for name, count in positives.items() if count < FEW_GROUPS]
    unit = "patients" if scores is not None and scores.resamples.named else "images"
    which = f"{FEW_GROUPS} {results.split_name} {unit} have {formats.some_of(few)}"
    return f"Fewer than {which}: their intervals are too narrow." if few else ""


def _wide_recall(results: Results) -> str:
    scores = results.judged_scores
    if scores is None:
        return ""
    rarest = min(scores.classes, key=lambda name: (scores.positives[name], name))
    recall = interval(scores, f"recall:{rarest}")
    text = f"Recall of {rarest}, the rarest class, is {intervals.plain(recall)}, too wide to rank two networks."
    return text if recall.high - recall.low > WIDE else ""


def _opened_again(results: Results) -> str:
    times = len(results.data.finals.test_access)
    text = f"The test split was opened {times} times: scores after the first opening are optimistic."
    return text if times > 1 else ""


def _warm(results: Results) -> str:
    sweep = results.data.run.sweep
    opened = max((one.opened for one in sweep.warm_trials), default=0)
    if not opened or not results.data.has_test:
        return ""
    earlier = Path(sweep.warm_start or "?").name
    return (
        f"The first trials are the best of the run {earlier}, whose test split had been opened: if this run uses the "
        "same test images, they may have influenced what was searched."
    )


def _operating_point(results: Results) -> list[str]:
    """Why a requested operating point is missing, or on how few images it is based."""
    asked, point = results.data.run.sweep.target, results.operating_point
    if asked is None:
        return []
    kind, label, target = asked
    wanted = f"{kind} {target:g} of {label}"
    if point is None:
        return [f"There is no operating point of {wanted}: no winner with validation predictions was selected."]
    few = f"on {point.positives} validation images of {point.label}, fewer than {FEW_POSITIVES}"
    found = [f"The operating point is based {few}: on other images its {kind} may be far from {target:g}."]
    found = found if point.positives < FEW_POSITIVES else []
    if point.threshold is None:
        found.insert(0, f"No threshold reaches {wanted} on validation: the model decides without an operating point.")
    return found


def _lost_repeats(results: Results) -> str:
    finals = results.data.finals
    if finals.selected is None:
        return ""
    short = [one for one in finals.finalists if len(one.completed) < finals.asked]
    listed = formats.listing(f"trial {one.number} ({len(one.completed)} of {finals.asked})" for one in short)
    return f"Not all repeats completed: {listed}. Their means are over fewer repeats." if short else ""


def _best_of_search(results: Results) -> str:
    if results.winner is not None or results.data.best is None:
        return ""
    no_test = "" if results.data.has_test else " There is no test split to show by how much."
    count = len(results.data.ranked)
    return f"The score is the best of {count} trials on the images used for selection, so it is optimistic.{no_test}"


def _unequal_pruning(results: Results) -> str:
    """Whether trials that train the head alone were pruned more or less often than others (Fisher's exact test)."""
    trials = results.data.trials
    ended = trials[trials["status"].isin(["completed", "pruned"])]
    counted = pd.crosstab(ended["unfrozen"] == formats.DEPTH_NAMES[0], ended["status"] == "pruned").to_numpy()
    if counted.shape != (2, 2) or float(fisher_exact(counted).pvalue) > 0.05:
        return ""
    deeper, shallow = counted[:, 1] / counted.sum(axis=1)
    which = "that train more than the head" if deeper > shallow else "that train the head alone"
    shares = f"{formats.percent(max(deeper, shallow))} against {formats.percent(min(deeper, shallow))}"
    text = f"Trials {which} were pruned more often ({shares}): they had fewer epochs to improve, and may be better "
    return f"{text}than they look."


def _seed(results: Results) -> str:
    scores = results.judged_scores if results.winner is not None else None
    values = () if scores is None else scores.by_run[results.metric]
    if len(values) < 2:
        return ""
    span = f"{formats.score(min(values))} to {formats.score(max(values))}"
    unit = "patients" if scores is not None and scores.resamples.named else "images"
    what = "across folds and seeds" if results.data.finals.folds else "with the seed alone"
    text = f"The winner's {results.metric_name} varies from {span} {what}. Its interval covers variation between "
    return f"{text}{unit} only; differences between configurations account for both."


def _last_epoch(results: Results) -> str:
    budget, best, winner = results.data.run.sweep.epochs_of(results.number), results.data.best, results.winner
    which, last = "the best trial", [] if best is None else [best["best_epoch"]]
    if winner is not None:
        which, last = "every repeat", [one.best_epoch for one in winner.finalist.completed]
    text = f"The best epoch of {which} is the last of the budget ({budget}): more epochs may score higher."
    return text if budget and budget > 1 and set(last) == {budget} else ""


def _best_not_completed(results: Results) -> str:
    best = results.data.best if results.winner is None else None
    how = {"running": "is still running", "pruned": "was pruned before its last epoch"}
    return f"The best trial {how[best['status']]}." if best is not None and best["status"] in how else ""


def _failures(results: Results) -> str:
    """How many trials failed, why, and whether one backbone failed more often (Fisher's exact test, Bonferroni)."""
    trials = results.data.trials
    reasons, failed = tables.failures(trials), trials["status"] == "failed"
    if reasons.empty:
        return ""
    text = f"{int(failed.sum())} of {len(trials)} trials failed; most often: {reasons['reason'][0]}."
    names = sorted(set(trials["backbone"]))
    counted = [pd.crosstab(trials["backbone"] == name, failed).to_numpy()[::-1, ::-1] for name in names]
    p = [float(fisher_exact(one, "greater").pvalue) * len(names) for one in counted if one.shape == (2, 2)]
    if len(p) == len(names) and min(p) <= 0.05:
        text += f" {names[int(np.argmin(p))]} failed more often than by chance: its results are based on fewer trials."
    return text


def _late(results: Results) -> str:
    best, count = results.data.best, len(results.data.trials)
    if best is None or count < 20 or best["number"] < 0.8 * count or results.data.run.sweep.study_rows:
        return ""
    return f"The best trial was number {best['number']:.0f} of {count}: a longer search may help."


def _overfitting(results: Results) -> str:
    """Reported only if the interval of training (in evaluation mode) lies above that of validation."""
    train, val = results.runs("train"), results.scores("val")
    if train is None or val is None:
        return ""
    # Few replicates: training splits are large, and the bounds need no third digit.
    resamples = draw_resamples(train.groups, train.labels, len(train.classes), replicates=TRAIN_REPLICATES)
    learned, found = interval(train.scores(resamples), "f1_macro"), interval(val, "f1_macro")
    text = f"macro F1 is {intervals.plain(learned)} on training and {intervals.plain(found)} on validation."
    return f"Overfitting: {text}" if learned.low > found.high else ""


CAVEATS: tuple[tuple[str, tuple[Callable[[Results], str | list[str]], ...]], ...] = (
    ("warning", (from_validation_to_test, _given_away, _does_not_travel)),
    ("error", (_problems, _no_winner)),
    (
        "warning",
        (
            *(_not_ended, _not_selected, _on_validation, _data, _folded, _shortcuts, _never_predicted, _at_chance),
            *(_at_majority, _few, _operating_point, _opened_again, _warm, _lost_repeats, _best_of_search),
            _unequal_pruning,
        ),
    ),
    ("info", (_wide_recall, _seed, _last_epoch, _best_not_completed, _failures, _late, _overfitting)),
)
"""Levels and their rules, which return "" or [] if there is nothing to say: first what makes the headline misleading
although every number is correct, then the worst first."""
