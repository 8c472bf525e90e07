"""What stands in a chapter of a report, by kind of block."""

from __future__ import annotations

from pathlib import Path

from reports.blocks import Block, Facts, Figure, Note, Samples, Table, Text, walk
from reports.data import read_report_data
from reports.results import Results


def results_of(root: Path) -> Results:
    return Results(read_report_data(root))


def tables(chapter: list[Block]) -> dict[str, Table]:
    return {block.name: block for block in walk(chapter) if isinstance(block, Table)}


def figures(chapter: list[Block]) -> dict[str, Figure]:
    return {block.name: block for block in walk(chapter) if isinstance(block, Figure)}


def galleries(chapter: list[Block]) -> list[Samples]:
    return [block for block in walk(chapter) if isinstance(block, Samples)]


def facts(chapter: list[Block]) -> dict[str, str]:
    return {name: value for block in walk(chapter) if isinstance(block, Facts) for name, value in block.rows}


def notes(chapter: list[Block]) -> str:
    return " ".join(f"{block.text} {' '.join(block.items)}" for block in walk(chapter) if isinstance(block, Note))


def texts(chapter: list[Block]) -> str:
    return "\n\n".join(block.markdown for block in walk(chapter) if isinstance(block, Text))
