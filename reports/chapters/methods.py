"""Methods to paste, the limits of the run, references, and two reporting guidelines answered from the records.

CLAIM: Mongan, Moy & Kahn, Radiology: Artificial Intelligence 2020 (its 2024 update numbers items otherwise). TRIPOD+AI:
Collins et al., BMJ 2024. Items in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution

from reports import formats, intervals, tables
from reports.blocks import Block, Chapter, Column, Folded, Note, Table, Text
from reports.bootstrap import interval
from reports.formats import escape, listing
from reports.importance import title
from reports.results import Results
from search_spaces.params import TrialParams
from sweep.records import WeightsRecord

TITLE = "Methods, limits and checklists"
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
# by value: words, the key of what is cited
LOSSES = {
    "cross_entropy": ("cross-entropy", ""),
    "bce": ("binary cross-entropy per class", ""),
    "focal": ("focal loss", "focal"),
}
OPTIMIZERS = {"sgd": ("SGD with momentum", ""), "adamw": ("AdamW", "adamw")}
AUGMENTATIONS = {
    "flip": ("horizontal flips", ""),
    "standard": ("flips, rotations by up to 30 degrees and crops of 50 to 100 % of the area", ""),
}
PRECISIONS = {"bf16": "bfloat16", "fp32": "single precision"}
REFERENCES = {
    "adamw": "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019.",
    "asha": "Li L, Jamieson K, Rostamizadeh A, Gonina E, Ben-tzur J, Hardt M, Recht B, Talwalkar A. A system for "
    "massively parallel hyperparameter tuning. MLSys 2020.",
    "batchnorm": "Ioffe S, Szegedy C. Batch normalization: accelerating deep network training by reducing internal "
    "covariate shift. ICML 2015.",
    "bca": "Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987;82:171-185.",
    "clusters": "Davison AC, Hinkley DV. Bootstrap methods and their application. Cambridge University Press, 1997.",
    "cosine": "Loshchilov I, Hutter F. SGDR: stochastic gradient descent with warm restarts. ICLR 2017.",
    "focal": "Lin T-Y, Goyal P, Girshick R, He K, Dollár P. Focal loss for dense object detection. ICCV 2017.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    "imagenet": "Deng J, Dong W, Socher R, Li L-J, Li K, Fei-Fei L. ImageNet: a large-scale hierarchical image "
    "database. CVPR 2009.",
    "mcnemar": "McNemar Q. Note on the sampling error of the difference between correlated proportions or percentages. "
    "Psychometrika 1947;12:153-157.",
    "median": "Golovin D, Solnik B, Moitra S, Kochanski G, Karro J, Sculley D. Google Vizier: a service for black-box "
    "optimization. KDD 2017.",
    "one_se": "Breiman L, Friedman JH, Olshen RA, Stone CJ. Classification and regression trees. Wadsworth, 1984.",
    "optuna": "Akiba T, Sano S, Yanase T, Ohta T, Koyama M. Optuna: a next-generation hyperparameter optimization "
    "framework. KDD 2019.",
    "random": "Bergstra J, Bengio Y. Random search for hyper-parameter optimization. J Mach Learn Res 2012;13:281-305.",
    "torch": "Paszke A, Gross S, Massa F, et al. PyTorch: an imperative style, high-performance deep learning library. "
    "NeurIPS 2019.",
    "tpe": "Bergstra J, Bardenet R, Bengio Y, Kégl B. Algorithms for hyper-parameter optimization. NeurIPS 2011.",
    "tune": "Liaw R, Liang E, Nishihara R, Moritz P, Gonzalez JE, Stoica I. Tune: a research platform for distributed "
    "model selection and training. arXiv:1807.05118, 2018.",
    "wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc "
    "1927;22:209-212.",
    "resnet": "He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR 2016.",
    "vgg": "Simonyan K, Zisserman A. Very deep convolutional networks for large-scale image recognition. ICLR 2015.",
    "densenet": "Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. CVPR 2017.",
    "mobilenet_v2": "Sandler M, Howard A, Zhu M, Zhmoginov A, Chen L-C. MobileNetV2: inverted residuals and linear "
    "bottlenecks. CVPR 2018.",
    "mobilenet_v3": "Howard A, Sandler M, Chu G, et al. Searching for MobileNetV3. ICCV 2019.",
    "efficientnet": "Tan M, Le QV. EfficientNet: rethinking model scaling for convolutional neural networks. ICML "
    "2019.",
    "squeezenet": "Iandola FN, Han S, Moskewicz MW, Ashraf K, Dally WJ, Keutzer K. SqueezeNet: AlexNet-level accuracy "
    "with 50x fewer parameters and <0.5MB model size. arXiv:1602.07360, 2016.",
    "convnext": "Liu Z, Mao H, Wu C-Y, Feichtenhofer C, Darrell T, Xie S. A ConvNet for the 2020s. CVPR 2022.",
}
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


def chapter(results: Results) -> Chapter:
    cite = Citations()
    blocks: list[Block] = []
    if not results.data.ended:
        blocks.append(Note("warning", "The sweep has not ended: these paragraphs describe what was on disk."))
    for heading, paragraph in PARAGRAPHS.items():
        blocks.append(Text(f"### {heading}\n\n{' '.join(filter(None, paragraph(results, cite)))}"))
    caveats = "\n".join(f"- {escape(one.text)}" for one in results.caveats) or "None is known from the records."
    blocks.append(Text(f"### Limits\n\n{caveats}"))
    ranges = search_space(results)
    if len(ranges):
        names = ("parameter", "values", "scale")
        columns = (*(Column(name, name) for name in names), Column("trials", "trials", "integer"))
        caption = "Hyperparameters that were varied, their ranges, and how many of the compared trials used each."
        blocks.append(Table("search_space", caption, ranges, columns, folded=True))
    blocks.append(Folded("References", (Text("\n".join(f"- {escape(one)}" for one in cite.full)),)))
    blocks.append(Folded("Checklists: CLAIM 2020 and TRIPOD+AI", checklists(results)))
    return Chapter("methods", TITLE, tuple(blocks))


class Citations:
    """Cites works and remembers which."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, *keys: str) -> str:
        """ "(Akiba et al., 2019; Liaw et al., 2018)": surnames and year as they stand in the reference."""
        self._used |= set(keys)
        return f"({'; '.join(map(_short, keys))})"

    @property
    def full(self) -> list[str]:
        """The full references, by name."""
        return sorted(REFERENCES[key] for key in self._used)


def of_backbone(name: str) -> str | None:
    """The key of a backbone's paper: "resnet" for "resnet18"; None if there is none."""
    return next((key for key in sorted(REFERENCES, key=len, reverse=True) if name.startswith(key)), None)


def search_space(results: Results) -> pd.DataFrame:
    """What could be tried: parameter, values (the range or the choices), scale, trials (that had it)."""
    used = results.used_trials
    rows = [
        (title(name), *_values_and_scale(distribution), len(used.values(name)))
        for name, distribution in used.distributions.items()
    ]
    return pd.DataFrame(rows, columns=["parameter", "values", "scale", "trials"])


def checklists(results: Results) -> tuple[Block, ...]:
    """Two tables: what is answered, where and how; and what is to be written by the authors."""
    columns = (Column("claim", "CLAIM"), Column("tripod", "TRIPOD+AI"), Column("item", "item"))
    more = (*columns, Column("answer", "answer"), Column("where", "chapter"))
    open_items = pd.DataFrame(AUTHORS, columns=["claim", "tripod", "item"])
    return (
        Table("checklist", "Items that the records answer.", answers(results), more),
        Table("checklist_authors", "To be written by the authors: the records do not know it.", open_items, columns),
    )


def answers(results: Results) -> pd.DataFrame:
    """claim, tripod (item numbers), item, answer, where (the chapter of the report)."""
    data = results.data
    dataset, sweep, finals, counts = data.dataset, data.run.sweep, data.run.finals, tables.status_counts(data.trials)
    images = ", ".join(
        f"{split} {count:,}"
        + (f" ({dataset.group_counts[split]:,} patients)" if dataset.group_counts.get(split) else "")
        for split, count in dataset.images.items()
    )
    level = f"patient (column {dataset.group_column})" if dataset.group_column else "image; patients not known"
    packages = data.run.provenance.packages
    software = ", ".join(f"{name} {packages[name]}" for name in ("torch", "ray", "optuna") if packages.get(name))
    origins = sorted({found.origin or "unknown" for found in data.run.provenance.weights.values()})
    repeats = sum(len(one.repeats) for one in finals.finalists) if finals else 0
    training = (
        f"{len(data.trials):,} trials ({counts['pruned']} pruned, {counts['failed']} failed), {repeats} repeats; "
    )
    training += f"{sweep.sampler or '?'}, {sweep.scheduler or '?'}, at most {sweep.epochs or '?'} epochs"
    selection = "best single run on validation: no repeats"
    if finals is not None and finals.selected:
        when = "before the test split was opened" if finals.opened else "the test split is closed"
        selection = f"mean of {finals.asked} repeats on validation, {when}"
    own = finals.winning.scores if finals is not None and finals.winning is not None else ()
    spread = (
        f"{len(own)} seeds: {formats.score(min(own))} to {formats.score(max(own))} on validation" if own[1:] else ""
    )
    train = dataset.counts.get("train") or {}
    balance = ", ".join(
        f"{name} {train[name]:,}" for name in sorted(train, key=lambda name: train[name])[:: len(train) - 1 or 1]
    )
    source = f"{dataset.source_kind or 'unknown'}; fingerprint {(dataset.fingerprint or 'not recorded')[:12]}"
    output = (
        "each label, decided at the stated thresholds"
        if data.task == "multi_label"
        else "each class; the highest decides"
    )
    commit = data.run.provenance.commit
    rows = [
        ("7", "5a", "source of the data", "built-in phantoms, no patients" if dataset.demo else source, "Data"),
        ("9", "7, 12b", "preprocessing", f"{dataset.image_size or '?'} px, {dataset.fit or '?'}", "Data"),
        ("10, 13", "11", "images left out, missing data", f"{len(dataset.dropped):,} files; no values imputed", "Data"),
        ("33", "20a, 21", "images and patients in each partition", images or "not recorded", "Data"),
        ("20", "12a", "how partitions were made", dataset.split_origin or "not recorded", "Data"),
        ("21", "12a", "level at which partitions are disjoint", level, "Data"),
        ("22", "12c, 22", "the model", _model(results), "Summary"),
        ("23", "–", "software", software or "not recorded", "Reproducibility"),
        ("24", "12c", "initial weights", listing(origins) or "not recorded", "Data"),
        ("25", "12c", "training, hyperparameters, models trained", training, TITLE),
        ("26", "12c", "how the final model was selected", selection, "Finalists"),
        ("27", "12c", "ensembles", "none: one network decides", "Summary"),
        ("28", "12e", "measures of performance", formats.metric_name(data.metric) + ", and others", "Summary"),
        ("29", "12e", "uncertainty", "95 % intervals over patients; paired, corrected comparisons", TITLE),
        ("30", "–", "robustness", spread or "not examined: no repeats", "Finalists"),
        ("35, 36", "23a", "performance with its precision", _performance(results), "Summary"),
        ("37", "–", "wrongly classified cases", "with file names", "Best and worst classified images"),
        ("–", "13", "class imbalance", f"training: {balance}" if balance else "class counts not recorded", "Data"),
        ("–", "14, 23a", "subgroups and fairness", _subgroups(dataset.subgroups), "Confusion and operating points"),
        ("–", "12g, 15", "output of the model", f"a probability for {output}", "Summary"),
        ("–", "12f, 24", "updating of the model", "none", "–"),
        (
            "–",
            "18e, 18f",
            "data and code",
            f"code: commit {commit[:12]}" if commit else "to be stated",
            "Reproducibility",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "tripod", "item", "answer", "where"])


def _data(results: Results, cite: Citations) -> list[str]:
    dataset = results.data.dataset
    if not dataset.images:
        return ["The data set is not recorded (dataset.json is missing)."]
    source = "[name the data set and cite it]"
    if dataset.demo:
        source = "a built-in set of phantoms drawn by a program (no X-rays of people)"
    several = ", several of which an image may have" if dataset.task == "multi_label" else ""
    origin = dataset.split_origin or "of unknown origin"
    numbers = listing(f"{count:,} for {_purpose(split)}" for split, count in dataset.images.items() if count)
    patients = "Which images are of one patient was not known, so that a patient may be in two splits."
    if dataset.group_column:
        column, count = escape(dataset.group_column), sum(dataset.group_counts.values())
        but = " except as the limits below say" if dataset.caveats and not dataset.demo else ""
        patients = f"They were of {count:,} patients (column “{column}”), none in two splits{but}."
    ignored = sum(one.count for one in dataset.checks if one.check == "ignored_files")
    left_out = len(dataset.dropped) + ignored
    gray = ", with one gray channel for all three" if dataset.channels == 1 else ""
    size = dataset.image_size or "?"
    return [
        f"We used {source}: {sum(dataset.images.values()):,} images of {len(dataset.classes)} classes",
        f"({escape(listing(dataset.classes))}){several}. The splits were {escape(SPLITS.get(origin, origin))}: {numbers}.",
        patients,
        f"{left_out:,} files were left out (see Data)." if left_out else "No file was left out.",
        "Exact duplicates were found by a hash of the pixels, near duplicates by a perceptual hash (at most 10 bits),",
        "confirmed by a correlation of at least 0.97.",
        f"Images were {FITS.get(dataset.fit or '', 'resized to')} {size} x {size} pixels{gray}, scaled by ImageNet's",
        "mean and standard deviation.",
    ]


def _networks(results: Results, cite: Citations) -> list[str]:
    data, sweep = results.data, results.data.run.sweep
    names = sorted(set(data.trials["backbone"]) - {"unknown"})
    if not names:
        return ["No trial had begun when this was written."]
    cited = [f"{escape(name)} {cite(key)}" if (key := of_backbone(name)) else escape(name) for name in names]
    weights = data.run.provenance.weights
    origins = {weights.get(name, WeightsRecord()).origin for name in names}
    start = "the weights in the table of starting weights [name their source]"
    if origins == {"random"}:
        start = "random weights"
    elif origins == {"imagenet"}:
        start = f"weights pretrained on ImageNet {cite('imagenet')}, verified by their hashes"
    params = [found for row in data.trials.to_dict("records") if (found := _params(row)) is not None]
    augmentation = _one_of(AUGMENTATIONS, {one.augment for one in params}, cite)
    optimizers = _one_of(OPTIMIZERS, {one.optimizer for one in params}, cite)
    cosine = any(one.lr_schedule == "cosine" for one in params)
    schedule = (
        f", the learning rate constant, lowered on plateaus or following a cosine {cite('cosine')}" if cosine else ""
    )
    epochs = f", for at most {sweep.epochs} epochs" if sweep.epochs else ""
    precision = PRECISIONS.get(sweep.precision or "")
    return [
        f"The backbones were {listing(cited)}, as implemented in torchvision, with a new head. They began with {start}.",
        "A backbone was divided into four blocks, of which the last 0 to 4 were trained with the head; BatchNorm",
        f"{cite('batchnorm')} of frozen blocks kept its statistics.",
        f"Augmentation, where used: {augmentation}." if augmentation else "",
        f"The loss was {_one_of(LOSSES, {one.loss for one in params}, cite)}." if params else "",
        f"Networks were trained with {optimizers}{schedule}{epochs}." if optimizers else "",
        f"Computations were in {precision}." if precision else "",
        "A network was taken from the epoch that was best on validation.",
    ]


def _search(results: Results, cite: Citations) -> list[str]:
    data, sweep = results.data, results.data.run.sweep
    counts, total, sampler = tables.status_counts(data.trials), len(data.trials), sweep.sampler or ""
    space = escape(sweep.space or "unknown")
    if space.startswith("studies."):
        how = f"The {total} configurations of the published study {space.removeprefix('studies.')} were trained as it "
        how += f"described them, with Ray Tune {cite('tune')}."
    else:
        how = f"Hyperparameters were searched with Optuna {cite('optuna')} by {SAMPLERS.get(sampler, 'its sampler')}"
        how += f" {cite(sampler)}" if sampler in ("tpe", "random") else ""
        seed = "?" if sweep.seed is None else sweep.seed
        how += f", run by Ray Tune {cite('tune')}: {total} trials of the space “{space}” (seed {seed})."
    pruning = "No trial was stopped early."
    if sweep.scheduler == "asha":
        factor = "?" if sweep.reduction_factor is None else formats.general(sweep.reduction_factor)
        pruning = f"Trials were pruned by asynchronous successive halving {cite('asha')} after no fewer than "
        pruning += f"{sweep.grace_period or '?'} epochs, with a reduction factor of {factor}."
    elif sweep.scheduler == "median":
        pruning = f"Trials were pruned by the median rule {cite('median')}."
    return [
        how,
        pruning,
        f"A trial ended after {sweep.patience} epochs without a better score." if sweep.patience else "",
        f"A trial was worth its {'highest' if data.mode == 'max' else 'lowest'} {escape(formats.metric_name(data.metric))}.",
        f"Of the trials, {counts['completed']} completed, {counts['pruned']} were pruned, {counts['failed']} failed and "
        f"{counts['running']} had no end.",
    ]


def _evaluation(results: Results, cite: Citations) -> list[str]:
    run, metric = results.data.run, escape(formats.metric_name(results.data.metric))
    finals = run.finals
    if finals is None or not finals.finalists:
        return [
            "No configuration was trained more than once, and the test split was not opened: the scores of this run are "
            "of the validation split on which it chose, and optimistic."
        ]
    first = sum(one.role == "finalist" for one in finals.finalists)
    extra = len(finals.finalists) - first
    how = f"{ {1: 'once', 2: 'twice'}.get(finals.asked, f'{finals.asked} times') } with fresh seeds".strip()
    if finals.folds:
        how = f"by {finals.folds}-fold cross-validation on training and validation images, stratified by label, with "
        how += "no patient in two folds"
    cells = escape(listing(name.replace("_", " ") for name in run.sweep.compare) or "the compared factors")
    found = [
        f"The {first} best configuration{'s' * (first != 1)} by {metric} {'was' if first == 1 else 'were'} retrained {how}."
    ]
    found += [f"So were the best of each combination of {cells} ({extra} more)."] if extra else []
    if not finals.selected:
        return [*found, "No winner had been selected."]
    found.append(
        f"The winner had the best mean {metric} over its repeats; of configurations within one standard error of the "
        f"best {cite('one_se')}, the one with the fewest trainable parameters. It was fixed on "
        f"{escape(formats.moment(finals.selected))}"
    )
    if not finals.opened:
        found[-1] += ". The test split was not opened." if results.data.has_test else ". There was no test split."
        return found
    opened, times = finals.test_access[0].opened, len(finals.test_access)
    found[-1] += f", before the test split was opened ({escape(formats.moment(opened))})."
    return [
        *found,
        f"The test split was opened {'once' if times == 1 else f'{times} times'}. A test score is the mean over repeats.",
        "Each label was decided at 0.5 and at the threshold that maximised its F1 on the pooled validation predictions "
        "of all repeats; labels with fewer than 30 positives kept 0.5." * bool(finals.thresholds),
        "Baselines on the same images: the most frequent class, and logistic regression on thumbnails of 16 x 16 "
        "pixels, on image borders and on frozen features." * bool(run.baselines),
    ]


def _statistics(results: Results, cite: Citations) -> list[str]:
    unit = "patients" if results.data.dataset.group_column else "images, since patients were not known,"
    finals = results.data.run.finals
    paired = (
        "The winner was compared with each other finalist by the paired bootstrap, with two-sided p values corrected by "
        f"Holm's method {cite('holm')}, and by the exact McNemar test {cite('mcnemar')} where every patient has one image."
        if finals is not None and len(finals.finalists) > 1
        else ""
    )
    return [
        f"Intervals are of 95 %, by the bias-corrected and accelerated bootstrap {cite('bca')} over {unit}",
        f"{cite('clusters')}, with 2,000 resamples, the same for all that was compared; resamples without a class were",
        f"redrawn. Proportions have Wilson's interval {cite('wilson')} where every patient has one image.",
        paired,
        "Macro F1 is the unweighted mean over classes; 0/0 counts as 0. A difference is called significant at a",
        "corrected p of at most 0.05.",
    ]


def _software(results: Results, cite: Citations) -> list[str]:
    found, seconds = results.data.run.provenance, float(results.data.trials["seconds"].sum())
    if not found.python and not found.packages:
        return ["Software and hardware are not recorded (provenance.json is missing)."]
    named = [
        f"{name} {version}" + (f" {cite('torch')}" if name == "torch" else "")
        for name, version in found.packages.items()
    ]
    commit = f", and this system at commit {escape(found.commit[:12])}" if found.commit else ""
    cpu = f" ({escape(found.cpu)})" if found.cpu else ""
    nodes = f" on {found.nodes} machines" if (found.nodes or 1) > 1 else ""
    took = f"; their epochs took {formats.duration(seconds)} in all" if seconds > 0 else ""
    return [
        f"The software was Python {found.python or '?'} with {listing(named)}{commit}. Trials ran on",
        f"{escape(listing(found.gpus)) or 'no GPU'} and {found.cpus or '?'} CPU cores{cpu}{nodes}{took}.",
    ]


PARAGRAPHS = {
    "Data": _data,
    "Networks and training": _networks,
    "Search": _search,
    "Selection and final evaluation": _evaluation,
    "Statistics": _statistics,
    "Software and hardware": _software,
}


def _short(key: str) -> str:
    authors = re.split(r"(?<=[A-Z])\. |, et al\. ", REFERENCES[key])[0].split(", ")
    surnames = [author.rsplit(" ", 1)[0] for author in authors]
    year = re.findall(r"\b(?:19|20)\d\d\b", REFERENCES[key])[-1]
    several = ", et al." in REFERENCES[key] or len(surnames) > 2
    return f"{surnames[0] + ' et al.' if several else ' & '.join(surnames)}, {year}"


def _values_and_scale(distribution: BaseDistribution) -> tuple[str, str]:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(formats.general, distribution.choices)), "choice"
    facts: Mapping[str, Any] = distribution._asdict()
    scale = "logarithmic" if facts["log"] else "whole numbers" if isinstance(facts["low"], int) else "linear"
    return f"{formats.general(facts['low'])} to {formats.general(facts['high'])}", scale


def _one_of(words: Mapping[str, tuple[str, str]], used: Collection[str], cite: Citations) -> str:
    """Those of ``words`` that were in use, each with what it cites: "a or b (Lin et al., 2017)"."""
    return " or ".join(f"{text} {cite(key)}" if key else text for name, (text, key) in words.items() if name in used)


def _purpose(split: str) -> str:
    return "testing" if split == "test" else formats.SPLIT_NAMES.get(split, escape(split))


def _params(row: Mapping[Any, Any]) -> TrialParams | None:
    return formats.trial_params({str(key): value for key, value in row.items()})


def _model(results: Results) -> str:
    finals, best = results.data.run.finals, results.data.best
    winner = finals.winning if finals is not None else None
    row = {f"param_{key}": value for key, value in winner.params.items()} if winner is not None else best
    params = formats.trial_params(row) if row else None
    return formats.in_short(params) if params else "hyperparameters damaged" if row else "no model"


def _performance(results: Results) -> str:
    split = results.split
    scores = results.scores(split) if split else None
    if scores is None:
        return "no predictions"
    found = interval(scores, results.metric)
    text = f"{results.metric_name} {intervals.as_text(found).removesuffix(f' {intervals.MARK}')}"
    text += f"; {found.warning}" if found.warning else ""
    return text if split == "test" else f"{text}; on the images that selected it, optimistic"


def _subgroups(names: Collection[str]) -> str:
    return f"scores by {listing(sorted(names))}" if names else "no subgroup column was given"
