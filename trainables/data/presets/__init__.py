"""Presets: how well-known public data sets are read as they were downloaded, one YAML file a set."""

from __future__ import annotations

import csv
import functools
import glob
import gzip
import io
import json
import os
import textwrap
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import yaml

from search_spaces.errors import UserError, raise_all, unknown
from trainables.data.config import DataConfig

FOLDER = Path(__file__).parent
AUTO, NONE = "auto", "none"
_SAID = ("title", "about", "source")
_OF_THE_LABELS = (
    *("task", "one_hot", "class_names", "classes", "min_class_images", "ordered_classes", "no_finding"),
    "label_separator",
)
_OF_PATHS = ("table", "images_dir", "val_data", "test_data")
_DEEPEST_WRAPPER = 6  # physionet.org/files/SET/VERSION/...
_MOST_BYTES = 1_000_000  # of a preset
_DEEPEST_YAML = 10
_HEADER_BYTES = 65_536
_UNREADABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, IndexError, csv.Error),
    *(zlib.error, zipfile.BadZipFile, NotImplementedError),
)
C = TypeVar("C", bound=DataConfig)


@dataclass(frozen=True)
class Preset:
    """What a YAML file says of a data set.

    title, about, source: who it is, what is done to labels, patients, views and splits, where it is described.
    values: of fields of ``DataConfig``; paths are patterns below the folder of the set. ours: not a user's own.
    """

    name: str
    title: str
    about: str
    source: str
    values: Mapping[str, Any]
    ours: bool = True

    def __getitem__(self, field: str) -> Any:
        return self.values.get(field, DataConfig.model_fields[field].get_default())


@dataclass(frozen=True)
class _Found:
    """A preset, and where its set lies: the folder that its patterns start from. absent: what is not there."""

    preset: Preset
    base: Path
    absent: tuple[str, ...] = ()


def apply_preset(config: C) -> tuple[C, str | None]:
    """Take what was not given from the preset that fits the data; beside it, one sentence that says so.

    ``data`` stays what the user gave: a folder (also one around the set's own folder), or the preset's table. Paths
    of the preset become relative to it. The result's ``preset`` is a name, a path, or "none"; applied once more,
    nothing changes. Raises ``UserError``: no such preset, several that fit equally well, one that was asked for
    and whose files are not there, or a preset that cannot be read.
    """
    asked = config.preset
    found = None
    if asked not in (AUTO, NONE):
        found = _insisted(_named(asked), config)
    elif asked == AUTO and config.data != "demo":
        found = _recognised(config)
    if found is None:
        return _with(config, {"preset": NONE}), None
    preset = found.preset
    taken, missing = _values(found, config)
    note = f"read as {preset.title} (preset {preset.name}): {preset.about}"
    if missing:
        note += f" Not there: {', '.join(missing)}."
    return _with(config, {**taken, "preset": asked if asked != AUTO else preset.name}), note


def describe_presets() -> str:
    """The presets that come with the project, for a terminal: name, title, what is done, by which files known."""
    blocks = []
    for name, preset in _ours().items():
        lines = [f"{name}: {preset.title}"]
        for text in (preset.about, f"Known by: {', '.join(preset['files'])}", f"Source: {preset.source}"):
            lines += textwrap.wrap(text, 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def read_preset(path: Path, ours: bool = False) -> Preset:
    """Read the YAML file of a preset: fields of ``DataConfig``, and title, about and source.

    Raises ``UserError``: it cannot be read, is no mapping, refers to itself, or has a field that is none.
    """
    named = f"preset {path}"
    content = _yaml(path, named)
    fields = [name for name in DataConfig.model_fields if name not in ("data", "preset")]
    raw: dict[str, Any] = {}
    problems = []
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in (*fields, *_SAID):
            problems.append(f"{named}: {unknown('field', key, (*fields, *_SAID))}")
        elif name in raw:
            problems.append(f"{named}: {name} is given twice")
        elif value is not None:
            raw[name] = value
    said = {name: raw.pop(name) for name in _SAID if name in raw}
    problems += [f"{named}: {name} must be text, received {one!r:.80}" for name, one in said.items() if not _text(one)]
    config, wrong = DataConfig.read(raw)
    sentences = [sentence for one in wrong.values() for sentence in one] + config.problems()
    raise_all([*problems, *(f"{named}: {sentence}" for sentence in sentences)])
    return Preset(
        name=path.stem if ours else str(path),
        title=said.get("title", path.stem),
        about=said.get("about", "as this file says"),
        source=said.get("source", ""),
        values={name: getattr(config, name) for name in raw},
        ours=ours,
    )


def _yaml(path: Path, named: str) -> dict[Any, Any]:
    try:
        if not path.is_file():
            raise UserError(f"{named}: no such file")
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{named}: is no preset, it has {path.stat().st_size:,} bytes")
        written = path.read_text(encoding="utf-8")
        _check_nesting(written, named)
        content = yaml.safe_load(written)
    except OSError as error:
        raise UserError(f"{named} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise UserError(f"{named} is not YAML: {what}{place}") from None
    if not isinstance(content, dict):
        raise UserError(f"{named} must hold lines of `field: value`, such as `label_column: finding`")
    return content


def _check_nesting(written: str, named: str) -> None:
    """Before anything is built: no reference to another part (it may be the part itself), no deep nesting."""
    depth = 0
    for event in yaml.parse(written, Loader=yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}"  # type: ignore[union-attr]
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{named}, {line}: a reference (*{event.anchor}) is not allowed; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_YAML:
            raise UserError(f"{named}, {line}: nests more than {_DEEPEST_YAML} deep; a preset is a flat list of fields")


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


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


def _insisted(preset: Preset, config: DataConfig) -> _Found:
    """Where the files of ``preset`` lie; if some do not, the error names them, in the likeliest place."""
    if config.data == "demo":
        raise UserError(f"--preset {config.preset}: the demo set needs none; give --data")
    places = [_absent(preset, config, base) for base in _bases(preset, Path(config.data).expanduser())]
    if not places:
        raise UserError(
            f"--preset {config.preset}: --data {config.data} is neither its folder nor its {preset['table']}"
        )
    best = min(places, key=lambda place: len(place.absent))
    if best.absent:
        raise UserError(f"--preset {config.preset}: {', '.join(best.absent)} not found in {best.base}")
    return best


def _recognised(config: DataConfig) -> _Found | None:
    data = Path(config.data).expanduser()
    fitting: dict[Path, list[_Found]] = {}
    for preset in _ours().values():
        for base in _bases(preset, data):
            place = _absent(preset, config, base)
            if not place.absent and _has_columns(preset, config, base):
                fitting.setdefault(base, []).append(place)
                break
    if not fitting:
        return None
    outermost = fitting[min(fitting, key=lambda base: len(base.parts))]
    most = max(len(place.preset["files"]) for place in outermost)
    best = [place.preset.name for place in outermost if len(place.preset["files"]) == most]
    if len(best) > 1:
        raise UserError(f"--data {config.data} fits the presets {' and '.join(best)}: choose one by --preset, or none")
    return next(place for place in outermost if place.preset.name == best[0])


def _bases(preset: Preset, data: Path) -> Iterator[Path]:
    """The folders in which the files of ``preset`` may lie: ``data`` and lone folders in it, or those of the table."""
    try:
        if data.is_file():
            pattern = PurePosixPath(preset["table"] or "")
            if pattern.parts and len(data.absolute().parents) >= len(pattern.parts):
                base = data.absolute().parents[len(pattern.parts) - 1]
                if PurePosixPath(data.absolute().relative_to(base).as_posix()).match(str(pattern)):
                    yield base
            return
        for _ in range(_DEEPEST_WRAPPER):
            yield data.absolute()
            inner = [
                entry for entry in os.scandir(data) if entry.is_dir() and not entry.name.startswith((".", "__", "@"))
            ]
            if len(inner) != 1:
                return
            data = data / inner[0].name
    except OSError:
        return  # What is wrong with ``data`` is told by those who read it.


def _absent(preset: Preset, config: DataConfig, base: Path) -> _Found:
    """Which of the files that must lie below ``base`` do not."""
    joined = [one["table"] for one in preset["join"]] if "join" not in config.model_fields_set else []
    needed = [*preset["files"], *([preset["table"]] if preset["table"] else []), *joined]
    return _Found(preset, base, tuple(dict.fromkeys(one for one in needed if _first(base, one) is None)))


def _first(base: Path, pattern: str) -> Path | None:
    """The first file or folder by name that the pattern names; hidden ones only if it says so."""
    return min((base / name for name in glob.iglob(pattern, root_dir=base)), default=None)


def _has_columns(preset: Preset, config: DataConfig, base: Path) -> bool:
    """Whether the preset's tables have the columns that are asked for: many sets have a train.csv."""
    label_column = _value(preset, config, "label_column")
    if not label_column:
        return True
    files = [preset["table"], *(one["table"] for one in preset["join"])]
    headers = [header for file in files for header in _headers(_first(base, file))]
    if preset["columns"]:
        return any(len(header) == len(preset["columns"]) for header in headers)
    optional = ("path_column", "group_column", "split_column")
    wanted = {*label_column, *(_value(preset, config, name) for name in optional), *_value(preset, config, "where")}
    return wanted - {None} <= {name for header in headers for name in header}


def _value(preset: Preset, config: DataConfig, field: str) -> Any:
    return getattr(config, field) if field in config.model_fields_set else preset[field]


def _headers(file: Path | None) -> Iterator[list[str]]:
    """The first line of a table as names, once for each separator it may have; nothing if it cannot be read."""
    try:
        line = _first_line(file) if file is not None else ""
        if line.startswith("{"):
            yield list(json.loads(line))
        for separator in ",;\t|":
            yield [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
        yield line.split()
    except (
        OSError,
        EOFError,
        ValueError,
        csv.Error,
        zlib.error,
        zipfile.BadZipFile,
        RecursionError,
        NotImplementedError,
    ):
        return


def _first_line(file: Path) -> str:
    with file.open("rb") as opened:
        start = opened.read(_HEADER_BYTES)
    if start.startswith(b"\x1f\x8b"):
        with gzip.open(file) as unpacked:
            start = unpacked.read(_HEADER_BYTES)
    elif start.startswith(b"PK\3\4"):
        with zipfile.ZipFile(file) as archive, archive.open(archive.namelist()[0]) as member:
            start = member.read(_HEADER_BYTES)
    return next((line.strip() for line in io.StringIO(start.decode("utf-8-sig", "replace")) if line.strip()), "")


def _values(found: _Found, config: DataConfig) -> tuple[dict[str, Any], list[str]]:
    """What the preset says of fields that were not given, paths relative to the data; and what it named in vain.

    Of a preset of ours, a split's file and columns to report by are taken if they are there: releases differ. What
    it says about the meaning of its labels is left out where the user names other label columns.
    """
    preset, base = found.preset, found.base
    given = set(config.model_fields_set)
    if "label_column" in given and config.label_column != preset["label_column"]:
        given.update(_OF_THE_LABELS)
    values = {name: value for name, value in preset.values.items() if name not in given}
    missing = []
    data = Path(config.data).expanduser().absolute()
    folder = data.parent if data.is_file() else data
    for name in _OF_PATHS:
        pattern = values.get(name)
        if pattern is None or pattern == NONE:
            continue
        file = _first(base, pattern)
        if file is not None:
            values[name] = _relative(file, folder)
        elif preset.ours:
            missing.append(str(values.pop(name)))
    if data.is_file():
        values.pop("table", None)
    if "join" in values:
        values["join"] = tuple(
            {**one, "table": _relative(_first(base, one["table"]), folder)} for one in values["join"]
        )
    if preset.ours and preset["label_column"]:
        tables = [preset["table"], *(one["table"] for one in preset["join"])]
        columns = {name for table in tables for header in _headers(_first(base, table)) for name in header}
        columns.update(preset["columns"])
        if "subgroup_column" in values:
            values["subgroup_column"] = tuple(name for name in values["subgroup_column"] if name in columns)
        if values.get("source_column") not in columns:
            values.pop("source_column", None)
    return values, missing


def _relative(file: Path | None, folder: Path) -> str:
    assert file is not None
    return Path(os.path.relpath(file, folder)).as_posix()


def _with(config: C, values: Mapping[str, Any]) -> C:
    return config.model_copy(update={name: value for name, value in values.items() if getattr(config, name) != value})
