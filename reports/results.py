"""Every score, interval, comparison and ranking of a report, each computed once; chapters only lay them out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import fisher_exact

from reports import formats, intervals, tables
from reports.bootstrap import Runs, Scores, draw_resamples, score_runs
from reports.calibration import Calibration, calibration
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
from reports.operating import OperatingPoints, Subgroup, operating_points, pooled_cut, subgroup_scores
from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.records import BaselineRecord, read_evaluation, read_predictions
from trainables.metrics import confusion_matrix, evaluate_predictions, metric_mode
from trainables.predictions import Predictions

LEVELS = ("error", "warning", "info")
TRAIN_REPLICATES = 400
SUBGROUP = "subgroup_"
WIDE = 0.2
"""Width of an interval of recall from which on it ranks no two networks."""


@dataclass(frozen=True)
class Caveat:
    """level: one of LEVELS; text: a short plain sentence or two; anchor: the chapter that says more."""

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
    def interval(self) -> Interval | None:
        """The headline: ``metric`` of the configuration on ``split``."""
        scores = self.scores(self.split) if self.split else None
        return None if scores is None else interval(scores, self.metric)

    def _runs(self, split: str) -> Runs | None:
        """The repeats of the configuration on ``split``, that of ``model`` first; None without images.

        With folds all validation images are one run: every image is judged by the fold that did not train on it.
        """
        winner, model = self.winner, self.model
        if model is None:
            return None
        if not model.retrained:
            networks: Mapping[str, Predictions | None] = {model.title: model.predictions}
            return runs_of(self.data, networks, split)[0] if split in model.splits else None
        assert winner is not None
        if self.leaderboard is not None and split == self.leaderboard.split:
            return winner.runs
        return runs_of(self.data, networks_of(self.data, winner.finalist), split)[0]

    def _model_runs(self, split: str) -> Runs | None:
        """The reported network alone; None where it has no images of ``split``."""
        model = self.model
        if model is None or split not in model.splits:
            return None
        return runs_of(self.data, {model.title: model.predictions}, split)[0]

    def _scores(self, split: str) -> Scores | None:
        """Of ``runs(split)``: every metric, AUROC and average precision included, the mean over its runs."""
        runs, winner = self.runs(split), self.winner
        if runs is None:
            return None
        return winner.scores if winner is not None and runs is winner.runs else runs.scores(areas=True)

    def _model_scores(self, split: str) -> Scores | None:
        """Of ``model_runs(split)``, without AUROC and average precision: these stand once, as means over repeats."""
        runs, alone = self.runs(split), self.model_runs(split)
        if runs is not None and alone is not None and runs.names == alone.names:
            return self.scores(split)
        return None if alone is None else alone.scores()

    def _point_scores(self, split: str) -> dict[str, float]:
        """Of ``model`` without intervals: for training images, and for what the run recorded; {} without images."""
        alone = self.model_runs(split)
        if alone is None:
            return {}
        return evaluate_predictions(alone.labels, alone.probabilities[0], alone.classes, self.data.task)

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
        if self.model is None or split not in self.model.splits or alone is None:
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
        images, rows = self.runs(self.split) if self.split else None, self.data.run.rows
        names = [str(name) for name in rows.columns if str(name).startswith(SUBGROUP)]
        if images is None or not names:
            return None
        return subgroup_scores(images, subgroup_values(rows, images.paths))

    @cached_property
    def calibration(self) -> Calibration | None:
        """Of ``runs(split)``; None without predictions."""
        runs = self.runs(self.split) if self.split else None
        return None if runs is None else calibration(runs)

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
        return tuple(one for rule in CAVEATS for one in rule(self))


def subgroup_values(rows: pd.DataFrame, paths: npt.NDArray[np.str_]) -> dict[str, npt.NDArray[np.str_]]:
    """By subgroup column of splits.csv, its value of each image, "" where it has none."""
    found = {}
    for name in (str(name) for name in rows.columns if str(name).startswith(SUBGROUP)):
        of_path = dict(zip(rows["path"], rows[name], strict=True))
        found[name.removeprefix(SUBGROUP)] = np.array([str(of_path.get(path, "")) for path in paths.tolist()])
    return found


def _unfinished(results: Results) -> Iterator[Caveat]:
    data = results.data
    if not data.ended:
        running = tables.status_counts(data.trials)["running"]
        text = f"The sweep has not ended: {running} of {len(data.trials)} trials have no end yet."
        yield Caveat("warning", text, "trials")
    if data.problems:
        count = len(data.problems)
        many = f"{count} problems were found while the run folder was read; Reproducibility lists them."
        yield Caveat("error", many if count > 1 else f"{data.problems[0]}.", "reproducibility")
    board = results.leaderboard
    if board is None:
        return
    finals, has_test = board.finals, data.has_test
    missing = [remark for one in board.configurations for remark in one.remarks if ": failed (" not in remark]
    if finals.selected is None and finals.opened:
        text = (
            "finalists/selection.json is missing or damaged, though the test split was opened: the winner is not known."
        )
        yield Caveat("error", text, "finalists")
    elif finals.selected is None:
        asked, ended = finals.asked * len(finals.finalists), sum(len(one.completed) for one in finals.finalists)
        text = f"The finalists are not done: {ended} of {asked} repeats have completed, and no winner is selected."
        yield Caveat("warning", text, "finalists")
    elif board.winner is None:
        text = f"selection.json names {finals.winner or 'no winner'}, which is no finalist here."
        yield Caveat("error", text, "finalists")
    elif missing:
        text = f"Predictions of repeats are missing or do not fit ({len(missing)} remarks): {missing[0]}."
        yield Caveat("error", text, "finalists")
    if board.winner is not None and has_test and board.split == "val":
        why = "no test predictions of the winner can be read" if finals.opened else "the test split was not opened yet"
        yield Caveat("warning", f"Scores are of validation, and optimistic: {why}.", "finalists")


def _data(results: Results) -> Iterator[Caveat]:
    dataset = results.data.dataset
    if dataset.demo:
        text = "Demo data: phantoms drawn by a program, not X-rays. The numbers say nothing about any disease."
        yield Caveat("warning", text, "data")
    for text in dataset.caveats:
        if not text.startswith("Demo set"):
            yield Caveat("warning", text if text.endswith(".") else f"{text}.", "data")
    folded = [name for name, one in results.data.run.provenance.weights.items() if one.folded_batchnorm]
    if folded:
        text = f"Folded BatchNorm in the starting weights of {formats.listing(folded)}: such a network trains to chance"
        yield Caveat(
            "warning", f"{text} beyond depth 0: do not compare its deeper trials with other backbones.", "data"
        )


def _learned(results: Results) -> Iterator[Caveat]:
    """Whether the winner is better than what needs no look at the finding."""
    found = results.judged_baselines
    if found is not None and found.shortcuts_close:
        yield Caveat("warning", found.shortcut_sentence, "finalists")
    scores, split = results.scores(results.split) if results.split else None, results.split or "val"
    if scores is None:
        return
    never = results.never_predicted(split)
    if never:
        text = f"On {formats.SPLIT_NAMES[split]}, {formats.listing(never)} is never predicted."
        yield Caveat("warning", text, "errors")
    if all(scores.positives.values()) and all(scores.negatives.values()):
        chance = 0.5 if results.data.task == "multi_label" else 1 / len(scores.classes)
        known = interval(scores, "balanced_accuracy")
        if known.low <= chance:
            text = f"Balanced accuracy, {intervals.plain(known)}, is not above guessing ({formats.score(chance)})."
            yield Caveat("warning", text, "errors")
    base, known = tables.majority_baseline(results.data.dataset, split), interval(scores, "accuracy")
    if base is not None and known.low <= base["accuracy"]:
        text = f"Accuracy, {intervals.plain(known)}, is not above always answering the most frequent class "
        yield Caveat("warning", f"{text}({formats.score(base['accuracy'])}).", "errors")


def _few(results: Results) -> Iterator[Caveat]:
    """How little the intervals rest on."""
    scores = results.scores(results.split) if results.split else None
    if scores is None:
        return
    unit = "patients" if scores.resamples.named else "images"
    few = [f"{name} ({count})" for name, count in scores.positives.items() if count < FEW_GROUPS]
    if few:
        on = formats.SPLIT_NAMES[results.split or "val"]
        text = f"Fewer than {FEW_GROUPS} {on} {unit} have {formats.listing(few)}: such intervals are too narrow."
        yield Caveat("warning", text, "errors")
    rarest = min(scores.classes, key=lambda name: (scores.positives[name], name))
    recall = interval(scores, f"recall:{rarest}")
    if recall.high - recall.low > WIDE:
        text = f"Recall of {rarest}, the rarest class, is {intervals.plain(recall)}: too wide to rank two networks by."
        yield Caveat("info", text, "errors")


def _repeats(results: Results) -> Iterator[Caveat]:
    finals = results.data.run.finals
    if finals is None:
        return
    if len(finals.test_access) > 1:
        text = f"The test split was opened {len(finals.test_access)} times: scores after the first look are optimistic."
        yield Caveat("warning", text, "finalists")
    short = [one for one in finals.finalists if len(one.completed) < finals.asked]
    if finals.selected is not None and short:
        listed = formats.listing(f"trial {one.number} ({len(one.completed)} of {finals.asked})" for one in short)
        yield Caveat("warning", f"Not all repeats completed: {listed}. Their means rest on fewer.", "finalists")
    scores = results.scores(results.split) if results.winner is not None and results.split else None
    if scores is not None and len(scores.by_run[results.metric]) > 1:
        values = scores.by_run[results.metric]
        text = f"The seed alone moves the winner's {results.metric_name} from {formats.score(values.min())} to "
        text += f"{formats.score(values.max())}; intervals are over patients, this comes on top."
        yield Caveat("info", text, "finalists")


def _search(results: Results) -> Iterator[Caveat]:
    data, budget = results.data, results.data.run.sweep.epochs
    winner = results.winner
    if winner is not None:
        last = [one.best_epoch for one in winner.finalist.completed]
    else:
        last = [data.best["best_epoch"]] if data.best is not None else []
    if budget and budget > 1 and last and all(epoch == budget for epoch in last):
        which = "every repeat" if winner is not None else "the best trial"
        text = f"The best epoch of {which} is the last of the budget ({budget}): more epochs may score higher."
        yield Caveat("info", text, "learning_curves")
    if winner is None and data.best is not None:
        no_test = "" if data.has_test else " There is no test split that could tell by how much."
        text = f"The score is the best of {len(data.ranked)} trials on the images they were chosen on: optimistic."
        yield Caveat("warning", text + no_test, "finalists")
        if data.best["status"] in ("running", "pruned"):
            how = "is still running" if data.best["status"] == "running" else "was pruned before its last epoch"
            yield Caveat("info", f"The best trial {how}.", "trials")
    yield from _failures(data)
    yield from _unequal_pruning(data)
    late = data.best is not None and len(data.trials) >= 20 and data.best["number"] >= 0.8 * len(data.trials)
    if data.best is not None and late and not data.run.sweep.study_rows:
        text = f"The best trial was number {data.best['number']:.0f} of {len(data.trials)}: a longer search may help."
        yield Caveat("info", text, "learning_curves")


def _failures(data: ReportData) -> Iterator[Caveat]:
    """How many trials failed, of what, and whether one backbone is behind it (Fisher's exact test, Bonferroni)."""
    reasons, failed = tables.failures(data.trials), data.trials["status"] == "failed"
    if not len(reasons):
        return
    text = f"{int(failed.sum())} of {len(data.trials)} trials failed; most often: {reasons['reason'][0]}."
    names = sorted(set(data.trials["backbone"]))
    counted = [pd.crosstab(data.trials["backbone"] == name, failed).to_numpy()[::-1, ::-1] for name in names]
    p = [float(fisher_exact(one, "greater").pvalue) * len(names) for one in counted if one.shape == (2, 2)]
    if len(p) == len(names) and min(p) <= 0.05:
        text += f" More than by chance are of {names[int(np.argmin(p))]}: its results rest on fewer trials."
    yield Caveat("info", text, "trials")


def _unequal_pruning(data: ReportData) -> Iterator[Caveat]:
    """Whether trials that train the head alone were pruned more or less often than others (Fisher's exact test)."""
    ended = data.trials[data.trials["status"].isin(["completed", "pruned"])]
    counted = pd.crosstab(ended["unfrozen"] == formats.DEPTH_NAMES[0], ended["status"] == "pruned").to_numpy()
    if counted.shape != (2, 2) or float(fisher_exact(counted).pvalue) > 0.05:
        return
    deeper, shallow = counted[:, 1] / counted.sum(axis=1)
    which = "that train more than the head" if deeper > shallow else "that train the head alone"
    text = f"Trials {which} were pruned more often ({formats.percent(max(deeper, shallow))} against "
    text += f"{formats.percent(min(deeper, shallow))}): they had less of a chance, and may be better than they look."
    yield Caveat("warning", text, "learning_curves")


def _overfitting(results: Results) -> Iterator[Caveat]:
    """A claim only where the intervals of training (in evaluation mode) and validation part."""
    train, val = results.runs("train"), results.scores("val")
    if train is None or val is None:
        return
    # Training splits are large, and the bounds need no third digit.
    resamples = draw_resamples(train.groups, train.labels, len(train.classes), replicates=TRAIN_REPLICATES)
    scores = score_runs(train.labels, train.probabilities, train.classes, resamples, areas=False)
    learned, found = interval(scores, "f1_macro"), interval(val, "f1_macro")
    if learned.low > found.high:
        text = (
            f"Overfitting: macro F1 is {intervals.plain(learned)} on training, {intervals.plain(found)} on validation."
        )
        yield Caveat("info", text, "errors")


CAVEATS: tuple[Callable[[Results], Iterator[Caveat]], ...] = (
    _unfinished,
    _data,
    _learned,
    _few,
    _repeats,
    _search,
    _overfitting,
)
