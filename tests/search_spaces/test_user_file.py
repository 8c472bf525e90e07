"""A user's own space, a Python file: what it may do, and what is said about what it got wrong."""

from __future__ import annotations

import gc
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import MethodType

import pytest

from search_spaces import user_file
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


def test_a_file_is_fixed_in_part(load: Load) -> None:
    space = load(space_text('trial.suggest_float("lr", 1e-4, 1e-2)'), lr="0.5")
    with random_study() as study:
        assert space.suggest(study.ask()).lr == 0.5


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


def test_what_has_no_end_is_no_space(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "zero.py").symlink_to("/dev/zero")
    for name in ("pipe.py", "zero.py"):
        with pytest.raises(UserError, match=f"{name} cannot be read: it is not a file of at most 1000000 bytes"):
            load_space(str(tmp_path / name), CONTEXT)


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
        (
            space_text('trial.suggest_categorical("loss", [])'),
            r"mine\.py: loss needs a list of choices, received \[\]",
        ),
        (
            space_text('trial.suggest_categorical("head_widths", [(320,), (1024, 512)])'),
            r"choices of head_widths must be text, numbers or None, received \[320\] at line 3",
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
            r"loss must be the same in every trial, received .* after its choices .* at line 4",
        ),
        (space_text("trial.report(1.0, 1)"), r"a space may use only .* of its trial, not 'report'"),
        ("def space(trial, context):\n    return {}\n", "has no backbone"),
        (
            space_text() + "def seed_points(context):\n    return 1 / 0\n",
            r"raises ZeroDivisionError: division by zero at line 5 \(in seed_points\)",
        ),
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
    assert "lr must be above 0 and at most 1000, received -1." in lr
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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("import time\ntime.sleep(10**6)\n", r"line 2 \(in <module>\)"),
        (space_text("while True: pass"), r"line 3 \(in space\)"),
        (space_text('while True: trial.suggest_float("lr", 1e-4, 1e-2)'), r"line 3 \(in space\)"),
        ("import re\n" + space_text('re.match("(a+)+b", "a" * 99)'), r"line 4 \(in space\)"),  # nothing interrupts it
        (
            space_text("while True:", "    try: raise SystemExit", "    except BaseException: pass"),
            r"line \d \(in space\)",
        ),
        (space_text() + "def seed_points(context):\n    while True: pass\n", r"line 5 \(in seed_points\)"),
    ],
)
def test_a_file_that_hangs_is_ended_and_the_line_is_told(
    load: Load, monkeypatch: pytest.MonkeyPatch, text: str, place: str
) -> None:
    monkeypatch.setattr(user_file, "CALL_WITHIN_S", 1.0)
    monkeypatch.setattr(user_file, "KILLED_AFTER_S", 60.0)  # The start of its process is within that.
    with pytest.raises(UserError, match=rf"mine\.py did not return within 1 s at {place}: its import, each draw and"):
        load(text)


def test_a_question_that_is_asked_while_the_line_is_told_does_not_hide_it() -> None:
    """faulthandler writes piece by piece while the file goes on."""
    frames = 'Timeout (0:00:01)!\nThread 0x1 (most recent call first):\n  File "/a/mine.py", line 3 in space\n'
    for place in range(len("Timeout (0:00:01)!\n"), len(frames) + 1):
        written = frames[:place] + '{"asked": ["suggest_float", ["lr", 0.0001, 0.01], {}]}\n' + frames[place:]
        assert user_file._without_questions(written.encode()) == frames


def test_a_file_that_cannot_be_ended_from_within_is_killed_with_what_it_has_started(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_file, "CALL_WITHIN_S", 2.0)
    monkeypatch.setattr(user_file, "KILLED_AFTER_S", 0.5)
    for hang in ("faulthandler.cancel_dump_traceback_later()", "os.fork()"):  # the child holds the pipe open
        with pytest.raises(UserError, match="did not return within 2 s"):
            load("import faulthandler, os, time\n" + space_text(hang, "time.sleep(10**6)"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("sys.exit(0)", "raises SystemExit: 0"),
        ("raise KeyboardInterrupt", "raises KeyboardInterrupt"),
        ("raise GeneratorExit", "raises GeneratorExit"),
        ("os._exit(0)", "ended its process with exit code 0: remove the cause"),
        ("os.kill(os.getpid(), 9)", "ended its process by SIGKILL: remove the cause"),
        ("ctypes.string_at(0)", r"ended its process by SIGSEGV at line \d \(in "),
        ("os.closerange(0, 99)", "ended its process "),
        ("[0] * 10**15", "raises MemoryError"),
        ("input()", "raises EOFError: EOF when reading a line"),
        ("recurse()", r"raises RecursionError: .*\(in recurse\)"),
    ],
)
@pytest.mark.parametrize("where", ["import", "draw"])
def test_a_file_that_ends_python_does_not_end_the_sweep(load: Load, line: str, problem: str, where: str) -> None:
    head = "import ctypes, os, sys\ndef recurse(): recurse()\n"
    text = head + (line + "\n" + space_text() if where == "import" else space_text(line))
    with pytest.raises(UserError, match=problem) as caught:
        load(text)
    assert len(caught.value.problems) == 1
    if "raises" in problem and "recurse" not in line:
        assert f"at line {3 if where == 'import' else 5} (in " in str(caught.value)


def test_a_process_that_may_not_be_killed_any_more_is_told_all_the_same(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where only a zombie is left of it."""

    def forbidden(group: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", forbidden)
    with pytest.raises(UserError, match="ended its process with exit code 3"):
        load("import os\nos._exit(3)\n")


def test_the_process_of_a_file_ends_with_its_space(load: Load) -> None:
    space = load("import os\n" + space_text(returned="{'batch_size': os.getpid() % 97 + 1}"))
    assert isinstance(space.function, MethodType)
    process = space.function.__self__._process
    with random_study() as study:
        assert space.suggest(study.ask()).batch_size == process.pid % 97 + 1
    del space
    gc.collect()
    assert process.returncode is not None


def test_values_of_numpy_ranges_and_tuples_are_taken_and_prints_are_no_answers(load: Load) -> None:
    space = load(
        "import numpy as np\nfrom types import MappingProxyType\n"
        + space_text(
            "print('drawing')",
            "trial.suggest_categorical('batch_size', range(8, 65, 8))",
            "trial.suggest_categorical('unfreeze_depth', np.arange(3))",
            returned="MappingProxyType({'dropout': np.float32(0.5), 'head_widths': (320,)})",
        )
    )
    with random_study() as study:
        params = space.suggest(study.ask())
    assert params.batch_size in range(8, 65, 8)
    assert params.unfreeze_depth in range(3)
    assert (params.dropout, params.head_widths) == (0.5, (320,))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            ['trial.suggest_float("lr", 1e-4, 1e-3)', 'trial.suggest_float("lr", 1e-3, 1e-1)'],
            r"lr must be the same in every trial, received its range \[0\.001, 0\.1\] after its range "
            r"\[0\.0001, 0\.001\]: give each branch its own name, such as lr\.a and lr\.b at line 5 \(in space\)",
        ),
        (
            [
                'high = 1e-2 if trial.suggest_categorical("optimizer", ["sgd", "adamw"]) == "sgd" else 1e-3',
                'trial.suggest_float("lr", 1e-4, high)',
            ],
            r"lr must be the same in every trial, .* at line 5 \(in space\)",
        ),
        (["import random", 'trial.suggest_float("lr", 1e-4, random.random())'], "lr must be the same in every"),
        (["CALLS.append(1)", 'trial.suggest_int("batch_size", 1, len(CALLS))'], "batch_size must be the same"),
        (
            ["CALLS.append(1)", 'trial.suggest_float("lr" if len(CALLS) % 2 else "dropout", 0.1, 0.2)'],
            "does not give the same configuration for the same suggested values",
        ),
    ],
)
def test_a_range_that_changes_within_a_trial_or_between_trials_is_refused(
    load: Load, lines: list[str], problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load("CALLS = []\n" + space_text(*lines))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("value", ["random.random()", "time.perf_counter() % 1", "next(CALLS) / 10**6"])
def test_a_space_that_depends_on_more_than_trial_and_context_is_refused(load: Load, value: str) -> None:
    text = "import itertools, random, time\nCALLS = itertools.count(1)\n" + space_text(returned=f"{{'lr': {value}}}")
    with pytest.raises(UserError, match="does not give the same configuration for the same suggested values") as caught:
        load(text)
    assert len(caught.value.problems) == 1


def test_a_range_that_changes_after_it_was_tried_out_is_refused_in_the_sweep(load: Load, tmp_path: Path) -> None:
    later = "1e-3 if pathlib.Path(__file__).with_name('later').exists() else 1e-2"
    space = load("import pathlib\n" + space_text(f'trial.suggest_float("lr", 1e-4, {later})'))
    (tmp_path / "later").touch()
    with random_study() as study, pytest.raises(UserError, match="lr must be the same in every trial"):
        space.suggest(study.ask())


def test_steps_too_many_to_enumerate_are_no_grid(load: Load) -> None:
    assert load(space_text('trial.suggest_float("dropout", 0.0, 0.9, step=1e-9)')).continuous == ("dropout",)


@pytest.mark.parametrize(
    "line", ['trial.suggest_categorical("loss", range(10**6 // 5))', 'return {"loss": "b" * 10**6}']
)
def test_what_is_too_much_to_pass_on_is_refused(load: Load, line: str) -> None:
    with pytest.raises(UserError, match=r"ValueError: .* characters are too many"):
        load(space_text(line))
