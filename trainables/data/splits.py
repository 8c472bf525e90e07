"""Assign images to train, val, test and folds: functions of arrays that give the same result for the same seed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces.errors import UserError, some
from trainables.atomic import write_text
from trainables.data.samples import class_counts

SHARE = 0.15  # of validation, and of test
GIVEN, SEEDED, VAL_FROM_TRAIN = "given", "seeded", "val taken from train"
_ATTEMPTS = 20
_MANY_GROUPS = 20_000
_RARE = 7

Ints = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Assignment:
    """splits: str [n] of "train", "val", "test". origin: "given", "seeded" or "val taken from train"."""

    splits: Names
    origin: str


def assign_splits(
    given: Sequence[str] | None,
    labels: npt.NDArray[Any],
    groups: Sequence[str] | None,
    seed: int,
    same: Ints | None = None,
) -> Assignment:
    """Use the given splits; draw those that are missing, stratified by label and without dividing a group.

    labels: int64 [n], or multi-hot [n, classes] (stratified by combination, rare ones merged by their rarest label).
    groups: [n] or None; "" is a group of its own. same: int64 [n], equal for equal images: they stay together, too.
    No split given: about 70 / 15 / 15 (groups and rare labels may shift it). No val given: 15 % of train. No test
    given: there is none. Raises ``UserError`` without rows to train on, or with fewer groups than splits to draw.
    """
    strata, units = label_strata(labels), kept_together(groups, len(labels), same)
    if given is None:
        return Assignment(_draw(("val", "test"), labels, strata, units, seed), SEEDED)
    splits = np.array(given, dtype="<U5")
    if not (splits == "train").any():
        raise UserError("no image is in train: give rows or a folder named 'train'")
    if (splits == "val").any():
        return Assignment(splits, GIVEN)
    rows = np.flatnonzero(splits == "train")
    splits[rows] = _draw(("val",), labels[rows], strata[rows], units[rows], seed)
    return Assignment(splits, VAL_FROM_TRAIN)


def missing_classes(
    labels: npt.NDArray[Any], assignment: Assignment, classes: Sequence[str], groups: Sequence[str] | None = None
) -> list[str]:
    """Why a class cannot be learned and evaluated: it has no image in train or val, or all images there have it.

    groups: as in ``assign_splits``. If val was drawn, one sentence names all classes that are too rare.
    """
    parts = {split: assignment.splits == split for split in ("train", "val", "test")}
    counts = {split: class_counts(labels[rows], len(classes)).tolist() for split, rows in parts.items()}
    has = {split: dict(zip(classes, of_split, strict=True)) for split, of_split in counts.items()}
    given = {"train": [name for name in classes if not has["train"][name] + has["val"][name]]}
    drawn: list[str] = []
    if assignment.origin == GIVEN:
        given = {split: [name for name in classes if not has[split][name]] for split in ("train", "val")}
    else:
        drawn = [
            name for name in classes if name not in given["train"] and not (has["train"][name] and has["val"][name])
        ]
    problems = [
        f"class {name!r} has no image in {split}, which has {int(parts[split].sum())} images: every class must be "
        "in train and val; list those to keep in --classes"
        for split, names in given.items()
        for name in names
    ]
    untested = [name for name in classes if not has["test"][name]]
    if assignment.origin != SEEDED and given["train"] and untested and parts["test"].any():
        problems.append(
            f"test has {', '.join(given['train'][:5])} where train has {', '.join(untested[:5])}: if these are the "
            "same classes, give them one name with class_names in your own preset, or with --class-from"
        )
    if drawn:
        problems.append(_too_rare(drawn, labels, classes, groups))
    for split in ("train", "val"):
        known = labels[parts[split]] != -1
        for place, name in enumerate(classes if labels.ndim == 2 else ()):
            if (count := has[split][name]) and count == known[:, place].sum():
                what = "learned" if split == "train" else "evaluated"
                problems.append(f"label {name!r} is set for all {count} images in {split}: it cannot be {what}")
    return problems


def _too_rare(
    drawn: Sequence[str], labels: npt.NDArray[Any], classes: Sequence[str], groups: Sequence[str] | None
) -> str:
    """Name the classes that the draw could not put into train and val, and how to continue without them."""
    images = dict(zip(classes, class_counts(labels, len(classes)).tolist(), strict=True))
    units = kept_together(groups, len(labels))
    several = dict(zip(classes, _units_of_classes(labels, units, len(classes)), strict=True))
    rare = [name for name in classes if several[name] < 3 or name in drawn]
    named = [
        f"{name} ({images[name]} image{'s' if images[name] != 1 else ''}"
        + (f" of {several[name]} group{'s' if several[name] != 1 else ''})" if several[name] < images[name] else ")")
        for name in rare
    ]
    left = [name for name in classes if name not in rare]
    smallest = min((images[name] for name in left), default=0)
    if len(left) < 2:
        way = "hardly any class is left: check that these are classes, or give --label-column, --class-from or a table"
    else:
        keep = ",".join(left) if len(left) <= 10 else f"{','.join(left[:10])},..."
        least = max(3, *(images[name] + 1 for name in rare))
        by_count = f"leave out small classes with --min-class-images {least}, or " if least <= smallest else ""
        way = f"{by_count}list those to keep: --classes {keep}"
    return f"too rare to be in train, val and test: {some(named)}; {way}"


def write_folds(splits: Path, folds: Sequence[Path], classes: Sequence[str], seed: int) -> None:
    """Write for each of ``folds`` a file like ``splits`` in which its part of train + val is "val", the rest "train".

    Stratified by label (by combination if there are several) and grouped: no group and no set of equal images is
    divided. Test rows stay as they are. Raises ``UserError`` if a class cannot be in train and val of every fold.
    """
    rows = pd.read_csv(splits, dtype=str, keep_default_na=False)
    mine = rows["split"].isin(["train", "val"])
    same = kept_together(list(rows["equal"][mine]), int(mine.sum())) if "equal" in rows else None
    fold_of = assign_folds(list(rows["label"][mine]), list(rows["group"][mine]), classes, len(folds), seed, same)
    for fold, path in enumerate(folds):
        rows.loc[mine, "split"] = np.where(fold_of == fold, "val", "train")
        write_text(path, rows.to_csv(index=False, lineterminator="\n"))


def assign_folds(
    labels: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    count: int,
    seed: int,
    same: Ints | None = None,
) -> Ints:
    """int64 [n]: the fold, 0 to ``count`` - 1, of each row; names of groups have no influence.

    labels: names separated by "|"; groups: "" is a group of its own. same: int [n], equal for equal images.

    Raises ``UserError`` if a class is missing from train or val of a fold: then there are too few of its groups.
    """
    # The name of a single label may contain a "|".
    place_of = {name: place for place, name in enumerate(classes)}
    held = ([label] if label in place_of else label.split("|") for label in labels)
    places = [[place_of[name] for name in names if name in place_of] for names in held]
    hot = np.zeros((len(labels), len(classes)), dtype=bool)
    hot[np.repeat(np.arange(len(labels)), [*map(len, places)]), [place for row in places for place in row]] = True
    strata = hot.argmax(axis=1) if (hot.sum(axis=1) == 1).all() else label_strata(hot)
    # Numbered by first occurrence: names of groups, which each run hashes anew, must not change the folds.
    units = pd.factorize(kept_together(groups, len(labels), same))[0]
    for name, of_class in zip(classes, _units_of_classes(hot, units, len(classes)), strict=True):
        if of_class < count:
            what = "images" if units.max() + 1 == len(units) else "groups"
            raise UserError(f"--folds {count}: class {name!r} has {of_class} {what} in train and val: give fewer folds")
    fold_of = _stratified_folds(strata, units, count, seed % 2**32)
    for fold in range(count):
        inside = hot[fold_of == fold].sum(axis=0)
        for name, one_sided in zip(classes, (inside == 0) | (inside == hot.sum(axis=0)), strict=True):
            if one_sided:
                raise UserError(f"--folds {count}: class {name!r} is missing on one side of a fold: give fewer folds")
    return fold_of


def label_strata(labels: npt.NDArray[Any]) -> Ints:
    """int64 [n]: the stratum of each row; the rows of a stratum are to be spread evenly over the splits.

    Multi-label rows are stratified by combination; combinations of fewer than 7 rows by the rarest label they have.
    """
    if labels.ndim == 1:
        return np.asarray(labels, dtype=np.int64)
    hot = labels == 1
    combination = np.unique(hot, axis=0, return_inverse=True)[1].reshape(-1)
    rare = np.bincount(combination)[combination] < _RARE
    frequency = np.where(hot, hot.sum(axis=0), len(hot) + 1)
    rarest = frequency.argmin(axis=1) + combination.max(initial=0) + 1
    return np.asarray(np.unique(np.where(rare, rarest, combination), return_inverse=True)[1], dtype=np.int64)


def kept_together(groups: Sequence[str] | None, count: int, same: Ints | None = None) -> Ints:
    """int64 [n]: rows of one group, or equal in ``same``, share a number, and so do rows linked by other rows."""
    units = np.arange(count)
    if groups is not None:
        names = [group or f"\0{row}" for row, group in enumerate(groups)]
        units = np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)
    if same is None or len(np.unique(same)) == count:
        return units
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first = int(units.max(initial=0)) + 1
    size = first + int(same.max(initial=0)) + 1
    links = coo_matrix((np.ones(count, dtype=np.int8), (units, first + same)), shape=(size, size))
    return np.unique(connected_components(links, directed=False)[1][units], return_inverse=True)[1].astype(np.int64)


def first_try(labels: npt.NDArray[Any], splits: Sequence[str] | None, units: Ints, most: int, seed: int) -> Ints:
    """int64: at most ``most`` rows, ascending: whole units, and the same share of each stratum of every split."""
    strata, rng = label_strata(labels), np.random.default_rng([seed, most])
    chosen: list[Ints] = []
    for split in np.unique(splits) if splits is not None else ("",):
        rows = np.arange(len(labels)) if splits is None else np.flatnonzero(np.array(splits) == split)
        share, room = most / len(labels), int(most * len(rows) / len(labels))
        order = rows[np.argsort(units[rows], kind="stable")]
        members = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
        taken = dict.fromkeys(np.unique(strata[rows]).tolist(), 0.0)
        wanted = {stratum: share * int((strata[rows] == stratum).sum()) for stratum in taken}
        for place in rng.permutation(len(members)):
            unit = members[place]
            stratum = int(strata[unit[0]])
            if taken[stratum] < wanted[stratum] and len(unit) <= room:
                taken[stratum] += len(unit)
                room -= len(unit)
                chosen.append(unit)
    return np.sort(np.concatenate(chosen)).astype(np.int64) if chosen else np.zeros(0, np.int64)


def _draw(parts: tuple[str, ...], labels: npt.NDArray[Any], strata: Ints, units: Ints, seed: int) -> Names:
    """ "train" and ``parts``; drawn up to 20 times (2 if a draw takes long), until no class is avoidably missing."""
    unit_count = len(np.unique(units))
    if unit_count < len(parts) + 1:
        what = "images" if unit_count == len(units) else "groups"
        raise UserError(f"{unit_count} {what} cannot be split into train, {', '.join(parts)}: give more, or the splits")
    # A class of one or two groups cannot be in three splits: no further draw helps it.
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    unavoidable = sum(max(0, len(parts) + 1 - count) for count in _units_of_classes(labels, units, classes))
    best, fewest = None, -1
    slow = _MANY_GROUPS < unit_count < len(units)
    for attempt in range(2 if slow else _ATTEMPTS):
        state = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
        if unit_count < len(units):
            splits = _draw_groups(parts, strata, units, state)
        else:
            splits = _draw_rows(parts, strata, state)
        missing = sum(int((class_counts(labels[splits == part], classes) == 0).sum()) for part in ("train", *parts))
        if best is None or missing < fewest:
            best, fewest = splits, missing
        if missing <= unavoidable:
            break
    assert best is not None
    return best if fewest <= unavoidable else _mended(best, labels, units, parts)


def _units_of_classes(labels: npt.NDArray[Any], units: Ints, classes: int) -> list[int]:
    """How many units have each class."""
    width = int(units.max()) + 1
    pairs: npt.NDArray[Any]
    if labels.ndim == 2:
        rows, places = np.nonzero(labels == 1)
        pairs = places * width + units[rows]
    else:
        pairs = labels * width + units
    counts: list[int] = np.bincount(np.unique(pairs) // width, minlength=classes).tolist()
    return counts


def _mended(splits: Names, labels: npt.NDArray[Any], units: Ints, parts: Sequence[str]) -> Names:
    """Move small units from train to parts that lack a class, as long as train keeps all of its classes."""
    splits = splits.copy()
    hot = labels == 1 if labels.ndim == 2 else labels[:, None] == np.unique(labels)
    of_unit = np.zeros((int(units.max()) + 1, hot.shape[1]), dtype=bool)
    np.logical_or.at(of_unit, units, hot)
    size = np.bincount(units)
    for part in parts:
        for place in np.argsort(of_unit.sum(axis=0), kind="stable"):
            if (hot[splits == part][:, place]).any():
                continue
            in_train = np.unique(units[splits == "train"])
            spare = of_unit[in_train].sum(axis=0) > 1
            movable = [unit for unit in in_train if of_unit[unit, place] and spare[of_unit[unit]].all()]
            if movable:
                splits[units == min(movable, key=lambda unit: size[unit])] = part
    return splits


def _draw_rows(parts: tuple[str, ...], strata: Ints, state: int) -> Names:
    """15 % of each stratum for each part; of a stratum of a few rows one for each, if one is left for train."""
    rng = np.random.default_rng(state)
    splits = np.full(len(strata), "train", dtype="<U5")
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        count = int(SHARE * len(rows) + 0.5)
        if count == 0 and len(rows) > len(parts):
            count = 1
        for place, part in enumerate(parts):
            splits[rows[place * count : (place + 1) * count]] = part
    return splits


def _draw_groups(parts: tuple[str, ...], strata: Ints, units: Ints, state: int) -> Names:
    """Draw the parts as folds of whole groups (scikit-learn): with 60 groups or more in every stratum, 20 folds, three
    for each part (15 %); with fewer, 7 folds, one for each part (14 %), so that a class of 7 groups can have one in
    each. Also 7 with more than 20,000 groups: the time grows with folds times groups.
    """
    unit_count = len(np.unique(units))
    least = min(len(np.unique(units[strata == stratum])) for stratum in np.unique(strata))
    fold_count, take = (20, 3) if least >= 60 and unit_count <= _MANY_GROUPS else (7, 1)
    fold_count = min(fold_count, unit_count, int(np.bincount(strata).max()))
    if fold_count <= len(parts):  # scikit-learn refuses more folds than rows of every class
        strata, fold_count = np.zeros_like(strata), min(7, unit_count)
    folds = _stratified_folds(strata, units, fold_count, state)
    splits = np.full(len(units), "train", dtype="<U5")
    for place, part in enumerate(parts):
        splits[(folds >= place * take) & (folds < (place + 1) * take)] = part
    return splits


def _stratified_folds(strata: Ints, units: Ints, count: int, state: int) -> Ints:
    """int64 [n]: whole units in ``count`` folds, each stratum spread over them (scikit-learn)."""
    # Imported here: it takes a second, and a data set with its own splits does not need it.
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    grouped = len(np.unique(units)) < len(units)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(count, shuffle=True, random_state=state)
    folds = np.zeros(len(units), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a stratum with fewer units than folds: the callers handle it
        for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(units)), strata, units)):
            folds[rows] = fold
    return folds
