"""The command line and its file become one configuration, or one answer that names everything wrong with them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
import yaml

from search_spaces.errors import UserError
from search_spaces.space import SPACES
from sweep.cli import OPTIONS, parse, parser, read
from sweep.config import SweepConfig
from sweep.option_groups import GROUPS
from sweep.values import option


def problems_of(*argv: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        parse(argv)
    return caught.value.problems


def test_nothing_given_is_the_default_configuration() -> None:
    assert parse([]).config == SweepConfig()
    assert parse([]).given == frozenset()


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    assert OPTIONS.keys() - {"config"} == {field.name for field in dataclasses.fields(SweepConfig)}
    assert sum(len(group) for group in GROUPS.values()) == len(OPTIONS)


def test_options_are_read_with_their_types() -> None:
    parsed = parse(
        shlex.split(
            "--data x.csv --label-column covid --label-column pneumonia --backbones resnet18,vgg16 "
            "--backbones vgg16_bn --time-budget 1h30m --set lr=1e-3 --set optimizer=adamw --gpus-per-trial .5 "
            "--deterministic --seed 7 --patience none --epochs=3"
        )
    )
    assert parsed.config == SweepConfig(
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
    assert parsed.given == {
        *("data", "label_column", "backbones", "time_budget", "set", "gpus_per_trial", "deterministic", "seed"),
        *("patience", "epochs"),
    }


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("epochs: 5\ntrials: 9\ndeterministic: true\nbackbones: [resnet18, vgg16]\nset: {lr: 1e-3}\n")
    parsed = parse(["--config", str(file), "--epochs", "7", "--no-deterministic"])
    assert parsed.config == SweepConfig(epochs=7, trials=9, backbones=("resnet18", "vgg16"), set={"lr": 0.001})
    assert parsed.given == {"epochs", "trials", "deterministic", "backbones", "set"}


def test_what_a_run_has_saved_can_be_given_as_a_file(tmp_path: Path) -> None:
    config = SweepConfig(data="x.csv", label_column=("a",), time_budget=60.0, set={"lr": 0.1}, name="first")
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(config.to_dict()))
    assert parse(["--config", str(file)]).config == config


def test_everything_wrong_comes_in_one_answer(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("tirals: 3\nepochs: many\nfit: 3\n")
    told = problems_of(
        *("--config", str(file), "--sheduler", "asha", "--trials", "x", "--patience", "--seed", "-3", "--set", "lr"),
        *("--sampler", "tep", "--name", "a", "--name", "b", "--resume", ""),
    )
    assert [problem.removeprefix(f"--config {file}: ") for problem in told] == [
        "unknown option --sheduler: did you mean --scheduler? --help lists all",
        "--patience needs a value: --patience N",
        "--name is given 2 times: a, b",
        "unknown option tirals: did you mean `trials`? --help lists all",
        "--epochs must be a whole number, received 'many'",
        "--fit must be text, received 3 (in a YAML file, put it in quotes)",
        "--trials must be a whole number, received 'x'",
        "--set lr: write name=value, such as lr=1e-3",
        "--resume must not be empty, received ''",
        "--seed -3: must be 0 or more",
        "--sampler: unknown sampler 'tep': did you mean 'tpe'? allowed: gp, grid, qmc, random, tpe",
    ]


def test_a_wrong_value_in_the_file_is_no_matter_where_the_command_line_has_another(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("epochs: many\n")
    assert parse(["--config", str(file), "--epochs", "3"]).config.epochs == 3


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--epoch", "3"], "unknown option --epoch: did you mean --epochs?"),
        (["--epoch=3"], "unknown option --epoch: did you mean --epochs?"),
        (["-e"], "unknown option -e: --help lists all"),
        (["demo"], "unexpected argument 'demo'"),
        (["--backbones", "resnet18", "vgg16"], "unexpected argument 'vgg16'"),
        (["--deterministic=yes"], "argument --deterministic: ignored explicit argument 'yes'"),
        (["--resume", "a", "--name", "b"], "--name b cannot go with --resume a"),
        (["--config"], "--config needs a value: --config FILE"),
    ],
)
def test_a_mistyped_option_is_told_with_the_way_out(argv: list[str], told: str) -> None:
    (problem,) = problems_of(*argv)
    assert problem.startswith(told)


def test_a_caller_with_more_to_say_gets_the_problems_without_an_error() -> None:
    parsed = read(["--epochs", "x", "--trials", "3"])
    assert parsed.config == SweepConfig(trials=3)
    assert parsed.problems == ("--epochs must be a whole number, received 'x'",)


def test_help_is_printed_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(option(name) in shown for name in OPTIONS)
    assert "examples:" in shown


def test_help_names_every_space_and_every_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    page = parser().format_help()
    assert max(map(len, page.splitlines())) <= 100
    words = " ".join(page.split())
    assert [name for name in SPACES if name not in words] == []
    for name in ("path_column", "task", "fit", "space", "metric", "sampler", "address", "storage"):
        default = getattr(SweepConfig(), name)
        assert f"default: {default}" in OPTIONS[name].help
