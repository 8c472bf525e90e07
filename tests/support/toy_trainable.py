"""Trials of a sweep under Ray Tune without networks: an epoch is a number, its score a formula."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune

BUDGET = 6
GRACE_PERIOD = 2
REDUCTION_FACTOR = 3

# Ray's workers cannot import the tests' own modules; and need no torch for this, so that they start quickly.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Curve = Callable[[int, float, int], float]
"""The score of trial ``number`` with learning rate ``lr`` after ``epoch`` epochs."""


def each_worse_than_the_last(number: int, lr: float, epoch: int) -> float:
    """Of trials that run one after the other, asha stops all but the first at its first rung."""
    return -number + 0.01 * epoch


def eventful(number: int, lr: float, epoch: int) -> float:
    """Trial 1 breaks in epoch 2; trial 2 is the best of all, but not at its end; the others rise slowly."""
    if number == 1 and epoch == 2:
        return math.nan
    if number == 2:
        return 0.9 if epoch == 2 else 0.1
    return 0.5 + 0.01 * epoch


def learning(number: int, lr: float, epoch: int) -> float:
    """Rises towards a height that depends on the learning rate."""
    return (0.9 - 0.1 * abs(math.log10(lr) + 2.5)) * (1 - 0.5**epoch)


@dataclass(frozen=True)
class Timing:
    """slow: the trials, "even" or "odd", whose epochs take far longer than those of the others.

    meeting: a path at which trials 0 and 1 wait for each other, so that there are two workers from the first.
    """

    slow: str
    meeting: Path

    def wait(self, number: int, epoch: int) -> None:
        if epoch == 1 and number < 2:
            # Opening a named pipe returns when both its ends are open.
            self.meeting.open("wb" if number else "rb").close()
        if self.slow == ("even", "odd")[number % 2]:
            hashlib.pbkdf2_hmac("sha256", b"work", b"", 100_000)


def toy(curve: Curve, timing: Timing | None = None) -> type[tune.Trainable]:
    """A trainable that reports what ours does."""

    class ToyTrainable(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._number = int(config["number"])
            self._lr = float(config.get("params", config)["lr"])
            # As our trainable does: the state lies in the trial's folder, and its last epoch is reported once more.
            self._state = Path(config["files"]["state"]) if "files" in config else None
            kept = self._state is not None and self._state.exists()
            self._epoch = int(self._state.read_text()) - 1 if self._state is not None and kept else 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            if timing is not None:
                timing.wait(self._number, self._epoch)
            if self._state is not None:
                self._state.write_text(str(self._epoch))
            score = curve(self._number, self._lr, self._epoch)
            broken = math.isnan(score)
            result: dict[str, Any] = {
                "epoch": self._epoch,
                "score": score,
                "record": json.dumps({"epoch": self._epoch, "val_f1_macro": None if broken else score}),
                "done": broken or self._epoch >= BUDGET,
            }
            if result["done"]:
                result |= {"end": "nan" if broken else "budget", "reason": "no number" if broken else "ran its budget"}
            return result

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "epoch").write_text(str(self._epoch))

        def load_checkpoint(self, checkpoint_dir: str) -> None:
            self._epoch = int((Path(checkpoint_dir) / "epoch").read_text())

    return ToyTrainable
