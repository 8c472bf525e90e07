"""How the finalists stand to each other: their repeats scored on the same images and the same resamples of patients."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.data import ReportData
from reports.scores.finalist_runs import order_of, runs_of, validation_of
from reports.scores.paired import Comparison, McNemar, compare, mcnemar
from reports.scores.resampled_scores import Scores, decisions, score_runs
from reports.scores.resampling import Resamples, draw_resamples
from reports.scores.shown import Runs
from sweep.records import Finalist, Finals

FALLBACK = "f1_macro"


@dataclass(frozen=True, kw_only=True)
class ConfigurationResult:
    """One repeated configuration.

    validation: the selection metric of each repeat that ended, by its name ("seed_1001"): of its predictions where they
    can be read, else as the run recorded it. runs, scores: the R repeats on the split that judges; None where no
    predictions can be read. tuned: the same at the tuned thresholds (multi-label only). remarks: what is wrong with
    its files, whole clauses.
    """

    finalist: Finalist
    validation: dict[str, float]
    runs: Runs | None
    scores: Scores | None
    tuned: Scores | None
    remarks: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Of the repeats, on validation; NaN without one."""
        return statistics.fmean(self.validation.values()) if self.validation else math.nan

    @property
    def standard_error(self) -> float:
        """Of ``mean``: standard deviation (n - 1) / sqrt(n); NaN below two repeats."""
        count = len(self.validation)
        return statistics.stdev(self.validation.values()) / math.sqrt(count) if count > 1 else math.nan

    @property
    def title(self) -> str:
        return f"trial {self.finalist.number}"

    @property
    def trial_id(self) -> str:
        return self.finalist.trial_id


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The finalists on one split. split: "test" once opened and predicted, else "val".

    metric: the selection metric's counterpart there ("f1_macro", "recall:covid"); macro F1 where it has none (a loss).
    contenders: by place in the search, then the best of each cell of --compare. resamples: of the images that all
    paired contenders share; None without predictions. cells: the best contender of each cell, by the cell's values.
    leads, cell_leads: the winner less the other, by trial_id, corrected by Holm for the finalists and for the cells.
    tests: McNemar's, by trial_id, and the repeat whose networks it compares; empty where patients have several images.
    """

    finals: Finals
    split: str
    metric: str
    mode: str
    contenders: tuple[ConfigurationResult, ...]
    resamples: Resamples | None
    cells: dict[tuple[Any, ...], ConfigurationResult]
    cell_names: tuple[str, ...]
    leads: dict[str, Comparison]
    cell_leads: dict[str, Comparison]
    tests: dict[str, tuple[str, McNemar]]

    @property
    def winner(self) -> ConfigurationResult | None:
        return next((one for one in self.contenders if one.trial_id == self.finals.winner), None)

    @property
    def finalists(self) -> list[ConfigurationResult]:
        return [one for one in self.contenders if one.finalist.role == "finalist"]

    @property
    def runners_up(self) -> list[ConfigurationResult]:
        """The finalists but the winner; without a decision all of them."""
        return [one for one in self.finalists if one.trial_id != self.finals.winner]

    def gap(self, one: ConfigurationResult) -> float:
        """By how much the search flattered it: search score less the mean of repeats, turned where lower is better."""
        return (one.finalist.search_score - one.mean) * (1 if self.mode == "max" else -1)

    def verdict(self, lead: Comparison | None) -> int | None:
        """1: the winner is better at a Holm-corrected p of 0.05; -1: it is worse; 0: not shown; None: not tested."""
        if lead is None or math.isnan(lead.p_holm):
            return None
        better = lead.difference * (-1 if lower_is_better(self.metric) else 1) > 0
        return 0 if lead.p_holm > 0.05 else 1 if better else -1


def stand(evidence: ReportData) -> Leaderboard | None:
    """Score every finalist of the run; None where none were chosen. Takes about 0.1 s each on small data."""
    finals = evidence.run.finals
    if finals is None or not finals.finalists:
        return None
    split = _judging(evidence, finals)
    metric = _counterpart(evidence)
    runs = {one.trial_id: runs_of(evidence, finals, one, split) for one in finals.finalists}
    basis = _basis(finals, {key: found for key, (found, _) in runs.items() if found is not None})
    contenders = tuple(
        _contender(evidence, finals, one, *runs[one.trial_id], basis, metric) for one in finals.finalists
    )
    by_id = {one.trial_id: one for one in contenders}
    winner = by_id.get(finals.winner or "")
    names, cells = _cells(evidence, contenders)
    rivals = [one for one in contenders if one.finalist.role == "finalist"]
    return Leaderboard(
        finals=finals,
        split=split,
        metric=metric,
        mode=evidence.mode,
        contenders=contenders,
        resamples=basis[1] if basis else None,
        cells=cells,
        cell_names=names,
        leads=_leads(winner, rivals, metric),
        cell_leads=_leads(winner, cells.values(), metric),
        tests=_tests(finals, winner, contenders),
    )


def lower_is_better(metric: str) -> bool:
    return metric in ("nll", "loss")


def _judging(evidence: ReportData, finals: Finals) -> str:
    """The test split only of a winner that was decided, and whose test predictions can be read."""
    if not finals.opened or finals.winning is None:
        return "val"
    parts = [part for key, part in evidence.repeats.items() if key.partition("/")[0] == finals.winner]
    return "test" if any((part.split == "test").any() for part in parts) else "val"


def _counterpart(evidence: ReportData) -> str:
    """The selection metric as ``score_runs`` calls it."""
    split, _, name = evidence.metric.partition("_")
    plain, _, label = name.partition(":")
    known = ["nll", "accuracy", "balanced_accuracy", "f1_macro", "auroc_macro"]
    known += ["exact_match", "hamming_accuracy"] if evidence.task == "multi_label" else []
    of_class = label in evidence.classes and plain in ("precision", "recall", "specificity", "f1", "auroc")
    return name if split == "val" and (of_class or name in known) else FALLBACK


def _basis(finals: Finals, runs: Mapping[str, Runs]) -> tuple[Runs, Resamples] | None:
    """Whose images all are judged on, and the resamples of them: the winner's, else those of the first finalist."""
    if not runs:
        return None
    chosen = runs.get(finals.winner or "") or next(iter(runs.values()))
    return chosen, draw_resamples(chosen.groups, chosen.labels, len(chosen.classes))


def _contender(
    evidence: ReportData,
    finals: Finals,
    one: Finalist,
    runs: Runs | None,
    remarks: tuple[str, ...],
    basis: tuple[Runs, Resamples] | None,
    metric: str,
) -> ConfigurationResult:
    validation, doubts = validation_of(evidence, one)
    scores = tuned = None
    if runs is not None:
        assert basis is not None
        shared, resamples = basis
        order = order_of(runs.paths, runs.labels, shared.paths, shared.labels)
        if order is None:
            doubts.append("other images than the winner's: not compared with it")
            resamples = draw_resamples(runs.groups, runs.labels, len(runs.classes))
        else:
            rows = runs.probabilities[:, order]
            runs = Runs(runs.names, runs.classes, shared.labels, rows, shared.paths, shared.groups)
        auroc = one.trial_id == finals.winner or metric.startswith("auroc")
        arguments = (runs.labels, runs.probabilities, runs.classes, resamples)
        scores = score_runs(*arguments, auroc=auroc)
        thresholds = finals.thresholds.get(one.trial_id)
        if thresholds and runs.labels.ndim == 2 and set(thresholds) <= set(runs.classes):
            tuned = score_runs(*arguments, thresholds=thresholds, auroc=False)
    return ConfigurationResult(
        finalist=one, validation=validation, runs=runs, scores=scores, tuned=tuned, remarks=(*remarks, *doubts)
    )


def _cells(
    evidence: ReportData, contenders: Iterable[ConfigurationResult]
) -> tuple[tuple[str, ...], dict[tuple[Any, ...], ConfigurationResult]]:
    """What --compare compared, and the best contender of each combination of values, in order of these."""
    asked = evidence.run.sweep.get("compare")
    names = tuple(map(str, asked)) if isinstance(asked, list | tuple) else ()
    names = names or next((tuple(one.finalist.cell) for one in contenders if one.finalist.cell), ())
    if not names:
        return (), {}
    found: dict[tuple[Any, ...], ConfigurationResult] = {}
    sign = 1 if evidence.mode == "max" else -1
    for one in sorted(contenders, key=lambda one: -sign * one.finalist.search_score):
        found.setdefault(tuple(one.finalist.params.get(name) for name in names), one)
    return names, dict(sorted(found.items(), key=lambda item: [_sortable(value) for value in item[0]]))


def _sortable(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def _leads(
    winner: ConfigurationResult | None, others: Iterable[ConfigurationResult], metric: str
) -> dict[str, Comparison]:
    if winner is None or winner.scores is None:
        return {}
    same = {
        one.trial_id: one.scores
        for one in others
        if one is not winner and one.scores is not None and one.scores.resamples is winner.scores.resamples
    }
    return compare(winner.scores, same, metric) if same else {}


def _tests(
    finals: Finals, winner: ConfigurationResult | None, contenders: Iterable[ConfigurationResult]
) -> dict[str, tuple[str, McNemar]]:
    """Of the model file and the other's repeat of the same seed; of the first seed that both have, where one lacks."""
    found: dict[str, tuple[str, McNemar]] = {}
    if winner is None or winner.runs is None or winner.scores is None:
        return found
    model = (finals.model or "").partition("/")[2]
    for one in contenders:
        if one is winner or one.runs is None or one.scores is None:
            continue
        if one.scores.resamples is not winner.scores.resamples:
            continue
        shared = [name for name in winner.runs.names if name in one.runs.names]
        if not shared:
            continue
        name = model if model in shared else shared[0]
        test = mcnemar(_right(winner.runs, name), _right(one.runs, name), winner.scores.resamples)
        if test is not None:
            found[one.trial_id] = name, test
    return found


def _right(runs: Runs, name: str) -> npt.NDArray[np.bool_]:
    """bool [N]: which images the network ``name`` decides rightly, every label of them."""
    several = runs.labels.ndim == 2
    truth = runs.labels == 1 if several else np.equal(runs.labels[:, None], np.arange(len(runs.classes)))
    one = runs.probabilities[runs.names.index(name)]
    right: npt.NDArray[np.bool_] = (
        decisions(one, runs.classes, None, "multi_label" if several else "single_label") == truth
    ).all(axis=1)
    return right
