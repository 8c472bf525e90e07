"""The section on the finalists: trained again with fresh seeds, the winner fixed on validation, then compared."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.data import ReportData
from reports.page import figures_finals, formats, wording
from reports.page.blocks import Block, Column, FactList, Heading, Picture, Section, Table, Text
from reports.prose import verdict
from reports.scores import finals_tables, finals_words, interval_cells
from reports.scores.finals import Leaderboard
from reports.sections import compared_cells
from sweep.records import is_there

TITLE = "Finalists"
RULE = (
    "The configuration with the highest mean over its repeats of the selection metric on validation wins; those within "
    "one standard error of it count as equal, and of these the one with the fewest trainable parameters is taken."
)
MOST_DRAWN = 24


def section(evidence: ReportData) -> Section:
    standing = evidence.standing
    if standing is None:
        return Section("finalists", TITLE, (Text(_none(evidence)),))
    blocks: list[Block] = [Text(_story(evidence, standing)), *verdict.state(evidence, standing)]
    blocks += _finalists(evidence, standing)
    if standing.winner is not None and standing.runners_up:
        blocks += _paired(evidence, standing)
    if standing.cells:
        blocks += compared_cells.blocks(evidence, standing)
    blocks.append(_repeats(standing))
    return Section("finalists", TITLE, tuple(blocks))


def _none(evidence: ReportData) -> str:
    if is_there(evidence.run.paths.chosen):
        return "finalists/finalists.json is damaged: what was trained again is not known."
    if evidence.run.sweep.get("finalists") == 0:
        return (
            "No configuration was trained again (--finalists 0). The best score of a search is optimistic, and one "
            "training tells nothing of what another seed would give."
        )
    return "No finalists have been chosen: the sweep has not come so far, or it was stopped before."


def _story(evidence: ReportData, standing: Leaderboard) -> str:
    finals = standing.finals
    count = len(standing.finalists)
    verb = "are being" if not finals.decided and not finals.opened else "were" if count > 1 else "was"
    which = f"The best {count} configurations of the search {verb}" if count > 1 else f"The best configuration {verb}"
    if finals.folds:
        how = (
            f"by grouped cross-validation on training and validation images together: in {finals.folds} folds, of "
            "which each validates once the network that was trained on the others"
        )
        judged = "A test score is the mean over the networks of all folds."
    else:
        often = "once with a fresh seed" if finals.asked == 1 else f"{finals.asked} times with fresh seeds"
        how = f"{often}, on the same training images"
        judged = "A test score is the mean over the repeats."
    text = f"{which} trained again {how}; validation picked the epoch. {RULE} "
    if finals.reason and standing.winner is not None:
        text += f"Here trial {standing.winner.finalist.number} won. {finals.reason} "
    if standing.split == "test":
        text += f"This was written down on {wording.moment(finals.decided)}; then the test split was opened. {judged}"
    return text.strip()


def _finalists(evidence: ReportData, standing: Leaderboard) -> list[Block]:
    frame = finals_tables.finalist_frame(standing)
    metric = wording.metric_name(evidence.metric)
    judged = finals_words.judged_name(standing)
    of = "folds" if standing.finals.folds else "repeats"
    columns = [
        Column("place", "place in search", "integer"),
        Column("number", "trial", "integer"),
        Column("role", ""),
        Column("network", "network"),
        Column("trainable_params", "trainable", "si"),
        Column("search_score", "search score", "score"),
        Column("repeated", f"mean of {of} ± SE"),
        Column("gap_shown", "gap"),
        Column("score_shown", judged),
        Column("each_repeat", f"each of the {of}" if standing.split == "test" else "each"),
        Column("ended", f"{of} ended"),
    ]
    if (frame["tuned_shown"] != formats.ABSENT).any():
        columns.append(Column("tuned_shown", f"{finals_words.split_name(standing)} macro F1, tuned thresholds"))
    if frame["remark"].any():
        columns.append(Column("remark", "remark"))
    asked = [(one.scores, standing.metric) for one in standing.finalists if one.scores is not None]
    caption = (
        f"Search score and mean of {of}: {metric}; SE: standard error of the mean. Gap: what the search flattered, its "
        f"score less the mean of {of}. {finals_words.basis(evidence, standing)} {interval_cells.below(asked)}"
    )
    drawn = standing.finalists[:MOST_DRAWN]
    picture = Picture(
        name="finalists",
        caption=f"From the search to {finals_words.split_name(standing)}: {judged}, each dot one network"
        + ("; bold: the winner. " if standing.winner is not None else ". ")
        + finals_words.basis(evidence, standing),
        alt=f"Dot plot of {len(drawn)} finalists, {judged}: " + finals_words.alt_of(drawn, standing),
        drawing=figures_finals.courses(
            [finals_words.course(standing, one) for one in drawn],
            finals_words.axis(standing),
            finals_words.beside(standing),
        ),
    )
    blocks: list[Block] = [
        picture,
        Table(name="finalists", caption=caption.strip(), frame=frame, columns=tuple(columns)),
        FactList(tuple((f"Trial {row['number']:.0f}", row["configuration"]) for row in frame.to_dict("records"))),
    ]
    gaps = [gap for one in standing.finalists if not math.isnan(gap := standing.gap(one))]
    return [*blocks, Text(_flattered(standing, gaps))] if gaps else blocks


def _flattered(standing: Leaderboard, gaps: Sequence[float]) -> str:
    mean = sum(gaps) / len(gaps)
    text = (
        f"The search scored its finalists {abs(mean):.3f} {'better' if mean > 0 else 'worse'} than their repeats do, "
    )
    text += "on average. "
    if mean > 0:
        return text + (
            "That is selection: of many trials, each at its best epoch, the best is also the luckiest. It is why a "
            "score of the search is no estimate of what the configuration is worth."
        )
    return text + "Selection usually makes it the other way round; with few trials, chance can hide it."


def _paired(evidence: ReportData, standing: Leaderboard) -> list[Block]:
    winner = standing.winner
    assert winner is not None
    frame = finals_tables.paired_frame(standing)
    columns = [
        Column("number", "trial", "integer"),
        Column("configuration", "configuration"),
        *finals_words.lead_columns(),
    ]
    sentences = [
        f"The winner, trial {winner.finalist.number}, less each other finalist: {finals_words.judged_name(standing)}, "
        "means over the repeats, on the same resamples of patients. Holm: p corrected for the number of comparisons; "
        "below 0.05 a difference counts as shown.",
        finals_words.basis(evidence, standing),
    ]
    if standing.tests:
        name = next(iter(standing.tests.values()))[0]
        columns.insert(-1, Column("mcnemar", "McNemar"))
        sentences.append(
            f"McNemar: images that only the winner : only the other decides rightly, of the two networks of {name}, "
            "exact; every patient has one image."
        )
    sentences.append(finals_words.warned(standing.leads.values()))
    table = Table(
        name="finalists_paired", caption=" ".join(filter(None, sentences)), frame=frame, columns=tuple(columns)
    )
    return [Heading("The winner against the others"), Text(verdict.sentence(standing)), table, Text(verdict.LOW_POWER)]


def _repeats(standing: Leaderboard) -> Table:
    frame = finals_tables.repeat_frame(standing)
    where = finals_words.split_name(standing)
    columns = [
        Column("number", "trial", "integer"),
        Column("repeat", "repeat"),
        Column("status", "status"),
        Column("best_epoch", "best epoch", "integer"),
        Column("validation", "validation score", "score"),
        Column("score", finals_words.judged_name(standing), "score"),
        Column("accuracy", f"{where} accuracy", "score"),
    ]
    if frame["reason"].astype(str).str.len().max() > len("budget"):
        columns.append(Column("reason", "reason"))
    return Table(name="repeats", caption="Every repeat.", frame=frame, columns=tuple(columns), folded=True)
