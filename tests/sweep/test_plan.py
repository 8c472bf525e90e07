"""What is decided before the first trial; a cluster whose nodes differ is real in tests/cluster."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

import trainables.weights
from search_spaces.errors import UserError
from search_spaces.params import DEFAULT_BACKBONES, Range, SpaceContext
from search_spaces.space import load_space
from sweep import estimate
from sweep.cli import read
from sweep.config import SweepConfig, resolve
from sweep.estimate import check_disk, disk_bytes
from sweep.history import trial_id
from sweep.machine import Machine, Node
from sweep.plan import (
    Ask,
    Plan,
    asked_backbones,
    checked_weights,
    input_problems,
    make_plan,
    node_problems,
    sampled_trials,
    unseen,
    weight_problems,
)
from sweep.run_folder import RunPaths
from trainables.backbones import BACKBONES
from trainables.data.config import DataConfig
from trainables.data.prepare import prepare
from trainables.weights import FoundWeights

TWO_CORES = Machine(cpus=2, gpus=0)


def planned(own_epochs: bool = False, machine: Machine = TWO_CORES, **asked: Any) -> Plan:
    """A plan for a data set of two classes and 200 training images, with random weights."""
    dataset = {
        "task": "single_label",
        "classes": ["a", "b"],
        "images": {"train": 200, "val": 20, "test": 0},
        "fingerprint": "",
        "source": {"path": "images"},
        "caveats": [],
        "checks": [{"severity": "warning", "message": "few images"}, {"severity": "info", "message": "fine"}],
    }
    config = resolve(SweepConfig(data="images", **{"weights": "random"} | asked), machine)
    return make_plan(config, [], lambda data: dataset, own_epochs=own_epochs, machine=machine)


def test_the_backbones_that_have_weights_are_settled_by_name() -> None:
    plan = planned(image_size=32)
    assert plan.config.backbones == tuple(plan.weights) == plan.space.context.backbones
    left_out = planned(image_size=17).missing_weights
    assert left_out
    assert not left_out.keys() & set(planned(image_size=17).config.backbones or ())


@pytest.mark.parametrize("option", ["target_sensitivity", "target_specificity"])
def test_a_target_is_of_a_class_of_the_data(option: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(**{option: "c=0.95"})
    (problem,) = caught.value.problems
    assert problem == f"--{option.replace('_', '-')} c=0.95: unknown class 'c': allowed: a, b"
    assert planned(**{option: "b=0.95"}, prevalence="b=0.1").config.prevalence == {"b": 0.1}


def test_a_part_of_the_search_is_what_trials_are_drawn_from() -> None:
    plan = planned(set={"backbone": "resnet18,vgg16", "batch_size": "16,32", "lr": "1e-3..1"})
    assert plan.config.backbones == ("resnet18", "vgg16")
    drawn = sampled_trials(plan.space, 20)
    assert {params.backbone for params in drawn} == {"resnet18", "vgg16"}
    assert {params.batch_size for params in drawn} == {16, 32}
    assert all(params.lr >= 1e-3 for params in drawn)
    assert isinstance(plan.config.set["lr"], Range)
    assert [note for note in plan.notes() if "lr" in note], "what lies above the space's own range is cut, and said"
    assert "warning: few images" in plan.notes()


@pytest.mark.parametrize(
    ("precision", "fast", "told"),
    [("bf16", (True, False), True), ("bf16", (True, True), False), ("fp32", (False, False), False)],
)
def test_machines_that_are_slow_at_bf16_are_told_of(precision: str, fast: tuple[bool, ...], told: bool) -> None:
    """Of a run that goes on elsewhere, or whose user asked for it: ``auto`` would have taken fp32."""
    nodes = tuple(Node(cpus=1, gpus=0, memory_bytes=0, fast_bf16=one, fast_bf16_gpu=False) for one in fast)
    plan = planned(machine=Machine(cpus=2, gpus=0, nodes=nodes), backbones=("resnet18",), precision=precision)
    assert any("bf16" in note for note in plan.notes()) == told


def test_a_study_runs_its_own_epochs_where_the_user_gave_none() -> None:
    study = planned(own_epochs=True, space="studies.bscs17028", backbones=("vgg16", "resnet18"), image_size=64)
    assert study.config.trials == len(study.space.rows)
    assert study.budget == max(row.epochs for row in study.space.rows)
    assert planned(space="studies.bscs17028", backbones=("vgg16",), epochs=2, image_size=64).budget == 2


def own_space(folder: Path, points: int) -> str:
    text = "def space(trial, context):\n    trial.suggest_int('unfreeze_depth', 0, 4)\n"
    text += "    return {'backbone': context.backbones[0]}\n"
    text += f"def seed_points(context):\n    return [{{'unfreeze_depth': k}} for k in range({points})]\n"
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


def test_the_space_that_contributing_shows_can_be_searched_by_its_command(tmp_path: Path) -> None:
    shown = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = shown.partition("## Add a search space")[2]
    (tmp_path / "my_space.py").write_text(shown.partition("```python\n")[2].partition("```")[0])
    command = shown.partition("`python -m sweep.run ")[2].partition("`")[0]
    asked, problems = read(shlex.split(command.replace("my_space.py", str(tmp_path / "my_space.py"))))
    assert problems == []
    backbones, _ = asked_backbones(asked)
    context = SpaceContext(task="single_label", class_count=3, train_count=500, backbones=backbones)
    space = load_space(asked.space, context)
    assert {name.partition(".")[0] for name in space.distributions} == {"head_widths", "optimizer", "lr"}


def test_more_seed_points_of_ones_own_than_trials_are_told_with_both_numbers(tmp_path: Path) -> None:
    space = own_space(tmp_path, points=5)
    with pytest.raises(UserError) as raised:
        planned(space=space, trials=4)
    assert raised.value.problems == (
        f"--trials 4: {space} has 5 seed points, and each is a trial: give --trials 5 or more, or fewer points",
    )
    assert not [note for note in planned(space=space, trials=5, sampler="random").notes() if "seed points" in note]


def test_seed_points_of_ours_that_are_not_tried_are_told() -> None:
    asked = {"backbones": ("resnet18", "vgg16"), "image_size": 64}

    def told(**more: Any) -> list[str]:
        return [note.partition(":")[0] for note in planned(**asked, **more).notes() if "seed points" in note]

    assert told(trials=8) == ["4 of the 6 seed points of partial_unfreeze are tried"]
    assert told(trials=64, sampler="qmc") == ["0 of the 6 seed points of partial_unfreeze are tried"]
    assert told(trials=12) == []
    extended = dataclasses.replace(planned(**asked, trials=8), resumed=True)
    assert not [note for note in extended.notes() if "seed points" in note], "those of the first command were told then"


def test_a_dry_run_fetches_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    config = resolve(SweepConfig(backbones=("resnet18",), dry_run=True, weights="imagenet"), Machine(cpus=1, gpus=0))
    found, missing = checked_weights(config)
    assert (found["resnet18"].origin, missing) == ("random", {})
    assert "the sweep downloads them" in found["resnet18"].note
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("before", ["", "resnet18="])
def test_weights_that_cannot_be_reached_are_told(before: str) -> None:
    for given, told in (
        ("n" * 256, "File name too long"),
        ("s3://bucket/x", "is a URL, and only paths are supported"),
        ("~nobody-of-this-name/x", "no user has this home folder"),
    ):
        config = resolve(SweepConfig(weights=before + given), Machine(cpus=1, gpus=0))
        with pytest.raises(UserError, match=f"^--weights {before}.*: {told}"):
            checked_weights(config)


def test_the_backbones_asked_for_are_insisted_on() -> None:
    assert asked_backbones(SweepConfig(backbones=("vgg16",))) == (("vgg16",), True)
    assert asked_backbones(SweepConfig(set={"backbone": "vgg16"})) == (("vgg16",), True)
    assert asked_backbones(SweepConfig(set={"backbone": "vgg16,resnet18"})) == (("vgg16", "resnet18"), True)
    assert not asked_backbones(SweepConfig())[1]


def test_a_study_looks_for_the_networks_of_its_rows_alone() -> None:
    assert asked_backbones(SweepConfig(space="studies.bscs17028")) == (("vgg16", "resnet18"), False)
    assert asked_backbones(SweepConfig(space="studies.bscs17028", rows="W2,W4")) == (("resnet18",), False)
    beside = SweepConfig(space="studies.bscs17028", rows="W1", weights=["vit_b_16=a.pt", "random"])
    assert asked_backbones(beside) == (("vgg16", "vit_b_16"), False)
    with pytest.raises(UserError, match="--rows: unknown row 'W99'"):
        planned(space="studies.bscs17028", rows="W99")
    with pytest.raises(UserError, match="unknown search space 'studies"):
        planned(space="studies.bscs17082")


def squeezenet(folder: Path) -> Path:
    torch.save(BACKBONES["squeezenet1_1"].network().state_dict(), folder / "mine.pt")
    return folder / "mine.pt"


def test_named_files_alone_are_all_that_is_tried_and_beside_others_one_more(tmp_path: Path) -> None:
    squeezenet1_1 = f"squeezenet1_1={squeezenet(tmp_path)}"
    alone = planned(weights=squeezenet1_1, image_size=64)
    assert alone.config.backbones == ("squeezenet1_1",)
    assert any("weights of squeezenet1_1: it has no BatchNorm" in note for note in alone.notes())
    asked = SweepConfig(data="images", weights=["vit_b_16=a.pt", "random"])
    assert asked_backbones(asked) == ((*DEFAULT_BACKBONES, "vit_b_16"), False)
    beside = planned(weights=["random", squeezenet1_1], backbones=("squeezenet1_0", "squeezenet1_1"), image_size=64)
    assert [found.origin for found in beside.weights.values()] == ["random", "file"]
    assert beside.settings(RunPaths(tmp_path)).weights == f"random,{squeezenet1_1}"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"backbones": ("resnet18",)}, "squeezenet1_1 is not tried: name it in --backbones, or omit its weights"),
        ({"backbones": ("resnet18",)}, "weights of resnet18: --weights gives files only for squeezenet1_1"),
        ({"image_size": 16}, "--image-size 16: squeezenet1_1 needs images of at least 17 px"),
    ],
)
def test_what_weights_and_networks_say_against_each_other_is_told(
    asked: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        planned(weights=f"squeezenet1_1={squeezenet(tmp_path)}", **asked)
    assert any(says in problem for problem in caught.value.problems)


def test_a_grid_that_is_larger_than_the_sweep_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def space(trial, context):\n"
        "    trial.suggest_int('unfreeze_depth', 0, 4, step=2)\n"
        "    trial.suggest_float('lr', 0.1, 0.5, step=0.1)\n"
        "    return {'backbone': 'squeezenet1_1'}\n"
    )
    asked = {"space": str(tmp_path / "mine.py"), "sampler": "grid", "image_size": 32, "finalists": 0}
    expected = "--sampler grid: 14 of up to 15 configurations are tried; --trials 15 tries all"
    assert expected in planned(trials=14, **asked).notes()
    assert not [note for note in planned(trials=15, **asked).notes() if "--sampler grid" in note]


def test_a_sweep_of_few_trials_on_many_cores_needs_the_room_of_few() -> None:
    few = disk_bytes(planned(trials=2, finalists=0, image_size=32))
    many = dataclasses.replace(planned(trials=2, finalists=0, image_size=32), slots=64)
    many = dataclasses.replace(many, config=many.config.model_copy(update={"concurrency": "cluster"}))
    assert many.at_once == 64
    assert disk_bytes(many) == few


def test_the_room_of_a_sweep_has_the_predictions_of_all_trials_in_it() -> None:
    few = planned(trials=40, finalists=0, image_size=32)
    many_classes = {"classes": tuple(map(str, range(1000))), "images": {"train": 0, "val": 5000, "test": 0}}
    many = dataclasses.replace(few, dataset=few.dataset.model_copy(update=many_classes))
    assert disk_bytes(many) - disk_bytes(few) > 40 * 5000 * 1000 * 4


def test_predictions_that_are_there_need_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, paths = planned(trials=40, finalists=0, image_size=32), RunPaths(tmp_path / "run")
    sizes = {"classes": tuple(map(str, range(1000))), "images": {"train": 0, "val": 5000, "test": 0}}
    plan = dataclasses.replace(plan, dataset=plan.dataset.model_copy(update=sizes))
    for number in range(40):
        predictions = paths.trial(trial_id(number)).predictions
        predictions.parent.mkdir(parents=True)
        predictions.write_bytes(b"compressed")
    free = disk_bytes(plan) - 40 * 5000 * 1000 * 4
    monkeypatch.setattr("sweep.estimate.free_bytes", lambda _: free)
    check_disk(plan, paths)
    paths.trial(trial_id(7)).predictions.unlink()
    with pytest.raises(UserError, match="the sweep may need"):
        check_disk(plan, paths)


def test_an_image_size_that_patches_do_not_fill_names_the_option() -> None:
    with pytest.raises(UserError, match="--image-size 70: vit_b_16 needs a multiple of 16 px, such as 64 or 80"):
        planned(backbones=("vit_b_16",), image_size=70)


def test_weights_for_other_input_values_are_found_on_the_training_images(small_data: Path, tmp_path: Path) -> None:
    dataset = prepare(DataConfig(data=str(small_data), image_size=32), tmp_path / "run", tmp_path / "cache", 1)
    state = BACKBONES["resnet18"].network().state_dict()
    state |= {name: 1e5 * tensor for name, tensor in state.items() if name.endswith("running_var")}
    torch.save(state, tmp_path / "mine.pt")
    config = resolve(
        SweepConfig(data="x", weights=f"resnet18={tmp_path / 'mine.pt'}", image_size=32), Machine(cpus=2, gpus=0)
    )
    plan = make_plan(config, [], lambda data: dataset, own_epochs=True, machine=Machine(cpus=2, gpus=0))
    (problem,) = input_problems(plan, tmp_path / "run")
    assert "was made for other input values" in problem


def cluster(**nodes: object) -> Ask:
    """Nodes by name, each with what it answers: an exception, or the options whose folders it lacks."""

    def ask(function: Callable[..., Any], folders: dict[str, str]) -> list[tuple[str, Any]]:
        assert function(folders) == [], "this machine has them all"
        return [
            (node, answer if isinstance(answer, Exception) else [option for option in folders if option in str(answer)])
            for node, answer in nodes.items()
        ]

    return ask


def test_a_cluster_that_has_all_is_fine(tmp_path: Path) -> None:
    assert node_problems(SweepConfig(weights=str(tmp_path)), tmp_path, cluster(first="", second="")) == []


def test_each_folder_is_told_once_with_all_nodes_that_lack_it(tmp_path: Path) -> None:
    config = SweepConfig(storage="/s", weights=str(tmp_path))
    nodes = cluster(first="", second="--storage /s", third=f"--storage /s --weights {tmp_path}")
    storage, weights = node_problems(config, tmp_path, nodes)
    assert storage.startswith("--storage /s is not visible to nodes second, third:")
    assert weights.startswith(f"--weights {tmp_path} is not visible to node third:")


def test_weights_without_a_folder_are_not_looked_for(tmp_path: Path) -> None:
    for weights in ("imagenet", "random", None):
        assert node_problems(SweepConfig(weights=weights), tmp_path, cluster(first="--weights")) == []


def test_a_weights_folder_that_is_nowhere_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    config = SweepConfig(weights=str(tmp_path / "none"))
    assert node_problems(config, tmp_path, cluster(first="--weights")) == []


def test_a_node_without_our_code_is_told_with_the_reason(tmp_path: Path) -> None:
    error = RuntimeError("The worker failed\nModuleNotFoundError: No module named 'sweep'")
    (problem,) = node_problems(SweepConfig(), tmp_path, cluster(first="", second=error))
    assert "node second cannot run trials (ModuleNotFoundError: No module named 'sweep')" in problem


def test_a_node_that_can_fetch_no_weights_is_told_before_the_first_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(trainables.weights, "fetch", refuse)
    plan = dataclasses.replace(planned(), weights={"resnet18": FoundWeights(backbone="resnet18", origin="imagenet")})
    imagenet = dataclasses.replace(plan, config=plan.config.model_copy(update={"weights": "imagenet"}))

    def ask(function: Callable[..., Any], *arguments: Any, within_s: float, **named: Any) -> list[tuple[str, Any]]:
        return [("here", function(*arguments, **named)), ("there", ({}, {})), ("gone", RuntimeError("it\nhas ended"))]

    lacking, gone = weight_problems(imagenet, ask)
    assert lacking.startswith("node here lacks weights of resnet18: weights of resnet18: resnet18-")
    assert "could not be downloaded (no route)" in lacking
    assert gone == "node gone cannot fetch weights (has ended)"
    assert weight_problems(plan, ask) == []


def refuse(url: str, path: Path) -> None:
    raise URLError("no route")


def test_a_folder_is_unseen_where_it_is_not(tmp_path: Path) -> None:
    assert unseen({"here": str(tmp_path), "there": str(tmp_path / "none")}) == ["there"]


def test_trials_that_share_a_gpu_are_not_estimated_to_be_faster_together() -> None:
    plan = planned(trials=8)
    together = [
        dataclasses.replace(plan, config=plan.config.model_copy(update={"gpus_per_trial": share, "concurrency": count}))
        for share, count in ((1.0, 1), (0.25, 4), (0.25, 8), (1.0, 2))
    ]
    assert [estimate._at_full_speed(one, 8) for one in together] == [1, 1, 2, 2]


def test_few_trials_on_many_cores_are_not_estimated_to_use_all_of_them() -> None:
    plan = planned(trials=8)
    many = dataclasses.replace(plan, config=plan.config.model_copy(update={"concurrency": 64}))
    assert [estimate._at_full_speed(many, count) for count in (8, 100)] == [8, 64]


@pytest.mark.parametrize(("precision", "autocast"), [("bf16", True), ("fp32", False)])
def test_the_time_is_measured_in_the_precision_and_the_layout_of_the_trials(
    monkeypatch: pytest.MonkeyPatch, precision: str, autocast: bool
) -> None:
    seen: list[tuple[bool, bool]] = []
    built = estimate.build_model

    def watched(*these: Any) -> Any:
        model = built(*these)
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        last = torch.channels_last
        first.register_forward_pre_hook(
            lambda _, inputs: seen.append(
                (torch.is_autocast_enabled("cpu"), inputs[0].is_contiguous(memory_format=last))
            )
        )
        return model

    monkeypatch.setattr(estimate, "build_model", watched)
    plan = planned(trials=2, precision=precision, backbones=("squeezenet1_1",), weights=("random",), image_size=32)
    (params,) = sampled_trials(plan.space, 1, 0)
    found = estimate._seconds_per_image(plan, params)
    assert min(found.train, found.evaluate) > 0
    assert {*seen} == {(autocast, True)}


def test_the_feature_cache_of_a_bf16_sweep_also_holds_what_finalists_are_predicted_on() -> None:
    """In bf16 both views of 220 images, 200,704 numbers each; in fp32 one view."""

    def gigabytes(**asked: Any) -> float:
        plan = dataclasses.replace(planned(backbones=("resnet18",), **asked), cached_stages={"resnet18": [5]})
        return float(estimate.cache_line(plan).partition("at most ")[2].split()[0])

    assert gigabytes(precision="fp32") == gigabytes(precision="fp32", finalists=0) == 0.35
    assert (gigabytes(precision="bf16"), gigabytes(precision="bf16", finalists=0)) == (0.35, 0.18)


def test_the_time_is_measured_on_as_many_images_as_a_gpu_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, tried, room = planned(trials=2, backbones=("squeezenet1_1",), image_size=32), list[int](), 4
    (params,) = sampled_trials(plan.space, 1, 0)

    def measured(_plan: Plan, _params: object, _device: object, count: int) -> estimate._Seconds:
        tried.append(count)
        if count > room:
            raise torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation")
        return estimate._Seconds(1.0, 1.0, 0.0)

    monkeypatch.setattr(estimate, "_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(estimate, "_measured", measured)
    assert estimate._seconds_per_image(plan, params).train == 1
    assert tried == [32, 16, 8, 4]
    room = 0
    with pytest.raises(UserError, match=r"the GPU cannot be used to estimate the time \(CUDA out of memory.\): free"):
        estimate._seconds_per_image(plan, params)
    assert tried[4:] == [32, 16, 8, 4, 2, 1]


def test_a_checkout_is_known_by_the_files_that_it_tracks(tmp_path: Path) -> None:
    """An installed copy may lie in the checkout of somebody's paper."""

    def git(*arguments: str) -> str:
        options = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *options, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "estimate.py").touch()
    (tmp_path / "paper.tex").touch()
    git("init", "-q")
    git("add", "paper.tex")
    git("commit", "-qm", "a paper")
    assert estimate._commit(tmp_path) is None
    git("add", "sweep")
    git("commit", "-qm", "ours")
    assert estimate._commit(tmp_path) == git("rev-parse", "HEAD")


def test_what_the_gaussian_process_leaves_to_chance_is_told() -> None:
    def told(**more: Any) -> list[str]:
        asked = {"backbones": ("resnet18",), "image_size": 64}
        return [note for note in planned(**asked, **more).notes() if "at random" in note]

    (note,) = told(sampler="gp")
    assert "lr.sgd" in note
    assert told(sampler="tpe") == []
    assert told(sampler="gp", set={"optimizer": "sgd", "loss": "bce", "unfreeze_depth": 4}) == []
