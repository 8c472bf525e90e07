"""``python -m reports.build RUN``: the report of a run folder; the only code that writes one."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from reports.answer import answer
from reports.data import ReportData, gather
from reports.model_card import card
from reports.page import render
from reports.page.blocks import Section
from reports.prose import analysis, methods, repeat
from reports.sections import (
    associations,
    comparison,
    confusion,
    curves,
    data_card,
    discrimination,
    examples,
    finalists,
    pareto,
    probabilities,
    published,
    trial_list,
)
from search_spaces.errors import UserError
from sweep.run_folder import ModelPaths
from trainables.atomic import write_atomically, write_json

SECTIONS: tuple[Callable[[ReportData], Section], ...] = (
    answer.section,
    data_card.section,
    finalists.section,
    comparison.section,
    confusion.section,
    curves.section,
    curves.stopping_section,
    examples.section,
    discrimination.section,
    probabilities.section,
    associations.section,
    pareto.section,
    analysis.section,
    methods.section,
    published.section,
    trial_list.section,
    repeat.section,
)


def build(run_root: Path) -> Path:
    """Write ``run_root/report``, and the card of its model if there is one; return the report's index.html.

    Reads the run folder alone, so it works when the data set is gone, and gives the same bytes for the same run folder.
    The old report stays until the new one is whole. Raises ``UserError`` if ``run_root`` is no run folder.
    """
    evidence = gather(Path(run_root))
    files = _files(evidence)
    model_card = card(evidence)
    if model_card is not None:
        write_atomically(
            ModelPaths(evidence.run.paths.models).card,
            lambda beside: beside.write_bytes(render.encoded(str(model_card))),
        )
    target = evidence.run.paths.report
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".report-"))
    try:
        for name, content in files.items():
            path = beside / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        write_json(beside / "manifest.json", {"run": evidence.name, "sha256": hashes})
        beside.chmod(0o755)
        _move_into_place(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target / "index.html"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, or 2 with one line a problem if the folder is no run."""
    parser = argparse.ArgumentParser(prog="python -m reports.build", description="Write the report of a run folder.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder: <storage>/<name> of a sweep")
    arguments = parser.parse_args(argv)
    try:
        index = build(arguments.run)
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    print(index)
    return 0


def _files(evidence: ReportData) -> dict[str, bytes]:
    """Every file of the report but the manifest, by its name below report/, sorted."""
    # The first comes last: it lists what the others have found to be missing or damaged.
    sections = [make(evidence) for make in reversed(SECTIONS)][::-1]
    page = render.Page(
        title=f"Report of {evidence.name}",
        subtitle=f"{evidence.run.sweep.get('space', 'unknown space')} · {len(evidence.trials):,} trials",
        sections=tuple(sections),
    )
    files = {
        "index.html": render.encoded(render.html_page(page)),
        "report.md": render.encoded(render.markdown_page(page)),
        **render.attachments(sections),
    }
    return dict(sorted(files.items()))


def _move_into_place(beside: Path, target: Path) -> None:
    """Replace the folder ``target``: no rename replaces a folder that has files, so the old one steps aside first."""
    if not target.exists():
        os.replace(beside, target)
        return
    old = Path(tempfile.mkdtemp(dir=target.parent, prefix=".report-old-"))
    os.replace(target, old / "report")
    os.replace(beside, target)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
