"""The types of the options of a sweep: how each reads a value from a command line or a YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from search_spaces.errors import gathered, raise_all
from search_spaces.params import Override, override_from_json, parse_text
from search_spaces.paths import expanded
from trainables.data.config import comma_names, finite, names, text, whole

CLUSTER = "cluster"
"""Value of --concurrency: as many trials as the cluster has room for, as nodes join and leave."""
SECONDS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_DURATION_PART = r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)"


def number(raw: object) -> float:
    """A finite float."""
    value = finite(raw)
    if value is None:
        raise ValueError(f"must be a number, received {raw!r}")
    return value


def seconds(raw: object) -> float:
    """A length of time in seconds: ``3600``, ``"90m"``, ``"1h30m"``, ``"1.5h"``, ``"2d"``; a plain number is seconds.

    Of any sign: the option checks its range.
    """
    value = finite(raw)
    if value is not None:
        return value
    if isinstance(raw, str) and re.fullmatch(rf"(?:{_DURATION_PART}\s*)+", raw.strip().lower()):
        parts = re.findall(_DURATION_PART, raw.lower())
        return float(sum(float(amount) * SECONDS[unit] for amount, unit in parts))
    raise ValueError(f"must be a time such as 90s, 45m, 2h, 1h30m or 1d (a plain number is seconds), received {raw!r}")


def concurrency(raw: object) -> int | str:
    """A whole number, or "cluster"."""
    return CLUSTER if raw == CLUSTER else whole(raw)


def size_bytes(raw: object) -> int:
    """A size in bytes: ``"50GB"``, ``"500 MB"`` (powers of 1000); a plain number is bytes."""
    value = finite(raw)
    if value is None and isinstance(raw, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])b?", raw.strip().lower())
        value = None if match is None else float(match[1]) * 1000 ** ("kmgt".index(match[2]) + 1)
    if value is None or value < 0:
        raise ValueError(f"must be a size such as 500MB, 20GB or 0, received {raw!r}")
    return int(value)


def node_folder(raw: object) -> str:
    """A folder on every node: absolute, as workers have another working directory, or below each node's own ``~``."""
    given = text(raw)
    path = expanded(given)
    return given if given.startswith("~") else os.path.abspath(path)


def hyperparameters(raw: object) -> dict[str, Override]:
    """The overrides in a mapping, or in a list such as ``["lr=1e-3", "batch_size=16,32"]``: values, ranges, choices.

    Values get the type of their field of ``TrialParams``. ``UserError`` with whole sentences if wrong.
    """
    pairs: list[tuple[str, Any]] = []
    problems: list[str] = []
    if isinstance(raw, Mapping):
        pairs = [(str(key), value) for key, value in raw.items()]
    else:
        for one in names(raw):
            key, equals, value = (part.strip() for part in one.partition("="))
            if key and equals and value:
                pairs.append((key, value))
            else:
                problems.append(f"--set {one}: write name=value, such as lr=1e-3")
    values: dict[str, Override] = {}
    for key, value in pairs:
        if key in values:
            problems.append(f"--set {key} is given twice: {values[key]} and {value}")
            continue
        with gathered(problems, f"--set {key}={value}: "):
            values[key] = (override_from_json if isinstance(value, Mapping) else parse_text)(key, value)
    raise_all(problems)
    return values


def class_share(raw: object) -> dict[str, float]:
    """One class and its share, between 0 and 1, both excluded: ``covid=0.95``, or such a mapping."""
    if isinstance(raw, Mapping) and len(raw) == 1:
        ((name, given),) = raw.items()
    else:
        name, _, given = text(raw).rpartition("=")
    share = finite(given)
    if not str(name).strip() or share is None:
        raise ValueError(f"{raw}: write CLASS=VALUE, such as covid=0.95, of one class")
    if not 0 < share < 1:
        raise ValueError(f"{name}={given}: must be between 0 and 1, neither included")
    return {str(name).strip(): share}


def names_or_none(raw: object) -> tuple[str, ...]:
    """Names separated by commas; "none" alone means no name, which replaces those of a resumed run."""
    found = comma_names(raw)
    return () if found == ("none",) else found


def which_failed(raw: object) -> bool | str:
    """True, False, or "all"."""
    if not isinstance(raw, bool) and raw != "all":
        raise ValueError(f"must be given without a value or as all, received {raw!r}")
    return raw


def weight_sources(raw: object) -> str:
    """All values of ``--weights`` as one text for ``trainables.weights.WeightSources``; those that are no NAME=FILE
    come first, since a file's name may hold a comma.
    """
    return ",".join(sorted(names(raw), key=lambda one: re.match(r"\w+=", one.strip()) is not None))


def _or_none(reader: Any) -> PlainValidator:
    """``reader``, except that None and the text "none" give None."""
    return PlainValidator(lambda raw: None if raw is None or raw == "none" else reader(raw))


Number = Annotated[float, PlainValidator(number)]
Concurrency = Annotated[int | str, PlainValidator(concurrency)]
CommaNamesOrNone = Annotated[tuple[str, ...], PlainValidator(names_or_none)]
WholeOrNone = Annotated[int | None, _or_none(whole)]
SecondsOrNone = Annotated[float | None, _or_none(seconds)]
NodeFolderOrNone = Annotated[str | None, _or_none(node_folder)]
ClassShareOrNone = Annotated[dict[str, float] | None, _or_none(class_share)]
BytesOrNone = Annotated[int | None, _or_none(size_bytes)]
Weights = Annotated[str, PlainValidator(weight_sources)]
WhichFailed = Annotated[bool | str, PlainValidator(which_failed)]
Hyperparameters = Annotated[dict[str, Override], PlainValidator(hyperparameters)]
