"""A user's own space, a Python file: what it may do, and what is said about what it got wrong."""

from __future__ import annotations

import pickle
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import UserError
from search_spaces.params import SpaceContext
from search_spaces.space import Space, load_space, random_study

CONTEXT = SpaceContext(task="single_label", class_count=3, train_count=100, backbones=("resnet18", "vgg16"))

Load = Callable[..., Space]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes the text to a file and loads it as a space."""

    def written_and_loaded(text: str, **overrides: object) -> Space:
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return load_space(str(path), CONTEXT, overrides)

    return written_and_loaded


def space_text(*lines: str, returned: str = "{}") -> str:
    """A file with a space that suggests a backbone and then does ``lines``."""
    body = ['trial.suggest_categorical("backbone", context.backbones)', *lines, f"return {returned}"]
    return "def space(trial, context):\n" + "".join(f"    {line}\n" for line in body)


def test_a_file_is_a_space_like_ours(load: Load, tmp_path: Path) -> None:
    space = load('"""Mine."""\n' + space_text('trial.suggest_float("lr.mine", 1e-4, 1e-2, log=True)'))
    with random_study() as study:
        params = space.suggest(study.ask())
    assert 1e-4 <= params.lr <= 1e-2
    assert space.seed_points == []
    assert space.source is not None
    assert space.source.startswith('"""Mine."""')
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_file_may_import_and_define_what_it_likes(load: Load) -> None:
    load(
        """
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Range:
            low: float
            high: float

        RANGE = Range(1e-4, 1e-2)

        def space(trial, context):
            trial.suggest_float("lr", RANGE.low, RANGE.high)
            return {"backbone": context.backbones[0]}
        """
    )


def test_a_file_reaches_another_process_and_is_fixed_in_part(load: Load) -> None:
    space = load(space_text('trial.suggest_float("lr", 1e-4, 1e-2)'), lr="0.5")
    with random_study() as study:
        assert pickle.loads(pickle.dumps(space)).suggest(study.ask()).lr == 0.5


def test_a_space_of_steps_is_finite(load: Load) -> None:
    space = load(
        space_text('trial.suggest_float("dropout", 0.0, 0.5, step=0.1)', 'trial.suggest_int("unfreeze_depth", 0, 4)')
    )
    assert space.continuous == ()
    assert set(space.distributions) == {"backbone", "dropout", "unfreeze_depth"}


def test_a_relative_path_is_found_from_here(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(space_text())
    monkeypatch.chdir(tmp_path)
    assert load_space("mine.py", CONTEXT).name == load_space("./mine.py", CONTEXT).name == str(tmp_path / "mine.py")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such space file: .*gone\.py"):
        load_space(str(tmp_path / "gone.py"), CONTEXT)


def test_a_folder_is_no_space(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_space(f"{tmp_path}/", CONTEXT)


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.py cannot be read: 'utf-8' codec"):
        load_space(str(tmp_path / "latin.py"), CONTEXT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import no_such_module\n", r"mine\.py raises ModuleNotFoundError: No module named 'no_such_module' at line 1"),
        ("x = 1\ndef space(trial context):\n", r"mine\.py raises SyntaxError: .* at line 2"),
        ("raise SystemExit(3)\n", r"mine\.py raises SystemExit: 3 at line 1"),
        ("spaces = 3\n", r"mine\.py defines no space: write `def space\(trial, context\)`"),
        ("space = 3\n", r"mine\.py defines no space"),
        ("def space(trial):\n    return {}\n", r"mine\.py raises TypeError: .*takes 1 positional argument"),
        (space_text("{}['depth']"), r"mine\.py raises KeyError: 'depth' at line 3 \(in space\)"),
        (space_text(returned="None"), r"must return a dict of constants .* received None"),
        (space_text(returned="{'learning_rate': 1}"), r"mine\.py: unknown hyperparameter 'learning_rate'"),
        (space_text('trial.suggest_float("rate.sgd", 0, 1)'), r"mine\.py: unknown hyperparameter 'rate.sgd'"),
        (space_text('trial.suggest_float("dropout", 0.5, 1.5)'), r"mine\.py: dropout must be in \[0, 1\)"),
        (space_text('trial.suggest_float("lr", 1, 0.1)'), r"mine\.py raises ValueError: .* at line 3"),
        (space_text('trial.suggest_categorical("loss", [])'), r"mine\.py: loss is offered no choice"),
        (
            space_text('trial.suggest_categorical("head_widths", [(320,), (1024, 512)])'),
            r"choices of head_widths must be text, numbers or None, received \(320,\)",
        ),
        (
            space_text('trial.suggest_categorical("batch_size", [64, 128])'),
            "batch_size 128 is above the 100 images of the training split",
        ),
        (
            space_text(
                'depth = trial.suggest_int("unfreeze_depth", 0, 4)',
                'trial.suggest_categorical("loss", ["bce", "focal"] if depth else ["bce"])',
            ),
            r"raises ValueError: CategoricalDistribution does not support dynamic value space\. at line 4",
        ),
        (space_text("trial.report(1.0, 1)"), r"a space may ask its trial for .* only, not for 'report'"),
        ("def space(trial, context):\n    return {}\n", "names no backbone"),
        (
            space_text() + "def seed_points(context):\n    return 1 / 0\n",
            "seed_points raises ZeroDivisionError.*line 5",
        ),
        (space_text() + "def seed_points(context):\n    return {}['x']\n", "seed_points raises KeyError"),
        (
            space_text('raise ValueError("no site is given:\\n  name one,\\n\\n  or two")'),
            r"mine\.py raises ValueError: no site is given: name one, or two at line 3 \(in space\)$",
        ),
        (space_text() + "def seed_points(context):\n    return 3\n", r"seed_points\(\) must return a list of dicts"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(load: Load, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load(text)
    assert "mine.py" in str(caught.value)


BRANCHES = space_text(
    'if trial.suggest_categorical("optimizer", ["sgd", "adamw"]) == "sgd":',
    '    trial.suggest_float("momentum", 0.5, 0.9)',
    'trial.suggest_float("lr", 1e-4, 1e-2)',
)


@pytest.mark.parametrize(
    ("point", "problem"),
    [
        ({"lr": 1.0}, r"seed point 0 of .*: lr=1\.0 is outside its range \[0\.0001, 0\.01\]"),
        ({"optimizer": "adam"}, r"optimizer='adam' is outside its choices 'sgd', 'adamw'"),
        ({"learning_rate": 1e-3}, "never asked for here: learning_rate"),
        ({"optimizer": "adamw", "momentum": 0.9}, "never asked for here: momentum"),
        ({"lr": "fast"}, "lr='fast' is outside its range"),
    ],
)
def test_a_seed_point_that_optuna_would_drop_or_trip_over_is_refused(
    load: Load, point: dict[str, object], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        load(BRANCHES + f"def seed_points(context):\n    return [{point!r}]\n")


@pytest.mark.parametrize("point", [{"lr": 1e-3}, {"momentum": 0.8}, {"optimizer": "adamw"}])
def test_a_seed_point_may_leave_names_to_the_search(load: Load, point: dict[str, object]) -> None:
    assert load(BRANCHES + f"def seed_points(context):\n    return [{point!r}]\n").seed_points == [point]


def test_one_range_that_is_wrong_is_one_problem_however_many_values_were_drawn(load: Load) -> None:
    with pytest.raises(UserError) as caught:
        load(space_text('trial.suggest_float("dropout", 2.0, 9.0)', 'trial.suggest_float("lr", -2.0, -1.0)'))
    dropout, lr = caught.value.problems
    assert "dropout must be in [0, 1), received " in dropout
    assert "lr must be above 0, received -1." in lr
    assert dropout.endswith("(32 of 32 random trials)")


def test_many_problems_are_told_together(load: Load) -> None:
    with pytest.raises(UserError) as caught:
        load(BRANCHES + "def seed_points(context):\n    return [{'lr': -1.0 - k} for k in range(20)]\n")
    assert [problem.partition(" of ")[0] for problem in caught.value.problems] == [
        f"seed point {number}" for number in range(20)
    ]


def test_a_range_of_a_name_that_few_trials_ask_for_is_found(load: Load) -> None:
    lines = [f'if trial.suggest_float("{name}", 0, 0.99) > 0.9:' for name in ("dropout", "momentum")]
    text = space_text(lines[0], "    " + lines[1], '        trial.suggest_float("weight_decay", 0, 1)')
    with pytest.raises(UserError, match=r"--set weight_decay=2.0..3.0 leaves nothing of weight_decay"):
        load(text, weight_decay="2..3")
    assert "weight_decay" in load(text, weight_decay="0.1..0.2").distributions
