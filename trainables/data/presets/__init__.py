"""Presets: how to read well-known public data sets as they were downloaded, one YAML file per set."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import functools
import io
import json
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from search_spaces.errors import UserError, raise_all, unknown
from trainables.data.config import DataConfig, Pattern, Text, option
from trainables.data.file_form import opened
from trainables.data.typed_table import parquet_columns
from trainables.data.yaml_file import read_settings

FOLDER = Path(__file__).parent
AUTO, NONE = "auto", "none"
_said = functools.partial(option, "images", metavar="", help="", in_files_only=True)
_OF_THE_LABELS = (
    *("task", "one_hot", "class_names", "classes", "min_class_images", "ordered_classes", "no_finding"),
    *("label_separator", "blank_label"),
)
_OF_PATHS = ("table", "images_dir", "val_data", "test_data")
_DEEPEST_WRAPPER = 6  # physionet.org/files/SET/VERSION/...
_HEADER_BYTES = 65_536
_FIELDS = DataConfig.model_fields.keys() - {"data", "preset"}
C = TypeVar("C", bound=DataConfig)


class Preset(DataConfig):
    """What a YAML file says of a data set.

    title, about, source: its name, how labels, patients, views and splits are handled, where it is described.
    known_by: searched in the first line of its table. Paths in the other fields are patterns below the folder of the
    set; ``files`` that begin with "!" must not exist. preset: its name, or the path of a user's own file.
    """

    title: Text = _said("")
    about: Text = _said("as this file says")
    source: Text = _said("")
    known_by: Pattern = _said("")

    @property
    def ours(self) -> bool:
        return _ours().get(self.preset) is self  # a user's file ./chexpert may have the name of one of ours

    @property
    def values(self) -> dict[str, Any]:
        """The fields of ``DataConfig`` that the file sets."""
        return {name: value for name, value in self if name in self.model_fields_set & _FIELDS}


def apply_preset(config: C) -> tuple[C, str | None]:
    """Take settings that were not given from the preset that fits the data; also returns one sentence that says so.

    ``data`` stays as the user gave it: a folder (also one around the set's own folder), or the preset's table. Paths
    of the preset become relative to it. The result's ``preset`` is a name, a path, or "none"; applying it again
    changes nothing. Raises ``UserError`` if there is no such preset, several fit equally well, files of the requested
    one are missing, or it cannot be read.
    """
    if config.preset == NONE or (config.preset == AUTO and config.data == "demo"):
        return _with(config, {"preset": NONE}), None
    place = _Place(config)
    found = place.recognised() if config.preset == AUTO else place.insisted(_named(config.preset))
    if found is None:
        return _with(config, {"preset": NONE}), None
    preset, base = found
    values, missing = place.values(preset, base)
    note = f"read as {preset.title} (preset {preset.preset})"
    if place.has_other_labels(preset):
        note += ", except its labels: --label-column gives others, and the preset's label settings are ignored."
    else:
        note += f": {preset.about}"
    if missing:
        note += f" Not there: {', '.join(missing)}."
    return _with(config, {**values, "preset": preset.preset if config.preset == AUTO else config.preset}), note


def said_by_preset(config: DataConfig, field: str) -> Any:
    """The value of ``field`` in the preset applied to ``config``, whatever the user gave; None without a preset.

    A preset covers all releases of a set: something that one release lacks is an error only if the user asked for it.
    """
    return getattr(_named(config.preset), field) if config.has_preset else None


def describe_presets() -> str:
    """The presets of the project, for a terminal: name, title, handling, the files they are known by, source."""
    blocks = []
    for name, preset in _ours().items():
        lines = [f"{name}: {preset.title}"]
        known_by = ", ".join([*preset.files, *(["the columns of its table"] if preset.label_column else [])])
        for text in (preset.about, f"Known by: {known_by}", f"Source: {preset.source}"):
            lines += textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def read_preset(path: Path, ours: bool = False) -> Preset:
    """Read the YAML file of a preset.

    Raises ``UserError`` if it cannot be read, is empty or no mapping, has an alias, or has an unknown field.
    """
    named = f"preset {path}"
    fields = Preset.model_fields.keys() - {"data", "preset"}
    raw, problems = read_settings(
        path, named, "label_column: finding", fields, lambda key: unknown("field", key, fields)
    )
    if not raw and not problems:
        raise UserError(f"{named} is empty: write lines such as `label_column: finding`")
    preset, wrong = Preset.read({"title": path.stem, **raw, "preset": path.stem if ours else str(path)})
    sentences = [sentence for one in wrong.values() for sentence in one] + preset.problems()
    raise_all([*problems, *(f"{named}: {sentence}" for sentence in sentences)])
    return preset


@functools.cache
def _ours() -> dict[str, Preset]:
    return {path.stem: read_preset(path, ours=True) for path in sorted(FOLDER.glob("*.yaml"))}


def _named(asked: str) -> Preset:
    if asked in _ours():
        return _ours()[asked]
    if asked.endswith((".yaml", ".yml")) or "/" in asked or os.sep in asked:
        return read_preset(Path(asked).expanduser())
    hint = unknown("preset", asked, (*_ours(), AUTO, NONE))
    raise UserError(f"--preset {asked}: {hint}; or the path of a YAML file; --preset list describes them")


class _Place:
    """The files at the data's location. base: the folder of a set, to which the patterns of a preset are relative."""

    def __init__(self, config: DataConfig) -> None:
        self._config = config
        self._given = config.model_fields_set
        self._data = Path(config.data)
        self._names: dict[Path, list[str]] = {}
        self._folders = self._lone_folders()

    def insisted(self, preset: Preset) -> tuple[Preset, Path]:
        """``preset`` and its likeliest base. Raises ``UserError`` if there is no base, or files are missing in it."""
        asked = f"--preset {self._config.preset}"
        if self._config.data == "demo":
            raise UserError(f"{asked}: the demo set needs none; give --data")
        joined = [] if "join" in self._given else [one["table"] for one in preset.join]
        tables = [*filter(None, [preset.table]), *joined]
        needed = [one for one in preset.files if not one.startswith("!")]
        absent = {base: self._absent(base, [*needed, *tables]) for base in self._bases(preset)}
        if not absent:
            table = f", nor its table {preset.table}" if preset.table else ""
            raise UserError(f"{asked}: --data {self._config.data} is not the folder of such a set{table}")
        base = min(absent, key=lambda base: len(absent[base]))
        if absent[base]:
            raise UserError(f"{asked}: {', '.join(absent[base])} not found in {base}")
        return preset, base

    def recognised(self) -> tuple[Preset, Path] | None:
        """The preset of ours whose files exist and have its columns, and its base; None if there is none.

        The outermost base wins, in it the preset with the most patterns. Raises ``UserError`` if several have as many.
        """
        fitting: dict[Path, list[Preset]] = {}
        for preset in _ours().values():
            for base in self._bases(preset):
                if not self._absent(base, [*preset.files, *_tables(preset)]) and self._has_columns(preset, base):
                    fitting.setdefault(base, []).append(preset)
                    break
        if not fitting:
            return None
        base = min(fitting, key=lambda base: len(base.parts))
        most = max(len(preset.files) for preset in fitting[base])
        best, *others = [preset for preset in fitting[base] if len(preset.files) == most]
        if others:
            names = " and ".join(preset.preset for preset in (best, *others))
            raise UserError(f"--data {self._config.data} fits the presets {names}: choose one with --preset, or none")
        return best, base

    def has_other_labels(self, preset: Preset) -> bool:
        """Whether the user names other label columns than the preset."""
        theirs, ours = self._config.label_column, preset.label_column
        return bool("label_column" in self._given and ours and theirs != ours)

    def values(self, preset: Preset, base: Path) -> tuple[dict[str, Any], list[str]]:
        """The preset's values of fields that were not given, paths relative to the data; and paths that do not exist.

        Missing paths, subgroup and source columns of a preset of ours are dropped: releases differ. If the user
        names other label columns, the label settings of any preset are dropped, too.
        """
        given = set(self._given)
        if self.has_other_labels(preset):
            given.update(_OF_THE_LABELS)
        if "task" in given and self._config.task == "single_label":
            given.add("no_finding")
        if given & {"group_column", "group_from"}:
            given.update(("group_column", "group_from"))
        values = {name: value for name, value in preset.values.items() if name not in given}
        if self.has_other_labels(preset) and "where" in values:
            of_labels = preset.label_column
            values["where"] = {name: one for name, one in values["where"].items() if name not in of_labels}
        missing = []
        for name in _OF_PATHS:
            pattern = values.get(name)
            if pattern is None or pattern == NONE:
                continue
            file = self._first(base, pattern)
            if file is not None:
                values[name] = self._relative(file)
            elif preset.ours:
                missing.append(str(values.pop(name)))
        if not self._folders:
            values.pop("table", None)  # The data is the table.
        if "join" in values:
            tables = (self._first(base, one["table"]) or base for one in values["join"])
            values["join"] = tuple(
                {**one, "table": self._relative(file)} for one, file in zip(values["join"], tables, strict=True)
            )
        if preset.ours and preset.label_column:
            columns = {*preset.columns, *(name for header in self._headers(preset, base) for name in header)}
            if "subgroup_column" in values:
                values["subgroup_column"] = tuple(name for name in values["subgroup_column"] if name in columns)
            if values.get("source_column") not in columns:
                values.pop("source_column", None)
        return values, missing

    def _lone_folders(self) -> list[Path]:
        """The data, if it is a folder, and the chain of lone folders in it, outermost first."""
        found: list[Path] = []
        folder = self._data
        try:
            while folder.is_dir() and len(found) < _DEEPEST_WRAPPER:
                found.append(folder.absolute())
                inner = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
                inner = [name for name in inner if not name.startswith((".", "__", "@"))]  # __MACOSX, @eaDir
                if len(inner) == 2:  # oct2017/OCT2017 beside OCT2017, as on Kaggle: a copy
                    pairs = zip(inner, inner[::-1], strict=True)
                    inner = [name for name, other in pairs if not (folder / name / other).is_dir()]
                if len(inner) != 1:
                    break
                folder = folder / inner[0]
        except (OSError, ValueError):
            pass  # Reading the folder reports the error.
        return found

    def _bases(self, preset: Preset) -> list[Path]:
        """The folders in which a set may lie: the data and lone folders in it, or the one whose table is the data."""
        parts = PurePosixPath(preset.table or "").parts
        if self._folders or not parts:
            return self._folders
        place = self._data.absolute().parts
        fits = len(place) > len(parts) and all(map(fnmatch.fnmatchcase, place[-len(parts) :], parts))
        return [Path(*place[: -len(parts)])] if fits else []

    def _absent(self, base: Path, patterns: Iterable[str]) -> list[str]:
        """The patterns of files that are missing below ``base``, and those with a "!" of files that exist there."""
        there = {one: self._first(base, one.removeprefix("!")) is not None for one in patterns}
        return [one for one, found in there.items() if found == one.startswith("!")]

    def _first(self, base: Path, pattern: str) -> Path | None:
        """The first match, by name, of a pattern such as ``images_*/*.png``; hidden ones only if it has the dot."""

        def matches(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
            if not parts:
                yield folder
            elif not set("*?[") & set(parts[0]):
                if os.path.lexists(folder / parts[0]):
                    yield from matches(folder / parts[0], parts[1:])
            else:
                for name in sorted(fnmatch.filter(self._listed(folder), parts[0])):
                    if not name.startswith(".") or parts[0].startswith("."):
                        yield from matches(folder / name, parts[1:])

        return next(matches(base, PurePosixPath(pattern).parts), None)

    def _listed(self, folder: Path) -> list[str]:
        if folder not in self._names:
            try:
                self._names[folder] = os.listdir(folder)
            except (OSError, ValueError):  # It is no folder, or may not be read.
                self._names[folder] = []
        return self._names[folder]

    def _has_columns(self, preset: Preset, base: Path) -> bool:
        """Whether the tables are of the preset's set: many sets have a train.csv, and user options are no evidence.

        They must have the columns that the preset names; label columns may be the user's if there is a ``known_by``.
        """
        if not preset.label_column:
            return True
        if not re.search(preset.known_by, next(self._first_lines(_tables(preset)[:1], base), "")):
            return False
        headers = list(self._headers(preset, base))
        if preset.columns:
            return any(len(header) == len(preset.columns) for header in headers)
        columns = {preset.path_column, preset.group_column, preset.split_column} - {None}
        labels = self._config.label_column if preset.known_by and "label_column" in self._given else ()
        columns.update(labels or preset.label_column, preset.where)
        return columns <= {name for header in headers for name in header}

    def _headers(self, preset: Preset, base: Path) -> Iterator[list[str]]:
        """The first line of each readable table as column names, once for each separator that it may have."""
        for line in self._first_lines(_tables(preset), base):
            try:
                if line.startswith("{"):
                    yield list(json.loads(line))
                for separator in ",;\t|":
                    yield [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
                yield line.split()
            except (ValueError, RecursionError, csv.Error):
                continue

    def _first_lines(self, tables: Iterable[str], base: Path) -> Iterator[str]:
        for file in (self._first(base, table) for table in tables):
            if file is not None:
                with contextlib.suppress(UserError):
                    yield _first_line(file)

    def _relative(self, file: Path) -> str:
        return Path(os.path.relpath(file, self._data if self._folders else self._data.parent)).as_posix()


def _tables(preset: Preset) -> list[str]:
    return [*filter(None, [preset.table]), *(one["table"] for one in preset.join)]


def _first_line(file: Path) -> str:
    """The first line with text; of a Parquet file the names of its columns, separated by tabs."""
    with opened(file) as content:
        if content.peek(4).startswith(b"PAR1"):
            return "\t".join(parquet_columns(file, content))
        start = content.read(_HEADER_BYTES).decode("utf-8-sig", "replace")
    return next((line.strip() for line in io.StringIO(start) if line.strip()), "")


def _with(config: C, values: Mapping[str, Any]) -> C:
    return config.model_copy(update={name: value for name, value in values.items() if getattr(config, name) != value})
