"""Section 2: the data, what was found in it, and where the starting weights come from."""

from __future__ import annotations

import pandas as pd

from reports.data import ReportData
from reports.page import figures, thumbnails, wording
from reports.page.blocks import Block, Column, FactList, Heading, Note, Picture, Samples, Section, Table, Text
from reports.sections import shortcuts
from reports.trials import data_tables

SPLIT_ORIGINS = {"given": "as the data set gives them", "seeded": "drawn by the seed, stratified, groups kept together"}


def section(evidence: ReportData) -> Section:
    if not evidence.dataset:
        return Section("data", "Data", (Note("error", "dataset.json is missing: nothing is known of the data."),))
    blocks: list[Block] = [
        FactList(tuple(_facts(evidence))),
        *_counts(evidence),
        *_samples(evidence),
        *_hygiene(evidence),
        *_extra(evidence),
        *shortcuts.section_blocks(evidence),
        *_weights(evidence),
    ]
    return Section("data", "Data", tuple(blocks))


def _facts(evidence: ReportData) -> list[tuple[str, str]]:
    dataset = evidence.dataset
    groups = dataset.get("groups") or {}
    origin = str(dataset.get("split_origin") or "not recorded")
    facts = [
        ("Task", str(dataset.get("task", "unknown")).replace("_", " ")),
        ("Splits", SPLIT_ORIGINS.get(origin, origin)),
    ]
    if groups.get("column"):
        counts = ", ".join(f"{split} {count:,}" for split, count in (groups.get("counts") or {}).items())
        facts.append(("Groups", f"column {groups['column']}: {counts}; no group is in two splits unless marked above"))
    else:
        facts.append(("Groups", "no group column: whether a patient is in two splits cannot be known"))
    channels = {1: "one channel (gray)", 3: "three channels"}.get(dataset.get("channels", 0), "unknown")
    size = dataset.get("image_size", "?")
    facts.append(("Images as trained", f"{size} x {size} px, {channels}, fit: {dataset.get('fit', '?')}"))
    facts.append(("Fingerprint", str(dataset.get("fingerprint") or "not recorded")))
    return facts


def _counts(evidence: ReportData) -> list[Block]:
    counts = data_tables.class_counts(evidence.dataset)
    splits = [str(name) for name in counts.columns[1:]]
    columns = (Column("class", "class"), *(Column(name, name, "integer") for name in splits))
    caption = "Images of each class in each split."
    if evidence.task == "multi_label":
        caption += " An image counts for each of its labels."
    blocks: list[Block] = [Table(name="class_counts", caption=caption, frame=counts, columns=columns)]
    bars = counts.iloc[:-1]
    if len(bars):
        drawing = figures.class_bars(bars)
        alt = "Bars: " + "; ".join(f"{row['class']} {row['total']} images" for row in bars.to_dict("records"))
        blocks.append(
            Picture(
                name="class_counts",
                caption="Images of each class, by split.",
                alt=alt,
                drawing=drawing,
            )
        )
    return blocks


def _samples(evidence: ReportData) -> list[Block]:
    rows = thumbnails.samples(evidence.run.paths.thumbnails, evidence.classes)
    if rows is None:
        return [Heading("Sample images"), Note("info", "thumbnails.npz is missing or damaged: no sample images.")]
    caption = "Some images of each class as the networks see them, made small; not chosen by hand."
    return [Heading("Sample images"), Samples(caption, rows)]


def _hygiene(evidence: ReportData) -> list[Block]:
    blocks: list[Block] = [Heading("What was found in the data")]
    found = data_tables.hygiene(evidence.dataset)
    if found.empty:
        blocks.append(
            Text("The checks for unreadable files, duplicates, double labels and groups across splits found nothing.")
        )
    else:
        blocks.append(
            Table(
                name="checks",
                caption="Findings, the gravest first. At most three examples each; all stand in dataset.json.",
                frame=found,
                columns=(
                    Column("severity", "severity"),
                    Column("check", "check"),
                    Column("count", "count", "integer"),
                    Column("message", "finding"),
                    Column("examples", "examples"),
                ),
            )
        )
    dropped = data_tables.dropped(evidence.dataset)
    if dropped.empty:
        blocks.append(Text("No file was dropped."))
    else:
        blocks.append(
            Table(
                name="dropped_files",
                caption=f"{len(dropped):,} files were dropped.",
                frame=dropped,
                columns=(Column("path", "file"), Column("reason", "reason")),
                folded=len(dropped) > 8,
            )
        )
    return blocks


def _extra(evidence: ReportData) -> list[Block]:
    blocks: list[Block] = []
    subgroups = data_tables.subgroups(evidence.dataset)
    if len(subgroups):
        columns = (Column("column", "column"), Column("value", "value"), Column("images", "images", "integer"))
        blocks += [
            Heading("Subgroups"),
            Table(name="subgroups", caption="Images of each subgroup.", frame=subgroups, columns=columns),
        ]
    crossed = data_tables.source_by_class(evidence.dataset)
    if len(crossed):
        source, *classes = map(str, crossed.columns)
        blocks += [
            Heading("Class against source"),
            Table(
                name="source_by_class",
                caption="Images of each class from each source.",
                frame=crossed,
                columns=(Column(source, "source"), *(Column(name, name, "integer") for name in classes)),
            ),
            *_pure(crossed.set_index(source)),
        ]
    return blocks


def _pure(crossed: pd.DataFrame) -> list[Block]:
    """A warning where all images of a class (column) come from one source (row), and there are several."""
    alone: dict[str, list[str]] = {}
    for name in crossed.columns:
        sources = crossed.index[crossed[name] > 0]
        if len(sources) == 1:
            alone.setdefault(str(sources[0]), []).append(str(name))
    if not alone or len(crossed) < 2:
        return []
    listed = wording.listing(f"{wording.listing(names)} from “{source}” alone" for source, names in alone.items())
    return [Note("warning", f"Images of {listed}: a network may learn the source, not the finding.")]


def _weights(evidence: ReportData) -> list[Block]:
    blocks: list[Block] = [Heading("Starting weights")]
    weights = data_tables.weights(evidence.run.provenance)
    if weights.empty:
        blocks.append(Note("info", "The origin of the starting weights is not recorded (provenance.json)."))
    else:
        titles = ("backbone", "origin", "file", "sha256", "batchnorm", "note")
        names = {"sha256": "SHA-256 (first 16)", "batchnorm": "BatchNorm"}
        blocks.append(
            Table(
                name="weights",
                caption="Where each backbone's starting weights come from.",
                frame=weights,
                columns=tuple(Column(name, names.get(name, name)) for name in titles),
            )
        )
    missing = evidence.run.provenance.get("missing_weights") or {}
    if missing:
        items = tuple(f"{name}: {why}" for name, why in sorted(missing.items()))
        blocks.append(Note("info", "Backbones that were not searched, since their weights were not found:", items))
    return blocks
