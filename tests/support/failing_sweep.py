"""``python failing_sweep.py ...``: as ``python -m sweep.run``, with trials that go wrong by their learning rate."""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import Any

import torch
from ray import cloudpickle

from sweep import ray_tune, run
from trainables.ray_trainable import FinetuneTrainable

RAISES, HANGS, DIES, FILLS_MEMORY, TIRES = 0.02, 0.03, 0.04, 0.05, 0.0007

# Ray's workers cannot import the tests' own modules.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Misbehaving(FinetuneTrainable):
    """Goes wrong where a trial trains, in ways that no parameter of a real one brings about at will."""

    def _keep(self, trial: Any) -> None:
        if self._params.lr == RAISES:
            raise ValueError("no good\nat all")
        if self._params.lr == TIRES and self._last["epoch"] == 2:
            raise ValueError("tired")
        if self._params.lr == HANGS:
            time.sleep(3600)
        if self._params.lr == DIES:
            os._exit(9)  # as the system ends a process when its memory runs out
        if self._params.lr == FILLS_MEMORY:
            torch.empty(10**14)  # 400 TB, more than a process has addresses for: a system may promise what it lacks
        super()._keep(trial)


if __name__ == "__main__":
    ray_tune.run_trials = functools.partial(ray_tune.run_trials, trainable=Misbehaving)  # type: ignore[assignment]
    sys.exit(run.main())
