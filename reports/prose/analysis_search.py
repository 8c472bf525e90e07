"""Rules on the search: failures, early stopping, budgets, and hints that only repeats could confirm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from optuna.distributions import FloatDistribution
from scipy.stats import fisher_exact

from reports.page import formats, wording
from reports.prose.analysis_facts import Facts, Finding
from reports.scores.statistics import wilson
from reports.trials import tables
from reports.trials.optuna_study import compared

ENOUGH = 4  # trials that ran to their end, below which a share of them says nothing
NEAR_EDGE = 0.02


def failures(facts: Facts) -> list[Finding]:
    """How many trials failed, of what, and whether one backbone is behind it."""
    trials = facts.evidence.trials
    failed = trials["status"] == "failed"
    if not failed.any():
        return []
    reasons = tables.failures(trials)
    most = reasons.iloc[0]
    text = f"{int(failed.sum())} of {len(trials)} trials failed"
    text += f", {int(most['trials'])} of them with “{most['reason']}”" if len(reasons) > 1 else f": “{most['reason']}”"
    worst = _concentrated(trials["backbone"], failed)
    if worst is None:
        return [Finding("limit", f"{text}. What failed was not compared.")]
    name, inside, p = worst
    text += (
        f". {inside} of them are of {name}, more than chance would have it (Fisher's exact test, p {wording.p_value(p)}"
    )
    return [Finding("limit", f"{text}, corrected): its results rest on fewer trials.")]


def early_stopping(facts: Facts) -> list[Finding]:
    """Whether deep trials were stopped more often than those that train the head alone."""
    facts_by_depth = tables.stopped_by_depth(facts.evidence.trials, facts.evidence.mode).set_index("unfrozen")
    if not facts_by_depth["pruned"].sum():
        return []
    shallow = wording.DEPTH_NAMES[0]
    deeper = facts_by_depth.drop(index=shallow, errors="ignore")
    if shallow not in facts_by_depth.index or deeper.empty:
        return []
    first = facts_by_depth.loc[shallow].to_dict()
    table = [
        [int(first["pruned"]), int(first["completed"])],
        [int(deeper["pruned"].sum()), int(deeper["completed"].sum())],
    ]
    if not sum(table[0]) or not sum(table[1]):
        return []
    p = float(fisher_exact(table).pvalue)
    text = f"Stopped early: {table[0][0]} of {sum(table[0])} trials that train the head only, "
    text += f"{table[1][0]} of {sum(table[1])} that train more (Fisher's exact test, p {wording.p_value(p)})"
    if p > 0.05:
        return [Finding("open", f"{text}: no difference shown.")]
    if table[1][0] / sum(table[1]) > table[0][0] / sum(table[0]):
        return [
            Finding("limit", f"{text}: deep configurations had less of a chance, and may be better than they look.")
        ]
    return [Finding("limit", f"{text}: shallow configurations had less of a chance, and may be better than they look.")]


def budget(facts: Facts) -> list[Finding]:
    """Whether trials that used all their epochs were still rising at the last one."""
    epochs = facts.evidence.run.sweep.get("epochs")
    trials = facts.evidence.trials
    if not isinstance(epochs, int) or epochs < 2:
        return []
    whole = trials[(trials["status"] == "completed") & (trials["epochs_run"] == epochs) & trials["best_epoch"].notna()]
    if len(whole) < ENOUGH:
        return []
    last = int((whole["best_epoch"] == epochs).sum())
    low, high = wilson(last / len(whole), len(whole))
    text = f"{last} of {len(whole)} trials that ran all {epochs} epochs were best in the last one "
    text += f"({formats.percent(low)} to {formats.percent(high)})"
    if low > 1 / epochs:
        return [
            Finding("shown", f"{text}, more than the {formats.percent(1 / epochs)} of chance: more epochs may help.")
        ]
    return []


def late_find(facts: Facts) -> list[Finding]:
    """Whether the best configuration came so late that the search may not have been over."""
    evidence = facts.evidence
    count = len(evidence.trials)
    if evidence.best is None or count < 20 or str(evidence.run.sweep.get("space") or "").startswith("studies."):
        return []
    number = int(evidence.best["number"])
    if number < 0.8 * count:
        return []
    return [Finding("open", f"The best trial was number {number} of {count}: a longer search may find a better one.")]


def edge(facts: Facts) -> list[Finding]:
    """Whether the best trial's learning rate lies at a bound of its range."""
    best = facts.evidence.best
    found = compared(facts.evidence)
    places = [place for place, number in enumerate(found.numbers) if best is not None and number == best["number"]]
    if not places:
        return []
    trial = found.trials[places[0]]
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        if name.partition(".")[0] != "lr" or name in found.derived or not isinstance(distribution, FloatDistribution):
            continue
        scale = math.log if distribution.log else float
        low, high = scale(distribution.low), scale(distribution.high)
        at = (scale(value) - low) / (high - low) if high > low else 0.5
        if min(at, 1 - at) <= NEAR_EDGE:
            side = "upper" if at > 0.5 else "lower"
            text = f"The learning rate of the best trial, {formats.general(value)}, lies at the {side} bound of its "
            return [Finding("open", f"{text}range: a wider one may hold a better rate.")]
    return []


def depth_and_backbone(facts: Facts) -> list[Finding]:
    """What the search alone says of backbone and depth; silent where --compare repeated them."""
    standing, evidence = facts.standing, facts.evidence
    if standing is not None and {"backbone", "unfreeze_depth"} & set(standing.cell_names):
        return []
    hints = []
    for column, words in (("backbone", "backbones"), ("unfrozen", "depths")):
        best = evidence.ranked.drop_duplicates(column)
        if len(best) > 1:
            first, second = best.iloc[0], best.iloc[1]
            gap = formats.score(abs(first["score"] - second["score"]))
            hints.append(f"of the {words}, {first[column]} scored best, {gap} before {second[column]}")
    if not hints:
        return []
    text = f"In the search, {wording.listing(hints)}. These are hints: one run each, other hyperparameters beside; "
    return [Finding("open", f"{text}repeats (--compare) would test them.")]


def compared_factors(facts: Facts) -> list[Finding]:
    """What repeats of --compare show of each factor."""
    standing = facts.standing
    if standing is None:
        return []
    found = []
    metric = facts.metric_words
    for factor, rows in facts.effects.groupby("factor", sort=False):
        name = str(factor).replace("_", " ")
        shown = [_effect(row) for row in rows.to_dict("records") if row["verdict"] in (1, -1)]
        if shown:
            text = f"By paired repeats, {metric} differs with {name}: {wording.listing(shown)}. The best configuration "
            text += "of each was compared, so other hyperparameters differ, too."
            found.append(Finding("shown" if standing.split == "test" else "open", text))
        unclear = int((rows["verdict"] == 0).sum())
        if unclear:
            of = f"{unclear} of {len(rows)}" if len(rows) > 1 else "the one"
            several = "s" * (len(rows) > 1)
            text = f"Between values of {name}, {of} comparison{several} of paired repeats showed no difference"
            found.append(Finding("open", f"{text} in {metric}."))
    return found


RULES = (compared_factors, depth_and_backbone, early_stopping, budget, late_find, edge, failures)


def _effect(row: Mapping[Any, Any]) -> str:
    better, worse = (row["first"], row["second"]) if row["verdict"] == 1 else (row["second"], row["first"])
    within = f" ({row['within']})" if row["within"] else ""
    size, p = formats.score(abs(row["difference"])), wording.p_value(row["p_holm"])
    return f"{better} is better than {worse}{within} by {size}, p {p}"


def _concentrated(names: pd.Series[str], failed: pd.Series[bool]) -> tuple[str, int, float] | None:
    """The backbone with more failures than chance would have it: name, failures, p times the number of backbones."""
    kinds = sorted(set(names))
    worst: tuple[str, int, float] | None = None
    for name in kinds if len(kinds) > 1 else []:
        own = names == name
        table = [
            [int((own & failed).sum()), int((own & ~failed).sum())],
            [int((~own & failed).sum()), int((~own & ~failed).sum())],
        ]
        p = min(1.0, len(kinds) * float(fisher_exact(table, alternative="greater").pvalue))
        if p <= 0.05 and (worst is None or p < worst[2]):
            worst = name, table[0][0], p
    return worst
