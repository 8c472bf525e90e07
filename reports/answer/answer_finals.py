"""The answer once finalists were repeated: the winner's score and interval, beside runners-up and simple methods."""

from __future__ import annotations

import math

from reports.answer import answer_model, answer_shortcuts
from reports.data import ReportData
from reports.page import figures_finals, formats, wording
from reports.page.blocks import Block, Command, FactList, Heading, Headline, Note, Picture, Text
from reports.prose import verdict
from reports.scores import finals_tables, finals_words, interval_cells
from reports.scores.finals import ConfigurationResult, Leaderboard
from reports.scores.resampled_scores import Scores
from reports.scores.shortcut_tables import Contest
from reports.scores.statistics import interval

TILES = ("accuracy", "balanced_accuracy", "f1_macro", "auroc_macro", "hamming_accuracy")
MOST_FINALISTS = 12


def blocks(evidence: ReportData, standing: Leaderboard, winner: ConfigurationResult) -> list[Block]:
    """From the headline to the model file. winner: has at least one repeat with a score."""
    found: list[Block] = [_headline(evidence, standing, winner)]
    found += [Text(verdict.sentence(standing)), *verdict.state(evidence, standing)]
    if winner.scores is not None:
        contest = answer_shortcuts.contest(evidence, standing.split)
        found += [_picture(evidence, standing, winner, contest)]
        found += answer_shortcuts.blocks(evidence, contest, standing.split)
        found += [Heading(f"The winner by other measures ({finals_words.split_name(standing)})")]
        found += _tiles(evidence, standing, winner.scores)
    found += _remarks(evidence, winner)
    found.append(Heading("Best configuration"))
    found.append(FactList(tuple(_configuration(evidence, winner))))
    found += answer_model.blocks(evidence, _own_scores(evidence, standing, winner))
    params = finals_tables.params_of(winner)
    command = wording.again(evidence.run.sweep, params, evidence.name) if params else ""
    return [*found, Text("To train this configuration once more:"), Command(command)] if command else found


def _headline(evidence: ReportData, standing: Leaderboard, winner: ConfigurationResult) -> Headline:
    count, of = len(winner.validation), "fold" if standing.finals.folds else "repeat"
    if winner.scores is None:
        return Headline(
            value=formats.show("score", winner.mean),
            label=f"{_capital(wording.metric_name(evidence.metric))} of the winner, {winner.title}",
            detail=f"Mean of {count} {of}s as the run recorded it, without an interval: no predictions can be read. "
            "It is the score by which the winner was chosen, and optimistic.",
        )
    known = interval(winner.scores, standing.metric)
    label = f"{_capital(finals_words.judged_name(standing))} of the winner"
    if not math.isnan(known.low):
        label += f" (95\u00a0% interval {formats.score(known.low)}–{formats.score(known.high)})"
    return Headline(
        value=formats.show("score", known.estimate),
        label=label,
        detail=_worth(evidence, standing, winner, known.warning),
    )


def _worth(evidence: ReportData, standing: Leaderboard, winner: ConfigurationResult, warning: str) -> str:
    """What the number is the mean of, on what, and whether it can be believed."""
    assert winner.scores is not None
    resamples, runs = winner.scores.resamples, winner.scores.by_run[standing.metric]
    patients = f" of {resamples.groups:,} patients" if resamples.named else ""
    images = f"{len(resamples.member):,} {finals_words.split_name(standing)} images{patients}"
    each = ", ".join(formats.show("score", float(value)) for value in runs)
    if standing.finals.folds and standing.split == "val":
        text = f"Every one of {len(resamples.member):,} training and validation images{patients} was judged by the "
        text += "network of the fold that was not trained on it. "
    else:
        what = "networks of the folds" if standing.finals.folds else "trainings with fresh seeds"
        text = f"Mean of {len(runs)} {what} ({each}) on {images}. " if len(runs) > 1 else f"One training, on {images}. "
    text = f"{_capital(_name(winner))}. {text}"
    if standing.split == "test":
        text += f"The winner was fixed on validation on {wording.moment(standing.finals.decided)}; only then the test "
        text += "split was opened. "
    elif (evidence.dataset.get("images") or {}).get("test") == 0:
        text += "There is no test split: the winner was chosen by this very score, which is optimistic. "
    else:
        text += "The winner was chosen by this very score, which is optimistic. "
    if warning:
        text += f"Caution: {warning}. "
    meaning = wording.metric_meaning(f"{standing.split}_{standing.metric}")
    return text + (f"{_capital(finals_words.score_name(standing))} is {meaning}." if meaning else "")


def _picture(
    evidence: ReportData, standing: Leaderboard, winner: ConfigurationResult, contest: Contest | None
) -> Picture:
    assert winner.scores is not None
    # With folds the winner has validation images that no baseline was measured on.
    same = contest is not None and len(contest.winner.resamples.member) == len(winner.scores.resamples.member)
    baselines = answer_shortcuts.marks(contest, standing.metric) if same else []
    rivals = [one for one in standing.runners_up if one.scores is not None][:MOST_FINALISTS]
    marks = [answer_shortcuts.mark(_name(winner), "winner", winner.scores, standing.metric)]
    marks += [
        answer_shortcuts.mark(_name(one), "finalist", one.scores, standing.metric)
        for one in rivals
        if one.scores is not None
    ]
    marks += baselines
    asked = [(one.scores, standing.metric) for one in (winner, *rivals) if one.scores is not None]
    beside = (" and the runners-up (black)" if rivals else "") + ("; gray: simple methods" if baselines else "")
    caption = (
        f"{_capital(finals_words.judged_name(standing))} of the winner (blue){beside}. Small "
        f"strokes are single networks. {finals_words.basis(evidence, standing)} {interval_cells.below(asked)}"
    )
    worded = "; ".join(f"{mark.name} {formats.show('score', mark.value)}" for mark in marks)
    drawing = figures_finals.standing(marks, finals_words.axis(standing))
    return Picture(name="answer", caption=caption, alt=f"Dots with 95 % intervals: {worded}.", drawing=drawing)


def _name(one: ConfigurationResult) -> str:
    return f"{one.title}, {finals_tables.network(one)}"


def _tiles(evidence: ReportData, standing: Leaderboard, scores: Scores) -> list[Block]:
    names = {name: name for name in TILES if name != standing.metric and name in scores.estimate}
    titles = {name: _plain(name) for name in names}
    if evidence.task == "multi_label":
        titles["accuracy"] = "exact match"
    titles |= {key: title for key, title in _of_classes(evidence).items() if key != standing.metric}
    rows = []
    for name, title in titles.items():
        shown = interval_cells.cells(scores, {"score": name})["score_shown"]
        value, _, bounds = shown.partition(" ")
        rows.append((f"{title} {bounds}".strip(), value))
    note = "At a probability of 0.5 for every label. " if evidence.task == "multi_label" else ""
    below = interval_cells.below((scores, name) for name in titles)
    return [FactList(tuple(rows), tiles=True), Text(f"{note}{finals_words.basis(evidence, standing)} {below}")]


def _plain(name: str) -> str:
    return wording.metric_name(f"test_{name}").removeprefix("test ")


def _of_classes(evidence: ReportData) -> dict[str, str]:
    """Sensitivity and specificity of the class of --positive-class, or of the second of two classes."""
    asked = evidence.run.sweep.get("positive_class")
    positive = asked if asked in evidence.classes else None
    if positive is None and len(evidence.classes) == 2 and evidence.task == "single_label":
        positive = evidence.classes[1]
    if positive is None:
        return {}
    return {f"recall:{positive}": f"sensitivity, {positive}", f"specificity:{positive}": f"specificity, {positive}"}


def _remarks(evidence: ReportData, winner: ConfigurationResult) -> list[Block]:
    budget = evidence.run.sweep.get("epochs")
    last = [one for one in winner.finalist.ended if one.best_epoch == budget]
    if budget and budget > 1 and last and len(last) == len(winner.finalist.ended):
        return [
            Note("info", f"The best epoch of every repeat is the last of the budget ({budget}): more may score higher.")
        ]
    return []


def _configuration(evidence: ReportData, winner: ConfigurationResult) -> list[tuple[str, str]]:
    params = finals_tables.params_of(winner)
    if params is None:
        return [("Hyperparameters", "damaged; see finalists/finalists.json")]
    rows = wording.in_words(params)
    best = winner.finalist.ended[0].best
    share = f"{formats.show('si', best.get('trainable_params'))} of {formats.show('si', best.get('total_params'))}"
    rows.insert(2, ("Trainable parameters", share))
    rows.append(("As a file", f"trials/{winner.trial_id}/params.json"))
    return rows


def _own_scores(evidence: ReportData, standing: Leaderboard, winner: ConfigurationResult) -> str:
    """What the network in the model file scored by itself, since the headline is a mean."""
    name = (standing.finals.model or "").partition("/")[2]
    parts = []
    if name in winner.validation:
        parts.append(f"{wording.metric_name(evidence.metric)} {formats.show('score', winner.validation[name])}")
    if winner.runs is not None and winner.scores is not None and name in winner.runs.names and standing.split == "test":
        value = float(winner.scores.by_run[standing.metric][winner.runs.names.index(name)])
        parts.append(f"{finals_words.judged_name(standing)} {formats.show('score', value)}")
    own = f": {', '.join(parts)} of its own" if parts else ""
    which = "the network of the first fold" if standing.finals.folds else "the repeat that scored best on validation"
    return f"repeat {standing.finals.model}, {which}{own}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
