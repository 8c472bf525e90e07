"""The leaderboard of the finalists: their repeats scored on the same images and resamples of patients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from reports import formats
from reports.bootstrap import Runs, Scores
from reports.comparisons import FALLBACK, Comparison, McNemar, compare, holm, mcnemar, runs_of, verdict_of
from reports.data import ReportData, without_test
from reports.tables import SPLITS
from search_spaces.params import Scalar
from sweep.records import SweepRecord
from sweep.trial_records import Finalist, Finals
from trainables.metrics import AREAS, evaluate_predictions, has_class, metric_names
from trainables.predictions import Predictions

TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""How much a score of the saved predictions may differ from the recorded one, which other kernels computed. A network
trained in bfloat16 predicts in single precision, which may decide borderline images differently."""
OTHERWISE = 2
"""Images of the rarest class that may be decided differently in single precision."""
EFFECT_COLUMNS = ["factor", "within", "first", "second", "difference", "low", "high", "p", "p_holm", "verdict"]


@dataclass(frozen=True, eq=False)
class ConfigurationResult:
    """One retrained configuration.

    finalist: as recorded, but each repeat with readable predictions has the score of these. runs, scores: the R repeats
    on the judging split; None if no predictions can be read. tuned: the scores at the tuned thresholds (multi-label
    only). remarks: what is wrong with its files, one clause each.
    """

    finalist: Finalist
    runs: Runs | None
    scores: Scores | None
    tuned: Scores | None
    remarks: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"trial {self.finalist.number}"

    @property
    def trial_id(self) -> str:
        return self.finalist.trial_id


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The finalists on one split; empty where none were chosen. split: "test" once opened and predicted, else "val".

    metric: the selection metric's counterpart there ("f1_macro", "recall:covid"); macro F1 if it has none (a loss).
    selected_by: the selection metric, without "val_".
    configurations: by rank in the search, then the best of each cell of --compare. cells: the best configuration of
    each cell, by the cell's values. leads, cell_leads: winner minus other, by trial_id, Holm-corrected over the
    finalists and over the cells. tests: by trial_id, the name of the compared repeat and McNemar's test; empty if
    patients have several images.
    """

    finals: Finals
    split: str
    metric: str
    selected_by: str
    mode: str
    configurations: tuple[ConfigurationResult, ...]
    cells: dict[tuple[Scalar, ...], ConfigurationResult]
    cell_names: tuple[str, ...]
    leads: dict[str, Comparison]
    cell_leads: dict[str, Comparison]
    tests: dict[str, tuple[str, McNemar]]

    @property
    def winner(self) -> ConfigurationResult | None:
        return next((one for one in self.configurations if one.trial_id == self.finals.winner), None)

    @property
    def finalists(self) -> list[ConfigurationResult]:
        return [one for one in self.configurations if one.finalist.role == "finalist"]

    @property
    def runners_up(self) -> list[ConfigurationResult]:
        """The finalists except the winner; all of them before the selection."""
        return [one for one in self.finalists if one.trial_id != self.finals.winner]

    @property
    def metric_name(self) -> str:
        """The compared score in words: "test macro F1"."""
        return formats.metric_name(f"{self.split}_{self.metric}")

    @property
    def seeded(self) -> bool:
        """Whether comparisons account for other seeds: at least one configuration has two or more networks."""
        return any(one.scores is not None and one.scores.runs > 1 for one in self.configurations)

    @property
    def resting_on(self) -> str:
        """What p values and intervals of differences account for, as the end of a sentence."""
        scores = None if self.winner is None else self.winner.scores
        unit = "patients" if scores is not None and scores.resamples.named else "images (patients are not known)"
        seeds = " and on the variance between repeats, which accounts for other seeds"
        alone = "; variation between seeds is not known, since no configuration has two networks there"
        return f"based on the same resamples of {unit}" + (seeds if self.seeded else alone)

    def gap(self, one: ConfigurationResult) -> float:
        """Optimism of the search: search score minus mean of repeats, sign reversed if lower is better."""
        return (one.finalist.search_score - one.finalist.mean) * (1 if self.mode == "max" else -1)

    def verdict(self, lead: Comparison | None) -> int | None:
        """1: the winner is better at a Holm-corrected p of 0.05; -1: it is worse; 0: no significant difference; None:
        not tested."""
        return None if lead is None else verdict_of(lead.difference, lead.p_holm, self.metric)

    @property
    def sentence(self) -> str:
        """The winner compared with the runners-up, as far as the corrected p values support; "" without a winner."""
        if self.winner is None:
            return ""
        if self.winner.scores is None:
            return "The winner's predictions cannot be read, so it is not compared with the others."
        if not self.runners_up:
            return "There is no other finalist to compare the winner with."
        found: dict[int | None, list[ConfigurationResult]] = {1: [], 0: [], -1: [], None: []}
        for one in self.runners_up:
            found[self.verdict(self.leads.get(one.trial_id))].append(one)
        words = {1: "is better than", 0: "does not differ significantly from", -1: "is worse than"}
        parts = [
            f"{text} {_names(found[key])} ({self._numbers(found[key])})" for key, text in words.items() if found[key]
        ]
        parts += [f"could not be tested against {_names(found[None])}"] if found[None] else []
        text = f"In {self.metric_name}, the winner ({self.winner.title}) {formats.listing(parts)}."
        if found[-1] and self.split == "test":
            text += f" It remains the winner: it was selected on validation{self.finals.selected_when}."
        if not self.seeded and (found[1] or found[-1]):
            text += " Each configuration has one network there: variation between seeds is not known."
        return text + (" It was selected on these same images." if self.split == "val" else "")

    def _numbers(self, configurations: list[ConfigurationResult]) -> str:
        """The difference and p of one configuration; of several, the range of differences and a bound on p."""
        leads = [self.leads[one.trial_id] for one in configurations]
        if len(leads) == 1:
            shown = formats.difference(leads[0].difference, leads[0].low, leads[0].high)
            return f"difference {shown}, Holm-corrected p {formats.p_value(leads[0].p_holm)}"
        differences, p = [lead.difference for lead in leads], [lead.p_holm for lead in leads]
        bound = f"at most {formats.p_value(max(p))}" if max(p) <= 0.05 else f"at least {formats.p_value(min(p))}"
        span = f"{formats.signed(min(differences))} to {formats.signed(max(differences))}"
        return f"differences {span}, Holm-corrected p {bound}"


def _names(configurations: list[ConfigurationResult]) -> str:
    plural = "s" * (len(configurations) > 1)
    return f"trial{plural} {formats.listing(str(one.finalist.number) for one in configurations)}"


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """The one network whose decisions, matrices and images the page shows: the model file once a winner was selected.

    title: what it is, in words. trial_id: such as "t0007/seed_1001". number: of its trial. retrained: whether it is a
    repeat of the winner. predictions: of splits that may be shown. thresholds: as for ``metrics.decide``, or None.
    recorded: the selection metric that the run recorded for it, or NaN. remark: why another network is shown in place
    of the model file, or "".
    """

    title: str
    trial_id: str
    number: int
    retrained: bool
    predictions: Predictions
    thresholds: dict[str, float] | None
    recorded: float
    remark: str = ""

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The SPLITS of which it has images."""
        return tuple(split for split in SPLITS if (self.predictions.split == split).any())

    @property
    def judged(self) -> str | None:
        """The split to judge it by: test once opened, else validation; None if it has neither."""
        return next((split for split in ("test", "val") if split in self.splits), None)


def leaderboard(data: ReportData) -> Leaderboard:
    """Score every finalist of the run. Takes about 0.1 s each on small data."""
    finals, split, metric = data.finals, _judging(data), compared_metric(data)
    runs = {one.trial_id: runs_of(data, networks_of(data, one), split) for one in finals.finalists}
    readable = {key: images for key, (images, _) in runs.items() if images is not None}
    # All are compared on the winner's images, else on those of the first finalist with readable predictions.
    basis = readable.get(finals.winner or "") or next(iter(readable.values()), None)

    def scored(one: Finalist) -> ConfigurationResult:
        images, remarks = runs[one.trial_id]
        remarks = (
            *(f"{each.name}: failed ({each.reason})" for each in one.repeats if each.status == "failed"),
            *remarks,
        )
        one, doubts = _scored_again(data, one)
        if images is None or basis is None:
            return ConfigurationResult(one, None, None, None, (*remarks, *doubts))
        same = np.array_equal(images.paths, basis.paths) and np.array_equal(images.labels, basis.labels)
        if not same:
            doubts.append("other images than the winner's: not compared with it")
        resamples = (basis if same else images).resamples
        scores = images.scores(resamples, areas=one.trial_id == finals.winner or metric.startswith(AREAS))
        least = finals.thresholds.get(one.trial_id)
        able = least and images.multi_label and set(least) <= set(images.classes)
        tuned = images.scores(resamples, thresholds=least) if able else None
        return ConfigurationResult(one, images, scores, tuned, (*remarks, *doubts))

    found = tuple(scored(one) for one in finals.finalists)
    winner = next((one for one in found if one.trial_id == finals.winner), None)
    base = None if winner is None else winner.scores
    rivals = [
        one
        for one in found
        if one is not winner and base is not None and one.scores is not None and one.scores.resamples is base.resamples
    ]

    def leads(others: list[ConfigurationResult]) -> dict[str, Comparison]:
        same = {one.trial_id: one.scores for one in others if one.scores is not None}
        return {} if base is None else compare(base, same, metric)

    names, cells = _cells(data, found)
    return Leaderboard(
        finals=finals,
        split=split,
        metric=metric,
        selected_by=data.metric.removeprefix("val_"),
        mode=data.run.sweep.mode,
        configurations=found,
        cells=cells,
        cell_names=names,
        leads=leads([one for one in rivals if one.finalist.role == "finalist"]),
        cell_leads=leads([one for one in rivals if one in cells.values()]),
        tests=_tests(finals, winner, rivals),
    )


def reported_model(data: ReportData) -> ReportedModel | None:
    """The model file, else another repeat of the winner, else the best trial; None if no predictions can be read."""
    finals, best, remark = data.finals, data.best, ""
    winner = finals.winning if finals.selected else None
    if winner is not None:
        readable = [one for one in winner.completed if one.trial_id in data.repeats]
        repeat = next((one for one in readable if one.trial_id == finals.model), next(iter(readable), None))
        if repeat is not None:
            is_model = repeat.trial_id == finals.model
            return ReportedModel(
                title=f"repeat {repeat.name} of trial {winner.number}" + (" (the model file)" if is_model else ""),
                trial_id=repeat.trial_id,
                number=winner.number,
                retrained=True,
                predictions=data.repeats[repeat.trial_id],
                thresholds=_thresholds(data, winner),
                recorded=repeat.score,
                remark="" if is_model else f"The predictions of {finals.model or 'the model file'} cannot be read",
            )
        remark = f"No predictions of the winner, trial {winner.number}, can be read"
    if data.predictions is None or best is None:
        return None
    # A search never predicts test: rows marked as test did not come through the one function that may open it.
    return ReportedModel(
        title=f"trial {best['number']:.0f}",
        trial_id=str(best["trial_id"]),
        number=int(best["number"]),
        retrained=False,
        predictions=without_test(data.predictions),
        thresholds=None,
        recorded=float(best["score"]),
        remark=remark,
    )


def _thresholds(data: ReportData, winner: Finalist) -> dict[str, float] | None:
    """The winner's thresholds for classes of the data; single-label: only those of the operating point."""
    point = data.finals.operating_point
    single = {} if point is None else point.thresholds
    found = single if data.task == "single_label" else data.finals.thresholds_of(winner.trial_id)
    return {name: value for name, value in found.items() if name in data.classes} or None


def compared_metric(data: ReportData) -> str:
    """The name in ``score_runs`` of the selection metric; macro F1 if it has none (a loss)."""
    split, _, name = data.metric.partition("_")
    known = split == "val" and name != "loss" and data.metric in metric_names(data.classes, data.task)
    return name if known else FALLBACK


def networks_of(data: ReportData, one: Finalist) -> dict[str, Predictions | None]:
    """The predictions of each completed repeat by name, the model file's first; None: cannot be read."""
    order = sorted(one.completed, key=lambda repeat: repeat.trial_id != data.finals.model)
    return {repeat.name: data.repeats.get(repeat.trial_id) for repeat in order}


def _judging(data: ReportData) -> str:
    """The judging split: "test" once opened, if test predictions of the winner can be read; else "val"."""
    if not data.finals.opened or data.finals.winning is None:
        return "val"
    parts = [part for key, part in data.repeats.items() if key.partition("/")[0] == data.finals.winner]
    return "test" if any((part.split == "test").any() for part in parts) else "val"


def contradict(score: float, recorded: float, sweep: SweepRecord, part: Predictions) -> str:
    """Says that ``part``, whose score is ``score``, contradicts the recorded one; "" within the tolerance."""
    allowed = TOLERANCE["fp32"]
    if sweep.precision == "bf16" and sweep.finalists:
        images = has_class(part.label, len(part.classes)).sum(axis=0)
        allowed = max(TOLERANCE["bf16"], OTHERWISE / images[images > 0].min(initial=len(part.path)))
    if not abs(score - recorded) > allowed:
        return ""
    given, told = formats.score(score), formats.score(recorded)
    return f"predictions give {given}, the run recorded {told}; one of the two is damaged"


def _scored_again(data: ReportData, one: Finalist) -> tuple[Finalist, list[str]]:
    """``one`` with each repeat's score recomputed from its validation predictions; and what contradicts the records."""
    name, repeats, doubts = data.metric.removeprefix("val_"), [], []
    for repeat in one.repeats:
        saved = data.repeats.get(repeat.trial_id)
        part = None if saved is None else saved.of("val")
        if part is not None and len(part.path):
            scored = part.label, part.probability, part.classes, data.task
            score = evaluate_predictions(*scored, ordered=data.dataset.ordered).get(name, math.nan)
            if wrong := contradict(score, repeat.score, data.run.sweep, part):
                doubts.append(f"{repeat.name}: its {wrong}")
            repeat = repeat if math.isnan(score) else repeat.model_copy(update={"score": score})
        repeats.append(repeat)
    return one.model_copy(update={"repeats": tuple(repeats)}), doubts


def _cells(
    data: ReportData, configurations: Iterable[ConfigurationResult]
) -> tuple[tuple[str, ...], dict[tuple[Scalar, ...], ConfigurationResult]]:
    """The factors of --compare, and the best configuration of each combination of their values, sorted by value."""
    names = data.run.sweep.compare
    names = names or next((tuple(one.finalist.cell) for one in configurations if one.finalist.cell), ())
    if not names:
        return (), {}
    found: dict[tuple[Scalar, ...], ConfigurationResult] = {}
    sign = 1 if data.run.sweep.mode == "max" else -1
    for one in sorted(configurations, key=lambda one: -sign * one.finalist.search_score):
        found.setdefault(tuple(one.finalist.params.get(name) for name in names), one)
    return names, dict(sorted(found.items(), key=lambda item: [_sortable(value) for value in item[0]]))


def _sortable(value: Scalar) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def _tests(
    finals: Finals, winner: ConfigurationResult | None, rivals: Iterable[ConfigurationResult]
) -> dict[str, tuple[str, McNemar]]:
    """McNemar's tests of the model file and the rival's repeat of that name, else of the first name that both have."""
    found: dict[str, tuple[str, McNemar]] = {}
    model = (finals.model or "").partition("/")[2]
    for one in rivals:
        first, second = winner.runs if winner is not None else None, one.runs
        shared = [name for name in first.names if name in second.names] if first and second else []
        if first is None or second is None or not shared:
            continue
        name = model if model in shared else shared[0]
        test = mcnemar(first.right(name), second.right(name), first.resamples)
        if test is not None:
            found[one.trial_id] = name, test
    return found


def effects(board: Leaderboard) -> pd.DataFrame:
    """One row per pair of cells of --compare that differ in one factor only.

    Columns: factor, within (the values that both share, in words), first, second (their values of the factor),
    difference (the first's score minus the second's), low, high, p, p_holm (corrected over all rows), verdict: 1 the
    first is better, -1 worse, 0 no significant difference, NaN not tested. For a numeric factor each value is compared
    with the lowest, for others every pair is compared. A cell is represented by its best trial, so hyperparameters
    other than the factor may differ too, as the search chose them.
    """
    rows: list[dict[str, Any]] = []
    for place, factor in enumerate(board.cell_names):
        blocks: dict[tuple[Scalar, ...], dict[Any, ConfigurationResult]] = {}
        for values, one in board.cells.items():
            blocks.setdefault((*values[:place], *values[place + 1 :]), {})[values[place]] = one
        others = (*board.cell_names[:place], *board.cell_names[place + 1 :])
        for rest, levels in blocks.items():
            words = ", ".join(formats.choice(name, value) for name, value in zip(others, rest, strict=True))
            for pair in _pairs(list(levels)):
                first, second = (formats.choice(factor, value) for value in pair)
                row = {"factor": factor, "within": words, "first": first, "second": second}
                rows.append(row | _difference(board, *(levels[value].scores for value in pair)))
    frame = pd.DataFrame(rows, columns=EFFECT_COLUMNS)
    tested = frame["p"].notna()
    frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].tolist())
    pairs = zip(frame["difference"], frame["p_holm"], strict=True)
    frame["verdict"] = [math.nan if (found := verdict_of(*pair, board.metric)) is None else found for pair in pairs]
    return frame


def _pairs(levels: list[Any]) -> list[tuple[Any, Any]]:
    if all(isinstance(level, int | float) for level in levels):
        return [(level, min(levels)) for level in sorted(levels)[1:]]
    return list(itertools.combinations(levels, 2))


def _difference(board: Leaderboard, first: Scores | None, second: Scores | None) -> dict[str, Any]:
    """The fields of ``Comparison``; {} if the two were not scored on the same images."""
    if first is None or second is None or first.resamples is not second.resamples:
        return {}
    return vars(compare(first, {"second": second}, board.metric)["second"])
