"""Sections 5 and 6: how the trials went, epoch by epoch, and what the scheduler stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.data import CURVES_SHOWN, ReportData
from reports.page import figures, wording
from reports.page.blocks import Block, Column, Heading, Note, Picture, Pictures, Section, Table, Text
from reports.trials import tables
from sweep.records import STATUSES


def section(evidence: ReportData) -> Section:
    title = "Curves"
    epochs = evidence.run.epochs
    if epochs.empty:
        return Section("curves", title, (Text("No trial has ended an epoch."),))
    blocks: list[Block] = [Text(f"{evidence.basis('train')} {evidence.basis('val')}")]
    winners = evidence.ranked.head(CURVES_SHOWN).to_dict("records")
    for place, row in enumerate(winners, start=1):
        blocks.append(Heading(f"{_ordinal(place)}: trial {row['number']:.0f}, {row['backbone']}, {row['unfrozen']}"))
        blocks.append(Pictures(tuple(_of_trial(evidence, {str(k): v for k, v in row.items()}, place))))
    blocks.append(Heading("All trials"))
    blocks += _of_all(evidence)
    return Section("curves", title, tuple(blocks))


def stopping_section(evidence: ReportData) -> Section:
    title = "What was stopped early"
    if evidence.trials.empty:
        return Section("stopping", title, (Text("No trial has begun."),))
    facts = tables.stopped_by_depth(evidence.trials, evidence.mode)
    drawing = figures.status_bars(facts)
    scheduler = str(evidence.run.sweep.get("scheduler") or "unknown")
    text = f"Scheduler: {scheduler}. "
    if scheduler == "none":
        text += "Every trial was given all its epochs. "
    else:
        text += (
            "PruningRule early favours what learns fast: a new head alone, and high learning rates. Where deep trials "
            "were stopped much more often than shallow ones, they may not have had their chance. "
        )
    names = {"unfrozen": "trained", "pruned": "stopped early"}
    columns = (
        Column("unfrozen", "trained"),
        Column("trials", "trials", "integer"),
        *(Column(status, names.get(status, status), "integer") for status in STATUSES),
        Column("pruned_share", "share stopped", "percent"),
        Column("median_epochs", "median epochs", "general"),
        Column("score", f"best {wording.metric_name(evidence.metric)}", "score"),
    )
    caption = "Trials by depth. The share is that of trials that finished or were stopped. " + evidence.basis("val")
    alt = "Bars: " + "; ".join(
        f"{row['unfrozen']}: {row['pruned']} of {row['trials']} stopped early" for row in facts.to_dict("records")
    )
    picture = Picture(name="stopped_by_depth", caption="Trials by depth and end.", alt=alt, drawing=drawing)
    table = Table(name="stopped_by_depth", caption=caption, frame=facts, columns=columns)
    return Section("stopping", title, (Text(text), picture, table))


def rungs(sweep: Mapping[str, Any], last_epoch: int) -> list[int]:
    """Epochs at which ASHA decides: grace_period times powers of the reduction factor, before ``last_epoch``."""
    if sweep.get("scheduler") != "asha":
        return []
    epochs = int(sweep.get("epochs") or last_epoch)
    rung = float(sweep.get("grace_period") or max(3, epochs // 5))
    factor = float(sweep.get("reduction_factor") or 0)
    found = []
    while rung < last_epoch and factor > 1:
        found.append(int(rung))
        rung *= factor
    return found


def _of_trial(evidence: ReportData, row: Mapping[str, Any], place: int) -> list[Picture]:
    epochs = evidence.run.epochs[evidence.run.epochs["trial_id"] == row["trial_id"]]
    pictures = []
    for name, label in (("loss", "loss"), ("accuracy", "accuracy")):
        drawing = figures.curve(epochs, f"train_{name}", f"val_{name}", label, float(row["best_epoch"]))
        first, last = (epochs[f"val_{name}"].iloc[i] if f"val_{name}" in epochs else float("nan") for i in (0, -1))
        pictures.append(
            Picture(
                name=f"{name}_rank_{place}",
                caption=f"{name.capitalize()} of trial {row['number']:.0f}.",
                alt=f"{name.capitalize()} by epoch, training and validation: validation goes from {first:.3f} to "
                f"{last:.3f} in {len(epochs)} epochs; best epoch {row['best_epoch']:.0f}.",
                drawing=drawing,
            )
        )
    return pictures


def _of_all(evidence: ReportData) -> list[Block]:
    epochs, metric = evidence.run.epochs, evidence.metric
    name = wording.metric_name(metric)
    if metric not in epochs or not epochs[metric].notna().any():
        return [Note("warning", f"No epoch has a {name} that is a number.")]
    marks = rungs(evidence.run.sweep, int(epochs["epoch"].max()))
    best_id = str(evidence.best["trial_id"]) if evidence.best else None
    drawing = figures.all_curves(epochs, evidence.trials, metric, name, marks, best_id)
    stopped = int((evidence.trials["status"] == "pruned").sum())
    rung_text = ""
    if marks:
        epoch_list = f"epoch{'s' * (len(marks) > 1)} {wording.listing(map(str, marks))}"
        rung_text = f" Dotted lines: rungs, where the scheduler decides ({epoch_list})."
    caption = f"{name[:1].upper()}{name[1:]} of all {len(evidence.trials):,} trials; a cross is where one was "
    caption += f"stopped.{rung_text} {evidence.basis('val')}"
    alt = f"One line a trial; {stopped} of {len(evidence.trials)} were stopped early."
    return [Picture(name="all_scores", caption=caption, alt=alt, drawing=drawing)]


def _ordinal(place: int) -> str:
    return {1: "Best", 2: "Second", 3: "Third"}.get(place, f"{place}th")
