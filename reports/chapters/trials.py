"""Every trial with its score, its cost and the reason of its end."""

from __future__ import annotations

from reports import formats, tables
from reports.blocks import Block, Chapter, Column, Facts, Folded, Table, Text
from reports.importance import title
from reports.results import Results

KNOWN = {
    "number": ("trial", "integer"),
    "status": ("status", "text"),
    "backbone": ("backbone", "text"),
    "unfrozen": ("trained", "text"),
    "val_accuracy": ("val accuracy", "score"),
    "val_f1_macro": ("val macro F1", "score"),
    "best_epoch": ("best epoch", "integer"),
    "epochs_run": ("epochs run", "integer"),
    "trainable_params": ("trainable", "si"),
    "seconds": ("time", "duration"),
    "reason": ("reason", "text"),
    "trial_id": ("id", "text"),
}


def chapter(results: Results) -> Chapter:
    data, counts = results.data, tables.status_counts(results.data.trials)
    if data.trials.empty:
        return Chapter("trials", "All trials", (Text("No trial has begun."),))
    blocks: list[Block] = [
        Text(
            f"{len(data.trials):,} trials: {counts['completed']} completed, {counts['pruned']} pruned, "
            f"{counts['failed']} failed, {counts['running']} without an end. Click a heading to sort."
        )
    ]
    failed = tables.failures(data.trials)
    if len(failed):
        why = (Column("trials", "trials", "integer"), Column("reason", "reason"), Column("numbers", "which"))
        blocks.append(Table("failures", "Why trials failed.", failed, why))
    differing, constant = tables.varied(data.trials)
    frame = tables.all_trials(data.trials, differing)
    known = KNOWN | {"score": (formats.metric_name(data.metric).replace("validation", "val"), "score")}
    shown = [str(name) for name in frame.columns if name != data.metric]
    columns = tuple(Column(name, *known.get(name, (title(name.removeprefix("param_")), "general"))) for name in shown)
    caption = "Scores are validation scores at a trial's best epoch."
    blocks.append(Table("trials", caption, frame, columns, filterable=True, status_key="status"))
    if constant and len(data.trials) > 1:
        same = tuple((title(key), formats.show("general", constant[key])) for key in sorted(constant))
        blocks.append(Folded("The same in all trials", (Facts(same),)))
    return Chapter("trials", "All trials", tuple(blocks))
