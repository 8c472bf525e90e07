"""What the driver knows about the trials of a run, written to disk as soon as it is known.

The history is the only state of a sweep: the search reads the suggestions and outcomes of trials from it, the pruning
rule their scores by epoch, and ``--resume`` reads it back from the files. None of it is kept in Ray.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from sweep.run_folder import RunPaths, TrialPaths
from sweep.trial_records import EpochRecord, Suggestion, TrialRecord, best, rank, read_trials
from trainables.atomic import append_line, now, write_json, write_text

WEIGHTS_KEPT = 10
FAILED_KEPT = 10
"""For how many failed trials the state stays on disk, so that they can continue: those with the most epochs."""


@dataclass
class TrialState:
    """One trial. status as in records. scores: the selection metric of each epoch (NaN if undefined), from epoch 1;
    seconds: how long each epoch took; mode: "max" or "min" of the metric; restarts: how often its process was lost."""

    number: int
    trial_id: str
    params: TrialParams
    suggestion: Suggestion
    scores: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    trainable_params: int | None = None
    status: str = "running"
    reason: str = ""
    mode: str = "max"
    restarts: int = 0

    @property
    def score(self) -> float:
        """The best so far; NaN if it has none."""
        return self.best_score()

    def best_score(self, up_to: float = math.inf) -> float:
        """As ``score``, up to and including epoch ``up_to``."""
        known = [score for epoch, score in self.scores.items() if epoch <= up_to and not math.isnan(score)]
        return (max if self.mode == "max" else min)(known, default=math.nan)

    @property
    def ended(self) -> bool:
        return self.status != "running"

    @property
    def broken(self) -> bool:
        """Whether its last epoch has no score: the loss became NaN or infinite, so it cannot continue from there."""
        return bool(self.scores) and math.isnan(self.scores[max(self.scores)])

    @property
    def mean_epoch_seconds(self) -> float:
        """0 while unknown."""
        return sum(self.seconds.values()) / max(1, len(self.seconds))


class TrialHistory:
    """All trials of a run by number; ``mode`` is "max" or "min" of ``metric``, a column of the epochs table.

    on_report: called with each entry and its new epoch's record; on_end: with each entry as it ends. weights_kept: how
    many ended trials, the best ones, keep their weights on disk.
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
        self._kept: list[TrialState] = []
        self._failed: list[TrialState] = []

    def load(self) -> list[str]:
        """Read the trials of an earlier session back; returns what could not be read, one sentence each.

        Raises ``UserError`` if the parameters of one are invalid: of a later version, or edited.
        """
        problems: list[str] = []
        for record in self._records(problems):
            entry = TrialState(record.number, record.trial_id, self._params_of(record), record.suggestion)
            entry.status, entry.reason, entry.mode = record.status, record.reason, self.mode
            for epoch in record.epochs:
                self._add_epoch(entry, epoch)
            if (restarts := self.files(entry).restarts).exists():
                entry.restarts = len(restarts.read_bytes().splitlines())
            self.entries[record.number] = entry
        for entry in self.unfinished():
            with contextlib.suppress(OSError):  # A trial that continues reports its last epoch again.
                lines = self.files(entry).result.read_text(encoding="utf-8", errors="replace").splitlines()
                self._last_record[entry.number] = lines[-1] if lines else ""
        for entry in self.entries.values():
            if entry.ended:
                self._tidy(entry)
        return problems

    def _params_of(self, record: TrialRecord) -> TrialParams:
        try:
            return TrialParams.from_flat(record.params)
        except UserError as error:
            params = self.files(record).params
            way_out = f"repair it, or move {params.parent} away to continue without that trial"
            raise UserError(*(f"{params}: {problem}; {way_out}" for problem in error.problems)) from None

    @property
    def next_number(self) -> int:
        """One above the highest: a trial whose folder is gone or damaged leaves its number unused."""
        return max(self.entries, default=-1) + 1

    def begin(
        self, number: int, params: TrialParams, suggestion: Suggestion | None = None, name: str | None = None
    ) -> TrialState:
        """Record a new trial before it starts; ``name``: its id, by default that of its number."""
        assert number not in self.entries, f"trial {number} begins twice"
        entry = TrialState(number, name or trial_id(number), params, suggestion or Suggestion(), mode=self.mode)
        self.entries[number] = entry
        files = self.files(entry)
        for leftover in ("result", "status", "error", "restarts", "state", "stacks", "weights"):
            getattr(files, leftover).unlink(missing_ok=True)  # of a trial whose params.json was lost
        start = {"trial_id": entry.trial_id, "number": number, "params": params.to_flat()}
        drawn = entry.suggestion.model_dump(mode="json", exclude_defaults=True)
        write_json(files.params, start | {"suggestion": drawn})
        return entry

    def report(self, number: int, record: str) -> None:
        """Append an epoch's record (JSON text). A repeated one, as from a trial that continues, changes nothing."""
        if not record or self._last_record.get(number) == record:
            return
        self._last_record[number] = record
        entry = self.entries[number]
        facts = json.loads(record)
        self._add_epoch(entry, EpochRecord.from_line(facts, "", []))
        append_line(self.files(entry).result, record)
        for listener in self.on_report:
            listener(entry, facts)

    def restart(self, number: int, reason: str) -> None:
        """Record that a trial lost its process and why; it continues, or is ended, where it was."""
        entry = self.entries[number]
        entry.restarts += 1
        append_line(self.files(entry).restarts, json.dumps({"time": now(), "reason": reason}))

    def end(self, number: int, status: str, reason: str) -> None:
        """Record how a trial ended: "completed", "pruned" or "failed", and why. A second end changes nothing."""
        entry = self.entries[number]
        if entry.ended:
            return
        entry.status, entry.reason = status, reason
        self._last_record.pop(number, None)
        write_json(self.files(entry).status, {"status": status, "reason": reason})
        self._tidy(entry)
        for listener in self.on_end:
            listener(entry)

    def best(self) -> TrialState | None:
        """The best trial that did not fail, whether it has ended or not; None while none has a score."""
        return best(self.entries.values(), self.mode)

    def count(self, status: str) -> int:
        return sum(entry.status == status for entry in self.entries.values())

    def unfinished(self) -> list[TrialState]:
        return [entry for _, entry in sorted(self.entries.items()) if not entry.ended]

    def files(self, entry: TrialState | TrialRecord) -> TrialPaths:
        return self.paths.trial(entry.trial_id)

    def _records(self, problems: list[str]) -> list[TrialRecord]:
        return read_trials(self.paths.trial_folders(), self.paths.trials, self.metric, self.mode, problems)

    def _add_epoch(self, entry: TrialState, record: EpochRecord) -> None:
        for void in [epoch for epoch in entry.scores if epoch > record.epoch]:  # it was trained again from here
            del entry.scores[void], entry.seconds[void]
        entry.scores[record.epoch] = record.score(self.metric)
        seconds = record.epoch_seconds
        entry.seconds[record.epoch] = 0.0 if seconds is None or math.isnan(seconds) else seconds
        entry.trainable_params = record.trainable_params or entry.trainable_params

    def _tidy(self, ended: TrialState) -> None:
        """Clean up after an end; done again when a run is resumed, as a kill may have prevented it."""
        files = self.files(ended)
        if ended.status == "failed" and not files.error.exists():
            write_text(files.error, ended.reason + "\n")
        if files.stacks.exists() and not files.stacks.stat().st_size:
            files.stacks.unlink()
        if ended.status == "failed":
            self._keep_what_came_furthest(ended)
        else:
            files.state.unlink(missing_ok=True)
            self._keep_best_weights(ended)

    def _keep_what_came_furthest(self, failed: TrialState) -> None:
        """Keep state and weights of a failed trial, which may be retried, until the sweep has ended."""
        dropped = failed
        if not failed.broken and self.files(failed).state.exists():
            self._failed.append(failed)
            if len(self._failed) <= FAILED_KEPT:
                return
            dropped = min(self._failed, key=lambda one: (len(one.scores), -one.number))
            self._failed.remove(dropped)
        _drop_state(self.files(dropped))

    def _keep_best_weights(self, ended: TrialState) -> None:
        """Keep only the weights of the best ended trials: the disk space must not grow with the number of trials."""
        worst = ended
        if not math.isnan(ended.score):
            self._kept.append(ended)
            if len(self._kept) <= self.weights_kept:
                return
            worst = rank(self._kept, self.mode)[-1]
            self._kept.remove(worst)
        self.files(worst).weights.unlink(missing_ok=True)


class RepeatHistory(TrialHistory):
    """All repeats of finalists begun in this run; ``wanted``: the names ("t0007/seed_1001") that are requested now.

    An unfinished repeat of a configuration that is no finalist any more is left as it is. All weights are kept.
    """

    weights_kept = sys.maxsize

    def __init__(self, paths: RunPaths, metric: str, mode: str, wanted: Sequence[str]) -> None:
        super().__init__(paths, metric, mode)
        self.wanted = tuple(wanted)

    def unfinished(self) -> list[TrialState]:
        return [entry for entry in super().unfinished() if entry.trial_id in self.wanted]

    def of_wanted(self) -> list[TrialState]:
        """The wanted repeats that have begun, in the order in which they are wanted."""
        by_name = {entry.trial_id: entry for entry in self.entries.values()}
        return [by_name[name] for name in self.wanted if name in by_name]

    def _records(self, problems: list[str]) -> list[TrialRecord]:
        return read_trials(self.paths.repeat_folders(), self.paths.finalists, self.metric, self.mode, problems)


def retry_failed(paths: RunPaths, metric: str, mode: str, *, broken_too: bool) -> str:
    """Let failed trials and repeats run again, from their last epoch if their state exists; a line that names them.

    broken_too: also those whose loss became NaN or infinite, from their beginning. Files of the failed attempt get a
    number: ``status-1.json``.
    """
    names: list[str] = []
    broken = 0
    for history in (TrialHistory(paths, metric, mode), RepeatHistory(paths, metric, mode, ())):
        history.load()
        for entry in (one for _, one in sorted(history.entries.items()) if one.status == "failed"):
            if entry.broken and not broken_too:
                broken += 1
                continue
            files = history.files(entry)
            begun = files.state.exists()
            _set_aside([files.error, files.stacks, files.restarts, *([] if begun else [files.result]), files.status])
            place = f"epoch {len(entry.scores) + 1}" if begun else "its beginning"
            names.append(f"{entry.trial_id} (from {place})")
    diverged = f"; {broken} whose loss became NaN or infinite stay failed: --retry-failed all reruns them, too"
    left = diverged if broken else ""
    return f"failed trials to rerun: {', '.join(names) or 'none'}{left}"


def _set_aside(files: list[Path]) -> None:
    """Give those that exist the next free number, in order: the status last, so that a kill keeps the trial failed."""

    def numbered(path: Path, number: int) -> Path:
        return path.with_name(f"{path.stem}-{number}{path.suffix}")

    free = next(k for k in itertools.count(1) if not any(numbered(path, k).exists() for path in files))
    for path in files:
        if path.exists():
            path.rename(numbered(path, free))


def drop_failed_states(paths: RunPaths) -> None:
    """Remove states and weights of failed trials and repeats, once the sweep has ended."""
    for folder in (*paths.trial_folders(), *paths.repeat_folders()):
        files = TrialPaths(folder)
        if files.status.exists() and files.state.exists():
            _drop_state(files)


def _drop_state(files: TrialPaths) -> None:
    files.weights.unlink(missing_ok=True)
    files.state.unlink(missing_ok=True)


def trial_id(number: int) -> str:
    """The id of trial ``number``, also the name of its folder."""
    return f"t{number:04d}"
