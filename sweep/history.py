"""What the driver knows of the trials of a run, and writes down the moment it learns it.

The history is the one state of a sweep: the search asks it what was told, the stopping rule asks it who reached which
epoch with which score, and ``--resume`` reads it back from the files. Nothing of it lives in Ray.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from search_spaces.params import Scalar, TrialParams
from sweep.run_folder import RunPaths, TrialPaths
from sweep.trial_records import TrialRecord, read_trials
from trainables.atomic import write_json

WEIGHTS_KEPT = 10


@dataclasses.dataclass
class TrialState:
    """One trial. scores: the selection metric of each epoch (NaN if undefined), from epoch 1; status as in records.

    asked: what the search needs to rebuild its study (see ``sweep.optuna_search``), or of a repeat what is repeated how.
    seconds: how long each epoch took.
    """

    number: int
    trial_id: str
    params: TrialParams
    asked: dict[str, Any]
    scores: dict[int, float] = dataclasses.field(default_factory=dict)
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    status: str = "running"
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.status != "running"

    @property
    def mean_epoch_seconds(self) -> float:
        """0 while unknown."""
        return sum(self.seconds.values()) / max(1, len(self.seconds))


class TrialHistory:
    """All trials of a run by number; ``mode`` is "max" or "min" of ``metric``, a column of the epochs table.

    on_report: called with each entry and its new epoch's record; on_end: with each entry as it ends. weights_kept: of
    how many trials, the best ones, the weights stay on disk when they have ended.
    """

    weights_kept = WEIGHTS_KEPT

    def __init__(self, paths: RunPaths, metric: str, mode: str) -> None:
        self.paths = paths
        self.metric = metric
        self.mode = mode
        self.entries: dict[int, TrialState] = {}
        self.on_report: list[Callable[[TrialState, dict[str, Any]], None]] = []
        self.on_end: list[Callable[[TrialState], None]] = []
        self._last_record: dict[int, str] = {}
        self._kept: dict[int, float] = {}

    def load(self) -> list[str]:
        """Read the trials of an earlier session back; returns what could not be read, one sentence each."""
        problems: list[str] = []
        for record in self._records(problems):
            self.entries[record.number] = self._entry(record)
        for entry in self.entries.values():
            if entry.ended:
                self._tidy(entry)
        return problems

    @property
    def next_number(self) -> int:
        """One above the highest: a trial whose folder is gone or damaged leaves its number unused."""
        return max(self.entries, default=-1) + 1

    def begin(self, number: int, params: TrialParams, asked: dict[str, Any], name: str | None = None) -> TrialState:
        """Write down a new trial before it starts; ``name``: its id, by default that of its number."""
        assert number not in self.entries, f"trial {number} begins twice"
        entry = TrialState(number=number, trial_id=name or trial_id(number), params=params, asked=asked)
        self.entries[number] = entry
        files = self.files(entry)
        for leftover in (files.result, files.status, files.error, files.state, files.stacks, files.weights):
            leftover.unlink(missing_ok=True)  # of a trial whose params.json was lost
        start = {"trial_id": entry.trial_id, "number": number, "params": params.to_flat(), "asked": asked}
        write_json(files.params, start)
        return entry

    def report(self, number: int, epoch: int, score: float, record: str) -> None:
        """Append an epoch's record (JSON text). The same record again changes nothing: Ray tells of it twice."""
        if not record or self._last_record.get(number) == record:
            return
        self._last_record[number] = record
        entry = self.entries[number]
        facts = json.loads(record)
        entry.scores[epoch] = score
        entry.seconds[epoch] = _seconds(facts)
        path = self.files(entry).result
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if torn else "") + record + "\n")
        for listener in self.on_report:
            listener(entry, facts)

    def end(self, number: int, status: str, reason: str) -> None:
        """Write down how a trial ended: "completed", "pruned" or "failed", and why. A second end changes nothing."""
        entry = self.entries[number]
        if entry.ended:
            return
        entry.status, entry.reason = status, reason
        write_json(self.files(entry).status, {"status": status, "reason": reason})
        self._tidy(entry)
        for listener in self.on_end:
            listener(entry)

    def best_score(self, entry: TrialState, up_to: int | None = None) -> float:
        """The best score of a trial so far (up to and with epoch ``up_to``); NaN if it has none."""
        scores = [
            score
            for epoch, score in entry.scores.items()
            if not math.isnan(score) and (up_to is None or epoch <= up_to)
        ]
        return self.better_of(scores) if scores else math.nan

    def better_of(self, scores: list[float]) -> float:
        return max(scores) if self.mode == "max" else min(scores)

    def count(self, status: str) -> int:
        return sum(entry.status == status for entry in self.entries.values())

    def unfinished(self) -> list[TrialState]:
        return [entry for _, entry in sorted(self.entries.items()) if not entry.ended]

    def best(self) -> TrialState | None:
        """The trial with the best score at its best epoch; of equals the first. Failed trials do not count."""
        sign = 1.0 if self.mode == "max" else -1.0
        scored = [
            (sign * score, -entry.number, entry)
            for entry in self.entries.values()
            if entry.status != "failed" and not math.isnan(score := self.best_score(entry))
        ]
        return max(scored)[2] if scored else None

    def files(self, entry: TrialState) -> TrialPaths:
        return self.paths.trial(entry.trial_id)

    def _records(self, problems: list[str]) -> list[TrialRecord]:
        return read_trials(self.paths.trial_folders(), self.paths.trials, problems)

    def _entry(self, record: TrialRecord) -> TrialState:
        return TrialState(
            number=record.number,
            trial_id=record.trial_id,
            params=TrialParams.from_flat(record.params),
            asked=record.start.get("asked", {}),
            scores={row["epoch"]: _number(row.get(self.metric)) for row in record.epochs},
            seconds={row["epoch"]: _seconds(row) for row in record.epochs},
            status=record.status,
            reason=record.reason,
        )

    def _tidy(self, ended: TrialState) -> None:
        """What follows from an end; done again when a run is resumed, as a kill may have come in between."""
        files = self.files(ended)
        if ended.status == "failed" and not files.error.exists():
            files.error.write_text(ended.reason + "\n", encoding="utf-8")
        files.state.unlink(missing_ok=True)
        if files.stacks.exists() and not files.stacks.stat().st_size:
            files.stacks.unlink()
        self._keep_best_weights(ended)

    def _keep_best_weights(self, ended: TrialState) -> None:
        """Keep the weights of the best trials that have ended: a sweep's disk does not grow with its trials."""
        score = self.best_score(ended)
        if ended.status == "failed" or math.isnan(score):
            self.files(ended).weights.unlink(missing_ok=True)
            return
        self._kept[ended.number] = score if self.mode == "max" else -score
        if len(self._kept) > self.weights_kept:
            # Of equals the first are kept, since ``best`` is the first of equals.
            worst = min(self._kept, key=lambda number: (self._kept[number], -number))
            del self._kept[worst]
            self.files(self.entries[worst]).weights.unlink(missing_ok=True)


def trial_id(number: int) -> str:
    """The name of the ``number``-th trial of a run, also of its folder."""
    return f"t{number:04d}"


def to_json_scalars(values: dict[str, Any]) -> dict[str, Scalar]:
    """``values`` as JSON can hold them (numpy scalars become Python's)."""
    return {key: json.loads(json.dumps(value, default=lambda odd: odd.item())) for key, value in values.items()}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _seconds(record: dict[str, Any]) -> float:
    seconds = _number(record.get("epoch_seconds"))
    return 0.0 if math.isnan(seconds) else seconds
