"""Turn a table data set (its rows, and those of further tables, lists and folders) into samples."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces.errors import UserError, raise_all, some, unknown
from trainables.data.classes import MOST_NAMES, asked_classes, keep_classes, take_classes
from trainables.data.config import DataConfig
from trainables.data.files import FileIndex, index_folder, shown_path, stem
from trainables.data.folder import list_folder, patients_in_names
from trainables.data.folder_names import groups_of
from trainables.data.labels import Labels, RowUse, read_labels
from trainables.data.presets import said_by_preset
from trainables.data.samples import (
    FILE_MISSING,
    MOST_ITEMS,
    SPLIT_WORDS,
    SPLITS,
    CheckResult,
    LeftOut,
    Samples,
    rows_by,
)
from trainables.data.table import read_list
from trainables.data.table_source import TABLE, Table, TableSource, matching_rows, split_words

_MOST_EXAMPLES = 3
_ENOUGH = 0.5  # If more of the rows are usable, their problems are reported together with undecided labels.
_URL = re.compile(r"https?://", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.0+)?")

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Splits = npt.NDArray[np.str_]


def list_table(path: Path, config: DataConfig) -> Samples:
    """List the images that a table names, with their labels, splits, groups and other requested columns.

    path: the table, absolute; validation and test may be tables, lists of files or folders of their own, as
    ``config.val_data`` and ``test_data`` say, or tables beside it. ``problems``: about rows that cannot be used. Raises
    ``UserError``, with all problems found so far, if the rest cannot be interpreted: no table, a missing column, cells
    whose meaning only the user knows.
    """
    source = TableSource.read(path, config)
    asked, not_asked = matching_rows(source.rows, config)
    rows = source.rows[asked]
    use = RowUse(len(rows), lambda row: str(rows.index[row]), left_out=not_asked, notes=source.notes)
    labels = read_labels(rows[list(config.label_column)], config, use)
    listing = _Listing(config, source, rows, use, asked)
    words = listing.split_words()
    images = listing.find_images()
    use.usable &= ~use.undecided
    if not use.usable.any() or (use.undecided.any() and use.usable.mean() <= _ENOUGH):
        left_out = "; ".join(f"{one.count} rows: {one.why}" for one in use.left_out)
        raise UserError(*(use.problems or [f"--data {config.data}: no row is left ({left_out})"]))
    samples = listing.samples(labels, images, listing.splits(images, words))
    for split, folder in source.folders.items():
        samples = _with_folder(samples, split, folder, source.root, config)
    samples = _with_unnamed(samples, images, config)
    try:
        samples = _with_groups(_without_unused(samples, config), source, config)
        samples = keep_classes(samples, config, rename=False)
    except UserError as error:
        raise UserError(*samples.problems, *error.problems) from None
    return dataclasses.replace(samples, checks=(*source.checks, *samples.checks, *_no_label(samples)))


@dataclass(frozen=True)
class _Images:
    """Which image each row names: one pair per row, or several for a row that names a folder.

    row: int64 [m], position of the row; image: int64 [m], position in ``files``: absolute paths, each once.
    index: of ``TableSource.root``.
    """

    row: Ints
    image: Ints
    files: tuple[str, ...]
    index: FileIndex

    def shown(self, image: int) -> str:
        """The path of an image for the user: relative to the root of ``index``."""
        return shown_path(self.files[image].removeprefix(f"{self.index.root.as_posix()}/"))


@dataclass(frozen=True)
class _Listing:
    """Turns the rows [n] of a table into samples; problems with them go to ``use``.

    asked: bool, which of the rows of ``source`` are in ``rows``.
    """

    config: DataConfig
    source: TableSource
    rows: pd.DataFrame
    use: RowUse
    asked: Mask

    def split_words(self) -> Splits:
        """str [n]: the split of each row by its table or the split column, "" if neither gives one."""
        of_tables: Splits = np.array([table.split for table in self.source.tables], dtype="<U5")
        splits: Splits = of_tables[self.rows[TABLE].to_numpy()]
        column = self.source.split_column
        if column is None:
            return splits
        known = split_words(self.config)
        places, cells = pd.factorize(self.rows[column])
        found = np.array([known.get(str(cell).lower(), "") for cell in cells], dtype="<U5")[places]
        unknown_rows = self.use.usable & (splits == "") & (found == "")
        blank = unknown_rows & (self.rows[column] == "").to_numpy()
        what = f"the split is blank in {int(blank.sum())} rows; fill it in, or leave them out"
        self.use.fault(f"column {column!r}", blank, f"{what} with --where {column}=train,val,test")
        strange = unknown_rows & ~blank
        if strange.any():
            counts = self.rows.loc[strange, column].value_counts()
            several = some(f"{cell!r} ({count} rows)" for cell, count in counts.items())
            what = f"unknown split {several}; allowed: {', '.join(SPLIT_WORDS)}"
            way_out = f"--split-names {counts.index[0]}=train says what it means"
            self.use.fault(f"column {column!r}", strange, f"{what}; {way_out}")
        splits = np.where(splits == "", found, splits)
        for split, given in {"val": self.config.val_data, "test": self.config.test_data}.items():
            # In a preset, "none" means the tables beside its own, not rows of it.
            if given == "none" and said_by_preset(self.config, f"{split}_data") != "none":
                self.use.leave_out(f"{split} by column {column!r} (--{split}-data none)", splits == split)
        return splits

    def find_images(self) -> _Images:
        """Find the image, or the folder of images, that each row names, below the image folder of its table."""
        names_of_all = self.source.rows[self.config.path_column].copy()
        blank = (names_of_all == "").to_numpy()[self.asked]
        self.use.fault(f"column {self.config.path_column!r}", blank, "the path is empty")
        tables = self.source.tables
        root_of_all = np.array([str(table.root) for table in tables])[self.source.rows[TABLE].to_numpy()]
        root_of = root_of_all[self.asked]
        number: dict[str, int] = {}
        pairs, indexes = [], {}
        for root in dict.fromkeys([self.source.root, *(table.root for table in tables)]):
            index = indexes[root] = index_folder(root)
            mine = np.flatnonzero(root_of == str(root))
            for table in tables:
                if table.root == root and root in table.path.parents[1:]:
                    self._from_its_own_folder(names_of_all, table, index)
            cells = names_of_all[self.asked].iloc[mine].tolist()
            # The image of a row that ``--where`` leaves out must not pass for the missing file of another row.
            located = index.locate(cells, names_of_all[~self.asked & (root_of_all == str(root))].unique())
            self.use.notes += located.notes
            sizes = np.array([len(found) for found in located.rows], dtype=np.int64)
            found = np.fromiter(itertools.chain.from_iterable(located.rows), dtype=np.int64, count=int(sizes.sum()))
            different, which = np.unique(found, return_inverse=True)
            files = [str(root / located.images[place]) for place in different]
            image = np.array([number.setdefault(file, len(number)) for file in files], dtype=np.int64)[which]
            pairs.append((np.repeat(mine, sizes), image))
            doubtful, absent, of_root = np.zeros((3, len(self.rows)), dtype=bool)
            of_root[mine] = True
            doubtful[mine[list(located.ambiguous)]] = True
            absent[mine] = (sizes == 0) & ~doubtful[mine]
            self._refuse_doubtful(doubtful & self.use.usable, cells, located.ambiguous)
            self._leave_out_missing(absent & self.use.usable, index, of_root)
        row, image = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        order = np.argsort(row, kind="stable")
        return _Images(row[order], image[order], tuple(number), indexes[self.source.root])

    def _from_its_own_folder(self, names: pd.Series[str], table: Table, index: FileIndex) -> None:
        """Make the names that are relative to the folder of their table relative to the root of ``index``, in place."""
        start, known = table.path.parent.relative_to(index.root).as_posix(), set(index.images)
        rows = (self.source.rows[TABLE] == table.place).to_numpy()
        places, cells = pd.factorize(names[rows])
        own = [f"{start}/{cell}" if f"{start}/{cell}" in known else cell for cell in cells]
        names[rows] = np.array(own, dtype=object)[places]

    def _refuse_doubtful(self, rows: Mask, cells: Sequence[str], ambiguous: dict[int, tuple[str, str]]) -> None:
        if not rows.any():
            return
        self.use.usable &= ~rows
        shown = dict.fromkeys(
            f"{cells[place]} ({' or '.join(map(shown_path, two))})" for place, two in ambiguous.items()
        )
        self.use.problems.append(
            f"{_counted(int(rows.sum()), 'row')} may name one of several files: {some(shown)}; "
            "add more of the path to the table, or give the folder of the right files with --images-dir"
        )

    def _leave_out_missing(self, rows: Mask, index: FileIndex, of_root: Mask) -> None:
        """rows: those whose files are missing below the root of ``index``; of_root: all whose files belong there."""
        if not rows.any():
            return
        cells = list(map(str, self.rows[self.config.path_column][rows]))
        all_of_them = len(cells) == (self.use.usable & of_root).sum()
        self.use.usable &= ~rows
        if self.config.skip_missing and not all_of_them:
            self.use.left_out.append(LeftOut(FILE_MISSING, len(cells), tuple(map(shown_path, cells[:MOST_ITEMS]))))
            return
        ways_out = [] if all_of_them else ["skip them with --skip-missing"]
        if any(map(_URL.match, cells)):
            ways_out.insert(0, "these are URLs: download the files, and give their names or paths in the table")
        nowhere = "no image is there: give their folder with --images-dir"
        ways_out += ["give their folder with --images-dir" if index.images else nowhere]
        for table in self.source.tables[1:]:
            if getattr(self.config, f"{table.split}_data") is None and (self.rows[TABLE][rows] == table.place).any():
                ways_out.append(f"leave {table.path.name} out with --{table.split}-data none")
        self.use.problems.append(
            f"{len(cells)} of {int(of_root.sum())} rows name a file that is missing (looked for below {index.root}): "
            f"{some(dict.fromkeys(cells))}; {', '.join(ways_out)}"
        )
        by_number = {stem(image.rpartition("/")[2]).lstrip("0") or "0": image for image in index.images}
        lost = {cell: by_number.get(cell.split(".")[0]) for cell in cells if _NUMBER.fullmatch(cell)}
        shown = [f"{cell} for {shown_path(image)}" for cell, image in lost.items() if image]
        if shown:
            self.use.problems.append(
                f"{len(shown)} of these have lost leading zeros, as if a program read ids as numbers: {some(shown)}; "
                "write the ids as in the file names"
            )

    def splits(self, images: _Images, words: Splits) -> Splits | None:
        """str [m]: the split of each pair of row and image; None = all splits are to be drawn."""
        tables, lists, folders = self.source.tables, self.source.lists, self.source.folders
        splits = words[images.row].copy()
        of_main = (self.rows[TABLE] == 0).to_numpy()
        for split in (*(table.split for table in tables[1:]), *lists, *folders):
            twice = of_main & (words == split) & self.use.usable
            if twice.any():
                what = f"column {self.source.split_column!r} says {split} in {int(twice.sum())} rows, too"
                self.use.problems.append(f"--{split}-data: {what}; give one of them")
        named = {split: self._named(split, file, images) & of_main[images.row] for split, file in lists.items()}
        if len(named) == 2 and (both := named["val"] & named["test"]).any():
            shown = list(map(images.shown, np.unique(images.image[both])))
            what = f"both name {_counted(len(shown), 'image')}: {some(shown)}"
            self.use.problems.append(f"--val-data and --test-data {what}; an image is in one split")
        for split, pairs in named.items():
            splits[pairs] = split
        if len(tables) == 1 and not lists and not folders and self.source.split_column is None:
            return None
        splits[splits == ""] = "train"
        if not folders and (splits[self.use.usable[images.row]] == "train").all():
            self.use.notes.append("all rows are train: val and test are drawn from them")
            return None
        return splits

    def _named(self, split: str, file: Path, images: _Images) -> Mask:
        """bool [m]: the pairs whose row or image is named in a list of files."""
        names = list(dict.fromkeys(read_list(file)))
        cells = self.rows[self.config.path_column]
        located = images.index.locate(names)
        number = {path: place for place, path in enumerate(images.files)}
        paths = [[str(images.index.root / located.images[one]) for one in found] for found in located.rows]
        places = [[number[path] for path in found if path in number] for found in paths]
        known = set(cells)
        absent = [name for name, found in zip(names, places, strict=True) if not found and name not in known]
        if len(absent) == len(names):
            what = f"none of its {len(names)} names is in {self.source.tables[0].path.name}"
            self.use.problems.append(f"--{split}-data {file}: {what}, such as {', '.join(names[:_MOST_EXAMPLES])}")
        elif absent:
            what = f"{len(absent)} of {len(names)} names of {file.name} are not in the table"
            self.use.notes.append(f"{what}: {some(absent)}")
        of_image = np.isin(images.image, list(itertools.chain.from_iterable(places)))
        return np.asarray(cells.isin(names).to_numpy()[images.row] | of_image)

    def samples(self, labels: Labels, images: _Images, splits: Splits | None) -> Samples:
        """One sample per image and split (checks report an image in two splits), in the order of the rows."""
        pairs = np.flatnonzero(self.use.usable[images.row])
        keys = images.image[pairs]
        if splits is not None:
            keys = keys * len(SPLITS) + sum(place * (splits[pairs] == split) for place, split in enumerate(SPLITS))
        _, first, image_of = np.unique(keys, return_index=True, return_inverse=True)
        values = labels.values[images.row[pairs]]
        merged, kept = values[first], np.ones(len(first), dtype=bool)
        if len(first) < len(pairs):
            merged, kept = self._united(labels, values, images, pairs, first, image_of)
        order = np.argsort(first)
        order = order[kept[order]]
        pairs = pairs[first[order]]
        row = images.row[pairs]

        def column(name: str) -> tuple[str, ...]:
            return tuple(self.rows[name].iloc[row])

        config, group_from = self.config, self.config.group_column
        images_of_row = np.bincount(images.row[self.use.usable[images.row]])
        if group_from is None and config.group_from is None and (images_of_row > 1).any():
            group_from = config.path_column
            self.use.notes.append(f"images of one row are one group and stay in one split (from {group_from!r})")
        return Samples(
            kind="table",
            path=str(self.source.tables[0].path),
            task=labels.task,
            classes=labels.classes,
            paths=tuple(map(images.shown, images.image[pairs])),
            files=tuple(Path(images.files[image]) for image in images.image[pairs]),
            labels=merged[order],
            splits=None if splits is None else tuple(map(str, splits[pairs])),
            group_from=group_from,
            groups=None if group_from is None else column(group_from),
            subgroups={name: column(name) for name in config.subgroup_column},
            sources=None if config.source_column is None else column(config.source_column),
            problems=tuple(self.use.problems),
            left_out=tuple(self.use.left_out),
            notes=tuple(self.use.notes),
        )

    def _united(
        self, labels: Labels, values: npt.NDArray[Any], images: _Images, pairs: Ints, first: Ints, image_of: Ints
    ) -> tuple[npt.NDArray[Any], Mask]:
        """The labels of each image, merged over its rows, and which images can be kept.

        values: labels of each pair; first: the first pair of each image; image_of: the image of each pair.
        """
        order = np.argsort(image_of, kind="stable")
        starts = np.flatnonzero(np.diff(image_of[order], prepend=-1))

        def differs(column: npt.NDArray[Any]) -> Mask:
            low, high = (of.reduceat(column[order], starts, axis=0) for of in (np.minimum, np.maximum))
            return np.asarray((low != high).reshape(len(starts), -1).any(axis=1))

        config, use = self.config, self.use
        unequal = differs(values)
        equal = int((np.bincount(image_of) - 1)[~unequal].sum())
        if equal:
            repeat = "repeat" if equal > 1 else "repeats"
            use.notes.append(f"{_counted(equal, 'row')} {repeat} an image with equal labels: counted once")
        for column in dict.fromkeys([config.group_column, config.source_column, *config.subgroup_column]):
            codes = None if column is None else pd.factorize(self.rows[column])[0][images.row[pairs]]
            count = 0 if codes is None else int(differs(codes).sum())
            if count and column == config.group_column:
                what = f"rows of one image have different groups ({_counted(count, 'image')})"
                use.problems.append(f"--group-column {column}: {what}; fix them, or give another column")
            elif count:
                what = f"differs between the rows of {_counted(count, 'image')}"
                use.notes.append(f"column {column!r} {what}: the first row counts")
        unite = config.task == "multi_label" or config.has_preset
        if unequal.any() and labels.task == "multi_label" and unite:
            count = int(unequal.sum())
            rows = f"{_counted(count, 'image')} {'has' if count == 1 else 'have'} rows of different labels"
            use.notes.append(f"{rows}: an image has the labels of all its rows")
            return np.maximum.reduceat(values[order], starts, axis=0), np.ones(len(first), dtype=bool)
        if unequal.any():
            places = images.image[pairs[first[unequal]]]
            shown = some(map(images.shown, places), _MOST_EXAMPLES)
            way_out = config.by_task("--task multi_label unites them, else ") + "keep one row of each"
            use.problems.append(f"{_counted(len(places), 'image')} with rows of different labels: {shown}; {way_out}")
        return values[first], ~unequal


def _with_unnamed(samples: Samples, images: _Images, config: DataConfig) -> Samples:
    """Add a note with the number of images below the root of ``images.index`` that no row names."""
    named, root = {*images.files, *map(str, samples.files)}, f"{images.index.root}/"
    count = sum(f"{root}{image}" not in named for image in images.index.images)
    note = f"files that no row{' in use' if config.where else ''} names: {count}"
    return dataclasses.replace(samples, notes=(*samples.notes, note)) if count else samples


def _with_folder(samples: Samples, split: str, folder: Path, root: Path, config: DataConfig) -> Samples:
    """Add the images of a folder of class folders, as ``split``."""
    if samples.task == "multi_label":
        raise UserError(f"--{split}-data {folder}: folders give one class per image, the table several; give a table")
    own = DataConfig(data=str(folder), class_from=config.class_from, class_names=config.class_names)
    more = list_folder(folder, own)
    strange = [name for name in more.classes if name not in samples.classes]
    if strange:
        kinds = (f"--{split}-data {folder}: {unknown('class', name, samples.classes)}" for name in strange)
        raise UserError(*samples.problems, *more.problems, *kinds)
    place = np.array([samples.classes.index(name) for name in more.classes], dtype=np.int64)
    nothing, start = ("",) * len(more), f"{root}/"
    assert samples.splits is not None
    return dataclasses.replace(
        samples,
        paths=(*samples.paths, *(shown_path(str(file).removeprefix(start)) for file in more.files)),
        files=(*samples.files, *more.files),
        labels=np.concatenate([samples.labels, place[more.labels]]),
        splits=(*samples.splits, *(split for _ in nothing)),
        groups=None if samples.groups is None else (*samples.groups, *nothing),
        subgroups={column: (*cells, *nothing) for column, cells in samples.subgroups.items()},
        sources=None if samples.sources is None else (*samples.sources, *nothing),
        problems=(*samples.problems, *more.problems),
        left_out=(*samples.left_out, *more.left_out),
        notes=(*samples.notes, f"{len(more)} images of {folder} are the {split} split", *more.notes),
    )


def _without_unused(samples: Samples, config: DataConfig) -> Samples:
    """Without single-label classes that have no image (left), such as UNK of one column for each class.

    Raises ``UserError`` for such a class that ``--classes`` names.
    """
    if samples.task == "multi_label":
        return samples
    unused = [name for name, count in samples.counts.items() if not count]
    if not unused:
        return samples
    asked = asked_classes(config)
    raise_all([f"--classes {name}: the table has it, but no row of it can be used" for name in unused if name in asked])
    kept = take_classes(samples, [name for name in samples.classes if name not in unused])
    if asked:  # The other classes are already counted as left out.
        return kept
    return dataclasses.replace(kept, notes=(*kept.notes, f"no image has the class {some(unused, MOST_NAMES)}"))


def _with_groups(samples: Samples, source: TableSource, config: DataConfig) -> Samples:
    """Add the groups that ``--group-from`` finds in paths below the image folders; or a warning if file names look like
    those of patients and none are known.
    """
    if config.group_column is not None or any(one.check == "unused_patients" for one in source.checks):
        return samples
    roots = [f"{table.root.as_posix()}/" for table in source.tables]
    paths = [_below(roots, file) for file in samples.files]
    if config.group_from is None:
        units = [group or path for group, path in zip(samples.groups or paths, paths, strict=True)]
        rows = [rows[0] for rows in rows_by(units).values()]  # Images of one row stay together.
        splits = samples.splits and [samples.splits[row] for row in rows]
        checks = patients_in_names([paths[row] for row in rows], splits)
        return dataclasses.replace(samples, checks=checks)
    groups = groups_of(config.group_from, paths)
    without = [shown_path(path) for path, group in zip(paths, groups, strict=True) if not group]
    problems = samples.problems
    if without:
        what = f"{len(without)} of {len(paths)} files have no match: {some(without, _MOST_EXAMPLES)}"
        way_out = "fix the expression, or give --group-column"
        problems = (*problems, f"--group-from '{config.group_from}': {what}; {way_out}")
    return dataclasses.replace(samples, groups=tuple(groups), group_from=config.group_from, problems=problems)


def _below(roots: Iterable[str], file: Path) -> str:
    """The path of a file relative to the first of ``roots`` that contains it, else the whole path."""
    path = file.as_posix()
    return path.removeprefix(next(filter(path.startswith, roots), ""))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _no_label(samples: Samples) -> Iterator[CheckResult]:
    if samples.task == "multi_label":
        count = int((samples.labels != 1).all(axis=1).sum())
        if count:
            message = f"{count} of {len(samples)} images have none of the labels"
            yield CheckResult("no_label", "info", message, count)
