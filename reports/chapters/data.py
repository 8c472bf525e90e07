"""The data: images of each class and split, what was left out, results of the checks, and the starting weights."""

from __future__ import annotations

import pandas as pd

from reports import figures, formats, tables, thumbnails
from reports.blocks import Block, Column, Facts, Figure, Note, Sample, Samples, Table, Text, columns
from reports.results import Results

SPLIT_ORIGINS = {
    "given": "given by the data set",
    "seeded": "drawn at random with the seed, stratified by label",
    "val taken from train": "given by the data set, validation drawn from training",
}
MOST_PAIRS = 10
MOST_BARS = 40
CHANNELS = {1: "one channel (gray)", 3: "three channels"}


def chapter(results: Results) -> list[Block]:
    dataset = results.data.dataset
    if not dataset.classes and not dataset.counts:
        return [Note("error", "dataset.json is missing: nothing is known of the data.")]
    parts = (_counts, _left_out, _checks, _across, _image_properties, _subgroups, _weights, _samples)
    return [Facts(tuple(_facts(results))), *(block for part in parts for block in part(results))]


def _facts(results: Results) -> list[tuple[str, str]]:
    """The kind of data, how it was split, and the input format of the networks."""
    dataset = results.data.dataset
    origin = dataset.split_origin or "not recorded"
    splits = SPLIT_ORIGINS.get(origin, origin)
    if "drawn" in splits:
        splits += f"; {'patients and ' if dataset.groups.source else ''}equal images kept together"
    groups = "not known, nor whether a patient is in more than one split"
    if dataset.groups.source:
        counts = ", ".join(f"{split} {count:,}" for split, count in dataset.groups.counts.items())
        groups = f"{counts} (from {dataset.groups.source}); none in more than one split unless a check reports it"
    size, channels = dataset.image_size or "?", CHANNELS.get(dataset.channels or 0, "channels not recorded")
    read = [] if dataset.preset or dataset.demo else ["without a preset"]  # the first note names one
    read += [note.removesuffix(".") for note in dataset.notes]
    return [
        ("Task", dataset.task.replace("_", " ") + (", ordered classes" if dataset.ordered else "")),
        *([("Read", "; ".join(read))] if read else []),
        ("Splits", splits),
        ("Patients", groups),
        ("Images as trained", f"{size} x {size} px, {channels}, fit: {dataset.fit or '?'}"),
    ]


def _counts(results: Results) -> list[Block]:
    """Images of each class and split, drawn and as a table."""
    counts = tables.class_counts(results.data.dataset)
    splits = [str(name) for name in counts.columns[1:]]
    shown = (Column("class", "class"), *(Column(name, name, "integer") for name in splits))
    caption = "Number of images by class and split."
    if results.data.task == "multi_label":
        caption += " An image counts for each of its labels."
    if tables.missing_labels(results.data.dataset):
        caption += " Missing labels are excluded from loss and scores."
    table = Table("class_counts", caption, counts, shown, latex=True)
    classes = counts.iloc[:-1]
    if classes.empty:
        return [table]
    bars, caption = classes.head(MOST_BARS), "Images by class and split."
    caption += f" The first {MOST_BARS} of {len(classes)} classes." if len(bars) < len(classes) else ""
    alt = "Bars: " + "; ".join(f"{row['class']} {row['total']} images" for row in bars.to_dict("records"))
    return [Figure("class_counts", caption, alt, figures.stacked_bars(bars)), table]


def _left_out(results: Results) -> list[Block]:
    """What was left out, with the reason."""
    found = tables.left_out(results.data.dataset)
    if found.empty:
        return [Text(f"{tables.left_out_in_words(found)}.")]
    caption = f"{tables.left_out_in_words(found)}; dataset.json has more examples."
    return [Table("left_out", caption, found, columns(why="reason", count="count", examples="examples"))]


def _checks(results: Results) -> list[Block]:
    """What the checks of the images found."""
    found = tables.checks(results.data.dataset)
    if found.empty:
        dataset = results.data.dataset
        looked_for = [] if dataset.demo else ["unreadable files", "duplicates"]
        looked_for += ["patients in two splits"] * bool(dataset.groups.source or dataset.demo)
        return [Text(f"The checks for {formats.listing(looked_for)} found no problems.")]
    caption = "Findings of the data checks, most severe first; at most three examples each, dataset.json has more."
    shown = columns("severity", "check", "count", message="finding", examples="examples")
    return [Table("checks", caption, found, shown)]


def _across(results: Results) -> list[Block]:
    """Both images of each pair of near duplicates in two splits."""
    checks = results.data.dataset.checks
    pairs = [item for one in checks if one.check == "near_duplicates_across_splits" for item in one.items][:MOST_PAIRS]
    if not pairs:
        return []
    run, paths = results.data.run, {path for pair in pairs for path in pair}
    images = thumbnails.of_files(run.paths.thumbnails, paths)
    uris = {path: thumbnails.data_uri(image) for path, image in images.items()}
    splits = dict(zip(run.rows["path"], run.rows["split"], strict=True))
    rows = tuple(
        (f"pair {number}", tuple(Sample(uris.get(path, ""), path, splits.get(path, "?")) for path in pair))
        for number, pair in enumerate(pairs, start=1)
    )
    caption = f"Likely copies of one film in different splits, most similar first; at most {MOST_PAIRS} pairs."
    return [Samples(caption, rows)]


def _image_properties(results: Results) -> list[Block]:
    """Properties of the image files by class; [] if they were not recorded."""
    run = results.data.run
    found = tables.image_properties(run.images, run.rows, run.dataset)
    if found.empty:
        return []
    titles = {"width": "width", "height": "height", "mode": "mode", "bits": "bits", "jpeg_quality": "JPEG quality"}
    told = {key: title for key, title in titles.items() if found[key].any()}
    shown = columns("class", "images", **told, mean="mean gray", sd="SD")
    caption = "Image files by class: median (range). Classes that differ here can be predicted without the finding."
    return [Table("image_properties", caption, found, shown, folded=True)]


def _subgroups(results: Results) -> list[Block]:
    """Images of each subgroup, and of each class from each source."""
    blocks: list[Block] = []
    subgroups = tables.subgroups(results.data.dataset)
    if len(subgroups):
        shown = columns("column", "value", "images")
        blocks.append(Table("subgroups", "Number of images by subgroup.", subgroups, shown, folded=True))
    crossed = tables.source_by_class(results.data.dataset)
    if len(crossed):
        source, *classes = map(str, crossed.columns)
        by_class = (Column(source, "source"), *(Column(name, name, "integer") for name in classes))
        caption = "Number of images by source and class."
        blocks.append(Table("source_by_class", caption, crossed, by_class, folded=True))
        blocks += _from_one_source(crossed.set_index(source))
    return blocks


def _from_one_source(crossed: pd.DataFrame) -> list[Block]:
    """A warning if all images of a class (column) come from one source (row), and there are several sources."""
    alone: dict[str, list[str]] = {}
    for name in crossed.columns:
        sources = crossed.index[crossed[name] > 0]
        if len(sources) == 1:
            alone.setdefault(str(sources[0]), []).append(str(name))
    if not alone or len(crossed) < 2:
        return []
    listed = formats.listing(f"{formats.listing(names)} from “{source}” alone" for source, names in alone.items())
    return [Note("warning", f"Images of {listed}: a network may learn the source instead of the finding.")]


def _weights(results: Results) -> list[Block]:
    """The files of starting weights, and the backbones without weights."""
    provenance = results.data.run.provenance
    weights = tables.weights(provenance)
    names = {"sha256": "SHA-256 (first 16)", "batchnorm": "BatchNorm"}
    told = [str(name) for name in weights.columns if weights[name].any()]
    shown = columns(**{name: names.get(name, name) for name in told})
    blocks: list[Block] = [Table("weights", "Initial weights of each backbone.", weights, shown)]
    if weights.empty:
        blocks = [Note("info", "The origin of the initial weights is not recorded (provenance.json).")]
    if provenance.missing_weights:
        items = tuple(f"{name}: {why}" for name, why in sorted(provenance.missing_weights.items()))
        blocks.append(Note("info", "Backbones not searched because their weights were not found:", items))
    return blocks


def _samples(results: Results) -> list[Block]:
    """A few images of each class."""
    rows = thumbnails.samples(results.data.run.paths.thumbnails, results.data.classes)
    if rows is None:
        return [Note("info", "thumbnails.npz is missing or damaged: no sample images.")]
    return [Samples("Sample images of each class as input to the networks, reduced in size; not hand-picked.", rows)]
