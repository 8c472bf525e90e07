"""``python -m sweep.evaluate RUN --data OTHER``: a run's model on a labelled set of other images."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError, raise_all
from sweep.cli import BAD_INPUT, Arguments, add_computing, computing, plain, run_command, tell
from sweep.predict import title_of
from sweep.run_folder import EvaluationPaths, RunPaths
from trainables.data.config import DataConfig

EXAMPLES = """\
examples:
  python -m sweep.evaluate runs/NAME --data hospital_b/
  python -m sweep.evaluate runs/NAME --data b.csv --label-column finding --group-column patient --map tb=other

exit codes:
  0 done   2 bad input, all of it told   130 interrupted; nothing is written"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, 2 (bad input) or 130 (Ctrl-C)."""
    return run_command(_run, argv)


def parser() -> Arguments:
    made = Arguments(
        "sweep.evaluate",
        "External validation: predict a labelled set of other images with the model that a sweep left, and write the "
        "same tables and intervals as the sweep's report.",
        EXAMPLES,
    )
    made.add_argument("run", type=Path, metavar="RUN", help="a run folder (its models/best.pt is used), or a best.pt")
    made.add_argument(
        "--data", required=True, metavar="PATH", help="a folder CLASS/* (or train|val|test/CLASS/*), or a .csv manifest"
    )
    several: dict[str, Any] = {"action": "append", "default": []}
    for name, how, text in (
        ("label", several, "the column of the class (or of classes, as a|b); repeat it for columns of 0 and 1"),
        ("path", {"default": "path"}, "the column of the image files; default: path"),
        ("group", {}, "the patient: intervals resample patients; default: none, each image counts alone"),
        ("split", {}, "for --split; default: split, if there is such a column"),
        ("subgroup", several, "a column to report by, such as sex; may be repeated"),
    ):
        made.add_argument(f"--{name}-column", metavar="NAME", help=f"manifest: {text}", **how)
    made.add_argument("--split", metavar="NAME", help="only the images of this split of theirs; default: all")
    made.add_argument("--map", metavar="THEIRS=OURS", help="their class is this one of the model's", **several)
    made.add_argument("--skip-unreadable", action="store_true", help="go on without the files that cannot be read")
    made.add_argument(
        "--out", type=Path, metavar="FOLDER", help="a new folder; default: RUN/external/<name of the data>"
    )
    add_computing(made)
    return made


def _run(argv: Sequence[str]) -> int:
    asked = parser().parse_args(argv)
    # Imported here, because torch takes seconds that a mistyped option need not wait for.
    from sweep.external import Asked, evaluate
    from sweep.predictor import model_file, open_model

    batch_size, problems = computing(asked)
    renamed, wrong = _renamed(asked.map)
    problems += wrong
    run_root = _run_root(asked.run)
    out = asked.out or _default_out(run_root, asked.data)
    problems += _out_problems(out)
    try:
        model_file(asked.run)
    except UserError as error:
        problems += error.problems
    raise_all(problems)
    assert out is not None
    model = open_model(asked.run, asked.device)
    request = _request(asked, model.facts.image_size, model.facts.fit)
    what = Asked(
        name=out.name, command=shlex.join(argv), request=request, renamed=renamed, split=asked.split, run_root=run_root
    )
    with _beside(out) as folder:
        warnings = evaluate(model, what, EvaluationPaths(folder), batch_size, _show_progress)
        print(title_of(model))
        for warning in warnings:
            print(f"warning: {plain(warning)}")
        lines, problem = _write_report(folder)
    for line in lines:
        print(line)
    if problem is not None:
        tell([f"the report could not be written: {problem}; the predictions are in {out}"])
        return BAD_INPUT
    print(f"report: {EvaluationPaths(out).page}")
    return 0


def _renamed(pairs: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What --map says, and one sentence for each that says nothing."""
    found: dict[str, str] = {}
    problems = []
    for pair in pairs:
        theirs, equals, ours = (part.strip() for part in pair.partition("="))
        if not (theirs and equals and ours):
            problems.append(f"--map {pair}: write THEIRS=OURS, such as --map tuberculosis=other")
        elif found.setdefault(theirs, ours) != ours:
            problems.append(f"--map {theirs} is given twice: {found[theirs]} and {ours}")
    return found, problems


def _run_root(place: Path) -> Path | None:
    """The run folder that ``place`` is, or that a ``models/best.pt`` lies in."""
    root = place.absolute().parent.parent if place.is_file() else place
    return root if RunPaths(root).sweep.is_file() else None


def _default_out(run_root: Path | None, data: str) -> Path | None:
    """A folder of the run that is not there yet, named after the data."""
    if run_root is None:
        return None
    place = Path(data).absolute()
    name = place.parent.name if place.stem.lower() == "manifest" else place.stem
    name = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"
    folder = RunPaths(run_root).root / "external"
    free = (folder / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in free if not path.exists())


def _out_problems(out: Path | None) -> list[str]:
    if out is None:
        return ["--out FOLDER is needed: the model is in no run folder that the evaluation could be written to"]
    if out.exists():
        return [f"--out {out}: it is there already; give a new folder"]
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        return [f"--out {out}: {above} is no folder that can be written to"]
    return []


def _request(asked: argparse.Namespace, image_size: int, fit: str) -> DataConfig:
    return DataConfig(
        data=asked.data,
        label_column=tuple(asked.label_column),
        path_column=asked.path_column,
        split_column=asked.split_column,
        group_column=asked.group_column,
        subgroup_column=tuple(asked.subgroup_column),
        image_size=image_size,
        fit=fit,
        skip_unreadable=asked.skip_unreadable,
    )


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder that becomes ``out`` if all goes well, and is gone otherwise."""
    made = [folder for folder in out.absolute().parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        yield folder
        folder.chmod(0o755)
        os.rename(folder, out)
    except OSError as error:
        raise UserError(f"--out {out} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:  # the deepest comes first
            with suppress(OSError):
                parent.rmdir()


def _show_progress(done: int, count: int) -> None:
    if sys.stderr.isatty() and (done % 50 == 0 or done == count):
        end = "\n" if done == count else ""
        print(f"\r{done:,} of {count:,} images", end=end, file=sys.stderr, flush=True)


def _write_report(folder: Path) -> tuple[list[str], str | None]:
    """Build the page in a process of its own; its lines, and what went wrong or None."""
    command = [sys.executable, "-m", "reports.external", str(folder.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1], check=False)
    if done.returncode == 0:
        return done.stdout.splitlines(), None
    return [], done.stderr.strip() or f"it ended with code {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())
