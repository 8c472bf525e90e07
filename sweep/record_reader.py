"""The lenient reader of a run's JSON files: an invalid value is left out and reported, the rest is kept.

None is always valid: unknown. Keys that a record does not have may hold anything.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, Strict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from search_spaces.errors import reason_of
from search_spaces.params import Scalar
from search_spaces.paths import unreachable
from trainables.atomic import check_format

LARGEST = 3.5e38
"""Networks compute in float32, whose range ends there; computations with such numbers do not overflow."""
MOST = 2**53
"""The largest count: up to here a float holds every whole number."""


class Record(BaseModel):
    """The content of a JSON object in a run folder. Every field has a default, so a record exists whatever is lost."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_none(cls, raw: Any) -> Any:
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether ``value`` is a number from -``LARGEST`` to ``LARGEST``."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number from 0 to ``MOST``."""
    return is_number(value) and value == int(value) and 0 <= value <= MOST


def _misfit(wanted: str) -> PydanticCustomError:
    return PydanticCustomError("misfit", wanted)


def _whole(value: Any) -> int:
    if is_whole(value):
        return int(value)
    raise _misfit("a whole number")


def _number(value: Any) -> float:
    if is_number(value):
        return float(value)
    raise _misfit("a number")


def _score(value: Any) -> float:
    return math.nan if value is None or (isinstance(value, float) and not math.isfinite(value)) else _number(value)


def _scalar(value: Any) -> Scalar:
    if value is None or isinstance(value, str | bool) or is_number(value):
        found: Scalar = value
        return found
    raise _misfit("text or a number")


Flag = Annotated[bool, Strict()]
Whole = Annotated[int, BeforeValidator(_whole)]
"""0 or more."""
Number = Annotated[float, BeforeValidator(_number)]
"""Finite."""
Score = Annotated[float, BeforeValidator(_score)]
"""A number, or NaN for undefined. JSON NaN, null and infinite numbers are read as NaN."""
Task = Literal["single_label", "multi_label"]
Setting = Annotated[Scalar, PlainValidator(_scalar)]

_WANTED = {"string_type": "text", "string_unicode": "text", "bool_type": "true or false", "tuple_type": "a list"}
_WANTED |= dict.fromkeys(("dict_type", "model_type"), "an object")

_HALF_PAIR = re.compile(r"(?i)(\\ud[89ab]..\\ud[c-f]..)|\\ud[89a-f]..")
R = TypeVar("R", bound=BaseModel)


def read_record(kind: type[R], raw: dict[str, Any], name: str, problems: list[str]) -> R:
    """``raw`` as a ``kind`` without invalid values, each reported in ``problems`` as of the file ``name``.

    In a mapping or a list of records, only the invalid entry is left out; a list of plain values is left out as a
    whole. ``raw`` is changed.
    """
    while True:
        try:
            return kind.model_validate(raw)
        except ValidationError as error:
            misfits = error.errors(include_url=False, include_context=False)
        for one in misfits:
            if one["input"] is not None:
                wanted = _WANTED.get(one["type"], one["msg"].removeprefix("Input should be "))
                problems.append(f"{name}{_place(one['loc'])} is not {wanted}: left out")
        # Last first, since positions in a list change; an earlier one may already be gone with its list.
        removed = [_remove(raw, one["loc"], entry=one["type"] == "model_type") for one in reversed(misfits)]
        if not any(removed):
            raw.clear()  # What pydantic names is not found: drop all rather than loop forever.


def _place(steps: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f": {step}" for step in steps)


def _remove(raw: Any, steps: Sequence[str | int], entry: bool) -> bool:
    """Remove the value at ``steps``; if in a list, that ``entry`` or the whole list. False if it is not found."""
    *above, last = steps
    holder, before = raw, None
    try:
        for step in above:
            before, holder = (holder, step), holder[step]
        if isinstance(holder, list) and not entry:
            assert before is not None
            del before[0][before[1]]
        else:
            del holder[last]
    except (LookupError, TypeError):
        return False
    return True


def read_file(kind: type[R], path: Path, problems: list[str], name: str | None = None) -> R:
    """The record in a JSON file; what cannot be read is reported in ``problems``, under ``name``."""
    name = name or path.name
    return read_record(kind, read_json(path, problems, name), name, problems)


def read_json(path: Path, problems: list[str], name: str, *, check: bool = False) -> dict[str, Any]:
    """The JSON object in ``path``; {} with the reason in ``problems`` if there is none.

    check: raise ``UserError`` if it has another format than ``FORMAT``.
    """
    try:
        value = _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{name} cannot be read: {reason_of(error)}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{name} is not a JSON object")
        return {}
    if check:
        check_format(value, path)
    return value


def read_lines(path: Path, problems: list[str], name: str) -> list[Any]:
    """The JSON value of each line, None for a damaged one; [] without a file or, with the reason, if unreadable."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{name} cannot be read: {reason_of(error)}")
        return []
    return [_json_or_none(line) for line in lines]


def _json_or_none(line: str) -> Any:
    try:
        return _parsed(line)
    except (ValueError, RecursionError):
        return None


def _parsed(text: str) -> Any:
    """The JSON value. Lone surrogates, which no table and no page can hold, become question marks."""
    return json.loads(_HALF_PAIR.sub(lambda found: found[1] or "?", text))


def is_there(path: Path) -> bool:
    """Whether ``path`` exists; one that is ``unreachable`` counts as existing, so that it is reported."""
    return unreachable(path) is not None or path.exists()
