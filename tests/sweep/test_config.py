"""The configuration of a sweep: its defaults, and everything that can be wrong with it by itself."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError
from search_spaces.params import Choices, Range
from sweep.config import ResolvedConfig, SweepConfig, check, pair_problems, resolve
from sweep.machine import Machine
from sweep.option_types import hyperparameters, number, seconds
from trainables.data.config import DataConfig, comma_names, names, text, whole


def problem_of(**changes: Any) -> str:
    """The only problem of a default configuration with these changes on a machine of 8 CPUs and 2 GPUs."""
    (problem,) = check(resolve(SweepConfig(**changes), Machine(cpus=8, gpus=2)), 8, 2)
    return problem


def test_the_demo_is_small_and_starts_from_random_weights() -> None:
    config = resolve(SweepConfig(), Machine(cpus=2, gpus=0))
    assert (config.trials, config.epochs, config.image_size, config.weights) == (16, 6, 64, "random")
    assert config.grace_period == 3
    assert check(config, 2, 0) == []


def test_real_data_get_imagenet_weights_and_a_longer_search() -> None:
    config = resolve(SweepConfig(data="xrays"), Machine(cpus=2, gpus=0))
    assert (config.trials, config.epochs, config.image_size, config.weights) == (64, 20, 224, "imagenet")
    assert config.grace_period == 4
    assert config.scheduler == "asha"


@given(st.integers(1, 200))
def test_the_grace_period_is_a_fifth_but_at_least_three_and_never_above_the_epochs(epochs: int) -> None:
    config = resolve(SweepConfig(epochs=epochs), Machine(cpus=2, gpus=0))
    assert config.grace_period == min(max(3, epochs // 5), epochs)
    assert check(config, 2, 0) == []


@pytest.mark.parametrize(
    ("given_values", "cpus", "gpus", "expected"),
    [
        ({}, 2, 0, (1, 0, 2)),
        ({}, 16, 1, (1, 1, 1)),
        ({}, 16, 4, (1, 1, 4)),
        ({}, 2, 4, (1, 1, 2)),
        ({"gpus_per_trial": 0.5}, 16, 2, (1, 0.5, 4)),
        ({"gpus_per_trial": 0.67}, 16, 3, (1, 0.67, 3)),
        ({"gpus_per_trial": 1 / 3}, 16, 1, (1, 1 / 3, 3)),
        ({"gpus_per_trial": 0.0}, 16, 2, (1, 0, 16)),
        ({"cpus_per_trial": 4}, 16, 0, (4, 0, 4)),
        ({"cpus_per_trial": 3}, 2, 0, (3, 0, 1)),
        ({"concurrency": 2}, 16, 0, (1, 0, 2)),
    ],
)
def test_as_many_trials_run_at_once_as_the_machine_allows(
    given_values: dict[str, Any], cpus: int, gpus: int, expected: tuple[float, ...]
) -> None:
    config = resolve(SweepConfig(**given_values), Machine(cpus=cpus, gpus=gpus))
    assert (config.cpus_per_trial, config.gpus_per_trial, config.concurrency) == expected


@pytest.mark.parametrize(
    ("given", "expected"), [("20GB", 20 * 10**9), ("1.5 tb", 15 * 10**11), ("500M", 5 * 10**8), (0, 0), ("none", None)]
)
def test_a_size_is_read_with_its_unit(given: object, expected: int | None) -> None:
    assert SweepConfig(cache_size=given).cache_size == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [("none", None), ("~/features", "~/features"), ("/x/../y", "/y"), ("features", os.path.abspath("features"))],
)
def test_the_feature_cache_is_a_folder_that_every_process_of_a_node_finds(given: str, expected: str | None) -> None:
    assert SweepConfig(cache_dir=given).cache_dir == expected


@pytest.mark.parametrize("given", ["s3://bucket/features", "~nobody_has_this/features", "a\0b"])
def test_what_is_no_folder_of_a_node_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="--cache-dir"):
        SweepConfig.from_json({"cache_dir": given})


@pytest.mark.parametrize("given", ["20 apples", "-1", -1, "GB", True])
def test_what_is_no_size_is_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"--cache-size.*a size such as"):
        SweepConfig.from_json({"cache_size": given})


@pytest.mark.parametrize("given", ["covid=0.95", " covid = 95e-2", {"covid": 0.95}])
def test_a_target_is_of_one_class(given: object) -> None:
    assert SweepConfig(target_sensitivity=given).target_sensitivity == {"covid": 0.95}
    assert SweepConfig(target_sensitivity="none").target_sensitivity is None
    assert SweepConfig.from_json(SweepConfig(prevalence="a=b=0.5").to_json()).prevalence == {"a=b": 0.5}


@pytest.mark.parametrize("given", ["covid", "0.95", "=0.95", "covid=high", {"a": 0.1, "b": 0.2}, 0.95, "covid=nan"])
def test_what_is_no_class_with_a_share_is_refused(given: object) -> None:
    with pytest.raises(UserError, match=r"--target-specificity"):
        SweepConfig.from_json({"target_specificity": given})


@pytest.mark.parametrize("given", ["covid=0", "covid=1", "covid=1.5", "covid=-0.1"])
def test_a_share_lies_between_0_and_1(given: str) -> None:
    with pytest.raises(UserError, match=f"--prevalence {given}: must be between 0 and 1, neither included"):
        SweepConfig.from_json({"prevalence": given})


@pytest.mark.parametrize(
    ("given", "expected"), [("none", ()), (["none"], ()), ([], ()), ("backbone,lr", ("backbone", "lr"))]
)
def test_a_comparison_can_be_taken_back(given: object, expected: tuple[str, ...]) -> None:
    assert SweepConfig(compare=given).compare == expected
    assert problem_of(compare="none,backbone").startswith("--compare: unknown hyperparameter 'none'")
    told = problem_of(compare="backbone", finalists=0)
    assert told.endswith("omit one of the two (with --resume, none in place of the earlier one)")


def test_a_model_has_one_operating_point_and_a_prevalence_is_of_its_class() -> None:
    sensitivity, specificity = {"target_sensitivity": "a=0.9"}, {"target_specificity": "a=0.9"}
    both = "--target-sensitivity a=0.9 and --target-specificity a=0.9 cannot be combined"
    assert problem_of(**sensitivity, **specificity).startswith(both)
    assert problem_of(prevalence="a=0.1").startswith("--prevalence a=0.1 needs a target for the class")
    apart = "--prevalence b=0.1 and --target-specificity a=0.9: must name the same class"
    assert problem_of(prevalence="b=0.1", **specificity) == apart
    assert problem_of(finalists=0, **sensitivity).startswith("--target-sensitivity a=0.9 needs finalists")
    assert pair_problems(SweepConfig(prevalence="a=0.1", **sensitivity)) == []


def test_a_given_value_is_kept() -> None:
    asked = SweepConfig(
        trials=3, epochs=1, image_size=96, weights="folder", scheduler="none", grace_period=1, finalists=1, repeats=1
    )
    resolved = resolve(asked, Machine(cpus=2, gpus=0))
    assert {name: getattr(resolved, name) for name in asked.model_fields_set} == asked.to_json()
    assert resolve(SweepConfig(image_size=224), Machine(cpus=2, gpus=0)).image_size == 224, "given for the demo, too"


def test_one_epoch_leaves_the_scheduler_nothing_to_stop() -> None:
    assert resolve(SweepConfig(epochs=1), Machine(cpus=2, gpus=0)).scheduler == "none"
    for scheduler in ("asha", "median"):
        assert f"--scheduler {scheduler} cannot stop trials of --epochs 1" in problem_of(epochs=1, scheduler=scheduler)


def test_a_study_runs_its_trials_to_the_end_unless_a_scheduler_is_asked_for() -> None:
    assert resolve(SweepConfig(space="studies.msds19005"), Machine(cpus=2, gpus=0)).scheduler == "none"
    assert (
        resolve(SweepConfig(space="studies.msds19005", scheduler="asha"), Machine(cpus=2, gpus=0)).scheduler == "asha"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": 0}, "--trials 0: must be 1 or more"),
        ({"epochs": 0}, "--epochs 0: must be 1 or more"),
        ({"patience": 0}, "--patience 0: must be 1 or more"),
        ({"grace_period": 0}, "--grace-period 0: must be 1 or more"),
        ({"time_budget": -1.0}, "--time-budget -1.0: must be more than 0 seconds"),
        ({"trial_time_limit": 0.0}, "--trial-time-limit 0.0: must be more than 0 seconds"),
        ({"reduction_factor": 1.5}, "--reduction-factor 1.5: must be 2 or more"),
        ({"seed": -1}, "--seed -1: must be 0 or more"),
        ({"seed": 2**32}, "--seed 4294967296: must be at most 4294967295"),
        ({"image_size": 4}, "--image-size 4: must be at least 8 pixels"),
        ({"cpus_per_trial": 0}, "--cpus-per-trial 0: must be 1 or more"),
        ({"concurrency": 0}, "--concurrency 0: must be 1 or more"),
        ({"gpus_per_trial": 1.5}, "--gpus-per-trial 1.5: must be from 0 to 1"),
        ({"gpus_per_trial": -1.0}, "--gpus-per-trial -1.0: must be from 0 to 1"),
        ({"grace_period": 7}, "--grace-period 7 is above --epochs 6"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(changes: dict[str, Any], told: str) -> None:
    assert problem_of(**changes).startswith(told)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sampler": "tep"}, "--sampler: unknown sampler 'tep': did you mean 'tpe'?"),
        ({"sampler": "cmaes"}, "--sampler: unknown sampler 'cmaes': allowed: gp, grid, qmc, random, tpe"),
        ({"scheduler": "hyperband"}, "--scheduler: unknown scheduler 'hyperband': allowed: asha, median, none"),
        ({"precision": "bf32"}, "--precision: unknown precision 'bf32': did you mean 'fp32'?"),
        ({"fit": "squeeze"}, "--fit: unknown fit 'squeeze'"),
        ({"task": "multilabel"}, "--task: unknown task 'multilabel': did you mean 'multi_label'?"),
        ({"backbones": ("resnet", "vgg16")}, "--backbones: unknown backbone 'resnet'"),
        ({"backbones": ("vgg16", "vgg16")}, "--backbones: vgg16 is given twice"),
    ],
)
def test_an_unknown_choice_is_told_with_the_nearest(changes: dict[str, Any], told: str) -> None:
    assert problem_of(**changes).startswith(told)


def test_rows_are_those_of_a_study() -> None:
    assert check(resolve(SweepConfig(space="studies.msds19005", rows=("Z1",)), Machine(cpus=8, gpus=2)), 8, 2) == []
    assert problem_of(rows=("Z1", "Z2")) == (
        "--rows Z1,Z2: --space partial_unfreeze is not a study, and only studies have rows"
    )


def test_a_list_of_trials_and_a_warm_start_exclude_each_other() -> None:
    told = problem_of(space="studies.msds19005", warm_start="runs/first")
    assert told.startswith("--warm-start runs/first: --space studies.msds19005 is a fixed list of trials")


def test_only_a_run_that_goes_on_has_failed_trials() -> None:
    assert problem_of(retry_failed=True).startswith("--retry-failed reruns failed trials of an earlier run: ")
    resumed = resolve(SweepConfig(retry_failed="all", resume="first"), Machine(cpus=2, gpus=0))
    assert check(resumed, 2, 0) == []


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "-x", "a\\b", "a\nb", "x" * 300])
def test_a_name_is_that_of_one_folder(name: str) -> None:
    assert problem_of(name=name).startswith("--name ")


def test_a_resumed_run_may_be_named_by_its_path() -> None:
    assert check(resolve(SweepConfig(resume="runs/first", name="runs/first"), Machine(cpus=2, gpus=0)), 2, 0) == []


def test_more_than_the_machine_has_is_refused() -> None:
    assert problem_of(cpus_per_trial=9) == "--cpus-per-trial 9: this machine has 8: give a lower number"
    cpus = problem_of(cpus_per_trial=5, concurrency=2)
    assert "needs 10 CPUs: this machine has 8: give a lower number, or fewer --cpus-per-trial" in cpus
    gpus = problem_of(concurrency=3)
    assert "with 1 GPUs per trial: this machine has 2: give a lower number, or a fraction of a GPU to each" in gpus
    for option, value in (("cpus_per_trial", 9), ("concurrency", 9), ("gpus_per_trial", 0.5)):
        begun = SweepConfig.model_validate({"deterministic": True, "resume": "begun", option: value})
        (kept,) = check(resolve(begun, Machine(cpus=8, gpus=0)), 8, 0)
        assert kept.endswith(": continue on a machine that has as many, or start a new run under another --name")
    no_gpu = resolve(SweepConfig(gpus_per_trial=0.5), Machine(cpus=8, gpus=0))
    assert check(no_gpu, 8, 0) == ["--gpus-per-trial 0.5: this machine has 0: give 0 to train on CPUs"]


def test_a_cluster_may_have_fewer_machines_now_than_later() -> None:
    config = resolve(SweepConfig(address="auto", concurrency=100), Machine(cpus=8, gpus=0))
    assert check(config, 8, 0) == []


def test_a_deterministic_sweep_has_a_number_of_concurrent_trials() -> None:
    assert problem_of(address="auto", deterministic=True, concurrency="cluster").startswith(
        "--concurrency cluster and --deterministic cannot be combined"
    )
    assert resolve(SweepConfig(address="auto", deterministic=True), Machine(cpus=8, gpus=0)).concurrency == 8


def test_all_problems_come_together() -> None:
    config = SweepConfig(trials=0, epochs=0, sampler="x", fit="y", backbones=("z",), name="a/b", cpus_per_trial=99)
    assert len(check(resolve(config, Machine(cpus=2, gpus=0)), 2, 0)) == 7


def test_a_configuration_goes_through_json_and_back() -> None:
    config = SweepConfig(
        data="x.csv",
        label_column=("a", "b,c"),
        backbones=("resnet18",),
        set={"lr": 0.1, "unfreeze_depth": None, "dropout": Range(0.1, 0.5), "batch_size": Choices((16, 32))},
        time_budget=90.5,
        group_column="patient",
        name="none",
    )
    for one in (config, resolve(config, Machine(cpus=4, gpus=1)), SweepConfig()):
        assert type(one).from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


def test_unknown_keys_and_wrong_types_of_a_dict_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        SweepConfig.from_json({"epoch": 3, "trials": "many", "deterministic": "yes", "data": 7})
    assert len(caught.value.problems) == 4


def test_what_was_asked_is_saved_as_it_was_given_and_what_was_resolved_whole() -> None:
    asked = SweepConfig(epochs=3, patience=None, label_column=("a",))
    assert asked.to_json() == {"epochs": 3, "patience": None, "label_column": ["a"]}
    assert resolve(asked, Machine(cpus=2, gpus=0)).to_json().keys() == SweepConfig.model_fields.keys()


def test_a_resolved_configuration_leaves_open_only_what_is_off_or_not_there() -> None:
    resolved = resolve(SweepConfig(), Machine(cpus=2, gpus=0))
    assert {name for name, value in resolved if value is None} == {
        *("patience", "time_budget", "trial_time_limit", "folds", "positive_class", "name", "resume", "warm_start"),
        *("target_sensitivity", "target_specificity", "prevalence"),
        *("group_column", "split_column", "source_column", "images_dir", "val_data", "test_data", "label_separator"),
        *("no_finding", "min_class_images", "max_images", "group_from", "class_from", "table"),
        "backbones",  # ``make_plan`` looks for their weights
        "wait_for_nodes",
        "cache_size",  # each node has its own
    }


@pytest.mark.parametrize("name", [name for name, one in SweepConfig.options().items() if not one.later])
def test_a_resolved_setting_that_is_lost_is_named(name: str) -> None:
    saved = resolve(SweepConfig(), Machine(cpus=2, gpus=0)).to_json()
    del saved[name]
    with pytest.raises(UserError, match=f"missing settings: {name}$"):
        ResolvedConfig.from_json(saved)


def test_every_field_is_declared_as_an_option_once() -> None:
    assert SweepConfig.options().keys() == ResolvedConfig.options().keys() == SweepConfig.model_fields.keys()
    assert all(DataConfig.options()[name] is SweepConfig.options()[name] for name in DataConfig.model_fields)
    assert SweepConfig().data_config() == DataConfig()


@pytest.mark.parametrize("value", [True, "1_000", "nan", "1.5", [3]])
def test_no_value_is_bent_into_a_number(value: object) -> None:
    _, wrong = SweepConfig.read({"trials": value})
    assert wrong == {"trials": [f"--trials must be a whole number, received {value!r}"]}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90s", 90),
        ("45m", 2700),
        ("45 min", 2700),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d 2h", 93600),
        ("2H", 7200),
        ("3600", 3600),
        (3600, 3600),
        (0.5, 0.5),
        ("-1", -1),
    ],
)
def test_a_time_is_read_in_seconds(written: object, meant: float) -> None:
    assert seconds(written) == meant


@pytest.mark.parametrize("written", ["", "h", "2x", "2h x", "two hours", "1h-30m", "nan", "inf", True, None, [1]])
def test_what_is_no_time_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match=r"such as 90s, 45m, 2h.*received"):
        seconds(written)


@given(days=st.integers(0, 9), hours=st.integers(0, 99), minutes=st.integers(0, 99), rest=st.integers(0, 99))
def test_the_parts_of_a_time_add_up(days: int, hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{days}d{hours}h{minutes}m{rest}s") == days * 86400 + hours * 3600 + minutes * 60 + rest


@given(st.integers())
def test_every_whole_number_is_read_exactly(value: int) -> None:
    assert whole(value) == whole(str(value)) == value


@pytest.mark.parametrize(("written", "meant"), [("20.0", 20), (20.0, 20), ("1e2", 100)])
def test_a_whole_number_may_be_written_as_a_fraction(written: object, meant: int) -> None:
    assert whole(written) == meant


@pytest.mark.parametrize("written", ["x", "20.5", 20.5, True, None, "", "inf", "1_000", [20]])
def test_what_is_no_whole_number_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number, received"):
        whole(written)


@pytest.mark.parametrize("written", ["x", "nan", float("inf"), True, None])
def test_what_is_no_finite_number_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="must be a number, received"):
        number(written)


def test_text_that_is_empty_or_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        text("  ")
    with pytest.raises(ValueError, match="quote it"):
        text(2024)


def test_names_come_alone_in_a_list_or_with_commas() -> None:
    assert names("covid, suspected") == ("covid, suspected",)
    assert names(["a", "b"]) == ("a", "b")
    assert comma_names(["resnet18, vgg16", "densenet121"]) == ("resnet18", "vgg16", "densenet121")
    with pytest.raises(ValueError, match="must not be empty"):
        comma_names("resnet18,")


@pytest.mark.parametrize("written", [["lr=1e-3", "batch_size = 16"], {"lr": "1e-3", "batch_size": 16}])
def test_hyperparameters_get_the_type_of_their_field(written: object) -> None:
    assert hyperparameters(written) == {"lr": 0.001, "batch_size": 16}


@pytest.mark.parametrize(
    "written",
    [
        ["lr=1e-4..1e-2", "batch_size=16, 32", "loss=bce"],
        {"lr": "1e-4..1e-2", "batch_size": [16, 32], "loss": "bce"},
        {"lr": {"low": 1e-4, "high": 1e-2}, "batch_size": {"choices": [16, 32]}, "loss": "bce"},
    ],
)
def test_a_part_of_a_hyperparameter_may_be_left_to_the_search(written: object) -> None:
    assert hyperparameters(written) == {"lr": Range(1e-4, 1e-2), "batch_size": Choices((16, 32)), "loss": "bce"}


def test_everything_wrong_with_hyperparameters_is_told_together() -> None:
    with pytest.raises(UserError) as caught:
        hyperparameters(["lr", "lrr=1", "batch_size=many", "dropout=0", "dropout=0.5", "=3"])
    told = caught.value.problems
    assert [problem.split(":")[0] for problem in told] == [
        "--set lr",
        "--set =3",
        "--set lrr=1",
        "--set batch_size=many",
        "--set dropout is given twice",
    ]
    assert "did you mean 'lr'" in told[2]


def test_values_that_can_be_read_are_kept_beside_those_that_cannot() -> None:
    config, wrong = SweepConfig.read({"epochs": "five", "trials": "5", "epoch": 3})
    assert config == SweepConfig(trials=5).without({"epochs", "epoch"})
    assert config.model_fields_set == {"trials"}
    assert wrong == {
        "epochs": ["--epochs must be a whole number, received 'five'"],
        "epoch": ["unknown setting epoch: did you mean epochs? --help-all lists all"],
    }


@given(
    st.dictionaries(
        st.sampled_from(sorted(SweepConfig.model_fields)), st.one_of(st.text(), st.integers(), st.booleans(), st.none())
    )
)
def test_no_input_is_worse_than_a_sentence(raw: dict[str, object]) -> None:
    config, wrong = SweepConfig.read(raw)
    assert config.model_fields_set == raw.keys() - wrong.keys()
    assert all(wrong.values())


def test_an_option_that_came_later_than_a_run_has_its_default_there(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = resolve(SweepConfig(patience=3), Machine(cpus=2, gpus=0)).to_json()
    del saved["patience"]
    declared = dataclasses.replace(ResolvedConfig.options()["patience"], later=True)
    monkeypatch.setitem(ResolvedConfig.options(), "patience", declared)
    assert ResolvedConfig.from_json(saved).patience is None
