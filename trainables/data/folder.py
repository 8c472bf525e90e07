"""Read a folder as it was downloaded: ``train|val|test/<class>/*``, or ``<class>/*``, which is then split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from search_spaces.errors import UserError, gathered, raise_all
from trainables.data.classes import keep_classes
from trainables.data.config import DataConfig
from trainables.data.files import (
    EXTENSIONS,
    FileIndex,
    counted_forms,
    index_folder,
    is_archive,
    left_out,
    shown_paths,
)
from trainables.data.folder_names import groups_of, patient_folders, patient_pattern
from trainables.data.folder_tables import way_out
from trainables.data.layout import Image, Layout, read_layout
from trainables.data.samples import MOST_ITEMS, CheckResult, LeftOut, Samples, rows_by
from trainables.data.table import read_list
from trainables.data.table_source import existing


def list_folder(root: Path, config: DataConfig) -> Samples:
    """List the images below ``root``; deeper folders within a class belong to the class, links are followed.

    Images that are not used are in ``left_out``. Raises ``UserError`` if there is no image, a folder cannot be read, or
    names do not show what is a split and what a class.
    """
    if config.task == "multi_label":
        raise UserError("--task multi_label: folders give one class per image; give a table with label columns")
    given = _given_places(root, config)
    index = index_folder(root)
    folders = {split: place for split, place in given.items() if os.path.isdir(place)}
    inside = [place.relative_to(root).as_posix() for place in folders.values() if place.is_relative_to(root)]
    layout = read_layout(index, config, inside)
    unused = [*index.left_out, *layout.left_out]
    listed = {split: _in_list(split, place, index) for split, place in given.items() if split not in folders}
    images = []
    for image in layout.images:
        split = next((split for split, paths in listed.items() if image.path in paths), None)
        if split is None and image.split in ("val", "test") and getattr(config, f"{image.split}_data") is not None:
            option = f"--{image.split}-data {getattr(config, f'{image.split}_data')}"
            unused.append(left_out(f"of the folder of {image.split} images: {option}", [image.path]))
        else:
            images.append(image._replace(split=split or image.split or ("train" if given else "")))
    for split, place in folders.items():
        other = index_folder(place)
        there = read_layout(other, config, one_split=True)
        above = place.relative_to(root) if place.is_relative_to(root) else place
        images += [Image(f"{above}/{image.path}", image.class_name, split) for image in there.images]
        unused += [*other.left_out, *there.left_out]
    return _samples(root, config, index, images, folders, layout, unused)


def _given_places(root: Path, config: DataConfig) -> dict[str, Path]:
    """The folders, or lists of files, that --val-data and --test-data name, absolute."""
    found: dict[str, Path] = {}
    problems: list[str] = []
    for split, given in {"val": config.val_data, "test": config.test_data}.items():
        if given is None or given == "none":
            continue
        with gathered(problems):
            found[split] = existing(f"{split}_data", given, root, config)
            if root.is_relative_to(found[split]):
                raise UserError(f"--{split}-data {given}: this is --data itself or contains it; give another folder")
    raise_all(problems)
    return found


def _in_list(split: str, file: Path, index: FileIndex) -> frozenset[str]:
    """The images that a list of files names. Raises ``UserError`` if one is missing."""
    try:
        names = read_list(file)
    except UserError as error:
        way = "with a folder, give a list of paths (one per line) or a folder of class folders; or give only tables"
        what = error.problems[0].removeprefix(f"{file}: ")
        raise UserError(f"--{split}-data {file}: {what}; {way}, with --data TABLE") from None
    located = index.locate(names)
    missing = [name for name, rows in zip(names, located.rows, strict=True) if not rows]
    if missing:
        shown = shown_paths(missing, 3)
        raise UserError(f"--{split}-data {file}: {len(missing)} of {len(names)} names are not images here: {shown}")
    return frozenset(located.images[row] for rows in located.rows for row in rows)


def _samples(
    root: Path,
    config: DataConfig,
    index: FileIndex,
    images: Sequence[Image],
    folders: Mapping[str, Path],
    layout: Layout,
    unused: Sequence[LeftOut],
) -> Samples:
    """images: with paths below ``root``, or absolute if in a folder outside it. folders: by split."""
    problems, wrong = _badly_named(root, [image.path for image in images])
    images = [image for image in images if image.path not in wrong]
    if not images:
        raise UserError(*problems, *_nothing_found(root, index, unused))
    # The paths that regular expressions are matched with.
    below = [image.path.removeprefix(f"{folders.get(image.split, root)}/") for image in images]
    class_names = [image.class_name for image in images]
    if config.class_from:
        class_names = _from_path(config.class_from, "--class-from", below)
    groups = _from_path(config.group_from, "--group-from", below) if config.group_from else None
    empty = () if config.class_from else layout.empty_classes
    classes = tuple(sorted({*class_names, *empty}))
    place_of = {name: place for place, name in enumerate(classes)}
    splits = tuple(image.split for image in images)
    samples = Samples(
        kind="folder",
        path=str(root),
        task="single_label",
        classes=classes,
        paths=tuple(image.path for image in images),
        files=tuple(root / image.path for image in images),
        labels=np.array([place_of[name] for name in class_names], dtype=np.int64),
        splits=splits if set(splits) - {"", "train"} else None,
        group_from=config.group_from,
        groups=None if groups is None else tuple(groups),
        problems=tuple(problems),
        left_out=_joined(unused),
        notes=layout.notes,
    )
    kept = keep_classes(samples, config)
    if len(classes) == 1 and not config.class_from:
        kept = dataclasses.replace(kept, nothing_to_tell=f"{kept.nothing_to_tell}; {way_out(index)}")
    if groups:
        return kept
    below_of = dict(zip(samples.paths, below, strict=True))
    names = [below_of[path] for path in kept.paths]
    labels = [kept.label_text(row) for row in range(len(kept))]
    return dataclasses.replace(kept, checks=patients_in_names(names, kept.splits, labels) or layout.checks)


def _badly_named(root: Path, paths: Sequence[str]) -> tuple[list[str], set[str]]:
    """Problems with names that tables and reports (UTF-8, one line per row) cannot contain, and those names."""
    foreign = [path for path in paths if path.encode(errors="replace").decode() != path]
    broken = [path for path in paths if len(path.splitlines()) > 1]
    problems = [
        f"--data {root}: {len(wrong)} file name(s) {what} ({shown_paths(wrong, 5)}): rename them"
        for what, wrong in (("are not UTF-8", foreign), ("contain a line break", broken))
        if wrong
    ]
    return problems, {*foreign, *broken}


def _nothing_found(root: Path, index: FileIndex, unused: Sequence[LeftOut]) -> list[str]:
    loose = sum(one.count for one in unused)
    what = f"{loose} image(s), but none in a class folder" if loose else "no images found"
    expected = f"expected train|val|test/<class>/* or <class>/* with {', '.join(sorted(EXTENSIONS))} files, or a table"
    arrays = [path for path in index.others if path.lower().endswith(".npz")]
    archives = [path for path in index.others if is_archive(path)]
    if index.images:
        way = f"; {way_out(index)}"
    elif archives or arrays:
        shown = shown_paths(archives or arrays)
        way = f"; {shown} must be unpacked first" if archives else f"; give one array file: --data {root / arrays[0]}"
    else:
        forms = f"; the files there are not supported images ({counted_forms(index.others)})"
        way = f"{forms}: save each image as a file, in a folder of its class" if index.others else ""
    return [f"--data {root}: {what}; {expected}{way}"]


def _from_path(pattern: str, option: str, paths: Sequence[str]) -> list[str]:
    """The first group of each path. Raises ``UserError`` with three of the paths that have none."""
    found = groups_of(pattern, paths)
    missing = [path for path, group in zip(paths, found, strict=True) if not group]
    if missing:
        what = f"{len(missing)} of {len(paths)} files have no match: {shown_paths(missing, 3)}"
        raise UserError(f"{option} {pattern}: {what}")
    return found


def patients_in_names(
    paths: Sequence[str], splits: Sequence[str] | None, labels: Sequence[str] = ()
) -> tuple[CheckResult, ...]:
    """A warning, for data without known patients, if file names or folders in class folders look like patients.

    labels: the class folder of each path; () for a table.
    """
    pattern, where = patient_pattern(paths), "file names"
    if labels and (pattern is None or _are_classes(groups_of(pattern, paths), labels)):
        pattern, where = patient_folders(paths, labels), "folders"
    if pattern is None:
        return ()
    several = [rows for rows in rows_by(groups_of(pattern, paths)).values() if len(rows) > 1]
    across = [rows for rows in several if splits and len({splits[row] for row in rows}) > 1]
    message = (
        f"{len(several)} patients seem to have several images, by their {where}, and may be in two splits; "
        f"--group-from '{pattern}' keeps each in one"
    )
    if across:
        message = (
            f"{where} look like those of patients, but with --group-from '{pattern}' {len(across)} of them would "
            "be in two of the given splits: patients are unknown"
        )
    items = tuple(tuple(paths[row] for row in rows) for rows in (across or several)[:MOST_ITEMS])
    return (CheckResult("patients_in_file_names", "warning", message, len(across or several), items),)


def _are_classes(groups: Sequence[str], labels: Sequence[str]) -> bool:
    return len(set(groups)) == len(set(labels)) == len(set(zip(groups, labels, strict=True)))


def _joined(unused: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """One entry for each reason."""
    by_reason: dict[str, LeftOut] = {}
    for one in unused:
        known = by_reason.get(one.why, LeftOut(one.why, 0))
        by_reason[one.why] = LeftOut(one.why, known.count + one.count, (*known.examples, *one.examples)[:MOST_ITEMS])
    return tuple(by_reason.values())
