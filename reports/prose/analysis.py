"""Section 9: what the tables say, in words, by rules; no rule claims what its interval does not support."""

from __future__ import annotations

from reports.data import ReportData
from reports.page import wording
from reports.page.blocks import Block, Column, Heading, Section, Table, Text
from reports.prose import analysis_limits, analysis_result, analysis_search
from reports.prose.analysis_facts import Facts, Finding

HEADINGS = {
    "shown": "What is shown",
    "open": "What is open: hints, and what cannot be told apart",
    "limit": "What weakens all this",
}
VERDICTS = {1.0: "the first is better", -1.0: "the second is better", 0.0: "no difference shown"}


def section(evidence: ReportData) -> Section:
    facts = Facts(evidence)
    found = findings(facts)
    blocks: list[Block] = [
        Text(
            "Written by rules from the tables of this report. “Shown” means that a 95 % interval, or a corrected p "
            "value of at most 0.05, or a plain count supports it; everything else stands under “open”."
        )
    ]
    for kind, heading in HEADINGS.items():
        texts = [Text(one.text) for one in found if one.kind == kind]
        if texts:
            blocks += [Heading(heading), *texts]
    if not found:
        blocks.append(Text("There is nothing to analyse yet: no trial has a score."))
    return Section("analysis", "Analysis", (*blocks, *_effects(facts)))


def findings(facts: Facts) -> list[Finding]:
    """What every rule has to say, in the order of the rules."""
    if facts.evidence.best is None and facts.scores is None:
        return analysis_search.failures(facts)
    rules = (*analysis_result.RULES, *analysis_limits.RULES, *analysis_search.RULES)
    return [one for rule in rules for one in rule(facts)]


def _effects(facts: Facts) -> list[Block]:
    frame = facts.effects
    if frame.empty:
        return []
    shown = frame.assign(
        shown=[wording.difference(*row) for row in zip(frame["difference"], frame["low"], frame["high"], strict=True)],
        p_shown=[wording.p_value(value) for value in frame["p_holm"]],
        result=[VERDICTS.get(value, "not tested") for value in frame["verdict"]],
        factor=frame["factor"].str.replace("_", " "),
    )
    caption = (
        "The best configuration of each value of a factor, all else of the cell alike: difference in "
        f"{facts.metric_words}, first less second, with 95 % intervals and p values corrected by Holm's method over "
        "all rows (paired bootstrap over patients)."
    )
    table = Table(
        name="effects",
        caption=caption,
        frame=shown,
        columns=(
            Column("factor", "factor"),
            *((Column("within", "within"),) if frame["within"].any() else ()),
            Column("first", "first"),
            Column("second", "second"),
            Column("shown", "difference"),
            Column("p_shown", "p"),
            Column("result", "result"),
        ),
        folded=len(shown) > 12,
    )
    return [Heading("Factors compared by repeats"), table]
