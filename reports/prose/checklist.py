"""What two reporting guidelines ask that the records of a run answer, and what its authors have to write.

CLAIM: Mongan, Moy & Kahn, Radiology: Artificial Intelligence 2020 (its 2024 update numbers items otherwise). TRIPOD+AI:
Collins et al., BMJ 2024. Items in our own words.
"""

from __future__ import annotations

import dataclasses

import pandas as pd

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.blocks import Block, Column, Table, Text
from reports.scores.interval_cells import as_text
from reports.scores.resampled_scores import Scores
from reports.scores.shown import runs_on, shown
from reports.scores.statistics import interval
from reports.trials import tables
from search_spaces.errors import UserError
from search_spaces.params import TrialParams

AUTHORS = (
    ("1, 2", "1, 2", "title and abstract"),
    ("3, 4", "3a–3c, 4", "background, intended use, health inequalities, objectives"),
    ("5, 6", "–", "prospective or retrospective; the goal of the study"),
    ("8", "5b, 6a–6c", "who was eligible, where and when; centres; treatments"),
    ("11, 12", "9a–9c", "definitions of data elements; how images were acquired and de-identified"),
    ("14–18", "8a–8c", "reference standard: what it is, why, who annotated with which tools, how they agreed"),
    ("19", "10", "how the sample size was determined"),
    ("31", "–", "explanations such as saliency maps, and how they were validated"),
    ("32", "16", "external validation and how its data differ (python -m sweep.evaluate writes its tables)"),
    ("34", "20b, 20c", "age, sex and other characteristics of the patients in each partition"),
    ("38, 39", "25, 26, 27a–27c", "interpretation, limitations, implications and use in practice"),
    ("40–42", "17, 18a–18d", "ethics, registration, protocol, funding, conflicts of interest"),
    ("–", "12d, 23b", "differences between centres or other clusters"),
    ("–", "19", "involvement of patients and the public"),
)


def checklist(evidence: ReportData) -> list[Block]:
    """Two tables: what is answered, where and how; and what is to be written by the authors."""
    columns = (Column("claim", "CLAIM"), Column("tripod", "TRIPOD+AI"), Column("item", "item"))
    answered = Table(
        name="checklist",
        caption="Items that the records answer.",
        frame=answers(evidence),
        columns=(*columns, Column("answer", "answer"), Column("where", "where")),
    )
    open_items = Table(
        name="checklist_authors",
        caption="To be written by the authors: the records do not know it.",
        frame=pd.DataFrame(AUTHORS, columns=["claim", "tripod", "item"]),
        columns=columns,
    )
    source = (
        "CLAIM as of 2020 (Mongan et al., Radiology: Artificial Intelligence; the update of 2024 numbers some items "
        "otherwise) and TRIPOD+AI (Collins et al., BMJ 2024), items in our words."
    )
    return [Text(source), answered, open_items]


def answers(evidence: ReportData) -> pd.DataFrame:
    """claim, tripod (item numbers), item, answer, where (the section of the report)."""
    uncertainty = "95 % intervals over patients; paired, corrected comparisons"
    mistakes = "shown with file names and probabilities"
    rows = [
        ("7", "5a", "source of the data", _source(evidence), "Data"),
        ("9", "7, 12b", "preprocessing", _preprocessing(evidence), "Data"),
        ("10, 13", "11", "images left out, missing data", _left_out(evidence), "Data"),
        ("33", "20a, 21", "images and patients in each partition, by class", _counts(evidence), "Data"),
        ("20", "12a", "how partitions were made", str(evidence.dataset.get("split_origin") or "not recorded"), "Data"),
        ("21", "12a", "level at which partitions are disjoint", _level(evidence), "Data"),
        ("22", "12c, 22", "the model", _model(evidence), "The answer"),
        ("23", "–", "software", _software(evidence), "How to repeat it"),
        ("24", "12c", "initial weights", _weights(evidence), "Data"),
        ("25", "12c", "training, hyperparameters, models trained", _training(evidence), "Methods and checklist"),
        ("26", "12c", "how the final model was selected", _selection(evidence), "The answer"),
        ("27", "12c", "ensembles", "none: one network decides", "The answer"),
        ("28", "12e", "measures of performance", wording.metric_name(evidence.metric) + ", and others", "The answer"),
        ("29", "12e", "uncertainty", uncertainty, "Methods and checklist"),
        ("30", "–", "robustness", _robustness(evidence), "The answer"),
        ("35, 36", "23a", "performance with its precision", _performance(evidence), "The answer"),
        ("37", "–", "wrongly classified cases", mistakes, "Best and worst classified images"),
        ("–", "13", "class imbalance", _imbalance(evidence), "Data"),
        ("–", "14, 23a", "subgroups and fairness", _subgroups(evidence), "What is confused with what"),
        ("–", "12g, 15", "output of the model", _output(evidence), "The answer"),
        ("–", "12f, 24", "updating of the model", "none", "–"),
        ("–", "18e, 18f", "data and code", _sharing(evidence), "How to repeat it"),
    ]
    return pd.DataFrame(rows, columns=["claim", "tripod", "item", "answer", "where"])


def _source(evidence: ReportData) -> str:
    if evidence.dataset.get("demo"):
        return "built-in phantoms, no patients"
    kind = str((evidence.dataset.get("source") or {}).get("kind") or "unknown")
    return f"{kind}; fingerprint {str(evidence.dataset.get('fingerprint') or 'not recorded')[:12]}; to be described"


def _preprocessing(evidence: ReportData) -> str:
    dataset = evidence.dataset
    size = dataset.get("image_size", "?")
    return f"{size} x {size} px, {dataset.get('fit', '?')}, {dataset.get('channels', '?')} channel(s)"


def _left_out(evidence: ReportData) -> str:
    count = len(evidence.dataset.get("dropped") or [])
    return f"{count:,} files left out; no values imputed"


def _counts(evidence: ReportData) -> str:
    images = evidence.dataset.get("images") or {}
    groups = (evidence.dataset.get("groups") or {}).get("counts") or {}
    parts = []
    for split, count in images.items():
        patients = f" ({groups[split]:,} patients)" if groups.get(split) else ""
        parts.append(f"{split} {count:,}{patients}")
    return ", ".join(parts) or "not recorded"


def _level(evidence: ReportData) -> str:
    column = (evidence.dataset.get("groups") or {}).get("column")
    if not column:
        return "image; patients not known"
    marked = [mark for mark in evidence.dataset.get("caveats") or () if not str(mark).startswith("Demo set")]
    return f"patient (column {column})" + ("; see the marks on the answer" if marked else "")


def _model(evidence: ReportData) -> str:
    finals = evidence.run.finals
    winner = finals.winning if finals else None
    if winner is not None:
        try:
            return wording.in_short(TrialParams.from_flat(winner.params))
        except (UserError, TypeError, ValueError):
            return "hyperparameters damaged"
    params = wording.trial_params(evidence.best) if evidence.best else None
    return wording.in_short(params) if params else "no model"


def _software(evidence: ReportData) -> str:
    packages = evidence.run.provenance.get("packages") or {}
    known = [f"{name} {packages[name]}" for name in ("torch", "ray", "optuna") if packages.get(name)]
    return ", ".join(known) or "not recorded"


def _weights(evidence: ReportData) -> str:
    weights = evidence.run.provenance.get("weights") or {}
    origins = sorted({str(found.get("origin") or "unknown") for found in weights.values() if isinstance(found, dict)})
    return wording.listing(origins) or "not recorded"


def _training(evidence: ReportData) -> str:
    sweep, counts = evidence.run.sweep, tables.status_counts(evidence.trials)
    finals = evidence.run.finals
    repeats = sum(len(one.repeats) for one in finals.finalists) if finals else 0
    text = f"{len(evidence.trials):,} trials ({counts['pruned']} stopped early, {counts['failed']} failed)"
    text += f", {repeats} repeats" if repeats else ""
    return (
        text
        + f"; {sweep.get('sampler', '?')}, {sweep.get('scheduler', '?')}, at most {sweep.get('epochs', '?')} epochs"
    )


def _selection(evidence: ReportData) -> str:
    finals = evidence.run.finals
    if finals is None or not finals.decided:
        return "best single run on validation: no repeats"
    when = "before the test split was opened" if finals.opened else "the test split is closed"
    return f"mean of {finals.asked} repeats on validation, {when}"


def _robustness(evidence: ReportData) -> str:
    finals = evidence.run.finals
    winner = finals.winning if finals else None
    if winner is None or len(winner.scores) < 2:
        return "not examined: no repeats"
    low, high = min(winner.scores), max(winner.scores)
    return f"{len(winner.scores)} seeds: {formats.score(low)} to {formats.score(high)} on validation"


def _performance(evidence: ReportData) -> str:
    standing = evidence.standing
    if standing is not None and standing.winner is not None and standing.winner.scores is not None:
        return _with_interval(standing.winner.scores, standing.split, standing.metric)
    network = shown(evidence)
    runs = runs_on(evidence, network.judged) if network and network.judged else None
    if network is None or runs is None:
        return "no predictions"
    return f"{_with_interval(runs.scores(), str(network.judged), 'f1_macro')}; one run, optimistic"


def _with_interval(scores: Scores, split: str, name: str) -> str:
    found = interval(scores, name)
    text = as_text(dataclasses.replace(found, warning=""))
    return f"{wording.metric_name(f'{split}_{name}')} {text}" + (f"; {found.warning}" if found.warning else "")


def _imbalance(evidence: ReportData) -> str:
    counts: dict[str, int] = (evidence.dataset.get("counts") or {}).get("train") or {}
    if not counts:
        return "class counts not recorded"
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return f"training: {few} {counts[few]:,} to {many} {counts[many]:,}; macro F1 counts classes alike"


def _subgroups(evidence: ReportData) -> str:
    names = sorted(evidence.dataset.get("subgroups") or {})
    return f"scores by {wording.listing(names)}" if names else "no subgroup column was given"


def _output(evidence: ReportData) -> str:
    if evidence.task == "multi_label":
        return "a probability for each label, decided at the stated thresholds"
    return "a probability for each class, the highest decides"


def _sharing(evidence: ReportData) -> str:
    commit = evidence.run.provenance.get("commit")
    return f"code: commit {str(commit)[:12]}; data: to be stated" if commit else "to be stated"
