"""``python -m sweep.predict RUN IMAGE...``: what the model of a run says of other images."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import UserError, raise_all
from sweep.cli import BAD_INPUT, Arguments, add_computing, computing, plain, run_command, tell
from sweep.image_files import image_files
from trainables.atomic import write_atomically

if TYPE_CHECKING:
    from sweep.predictor import Answer, Predictor

NOT_CLINICAL = "Not for clinical use."
EXAMPLES = """\
examples:
  python -m sweep.predict runs/NAME xray.png
  python -m sweep.predict runs/NAME new_patients/ --csv answers.csv
  python -m sweep.predict best.pt *.dcm --device cpu

exit codes:
  0 done   2 bad input, or images that cannot be read (the others are predicted all the same)   130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, 2 (bad input, or images that cannot be read), or 130 (Ctrl-C)."""
    return run_command(_run, argv)


def parser() -> Arguments:
    made = Arguments(
        "sweep.predict", "Predict images with the model that a sweep left: probabilities and a decision.", EXAMPLES
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run folder (its models/best.pt is used), or a best.pt")
    made.add_argument("images", type=Path, metavar="IMAGE", nargs="+", help="image files, and folders of them")
    made.add_argument("--csv", type=Path, metavar="FILE", help="write the answers as a table, too")
    add_computing(made)
    return made


def _run(argv: Sequence[str]) -> int:
    asked = parser().parse_args(argv)
    batch_size, problems = computing(asked)
    if asked.csv is not None:
        problems += _csv_problems(asked.csv)
    files, empty = image_files(asked.images)
    if not any(file.exists() for file in files):
        problems += [*empty, *(f"{file}: no such file or folder" for file in files)]
    # Imported here, because torch takes seconds that a mistyped option need not wait for.
    from sweep.predictor import model_file, open_model

    try:
        model_file(asked.run)
    except UserError as error:
        problems += error.problems
    raise_all(problems)
    model = open_model(asked.run, asked.device)
    answers: list[Answer] = []
    table = _Table(model, files)
    print(title_of(model))
    print(table.head())
    try:
        for answer in model.predict(files, batch_size):
            answers.append(answer)
            if answer.probability is None:
                tell([f"{plain(str(answer.file))}: {answer.image.reason}"])
            else:
                print(table.row(answer), flush=True)
    finally:  # Ctrl-C, too, leaves what is done
        if asked.csv is not None and answers:
            _write_csv(asked.csv, model, answers)
    for note in _notes(answers):
        print(note)
    tell(empty)
    unread = sum(answer.probability is None for answer in answers)
    if unread:
        tell([f"{unread} of {len(answers)} images could not be read; the others are predicted"])
    return BAD_INPUT if unread or empty else 0


def title_of(model: Predictor) -> str:
    """One line on what predicts."""
    facts = model.facts
    return f"{model.path}: {facts.trial}, {facts.backbone} at {facts.image_size} px. {NOT_CLINICAL}"


class _Table:
    """Lines of equal columns, which can be printed one by one: the widths are known before the first answer."""

    def __init__(self, model: Predictor, files: Sequence[Path]) -> None:
        self._model = model
        self._classes = [plain(name) for name in model.facts.classes]
        words = ("file", "threshold", *(plain(str(file)) for file in files))
        self._widths = [max(map(len, words)), *(max(6, len(name)) for name in self._classes)]

    def head(self) -> str:
        rule = "decision" if self._model.facts.thresholds else "decision (the likeliest)"
        lines = [self._line("file", self._classes, rule)]
        if self._model.facts.thresholds:
            lines.append(self._line("threshold", [f"{t:.4f}" for t in self._model.facts.thresholds.values()], ""))
        return "\n".join(lines)

    def row(self, answer: Answer) -> str:
        assert answer.probability is not None
        decision = " | ".join(plain(name) for name in self._model.decide(answer.probability)) or "none of them"
        return self._line(plain(str(answer.file)), [f"{value:.4f}" for value in answer.probability], decision)

    def _line(self, first: str, middle: Sequence[str], last: str) -> str:
        cells = [text.rjust(width) for text, width in zip(middle, self._widths[1:], strict=True)]
        return "  ".join([first.ljust(self._widths[0]), *cells, last]).rstrip()


def _notes(answers: Sequence[Answer]) -> list[str]:
    coloured = sum(answer.coloured for answer in answers)
    frames = sum(answer.image.frames > 1 for answer in answers)
    notes = [f"{coloured} image(s) in colour were made gray: the model has seen gray ones alone"] if coloured else []
    return [*notes, f"{frames} file(s) hold several frames: the first was read"] if frames else notes


def _csv_problems(path: Path) -> list[str]:
    if path.exists() and not path.is_file():
        return [f"--csv {path}: there is something of that name that is no file"]
    folder = path.absolute().parent
    if not folder.is_dir():
        return [f"--csv {path}: {folder} is no folder; make it first"]
    if not os.access(folder, os.W_OK):
        return [f"--csv {path}: {folder} cannot be written to"]
    return []


def _write_csv(path: Path, model: Predictor, answers: Sequence[Answer]) -> None:
    """file, decision (labels with | between), threshold, probability_<class>..., problem (empty where all is well)."""
    facts = model.facts
    rule = "likeliest" if facts.thresholds is None else "|".join(f"{value:g}" for value in facts.thresholds.values())

    def write(beside: Path) -> None:
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            columns = (f"probability_{name}" for name in facts.classes)
            table.writerow(["file", "decision", "threshold", *columns, "problem"])
            for answer in answers:
                if answer.probability is None:
                    table.writerow([answer.file, "", rule, *("" for _ in facts.classes), answer.image.reason])
                else:
                    decision = "|".join(model.decide(answer.probability))
                    values = (f"{value:.6g}" for value in answer.probability)
                    table.writerow([answer.file, decision, rule, *values, ""])

    try:
        write_atomically(path, write)
    except OSError as error:
        raise UserError(f"--csv {path} could not be written: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
