"""Read a table of any supported format into a frame of strings, without converting cells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from search_spaces.errors import UserError, some
from trainables.data.delimited import DelimitedText, with_text
from trainables.data.file_form import Opened, opened
from trainables.data.files import has_image_suffix
from trainables.data.samples import SPLIT_WORDS
from trainables.data.typed_table import MOST_COLUMNS, json_parts, parquet_columns, parquet_parts

_CHECKED_ROWS = 1_000
_CHECKED_COLUMNS = 200
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{\s*[\"}]|\[\s*\{)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_NOT_KNOWN = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown", "missing", "-", "?", "."})
_LIST_HEADER = re.compile(r"(image|img|file|path|name|id|s|index|study|patient|[ _-])+", re.IGNORECASE)
_PATIENTS = (
    re.compile(r"(?i)(id[\s_-])?((patient|subject|participant|person)s?|pid|mrn)[\s_-]*(id|no|nr|number|name|code)?"),
    re.compile(r"(?i)(lesion|study|exam|case|accession|slide|video)s?[\s_-]*(instance)?(id|no|nr|number|uid)"),
)
_EITHER = ("evaluation", "eval")  # of val or test: a further word of the path tells which
_MOST_FOLDERS = 2  # between a table and the folders named as splits
_SHARD = re.compile(r"(.*-)(\d{5})-of-(\d{5})(?!\d)(.*)", re.DOTALL)
_TABLE_SUFFIX = re.compile(
    r"(-0{5}-of-\d{5})?(\.(csv|tsv|tab|psv|txt|dat|jsonl?|ndjson|parquet|pq))?(\.(gz|zip))?$", re.IGNORECASE
)


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table: CSV (commas, semicolons, tabs, bars or blanks), Parquet or JSON Lines, also in gzip or zip.

    columns: the names of the columns of a table without a header (a first row that has these is taken as one). Cells
    are strings ("NA" and "007" too) without white space around them, "" for no value. The index is the row's number as
    a spreadsheet shows it (the header is row 1; Parquet and JSON Lines: from 1); rows without any text are left out.
    The rows of a table in several files (``shards``) are "2 of train-00000-of-00002.parquet" and so on.
    Raises ``UserError`` if it is not a table by its content, not UTF-8 or UTF-16, ragged (with the lines), has no rows,
    no header or two of them, or shards of different columns.
    """
    first, *others = shards(path)
    cells = _read_file(first, columns)
    if not others:
        return cells
    parts = [cells, *(_read_file(one, columns) for one in others)]
    for file, part in zip((first, *others), parts, strict=True):
        if list(part.columns) != list(cells.columns):
            raise UserError(f"{file}: has other columns than {first.name}, a part of the same table; fix it")
        part.index = part.index.astype(str) + f" of {file.name}"
    return pd.concat(parts)


def shards(path: Path) -> list[Path]:
    """All files of the table that ``path`` is a part of by its name (train-00000-of-00002.parquet), else itself.

    Raises ``UserError`` if one of them is missing.
    """
    match = _SHARD.fullmatch(path.name)
    count = int(match[3]) if match else 0
    if match is None or count < 2:
        return [path]
    files = [path.with_name(f"{match[1]}{number:05d}-of-{match[3]}{match[4]}") for number in range(count)]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        what = f"one of {count} files of a table, some of which are missing: {some(absent)}"
        raise UserError(f"{path}: {what}; download them, or rename it to read it alone")
    return files


def _read_file(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    with opened(path) as stream:
        form = _form(stream)
        wrong_name = form != "Parquet" and path.suffix.lower() in (".parquet", ".pq")
        where = f"{path} (not Parquet by its content)" if wrong_name else str(path)
        if form == "text":
            return _read_text(where, stream, columns)
        if columns:
            what = f"{path.name} is {form}, whose columns have names: leave it out"
            raise UserError(f"--columns {','.join(columns)}: {what}")
        parts = list(parquet_parts(path, stream) if form == "Parquet" else json_parts(where, stream))
    cells = pd.concat(parts, ignore_index=True, sort=False).fillna("") if parts else pd.DataFrame()
    cells.index = pd.RangeIndex(1, len(cells) + 1)
    cells = with_text(cells)
    if not len(cells):
        raise UserError(f"{where}: a table without rows")
    return cells


def read_list(path: Path) -> list[str]:
    """The names in a list of files: one column, without header, or with one such as "filename".

    Raises ``UserError`` where it is a table of several columns, and as ``read_table`` does.
    """
    with opened(path) as stream:
        form = _form(stream)
        if form != "text":
            raise UserError(f"{path}: {form}, not a list of files (one name a line)")
        text = DelimitedText(str(path), stream)
        names = [line.strip().strip('"') for line in text.lines()]
    names = [name for name in names if name]
    if not names:
        raise UserError(f"{path}: the file is empty")
    width = len(names[0].split(None if text.separator == " " else text.separator))
    if width > 1 and not (text.separator == " " and all(map(has_image_suffix, names))):
        raise UserError(f"{path}: a table of {width} columns, {text.separated}, not a list of files (one name a line)")
    names = names[1:] if _LIST_HEADER.fullmatch(names[0]) else names
    if not names:
        raise UserError(f"{path}: a list without names")
    return names


def is_list(path: Path) -> bool:
    """Whether a file contains only names, one per line."""
    try:
        return bool(read_list(path))
    except UserError:
        return False


def neighbours(path: Path, rows: pd.DataFrame, label_columns: Sequence[str]) -> dict[str, Path]:
    """The tables that are clearly the "val" and "test" of the table at ``path``, whose rows are ``rows``.

    Clearly: the same path with "train" replaced by a word of the split, in the names of the file or of its folders, the
    same columns, and labels that are not all empty, and not all equal if those of ``rows`` differ. Raises ``UserError``
    if two tables could be the same split, or one that has these columns cannot be read.
    """
    own = sorted(map(str, rows.columns))
    without_header = _first_row(path) != own
    found: dict[str, Path] = {}
    parts = path.parts[1:][-1 - _MOST_FOLDERS :]
    for file, splits in _counterparts(path.parents[len(parts) - 1], parts):
        if len(splits - {""}) != 1:
            continue
        [split] = splits - {""}
        first = _first_row(file)
        if len(first) != len(own) or (not without_header and first != own):
            continue
        try:
            cells = read_table(file, tuple(map(str, rows.columns)) if without_header else ())
        except UserError as error:
            refused = f"it seems to be the {split} split of {path.name}; --{split}-data none ignores it"
            raise UserError(f"{error.problems[0]} ({refused})") from None
        if not _has_labels(cells, rows, list(label_columns)):
            continue
        if split in found:
            both = (
                f"{found[split].name} and {file.name}" if file.parent == path.parent else f"{found[split]} and {file}"
            )
            what = f"{both} next to {path.name} both seem to be its {split} split"
            raise UserError(f"{path.parent}: {what}; give one as --{split}-data, or none")
        found[split] = file
    return {split: found[split] for split in ("val", "test") if split in found}


def patient_column(cells: pd.DataFrame, path_column: str) -> str | None:
    """The column with the patient of each image, else its lesion, study or the like; some must have several images."""
    for pattern in _PATIENTS:
        for place, name in enumerate(map(str, cells.columns)):
            if name == path_column or not pattern.fullmatch(name):
                continue
            of = pd.DataFrame({"image": cells[path_column].to_numpy(), "patient": cells.iloc[:, place].to_numpy()})
            of = of[of["patient"] != ""].drop_duplicates()
            if 2 < of["patient"].nunique() < len(of):
                return name
    return None


def _form(stream: Opened) -> str:
    head = stream.peek()
    return "Parquet" if head.startswith(b"PAR1") else "JSON" if _JSON.match(head) else "text"


def _read_text(where: str, stream: Opened, columns: Sequence[str]) -> pd.DataFrame:
    text = DelimitedText(where, stream)
    first, line = [cell.strip() for cell in text.first], text.first_line
    shown = " | ".join(first[:6]) + (" | ..." if len(first) > 6 else "")
    given = bool(columns) and not set(columns) <= set(first)
    if given and len(columns) != len(first):
        what = f"{len(columns)} name(s), but line {line} of {where} has {len(first)} cells ({shown})"
        raise UserError(f"--columns {','.join(columns)}: {what}; name each column")
    if len(first) > MOST_COLUMNS:
        raise UserError(f"{where}: line {line} has {len(first):,} cells, more than {MOST_COLUMNS:,}: not a table")
    names = list(columns) if given else first
    rows = text.frame(names, with_first=given)
    if not len(rows):
        raise UserError(f"{where}: a header and no rows ({shown})")
    _check_header(where, names, rows, given)
    rows.columns = pd.Index(names)
    return rows


def _check_header(where: str, names: Sequence[str], cells: pd.DataFrame, given: bool) -> None:
    """Raise if the header seems to be a row, or a row a header. given: ``names`` are not from the table."""
    begin_so = cells[cells.iloc[:, 0] == names[0]]
    repeated = [int(number) for number in begin_so.index[(begin_so == list(names)).all(axis=1)]]  # equal to the header
    head = cells.iloc[:_CHECKED_ROWS, :_CHECKED_COLUMNS]
    head = head[~head.index.isin(repeated)]
    top = [list(head[place]) for place in head]
    unlike = _unlike(top)
    if given:
        if unlike:
            raise UserError(f"--columns {','.join(names)}: {where} seems to have a header ({unlike}); leave it out")
        return
    why = _like_a_row(names, top)
    if why:
        example = ",".join(
            "path" if re.search(r"[\\/]", name) or has_image_suffix(name) else f"column{n}"
            for n, name in enumerate(names[:6], 1)
        )
        example += ",..." if len(names) > 6 else ""
        what = f"{why}; name its {len(names)} column(s), such as --columns {example}"
        raise UserError(f"{where}: the table seems to have no header: {what}")
    if repeated:
        raise UserError(f"{where}: the header is repeated in row {some(repeated)}; remove it there")
    if unlike:
        raise UserError(f"{where}: row {cells.index[0]} seems to be a second header line ({unlike}); remove it")


def _like_a_row(names: Sequence[str], top: Sequence[Sequence[str]]) -> str | None:
    """Why ``names`` look like cells of a row, in words; None if they do not."""
    kinds = [_kind_of_all(column) for column in top]
    for name, column in zip(names, top, strict=False):
        if _kind(name) == "path" and any(_kind(cell) == "path" for cell in column):
            return f"{name!r} is the name of an image"
        folder = re.match(r"[^\\/]*[\\/]", name)
        if folder and any(cell.startswith(folder[0]) for cell in column):
            return f"{name!r} is a path like those below it"
    if any(kind and name and _kind(name) != kind for name, kind in zip(names, kinds, strict=False)):
        return None
    numbers = [int(name) for name in names if name.isdecimal() and len(name) < 9]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return None  # Columns of classes that have numbers as names.
    again = next((name for name, column in zip(names, top, strict=False) if name and name in column), None)
    return None if again is None else f"{again!r} is also a cell below itself"


def _unlike(top: Sequence[Sequence[str]]) -> str | None:
    """Why the first row differs from those below, in words: in columns of paths or numbers none of its cells is one."""
    known = [(column[0], kind) for column in top if len(column) > 3 and (kind := _kind_of_all(column[1:]))]
    if any(_kind(cell) == kind for cell, kind in known):
        return None
    odd = ((cell, kind) for cell, kind in known if cell.lower() not in _NOT_KNOWN and not re.search(r"\d", cell))
    found = next(odd, None)
    return None if found is None else f"{found[0]!r}, where the rows below have a {found[1]}"


def _kind(cell: str) -> str:
    return "number" if _NUMBER.fullmatch(cell) else "path" if has_image_suffix(cell) else ""


def _kind_of_all(cells: Sequence[str]) -> str:
    """The kind of the cells that are not empty: "number" or "path" if all are, else ""."""
    kinds = {_kind(cell) for cell in cells if cell}
    return kinds.pop() if len(kinds) == 1 else ""


def _counterparts(folder: Path, parts: Sequence[str]) -> Iterator[tuple[Path, frozenset[str]]]:
    """The files below ``folder`` whose path is ``parts`` except for split words, with the splits of these words."""
    own, *below = parts
    try:
        places = sorted(folder.iterdir())
    except OSError:
        return
    for place in places:
        split = "" if place.name == own else _split_of(place.name, own)
        if split is not None and below:
            yield from ((file, splits | {split}) for file, splits in _counterparts(place, below))
        elif split is not None and place.is_file():
            yield place, frozenset({split})


def _split_of(name: str, train: str) -> str | None:
    """ "val" or "test": the split whose word ``name`` has where ``train`` has "train"; "": either; None: neither."""
    name, train = (_TABLE_SUFFIX.sub("", one).lower() for one in (name, train))
    for found in re.finditer("training|train", train):
        before, after = train[: found.start()], train[found.end() :]
        if name.startswith(before) and name.endswith(after):
            word = name[len(before) : len(name) - len(after)]
            if word in _EITHER or SPLIT_WORDS.get(word, "train") != "train":
                return SPLIT_WORDS.get(word, "")
    return None


def _first_row(file: Path) -> list[str]:
    """The cells of a table's first row, or the names of its columns, sorted; [] if it is not a table."""
    try:
        with opened(file) as stream:
            form = _form(stream)
            if form == "text":
                return sorted(cell.strip() for cell in DelimitedText(str(file), stream).first)
            if form == "Parquet":
                return sorted(parquet_columns(file, stream))
        return sorted(map(str, read_table(file).columns))
    except UserError:
        return []


def _has_labels(cells: pd.DataFrame, rows: pd.DataFrame, columns: list[str]) -> bool:
    """Whether labels are not all empty, nor all equal where those of ``rows`` differ (as in a form to be filled in)."""
    labels = cells[columns]
    if not (labels != "").to_numpy().any():
        return False
    return len(labels) == 1 or len(labels.drop_duplicates()) > 1 or len(rows[columns].drop_duplicates()) == 1
