"""The command line and its file become one configuration, or one answer that names everything wrong with them."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from search_spaces.errors import UserError
from search_spaces.paths import shortened
from search_spaces.space import SPACES
from sweep import evaluate
from sweep.cli import (
    OPTIONS,
    Arguments,
    ImageCount,
    arguments_of,
    parser,
    path,
    plain,
    read,
    read_config_file,
)
from sweep.config import GROUPS, SweepConfig, check, resolve
from sweep.endings import run_command
from sweep.machine import Machine
from trainables.data.config import dashed


def problems_of(*argv: str) -> tuple[str, ...]:
    """All that is said of a command line, whether it can be taken apart or not."""
    try:
        config, problems = read(argv)
    except UserError as error:
        return error.problems
    return (*problems, *check(config))


def parse(argv: Sequence[str]) -> SweepConfig:
    config, problems = read(argv)
    assert problems == []
    return config


def test_nothing_given_is_the_default_configuration() -> None:
    assert parse([]) == SweepConfig()
    assert parse([]).model_fields_set == set()


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    assert OPTIONS.keys() - {"config", "json"} == SweepConfig.model_fields.keys()
    assert {one.group for one in OPTIONS.values()} == set(GROUPS)


def test_options_are_read_with_their_types() -> None:
    parsed = parse(
        shlex.split(
            "--data x.csv --label-column covid --label-column pneumonia --backbones resnet18,vgg16 "
            "--backbones vgg16_bn --time-budget 1h30m --set lr=1e-3 --set optimizer=adamw --gpus-per-trial .5 "
            "--deterministic --seed 7 --patience none --epochs=3"
        )
    )
    assert parsed == SweepConfig(
        data="x.csv",
        label_column=("covid", "pneumonia"),
        backbones=("resnet18", "vgg16", "vgg16_bn"),
        time_budget=5400.0,
        set={"lr": 0.001, "optimizer": "adamw"},
        gpus_per_trial=0.5,
        deterministic=True,
        seed=7,
        epochs=3,
    )
    assert parsed.model_fields_set == {
        *("data", "label_column", "backbones", "time_budget", "set", "gpus_per_trial", "deterministic", "seed"),
        *("patience", "epochs"),
    }


def test_an_option_that_may_stand_alone_is_true_then() -> None:
    resumed = ["--resume", "a"]
    assert parse([*resumed, "--retry-failed", "--trials", "3"]).retry_failed is True
    assert parse([*resumed, "--retry-failed", "all"]).retry_failed == "all"
    assert parse(resumed).retry_failed is False
    for given in (True, "all", False):
        assert parse(arguments_of({"resume": "a", "retry_failed": given})).retry_failed == given
    (problem,) = problems_of(*resumed, "--retry-failed", "nan")
    assert problem == "--retry-failed must be given without a value or as all, received 'nan'"


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("epochs: 5\ntrials: 9\ndeterministic: true\nbackbones: [resnet18, vgg16]\nset: {lr: 1e-3}\n")
    parsed = parse(["--config", str(file), "--epochs", "7", "--no-deterministic"])
    assert parsed == SweepConfig(epochs=7, trials=9, backbones=("resnet18", "vgg16"), set={"lr": 0.001})
    assert parsed.model_fields_set == {"epochs", "trials", "deterministic", "backbones", "set"}


def test_what_the_command_line_fixes_adds_to_what_the_file_fixes(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("set: {lr: 1e-3, batch_size: 16}\n")
    assert parse(["--config", str(file), "--set", "lr=0.1"]).set == {"lr": 0.1, "batch_size": 16}
    file.write_text("set: {lr: 1e-3, batch_size: some}\n")
    (problem,) = problems_of("--config", str(file), "--set", "lr=0.1")
    assert problem.startswith(f"--config {file}: --set batch_size")


def test_what_a_run_has_saved_can_be_given_as_a_file(tmp_path: Path) -> None:
    config = SweepConfig(data="x.csv", label_column=("a",), time_budget=60.0, set={"lr": 0.1}, name="first")
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(config.to_json()))
    assert parse(["--config", str(file)]) == config


def test_everything_wrong_comes_in_one_answer(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("tirals: 3\nepochs: many\nfit: 3\n")
    told = problems_of(
        *("--config", str(file), "--sheduler", "asha", "--trials", "x", "--patience", "--seed", "-3", "--set", "lr"),
        *("--sampler", "tep", "--name", "a", "--name", "b", "--resume", ""),
    )
    assert [problem.removeprefix(f"--config {file}: ") for problem in told] == [
        "unknown option --sheduler: did you mean --scheduler? --help-all lists all",
        "--patience needs a value: --patience N",
        "--name is given 2 times: a, b",
        "unknown option tirals: did you mean `trials`? --help-all lists all",
        "--epochs must be a whole number, received 'many'",
        "--fit must be text, received 3 (quote it in a YAML file)",
        "--trials must be a whole number, received 'x'",
        "--set lr: write name=value, such as lr=1e-3",
        "--resume must not be empty, received ''",
        "--seed -3: must be 0 or more",
        "--sampler: unknown sampler 'tep': did you mean 'tpe'? allowed: gp, grid, qmc, random, tpe",
    ]


def test_a_wrong_value_in_the_file_is_no_matter_where_the_command_line_has_another(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("epochs: many\n")
    assert parse(["--config", str(file), "--epochs", "3"]).epochs == 3


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
        (["--epoch=3"], "unknown option --epoch: did you mean --epochs?"),
        (["--backbone", "vgg16"], "unknown option --backbone: did you mean --backbones?"),
        (
            ["--lr", "1e-3"],
            "unknown option --lr: use --set lr=VALUE for a hyperparameter (in a file: under set)",
        ),
        (["--batch-size=16"], "unknown option --batch-size: use --set batch_size=VALUE for a hyperparameter"),
        (["-e"], "unknown option -e: --help-all lists all"),
        (["demo"], "unexpected argument 'demo'"),
        (["--backbones", "resnet18", "vgg16"], "unexpected argument 'vgg16'"),
        (["--deterministic=yes"], "argument --deterministic: ignored explicit argument 'yes'"),
        (["--resume", "a", "--name", "b"], "--name b cannot go with --resume a"),
        (["--config"], "--config needs a value: --config FILE"),
        (["--where", "view="], "--where view=: write COLUMN=VALUE, or COLUMN=VALUE,VALUE"),
        (["--where", "view=PA,"], "--where view=PA,: write COLUMN=VALUE, or COLUMN=VALUE,VALUE"),
    ],
)
def test_a_mistyped_option_is_told_with_the_way_out(argv: list[str], told: str) -> None:
    (problem,) = problems_of(*argv)
    assert problem.startswith(told)


def test_a_caller_with_more_to_say_gets_the_problems_without_an_error() -> None:
    config, problems = read(["--epochs", "x", "--trials", "3"])
    assert config == SweepConfig(trials=3).without({"epochs"})
    assert problems == ["--epochs must be a whole number, received 'x'"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--epochs", "many", "--grace-period", "30"], "--epochs must be a whole number"),
        (["--epochs", "--grace-period", "30"], "--epochs needs a value"),
        (["--epochs", "40", "--epochs", "50", "--grace-period", "30"], "--epochs is given 2 times"),
        (["--space", " ", "--rows", "W1"], "--space must not be empty"),
        (["--cpus-per-trial", "one", "--concurrency", "3"], "--cpus-per-trial must be a whole number"),
    ],
)
def test_an_option_that_cannot_be_read_leads_to_no_second_complaint(argv: list[str], told: str) -> None:
    """What stands in its place, the default, was asked for by nobody."""
    config, problems = read(argv)
    (problem,) = [*problems, *check(resolve(config, Machine(cpus=2, gpus=0)), cpus=2, gpus=0)]
    assert problem.startswith(told)


@pytest.mark.parametrize("asked", ["--help", "--help-all"])
def test_help_is_printed_and_ends_well(asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read([asked])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for name, one in OPTIONS.items():
        expected = not one.in_files_only and (asked == "--help-all" or not one.rare)
        assert (f"  {dashed(name)}" in shown) == expected, name
    assert "examples:" in shown


def test_the_presets_are_printed_whatever_else_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (read, evaluate.main):
        with pytest.raises(SystemExit) as ended:
            command(["--preset", "list", *([] if command is read else ["RUN"])])
        assert ended.value.code == 0
        assert "nih_chestxray14: " in capsys.readouterr().out


def test_the_help_shows_ten_options_about_images() -> None:
    assert sum(one.group == "images" and not (one.rare or one.in_files_only) for one in OPTIONS.values()) == 10


def test_help_names_every_space_and_every_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    page = parser().format_help()
    assert max(map(len, page.splitlines())) <= 100
    words = " ".join(page.split())
    assert [name for name in SPACES if name not in words] == []
    for name in ("path_column", "task", "fit", "space", "metric", "sampler", "address", "storage"):
        default = getattr(SweepConfig(), name)
        assert f"default: {default}" in OPTIONS[name].help


ALLOWED = ("epochs", "time_budget", "set", "deterministic", "patience")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sweep.yaml"


def test_options_are_written_with_dashes_or_underscores(file: Path) -> None:
    file.write_text("epochs: 20\ntime-budget: 2h\nset: {lr: 1e-3}\npatience: null\n")
    assert read_config_file(file, ALLOWED) == ({"epochs": 20, "time_budget": "2h", "set": {"lr": "1e-3"}}, [])


def test_names_of_the_users_own_may_differ_by_a_dash(file: Path) -> None:
    file.write_text("class_names: {COVID-19: covid, COVID_19: covid}\n")
    assert read_config_file(file, ["class_names"]) == ({"class_names": {"COVID-19": "covid", "COVID_19": "covid"}}, [])


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
        "unknown option epoch: did you mean `epochs`? --help-all lists all",
        "unknown option config: --help-all lists all",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"- epochs\n- 20\n", "must contain lines such as `epochs: 20`"),
        (b"epochs\n", "must contain lines such as `epochs: 20`"),
        (b"epochs: [1, 2\n", "is not YAML: .*line 2"),
        (b"epochs: !!python/object:os.system {}\n", "is not YAML: .*line 1"),
        (b"epochs: 2024-13-45\n", "is not YAML"),
        (b"name: caf\xe9\n", "is not UTF-8 text: byte 9 is 0xe9"),
        (b"{epochs: 1}: 2\n", "is not YAML"),
        (b"set: &a {lr: *a}\n", r"is not YAML: \*a is an alias: write its value out in line 1"),
        (b"x: " + 3000 * b"[", "is nested too deeply"),
        (b"set: " + 3000 * b"{a: " + b"1" + 3000 * b"}", "is nested too deeply"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_config_file(file, ALLOWED)


def test_values_are_taken_as_they_are_written_where_yaml_would_reckon(file: Path) -> None:
    file.write_text("a: 1:30\nb: 010\nc: 1_000\nd: 20\ne: -0.5\nf: 1:30.5\n")
    expected = {"a": "1:30", "b": "010", "c": "1_000", "d": 20, "e": -0.5, "f": "1:30.5"}
    assert read_config_file(file, list("abcdef")) == (expected, [])
    file.write_text("time-budget: 1:30\n")
    (problem,) = problems_of("--config", str(file))
    assert "--time-budget must be a time such as 90s, 45m, 2h" in problem
    assert problem.endswith("received '1:30'")


def test_every_path_option_has_the_same_rule(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [name for name, one in OPTIONS.items() if one.path and name != "config"]
    assert {"data", "storage", "space", "resume", "val_data", "test_data", "images_dir", "preset"} <= {*names}
    for name in names:
        file.write_text(f"{name}: ~/mine\n")
        for argv in ([f"{dashed(name)}=~/mine"], [dashed(name), "~/mine"], ["--config", "~/sweep.yaml"]):
            assert getattr(parse(argv), name) == str(tmp_path / "mine")
        for url in ("s3://bucket/x", "file:///x", "gs://b"):
            (problem,) = problems_of(dashed(name), url)
            assert problem.startswith(f"{dashed(name)} {url}: is a URL, and only paths are supported: mount it")
        (problem,) = problems_of(dashed(name), "n" * 256)
        assert (problem.startswith(f"{dashed(name)} nnn"), problem.endswith(": File name too long")) == (True, True)
        (tmp_path / name).symlink_to(tmp_path / name)
        assert problems_of(dashed(name), str(tmp_path / name)) == (
            f"{dashed(name)} {tmp_path / name}: Too many levels of symbolic links",
        )
        assert problems_of(dashed(name), "~nobody-of-this-name/x")[0].startswith(f"{dashed(name)} ~nobody-of-this-name")
        (problem,) = problems_of(dashed(name), os.fsdecode(b"/mnt/h\xf4pital"))
        assert "'/mnt/h\\udcf4pital': is not UTF-8" in problem
    assert problems_of("--config", "s3://b/x.yaml")[0].startswith("--config s3://b/x.yaml: is a URL")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--set", b"caf\xe9"), ("--where", b"caf\xe9"), ("--target-sensitivity", b"caf\xe9=2"), ("--group-from", b"\xe9")],
)
def test_what_is_wrong_with_bytes_that_are_not_utf_8_is_one_line(option: str, value: bytes) -> None:
    (problem,) = problems_of(option, os.fsdecode(value))
    assert problem.startswith(f"{option} ")
    assert "\\udce9" in problem
    assert problem.endswith(": is not UTF-8")
    folder = os.fsdecode(b"caf\xe9")
    assert parse(["--target-sensitivity", f"{folder}=0.9"]).target_sensitivity == {folder: 0.9}


def test_options_from_python_are_the_command_line_that_says_the_same() -> None:
    options = {
        "data": Path("x.csv"),
        "label_column": ["covid", "a b"],
        "backbones": ["resnet18", "vgg16"],
        "set": {"lr": 1e-3, "batch_size": [16, 32], "focal_alpha": None},
        "where": {"VIEW": ["PA", "AP"]},
        "trials": 8,
        "time_budget": None,
        "deterministic": False,
        "skip_missing": True,
    }
    line = arguments_of(options)
    assert line == shlex.split(
        "--data=x.csv --label-column=covid '--label-column=a b' --backbones=resnet18 --backbones=vgg16 --set=lr=0.001 "
        "--set=batch_size=16,32 --set=focal_alpha=none --where=VIEW=PA,AP --trials=8 --no-deterministic --skip-missing"
    )
    assert parse(line).set == parse(["--set=lr=1e-3", "--set=batch_size=16,32", "--set=focal_alpha=none"]).set
    assert problems_of(*arguments_of({"trails": 3})) == (
        "unknown option --trails: did you mean --trials? --help-all lists all",
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--config .*missing\.yaml cannot be read: No such file"):
        read_config_file(tmp_path / "missing.yaml", ALLOWED)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_config_file(tmp_path, ALLOWED)


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


def test_a_small_command_tells_of_every_argument_that_cannot_be(tmp_path: Path) -> None:
    parser = Arguments("sweep.predict", "", "")
    parser.add_argument("run", type=path, metavar="RUN")
    parser.add_argument("images", type=path, metavar="IMAGE", nargs="+")
    parser.add_argument("--csv", type=path)
    long = tmp_path / ("n" * 256)
    asked, problems = parser.read(["~/run", str(long), "a.png", "--csv=s3://bucket/x", "--cvs", "b"])
    assert (asked.run, asked.images[1]) == (Path.home() / "run", Path("a.png"))
    assert [problem.split(": ")[0] for problem in problems] == [
        "unknown option --cvs",
        f"IMAGE {shortened(long)}",
        "--csv s3://bucket/x",
    ]
    assert problems[1].endswith("File name too long")


@pytest.mark.parametrize(
    ("name", "shown"), [("Thorax.png", "Thorax.png"), ("ü\n\x1b[31m", "ü\\n\\x1b[31m"), ("\udcfc", "\\udcfc")]
)
def test_a_name_can_neither_break_a_line_nor_colour_a_terminal(name: str, shown: str) -> None:
    assert plain(name) == shown


def test_at_most_ten_problems_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(argv: Sequence[str]) -> int:
        raise UserError(*(f"the {number}." for number in range(12)))

    assert run_command(fails, []) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [*(f"error: the {number}." for number in range(10)), "… and 2 more"]


@pytest.mark.parametrize(("terminal", "told"), [(True, 3), (False, 1)])
def test_what_takes_long_is_counted_and_what_does_not_is_silent(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, told: int
) -> None:
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    count = ImageCount()
    for done in (1, 2, 3):
        count("files recognised", done, 3)
    assert stream.getvalue() == ""
    for done, seconds in ((1, 100.0), (2, 130.0), (3, 170.0), (4, 170.1)):
        now[0] = seconds
        count("images read", done, 4)
    assert stream.getvalue().count("images read") == told
    assert stream.getvalue().endswith("\n")
