"""A sweep without networks: the real history, search and stopping rule, driven by a made-up learning curve."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from search_spaces.params import SpaceContext, TrialParams
from search_spaces.space import Space
from sweep.history import TrialHistory, TrialState
from sweep.optuna_search import Exhausted, OptunaSearch
from sweep.pruning import PruningRule
from sweep.run_folder import RunPaths

CONTEXT = SpaceContext(
    task="single_label", class_count=3, train_count=500, backbones=("squeezenet1_1", "resnet18", "mobilenet_v2")
)
Curve = Callable[[TrialParams, int], float]


def history_of(root: Path) -> TrialHistory:
    """What a resumed sweep reads back, of which nothing is damaged."""
    history = TrialHistory(RunPaths(root), "val_f1_macro", "max")
    assert history.load() == []
    return history


def learning_curve(params: TrialParams, epoch: int) -> float:
    """Rises with the epochs towards a height that depends on the learning rate, the depth and the backbone."""
    height = 0.9 - 0.05 * abs(math.log10(params.lr) + 2.5) - 0.02 * abs((params.unfreeze_depth or 0) - 2)
    return height * (1 - 0.5**epoch) - 0.01 * CONTEXT.backbones.index(params.backbone)


@dataclasses.dataclass
class ToySweep:
    """Runs trials epoch by epoch, ``concurrency`` at a time, in an order drawn from ``timing``; stops at any epoch."""

    root: Path
    space: Space
    budget: int = 6
    sampler: str = "tpe"
    scheduler: str = "asha"
    trials: int = 24
    seed: int = 7
    concurrency: int = 1
    deterministic: bool = False
    timing: int = 0
    curve: Curve = learning_curve
    mode: str = "max"

    def __post_init__(self) -> None:
        self.history = TrialHistory(RunPaths(self.root), "val_f1_macro", self.mode)
        self.history.load()
        self.search = OptunaSearch(
            self.space,
            self.history,
            sampler=self.sampler,
            trials=self.trials,
            seed=self.seed,
            concurrency=self.concurrency,
            deterministic=self.deterministic,
        )
        self.pruning = PruningRule(self.scheduler, self.budget, grace_period=2, reduction_factor=3)

    def run(self, epochs: int = 10**9) -> ToySweep:
        """Go on until all is done or ``epochs`` more have been trained (then it was "killed")."""
        chance = np.random.default_rng(self.timing)
        running = self.history.unfinished()
        for _ in range(epochs):
            running += list(self._begin(len(running)))
            if not running:
                break
            state = running[chance.integers(len(running))]
            if self._train(state):
                running.remove(state)
        return self

    def outcome(self) -> list[tuple[str, str, tuple[float, ...]]]:
        """Configuration, status and scores of every trial, by number."""
        return [
            (json.dumps(state.params.to_flat()), state.status, tuple(state.scores.values()))
            for _, state in sorted(self.history.entries.items())
        ]

    def _begin(self, running: int) -> Iterator[TrialState]:
        while running < self.concurrency and len(self.history.entries) < self.trials:
            try:
                state = self.search.ask()
            except Exhausted:
                return
            if state is None:
                return
            running += 1
            yield state

    def _train(self, state: TrialState) -> bool:
        epoch = len(state.scores) + 1
        score = self.curve(state.params, epoch)
        record = json.dumps({"epoch": epoch, "val_f1_macro": None if math.isnan(score) else score})
        self.history.report(state.number, record)
        if math.isnan(score):
            self.history.end(state.number, "failed", "nan")
            return True
        if epoch == self.budget:
            self.history.end(state.number, "completed", "")
            return True
        last = state.number - self.concurrency
        peers = [k for k in self.history.entries if not self.deterministic or k <= last]
        if reason := self.pruning.reason_to_stop(self.history, state.number, epoch, peers):
            self.history.end(state.number, "pruned", reason)
            return True
        return False
