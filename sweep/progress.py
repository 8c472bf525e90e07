"""What a person sees while a sweep runs: one view that updates itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from sweep.progress_view import clean, ended_line, sweep_view
from sweep.sweep_progress import SweepProgress

REFRESHES_PER_SECOND = 2

P = ParamSpec("P")


def _never_fails(method: Callable[Concatenate[Progress, P], None]) -> Callable[Concatenate[Progress, P], None]:
    """Nothing that goes wrong with the view ends a sweep: after a closed pipe or a lost terminal it falls silent."""

    @functools.wraps(method)
    def guarded(self: Progress, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.silent:
            return
        try:
            method(self, *args, **kwargs)
        except Exception:
            self.silent = True
            logging.getLogger("sweep").warning("the progress view has ended", exc_info=True)

    return guarded


class Progress:
    """Shows the events of a sweep. It holds a lock and a thread: whoever is pickled must leave it behind.

    stream: where to, standard output by default; on a terminal that can move its cursor there is a view, else lines.
    clock: seconds, of any origin. time_budget_s: when the sweep will be stopped; the time left is never more.
    """

    def __init__(
        self,
        standing: SweepProgress,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        time_budget_s: float | None = None,
    ) -> None:
        self.silent = False
        self._standing = standing
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._start_s = clock()
        self._time_budget_s = time_budget_s
        # It guards the standing alone. Held while Live draws, it would meet Live's own lock, taken the other way round.
        self._lock = threading.Lock()
        self._live: Live | None = None
        if isinstance(self._stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):  # a closed one
                self._stream.reconfigure(errors="replace")
        if _moves_cursor(self._stream):
            self._start_view()

    @classmethod
    def started(
        cls, total: int, epochs: int, metric: str, mode: str = "max", *, time_budget_s: float | None = None
    ) -> Self:
        """Begin to show a sweep of ``total`` trials of at most ``epochs`` epochs; mode: "max" or "min"."""
        return cls(SweepProgress(total=total, epochs=epochs, metric=metric, mode=mode), time_budget_s=time_budget_s)

    @_never_fails
    def ended_earlier(self, trial_id: str, number: int, status: str, score: float, summary: str) -> None:
        """A trial that ended before this session: it counts, and can be the best, but is no news."""
        with self._lock:
            self._standing.recall(trial_id, number, status, score, clean(summary))

    @_never_fails
    def trial_started(self, trial_id: str, number: int, summary: str) -> None:
        """A trial begins, or begins again; ``summary`` tells its configuration in short."""
        with self._lock:
            self._standing.begin(trial_id, number, clean(summary))

    @_never_fails
    def epoch(self, trial_id: str, number: int, epoch: int, score: float, best_score: float) -> None:
        """A trial has ended an epoch (1-based) with ``score``; ``best_score`` is its best so far, or NaN."""
        with self._lock:
            self._standing.report(trial_id, number, epoch, score, best_score)

    @_never_fails
    def trial_ended(self, trial_id: str, number: int, status: str, reason: str, score: float) -> None:
        """A trial has ended: status "completed", "pruned" or "failed"; score: that of its best epoch, or NaN."""
        with self._lock:
            trial = self._standing.end(trial_id, number, status, score)
            line = ended_line(self._standing, trial, status, clean(reason))
        # The view tells of it by itself; only why a trial failed must outlast the next update.
        if self._live is None or status == "failed":
            self._print(line, "red" if status == "failed" else "")

    @_never_fails
    def message(self, text: str) -> None:
        """One line of news."""
        self._print(clean(text))

    @_never_fails
    def close(self) -> None:
        """Take the view off the screen. What comes after this is plain lines."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def view(self, height: int = 25, ascii_only: bool = False) -> RenderableType:
        """The view as it stands, for a terminal of ``height`` lines."""
        with self._lock:
            elapsed_s = self._clock() - self._start_s
            left_s = self._standing.seconds_left(elapsed_s)
            if self._time_budget_s is not None:
                rest_s = max(0.0, self._time_budget_s - elapsed_s)
                left_s = rest_s if left_s is None else min(left_s, rest_s)
            return sweep_view(self._standing, elapsed_s, left_s, height, ascii_only)

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
            return self.view(console.height, console.options.ascii_only)
        except Exception:  # In the thread that refreshes: it would end with a traceback on the screen.
            logging.getLogger("sweep").warning("the progress view cannot be drawn", exc_info=True)
            return Text()

    def _print(self, line: str, style: str = "") -> None:
        if self._live is not None:
            self._live.console.print(Text(line, style))
        else:
            print(line, file=self._stream, flush=True)


def _moves_cursor(stream: TextIO) -> bool:
    try:
        return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False
