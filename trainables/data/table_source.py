"""The inputs of a table data set: joined tables of one or several splits, and lists and folders of other splits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces.errors import UserError, raise_all, shown_problems, unknown
from trainables.data.classes import NO_VALUE, WHOLE
from trainables.data.config import DataConfig
from trainables.data.files import has_image_suffix
from trainables.data.presets import said_by_preset
from trainables.data.samples import MOST_ITEMS, SPLIT_WORDS, CheckResult, LeftOut
from trainables.data.table import is_list, neighbours, patient_column, read_table, shards

DEFAULT_SPLIT_COLUMN = "split"
TABLE = "\0table"
"""The column of a row's position in ``TableSource.tables``: no column of a user's has this name."""
_NUMBER = "\0number"
_MOST_VALUES = 10


@dataclass(frozen=True)
class Table:
    """place: in ``TableSource.tables``. split: of all its rows, "" = none given. root: the folder of its images."""

    path: Path
    split: str
    root: Path
    place: int = 0


@dataclass
class TableSource:
    """All inputs, before single rows are examined.

    rows: the cells of the columns in use, of all tables; the index is the row number that the user sees. root: the
    folder of the first table's images. lists, folders: by split, those that ``--val-data`` and ``--test-data`` name.
    checks: warnings about unused columns of patients and of splits.
    """

    rows: pd.DataFrame
    tables: list[Table]
    root: Path
    split_column: str | None
    lists: dict[str, Path]
    folders: dict[str, Path]
    notes: list[str]
    checks: tuple[CheckResult, ...] = ()

    @classmethod
    def read(cls, path: Path, config: DataConfig) -> TableSource:
        path, data = (Path(os.path.abspath(place)) for place in (path, Path(config.data)))
        path = shards(path)[0]
        base = data if data.is_dir() and path.is_relative_to(data) else path.parent
        root = base if config.images_dir is None else existing("images_dir", config.images_dir, base, config)
        if not root.is_dir():
            raise UserError(f"--images-dir {config.images_dir}: is not a folder")
        main = read_table(path, config.columns)
        joined, notes = _joined(main, path, base, config, of_main=True)
        notes += _parts(path)
        names = list(map(str, joined.columns))
        split_column = config.split_column or (DEFAULT_SPLIT_COLUMN if DEFAULT_SPLIT_COLUMN in names else None)
        raise_all(_column_problems(path, joined, split_column, config))
        source = cls(joined, [Table(path, "", root)], root, split_column, {}, {}, notes)
        others = source._beside(path, main, base, config)
        frames = [_columns_in_use(joined, split_column, config).assign(**{TABLE: 0})]
        frames[0].index = frames[0].index.astype(str)
        for split, other in others.items():
            cells, more = _joined(read_table(other, config.columns), other, base, config)
            source.notes += [*more, *_parts(other)]
            raise_all(_column_problems(other, cells, None, config))
            found = getattr(config, f"{split}_data") is None and other.parent != path.parent
            of_all = config.images_dir and not (found and root.is_relative_to(path.parent))
            own_root = root if of_all else base if other.is_relative_to(base) else other.parent
            source.tables.append(Table(other, split, own_root, len(source.tables)))
            cells = _columns_in_use(cells, None, config).assign(**{TABLE: len(source.tables) - 1})
            cells.index = cells.index.astype(str) + f" of {_told_apart(other, path)[0]}"
            frames.append(cells)
        source.rows = pd.concat(frames).fillna("") if len(frames) > 1 else frames[0]
        source.checks = tuple(_unused_patients(joined, source.rows, split_column, config))
        if split_column is None and not (others or source.lists or source.folders):
            source.checks += tuple(_unused_splits(joined, source.rows, config))
        return source

    def _beside(self, path: Path, main: pd.DataFrame, base: Path, config: DataConfig) -> dict[str, Path]:
        """The tables of other splits; stores their lists and folders in ``self``."""
        tables: dict[str, Path] = {}
        near: dict[str, Path] = {}
        if self.split_column is None and None in (config.val_data, config.test_data):
            near = neighbours(path, main, [name for name in config.label_column if name in main.columns])
        for split, given in (("val", config.val_data), ("test", config.test_data)):
            if given is None:
                if split in near and (near[split].is_relative_to(base) or base == path.parent):
                    tables[split] = near[split]
                    other, own = _told_apart(near[split], path)
                    self.notes.append(
                        f"{other} next to {own} is used as the {split} split; --{split}-data none ignores it"
                    )
            elif given != "none":
                place = existing(f"{split}_data", given, base, config)
                if place.is_dir():
                    self.folders[split] = place
                elif is_list(place):  # Problems of any other file are reported when it is read as a table.
                    self.lists[split] = place
                else:
                    tables[split] = place
        return tables


def matching_rows(rows: pd.DataFrame, config: DataConfig) -> tuple[npt.NDArray[np.bool_], list[LeftOut]]:
    """bool [n], the rows that ``--where`` selects; the others, counted. Raises ``UserError`` for a value no row has.

    If one of several values occurs, those of the others that the preset names may be absent.
    """
    problems, left_out = [], []
    of_preset = said_by_preset(config, "where") or {}
    for column, values in config.where.items():
        known = set(rows[column].unique())
        strange = [value for value in values if value not in known]
        if len(strange) < len(values):
            strange = [value for value in strange if value not in of_preset.get(column, ())]
        known_shown = sorted(known)[:_MOST_VALUES]
        problems += [
            f"--where {column}={value}: {unknown(f'value of {column}', value, known_shown)}" for value in strange
        ]
    raise_all(problems)
    asked = np.ones(len(rows), dtype=np.bool_)
    for column, values in config.where.items():
        others = asked & ~rows[column].isin(values).to_numpy()
        if others.any():
            examples = tuple(f"row {number}" for number in rows.index[others][:MOST_ITEMS])
            named = " or ".join(shown_problems(values))
            left_out.append(LeftOut(f"{column} is not {named} (--where)", int(others.sum()), examples))
            asked &= ~others
    if not asked.any():
        raise UserError(f"--where: no row has all of the values asked for ({', '.join(config.where)})")
    return asked, left_out


def split_words(config: DataConfig) -> dict[str, str]:
    """Lower-case word in a cell -> "train", "val" or "test"; includes ``--split-names``."""
    return SPLIT_WORDS | {theirs.lower(): ours for theirs, ours in config.split_names.items()}


def _unused_patients(
    cells: pd.DataFrame, used: pd.DataFrame, split_column: str | None, config: DataConfig
) -> Iterator[CheckResult]:
    """A warning about a column of patients if no option says who they are."""
    name = patient_column(cells, config.path_column)
    if config.group_column is None and config.group_from is None and name is not None and name not in used.columns:
        known, across = split_words(config), 0
        if split_column is not None and not config.where:
            patients = _patients(cells.iloc[:, [*map(str, cells.columns)].index(name)])
            splits = [known.get(str(cell).lower(), "") for cell in cells[split_column]]
            of = pd.DataFrame({"patient": patients, "split": splits})
            of = of[(of["patient"] != "") & (of["split"] != "")].drop_duplicates()
            across = of["patient"][of["patient"].duplicated()].nunique()
        told = f"they may be in two splits: --group-column '{name}' keeps them in one"
        if across:
            told = f"{across} of these are in two of the given splits: --group-column '{name}' lists them"
        message = f"column {name!r} seems to say which images are of one patient, lesion or study, and {told}"
        yield CheckResult("unused_patients", "warning", message, len(cells))


def _unused_splits(cells: pd.DataFrame, used: pd.DataFrame, config: DataConfig) -> Iterator[CheckResult]:
    """A warning for each column of split words that no option names."""
    known = split_words(config)
    for place, name in enumerate(map(str, cells.columns)):
        if name in used.columns or str(cells.iloc[0, place]).lower() not in known:
            continue
        splits = {known.get(str(cell).lower()) for cell in cells.iloc[:, place].unique()}
        if None not in splits and "train" in splits and len(splits) > 1:
            message = f"column {name!r} seems to say the split and is not used: --split-column '{name}' uses it"
            yield CheckResult("unused_splits", "warning", message, len(cells))


def _parts(path: Path) -> list[str]:
    """The note about a table in several files; [] for one file."""
    count = len(shards(path))
    return [f"{path.name} and the following numbered files are read as one table of {count} files"] if count > 1 else []


def _told_apart(file: Path, other: Path) -> tuple[str, str]:
    """The paths of two files relative to the folder that holds both."""
    above = os.path.commonpath([file.parent, other.parent])
    return os.path.relpath(file, above), os.path.relpath(other, above)


def existing(option: str, given: str, base: Path, config: DataConfig) -> Path:
    """The path that an option names: from the working directory, else from ``base``; with a preset, ``base`` first."""
    place = Path(given).expanduser()
    places = (base / place, place) if config.has_preset else (place, base / place)
    for found in places:
        if os.path.exists(found):
            return Path(os.path.abspath(found))
    what = "folder" if option == "images_dir" else "file or folder, and not none"
    raise UserError(f"--{option.replace('_', '-')} {given}: no such {what}, here or in {base}")


def _joined(
    cells: pd.DataFrame, path: Path, base: Path, config: DataConfig, of_main: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """``cells`` with the columns of the tables of ``config.join``, and notes about them.

    Raises ``UserError`` if no row has a match; tables of further splits need one only for path, labels and ``--where``.
    """
    notes = []
    needed = {config.path_column, *config.label_column, *config.where}
    for join in config.join:
        file = existing("join", join["table"], base, config)
        other, on = _with_header(file, join), list(join["on"])
        wanted = list(join["columns"]) or [str(name) for name in other.columns if name not in cells.columns]
        problems = [
            f"join: {table.name} has no column {name!r}: {unknown('column', name, map(str, frame.columns))}"
            for table, frame, names in ((path, cells, on), (file, other, [*on, *wanted]))
            for name in names
            if name not in frame.columns
        ]
        problems += [f"join: {name!r} is a column of {path.name} already" for name in wanted if name in cells.columns]
        raise_all(problems)
        other = other[[*on, *wanted]].drop_duplicates()
        twice = other.duplicated(on)
        if twice.any() and cells.duplicated(on).any():
            example = ", ".join(map(str, other[on][twice].iloc[0]))
            raise UserError(f"join: {file.name} has rows that differ for one {', '.join(on)}, such as {example}")
        numbers = pd.Series(cells.index, name=_NUMBER)  # The row of a study becomes one row per image.
        merged = pd.concat([cells.reset_index(drop=True), numbers], axis=1)
        merged = merged.merge(other, how="left", on=on, indicator=TABLE).set_index(_NUMBER)
        alone = int((merged.pop(TABLE) == "left_only").sum())
        if alone == len(merged) and (of_main or needed.intersection(wanted)):
            example = ", ".join(map(str, cells[on].iloc[0]))
            way_out = "fix the join" if of_main else "leave this table out with --val-data none or --test-data none"
            what = f"no row of {path.name} has a {', '.join(on)} of {file.name} (it has {example})"
            raise UserError(f"join: {what}; {way_out}")
        if alone:
            blank = f"{', '.join(wanted)} left blank"
            notes.append(f"{alone} of {len(merged)} rows of {path.name} have no match in {file.name}: {blank}")
        cells = merged.fillna("")
    return cells, notes


def _with_header(file: Path, join: Mapping[str, Any]) -> pd.DataFrame:
    """Read a table of a join. Raises the ``UserError`` of ``read_table``, in terms of the join's settings."""
    try:
        return read_table(file, join.get("header", ()))
    except UserError as error:
        raise UserError(*(f"join: {said.replace('--columns ', 'header: ')}" for said in error.problems)) from None


def _column_problems(path: Path, cells: pd.DataFrame, split_column: str | None, config: DataConfig) -> list[str]:
    """Requested columns that are missing or there twice; no label column; two options for the groups."""
    names = list(map(str, cells.columns))
    of_files = [name for name, cell in zip(names, cells.iloc[0], strict=True) if has_image_suffix(str(cell))]
    wanted = {
        "--path-column": (config.path_column,),
        "--label-column": config.label_column,
        "--subgroup-column": config.subgroup_column,
        "--split-column": (split_column,),
        "--group-column": (config.group_column,),
        "--source-column": (config.source_column,),
        "--where": tuple(config.where),
    }
    problems = []
    for option, columns in wanted.items():
        for name in columns:
            if name is not None and name not in names:
                problem = f"{option} {name}: {unknown(f'column of {path.name}', name, filter(None, names))}"
                hint = f"; {of_files[0]!r} contains the names of image files" if of_files else ""
                problems.append(problem + (hint if option == "--path-column" else ""))
            elif name is not None and names.count(name) > 1:
                problems.append(f"{option} {name}: {path.name} has {names.count(name)} columns of that name")
    if not config.label_column:
        has = f"{path.name} has {', '.join(filter(None, names))}"
        problems.append(f"--label-column is not given; name the column(s) with the labels: {has}")
    if config.group_column and config.group_from:
        problems.append("--group-column and --group-from: give only one of them")
    return problems


def _columns_in_use(cells: pd.DataFrame, split_column: str | None, config: DataConfig) -> pd.DataFrame:
    names = [config.path_column, *config.label_column, *config.subgroup_column, *config.where]
    names += [name for name in (config.source_column, split_column) if name is not None]
    group = config.group_column
    if group is None or group in names:
        return cells[list(dict.fromkeys(names))]
    return cells[list(dict.fromkeys([*names, group]))].assign(**{group: _patients(cells[group])})


def _patients(cells: pd.Series[str]) -> pd.Series[str]:
    """Group names in one spelling for all tables: "" for no value, and 7 for 7.0 if all names are whole numbers."""
    places, values = pd.factorize(cells)
    names = ["" if str(one).lower() in NO_VALUE else str(one) for one in values]
    whole = [WHOLE.fullmatch(one) for one in names]
    if all(match or not one for match, one in zip(whole, names, strict=True)):
        names = [match[1] if match else "" for match in whole]
    return pd.Series(np.array(names, dtype=object)[places], index=cells.index)
