"""What can be seen of a sweep from outside, whoever ran it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Seen:
    """Lists go by trial number, from 0.

    told: the trials as the study that the search draws from has them, duplicates that never ran left out.
    epochs: trained by each trial. configs: what was asked for. best: the number of the trial that is given as the best.
    folders: names of those made for trials. error: what ended the sweep before its time, if anything did.
    began: how many trials did. interrupted: by Ctrl-C, as the sweep itself says.
    """

    told: list[FrozenTrial] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    configs: list[dict[str, Any]] = field(default_factory=list)
    best: int | None = None
    folders: list[str] = field(default_factory=list)
    error: str | None = None
    began: int = 0
    interrupted: bool = False
