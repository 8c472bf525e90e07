"""``models/card.md``: what the model is, what it is good for and not, and how to load it.

The headings are those of Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from reports.data import ReportData
from reports.page import formats, wording
from reports.page.render import DISCLAIMER, markdown_text
from reports.scores import interval_cells
from reports.scores.resampled_scores import Scores
from reports.scores.shown import ReportedModel, alone_on, runs_on, shown
from reports.scores.statistics import interval
from search_spaces.errors import UserError
from search_spaces.params import TrialParams

OVERALL = ("accuracy", "balanced_accuracy", "f1_macro", "auroc_macro")
OF_A_CLASS = {"sensitivity": "recall", "specificity": "specificity", "AUROC": "auroc"}
FITS = {"squash": "stretched to", "crop": "their middle square resized to", "pad": "resized and padded with black to"}
FEW_IMAGES = 30
NEEDED = (
    *("backbone", "task", "classes", "trial", "epoch", "params"),
    *("image_size", "channels", "fit", "mean", "std", "files", "loading"),
)


def card(evidence: ReportData) -> str | None:
    """The card of the run's model as Markdown; None where the run has no ``models/best.json``, or a damaged one.

    Needs no torch: best.json holds what the model file says, the hashes, and the lines that load it.
    """
    model = evidence.run.model
    if any(model.get(name) is None for name in NEEDED):
        return None
    network = _network(evidence, model)
    parts = (
        [f"# Model card: {markdown_text(evidence.name)}", f"**{DISCLAIMER}**"],
        _what_it_is(evidence, model),
        _uses(evidence),
        _data(evidence),
        _preprocessing(model),
        _training(evidence, model),
        _scores(evidence, network),
        _limits(evidence, network),
        _files(model),
        _loading(evidence, model),
    )
    return "\n\n".join(block for part in parts for block in part) + "\n"


def _network(evidence: ReportData, model: Mapping[str, Any]) -> ReportedModel | None:
    """The network whose predictions the report shows, if it is this model."""
    finals = evidence.run.finals
    decided = finals.model if finals is not None and finals.decided else None
    best = None if evidence.best is None else str(evidence.best["trial_id"])
    network = shown(evidence)
    return network if network is not None and not network.remark and model["trial"] == (decided or best) else None


def _what_it_is(evidence: ReportData, model: Mapping[str, Any]) -> list[str]:
    several = model["task"] == "multi_label"
    classes = [str(name) for name in model["classes"]]
    answers = "any number of the labels" if several else "one of the classes"
    facts = [
        ("What it does", f"gives an image {answers} {wording.listing(classes)}"),
        ("Network", f"torchvision's {model['backbone']} with a new head"),
        ("From", f"{model['trial']} of the sweep {evidence.name}, epoch {model['epoch']}"),
    ]
    if several:
        thresholds = ", ".join(f"{name} {value:.3g}" for name, value in (model.get("thresholds") or {}).items())
        facts.append(("Decided from a probability of", thresholds))
    if model.get("code"):
        facts.append(("Code", str(model["code"])))
    return ["## What it is", _list(facts)]


def _uses(evidence: ReportData) -> list[str]:
    classes = wording.listing(evidence.classes)
    meant = "Research on images like those that it was trained on: to compare methods, to plan studies, to teach."
    if _is_demo(evidence):
        meant = "Seeing that the system works: its images are phantoms drawn by a program."
    return [
        "## What it is for, and not for",
        meant,
        markdown_text(
            "Not for diagnosis, triage, or any other decision about a patient. It knows nothing but "
            f"{classes}: an image that shows something else, or no X-ray at all, gets an answer all the same. On "
            "images of other machines, hospitals, ages or views its scores may be far lower: measure them with "
            "python -m sweep.evaluate."
        ),
    ]


def _data(evidence: ReportData) -> list[str]:
    dataset = evidence.dataset
    source = dataset.get("source") or {}
    place = "the built-in demo set" if _is_demo(evidence) else str(source.get("path") or "not recorded")
    facts = [("Images", place)]
    facts += [
        (wording.SPLIT_NAMES[split].capitalize(), evidence.basis(split).partition(": ")[2])
        for split in ("train", "val", "test")
        if (dataset.get("images") or {}).get(split)
    ]
    groups = dataset.get("groups") or {}
    if groups.get("column"):
        counts = ", ".join(f"{wording.SPLIT_NAMES[split]} {count:,}" for split, count in groups["counts"].items())
        facts.append((f"Patients (column {groups['column']})", counts))
    else:
        facts.append(("Patients", "not known: images of one patient may stand in two splits"))
    facts.append(("Fingerprint", str(dataset.get("fingerprint") or "not recorded")))
    return ["## Data", _list(facts)]


def _preprocessing(model: Mapping[str, Any]) -> list[str]:
    size = model["image_size"]
    gray = "made gray, " if model["channels"] == 1 else ""
    mean, std = (", ".join(f"{value:g}" for value in model[key]) for key in ("mean", "std"))
    fit = FITS.get(str(model["fit"]), "made")
    return [
        "## Preprocessing",
        f"Images are {fit} {size} x {size} pixels with antialiasing, {gray}scaled to 0..1, and "
        f"normalised by the mean {mean} and the standard deviation {std} of the three channels. 16-bit images are "
        "scaled by their own minimum and maximum first.",
    ]


def _training(evidence: ReportData, model: Mapping[str, Any]) -> list[str]:
    try:
        params = TrialParams.from_flat(model["params"])
    except (UserError, TypeError, ValueError):
        return ["## Training", "The hyperparameters are damaged; see best.json."]
    start = model.get("starting_weights") or {}
    origin = {"imagenet": "torchvision's ImageNet weights", "folder": "a file given by the user"}.get(
        str(start.get("origin")), "random weights"
    )
    facts = [("Began from", origin + (f" (SHA-256 {start['sha256']})" if start.get("sha256") else ""))]
    facts += wording.in_words(params)
    sweep = evidence.run.sweep
    facts.append(("Epochs", f"{model['epoch']} of at most {sweep.get('epochs', '?')}: the best on validation was kept"))
    facts.append(("Chosen from", f"{len(evidence.trials):,} trials by {wording.metric_name(evidence.metric)}"))
    return ["## Training", _list(facts)]


def _scores(evidence: ReportData, network: ReportedModel | None) -> list[str]:
    if network is None or network.judged is None:
        return ["## Scores", "The model's own predictions cannot be read, so no score is given here."]
    alone = alone_on(evidence, network, network.judged)
    scores = alone.scores(auroc=True)
    runs = runs_on(evidence, network.judged)
    several = runs is not None and len(runs.names) > 1
    columns = ["score", "this model file"] + ([f"mean of {len(runs.names)} repeats"] if runs and several else [])
    mean = runs.scores(auroc=True) if runs and several else None
    rows = [
        [wording.METRIC_NAMES[name], _cell(scores, name), *([_cell(mean, name)] if mean else [])] for name in OVERALL
    ]
    opened = f"{evidence.basis(network.judged)} "
    finals = evidence.run.finals
    if network.judged != "test":
        opened += "The model was chosen on these images, so the scores are optimistic."
    elif finals is not None and len(finals.test_access) > 1:
        opened += f"The test split was opened {len(finals.test_access)} times; only the first is free of its influence."
    else:
        opened += "The model was fixed before these images were looked at."
    by_class = [[name, *(_cell(scores, f"{key}:{name}") for key in OF_A_CLASS.values())] for name in alone.classes]
    pairs = [(scores, name) for name in (*OVERALL, *(f"{k}:{c}" for k in OF_A_CLASS.values() for c in alone.classes))]
    return [
        "## Scores",
        markdown_text(f"{opened} {wording.rounding(evidence.run.sweep)}".strip()),
        _table(columns, rows),
        f"Of this model file, class by class{', decided at 0.5' if alone.labels.ndim == 2 else ''}:",
        _table(["class", *OF_A_CLASS], by_class),
        markdown_text(interval_cells.below(pairs)),
    ]


def _limits(evidence: ReportData, network: ReportedModel | None) -> list[str]:
    dataset = evidence.dataset
    found = [str(mark) for mark in dataset.get("caveats") or ()]
    counts: dict[str, int] = (dataset.get("counts") or {}).get("train") or {}
    rare = [f"{name} ({count:,})" for name, count in counts.items() if count < FEW_IMAGES]
    if rare:
        found.append(f"Few training images of {wording.listing(rare)}.")
    if network is not None and network.judged == "val":
        found.append("It was never scored on images that had no part in choosing it.")
    if not dataset.get("subgroups"):
        found.append("Scores by sex, age, view or site were not measured: no such column was given.")
    if not evidence.run.paths.root.joinpath("external").is_dir():
        found.append("When this was written it had not been judged on images of another source.")
    if not _is_demo(evidence):
        found.append("What it looks at, the lungs or marks, borders and devices, is not known; see the report.")
    return ["## Limits", "\n".join(f"- {markdown_text(one)}" for one in found)]


def _files(model: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, f"{facts.get('bytes') or 0:,}", str(facts.get("sha256") or "")] for name, facts in model["files"].items()
    ]
    difference = model.get("onnx_difference")
    text = (
        ""
        if difference is None
        else f"Probabilities of best.onnx in onnxruntime differ from torch's by at most {difference:.1g}."
    )
    table = _table(["file", "bytes", "SHA-256"], rows)
    return ["## Files", table, text] if text else ["## Files", table]


def _loading(evidence: ReportData, model: Mapping[str, Any]) -> list[str]:
    storage = str(evidence.run.sweep.get("storage") or "runs")
    return [
        "## How to load it",
        f"    python -m sweep.predict {shlex.quote(f'{storage}/{evidence.name}')} image.png",
        "or without this project, with torchvision alone (8-bit images without transparency):",
        f"```python\n{str(model['loading']).rstrip()}\n```",
    ]


def _is_demo(evidence: ReportData) -> bool:
    return bool(evidence.dataset.get("demo"))


def _cell(scores: Scores, name: str) -> str:
    if interval_cells.is_undefined(scores, name):
        return formats.ABSENT
    return interval_cells.as_text(interval(scores, name))


def _list(facts: list[tuple[str, str]]) -> str:
    return "\n".join(f"- **{markdown_text(name)}:** {markdown_text(text)}" for name, text in facts)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(map(markdown_text, cells)) + " |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])
