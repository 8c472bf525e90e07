"""What the winner must beat, and a plain warning where a shortcut comes close to it."""

from __future__ import annotations

import math

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, Heading, Note, Table, Text
from reports.scores import interval_cells
from reports.scores.shortcut_tables import (
    CLOSE,
    MAJORITY,
    METRIC,
    PIXELS,
    SCORES,
    Contest,
    Shortcut,
    contest_on,
    read_shortcuts,
    shortcut_frame,
)
from reports.scores.shown import shown

TITLES = {"accuracy": "accuracy", METRIC: "macro F1"}


def section_blocks(evidence: ReportData) -> list[Block]:
    """The baselines beside the winner, and what that means; one sentence where none were measured."""
    heading = Heading("Shortcut baselines")
    shortcuts = read_shortcuts(evidence.run)
    if not shortcuts:
        return [heading, Text("No baselines were measured: whether a simple method does as well is not known.")]
    network = shown(evidence)
    splits = [split for split in ("val", "test") if network is not None and split in network.splits]
    contests: dict[str, Contest] = {}
    for split in splits:
        contest = contest_on(evidence, shortcuts, split)
        if contest is not None:
            contests[split] = contest
    blocks: list[Block] = [heading, Text(_purpose(shortcuts)), _table(evidence, shortcuts, contests)]
    if not contests:
        return [*blocks, Note("info", "There is no winner yet whose predictions could be set beside them.")]
    return [*blocks, *_verdicts(shortcuts, list(contests.values())[-1])]


def _purpose(shortcuts: list[Shortcut]) -> str:
    frozen = " The features of a network as it came, which this sweep did not train, tell what fine-tuning adds."
    return (
        "A score means little until it is known what gives the labels away without a look at the finding. A thumbnail "
        "of 16 x 16 pixels keeps brightness in large patches and no detail; the border (the outermost sixteenth of "
        "each side, of the image reduced to 64 x 64 pixels) keeps nothing of the middle. What a logistic regression "
        "reads from them is for the most part exposure, posture, the scanner or the hospital."
        + (frozen if any(one.name not in (MAJORITY, *PIXELS) for one in shortcuts) else "")
    )


def _table(evidence: ReportData, shortcuts: list[Shortcut], contests: dict[str, Contest]) -> Table:
    scores = [one for contest in contests.values() for one in (contest.winner, *contest.shortcuts.values())]
    columns = [Column("baseline", "method"), Column("how", "how")]
    for split in contests or ("val",):
        titles = {f"{split}_{name}": f"{wording.SPLIT_NAMES[split]} {title}" for name, title in TITLES.items()}
        columns += interval_cells.columns(titles)
    judged = wording.SPLIT_NAMES[list(contests)[-1]] if contests else ""
    sentences = ["The winner beside simple methods, on the same images."]
    if any(MAJORITY in contest.shortcuts for contest in contests.values()):
        columns.append(Column("way", "of the way", "percent"))
        sentences.append(
            f"Of the way: from the majority class (0 %) to the winner (100 %), in macro F1 on the {judged} split."
        )
    if evidence.task == "multi_label":
        sentences.append("A label is decided at a probability of 0.5, for all alike.")
    sentences.append(interval_cells.below((one, name) for one in scores for name in SCORES))
    return Table(
        name="shortcut_baselines",
        caption=" ".join(sentence for sentence in sentences if sentence),
        frame=shortcut_frame(shortcuts, contests, _winner(evidence)),
        columns=tuple(columns),
    )


def _winner(evidence: ReportData) -> str:
    network, finals = shown(evidence), evidence.run.finals
    if network is None:
        return ""
    if finals is None or finals.winning is None or network.predictions is evidence.predictions:
        return f"Best of the search, {network.title}"
    return f"Winner, trial {finals.winning.number}"


def _verdicts(shortcuts: list[Shortcut], contest: Contest) -> list[Block]:
    measured = [one for one in shortcuts if one.name in contest.shortcuts]
    where = f"the {wording.SPLIT_NAMES[contest.split]} split"
    flattered = "" if contest.split == "test" else " The winner was chosen on this split, which flatters its lead."
    rule = (
        f"A shortcut counts as close if it comes {formats.percent(CLOSE)} of the way from the majority class to the "
        f"winner in macro F1 on {where}, or if the 95 % interval of the winner's lead holds 0.{flattered}"
    )
    blocks: list[Block] = []
    if contest.is_close(MAJORITY):
        text = "The winner cannot be told apart from an answer that never changes: nothing learnt can be shown."
        blocks.append(Note("warning", text, tuple(_words(contest, one) for one in measured if one.name == MAJORITY)))
    pixels = [one for one in measured if one.name in PIXELS]
    close = [one for one in pixels if contest.is_close(one.name)]
    if close:
        does = "comes close to the winner"
        if any(contest.leads[one.name].difference <= 0 for one in close):
            does = "does as well as the winner, which may also have learnt too little"
        text = f"The labels may be told by how the images were made, not by what they show: a shortcut {does}. {rule}"
        blocks.append(Note("warning", text, tuple(_words(contest, one) for one in close)))
    elif pixels:
        best = max(pixels, key=lambda one: contest.shortcuts[one.name].estimate[METRIC])
        blocks.append(Text(f"No shortcut comes close to the winner. {_words(contest, best)} {rule}"))
    frozen = [one for one in measured if one.name not in (MAJORITY, *PIXELS) and contest.not_told_apart(one.name)]
    if frozen:
        text = f"On {where} fine-tuning is not shown to gain anything over frozen features with logistic regression."
        blocks.append(Note("info", text, tuple(_words(contest, one) for one in frozen)))
    return blocks


def _words(contest: Contest, one: Shortcut) -> str:
    """A shortcut's score beside the winner's, in a sentence."""
    score = formats.score
    lead, way = contest.leads[one.name], contest.way(one.name)
    text = f"{one.label}: macro F1 {score(contest.shortcuts[one.name].estimate[METRIC])}"
    if one.name != MAJORITY and way <= 1:
        text += f", {formats.percent(way)} of the way"
    lower, upper = (lead.low, lead.high) if lead.difference > 0 else (-lead.high, -lead.low)
    side = "ahead" if lead.difference > 0 else "behind"
    text += f"; the winner, {score(contest.winner.estimate[METRIC])}, is {side} by {score(abs(lead.difference))}"
    if not math.isnan(lower):
        text += f" ({score(lower)} to {score(upper)})"
    return f"{text}."
