"""What two reporting guidelines ask that the records answer, and what the authors have to write: a part of the methods.

CLAIM: Mongan, Moy & Kahn, Radiology: Artificial Intelligence 2020 (its 2024 update numbers items otherwise). TRIPOD+AI:
Collins et al., BMJ 2024. Items in our own words.
"""

from __future__ import annotations

import pandas as pd

from reports import formats, intervals, tables
from reports.blocks import Column, Table
from reports.formats import listing, score
from reports.results import Results
from sweep.records import DatasetRecord
from sweep.trial_records import Finals

# CLAIM, TRIPOD+AI, item: what the records do not know
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


def checklists(results: Results) -> tuple[Table, Table]:
    """What is answered, where and how; and what is to be written by the authors."""
    columns = (Column("claim", "CLAIM"), Column("tripod", "TRIPOD+AI"), Column("item", "item"))
    more = (*columns, Column("answer", "answer"), Column("where", "chapter"))
    open_items = pd.DataFrame(AUTHORS, columns=["claim", "tripod", "item"])
    return (
        Table("checklist", "Items that the records answer.", answers(results), more),
        Table("checklist_authors", "To be written by the authors: the records do not know it.", open_items, columns),
    )


def answers(results: Results) -> pd.DataFrame:
    """claim, tripod (item numbers), item, answer, where (the chapter of the report)."""
    data, dataset, finals = results.data, results.data.dataset, results.data.run.finals
    source = f"{dataset.source.kind or 'unknown'}; fingerprint {(dataset.fingerprint or 'not recorded')[:12]}"
    level = f"patient (column {dataset.groups.column})" if dataset.groups.column else "image; patients not known"
    packages, commit = data.run.provenance.packages, data.run.provenance.commit
    software = ", ".join(f"{name} {packages[name]}" for name in ("torch", "ray", "optuna") if packages.get(name))
    origins = sorted({found.origin or "unknown" for found in data.run.provenance.weights.values()})
    output = "a probability for each class; the highest decides"
    if data.task == "multi_label":
        output = "a probability for each label, decided at the stated thresholds"
    subgroups = (
        f"scores by {listing(sorted(dataset.subgroups))}" if dataset.subgroups else "no subgroup column was given"
    )
    sharing = f"code: commit {commit[:12]}; data: to be stated" if commit else "to be stated"
    rows = [
        ("7", "5a", "source of the data", "built-in phantoms, no patients" if dataset.demo else source, "Data"),
        ("9", "7, 12b", "preprocessing", f"{dataset.image_size or '?'} px, {dataset.fit or '?'}", "Data"),
        ("10, 13", "11", "images left out, missing data", f"{len(dataset.dropped):,} files; no values imputed", "Data"),
        ("33", "20a, 21", "images and patients in each partition", _partitions(dataset), "Data"),
        ("20", "12a", "how partitions were made", dataset.split_origin or "not recorded", "Data"),
        ("21", "12a", "level at which partitions are disjoint", level, "Data"),
        ("22", "12c, 22", "the model", _model(results), "Summary"),
        ("23", "–", "software", software or "not recorded", "Reproducibility"),
        ("24", "12c", "initial weights", listing(origins) or "not recorded", "Data"),
        (
            "25",
            "12c",
            "training, hyperparameters, models trained",
            _training(results),
            "Methods, limits and checklists",
        ),
        ("26", "12c", "how the final model was selected", _selection(finals), "Finalists"),
        ("27", "12c", "ensembles", "none: one network decides", "Summary"),
        ("28", "12e", "measures of performance", formats.metric_name(data.metric) + ", and others", "Summary"),
        ("29", "12e", "uncertainty", "95 % intervals over patients; paired, corrected comparisons", "Finalists"),
        ("30", "–", "robustness", _robustness(finals), "Finalists"),
        ("35, 36", "23a", "performance with its precision", _performance(results), "Summary"),
        ("37", "–", "wrongly classified cases", "with file names", "Best and worst classified images"),
        ("–", "13", "class imbalance", _imbalance(dataset.counts.get("train") or {}), "Data"),
        ("–", "14, 23a", "subgroups and fairness", subgroups, "Confusion and operating points"),
        ("–", "12g, 15", "output of the model", output, "Summary"),
        ("–", "12f, 24", "updating of the model", "none", "–"),
        ("–", "18e, 18f", "data and code", sharing, "Reproducibility"),
    ]
    return pd.DataFrame(rows, columns=["claim", "tripod", "item", "answer", "where"])


def _partitions(dataset: DatasetRecord) -> str:
    patients = {split: f" ({count:,} patients)" for split, count in dataset.groups.counts.items() if count}
    images = dataset.images.items()
    return ", ".join(f"{split} {count:,}{patients.get(split, '')}" for split, count in images) or "not recorded"


def _model(results: Results) -> str:
    if results.number is None:
        return "no model"
    return formats.in_short(results.params) if results.params is not None else "hyperparameters damaged"


def _training(results: Results) -> str:
    sweep, counts = results.data.run.sweep, tables.status_counts(results.data.trials)
    finals = results.data.run.finals
    repeats = sum(len(one.repeats) for one in finals.finalists) if finals is not None else 0
    return (
        f"{len(results.data.trials):,} trials ({counts['pruned']} pruned, {counts['failed']} failed), {repeats} "
        f"repeats; {sweep.sampler or '?'}, {sweep.scheduler or '?'}, at most {sweep.epochs or '?'} epochs"
    )


def _selection(finals: Finals | None) -> str:
    if finals is None or not finals.selected:
        return "best single run on validation: no repeats"
    when = "before the test split was opened" if finals.opened else "the test split is closed"
    return f"mean of {finals.asked} repeats on validation, {when}"


def _robustness(finals: Finals | None) -> str:
    scores = finals.winning.scores if finals is not None and finals.winning is not None else ()
    if len(scores) < 2:
        return "not examined: no repeats"
    return f"{len(scores)} seeds: {score(min(scores))} to {score(max(scores))} on validation"


def _performance(results: Results) -> str:
    """The headline with its interval, and what weakens it."""
    found = results.interval
    if found is None:
        return "no predictions"
    text = f"{results.metric_name} {intervals.plain(found)}"
    text += f"; {found.warning}" if found.warning else ""
    return text if results.split == "test" else f"{text}; on the images that selected it, optimistic"


def _imbalance(counts: dict[str, int]) -> str:
    """The rarest and the most frequent class of training."""
    if not counts:
        return "class counts not recorded"
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    return f"training: {few} {counts[few]:,} to {many} {counts[many]:,}; macro F1 counts classes alike"
