"""The configuration of a sweep: every option declared once, with its default, and the checks that need no data.

An option is one field of a config here, or of the data's in ``trainables.data.config``. The command line, its help, the
YAML file, the checks of ``problems`` and the saved settings are derived from it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Self

from search_spaces.errors import UserError, raise_all, some
from search_spaces.params import BACKBONE_NAMES, TrialParams, override_to_json
from sweep.machine import Machine
from sweep.option_types import (
    CLUSTER,
    BytesOrNone,
    ClassShareOrNone,
    CommaNamesOrNone,
    Concurrency,
    Hyperparameters,
    NodeFolderOrNone,
    Number,
    SecondsOrNone,
    Weights,
    WhichFailed,
    WholeOrNone,
)
from trainables.data.config import CommaNames, DataConfig, Flag, Text, Whole, dashed, option

LONGEST_NAME = 200
SAMPLERS = ("tpe", "gp", "qmc", "random", "grid")
SCHEDULERS = ("asha", "median", "none")
PRECISIONS = ("fp32", "bf16", "auto")
CACHE_DIR = "~/.cache/sweep"
COMPARABLE = tuple(TrialParams.__dataclass_fields__)
GROUPS = ("images", "what is tried", "how much", "search", "evidence", "machines", "place")
TARGETS = ("target_sensitivity", "target_specificity")
"""The options that ask for an operating point."""
OR_ANEW = "or start a new run under another --name"


_tried, _how_much, _search = (functools.partial(option, group) for group in GROUPS[1:4])
# A resumed run may change these: they decide how much is run and where, not the score of a trial.
_evidence, _machines, _place = (functools.partial(option, group, anew=True) for group in GROUPS[4:])


class SweepConfig(DataConfig):
    """The settings that all trials of a sweep share, as the user gave them.

    None means: not given; or off (patience, time_budget, trial_time_limit, folds, wait_for_nodes, cache_dir); or absent
    (columns, name, resume, positive_class, target_sensitivity, target_specificity, prevalence, warm_start).
    ``model_fields_set`` names the given fields; ``resolve`` fills in the rest.
    """

    space: Text = _tried(
        "partial_unfreeze",
        "NAME",
        "search space: partial_unfreeze, head_only, full_finetune, imbalance, a published study (studies.bscs17028, "
        "studies.msds18022, studies.msds19058, studies.msds19005, studies.msds19042), or a Python file of your own",
        path=True,
    )
    rows: CommaNames = _tried(
        (), "IDS", "study: run only these rows, such as W2,W4; default: all that fit the data", many=True
    )
    backbones: CommaNames | None = _tried(
        None,
        "NAMES",
        "networks to try, separated by commas; default: those of twelve whose weights are found, demo three; a wrong "
        "name lists all",
        many=True,
        allowed=BACKBONE_NAMES,
        kind="backbone",
    )
    weights: Weights | None = _tried(
        None,
        "FROM",
        "starting weights: imagenet, random, a folder of weight files, or NAME=FILE for one network, also with the "
        "others (NAME=FILE,range=-1024:1024: scale pixels of 0..255 to this range); may be repeated; default: "
        "imagenet, demo random",
        many=True,
        anew=True,  # The files may have moved: a resumed run compares their content.
    )
    set: Hyperparameters = _tried(
        {},
        "NAME=VALUE",
        "fix a hyperparameter in every trial, such as lr=1e-3, or search only part of the space: lr=1e-4..1e-2, "
        "batch_size=16,32; may be repeated; a wrong name lists all",
        many=True,
    )

    trials: Whole | None = _how_much(
        None, "N", "configurations to try; default: 64, demo 16 (a study: its list)", least=1, anew=True
    )
    epochs: Whole | None = _how_much(
        None, "N", "maximum epochs per trial; default: 20, demo 6 (a study: its own)", least=1
    )
    patience: WholeOrNone = _how_much(
        None, "N", "end a trial after N epochs without improvement of the metric; default: none", least=1
    )
    time_budget: SecondsOrNone = _how_much(
        None,
        "TIME",
        "stop after 90m, 2h, 1d (a number: seconds), finalists' repeats included; --resume continues; default: none",
        above_s=0,
        anew=True,
    )
    trial_time_limit: SecondsOrNone = _how_much(
        None, "TIME", "a trial that takes longer fails; units as above; default: none", above_s=0, anew=True
    )

    metric: Text = _search(
        "val_f1_macro", "NAME", "validation score to select by, at each trial's best epoch; a wrong name lists all"
    )
    sampler: Text = _search(
        "tpe", "NAME", "tpe, gp, qmc, random, or grid (all configurations of a finite space)", allowed=SAMPLERS
    )
    scheduler: Text | None = _search(
        None,
        "NAME",
        "stops poor trials early: asha, median or none; default: asha (a study, or one epoch: none)",
        allowed=SCHEDULERS,
    )
    grace_period: Whole | None = _search(
        None, "N", "epochs before a trial can be stopped; default: a fifth of the epochs, at least 3", least=1
    )
    reduction_factor: Number = _search(3.0, "X", "asha continues one trial in X at each rung; 2 or more", least=2)
    warm_start: Text | None = _search(
        None,
        "RUN",
        "folder of an earlier run with the same metric; its ten best trials are tried first; default: none",
        later=True,
    )
    deterministic: Flag = _search(
        False, None, "the same seed gives the same sweep, even with concurrent trials; slower"
    )
    precision: Text = _search(
        "fp32",
        "NAME",
        "precision of networks: fp32, bf16 (faster on new CPUs and GPUs), or auto (bf16 if every node is fast at it)",
        allowed=PRECISIONS,
    )

    finalists: Whole | None = _evidence(
        None, "N", "best configurations to retrain with new seeds; 0: none; default: 3, demo 2", least=0
    )
    repeats: Whole | None = _evidence(
        None, "N", "trainings of each finalist; default: 3, demo 2, with --folds 1", least=1
    )
    folds: WholeOrNone = _evidence(
        None,
        "K",
        "retrain finalists by K-fold cross-validation on train + val, once per fold; default: the run's split",
        least=2,
    )
    compare: CommaNamesOrNone = _evidence(
        (),
        "NAMES",
        "also retrain the best trial of each combination of these hyperparameters, such as backbone,unfreeze_depth, "
        "with at least three ended trials; the cost is shown first; default: none",
        many=True,
        allowed=COMPARABLE,
        kind="hyperparameter",
    )
    positive_class: Text | None = _evidence(
        None, "NAME", "the class whose sensitivity and specificity the report states first"
    )
    target_sensitivity: ClassShareOrNone = _evidence(
        None,
        "CLASS=VALUE",
        "decide CLASS at the highest threshold with at least this validation sensitivity, such as covid=0.95, in the "
        "model and the report; default: the most likely class; multi-label: each label's tuned threshold",
        later=True,
    )
    target_specificity: ClassShareOrNone = _evidence(
        None,
        "CLASS=VALUE",
        "the same, at the lowest threshold with at least this specificity; default: none",
        later=True,
    )
    prevalence: ClassShareOrNone = _evidence(
        None,
        "CLASS=VALUE",
        "with a target: prevalence of CLASS where the model will be used, for the PPV there; default: none",
        later=True,
    )

    cpus_per_trial: Whole | None = _machines(None, "N", "CPUs (and torch threads) per trial; default: 1", least=1)
    gpus_per_trial: Number | None = _machines(
        None,
        "X",
        "GPUs per trial: 1, or a fraction such as 0.5 to share one; default: 1 if there is a GPU, else 0",
        least=0,
        most=1,
        out_of_range="must be from 0 to 1: a trial uses one GPU, or a fraction of one",
    )
    concurrency: Concurrency | None = _machines(
        None,
        "N",
        "concurrent trials, or cluster: as many as it has room for at any time; default: as many as CPUs and GPUs "
        "allow, with --address cluster",
        least=1,
    )
    address: Text = _machines(
        "local", "ADDRESS", "a running Ray cluster, such as auto or HOST:6379; default: local (this machine)"
    )
    wait_for_nodes: Whole | None = _machines(
        None, "N", "wait until the cluster has N machines; default: start with any", least=1, later=True
    )

    cache_dir: NodeFolderOrNone = _machines(
        CACHE_DIR,
        "FOLDER",
        "cache on each node for outputs of frozen layers, shared by trials and sweeps; none: each trial computes them; "
        "default: ~/.cache/sweep",
        later=True,
        rare=True,
    )
    cache_size: BytesOrNone = _machines(
        None,
        "SIZE",
        "maximum size of --cache-dir, such as 20GB; default: a fifth of the free disk, at most 50GB",
        later=True,
        rare=True,
    )

    storage: Text = _place("runs", "FOLDER", "folder of the runs; on a cluster, visible to every node", path=True)
    name: Text | None = _place(None, "NAME", "name of the new run folder; default: the space and the time")
    resume: Text | None = _place(
        None,
        "NAME",
        "continue a run; --trials, the time limits, the paths of data and weights (if they moved), and the options of "
        "evidence and machines may be changed",
        path=True,
    )
    retry_failed: WhichFailed = _place(
        False,
        "[all]",
        "with --resume: rerun failed trials, from their last epoch if the run has not ended; all: also those whose "
        "loss became NaN or infinite",
        later=True,
        alone=True,
    )
    dry_run: Flag = _place(False, None, "print the configuration, five trials, and estimated time and disk")

    @property
    def demo(self) -> bool:
        return self.data == "demo"

    @property
    def study(self) -> bool:
        """Whether the space is a published study: a fixed list of trials, by default run to their ends."""
        return self.space.startswith("studies.")

    @property
    def fixed_concurrency(self) -> int | None:
        """Concurrent trials if given as a number; None for "as many as the cluster allows at any time"."""
        return self.concurrency if isinstance(self.concurrency, int) else None

    def data_config(self) -> DataConfig:
        """The part about the data."""
        return DataConfig(**{name: getattr(self, name) for name in DataConfig.model_fields})

    def to_json(self) -> dict[str, Any]:
        """The given fields as JSON values."""
        values = super().to_json() | {"set": {key: override_to_json(value) for key, value in self.set.items()}}
        return {name: value for name, value in values.items() if name in self.model_fields_set}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Build from values of ``to_json`` or of a YAML file; ``UserError`` with every unknown key and wrong type."""
        config, wrong = cls.read(raw)
        raise_all([problem for problems in wrong.values() for problem in problems])
        return config


class ResolvedConfig(SweepConfig):
    """The settings of a sweep, complete: what depends on the data or the machine is filled in.

    None means off (patience, time_budget, trial_time_limit, folds, wait_for_nodes, cache_dir) or absent (columns, name,
    resume, positive_class, target_sensitivity, target_specificity, prevalence, warm_start). backbones: None until the
    weights have been looked for. cache_size: None = what each node allows.
    """

    weights: Weights
    trials: Whole
    epochs: Whole
    scheduler: Text
    grace_period: Whole
    finalists: Whole
    repeats: Whole
    cpus_per_trial: Whole
    gpus_per_trial: Number
    concurrency: Concurrency

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """As ``SweepConfig.from_json``, but a missing key is an error: its default could make it another sweep.

        An option added ``later`` than the run has its default.
        """
        if missing := sorted(name for name, one in cls.options().items() if name not in raw and not one.later):
            raise UserError(f"missing settings: {some(missing, 3)}")
        return cls(**dict(SweepConfig.from_json(raw)))


def resolve(config: SweepConfig, machine: Machine) -> ResolvedConfig:
    """``config`` with the defaults that depend on the data (demo or not) and on the machine; given values are kept.

    machine: this one or the whole cluster. A trial gets one CPU, and one GPU if there is one; as many trials run at
    once as these allow. On a cluster this number follows its size, except in a deterministic sweep. The default
    scheduler is none for one epoch (nothing could be stopped) and for a study, which runs its list to the end.
    """
    values = dict(config)

    def default(name: str, value: Any) -> Any:
        if values[name] is None:
            values[name] = value
        return values[name]

    demo = config.demo
    if demo and "image_size" not in config.model_fields_set:
        values["image_size"] = 64
    default("weights", "random" if demo else "imagenet")
    default("trials", 16 if demo else 64)
    epochs = default("epochs", 6 if demo else 20)
    default("scheduler", "asha" if epochs > 1 and not config.study else "none")
    default("grace_period", max(1, min(max(3, epochs // 5), epochs)))
    default("finalists", 2 if demo else 3)
    # With folds, every image outside the test split validates once: the folds are the repeats.
    default("repeats", 1 if config.folds is not None else 2 if demo else 3)
    cpus, share = default("cpus_per_trial", 1), default("gpus_per_trial", 1.0 if machine.gpus >= 1 else 0.0)
    if values["precision"] == "auto":
        values["precision"] = "bf16" if machine.fast_bf16(on_gpu=share > 0) else "fp32"
    grows = config.address != "local" and not config.deterministic
    default("concurrency", CLUSTER if grows else max(1, machine.slots(cpus, share)))
    return ResolvedConfig(**values).without(config.unread)


def check(config: SweepConfig, cpus: int | None = None, gpus: float | None = None) -> list[str]:
    """The problems of ``config`` itself, and on a machine with so many CPUs and GPUs; [] if it can be run.

    gpus: infinite if an autoscaler may start some. One sentence per problem. Fields that are None are not checked, nor
    is what needs the data, the weights folder or the search space (``plan`` checks that).
    """
    return [
        *config.problems(),
        *pair_problems(config),
        *name_problems(config),
        *_resource_problems(config, cpus, gpus),
    ]


def pair_problems(config: SweepConfig) -> list[str]:
    """Settings that are valid alone but not together; fields that could not be read are not considered."""
    return [sentence for fields, sentence in _pairs(config) if not config.unread & {*fields}]


def _pairs(config: SweepConfig) -> Iterator[tuple[tuple[str, ...], str]]:
    """The fields that cannot work together, with a sentence for each such set."""
    epochs, grace_period, repeats = config.epochs or 0, config.grace_period or 0, config.repeats or 1
    target, prevalence = config.target_sensitivity or config.target_specificity, config.prevalence
    targets, space = pair_text(config, *TARGETS), f"--space {config.space}"
    if config.folds is not None and repeats > 1:
        both = f"--folds {config.folds} and --repeats {config.repeats} cannot be combined, as each fold is trained once"
        way_out = "give only one (with --resume, add --repeats 1 or --folds none to replace the earlier one)"
        yield ("folds", "repeats"), f"{both}: {way_out}"
    of_finalists = {
        ("folds",): config.folds and f"--folds {config.folds}",
        ("compare",): config.compare and f"--compare {','.join(config.compare)}",
        TARGETS: target and targets,
    }
    for fields, given in of_finalists.items():
        if config.finalists == 0 and given:
            way_out = "omit one of the two (with --resume, none in place of the earlier one)"
            what = f"needs finalists, but --finalists 0 disables them: {way_out}"
            yield ("finalists", *fields), f"{given} {what}"
    if config.target_sensitivity and config.target_specificity:
        way_out = "give only one (with --resume, none in place of the earlier one)"
        yield TARGETS, f"{targets} cannot be combined, as a model has one operating point: {way_out}"
    if prevalence and not target:
        way_out = "add --target-sensitivity or --target-specificity, or omit it"
        yield ("prevalence", *TARGETS), f"{pair_text(config, 'prevalence')} needs a target for the class: {way_out}"
    if prevalence and target and prevalence.keys() != target.keys():
        yield ("prevalence", *TARGETS), f"{pair_text(config, 'prevalence', *TARGETS)}: must name the same class"
    if config.rows and not config.study:
        yield ("rows", "space"), f"--rows {','.join(config.rows)}: {space} is not a study, and only studies have rows"
    if config.warm_start is not None and config.study:
        what = "is a fixed list of trials: omit one of the two"
        yield ("warm_start", "space"), f"--warm-start {config.warm_start}: {space} {what}"
    if config.retry_failed and config.resume is None:
        what = "reruns failed trials of an earlier run: name that run with --resume, or omit it"
        yield ("retry_failed", "resume"), f"--retry-failed {what}"
    if config.scheduler in ("asha", "median") and epochs == 1:
        what = "cannot stop trials of --epochs 1: give more epochs, or --scheduler none"
        yield ("scheduler", "epochs"), f"--scheduler {config.scheduler} {what}"
    if config.scheduler != "none" and grace_period > epochs >= 1:
        what = f"is above --epochs {epochs}, so no trial could be stopped: give a smaller one, or --scheduler none"
        yield ("scheduler", "epochs", "grace_period"), f"--grace-period {grace_period} {what}"


def idle_problems(arguments: Collection[str], config: SweepConfig) -> list[str]:
    """Which options of the command line have no effect with the rest of ``config``, one sentence each.

    Options in a --config file are not checked: the same file may serve many commands.
    """
    given = {argument.partition("=")[0] for argument in arguments}
    default = "" if "--scheduler" in given else "(the default of a study and of --epochs 1) "
    scheduler, listed = config.scheduler, f"--space {config.space} runs a fixed list of trials"
    known = "epochs" not in config.unread and ("--epochs" in given or not config.study)
    epochs = (config.epochs or 0) if known else 0
    reasons = {
        "trials": config.study and f"{listed}; --rows selects some",
        "sampler": config.study and listed,
        "patience": 0 < epochs <= (config.patience or -1) + 1 and f"--epochs {epochs} ends every trial by then",
        "repeats": config.finalists == 0 and "--finalists 0 leaves no finalists to retrain",
        "grace_period": scheduler == "none" and f"--scheduler none {default}stops no trial early",
        "reduction_factor": scheduler in ("median", "none") and f"--scheduler {scheduler} {default}has no rungs",
        "cache_size": config.cache_dir is None and "--cache-dir none disables the cache",
    }
    return [
        f"{dashed(name)} {_short(getattr(config, name))} has no effect, as {why}: omit it, or change that"
        for name, why in reasons.items()
        if why and dashed(name) in given and name not in config.unread
    ]


def _short(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def pair_text(config: SweepConfig, *names: str) -> str:
    """The given ones of the CLASS=VALUE options ``names``, as written on the command line."""
    given = {name: getattr(config, name) or {} for name in names}
    return " and ".join(f"{dashed(name)} {key}={one:g}" for name, pair in given.items() for key, one in pair.items())


def name_problems(config: SweepConfig) -> list[str]:
    """Why a new run cannot have the name that ``config`` gives it, one sentence; [] if it can."""
    if config.resume is not None or (name := config.name) is None:
        return []
    wrong = "/" in name or "\\" in name or name.startswith((".", "~", "-")) or not name.isprintable()
    if not wrong and len(name.encode(errors="replace")) <= LONGEST_NAME:
        return []
    return [
        f"--name {name!r}: must be a folder name without slashes or control characters, not beginning with a dot, ~ "
        f"or -, at most {LONGEST_NAME} bytes; --storage sets its parent folder"
    ]


def _resource_problems(config: SweepConfig, cpus: int | None, gpus: float | None) -> list[str]:
    local = config.address == "local"
    where = "this machine" if local else f"the cluster at {config.address}"
    asked_cpus, asked_gpus = config.cpus_per_trial or 0, config.gpus_per_trial or 0
    at_once = config.fixed_concurrency or 0
    sound = not config.unread & {"concurrency", "cpus_per_trial", "gpus_per_trial"}
    elsewhere = f"a deterministic run keeps it: continue on a machine that has as many, {OR_ANEW}"
    kept = elsewhere if config.deterministic and config.resume is not None else ""
    found = []
    if local and config.concurrency == CLUSTER:
        found.append(f"--concurrency {CLUSTER} needs a cluster: add --address, or give a number")
    elif config.deterministic and config.concurrency == CLUSTER and config.resume is None:
        what = "cannot be combined, as the order of trials would depend on the cluster"
        found.append(f"--concurrency {CLUSTER} and --deterministic {what}: give a number, or omit one of the two")
    if local and config.wait_for_nodes is not None:
        found.append(f"--wait-for-nodes {config.wait_for_nodes} needs a cluster: add --address, or omit it")
    if cpus is not None and asked_cpus > cpus:
        has = f"{where} has {cpus}" if local else f"no machine of {where} has more than {cpus}"
        found.append(f"--cpus-per-trial {asked_cpus}: {has}: {kept or 'give a lower number'}")
    elif sound and cpus is not None and local and (needed := at_once * max(1, asked_cpus)) > cpus:
        what = f"--concurrency {at_once} with {max(1, asked_cpus)} CPUs per trial needs {needed} CPUs"
        way_out = kept or "give a lower number, or fewer --cpus-per-trial"
        found.append(f"{what}: {where} has {cpus}: {way_out}")
    if gpus is None or asked_gpus > 1:  # More than one is out of range on any machine.
        return found
    if asked_gpus > gpus:
        joining = "" if local else "--wait-for-nodes if machines with GPUs will join, or "
        way_out = kept or f"give {joining}0 to train on CPUs"
        found.append(f"--gpus-per-trial {asked_gpus:g}: {where} has {gpus:g}: {way_out}")
    elif sound and local and at_once * asked_gpus > gpus + 1e-6:
        way_out = kept or "give a lower number, or a fraction of a GPU to each, such as --gpus-per-trial 0.25"
        found.append(f"--concurrency {at_once} with {asked_gpus:g} GPUs per trial: {where} has {gpus:g}: {way_out}")
    return found
