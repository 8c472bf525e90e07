"""The finalists: each retrained configuration from the search to the split that judges, baselines, external data."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports import figures, formats, intervals
from reports.blocks import Block, Chapter, Column, Figure, Table, Text
from reports.bootstrap import Scores
from reports.comparisons import CLOSE, FALLBACK, MAJORITY, BaselineComparison, Comparison
from reports.intervals import interval
from reports.leaderboard import ConfigurationResult, Leaderboard, params_of
from reports.results import Results
from reports.tables import LAYERS

TITLE = "Finalists"
RULE = (
    "The winner has the highest mean over its repeats on validation; those within one standard error of it count as "
    "equal, and of these the one with the fewest trainable parameters wins."
)
LOW_POWER = (
    "“No significant difference” says little on a small split: in a simulation on 169 images a true difference of "
    "0.037 in macro F1 was found 17 to 30 times in 100."
)
VERDICTS = {
    1: "the winner is better",
    -1: "the winner is worse",
    0: "no significant difference",
    None: "not tested",
}
MOST_DRAWN = 24
BASELINE_SCORES = {"accuracy": "accuracy", FALLBACK: "macro F1"}


def chapter(results: Results) -> Chapter:
    board = results.leaderboard
    blocks: list[Block] = [Text(formats.escape(_none(results)))]
    if board is not None:
        blocks = [Text(_story(results, board)), *_finalists(results, board)]
        if board.winner is not None and board.runners_up:
            blocks += _paired(board)
        blocks.append(_repeats(results, board))
    return Chapter("finalists", TITLE, (*blocks, *_baselines(results), *_external(results)))


def score_cells(one: ConfigurationResult, key: str, name: str) -> dict[str, Any]:
    """``intervals.cells`` of one score; dashes where no predictions can be read."""
    return _cells(one.scores, {key: name})


def network(one: ConfigurationResult) -> str:
    """Backbone and depth alone: "resnet18, last 2 blocks"."""
    params = one.finalist.params
    layers = params.get("unfreeze_layers") not in (None, "", "none")
    depth = LAYERS if layers else formats.choice("unfreeze_depth", params.get("unfreeze_depth"))
    return f"{params.get('backbone', 'unknown')}, {depth}"


def course(board: Leaderboard, one: ConfigurationResult) -> figures.Course:
    """The row of ``figures.courses`` of a configuration."""
    cells = score_cells(one, "score", board.metric)
    judged = () if one.scores is None else one.scores.by_run.get(board.metric, ())
    return figures.Course(
        name=f"{one.finalist.number}: {network(one)}",
        winner=one is board.winner,
        search=one.finalist.search_score,
        validation=list(one.validation.values()),
        judged=[float(value) for value in judged] if board.split == "test" else (),
        mean=cells["score"],
        low=cells["score_low"],
        high=cells["score_high"],
    )


def validated(board: Leaderboard, one: ConfigurationResult) -> dict[str, Any]:
    """Search score, mean of repeats on validation with its standard error, and their gap; numbers and text."""
    error = one.standard_error
    shown = formats.show("score", one.mean) + (f" ± {formats.score(error)}" if not math.isnan(error) else "")
    return {
        "search_score": one.finalist.search_score,
        "mean": one.mean,
        "standard_error": error,
        "repeated": shown,
        "gap": board.gap(one),
        "gap_shown": formats.signed(board.gap(one)),
    }


def lead_cells(board: Leaderboard, lead: Comparison | None) -> dict[str, Any]:
    """difference, low, high, p, p_holm as numbers; lead, p_shown, p_holm_shown and verdict as text."""
    row: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "p", "p_holm"), math.nan)
    if lead is not None:
        row = {name: getattr(lead, name) for name in row}
    row["lead"] = formats.ABSENT if lead is None else formats.difference(lead.difference, lead.low, lead.high)
    if lead is not None and lead.warning and not math.isnan(lead.low):
        row["lead"] += f" {intervals.MARK}"
    row["p_shown"], row["p_holm_shown"] = formats.p_value(row["p"]), formats.p_value(row["p_holm"])
    return row | {"verdict": VERDICTS[board.verdict(lead)]}


def lead_columns(title: str) -> tuple[Column, ...]:
    """The columns that show ``lead_cells``."""
    return (
        Column("lead", f"{title} (95 %)"),
        Column("p_shown", "p"),
        Column("p_holm_shown", "p, Holm"),
        Column("verdict", "verdict"),
    )


def axis(board: Leaderboard) -> str:
    """The compared score as the label of an axis, without its split."""
    name = formats.metric_name(f"test_{board.metric}").removeprefix("test ")
    return name + (" (lower is better)" if board.metric in ("nll", "loss") else "")


def judged_name(board: Leaderboard) -> str:
    """The score that judges, in words: "test macro F1"."""
    return formats.metric_name(f"{board.split}_{board.metric}")


def _none(results: Results) -> str:
    if results.data.run.paths.chosen.exists():
        return "finalists/finalists.json is damaged: what was retrained is not known."
    if results.data.run.sweep.finalists == 0:
        return (
            "No configuration was retrained (--finalists 0). The best score of a search is optimistic, and one "
            "training tells nothing of what another seed would give."
        )
    return "No finalists have been chosen: the sweep has not come so far, or it was stopped before."


def _story(results: Results, board: Leaderboard) -> str:
    finals, count = board.finals, len(board.finalists)
    which = f"The best {count} configurations of the search were" if count > 1 else "The best configuration was"
    if finals.folds:
        how = f"in {finals.folds} folds of grouped cross-validation over training and validation images together"
    else:
        times = "once with a fresh seed" if finals.asked == 1 else f"{finals.asked} times with fresh seeds"
        how = f"{times}, on the same training images"
    text = f"{which} retrained {how}; validation picked each epoch. {RULE} {formats.escape(finals.reason)} "
    if board.split == "test":
        text += f"The winner was fixed on {formats.moment(finals.selected)}, before the test split was opened. "
    return f"{text}\n\n{formats.escape(results.basis(board.split))} {formats.escape(board.sentence)}".strip()


def _finalists(results: Results, board: Leaderboard) -> list[Block]:
    judged, of = judged_name(board), "folds" if board.finals.folds else "repeats"
    rows = []
    for one in board.finalists:
        params = params_of(one.finalist)
        row: dict[str, Any] = {"place": one.finalist.rank, "number": one.finalist.number}
        row |= {"role": "winner" if one is board.winner else ""}
        row |= {"configuration": formats.in_short(params) if params else "hyperparameters damaged"}
        row |= {"trainable_params": one.finalist.trainable_params, **validated(board, one)}
        row |= score_cells(one, "score", board.metric) | {"completed": f"{len(one.validation)} of {board.finals.asked}"}
        row |= _cells(one.tuned, {"tuned": FALLBACK}) | {"remark": "; ".join(one.remarks)}
        rows.append(row)
    frame = pd.DataFrame(rows)
    columns = [
        Column("place", "place in search", "integer"),
        Column("number", "trial", "integer"),
        Column("role", ""),
        Column("configuration", "configuration"),
        Column("trainable_params", "trainable", "si"),
        Column("search_score", "search score", "score"),
        Column("repeated", f"mean of {of} ± SE"),
        Column("gap_shown", "gap"),
        Column("score_shown", judged),
        Column("completed", f"{of} completed"),
    ]
    if (frame["tuned_shown"] != formats.ABSENT).any():
        columns.append(Column("tuned_shown", f"{formats.SPLIT_NAMES[board.split]} macro F1, tuned thresholds"))
    if frame["remark"].any():
        columns.append(Column("remark", "remark"))
    drawn = board.finalists[:MOST_DRAWN]
    shown = "; ".join(f"{one.title} {score_cells(one, 'score', board.metric)['score_shown']}" for one in drawn)
    figure = Figure(
        "finalists_repeats",
        f"From the search to {formats.SPLIT_NAMES[board.split]}, each dot one network; bold: the winner.",
        f"Dot plot of {len(drawn)} finalists, {judged}: {shown}.",
        figures.courses([course(board, one) for one in drawn], axis(board), "test" if board.split == "test" else ""),
    )
    asked = [(one.scores, board.metric) for one in board.finalists if one.scores is not None]
    caption = (
        f"Search score and mean of {of}: {formats.metric_name(results.data.metric)}; gap: search score less that mean. "
        f"{intervals.below(asked)}"
    )
    gaps = [gap for one in board.finalists if not math.isnan(gap := board.gap(one))]
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    text = (
        f"The search scored its finalists {abs(mean):.3f} {'better' if mean > 0 else 'worse'} than their repeats, on "
    )
    text += "average: the best of many trials is also the luckiest." if mean > 0 else "average."
    table = Table("finalists", caption.strip(), frame, tuple(columns), latex=True)
    return [figure, table, *([Text(text)] if gaps else []), *_promise(results, board)]


def _promise(results: Results, board: Leaderboard) -> list[Block]:
    """Whether the test score agrees with what validation promised."""
    winner = board.winner
    if winner is None or board.split != "test" or winner.scores is None or f"val_{board.metric}" != results.data.metric:
        return []
    found = interval(winner.scores, board.metric)
    if math.isnan(winner.mean) or math.isnan(found.low) or found.low <= winner.mean <= found.high:
        return []
    side = "below" if found.estimate < winner.mean else "above"
    return [Text(f"The winner's test score lies {side} its mean on validation, which is outside the test interval.")]


def _paired(board: Leaderboard) -> list[Block]:
    rows = []
    for one in board.runners_up:
        _, test = board.tests.get(one.trial_id, ("", None))
        shown = f"{test.first_only} : {test.second_only}, p {formats.p_value(test.p)}" if test else formats.ABSENT
        row = {"number": one.finalist.number, **lead_cells(board, board.leads.get(one.trial_id))}
        rows.append(row | {"mcnemar": shown, "mcnemar_p": math.nan if test is None else test.p})
    columns = [Column("number", "winner less trial", "integer"), *lead_columns("difference")]
    caption = (
        f"Differences in {judged_name(board)}, means over repeats, on the same resamples of patients; Holm: p "
        f"corrected for the number of comparisons. {intervals.warned(one.warning for one in board.leads.values())}"
    )
    if board.tests:
        name = next(iter(board.tests.values()))[0]
        columns.insert(-1, Column("mcnemar", "McNemar"))
        caption += f" McNemar, exact: images that only the winner : only the other decides rightly, of {name} of both."
    table = Table("finalists_paired", caption.strip(), pd.DataFrame(rows), tuple(columns))
    unclear = any(board.verdict(one) == 0 for one in board.leads.values())
    return [Text("### The winner against the others"), table, *([Text(LOW_POWER)] if unclear else [])]


def _repeats(results: Results, board: Leaderboard) -> Table:
    rows = []
    for one in board.configurations:
        names = one.runs.names if one.runs is not None and one.scores is not None else ()
        for repeat in one.finalist.repeats:
            row = {"number": one.finalist.number, "repeat": repeat.name, "status": repeat.status}
            row |= {"best_epoch": repeat.best_epoch, "validation": one.validation.get(repeat.name, math.nan)}
            for key, name in (("score", board.metric), ("accuracy", "accuracy")):
                found = one.scores.by_run.get(name) if one.scores is not None and repeat.name in names else None
                row[key] = math.nan if found is None else float(found[names.index(repeat.name)])
            rows.append(row | {"reason": repeat.reason})
    frame = pd.DataFrame(rows)
    columns = [
        Column("number", "trial", "integer"),
        Column("repeat", "repeat"),
        Column("status", "status"),
        Column("best_epoch", "best epoch", "integer"),
        Column("validation", formats.metric_name(results.data.metric), "score"),
        Column("score", judged_name(board), "score"),
        Column("accuracy", f"{formats.SPLIT_NAMES[board.split]} accuracy", "score"),
    ]
    if len(frame) and (frame["status"] != "completed").any():
        columns.append(Column("reason", "reason"))
    return Table("repeats", "Every repeat.", frame, tuple(columns), folded=True)


def _baselines(results: Results) -> list[Block]:
    heading = Text("### Baselines")
    recorded = results.data.run.baselines
    if not recorded:
        text = "No baselines were measured: whether a simple method does as well is not known."
        return [heading, Text(text)]
    splits = [split for split in ("val", "test") if results.baselines(split) is not None]
    comparisons = {split: found for split in splits if (found := results.baselines(split)) is not None}
    judge = results.judged_baselines
    text = (
        "Shortcuts tell what gives the labels away without a look at the finding: a thumbnail keeps brightness in "
        "large patches, the border nothing of the middle. Frozen features tell what fine-tuning adds."
    )
    blocks: list[Block] = [heading, Text(text), _baseline_table(results, comparisons)]
    if judge is None:
        return [*blocks, Text("There are no predictions of the winner to set beside them.")]
    rule = (
        f"Close means {formats.percent(CLOSE)} of the gain from the majority class to the winner in macro F1, or a "
        "lead whose 95 % interval holds 0."
    )
    said = " ".join(filter(None, (judge.shortcut_sentence, judge.frozen_sentence)))
    return [*blocks, Text(f"{formats.escape(said)} {rule}")]


def _baseline_table(results: Results, comparisons: dict[str, BaselineComparison]) -> Table:
    winner: dict[str, Any] = {"name": "winner", "baseline": results.title, "how": "fine-tuned", "kind": ""}
    for split, found in comparisons.items():
        winner |= _cells(found.winner, {f"{split}_{name}": name for name in BASELINE_SCORES})
        winner["share"] = 1.0 if MAJORITY in found.measured else math.nan
    rows = [winner] if comparisons else []
    for one in results.data.run.baselines or ():
        how = f"not measured: {one.failed}" if one.failed else one.detail
        row: dict[str, Any] = {"name": one.name, "kind": one.kind, "baseline": one.label, "how": how}
        for split in comparisons or ("val",):
            compared = comparisons.get(split)
            scores = compared.measured.get(one.name) if compared else None
            row |= _cells(scores, {f"{split}_{name}": name for name in BASELINE_SCORES})
            recorded = one.val if split == "val" else one.test
            for name in BASELINE_SCORES if scores is None and recorded else ():
                value = recorded.get(name, math.nan) if recorded else math.nan
                row |= {f"{split}_{name}": value, f"{split}_{name}_shown": formats.show("score", value)}
            if compared is not None:
                row["share"] = compared.share_of_gain(one.name)
                if (lead := compared.leads.get(one.name)) is not None:
                    row |= {"lead": lead.difference, "lead_low": lead.low, "lead_high": lead.high}
        rows.append(row)
    columns = [Column("baseline", "method"), Column("kind", "kind"), Column("how", "how")]
    for split in comparisons or ("val",):
        titles = {f"{split}_{name}": f"{formats.SPLIT_NAMES[split]} {title}" for name, title in BASELINE_SCORES.items()}
        columns += intervals.columns(titles)
    if any(MAJORITY in found.measured for found in comparisons.values()):
        columns.append(Column("share", "share of the gain", "percent"))
    scored = [one for found in comparisons.values() for one in (found.winner, *found.measured.values())]
    pairs = ((one, name) for one in scored for name in BASELINE_SCORES)
    below = intervals.below(pairs, method=results.leaderboard is None)
    caption = f"The winner and the baselines on the same images. {below}"
    return Table("baselines", caption.strip(), pd.DataFrame(rows), tuple(columns))


def _external(results: Results) -> list[Block]:
    if not results.external:
        return []
    rows = []
    for one in results.external:
        shown = intervals.as_text(interval(one.scores, one.main_score))
        measure = formats.METRIC_NAMES[one.main_score]
        rows.append({"name": one.facts.name, "images": one.size, "measure": measure, "score": shown})
    columns = (
        Column("name", "data"),
        Column("images", "images"),
        Column("measure", "measure"),
        Column("score", "score (95 %)"),
    )
    caption = "The model on other labelled images; each has its own page in the folder external of the run. "
    caption += intervals.below((one.scores, one.main_score) for one in results.external)
    return [Text("### External evaluations"), Table("external", caption, pd.DataFrame(rows), columns)]


def _cells(scores: Scores | None, names: dict[str, str]) -> dict[str, Any]:
    """``intervals.cells``; dashes where there are no scores."""
    if scores is not None:
        return intervals.cells(scores, names)
    absent = {"": math.nan, "_low": math.nan, "_high": math.nan, "_shown": formats.ABSENT}
    return {f"{key}{suffix}": value for key in names for suffix, value in absent.items()}
