"""``models/card.md``: what the model is, what it is good for and not, and how to load it.

The headings are those of Mitchell et al., Model Cards for Model Reporting, FAT* 2019.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from reports import formats, intervals, tables
from reports.bootstrap import Scores
from reports.caveats import caveats
from reports.chapters.errors import at_operating_point
from reports.chapters.methods import FITS
from reports.formats import escape, listing
from reports.intervals import interval
from reports.results import Results
from sweep.records import ModelRecord, WeightsRecord

OVERALL = ("accuracy", "balanced_accuracy", "f1_macro")
AREA = "auroc_macro"
OF_A_CLASS = {"sensitivity": "recall", "specificity": "specificity"}
ORIGINS = {
    "imagenet": "torchvision's ImageNet weights",
    "folder": "a file given by the user",
    "file": "a file given by the user",
}
FEW_IMAGES = 30
NEEDED = (
    *("backbone", "task", "classes", "trial", "epoch", "params"),
    *("image_size", "channels", "fit", "mean", "std", "files", "loading"),
)


def card(results: Results) -> str | None:
    """The card of the run's model as Markdown; None if the run has no ``models/best.json``, or a damaged one.

    Needs no torch: best.json holds the facts in the model file, the hashes, and the lines that load it.
    """
    model = results.data.run.model
    if model is None or any(getattr(model, name) in (None, (), {}) for name in NEEDED):
        return None
    scored = _scores(results) if _is_reported(results, model) else [NO_SCORES]
    parts = {
        "What it is": _what_it_is(results, model),
        "What it is for, and not for": _uses(results),
        "Data": _data(results),
        "Preprocessing": _preprocessing(model),
        "Training": _training(results, model),
        "Scores": "\n\n".join(scored),
        "Limits": _limits(results, model),
        "Files": _files(model),
        "How to load it": _loading(results, model),
    }
    head = f"# Model card: {escape(results.data.name)}\n\n**Not for clinical use.**"
    return "\n\n".join([head, *(f"## {heading}\n\n{text}" for heading, text in parts.items())]) + "\n"


NO_SCORES = "The model's own predictions cannot be read, so no score is given here."


def _is_reported(results: Results, model: ModelRecord) -> bool:
    """Whether the network whose predictions the report shows is this model."""
    finals, best, reported = results.data.finals, results.data.best, results.model
    selected = finals.model if finals.selected else best and best["trial_id"]
    return reported is not None and reported.judged is not None and not reported.remark and model.trial == selected


def _what_it_is(results: Results, model: ModelRecord) -> str:
    several = model.task == "multi_label"
    answers = "any number of the labels" if several else "one of the classes"
    facts = {
        "What it does": f"assigns to an image {answers} {listing(model.classes)}",
        "Network": f"torchvision's {model.backbone} with a new head",
        "From": f"{model.trial} of the sweep {results.data.name}, epoch {model.epoch}",
    }
    if several:
        thresholds = (f"{name} {value:.3g}" for name, value in (model.thresholds or {}).items())
        facts["Decision thresholds"] = ", ".join(thresholds)
    if at := at_operating_point(results):
        facts["Operating point"] = at
    if model.thresholds and not several:
        facts["Decision rule"] = "the class of the operating point at or above its threshold, else the likeliest other"
    return _list(facts | ({"Code": model.code} if model.code else {}))


def _uses(results: Results) -> str:
    meant = "Research on images like its training images: comparing methods, planning studies, teaching."
    if results.data.dataset.demo:
        meant = "Checking that the system works: its images are phantoms drawn by a program."
    return (
        f"{meant}\n\nNot for diagnosis, triage, or any other decision about a patient. It knows only "
        f"{escape(listing(results.data.classes))}: an image that shows something else, or is no X-ray, still gets a "
        "prediction. On images from other scanners, hospitals, age groups or views its scores may be far lower: "
        "measure them with `python -m sweep.evaluate`."
    )


def _data(results: Results) -> str:
    data, dataset = results.data, results.data.dataset
    facts = {"Images": "the built-in demo set" if dataset.demo else dataset.source.path or "not recorded"}
    if dataset.preset:
        facts["Read as"] = f"preset {dataset.preset}"
    for split, name in formats.SPLIT_NAMES.items():
        if dataset.images.get(split):
            facts[name.capitalize()] = data.basis(split).partition(": ")[2]
    patients, counts = "Patients", "not known: images of one patient may be in two splits"
    if dataset.groups.source:
        patients = f"Patients (from {dataset.groups.source})"
        counts = ", ".join(f"{formats.SPLIT_NAMES[split]} {count:,}" for split, count in dataset.groups.counts.items())
    facts["Excluded"] = tables.left_out_in_words(tables.left_out(dataset))
    if missing := tables.missing_labels(dataset):
        facts["Missing labels"] = f"{missing:,}, excluded from training and scores"
    return _list(facts | {patients: counts, "Fingerprint": dataset.fingerprint or "not recorded"})


def _preprocessing(model: ModelRecord) -> str:
    gray = "made gray, " if model.channels == 1 else ""
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (model.mean, model.std))
    return (
        f"Images are {FITS.get(model.fit or '', 'resized to')} {model.image_size} x {model.image_size} pixels with "
        f"antialiasing, {gray}scaled to 0..1, and normalised by the mean {mean} and the standard deviation {std} of "
        "the three channels. 16-bit images are scaled by their own minimum and maximum first."
    )


def _training(results: Results, model: ModelRecord) -> str:
    params = formats.params_of(model.params)
    if params is None:
        return "The hyperparameters are damaged; see best.json."
    data, start = results.data, model.starting_weights or WeightsRecord()
    origin = ORIGINS.get(start.origin or "", "random weights") + (f" (SHA-256 {start.sha256})" if start.sha256 else "")
    limit = data.run.sweep.epochs_of(results.number) or "?"
    facts = {"Initial weights": origin, **dict(formats.in_words(params))}
    facts["Epochs"] = f"{model.epoch} of at most {limit}: the best on validation was kept"
    facts["Selected from"] = f"{len(data.trials):,} trials by {formats.metric_name(data.metric)}"
    return _list(facts)


def _scores(results: Results) -> list[str]:
    """Scores of decisions are of the model file alone; AUROC is the mean over repeats, the same as on the page."""
    data, split = results.data, str(results.split)
    scores, mean, runs = results.model_scores(split), results.scores(split), results.runs(split)
    if scores is None or mean is None or runs is None:
        return [NO_SCORES]
    several = runs.pooled or len(runs.names) > 1
    of_file = "this model file, its own fold" if runs.pooled else "this model file"
    of_mean = "all folds" if runs.pooled else f"mean of {len(runs.names)} repeats"
    rows = [[formats.score_name(name, data.task), _cell(scores, name), _cell(mean, name)] for name in OVERALL]
    area = formats.METRIC_NAMES[AREA] + intervals.qualifier(mean, AREA)
    rows.append([area, formats.ABSENT if several else _cell(mean, AREA), _cell(mean, AREA)])
    rows = rows if several else [row[:2] for row in rows]
    rested = "The model was fixed before these images were looked at."
    if split != "test":
        rested = "The model was selected on these images, so the scores are optimistic."
    elif (opened := len(data.finals.test_access)) > 1:
        rested = f"The test split was opened {opened} times; scores after the first opening are optimistic."
    decided = [f"{key}:{name}" for name in runs.classes for key in OF_A_CLASS.values()]
    areas = [f"auroc:{name}" for name in runs.classes]
    by_class = [
        [escape(name), *(_cell(scores, f"{key}:{name}") for key in OF_A_CLASS.values()), _cell(mean, f"auroc:{name}")]
        for name in runs.classes
    ]
    likeliest = ", predicting the likeliest (not the operating point)" if results.point_scored is not None else ""
    pairs = [(scores, name) for name in (*OVERALL, *decided)] + [(mean, name) for name in (AREA, *areas)]
    return [
        f"{escape(results.basis(split))} {rested} {formats.rounding(data.run.sweep)}".strip(),
        _table(["score", of_file, *([of_mean] if several else [])], rows),
        f"By class{', decided at 0.5' if runs.multi_label else likeliest}:",
        _table(["class", *OF_A_CLASS, f"AUROC, {of_mean}" if several else "AUROC"], by_class),
        escape(intervals.below(pairs)),
    ]


def _limits(results: Results, model: ModelRecord) -> str:
    """The page's caveats above level "info", and what was not measured."""
    dataset = results.data.dataset
    found = [one.text for one in caveats(results) if one.level != "info"]
    rare = [f"{name} ({count:,})" for name, count in dataset.counts.get("train", {}).items() if count < FEW_IMAGES]
    if rare:
        found.append(f"Few training images of {formats.some_of(rare)}.")
    if results.split == "val" and _is_reported(results, model):
        found.append("It was never scored on images that were not used to select it.")
    if not dataset.subgroups:
        found.append("Scores by sex, age, view or site were not measured: no such column was given.")
    if not results.external:
        found.append("When this was written, it had not been evaluated on images from another source.")
    if not dataset.demo:
        found.append("It is not proven whether it uses the lungs or markers and borders; see the report.")
    return "\n".join(f"- {escape(one)}" for one in found)


def _files(model: ModelRecord) -> str:
    rows = [[escape(name), f"{facts.bytes or 0:,}", escape(facts.sha256 or "")] for name, facts in model.files.items()]
    text = _table(["file", "bytes", "SHA-256"], rows)
    if model.onnx_difference is not None:
        most = f"{model.onnx_difference:.1g}"
        text += f"\n\nProbabilities of best.onnx in onnxruntime differ from torch's by at most {most}."
    return text


def _loading(results: Results, model: ModelRecord) -> str:
    """How to load the model with this project, and with torchvision alone."""
    run = f"{results.data.run.sweep.storage or 'runs'}/{results.data.name}"
    return (
        f"    python -m sweep.predict {shlex.quote(run)} image.png\n\n"
        "or without this project, with torchvision alone (8-bit images without transparency):\n\n"
        f"```python\n{(model.loading or '').rstrip()}\n```"
    )


def _cell(scores: Scores, name: str) -> str:
    return intervals.as_text(interval(scores, name))


def _list(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- **{escape(name)}:** {escape(text)}" for name, text in facts.items())


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])
