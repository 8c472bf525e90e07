"""Everything that is decided and checked before the first trial, so that a sweep that starts can also end.

All problems of one command come in one answer: each step that can still be tried is tried, whatever went wrong before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from search_spaces.errors import UserError, by_reason, raise_all, unknown
from search_spaces.params import BACKBONE_NAMES, SpaceContext
from search_spaces.space import Space, load_space
from sweep.config import SweepConfig
from sweep.networks import asked_backbones, checked_weights, layer_problems
from sweep.resume import differences
from sweep.run_folder import RunPaths
from trainables.data.config import DataConfig
from trainables.metrics import metric_mode, metric_names
from trainables.trial import TrialSettings
from trainables.weights import FoundWeights

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep that can run: what was asked, resolved against the data, the weights and the machine.

    dataset: the content of dataset.json. weights: by backbone; missing_weights: why the other backbones are left out.
    mode: "max" or "min" of ``config.metric``. epochs_of: a trial's own budget by its number (studies).
    """

    config: SweepConfig
    dataset: dict[str, Any]
    space: Space
    weights: dict[str, FoundWeights]
    missing_weights: dict[str, str]
    mode: str
    own_epochs: bool
    epochs_of: dict[int, int]

    @property
    def trials(self) -> int:
        """How many trials the sweep runs in all."""
        assert self.config.trials is not None
        return len(self.space.fixed) if self.space.fixed is not None else self.config.trials

    @property
    def finalists(self) -> int:
        """How many finalists there will be at most, without those of --compare."""
        return min(self.config.finalists or 0, self.trials)

    @property
    def repeats(self) -> int:
        """How many trainings of finalists follow the search, without those of --compare."""
        return self.finalists * (self.config.folds or self.config.repeats or 1)

    @property
    def budget(self) -> int:
        """The most epochs that a trial may run."""
        assert self.config.epochs is not None
        return max(self.epochs_of.values(), default=self.config.epochs)

    @property
    def grace_period(self) -> int:
        """Epochs before which nothing is stopped."""
        assert self.config.grace_period is not None
        return min(self.config.grace_period, self.budget)

    @property
    def concurrency(self) -> int:
        """How many trials run at once."""
        assert self.config.concurrency is not None
        return self.config.concurrency

    @property
    def resources(self) -> dict[str, float]:
        """What one trial takes of the machine, in Ray's terms."""
        return {"cpu": float(self.config.cpus_per_trial or 1), "gpu": float(self.config.gpus_per_trial or 0)}

    def own_settings(self, number: int, settings: TrialSettings) -> TrialSettings:
        """``settings`` with the budget of trial ``number``."""
        return dataclasses.replace(settings, epochs=self.epochs_of.get(number, settings.epochs))

    def notes(self) -> list[str]:
        """What the user should know before the first trial, a line each."""
        lines = list(self.dataset["caveats"])
        lines += [f"{item['severity']}: {item['message']}" for item in self.dataset["checks"] if _worth_saying(item)]
        lines += [f"weights of {name}: {found.note}" for name, found in self.weights.items() if found.note]
        if self.missing_weights:
            names = ", ".join(self.missing_weights)
            lines.append(f"left out: {names} (why: provenance.json; name one in --backbones to insist on it)")
        lines += [f"left out: {rows}" for rows in by_reason(self.space.left_out)]
        return lines

    def settings(self, run: RunPaths, use_gpu: bool) -> TrialSettings:
        config = self.config
        assert config.epochs is not None
        return TrialSettings(
            run_dir=str(run.root.absolute()),
            epochs=config.epochs,
            weights=_as_every_node_finds(str(config.weights)),
            precision=config.precision,
            metric=config.metric,
            mode=self.mode,
            patience=config.patience,
            time_limit_s=config.trial_time_limit,
            seed=config.seed,
            cpus=max(1, math.floor(config.cpus_per_trial or 1)),
            use_gpu=use_gpu,
            deterministic=config.deterministic,
        )


def make_plan(
    config: SweepConfig,
    problems: list[str],
    prepare: Callable[[DataConfig], dict[str, Any]],
    *,
    own_epochs: bool,
    resumed: RunPaths | None = None,
) -> Plan:
    """Check ``config`` against the data, the space and the weights.

    problems: those found so far; they are raised together with the ones found here, as one ``UserError``.
    prepare: reads the data set and gives the content of dataset.json. own_epochs: the trials of a study's list run
    the study's epochs, since the user gave none. resumed: the run that goes on, with the same data and space.
    """
    problems = list(problems)

    def tried(step: Callable[[], T]) -> T | None:
        try:
            return step()
        except UserError as error:
            problems.extend(problem for problem in error.problems if problem not in problems)
            return None

    dataset = tried(lambda: prepare(data_request(config)))
    # A command that cannot run is not worth a download.
    chosen = tried(lambda: checked_weights(config)) if config.weights != "imagenet" or not problems else None
    weights, missing = chosen or ({}, {})
    # Without data or weights the space is tried on a stand-in, so that its own mistakes are told in the same answer.
    context = _context(dataset, tuple(weights) or asked_backbones(config)[0] or BACKBONE_NAMES)
    space = tried(lambda: load_space(config.space, context, dict(config.set), config.rows))
    problems += _metric_problems(config, dataset, space)
    if dataset is not None and config.positive_class not in (None, *dataset["classes"]):
        problems.append(f"--positive-class: {unknown('class', str(config.positive_class), dataset['classes'])}")
    if space is not None:
        problems += _sampler_problems(config, space)
        problems += layer_problems(space, data_request(config).image_size)
    if resumed is not None:
        problems += differences(resumed, dataset, space)
    raise_all(problems)
    assert dataset is not None
    assert space is not None
    assert chosen is not None
    epochs_of = {number: row.epochs for number, row in enumerate(space.rows)} if own_epochs else {}
    return Plan(
        config=config,
        dataset=dataset,
        space=space,
        weights=weights,
        missing_weights=missing,
        mode=metric_mode(config.metric),
        own_epochs=own_epochs,
        epochs_of=epochs_of,
    )


def _as_every_node_finds(weights: str) -> str:
    return weights if weights in ("imagenet", "random") else str(Path(weights).expanduser().absolute())


def _worth_saying(finding: dict[str, Any]) -> bool:
    return bool(finding["severity"] != "info")


def data_request(config: SweepConfig) -> DataConfig:
    """What ``config`` says about the data."""
    assert config.image_size is not None
    return DataConfig(
        data=config.data,
        task=config.task,
        label_columns=tuple(config.label_column),
        path_column=config.path_column,
        split_column=config.split_column,
        group_column=config.group_column,
        subgroup_columns=tuple(config.subgroup_column),
        source_column=config.source_column,
        image_size=config.image_size,
        fit=config.fit,
        seed=config.seed,
        allow_leakage=config.allow_leakage,
        skip_unreadable=config.skip_unreadable,
    )


def _context(dataset: dict[str, Any] | None, backbones: tuple[str, ...]) -> SpaceContext:
    if dataset is None:
        return SpaceContext(task="single_label", class_count=2, train_count=1000, backbones=backbones)
    return SpaceContext(
        task=dataset["task"],
        class_count=len(dataset["classes"]),
        train_count=dataset["images"]["train"],
        backbones=backbones,
    )


def _metric_problems(config: SweepConfig, dataset: dict[str, Any] | None, space: Space | None) -> list[str]:
    names = _metric_names(config, dataset)
    if config.metric not in names:
        return [f"--metric: {unknown('metric', config.metric, names)}"]
    searched = space is not None and any(
        name.partition(".")[0] in ("loss", "focal_gamma", "focal_alpha", "class_weights") and not choice.single()
        for name, choice in space.distributions.items()
    )
    listed = space is not None and len({(row.loss, row.class_weights) for row in space.fixed or ()}) > 1
    if config.metric == "val_loss" and (searched or listed):
        return ["--metric val_loss cannot compare trials of different losses: give val_nll, or fix the loss by --set"]
    return []


def _metric_names(config: SweepConfig, dataset: dict[str, Any] | None) -> list[str]:
    """Without data any task is allowed, and any name of a class."""
    if dataset is not None:
        return metric_names(dataset["classes"], dataset["task"])
    _, colon, name = config.metric.partition(":")
    names = [*metric_names([name] if colon else [], "single_label"), *metric_names([], "multi_label")]
    return list(dict.fromkeys(names))


def _sampler_problems(config: SweepConfig, space: Space) -> list[str]:
    if config.sampler == "grid" and space.continuous:
        names = ", ".join(space.continuous)
        return [
            f"--sampler grid cannot try every value of {names} of space {config.space}: "
            "give another sampler, fix them by --set, or offer a list of choices in a space of your own"
        ]
    return []
