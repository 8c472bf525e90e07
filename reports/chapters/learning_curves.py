"""The scores of the trials by epoch, and what the scheduler pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import figures, formats, tables
from reports.blocks import Block, Figure, Figures, Note, Table, Text, columns
from reports.results import Results
from sweep.records import SweepRecord
from sweep.trial_records import STATUSES

MEASURES = ("loss", "accuracy")


def chapter(results: Results) -> list[Block]:
    data, trial = results.data, results.trial
    if data.run.epochs.empty:
        return [Text("No trial has completed an epoch.")]
    blocks: list[Block] = [Text(f"{formats.escape(data.basis('train'))} {formats.escape(data.basis('val'))}")]
    if trial is not None:
        of = f"trial {trial['number']:.0f} ({trial['backbone']}, {trial['unfrozen']}) in the search"
        blocks.append(Figures(tuple(curve(results, trial, name, f"{name}_by_epoch", of) for name in MEASURES)))
    return [*blocks, _of_all(results), *_pruned(results)]


def rungs(sweep: SweepRecord, last_epoch: int) -> list[int]:
    """Epochs at which ASHA decides: grace_period times powers of the reduction factor, before ``last_epoch``."""
    found, rung, factor = [], float(sweep.grace_period or 0), sweep.reduction_factor or 0
    while sweep.scheduler == "asha" and 0 < rung < last_epoch and factor > 1:
        found.append(int(rung))
        rung *= factor
    return found


def curve(results: Results, trial: Mapping[str, Any], measure: str, name: str, of: str) -> Figure:
    """Loss or accuracy of one trial by epoch, in training and validation. name: of the figure; of: trial in words."""
    every, keys = results.data.run.epochs, (f"train_{measure}", f"val_{measure}")
    epochs = every[every["trial_id"] == trial["trial_id"]]
    label = formats.score_name(measure, results.data.task)
    drawing = figures.curve(epochs, *keys, label, float(trial["best_epoch"]))
    values = epochs[keys[1]].tolist() if keys[1] in epochs and len(epochs) else [float("nan")]
    alt = (
        f"{formats.capital(label)} by epoch, training and validation: validation goes from {values[0]:.3f} to "
        f"{values[-1]:.3f} in {len(epochs)} epochs; best epoch {trial['best_epoch']:.0f}."
    )
    frame = epochs[[key for key in ("epoch", *keys) if key in epochs]]
    return Figure(name, f"{formats.capital(label)} of {of}.", alt, drawing, frame)


def _of_all(results: Results) -> Block:
    """Every trial by epoch, and the epochs at which the scheduler decides."""
    data = results.data
    epochs, name = data.run.epochs, formats.metric_name(data.metric)
    if data.metric not in epochs or not epochs[data.metric].notna().any():
        return Note("warning", f"No epoch has a valid {name}.")
    marks = rungs(data.run.sweep, int(epochs["epoch"].max()))
    best = str(data.best["trial_id"]) if data.best else None
    drawing = figures.all_curves(epochs, data.trials, data.metric, name, marks, best)
    caption = f"{formats.capital(name)} of all {len(data.trials):,} trials; crosses mark where trials were pruned."
    if marks:
        listed = f"epoch{'s' * (len(marks) > 1)} {formats.listing(map(str, marks))}"
        caption += f" Dotted lines: rungs, where the scheduler decides ({listed})."
    alt = f"One line per trial; {tables.status_counts(data.trials)['pruned']} of {len(data.trials)} were pruned."
    return Figure("all_scores", caption, alt, drawing, epochs[["trial_id", "epoch", data.metric]])


def _pruned(results: Results) -> list[Block]:
    """Pruned trials by depth, to show whether slow learners were pruned too early."""
    data, scheduler = results.data, results.data.run.sweep.scheduler
    if scheduler in (None, "none") or not tables.status_counts(data.trials)["pruned"]:
        return [Text(f"Scheduler: {formats.escape(scheduler or 'unknown')}. No trial was pruned.")]
    text = (
        f"Scheduler: {formats.escape(scheduler)}. Pruning favours fast learners, such as a new head alone or high "
        "learning rates. Depths that were pruned much more often than others may be underrated."
    )
    facts = tables.stopped_by_depth(data.trials, data.ranked)
    seen = (key for key in STATUSES if facts[key].any())
    titles = {"pruned_share": "share pruned", "median_epochs": "median epochs"}
    titles["score"] = f"best {formats.metric_name(data.metric)}"
    caption = "Trials by depth. Share pruned: of the trials that completed or were pruned."
    shown = columns("unfrozen", "trials", *seen, **titles)
    return [Text(text), Table("pruned_by_depth", caption, facts, shown, folded=True)]
