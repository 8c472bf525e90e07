"""Every trial with its score, its cost and the reason why it ended."""

from __future__ import annotations

from reports import formats, tables
from reports.blocks import Block, Facts, Folded, Table, Text, columns
from reports.importance import title
from reports.results import Results


def chapter(results: Results) -> list[Block]:
    data = results.data
    if data.trials.empty:
        return [Text("No trial has begun.")]
    blocks: list[Block] = []
    failed = tables.failures(data.trials)
    if len(failed):
        shown = columns("trials", "reason", numbers="numbers")
        blocks.append(Table("failures", "Failed trials by reason.", failed, shown))
    differing, constant = tables.varied(data.trials)
    frame = tables.all_trials(data.trials, differing)
    names = [str(name) for name in frame.columns if name != data.metric]
    titles = {name: title(name.removeprefix("param_")) for name in names if name.startswith("param_")}
    titles |= {"score": formats.metric_name(data.metric).replace("validation", "val"), "trial_id": "id"}
    titles |= {name: f"val {formats.score_name('accuracy', data.task)}" for name in names if name == "val_accuracy"}
    caption = "Scores are validation scores at a trial's best epoch. Click a heading to sort."
    shown = columns(*names, **titles)
    blocks.append(Table("trials", caption, frame, shown, filterable=True))
    if constant and len(data.trials) > 1:
        same = tuple((title(key), formats.show("general", constant[key])) for key in sorted(constant))
        blocks.append(Folded("Same in all trials", (Facts(same),)))
    return blocks
