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

from reports import render
from reports.blocks import Chapter
from reports.chapters import (
    backbone_depth,
    calibration,
    cost,
    data,
    discrimination,
    errors,
    examples,
    finalists,
    hyperparameters,
    learning_curves,
    methods,
    reproducibility,
    studies,
    summary,
    trials,
)
from reports.data import read_report_data
from reports.model_card import card
from reports.results import Results
from search_spaces.errors import UserError, shown_problems
from search_spaces.paths import path_of
from sweep.run_folder import ModelPaths
from trainables.atomic import write_atomically, write_json

CHAPTERS: tuple[Callable[[Results], Chapter | None], ...] = (
    summary.chapter,
    data.chapter,
    finalists.chapter,
    backbone_depth.chapter,
    errors.chapter,
    examples.chapter,
    discrimination.chapter,
    calibration.chapter,
    learning_curves.chapter,
    hyperparameters.chapter,
    cost.chapter,
    methods.chapter,
    trials.chapter,
    reproducibility.chapter,
    studies.chapter,
)
# They say what the others have found to be missing or damaged.
MADE_LAST = (methods.chapter, reproducibility.chapter, summary.chapter)


def build(run_root: Path) -> Path:
    """Write ``run_root/report``, and the card of its model if there is one; return the report's index.html.

    Reads the run folder alone, so it works when the data set is gone, and gives the same bytes for the same run folder.
    The old report stays until the new one is whole. Raises ``UserError`` if ``run_root`` is no run folder.
    """
    results = Results(read_report_data(Path(run_root)))
    paths = results.data.run.paths
    files = _files(results)
    model_card = card(results)
    if model_card is not None:
        content = render.encoded(str(model_card))
        write_atomically(ModelPaths(paths.models).card, lambda beside: beside.write_bytes(content))
    beside = Path(tempfile.mkdtemp(dir=paths.report.parent, prefix=".report-"))
    try:
        for name, content in files.items():
            (beside / name).parent.mkdir(exist_ok=True)
            (beside / name).write_bytes(content)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        write_json(beside / "manifest.json", {"run": results.data.name, "sha256": hashes})
        beside.chmod(0o755)
        _move_into_place(beside, paths.report)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return paths.report / "index.html"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, or 2 with one line a problem if the folder is no run."""
    parser = argparse.ArgumentParser(prog="python -m reports.build", description="Write the report of a run folder.")
    parser.add_argument("run", metavar="RUN", help="a run folder: <storage>/<name> of a sweep")
    arguments = parser.parse_args(argv)
    try:
        index = build(path_of("RUN", arguments.run))
    except UserError as error:
        for line in shown_problems([f"error: {problem}" for problem in error.problems]):
            print(line, file=sys.stderr)
        return 2
    print(index)
    return 0


def _files(results: Results) -> dict[str, bytes]:
    """Every file of the report but the manifest, by its name below report/, sorted."""
    made = {make: make(results) for make in sorted(CHAPTERS, key=lambda make: make in MADE_LAST)}
    chapters = tuple(found for make in CHAPTERS if (found := made[make]) is not None)
    page = render.Page(
        title=f"Report of {results.data.name}",
        subtitle=f"{results.data.run.sweep.space or 'unknown space'} · {len(results.data.trials):,} trials",
        chapters=chapters,
    )
    files = {
        "index.html": render.encoded(render.html_page(page)),
        "report.md": render.encoded(render.markdown_page(page)),
        **render.attachments(chapters),
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
