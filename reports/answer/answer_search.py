"""The answer of a search whose best configuration was not repeated: one validation score, and what it is worth."""

from __future__ import annotations

import math

from reports.answer import answer_model, answer_shortcuts
from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Command, FactList, Heading, Headline, Note, Text
from reports.trials import data_tables, tables

OTHER_SCORES = ("accuracy", "balanced_accuracy", "f1_macro", "auroc_macro", "hamming_accuracy", "nll")


def blocks(evidence: ReportData) -> list[Block]:
    return _no_winner(evidence) if evidence.best is None else _best(evidence)


def _no_winner(evidence: ReportData) -> list[Block]:
    counts = tables.status_counts(evidence.trials)
    if not len(evidence.trials):
        reason = "No trial has begun."
    elif counts["failed"] == len(evidence.trials):
        reason = f"All {counts['failed']} trials failed; the reasons stand under “All trials”."
    else:
        reason = f"No trial has a {wording.metric_name(evidence.metric)} yet that is a number."
    return [Headline(value=formats.ABSENT, label="There is no best configuration", detail=reason)]


def _best(evidence: ReportData) -> list[Block]:
    best = evidence.best
    assert best is not None
    trial = f"trial {best['number']:.0f}"
    epoch = formats.show("integer", best["best_epoch"])
    metric = wording.metric_name(evidence.metric)
    count = len(evidence.ranked)
    params = wording.trial_params(best)
    blocks: list[Block] = [
        Headline(
            value=formats.score(best["score"]),
            label=f"{_capital(metric)} of the best configuration ({trial}, epoch {epoch})",
            detail=_worth(evidence, count),
        ),
        Text(evidence.basis("val")),
        *answer_shortcuts.blocks(evidence, answer_shortcuts.contest(evidence, "val"), "val"),
    ]
    blocks += [Note("info", text) for text in _remarks(evidence)]
    blocks.append(Heading("Best configuration"))
    rows = (
        wording.in_words(params)
        if params
        else [("Hyperparameters", f"damaged; see trials/{best['trial_id']}/params.json")]
    )
    share = f"{formats.show('si', best['trainable_params'])} of {formats.show('si', best['total_params'])}"
    rows.insert(2, ("Trainable parameters", share))
    weights = f"trials/{best['trial_id']}/best/weights.pt"
    rows.append(
        ("Weights", weights if best["weights_kept"] else "not on disk (kept for the ten best when a trial ends)")
    )
    rows.append(("As a file", f"trials/{best['trial_id']}/params.json"))
    blocks += [
        FactList(tuple(rows)),
        Heading("The same epoch by other measures"),
        FactList(tuple(_other_scores(evidence)), tiles=True),
    ]
    if evidence.ended or answer_model.is_written(evidence):
        blocks += answer_model.blocks(evidence, f"{trial}, the best of the search")
    command = wording.again(evidence.run.sweep, params, evidence.name) if params else ""
    if command:
        blocks += [Heading("The command that trains this configuration once more"), Command(command)]
    return blocks


def _worth(evidence: ReportData, count: int) -> str:
    """The honest sentence about what a validation score is worth."""
    meaning = wording.metric_meaning(evidence.metric)
    text = f"This is {meaning}. " if meaning else ""
    if count > 1:
        text += (
            f"It is the best of {count} trials, each at its best epoch, chosen on the same validation images: it is "
        )
        text += "optimistic, and new images will most likely score lower. "
    else:
        text += "It is the best epoch of one trial, chosen on the same validation images: it is optimistic. "
    if (evidence.dataset.get("images") or {}).get("test") == 0:
        return text + "There is no test split that could tell by how much."
    return text + "The search did not open the test split."


def _remarks(evidence: ReportData) -> list[str]:
    """What the numbers say by simple rules, each from one comparison."""
    best = evidence.best
    assert best is not None
    found = []
    base = data_tables.majority_baseline(evidence.dataset)
    key = evidence.metric.removeprefix("val_")
    if base and key in base and best["score"] <= base[key] + 0.01:
        found.append("The best trial is no better than always answering the most frequent class: nothing was learned.")
    budget = evidence.run.sweep.get("epochs")
    if budget and budget > 1 and best["best_epoch"] == budget:
        found.append(f"The best epoch is the last of the budget ({budget}): more epochs may score higher.")
    if best["status"] == "running":
        found.append("The best trial has not ended: its score may still change.")
    if best["status"] == "pruned":
        found.append("The scheduler stopped the best trial early: it did not get all its epochs.")
    accuracy, size = best.get("val_accuracy"), evidence.validation_size
    if size and accuracy is not None and math.isfinite(accuracy):
        error = math.sqrt(accuracy * (1 - accuracy) / size)
        text = (
            f"{size:,} validation images: the standard error of an accuracy of {accuracy:.3f} is {error:.3f}, and more "
        )
        text += "where several images are of one patient. Configurations closer than that cannot be told apart here."
        found.append(text)
    return found


def _other_scores(evidence: ReportData) -> list[tuple[str, str]]:
    best = evidence.best
    assert best is not None
    return [
        (_capital(wording.metric_name(f"val_{name}").removeprefix("validation ")), text)
        for name in OTHER_SCORES
        if f"val_{name}" in best and (text := formats.show("score", best[f"val_{name}"])) != formats.ABSENT
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
