"""Every score, interval, comparison and ranking of a report, each computed once; chapters only lay them out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import fisher_exact

from reports import formats, intervals, tables
from reports.bootstrap import Runs, Scores, draw_resamples
from reports.comparisons import (
    BaselineComparison,
    ExternalResult,
    compare_baselines,
    runs_of,
)
from reports.data import ReportData, checked
from reports.importance import UsedTrials, importances, used_trials
from reports.intervals import FEW_GROUPS, Interval, interval
from reports.leaderboard import (
    EFFECT_COLUMNS,
    ConfigurationResult,
    Leaderboard,
    compared_metric,
    effects,
    leaderboard,
    networks_of,
    params_of,
    reported_model,
)
from reports.leaderboard import ReportedModel as ReportedModel
from reports.probabilities import (
    Calibration,
    OperatingPoints,
    Subgroup,
    calibration,
    operating_points,
    pooled_cut,
    subgroup_scores,
)
from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.records import BaselineRecord, read_evaluation, read_predictions
from trainables.metrics import confusion_matrix, evaluate_predictions, metric_mode
from trainables.predictions import Predictions

TRAIN_REPLICATES = 400


@dataclass(frozen=True)
class Caveat:
    """level: "error", "warning" or "info"; text: a short plain sentence or two; anchor: the chapter that says more."""

    level: str
    text: str
    anchor: str


class Results:
    """What a run shows. Everything is computed when it is first asked for, and once.

    The configuration: the winner with its repeats once it was selected, before that the best trial of the search alone.
    """

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.runs = functools.cache(self._runs)
        self.model_runs = functools.cache(self._model_runs)
        self.scores = functools.cache(self._scores)
        self.model_scores = functools.cache(self._model_scores)
        self.point_scores = functools.cache(self._point_scores)
        self.confusion = functools.cache(self._confusion)
        self.baselines = functools.cache(self._baselines)

    @cached_property
    def leaderboard(self) -> Leaderboard | None:
        """How the finalists stand to each other; None where none were chosen."""
        return leaderboard(self.data)

    @property
    def winner(self) -> ConfigurationResult | None:
        """The selected finalist; None before."""
        return self.leaderboard.winner if self.leaderboard is not None else None

    @cached_property
    def model(self) -> ReportedModel | None:
        """The network that the page shows; None where no predictions can be read."""
        return reported_model(self.data)

    @cached_property
    def split(self) -> str | None:
        """The split that judges: "test" once opened, else "val"; None without predictions."""
        if self.leaderboard is not None and self.winner is not None and self.winner.scores is not None:
            return self.leaderboard.split
        return self.model.judged if self.model is not None else None

    @property
    def number(self) -> int | None:
        """The number of the trial that the page is about: the winner's, else the best of the search."""
        if self.winner is not None:
            return self.winner.finalist.number
        return int(self.data.best["number"]) if self.data.best is not None else None

    @cached_property
    def trial(self) -> dict[str, Any] | None:
        """Its row of ``data.trials``."""
        rows = self.data.trials[self.data.trials["number"] == self.number].to_dict("records")
        return {str(key): value for key, value in rows[0].items()} if rows else None

    @cached_property
    def params(self) -> TrialParams | None:
        """Its hyperparameters; None where they are damaged or of another version."""
        if self.winner is not None:
            return params_of(self.winner.finalist)
        return None if self.trial is None else formats.trial_params(self.trial)

    @property
    def title(self) -> str:
        """ "The winner (trial 7)" or "The best trial (7)"."""
        return f"The winner (trial {self.number})" if self.winner is not None else f"The best trial ({self.number})"

    @property
    def metric(self) -> str:
        """What is compared, as ``score_runs`` calls it: the selection metric, or macro F1 where it has no such."""
        return compared_metric(self.data)

    @property
    def metric_name(self) -> str:
        """ "test macro F1"."""
        return formats.metric_name(f"{self.split or 'val'}_{self.metric}")

    @property
    def lower_is_better(self) -> bool:
        return metric_mode(self.metric) == "min"

    @property
    def split_name(self) -> str:
        return formats.SPLIT_NAMES[self.split or "val"]

    @property
    def judged_runs(self) -> Runs | None:
        """``runs`` of ``split``."""
        return self.runs(self.split) if self.split else None

    @property
    def judged_scores(self) -> Scores | None:
        """``scores`` of ``split``."""
        return self.scores(self.split) if self.split else None

    @property
    def interval(self) -> Interval | None:
        """The headline: ``metric`` of the configuration on ``split``."""
        return None if self.judged_scores is None else interval(self.judged_scores, self.metric)

    def _runs(self, split: str) -> Runs | None:
        """The repeats of the configuration on ``split``, that of ``model`` first; None without images.

        With folds all validation images are one run: every image is judged by the fold that did not train on it.
        """
        winner, board = self.winner, self.leaderboard
        if self.model is None or not self.model.retrained or winner is None or board is None:
            return self.model_runs(split)
        return (
            winner.runs
            if split == board.split
            else runs_of(self.data, networks_of(self.data, winner.finalist), split)[0]
        )

    def _model_runs(self, split: str) -> Runs | None:
        """The reported network alone; None where it has no images of ``split``."""
        model = self.model
        return None if model is None else runs_of(self.data, {model.title: model.predictions}, split)[0]

    def _scores(self, split: str) -> Scores | None:
        """Of ``runs(split)``: every metric, AUROC and average precision included, the mean over its runs."""
        runs, winner = self.runs(split), self.winner
        if winner is not None and runs is winner.runs:
            return winner.scores
        return None if runs is None else runs.scores(areas=True)

    def _model_scores(self, split: str) -> Scores | None:
        """Of ``model_runs(split)``, without AUROC and average precision: these stand once, as means over repeats."""
        runs, alone = self.runs(split), self.model_runs(split)
        if runs is not None and alone is not None and runs.names == alone.names:
            return self.scores(split)
        return None if alone is None else alone.scores()

    def _point_scores(self, split: str) -> dict[str, float]:
        """Of ``model`` without intervals: for training images, and for what the run recorded; {} without images."""
        one = self.model_runs(split)
        return (
            {} if one is None else evaluate_predictions(one.labels, one.probabilities[0], one.classes, self.data.task)
        )

    def _confusion(self, split: str) -> npt.NDArray[np.int64]:
        """Of ``model``: [C, C] with true classes as rows, or [C, 2, 2] = [[TN, FP], [FN, TP]] if multi-label."""
        alone = self.model_runs(split)
        assert alone is not None, "the model has images of this split"
        return confusion_matrix(alone.labels, alone.probabilities[0], alone.classes, self.data.task)

    def absent(self, split: str) -> list[str]:
        """Classes that no image of ``split`` has."""
        alone = self.model_runs(split)
        if alone is None:
            return []
        return [name for name, count in zip(alone.classes, alone.truth.sum(axis=0), strict=True) if not count]

    def never_predicted(self, split: str) -> list[str]:
        """Classes that ``model`` answers for no image of ``split``."""
        alone = self.model_runs(split)
        if alone is None:
            return []
        counts = self.confusion(split)
        answered = counts[:, :, 1].sum(axis=1) if counts.ndim == 3 else counts.sum(axis=0)
        return [name for name, count in zip(alone.classes, answered, strict=True) if count == 0]

    @cached_property
    def positive(self) -> str | None:
        """The class of --positive-class, or of two classes the second; None in all other cases."""
        asked, classes = self.data.run.sweep.positive_class, self.data.classes
        if asked in classes:
            return asked
        return classes[1] if len(classes) == 2 and self.data.task == "single_label" else None

    @cached_property
    def operating(self) -> OperatingPoints | None:
        """The decisions of ``model`` on ``split`` and their scores; None without predictions."""
        model, images = self.model, self.model_runs(self.split) if self.split else None
        if model is None or images is None:
            return None
        cut = None
        if self.positive is not None and self.data.task == "single_label":
            winner = self.winner if model.retrained else None
            saved = [model.predictions] if winner is None else networks_of(self.data, winner.finalist).values()
            parts = [one.of("val") for one in saved if one is not None]
            cut = pooled_cut([part for part in parts if len(part.path)], self.positive)
        return operating_points(images, model.thresholds, cut)

    @cached_property
    def subgroups(self) -> tuple[tuple[Subgroup, ...], tuple[str, ...]] | None:
        """``subgroup_scores`` of ``runs(split)`` by the user's columns; None without any."""
        images = self.judged_runs
        return None if images is None else subgroup_scores(images, self.data.run.rows)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Of ``runs(split)``; None without predictions."""
        runs, scores = self.judged_runs, self.judged_scores
        return None if runs is None or scores is None else calibration(runs, scores)

    def basis(self, split: str) -> str:
        """The images that scores of ``split`` rest on. With folds validation images are those of training, too."""
        finals = self.data.run.finals
        if split == "val" and finals is not None and finals.folds and self.model is not None and self.model.retrained:
            return "Every training and validation image, each judged by the network that was not trained on it."
        return self.data.basis(split)

    def whose(self, split: str) -> str:
        """Whose scores ``scores(split)`` are: "mean over 3 repeats of trial 7"."""
        runs = self.runs(split)
        if runs is None or self.model is None:
            return ""
        many = f"mean over {len(runs.names)} repeats of trial {self.model.number}"
        return many if len(runs.names) > 1 else self.model.title

    def _baselines(self, split: str) -> BaselineComparison | None:
        """The winner against shortcuts and frozen features on ``split``; None where either cannot be scored there."""
        runs, scores, recorded = self.runs(split), self.scores(split), self.data.run.baselines
        if runs is None or scores is None or not recorded:
            return None
        saved = [(one, self._of_baseline(one)) for one in recorded]
        found = compare_baselines(runs, scores, saved, split)
        return found if found.measured else None

    def _of_baseline(self, one: BaselineRecord) -> Predictions | None:
        run = self.data.run
        return None if one.failed else checked(run, read_predictions(run, one), f"baselines/{one.name}.npz")

    @cached_property
    def effects(self) -> pd.DataFrame:
        """``leaderboard.effects`` of the cells of --compare; empty without."""
        return effects(self.leaderboard) if self.leaderboard is not None else pd.DataFrame(columns=EFFECT_COLUMNS)

    @cached_property
    def external(self) -> list[ExternalResult]:
        """The external evaluations that lie in the run folder, by name; one that cannot be read is a problem."""
        found = []
        for path in sorted((self.data.run.paths.root / "external").glob("*/evaluation.json")):
            try:
                found.append(ExternalResult(read_evaluation(path.parent)))
            except UserError as error:
                self.data.problems.extend(error.problems)
        return found

    @cached_property
    def used_trials(self) -> UsedTrials:
        """The trials that importance compares, all after equally many epochs."""
        return used_trials(self.data)

    @cached_property
    def importance(self) -> pd.DataFrame | None:
        """``importance.importances``; None where ``used_trials.too_few`` says why not."""
        return None if self.used_trials.too_few else importances(self.used_trials, self.data.mode)

    @cached_property
    def verdict(self) -> str:
        """One sentence: the configuration against the others, no more than the corrected p values support."""
        if self.leaderboard is not None and self.winner is not None:
            return self.leaderboard.sentence
        ranked = self.data.ranked
        if len(ranked) < 2:
            return ""
        first, second = ranked.iloc[0], ranked.iloc[1]
        gap = formats.score(abs(first["score"] - second["score"]))
        return (
            f"Trial {first['number']:.0f} leads trial {second['number']:.0f} by {gap} in "
            f"{formats.metric_name(self.data.metric)}, one run each, without repeats: which configuration is best is "
            "not known."
        )

    @property
    def judged_baselines(self) -> BaselineComparison | None:
        """On ``split``: what the whole page says of baselines."""
        return self.baselines(self.split) if self.split else None

    @cached_property
    def caveats(self) -> tuple[Caveat, ...]:
        """What must be known before a number is read, the worst first."""
        found = []
        for level, anchor, rule in CAVEATS:
            texts = rule(self)
            found += [Caveat(level, text, anchor) for text in ([texts] if isinstance(texts, str) else texts) if text]
        return tuple(found)


def _problems(results: Results) -> str:
    found = results.data.problems
    if len(found) > 1:
        return f"{len(found)} problems were found while the run folder was read; Reproducibility lists them."
    return f"{found[0]}." if found else ""


def _no_winner(results: Results) -> str:
    """Whether the selection, or predictions that it is judged by, are lost."""
    board = results.leaderboard
    if board is None:
        return ""
    finals = board.finals
    missing = [remark for one in board.configurations for remark in one.remarks if ": failed (" not in remark]
    if finals.selected is None:
        lost = "finalists/selection.json is missing or damaged, though the test split was opened: the winner is not "
        return f"{lost}known." if finals.opened else ""
    if board.winner is None:
        return f"selection.json names {finals.winner or 'no winner'}, which is no finalist here."
    count = len(missing)
    return f"Predictions of repeats are missing or do not fit ({count} remarks): {missing[0]}." if missing else ""


def _not_ended(results: Results) -> str:
    trials = results.data.trials
    running = tables.status_counts(trials)["running"]
    text = f"The sweep has not ended: {running} of {len(trials)} trials have no end yet."
    return "" if results.data.ended else text


def _not_selected(results: Results) -> str:
    finals = results.data.run.finals
    if finals is None or not finals.finalists or finals.selected is not None or finals.opened:
        return ""
    asked, ended = finals.asked * len(finals.finalists), sum(len(one.completed) for one in finals.finalists)
    return f"The finalists are not done: {ended} of {asked} repeats have completed, and no winner is selected."


def _on_validation(results: Results) -> str:
    """Where there is a test split that does not judge."""
    board = results.leaderboard
    if board is None or board.winner is None or board.split == "test" or not results.data.has_test:
        return ""
    opened = board.finals.opened
    why = "no test predictions of the winner can be read" if opened else "the test split was not opened yet"
    return f"Scores are of validation, and optimistic: {why}."


def _data(results: Results) -> list[str]:
    dataset = results.data.dataset
    demo = "Demo data: phantoms drawn by a program, not X-rays. The numbers say nothing about any disease."
    said = [text.removesuffix(".") + "." for text in dataset.caveats if not text.startswith("Demo set")]
    return [*([demo] if dataset.demo else []), *said]


def _folded(results: Results) -> str:
    folded = [name for name, one in results.data.run.provenance.weights.items() if one.folded_batchnorm]
    text = f"Folded BatchNorm in the starting weights of {formats.listing(folded)}: such a network trains to chance "
    return f"{text}beyond depth 0: do not compare its deeper trials with other backbones." if folded else ""


def _shortcuts(results: Results) -> str:
    found = results.judged_baselines
    return found.shortcut_sentence if found is not None and found.shortcuts_close else ""


def _never_predicted(results: Results) -> str:
    never = results.never_predicted(results.split) if results.split else []
    return f"On {results.split_name}, {formats.listing(never)} is never predicted." if never else ""


def _at_chance(results: Results) -> str:
    scores = results.judged_scores
    if scores is None or not (all(scores.positives.values()) and all(scores.negatives.values())):
        return ""
    chance = 0.5 if results.data.task == "multi_label" else 1 / len(scores.classes)
    known = interval(scores, "balanced_accuracy")
    text = f"Balanced accuracy, {intervals.plain(known)}, is not above guessing ({formats.score(chance)})."
    return text if known.low <= chance else ""


def _at_majority(results: Results) -> str:
    scores, base = results.judged_scores, tables.majority_baseline(results.data.dataset, results.split or "val")
    if scores is None or base is None:
        return ""
    known, least = interval(scores, "accuracy"), base["accuracy"]
    text = f"Accuracy, {intervals.plain(known)}, is not above always answering the most frequent class "
    return f"{text}({formats.score(least)})." if known.low <= least else ""


def _few(results: Results) -> str:
    """How little the intervals rest on."""
    scores = results.judged_scores
    positives = {} if scores is None else scores.positives
    few = [f"{name} ({count})" for name, count in positives.items() if count < FEW_GROUPS]
    unit = "patients" if scores is not None and scores.resamples.named else "images"
    which = f"{FEW_GROUPS} {results.split_name} {unit} have {formats.listing(few)}"
    return f"Fewer than {which}: such intervals are too narrow." if few else ""


def _opened_again(results: Results) -> str:
    finals = results.data.run.finals
    times = 0 if finals is None else len(finals.test_access)
    text = f"The test split was opened {times} times: scores after the first look are optimistic."
    return text if times > 1 else ""


def _lost_repeats(results: Results) -> str:
    finals = results.data.run.finals
    if finals is None or finals.selected is None:
        return ""
    short = [one for one in finals.finalists if len(one.completed) < finals.asked]
    listed = formats.listing(f"trial {one.number} ({len(one.completed)} of {finals.asked})" for one in short)
    return f"Not all repeats completed: {listed}. Their means rest on fewer." if short else ""


def _best_of_search(results: Results) -> str:
    if results.winner is not None or results.data.best is None:
        return ""
    no_test = "" if results.data.has_test else " There is no test split that could tell by how much."
    count = len(results.data.ranked)
    return f"The score is the best of {count} trials on the images they were chosen on: optimistic.{no_test}"


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
    text = f"Trials {which} were pruned more often ({shares}): they had less of a chance, and may be better than they "
    return f"{text}look."


def _seed(results: Results) -> str:
    scores = results.judged_scores if results.winner is not None else None
    values = () if scores is None else scores.by_run[results.metric]
    if len(values) < 2:
        return ""
    span = f"{formats.score(min(values))} to {formats.score(max(values))}"
    text = f"The seed alone moves the winner's {results.metric_name} from {span}; intervals are over patients, "
    return f"{text}this comes on top."


def _last_epoch(results: Results) -> str:
    budget, best, winner = results.data.run.sweep.epochs, results.data.best, results.winner
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
    trials = results.data.trials
    reasons, failed = tables.failures(trials), int((trials["status"] == "failed").sum())
    return f"{failed} of {len(trials)} trials failed; most often: {reasons['reason'][0]}." if failed else ""


def _overfitting(results: Results) -> str:
    """A claim only where the intervals of training (in evaluation mode) and validation part."""
    train, val = results.runs("train"), results.scores("val")
    if train is None or val is None:
        return ""
    # Training splits are large, and the bounds need no third digit.
    resamples = draw_resamples(train.groups, train.labels, len(train.classes), replicates=TRAIN_REPLICATES)
    learned, found = interval(train.scores(resamples), "f1_macro"), interval(val, "f1_macro")
    text = f"macro F1 is {intervals.plain(learned)} on training, {intervals.plain(found)} on validation."
    return f"Overfitting: {text}" if learned.low > found.high else ""


CAVEATS: tuple[tuple[str, str, Callable[[Results], str | list[str]]], ...] = (
    ("error", "reproducibility", _problems),
    ("error", "finalists", _no_winner),
    ("warning", "trials", _not_ended),
    ("warning", "finalists", _not_selected),
    ("warning", "finalists", _on_validation),
    ("warning", "data", _data),
    ("warning", "data", _folded),
    ("warning", "finalists", _shortcuts),
    ("warning", "errors", _never_predicted),
    ("warning", "errors", _at_chance),
    ("warning", "errors", _at_majority),
    ("warning", "errors", _few),
    ("warning", "finalists", _opened_again),
    ("warning", "finalists", _lost_repeats),
    ("warning", "finalists", _best_of_search),
    ("warning", "learning_curves", _unequal_pruning),
    ("info", "finalists", _seed),
    ("info", "learning_curves", _last_epoch),
    ("info", "trials", _best_not_completed),
    ("info", "trials", _failures),
    ("info", "errors", _overfitting),
)
"""Level, chapter that says more, and what is said ("" or []: nothing), the worst first."""
