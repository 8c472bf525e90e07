"""The options of the data set, and the one place where options of any command are declared and read."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from search_spaces.errors import UserError, unknown
from search_spaces.paths import expanded, unreachable

LEAST_IMAGE_SIZE = 8
LARGEST_SEED = 2**32 - 1  # of numpy's and scikit-learn's generators


def text(raw: object) -> str:
    """Non-empty text. A number or a date in a YAML file is refused: its spelling would change."""
    if not isinstance(raw, str):
        raise ValueError(f"must be text, received {raw!r} (quote it in a YAML file)")
    if not raw.strip():
        raise ValueError(f"must not be empty, received {raw!r}")
    return raw


def names(raw: object) -> tuple[str, ...]:
    """One text, or a list of them."""
    return tuple(text(one) for one in (raw if isinstance(raw, list | tuple) else [raw]))


def comma_names(raw: object) -> tuple[str, ...]:
    """Like ``names``, but each text may hold several names separated by commas."""
    return tuple(text(part).strip() for one in names(raw) for part in one.split(","))


def pairs(*allowed: str, alone: bool = False) -> PlainValidator:
    """Reads a mapping, or texts such as ``["a=b", "c=d"]``, also separated by commas.

    allowed: the values; default: any. alone: a text without ``=`` is a value with the key "".
    """
    example = f"one of {', '.join(allowed)}, or LABEL=one of them" if alone else "THEIRS=OURS"

    def read(raw: object) -> dict[str, str]:
        found: dict[str, str] = {}
        if isinstance(raw, Mapping):
            found = {str(key): _word(value) for key, value in raw.items()}
        else:
            for one in comma_names([_word(part) for part in raw] if isinstance(raw, list | tuple) else _word(raw)):
                key, equals, value = (part.strip() for part in one.rpartition("="))
                if not value or (equals and not key) or found.get(key, value) != value:
                    again = ", each name once" if key in found else ""
                    raise ValueError(f"{one}: write {example}, with commas between{again}")
                found[key] = value
        if "" in found and not alone:
            raise ValueError(f"{found['']}: write {example}, with commas between")
        for key, value in found.items():
            if allowed and value not in allowed:
                given = f"{key}={value}" if key else value
                raise ValueError(f"{given}: must be {', '.join(allowed[:-1])} or {allowed[-1]}")
        return found

    return PlainValidator(read)


def _word(raw: object) -> str:
    """Text, or a whole number of a YAML file, such as 0."""
    return str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else text(raw)


def conditions(raw: object) -> dict[str, tuple[str, ...]]:
    """Column -> allowed values, of ``["VIEW=PA,AP", "SEX=F"]`` or a mapping of columns to one value or a list."""
    if isinstance(raw, Mapping):
        return {
            str(key): tuple(map(_word, values if isinstance(values, list | tuple) else [values]))
            for key, values in raw.items()
        }
    found: dict[str, tuple[str, ...]] = {}
    for one in names(raw):
        column, _, given = one.partition("=")
        values = tuple(part.strip() for part in given.split(","))
        if not column.strip() or not all(values):
            raise ValueError(f"{one}: write COLUMN=VALUE, or COLUMN=VALUE,VALUE")
        found[column.strip()] = found.get(column.strip(), ()) + values
    return found


def pattern(raw: object) -> str:
    """A regular expression."""
    try:
        re.compile(text(raw))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{raw}: is not a regular expression: {error}") from None
    return text(raw)


def group_pattern(raw: object) -> str:
    """A regular expression whose first group is the part to extract."""
    if not re.compile(pattern(raw)).groups:
        raise ValueError(f"{raw}: has no group: put the part to extract in parentheses, such as (patient\\d+)")
    return text(raw)


def separator(raw: object) -> str:
    """The text between the labels of a cell; it may be a blank."""
    if not isinstance(raw, str) or not raw:
        raise ValueError(f"must be the text between two labels, or none, received {raw!r}")
    return raw


def table_joins(raw: object) -> tuple[dict[str, Any], ...]:
    """A list of ``{table: FILE, on: COLUMN or [COLUMN, ...]}``, optionally with ``columns: [COLUMN, ...]`` to add
    (default: all), and with ``header: [COLUMN, ...]``, all columns of a table without a header.
    """
    found = []
    for one in raw if isinstance(raw, list | tuple) else [raw]:
        if isinstance(one, Mapping):
            one = {"on" if key is True else key: value for key, value in one.items()}  # YAML 1.1 reads `on` as true.
        if not isinstance(one, Mapping) or not {"table", "on"} <= one.keys() <= {"table", "on", "columns", "header"}:
            raise ValueError(f"must be a list of {{table, on, columns, header}}, received {one!r}")
        header = {"header": names(one["header"])} if "header" in one else {}  # Older runs were saved without it.
        columns = names(one.get("columns", []))
        found.append({"table": text(one["table"]), "on": names(one["on"]), "columns": columns, **header})
    return tuple(found)


def whole(raw: object) -> int:
    """An int of any sign; accepts ``20``, ``"20"`` and ``20.0``, refuses ``True``, ``20.5`` and ``"1_000"``."""
    value = finite(raw)
    if value is None or not value.is_integer():
        raise ValueError(f"must be a whole number, received {raw!r}")
    if isinstance(raw, int | str):
        with contextlib.suppress(ValueError):
            return int(raw)  # Exactly: a float has 53 bits.
    return int(value)


def flag(raw: object) -> bool:
    """Yes or no."""
    if not isinstance(raw, bool):
        raise ValueError(f"must be true or false, received {raw!r}")
    return raw


def finite(raw: object) -> float | None:
    """The finite float that a number or text stands for; None if there is none."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or "_" in str(raw):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


# Plain validators replace pydantic's own, which would take True as 1 and refuse a path that is not UTF-8.
Text = Annotated[str, PlainValidator(text)]
Names = Annotated[tuple[str, ...], PlainValidator(names)]
Whole = Annotated[int, PlainValidator(whole)]
Flag = Annotated[bool, PlainValidator(flag)]
CommaNames = Annotated[tuple[str, ...], PlainValidator(comma_names)]
NamePairs = Annotated[dict[str, str], pairs()]
SplitPairs = Annotated[dict[str, str], pairs("train", "val", "test")]
OfBlank = Annotated[dict[str, str], pairs("0", "missing", "drop", alone=True)]
OfUncertain = Annotated[dict[str, str], pairs("0", "1", "missing", "drop", alone=True)]
Conditions = Annotated[dict[str, tuple[str, ...]], PlainValidator(conditions)]
Pattern = Annotated[str, PlainValidator(pattern)]
GroupPattern = Annotated[str, PlainValidator(group_pattern)]
Separator = Annotated[str, PlainValidator(separator)]
Joins = Annotated[tuple[dict[str, Any], ...], PlainValidator(table_joins)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """The declaration of an option, besides its name, type and default.

    group: its heading in the help. metavar: placeholder of its value there; None = a switch. many: it may be given
    several times. allowed: its permitted values, or names in a list; ``kind`` is their word in errors (default: the
    option's name). least, most: the range, inclusive; above_s: lower bound in seconds, exclusive. out_of_range: error
    text for a value outside, if the bound in words is not enough.
    anew: a resumed run may have another value, since it changes how much is run and where, not the result of a trial.
    later: added when runs already existed; a run saved without it used its default.
    alone: on the command line it may be given without its value, which is then True.
    in_files_only: a setting of presets and YAML files, not of the command line. rare: shown by ``--help-all`` only.
    path: a file or folder, or a word in its place: ``~`` is expanded, a URL refused.
    """

    group: str
    metavar: str | None
    help: str
    many: bool = False
    allowed: tuple[str, ...] = ()
    kind: str = ""
    least: float = -math.inf
    above_s: float = -math.inf
    most: float = math.inf
    out_of_range: str = ""
    anew: bool = False
    later: bool = False
    alone: bool = False
    in_files_only: bool = False
    rare: bool = False
    path: bool = False

    def problems(self, name: str, value: object) -> Iterator[str]:
        """Why the option ``name`` cannot be ``value``, one sentence each; None is not checked."""
        several = value if isinstance(value, tuple) else () if value is None else (value,)
        for one in several if self.allowed else ():
            if one not in self.allowed:
                yield f"{dashed(name)}: {unknown(self.kind or name, one, self.allowed)}"
        for one in sorted({str(one) for one in several if several.count(one) > 1}):
            yield f"{dashed(name)}: {one} is given twice"
        if isinstance(value, int | float):
            bounds = {
                f"{self.least} or more": value >= self.least,
                f"at most {self.most}": value <= self.most,
                f"more than {self.above_s} seconds": value > self.above_s,
            }
            outside = [self.out_of_range or f"must be {bound}" for bound, holds in bounds.items() if not holds]
            yield from (f"{dashed(name)} {value}: {said}" for said in outside)


def option(group: str, default: Any, metavar: str | None, help: str, **declared: Any) -> Any:
    """A field of ``Options`` that is an option of the command line; ``declared``: further fields of ``Option``.

    help: has "default: " and the default in words, unless the field's own (text or a number) is to be appended.
    """
    if isinstance(default, str | int | float) and not isinstance(default, bool) and "default: " not in help:
        help += f"; default: {default:g}" if isinstance(default, float) else f"; default: {default}"
    field = Field(default)
    field.metadata.append(Option(group=group, metavar=metavar, help=help, **declared))
    return field


def dashed(name: str) -> str:
    """How a field is written on the command line."""
    return "--" + name.replace("_", "-")


def as_typed(value: object) -> str:
    """A value nearly as on the command line: lists with commas, mappings as a=b, None as "none"."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={as_typed(one)}" if key else as_typed(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(as_typed, value))
    return "none" if value is None else str(value)


def unknown_option(given: str, kind: str, allowed: Mapping[str, str], page: str = "--help-all") -> str:
    """The error about an unknown ``kind``, with the nearest of ``allowed`` (spelling to compare -> how to write it).

    page: the option that lists all of them.
    """
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {allowed[near[0]]}? " if near else ""
    return f"unknown {kind} {given}: {hint}{page} lists all"


class Options(BaseModel):
    """Settings whose fields are declared by ``option``. Construction checks types, ``problems`` the values."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _unread: frozenset[str] = PrivateAttr(frozenset())

    @field_validator("*", mode="wrap")
    @classmethod
    def _refused(cls, raw: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(raw)
        except UnicodeEncodeError:  # pydantic cannot encode an error that quotes the value.
            raise ValueError(f"{raw!a}: is not UTF-8") from None

    @field_validator("*")
    @classmethod
    def _path(cls, value: Any, field: ValidationInfo) -> Any:
        is_path = field.field_name is not None and cls.options()[field.field_name].path
        if not is_path or value is None:
            return value
        path = expanded(value)
        if not path.isascii() and path.encode(errors="replace") != path.encode(errors="surrogateescape"):
            raise ValueError(f"{value!a}: is not UTF-8, which records need: rename it, or give a link to it")
        return path

    @classmethod
    @functools.cache
    def options(cls) -> dict[str, Option]:
        """The declaration of each field; a subclass that gives a field another type keeps its declaration."""
        declared = {
            name: one
            for base in cls.__mro__
            if issubclass(base, Options)
            for name, field in base.model_fields.items()
            for one in field.metadata
            if isinstance(one, Option)
        }
        return {name: declared[name] for name in cls.model_fields}

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> tuple[Self, dict[str, list[str]]]:
        """The settings in ``raw`` (texts, or values of YAML or JSON), with defaults for those that cannot be read.

        Also returns the problems of each of those: name -> sentences.
        """
        wrong: dict[str, list[str]] = {}
        try:
            cls.model_validate(dict(raw))
        except ValidationError as error:
            for one in error.errors():
                name, why = str(one["loc"][0]), one.get("ctx", {}).get("error")
                if name not in cls.model_fields:
                    wrong[name] = [unknown_option(name, "setting", {known: known for known in cls.model_fields})]
                else:
                    wrong[name] = list(why.problems) if isinstance(why, UserError) else [f"{dashed(name)} {why}"]
        sound = cls.model_validate({name: value for name, value in raw.items() if name not in wrong})
        return sound.without(wrong), {name: wrong[name] for name in raw if name in wrong}

    @property
    def unread(self) -> frozenset[str]:
        """Fields whose value nobody asked for: theirs could not be read, or the command has no such option."""
        return self._unread

    def without(self, unread: Collection[str]) -> Self:
        """The same settings, with ``unread`` added to the unread fields."""
        copy = self.model_copy()
        copy._unread = self._unread.union(unread)
        return copy

    def problems(self) -> list[str]:
        """One sentence for each invalid value and each path that cannot be reached; [] if there is none."""
        paths = [(name, getattr(self, name)) for name, declared in self.options().items() if declared.path]
        found = [(name, unreachable(path)) for name, path in paths if path is not None]
        return [*self.value_problems(), *(f"{dashed(name)} {problem}" for name, problem in found if problem)]

    def value_problems(self) -> list[str]:
        """One sentence for each value that is invalid wherever the command runs."""
        return [
            problem
            for name, declared in self.options().items()
            for problem in declared.problems(name, getattr(self, name))
        ]

    def to_json(self) -> dict[str, Any]:
        """Every value as in JSON: tuples become lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self}


_images = functools.partial(option, "images")
_rarely = functools.partial(_images, rare=True)
# A resumed run's data may have moved: its content is compared.
_place = functools.partial(_images, path=True, anew=True)


def _in_files(default: Any) -> Any:
    return _images(default, "", "", in_files_only=True, many=True, later=True)


class DataConfig(Options):
    """Which data set, and how to read it: the same flat keys on the command line, in a YAML file and in a preset.

    In addition to each option's help: path_column may hold paths, file names or names without suffix, looked for below
    ``images_dir``. val_data, test_data: relative to the working directory, else to the data's own folder.
    blank_label, uncertain_label: by label, "" = all others. group_from, class_from: searched in the path below the data
    folder. Of files only: files: patterns of names that must exist there for a preset to fit. table: the preset's table
    there. join: tables to be joined. class_names: their name -> a better name. one_hot: each label column is a class.
    """

    data: Text = _place(
        "demo",
        "PATH",
        "a folder, a table (CSV, TSV, Parquet, JSON Lines, optionally gzipped) or a MedMNIST .npz, as downloaded; "
        "default: demo (synthetic images)",
    )
    preset: Text = _images(
        "auto",
        "NAME",
        "a known public data set, a YAML file of your own, none, or list (print the presets); default: auto (the one "
        "that matches the files)",
        later=True,
        path=True,
    )
    label_column: Names = _images(
        (),
        "NAME",
        "table: the column of the class (or of classes, as a|b); repeat it for several 0/1 columns",
        many=True,
    )
    path_column: Text = _images("path", "NAME", "table: the column of the image files")
    group_column: Text | None = _images(
        None, "NAME", "table: the column of the patient, who is kept in one split; default: none"
    )
    split_column: Text | None = _rarely(
        None, "NAME", "table: the column with train, val or test; default: split, if there is one"
    )
    subgroup_column: Names = _images(
        (), "NAME", "table: report scores by this column, such as sex; may be repeated", many=True
    )
    source_column: Text | None = _rarely(
        None, "NAME", "table: the column of the hospital or device; tested as a shortcut to the class"
    )
    task: Text = _images(
        "auto",
        "TASK",
        "single_label, multi_label or auto (from the labels)",
        allowed=("auto", "single_label", "multi_label"),
    )
    image_size: Whole = _images(
        224,
        "PX",
        "side of the square input image in pixels; default: 224, demo 64",
        least=LEAST_IMAGE_SIZE,
        out_of_range=f"must be at least {LEAST_IMAGE_SIZE} pixels",
    )
    fit: Text = _rarely(
        "squash", "HOW", "how images are made square: squash, crop or pad", allowed=("squash", "crop", "pad")
    )
    images_dir: Text | None = _place(
        None, "FOLDER", "table: the folder of the image files; default: the table's folder", rare=True, later=True
    )
    columns: CommaNames = _rarely((), "NAMES", "column names of a table without a header", many=True, later=True)
    val_data: Text | None = _place(
        None,
        "PATH",
        "validation images: a table, a folder, a list of files, or none (draw them from training)",
        rare=True,
        later=True,
    )
    test_data: Text | None = _place(
        None, "PATH", "test images: a table, a folder, a list of files, or none", later=True
    )
    where: Conditions = _rarely(
        {},
        "COLUMN=VALUE",
        "table: use only rows with this value, or one of several separated by commas; may be repeated",
        many=True,
        later=True,
    )
    label_separator: Separator | None = _rarely(
        None, "TEXT", "separator of labels in a cell, such as ';'; none: do not split cells; default: |", later=True
    )
    blank_label: OfBlank = _rarely(
        {},
        "MEANING",
        "meaning of a blank label cell: 0, missing or drop (the row); also by label: Edema=0,Fracture=missing",
        many=True,
        later=True,
    )
    uncertain_label: OfUncertain = _rarely(
        {}, "MEANING", "meaning of -1 in a label cell: 0, 1, missing or drop; also by label", many=True, later=True
    )
    no_finding: Text | None = _rarely(
        None, "NAME", "multi-label: this name means no finding and is not a label", later=True
    )
    skip_missing: Flag = _rarely(False, None, "skip rows whose file is missing; the report is marked", later=True)
    classes: CommaNames = _rarely((), "NAMES", "use only these classes or labels; default: all", many=True, later=True)
    min_class_images: Whole | None = _rarely(
        None, "N", "leave out classes with fewer than N images; default: keep all", least=1, later=True
    )
    ordered_classes: Flag = _rarely(
        False, None, "classes are grades, in the order of --classes (default: by number): weighted kappa", later=True
    )
    max_images: Whole | None = _rarely(
        None, "N", "for a first try, use at most N images, from every split and of whole patients", least=10, later=True
    )
    split_names: SplitPairs = _rarely(
        {}, "THEIRS=OURS", "the table's names of train, val and test, such as TR=train,VA=val", many=True, later=True
    )
    group_from: GroupPattern | None = _rarely(
        None, "REGEX", r"the first group of this, matched in a file's path, is the patient: '(patient\d+)'", later=True
    )
    class_from: GroupPattern | None = _rarely(
        None, "REGEX", "folder: the first group of this, matched in a file's path, is the class", later=True
    )
    files: Names = _in_files(())
    table: Text | None = _in_files(None)
    join: Joins = _in_files(())
    class_names: NamePairs = _in_files({})
    one_hot: Flag = _in_files(False)
    allow_leakage: Flag = _rarely(False, None, "allow a patient or an image in two given splits; the report is marked")
    skip_unreadable: Flag = _images(False, None, "skip files that cannot be read; the report is marked")
    seed: Whole = option(
        "search", 0, "N", "seed of the splits, the search and every trial, 0 or more", least=0, most=LARGEST_SEED
    )

    @property
    def has_preset(self) -> bool:
        """Whether a preset was applied."""
        return self.preset not in ("auto", "none")

    def by_task(self, way_out: str) -> str:
        """``way_out``, which names --task; "" if a model determines the task."""
        return "" if "task" in self.unread else way_out

    def table_options(self) -> dict[str, str]:
        """The options given here that only apply to a table: option -> value, "" for a switch."""
        only = ("columns", "where", "images_dir", "label_separator", "blank_label", "uncertain_label", "skip_missing")
        given = {name: value for name, value in self if name.endswith("_column") or name in only}
        return {
            dashed(name): "" if value is True else " ".join(value) if isinstance(value, tuple) else str(value)
            for name, value in given.items()
            if value != DataConfig.model_fields[name].get_default()
        }
