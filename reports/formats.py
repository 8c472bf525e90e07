"""Values and words for readers: sensible digits, standard terms, and user text made safe for Markdown."""

from __future__ import annotations

import html
import math
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from search_spaces.params import BACKBONE_NAMES, TrialParams

if TYPE_CHECKING:
    from sweep.records import SweepRecord

ABSENT = "–"
METRIC_NAMES = {
    "f1_macro": "macro F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "auroc_macro": "macro AUROC",
    "ap_macro": "macro average precision",
    "sensitivity_at_90_specificity_macro": "macro sensitivity at 90 % specificity",
    "f1": "F1",
    "recall": "recall",
    "auroc": "AUROC",
    "ap": "average precision",
    "sensitivity_at_90_specificity": "sensitivity at 90 % specificity",
    "nll": "negative log-likelihood",
    "loss": "loss",
    "exact_match": "exact match (every label correct)",
    "hamming_accuracy": "Hamming accuracy (share of correct label decisions)",
}
METRIC_MEANINGS = {
    "f1_macro": "the unweighted mean over classes of F1, the harmonic mean of precision and recall",
    "accuracy": "the share of images classified correctly; frequent classes dominate it",
    "balanced_accuracy": "the mean recall over classes",
    "recall": "the share of a class's images that are classified correctly",
    "mcc": "the correlation of predictions and truth: 0 by chance, 1 if all are correct",
    "kappa": "the agreement of predictions and truth beyond chance",
    "auroc_macro": "the mean over classes of the area under the ROC curve, one class against the rest",
    "nll": "the mean of minus the logarithm of the true class's probability; lower is better",
}
LOSSES = {"cross_entropy": "cross-entropy", "bce": "binary cross-entropy per class", "focal": "focal loss"}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}
AUGMENTATIONS = {"flip": "horizontal flip", "standard": "rotation, random crop, flip"}
SWEEP = "python -m sweep.run"
CHOSEN_AGAIN = {"--space", "--name", "--trials", "--epochs", "--set", "--resume", "--backbones", "--time-budget"}
CHOSEN_AGAIN |= {"--rows", "--warm-start", "--compare", "--sampler"}
DEPTH_NAMES = {0: "head only", 1: "last block", 2: "last 2 blocks", 3: "last 3 blocks", 4: "all blocks"}
MOST_NAMES = 10
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def escape(text: object) -> str:
    """``text`` for a Markdown string: one line in which no character is markup, at any position.

    Users' names and messages enter Markdown only through it. Not for code spans, where a backslash would be visible.
    """
    safe = html.escape(" ".join(str(text).split()), quote=False)
    safe = re.sub(r"([\\`*_\[\]|~])", r"\\\1", safe)
    safe = re.sub(r"^(\d*)([.)]|[-+=#]+)(?=\s|$)", r"\1\\\2", safe)
    return re.sub(r"(:)(?=//)|(?<=www)(\.)|(@)", r"\\\g<0>", safe)


def show(kind: str, value: Any) -> str:
    """``value`` as text by the rule named ``kind``; ``ABSENT`` for None, NaN and infinities."""
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return ABSENT
    return FORMATS[kind](value)


def is_number(kind: str) -> bool:
    """Whether values of this kind are right-aligned."""
    return kind != "text"


def score(value: float) -> str:
    """Three decimals: 0.893; of a loss that has exploded three digits: 1.25e+12."""
    return f"{float(value):.3f}" if abs(value) < 1e6 else f"{float(value):.3g}"


def integer(value: float) -> str:
    """1,123: thousands separated."""
    return f"{round(float(value)):,}"


def si(value: float) -> str:
    """Three significant digits with k, M, G: 11.2 M."""
    number = float(value)
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,950 must not become "1000 k": the rounding to three digits decides the unit.
        if abs(number) >= factor * 0.9995:
            return f"{_three_digits(number / factor)} {unit}"
    return f"{number:.0f}" if number.is_integer() else _three_digits(number)


def duration(seconds: float) -> str:
    """3.2 s, 48 s, 3 min 20 s, 1 h 05 min, 2 d 3 h."""
    value = float(seconds)
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(value / 3600)
    return f"{hours // 24} d {hours % 24} h"


def percent(share: float) -> str:
    """A share in [0, 1] as 43 %."""
    return f"{100 * float(share):.0f} %"


def general(value: Any) -> str:
    """A hyperparameter: at most three significant digits for fractions, whole numbers and text as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.3g}"


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "score": score,
    "integer": integer,
    "si": si,
    "duration": duration,
    "percent": percent,
    "general": general,
}


def _three_digits(value: float) -> str:
    digits = 2 - max(0, math.floor(math.log10(abs(value) * 1.0005))) if value else 0
    return f"{value:.{max(0, digits)}f}"


def metric_name(column: str) -> str:
    """A column of the epochs table in words: "validation macro F1"."""
    split, _, name = column.partition("_")
    if split not in SPLIT_NAMES:
        return column
    plain, _, label = name.partition(":")
    words = METRIC_NAMES.get(plain, plain.replace("_", " "))
    return f"{SPLIT_NAMES[split]} {words}" + (f" of class {label}" if label else "")


def score_name(name: str, task: str) -> str:
    """A score in words; multi-label accuracy is called exact match, which it is."""
    return "exact match" if name == "accuracy" and task == "multi_label" else METRIC_NAMES[name]


def trial_params(row: Mapping[Any, Any]) -> TrialParams | None:
    """``params_of`` a row of the trials table."""
    flat = {str(key): None if pd.isna(value) else value for key, value in row.items()}
    return params_of({key.removeprefix("param_"): flat[key] for key in flat if key.startswith("param_")})


def params_of(flat: Mapping[str, Any]) -> TrialParams | None:
    """The hyperparameters; None where they are damaged or of another version."""
    try:
        return TrialParams.from_flat(flat)
    except (TypeError, ValueError):
        return None


def in_words(params: TrialParams) -> list[tuple[str, str]]:
    """The hyperparameters as pairs of a heading and a self-explanatory phrase."""
    momentum = f", momentum {params.momentum:g}" if params.optimizer == "sgd" else ""
    rates = f"learning rate {general(params.lr)}"
    if params.backbone_lr_factor != 1 and (params.unfreeze_layers or params.unfreeze_depth):
        rates += f" for the head, {general(params.lr * params.backbone_lr_factor)} for the backbone"
    schedule = {"constant": "constant", "cosine": "cosine decay", "plateau": "lowered on plateaus"}[params.lr_schedule]
    decay = f", weight decay {general(params.weight_decay)}" if params.weight_decay else ""
    return [
        ("Backbone", params.backbone),
        ("Trained", unfrozen_in_words(params)),
        ("Head", _head(params)),
        ("Optimiser", f"{OPTIMIZERS[params.optimizer]}{momentum}, {rates}, {schedule}{decay}"),
        ("Batch size", f"{params.batch_size} images"),
        ("Loss", _loss(params)),
        ("Augmentation", AUGMENTATIONS.get(params.augment, "none")),
    ]


def in_short(params: TrialParams) -> str:
    """The hyperparameters in which most configurations differ, in one line."""
    trained = "+".join(params.unfreeze_layers) or DEPTH_NAMES[params.unfreeze_depth or 0]
    loss = LOSSES[params.loss].removesuffix(" per class")
    weighted = ", weighted" if params.class_weights == "balanced" else ""
    rate = f"{OPTIMIZERS[params.optimizer]} at {general(params.lr)}"
    return f"{params.backbone}, {trained}, {rate}, batch {params.batch_size}, {loss}{weighted}"


def choice(name: str, value: Any) -> str:
    """The value of one hyperparameter, for the head of a row or column."""
    if name == "unfreeze_depth" and value in DEPTH_NAMES:
        return DEPTH_NAMES[int(value)]
    return "none" if value is None else general(value)


def moment(time: Any) -> str:
    """An ISO time for readers: "2026-01-05 11:20 UTC"; other text unchanged."""
    try:
        found = datetime.fromisoformat(str(time))
    except ValueError:
        return "a time that was not recorded" if time is None else str(time)
    return f"{found:%Y-%m-%d %H:%M} {found.tzname() or ''}".strip()


def elapsed(began: str | None, ended: str | None) -> str:
    """The time between two ISO times; "no end recorded" if it is not known."""
    try:
        return duration((datetime.fromisoformat(str(ended)) - datetime.fromisoformat(str(began))).total_seconds())
    except (TypeError, ValueError):
        return "no end recorded"


def rounding(sweep: SweepRecord) -> str:
    """How the numbers of a bfloat16 run relate to those of its model file; "" if both are in single precision."""
    if sweep.precision != "bf16":
        return ""
    if sweep.finalists:
        return (
            "Trials were trained and ranked in bfloat16; predictions of finalists and of the model file are in single "
            "precision."
        )
    return (
        "The run's scores were computed in bfloat16, as in training; the model file computes in single precision and "
        "may classify borderline images differently."
    )


def p_value(p: float) -> str:
    """0.021; < 0.001; a dash where it is NaN."""
    if math.isnan(p):
        return ABSENT
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def signed(value: float) -> str:
    """+0.012; a dash where it is NaN."""
    return ABSENT if math.isnan(value) else f"{value:+.3f}"


def difference(value: float, low: float, high: float) -> str:
    """+0.012 (-0.031 to +0.055), without the bounds where there are none."""
    return signed(value) + ("" if math.isnan(low) else f" ({signed(low)} to {signed(high)})")


def unfrozen_in_words(params: TrialParams) -> str:
    if params.unfreeze_layers:
        return "the new head and " + ", ".join(params.unfreeze_layers)
    depth = params.unfreeze_depth or 0
    if depth == 0:
        return "the new head only; the backbone is frozen"
    if depth == 4:
        return "everything: the new head and all four blocks"
    return f"the new head and the {DEPTH_NAMES[depth]} of four"


def sweep_command(sweep: SweepRecord) -> str:
    """The command of the sweep as it was given, and those that changed it later, a line each; "" if not recorded."""
    lines = [sweep.command, *sweep.resumed] if sweep.command else []
    return "\n".join(f"{SWEEP} {shlex.join(line)}" for line in lines)


def again(sweep: SweepRecord, params: TrialParams, name: str, number: int | None) -> str:
    """A command that trains ``params`` once on the sweep's data; "" if the sweep's own command is not recorded.

    number: of the trial, which in a published study may have its own epochs.
    """
    if not sweep.command:
        return ""
    fixed = {key: value for key, value in params.active().items() if not key.startswith("unfreeze")}
    if params.unfreeze_layers:
        fixed["unfreeze_layers"] = "+".join(params.unfreeze_layers)
    else:
        fixed["unfreeze_depth"] = params.unfreeze_depth
    options = ["--space", "partial_unfreeze", "--name", f"{name}-again", "--trials", "1"]
    epochs = sweep.epochs_of(number)
    options += ["--epochs", str(epochs)] if epochs else []
    files = {*re.findall(r"(?:^|,)(\w+)=", sweep.weights or "")} & {*BACKBONE_NAMES}
    if others := sorted(files - {params.backbone}):  # Every backbone with a file in --weights must be named.
        options += ["--backbones", ",".join([params.backbone, *others])]
    for key, value in fixed.items():
        options += ["--set", f"{key}={'none' if value is None else value}"]
    return f"{SWEEP} {shlex.join([*_without(sweep.command, CHOSEN_AGAIN), *options])}"


def _without(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """``arguments`` without ``options`` and the value of each, written as two words or with ``=``."""
    kept: list[str] = []
    is_value = False
    for part in arguments:
        name, equals, _ = part.partition("=")
        if not is_value and name not in options:
            kept.append(part)
        is_value = not is_value and name in options and not equals
    return kept


def capital(text: str) -> str:
    """With its first letter capital; the others stay."""
    return text[:1].upper() + text[1:]


def lower(text: str) -> str:
    """With its first letter small; the others stay."""
    return text[:1].lower() + text[1:]


def listing(parts: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    words = list(parts)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def some_of(names: Sequence[str]) -> str:
    """As ``listing``, but at most ``MOST_NAMES`` names and the number of the others: a data set may have hundreds of
    classes."""
    more = len(names) - MOST_NAMES
    return listing([*names[:MOST_NAMES], f"{more:,} more"] if more > 0 else names)


def _head(params: TrialParams) -> str:
    if not params.head_widths:
        layers = "one linear layer"
    else:
        widths = listing(str(width) for width in params.head_widths)
        layers = f"hidden layer{'s' * (len(params.head_widths) > 1)} of {widths} units, then a linear layer"
    return layers + (f", dropout {general(params.dropout)}" if params.dropout else "")


def _loss(params: TrialParams) -> str:
    name = LOSSES[params.loss]
    if params.loss == "focal":
        name += f", gamma {general(params.focal_gamma)}"
        name += "" if params.focal_alpha is None else f", alpha {general(params.focal_alpha)}"
    return name + (", balanced class weights" if params.class_weights == "balanced" else "")
