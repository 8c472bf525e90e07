"""Mistakes of the user, gathered: all problems of one input are reported together."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

LONGEST_COMPARED = 1_000
"""Characters of a problem that decide its kind: the pattern's time grows with their square."""


class UserError(ValueError):
    """One or more problems that the user can fix; the command line prints them and exits with code 2.

    ``problems`` holds one sentence each: the thing, the value received, and the way out.
    """

    def __init__(self, *problems: str) -> None:
        assert problems, "a UserError without a problem"
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems

    def __reduce__(self) -> tuple[type[UserError], tuple[str, ...]]:
        return type(self), self.problems


class ParameterError(UserError):
    """The hyperparameters of a trial do not suit its data set or its network; other trials may run."""


def raise_all(problems: Sequence[str]) -> None:
    """Raise one ``UserError`` with all ``problems``; do nothing if there are none."""
    if problems:
        raise UserError(*problems)


@contextlib.contextmanager
def gathered(problems: list[str], named: str = "") -> Iterator[None]:
    """Catch a ``UserError`` raised within and add its problems to ``problems``, each prefixed by ``named``."""
    try:
        yield
    except UserError as error:
        problems += [f"{named}{problem}" for problem in error.problems]


def shown_problems(problems: Sequence[str], most: int = 10) -> list[str]:
    """Up to ``most`` of ``problems`` in their order and "… and 310 more", for a reader who fixes one after the other.

    Those that differ only in names and numbers are of one kind; every kind is shown once before one is shown twice.
    """
    firsts = {_kind(problem): place for place, problem in reversed([*enumerate(problems)])}
    by_need = sorted(firsts.values()) + sorted({*range(len(problems))} - {*firsts.values()})
    more = len(problems) - most
    return [*(problems[place] for place in sorted(by_need[:most])), *([f"… and {more} more"] if more > 0 else [])]


def some(names: Iterable[object], most: int = 10) -> str:
    """The first ``most`` of ``names``, separated by commas, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(map(str, listed[:most])) + more


def reason_of(error: BaseException) -> str:
    """What went wrong: the system's message without a path; else the error's text, or its type if it has none."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error) or type(error).__name__


def _kind(problem: str) -> str:
    return re.sub(r"'[^']*'|\S*[\d/]\S*", "", problem[:LONGEST_COMPARED])


def unknown(kind: str, value: object, allowed: Iterable[str]) -> str:
    """Say that ``value`` is no ``kind``, with the nearest allowed name, if any, and all of them."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {str(value)!r}: {hint}allowed: {', '.join(names)}"


def by_reason(left_out: Mapping[str, str]) -> list[str]:
    """One text per reason, with the names that were left out for it: "W1, W2: not among --rows"."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(str(why), []).append(str(name))
    return [f"{', '.join(alike)}: {why}" for why, alike in names.items()]
