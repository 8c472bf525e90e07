"""The answer of an external evaluation, what it rests on, and how to repeat it."""

from __future__ import annotations

from reports.external_evidence import External
from reports.page import wording
from reports.page.blocks import Block, Command, FactList, Heading, Headline, Note, Section, Text
from reports.scores import interval_cells
from reports.scores.statistics import interval

OVERALL = ("accuracy", "balanced_accuracy", "f1_macro", "hamming_accuracy", "auroc_macro", "ap_macro")
NAMES = {"ap_macro": "macro average precision", "accuracy": "accuracy"}


def section(external: External) -> Section:
    main, scores = external.main_score, external.scores
    found = interval(scores, main)
    warnings = tuple(map(str, external.facts["warnings"]))
    blocks: list[Block] = [Note("warning", "To be known before any number is read:", warnings)] if warnings else []
    blocks += [
        Headline(
            value=interval_cells.as_text(found),
            label=f"{_capital(_name(external, main))} on {len(external.images.paths):,} images of {external.name}",
            detail=f"This is {wording.METRIC_MEANINGS[main]}. {interval_cells.below([(scores, main)])}",
        ),
        FactList(tuple((_capital(name), text) for name, text in overall(external)), tiles=True),
        Text(_decided(external)),
        Heading("What was evaluated"),
        FactList(tuple(_what(external))),
    ]
    return Section("answer", "The answer", tuple(blocks))


def overall(external: External) -> list[tuple[str, str]]:
    """The scores over all classes with their intervals, as pairs of a name and text; without those undefined here."""
    hidden = {"f1_macro", "balanced_accuracy"} if external.absent else set()
    return [
        (_name(external, key), interval_cells.as_text(interval(external.scores, key)))
        for key in OVERALL
        if key in external.scores.estimate
        and key not in hidden
        and not interval_cells.is_undefined(external.scores, key)
    ]


def in_lines(external: External) -> list[str]:
    """What a terminal shows."""
    counts = ", ".join(f"{name} {count:,}" for name, count in external.facts["counts"].items())
    lines = [f"{_size(external)}: {counts}"]
    lines += [f"{name}: {text}" for name, text in overall(external)]
    main = interval_cells.below([(external.scores, external.main_score)])
    return [*lines, main] if main else lines


def repeat_section(external: External) -> Section:
    facts = external.facts
    command = Command(f"python -m sweep.evaluate {facts['command']}")
    rows = (
        ("Model file", str(external.model["file"])),
        ("Its SHA-256", str(external.model["sha256"])),
        ("Fingerprint of the data", str(facts["data"]["fingerprint"])),
        ("Evaluated", str(facts["evaluated"])),
    )
    text = Text("The same command on the same images and model file:")
    return Section("repeat", "How to repeat it", (text, command, FactList(rows)))


def _decided(external: External) -> str:
    if not external.several:
        return "The model answers with the likeliest class."
    if external.tuned is None:
        return (
            "A label is decided from a probability of 0.5. Exact match is the share of images with every label right."
        )
    return (
        "A label is decided from its threshold, which was tuned on the sweep's validation images. Exact match is the "
        "share of images with every label right."
    )


def _what(external: External) -> list[tuple[str, str]]:
    facts, model = external.facts, external.model
    of_run = f" of the run {facts['run']}" if facts["run"] else ""
    counts = ", ".join(f"{name} {count:,}" for name, count in facts["counts"].items())
    rows = [
        ("Model", f"{model['trial']}{of_run}, {model['backbone']} at {model['image_size']} px"),
        ("Images", str(facts["data"]["path"]) + (f", split {facts['split']}" if facts["split"] else "")),
        ("How many", _size(external)),
        ("Classes", counts),
    ]
    if facts["map"]:
        rows.append(("Renamed", ", ".join(f"{theirs} is {ours}" for theirs, ours in facts["map"].items())))
    if facts["dropped"]:
        rows.append(("Left out", f"{len(facts['dropped']):,} files that cannot be read (evaluation.json lists them)"))
    return rows


def _size(external: External) -> str:
    resamples = external.images.resamples
    patients = f" of {resamples.groups:,} patients" if resamples.named else ""
    return f"{len(external.images.paths):,} images{patients}"


def _name(external: External, key: str) -> str:
    if key == "accuracy" and external.several:
        return "exact match"
    return NAMES.get(key) or wording.METRIC_NAMES[key]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
