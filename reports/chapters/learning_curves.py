"""How the trials went, epoch by epoch, and what the scheduler pruned."""

from __future__ import annotations

from typing import Any

from reports import figures, formats, tables
from reports.blocks import Block, Chapter, Column, Figure, Figures, Note, Table, Text
from reports.results import Results
from sweep.records import SweepRecord
from sweep.trial_records import STATUSES

TITLE = "Learning curves"


def chapter(results: Results) -> Chapter:
    data = results.data
    if data.run.epochs.empty:
        return Chapter("learning_curves", TITLE, (Text("No trial has ended an epoch."),))
    blocks: list[Block] = [Text(f"{formats.escape(data.basis('train'))} {formats.escape(data.basis('val'))}")]
    trial = results.trial
    if trial is not None:
        blocks.append(Figures(tuple(_of_trial(results, trial, name) for name in ("loss", "accuracy"))))
    return Chapter("learning_curves", TITLE, (*blocks, _of_all(results), *_pruned(results)))


def rungs(sweep: SweepRecord, last_epoch: int) -> list[int]:
    """Epochs at which ASHA decides: grace_period times powers of the reduction factor, before ``last_epoch``."""
    if sweep.scheduler != "asha":
        return []
    rung = float(sweep.grace_period or max(3, (sweep.epochs or last_epoch) // 5))
    found = []
    while rung < last_epoch and (sweep.reduction_factor or 0) > 1:
        found.append(int(rung))
        rung *= sweep.reduction_factor or 0
    return found


def _of_trial(results: Results, row: dict[str, Any], name: str) -> Figure:
    every = results.data.run.epochs
    epochs = every[every["trial_id"] == row["trial_id"]]
    drawing = figures.curve(epochs, f"train_{name}", f"val_{name}", name, float(row["best_epoch"]))
    values = epochs[f"val_{name}"].tolist() if f"val_{name}" in epochs and len(epochs) else [float("nan")]
    frame = epochs[[key for key in ("epoch", f"train_{name}", f"val_{name}") if key in epochs]]
    trial = f"trial {row['number']:.0f} ({row['backbone']}, {row['unfrozen']})"
    alt = (
        f"{name.capitalize()} by epoch, training and validation: validation goes from {values[0]:.3f} to "
        f"{values[-1]:.3f} in {len(epochs)} epochs; best epoch {row['best_epoch']:.0f}."
    )
    return Figure(f"{name}_by_epoch", f"{name.capitalize()} of {trial} in the search.", alt, drawing, frame)


def _of_all(results: Results) -> Block:
    """Every trial by epoch, and the epochs at which the scheduler decides."""
    data = results.data
    epochs, name = data.run.epochs, formats.metric_name(data.metric)
    if data.metric not in epochs or not epochs[data.metric].notna().any():
        return Note("warning", f"No epoch has a {name} that is a number.")
    marks = rungs(data.run.sweep, int(epochs["epoch"].max()))
    drawing = figures.all_curves(
        epochs, data.trials, data.metric, name, marks, str(data.best["trial_id"]) if data.best else None
    )
    caption = f"{formats.capital(name)} of all {len(data.trials):,} trials; a cross is where one was pruned."
    if marks:
        listed = f"epoch{'s' * (len(marks) > 1)} {formats.listing(map(str, marks))}"
        caption += f" Dotted lines: rungs, where the scheduler decides ({listed})."
    alt = f"One line a trial; {tables.status_counts(data.trials)['pruned']} of {len(data.trials)} were pruned."
    frame = epochs[["trial_id", "epoch", data.metric]]
    return Figure("all_scores", caption, alt, drawing, frame)


def _pruned(results: Results) -> list[Block]:
    """By depth: whether what learns slowly had its chance."""
    data, scheduler = results.data, results.data.run.sweep.scheduler
    if scheduler in (None, "none") or not tables.status_counts(data.trials)["pruned"]:
        return [Text(f"Scheduler: {formats.escape(scheduler or 'unknown')}. No trial was pruned.")]
    text = (
        f"Scheduler: {formats.escape(scheduler)}. Pruning favours what learns fast: a new head alone, high learning "
        "rates. Depths that were pruned much more often than others may not have had their chance."
    )
    facts = tables.stopped_by_depth(data.trials, data.ranked)
    columns = (
        Column("unfrozen", "trained"),
        Column("trials", "trials", "integer"),
        *(Column(key, key, "integer") for key in STATUSES if facts[key].any()),
        Column("pruned_share", "share pruned", "percent"),
        Column("median_epochs", "median epochs", "general"),
        Column("score", f"best {formats.metric_name(data.metric)}", "score"),
    )
    caption = "Trials by depth. The share is of trials that completed or were pruned."
    return [Text(text), Table("pruned_by_depth", caption, facts, columns, folded=True)]
