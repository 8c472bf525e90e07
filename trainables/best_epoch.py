"""Which epoch is the best so far, and whether a trial has come to its own end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from search_spaces.errors import UserError
from trainables.settings import TrialSettings


class BestEpochTracker:
    """Judges one epoch after the other by the selection metric; the earliest of equal epochs is the best.

    epoch: judged so far; best_epoch: 0 before the first; best_score: NaN before it. ended: no epoch may follow.
    """

    def __init__(self, settings: TrialSettings) -> None:
        self._settings = settings
        self.epoch, self.best_epoch, self.best_score = 0, 0, math.nan
        self.ended = False

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best so far."""
        return 0 < self.epoch == self.best_epoch

    def broken(self, what: str) -> dict[str, Any]:
        """What the record of an epoch without a usable loss says of the trial; ``what`` went wrong, as one sentence."""
        self.epoch += 1
        return self._said("nan", what)

    def judge(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What the record of a whole epoch says of the trial: best_epoch, best_<metric> and perhaps its end.

        UserError if the metric is undefined, which no other epoch would mend.
        """
        self.epoch += 1
        metric, score = self._settings.metric, float(record[self._settings.metric])
        if math.isnan(score):
            raise UserError(
                f"{metric} is undefined on the validation split, as a class that no image or every image has, has no "
                "AUROC: choose another --metric"
            )
        sign = 1 if self._settings.mode == "max" else -1
        if self.best_epoch == 0 or sign * score > sign * self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
        waited, patience = self.epoch - self.best_epoch, self._settings.patience
        if self.epoch >= self._settings.epochs:
            return self._said("budget", f"all {self._settings.epochs} epochs done")
        if patience is not None and waited >= patience:
            return self._said("plateau", f"{waited} epochs without a better {metric}")
        return self._said(None, "")

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as numbers."""
        names = ("epoch", "best_epoch", "best_score", "ended")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        vars(self).update(state)

    def _said(self, end: str | None, reason: str) -> dict[str, Any]:
        self.ended = end is not None
        said = {"best_epoch": self.best_epoch, f"best_{self._settings.metric}": self.best_score}
        return said | ({"done": True, "end": end, "reason": reason} if self.ended else {})
