"""The command line of ``python -m sweep.run``: read, together with a YAML file, into a ``SweepConfig``."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from search_spaces.errors import UserError, raise_all
from sweep.config import SweepConfig, check
from sweep.config_file import read_config_file
from sweep.option_groups import EXAMPLES, GROUPS, Option
from sweep.values import option, read_values, unknown_option

MISSING = "\0missing"
"""Stands for the value of an option that was given none. No argument can be it: the system ends them at a NUL."""
WIDEST_HELP = 110

OPTIONS = {one.name: one for group in GROUPS.values() for one in group}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parsed:
    """A command line as it was understood.

    config: what was given, defaults elsewhere. given: the fields that the user set, on the command line or in the
    file. problems: one sentence for each thing that was not understood; there ``config`` has the default.
    """

    config: SweepConfig
    given: frozenset[str]
    problems: tuple[str, ...] = ()


def parse(argv: Sequence[str]) -> Parsed:
    """Read a command line and its ``--config`` file; the command line wins.

    Raises ``UserError`` with everything that was not understood, together with what else is wrong with the rest.
    ``--help`` prints the help and exits with code 0.
    """
    parsed = read(argv)
    if parsed.problems:
        raise_all([*parsed.problems, *check(parsed.config)])
    return parsed


def read(argv: Sequence[str]) -> Parsed:
    """As ``parse``, with the problems in the result: for a caller that has more to say."""
    on_line, problems = _read_arguments(argv)
    path = on_line.pop("config", None)
    in_file: dict[str, Any] = {}
    if path is not None:
        try:
            in_file, wrong_keys = read_config_file(Path(path), OPTIONS.keys() - {"config"})
            problems += wrong_keys
        except UserError as error:
            problems += error.problems
    of_file, wrong = read_values({name: value for name, value in in_file.items() if name not in on_line})
    problems += [f"--config {path}: {problem}" for problem in wrong]
    of_line, wrong = read_values(on_line)
    problems += wrong
    values = of_file | of_line
    if values.get("resume") is not None and values.get("name") not in (None, values["resume"]):
        problems.append(
            f"--name {values['name']} cannot go with --resume {values['resume']}: a resumed run keeps its name"
        )
    return Parsed(config=SweepConfig(**values), given=frozenset(values), problems=tuple(problems))


def parser() -> argparse.ArgumentParser:
    """The options in their groups. Values stay text here: what is wrong with them is gathered, not met one by one."""
    made = _Parser(
        prog="python -m sweep.run",
        usage="python -m sweep.run [options]",
        description="Find out which pretrained network, trained how, is best on your labelled images.",
        epilog=EXAMPLES,
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    for title, options in GROUPS.items():
        group = made.add_argument_group(title)
        for one in options:
            _add(group, one)
    group.add_argument("-h", "--help", action="help", help="show this page")
    return made


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(WIDEST_HELP, shutil.get_terminal_size().columns) - 2
        super().__init__(prog, max_help_position=29, width=width)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return str(action.metavar)  # A value is needed, although the parser lets it be missing for a while.


def _add(group: argparse._ArgumentGroup, one: Option) -> None:
    if one.metavar is None:
        # Only the plain switch is shown; --no-... is for turning off what a file turns on.
        group.add_argument(option(one.name), dest=one.name, action="store_true", help=one.help)
        group.add_argument(f"--no-{option(one.name)[2:]}", dest=one.name, action="store_false", help=argparse.SUPPRESS)
    else:
        group.add_argument(
            option(one.name),
            dest=one.name,
            metavar=one.metavar,
            action="append",
            nargs="?",
            const=MISSING,
            help=one.help,
        )


def _read_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The text of each option that was given, and one sentence for each argument that is none of ours."""
    namespace, strangers = parser().parse_known_args(list(argv))
    problems = _stranger_problems(strangers)
    raw: dict[str, Any] = {}
    for name, given in vars(namespace).items():
        if OPTIONS[name].metavar is None:
            raw[name] = given
            continue
        texts = [text for text in given if text != MISSING]
        if len(texts) < len(given):
            problems.append(f"{option(name)} needs a value: {option(name)} {OPTIONS[name].metavar}")
        elif OPTIONS[name].many:
            raw[name] = texts
        elif len(texts) > 1:
            problems.append(f"{option(name)} is given {len(texts)} times: {', '.join(texts)}")
        else:
            raw[name] = texts[0]
    return raw, problems


def _stranger_problems(strangers: Sequence[str]) -> list[str]:
    spellings = {option(name): option(name) for name in OPTIONS}
    problems = []
    after_unknown = False
    for one in strangers:
        if one.startswith("-"):
            problems.append(unknown_option(one.partition("=")[0], "option", spellings))
            after_unknown = "=" not in one
        elif after_unknown:  # the value of the unknown option
            after_unknown = False
        else:
            problems.append(f"unexpected argument {one!r}: options begin with --, several names have commas between")
    return problems
