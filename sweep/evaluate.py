"""``python -m sweep.evaluate RUN --data OTHER``: a run's model on a labelled set of other images."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserError, raise_all, reason_of, shown_problems, some, unknown
from search_spaces.paths import shortened, unreachable
from sweep.cli import (
    Arguments,
    ImageCount,
    add_computing,
    add_help_all,
    add_options,
    build_page,
    computing,
    options_given,
    path,
    plain,
)
from sweep.endings import BAD_INPUT, leave_with, run_command, say, tell
from sweep.evaluation_records import read_conclusion
from sweep.run_folder import EvaluationPaths, RunPaths, check_writable, folder_beside
from trainables.atomic import FORMAT, now, sha256_of, write_json
from trainables.data.config import DataConfig
from trainables.data.dataset import unchanged
from trainables.data.decoded import read_records
from trainables.data.file_form import is_npz
from trainables.data.prepare import list_samples, reasons_unread
from trainables.data.presets import apply_preset
from trainables.data.samples import MISSING, SPLIT_WORDS, Samples
from trainables.data.split_files import write_image_stats, write_splits
from trainables.data.splits import kept_together
from trainables.metrics import evaluate_predictions
from trainables.predictions import Predictions

if TYPE_CHECKING:
    from sweep.predictor import Prediction, Predictor

OF_TRAINING = (
    *("image_size", "fit", "seed", "max_images", "min_class_images", "ordered_classes", "allow_leakage", "task"),
    "source_column",
)
DATA_OPTIONS = {name: one for name, one in DataConfig.options().items() if name not in OF_TRAINING}
DATA_OPTIONS["data"] = dataclasses.replace(
    DATA_OPTIONS["data"], help=DATA_OPTIONS["data"].help.partition("; default")[0] + "; required"
)
"""The data options of ``python -m sweep.run`` that mean the same here; the model determines the others."""
SPLIT = "external"
"""The name of the one split of an evaluation, in its predictions.npz and rows.csv."""
_PATIENTS = {
    "unused_patients": ("Cells of a table", "--group-column"),
    "patients_in_file_names": ("Names of files or folders", "--group-from"),
}
"""By the name of the check: where patients seem to be named, and the option that uses it."""

EXAMPLES = """\
examples:
  python -m sweep.evaluate runs/NAME --data hospital_b/
  python -m sweep.evaluate runs/NAME --data b.csv --label-column finding --group-column patient --map tb=other

exit codes:
  0 done   2 bad input, or no report could be written   130 interrupted; nothing is written"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, 2 (bad input) or 130 (Ctrl-C)."""
    return run_command(_run, argv)


def parser(*, rare: bool = False) -> Arguments:
    """rare: the help also shows rarely needed options."""
    made = Arguments(
        "sweep.evaluate",
        "External validation: evaluate a sweep's model on other labelled images, with the same tables and intervals as "
        "the sweep's report.",
        EXAMPLES,
    )
    made.add_argument("run", type=path, metavar="RUN", help="a run folder (its models/best.pt is used), or a best.pt")
    made.add_argument("--split", metavar="NAME", help="use only images marked as train, val or test; default: all")
    made.add_argument(
        "--map",
        metavar="THEIRS=OURS",
        action="append",
        default=[],
        help="map a class of the data to one of the model; may be repeated",
    )
    made.add_argument(
        "--out", type=path, metavar="FOLDER", help="a new folder; default: RUN/external/<name of the data>"
    )
    add_computing(made)
    add_options(made.add_argument_group("images"), DATA_OPTIONS, rare=rare)
    add_help_all(made, parser)
    return made


def _run(argv: Sequence[str]) -> int:
    asked, problems = parser().read(argv)
    batch_size, wrong_computing = computing(asked)
    given, unread, wrongly_given = options_given(asked, DATA_OPTIONS)
    if "data" not in given and "data" not in unread:
        wrongly_given.append("--data PATH is required: the images to evaluate the model on")
    config, wrong = DataConfig.read(given)
    renamed, wrong_pairs = _renamed(asked.map)
    run_root = _run_root(asked.run)
    out = asked.out or _default_out(run_root, config.data)
    problems += [*wrong_computing, *wrongly_given, *itertools.chain(*wrong.values()), *config.problems()]
    problems += [*wrong_pairs, *_out_problems(out)]
    # Imported here, because torch takes seconds that a mistyped option need not wait for.
    from sweep.predictor import open_model

    model = open_model(asked.run, asked.device, problems)
    assert out is not None
    what = Asked(
        name=out.name,
        command=shlex.join(argv),
        config=config.model_copy(update={"image_size": model.facts.image_size, "fit": model.facts.fit}),
        renamed=renamed,
        split=asked.split,
        run_root=run_root,
    )
    with _beside(out) as folder:
        notes, warnings = evaluate(model, what, EvaluationPaths(folder), batch_size)
        lines, problem = build_page("reports.external", folder)
        conclusion = read_conclusion(EvaluationPaths(folder))
    warnings = [f"warning: {plain(warning)}" for warning in (*conclusion.warnings, *warnings)]
    say(model.title, *map(plain, notes), *warnings, *lines, *filter(None, [plain(conclusion.sentence)]))
    if problem is not None:
        tell([f"the report could not be written: {problem}; the predictions are in {out}"])
        return BAD_INPUT
    say(f"report: {EvaluationPaths(out).page}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is evaluated. command: the arguments as text. renamed: classes of the data to classes of the model.

    split: only this split of the data; None = all images. run_root: folder of the model's run, None if unknown.
    """

    name: str
    command: str
    config: DataConfig
    renamed: dict[str, str]
    split: str | None
    run_root: Path | None


def evaluate(
    model: Predictor, asked: Asked, files: EvaluationPaths, batch_size: int | None = None
) -> tuple[list[str], list[str]]:
    """Read and predict the images; write evaluation.json, predictions.npz, rows.csv and images.csv to ``files.root``.

    Returns notes on how the set was read, and warnings for a reader of the scores, one sentence each. Raises
    ``UserError`` with all problems of the data, and then writes nothing.
    """
    facts = model.facts
    samples = read_labelled(asked.config, facts.classes, facts.task, asked.renamed, asked.split)
    if not asked.config.skip_unreadable:  # Before hours of predictions, as far as the first bytes show it.
        _unreadable(samples, reasons_unread(samples.files), skip=False)
    answers: list[Prediction] = []
    progress = ImageCount()
    sources = samples.files if samples.pixels is None else list(samples.pixels)
    for answer in model.predict(sources, batch_size):
        answers.append(answer)
        progress("images read", len(answers), len(samples))
    reasons = [answer.image.reason if answer.probability is None else None for answer in answers]
    dropped = _unreadable(samples, reasons, skip=asked.config.skip_unreadable)
    rows = np.flatnonzero([answer.probability is not None for answer in answers]).astype(np.int64)
    samples, answers = samples.subset(rows), [answers[row] for row in rows]
    probabilities = np.stack([answer.probability for answer in answers if answer.probability is not None])
    probabilities = probabilities[:, [facts.classes.index(name) for name in samples.classes]]
    columns = samples.paths, samples.labels, probabilities, samples.classes
    Predictions.of_split(SPLIT, *columns, facts.epoch).write(files.predictions)
    numbers = np.arange(len(samples))
    write_splits(files.rows, samples, numbers, np.full(len(samples), SPLIT), same=numbers)
    write_image_stats(files.images, samples, numbers, [answer.image for answer in answers])
    hashes = [answer.image.pixel_hash for answer in answers]
    warnings = _warnings(model, asked, samples, answers, hashes, len(dropped))
    written = _written(model, asked, samples, hashes, probabilities)
    write_json(files.evaluation, written | {"dropped": dropped, "notes": list(samples.notes), "warnings": warnings})
    return list(samples.notes), warnings


def _written(
    model: Predictor, asked: Asked, samples: Samples, hashes: Sequence[str], probabilities: NDArray[Any]
) -> dict[str, Any]:
    """The content of evaluation.json, see ``sweep.evaluation_records.EvaluationRecord``, without what the caller adds.

    hashes: of the images' pixels. Undefined scores are null.
    """
    thresholds = {name: value for name, value in (model.facts.thresholds or {}).items() if name in samples.classes}
    judged = samples.labels, probabilities, samples.classes, samples.task
    scores = evaluate_predictions(*judged, ordered=model.facts.ordered, thresholds=thresholds or None)
    groups = None if samples.groups is None else len(np.unique(kept_together(samples.groups, len(samples))))
    return {
        "format": FORMAT,
        "name": asked.name,
        "evaluated": now(),
        "command": asked.command,
        "run": None if asked.run_root is None else asked.run_root.resolve().name,
        "model": {"file": str(model.path.absolute()), "sha256": sha256_of(model.path)} | model.facts.to_dict(),
        "data": {"path": samples.path, "kind": samples.kind, "fingerprint": _fingerprint(samples, hashes)},
        "request": asked.config.to_json(),
        "map": asked.renamed,
        "split": asked.split,
        "task": samples.task,
        "classes": list(samples.classes),
        "thresholds": thresholds or None,
        "images": len(samples),
        "counts": samples.counts,
        "groups": {"from": samples.group_from, "count": groups},
        "scores": {key: None if math.isnan(value) else value for key, value in scores.items()},
    }


def _fingerprint(samples: Samples, hashes: Sequence[str]) -> str:
    """sha256 over the pixel hash, the label and the missing labels of each image in order, and the classes."""
    lines = [f"{pixels} {samples.label_text(row)} {samples.missing_text(row)}\n" for row, pixels in enumerate(hashes)]
    return hashlib.sha256(("\n".join(samples.classes) + "".join(lines)).encode()).hexdigest()


def _unreadable(samples: Samples, reasons: Sequence[str | None], *, skip: bool) -> list[dict[str, str]]:
    """The unreadable files with their reasons; ``UserError`` unless they may be skipped and other files are left."""
    pairs = zip(samples.paths, reasons, strict=False)  # Images of an .npz have no files.
    broken = [{"path": name, "reason": reason} for name, reason in pairs if reason is not None]
    if not broken or (skip and len(broken) < len(samples)):
        return broken
    way_out = "repair or remove them" + ("" if skip else ", or skip them with --skip-unreadable")
    shown = shown_problems([f"  {one['path']}: {one['reason']}" for one in broken])
    raise UserError("\n".join([f"{len(broken)} of {len(samples)} image files cannot be read: {way_out}", *shown]))


def _warnings(
    model: Predictor, asked: Asked, samples: Samples, answers: Sequence[Prediction], hashes: Sequence[str], dropped: int
) -> list[str]:
    found = [] if model.warning is None else [model.warning]
    if absent := [name for name in model.facts.classes if name not in samples.classes]:
        found.append(f"The data has no labels for {', '.join(absent)}: not evaluated.")
    found += [f"{one.count:,} left out: {one.why}." for one in samples.left_out]
    if missing := int((samples.labels == MISSING).sum()):
        found.append(f"{missing:,} of {samples.labels.size:,} labels are missing: they are left out of all scores.")
    if dropped:
        found.append(f"{dropped} image file(s) could not be read and were left out (--skip-unreadable).")
    found += _seen_before(asked.run_root, hashes)
    if twice := sum(count > 1 for count in Counter(hashes).values()):
        labelled = {(pixels, samples.label_text(row)) for row, pixels in enumerate(hashes)}
        contradicting = sum(count > 1 for count in Counter(pixels for pixels, _ in labelled).values())
        found.append(f"{twice} image(s) occur more than once, {contradicting} of them with different labels.")
    if empty := [name for name, count in samples.counts.items() if not count]:
        found.append(f"No image is labelled {', '.join(empty)}: scores over all classes are hardly comparable.")
    if coloured := sum(answer.coloured for answer in answers):
        found.append(f"{coloured} colour image(s) were converted to gray: the model was trained on gray images only.")
    if blank := sum(answer.image.blank for answer in answers):
        found.append(f"{blank} image(s) are blank: all pixels are equal.")
    for where, option in [_PATIENTS[one.check] for one in samples.checks if one.check in _PATIENTS]:
        what = f"{where} seem to tell which images are of one patient, and are not used ({option})"
        found.append(f"{what}: these count as independent in the intervals, which may be too narrow.")
    return found


def _seen_before(run_root: Path | None, hashes: Sequence[str]) -> list[str]:
    """Warnings about images that are also in the model's run: their scores say nothing about new images."""
    own = None if run_root is None else own_images(run_root)
    if own is None:
        return ["Whether the model was trained on some of these images is unknown: its run's images are not available."]
    counts = Counter(own[pixels] for pixels in hashes if pixels in own)
    consequences = {
        "train": ("training", "the model was trained on them, so the scores are optimistic"),
        "val": ("validation", "the model was selected on them, so the scores are optimistic"),
        "test": ("test", "this is another look at the test split, not an external validation"),
    }
    return [
        f"{counts[split]} of {len(hashes)} images are identical to {name} images of the run: {consequence}."
        for split, (name, consequence) in consequences.items()
        if counts[split]
    ]


def own_images(run_root: Path) -> dict[str, str] | None:
    """The split of each image of the run, by the hash of its pixels; None if unknown.

    The hashes are read from beside the decoded images, which may have been deleted since.
    """
    paths = RunPaths(run_root)
    try:
        dataset = json.loads(paths.dataset.read_text(encoding="utf-8"))
        stats = [record.stats for record in read_records(Path(dataset["cache"]))]
        if not unchanged(paths.splits, dataset.get("sha256", {})):
            return None
        with paths.splits.open(encoding="utf-8", newline="") as file:
            return {stats[int(row["row"])].pixel_hash: row["split"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, IndexError, TypeError, csv.Error):
        return None


def read_labelled(
    config: DataConfig, classes: Sequence[str], task: str, renamed: dict[str, str], split: str | None
) -> Samples:
    """List the images of ``config`` and map their labels to ``classes``, the model's, after renaming by ``renamed``.

    split: only the rows of this split, an error if there are none; None = all rows. With several label columns, only
    classes with a column of their own are listed, as an empty label would claim absence. No image is opened. Raises
    ``UserError`` with all problems together.
    """
    config, note = apply_preset(config)
    least = config.min_class_images or 0
    if task == "multi_label":  # A label with few images may still be one of the model.
        config = config.model_copy(update={"min_class_images": DataConfig.model_fields["min_class_images"].default})
    samples = _list(config, task)
    samples = dataclasses.replace(samples, notes=(*([note] if note else []), *samples.notes))
    problems = list(samples.problems)
    # A column of names gives a value for every label, also for those that no image has, unless --classes leaves some
    # out; a 0/1 column gives values for its own label only.
    own_columns = {config.class_names.get(name, name) for name in config.label_column}
    of_names = len(config.label_column) == 1 and not config.classes and {*samples.classes} != own_columns
    renamed = {theirs: ours for theirs, ours in renamed.items() if theirs != ours}
    for theirs, ours in renamed.items():
        for side, name, known in (("data", theirs, samples.classes), ("model", ours, classes)):
            if name not in known and (side == "model" or not samples.nothing_to_tell):
                problems.append(f"--map {theirs}={ours}: {unknown(f'class of the {side}', name, known)}")
    if split is not None:
        samples, of_split = _only(samples, split)
        problems += of_split
    names = [renamed.get(name, name) for name in samples.classes]
    # A class without images here (an empty folder, or a class of another split only) needs no mapping.
    places = range(len(names)) if task == "multi_label" else np.flatnonzero(samples.hot.any(axis=0))
    present = [names[place] for place in places]
    strange = [name for name in present if name not in (*classes, *renamed.values())]
    images = dict(zip(names, samples.counts.values(), strict=True))
    if few := [name for name in strange if task == "multi_label" and images[name] < least]:
        note = f"labels unknown to the model with fewer than {least} images are left out: {some(few)}"
        samples = dataclasses.replace(samples, notes=(*samples.notes, note))
    problems += [_stranger(config, task, name, classes) for name in strange if name not in few]
    raise_all(problems)
    hot = np.zeros((len(samples), len(classes)), dtype=np.int8)
    unknown_of = samples.labels == MISSING if samples.labels.ndim == 2 else np.zeros_like(samples.hot)
    for has, missing, name in zip(samples.hot.T, unknown_of.T, names, strict=True):
        if name not in classes:
            continue
        column = hot[:, classes.index(name)]  # several of their classes may map to one of ours: any of them counts
        column[missing & (column == 0)] = MISSING
        column[has] = 1
    if task == "multi_label":
        told = [name for name in classes if name in names or of_names]
        told = [name for name in told if (hot[:, classes.index(name)] != MISSING).any()]
        if not told:
            raise UserError(f"--data {config.data}: no image has a known value for any label of the model")
        return _with(samples, task, hot[:, [classes.index(name) for name in told]], told)
    odd = np.flatnonzero(((hot == 1).sum(axis=1) != 1) | (hot == MISSING).any(axis=1))
    if len(odd):
        shown = ", ".join(samples.paths[row] for row in odd[:5])
        raise UserError(
            f"{len(odd)} of {len(hot)} images have none or several of the labels ({shown}), and the model predicts one "
            "class per image: leave them out, or evaluate a multi-label model"
        )
    return _with(samples, task, (hot == 1).argmax(axis=1).astype(np.int64), classes)


def _with(samples: Samples, task: str, labels: NDArray[Any], classes: Sequence[str]) -> Samples:
    return dataclasses.replace(samples, task=task, labels=labels, classes=tuple(classes), splits=None)


def _list(config: DataConfig, task: str) -> Samples:
    raise_all(config.problems())
    multi_label, place = task == "multi_label", Path(config.data)
    table = config.table is not None or (os.path.isfile(place) and not is_npz(place))
    # 0/1 columns with one 1 per row would also be read as classes; whether they are is checked later.
    asked = {"task": "multi_label"} if multi_label and table and config.task == "auto" else {}
    try:
        samples = list_samples(config.model_copy(update=asked).without({"task"}))
    except OSError as error:
        raise UserError(f"--data {config.data}: {error.filename} cannot be read: {error.strerror}") from None
    if multi_label and samples.kind == "folder":
        raise UserError(
            f"--data {config.data}: the model is multi-label, and a folder gives one class per image: give a table "
            "with the label columns"
        )
    return samples


def _only(samples: Samples, split: str) -> tuple[Samples, list[str]]:
    wanted = SPLIT_WORDS.get(split.lower())
    if wanted is None:
        return samples, [f"--split: {unknown('split', split, SPLIT_WORDS)}"]
    if samples.splits is None:
        return samples, [f"--split {split}: {samples.path} has no splits: omit it to use all images"]
    rows = np.flatnonzero(np.array(samples.splits) == wanted).astype(np.int64)
    return samples.subset(rows), [] if len(rows) else [f"--split {split}: no image of {samples.path} is in it"]


def _stranger(config: DataConfig, task: str, name: str, classes: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in classes], n=1)
    like = next((one for one in classes if near and one.lower() == near[0]), "CLASS")
    others = "read the classes from the paths with --class-from REGEX, or leave its images out"
    if task == "multi_label":
        others = f"declare it no finding with --no-finding {name!r}, or list the labels to evaluate with --classes"
    return (
        f"--data {config.data}: {name!r} is not a class of the model, which has {', '.join(classes)}: map it with "
        f"--map {name!r}={like}, {others}"
    )


def _renamed(pairs: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The pairs of --map, and one sentence for each that is malformed or contradictory."""
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
    """The run folder that ``place`` is, or that has the ``models/best.pt`` at ``place``; None without one."""
    root = place.absolute().parent.parent if os.path.isfile(place) else place
    return root if os.path.isfile(RunPaths(root).sweep) else None


def _default_out(run_root: Path | None, data: str) -> Path | None:
    """A new folder in the run, named after the data; None without a run."""
    if run_root is None:
        return None
    place = Path(data).absolute()
    name = place.parent.name if place.stem.lower() == "manifest" else place.stem
    name = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"
    folder = RunPaths(run_root).external
    free = (folder / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(one for one in free if not os.path.lexists(one))


def _out_problems(out: Path | None) -> list[str]:
    if out is None:
        return ["--out FOLDER is required, as the model is not in a run folder"]
    if os.path.lexists(out):
        return [f"--out {out}: exists already: give a new folder"]
    try:
        check_writable(out)
    except OSError as error:
        return [f"--out {shortened(out)} cannot be written: {error.strerror}"] if not unreachable(out) else []
    return []


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder that is renamed to ``out`` on success and removed otherwise."""
    try:
        with folder_beside(out) as folder:
            yield folder
            os.rename(folder, out)
    except OSError as error:
        raise UserError(f"--out {out} could not be written: {reason_of(error)}") from error


if __name__ == "__main__":
    leave_with(main)
