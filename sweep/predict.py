"""``python -m sweep.predict RUN IMAGE...``: predictions of a run's model for other images."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from search_spaces.errors import UserError, gathered
from search_spaces.paths import unreachable
from sweep.cli import Arguments, add_computing, computing, path, plain
from sweep.endings import BAD_INPUT, leave_with, run_command, silence_output, tell
from trainables.atomic import write_atomically
from trainables.data.files import EXTENSIONS, counted_forms, index_folder, unread_form
from trainables.maps import SMALLEST_GRID
from trainables.spreadsheet import shown_cell

if TYPE_CHECKING:
    from sweep.predictor import Prediction, Predictor
    from trainables.export import ModelFacts

EXAMPLES = """\
examples:
  python -m sweep.predict runs/NAME xray.png
  python -m sweep.predict runs/NAME new_patients/ --csv answers.csv
  python -m sweep.predict best.pt *.dcm --device cpu
  python -m sweep.predict runs/NAME new_patients/ --maps maps/

exit codes:
  0 done   2 bad input, or images that cannot be read (the others are still predicted)   130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, 2 (bad input, or images that cannot be read), or 130 (Ctrl-C)."""
    return run_command(_run, argv)


def parser() -> Arguments:
    made = Arguments("sweep.predict", "Predict images with a sweep's model: probabilities and a decision.", EXAMPLES)
    made.add_argument("run", type=path, metavar="RUN", help="a run folder (its models/best.pt is used), or a best.pt")
    made.add_argument("images", type=path, metavar="IMAGE", nargs="+", help="image files, and folders of them")
    made.add_argument("--csv", type=path, metavar="FILE", help="also write the predictions as a table")
    made.add_argument(
        "--maps",
        type=path,
        metavar="FOLDER",
        help="write Grad-CAM maps over the images, one for each decided class, to a new folder that only you can read: "
        "00003_2.png is image 3 of the predictions, class 2; a map does not outline a finding",
    )
    add_computing(made)
    return made


def _run(argv: Sequence[str]) -> int:
    asked, problems = parser().read(argv)
    batch_size, wrong_computing = computing(asked)
    problems += [*wrong_computing, *_csv_problems(asked.csv), *_maps_problems(asked.maps)]
    files, empty, passed_over = image_files(asked.images)
    if not any(os.path.exists(file) for file in files):
        problems += [*empty, *(f"{file}: no such file or folder" for file in files if not unreachable(file))]
    # Imported here, because torch takes seconds that a mistyped option need not wait for.
    from sweep.predictor import open_model

    model = open_model(asked.run, asked.device, problems)
    if asked.maps is not None:
        _make_maps_folder(asked.maps, model)
    answers: list[Prediction] = []
    facts, layout = model.facts, _layout(model, files)

    def say(line: str) -> None:
        try:
            print(line, flush=True)
        except OSError:  # the reader (``| head``) or terminal has gone, but the table and the maps are still to come
            if asked.csv is None and asked.maps is None:
                raise
            silence_output()

    say(model.title)
    if model.warning is not None:
        say(f"warning: {model.warning}")
    if facts.operating_point is not None:
        others = ", else the likeliest other class" if facts.thresholds and facts.task == "single_label" else ""
        say(f"operating point: {plain(facts.operating_point.words)}{others}")
    rule = "decision (the likeliest)" if facts.thresholds is None else "decision"
    say(layout.format("file", *map(plain, facts.classes), rule))
    if facts.thresholds is not None:
        least = (f"{facts.thresholds[name]:.4f}" if name in facts.thresholds else "" for name in facts.classes)
        say(layout.format("threshold", *least, "").rstrip())
    try:
        for answer in model.predict(files, batch_size, maps=asked.maps is not None):
            if asked.maps is not None:
                _draw_maps(asked.maps, len(answers) + 1, answer, facts.classes)
            answers.append(replace(answer, under_maps={}))  # the maps of a whole folder may not fit into memory
            name = plain(str(answer.file))
            if answer.probability is None:
                tell([f"{name}: {answer.image.reason}"])
                continue
            decision = " | ".join(map(plain, model.decide(answer.probability))) or "none of them"
            say(layout.format(name, *(f"{value:.4f}" for value in answer.probability), decision))
    finally:  # also after Ctrl-C
        if asked.csv is not None and answers:
            _write_csv(asked.csv, model, answers)
    if coloured := sum(answer.coloured for answer in answers):
        say(f"{coloured} colour image(s) were converted to gray: the model was trained on gray images only")
    if frames := sum(answer.image.frames > 1 for answer in answers):
        say(f"{frames} file(s) contain several frames: the first was used")
    if asked.maps is not None:
        say(f"maps: {asked.maps}, named by position in this list and class number, both from 1")
    for note in passed_over:
        say(note)
    tell(empty)
    if unread := sum(answer.probability is None for answer in answers):
        others = "; the others are predicted" if unread < len(answers) else ""
        tell([f"{unread} of {len(answers)} images could not be read{others}"])
    return BAD_INPUT if unread or empty else 0


def image_files(places: Sequence[Path]) -> tuple[list[Path], list[str], list[str]]:
    """The given files, and for each folder the images below it, by name; each file once.

    A given file is not checked: it may be an image whatever its name; if it is none, or missing, reading it will fail.
    In folders, hidden files and those that are no image by suffix or content are skipped. Returns the files, a sentence
    for each folder without images or with a folder that cannot be entered, and one for other files that may be images.
    """
    files: dict[Path, None] = {}
    problems: list[str] = []
    notes: list[str] = []
    for place in places:
        if not os.path.isdir(place):
            files[place] = None
            continue
        with gathered(problems):
            index = index_folder(place)
            files |= dict.fromkeys(place / image for image in index.images)
            unread = [path for path in index.others if unread_form(path)]
            others = [f"{len(unread)} file(s) in an unsupported format ({counted_forms(unread)})"] if unread else []
            others += [f"{one.count} image(s): {one.why}" for one in index.left_out]
            notes += [f"{place}: not predicted: {one}" for one in others]
            if not index.images:
                problems.append(f"{place}: no images in this folder ({', '.join(sorted(EXTENSIONS))} files, or DICOM)")
    return list(files), problems, notes


def _rule(facts: ModelFacts) -> str:
    """How an image is decided: "likeliest", "covid from 0.13, else likeliest", or a threshold for each label."""
    least = facts.thresholds or {}
    if facts.task == "multi_label":
        return "|".join(f"{value:g}" for value in least.values())
    return "".join(f"{name} from {value:g}, else " for name, value in least.items()) + "likeliest"


def _layout(model: Predictor, files: Sequence[Path]) -> str:
    """The format of a line, so that lines can be printed one by one: file, one cell per class, decision."""
    first = max(len(word) for word in ("file", "threshold", *(plain(str(file)) for file in files)))
    cells = "".join(f"  {{:>{max(6, len(plain(name)))}}}" for name in model.facts.classes)
    return f"{{:<{first}}}{cells}  {{}}"


def _csv_problems(table: Path | None) -> list[str]:
    if table is None or unreachable(table):
        return []
    if table.exists() and not table.is_file():
        return [f"--csv {table}: exists and is not a file: give another name"]
    return _folder_problems(f"--csv {table}", table.absolute().parent)


def _maps_problems(maps: Path | None) -> list[str]:
    if maps is None or unreachable(maps):
        return []
    if os.path.lexists(maps):
        return [f"--maps {maps}: exists already: give a new folder"]
    return _folder_problems(f"--maps {maps}", maps.absolute().parent)


def _folder_problems(named: str, folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{named}: {folder} is not a folder: create it first"]
    return [] if os.access(folder, os.W_OK) else [f"{named}: {folder} is not writable: give another folder"]


def _make_maps_folder(maps: Path, model: Predictor) -> None:
    down, across = model.map_grid()
    if min(down, across) < SMALLEST_GRID:
        grid = f"{down} x {across} positions: too coarse, at least {SMALLEST_GRID} x {SMALLEST_GRID} are needed"
        raise UserError(f"--maps: maps of {model.facts.backbone} at {model.facts.image_size} px have {grid}")
    try:
        maps.mkdir(mode=0o700)  # images of patients
    except OSError as error:
        raise UserError(f"--maps {maps} could not be created: {error.strerror}") from error


def _draw_maps(folder: Path, row: int, answer: Prediction, classes: Sequence[str]) -> None:
    """Files are named by row and class, both from 1, since image names are often names of patients."""
    for name, pixels in answer.under_maps.items():
        image = Image.fromarray(pixels)
        file = folder / f"{row:05d}_{classes.index(name) + 1}.png"
        write_atomically(file, partial(image.save, format="PNG"))


def _write_csv(table: Path, model: Predictor, answers: Sequence[Prediction]) -> None:
    """file, decision (labels with | between), threshold, probability_<class>..., problem (empty if there is none).

    No cell can be a formula for a spreadsheet."""
    facts, rule = model.facts, _rule(model.facts)

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            columns = (f"probability_{name}" for name in facts.classes)
            rows.writerow(["file", "decision", "threshold", *columns, "problem"])
            for answer in answers:
                decision, values = "", [""] * len(facts.classes)
                if answer.probability is not None:
                    decision = "|".join(model.decide(answer.probability))
                    values = [f"{value:.6g}" for value in answer.probability]
                rows.writerow(map(shown_cell, [str(answer.file), decision, rule, *values, answer.image.reason]))

    try:
        write_atomically(table, write)
    except OSError as error:
        raise UserError(f"--csv {table} could not be written: {error.strerror}") from error


if __name__ == "__main__":
    leave_with(main)
