"""Label cells of a table to classes and numbers; which classes are kept, and in which order."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces.errors import UserError, unknown
from trainables.data.config import DataConfig
from trainables.data.samples import MISSING, MOST_ITEMS, LeftOut, Samples

_WORDS = {"1": 1, "true": 1, "yes": 1, "0": 0, "false": 0, "no": 0}
_NO_VALUE = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null"})
_UNCERTAIN, _BLANK, _OTHER = -1, -2, -3  # what a finding's cell may be, besides 0 and 1
_BAR = "|"
_ASKED = (";", ",", "/", " ")  # may separate labels, or belong to a name: only the user can tell
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?")
_MOST_ROWS, _MOST_NAMES, _MOST_NUMBERS, _MOST_CLASSES = 5, 30, 20, 50

Hot = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Labels:
    """values: int64 [n], or int8 [n, classes] of 0, 1 and ``MISSING``; a row that is not usable has any value."""

    task: str
    classes: tuple[str, ...]
    values: npt.NDArray[Any]


class RowUse:
    """Which rows of a table are used, and why the others are not; all is collected before anything is raised.

    number: the row's number as its reader sees it, of its place from 0. usable: bool [n]. problems: a sentence for
    each kind of fault. left_out: rows that an option leaves out. undecided: nothing is known of some labels.
    """

    def __init__(self, count: int, number: Callable[[int], str]) -> None:
        self._number = number
        self.usable = np.ones(count, dtype=bool)
        self.problems: list[str] = []
        self.left_out: list[LeftOut] = []
        self.notes: list[str] = []
        self.undecided = False

    def fault(self, where: str, rows: Mask, what: str) -> None:
        """Count ``rows``, if there are any, as at fault."""
        if rows.any():
            self.usable &= ~rows
            self.problems.append(f"{where}, {self.named(rows)}: {what}")

    def leave_out(self, why: str, rows: Mask) -> None:
        """Leave out ``rows`` that are still used; one that is left out for two reasons counts for the first."""
        places = np.flatnonzero(rows & self.usable)
        if len(places):
            self.usable[places] = False
            examples = tuple(f"row {self._number(int(row))}" for row in places[:MOST_ITEMS])
            self.left_out.append(LeftOut(why, len(places), examples))

    def named(self, rows: Mask) -> str:
        """ "row 7" or "rows 2, 5, 6, 9, 12 and 3 more"."""
        places = np.flatnonzero(rows)
        numbers = ", ".join(self._number(int(row)) for row in places[:_MOST_ROWS])
        more = f" and {len(places) - _MOST_ROWS} more" if len(places) > _MOST_ROWS else ""
        return f"row{'s' if len(places) > 1 else ''} {numbers}{more}"


def read_labels(cells: pd.DataFrame, config: DataConfig, use: RowUse) -> Labels:
    """The labels of each row, under the names that ``config.class_names`` gives them.

    cells: texts, the columns ``config.label_column``. Several columns, or one with ``--task multi_label``, whose cells
    are 0, 1, -1 or blank (also 0.0, true, no) are findings; such a column alone has the classes "0" and "1". Any other
    column holds a class name a cell, or several as ``a|b`` or ``['a', 'b']``. Classes: the columns in the order given,
    else sorted. What blank cells, -1 and other separators mean is asked for in ``use.problems``, never guessed.
    """
    columns = config.label_column
    codes = {name: _finding_codes(cells[name]) for name in columns}
    if len(columns) > 1:
        labels = _from_columns(cells, codes, config, use)
    elif (codes[columns[0]] != _OTHER).all() and (codes[columns[0]] >= _UNCERTAIN).any():
        labels = _from_one_finding(cells[columns[0]], codes, config, use)
    else:
        labels = _from_names(cells[columns[0]], config, use)
    return dataclasses.replace(labels, **_renamed(labels.task, labels.classes, labels.values, config.class_names))


def class_order(name: str) -> tuple[bool, int, str]:
    """Sorts whole numbers by value, before other names."""
    match = _WHOLE.fullmatch(name)
    return (match is None, 0 if match is None else int(match[1]), name)


def keep_classes(samples: Samples, config: DataConfig, rename: bool = True) -> Samples:
    """Only the classes that are asked for, under the names and in the order that are asked for.

    Single label: rows of other classes, and of classes with fewer images than ``config.min_class_images``, are left out
    and counted. Multi-label: such labels are, and the rows stay. rename: by ``config.class_names``. Raises
    ``UserError``: a name of ``config.classes`` that no image has, or fewer classes left than can be told apart.
    """
    if rename and config.class_names:
        changed = _renamed(samples.task, samples.classes, samples.labels, config.class_names)
        samples = dataclasses.replace(samples, classes=changed["classes"], labels=changed["values"])
    asked = tuple(dict.fromkeys(config.class_names.get(name, name) for name in config.classes))
    strange = [name for name in asked if name not in samples.classes]
    if strange:
        kind = "class" if samples.task == "single_label" else "label"
        raise UserError(*(f"--classes {name}: {unknown(kind, name, samples.classes)}" for name in strange))
    if asked:
        samples = _without(samples, [name for name in samples.classes if name not in asked], "--classes does not name")
    least = config.min_class_images or 0
    rare = {name: int(n) for name, n in zip(samples.classes, samples.hot.sum(axis=0), strict=True) if n < least}
    samples = _without(samples, list(rare), f"of fewer than {least} images", rare)
    needed = 2 if samples.task == "single_label" else 1
    if len(samples.classes) < needed:
        only = f"one class only ({samples.classes[0]!r})" if samples.classes else "no label at all"
        way_out = "" if not (asked or rare) else "; --classes and --min-class-images leave out the others"
        raise UserError(f"--data {config.data}: {only}; at least {['one', 'two'][needed - 1]} are needed{way_out}")
    if samples.task == "multi_label" and not config.ordered_classes:
        return samples
    order = [name for name in asked if name in samples.classes] if asked and config.ordered_classes else None
    return _take_classes(samples, order or sorted(samples.classes, key=class_order))


def _without(samples: Samples, names: Sequence[str], why: str, counts: Mapping[str, int] | None = None) -> Samples:
    if not names:
        return samples
    shown = _listed([f"{name} ({counts[name]})" for name in names] if counts else list(names))
    if samples.task == "multi_label":
        samples = dataclasses.replace(samples, notes=(*samples.notes, f"labels {why} are not used: {shown}"))
        return _take_classes(samples, [name for name in samples.classes if name not in names])
    out = np.isin(samples.labels, [samples.classes.index(name) for name in names])
    examples = tuple(samples.paths[row] for row in np.flatnonzero(out)[:MOST_ITEMS])
    left_out = LeftOut(f"classes {why}: {shown}", int(out.sum()), examples)
    kept = samples.subset(np.flatnonzero(~out).astype(np.int64)) if out.any() else samples
    kept = dataclasses.replace(kept, left_out=(*samples.left_out, left_out) if out.any() else samples.left_out)
    return _take_classes(kept, [name for name in samples.classes if name not in names])


def _take_classes(samples: Samples, names: Sequence[str]) -> Samples:
    """Only the classes ``names``, in this order; each row of a single label has one of them."""
    places = [samples.classes.index(name) for name in names]
    if samples.task == "multi_label":
        labels = samples.labels[:, places]
    else:
        new = np.zeros(len(samples.classes), dtype=np.int64)
        new[places] = np.arange(len(places))
        labels = new[samples.labels]
    return dataclasses.replace(samples, classes=tuple(names), labels=labels)


def _renamed(
    task: str, classes: tuple[str, ...], values: npt.NDArray[Any], class_names: Mapping[str, str]
) -> dict[str, Any]:
    """``classes`` and ``values`` under new names; classes of one new name become one."""
    names = [class_names.get(name, name) for name in classes]
    new = tuple(dict.fromkeys(names))
    places = [new.index(name) for name in names]
    if task == "single_label":
        return {"classes": new, "values": np.array(places, dtype=np.int64)[values]}
    united = np.full((len(values), len(new)), MISSING, dtype=np.int8)
    for old, place in enumerate(places):
        united[:, place] = np.maximum(united[:, place], values[:, old])  # 1 before 0 before missing
    return {"classes": new, "values": united}


def _finding_codes(column: pd.Series[str]) -> Hot:
    """int8 [n]: 0, 1, ``_UNCERTAIN``, ``_BLANK`` or ``_OTHER``."""
    places, cells = pd.factorize(column)
    return np.array([_finding_code(str(cell)) for cell in cells], dtype=np.int8)[places]


def _finding_code(cell: str) -> int:
    word = cell.lower()
    if word in _NO_VALUE:
        return _BLANK
    try:
        value = float(_WORDS.get(word, word))
    except ValueError:
        return _OTHER
    return int(value) if value in (0, 1, -1) else _OTHER


def _from_columns(cells: pd.DataFrame, codes: dict[str, Hot], config: DataConfig, use: RowUse) -> Labels:
    single = config.one_hot or config.task == "single_label"
    use.problems += [f"label column {name!r}: a label's name cannot hold '|'" for name in codes if _BAR in name]
    nothing = _names_of_nothing(config)
    _check_no_finding(list(codes), nothing, single, config, use)
    renamed = {config.class_names.get(name, name) for name in config.classes}
    findings = {
        name: column
        for name, column in codes.items()
        if name not in nothing and (single or not renamed or config.class_names.get(name, name) in renamed)
    }
    if not findings:
        findings = codes  # ``keep_classes`` will say that the names asked for are none.
    for name, column in findings.items():
        wrong = use.usable & (column == _OTHER)
        if wrong.any():
            cell = cells[name].iloc[int(wrong.argmax())]
            what = f"{cell!r} is neither 0, 1, -1 nor blank; a column of class names is given alone"
            use.fault(f"label column {name!r}", wrong, what)
    hot = _decided(findings, tuple(codes), single, config, use)
    for name in nothing & codes.keys():
        beside = (codes[name] == 1) & (hot == 1).any(axis=1) & use.usable
        _note_beside(name, int(beside.sum()), use)
    classes = tuple(findings)
    if not single:
        if (hot[use.usable].sum(axis=1) == 1).all() and len(classes) > 2 and use.usable.any() and (hot >= 0).all():
            use.notes.append(
                "each row has exactly one of the label columns set: --task single_label reads them as classes"
            )
        return Labels("multi_label", classes, hot)
    count = (hot == 1).sum(axis=1)
    not_one = use.usable & (count != 1)
    if not_one.any():
        how_many = f"{int(count[not_one.argmax()])} of them are set where one must be (one label an image)"
        use.fault("label columns", not_one, f"{how_many}; choose --task multi_label, or mend the rows")
    seen = [bool((hot[use.usable, place] == 1).any()) for place in range(len(classes))]
    if not all(seen):
        unused = [name for name, is_seen in zip(classes, seen, strict=True) if not is_seen]
        use.notes.append(f"no image has the class {_listed(unused)}, which is left out")
    kept = sorted((name for name, is_seen in zip(classes, seen, strict=True) if is_seen), key=class_order)
    values = hot[:, [classes.index(name) for name in kept]].argmax(axis=1) if kept else np.zeros(len(hot))
    return Labels("single_label", tuple(kept), values.astype(np.int64))


def _from_one_finding(column: pd.Series[str], codes: dict[str, Hot], config: DataConfig, use: RowUse) -> Labels:
    name = str(column.name)
    single = config.task != "multi_label"
    hot = _decided(codes, (name,), single, config, use)
    _check_no_finding([name], _names_of_nothing(config), single, config, use)
    if not single:
        return Labels("multi_label", (name,), hot)
    words = {cell.lower() for cell in column.unique()} & {"true", "false", "yes", "no"}
    if words:
        use.notes.append(f"column {name!r}: {', '.join(sorted(words))} are read as 0 and 1")
    classes = tuple(text for value, text in enumerate("01") if (hot[use.usable, 0] == value).any())
    return Labels("single_label", classes, np.maximum(hot[:, 0], 0).astype(np.int64) - (classes == ("1",)))


def _decided(codes: Mapping[str, Hot], labels: Sequence[str], single: bool, config: DataConfig, use: RowUse) -> Hot:
    """int8 [n, columns] of 0, 1 and ``MISSING``, as the user has decided; asks for what is not decided.

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
            decision = given.get(name, given.get(config.class_names.get(name, name), given.get("")))
            if decision == "drop":
                drop |= rows
            elif decision in allowed:
                values[rows, place] = MISSING if decision == "missing" else int(decision)
            elif rows.any():
                asked[name] = int(rows.sum())
                open_rows |= rows
        use.leave_out(f"rows with {article} cell ({option} drop)", drop)
        _ask(option, asked, cells, allowed, use.named(open_rows), use)
        use.usable &= ~open_rows
    return np.maximum(values, MISSING)


def _ask(option: str, asked: Mapping[str, int], cells: str, allowed: Sequence[str], rows: str, use: RowUse) -> None:
    """Name the columns with cells that nobody has decided, and the option that decides."""
    if not asked:
        return
    first, *others = asked
    counts = _listed([f"{first!r} has {asked[first]} {cells}", *(f"{name!r} {asked[name]}" for name in others)])
    by_label = f"; by label: {option} {','.join(f'{name}={allowed[0]}' for name in list(asked)[:2])}" if others else ""
    use.undecided = True
    use.problems.append(f"{counts} ({rows}): say what they mean by {option} {'|'.join(allowed)}{by_label}")


def _check_decided_names(
    option: str, given: Mapping[str, str], labels: Sequence[str], config: DataConfig, use: RowUse
) -> None:
    known = {*labels, *(config.class_names.get(name, name) for name in labels)}
    use.problems += [
        f"{option} {name}={given[name]}: {unknown('label', name, known)}" for name in given if name and name not in known
    ]


def _names_of_nothing(config: DataConfig) -> frozenset[str]:
    """The names in the table that mean ``--no-finding``."""
    renamed = {theirs for theirs, ours in config.class_names.items() if ours == config.no_finding}
    return frozenset() if config.no_finding is None else frozenset({config.no_finding, *renamed})


def _check_no_finding(
    names: Sequence[str], nothing: frozenset[str], single: bool, config: DataConfig, use: RowUse
) -> None:
    if config.no_finding is None:
        return
    if single:
        what = "the set has one label an image, of which this is one; give --task multi_label, or leave it out"
        use.problems.append(f"--no-finding {config.no_finding}: {what}")
    elif not nothing & set(names):
        use.problems.append(f"--no-finding {config.no_finding}: {unknown('label', config.no_finding, names)}")


def _note_beside(name: str, count: int, use: RowUse) -> None:
    if count:
        use.notes.append(f"{count} row{'s have' if count > 1 else ' has'} {name!r} beside a finding: the finding counts")


def _from_names(column: pd.Series[str], config: DataConfig, use: RowUse) -> Labels:
    name = str(column.name)
    where = f"column {name!r}"
    places, cells = pd.factorize(column)
    texts = [str(cell) for cell in cells]
    parts = _split_cells(where, texts, config, use)
    sizes = np.array([len(names) for names in parts])[places]
    several = use.usable & (sizes > 1)
    multi = config.task == "multi_label" or (config.task == "auto" and bool(several.any()))
    nothing = _names_of_nothing(config)
    found = sorted({one for names in parts for one in names}, key=class_order)
    _check_no_finding(found, nothing, not multi, config, use)
    if multi:
        return _several_names(name, parts, places, [one for one in found if one not in nothing], config, use)
    if several.any():
        cell = texts[places[several.argmax()]]
        what = f"more than one label ({cell!r}) with --task single_label; choose --task multi_label"
        use.fault(where, several, f"{what}, or keep cells whole by --label-separator none")
    return _one_name(name, parts, places, found, config, use)


def _split_cells(where: str, cells: Sequence[str], config: DataConfig, use: RowUse) -> list[tuple[str, ...]]:
    """The labels in each of the cells, which all differ."""
    separator = config.label_separator
    if separator == "none":
        return [(cell,) if cell else () for cell in cells]
    if separator is not None:
        if not any(separator in cell for cell in cells):
            use.problems.append(f"--label-separator {separator!r}: no cell of {where} has it")
        return [_stripped(cell.split(separator)) for cell in cells]
    lists = [cell.startswith("[") and cell.endswith("]") for cell in cells]
    parts = [_of_list(cell) if is_list else _stripped(cell.split(_BAR)) for cell, is_list in zip(cells, lists, strict=True)]
    if any(lists):
        vectors = [cell for cell, names in zip(cells, parts, strict=True) if len(names) > 1 and set(names) <= {"0", "1"}]
        if vectors:
            what = "a list of 0 and 1 does not say which labels these are; name a column with the labels' names"
            use.problems.append(f"{where}: {vectors[0]}: {what}")
            use.undecided = True
        use.notes.append(f"{where}: lists in cells, such as {cells[lists.index(True)]}, are several labels")
    elif any(_BAR in cell for cell in cells):
        use.notes.append(f"{where}: a|b cells are several labels")
    _ask_separator(where, [one for names, is_list in zip(parts, lists, strict=True) if not is_list for one in names], use)
    return parts


def _stripped(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def _of_list(cell: str) -> tuple[str, ...]:
    """The items of ``['a', "b"]``, of ``['a' 'b']`` as numpy prints it, or of ``[a, b]``."""
    quoted = [first or second for first, second in _QUOTED.findall(cell)]
    items = [re.sub(r"\\(.)", r"\1", item) for item in quoted] if quoted else cell[1:-1].split(",")
    names = [item.strip() for item in items]
    return tuple(names) if set(names) <= {"0", "1"} else _stripped(names)


def _ask_separator(where: str, names: Sequence[str], use: RowUse) -> None:
    """Ask whether ``names`` are several labels each, where they hold something that often stands between two.

    A semicolon does; the others only where parts of such a name are found elsewhere, too.
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
            use.undecided = True
            option = f"--label-separator '{separator}'"
            use.problems.append(
                f"{where}: {suspects[0]!r} may be several labels: {option} says so, --label-separator none keeps cells whole"
            )
            return


def _several_names(
    name: str, parts: Sequence[tuple[str, ...]], places: npt.NDArray[np.int64], classes: list[str], config: DataConfig, use: RowUse
) -> Labels:
    """Multi-label: which of ``classes`` each row's names are; parts: of each different cell, places: its cell."""
    use.problems += [f"column {name!r}: {one!r}: a label's name cannot hold '|'" for one in classes if _BAR in one]
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
    decisions = [given.get(one, given.get(config.class_names.get(one, one), given.get(""))) for one in classes]
    if "drop" in decisions:
        use.leave_out("rows with a blank cell (--blank-label drop)", rows)
    elif None in decisions and rows.any():
        _ask("--blank-label", {name: int(rows.sum())}, "blank cells", ("0", "missing", "drop"), use.named(rows), use)
        use.usable &= ~rows
    else:
        hot[blank] = [MISSING if decision == "missing" else 0 for decision in decisions]
    return Labels("multi_label", tuple(classes), hot[places])


def _one_name(
    name: str, parts: Sequence[tuple[str, ...]], places: npt.NDArray[np.int64], found: Sequence[str], config: DataConfig, use: RowUse
) -> Labels:
    """Single label; whole numbers as a table of floats writes them (3.0) lose their zero."""
    numbers = [_WHOLE.fullmatch(one) for one in found]
    whole = bool(found) and all(numbers)
    own = {one: match[1] for one, match in zip(found, numbers, strict=True) if match} if whole else {}
    uncertain = [one for one in found if whole and own[one] == "-1" and sum(c.startswith("-") for c in own.values()) == 1]
    names = [own.get(part[0], part[0]) if part else "" for part in parts]
    for label, option, given, cells, why in (
        ("", "--blank-label", config.blank_label, "blank cells", "rows with a blank cell (--blank-label drop)"),
        ("-1", "--uncertain-label", config.uncertain_label, "cells of -1", "rows with an uncertain cell (--uncertain-label drop)"),
    ):
        if label == "-1" and not uncertain:
            continue
        rows = np.array([one == label for one in names], dtype=bool)[places] & use.usable
        if given.get(name, given.get("")) == "drop":
            use.leave_out(why, rows)
        elif rows.any():
            _ask(option, {name: int(rows.sum())}, cells, ("drop",), use.named(rows), use)
            use.usable &= ~rows
    kept = set(names) - {"", *("-1" for _ in uncertain)}
    used = np.unique(places[use.usable])
    classes = sorted(kept & {names[place] for place in used}, key=class_order)
    _check_classes(name, classes, int(use.usable.sum()), config, use)
    index = {one: number for number, one in enumerate(classes)}
    values = np.array([index.get(one, 0) for one in names], dtype=np.int64)
    return Labels("single_label", tuple(classes), values[places])


def _check_classes(name: str, classes: Sequence[str], rows: int, config: DataConfig, use: RowUse) -> None:
    """A column of measurements or of free text is no column of classes."""
    if config.classes or config.min_class_images:
        return
    codes = [_as_number(one) for one in classes]
    fractions = any(code is not None and not code.is_integer() for code in codes)
    if None not in codes and fractions and len(classes) > _MOST_NUMBERS:
        what = f"{len(classes)} different numbers such as {classes[0]} are measurements, not classes"
    elif len(classes) > _MOST_CLASSES and len(classes) > rows / 2:
        what = f"{len(classes)} different texts in {rows} rows, such as {classes[0]!r}, are hardly classes"
    else:
        return
    way_out = "name another --label-column, or the classes to keep by --classes or --min-class-images"
    use.problems.append(f"--label-column {name}: {what}; {way_out}")
    use.undecided = True


def _as_number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" … and {more} more" if more > 0 else "")
