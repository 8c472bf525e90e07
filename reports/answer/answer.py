"""Section 1: the best configuration, what its score is worth, and what was run."""

from __future__ import annotations

from reports.answer import answer_finals, answer_search, what_was_run
from reports.data import ReportData
from reports.page import wording
from reports.page.blocks import Block, FactList, Heading, Note, Section
from reports.prose import verdict
from reports.trials import data_tables, tables


def section(evidence: ReportData) -> Section:
    # First, since it may find more files that cannot be read.
    answer = _answer(evidence)
    run: list[Block] = [Heading("What was run"), FactList(tuple(what_was_run.facts(evidence)))]
    return Section("answer", "The answer", (*_warnings(evidence), *answer, *run))


def _answer(evidence: ReportData) -> list[Block]:
    standing = evidence.standing
    if standing is not None and standing.winner is not None and standing.winner.validation:
        return answer_finals.blocks(evidence, standing, standing.winner)
    state = [] if standing is None else verdict.state(evidence, standing)
    return [*state, *answer_search.blocks(evidence)]


def _warnings(evidence: ReportData) -> list[Block]:
    blocks: list[Block] = []
    if evidence.dataset.get("demo"):
        blocks.append(
            Note(
                "warning",
                "Demo data set: these are phantoms drawn by a program, not X-rays of people. The numbers show that the "
                "system works; they say nothing about any disease.",
            )
        )
    marks = tuple(str(mark) for mark in evidence.dataset.get("caveats") or () if not str(mark).startswith("Demo set"))
    if marks:
        blocks.append(Note("warning", "To be known before any number is read:", marks))
    folded = [
        str(name) for name in data_tables.weights(evidence.run.provenance).query("batchnorm == 'FOLDED'")["backbone"]
    ]
    if folded:
        blocks.append(
            Note(
                "warning",
                f"Folded BatchNorm in the starting weights of {wording.listing(folded)}: every mean is 0 and every "
                "variance 1. Such a network trains to chance, silently, as soon as its BatchNorm is in train mode: do "
                "not compare its trials of depth 1 and more with other backbones.",
            )
        )
    counts = tables.status_counts(evidence.trials)
    if not evidence.ended:
        blocks.append(
            Note(
                "warning",
                "This sweep has not ended: it is still running, or it was stopped before its end. The report shows "
                f"what was on disk: {counts['running']} of {len(evidence.trials)} trials have no end yet.",
            )
        )
    if evidence.problems:
        blocks.append(Note("error", "Problems found while this run folder was read:", tuple(evidence.problems)))
    return blocks
