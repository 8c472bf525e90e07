"""Optimisers and learning rate schedules."""

from __future__ import annotations

import math
from typing import Any

import torch

from search_spaces.params import TrialParams

PLATEAU_FACTOR = 0.1
PLATEAU_PATIENCE = 2
"""Epochs in a row without a lower validation loss after which ``plateau`` lowers the rate."""
PLATEAU_THRESHOLD = 1e-4
"""Relative fall of the loss that counts as lower (torch's default): even tiny steps improve the last digits."""


def make_optimizer(params: TrialParams, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimiser of ``params`` over ``groups``, each with its ``params`` and ``lr``; all have the same weight decay.

    sgd: momentum (none at 0), no dampening, not Nesterov's. adamw: torch's betas (.9, .999) and epsilon. Both are
    torch's fused form, which goes through the parameters once.
    """
    groups = [{**group, "initial_lr": group["lr"]} for group in groups]
    if params.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=params.lr, weight_decay=params.weight_decay, fused=True)
    return torch.optim.SGD(groups, lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay, fused=True)


class Schedule:
    """The factor on every group's initial learning rate.

    kind: constant: 1. cosine: half a cosine from 1 over all steps of the budget, (1 + cos(pi t / T)) / 2 at step t of T
    (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts), never quite 0. plateau: multiplied by
    ``PLATEAU_FACTOR`` each time that the validation loss has not fallen for ``PLATEAU_PATIENCE`` epochs. It watches
    the loss, not the selection metric, which changes in jumps on a small validation split.
    steps: T, optimiser steps in the whole budget, >= 1.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, kind: str, steps: int) -> None:
        self._optimizer = optimizer
        self._kind = kind
        self._steps = steps
        self._step, self._waited = 0, 0
        self._factor, self._lowest = 1.0, math.inf

    @property
    def factor(self) -> float:
        """The factor on the initial learning rates in the next step, in (0, 1]."""
        if self._kind == "cosine":
            return (1 + math.cos(math.pi * min(self._step, self._steps - 1) / self._steps)) / 2
        return self._factor

    def before_step(self) -> None:
        """Set the learning rates of the next step; call it before each step of the optimiser."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * self.factor
        self._step += 1

    def after_epoch(self, val_loss: float) -> None:
        """Record an epoch's validation loss, which ``plateau`` needs."""
        if self._kind != "plateau":
            return
        if val_loss < self._lowest * (1 - PLATEAU_THRESHOLD):
            self._lowest, self._waited = val_loss, 0
            return
        self._waited += 1
        if self._waited >= PLATEAU_PATIENCE:
            self._factor, self._waited = self._factor * PLATEAU_FACTOR, 0

    def state_dict(self) -> dict[str, float]:
        """All that changes, as numbers."""
        return {"step": self._step, "factor": self._factor, "lowest": self._lowest, "waited": self._waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from ``state_dict()`` of a schedule of the same kind and length."""
        self._step, self._waited = int(state["step"]), int(state["waited"])
        self._factor, self._lowest = state["factor"], state["lowest"]
