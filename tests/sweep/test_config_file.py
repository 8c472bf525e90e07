"""The YAML file of --config, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.errors import UserError
from sweep.config_file import read_config_file

ALLOWED = ("epochs", "time_budget", "set", "deterministic", "patience")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sweep.yaml"


def test_options_are_written_with_dashes_or_underscores(file: Path) -> None:
    file.write_text("epochs: 20\ntime-budget: 2h\nset: {lr: 1e-3}\npatience: null\n")
    assert read_config_file(file, ALLOWED) == ({"epochs": 20, "time_budget": "2h", "set": {"lr": "1e-3"}}, [])


@pytest.mark.parametrize("content", ["", "# nothing yet\n"])
def test_an_empty_file_sets_nothing(file: Path, content: str) -> None:
    file.write_text(content)
    assert read_config_file(file, ALLOWED) == ({}, [])


def test_unknown_and_repeated_keys_are_told_together_with_their_place(file: Path) -> None:
    file.write_text(
        "epoch: 3\nepochs: 4\ntime_budget: 1h\ntime-budget: 2h\nset:\n  lr: 1\n  lr: 2\nconfig: other.yaml\n"
    )
    _, problems = read_config_file(file, ALLOWED)
    assert [problem.removeprefix(f"--config {file}: ") for problem in problems] == [
        "time_budget is given twice, in line 3 and line 4",
        "lr is given twice, in line 6 and line 7",
        "unknown option epoch: did you mean `epochs`? --help lists all",
        "unknown option config: --help lists all",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- epochs\n- 20\n", "must hold lines of `option: value`"),
        (b"epochs\n", "must hold lines of `option: value`"),
        (b"epochs: [1, 2\n", "is not YAML: .*line 2"),
        (b"epochs: !!python/object:os.system {}\n", "is not YAML: .*line 1"),
        (b"epochs: 2024-13-45\n", "is not YAML"),
        (b"name: caf\xe9\n", "is not UTF-8 text: byte 9 is 0xe9"),
        (b"{epochs: 1}: 2\n", "is not YAML"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_config_file(file, ALLOWED)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config .*missing\.yaml cannot be read: No such file"):
        read_config_file(tmp_path / "missing.yaml", ALLOWED)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_config_file(tmp_path, ALLOWED)
