"""Methods paragraphs, in the past tense, generated from the records; the run's limits, references and checklists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution

from reports import formats, tables
from reports.blocks import Block, Folded, Note, Table, Text, columns
from reports.bootstrap import REPLICATES
from reports.caveats import caveats
from reports.chapters.checklists import checklists
from reports.chapters.hyperparameters import scale
from reports.chapters.references import cite, full_references, of_backbone
from reports.formats import escape, listing
from reports.importance import title
from reports.results import Results
from search_spaces.params import TrialParams
from sweep.records import WeightsRecord

SAMPLERS = {
    "tpe": "a tree-structured Parzen estimator, multivariate and grouped by branch [@tpe]",
    "random": "random search [@random]",
    "gp": "a Gaussian process (where a stopped trial has the score of its best epoch)",
    "qmc": "a scrambled Sobol sequence",
    "grid": "every configuration of the finite space",
}
SPLITS = {
    "given": "given by the data set",
    "seeded": "drawn at random, stratified by label",
    "val taken from train": "given by the data set, with 15 % of the training images drawn for validation",
}
FITS = {
    "squash": "stretched to",
    "crop": "cropped to their middle square and resized to",
    "pad": "resized and padded with black to",
}
# by hyperparameter and value
WORDS = {
    "loss": formats.LOSSES | {"focal": "focal loss [@focal]"},
    "optimizer": {"sgd": "SGD with momentum", "adamw": "AdamW [@adamw]"},
    "lr_schedule": {
        "constant": "constant",
        "plateau": "reduced on plateaus",
        "cosine": "cosine-annealed [@cosine]",
    },
    "augment": {
        "flip": "horizontal flips",
        "standard": "flips, rotations by up to 30 degrees and crops of 50 to 100 % of the area",
    },
}
TUNED = (
    "Each label was decided at 0.5 and at the threshold that maximised its F1 on the pooled validation predictions of "
    "all repeats; labels with fewer than 30 positives kept 0.5."
)
BASELINES = (
    "Baselines on the same images were the most frequent class, and logistic regression on thumbnails of 16 x 16 "
    "pixels, image borders, file properties and origin, and frozen features."
)
MOST_REASONS = 4
"""Most reasons for excluded images that are listed; the data chapter has all."""
PRECISIONS = {"bf16": "bfloat16", "fp32": "single precision"}
DUPLICATES = (
    "Exact duplicates were detected by a hash of the pixels; near duplicates among nearest neighbours in principal "
    "components, by a correlation of at least 0.9 (more where all images of a set are similar) between their details "
    "after registration (scale, shift, mirror)."
)


def chapter(results: Results) -> list[Block]:
    """Paragraphs and limits; search space, references and checklists are collapsed."""
    blocks: list[Block] = []
    if not results.data.run.sweep.ended:
        blocks.append(Note("warning", "The sweep has not ended: these paragraphs describe what was on disk."))
    texts = {heading: " ".join(filter(None, paragraph(results))) for heading, paragraph in PARAGRAPHS.items()}
    blocks += [Text(f"### {heading}\n\n{cite(text)}") for heading, text in texts.items()]
    limits = "\n".join(f"- {escape(one.text)}" for one in caveats(results)) or "None are known from the records."
    blocks.append(Text(f"### Limits\n\n{limits}"))
    ranges = search_space(results)
    if len(ranges):
        caption = "Hyperparameters searched, their ranges, and how many of the compared trials used each."
        blocks.append(Table("search_space", caption, ranges, columns(*ranges), folded=True))
    references = "\n".join(f"- {escape(one)}" for one in full_references(" ".join(texts.values())))
    blocks.append(Folded("References", (Text(references),)))
    blocks.append(Folded("Checklists: CLAIM 2020 and TRIPOD+AI", checklists()))
    return blocks


def search_space(results: Results) -> pd.DataFrame:
    """The parameters searched: parameter, values (the range or the choices), scale, trials (that had it)."""
    used = results.used_trials
    rows = [
        (title(name), _choices_or_range(distribution), scale(distribution), len(used.values(name)))
        for name, distribution in used.distributions.items()
    ]
    return pd.DataFrame(rows, columns=["parameter", "values", "scale", "trials"])


def _data(results: Results) -> list[str]:
    """Source, splits, patients, what was left out, preprocessing."""
    dataset = results.data.dataset
    if not dataset.images:
        return ["The data set is not recorded (dataset.json is missing)."]
    phantoms = "a built-in set of phantoms drawn by a program (no X-rays of people)"
    preset = f", read by the preset “{escape(dataset.preset)}”" if dataset.preset else ""
    source = phantoms if dataset.demo else f"[name the data set and cite it]{preset}"
    several = "; an image may have several of them" if dataset.task == "multi_label" else ""
    origin = dataset.split_origin or "of unknown origin"
    together = ", equal images kept together" if origin in ("seeded", "val taken from train") else ""
    numbers = listing(f"{count:,} for {_purpose(split)}" for split, count in dataset.images.items() if count)
    patients = "Patients were not known, so a patient may be in two splits."
    if dataset.groups.source:
        column, count = escape(dataset.groups.source), sum(dataset.groups.counts.values())
        but = " except as stated under Limits" if dataset.caveats and not dataset.demo else ""
        patients = f"The images were of {count:,} patients (from “{column}”), none in two splits{but}."
    missing = tables.missing_labels(dataset)
    gray = ", with the gray channel repeated three times" if dataset.channels == 1 else ""
    ranges = {name: one.range for name, one in results.data.run.provenance.weights.items() if one.range}
    others = "".join(f"; for {escape(name)}: to {low:g}..{high:g}" for name, (low, high) in sorted(ranges.items()))
    size, fit = dataset.image_size or "?", FITS.get(dataset.fit or "", "resized to")
    return [
        f"We used {source}: {sum(dataset.images.values()):,} images of {len(dataset.classes)} classes",
        f"({escape(listing(dataset.classes))}){several}.",
        f"Of the labels, {missing:,} were missing and were excluded from loss and scores." if missing else "",
        f"The splits were {escape(SPLITS.get(origin, origin))}{together}: {numbers}.",
        patients,
        _left_out(results),
        "" if dataset.demo else DUPLICATES,
        f"Images were {fit} {size} x {size} pixels{gray}, scaled by ImageNet's mean and standard deviation{others}.",
    ]


def _left_out(results: Results) -> str:
    found = tables.left_out(results.data.dataset)
    reasons = zip(found["why"], found["count"], strict=True)
    listed = f": {listing(f'{count:,} ({escape(why)})' for why, count in reasons)}" if len(found) else ""
    return f"{tables.left_out_in_words(found)}{' (see Data)' if len(found) > MOST_REASONS else listed}."


def _networks(results: Results) -> list[str]:
    """Backbones, starting weights, trained layers, training."""
    data, sweep = results.data, results.data.run.sweep
    names = sorted(set(data.trials["backbone"]) - {"unknown"})
    if not names:
        return ["No trial had begun when this was written."]
    cited = [f"{escape(name)} [@{key}]" if (key := of_backbone(name)) else escape(name) for name in names]
    weights = data.run.provenance.weights
    origins = {weights.get(name, WeightsRecord()).origin for name in names}
    start = "the weights in the table of initial weights [name their source]"
    if origins == {"random"}:
        start = "random weights"
    elif origins == {"imagenet"}:
        start = "weights pretrained on ImageNet [@imagenet], verified by their hashes"
    params = [one for row in data.trials.to_dict("records") if (one := formats.trial_params(row)) is not None]
    augmentation, optimizers, losses = (_used(params, name) for name in ("augment", "optimizer", "loss"))
    schedule = f" and a learning rate that was {schedules}" if (schedules := _used(params, "lr_schedule")) else ""
    epochs = f", for at most {most} epochs" if (most := sweep.epochs_of()) else ""
    precision = PRECISIONS.get(sweep.precision or "")
    return [
        f"The backbones were {listing(cited)}, as implemented in torchvision, with a new head.",
        f"They were initialised with {start}.",
        f"{_trained(params)}; BatchNorm [@batchnorm] statistics of frozen layers were not updated.",
        f"Augmentation, where used: {augmentation}." if augmentation else "",
        f"The loss was {losses}." if losses else "",
        f"Networks were trained with {optimizers}{schedule}{epochs}." if optimizers else "",
        f"Computations were in {precision}." if precision else "",
        "The weights of the epoch that was best on validation were kept.",
    ]


def _trained(params: Sequence[TrialParams]) -> str:
    """Which layers trained, as the beginning of a sentence."""
    depths = sorted({one.unfreeze_depth for one in params if one.unfreeze_depth is not None})
    named = any(one.unfreeze_depth is None for one in params)
    whole = {
        0: "Backbones stayed frozen, and the head alone was trained",
        4: "All backbone layers were trained with the head",
    }
    if not depths:
        return "The named layers and the head were trained"
    if len(depths) == 1 and depths[0] in whole and not named:
        return whole[depths[0]]
    span = f"{depths[0]} to {depths[-1]}" if len(depths) > 1 else f"{depths[0]}"
    layers = ", or the named layers," if named else ""
    return f"A backbone was divided into four blocks, of which the last {span}{layers} were trained with the head"


def _search(results: Results) -> list[str]:
    """Sampler, scheduler, and how the trials ended."""
    data, sweep = results.data, results.data.run.sweep
    counts, total, sampler = tables.status_counts(data.trials), len(data.trials), sweep.sampler or ""
    space, study = escape(sweep.space or "unknown"), (sweep.space or "").removeprefix("studies.")
    how = (
        f"Hyperparameters were searched with Optuna [@optuna] by {SAMPLERS.get(sampler, 'its sampler')}; Ray Tune "
        f"[@tune] ran {total} trials of the space “{space}” (seed {'?' if sweep.seed is None else sweep.seed})."
    )
    if study != (sweep.space or ""):
        how = f"The {total} configurations of the published study {escape(study)} were trained as it described them, "
        how += "with Ray Tune [@tune]."
    pruning = "No trial was stopped early."
    if sweep.scheduler == "asha":
        factor = "?" if sweep.reduction_factor is None else formats.general(sweep.reduction_factor)
        pruning = "Trials were pruned by asynchronous successive halving [@asha] after at least "
        pruning += f"{sweep.grace_period or '?'} epochs, with a reduction factor of {factor}."
    elif sweep.scheduler == "median":
        pruning = "Trials were pruned by the median rule [@median]."
    best = "highest" if data.run.sweep.mode == "max" else "lowest"
    warm, earlier = sweep.warm_trials, escape(Path(sweep.warm_start or "unknown").name)
    first = f"The first trials had the hyperparameters of the best trials of an earlier sweep, “{earlier}” "
    first += f"({escape(listing(one.trial_id for one in warm))})."
    return [
        how,
        first if warm else "",
        pruning,
        f"A trial ended after {sweep.patience} epochs without a better score." if sweep.patience else "",
        f"The score of a trial was its {best} {escape(formats.metric_name(data.metric))}.",
        f"Of the trials, {counts['completed']} completed, {counts['pruned']} were pruned, {counts['failed']} failed",
        f"and {counts['running']} were unfinished.",
    ]


def _evaluation(results: Results) -> list[str]:
    """Repeats, the selection rule, and when the test split was opened."""
    run, metric = results.data.run, escape(formats.metric_name(results.data.metric))
    finals = results.data.finals
    if not finals.finalists:
        return [
            "No configuration was trained more than once, and the test split was not opened: the scores of this run",
            "are from the validation split used for selection, and are optimistic.",
        ]
    first, opened = sum(one.role == "finalist" for one in finals.finalists), len(finals.test_access)
    extra, times = len(finals.finalists) - first, {1: "once", 2: "twice"}
    best = (
        f"The {first} best configurations by {metric} were" if first != 1 else f"The best configuration by {metric} was"
    )
    how = f"retrained {times.get(finals.asked, f'{finals.asked} times')} with fresh seeds"
    if finals.folds:
        how = f"retrained by {finals.folds}-fold cross-validation on training and validation images, stratified by "
        how += f"label, with {'no patient' if results.data.dataset.groups.source else 'no equal images'} in two folds"
    cells = escape(listing(name.replace("_", " ") for name in run.sweep.compare) or "the compared factors")
    found = [f"{best} {how}.", f"So was the best of each combination of {cells} ({extra} more)." if extra else ""]
    if not finals.selected:
        return [*found, "No winner had been selected."]
    rule = f"The winner was the one with the best {metric} when retrained."
    if finals.asked > 1:  # One repeat has no standard error.
        rule = f"Of the configurations whose mean {metric} over repeats was within one standard error of the best "
        rule += "[@one_se], the winner was the one with the fewest trainable parameters."
    found.append(rule)
    fixed = f"It was fixed on {escape(formats.moment(finals.selected))}"
    if finals.opened:
        found += [
            f"{fixed}{finals.selected_when} ({escape(formats.moment(finals.test_access[0].opened))}).",
            f"The test split was opened {times.get(opened, f'{opened} times')}. Test scores are means over repeats.",
        ]
    else:
        closed = "The test split was not opened." if results.data.has_test else "There was no test split."
        found.append(f"{fixed}. {closed}")
    return [
        *found,
        TUNED if finals.thresholds else "",
        f"The operating point was fixed with the winner: {escape(results.operating_point.words)}."
        if results.operating_point is not None
        else "",
        BASELINES if run.baselines else "",
    ]


def _statistics(results: Results) -> list[str]:
    """Intervals and comparisons."""
    unit = "patients" if results.data.dataset.groups.source else "images, since patients were not known"
    scores = results.judged_scores
    count = REPLICATES if scores is None else scores.resamples.replicates
    paired = []
    if len(results.data.finals.finalists) > 1:
        seeds = ", which included the variation between seeds by the variance between repeats [@seeds]"
        seeds = seeds if results.leaderboard.seeded else ""
        paired = [
            f"The winner was compared with each other finalist by a paired bootstrap{seeds}, with two-sided p values",
            "corrected by Holm's method [@holm], and by the exact McNemar test [@mcnemar] where every",
            "patient has one image.",
        ]
    return [
        "95 % confidence intervals were computed by the bias-corrected and accelerated bootstrap [@bca] over",
        f"{unit} [@clusters], with {count:,} resamples, the same for all comparisons; resamples lacking a class were",
        "redrawn. Wilson's interval [@wilson] was used for proportions where every patient has one image.",
        *paired,
        "Macro F1 is the unweighted mean over classes; 0/0 counts as 0. Differences with a corrected p of at most 0.05",
        "were called significant.",
    ]


def _software(results: Results) -> list[str]:
    """Versions and hardware."""
    found, seconds = results.data.run.provenance, float(results.data.trials["seconds"].sum())
    if not found.python and not found.packages:
        return ["Software and hardware are not recorded (provenance.json is missing)."]
    cited = {"torch": " [@torch]"}
    packages = [escape(f"{name} {version}") + cited.get(name, "") for name, version in found.packages.items()]
    commit = f", and this software at commit {escape(found.commit[:12])}" if found.commit else ""
    cpu = f" ({escape(found.cpu)})" if found.cpu else ""
    nodes = f" on {found.nodes} machines" if (found.nodes or 1) > 1 else ""
    took = f"; their epochs took {formats.duration(seconds)} in total" if seconds > 0 else ""
    return [
        f"The software was Python {escape(found.python or '?')} with {listing(packages)}{commit}.",
        f"Trials ran on {escape(listing(found.gpus)) or 'no GPU'} and {found.cpus or '?'} CPU cores{cpu}{nodes}{took}.",
    ]


PARAGRAPHS = {
    "Data": _data,
    "Networks and training": _networks,
    "Search": _search,
    "Selection and final evaluation": _evaluation,
    "Statistics": _statistics,
    "Software and hardware": _software,
}


def _choices_or_range(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(formats.general, distribution.choices))
    facts = distribution._asdict()
    return f"{formats.general(facts['low'])} to {formats.general(facts['high'])}"


def _used(params: Sequence[TrialParams], name: str) -> str:
    """The values of one hyperparameter that were used: "SGD with momentum or AdamW [@adamw]"."""
    used = {getattr(one, name) for one in params}
    return " or ".join(words for value, words in WORDS[name].items() if value in used)


def _purpose(split: str) -> str:
    return "testing" if split == "test" else formats.SPLIT_NAMES.get(split, escape(split))
