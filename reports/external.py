"""``python -m reports.external FOLDER``: the page of an external evaluation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reports.answer import external_answer
from reports.external_evidence import External
from reports.page import render
from reports.page.blocks import Section
from reports.sections import external_scores
from search_spaces.errors import UserError
from sweep.records import read_evaluation
from trainables.atomic import write_atomically

SECTIONS: tuple[Callable[[External], Section | None], ...] = (
    external_answer.section,
    external_scores.confusion_section,
    external_scores.discrimination_section,
    external_scores.calibration_section,
    external_scores.subgroup_section,
    external_scores.mistakes_section,
    external_answer.repeat_section,
)


def build(root: Path) -> list[str]:
    """Write report.html, report.md, tables/ and figures/ into the folder of an evaluation.

    Reads that folder alone. Returns the lines that tell what came out. Raises ``UserError`` if it is no evaluation.
    """
    external = External(read_evaluation(root))
    paths = external.evaluation.paths
    sections = tuple(section for make in SECTIONS if (section := make(external)) is not None)
    page = render.Page(
        title=f"External evaluation on {external.name}",
        subtitle=f"{external.model['trial']} · {len(external.images.paths):,} images",
        sections=sections,
    )
    files = {
        paths.page: render.encoded(render.html_page(page)),
        paths.markdown: render.encoded(render.markdown_page(page)),
        **{paths.root / name: content for name, content in render.attachments(sections).items()},
    }
    for path, content in files.items():
        _write(path, content)
    return external_answer.in_lines(external)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, or 2 with one line a problem if the folder is no evaluation."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.external", description="Write the page of an external evaluation anew."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what python -m sweep.evaluate wrote")
    arguments = parser.parse_args(argv)
    try:
        lines = build(arguments.folder)
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    for line in lines:
        print(line)
    return 0


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda beside: beside.write_bytes(content))


if __name__ == "__main__":
    sys.exit(main())
