"""Every score, interval, comparison and ranking of a report, each computed once; chapters only lay them out."""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import formats
from reports.bootstrap import Runs, Scores, with_prevalence
from reports.comparisons import BaselineComparison, ExternalResult, compare_baselines, runs_of
from reports.data import ReportData, checked
from reports.importance import UsedTrials, importances, used_trials
from reports.intervals import qualifier
from reports.leaderboard import (
    ConfigurationResult,
    Leaderboard,
    ReportedModel,
    compared_metric,
    effects,
    leaderboard,
    networks_of,
    reported_model,
)
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
from sweep.evaluation_records import read_evaluation
from sweep.records import BaselineRecord, read_maps, read_predictions
from trainables.maps import Maps
from trainables.metrics import OperatingPoint, confusion_matrix, evaluate_predictions
from trainables.predictions import Predictions


class Results:
    """The results of a run. Each is computed once, on first use.

    "The configuration" is the winner with its repeats; before the selection, the best trial of the search.
    """

    def __init__(self, data: ReportData) -> None:
        self.data = data
        for name in ("runs", "model_runs", "scores", "model_scores", "point_scores", "confusion", "baselines"):
            setattr(self, name, functools.cache(getattr(self, name)))  # once per split

    @cached_property
    def leaderboard(self) -> Leaderboard:
        """The finalists, scored and compared."""
        return leaderboard(self.data)

    @property
    def winner(self) -> ConfigurationResult | None:
        """The selected finalist; None before the selection."""
        return self.leaderboard.winner

    @cached_property
    def model(self) -> ReportedModel | None:
        """The network that the page shows; None where no predictions can be read."""
        return reported_model(self.data)

    @cached_property
    def maps(self) -> Maps | None:
        """Attribution maps of ``model`` on its judging split; None if no maps of these predictions can be read."""
        model = self.model
        found = None if model is None else read_maps(self.data.run, model.trial_id)
        if model is None or model.judged is None or found is None:
            return None
        known = model.predictions
        same = (found.split, found.classes, found.epoch) == (model.judged, known.classes, known.epoch)
        if same and np.isin(found.path, known.of(model.judged).path).all():
            return found
        self.data.run.problems.append(f"the attribution maps of {model.trial_id} are left out: not of its predictions")
        return None

    @cached_property
    def split(self) -> str | None:
        """The judging split: "test" once opened, else "val"; None without predictions."""
        if self.winner is not None and self.winner.scores is not None:
            return self.leaderboard.split
        return self.model.judged if self.model is not None else None

    @property
    def number(self) -> int | None:
        """The number of the reported trial: the winner's, else that of the best of the search."""
        if self.winner is not None:
            return self.winner.finalist.number
        return int(self.data.best["number"]) if self.data.best is not None else None

    @cached_property
    def trial(self) -> dict[str, Any] | None:
        """Its row of ``data.trials``."""
        return self.data.trial(self.number)

    @cached_property
    def params(self) -> TrialParams | None:
        """Its hyperparameters; None where they are damaged or of another version."""
        if self.winner is not None:
            return formats.params_of(self.winner.finalist.params)
        return None if self.trial is None else formats.trial_params(self.trial)

    @property
    def title(self) -> str:
        """ "The winner (trial 7)" or "The best trial (7)"."""
        return f"The winner (trial {self.number})" if self.winner is not None else f"The best trial ({self.number})"

    @property
    def metric(self) -> str:
        """The compared score by its name in ``score_runs``: the selection metric, or macro F1 if that is a loss."""
        return compared_metric(self.data)

    @property
    def metric_name(self) -> str:
        """ "test macro F1"."""
        name = formats.metric_name(f"{self.split or 'val'}_{self.metric}")
        return name if self.judged_scores is None else name + qualifier(self.judged_scores, self.metric)

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

    def runs(self, split: str) -> Runs | None:
        """The repeats of the configuration on ``split``, that of ``model`` first; None without images.

        With folds, all validation images are one run: every image is predicted by the fold not trained on it.
        """
        winner = self.winner
        if self.model is None or not self.model.retrained or winner is None:
            return self.model_runs(split)
        if split == self.leaderboard.split:
            return winner.runs
        return runs_of(self.data, networks_of(self.data, winner.finalist), split)[0]

    def model_runs(self, split: str) -> Runs | None:
        """The reported network alone; None where it has no images of ``split``."""
        model = self.model
        return None if model is None else runs_of(self.data, {model.title: model.predictions}, split)[0]

    def scores(self, split: str) -> Scores | None:
        """Scores of ``runs(split)``, the mean over its runs: every metric, AUROC and average precision included."""
        runs, winner = self.runs(split), self.winner
        if winner is not None and runs is winner.runs:
            return winner.scores
        return None if runs is None else runs.scores(areas=True)

    def model_scores(self, split: str) -> Scores | None:
        """Scores of ``model_runs(split)`` without AUROC and average precision, of which the page has only means."""
        runs, alone = self.runs(split), self.model_runs(split)
        if runs is not None and alone is not None and runs.names == alone.names:
            return self.scores(split)
        return None if alone is None else alone.scores()

    def point_scores(self, split: str) -> dict[str, float]:
        """Scores of ``model`` without intervals, as for training images or to check the records; {} without images."""
        one = self.model_runs(split)
        if one is None:
            return {}
        scored = one.labels, one.probabilities[0], one.classes, self.data.task
        return evaluate_predictions(*scored, ordered=one.ordered)

    def confusion(self, split: str) -> npt.NDArray[np.int64]:
        """Matrix of ``model``: [C, C], true classes as rows, or [C, 2, 2] = [[TN, FP], [FN, TP]] if multi-label."""
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
        """Classes with images in ``split`` that ``model`` predicts for no image."""
        alone = self.model_runs(split)
        if alone is None:
            return []
        counts = self.confusion(split)
        answered = counts[:, :, 1].sum(axis=1) if counts.ndim == 3 else counts.sum(axis=0)
        there = np.asarray(alone.truth.any(axis=0))
        return [name for name, count, one in zip(alone.classes, answered, there, strict=True) if one and not count]

    @cached_property
    def positive(self) -> str | None:
        """The class of --positive-class, else the second of two classes (single-label), else None."""
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
        if self.positive is not None and self.data.task == "single_label" and not model.thresholds:
            winner = self.winner if model.retrained else None
            saved = [model.predictions] if winner is None else networks_of(self.data, winner.finalist).values()
            cut = pooled_cut([one for one in saved if one is not None], self.positive)
        found, point = operating_points(images, model.thresholds, cut), self.operating_point
        if point is None or point.threshold is None or not model.retrained or self.prevalence is None:
            return found
        scores, place = [*found.scores], found.last(point.label)
        scores[place] = with_prevalence(scores[place], point.label, self.prevalence)
        return replace(found, scores=tuple(scores))

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The requested operating point as the selection recorded it; None if there is none."""
        point = self.data.finals.operating_point if self.data.finals.selected else None
        return point if point is not None and point.label in self.data.classes else None

    @property
    def prevalence(self) -> float | None:
        """Prevalence of the class of ``operating_point`` where the model will be used; None if not given."""
        point = self.operating_point
        return None if point is None else (self.data.run.sweep.prevalence or {}).get(point.label)

    @property
    def point_scored(self) -> Scores | None:
        """Scores of the decisions of ``model`` at ``operating_point`` on ``split``; None without a threshold, or
        without predictions of the winner."""
        point, model, points = self.operating_point, self.model, self.operating
        if point is None or point.threshold is None or model is None or not model.retrained or points is None:
            return None
        return points.scores[points.last(point.label)]

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
        """The images that scores of ``split`` are based on; with folds, validation includes the training images."""
        if split == "val" and self.data.finals.folds and self.model is not None and self.model.retrained:
            return "All training and validation images, each predicted by the network that was not trained on it."
        return self.data.basis(split)

    def whose(self, split: str) -> str:
        """What ``scores(split)`` are scores of: "mean over 3 repeats of trial 7"."""
        runs = self.runs(split)
        if runs is None or self.model is None:
            return ""
        if runs.pooled:
            return f"trial {self.model.number}, all folds together"
        many = f"mean over {len(runs.names)} repeats of trial {self.model.number}"
        return many if len(runs.names) > 1 else self.model.title

    def baselines(self, split: str) -> BaselineComparison | None:
        """The winner compared with shortcuts and frozen features on ``split``; None if either cannot be scored there.

        ``by_class`` is from validation, which decides whether a class is given away.
        """
        runs, scores = self.runs(split), self.scores(split)
        if runs is None or scores is None or not self._saved_baselines:
            return None
        found = compare_baselines(runs, scores, self._saved_baselines, split)
        if not found.measured:
            return None
        by_class = found.by_class
        if split == "test":
            on_test, judging = {(one.name, one.baseline.name): one for one in by_class}, self.baselines("val")
            decided = () if judging is None else judging.by_class
            by_class = tuple(replace(one, test=on_test.get((one.name, one.baseline.name))) for one in decided)
        tuned = self.params is None or self.params.unfreeze_depth != 0
        return replace(found, tuned=tuned, by_class=by_class)

    @cached_property
    def _saved_baselines(self) -> list[tuple[BaselineRecord, Predictions | None]]:
        """Each with its predictions of all splits; None: failed or not usable."""
        run = self.data.run
        return [
            (one, None if one.failed else checked(run, read_predictions(run, one), f"baselines/{one.name}.npz"))
            for one in run.baselines or ()
        ]

    @cached_property
    def effects(self) -> pd.DataFrame:
        """``leaderboard.effects`` of the cells of --compare; empty without."""
        return effects(self.leaderboard)

    @cached_property
    def external(self) -> list[ExternalResult]:
        """The external evaluations of the run's model, by name."""
        return [one for one in self._evaluations if self._is_of_the_model(one)]

    @cached_property
    def of_earlier_models(self) -> list[str]:
        """The names of evaluations of an earlier model of the run, or of the same model with other thresholds."""
        return [one.facts.name for one in self._evaluations if not self._is_of_the_model(one)]

    def _is_of_the_model(self, one: ExternalResult) -> bool:
        model, judged = self.data.run.model, one.facts.model
        if model is None:
            return True
        names = ("trial", "epoch", "thresholds", "operating_point")
        return all(getattr(judged, name) == getattr(model, name) for name in names)

    @cached_property
    def _evaluations(self) -> list[ExternalResult]:
        """All in the run folder; one that cannot be read is recorded as a problem."""
        found = []
        for path in sorted(self.data.run.paths.external.glob("*/evaluation.json")):
            try:
                found.append(ExternalResult(read_evaluation(path.parent), areas=False))
            except UserError as error:
                self.data.run.problems.extend(error.problems)
        return found

    @cached_property
    def used_trials(self) -> UsedTrials:
        """The trials that importance compares, all after equally many epochs."""
        return used_trials(self.data)

    @cached_property
    def importance(self) -> pd.DataFrame | None:
        """``importance.importances``; None where ``used_trials.too_few`` says why not."""
        return None if self.used_trials.too_few else importances(self.used_trials, self.data.run.sweep.mode)

    @cached_property
    def verdict(self) -> str:
        """One sentence: the configuration compared with the others, as far as the corrected p values support."""
        if self.winner is not None:
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
        """``baselines`` of ``split``, which the whole page uses."""
        return self.baselines(self.split) if self.split else None
