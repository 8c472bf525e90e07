"""Everything that is decided and checked before the first trial, so that a sweep that starts can also finish.

All problems of one command are reported together: each check that can still be made is made, whatever failed before.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_spaces.errors import UserError, by_reason, gathered, raise_all, some, unknown
from search_spaces.params import DEFAULT_BACKBONES, LOSS_FIELDS, Choices, SpaceContext, TrialParams
from search_spaces.paths import path_of
from search_spaces.space import RANDOM_TRIALS, Space, load_space, random_study
from search_spaces.studies import rows_of
from sweep.config import OR_ANEW, TARGETS, ResolvedConfig, SweepConfig, pair_text
from sweep.machine import Machine
from sweep.optuna_search import first_points, own_points
from sweep.record_reader import read_file
from sweep.records import DatasetRecord, ProvenanceRecord, WarmTrial, WeightsRecord, read_sweep
from sweep.resume import Resumed
from sweep.run_folder import RunPaths
from sweep.warm_start import warm_trials
from trainables.backbones import BACKBONES
from trainables.data.config import LEAST_IMAGE_SIZE, DataConfig
from trainables.data.dataset import open_dataset, unchanged
from trainables.finetune import model_problems
from trainables.frozen_features import stages_worth_keeping
from trainables.metrics import DEFINED, metric_mode, metric_names
from trainables.trial import TrialSettings
from trainables.weights import FoundWeights, WeightSources, check_weights, find_weights, input_problem

_NOT_FETCHED = "not on this machine: the sweep downloads them, a dry run does not"
Ask = Callable[..., Sequence[tuple[str, Any]]]
"""Calls a function with arguments on every node; gives each node's name with the result, or the exception."""

FETCHED_S = 3600.0
"""How long a node may take to fetch the weights of all backbones."""
LOOKED_AT = 32
"""Training images that are passed through the first layers of networks whose weights are not torchvision's."""
DEMO_BACKBONES = ("squeezenet1_0", "squeezenet1_1", "mobilenet_v2")
"""Networks that learn the demo set from random weights within its few epochs on two cores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep that can run: its configuration, resolved against the data, the weights and the machine.

    weights: by backbone; missing_weights: why the other backbones are left out. mode: "max" or "min" of
    ``config.metric``. own_epochs: the trials of a study's list run the study's epochs. cached_stages: by backbone, the
    numbers of frozen stages after which features are cached (``stages_worth_keeping``). slots: trials that the machines
    have room for as the sweep begins. damaged: files of a resumed run that are rewritten from its unchanged
    data. warm_trials: of --warm-start; warm_notes: which of its best trials are left out. resumed: trials may have
    begun, and an extended sweep keeps the seed points of the first command. slow_bf16: the trials compute in bf16, and
    not every machine is known to be fast at it.
    """

    config: ResolvedConfig
    dataset: DatasetRecord
    space: Space
    weights: dict[str, FoundWeights]
    missing_weights: dict[str, str]
    mode: str
    own_epochs: bool = False
    cached_stages: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    slots: int = 1
    damaged: tuple[str, ...] = ()
    warm_trials: tuple[WarmTrial, ...] = ()
    warm_notes: Sequence[str] = ()
    resumed: bool = False
    slow_bf16: bool = False

    @property
    def at_once(self) -> int:
        """How many trials run at once, on a cluster as it is when the sweep begins."""
        return self.config.fixed_concurrency or max(1, self.slots)

    @property
    def finalists(self) -> int:
        """How many finalists there will be at most, without those of --compare."""
        return min(self.config.finalists, self.config.trials)

    @property
    def repeats(self) -> int:
        """How many trainings of finalists follow the search, without those of --compare."""
        return self.finalists * (self.config.folds or self.config.repeats)

    @functools.cached_property
    def epochs_of(self) -> dict[int, int]:
        """Epochs by trial number if each trial has the study's own; else empty."""
        return {number: row.epochs for number, row in enumerate(self.space.rows)} if self.own_epochs else {}

    @property
    def budget(self) -> int:
        """The most epochs that a trial may run."""
        return max(self.epochs_of.values(), default=self.config.epochs)

    @property
    def grace_period(self) -> int:
        """Epochs before which nothing is stopped."""
        return min(self.config.grace_period, self.budget)

    @property
    def resources(self) -> dict[str, float]:
        """The resources of one trial, in Ray's terms."""
        return {"cpu": float(self.config.cpus_per_trial), "gpu": self.config.gpus_per_trial}

    def settings(self, run: RunPaths) -> TrialSettings:
        """The settings of every trial besides its hyperparameters."""
        config = self.config
        return TrialSettings(
            run_dir=str(run.root.absolute()),
            epochs=config.epochs,
            weights=WeightSources.parse(config.weights).absolute(),  # as every node finds them
            precision=config.precision,
            metric=config.metric,
            patience=config.patience,
            time_limit_s=config.trial_time_limit,
            seed=config.seed,
            cpus=config.cpus_per_trial,
            use_gpu=config.gpus_per_trial > 0,
            gpu_share=config.gpus_per_trial or 1.0,
            deterministic=config.deterministic,
            cached_stages=self.cached_stages,
            cache_dir=config.cache_dir,
            cache_bytes=config.cache_size,
            weights_sha256={name: one.sha256 for name, one in self.weights.items() if one.sha256 is not None},
        )

    def own_settings(self, number: int, settings: TrialSettings) -> TrialSettings:
        """``settings`` with the budget of trial ``number``."""
        return dataclasses.replace(settings, epochs=self.epochs_of.get(number, settings.epochs))

    def notes(self) -> list[str]:
        """What the user should know before the first trial, a line each."""
        lines = [f"{name} is missing or was changed: rewritten from the data" for name in self.damaged]
        lines += [*self.dataset.notes, *self.dataset.caveats]
        lines += [f"left out: {one.count} images or rows: {one.why}" for one in self.dataset.left_out or ()]
        lines += [f"{one.severity}: {one.message}" for one in self.dataset.checks if one.severity != "info"]
        lines += self.space.notes
        points, first = self.space.seed_points, first_points(self.space, self.config.sampler, self.config.trials, ())
        if self.warm_trials:
            names, after = ", ".join(one.trial_id for one in self.warm_trials), own_points(self.space)
            when = f", after the {len(after)} seed points of {self.space.name}" if after else ""
            lines.append(f"warm start: the best trials of {self.config.warm_start}, {names}, are tried first{when}")
        elif len(first) < len(points) and not self.resumed:
            lines.append(
                f"{len(first)} of the {len(points)} seed points of {self.space.name} are tried: at most half of the "
                "trials, and none if --sampler does not learn from them"
            )
        lines += [f"warm start: {note}" for note in self.warm_notes]
        if self.config.sampler == "gp" and (by_chance := self.space.conditional):
            lines.append(
                f"--sampler gp draws {some(by_chance)} at random, as only some trials have them; tpe models them"
            )
        if self.config.sampler == "grid" and (most := self.space.most_configurations) > self.config.trials:
            tried = f"{self.config.trials} of up to {most:,} configurations are tried"
            lines.append(f"--sampler grid: {tried}; --trials {most} tries all")
        if self.slow_bf16:
            why = "the run keeps it" if self.resumed else "fp32 may be faster"
            lines.append(f"precision bf16: not every machine that runs trials is known to be fast at it; {why}")
        lines += [f"weights of {name}: {found.note}" for name, found in self.weights.items() if found.note]
        if self.missing_weights:
            names = ", ".join(self.missing_weights)
            lines.append(f"left out: {names} (reasons: provenance.json; name one in --backbones to require it)")
        return lines + [f"left out: {rows}" for rows in by_reason(self.space.left_out)]


def make_plan(
    config: ResolvedConfig,
    problems: Sequence[str],
    prepare: Callable[[DataConfig], dict[str, Any]],
    *,
    own_epochs: bool,
    machine: Machine,
    resumed: Resumed | None = None,
) -> Plan:
    """Check ``config`` against the data, the space and the weights.

    problems: those found so far; they are raised together with the ones found here, as one ``UserError``.
    prepare: reads the data set and gives the content of dataset.json. own_epochs: the trials of a study's list run
    the study's epochs, since the user gave none. resumed: the run to continue, with the same data and space.
    """
    problems = list(problems)
    dataset: DatasetRecord | None = None
    weights: dict[str, FoundWeights] = {}
    missing: dict[str, str] = {}
    space: Space | None = None
    warm: tuple[WarmTrial, ...] = ()
    warm_notes: list[str] = []
    with gathered(problems):
        dataset = DatasetRecord.model_validate(prepare(config.data_config()))
    if _sources(config).base != "imagenet" or not problems:  # A command that cannot run is not worth a download.
        with gathered(problems):
            weights, missing = checked_weights(config)
    # Without data or weights the space is tried on a stand-in, so that its own mistakes are reported with the others.
    known = dataset or DatasetRecord(task="single_label", classes=("", ""), images={"train": 1000})
    context = SpaceContext(
        task=known.task,
        class_count=len(known.classes),
        train_count=known.images["train"],
        backbones=tuple(weights) or asked_backbones(config)[0] or DEFAULT_BACKBONES,
    )
    with gathered(problems):
        space = load_space(config.space, context, dict(config.set), config.rows)
    problems += _metric_problems(config, dataset, space)
    if dataset is not None and config.positive_class not in (None, *dataset.classes):
        problems.append(f"--positive-class: {unknown('class', config.positive_class, dataset.classes)}")
    for option in TARGETS if dataset is not None else ():
        strangers = {*(getattr(config, option) or ())}.difference(known.classes)
        problems += [f"{pair_text(config, option)}: {unknown('class', name, known.classes)}" for name in strangers]
    if space is not None:
        if config.sampler == "grid" and space.continuous and "space" not in config.unread:
            problems.append(
                f"--sampler grid cannot try every value of {', '.join(space.continuous)}, drawn from a range in space "
                f"{config.space}: give another sampler, or use --set to give a value or choices"
            )
        drawn = {name.partition(".")[0] for name in space.continuous}
        if ranges := [name for name in config.compare if name in drawn]:
            problems.append(
                f"--compare {','.join(ranges)}: space {config.space} draws it from a range, so trials rarely share a "
                f"value: give choices, such as --set {ranges[0]}=A,B, or compare something else"
            )
        problems += _layer_problems(space, config.image_size)
        points = 0 if "trials" in config.unread else len(own_points(space))
        if points > config.trials >= 1:
            problems.append(
                f"--trials {config.trials}: {space.name} has {points} seed points, and each is a trial: give --trials "
                f"{points} or more, or fewer points"
            )
    if resumed is not None:
        problems += _differences(resumed.paths, config, dataset, space, weights)
        warm = read_sweep(resumed.paths, []).warm_trials  # The earlier run may be gone.
    elif config.warm_start is not None and not config.study:
        with gathered(problems):
            warm, warm_notes = warm_trials(config, space)
    raise_all([*dict.fromkeys(problems)])  # Paths of the data and the weights are checked twice: report once.
    assert dataset is not None
    assert space is not None
    settled: dict[str, Any] = {"backbones": tuple(weights)}
    if space.fixed is not None:
        settled["trials"] = len(space.fixed)
    return Plan(
        config=config.model_copy(update=settled),
        dataset=dataset,
        space=space,
        weights=weights,
        missing_weights=missing,
        mode=metric_mode(config.metric),
        own_epochs=own_epochs,
        cached_stages=resumed.cached_stages if resumed else _cached_stages(config, dataset, weights, machine),
        slots=machine.slots(config.cpus_per_trial, config.gpus_per_trial),
        damaged=_damaged(resumed.paths) if resumed else (),
        warm_trials=warm,
        warm_notes=warm_notes,
        resumed=resumed is not None,
        slow_bf16=config.precision == "bf16"
        and len(machine.nodes) > 0
        and not machine.fast_bf16(on_gpu=config.gpus_per_trial > 0),
    )


def _cached_stages(
    config: ResolvedConfig, dataset: DatasetRecord, backbones: Iterable[str], machine: Machine
) -> dict[str, list[int]]:
    memory = machine.trial_memory_bytes(config.cpus_per_trial, config.gpus_per_trial, config.fixed_concurrency)
    return {
        name: stages_worth_keeping(
            name,
            config.image_size,
            dataset.images["train"] + dataset.images["val"],
            config.precision,
            threads=config.cpus_per_trial,
            gpu=config.gpus_per_trial > 0,
            memory_bytes=memory,
        )
        for name in backbones
    }


def asked_backbones(config: SweepConfig) -> tuple[tuple[str, ...], bool]:
    """The backbones to look for, and whether the user wants exactly these; unknown names are left to ``check``."""
    if config.backbones is not None:
        return tuple(name for name in config.backbones if name in BACKBONES), True
    if (fixed := config.set.get("backbone")) is not None:
        return tuple(map(str, fixed.values)) if isinstance(fixed, Choices) else (str(fixed),), True
    sources = _sources(config)
    if sources.base is None and sources.files:
        return tuple(sources.files), True
    default: tuple[str, ...] = DEMO_BACKBONES if config.demo else DEFAULT_BACKBONES
    if config.study:
        rows = [row for row in rows_of(config.space.removeprefix("studies.")) if row.id in (config.rows or {row.id})]
        default = tuple(row.params.backbone for row in rows if row.params is not None)
    return tuple(dict.fromkeys((*default, *sources.files))), False


def _sources(config: SweepConfig) -> WeightSources:
    """The sources in ``--weights``; "random" if it cannot be read, which ``find_weights`` reports."""
    try:
        return WeightSources.parse(config.weights or "random")
    except UserError:
        return WeightSources("random", {})


def checked_weights(config: ResolvedConfig) -> tuple[dict[str, FoundWeights], dict[str, str]]:
    """The weights of each backbone that can run, and for the other backbones why not.

    Raises ``UserError`` with the problems of the weights found, with the missing ones of backbones that the user named,
    and if no backbone is left.
    """
    names, exactly = asked_backbones(config)
    size = config.image_size
    sources = _sources(config)
    for given in sources.paths:
        name, equals, file = given.partition("=")
        path_of(f"--weights {name}=" if equals else "--weights", file or name)
    small = {
        name: f"--image-size {size}: {name} needs {needed}"
        for name in names
        if size >= LEAST_IMAGE_SIZE and (needed := BACKBONES[name].size_needed(size))
    }
    found, missing = find_weights(
        config.weights, [name for name in names if name not in small], download=not config.dry_run
    )
    if config.dry_run and sources.base == "imagenet":
        fetched = {name: FoundWeights(backbone=name, origin="random", note=_NOT_FETCHED) for name in missing}
        found, missing = {name: (found | fetched)[name] for name in names if name in found | fetched}, {}
    left_out = small | missing
    problems = list(left_out.values()) if exactly else []
    problems += [
        f"--weights {name}={path}: {name} is not tried: name it in --backbones, or omit its weights"
        for name, (path, _) in sources.files.items()
        if name not in names
    ]
    problems += [small[name] for name in sources.files if name in small and not exactly]
    checked = {}
    for name, weights in found.items():
        with gathered(problems):
            checked[name] = check_weights(weights, size)
    if left_out and not checked and not problems:
        first, *others = left_out
        problems = [f"{left_out[first]} (likewise {', '.join(others)}: no backbone is left)"]
    raise_all(problems)
    return checked, left_out


def input_problems(plan: Plan, run_dir: Path) -> list[str]:
    """Which weights expect other input values than the training images in ``run_dir`` have, one sentence each."""
    data = open_dataset(run_dir)
    some = np.unique(np.linspace(0, len(data.train) - 1, LOOKED_AT).astype(int))
    images = torch.from_numpy(np.asarray(data.images)[np.sort(data.train.rows[some])])
    found = (input_problem(weights, images) for weights in plan.weights.values())
    return [problem for problem in found if problem is not None]


def sampled_trials(space: Space, count: int, seed: int = 0) -> list[TrialParams]:
    """``count`` random trials as the sweep may draw them; of a study its first ones."""
    if space.fixed is not None:
        return list(space.fixed[:count])
    with random_study(seed) as study:
        return [space.suggest(study.ask()) for _ in range(count)]


def _layer_problems(space: Space, image_size: int) -> list[str]:
    """Why networks that ``space`` asks for by ``unfreeze_layers`` cannot be built, one sentence each.

    A searched space is checked by random trials only: what they miss fails in its trial.
    """
    trials = sampled_trials(space, RANDOM_TRIALS) if space.fixed is None else space.fixed
    asked = {(params.backbone, params.unfreeze_layers): params for params in trials if params.unfreeze_layers}
    found = [problem for params in asked.values() for problem in model_problems(params, image_size)]
    origin = "--set" if "unfreeze_layers" in space.overrides else space.name
    return [f"{origin}: {problem}" for problem in dict.fromkeys(found)]


def _metric_problems(config: SweepConfig, dataset: DatasetRecord | None, space: Space | None) -> list[str]:
    if dataset is not None:
        names = metric_names(dataset.classes, dataset.task)
    else:  # any task is allowed, and any name of a class
        _, colon, name = config.metric.partition(":")
        both = (*metric_names([name] if colon else [], "single_label"), *metric_names([], "multi_label"))
        names = list(dict.fromkeys(both))
    if config.metric == f"val_{DEFINED}":
        return [f"--metric {config.metric}: a count of classes, not a score; give one of {', '.join(sorted(names))}"]
    if config.metric not in names:
        return [f"--metric: {unknown('metric', config.metric, names)}"]
    if config.metric != "val_loss" or space is None:
        return []
    searched = any(
        name.partition(".")[0] in LOSS_FIELDS and not choice.single() for name, choice in space.distributions.items()
    )
    if searched or len({(row.loss, row.class_weights) for row in space.fixed or ()}) > 1:
        return ["--metric val_loss cannot compare trials of different losses: give val_nll, or fix the loss with --set"]
    return []


def _differences(
    paths: RunPaths,
    config: ResolvedConfig,
    dataset: DatasetRecord | None,
    space: Space | None,
    weights: Mapping[str, FoundWeights],
) -> list[str]:
    """How data, space (None = not checked) and weights differ from those that the run began with, one sentence each."""
    found = []
    saved = read_file(DatasetRecord, paths.dataset, [])
    if saved.fingerprint is None:
        found.append(f"--resume: {paths.dataset} is missing or damaged: restore it, {OR_ANEW}")
    elif dataset is not None and (how := _data_difference(saved, dataset)):
        found.append(
            f"the data set at {dataset.source.path} is not that of the run {paths.root}: {how}; restore it, {OR_ANEW}"
        )
    began_with = read_file(ProvenanceRecord, paths.provenance, []).weights
    moved = read_sweep(paths, []).weights != config.weights
    for name, one in weights.items():
        before = began_with.get(name, WeightsRecord())
        differs = (one.origin, one.range, one.sha256) != (before.origin, before.range, before.sha256)
        if moved and differs and one.note != _NOT_FETCHED:
            what = f"--weights gives {name} {_in_words(one)}, and the run {paths.root} began with {_in_words(before)}"
            found.append(f"{what}: give the same ones, wherever they are now, {OR_ANEW}")
        elif not moved and one.sha256 and before.sha256 not in (None, one.sha256):
            what = f"the weights of {name} at {one.path} are not those of the run {paths.root}"
            found.append(f"{what}: restore them, {OR_ANEW}")
    folders = [path for path in _files_of_the_data(paths) if path.is_dir()]
    found += [f"{path} is a folder, but the run had a file there: move the folder away" for path in folders]
    source = None if space is None else space.source
    if source is not None and (not paths.space.exists() or paths.space.read_text(encoding="utf-8") != source):
        found.append(
            f"the space file has changed since the run {paths.root} began: restore it (a copy is in {paths.space}), "
            f"{OR_ANEW}"
        )
    return found


def _in_words(one: FoundWeights | WeightsRecord) -> str:
    known = ["range={:g}:{:g}".format(*one.range)] if one.range else []
    known += [f"SHA-256 {one.sha256[:12]}"] if one.sha256 else []
    return f"weights of origin {one.origin or 'unknown'}" + (f" ({', '.join(known)})" if known else "")


def _damaged(paths: RunPaths) -> tuple[str, ...]:
    """The names of the files about the data that are missing or not as the run wrote them."""
    saved = read_file(DatasetRecord, paths.dataset, [])
    return tuple(path.name for path in _files_of_the_data(paths) if not unchanged(path, saved.sha256))


def _files_of_the_data(paths: RunPaths) -> tuple[Path, ...]:
    return paths.splits, paths.images, paths.thumbnails


def _data_difference(saved: DatasetRecord, dataset: DatasetRecord) -> str | None:
    """How a data set differs from the saved one, or None. One that is not decoded is compared by classes and counts."""
    if dataset.fingerprint is None:
        if saved.classes != dataset.classes:
            return f"its classes are {', '.join(dataset.classes)}, the run's {', '.join(saved.classes)}"
        differing = (
            f"{split} has {count} images of {name}, the run's {saved.counts.get(split, {}).get(name, 0)}"
            for split, counts in dataset.counts.items()
            for name, count in counts.items()
            if count != saved.counts.get(split, {}).get(name, 0)
        )
        return next(differing, None)
    if saved.fingerprint == dataset.fingerprint:
        return None
    both = f"fingerprint {dataset.fingerprint[:12]}, the run has {str(saved.fingerprint)[:12]}"
    return f"images, labels or splits differ ({both})"


def node_problems(config: SweepConfig, beside: Path, ask: Ask) -> list[str]:
    """Why trials would fail on some nodes of a cluster, one sentence for each folder and each node without our code.

    beside: a new folder in the storage: if the storage is not shared, no other machine sees it.
    """
    folders = {f"--storage {config.storage}": beside}
    folders |= {f"--weights {given}": path for given, path in _sources(config).paths.items()}
    # A folder that is missing here, too, is reported where it is opened.
    seen_here = {option: str(path.absolute()) for option, path in folders.items() if os.path.exists(path)}
    unseen_on: dict[str, list[str]] = {}
    problems = []
    for node, answer in ask(unseen, seen_here):
        if isinstance(answer, Exception):
            reason = str(answer).strip().splitlines()[-1]
            problems.append(f"node {node} cannot run trials ({reason}): install the same versions there as here")
            continue
        for option in answer:
            unseen_on.setdefault(option, []).append(node)
    return problems + [
        f"{option} is not visible to {'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)}: "
        "give one that every node has at the same path, such as an NFS mount"
        for option, nodes in unseen_on.items()
    ]


def weight_problems(plan: Plan, ask: Ask) -> list[str]:
    """Why trials would have no ImageNet weights on some nodes of a cluster, one sentence each; [] if all nodes have
    fetched them."""
    if _sources(plan.config).base != "imagenet":
        return []
    problems = []
    for node, answer in ask(find_weights, plan.config.weights, list(plan.weights), download=True, within_s=FETCHED_S):
        if isinstance(answer, Exception):
            problems.append(f"node {node} cannot fetch weights ({str(answer).strip().splitlines()[-1]})")
        elif missing := answer[1]:
            first = next(iter(missing.values()))
            problems.append(f"node {node} lacks weights of {some(missing)}: {first}; every node must see such a FOLDER")
    return problems


def unseen(folders: dict[str, str]) -> list[str]:
    """The keys of those ``folders`` that this machine does not have."""
    return [option for option, folder in folders.items() if not os.path.exists(folder)]
