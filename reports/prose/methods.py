"""Section 9, second part: methods paragraphs and a checklist, written from the records, ready to paste."""

from __future__ import annotations

import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from reports.data import ReportData
from reports.page import formats
from reports.page.blocks import Block, Column, Heading, Note, Section, Table, Text
from reports.prose.checklist import checklist
from reports.prose.methods_text import paragraphs
from reports.prose.references import Citations
from reports.trials.importance import title
from reports.trials.optuna_study import compared


def section(evidence: ReportData) -> Section:
    cite = Citations()
    blocks: list[Block] = [
        Text(
            "Written from the records of this run, in the past tense, to be pasted and completed. What the records "
            "cannot know stands in the checklist below."
        )
    ]
    if not evidence.ended:
        blocks.append(Note("warning", "The sweep has not ended: these paragraphs describe what was on disk."))
    for heading, text in paragraphs(evidence, cite):
        blocks += [Heading(heading), Text(text)]
    ranges = search_space(evidence)
    if len(ranges):
        blocks.append(_space_table(ranges))
    blocks += [Heading("References"), *(Text(reference) for reference in cite.full)]
    blocks += [Heading("Checklist"), *checklist(evidence)]
    return Section("methods", "Methods and checklist", tuple(blocks))


def search_space(evidence: ReportData) -> pd.DataFrame:
    """What could be tried: parameter, values (the range or the choices), scale, trials (that had it)."""
    found = compared(evidence)
    rows = []
    for name, distribution in found.distributions.items():
        rows.append(
            {
                "parameter": title(name),
                "values": _values(distribution),
                "scale": _scale(distribution),
                "trials": len(found.values(name)),
            }
        )
    return pd.DataFrame(rows, columns=["parameter", "values", "scale", "trials"])


def _space_table(ranges: pd.DataFrame) -> Table:
    return Table(
        name="search_space",
        caption="The hyperparameters that were varied, their ranges, and in how many of the compared trials each was "
        "in use.",
        frame=ranges,
        columns=(
            Column("parameter", "hyperparameter"),
            Column("values", "values"),
            Column("scale", "scale"),
            Column("trials", "trials", "integer"),
        ),
    )


def _values(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(formats.general(choice) for choice in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return f"{formats.general(distribution.low)} to {formats.general(distribution.high)}"


def _scale(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "choice"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return (
        "logarithmic"
        if distribution.log
        else "whole numbers"
        if isinstance(distribution, IntDistribution)
        else "linear"
    )
