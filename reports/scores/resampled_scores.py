"""The scores of one configuration: on the images, on every resample of them, and with each patient left out.

Definitions are those of ``trainables.metrics.evaluate_predictions``, with an image counted as often as it was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports.scores.resampling import Resamples
from trainables.metrics import decide

Array = NDArray[np.float64]

_EPSILON = float(np.finfo(np.float32).eps)  # as in trainables.metrics: what a probability of 0 or 1 is worth
_CHUNK = 256  # replicates scored at once: bounds memory and stays in the processor's cache
_PAIRS = 4_000_000  # (positive, negative) pairs looked at together


@dataclass(frozen=True)
class Scores:
    """A configuration's scores by name ("f1_macro", "recall:covid", ...), the mean over its runs.

    estimate: on the images themselves. replicates: [B], on each resample. left_out: [J], with each group left out,
    NaN where that leaves an AUROC undefined. by_run: [R], each run's own. proportion_of: of how many images a score is
    a proportion, the mean over the runs; scores that are none are missing. positives, negatives: for each class, the
    groups with an image that has it, and with one that has it not.
    """

    classes: tuple[str, ...]
    estimate: dict[str, float]
    replicates: dict[str, Array]
    left_out: dict[str, Array]
    by_run: dict[str, Array]
    proportion_of: dict[str, float]
    positives: dict[str, int]
    negatives: dict[str, int]
    resamples: Resamples


def score_runs(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    classes: Sequence[str],
    resamples: Resamples,
    *,
    thresholds: Mapping[str, float] | None = None,
    auroc: bool = True,
) -> Scores:
    """Score the runs (repeats) of one configuration on the same images.

    labels: int [N] in 0..C-1, or 0/1 [N, C] (multi-label). probabilities: [R, N, C] in [0, 1], one block a run, rows
    in the order of ``labels`` and of ``resamples``. thresholds: for labels of a multi-label task, the least
    probability that is a positive decision; 0.5 where a label has none. auroc: False leaves out what takes longest.

    The names are those of ``evaluate_predictions``, and ``npv:c``, the part of the images decided not to be c that
    are not. A ratio 0/0 is 0; an AUROC that the images do not define is NaN throughout.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    assert probabilities.ndim == 3, "probabilities are [runs, images, classes]"
    assert probabilities.shape[1:] == (len(labels), len(classes)), "one row an image, one column a class"
    assert len(resamples.member) == len(labels), "resamples of other images"
    assert not thresholds or (labels.ndim == 2 and set(thresholds) <= set(classes)), "thresholds are by label"

    multi_label = labels.ndim == 2
    truth = labels == 1 if multi_label else np.equal(labels[:, None], np.arange(len(classes)))
    decided = decisions(probabilities, classes, thresholds, "multi_label" if multi_label else "single_label")
    summed = _sum_by_group(_columns(labels, truth, probabilities, decided), resamples)
    once = np.ones((1, resamples.groups), dtype=np.uint16)
    by_run = {name: value[0] for name, value in _score(once, summed, classes, multi_label).items()}

    counts = np.concatenate([resamples.counts, resamples.left_out])
    chunks = [counts[at : at + _CHUNK] for at in range(0, max(1, len(counts)), _CHUNK)]
    parts = [_score(chunk, summed, classes, multi_label) for chunk in chunks]
    rows = {name: np.concatenate([part[name].mean(axis=1) for part in parts]) for name in by_run}
    if auroc:
        for i, c in enumerate(classes):
            scores = probabilities[:, :, i]
            by_run[f"auroc:{c}"], rows[f"auroc:{c}"] = _auroc(truth[:, i], scores, counts, resamples.member)
        for values in (by_run, rows):
            values["auroc_macro"] = np.mean([values[f"auroc:{c}"] for c in classes], axis=0)
    return Scores(
        classes=tuple(classes),
        estimate={name: float(value.mean()) for name, value in by_run.items()},
        replicates={name: value[: resamples.replicates] for name, value in rows.items()},
        left_out={name: value[resamples.replicates :] for name, value in rows.items()},
        by_run=by_run,
        proportion_of=_proportion_of(truth, decided, classes, multi_label),
        positives={c: resamples.groups_with(truth[:, i]) for i, c in enumerate(classes)},
        negatives={c: resamples.groups_with(~truth[:, i]) for i, c in enumerate(classes)},
        resamples=resamples,
    )


def decisions(
    probabilities: NDArray[Any], classes: Sequence[str], thresholds: Mapping[str, float] | None, task: str
) -> NDArray[np.bool_]:
    """bool [..., N, C]: whether each class is the answer, one a row (single_label) or by ``thresholds``."""
    if task == "single_label":
        flat = decide(probabilities.reshape(-1, len(classes)), task)
        return np.equal(flat[:, None], np.arange(len(classes))).reshape(probabilities.shape)
    least = np.array([(thresholds or {}).get(name, 0.5) for name in classes])
    return np.asarray(probabilities, dtype=np.float64) >= least


def _columns(labels: NDArray[Any], truth: NDArray[np.bool_], probabilities: Array, decided: NDArray[np.bool_]) -> Array:
    """[N, R, 3 + 3C], what is summed over images: 1, all right, nll, then true, decided and both for each class."""
    if labels.ndim == 2:
        of_truth = np.where(truth, probabilities, 1 - probabilities)
    else:
        of_truth = np.take_along_axis(probabilities, labels[None, :, None].astype(np.int64), axis=2)
    nll = -np.log(np.maximum(of_truth, _EPSILON)).mean(axis=2)
    right = (decided == truth).all(axis=2)
    parts = [np.ones_like(nll)[..., None], right[..., None], nll[..., None]]
    parts += [np.broadcast_to(truth, decided.shape), decided, decided & truth]
    return np.moveaxis(np.concatenate(parts, axis=2).astype(np.float64), 0, 1)


def _sum_by_group(columns: Array, resamples: Resamples) -> Array:
    """[G, ...] of ``columns`` [N, ...]."""
    order = np.argsort(resamples.member, kind="stable")
    starts = np.searchsorted(resamples.member[order], np.arange(resamples.groups))
    return np.add.reduceat(columns[order], starts, axis=0)


def _score(counts: NDArray[np.uint16], summed: Array, classes: Sequence[str], multi_label: bool) -> dict[str, Array]:
    """Each score but AUROC as [b, R], of ``counts`` [b, G] and ``summed`` [G, R, 3 + 3C]."""
    totals = (counts.astype(np.float64) @ summed.reshape(len(summed), -1)).reshape(len(counts), *summed.shape[1:])
    images, right, nll = np.moveaxis(totals[..., :3], 2, 0)
    true, decided, tp = np.moveaxis(totals[..., 3:].reshape(*totals.shape[:2], 3, -1), 2, 0)
    tn = images[..., None] - true - decided + tp
    recall, specificity = _ratio(tp, true), _ratio(tn, images[..., None] - true)
    f1 = _ratio(2 * tp, true + decided)
    values = {
        "nll": nll / images,
        "accuracy": right / images,
        "balanced_accuracy": ((recall + specificity) / 2 if multi_label else recall).mean(axis=2),
        "f1_macro": f1.mean(axis=2),
    }
    if multi_label:
        values["exact_match"] = values["accuracy"]
        values["hamming_accuracy"] = (tp + tn).sum(axis=2) / (images * len(classes))
    npv = _ratio(tn, images[..., None] - decided)
    named = {"precision": _ratio(tp, decided), "recall": recall, "specificity": specificity, "npv": npv, "f1": f1}
    values.update({f"{name}:{c}": column[..., i] for name, column in named.items() for i, c in enumerate(classes)})
    return values


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _auroc(
    truth: NDArray[np.bool_], scores: Array, counts: NDArray[np.uint16], member: NDArray[np.int64]
) -> tuple[Array, Array]:
    """One class's AUROC by run, [R], and its mean over the runs for each row of ``counts``, [b].

    truth: [N]; scores: [R, N].
    The part of (positive, negative) pairs in the right order, ties counting half (Mann-Whitney U). The number of
    pairs does not depend on the run, so the runs' tables of pairs are added first and weighted once for all.
    """
    positives, negatives = np.flatnonzero(truth), np.flatnonzero(~truth)
    if not len(positives) or not len(negatives):
        return np.full(len(scores), np.nan), np.full(len(counts), np.nan)
    of_positives = counts[:, member[positives]].astype(np.float32)
    of_negatives = counts[:, member[negatives]].astype(np.float32)
    by_run, won = np.zeros(len(scores)), np.zeros(len(counts))
    rows = max(1, _PAIRS // len(negatives))
    for at in range(0, len(positives), rows):
        block = positives[at : at + rows]
        pairs = np.zeros((len(block), len(negatives)), dtype=np.float32)
        for run, score in enumerate(scores):
            order = np.sign(score[block, None] - score[negatives]).astype(np.float32)  # 1 won, 0 tied, -1 lost
            by_run[run] += order.sum(dtype=np.float64)
            pairs += order
        # Whole numbers far below 2^24, so that float32 is exact up to here.
        of_block = of_positives[:, at : at + rows] @ pairs
        won += np.einsum("bn,bn->b", of_block, of_negatives, dtype=np.float64)
    total = len(positives) * len(negatives)
    pairs_drawn = of_positives.sum(axis=1, dtype=np.float64) * of_negatives.sum(axis=1, dtype=np.float64)
    # won + tied / 2 = (all + won - lost) / 2
    share = np.divide(
        (pairs_drawn + won / len(scores)) / 2, pairs_drawn, out=np.full(len(counts), np.nan), where=pairs_drawn > 0
    )
    return (total + by_run) / 2 / total, share


def _proportion_of(
    truth: NDArray[np.bool_], decided: NDArray[np.bool_], classes: Sequence[str], multi_label: bool
) -> dict[str, float]:
    images, positives = float(len(truth)), truth.sum(axis=0)
    answered = decided.sum(axis=1).mean(axis=0)
    sizes = {"accuracy": images, **({"exact_match": images} if multi_label else {})}
    for i, c in enumerate(classes):
        sizes[f"recall:{c}"], sizes[f"specificity:{c}"] = float(positives[i]), images - positives[i]
        sizes[f"precision:{c}"], sizes[f"npv:{c}"] = float(answered[i]), images - answered[i]
    return {name: float(size) for name, size in sizes.items()}
