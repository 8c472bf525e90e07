"""How often a 95 % interval covers the truth: ``python -m benchmarks.coverage``.

Sets of images are drawn from a population whose true scores are known. They are decided by networks whose errors are
correlated within a patient and between the runs of a configuration, and get intervals as in a report. The report's
intervals are compared with alternatives. The truth of a score is that of the mean over the runs on infinitely many
patients.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from reports.bootstrap import Resamples, Scores, draw_resamples, score_runs
from reports.comparisons import compare, mcnemar
from reports.intervals import bca, interval, wilson

Array = NDArray[Any]

CLASSES = ("covid", "normal", "pneumonia")
SHARES = np.array([19, 75, 75]) / 169
# Rows: true class, columns: decision, as shares of the row. True macro F1: .896, and .858 for the worse network.
CONFUSION = np.array([[0.80, 0.11, 0.09], [0.01, 0.93, 0.06], [0.01, 0.07, 0.92]])
WORSE = np.array([[0.74, 0.14, 0.12], [0.015, 0.905, 0.08], [0.015, 0.095, 0.89]])
# Components of an image's error, as shares of variance: patient and image, shared by all networks; patient and image,
# of one configuration; and the run.
SHARED_PATIENT, SHARED_IMAGE, OWN_PATIENT, OWN_IMAGE, RUN = 0.3, 0.2, 0.1, 0.1, 0.3
SCORES = ("accuracy", "f1_macro", "f1:covid", "recall:covid")


@dataclass(frozen=True)
class Population:
    """images: in one set. sizes: the shares of patients with one, two and three images. runs: of a configuration.
    part: share of the requested simulations to run, since large sets take longer. seeds: standard deviation of the
    shift of a run's errors by its seed; 0.1 moves macro F1 by about .017."""

    name: str
    images: int
    sizes: tuple[float, float, float]
    runs: int
    part: float = 1.0
    seeds: float = 0.0


POPULATIONS = (
    Population("169 images, 1 to 3 a patient, 3 runs", 169, (0.5, 0.3, 0.2), 3),
    Population("169 images, 1 a patient, 3 runs", 169, (1.0, 0.0, 0.0), 3),
    Population("169 images, 1 a patient, 1 run", 169, (1.0, 0.0, 0.0), 1),
    Population("1500 images, 1 to 3 a patient, 3 runs", 1500, (0.5, 0.3, 0.2), 3, part=0.3),
    Population("169 images, 1 to 3 a patient, 3 runs, seeds matter", 169, (0.5, 0.3, 0.2), 3, seeds=0.1),
    Population("1500 images, 1 to 3 a patient, 3 runs, seeds matter", 1500, (0.5, 0.3, 0.2), 3, part=0.3, seeds=0.1),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--simulations", type=int, default=3000, help="sets drawn from each population (3000)")
    parser.add_argument("--replicates", type=int, default=1000, help="resamples of each set (1000; a report has 2000)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    for population in POPULATIONS:
        began_s = time.process_time()
        simulations = max(1, round(population.part * asked.simulations))
        found = simulate(population, simulations, asked.replicates, asked.seed)
        print(f"{population.name}: {simulations} sets, {time.process_time() - began_s:.0f} s of CPU")
        print(render(found), end="\n\n")


def simulate(population: Population, simulations: int, replicates: int, seed: int) -> dict[tuple[str, str], Array]:
    """By (what, how): float [simulations, 2], whether the truth was covered (or a difference found), and the width."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(simulations):
        labels, groups, decided = drawn_set(population, [CONFUSION, CONFUSION, WORSE], rng)
        resamples = draw_resamples(groups, labels, 3, replicates=replicates, seed=number)
        networks = [score_runs(labels, np.eye(3)[runs], CLASSES, resamples, areas=False) for runs in decided]
        for name in SCORES:
            truth = true_scores(CONFUSION)[name]
            for how, (low, high) in intervals(networks[0], name):
                found.setdefault((name, how), []).append((low <= truth <= high, high - low))
        for key, value in _differences(networks, labels, decided, resamples):
            found.setdefault(key, []).append(value)
    return {key: np.array(values, dtype=float) for key, values in found.items()}


def drawn_set(
    population: Population, confusions: Sequence[Array], rng: np.random.Generator
) -> tuple[Array, list[str], list[Array]]:
    """labels [N], groups [N] and, for each network, decisions [R, N]; every class has an image."""
    while True:
        size = rng.choice([1, 2, 3], p=population.sizes, size=population.images)
        member = np.repeat(np.arange(population.images), size)[: population.images]
        labels = rng.choice(3, p=SHARES, size=population.images)[member]
        if len(np.unique(labels)) == 3:
            break

    def error(patient: float, image: float) -> Array:
        of_patient = rng.normal(size=population.images)[member]
        return np.sqrt(patient) * of_patient + np.sqrt(image) * rng.normal(size=population.images)

    shared = error(SHARED_PATIENT, SHARED_IMAGE)
    decided = []
    for confusion in confusions:
        luck = np.sqrt(RUN) * rng.normal(size=(population.runs, population.images))
        luck += population.seeds * rng.normal(size=(population.runs, 1))
        # Standard normal for every image, so that each run has the population's confusion matrix exactly (if seeds
        # matter: over all seeds).
        scale = np.sqrt(1 + population.seeds**2)
        place = norm.cdf((shared + error(OWN_PATIENT, OWN_IMAGE) + luck) / scale)
        order = np.array([[0, 1, 2], [1, 2, 0], [2, 1, 0]])  # the correct class, then the likelier wrong one
        edges = np.take_along_axis(confusion, order, axis=1).cumsum(axis=1)[labels, :2]
        answer = (place[..., None] > edges).sum(axis=2)
        decided.append(order[labels, answer])
    return labels, [f"p{number}" for number in member], decided


def true_scores(confusion: Array) -> dict[str, float]:
    """The scores of a network with this ``confusion`` on infinitely many images."""
    joint = SHARES[:, None] * confusion
    f1 = 2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1))
    names = (*(f"f1:{c}" for c in CLASSES), *(f"recall:{c}" for c in CLASSES))
    each = dict(zip(names, (*f1, *np.diag(confusion)), strict=True))
    return {"accuracy": float(np.trace(joint)), "f1_macro": float(f1.mean()), **each}


def intervals(scores: Scores, name: str) -> Iterator[tuple[str, tuple[float, float]]]:
    """The report's interval of a score, and the alternatives."""
    ours = interval(scores, name)
    yield "report", (ours.low, ours.high)
    estimate, values = scores.estimate[name], scores.replicates[name]
    yield "BCa", bca(estimate, values, scores.left_out[name])
    yield "percentile", _quantiles(values, 0.025)
    # Hesterberg, The American Statistician 69, 2015: percentiles widened as t and n - 1 widen a standard error.
    groups = scores.resamples.groups
    yield "expanded", _quantiles(values, norm.cdf(np.sqrt(groups / (groups - 1)) * t.ppf(0.025, groups - 1)))
    if name in scores.proportion_of:
        yield "Wilson", wilson(estimate, scores.proportion_of[name])


def render(found: dict[tuple[str, str], Array]) -> str:
    """One line for each of ``found``: the share of simulations, its standard error, the mean width."""
    lines = [f"  {'':<34}{'':<12}{'share':>6}   ± s.e.   width"]
    for (what, how), values in found.items():
        share, width = values.mean(axis=0)
        error = np.sqrt(share * (1 - share) / len(values))
        shown = "" if np.isnan(width) else f"{width:8.3f}"
        lines.append(f"  {what:<34}{how:<12}{share:6.3f}   {error:6.3f}{shown}")
    return "\n".join(lines)


def _differences(
    networks: Sequence[Scores], labels: Array, decided: Sequence[Array], resamples: Resamples
) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
    """Networks 0 and 1 are equally good; 2 is worse."""
    for what, other, truth in (
        ("equal macro F1", 1, 0.0),
        ("worse macro F1", 2, true_scores(CONFUSION)["f1_macro"] - true_scores(WORSE)["f1_macro"]),
    ):
        found = compare(networks[0], {"other": networks[other]})["other"]
        yield (f"{what}: difference held", "report"), (found.low <= truth <= found.high, found.high - found.low)
        low, high = _quantiles(networks[0].replicates["f1_macro"] - networks[other].replicates["f1_macro"], 0.025)
        yield (f"{what}: difference held", "percentile"), (low <= truth <= high, high - low)
        yield (f"{what}: p at most .05", "report"), (found.p <= 0.05, np.nan)
        exact = mcnemar(decided[0][0] == labels, decided[other][0] == labels, resamples)
        if exact is not None:
            yield (f"{what}: p at most .05", "McNemar"), (exact.p <= 0.05, np.nan)


def _quantiles(values: Array, tail: float) -> tuple[float, float]:
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


if __name__ == "__main__":
    main()
