"""``python -m reports.external FOLDER``: the page of an external evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd

from reports import formats, intervals, probabilities, render
from reports.blocks import Block, Chapter, Code, Facts, Headline, Note, Table, Text, columns
from reports.chapters.calibration import blocks as calibration_blocks
from reports.chapters.discrimination import MEANING, areas_table, curves
from reports.chapters.errors import confusion_figure, operating_table, subgroups
from reports.chapters.examples import truth_and_decisions
from reports.comparisons import ExternalResult
from reports.conclusion import conclude
from reports.intervals import Interval, interval
from search_spaces.errors import UserError
from search_spaces.paths import path_of
from sweep.endings import DONE, leave_with, run_command
from sweep.evaluation_records import read_evaluation
from trainables.atomic import write_atomically
from trainables.metrics import UNTUNED, confusion_matrix

SPLIT = "external"
OVERALL = ("accuracy", "balanced_accuracy", "f1_macro", "mcc", "kappa", "hamming_accuracy", "auroc_macro", "ap_macro")
MOST_MISTAKES = 25


def build(root: Path) -> list[str]:
    """Write report.html, report.md, tables/ and figures/ into the folder of an evaluation.

    Also conclusion.json, for which it reads the run that the model is from. Returns the result as lines of text.
    Raises ``UserError`` if the folder is no evaluation, or cannot be written to.
    """
    result = ExternalResult(read_evaluation(root))
    try:
        conclude(result)
    except OSError as error:
        conclusion = result.evaluation.paths.conclusion
        raise UserError(f"{conclusion} cannot be written ({error.strerror}): make room") from error
    paths = result.evaluation.paths
    chapters = tuple(Chapter(key, title, tuple(blocks)) for key, title, make in CHAPTERS if (blocks := make(result)))
    page = render.Page(
        title=f"External evaluation on {result.facts.name}",
        subtitle=f"{result.images.names[0]} · {len(result.images.paths):,} images",
        chapters=chapters,
    )
    files = render.page_files(page, paths.page.name)
    try:
        for name, content in files.items():
            write_atomically(paths.root / name, methodcaller("write_bytes", content))
    except OSError as error:
        raise UserError(f"the report {paths.page} cannot be written ({error.strerror}): make room") from error
    return in_lines(result)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: see ``run_command``; 2 if the folder is no evaluation."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.external", description="Write the page of an external evaluation anew."
    )
    parser.add_argument("folder", metavar="FOLDER", help="what python -m sweep.evaluate wrote")

    def made(arguments: list[str]) -> int:
        print("\n".join(build(path_of("FOLDER", parser.parse_args(arguments).folder))))
        return DONE

    return run_command(made, argv)


def in_lines(result: ExternalResult) -> list[str]:
    """The result as lines for a terminal."""
    counts = ", ".join(f"{name} {count:,}" for name, count in result.facts.counts.items())
    lines = [f"{result.size}: {counts}"]
    lines += [f"{name}: {text}" for name, text in overall(result)]
    main_score = intervals.below([(result.scores, result.main_score)])
    return [*lines, main_score] if main_score else lines


def overall(result: ExternalResult) -> list[tuple[str, str]]:
    """The scores over all classes with their intervals, as pairs of a name and text; without those undefined here."""
    hidden = {"f1_macro", "balanced_accuracy"} if result.absent else set()
    hidden |= {"mcc", "kappa", "balanced_accuracy"} if result.only or result.one_sided else set()
    return [
        (result.name_of(key), intervals.as_text(interval(result.scores, key)))
        for key in OVERALL
        if key in result.scores.estimate and key not in hidden and not intervals.is_undefined(result.scores, key)
    ]


def mistakes(result: ExternalResult) -> pd.DataFrame:
    """One row per mistake, most confident first: image, labelled, decided, probability (of what was decided)."""
    part, several = result.evaluation.predictions, result.images.multi_label
    truth, decided, known = truth_and_decisions(part, result.tuned)
    rows, places = np.nonzero(known & (decided != truth) if several else decided & ~truth)
    names, given = np.array(part.classes, dtype=object), part.probability[rows, places].astype(np.float64)
    labelled, answer = names[truth.argmax(axis=1)[rows]], names[places]
    if several:
        labelled, answer = (np.where(of[rows, places], answer, "no " + answer) for of in (truth, decided))
        given = np.where(decided[rows, places], given, 1 - given)
    columns = {"image": part.path[rows], "labelled": labelled, "decided": answer, "probability": given}
    return pd.DataFrame(columns).sort_values("probability", ascending=False, kind="stable", ignore_index=True)


def _summary(result: ExternalResult) -> list[Block]:
    main_score, facts = result.main_score, result.facts
    conclusion = result.conclusion
    blocks: list[Block] = []
    if warnings := (*conclusion.warnings, *facts.warnings):
        blocks.append(Note("warning", "Read before the scores:", warnings))
    value = intervals.as_text(interval(result.scores, main_score))
    label = f"{formats.capital(result.name_of(main_score))} on {result.size} of {facts.name}"
    meaning = formats.METRIC_MEANINGS[main_score.partition(":")[0]]
    detail = f"{formats.capital(meaning)}. {intervals.below([(result.scores, main_score)])}"
    scores = Facts(tuple((formats.capital(name), text) for name, text in overall(result)), tiles=True)
    compared = formats.escape(conclusion.sentence)
    decided, what = Text(_decided(result)), Facts(tuple(_what(result)))
    return [*blocks, Headline(value, label, detail), Text(compared), scores, decided, what]


def _decided(result: ExternalResult) -> str:
    point = result.facts.model.operating_point
    at = f" Operating point: {formats.escape(point.words)}." if point is not None else ""
    if not result.images.multi_label:
        other = " Below the threshold, the likeliest other class is predicted." if result.tuned else ""
        return at.lstrip() + other if result.tuned else f"The model predicts the likeliest class.{at}"
    how = "its threshold, tuned on the sweep's validation images" if result.tuned else "a probability of 0.5"
    return f"A label is predicted at or above {how}.{at} Exact match is the share of images with every label correct."


def _what(result: ExternalResult) -> list[tuple[str, str]]:
    facts, model = result.facts, result.facts.model
    of_run = f" of the run {facts.run}" if facts.run else ""
    rows = [
        ("Model", f"{model.trial}{of_run}, {model.backbone} at {model.image_size} px"),
        ("Images", str(facts.data.path) + (f", split {facts.split}" if facts.split else "")),
        ("Classes", ", ".join(f"{name} {count:,}" for name, count in facts.counts.items())),
    ]
    if facts.renamed:
        rows.append(("Renamed", ", ".join(f"{theirs} is {ours}" for theirs, ours in facts.renamed.items())))
    if facts.dropped:
        rows.append(("Excluded", f"{len(facts.dropped):,} files that cannot be read (evaluation.json lists them)"))
    return rows


def _errors(result: ExternalResult) -> list[Block]:
    images = result.images
    decided = images.labels, images.probabilities[0], images.classes, result.facts.task, result.tuned
    counts = confusion_matrix(*decided)
    points = probabilities.operating_points(images, result.tuned, None)
    rows, titles = [], {"F1_shown": "F1"}
    of_own = {one.name: one for one in result.conclusion.classes}
    for name in result.with_f1:
        row = {"class": name} | intervals.cells(result.scores, {"F1": f"f1:{name}"})
        if (one := of_own.get(name)) is not None:
            own, less = one.own, one.difference
            row |= {"own": own.estimate, "own_low": own.low, "own_high": own.high}
            row |= {"difference": less.estimate, "low": less.low, "high": less.high}
            row["own_shown"] = intervals.as_text(Interval(own.estimate, own.low, own.high))
            row["difference_shown"] = formats.difference(less.estimate, less.low, less.high)
        rows.append(row)
    if of_own:
        split = formats.SPLIT_NAMES[result.conclusion.own_split or "val"]
        titles |= {"own_shown": f"F1 on the run's own {split} images", "difference_shown": "difference (95 %)"}
    caption = intervals.below((result.scores, f"f1:{name}") for name in result.with_f1)
    f1 = [Table("f1", caption, pd.DataFrame(rows), columns("class", **titles))] if rows else []
    text = "PPV and NPV depend on the class frequencies of these images and differ elsewhere."
    at = "its threshold" if result.tuned else f"a probability of {UNTUNED}"
    figure = confusion_figure(counts, images.classes, SPLIT, at=at)
    return [figure, Text(text), operating_table(points, SPLIT), *f1]


def _discrimination(result: ExternalResult) -> list[Block]:
    if result.only:
        return []
    images, scores = result.images, result.scores
    return [Text(MEANING), curves(images, scores, None, SPLIT), areas_table(images, scores, SPLIT)]


def _calibration(result: ExternalResult) -> list[Block]:
    if result.only:
        return []
    found = probabilities.calibration(result.images, result.scores, result.tuned)
    return [*calibration_blocks(found, SPLIT, "", result.size)]


def _subgroups(result: ExternalResult) -> list[Block]:
    """[] if no subgroup column was given."""
    scored = probabilities.subgroup_scores(result.images, result.evaluation.rows, result.tuned)
    if scored is None:
        return []
    text, table = subgroups(*scored, SPLIT)
    return [Text(text), table]


def _mistakes(result: ExternalResult) -> list[Block]:
    frame = mistakes(result)
    if frame.empty:
        return [Text("There are no mistakes.")]
    caption = f"The {min(len(frame), MOST_MISTAKES)} most confident of {len(frame):,} wrong predictions."
    shown = columns("image", "labelled", "decided", probability="predicted probability")
    return [Table("mistakes", caption, frame.head(MOST_MISTAKES), shown)]


def _reproducibility(result: ExternalResult) -> list[Block]:
    facts = result.facts
    rows = (
        ("Model file", str(facts.model.file)),
        ("Its SHA-256", str(facts.model.sha256)),
        ("Data fingerprint", str(facts.data.fingerprint)),
        ("Evaluated", str(facts.evaluated)),
    )
    text = Text("Repeat the evaluation with this command on the same images and model file:")
    return [text, Code(f"python -m sweep.evaluate {facts.command}"), Facts(rows)]


# id, title, blocks (none: the chapter does not apply)
CHAPTERS: tuple[tuple[str, str, Callable[[ExternalResult], list[Block]]], ...] = (
    ("summary", "Summary", _summary),
    ("errors", "Confusion", _errors),
    ("discrimination", "Discrimination", _discrimination),
    ("calibration", "Calibration", _calibration),
    ("subgroups", "Subgroups", _subgroups),
    ("mistakes", "Mistakes", _mistakes),
    ("reproducibility", "Reproducibility", _reproducibility),
)

if __name__ == "__main__":
    leave_with(main)
