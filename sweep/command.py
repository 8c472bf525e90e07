"""What the small commands share: how arguments are read, and how bad input is told."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from search_spaces.errors import UserError, unknown

BAD_INPUT = 2
INTERRUPTED = 130
DEVICES = ("auto", "cpu", "cuda")
_WIDEST_HELP = 110


class Arguments(argparse.ArgumentParser):
    """An argument parser that raises ``UserError``, so that a mistyped option is told as everything else is."""

    def __init__(self, command: str, description: str, epilog: str) -> None:
        super().__init__(
            prog=f"python -m {command}",
            description=description,
            epilog=epilog,
            formatter_class=_Help,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help shows all options")


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        width = min(_WIDEST_HELP, shutil.get_terminal_size().columns) - 2
        super().__init__(prog, max_help_position=29, width=width)


def add_computing(made: Arguments) -> None:
    """The options of a command that computes with a model."""
    made.add_argument("--device", default="auto", metavar="NAME", help="auto (a GPU if there is one), cpu or cuda")
    made.add_argument("--batch-size", metavar="N", help="images computed at once; default: 32, on a GPU 256")


def computing(asked: argparse.Namespace) -> tuple[int | None, list[str]]:
    """The value of --batch-size, None without one, and what is wrong with the options of ``add_computing``."""
    problems, size = [], asked.batch_size
    if size is not None and (not size.isdecimal() or int(size) < 1):
        problems.append(f"--batch-size must be a whole number, 1 or more, received {size!r}")
    if asked.device not in DEVICES:
        problems.append(f"--device: {unknown('device', asked.device, DEVICES)}")
    return (None if size is None or problems else int(size)), problems


def run_command(run: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """``run`` with the arguments; its exit code, or 2 with one line a problem, or 130 after Ctrl-C.

    Also 130 where what reads our output (``| head``) has gone.
    """
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        tell(error.problems)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
        return INTERRUPTED


def tell(problems: Sequence[str]) -> None:
    """Each problem as one line on stderr."""
    for problem in problems:
        print(f"error: {problem}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def plain(text: str) -> str:
    """``text`` without what UTF-8 or one line of a terminal cannot hold (a file may be named anything)."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in clean)
