"""What the user sees while a sweep runs: a view that updates itself on a terminal, plain lines elsewhere, and curves.

The curves are for TensorBoard: an event file in each trial's folder, so that ``tensorboard --logdir RUN`` shows them
all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import math
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.history import TrialHistory, TrialState
from sweep.trial_records import best

if TYPE_CHECKING:
    from tensorboardX.record_writer import RecordWriter

REFRESHES_PER_SECOND = 2
LONGEST_TEXT = 400
LINES_BESIDE_TRIALS = 11
STYLES = {"completed": "green", "pruned": "yellow", "failed": "red"}
FLUSH_S = 10
_log = logging.getLogger(__name__)

P = ParamSpec("P")


def _never_fails(method: Callable[Concatenate[Progress, P], None]) -> Callable[Concatenate[Progress, P], None]:
    """An error of the view does not end a sweep: after a closed pipe or a lost terminal the view is silent."""

    @functools.wraps(method)
    def guarded(self: Progress, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            self.silent = True
            _log.warning("the progress view has stopped", exc_info=True)

    return guarded


class Progress:
    """Shows the events of a sweep. It holds a lock and a thread, so nothing that is pickled may hold it.

    stream: standard output by default; on a terminal that can move its cursor there is a view, else lines.
    clock: seconds, of any origin. time_budget_s: when the sweep will be stopped; the time left is never more. slots:
    gives how many trials can run at once, set by the code that runs them.
    """

    def __init__(
        self,
        facts: SweepProgress,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        time_budget_s: float | None = None,
    ) -> None:
        self.silent = False
        self.slots: Callable[[], int] | None = None
        self._facts = facts
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._start_s = clock()
        self._time_budget_s = time_budget_s
        # It guards only the facts: held while Live draws, it could deadlock with Live's own lock (reverse order).
        self._lock = threading.Lock()
        self._live: Live | None = None
        if isinstance(self._stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):  # a closed one
                self._stream.reconfigure(errors="replace")
        if _moves_cursor(self._stream):
            self._start_view()

    @_never_fails
    def trial_started(self, state: TrialState) -> None:
        """A trial begins, or begins again."""
        with self._lock:
            self._facts.begin(state)

    @_never_fails
    def epoch(self, state: TrialState) -> None:
        """A trial has ended an epoch."""
        with self._lock:
            self._facts.report(state)

    @_never_fails
    def trial_ended(self, state: TrialState) -> None:
        """A trial has ended."""
        with self._lock:
            self._facts.end(state)
            line = _ended_line(self._facts, state)
        # The view shows the end anyway; only the reason of a failure must stay on the screen.
        if self._live is None or state.status == "failed":
            self._print(line, "red" if state.status == "failed" else "")

    @_never_fails
    def message(self, text: str) -> None:
        """Show one line of text."""
        self._print(clean(text))

    @_never_fails
    def close(self) -> None:
        """Remove the view from the screen; everything later is shown as plain lines."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def view(self, height: int) -> RenderableType:
        """The view as it stands, for a terminal of ``height`` lines."""
        with self._lock:
            elapsed_s = self._clock() - self._start_s
            return _view(self._facts, elapsed_s, self._pace(elapsed_s).seconds_left, height)

    def pace(self) -> Pace:
        """The pace of the sweep at this moment."""
        with self._lock:
            return self._pace(self._clock() - self._start_s)

    def _pace(self, elapsed_s: float) -> Pace:
        left_s = self._facts.seconds_left(elapsed_s)
        if self._time_budget_s is not None:
            rest_s = max(0.0, self._time_budget_s - elapsed_s)
            left_s = rest_s if left_s is None else min(left_s, rest_s)
        slots = None if self.slots is None else self.slots()
        return Pace(slots, len(self._facts.running), self._facts.epochs_per_minute(elapsed_s), left_s)

    @_never_fails
    def _start_view(self) -> None:
        console = Console(file=self._stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        live = Live(
            get_renderable=lambda: self._view_or_nothing(console),
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )
        live.start()
        self._live = live

    def _view_or_nothing(self, console: Console) -> RenderableType:
        try:
            return self.view(console.height)
        except Exception:  # In Live's thread, which would end with a traceback on the screen.
            _log.warning("the progress view cannot be drawn", exc_info=True)
            return Text()

    def _print(self, line: str, style: str = "") -> None:
        if self.silent:
            return
        if self._live is not None:
            self._live.console.print(Text(line, style))
        else:
            print(line, file=self._stream, flush=True)


@dataclasses.dataclass(frozen=True)
class Pace:
    """slots: trials that can run at once now, None if unknown; busy: trials that do run. Before the first epoch the
    others are None, except ``seconds_left`` with a time budget."""

    slots: int | None
    busy: int
    epochs_per_minute: float | None
    seconds_left: float | None


def _moves_cursor(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False


class SweepProgress:
    """The progress of a sweep: ended trials by status, running trials, the best so far, the time left.

    total: trials in all; epochs: the most of a trial. earlier: trials of earlier sessions; those that have ended count,
    and may be the best, but are not used to estimate how long trials take. What is shown is copied at each event of a
    trial, so that another thread may read it.
    """

    def __init__(self, history: TrialHistory, total: int, epochs: int, earlier: Iterable[TrialState] = ()) -> None:
        self.total = total
        self.epochs = epochs
        self.metric = history.metric
        self.running: dict[int, TrialState] = {}
        self.ended: Counter[str] = Counter()
        self.best: TrialState | None = None
        self._mode = history.mode
        self._states: dict[int, TrialState] = {}
        self._epochs_run = 0
        self._lengths: list[int] = []
        for state in earlier:
            if state.ended:
                self.ended[state.status] += 1
                self._update(state)

    @property
    def ended_count(self) -> int:
        return sum(self.ended.values())

    @property
    def waiting(self) -> int:
        return max(0, self.total - self.ended_count - len(self.running))

    def begin(self, state: TrialState) -> None:
        """A trial starts, or continues after its worker was lost."""
        self.running[state.number] = self._update(state)

    def report(self, state: TrialState) -> None:
        """A running trial has ended an epoch."""
        self._epochs_run += 1
        self.begin(state)

    def end(self, state: TrialState) -> None:
        """A trial has ended in this session."""
        self.running.pop(state.number, None)
        self.ended[state.status] += 1
        self._update(state)
        self._lengths.append(_epoch(state))

    def epochs_per_minute(self, elapsed_s: float) -> float | None:
        """Of all trials together, on average over ``elapsed_s`` seconds; None before the first epoch."""
        return 60 * self._epochs_run / elapsed_s if self._epochs_run and elapsed_s > 0 else None

    def seconds_left(self, elapsed_s: float) -> float | None:
        """Estimate from the epochs run so far in ``elapsed_s`` seconds; None before the first.

        A trial is assumed to run as many epochs as those that ended in this session did on average, or its whole budget
        while none has ended.
        """
        rate = self.epochs_per_minute(elapsed_s)
        if rate is None:
            return None
        length = sum(self._lengths) / len(self._lengths) if self._lengths else self.epochs
        to_run = self.waiting * length + sum(max(0.0, length - _epoch(trial)) for trial in self.running.values())
        return 60 * to_run / rate

    def _update(self, state: TrialState) -> TrialState:
        shown = self._states[state.number] = dataclasses.replace(state, scores=dict(state.scores))
        among: Iterable[TrialState] = self._states.values()
        if self.best is not None and self.best.number != state.number:
            among = (self.best, shown)  # The others, perhaps thousands, have not changed.
        self.best = best(among, self._mode)  # by the same rule as everywhere
        return shown


def _view(facts: SweepProgress, elapsed_s: float, left_s: float | None, height: int) -> RenderableType:
    """The view for a terminal of ``height`` lines; left_s: None while unknown. The width is the terminal's.

    Best so far, trials running with epoch and score, counts, time elapsed and left.
    """
    parts: list[RenderableType] = [
        _headline(facts, elapsed_s, left_s),
        _in_columns(ProgressBar(total=max(1, facts.total), completed=facts.ended_count)),
        _counts(facts),
        Text(),
        _in_columns(Text("best", "dim"), _best(facts)),
    ]
    if facts.running:
        parts += [Text(), _running(facts, max(1, height - LINES_BESIDE_TRIALS))]
    return Group(*parts)


def _ended_line(facts: SweepProgress, trial: TrialState) -> str:
    """One line on a trial that has just ended, without any control character."""
    parts = [f"[{facts.ended_count}/{facts.total}] {trial.trial_id} {trial.status}"]
    if not math.isnan(trial.score):
        parts.append(f"{facts.metric} {_score(trial.score)} at epoch {_best_epoch(trial)}")
    parts.append(clean(trial.params.summary()))
    if trial.status != "completed":
        parts.append(clean(trial.reason))
    if facts.best is not None and trial.status != "failed":
        is_best = facts.best.number == trial.number
        best_so_far = f"best so far {_score(facts.best.score)} ({facts.best.trial_id})"
        parts.append("the best so far" if is_best else best_so_far)
    return " | ".join(part for part in parts if part)


def clean(text: str) -> str:
    """``text`` on one line: no escape sequences, no control characters, at most ``LONGEST_TEXT`` long."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)", "", text)
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


def duration(seconds: float) -> str:
    """Seconds in readable units: ``45 s``, ``3 min 12 s``, ``1 h 20 min``, ``2 d 3 h``."""
    whole = max(0, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def time_left(seconds: float) -> str:
    """``duration`` of an estimate, which from a minute on is only exact to whole minutes."""
    return duration(seconds if seconds < 60 else 60 * math.ceil(seconds / 60))


def _headline(facts: SweepProgress, elapsed_s: float, left_s: float | None) -> Text:
    line = Text.assemble((f"{facts.ended_count} of {facts.total} trials ended", "bold"))
    line.append(f", {duration(elapsed_s)} so far")
    if left_s is not None and facts.ended_count < facts.total:
        line.append(f", about {time_left(left_s)} left")
    return line


def _counts(facts: SweepProgress) -> Text:
    line = Text()
    for status, style in STYLES.items():
        count = facts.ended[status]
        line.append(f"{count} {status}", style if count else "dim").append(", ")
    return line.append(f"{len(facts.running)} running, {facts.waiting} waiting")


def _best(facts: SweepProgress) -> Text:
    if facts.best is None:
        return Text(f"no {facts.metric} yet")
    score = (f"{facts.metric} {_score(facts.best.score)}", "bold")
    where = f"  {facts.best.trial_id}, epoch {_best_epoch(facts.best)}"
    return Text.assemble(score, f"{where}\n{clean(facts.best.params.summary())}")


def _in_columns(*cells: RenderableType) -> Table:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in cells[1:]:
        grid.add_column()
    grid.add_column(ratio=1)
    grid.add_row(*cells)
    return grid


def _running(facts: SweepProgress, rows: int) -> RenderableType:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("trial", no_wrap=True)
    for name in ("epoch", "last", "best"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("configuration", no_wrap=True, ratio=1, overflow="ellipsis")
    for _, trial in sorted(facts.running.items())[:rows]:
        epoch = _epoch(trial)
        last = _score(trial.scores.get(epoch, math.nan))
        summary = clean(trial.params.summary())
        table.add_row(trial.trial_id, f"{epoch}/{facts.epochs}", last, _score(trial.score), summary)
    more = len(facts.running) - rows
    return table if more <= 0 else Group(table, Text(f"and {more} more", "dim"))


def _epoch(trial: TrialState) -> int:
    """Its last ended epoch; 0 before the first."""
    return max(trial.scores, default=0)


def _best_epoch(trial: TrialState) -> int:
    """The first epoch with its best score; it must have a score."""
    return next(epoch for epoch, score in trial.scores.items() if score == trial.score)


def _score(score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.4f}"


class TensorBoardLog:
    """Writes every number of every epoch as it is reported to ``history``; never read by the sweep.

    A trial that continues after a kill gets a second event file; TensorBoard shows both as one curve. An error of the
    files is logged and ends the writing, not the sweep.
    """

    def __init__(self, history: TrialHistory) -> None:
        self._history = history
        self._writers: dict[int, RecordWriter] = {}
        self._flushed_s = time.monotonic()
        self._broken = False
        history.on_report.append(self.epoch)
        history.on_end.append(self.end)

    def epoch(self, state: TrialState, record: dict[str, Any]) -> None:
        """Add one epoch's record: ``train_loss`` as train/loss, ``val_f1:a`` as val/f1/a, the rest under trial/."""
        if self._broken:
            return
        # Imported here, as it loads torch. SummaryWriter is not used: after its writing thread has met a full disk, a
        # call that hands it an epoch never returns.
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar

        try:
            writer = self._writers.get(state.number)
            if writer is None:
                file = f"events.out.tfevents.{time.time():.0f}.from_epoch_{record['epoch']}"
                writer = self._writers[state.number] = RecordWriter(str(self._history.files(state).root / file))
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for key, value in record.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    point = scalar(_tag(key), value)
                    event = Event(step=int(record["epoch"]), wall_time=time.time(), summary=point)
                    writer.write(event.SerializeToString())
            if time.monotonic() - self._flushed_s >= FLUSH_S:
                self._flushed_s = time.monotonic()
                for writer in self._writers.values():
                    writer.flush()
        except Exception as error:
            self._broken = True
            _log.warning("TensorBoard files cannot be written (%s): the sweep continues without them", error)

    def end(self, state: TrialState) -> None:
        """Close the trial's file."""
        writer = self._writers.pop(state.number, None)
        if writer is not None:
            _close(writer)

    def close(self) -> None:
        """Close what is still open: trials that were interrupted."""
        while self._writers:
            _close(self._writers.popitem()[1])


def _close(writer: RecordWriter) -> None:
    with contextlib.suppress(OSError):
        writer.close()


def _tag(key: str) -> str:
    for split in ("train", "val"):
        if key.startswith(f"{split}_"):
            return f"{split}/{key.removeprefix(f'{split}_').replace(':', '/', 1)}"
    return f"trial/{key}"
