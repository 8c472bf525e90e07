"""The sweeps of ``benchmarks.full``, and the ratios that each must reach on two cores at 224 px."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.own_process import AT_ONCE
from search_spaces.params import SpaceContext, TrialParams
from search_spaces.space import load_space, random_study

MIXED_TRIALS = 32
MIXED_BACKBONES = ("mobilenet_v2", "resnet18", "squeezenet1_0", "squeezenet1_1")
SAME_IN_ALL = {"loss": "cross_entropy", "class_weights": "none", "lr_schedule": "constant", "backbone_lr_factor": 1.0}
"""Fixed hyperparameters of the mixed trials: the tutorial's program has no such options."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sweep and what it must reach.

    listed: exactly these ``trials`` are run, with different learning rates; else all are equal and the search draws
    their learning rates. asha: ASHA stops trials, else all run all ``epochs``. weights: "random", or None for those of
    the command line. must: the minimum speed-up over "tutorial" and "bare loop" (in float32) and "tutorial, ours bf16";
    the maximum of "T*", ours over the bound, and of "orchestration", the share of the time outside the trials' epochs.
    """

    name: str
    trials: tuple[TrialParams, ...]
    epochs: int
    must: dict[str, float]
    listed: bool = False
    asha: bool = False
    weights: str | None = None

    @property
    def places(self) -> dict[tuple[str, int | None], TrialParams]:
        """The first trial of each backbone and depth, which represents the others in the tutorial's measurement."""
        return {(one.backbone, one.unfreeze_depth): one for one in reversed(self.trials)}


def cases(train_count: int, quick: bool) -> dict[str, Case]:
    """The cases by name. train_count: training images. quick: two trials and two epochs each."""

    def alike(name: str, backbone: str, depth: int, trials: int, epochs: int, **more: Any) -> Case:
        params = TrialParams(backbone=backbone, unfreeze_depth=depth, augment="flip")
        return Case(name=name, trials=(params,) * trials, epochs=epochs, **more)

    found = [
        alike("head", "mobilenet_v2", 0, 64, 10, must={"tutorial": 150, "bare loop": 75, "T*": 4}),
        alike("last_block", "resnet18", 1, 12, 5, must={"bare loop": 2.0, "tutorial, ours bf16": 6, "T*": 2}),
        alike(
            *("last_block_vgg16", "vgg16", 1, 6, 5),
            must={"bare loop": 3.4, "tutorial, ours bf16": 8, "T*": 2},
            weights="random",
        ),
        alike("full", "squeezenet1_1", 4, 6, 3, must={"bare loop": 0.95, "tutorial, ours bf16": 3, "T*": 1.5}),
        Case(
            name="mixed",
            trials=mixed_trials(train_count),
            epochs=9,
            must={"tutorial": 4, "orchestration": 0.1},
            listed=True,
            asha=True,
        ),
    ]
    if quick:
        found = [replace(case, trials=case.trials[:AT_ONCE], epochs=2) for case in found]
    return {case.name: case for case in found}


def mixed_trials(train_count: int) -> tuple[TrialParams, ...]:
    """Random trials of ``partial_unfreeze``, the same on every call."""
    context = SpaceContext(task="single_label", class_count=3, train_count=train_count, backbones=MIXED_BACKBONES)
    space = load_space("partial_unfreeze", context, SAME_IN_ALL)
    with random_study(seed=0) as study:
        return tuple(space.suggest(study.ask()) for _ in range(MIXED_TRIALS))


def write_space(case: Case, path: Path) -> Path:
    """A space file with the trials of ``case``: the listed ones, chosen by learning rate, or equal except for it."""
    if case.listed:
        trials = {params.lr: params.to_flat() for params in case.trials}
        assert len(trials) == len(case.trials), "two trials have the same rate"
        content = f"return {trials!r}[trial.suggest_categorical('lr', {list(trials)!r})]"
    else:
        same = {name: value for name, value in case.trials[0].to_flat().items() if name != "lr"}
        content = f"trial.suggest_float('lr', 1e-4, 1e-2, log=True)\n    return {same!r}"
    path.write_text(f"def space(trial, context):\n    {content}\n", encoding="utf-8")
    return path
