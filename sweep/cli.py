"""Command lines: the options of ``python -m sweep.run`` with its YAML file, and what the other commands share."""

from __future__ import annotations

import argparse
import contextlib
import functools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from search_spaces.errors import UserError, gathered, unknown
from search_spaces.params import FIELDS
from search_spaces.paths import path_of
from sweep.config import GROUPS, SweepConfig
from sweep.endings import DISK_FULL, SweepStopped
from trainables.data.config import Option, as_typed, dashed, unknown_option
from trainables.data.yaml_file import read_settings, underscored

DEVICES = ("auto", "cpu", "cuda")
MISSING = "\0missing"
"""Marks an option given without a value. No argument can equal it, since the system ends arguments at a NUL."""
WIDEST_HELP = 110

OPTIONS = SweepConfig.options() | {
    "json": Option(group="place", metavar=None, help="with --dry-run: print the configuration and data set as JSON"),
    "config": Option(
        group="place",
        metavar="FILE",
        help="a YAML file of these options (such as `epochs: 20`); the command line takes precedence",
    ),
}
EXAMPLES = """\
examples:
  python -m sweep.run                                      demo set: a first report in minutes
  python -m sweep.run --data xrays/ --time-budget 8h       a folder of images, overnight
  python -m sweep.run --data xrays.csv --label-column finding --group-column patient
  python -m sweep.run --data xrays/ --backbones resnet18,vgg16 --set optimizer=adamw --dry-run
  python -m sweep.run --resume NAME --trials 200           continue a run with more trials
  python -m sweep.run --resume NAME --retry-failed         rerun its failed trials

exit codes:
  0 done, or out of time   1 all trials failed, or five in a row on one machine or GPU   2 bad input
  3 cluster lost   4 disk full or permission denied   130 interrupted
  after 3, 4 and 130 nothing is lost: fix the reported cause and continue with --resume"""


def read(argv: Sequence[str]) -> tuple[SweepConfig, list[str]]:
    """Read a command line and its ``--config`` file; the command line takes precedence.

    Returns the configuration and one sentence for each problem; a field that cannot be read has its default. Raises
    ``UserError`` if the arguments cannot be parsed at all. ``--help`` prints the help and exits with code 0.
    """
    namespace, problems = parser().read(argv)
    on_line, unread, wrongly_given = options_given(namespace, OPTIONS)
    problems += wrongly_given
    path = on_line.pop("config", None)
    on_line.pop("json", None)  # ``sweep.run`` looks for it in the arguments before anything can fail
    in_file: dict[str, Any] = {}
    if path is not None:
        with gathered(problems):
            in_file, wrong_keys = read_config_file(path_of("--config", path), SweepConfig.model_fields)
            problems += wrong_keys
    config, wrong = SweepConfig.read({name: in_file[name] for name in in_file if name not in on_line} | on_line)
    if "set" in on_line and "set" in in_file:  # The command line takes precedence by hyperparameter.
        of_file, wrong_there = SweepConfig.read({"set": in_file["set"]})
        problems += [f"--config {path}: {sentence}" for sentences in wrong_there.values() for sentence in sentences]
        config = config.model_copy(update={"set": of_file.set | config.set})
    for name, sentences in wrong.items():
        problems += [sentence if name in on_line else f"--config {path}: {sentence}" for sentence in sentences]
    if config.resume is not None and config.name not in (None, config.resume, Path(config.resume).name):
        problems.append(f"--name {config.name} cannot go with --resume {config.resume}: a resumed run keeps its name")
    return config.without(unread), problems


def arguments_of(options: Mapping[str, Any]) -> list[str]:
    """The command line of ``options``: by name with underscores; None = not given."""
    found = []
    for name, value in options.items():
        if value is False and name in OPTIONS and OPTIONS[name].alone:
            continue  # it has no --no-... form
        if isinstance(value, bool):
            found.append(dashed(name) if value else f"--no-{dashed(name)[2:]}")
        elif isinstance(value, Mapping):
            found += [f"{dashed(name)}={key}={as_typed(one)}" for key, one in value.items()]
        elif value is not None:
            repeated = isinstance(value, list | tuple) and name in OPTIONS and OPTIONS[name].many
            found += [f"{dashed(name)}={one}" for one in (value if repeated else [as_typed(value)])]
    return found


def parser(*, rare: bool = False) -> Arguments:
    """The options in their groups. Values stay text here, so that all their problems are reported together.

    rare: the help also shows rarely needed options.
    """
    made = Arguments(
        "sweep.run",
        "Find the pretrained network and hyperparameters that work best on your labelled images.",
        EXAMPLES,
        usage="python -m sweep.run [options]",
        add_help=False,
    )
    for title in GROUPS:
        group = made.add_argument_group(title)
        add_options(group, {name: one for name, one in OPTIONS.items() if one.group == title}, rare=rare)
    group.add_argument("-h", "--help", action="help", help="show this help")
    add_help_all(group, parser)
    return made


def add_options(group: argparse._ActionsContainer, options: Mapping[str, Option], *, rare: bool) -> None:
    """Add all ``options`` except those for files only; rare: the help also shows rarely needed ones."""
    for name, one in options.items():
        shown = argparse.SUPPRESS if one.rare and not rare else one.help
        if one.in_files_only:
            continue
        add = functools.partial(group.add_argument, dest=name, default=argparse.SUPPRESS)
        if one.metavar is None:
            # Only the plain switch is shown; --no-... is for turning off what a file turns on.
            add(dashed(name), action="store_true", help=shown)
            add(f"--no-{dashed(name)[2:]}", action="store_false", help=argparse.SUPPRESS)
        else:
            add(dashed(name), action="append", nargs="?", const=MISSING, metavar=one.metavar, help=shown)


def add_help_all(group: argparse._ActionsContainer, make: Callable[..., Arguments]) -> None:
    """``--help-all``: the help of the parser that ``make(rare=True)`` gives."""
    group.add_argument(
        "--help-all", action=_HelpAll, nargs=0, const=make, default=argparse.SUPPRESS, help="show every option"
    )


class _HelpAll(argparse.Action):
    def __call__(self, *_: object) -> None:
        self.const(rare=True).print_help()
        sys.exit(0)


def options_given(
    namespace: argparse.Namespace, options: Mapping[str, Option]
) -> tuple[dict[str, Any], set[str], list[str]]:
    """The text of each of ``options`` that was given, the names of those given without a value or twice, and a sentence
    for each of these. ``--preset list`` prints the presets and exits with code 0, as ``--help`` does."""
    given_here = {name: given for name, given in vars(namespace).items() if name in options}
    problems: list[str] = []
    raw: dict[str, Any] = {}
    for name, given in given_here.items():
        one = options[name]
        if one.alone:
            given = [True if value == MISSING else value for value in given]
        if one.metavar is None:
            raw[name] = given
        elif MISSING in given:
            problems.append(f"{dashed(name)} needs a value: {dashed(name)} {one.metavar}")
        elif len(given) > 1 and not one.many:
            problems.append(f"{dashed(name)} is given {len(given)} times: {', '.join(map(str, given))}")
        else:
            raw[name] = given if one.many else given[0]
    if raw.get("preset") == "list":
        from trainables.data.presets import describe_presets

        print(describe_presets())
        sys.exit(0)
    return raw, given_here.keys() - raw.keys(), problems


def _stranger_problems(strangers: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    spellings = dict(zip(known, known, strict=True))
    page = "--help-all" if "--help-all" in known else "--help"
    after_unknown = False
    for one in strangers:
        if one.startswith("-"):
            yield _no_option(one.partition("=")[0], spellings, page)
            after_unknown = "=" not in one
        elif after_unknown:  # the value of the unknown option
            after_unknown = False
        else:
            yield f"unexpected argument {one!r}: options begin with --, names are separated by commas"


def _no_option(given: str, spellings: Mapping[str, str], page: str = "--help-all") -> str:
    """Say that ``given`` is no option; a hyperparameter goes to ``--set``. spellings, page: see ``unknown_option``."""
    name = underscored(given.removeprefix("--"))
    if name in FIELDS and f"{given}s" not in spellings and not {"set", "--set"}.isdisjoint(spellings):
        return f"unknown option {given}: use --set {name}=VALUE for a hyperparameter (in a file: under set)"
    return unknown_option(given, "option", spellings, page)


def read_config_file(path: Path, allowed: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings of a YAML file, and one sentence for each key that is unknown or occurs twice.

    allowed: option names, with underscores. Raises ``UserError`` if the file cannot be read at all.
    """
    spellings = {name: f"`{name}`" for name in allowed}
    return read_settings(path, f"--config {path}", "epochs: 20", allowed, lambda key: _no_option(key, spellings))


class Arguments(argparse.ArgumentParser):
    """The parser of ``python -m <command>``. It raises ``UserError``: a mistyped option is reported like all else."""

    def __init__(self, command: str, description: str, epilog: str, **more: Any) -> None:
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            epilog=epilog,
            formatter_class=_Help,
            allow_abbrev=False,
            **more,
        )

    def read(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The parsed arguments, and a sentence for each unknown one and each ``path`` that cannot be accessed.

        An argument of type ``path`` becomes a ``Path`` in the namespace.
        """
        asked, strangers = self.parse_known_args(list(argv))
        switched_off = argparse._StoreFalseAction
        known = [
            one for action in self._actions if not isinstance(action, switched_off) for one in action.option_strings
        ]
        problems = list(_stranger_problems(strangers, [one for one in known if one.startswith("--")]))
        for action in self._actions:
            given = getattr(asked, action.dest, None)
            if action.type is path and given is not None:
                named = action.option_strings[0] if action.option_strings else str(action.metavar)
                paths = []
                for one in given if isinstance(given, list) else [given]:
                    paths.append(Path(one))
                    with gathered(problems):
                        paths[-1] = path_of(named, one)
                setattr(asked, action.dest, paths if isinstance(given, list) else paths[0])
        return asked, problems

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the options")


def path(given: str) -> str:
    """The type of an argument that ``Arguments.read`` turns into a ``Path``."""
    return given


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **more: Any) -> None:
        width = min(WIDEST_HELP, shutil.get_terminal_size().columns) - 2
        super().__init__(prog, max_help_position=29, width=width, **more)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        # A value is required: the sweep's parser accepts its absence only to report it later.
        return str(action.metavar) if action.const == MISSING else super()._format_args(action, default_metavar)


def add_computing(made: Arguments) -> None:
    """Add the options of a command that runs a model."""
    made.add_argument("--device", default="auto", metavar="NAME", help="auto (a GPU if there is one), cpu or cuda")
    made.add_argument("--batch-size", metavar="N", help="images per batch; default: 32, on a GPU 256")


def computing(asked: argparse.Namespace) -> tuple[int | None, list[str]]:
    """The value of --batch-size, None if not given, and the problems of the options of ``add_computing``."""
    problems, size = [], asked.batch_size
    if size is not None and (not size.isdecimal() or int(size) < 1):
        problems.append(f"--batch-size must be a whole number, 1 or more, received {size!r}")
    if asked.device not in DEVICES:
        problems.append(f"--device: {unknown('device', asked.device, DEVICES)}")
    return (None if size is None or problems else int(size)), problems


def build_page(module: str, folder: Path) -> tuple[list[str], str | None]:
    """Build the page of ``folder`` in a process of its own, as a user would; its output lines, and the error or None.

    Raises ``SweepStopped`` if the disk is full or fails (exit code ``DISK_FULL``).
    """
    command = [sys.executable, "-m", module, str(folder.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1], check=False)
    if done.returncode == 0:
        return done.stdout.splitlines(), None
    if done.returncode == DISK_FULL:
        raise SweepStopped(done.stderr.strip().removeprefix("error: "), DISK_FULL)
    return [], done.stderr.strip() or f"it ended with code {done.returncode}"


class ImageCount:
    """Shows on stderr how many images are read: one updating line on a terminal, elsewhere a line per minute."""

    def __init__(self) -> None:
        self._what, self._before, self._shown = "", 0, False
        self._told = self._began = time.monotonic()

    def __call__(self, what: str, done: int, count: int) -> None:
        """what: has been done with ``done`` of ``count``; its first call tells how many an interrupted run has left."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if what != self._what:
            self._what, self._before, self._shown = what, done - 1, False
            self._told = self._began = now
        ended = done == count
        if now - self._told < (0.5 if terminal else 60) and not (ended and terminal and self._shown):
            return
        self._told, self._shown = now, True
        speed = (done - self._before) / max(now - self._began, 1e-3)
        left = timedelta(seconds=round((count - done) / speed))
        text = f"{done:,} of {count:,} {what}" + ("" if ended else f", {speed:,.0f} per second, {left} left")
        before, after = ("\r", "\n" if ended else "") if terminal else ("", "\n")
        with contextlib.suppress(OSError):  # A closed terminal does not end a sweep.
            print(f"{before}{text:<70}", end=after, file=sys.stderr, flush=True)


def plain(text: str) -> str:
    """``text`` with characters escaped that UTF-8 or a terminal line cannot hold (a file may be named anything)."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
