"""What may be wrong with a data set, found before anything trains: facts in, findings out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainables.data.image_stats import ImageStats
from trainables.data.near_duplicates import LEAST_CORRELATION, MOST_BITS, MOST_PAIRS, NearPair
from trainables.data.samples import MOST_ITEMS, Finding, Samples

Names = npt.NDArray[np.str_]

FEW_TRAINING_IMAGES = 10
FEW_VALIDATION_IMAGES = 30
MANY_SUBGROUPS = 20
STRONG_ASSOCIATION = 0.5


def examine(listing: Samples, facts: Sequence[ImageStats], near: Sequence[NearPair], splits: Names) -> list[Finding]:
    """All findings about readable images: ``listing``, ``facts`` and ``splits`` have the same rows, ``near`` numbers
    them. Errors first, then warnings, then the rest.
    """
    found = [
        *_exact_duplicates(listing, facts, splits),
        *_groups_across(listing, splits),
        *_near_duplicates(listing, near, splits),
        *_small_counts(listing, splits),
        *_source_against_label(listing),
        *_oddities(listing, facts),
    ]
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.severity))


def unreadable(listing: Samples, facts: Sequence[ImageStats]) -> list[Finding]:
    """An error with one item ``[path, reason]`` a file, if any file cannot be read."""
    items = [(path, fact.reason) for path, fact in zip(listing.paths, facts, strict=True) if fact.reason is not None]
    if not items:
        return []
    message = f"{len(items)} of {len(listing)} image files cannot be read"
    return [Finding("unreadable", "error", message, len(items), tuple(items[:MOST_ITEMS]))]


def _exact_duplicates(listing: Samples, facts: Sequence[ImageStats], splits: Names) -> list[Finding]:
    """Files whose decoded pixels are equal at full size, whatever their bytes."""
    same: dict[str, list[int]] = defaultdict(list)
    for row, fact in enumerate(facts):
        if not fact.blank:
            same[fact.pixel_hash].append(row)
    sets = [rows for rows in same.values() if len(rows) > 1]
    across = [rows for rows in sets if len({str(splits[row]) for row in rows}) > 1]
    within = [rows for rows in sets if len({str(splits[row]) for row in rows}) == 1]
    two_labels = [rows for rows in sets if len({listing.label_text(row) for row in rows}) > 1]
    return [
        *_finding("duplicates_across_splits", "error", across, listing, "image(s) stand in more than one split"),
        *_finding("two_labels", "warning", two_labels, listing, "image(s) stand there twice with different labels"),
        *_finding("duplicates", "warning", within, listing, "image(s) stand more than once in one split"),
    ]


def _groups_across(listing: Samples, splits: Names) -> list[Finding]:
    if listing.groups is None:
        return []
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(listing.groups):
        if group:
            rows_of[group].append(row)
    across = []
    for rows in rows_of.values():
        first_of = {str(splits[row]): row for row in reversed(rows)}
        if len(first_of) > 1:
            across.append(sorted(first_of.values()))
    unknown = [[row] for row, group in enumerate(listing.groups) if not group]
    column = repr(listing.group_column)
    stand, single = f"group(s) of column {column} stand in more than one split", f"row(s) have no value in {column}"
    return [
        *_finding("groups_across_splits", "error", across, listing, stand),
        *_finding("group_unknown", "warning", unknown, listing, f"{single}: each counts as a group of its own"),
    ]


def _near_duplicates(listing: Samples, near: Sequence[NearPair], splits: Names) -> list[Finding]:
    across = [[pair.first, pair.second] for pair in near if splits[pair.first] != splits[pair.second]]
    within = [[pair.first, pair.second] for pair in near if splits[pair.first] == splits[pair.second]]
    alike = f"look nearly the same (pHash within {MOST_BITS} bits, correlation >= {LEAST_CORRELATION})"
    if len(near) >= MOST_PAIRS:
        alike += f"; the search ended at {MOST_PAIRS:,} pairs"
    between = f"pair(s) of images in different splits {alike}"
    return [
        *_finding("near_duplicates_across_splits", "warning", across, listing, between),
        *_finding("near_duplicates", "info", within, listing, f"pair(s) of images within a split {alike}"),
    ]


def _small_counts(listing: Samples, splits: Names) -> list[Finding]:
    found = []
    hot = listing.labels if listing.labels.ndim == 2 else listing.labels[:, None] == np.arange(len(listing.classes))
    for name, count in zip(listing.classes, hot[splits == "train"].sum(axis=0), strict=True):
        if 0 < count < FEW_TRAINING_IMAGES:
            message = f"class {name!r} has {count} training image(s): too few to learn from or to judge by"
            found.append(Finding("tiny_class", "warning", message, int(count)))
    for split in ("val", "test"):
        count = int((splits == split).sum())
        if 0 < count < FEW_VALIDATION_IMAGES:
            message = f"{split} has {count} image(s): its scores will be coarse"
            found.append(Finding("tiny_split", "warning", message, count))
    if (splits == "test").any():
        absent = hot[splits == "test"].sum(axis=0) == 0
        names = [name for name, is_absent in zip(listing.classes, absent, strict=True) if is_absent]
        found += [Finding("missing_class", "warning", f"class {name!r} has no image in test", 0) for name in names]
    return found


def _source_against_label(listing: Samples) -> list[Finding]:
    """A class that comes from one source can be told by the source (scanner, hospital) alone."""
    if listing.sources is None:
        return []
    sources = np.unique(listing.sources, return_inverse=True)[1]
    strength = 0.0
    targets = [listing.labels] if listing.labels.ndim == 1 else list(listing.labels.T)
    for target in targets:
        strength = max(strength, cramers_v(np.asarray(target, dtype=np.int64), sources))
    severity = "warning" if strength >= STRONG_ASSOCIATION else "info"
    message = f"label and source go together with Cramer's V = {strength:.2f} (0 = not at all, 1 = wholly)"
    if severity == "warning":
        message += ": a network may learn the source instead of the finding"
    return [Finding("source_by_class", severity, message, len(listing))]


def cramers_v(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> float:
    """Cramer's V of two categories, 0..1 (Cramer 1946, without bias correction); 0 if one of them is constant."""
    table = np.zeros((int(first.max()) + 1, int(second.max()) + 1))
    np.add.at(table, (first, second), 1)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    chi2 = ((table - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi2 / (table.sum() * (min(table.shape) - 1))))


def _oddities(listing: Samples, facts: Sequence[ImageStats]) -> list[Finding]:
    blank = [[row] for row, fact in enumerate(facts) if fact.blank]
    frames = [[row] for row, fact in enumerate(facts) if fact.frames > 1]
    colour = [[row] for row, fact in enumerate(facts) if not fact.gray]
    mixed = colour if 0 < len(colour) < len(facts) else []
    found = [
        *_finding("blank", "warning", blank, listing, "image(s) are blank: all pixels are equal"),
        *_finding("frames", "info", frames, listing, "file(s) hold several frames: the first is used"),
        *_finding("mixed_colour", "info", mixed, listing, f"of {len(facts)} images are coloured, the rest gray"),
    ]
    alike: dict[str, list[str]] = defaultdict(list)
    for name in listing.classes:
        alike[" ".join(name.lower().replace("_", " ").replace("-", " ").split())].append(name)
    for names in alike.values():
        if len(names) > 1:
            message = f"classes {', '.join(map(repr, names))} differ only in case or spacing: are they one?"
            found.append(Finding("similar_classes", "warning", message, len(names)))
    for column, values in listing.subgroups.items():
        count = len(set(values))
        if count > MANY_SUBGROUPS:
            message = f"subgroup column {column!r} has {count} different values: few images in each"
            found.append(Finding("many_subgroups", "warning", message, count))
    return found


def _finding(check: str, severity: str, sets: Sequence[Sequence[int]], listing: Samples, what: str) -> list[Finding]:
    """A finding with an item for each set of rows; nothing if there are none."""
    if not sets:
        return []
    items = tuple(tuple(listing.paths[row] for row in rows) for rows in sets[:MOST_ITEMS])
    return [Finding(check, severity, f"{len(sets)} {what}", len(sets), items)]
