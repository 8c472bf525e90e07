"""The questions of docs/questions: each changes one factor, and its command repeats every value of it."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest

from search_spaces.params import SpaceContext
from search_spaces.space import load_space, random_study
from sweep.cli import read

QUESTIONS = Path(__file__).parents[2] / "docs" / "questions"


@pytest.mark.parametrize(
    ("name", "factor", "task"),
    [
        ("depth", "unfreeze_depth", "single_label"),
        ("focal", "loss", "multi_label"),
        ("batch_size", "batch_size", "single_label"),
    ],
)
def test_a_question_changes_one_factor_and_repeats_each_of_its_values_as_often(
    name: str, factor: str, task: str
) -> None:
    path = QUESTIONS / f"{name}.py"
    context = SpaceContext(task=task, class_count=3, train_count=785, backbones=("squeezenet1_1", "resnet18"))
    space = load_space(str(path), context)
    assert list(space.distributions) == [factor]
    with random_study() as study:
        values = {getattr(space.suggest(study.ask()), factor) for _ in range(200)}

    words = shlex.split(command_of(path).replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "sweep.run"]
    config, problems = read(words[3:])
    assert problems == []
    assert config.space == f"docs/questions/{name}.py"
    assert config.sampler == "grid"
    assert config.scheduler == "none"
    assert config.trials == config.finalists == len(values)
    assert config.repeats is not None
    assert config.repeats >= 4


def command_of(path: Path) -> str:
    """The indented lines of the docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text is not None
    return "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))
