"""One row of a study: what was claimed, as parameters that run it, or the reason why it cannot be run."""

from __future__ import annotations

import dataclasses

from search_spaces.params import TASKS, TrialParams


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRow:
    """id: the row's id in our list of the studies' results, unique over all five.

    params: the claimed configuration; None if it cannot be expressed, and then ``reason`` says why.
    task: "single_label" or "multi_label", as the study treated its labels. epochs: the study's own, >= 1.
    claim: the result as the study gave it, with what was measured. note: what was really run, where that differs.
    """

    id: str
    params: TrialParams | None
    task: str
    epochs: int
    claim: str
    note: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        assert (self.params is None) == bool(self.reason), f"{self.id}: parameters or the reason for their absence"
        assert self.task in TASKS, f"{self.id}: task {self.task}"
        assert self.epochs >= 1, f"{self.id}: epochs {self.epochs}"
