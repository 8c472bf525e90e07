"""How the standing of a sweep looks: the view of a terminal, and the line of an ended trial."""

from __future__ import annotations

import math
import re

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.sweep_progress import SweepProgress, Trial

WORDS = {"completed": "completed", "pruned": "pruned", "failed": "failed"}
STYLES = {"completed": "green", "pruned": "yellow", "failed": "red"}
LONGEST_TEXT = 400
LINES_BESIDE_TRIALS = 11


def sweep_view(
    standing: SweepProgress, elapsed_s: float, left_s: float | None, height: int, ascii_only: bool
) -> RenderableType:
    """The view for a terminal of ``height`` lines; left_s: None while nothing is known. The width is the terminal's.

    Best so far, trials running with epoch and score, counts, time elapsed and left.
    """
    parts: list[RenderableType] = [
        _headline(standing, elapsed_s, left_s),
        _in_columns(ProgressBar(total=max(1, standing.total), completed=standing.ended_count)),
        _counts(standing),
        Text(),
        _in_columns(Text("best", "dim"), _best(standing)),
    ]
    if standing.running:
        parts += [Text(), _running(standing, max(1, height - LINES_BESIDE_TRIALS), ascii_only)]
    return Group(*parts)


def ended_line(standing: SweepProgress, trial: Trial, status: str, reason: str) -> str:
    """One line on a trial that has just ended, without any control character."""
    parts = [f"[{standing.ended_count}/{standing.total}] {trial.trial_id} {WORDS.get(status, status)}"]
    if not math.isnan(trial.best_score):
        epoch = f" at epoch {trial.best_epoch}" if trial.best_epoch else ""
        parts.append(f"{standing.metric} {_score(trial.best_score)}{epoch}")
    if trial.summary:
        parts.append(trial.summary)
    if reason and status != "completed":
        parts.append(reason)
    best = standing.best
    if best is not None and status != "failed":
        is_best = best.number == trial.number
        parts.append("the best so far" if is_best else f"best so far {_score(best.best_score)} ({best.trial_id})")
    return " | ".join(parts)


def clean(text: str) -> str:
    """``text`` on one line: no escape sequences, no control characters, not endless."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)", "", text)
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``45 s``, ``3 min 12 s``, ``1 h 20 min``, ``2 d 3 h``."""
    whole = max(0, round(seconds))
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def _headline(standing: SweepProgress, elapsed_s: float, left_s: float | None) -> Text:
    line = Text.assemble((f"{standing.ended_count} of {standing.total} trials ended", "bold"))
    line.append(f", {duration(elapsed_s)} so far")
    if left_s is not None and standing.ended_count < standing.total:
        # An estimate: whole minutes are all that can be said of it.
        line.append(f", about {duration(left_s if left_s < 60 else 60 * math.ceil(left_s / 60))} left")
    return line


def _counts(standing: SweepProgress) -> Text:
    line = Text()
    for status, word in WORDS.items():
        count = standing.ended[status]
        line.append(f"{count} {word}", STYLES[status] if count else "dim")
        line.append(", ")
    return line.append(f"{len(standing.running)} running, {standing.waiting} waiting")


def _best(standing: SweepProgress) -> Text:
    best = standing.best
    if best is None:
        return Text(f"no {standing.metric} yet")
    epoch = f", epoch {best.best_epoch}" if best.best_epoch else ""
    score = (f"{standing.metric} {_score(best.best_score)}", "bold")
    return Text.assemble(score, f"  {best.trial_id}{epoch}\n{best.summary}")


def _in_columns(*cells: RenderableType) -> Table:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    for _ in cells[1:]:
        grid.add_column()
    grid.add_column(ratio=1)
    grid.add_row(*cells)
    return grid


def _running(standing: SweepProgress, rows: int, ascii_only: bool) -> RenderableType:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("trial", no_wrap=True)
    table.add_column("epoch", no_wrap=True, justify="right")
    table.add_column("last", no_wrap=True, justify="right")
    table.add_column("best", no_wrap=True, justify="right")
    table.add_column("configuration", no_wrap=True, ratio=1, overflow="crop" if ascii_only else "ellipsis")
    trials = [trial for _, trial in sorted(standing.running.items())]
    for trial in trials[:rows]:
        epoch = f"{trial.epoch}/{standing.epochs}"
        table.add_row(trial.trial_id, epoch, _score(trial.score), _score(trial.best_score), trial.summary)
    if len(trials) <= rows:
        return table
    return Group(table, Text(f"and {len(trials) - rows} more", "dim"))


def _score(score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.4f}"
