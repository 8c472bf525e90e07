"""What a sweep is asked to do: one frozen object, its defaults, and everything that can be wrong with it by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from search_spaces.errors import raise_all, unknown
from search_spaces.params import BACKBONE_NAMES, Override, TrialParams
from sweep.values import option, read_values
from trainables.data.config import DataConfig

SAMPLERS = ("tpe", "gp", "qmc", "random", "grid")
SCHEDULERS = ("asha", "median", "none")
PRECISIONS = ("fp32", "bf16")
COMPARABLE = tuple(field.name for field in dataclasses.fields(TrialParams))
LARGEST_SEED = 2**32 - 1  # of numpy's and scikit-learn's generators
LONGEST_NAME = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Everything that is the same for all trials of a sweep. Fields are the options, with underscores.

    None means: depends on the data or the machine, and is filled in by ``with_defaults``; or off (patience,
    time_budget, trial_time_limit); or not there (columns, backbones, name, resume).

    data: "demo", or a folder or .csv manifest; task: "auto", "single_label" or "multi_label"; label_column,
    path_column, group_column, split_column, subgroup_column, source_column: of a manifest.
    space: a name, or the path of a Python file; rows: ids of a study's rows, only these are run, () = all that fit;
    backbones: exactly these, None = all whose weights are found; set: hyperparameters fixed in every trial.
    weights: "imagenet", "random" or a folder; image_size: pixels of a side, >= 8; fit: "squash", "crop" or "pad".
    finalists: configurations repeated after the search, 0 = none; repeats: fresh seeds of each, >= 1; folds: >= 2, or
    None; compare: hyperparameters whose cells' best are repeated, too; positive_class: one of the classes.
    trials: >= 1; epochs: of a trial, >= 1; patience: epochs without a better metric, >= 1; time_budget: of the sweep
    and trial_time_limit: of a trial, seconds, > 0.
    metric: a column of epochs.parquet; sampler: one of ``SAMPLERS``; scheduler: one of ``SCHEDULERS``;
    grace_period: epochs that every trial may run, 1 to epochs; reduction_factor: >= 2, one in so many goes on.
    seed: 0 to 2**32 - 1; deterministic: same seed, same sweep; precision: "fp32" or "bf16".
    cpus_per_trial: >= 1, torch threads of a trial; gpus_per_trial: 0 to 1, a fraction shares one; concurrency: trials
    at once, >= 1; address: "local" or that of a Ray cluster; storage: the folder of run folders, one that every node
    sees; name: of the run folder; resume: name or path of a run folder.
    allow_leakage, skip_unreadable: go on, marked, where the data would stop the sweep; dry_run: run no trial.
    """

    data: str = "demo"
    label_column: tuple[str, ...] = ()
    path_column: str = "path"
    group_column: str | None = None
    split_column: str | None = None
    subgroup_column: tuple[str, ...] = ()
    source_column: str | None = None
    task: str = "auto"
    allow_leakage: bool = False
    skip_unreadable: bool = False
    image_size: int | None = None
    fit: str = "squash"

    space: str = "partial_unfreeze"
    rows: tuple[str, ...] = ()
    backbones: tuple[str, ...] | None = None
    set: Mapping[str, Override] = dataclasses.field(default_factory=dict)
    weights: str | None = None

    trials: int | None = None
    epochs: int | None = None
    patience: int | None = None
    time_budget: float | None = None
    trial_time_limit: float | None = None

    finalists: int | None = None
    repeats: int | None = None
    folds: int | None = None
    compare: tuple[str, ...] = ()
    positive_class: str | None = None

    metric: str = "val_f1_macro"
    sampler: str = "tpe"
    scheduler: str | None = None
    grace_period: int | None = None
    reduction_factor: float = 3.0
    seed: int = 0
    deterministic: bool = False
    precision: str = "fp32"

    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None
    concurrency: int | None = None
    address: str = "local"

    storage: str = "runs"
    name: str | None = None
    resume: str | None = None
    dry_run: bool = False

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Build from ``to_dict``'s values, or such as YAML has; ``UserError`` with every unknown key and wrong type."""
        read, problems = read_values(raw)
        raise_all(problems)
        return cls(**read)

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON has: tuples become lists, times are seconds."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for name, value in plain.items()
        }


def with_defaults(config: SweepConfig, cpus: int, gpus: float) -> SweepConfig:
    """``config`` with what depends on the data (demo or not) and on the machine filled in; a given value is kept.

    cpus, gpus: of the machine or the whole cluster. A trial gets one GPU if there is one, else one CPU, and as many
    trials run at once as these allow. A scheduler needs at least two epochs to stop anything, and a study runs
    its list to the end.
    """
    demo = config.data == "demo"
    epochs = _or(config.epochs, 6 if demo else 20)
    cpus_per_trial = _or(config.cpus_per_trial, 1)
    gpus_per_trial = _or(config.gpus_per_trial, 1.0 if gpus >= 1 else 0.0)
    at_once = cpus // max(1, cpus_per_trial)
    if gpus_per_trial > 0:
        # Of several GPUs each holds whole trials: two thirds of a GPU leave room for one trial on it, not for 1.5.
        at_once = min(at_once, int(gpus) * int(1 / gpus_per_trial + 1e-9))
    return dataclasses.replace(
        config,
        trials=_or(config.trials, 16 if demo else 64),
        epochs=epochs,
        image_size=_or(config.image_size, 64 if demo else 224),
        weights=_or(config.weights, "random" if demo else "imagenet"),
        # The lists of the studies run what was claimed, to the end.
        finalists=_or(config.finalists, 2 if demo else 3),
        # With folds every image but the test's validates once: that is the repetition.
        repeats=_or(config.repeats, 1 if config.folds is not None else 2 if demo else 3),
        scheduler=_or(config.scheduler, "asha" if epochs > 1 and not config.space.startswith("studies.") else "none"),
        grace_period=_or(config.grace_period, max(1, min(max(3, epochs // 5), epochs))),
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        concurrency=_or(config.concurrency, max(1, at_once)),
    )


def check(config: SweepConfig, cpus: int | None = None, gpus: float | None = None) -> list[str]:
    """Everything wrong with ``config`` by itself and for a machine of so many CPUs and GPUs; [] if it can be run.

    One sentence a problem. Fields that are None are not looked at; nor is what only the data, the weights folder or
    the search space can tell (``plan`` does).
    """
    return [
        *_data_problems(config),
        *_choice_problems(config),
        *_range_problems(config),
        *_pair_problems(config),
        *name_problems(config),
        *_resource_problems(config, cpus, gpus),
    ]


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _data_problems(config: SweepConfig) -> list[str]:
    image_size = DataConfig.image_size if config.image_size is None else config.image_size
    return DataConfig(
        data=config.data,
        task=config.task,
        label_columns=config.label_column,
        image_size=image_size,
        fit=config.fit,
        seed=config.seed,
    ).problems()


def _choice_problems(config: SweepConfig) -> list[str]:
    choices = {"sampler": SAMPLERS, "scheduler": SCHEDULERS, "precision": PRECISIONS}
    found = [
        f"{option(name)}: {unknown(name, given, allowed)}"
        for name, allowed in choices.items()
        if (given := getattr(config, name)) is not None and given not in allowed
    ]
    found += [
        f"--compare: {unknown('hyperparameter', name, COMPARABLE)}" for name in config.compare if name not in COMPARABLE
    ]
    backbones = config.backbones or ()
    found += [unknown("backbone", name, BACKBONE_NAMES) for name in backbones if name not in BACKBONE_NAMES]
    found += [
        f"--backbones: {name} is named twice" for name in sorted({n for n in backbones if backbones.count(n) > 1})
    ]
    return found


def _range_problems(config: SweepConfig) -> list[str]:
    counts = ("trials", "epochs", "patience", "repeats", "grace_period", "cpus_per_trial", "concurrency")
    at_least_one = [(name, _or(getattr(config, name), 1) >= 1, "1 or more") for name in counts]
    above_zero = [
        (n, _or(getattr(config, n), 1) > 0, "more than 0 seconds") for n in ("time_budget", "trial_time_limit")
    ]
    others = [
        ("finalists", _or(config.finalists, 0) >= 0, "0 (none) or more"),
        ("folds", _or(config.folds, 2) >= 2, "2 or more"),
        ("reduction_factor", config.reduction_factor >= 2, "2 or more: one trial in so many goes on"),
        ("seed", config.seed <= LARGEST_SEED, f"at most {LARGEST_SEED}"),
        (
            "gpus_per_trial",
            0 <= _or(config.gpus_per_trial, 0) <= 1,
            "from 0 to 1: a trial has one GPU, or a part",
        ),
    ]
    return [
        f"{option(name)} {getattr(config, name)}: must be {allowed}"
        for name, fits, allowed in (*at_least_one, *above_zero, *others)
        if not fits
    ]


def _pair_problems(config: SweepConfig) -> list[str]:
    """Settings that are fine each, and cannot work together."""
    found = []
    if config.folds is not None and _or(config.repeats, 1) > 1:
        both = f"--folds {config.folds} and --repeats {config.repeats}"
        found.append(f"{both} cannot go together, as each fold is trained once: give one of them")
    if config.finalists == 0:
        found += [
            f"{option(name)} {given} is about finalists, and --finalists 0 asks for none: leave one of them out"
            for name, given in (("folds", config.folds), ("compare", ",".join(config.compare)))
            if given
        ]
    if config.rows and not config.space.startswith("studies."):
        found.append(f"--rows {','.join(config.rows)}: --space {config.space} is no study, and only studies have rows")
    if config.epochs is None or config.epochs < 1:
        return found
    if config.scheduler in ("asha", "median") and config.epochs == 1:
        found.append(
            f"--scheduler {config.scheduler} has nothing to stop in --epochs 1: give more epochs, or --scheduler none"
        )
    if config.scheduler != "none" and (config.grace_period or 0) > config.epochs:
        found.append(
            f"--grace-period {config.grace_period} is above --epochs {config.epochs}: no trial could be stopped; give "
            "a smaller one, or --scheduler none"
        )
    return found


def name_problems(config: SweepConfig) -> list[str]:
    """Why a new run cannot have the name that ``config`` gives it, one sentence; [] if it can."""
    if config.resume is not None or config.name is None:
        return []
    name = config.name
    wrong = "/" in name or "\\" in name or name.startswith(".") or not name.isprintable()
    if wrong or len(name.encode(errors="replace")) > LONGEST_NAME:
        return [
            f"--name {name!r}: must name one folder: no slash, no dot at the beginning, no control characters, at most "
            f"{LONGEST_NAME} bytes; where it goes is --storage"
        ]
    return []


def _resource_problems(config: SweepConfig, cpus: int | None, gpus: float | None) -> list[str]:
    where = "this machine" if config.address == "local" else f"the cluster at {config.address}"
    found = []
    asked_cpus = config.cpus_per_trial or 0
    if cpus is not None and asked_cpus > cpus:
        found.append(f"--cpus-per-trial {asked_cpus}: {where} has {cpus}")
    elif cpus is not None and config.address == "local" and (config.concurrency or 0) * max(1, asked_cpus) > cpus:
        found.append(
            f"--concurrency {config.concurrency} with {max(1, asked_cpus)} CPUs a trial needs "
            f"{(config.concurrency or 0) * max(1, asked_cpus)} CPUs: {where} has {cpus}"
        )
    asked_gpus = config.gpus_per_trial or 0
    if gpus is None or asked_gpus > 1:  # More than one is out of range on any machine.
        return found
    if asked_gpus > gpus:
        found.append(f"--gpus-per-trial {asked_gpus:g}: {where} has {gpus:g}")
    elif config.address == "local" and (config.concurrency or 0) * asked_gpus > gpus + 1e-6:
        found.append(f"--concurrency {config.concurrency} with {asked_gpus:g} GPUs a trial: {where} has {gpus:g}")
    return found
