"""Section 7: every trial with its end and reason."""

from __future__ import annotations

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, FactList, Heading, Section, Table, Text
from reports.trials import tables

_TITLES = {
    "lr": "learning rate",
    "batch_size": "batch",
    "backbone_lr_factor": "backbone lr x",
    "head_widths": "head",
    "lr_schedule": "schedule",
    "unfreeze_layers": "layers",
}


def section(evidence: ReportData) -> Section:
    title = "All trials"
    trials = evidence.trials
    if trials.empty:
        return Section("trials", title, (Text("No trial has begun."),))
    counts = tables.status_counts(trials)
    blocks: list[Block] = [
        Text(
            f"{len(trials):,} trials: {counts['completed']} completed (ran their epochs, or ended by their patience), "
            f"{counts['pruned']} stopped early by the scheduler, {counts['failed']} failed, {counts['running']} "
            "without an end. Click a heading to sort."
        )
    ]
    failed = tables.failures(trials)
    if len(failed):
        columns = (Column("trials", "trials", "integer"), Column("reason", "reason"), Column("numbers", "which"))
        blocks += [
            Heading("Failures"),
            Table(name="failures", caption="Why trials failed.", frame=failed, columns=columns),
        ]
    differing, constant = tables.varied(trials)
    frame = tables.all_trials(trials, differing)
    if len(blocks) > 1:
        blocks.append(Heading("Every trial"))
    blocks.append(
        Table(
            name="trials",
            caption=f"Scores are validation scores at a trial's best epoch. {evidence.basis('val')}",
            frame=frame,
            columns=_columns(evidence, [str(name) for name in frame.columns]),
            filterable=True,
            status_key="status",
        )
    )
    if constant and len(trials) > 1:
        same = tuple(
            (_TITLES.get(key, key.replace("_", " ")), formats.show("general", constant[key]))
            for key in sorted(constant)
        )
        blocks += [Heading("The same in all trials"), FactList(same)]
    return Section("trials", title, tuple(blocks))


def _columns(evidence: ReportData, names: list[str]) -> tuple[Column, ...]:
    known = {
        "number": Column("number", "trial", "integer"),
        "status": Column("status", "status"),
        "score": Column("score", wording.metric_name(evidence.metric).replace("validation", "val"), "score"),
        "backbone": Column("backbone", "backbone"),
        "unfrozen": Column("unfrozen", "trained"),
        "val_accuracy": Column("val_accuracy", "val accuracy", "score"),
        "val_f1_macro": Column("val_f1_macro", "val macro F1", "score"),
        "best_epoch": Column("best_epoch", "best epoch", "integer"),
        "epochs_run": Column("epochs_run", "epochs run", "integer"),
        "trainable_params": Column("trainable_params", "trainable", "si"),
        "seconds": Column("seconds", "time", "duration"),
        "reason": Column("reason", "reason"),
        "trial_id": Column("trial_id", "id"),
    }
    shown = [name for name in names if name != evidence.metric]
    plain = {name: name.removeprefix("param_") for name in shown}
    return tuple(
        known.get(name) or Column(name, _TITLES.get(plain[name], plain[name].replace("_", " ")), "general")
        for name in shown
    )
