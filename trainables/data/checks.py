"""Check a data set before anything trains: samples and facts about their images in, check results out."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trainables.data.image import ImageStats
from trainables.data.near_duplicates import LEAST_CORRELATION, NearPairs
from trainables.data.samples import MISSING, MOST_ITEMS, CheckResult, Samples, class_counts, rows_by

Names = npt.NDArray[np.str_]

FEW_TRAINING_IMAGES = 10
FEW_VALIDATION_IMAGES = 30
MANY_NUMBERS = 20
MANY_SUBGROUPS = 20
STRONG_ASSOCIATION = 0.5
NEAR_ACROSS_SPLITS = "near_duplicates_across_splits"  # of these the report shows both images


def examine(samples: Samples, stats: Sequence[ImageStats], near: NearPairs, splits: Names) -> list[CheckResult]:
    """All results about readable images; errors first, then warnings, then the rest. ``samples``, ``stats`` and
    ``splits`` have the same rows; the pairs of ``near`` are numbers of these rows.
    """
    found = [
        *equal_images(samples, equal_pixels(stats), splits),
        *groups_across(samples, splits),
        *_near_duplicates(samples, near, splits),
        *small_counts(samples, splits),
        *_source_against_label(samples),
        *_oddities(samples, stats),
    ]
    return sorted(found, key=lambda result: ("error", "warning", "info").index(result.severity))


def unreadable_files(dropped: Sequence[Mapping[str, str]], images: int) -> list[CheckResult]:
    """An error with one item ``[path, reason]`` for each of ``dropped``, if there are any. images: all of them."""
    items = tuple((one["path"], one["reason"]) for one in dropped[:MOST_ITEMS])
    message = f"{len(dropped)} of {images} image files cannot be read"
    return [CheckResult("unreadable", "error", message, len(dropped), items)] if dropped else []


def equal_pixels(stats: Sequence[ImageStats]) -> list[str]:
    """Equal for images of equal pixels at full size, whatever the bytes of the files; a blank one equals no other."""
    return [str(row) if one.blank else one.pixel_hash for row, one in enumerate(stats)]


def equal_images(samples: Samples, keys: Iterable[Hashable], splits: Names) -> list[CheckResult]:
    """Results about images of equal keys. keys: one per image."""
    sets = [rows for rows in rows_by(keys).values() if len(rows) > 1]
    across = [rows for rows in sets if len(set(splits[rows])) > 1]
    within = [rows for rows in sets if len(set(splits[rows])) == 1]
    two_labels = [rows for rows in sets if _contradict(samples.labels[rows])]
    return [
        *_copied_classes(samples, two_labels),
        *_result("duplicates_across_splits", "error", across, samples, "image(s) are in more than one split"),
        *_result("two_labels", "warning", two_labels, samples, "image(s) occur twice with different labels"),
        *_result("duplicates", "warning", within, samples, "image(s) occur more than once in one split"),
    ]


def _copied_classes(samples: Samples, two_labels: Sequence[Sequence[int]]) -> list[CheckResult]:
    """An error about classes all of whose images are in another class, too: a copied folder is no class."""
    twice = np.zeros(len(samples), dtype=bool)
    twice[[row for rows in two_labels for row in rows]] = True
    counts = [class_counts(labels, len(samples.classes)).tolist() for labels in (samples.labels, samples.labels[twice])]
    copied = [name for name, count, also in zip(samples.classes, *counts, strict=True) if count == also > 1]
    message = f"every image of {' and of '.join(map(repr, copied))} is also in another class"
    single = samples.task == "single_label"
    return [CheckResult("copied_classes", "error", message, len(copied))] if copied and single else []


def _contradict(labels: npt.NDArray[np.int64]) -> bool:
    """Whether labels of one image, [n] or [n, classes], cannot all be right; a missing label contradicts none."""
    if labels.ndim == 1:
        return len(set(labels.tolist())) > 1
    return bool(((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any())


def groups_across(samples: Samples, splits: Names) -> list[CheckResult]:
    """Results about groups in several splits, with one row of each split, and about rows without a group."""
    groups = rows_by(samples.groups or ())
    unknown = groups.pop("", [])
    firsts = [sorted({str(splits[row]): row for row in reversed(rows)}.values()) for rows in groups.values()]
    across = [rows for rows in firsts if len(rows) > 1]
    column = repr(samples.group_from)
    several, single = f"group(s) of {column} are in more than one split", f"row(s) have no value in {column}"
    single += ": each counts as its own group"
    return [
        *_result("groups_across_splits", "error", across, samples, several),
        *_result("group_unknown", "warning", [[row] for row in unknown], samples, single),
    ]


def _near_duplicates(samples: Samples, near: NearPairs, splits: Names) -> list[CheckResult]:
    pairs = sorted(near.pairs, key=lambda pair: -pair.correlation)
    across = [[pair.first, pair.second] for pair in pairs if splits[pair.first] != splits[pair.second]]
    within = [[pair.first, pair.second] for pair in pairs if splits[pair.first] == splits[pair.second]]
    alike = f"seem to be one film: after registration, their details correlate by {near.least} or more"
    between = f"pair(s) of images in different splits {alike}"
    blunt = (
        f"all images of this set are so similar that only a correlation of {near.least} distinguishes near duplicates"
    )
    blunt += " from other pairs: films that were cropped, shifted or compressed may be missed"
    cut = f"the search for near duplicates was limited: the {near.skipped:,} least similar candidate pairs were not"
    cut += " compared in detail"
    return [
        *([CheckResult("near_duplicates_cut", "warning", cut, near.skipped)] if near.skipped else []),
        *([CheckResult("near_duplicates_blunt", "info", blunt, 0)] if near.least > LEAST_CORRELATION else []),
        *_result(NEAR_ACROSS_SPLITS, "warning", across, samples, between),
        *_result("near_duplicates", "info", within, samples, f"pair(s) of images within a split {alike}"),
    ]


def small_counts(samples: Samples, splits: Names) -> list[CheckResult]:
    found = doubtful_classes(samples)
    labels, classes = samples.labels, len(samples.classes)
    counts = {split: class_counts(labels[splits == split], classes).tolist() for split in ("train", "test")}
    for name, count in zip(samples.classes, counts["train"], strict=True):
        if 0 < count < FEW_TRAINING_IMAGES:
            message = f"class {name!r} has {count} training image(s): too few to train on or to evaluate"
            found.append(CheckResult("tiny_class", "warning", message, count))
    for split in ("val", "test"):
        count = int((splits == split).sum())
        if 0 < count < FEW_VALIDATION_IMAGES:
            message = f"{split} has {count} image(s): its scores will be imprecise"
            found.append(CheckResult("tiny_split", "warning", message, count))
    absent = [name for name, count in zip(samples.classes, counts["test"], strict=True) if not count]
    if (splits == "test").any():
        found += [CheckResult("missing_class", "warning", f"class {name!r} has no image in test", 0) for name in absent]
    return found


def doubtful_classes(samples: Samples) -> list[CheckResult]:
    """Warnings about class names that may mean one class, and about numbers that may be measurements."""
    found, classes = [], samples.classes
    spelled = (" ".join(name.lower().replace("_", " ").replace("-", " ").split()) for name in classes)
    for alike in rows_by(spelled).values():
        if len(alike) > 1:
            names = ", ".join(repr(classes[place]) for place in alike)
            message = f"classes {names} differ only in case or spacing: are they the same class?"
            found.append(CheckResult("similar_classes", "warning", message, len(alike)))
    few = len(samples) < FEW_TRAINING_IMAGES * len(classes)
    if few and len(classes) > MANY_NUMBERS and all(re.fullmatch(r"-?\d+", name) for name in classes):
        message = (
            f"the classes are {len(classes)} different numbers, such as {classes[0]} and {classes[-1]}: are they "
            "measurements (an age, a score)? Each is treated as a class, as there is no regression"
        )
        found.append(CheckResult("numbers_as_classes", "warning", message, len(classes)))
    return found


def _source_against_label(samples: Samples) -> list[CheckResult]:
    """How strongly label and source are associated: a source (scanner, hospital) may reveal the class by itself."""
    if samples.sources is None:
        return []
    sources = np.unique(samples.sources, return_inverse=True)[1]
    targets = np.atleast_2d(samples.labels.T).astype(np.int64)
    strength = max(cramers_v(target[target != MISSING], sources[target != MISSING]) for target in targets)
    message = f"label and source are associated with Cramer's V = {strength:.2f} (0 = none, 1 = complete)"
    strong = strength >= STRONG_ASSOCIATION
    message += ": a network may learn the source instead of the finding" if strong else ""
    return [CheckResult("source_by_class", "warning" if strong else "info", message, len(samples))]


def cramers_v(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Cramer's V of two categories, 0..1 (Cramer 1946, without bias correction); 0 if one is constant or empty."""
    # Imported here: few sets have sources.
    from scipy.stats.contingency import association, crosstab

    table = crosstab(first, second).count
    return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0


def _oddities(samples: Samples, stats: Sequence[ImageStats]) -> list[CheckResult]:
    def rows(odd: Iterable[bool]) -> list[list[int]]:
        return [[row] for row, is_odd in enumerate(odd) if is_odd]

    colour = rows(not one.gray for one in stats)
    mixed = colour if len(colour) < len(stats) else []
    blank, frames = rows(one.blank for one in stats), rows(one.frames > 1 for one in stats)
    found = [
        *_result("blank", "warning", blank, samples, "image(s) are blank: all pixels are equal"),
        *_result("frames", "info", frames, samples, "file(s) contain several frames: the first is used"),
        *_result("mixed_colour", "info", mixed, samples, f"of {len(stats)} images are in colour, the rest are gray"),
    ]
    for column, values in samples.subgroups.items():
        count = len(set(values))
        if count > MANY_SUBGROUPS:
            message = f"subgroup column {column!r} has {count} different values: few images in each"
            found.append(CheckResult("many_subgroups", "warning", message, count))
    return found


def _result(check: str, severity: str, sets: Sequence[Sequence[int]], samples: Samples, what: str) -> list[CheckResult]:
    """A result with an item for each set of rows; [] if there are no sets."""
    items = tuple(tuple(samples.paths[row] for row in rows) for rows in sets[:MOST_ITEMS])
    return [CheckResult(check, severity, f"{len(sets)} {what}", len(sets), items)] if sets else []
