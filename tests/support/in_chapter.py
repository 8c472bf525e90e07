"""What stands in a chapter of a report, by kind of block."""

from __future__ import annotations

from pathlib import Path

from reports.blocks import Chapter, Facts, Figure, Note, Samples, Table, Text, walk
from reports.data import read_report_data
from reports.results import Results


def results_of(root: Path) -> Results:
    return Results(read_report_data(root))


def tables(chapter: Chapter) -> dict[str, Table]:
    return {block.name: block for block in walk(chapter.blocks) if isinstance(block, Table)}


def figures(chapter: Chapter) -> dict[str, Figure]:
    return {block.name: block for block in walk(chapter.blocks) if isinstance(block, Figure)}


def galleries(chapter: Chapter) -> list[Samples]:
    return [block for block in walk(chapter.blocks) if isinstance(block, Samples)]


def facts(chapter: Chapter) -> dict[str, str]:
    return {name: value for block in walk(chapter.blocks) if isinstance(block, Facts) for name, value in block.rows}


def notes(chapter: Chapter) -> str:
    return " ".join(
        f"{block.text} {' '.join(block.items)}" for block in walk(chapter.blocks) if isinstance(block, Note)
    )


def texts(chapter: Chapter) -> str:
    return "\n\n".join(block.markdown for block in walk(chapter.blocks) if isinstance(block, Text))
