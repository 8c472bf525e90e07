"""What stands in a report: in a chapter by kind of block, on its page as text; and the predictions behind it."""

from __future__ import annotations

import re
from pathlib import Path

from reports.blocks import Block, Facts, Figure, Note, Samples, Table, Text, walk
from reports.data import read_report_data
from reports.results import Results
from trainables.predictions import Predictions


def results_of(root: Path) -> Results:
    return Results(read_report_data(root))


def repeats(results: Results, split: str = "test") -> list[Predictions]:
    """Of t0000, the winner."""
    return [part.of(split) for key, part in results.data.repeats.items() if key.startswith("t0000/")]


def page_text(root: Path) -> str:
    """The text of the page without tags, style and script, spaces folded."""
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    page = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


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
