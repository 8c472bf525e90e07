"""The report in one minute: the winner and its score, rivals, confusion, configuration, verdict and caveats."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reports import figures, formats, intervals, tables
from reports.blocks import Block, Code, Facts, Figure, Folded, Headline, Note, Text
from reports.bootstrap import Scores
from reports.caveats import caveats
from reports.chapters.errors import at_operating_point, confusion_figure, in_summary
from reports.formats import escape
from reports.intervals import interval
from reports.results import Results
from sweep.run_folder import ModelPaths
from trainables.metrics import metric_mode

MOST_CAVEATS = 4
MOST_RUNNERS_UP = 3
MOST_BARS = 20
LEVELS = {"error": "Problem", "warning": "Caution", "info": "Note"}


def chapter(results: Results) -> list[Block]:
    """Made last, since other chapters may find more files that cannot be read."""
    # If the winner has no scores, those of the split are of another network, which is shown instead.
    scores = results.judged_scores if results.winner is None or results.winner.scores is not None else None
    blocks: list[Block] = [_headline(results, scores)]
    judge = results.judged_baselines
    finding = judge.frozen_sentence if judge is not None and judge.close("frozen") else ""
    if said := " ".join(filter(None, (results.verdict, finding))):
        blocks.append(Text(escape(said)))
    if scores is not None:
        blocks += [_forest(results, scores), _decisions(results, scores)]
    if results.number is not None:
        blocks.append(Facts(tuple(_configuration(results))))
    blocks += _caveats(results)
    if results.number is not None:
        blocks.append(Folded("The model file and how to use it", tuple(_model(results))))
    blocks.append(Folded("What was run", (Facts(tuple(_run(results))),)))
    problems = tuple(results.data.run.problems)
    if problems:
        found = Note("error", "Problems found while reading the run folder:", problems)
        blocks.append(Folded(f"Problems of the run folder ({len(problems)})", (found,)))
    return blocks


def _headline(results: Results, scores: Scores | None) -> Headline:
    """The winner; before a selection, the best trial of the search, labelled as validation."""
    winner, best = results.winner, results.data.best
    known = None if scores is None else interval(scores, results.metric)
    if winner is not None and winner.finalist.scores:
        value, whose = winner.finalist.mean if known is None else known.estimate, f"the winner, {winner.title}"
    elif best is not None:
        value = float(best["score"])
        whose = f"the best trial, {best['number']:.0f}, at epoch {formats.show('integer', best['best_epoch'])}"
        if winner is not None or results.data.metric != f"{results.split}_{results.metric}":
            known = None
    else:
        return Headline(formats.ABSENT, "There is no best configuration", _no_best(results))
    name = formats.metric_name(results.data.metric) if known is None else results.metric_name
    bounds = ""
    if known is not None and not math.isnan(known.low):
        bounds = f" (95\N{NO-BREAK SPACE}% CI {formats.score(known.low)}–{formats.score(known.high)})"
    return Headline(formats.show("score", value), f"{formats.capital(name)} of {whose}{bounds}", _worth(results))


def _no_best(results: Results) -> str:
    """Why there is no score to show."""
    trials = results.data.trials
    failed = tables.status_counts(trials)["failed"]
    if not len(trials):
        return "No trial has begun."
    if failed == len(trials):
        return f"All {failed} trials failed; see “All trials” for the reasons."
    return f"No trial has a valid {formats.metric_name(results.data.metric)} yet."


def _worth(results: Results) -> str:
    """Of what the number is the mean, on which images, and how the configuration was selected."""
    winner, board, data = results.winner, results.leaderboard, results.data
    if winner is None or not winner.finalist.scores:
        count = len(data.ranked)
        text = f"Best of {count} trials, each at its best epoch" if count > 1 else "Best epoch of one trial"
        no_test = "" if data.has_test else " There is no test split."
        return f"{text}, selected on these validation images: the score is optimistic.{no_test}"
    if winner.scores is None:
        return (
            f"Mean of {len(winner.finalist.scores)} repeats as recorded by the run, without an interval because no "
            "predictions can be read. The winner was selected by this score, so it is optimistic."
        )
    resamples, runs = winner.scores.resamples, winner.scores.by_run[results.metric]
    patients = f" of {resamples.groups:,} patients" if resamples.named else ""
    images = f"{len(resamples.member):,} {formats.SPLIT_NAMES[board.split]} images{patients}"
    each = ", ".join(formats.show("score", float(value)) for value in runs)
    text = f"One repeat, on {images}." if len(runs) == 1 else f"Mean of {len(runs)} repeats ({each}) on {images}."
    if board.finals.folds and board.split == "val":
        text = f"{images.capitalize()}, each predicted by the network that was not trained on it."
    if data.task == "multi_label":
        text += " Each label is decided at a probability of 0.5."
    if board.split == "test":
        return f"{text} Selected on validation ({formats.moment(board.finals.selected)}){board.finals.selected_when}."
    no_test = "" if data.has_test else " There is no test split."
    by = "this score" if board.selected_by == board.metric else formats.metric_name(data.metric)
    return f"{text} The winner was selected by {by} on these images: the score is optimistic.{no_test}"


def _forest(results: Results, scores: Scores) -> Figure:
    """The configuration, the runners-up and the baselines that were measured on the same images."""
    metric, name = results.metric, f"trial {results.number}"
    marks = [_mark(name, "winner", scores, metric, None if results.params is None else results.params.backbone)]
    rivals = [] if results.winner is None else results.leaderboard.runners_up
    for one, own in [(one, one.scores) for one in rivals if one.scores is not None][:MOST_RUNNERS_UP]:
        marks.append(_mark(one.title, "finalist", own, metric, str(one.finalist.params.get("backbone", ""))))
    marks += _baselines(results, scores)
    frame = pd.DataFrame(marks)
    kinds = {"finalist": "runners-up", "baseline": "baselines (gray)"}
    beside = [words for kind, words in kinds.items() if kind in frame["kind"].tolist()]
    caption = f"{formats.capital(results.metric_name)} of {formats.listing([name, *beside])}, with 95 % intervals."
    meaning = formats.METRIC_MEANINGS.get(metric.partition(":")[0])
    caption += f" It is {meaning}." if meaning else ""
    told = "; ".join(f"{mark['name']} {mark['text']}" for mark in marks)
    alt = f"Dots with 95 % intervals, {results.metric_name}: {told}"
    numbers = frame[["name", "kind", "score", "low", "high"]]
    return Figure("summary", caption, alt, figures.forest(frame, results.metric_name), numbers)


def _baselines(results: Results, scores: Scores) -> list[dict[str, Any]]:
    """Best first; if none was measured, the score of always predicting the most frequent class."""
    metric, contest = results.metric, results.judged_baselines
    # With folds the winner has validation images that no baseline was measured on.
    if contest is not None and len(contest.winner.resamples.member) == len(scores.resamples.member):
        found = [
            _mark(one.label or one.name, "baseline", contest.measured[one.name], metric, None)
            for one in contest.baselines
            if one.name in contest.measured and metric in contest.measured[one.name].estimate
        ]
        return sorted(found, key=lambda mark: mark["score"] if metric_mode(metric) == "min" else -mark["score"])
    value = (tables.majority_baseline(results.data.dataset, results.split or "val") or {}).get(metric)
    if contest is not None or value is None:
        return []
    mark = {"name": "Majority class", "kind": "baseline", "score": value, "low": math.nan, "high": math.nan}
    return [mark | {"points": (), "text": formats.score(value)}]


def _mark(name: str, kind: str, scores: Scores, metric: str, network: str | None) -> dict[str, Any]:
    """A row of ``figures.forest``."""
    known, full = interval(scores, metric), f"{name}, {network}" if network else name
    mark = {"name": full, "kind": kind, "score": known.estimate, "low": known.low, "high": known.high}
    return mark | {"points": scores.by_run[metric].tolist(), "text": intervals.plain(known)}


def _decisions(results: Results, scores: Scores) -> Figure:
    """The confusion matrix; if multi-label, or for many classes, a bar for each class."""
    assert results.split is not None
    if in_summary(results, results.split):
        runs, model, of = results.judged_runs, results.model, ""
        if runs is not None and model is not None and (runs.pooled or len(runs.names) > 1):
            of = (model.title if model.remark else "The model file") + (" on its own fold, " if runs.pooled else ", ")
        return confusion_figure(results.confusion(results.split), results.data.classes, results.split, of=of)
    several = results.data.task == "multi_label"
    kind, title = ("auroc", "AUROC") if several else ("recall", "Recall")
    rows = [(name, interval(scores, f"{kind}:{name}")) for name in scores.classes]
    rows.sort(key=lambda row: np.nan_to_num(row[1].estimate, nan=math.inf))  # undefined ones are not the lowest
    frame = pd.DataFrame(
        [(name, one.estimate, one.low, one.high) for name, one in rows], columns=["class", kind, "low", "high"]
    )
    split, drawn = formats.SPLIT_NAMES[results.split], rows[:MOST_BARS]
    which = "each class" if len(drawn) == len(rows) else f"the {len(drawn)} lowest of {len(rows)} classes"
    caption = f"{title} of {which} on {split}, lowest first, with 95 % confidence intervals."
    alt = f"{title} on {split}: " + "; ".join(f"{name} {intervals.plain(one)}" for name, one in drawn)
    return Figure("summary_classes", caption, alt, figures.bars(frame.head(MOST_BARS), title), frame)


def _configuration(results: Results) -> list[tuple[str, str]]:
    """The hyperparameters in words, and the operating point."""
    trial = results.trial
    folder = trial["trial_id"] if trial else "?"
    if results.params is None:
        return [("Hyperparameters", f"damaged; see trials/{folder}/params.json")]
    rows = formats.in_words(results.params)
    if trial:
        share = f"{formats.show('si', trial['trainable_params'])} of {formats.show('si', trial['total_params'])}"
        rows.insert(2, ("Trainable", f"{share} parameters"))
    at = at_operating_point(results)
    return [*rows, ("Operating point", at)] if at else rows


def _caveats(results: Results) -> list[Block]:
    """The first caveats, and every problem; the methods chapter lists all."""
    if not caveats(results):
        return []
    shown = [one for place, one in enumerate(caveats(results)) if place < MOST_CAVEATS or one.level == "error"]
    lines = [f"- **{LEVELS[one.level]}:** {escape(one.text)}" for one in shown]
    more = len(caveats(results)) - len(shown)
    end = f"\n\n[and {more} more](#methods)" if more > 0 else ""
    return [Text("### Caveats\n\n" + "\n".join(lines) + end)]


def _model(results: Results) -> list[Block]:
    """Where the model is, the command to use it, the lines that load it elsewhere, and the command that trains it."""
    data = results.data
    files, place = ModelPaths(data.run.paths.models), Path(data.run.sweep.storage or "runs") / data.name
    found: list[Block] = []
    if files.model.is_file():
        onnx = ", and models/best.onnx for onnxruntime" if files.onnx.is_file() else ""
        which = [("Network", f"{results.model.title}: {_own_scores(results)}")] if results.model else []
        found.append(Facts((("File", f"models/best.pt{onnx}"), *which)))
        found += [Text(text) for text in [formats.rounding(data.run.sweep)] if text]
        found += [
            Text("Predict other images:"),
            Code(f"python -m sweep.predict {shlex.quote(str(place))} IMAGES"),
        ]
        loading = data.run.model.loading if data.run.model is not None else None
        if loading:
            found += [Text("Load it with torchvision alone:"), Code(loading, "python")]
    else:
        found += [Text("models/best.pt does not exist. This command creates it from the saved weights:")]
        found.append(Code(f"python -m sweep.model {shlex.quote(str(place))}"))
    command = formats.again(data.run.sweep, results.params, data.name, results.number) if results.params else ""
    return [*found, Text("Train this configuration again:"), Code(command)] if command else found


def _own_scores(results: Results) -> str:
    """Scores of the one network in the file, since the headline is a mean."""
    return formats.listing(
        f"{formats.metric_name(f'{split}_{results.metric}')} {formats.show('score', scores[results.metric])}"
        for split in ("val", "test")
        if results.metric in (scores := results.point_scores(split))
    )


def _run(results: Results) -> list[tuple[str, str]]:
    """The search, its data and outcome, and when the test split was opened."""
    data = results.data
    sweep, counts = data.run.sweep, tables.status_counts(data.trials)
    budget = f", at most {most} epochs per trial" if (most := sweep.epochs_of()) else ""
    source = data.dataset.source.path or sweep.data or "unknown"
    better = "higher" if data.run.sweep.mode == "max" else "lower"
    seconds = formats.duration(float(data.trials["seconds"].sum()))
    rows = [
        ("Trials", ", ".join(f"{count} {status}" for status, count in counts.items())),
        (
            "Search",
            f"space {sweep.space or '?'}, sampler {sweep.sampler or '?'}, scheduler {sweep.scheduler or '?'}{budget}",
        ),
        ("Selected by", f"{formats.metric_name(data.metric)} ({better} is better)"),
        ("Data", "the built-in demo set" if data.dataset.source.kind == "demo" else source),
        ("Images", ", ".join(f"{split} {count:,}" for split, count in data.dataset.images.items()) or "unknown"),
        ("Started", formats.moment(sweep.created)),
        ("Duration", formats.elapsed(sweep.created, sweep.ended)),
    ]
    finals = data.finals
    if not finals.finalists:
        return [*rows, ("Time in trials", seconds)]
    repeats = [repeat for one in finals.finalists for repeat in one.repeats]
    ended, failed = (sum(one.status == status for one in repeats) for status in ("completed", "failed"))
    spent = sum(epoch.epoch_seconds or 0.0 for repeat in repeats for epoch in repeat.epochs)
    asked = finals.asked * len(finals.finalists)
    opened = [formats.moment(one.opened) for one in finals.test_access]
    return [
        *rows,
        ("Time in trials", f"{seconds} in the search, {formats.duration(spent)} in repeats"),
        ("Repeats", f"{asked} for {len(finals.finalists)} configurations: {ended} completed, {failed} failed"),
        ("Winner selected", formats.moment(finals.selected) if finals.selected else "not yet"),
        (
            "Test split opened",
            ("once, " if len(opened) == 1 else f"{len(opened)} times, last ") + opened[-1] if opened else "no",
        ),
    ]
