"""What a user wrote, on the command line or in a file, as the value that it stands for.

Each reader takes text, or a value as YAML and JSON have it, and raises ``ValueError`` with the end of a sentence
("must be a whole number, received 'x'") that the caller begins with the name of the option.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from search_spaces.errors import UserError, raise_all
from search_spaces.params import Override, parse_text

Reader = Callable[[object], Any]

SECONDS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_DURATION_PART = r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)"


def read_values(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of fields of ``SweepConfig`` that ``raw`` (text, or as YAML and JSON have it) stands for.

    Returns those that could be read, and one sentence for each that could not.
    """
    read: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in raw.items():
        if name not in READERS:
            problems.append(unknown_option(str(name), "setting", {known: known for known in READERS}))
            continue
        try:
            read[name] = READERS[name](value)
        except UserError as error:
            problems += error.problems
        except ValueError as error:
            problems.append(f"{option(name)} {error}")
    return read, problems


def option(name: str) -> str:
    """How a field is written on the command line."""
    return "--" + name.replace("_", "-")


def unknown_option(given: str, kind: str, allowed: Mapping[str, str]) -> str:
    """Say that ``given`` is no ``kind``, with the nearest of ``allowed`` (spelling looked for: how to write it)."""
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.6)
    hint = f"did you mean {allowed[near[0]]}? " if near else ""
    return f"unknown {kind} {given}: {hint}--help lists all"


def text(raw: object) -> str:
    """Text that is not empty. A number or a date in a YAML file is none: it would come back written otherwise."""
    if not isinstance(raw, str):
        raise ValueError(f"must be text, received {raw!r} (in a YAML file, put it in quotes)")
    if not raw.strip():
        raise ValueError(f"must not be empty, received {raw!r}")
    return raw


def whole(raw: object) -> int:
    """An int of any sign; ``20``, ``"20"`` and ``20.0`` are one, ``True`` and ``20.5`` are none."""
    if isinstance(raw, int | str) and not isinstance(raw, bool):
        with contextlib.suppress(ValueError):
            return int(raw)
    value = _float(raw)
    if value is None or not value.is_integer():
        raise ValueError(f"must be a whole number, received {raw!r}")
    return int(value)


def number(raw: object) -> float:
    """A finite float."""
    value = _float(raw)
    if value is None:
        raise ValueError(f"must be a number, received {raw!r}")
    return value


def seconds(raw: object) -> float:
    """A length of time in seconds: ``3600``, ``"90m"``, ``"1h30m"``, ``"1.5h"``, ``"2d"``; a plain number is seconds.

    Of any sign: whether it can be is the option's matter.
    """
    value = _float(raw)
    if value is not None:
        return value
    if isinstance(raw, str) and re.fullmatch(rf"(?:{_DURATION_PART}\s*)+", raw.strip().lower()):
        parts = re.findall(_DURATION_PART, raw.lower())
        return float(sum(float(amount) * SECONDS[unit] for amount, unit in parts))
    raise ValueError(f"must be a time such as 90s, 45m, 2h, 1h30m or 1d (a plain number is seconds), received {raw!r}")


def flag(raw: object) -> bool:
    """Yes or no."""
    if not isinstance(raw, bool):
        raise ValueError(f"must be true or false, received {raw!r}")
    return raw


def names(raw: object) -> tuple[str, ...]:
    """One text, or a list of them."""
    return tuple(text(one) for one in (raw if isinstance(raw, list | tuple) else [raw]))


def comma_names(raw: object) -> tuple[str, ...]:
    """As ``names``, and each text may hold several with commas between."""
    return tuple(text(part).strip() for one in names(raw) for part in one.split(","))


def hyperparameters(raw: object) -> dict[str, Override]:
    """Fixed hyperparameters from a mapping, or a list of ``"lr=1e-3"``; ``UserError`` with whole sentences if wrong.

    Values get the type of the field of ``TrialParams`` that they are for.
    """
    pairs: list[tuple[str, Any]] = []
    problems: list[str] = []
    if isinstance(raw, Mapping):
        pairs = [(str(key), value) for key, value in raw.items()]
    else:
        for one in names(raw):
            key, equals, value = one.partition("=")
            if not (key.strip() and equals and value.strip()):
                problems.append(f"--set {one}: write name=value, such as lr=1e-3")
            else:
                pairs.append((key.strip(), value.strip()))
    values: dict[str, Override] = {}
    for key, value in pairs:
        if key in values:
            problems.append(f"--set {key} is given twice: {values[key]} and {value}")
            continue
        try:
            values[key] = parse_text(key, value)
        except UserError as error:
            problems += [f"--set {key}={value}: {problem}" for problem in error.problems]
    raise_all(problems)
    return values


def optional(reader: Reader, word: str | None = None) -> Reader:
    """Reads None, too, and the text ``word`` as None."""

    def read(raw: object) -> Any:
        return None if raw is None or (word is not None and raw == word) else reader(raw)

    return read


def _float(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


_MAYBE_TEXT = optional(text)
_MAYBE_WHOLE = optional(whole, "none")
_MAYBE_SECONDS = optional(seconds, "none")
READERS: dict[str, Reader] = {
    "data": text,
    "label_column": names,
    "path_column": text,
    "group_column": _MAYBE_TEXT,
    "split_column": _MAYBE_TEXT,
    "subgroup_column": names,
    "source_column": _MAYBE_TEXT,
    "task": text,
    "allow_leakage": flag,
    "skip_unreadable": flag,
    "image_size": optional(whole),
    "fit": text,
    "space": text,
    "rows": comma_names,
    "backbones": optional(comma_names),
    "set": hyperparameters,
    "weights": _MAYBE_TEXT,
    "trials": optional(whole),
    "epochs": optional(whole),
    "patience": _MAYBE_WHOLE,
    "time_budget": _MAYBE_SECONDS,
    "trial_time_limit": _MAYBE_SECONDS,
    "finalists": optional(whole),
    "repeats": optional(whole),
    "folds": optional(whole, "none"),
    "compare": comma_names,
    "positive_class": _MAYBE_TEXT,
    "metric": text,
    "sampler": text,
    "scheduler": _MAYBE_TEXT,
    "grace_period": optional(whole),
    "reduction_factor": number,
    "seed": whole,
    "deterministic": flag,
    "precision": text,
    "cpus_per_trial": optional(whole),
    "gpus_per_trial": optional(number),
    "concurrency": optional(whole),
    "address": text,
    "storage": text,
    "name": _MAYBE_TEXT,
    "resume": _MAYBE_TEXT,
    "dry_run": flag,
}
