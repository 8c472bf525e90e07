"""Convert label cells of a table to classes and numbers."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces.errors import some, unknown
from trainables.data.classes import MOST_NAMES, NO_VALUE, NOT_NAMED, WHOLE, asked_classes, class_order, renamed_classes
from trainables.data.config import DataConfig
from trainables.data.presets import said_by_preset
from trainables.data.samples import MISSING, MOST_ITEMS, LeftOut

_WORDS = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}
_NOT_A_NUMBER = frozenset({"", "nan", "<na>"})  # as pandas writes missing values
_UNCERTAIN, _BLANK, _OTHER = -1, -2, -3  # what a finding's cell may be, besides 0 and 1
_BAR = "|"
_ASKED = (";", ",", "/", " ")  # may separate labels, or belong to a name: only the user can tell
_OBJECT = re.compile(r"\{.*:.*\}|\[\s*\{.*:.*\}\s*\]", re.DOTALL)  # of JSON, or as Python prints one
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_MOST_ROWS, _MOST_NUMBERS, _MOST_CLASSES, _MOST_CHARACTERS = 5, 20, 50, 80

Hot = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Parts = Sequence[tuple[str, ...]]
"""The names in each distinct cell."""


@dataclass(frozen=True)
class Labels:
    """values: int64 [n], or int8 [n, classes] of 0, 1 and ``MISSING``; arbitrary for rows that are not usable."""

    task: str
    classes: tuple[str, ...]
    values: npt.NDArray[Any]


class RowUse:
    """Which rows of a table are used, and why the others are not; all problems are collected before any is raised.

    number: position of a row, from 0 -> its number for the user. usable: bool [n]. problems: a sentence for each kind
    of fault. left_out: rows that an option leaves out. undecided: bool [n], rows with labels whose meaning only the
    user knows.
    """

    def __init__(
        self, count: int, number: Callable[[int], str], left_out: Iterable[LeftOut] = (), notes: Iterable[str] = ()
    ) -> None:
        self._number = number
        self.usable = np.ones(count, dtype=bool)
        self.problems: list[str] = []
        self.left_out = list(left_out)
        self.notes = list(notes)
        self.undecided = np.zeros(count, dtype=bool)

    def fault(self, where: str, rows: Mask, what: str) -> None:
        """Make ``rows`` unusable and add a problem, if there are any."""
        if rows.any():
            self.usable &= ~rows
            self.problems.append(f"{where}, {self.named(rows)}: {what}")

    def leave_out(self, why: str, rows: Mask) -> None:
        """Leave out those of ``rows`` that are still used: a row with two reasons counts only for the first."""
        places = np.flatnonzero(rows & self.usable)
        if len(places):
            self.usable[places] = False
            examples = tuple(f"row {self._number(int(row))}" for row in places[:MOST_ITEMS])
            self.left_out.append(LeftOut(why, len(places), examples))

    def named(self, rows: Mask) -> str:
        """ "row 7" or "rows 2, 5, 6, 9, 12 and 3 more"."""
        places = np.flatnonzero(rows)
        return f"row{'s' if len(places) > 1 else ''} {some(map(self._number, places.tolist()), _MOST_ROWS)}"


def read_labels(cells: pd.DataFrame, config: DataConfig, use: RowUse) -> Labels:
    """The labels of each row, under the names that ``config.class_names`` gives them.

    cells: strings, the columns ``config.label_column``. Several columns, or one with ``--task multi_label``, whose
    cells are 0, 1, -1 or blank (also 0.0, true, no) are findings; else such a column alone has the classes "0" and "1".
    Any other column has one class name per cell, or several as ``a|b``, ``['a', 'b']`` or ``{"choices": ["a", "b"]}``.
    Classes: the columns in the given order, else sorted names. The meaning of blank cells, -1 and other separators is
    asked for in ``use.problems``, never guessed.
    """
    columns = config.label_column
    codes = {name: _finding_codes(cells[name]) for name in columns}
    is_finding = (codes[columns[0]] != _OTHER).all() and (codes[columns[0]] >= _UNCERTAIN).any()
    if len(columns) > 1 or (is_finding and config.task == "multi_label"):
        labels = _from_columns(cells, codes, config, use)
    elif is_finding:
        labels = _from_one_finding(cells[columns[0]], codes, config, use)
    else:
        labels = _from_names(cells[columns[0]], config, use)
    if labels.classes:
        renamed = renamed_classes(labels.task, labels.classes, labels.values, config.class_names)
        labels = Labels(labels.task, *renamed)
    others = [name for name in labels.classes if name not in asked_classes(config)]
    if labels.task == "single_label" and 0 < len(others) < len(labels.classes) and config.classes:
        out = np.isin(labels.values, [labels.classes.index(name) for name in others])
        use.leave_out(f"classes {NOT_NAMED}: {some(others, MOST_NAMES)}", out)
    return labels


def _finding_codes(column: pd.Series[str]) -> Hot:
    """int8 [n]: 0, 1, ``_UNCERTAIN``, ``_BLANK`` or ``_OTHER``."""
    places, cells = pd.factorize(column)
    return np.array([_finding_code(str(cell)) for cell in cells], dtype=np.int8)[places]


def _finding_code(cell: str) -> int:
    word = cell.lower()
    if word in NO_VALUE:
        return _BLANK
    value = _as_number(str(_WORDS.get(word, word)))
    return _OTHER if value not in (0, 1, -1) else int(value or 0)


def _from_columns(cells: pd.DataFrame, codes: dict[str, Hot], config: DataConfig, use: RowUse) -> Labels:
    single = config.task == "single_label" or (config.one_hot and config.task == "auto")
    use.problems += [f"label column {name!r}: a label's name cannot contain '|'" for name in codes if _BAR in name]
    nothing = _names_of_nothing(list(codes), single, config, use)
    asked = asked_classes(config)
    findings = {
        name: column
        for name, column in codes.items()
        if name not in nothing and (single or not asked or config.class_names.get(name, name) in asked)
    }
    if not findings:
        findings = codes  # ``keep_classes`` reports that the requested names are unknown.
    for name, column in findings.items():
        wrong = use.usable & (column == _OTHER)
        if wrong.any():
            cell = cells[name].iloc[int(wrong.argmax())]
            what = f"{cell!r} is not 0, 1, -1 or blank; give a column of class names alone"
            use.fault(f"label column {name!r}", wrong, what)
    hot = _decided(findings, tuple(codes), single, config, use)
    for name in nothing & codes.keys():
        beside = (codes[name] == 1) & (hot == 1).any(axis=1) & use.usable
        _note_beside(name, int(beside.sum()), use)
    classes = tuple(findings)
    if not single:
        of_used = hot[use.usable]
        if (of_used >= 0).all() and (of_used.sum(axis=1) == 1).all() and config.task == "auto":
            what = "each row has exactly one of the label columns set: --task single_label reads them as classes"
            use.notes += filter(None, [config.by_task(what)])
        return Labels("multi_label", classes, hot)
    count = (hot == 1).sum(axis=1)
    not_one = use.usable & (count != 1)
    if not_one.any() and not use.undecided.any():
        how_many = f"{int(count[not_one.argmax()])} of them are set, but there is one label per image"
        way_out = config.by_task("choose --task multi_label, or ") + "fix the rows"
        use.fault("label columns", not_one, f"{how_many}; {way_out}")
    return Labels("single_label", classes, hot.argmax(axis=1).astype(np.int64))


def _from_one_finding(column: pd.Series[str], codes: dict[str, Hot], config: DataConfig, use: RowUse) -> Labels:
    """A single column of 0 and 1: two classes."""
    name = str(column.name)
    hot = _decided(codes, (name,), True, config, use)
    _names_of_nothing([name], True, config, use)
    words = {cell.lower() for cell in column.unique()} & {"true", "false", "yes", "no"}
    if words:
        use.notes.append(f"column {name!r}: {', '.join(sorted(words))} are read as 0 and 1")
    return Labels("single_label", ("0", "1"), np.maximum(hot[:, 0], 0).astype(np.int64))


def _decided(codes: Mapping[str, Hot], labels: Sequence[str], single: bool, config: DataConfig, use: RowUse) -> Hot:
    """int8 [n, columns] of 0, 1 and ``MISSING``, as the user has decided; undecided cells become problems.

    labels: the names that a decision may be made for.
    """
    values = np.stack(list(codes.values()), axis=1)
    questions = (
        (_UNCERTAIN, "--uncertain-label", config.uncertain_label, "cells of -1", "an uncertain", "01"),
        (_BLANK, "--blank-label", config.blank_label, "blank cells", "a blank", "0"),
    )
    for code, option, given, cells, article, digits in questions:
        allowed = [*digits, *([] if single else ["missing"]), "drop"]
        _check_decided_names(option, given, labels, config, use)
        asked: dict[str, int] = {}
        drop, open_rows = np.zeros(len(values), dtype=bool), np.zeros(len(values), dtype=bool)
        for place, name in enumerate(codes):
            rows = (values[:, place] == code) & use.usable
            decision = _decision(given, name, config)
            if decision == "drop":
                drop |= rows
            elif decision is not None and decision in allowed:
                values[rows, place] = MISSING if decision == "missing" else int(decision)
            elif rows.any():
                asked[name] = int(rows.sum())
                open_rows |= rows
        use.leave_out(f"rows with {article} cell ({option} drop)", drop)
        _ask(option, asked, cells, allowed, open_rows, use)
    return np.maximum(values, MISSING)


def _ask(option: str, asked: Mapping[str, int], cells: str, allowed: Sequence[str], rows: Mask, use: RowUse) -> None:
    """Add a problem that names the columns with undecided cells, and the option that decides."""
    if not asked:
        return
    first, *others = asked
    counts = some(
        [f"{first!r} has {asked[first]} {cells}", *(f"{name!r} {asked[name]}" for name in others)], MOST_NAMES
    )
    by_label = f"; by label: {option} {','.join(f'{name}={allowed[0]}' for name in list(asked)[:2])}" if others else ""
    use.undecided |= rows
    means = "state their meaning with" if len(allowed) > 1 else "none is a class; leave these rows out with"
    use.problems.append(f"{counts} ({use.named(rows)}): {means} {option} {'|'.join(allowed)}{by_label}")


def _decision(given: Mapping[str, str], name: str, config: DataConfig) -> str | None:
    """The decision for a label by its name in the table, else its new name, else the one for all others."""
    return given.get(name, given.get(config.class_names.get(name, name), given.get("")))


def _check_decided_names(
    option: str, given: Mapping[str, str], labels: Sequence[str], config: DataConfig, use: RowUse
) -> None:
    known = {*labels, *(config.class_names.get(name, name) for name in labels)}
    use.problems += [
        f"{option} {name}={given[name]}: {unknown('label', name, known)}"
        for name in given
        if name and name not in known
    ]


def _names_of_nothing(names: Sequence[str], single: bool, config: DataConfig, use: RowUse) -> frozenset[str]:
    """The names in the table that mean ``--no-finding``; adds a problem if the option cannot apply to ``names``."""
    if config.no_finding is None:
        return frozenset()
    renamed = {theirs for theirs, ours in config.class_names.items() if ours == config.no_finding}
    nothing = frozenset({config.no_finding, *renamed})
    if single:
        what = "this is one of the classes of a single-label set"
        way_out = config.by_task("give --task multi_label, or ") + "omit it"
        use.problems.append(f"--no-finding {config.no_finding}: {what}; {way_out}")
    elif not nothing & set(names) and config.no_finding != said_by_preset(config, "no_finding"):
        use.problems.append(f"--no-finding {config.no_finding}: {unknown('label', config.no_finding, names)}")
    return nothing


def _note_beside(name: str, count: int, use: RowUse) -> None:
    if count:
        use.notes.append(
            f"{count} row{'s have' if count > 1 else ' has'} {name!r} together with a finding: the finding counts"
        )


def _from_names(column: pd.Series[str], config: DataConfig, use: RowUse) -> Labels:
    name = str(column.name)
    where = f"column {name!r}"
    places, cells = pd.factorize(column)
    texts = [str(cell) for cell in cells]
    parts = _split_cells(where, texts, config, use)
    sizes = np.array([len(names) for names in parts])[places]
    several = use.usable & (sizes > 1)
    multi = config.task == "multi_label" or (config.task == "auto" and bool(several.any()))
    found = sorted({one for names in parts for one in names}, key=class_order)
    nothing = _names_of_nothing(found, not multi, config, use)
    if multi:
        return _all_names(name, parts, places, [one for one in found if one not in nothing], config, use)
    if several.any():
        cell = texts[places[several.argmax()]]
        way_out = config.by_task("choose --task multi_label, or ") + "keep cells whole with --label-separator none"
        use.fault(where, several, f"more than one label ({cell!r}) with --task single_label; {way_out}")
    return _one_name(name, parts, places, found, config, use)


def _split_cells(where: str, cells: Sequence[str], config: DataConfig, use: RowUse) -> list[tuple[str, ...]]:
    """The labels in each of the distinct cells."""
    separator = config.label_separator
    if separator == "none":
        return [_stripped([cell]) for cell in cells]
    if separator is not None:
        if separator != said_by_preset(config, "label_separator") and not any(separator in cell for cell in cells):
            use.problems.append(f"--label-separator {separator!r}: no cell of {where} has it")
        return [_stripped(cell.split(separator)) for cell in cells]
    objects = {cell: _of_object(cell) for cell in cells if _OBJECT.fullmatch(cell)}
    if unread := [cell for cell, names in objects.items() if names is None]:
        cut = unread[0][:_MOST_CHARACTERS] + ("…" if len(unread[0]) > _MOST_CHARACTERS else "")
        what = "is a JSON object, not a class name or a list of names; write the labels as a|b"
        use.problems.append(f"{where}: {cut} {what}, or keep cells whole with --label-separator none")
        use.undecided[:] = True
        return [_stripped([cell]) for cell in cells]
    cells = [str(objects.get(cell) or cell) for cell in cells]
    lists = [cell.startswith("[") and cell.endswith("]") for cell in cells]
    parts = [
        _of_list(cell) if is_list else _stripped(cell.split(_BAR)) for cell, is_list in zip(cells, lists, strict=True)
    ]
    if any(lists):
        use.notes.append(f"{where}: lists in cells, such as {cells[lists.index(True)]}, are read as labels")
        vectors = [
            cell for cell, names in zip(cells, parts, strict=True) if len(names) > 1 and set(names) <= {"0", "1"}
        ]
        if vectors:
            what = "a list of 0 and 1 does not say which labels these are; name a column with the labels' names"
            use.problems.append(f"{where}: {vectors[0]}: {what}")
            use.undecided[:] = True
    elif any(_BAR in cell for cell in cells):
        use.notes.append(f"{where}: a|b cells are several labels")
    _ask_separator(
        where, [one for names, is_list in zip(parts, lists, strict=True) if not is_list for one in names], use
    )
    return parts


def _stripped(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip().lower() not in _NOT_A_NUMBER))


def _of_list(cell: str) -> tuple[str, ...]:
    """The items of ``['a', "b"]``, of ``['a' 'b']`` as numpy prints it, or of ``[a, b]``."""
    quoted = [first or second for first, second in _QUOTED.findall(cell)]
    items = [re.sub(r"\\(.)", r"\1", item) for item in quoted] if quoted else cell[1:-1].split(",")
    names = [item.strip() for item in items]
    return tuple(names) if set(names) <= {"0", "1"} else _stripped(names)


def _of_object(cell: str) -> list[str] | None:
    """The names in an object of one list of names, as ``{"choices": ["a", "b"]}``; None: not such an object."""
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    names = next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else None
    return names if isinstance(names, list) and names and all(isinstance(name, str) for name in names) else None


def _ask_separator(where: str, names: Sequence[str], use: RowUse) -> None:
    """Ask whether ``names`` are several labels each, if they contain a usual separator.

    A semicolon is one; the others only if parts of such a name occur elsewhere, too.
    """
    names = list(dict.fromkeys(names))
    whole = set(names)
    for separator in _ASKED:
        split = {name: _stripped(name.split(separator)) for name in names if separator in name}
        split = {name: parts for name, parts in split.items() if len(parts) > 1}
        uses = Counter(part for parts in split.values() for part in parts)
        if separator == " ":
            suspects = [name for name, parts in split.items() if whole.issuperset(parts)]
        elif separator == ";":
            suspects = list(split)
        else:
            suspects = [name for name, parts in split.items() if any(uses[one] > 1 or one in whole for one in parts)]
        if suspects:
            use.undecided[:] = True
            use.problems.append(
                f"{where}: {suspects[0]!r} may be several labels: --label-separator '{separator}' says so, "
                "--label-separator none keeps cells whole"
            )
            return


def _all_names(name: str, parts: Parts, places: Ints, classes: list[str], config: DataConfig, use: RowUse) -> Labels:
    """Multi-label: which of ``classes`` each row has. parts: names of each distinct cell; places: the cell of a row."""
    use.problems += [f"column {name!r}: {one!r}: a label's name cannot contain '|'" for one in classes if _BAR in one]
    place = {one: index for index, one in enumerate(classes)}
    hot = np.zeros((len(parts), len(classes)), dtype=np.int8)
    for row, names in enumerate(parts):
        hot[row, [place[one] for one in names if one in place]] = 1
    blank = np.array([not names for names in parts])
    dropped = np.array([len(names) > int(row.sum()) > 0 for names, row in zip(parts, hot, strict=True)])
    if config.no_finding is not None:
        _note_beside(config.no_finding, int((dropped[places] & use.usable).sum()), use)
    given, rows = config.blank_label, blank[places] & use.usable
    _check_decided_names("--blank-label", given, classes, config, use)
    decisions = [_decision(given, one, config) for one in classes]
    if "drop" in decisions:
        use.leave_out("rows with a blank cell (--blank-label drop)", rows)
    elif None in decisions and rows.any():
        _ask("--blank-label", {name: int(rows.sum())}, "blank cells", ("0", "missing", "drop"), rows, use)
    else:
        hot[blank] = [MISSING if decision == "missing" else 0 for decision in decisions]
    return Labels("multi_label", tuple(classes), hot[places])


def _one_name(name: str, parts: Parts, places: Ints, found: list[str], config: DataConfig, use: RowUse) -> Labels:
    """Single label; whole numbers written as floats (3.0) lose the ".0"; -1, if the only negative, is no class."""
    numbers = [match[1] or "" for match in map(WHOLE.fullmatch, found) if match]
    if len(numbers) == len(found):
        written = dict(zip(found, numbers, strict=True))
        parts = [tuple(written[one] for one in names) for names in parts]
    else:
        numbers = []
    names = [names[0] if names else "" for names in parts]
    no_class = [("", "--blank-label", config.blank_label, "blank cells", "a blank")]
    if [number for number in set(numbers) if number.startswith("-")] == ["-1"]:
        no_class.append(("-1", "--uncertain-label", config.uncertain_label, "cells of -1", "an uncertain"))
    for cell, option, given, cells, article in no_class:
        _check_decided_names(option, given, (name,), config, use)
        rows = np.array([one == cell for one in names], dtype=bool)[places] & use.usable
        if given.get(name, given.get("")) == "drop":
            use.leave_out(f"rows with {article} cell ({option} drop)", rows)
        elif rows.any():
            _ask(option, {name: int(rows.sum())}, cells, ("drop",), rows, use)
    classes = sorted(set(names) - {cell for cell, *_ in no_class}, key=class_order)
    _check_classes(name, classes, int(use.usable.sum()), config, use)
    index = {one: number for number, one in enumerate(classes)}
    values = np.array([index.get(one, 0) for one in names], dtype=np.int64)
    return Labels("single_label", tuple(classes), values[places])


def _check_classes(name: str, classes: Sequence[str], rows: int, config: DataConfig, use: RowUse) -> None:
    """Add a problem if the column has measurements or free text, not classes."""
    if config.classes or config.min_class_images:
        return
    codes = [_as_number(one) for one in classes]
    fractions = any(code is not None and not code.is_integer() for code in codes)
    if None not in codes and fractions and len(classes) > _MOST_NUMBERS:
        what = f"{len(classes)} different numbers such as {classes[0]} are measurements, not classes"
    elif len(classes) > rows / 2 and (len(classes) > _MOST_CLASSES or len(classes) >= rows > _MOST_ROWS):
        what = f"{len(classes)} different texts in {rows} rows, such as {classes[0]!r}, are probably not classes"
    else:
        return
    way_out = "give another --label-column, or select classes with --classes or --min-class-images"
    use.problems.append(f"--label-column {name}: {what}; {way_out}")
    use.undecided[:] = True


def _as_number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None
