"""What is made of the trials when a sweep ends, however it ends: the tables, the report, and the last lines."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from sweep.history import TrialHistory
from sweep.model_paths import ModelPaths
from sweep.records import Finals, read_run
from sweep.run_folder import RunPaths
from trainables.atomic import write_atomically, write_json

ALL_FAILED = 1
INTERRUPTED = 130


def close(history: TrialHistory, interrupted: bool, out_of_time: bool) -> list[str]:
    """Write the tables and the report; returns the lines that tell the user what came out."""
    paths = history.paths
    saved = json.loads(paths.sweep.read_text(encoding="utf-8"))
    if not interrupted and (not out_of_time or paths.selection.exists()):
        # A search that used up its time and whose winner was decided is a sweep that has ended.
        write_json(paths.sweep, saved | {"ended": datetime.now(UTC).isoformat(timespec="seconds")})
    run = read_run(paths.root)
    write_atomically(paths.trials_table, lambda path: run.trials.to_parquet(path, index=False))
    write_atomically(paths.epochs_table, lambda path: run.epochs.to_parquet(path, index=False))
    problem = _write_report(paths)
    lines = last_words(history, run.finals, interrupted, out_of_time)
    return lines if problem is None else [*lines, f"the report could not be written: {problem}"]


def _write_report(paths: RunPaths) -> str | None:
    """Build the report, in a process of its own as a user would; returns what went wrong, or None."""
    command = [sys.executable, "-m", "reports.build", str(paths.root.absolute())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1], check=False)
    return None if done.returncode == 0 else (done.stderr.strip() or f"it ended with code {done.returncode}")


def last_words(history: TrialHistory, finals: Finals | None, interrupted: bool, out_of_time: bool) -> list[str]:
    """The lines that tell the user what came out, where it is, and how to go on."""
    counts = ", ".join(
        f"{history.count(status)} {word}"
        for status, word in (("completed", "completed"), ("pruned", "pruned"), ("failed", "failed"))
    )
    lines = [f"trials: {counts}" + (f", {unfinished} unfinished" if (unfinished := history.count("running")) else "")]
    best = history.best()
    if best is not None:
        lines.append(f"best: {best.trial_id} {history.metric} {history.best_score(best):.4f} {best.params.summary()}")
        if finals is None and history.files(best).weights.exists():
            lines.append(f"weights: {history.files(best).weights}")
    lines += _winner_lines(history, finals)
    failed = [entry for entry in history.entries.values() if entry.status == "failed"]
    if failed:
        lines.append(f"first failure: {failed[0].trial_id}: {failed[0].reason} ({history.files(failed[0]).error})")
    if (history.paths.report / "index.html").exists():
        lines.append(f"report: {history.paths.report / 'index.html'}")
    if interrupted or out_of_time:
        why = "interrupted" if interrupted else "the time budget is used up"
        more = "" if interrupted else " --time-budget TIME"
        lines.append(f"{why}: nothing is lost, go on with: {resume_command(history.paths)}{more}")
    return lines


def _winner_lines(history: TrialHistory, finals: Finals | None) -> list[str]:
    winner = None if finals is None else finals.winning
    if finals is None or winner is None:
        return []
    error = "" if math.isnan(winner.standard_error) else f", standard error {winner.standard_error:.4f}"
    times = f"{len(winner.scores)} repeat{'s' * (len(winner.scores) > 1)}"
    lines = [
        f"winner: {winner.trial_id} {history.metric} {winner.mean:.4f} (mean of {times}{error}; the search had "
        f"{winner.search_score:.4f})"
    ]
    lines.append("test split: opened, its scores are in the report" if finals.opened else "test split: there is none")
    model = ModelPaths(history.paths.models).model
    if model.exists():
        lines.append(f"model: {model} (python -m sweep.predict {history.paths.root} IMAGES)")
    return lines


def resume_command(paths: RunPaths) -> str:
    """The command that goes on with a run."""
    storage = "" if paths.root.parent == Path("runs") else f" --storage {paths.root.parent}"
    return f"python -m sweep.run --resume {paths.root.name}{storage}"


def exit_code(history: TrialHistory, interrupted: bool) -> int:
    """0; 1 if every trial failed; 130 after Ctrl-C."""
    if interrupted:
        return INTERRUPTED
    return ALL_FAILED if history.entries and history.count("failed") == len(history.entries) else 0
