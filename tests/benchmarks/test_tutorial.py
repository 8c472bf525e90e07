from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cases import cases, mixed_trials, write_space
from benchmarks.full import Line, table
from benchmarks.measurements import Measurement, Results
from benchmarks.own_process import ROOT
from benchmarks.ray_tutorial import load_data, make_network
from benchmarks.tutorial import main
from search_spaces.params import SpaceContext, TrialParams
from search_spaces.space import load_space, random_study

PARAMS = TrialParams(backbone="squeezenet1_1", unfreeze_depth=1)
CONTEXT = SpaceContext(
    task="single_label",
    class_count=3,
    train_count=785,
    backbones=("mobilenet_v2", "resnet18", "squeezenet1_0", "squeezenet1_1", "vgg16"),
)


def command(module: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18", "squeezenet1_1", "vgg16"])
def test_the_tutorials_network_trains_the_same_parameters_as_ours(backbone: str) -> None:
    import torch

    from trainables.finetune import build_model
    from trainables.weights import FoundWeights

    params = dataclasses.replace(PARAMS, backbone=backbone)
    network = make_network(params, None, 3)
    ours = build_model(params, 3, FoundWeights(backbone=backbone, origin="random"), 64, 0)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == ours.trainable_params()
    assert sum(parameter.numel() for parameter in network.parameters()) == ours.total_params()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


def test_the_tutorial_reads_the_images_in_the_size_of_ours(small_data: Path) -> None:
    for augment in ("none", "flip", "standard"):
        train, val = load_data(str(small_data), 64, augment)
        assert (len(train), len(val), len(train.classes)) == (48, 24, 3)
        assert {tuple(train[0][0].shape), tuple(val[0][0].shape)} == {(3, 64, 64)}


@pytest.mark.long
def test_the_tutorials_sweep_runs_and_says_what_it_would_cost(
    small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--weights", "random", "--backbone", "squeezenet1_1", "--trials", "64", "--epochs", "10", "--quick"]
    assert main(["--data", str(small_data), *how, "--num-workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "64 trials x 10 epochs" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["1"], "0 is measured below"
    assert sum("counts" in line for line in lines) == 1
    for line in lines[1:]:
        epoch_s, fixed_s, total_s = (float(line.split()[place]) for place in (1, 3, 5))
        assert 0 < epoch_s < fixed_s
        assert total_s == pytest.approx(320 * epoch_s, abs=0.51 + 320 * 0.005)


def test_data_without_a_split_is_refused(small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(small_data / "train"), "--weights", "random"]) == 2
    assert "has no folder train and no folder val" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cases(785, quick=False)))
def test_the_space_file_of_a_case_gives_its_trials(name: str, tmp_path: Path) -> None:
    case = cases(785, quick=False)[name]
    space = load_space(str(write_space(case, tmp_path / "space.py")), CONTEXT)
    with random_study(seed=3) as study:
        found = [space.suggest(study.ask()) for _ in range(8)]
    rates = [params.lr for params in found]
    assert len(set(rates)) > 1
    if case.listed:
        assert set(found) <= set(case.trials)
    else:
        assert {dataclasses.replace(params, lr=case.trials[0].lr) for params in found} == {case.trials[0]}


def test_the_mixed_trials_are_the_same_each_time_and_of_all_kinds() -> None:
    trials = mixed_trials(785)
    assert trials == mixed_trials(785)
    assert len({params.lr for params in trials}) == len(trials) == 32
    assert {params.unfreeze_depth for params in trials} == {0, 1, 2, 3, 4}
    assert {params.augment for params in trials} == {"none", "flip", "standard"}
    assert {params.loss for params in trials} == {"cross_entropy"}


def test_a_measurement_is_made_once_for_each_setup(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, int]:
        made.append(len(made))
        return {"number": len(made)}

    one = Measurement("head", "ours", 0, 1.0, make)
    path = tmp_path / "results.jsonl"
    assert Results(path, {"machine": "a"}).get(one) == {"number": 1}
    with path.open("a") as file:
        file.write('{"setup": {"mach')  # killed while it wrote
    assert Results(path, {"machine": "a"}).get(one) == {"number": 1}
    assert Results(path, {"machine": "b"}).get(one) == {"number": 2}
    again = Results(path, {"machine": "b"})
    assert again.get(one) == {"number": 2}
    assert again.get(dataclasses.replace(one, round=1)) == {"number": 3}
    assert [values["number"] for values in again.of("head", "ours")] == [2, 3]


def test_the_table_says_what_is_reached() -> None:
    lines = [
        Line(case="head", other="tutorial", ours="2 s", others="400 s", ratio=200.0, limit=600.0, must=150),
        Line(case="head", other="T*", ours="2 s", others="1 s", ratio=2.0, must=1.5, at_least=False),
        Line(case="head", other="bare loop", ours="2 s", others="?", ratio=float("nan"), must=75),
    ]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table(lines).splitlines()[2:]]
    assert rows[0] == ["head", "tutorial", "2 s", "400 s", "200", "600", "at least 150", "ok"]
    assert [row[-1] for row in rows] == ["ok", "missed", "missed"]


@pytest.mark.long
def test_all_ways_are_measured_once_and_stand_in_one_table(small_data: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    arguments = ("--data", small_data, "--weights", "random", "--quick", "--only", "head", "--results", results)
    first = command("benchmarks.full", *arguments)
    ways = [[cell.strip() for cell in line.split("|")[1:3]] for line in first.splitlines() if line.startswith("| ")]
    named = ("tutorial", "tutorial, ours bf16", "bare loop", "T*", "orchestration")
    assert ways[2:] == [["head", way] for way in named]
    assert "expected duration" in first.splitlines()[1]
    kept = [json.loads(line) for line in results.read_text().splitlines()]
    ours = {line["case"]: line["values"] for line in kept if line["what"] == "ours fp32"}
    assert [epochs for _, epochs in ours["head"]["runs"]] == [2, 2]
    again = command("benchmarks.full", *arguments)
    assert "0 measurements are left" in again
    assert [line for line in again.splitlines() if line.startswith("| ")] == [
        line for line in first.splitlines() if line.startswith("| ")
    ]
    assert len(results.read_text().splitlines()) == len(kept)
