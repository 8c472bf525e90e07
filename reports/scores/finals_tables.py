"""The finalists as tables: what each scored, repeat by repeat, and the winner against the others."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports.page import formats, wording
from reports.scores import interval_cells
from reports.scores.finals import ConfigurationResult, Leaderboard
from reports.scores.paired import Comparison
from reports.trials import tables
from search_spaces.errors import UserError
from search_spaces.params import TrialParams

VERDICTS = {1: "the winner is better", -1: "the winner is worse", 0: "no difference shown", None: "not tested"}


def finalist_frame(standing: Leaderboard) -> pd.DataFrame:
    """One row a finalist, in order of the search.

    Columns: place, number, role ("winner" or ""), network, configuration, trainable_params, search_score, mean,
    standard_error, repeated (both as text), gap, repeats (that ended), then ``interval_cells.cells`` of ``score``,
    each_repeat (text), ``tuned`` likewise at tuned thresholds, remark.
    """
    rows = []
    for one in standing.finalists:
        row = {
            "place": one.finalist.rank,
            "number": one.finalist.number,
            "role": "winner" if one is standing.winner else "",
            "network": network(one),
            "configuration": in_short(one),
            "trainable_params": one.finalist.trainable_params,
            **_validated(standing, one),
            **score_cells(one, "score", standing.metric),
            "each_repeat": each_repeat(standing, one),
        }
        tuned = {"tuned": "f1_macro"}
        row |= interval_cells.cells(one.tuned, tuned) if one.tuned is not None else _absent("tuned")
        rows.append(row | {"remark": "; ".join(one.remarks)})
    return pd.DataFrame(rows)


def repeat_frame(standing: Leaderboard) -> pd.DataFrame:
    """One row a repeat of any contender: number, repeat, status, reason, best_epoch, validation, score, accuracy."""
    rows = []
    for one in standing.contenders:
        for repeat in one.finalist.repeats:
            row = {
                "number": one.finalist.number,
                "repeat": repeat.name,
                "status": repeat.status,
                "reason": repeat.reason,
                "best_epoch": repeat.best_epoch,
                "validation": one.validation.get(repeat.name, math.nan),
                "score": _of_run(one, repeat.name, standing.metric),
                "accuracy": _of_run(one, repeat.name, "accuracy"),
            }
            rows.append(row)
    columns = ["number", "repeat", "status", "reason", "best_epoch", "validation", "score", "accuracy"]
    return pd.DataFrame(rows, columns=columns)


def paired_frame(standing: Leaderboard) -> pd.DataFrame:
    """The winner against each runner-up: number, configuration, then ``lead_cells``, mcnemar (text), mcnemar_p."""
    rows = []
    for one in standing.runners_up:
        _, test = standing.tests.get(one.trial_id, ("", None))
        shown = formats.ABSENT
        if test is not None:
            shown = f"{test.first_only} : {test.second_only}, p {wording.p_value(test.p)}"
        rows.append(
            {
                "number": one.finalist.number,
                "configuration": in_short(one),
                **lead_cells(standing, standing.leads.get(one.trial_id)),
                "mcnemar": shown,
                "mcnemar_p": math.nan if test is None else test.p,
            }
        )
    return pd.DataFrame(rows)


def cell_frame(standing: Leaderboard) -> pd.DataFrame:
    """One row a cell of --compare: its values, number, configuration, the scores of its best trial's repeats, and the
    winner's lead over it."""
    rows = []
    for values, one in standing.cells.items():
        row: dict[str, Any] = {
            name: wording.choice(name, value) for name, value in zip(standing.cell_names, values, strict=True)
        }
        row |= {"number": one.finalist.number, "configuration": in_short(one)}
        row |= _validated(standing, one)
        row |= score_cells(one, "score", standing.metric)
        row |= lead_cells(standing, standing.cell_leads.get(one.trial_id))
        if one is standing.winner:
            row["verdict"] = "the winner itself"
        rows.append(row | {"remark": "; ".join(one.remarks)})
    return pd.DataFrame(rows)


def lead_cells(standing: Leaderboard, lead: Comparison | None) -> dict[str, Any]:
    """difference, low, high, p, p_holm, each as a number; lead and p_shown as text; verdict in words."""
    row: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "p", "p_holm"), math.nan)
    if lead is not None:
        row = {name: getattr(lead, name) for name in row}
    row["lead"] = formats.ABSENT if lead is None else wording.difference(lead.difference, lead.low, lead.high)
    if lead is not None and lead.warning and not math.isnan(lead.low):
        row["lead"] += f" {interval_cells.MARK}"
    row["p_shown"], row["p_holm_shown"] = wording.p_value(row["p"]), wording.p_value(row["p_holm"])
    return row | {"verdict": VERDICTS[standing.verdict(lead)]}


def score_cells(one: ConfigurationResult | None, key: str, name: str) -> dict[str, Any]:
    """``interval_cells.cells`` of one score; dashes where no predictions can be read."""
    return _absent(key) if one is None or one.scores is None else interval_cells.cells(one.scores, {key: name})


def each_repeat(standing: Leaderboard, one: ConfigurationResult) -> str:
    """The score of each repeat on the split that judges: "0.841, 0.853, 0.829"."""
    if one.scores is None or standing.metric not in one.scores.by_run:
        return formats.ABSENT
    return ", ".join(formats.show("score", float(value)) for value in one.scores.by_run[standing.metric])


def in_short(one: ConfigurationResult) -> str:
    """The configuration in a few words."""
    params = params_of(one)
    return wording.in_short(params) if params is not None else "hyperparameters damaged"


def params_of(one: ConfigurationResult) -> TrialParams | None:
    """The hyperparameters; None where finalists.json is damaged or of another version."""
    try:
        return TrialParams.from_flat(one.finalist.params)
    except (UserError, TypeError, ValueError):
        return None


def network(one: ConfigurationResult) -> str:
    """Backbone and depth alone: "resnet18, last 2 blocks"."""
    params = one.finalist.params
    layers = params.get("unfreeze_layers") not in (None, "", "none")
    depth = tables.LAYERS if layers else wording.choice("unfreeze_depth", params.get("unfreeze_depth"))
    return f"{params.get('backbone', 'unknown')}, {depth}"


def _validated(standing: Leaderboard, one: ConfigurationResult) -> dict[str, Any]:
    error = one.standard_error
    shown = formats.show("score", one.mean) + (f" ± {formats.score(error)}" if not math.isnan(error) else "")
    return {
        "search_score": one.finalist.search_score,
        "mean": one.mean,
        "standard_error": error,
        "repeated": shown,
        "gap": standing.gap(one),
        "gap_shown": wording.signed(standing.gap(one)),
        "repeats": len(one.validation),
        "ended": f"{len(one.validation)} of {standing.finals.asked}",
    }


def _of_run(one: ConfigurationResult, name: str, metric: str) -> float:
    if one.runs is None or one.scores is None or name not in one.runs.names or metric not in one.scores.by_run:
        return math.nan
    return float(one.scores.by_run[metric][one.runs.names.index(name)])


def _absent(key: str) -> dict[str, Any]:
    return {key: math.nan, f"{key}_low": math.nan, f"{key}_high": math.nan, f"{key}_shown": formats.ABSENT}
