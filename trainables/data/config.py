"""The options about the data set, and how an option of any command is declared and read: once, in one place."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PrivateAttr, ValidationError

from search_spaces.errors import UserError, unknown

LEAST_IMAGE_SIZE = 8
LARGEST_SEED = 2**32 - 1  # of numpy's and scikit-learn's generators


def text(raw: object) -> str:
    """Text that is not empty. A number or a date in a YAML file is none: it would come back written otherwise."""
    if not isinstance(raw, str):
        raise ValueError(f"must be text, received {raw!r} (in a YAML file, put it in quotes)")
    if not raw.strip():
        raise ValueError(f"must not be empty, received {raw!r}")
    return raw


def names(raw: object) -> tuple[str, ...]:
    """One text, or a list of them."""
    return tuple(text(one) for one in (raw if isinstance(raw, list | tuple) else [raw]))


def whole(raw: object) -> int:
    """An int of any sign; ``20``, ``"20"`` and ``20.0`` are one, ``True``, ``20.5`` and ``"1_000"`` are none."""
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
    """The finite float that a number or text stands for; None if it stands for none."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or "_" in str(raw):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


# Plain: a reader has the last word. Pydantic's own would take True as 1, and refuse a path that is not UTF-8.
Text = Annotated[str, PlainValidator(text)]
Names = Annotated[tuple[str, ...], PlainValidator(names)]
Whole = Annotated[int, PlainValidator(whole)]
Flag = Annotated[bool, PlainValidator(flag)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """What is declared of an option besides its name, type and default.

    group: its heading in the help. metavar: stands for its value there; None = a switch. many: it may be given
    several times. allowed: the values, or the names in a list, that it may have, each called a ``kind`` (default: the
    option's name). least, most: the range, inclusive; above_s: of seconds, exclusive. out_of_range: said of a value
    outside, where the bound in words is not enough.
    anew: a resumed run may be given another value, since it changes how much is run and where, not what a trial is
    worth. later: added after there were runs; one that was saved without it was run with its default.
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

    def problems(self, name: str, value: object) -> Iterator[str]:
        """Why the option ``name`` cannot be ``value``, one sentence each; None is not looked at."""
        several = value if isinstance(value, tuple) else () if value is None else (value,)
        for one in several if self.allowed else ():
            if one not in self.allowed:
                yield f"{dashed(name)}: {unknown(self.kind or name, one, self.allowed)}"
        for one in sorted({one for one in several if several.count(one) > 1}):
            yield f"{dashed(name)}: {one} is named twice"
        if isinstance(value, int | float):
            bounds = {
                f"{self.least} or more": value >= self.least,
                f"at most {self.most}": value <= self.most,
                f"more than {self.above_s} seconds": value > self.above_s,
            }
            outside = [self.out_of_range or f"must be {bound}" for bound, holds in bounds.items() if not holds]
            yield from (f"{dashed(name)} {value}: {said}" for said in outside)


def option(group: str, default: Any, metavar: str | None, help: str, **declared: Any) -> Any:
    """A field of an ``Options`` that is an option of the command line; ``declared``: as ``Option`` has them.

    help: it ends with the default in words, where that is not the field's own.
    """
    if isinstance(default, str | int | float) and not isinstance(default, bool) and "default: " not in help:
        help += f"; default: {default:g}" if isinstance(default, float) else f"; default: {default}"
    field = Field(default)
    field.metadata.append(Option(group=group, metavar=metavar, help=help, **declared))
    return field


def dashed(name: str) -> str:
    """How a field is written on the command line."""
    return "--" + name.replace("_", "-")


def unknown_option(given: str, kind: str, allowed: Mapping[str, str]) -> str:
    """Say that ``given`` is no ``kind``, with the nearest of ``allowed`` (spelling looked for: how to write it)."""
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {allowed[near[0]]}? " if near else ""
    return f"unknown {kind} {given}: {hint}--help lists all"


class Options(BaseModel):
    """Settings whose fields are declared by ``option``. Construction checks types, ``problems`` the values."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _unread: frozenset[str] = PrivateAttr(frozenset())

    @classmethod
    @functools.cache
    def options(cls) -> dict[str, Option]:
        """What is declared of each field."""
        fields = {name: field for base in cls.__mro__ if issubclass(base, Options) for name, field in _declared(base)}
        return {name: fields[name] for name in cls.model_fields}

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> tuple[Self, dict[str, list[str]]]:
        """What ``raw`` (text, or as YAML and JSON have it) stands for, with defaults for what cannot be read.

        Beside it, by its name, what is wrong with each of those, in sentences.
        """
        wrong: dict[str, list[str]] = {}
        try:
            cls.model_validate(dict(raw))
        except ValidationError as error:
            for one in error.errors():
                name = str(one["loc"][0])
                wrong[name] = cls._sentences(name, one.get("ctx", {}).get("error"))
        sound = cls.model_validate({name: value for name, value in raw.items() if name not in wrong})
        return sound.without(wrong), {name: wrong[name] for name in raw if name in wrong}

    @classmethod
    def _sentences(cls, name: str, error: ValueError | None) -> list[str]:
        if name not in cls.model_fields:
            return [unknown_option(name, "setting", {known: known for known in cls.model_fields})]
        return list(error.problems) if isinstance(error, UserError) else [f"{dashed(name)} {error}"]

    @property
    def unread(self) -> frozenset[str]:
        """The fields whose given value could not be read: what they hold is the default, which nobody asked for."""
        return self._unread

    def without(self, unread: Collection[str]) -> Self:
        """The same settings, of which also ``unread`` could not be read."""
        copy = self.model_copy()
        copy._unread = self._unread.union(unread)
        return copy

    def problems(self) -> list[str]:
        """One sentence for each value that cannot be; [] if all is well."""
        return [
            problem
            for name, declared in self.options().items()
            for problem in declared.problems(name, getattr(self, name))
        ]

    def to_json(self) -> dict[str, Any]:
        """Every value as JSON has it: tuples become lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self}


def _declared(base: type[Options]) -> Iterator[tuple[str, Option]]:
    for name, field in base.model_fields.items():
        yield from ((name, one) for one in field.metadata if isinstance(one, Option))


_images = functools.partial(option, "images")


class DataConfig(Options):
    """Which data set, and how to read it.

    data: "demo", or a path to a folder or to a .csv / .tsv manifest.
    label_column: of a manifest: one column (class names or ``a|b`` cells), or several columns of 0 and 1.
    path_column: of a manifest: paths absolute or relative to the manifest's folder.
    group_column: of a manifest: rows with the same value (a patient) never stand in two splits.
    split_column: of a manifest; None = the column "split" if there is one.
    subgroup_column: of a manifest: carried into splits.csv for the report.
    source_column: of a manifest: where an image comes from, counted against the class.
    task: "auto" (multi_label if there are several label columns or ``a|b`` cells), "single_label", "multi_label".
    image_size: pixels of the square that the network sees. fit: "squash", "crop" or "pad".
    allow_leakage: go on, with a caveat, where a group or the same pixels stand in two splits.
    skip_unreadable: go on, with a caveat, without the files that cannot be decoded.
    seed: of splits that we draw.
    """

    data: Text = _images(
        "demo",
        "PATH",
        "a folder train|val|test/CLASS/*, a folder CLASS/* (split 70/15/15 here), or a .csv manifest; "
        "default: demo, phantoms drawn by code",
        anew=True,  # It may have moved: the content of a resumed run's data set is compared.
    )
    label_column: Names = _images(
        (),
        "NAME",
        "manifest: the column of the class (or of classes, as a|b); repeat it for columns of 0 and 1",
        many=True,
    )
    path_column: Text = _images("path", "NAME", "manifest: the column of the image files")
    group_column: Text | None = _images(
        None, "NAME", "manifest: the patient, who never stands in two splits; default: none"
    )
    split_column: Text | None = _images(
        None, "NAME", "manifest: train, val or test; default: split, if there is such a column"
    )
    subgroup_column: Names = _images(
        (), "NAME", "manifest: a column to report by, such as sex; may be repeated", many=True
    )
    source_column: Text | None = _images(None, "NAME", "manifest: where an image comes from, compared with its class")
    task: Text = _images(
        "auto",
        "TASK",
        "single_label, multi_label or auto (from the labels)",
        allowed=("auto", "single_label", "multi_label"),
    )
    image_size: Whole = _images(
        224,
        "PX",
        "side of the square that the network sees, pixels; default: 224, demo 64",
        least=LEAST_IMAGE_SIZE,
        out_of_range=f"at least {LEAST_IMAGE_SIZE} pixels are needed",
    )
    fit: Text = _images(
        "squash", "HOW", "how an image becomes square: squash, crop or pad", allowed=("squash", "crop", "pad")
    )
    allow_leakage: Flag = _images(
        False, None, "go on where a patient or an image is in two splits; the report is marked"
    )
    skip_unreadable: Flag = _images(False, None, "go on without the files that cannot be read; the report is marked")
    seed: Whole = option(
        "search", 0, "N", "of the splits, the search and every trial, 0 or more", least=0, most=LARGEST_SEED
    )

    def manifest_options(self) -> dict[str, str]:
        """The options given here that only a manifest can answer: option -> value."""
        given = {name: value for name, value in self if name.endswith("_column")}
        return {
            dashed(name): " ".join(value) if isinstance(value, tuple) else str(value)
            for name, value in given.items()
            if value != DataConfig.model_fields[name].default
        }
