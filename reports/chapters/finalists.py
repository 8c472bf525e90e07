"""The finalists: each retrained configuration from the search to the judging split, baselines, external data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports import figures, formats, intervals
from reports.blocks import Block, Figure, Table, Text, columns
from reports.comparisons import (
    CLOSE,
    FALLBACK,
    FEWEST_POSITIVES,
    GIVES_AWAY,
    MAJORITY,
    NEAR,
    SUSPECT,
    BaselineComparison,
    Comparison,
)
from reports.intervals import interval
from reports.leaderboard import ConfigurationResult, Leaderboard
from reports.results import Results
from reports.tables import LAYERS
from trainables.metrics import metric_mode

RULE = (
    "One-standard-error rule: among the finalists whose mean over repeats on validation lies within one standard error "
    "of the best, the one with the fewest trainable parameters wins."
)
LOW_POWER = (
    "On a small split, “no significant difference” says little: in a simulation with 169 images, a true difference of "
    "0.037 in macro F1 was detected 14 to 21 times in 100."
)
NO_DIFFERENCE = "no significant difference"
VERDICTS = {1: "the winner is better", -1: "the winner is worse", 0: NO_DIFFERENCE, None: "not tested"}
MOST_DRAWN = 24
BASELINE_SCORES = ("accuracy", FALLBACK)


def chapter(results: Results) -> list[Block]:
    board = results.leaderboard
    blocks: list[Block] = [Text(formats.escape(_none(results)))]
    if board.configurations:
        blocks = [Text(_story(results, board)), *_finalists(results, board)]
        if board.winner is not None and board.runners_up:
            blocks += _paired(board)
        blocks.append(_repeats(results, board))
    return [*blocks, *_baselines(results), *_external(results)]


def validated(board: Leaderboard, one: ConfigurationResult) -> dict[str, Any]:
    """Search score, mean of repeats on validation with its standard error, and their gap; numbers and text."""
    mean, error = one.finalist.mean, one.finalist.standard_error
    shown = formats.show("score", mean) + (f" ± {formats.score(error)}" if not math.isnan(error) else "")
    return {
        "search_score": one.finalist.search_score,
        "mean": mean,
        "standard_error": error,
        "repeated": shown,
        "gap": board.gap(one),
        "gap_shown": formats.signed(board.gap(one)),
    }


def lead_cells(board: Leaderboard, lead: Comparison | None) -> dict[str, Any]:
    """difference, low, high, p, p_holm as numbers; lead, p_shown, p_holm_shown and verdict as text."""
    row: dict[str, Any] = {key: getattr(lead, key, math.nan) for key in ("difference", "low", "high", "p", "p_holm")}
    shown = formats.difference(row["difference"], row["low"], row["high"])
    if lead is not None and lead.warning and not math.isnan(lead.low):
        shown += f" {intervals.MARK}"
    of_p = {f"{key}_shown": formats.p_value(row[key]) for key in ("p", "p_holm")}
    return row | {"lead": shown, **of_p, "verdict": VERDICTS[board.verdict(lead)]}


def lead_titles(title: str) -> dict[str, str]:
    """The columns that show ``lead_cells``."""
    return {"lead": f"{title} (95 %)", "p_shown": "p", "p_holm_shown": "p, Holm", "verdict": "verdict"}


def courses(board: Leaderboard, configurations: Sequence[ConfigurationResult], name: str, caption: str) -> Figure:
    """Each configuration from the search to the judging split, one row each; at most MOST_DRAWN."""
    drawn, opened = configurations[:MOST_DRAWN], board.split == "test"
    axis = formats.metric_name(f"test_{board.metric}").removeprefix("test ")
    axis += " (lower is better)" if metric_mode(board.metric) == "min" else ""
    drawing = figures.courses(pd.DataFrame([_course(board, one) for one in drawn]), axis, "test" if opened else "")
    return Figure(name, caption, courses_in_words(board, drawn), drawing)


def courses_in_words(board: Leaderboard, drawn: Sequence[ConfigurationResult]) -> str:
    shown = (f"{one.title} {intervals.cells(one.scores, {'score': board.metric})['score_shown']}" for one in drawn)
    return f"{formats.capital(board.metric_name)} of {len(drawn)} configurations: {'; '.join(shown)}."


def _course(board: Leaderboard, one: ConfigurationResult) -> dict[str, Any]:
    """A row of ``figures.courses``."""
    params = one.finalist.params
    layers = params.get("unfreeze_layers") not in (None, "", "none")
    depth = LAYERS if layers else formats.choice("unfreeze_depth", params.get("unfreeze_depth"))
    cells = intervals.cells(one.scores, {"score": board.metric})
    comparable = board.selected_by == board.metric  # A loss cannot be shown on an axis of scores.
    judged = () if one.scores is None or board.split != "test" else one.scores.by_run.get(board.metric, ())
    return {
        "name": f"{one.finalist.number}: {params.get('backbone', 'unknown')}, {depth}",
        "winner": one is board.winner,
        "search": one.finalist.search_score if comparable else math.nan,
        "validation": one.finalist.scores if comparable else [],
        "judged": list(map(float, judged)),
        "mean": cells["score"],
        "low": cells["score_low"],
        "high": cells["score_high"],
    }


def _none(results: Results) -> str:
    if results.data.run.paths.chosen.exists():
        return "finalists/finalists.json is damaged: what was retrained is not known."
    if results.data.run.sweep.finalists == 0:
        return (
            "No configuration was retrained (--finalists 0). The best score of a search is optimistic, and a single "
            "training run does not show the variation between seeds."
        )
    return "No finalists have been chosen: the sweep has not reached this step, or was stopped before it."


def _story(results: Results, board: Leaderboard) -> str:
    finals, count = board.finals, len(board.finalists)
    which = f"The best {count} configurations of the search were" if count > 1 else "The best configuration was"
    if finals.folds:
        how = f"by {finals.folds}-fold grouped cross-validation on the pooled training and validation images"
    else:
        times = "once with a new seed" if finals.asked == 1 else f"{finals.asked} times with new seeds"
        how = f"{times} on the same training images"
    text = f"{which} retrained {how}; epochs were selected on validation. {RULE} {formats.escape(finals.reason)}"
    text = f"{text} {formats.rounding(results.data.run.sweep)}".strip()
    return f"{text}\n\n{formats.escape(results.basis(board.split))}"


def _finalists(results: Results, board: Leaderboard) -> list[Block]:
    of, split = "folds" if board.finals.folds else "repeats", formats.SPLIT_NAMES[board.split]
    rows = []
    for one in board.finalists:
        params = formats.params_of(one.finalist.params)
        row: dict[str, Any] = {"place": one.finalist.rank, "number": one.finalist.number}
        row |= {"role": "winner" if one is board.winner else ""}
        row |= {"configuration": formats.in_short(params) if params else "hyperparameters damaged"}
        row |= {"trainable_params": one.finalist.trainable_params, **validated(board, one)}
        row |= intervals.cells(one.scores, {"score": board.metric}) | intervals.cells(one.tuned, {"tuned": FALLBACK})
        row |= {"ended": f"{len(one.finalist.scores)} of {board.finals.asked}", "remark": "; ".join(one.remarks)}
        rows.append(row)
    frame = pd.DataFrame(rows)
    titles = {"place": "place in search", "number": "trial", "role": "", "configuration": "configuration"}
    titles |= {"trainable_params": "trainable", "search_score": "search score", "repeated": f"mean of {of} ± SE"}
    titles |= {"gap_shown": "gap", "score_shown": board.metric_name, "ended": f"{of} completed"}
    if (frame["tuned_shown"] != formats.ABSENT).any():
        titles["tuned_shown"] = f"{split} macro F1, tuned thresholds"
    if frame["remark"].any():
        titles["remark"] = "remark"
    caption = (
        f"Search score and mean of {of}: {formats.metric_name(results.data.metric)}. Gap: search score minus mean. "
        f"{intervals.below((one.scores, board.metric) for one in board.finalists)}"
    )
    drawn = f"Scores from the search to {split}; each dot is one network, the winner is in bold."
    blocks: list[Block] = [courses(board, board.finalists, "finalists_repeats", drawn)]
    blocks.append(Table("finalists", caption.strip(), frame, columns(**titles), latex=True))
    gaps = [gap for one in board.finalists if not math.isnan(gap := board.gap(one))]
    if gaps:
        mean = sum(gaps) / len(gaps)
        text = f"On average, the search scored its finalists {abs(mean):.3f} {'better' if mean > 0 else 'worse'} than"
        # Folds validate on other images than the search, so luck is not the only reason.
        why = ": the best of many trials is also the luckiest." if mean > 0 and not board.finals.folds else "."
        blocks.append(Text(f"{text} their {of}{why}"))
    return blocks


def _paired(board: Leaderboard) -> list[Block]:
    rows = []
    for one in board.runners_up:
        _, test = board.tests.get(one.trial_id, ("", None))
        shown = f"{test.first_only} : {test.second_only}, p {formats.p_value(test.p)}" if test else formats.ABSENT
        row = {"number": one.finalist.number, **lead_cells(board, board.leads.get(one.trial_id))}
        rows.append(row | {"mcnemar": shown, "mcnemar_p": math.nan if test is None else test.p})
    titles = {"number": "winner minus trial"} | lead_titles("difference")
    caption = (
        f"Differences in {board.metric_name} (means over repeats). Intervals and p values are {board.resting_on}. "
        "Holm: p corrected for the number of comparisons. "
        + intervals.warned(one.warning for one in board.leads.values())
    ).strip()
    if board.tests:
        name = next(iter(board.tests.values()))[0]
        titles |= {"mcnemar": "McNemar", "verdict": titles.pop("verdict")}
        caption += " McNemar, exact: images that only the winner : only the other classifies correctly "
        caption += f"(one network of each: {name})."
    table = Table("finalists_paired", caption, pd.DataFrame(rows), columns(**titles))
    unclear = any(board.verdict(one) == 0 for one in board.leads.values())
    return [Text("### The winner against the others"), table, *([Text(LOW_POWER)] if unclear else [])]


def _repeats(results: Results, board: Leaderboard) -> Table:
    rows = []
    for one in board.configurations:
        names = one.runs.names if one.runs is not None and one.scores is not None else ()
        for repeat in one.finalist.repeats:
            row = {"number": one.finalist.number, "repeat": repeat.name, "status": repeat.status}
            validation = repeat.score if repeat.status == "completed" else math.nan
            row |= {"best_epoch": repeat.best_epoch, "validation": validation}
            for key, name in (("score", board.metric), ("accuracy", "accuracy")):
                found = one.scores.by_run.get(name) if one.scores is not None and repeat.name in names else None
                row[key] = math.nan if found is None else float(found[names.index(repeat.name)])
            rows.append(row | {"reason": repeat.reason})
    frame = pd.DataFrame(rows)
    titles = {"validation": formats.metric_name(results.data.metric), "score": board.metric_name}
    titles["accuracy"] = f"{formats.SPLIT_NAMES[board.split]} {formats.score_name('accuracy', results.data.task)}"
    if len(frame) and (frame["status"] != "completed").any():
        titles["reason"] = "reason"
    shown = columns("number", "repeat", "status", "best_epoch", **titles)
    return Table("repeats", "All repeats.", frame, shown, folded=True)


def _baselines(results: Results) -> list[Block]:
    if not results.data.run.baselines:
        text = "No baselines were measured, so it is not known whether a simple method does as well."
        return [Text(f"### Baselines\n\n{text}")]
    comparisons = {split: found for split in ("val", "test") if (found := results.baselines(split)) is not None}
    judge = results.judged_baselines
    text = (
        "### Baselines\n\nShortcuts show how well labels can be predicted without seeing the finding: thumbnails keep "
        "only coarse brightness, borders exclude the centre, and file properties contain no image content. Frozen "
        "features show what fine-tuning adds."
    )
    said = "The winner has no predictions to compare with them."
    if judge is not None:
        said = formats.escape(" ".join(filter(None, (judge.shortcut_sentence, judge.frozen_sentence))))
        said += f" A baseline is close if it reaches {formats.percent(CLOSE)} of the gain in macro F1 from the "
        said += "majority class to the winner, or if the 95 % interval of the winner's lead includes 0."
    blocks: list[Block] = [Text(text), _baseline_table(results, comparisons), Text(said)]
    return [*blocks, *([] if judge is None or not judge.by_class else [_class_table(judge)])]


def _class_table(judge: BaselineComparison) -> Table:
    """How well each shortcut predicts each class."""
    rows = []
    for one in judge.by_class:
        answer = ("yes" if one.gives_away else "no") if one.judged else f"too few images: {one.positives}"
        row: dict[str, Any] = {"class": one.name, "baseline": one.baseline.label, "auroc": one.auroc, "f1": one.f1}
        row |= {"winner": one.winner, "lead": one.lead.difference, "lead_low": one.lead.low, "lead_high": one.lead.high}
        row["lead_shown"] = formats.difference(one.lead.difference, one.lead.low, one.lead.high)
        if one.test is not None:
            row |= {"test_auroc": one.test.auroc, "test_f1": one.test.f1, "test_winner": one.test.winner}
        rows.append(row | {"given_away": answer})
    titles = {"baseline": "method", "auroc": "AUROC", "f1": "F1", "winner": "the winner's F1"}
    titles |= {"lead_shown": "winner minus shortcut", "given_away": "predicts the class"}
    if judge.split == "test":
        titles |= {"test_auroc": "test AUROC", "test_f1": "test F1", "test_winner": "the winner's test F1"}
    caption = (
        f"Each class by each shortcut, on validation. A shortcut predicts a class if its AUROC is at least "
        f"{GIVES_AWAY:g}, or at least {SUSPECT:g} and the interval of the winner's lead in F1 includes 0 or ends at or "
        f"below {NEAR:g}. Classes with fewer than {FEWEST_POSITIVES} images are not judged."
    )
    frame = pd.DataFrame(rows)
    return Table("baselines_by_class", caption, frame, columns("class", **titles), folded=True)


def _baseline_table(results: Results, comparisons: dict[str, BaselineComparison]) -> Table:
    splits = tuple(comparisons) or ("val",)
    how = "fine-tuned" if all(found.tuned for found in comparisons.values()) else "the head alone was trained"
    winner: dict[str, Any] = {"name": "winner", "baseline": results.title, "how": how, "kind": ""}
    for split, found in comparisons.items():
        winner |= intervals.cells(found.winner, {f"{split}_{name}": name for name in BASELINE_SCORES})
        winner["share"] = 1.0 if MAJORITY in found.measured else math.nan
    rows = [winner] if comparisons else []
    for one in results.data.run.baselines or ():
        how = f"not measured: {one.failed}" if one.failed else one.detail
        row: dict[str, Any] = {"name": one.name, "kind": one.kind, "baseline": one.label, "how": how}
        for split in splits:
            compared, recorded = comparisons.get(split), (one.val if split == "val" else one.test) or {}
            scores = compared.measured.get(one.name) if compared else None
            row |= intervals.cells(scores, {f"{split}_{name}": name for name in BASELINE_SCORES})
            for name in BASELINE_SCORES if scores is None else ():
                value = recorded.get(name, math.nan)
                row |= {f"{split}_{name}": value, f"{split}_{name}_shown": formats.show("score", value)}
            if compared is not None:
                row["share"] = compared.share_of_gain(one.name)
                if (lead := compared.leads.get(one.name)) is not None:
                    row |= {"lead": lead.difference, "lead_low": lead.low, "lead_high": lead.high}
        rows.append(row)
    titles = {
        f"{split}_{name}_shown": f"{formats.SPLIT_NAMES[split]} {formats.score_name(name, results.data.task)}"
        for split in splits
        for name in BASELINE_SCORES
    }
    if any(MAJORITY in found.measured for found in comparisons.values()):
        titles["share"] = "share of the gain"
    scored = [one for found in comparisons.values() for one in (found.winner, *found.measured.values())]
    pairs = ((one, name) for one in scored for name in BASELINE_SCORES)
    below = intervals.below(pairs, method=not results.leaderboard.configurations)
    caption = f"The winner and the baselines on the same images. {below}".strip()
    return Table("baselines", caption, pd.DataFrame(rows), columns(baseline="method", kind="kind", how="how", **titles))


def _external(results: Results) -> list[Block]:
    title, earlier = Text("### External evaluations"), formats.listing(results.of_earlier_models)
    left_out = f"Not shown, since they are of an earlier model or of other thresholds: {earlier}." if earlier else ""
    if not results.external:
        return [title, Text(formats.escape(left_out))] if earlier else []
    rows = []
    measures = [one.conclusion.metric or one.main_score for one in results.external]
    for one, measure in zip(results.external, measures, strict=True):
        row = {"name": one.facts.name, "size": one.size, "measure": one.name_of(measure)}
        row["score_shown"] = intervals.as_text(interval(one.scores, measure))
        less = one.conclusion.difference
        row["less_shown"] = formats.ABSENT if less is None else formats.difference(less.estimate, less.low, less.high)
        rows.append(row | {"warnings": len(one.conclusion.warnings) + len(one.facts.warnings)})
    caption = "The model on other labelled images; the run's folder external has a page for each. "
    caption += intervals.below((one.scores, measure) for one, measure in zip(results.external, measures, strict=True))
    caption = f"{caption} {left_out}".strip()
    titles = {"score_shown": "score (95 %)", "less_shown": "minus the run's own (95 %)", "warnings": "warnings"}
    shown = columns(name="data", size="images", measure="measure", **titles)
    return [title, Table("external", caption, pd.DataFrame(rows), shown)]
