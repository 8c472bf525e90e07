"""Tables in a data folder: which of them name its images, and which options read them."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from search_spaces.errors import UserError
from trainables.data.files import FileIndex, has_image_suffix, paths_below, shown_paths, stem
from trainables.data.folder_names import class_pattern, groups_of, look_like_ids, name_of, split_name
from trainables.data.samples import SPLIT_WORDS
from trainables.data.table import is_list, patient_column, read_table, shards

_SUFFIX = re.compile(r"\.(csv|tsv|txt|parquet|jsonl|json)(\.gz)?\Z", re.IGNORECASE)
_LATER_SHARD = re.compile(r"-(?!0{5})\d{5}-of-\d{5}[^/]*$")
_NO_TABLES = ("readme", "license", "licence", "changelog", "requirements", "sha256sums")
_MOST_BYTES = 32 * 1024**2  # larger tables are not inspected
_ROWS = 2_000  # that are inspected
_COLUMNS = 60
_MOST_OF_A_SUFFIX = 20  # in one folder; more files are not tables, but one per image
_MOST_CLASSES = 50
_NEARLY_ALL = 0.95
_LABEL = re.compile(
    r"label|class|diagnos|grade|target|categor|finding|disease|(^|[_ ])(dx|level|type)|befund", re.IGNORECASE
)
_PATH = re.compile(r"path|file|image|img|bild|(^|[_ ])id$", re.IGNORECASE)
_NO_LABEL = re.compile(r"fold|split|partition|(sub)?set|usage|.*_id|index|", re.IGNORECASE)


@dataclass(frozen=True)
class NamingTable:
    """A table with a column that names images.

    path: below the data folder. column: "" = the table has no header. base: the folder, below the data folder, from
    which its cells are found. images_dir: which folder, if names occur in several. rows: for each inspected row, the
    positions in the index that it names. named: estimate of how many images all rows name. cells: the inspected rows.
    """

    path: str
    column: str
    base: str
    images_dir: str | None
    rows: tuple[tuple[int, ...], ...]
    named: int
    cells: pd.DataFrame

    @property
    def split(self) -> str | None:
        """The split by its name, or by that of the folder around it; None if neither names one."""
        folder, name = os.path.split(self.path)
        return split_name(name).split or split_name(name_of(folder)).split

    @property
    def patients(self) -> str | None:
        """The column that says which images are of one patient."""
        return patient_column(self.cells, self.column)

    def names_most(self, index: FileIndex) -> bool:
        """Whether it has a header and names half of all images or more."""
        return bool(self.column) and 2 * self.named >= len(index.images)

    def label_columns(self) -> list[str]:
        """Columns that may have classes, the likeliest first: few different values, and not ids, splits or the like."""
        found = []
        for place, name in enumerate(map(str, self.cells.columns)):
            values = [value for value in self.cells.iloc[:, place] if value]
            few = 2 <= len(set(values)) <= min(_MOST_CLASSES, len(values) // 2)
            if few and name != self.column and not _NO_LABEL.fullmatch(name) and not set(values) <= {*SPLIT_WORDS}:
                found.append(name)
        return sorted(found, key=lambda name: not _LABEL.search(name))

    def option(self, index: FileIndex, label: str = "") -> str:
        """The options in place of the folder. label: the column of the classes; "" = guess by cells and names."""
        data = f"--data {_quoted(index.root / self.path)}"
        images_dir = self.base if self.images_dir is None else self.images_dir
        if images_dir != os.path.dirname(self.path):
            data += f" --images-dir {_quoted(index.root / images_dir)}"
        if not self.column:
            return f"{data} --columns NAME,NAME,... --label-column NAME"
        labels = [label] if label else self.label_columns()
        sure = labels and (len(labels) == 1 or _LABEL.search(labels[0]))
        data += f" --path-column {_quoted(self.column)} --label-column {_quoted(labels[0]) if sure else 'COLUMN'}"
        return data if self.patients is None else f"{data} --group-column {_quoted(self.patients)}"

    def contradicts(self, index: FileIndex, class_of: Mapping[str, str]) -> bool:
        """Whether it names most images and has label columns of which none agrees with their class folders.

        class_of: the class folder of each image.
        """
        if not self.names_most(index):
            return False
        named = {place: index.images[rows[0]] for place, rows in enumerate(self.rows) if rows}
        known = {place: path for place, path in named.items() if path in class_of}
        folders = [class_of[path] for path in known.values()]
        columns = self.label_columns()
        cells = list(known)
        if len(set(folders)) == len(set(self.cells[self.column].iloc[cells])) > 1:  # The column names class folders.
            one_class = [name for name in columns if _determines(folders, self.cells[name].iloc[cells].tolist())]
            few = [name for name in one_class if 2 * self.cells[name].iloc[cells].nunique() <= len(set(folders))]
            return bool(few) and look_like_ids(sorted(set(folders)))
        told = False
        for name in columns:
            values = self.cells[name].iloc[cells].tolist()
            if known and _determines(values, folders) and _determines(folders, values):
                return False
            is_told = [value in f"/{path}" for value, path in zip(values, known.values(), strict=True)]
            told = told or not known or sum(is_told) < _NEARLY_ALL * len(is_told)
        return told


def naming_tables(index: FileIndex) -> tuple[list[NamingTable], dict[str, str]]:
    """The tables below a folder with a column that names images, those that name most first; and for other CSV files
    and the like: path -> why they are none.
    """
    texts = _tables_by_name(index)
    parts = {"": index}
    read = {path: _look_into(index, path, parts) for path in texts} if index.images else {}
    found = [one for one in read.values() if isinstance(one, NamingTable)]
    others = {path: one for path, one in read.items() if isinstance(one, str) and not path.endswith((".txt", ".json"))}
    return sorted(found, key=lambda one: (-one.named, one.split not in (None, "train"), one.path)), others


def _tables_by_name(index: FileIndex) -> list[str]:
    """Files that may be tables, by their names; of a table in several files the first."""
    texts = [path for path in index.others if not name_of(path).lower().startswith(_NO_TABLES)]
    suffixes = {path: match[0].lower() for path in texts if (match := _SUFFIX.search(path))}
    kinds = {path: (os.path.dirname(path), one) for path, one in suffixes.items() if not _LATER_SHARD.search(path)}
    alike = Counter(kinds.values())
    return [path for path, kind in kinds.items() if alike[kind] <= _MOST_OF_A_SUFFIX]


def way_out(index: FileIndex, images: Sequence[str] = ()) -> str:
    """The advice for a folder without classes: give a table in it that names its images, or a regular expression.

    images: those that need a class; default: all.
    """
    tables, others = naming_tables(index)
    if option := _table_option(index, tables):
        return option
    sheets = [path for path in index.others if path.lower().endswith((".xlsx", ".xls"))]
    if sheets:
        return f"{shown_paths(sheets)}: save it as CSV, and give it as --data with --label-column"
    pattern = class_pattern(images or index.images)
    if pattern:
        some = "" if all(groups_of(pattern, index.images)) else ", with --test-data none if those of tests have none"
        return f"--class-from '{pattern}' takes a class from the file names{some}"
    if arrays := [path for path in index.others if path.lower().endswith(".mat")]:
        what = "save the labels as CSV, with the names of the images, and give it as --data with --label-column"
        return f"{shown_paths(arrays)}: {what}"
    if others:
        said = "; ".join(f"{path} exists, but {why}" for path, why in list(others.items())[:3])
        return f"{said}; give a table of the images as --data with --label-column, or --class-from REGEX"
    return "--class-from REGEX takes the class of each image from its path"


def table_in(index: FileIndex) -> str:
    """The advice for table options with a folder: give the table that names its images, else any table in it."""
    names = _tables_by_name(index)
    option = _table_option(index, naming_tables(index)[0])
    beside = f", such as {_quoted(index.root / names[0])}" if names else ""
    return option or f"give a table with --data{beside}"


def _table_option(index: FileIndex, tables: Sequence[NamingTable]) -> str:
    """The advice to give the main table and those of other splits with its columns and labels; "" if they name few."""
    if not tables or 4 * sum(one.named for one in tables) < len(index.images):
        return ""
    main = next((one for one in tables if one.split == "train" and one.column), tables[0])
    main = main if 4 * main.named >= tables[0].named else tables[0]
    text, label = main.option(index), main.label_columns()[:1]
    for split in ("val", "test") if main.split == "train" and main.column else ():
        alike = [one for one in tables if one.split == split and list(one.cells.columns) == list(main.cells.columns)]
        alike = [one for one in alike if one.images_dir == main.images_dir and {*label} <= {*one.label_columns()}]
        if len(alike) == 1:
            text += f" --{split}-data {_quoted(index.root / alike[0].path)}"
    return f"{main.path} names images: give {text}"


def _look_into(index: FileIndex, path: str, parts: dict[str, FileIndex]) -> NamingTable | str:
    """The table, or why it does not name images."""
    above = os.path.dirname(path)
    try:
        if sum(os.stat(file).st_size for file in shards(index.root / path)) > _MOST_BYTES:
            return "is too large to inspect"
        cells = read_table(index.root / path)
    except UserError as error:
        if is_list(index.root / path):
            return "is a list of files, without labels"
        if "no header" in error.problems[0] and ("image" in error.problems[0] or not path.endswith((".txt", ".json"))):
            return NamingTable(path, "", above, None, (), len(index.images) // 4 + 1, pd.DataFrame())
        return f"is not read: {error.problems[0].removeprefix(f'{index.root / path}: ')}"
    except OSError as error:
        return f"is not read: {error.strerror}"
    cells = cells.loc[:, [bool(name) for name in cells.columns]]
    if cells.columns.duplicated().any() or cells.shape[1] < 2:
        return "has only one column, or two of the same name"
    count, cells = len(cells), cells.head(_ROWS)
    for base in dict.fromkeys((above, "")):
        part = parts.setdefault(base, _part(index, base))
        found = [_column(index, part, path, base, cells, count, str(name)) for name in cells.columns[:_COLUMNS]]
        best = max((one for one in found if one), key=_goodness, default=None)
        if best:
            return best
    return "no column of it names images by their paths or names"


def _column(
    index: FileIndex, part: FileIndex, path: str, base: str, cells: pd.DataFrame, count: int, name: str
) -> NamingTable | None:
    """The table if the column names images or folders of images; else None. count: the number of all rows, of which
    ``cells`` are the first; the others are assumed to be like them.
    """
    values = cells[name].tolist()
    distinct = [value for value in dict.fromkeys(values) if value]
    if len(distinct) < 2 or not part.images:
        return None
    located = part.locate(distinct)
    start = index.below(base).start
    rows_of = {
        value: tuple(start + row for row in rows if row < len(part.images))
        for value, rows in zip(distinct, located.rows, strict=True)
    }
    named = {row for rows in rows_of.values() for row in rows}
    unclear = len(located.ambiguous)
    hits = sum(map(bool, rows_of.values())) + unclear
    covered = min(len(index.images), (len(named) + 2 * unclear) * count // len(values))
    if 2 * hits < len(distinct) or (2 * hits < len(values) and 2 * covered < len(index.images)):
        return None
    images_dir = _images_dir(part, path, distinct, located.ambiguous) if unclear else None
    if images_dir is not None:
        images_dir = os.path.join(base, images_dir)
    rows = tuple(rows_of.get(value, ()) for value in values)
    return NamingTable(path, name, base, images_dir, rows, covered, cells)


def _goodness(table: NamingTable) -> tuple[bool, int, bool, bool]:
    """Sort key: one image per cell rather than a folder of them; then the most images; then by names."""
    cells = table.cells[table.column]
    named = _PATH.search(table.column) is not None
    return all(len(rows) < 2 for rows in table.rows), table.named, has_image_suffix(cells.iloc[0]), named


def _images_dir(
    part: FileIndex, path: str, cells: Sequence[str], ambiguous: Mapping[int, tuple[str, str]]
) -> str | None:
    """Of the folders of ambiguous images, the one with the most of the names; if equal, that of the table's split."""
    names = {stem(name_of(cell)) for cell in cells}
    split = split_name(name_of(path)).split

    def goodness(folder: str) -> tuple[int, bool]:
        inside = {stem(name_of(image)) for image in paths_below(part.images, folder)}
        return len(names & inside), split is not None and split_name(name_of(folder)).split == split

    folders = sorted({os.path.dirname(one) for pair in ambiguous.values() for one in pair})
    return max(folders[:_COLUMNS], key=goodness, default=None) or None


def _part(index: FileIndex, base: str) -> FileIndex:
    """The index of the folder ``base`` in it."""
    if not base:
        return index

    def inside(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(path[len(base) + 1 :] for path in paths_below(paths, base))

    return FileIndex(index.root / base, inside(index.images), ("", *inside(index.folders)), (), ())


def _determines(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether equal values of ``one`` have equal values of ``other``, at 95 % of the positions or more."""
    pairs = Counter(zip(one, other, strict=True))
    most: dict[str, int] = {}
    for (value, _), count in pairs.items():
        most[value] = max(most.get(value, 0), count)
    return sum(most.values()) >= _NEARLY_ALL * len(one)


def _quoted(text: object) -> str:
    return shlex.quote(str(text))
