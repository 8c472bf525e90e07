"""``python -m reports.build RUN``: the report of a run folder; the only code that writes one."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from reports import render
from reports.blocks import Block, Chapter
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
from search_spaces.errors import UserError
from search_spaces.paths import path_of
from sweep.endings import DONE, leave_with, run_command
from sweep.run_folder import ModelPaths, folder_beside
from trainables.atomic import disk_error, write_atomically, write_json

# id, title, blocks (none: the chapter does not apply to the run)
CHAPTERS: tuple[tuple[str, str, Callable[[Results], list[Block]]], ...] = (
    ("summary", "Summary", summary.chapter),
    ("data", "Data", data.chapter),
    ("finalists", "Finalists", finalists.chapter),
    ("backbone_depth", "Backbones and depths", backbone_depth.chapter),
    ("errors", "Confusion and operating points", errors.chapter),
    ("examples", "Best and worst classified images", examples.chapter),
    ("discrimination", "Discrimination", discrimination.chapter),
    ("calibration", "Calibration", calibration.chapter),
    ("learning_curves", "Learning curves", learning_curves.chapter),
    ("hyperparameters", "Hyperparameters", hyperparameters.chapter),
    ("cost", "Cost and accuracy", cost.chapter),
    ("methods", "Methods, limits and checklists", methods.chapter),
    ("trials", "All trials", trials.chapter),
    ("reproducibility", "Reproducibility", reproducibility.chapter),
    ("studies", "The published study and this run", studies.chapter),
)
# They report what the other chapters found to be missing or damaged.
MADE_LAST = ("methods", "reproducibility", "summary")


def build(run_root: Path) -> Path:
    """Write ``run_root/report``, and the card of its model if there is one; return the report's index.html.

    Reads only the run folder, so it works without the data set, and gives the same bytes for the same run folder.
    The old report stays until the new one is complete. Raises ``UserError`` if ``run_root`` is no run folder, or cannot
    be written to; ``OSError`` for a disk error, such as a full disk.
    """
    results = Results(read_report_data(Path(run_root)))
    report = results.data.run.paths.report
    files = _files(results)
    model_card = card(results)
    try:
        if model_card is not None:
            content = render.encoded(str(model_card))
            path = ModelPaths(results.data.run.paths.models).card
            write_atomically(path, lambda beside: beside.write_bytes(content))
        _write(files, results.data.name, report)
    except OSError as error:
        if disk_error(error) is error:
            raise OSError(error.errno, error.strerror, error.filename or str(run_root)) from error
        way_out = "fix the cause; the previous report is still there"
        raise UserError(f"the report {report} cannot be written ({error.strerror}): {way_out}") from error
    return report / "index.html"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: see ``run_command``; 2 if the folder is no run."""
    parser = argparse.ArgumentParser(prog="python -m reports.build", description="Build the report of a run folder.")
    parser.add_argument("run", metavar="RUN", help="a run folder: <storage>/<name> of a sweep")

    def made(arguments: list[str]) -> int:
        print(build(path_of("RUN", parser.parse_args(arguments).run)))
        return DONE

    return run_command(made, argv)


def _files(results: Results) -> dict[str, bytes]:
    """Every file of the report except the manifest, by its name below report/, sorted."""
    made = {key: make(results) for key, _, make in sorted(CHAPTERS, key=lambda one: one[0] in MADE_LAST)}
    chapters = tuple(Chapter(key, title, tuple(made[key])) for key, title, _ in CHAPTERS if made[key])
    page = render.Page(
        title=f"Report of {results.data.name}",
        subtitle=f"{results.data.run.sweep.space or 'unknown space'} · {len(results.data.trials):,} trials",
        chapters=chapters,
    )
    return render.page_files(page, "index.html")


def _write(files: dict[str, bytes], name: str, report: Path) -> None:
    """Write ``files``, and a manifest of them, as the folder ``report``. name: of the run."""
    with folder_beside(report) as beside:
        for file, content in files.items():
            (beside / file).parent.mkdir(exist_ok=True)
            (beside / file).write_bytes(content)
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        write_json(beside / "manifest.json", {"run": name, "sha256": hashes})
        # A rename cannot replace a folder that has files, or a link, so the old one is moved aside first.
        if os.path.lexists(report):
            os.replace(report, beside.with_name("old"))
        os.replace(beside, report)


if __name__ == "__main__":
    leave_with(main)
