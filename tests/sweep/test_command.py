"""What the small commands share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from search_spaces.errors import UserError
from sweep.command import Arguments, plain, run_command


def test_every_problem_is_one_line_and_the_code_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(argv: Sequence[str]) -> int:
        raise UserError("the first", "a file named \udcff")

    assert run_command(fails, []) == 2
    assert capsys.readouterr().err.splitlines() == ["error: the first", "error: a file named \\udcff"]


def test_ctrl_c_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: Sequence[str]) -> int:
        raise KeyboardInterrupt

    assert run_command(interrupted, []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_mistyped_option_is_a_problem_like_any_other() -> None:
    parser = Arguments("sweep.predict", "", "")
    with pytest.raises(UserError, match="unrecognized arguments: --oops"):
        parser.parse_args(["--oops"])


@pytest.mark.parametrize(
    ("name", "shown"), [("Thorax.png", "Thorax.png"), ("ü\n\x1b[31m", "ü\\n\\x1b[31m"), ("\udcfc", "\\udcfc")]
)
def test_a_name_can_neither_break_a_line_nor_colour_a_terminal(name: str, shown: str) -> None:
    assert plain(name) == shown
