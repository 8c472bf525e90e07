"""The paragraphs of a methods section, each written from the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.data import ReportData
from reports.page import formats, wording
from reports.prose.references import Citations, of_backbone
from reports.trials import tables
from search_spaces.params import TrialParams

SAMPLERS = {
    "tpe": "a tree-structured Parzen estimator, multivariate and grouped by branch",
    "random": "random search",
    "gp": "a Gaussian process",
    "qmc": "a scrambled Sobol sequence",
    "grid": "every configuration of the finite space",
}
SPLITS = {
    "given": "as the data set gives them",
    "seeded": "drawn at random, stratified by label",
    "val taken from train": "as the data set gives them, with 15 % of the training images drawn for validation",
}
FITS = {"squash": "squashed to", "crop": "cropped about the centre to", "pad": "padded and resized to"}


def paragraphs(evidence: ReportData, cite: Citations) -> list[tuple[str, str]]:
    """Pairs of a heading and a paragraph in the past tense."""
    return [
        ("Data", data(evidence)),
        ("Networks and training", networks(evidence, cite)),
        ("Search", search(evidence, cite)),
        ("Selection and final evaluation", evaluation(evidence, cite)),
        ("Statistics", statistics(evidence, cite)),
        ("Software and hardware", software(evidence, cite)),
    ]


def data(evidence: ReportData) -> str:
    dataset = evidence.dataset
    if not dataset:
        return "The data set is not recorded (dataset.json is missing)."
    images = dataset.get("images") or {}
    demo = "a built-in set of phantoms drawn by a program (no X-rays of people)"
    source = demo if dataset.get("demo") else "[name the data set and cite it]"
    classes = wording.listing(evidence.classes) or "unknown classes"
    several = ", several of which an image may have" if evidence.task == "multi_label" else ""
    text = (
        f"We used {source}: {sum(images.values()):,} images of {len(evidence.classes)} classes ({classes}){several}. "
    )
    origin = str(dataset.get("split_origin") or "")
    numbers = wording.listing(
        f"{count:,} for {'testing' if split == 'test' else wording.SPLIT_NAMES.get(split, split)}"
        for split, count in images.items()
        if count
    )
    text += f"The splits were {SPLITS.get(origin, origin or 'of unknown origin')}: {numbers}. "
    for split in ("train", "val", "test"):
        text += f"{evidence.basis(split)} " if (dataset.get("counts") or {}).get(split) else ""
    groups = dataset.get("groups") or {}
    if groups.get("column"):
        patients = sum((groups.get("counts") or {}).values())
        text += f"They held {patients:,} groups (column “{groups['column']}”, the patient), none of them in two splits"
        text += " except as marked below. " if dataset.get("caveats") and not dataset.get("demo") else ". "
    else:
        text += "Which images are of one patient was not known, so that a patient may be in two splits. "
    dropped = len(dataset.get("dropped") or [])
    text += f"{dropped:,} files were left out (see the data card). " if dropped else "No file was left out. "
    text += (
        "Exact duplicates were found by a hash of the decoded pixels, near duplicates by a perceptual hash (at most 10 "
        "bits) confirmed by a correlation of at least 0.97 at 64 x 64 pixels. "
    )
    fit = FITS.get(str(dataset.get("fit")), "resized to")
    size = dataset.get("image_size", "?")
    channels = {1: "one gray channel that stood for all three", 3: "three channels"}.get(dataset.get("channels", 0), "")
    text += f"Images were {fit} {size} x {size} pixels" + (f", with {channels}," if channels else "")
    marks = [str(mark) for mark in dataset.get("caveats") or () if not str(mark).startswith("Demo set")]
    text += " and scaled by ImageNet's mean and standard deviation."
    return text + (f" To be known: {'; '.join(marks)}." if marks else "")


def networks(evidence: ReportData, cite: Citations) -> str:
    names = sorted(set(evidence.trials["backbone"]) - {"unknown"})
    if not names:
        return "No trial had begun when this was written."
    cited = [f"{name} {cite(key)}" if (key := of_backbone(name)) else name for name in names]
    text = f"The backbones were {wording.listing(cited)}, as implemented in torchvision. "
    weights = evidence.run.provenance.get("weights") or {}
    origins = {str((weights.get(name) or {}).get("origin") or "unknown") for name in names}
    if origins == {"random"}:
        text += "They began with random weights. "
    elif origins == {"imagenet"}:
        text += f"They began with weights pretrained on ImageNet {cite('imagenet')}, verified by their hashes. "
    else:
        text += "They began with the weights in the table of starting weights [name their source]. "
    text += (
        "The classifier was replaced by a new head; the backbone was divided into four blocks, of which the last 0 to "
        "4 were trained with the head, as each configuration says. BatchNorm "
        f"{cite('batchnorm')} of frozen blocks kept its statistics. "
    )
    params = [p for row in evidence.trials.to_dict("records") if (p := _params(row)) is not None]
    if any(one.augment == "standard" for one in params):
        text += (
            "Augmentation, where used, was a horizontal flip, or a rotation by up to 30 degrees with a random crop of "
            "50 to 100 % of the area and a flip. "
        )
    elif any(one.augment == "flip" for one in params):
        text += "Augmentation, where used, was a horizontal flip. "
    losses = {one.loss for one in params}
    words = {"cross_entropy": "cross-entropy", "bce": "binary cross-entropy per class", "focal": "focal loss"}
    listed = [words[name] + (f" {cite('focal')}" if name == "focal" else "") for name in words if name in losses]
    text += f"The loss was {' or '.join(listed)}. " if listed else ""
    optimizers = {one.optimizer for one in params}
    listed = ["SGD with momentum"] if "sgd" in optimizers else []
    listed += [f"AdamW {cite('adamw')}"] if "adamw" in optimizers else []
    text += f"Networks were trained with {' or '.join(listed)}" if listed else ""
    if any(one.lr_schedule == "cosine" for one in params):
        text += f", the learning rate constant, lowered on plateaus or following a cosine {cite('cosine')}"
    epochs = evidence.run.sweep.get("epochs")
    text += f", for at most {epochs} epochs. " if epochs else ". "
    precision = {"bf16": "bfloat16", "fp32": "single precision"}.get(str(evidence.run.sweep.get("precision")), "")
    text += f"Computations were in {precision}. " if precision else ""
    return text + "A network was taken from the epoch that was best on validation."


def search(evidence: ReportData, cite: Citations) -> str:
    sweep = evidence.run.sweep
    counts = tables.status_counts(evidence.trials)
    metric = wording.metric_name(evidence.metric)
    space = str(sweep.get("space") or "unknown")
    total = len(evidence.trials)
    ends = (
        f"{counts['completed']} ran to their end, {counts['pruned']} were stopped early, {counts['failed']} failed and "
        f"{counts['running']} had no end."
    )
    if space.startswith("studies."):
        text = f"The {total} configurations of the study {space.removeprefix('studies.')} were trained as it described "
        text += f"them, with Ray Tune {cite('tune')}. "
    else:
        sampler = str(sweep.get("sampler") or "")
        text = f"Hyperparameters were searched with Optuna {cite('optuna')} by {SAMPLERS.get(sampler, 'its sampler')}"
        text += f" {cite(sampler)}" if sampler in ("tpe", "random") else ""
        text += (
            f", run by Ray Tune {cite('tune')}: {total} trials of the space “{space}” (seed {sweep.get('seed', '?')}). "
        )
    scheduler = sweep.get("scheduler")
    if scheduler == "asha":
        factor = sweep.get("reduction_factor")
        text += (
            f"Trials were stopped early by asynchronous successive halving {cite('asha')} after no fewer than "
            f"{sweep.get('grace_period', '?')} epochs, with a reduction factor of "
            f"{'?' if factor is None else formats.general(factor)}. "
        )
    elif scheduler == "median":
        text += f"Trials were stopped early by the median rule {cite('median')}. "
    else:
        text += "No trial was stopped early. "
    if sweep.get("patience"):
        text += f"A trial ended after {sweep['patience']} epochs without a better score. "
    better = "highest" if evidence.mode == "max" else "lowest"
    return text + f"A trial was worth its {better} {metric} over its epochs. Of the trials, {ends}"


def evaluation(evidence: ReportData, cite: Citations) -> str:
    finals = evidence.run.finals
    metric = wording.metric_name(evidence.metric)
    if finals is None or not finals.finalists:
        return (
            "No configuration was trained more than once, and the test split was not opened: the scores of this run "
            "are of the validation split on which it chose, and optimistic."
        )
    first = [one for one in finals.finalists if one.role == "finalist"]
    extra = len(finals.finalists) - len(first)
    text = f"The {len(first)} best configuration{'s' * (len(first) != 1)} by {metric} "
    if finals.folds:
        text += f"were trained again by {finals.folds}-fold cross-validation on training and validation images together"
        text += ", stratified by label, with no group in two folds. "
    else:
        text += f"were trained again {_times(finals.asked)} with fresh seeds. "
    if extra:
        cells = wording.listing(str(name).replace("_", " ") for name in evidence.run.sweep.get("compare") or ())
        text += f"So were the best of each combination of {cells or 'the compared factors'} ({extra} more). "
    if not finals.decided:
        return text + "No winner had been decided."
    text += (
        f"The winner was the configuration with the best mean {metric} over its repeats; of those within one standard "
        f"error of it {cite('one_se')}, the one with the fewest trainable parameters. It was fixed on "
        f"{wording.moment(finals.decided)}"
    )
    if not finals.opened:
        without = not (evidence.dataset.get("images") or {}).get("test")
        return text + (". There was no test split." if without else ". The test split was not opened.")
    opened = finals.test_access[0].get("opened")
    text += f", before the test split was opened{f' ({wording.moment(opened)})' if opened else ''}. "
    text += (
        "The test split was opened once. "
        if len(finals.test_access) == 1
        else f"The test split was opened {len(finals.test_access)} times. "
    )
    text += "A configuration's test score is the mean over its repeats. "
    if finals.thresholds:
        text += (
            "Each label was decided at a probability of 0.5 and, beside it, at the threshold that maximised its F1 on "
            "the validation predictions of all repeats, pooled; labels with fewer than 30 positives kept 0.5. "
        )
    if evidence.run.paths.baselines_table.is_file():
        text += (
            "Beside it we measured what simpler methods reach on the same images: the most frequent class, and "
            "logistic regression on thumbnails of 16 x 16 pixels, on the images' borders and on features of untouched "
            "networks. "
        )
    return text.strip()


def statistics(evidence: ReportData, cite: Citations) -> str:
    several = bool((evidence.dataset.get("groups") or {}).get("column"))
    unit = "patients" if several else "images, since patients were not known,"
    text = (
        f"Intervals are of 95 %, by the bias-corrected and accelerated bootstrap {cite('bca')} over {unit} "
        f"{cite('clusters')}, with 2,000 resamples, the same for all that was compared; resamples that lacked a "
        f"class were drawn anew. Proportions have Wilson's interval {cite('wilson')} where every patient has one "
        "image. "
    )
    finals = evidence.run.finals
    if finals is not None and len(finals.finalists) > 1:
        text += (
            "The winner was compared with each other finalist by the paired bootstrap, with two-sided p values "
            f"corrected by Holm's method {cite('holm')} and, where every patient has one image, by the exact McNemar "
            f"test {cite('mcnemar')}. "
        )
    return text + (
        "Macro F1 is the unweighted mean over all classes; a ratio of 0 to 0 counts as 0. A difference was called "
        "shown if its corrected p value was at most 0.05."
    )


def software(evidence: ReportData, cite: Citations) -> str:
    found: Mapping[str, Any] = evidence.run.provenance
    if not found:
        return "Software and hardware are not recorded (provenance.json is missing)."
    packages = found.get("packages") or {}
    papers = {"torch": f" {cite('torch')}"} if packages.get("torch") else {}
    named = [f"{name} {version}{papers.get(name, '')}" for name, version in packages.items() if version]
    text = f"The software was Python {found.get('python', '?')} with {wording.listing(named)}"
    text += f", and this system at commit {str(found['commit'])[:12]}. " if found.get("commit") else ". "
    gpus = found.get("gpus") or []
    cpus = found.get("cpus", "?")
    text += f"Trials ran on {wording.listing(map(str, gpus)) or 'no GPU'} and {cpus} CPU cores"
    text += f" ({found['cpu']})" if found.get("cpu") else ""
    nodes = found.get("nodes") or 1
    text += f" on {nodes} machines" if nodes > 1 else ""
    seconds = float(evidence.trials["seconds"].sum())
    return text + (f"; the trials' epochs took {formats.duration(seconds)} in all." if seconds > 0 else ".")


def _params(row: Mapping[Any, Any]) -> TrialParams | None:
    return wording.trial_params({str(key): value for key, value in row.items()})


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
