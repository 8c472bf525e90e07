"""The trials of a run as facts: which is best, per backbone and depth, by status. Each function returns a table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.page import wording
from sweep.records import STATUSES

_TEXT = ("trial_id", "status", "reason", "param_backbone", "param_unfreeze_layers")
_NUMBERS = (
    "number",
    "best_epoch",
    "score",
    "val_accuracy",
    "val_f1_macro",
    "epochs_run",
    "trainable_params",
    "total_params",
    "seconds",
    "images_per_second",
    "param_unfreeze_depth",
)
LAYERS = "chosen layers"
UNFROZEN_ORDER = (*wording.DEPTH_NAMES.values(), LAYERS)
HYPERPARAMETERS_HIDDEN = ("backbone", "unfreeze_depth", "unfreeze_layers")


def trial_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """``Run.trials`` with every column that the report names, in order of number.

    Missing numbers become NaN, missing text "". Adds ``backbone`` and ``unfrozen`` (one of ``UNFROZEN_ORDER``, or
    "unknown").
    """
    frame = trials.copy()
    for name in _TEXT:
        frame[name] = frame[name].fillna("").astype(str) if name in frame else ""
    for name in _NUMBERS:
        values = frame[name] if name in frame else pd.Series(float("nan"), index=frame.index)
        frame[name] = pd.to_numeric(values, errors="coerce").astype("float64")
    if "weights_kept" not in frame:
        frame["weights_kept"] = False
    frame["backbone"] = frame["param_backbone"].replace("", "unknown")
    depths = frame["param_unfreeze_depth"].map(wording.DEPTH_NAMES)
    has_layers = ~frame["param_unfreeze_layers"].isin(["", "none"])
    frame["unfrozen"] = depths.astype(object).where(depths.notna(), has_layers.map({True: LAYERS, False: "unknown"}))
    return frame.sort_values(["number", "trial_id"], kind="stable").reset_index(drop=True)


def ranked(trials: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The trials with a score, the best first; failed ones cannot win.

    Ties go to fewer trainable parameters, then to the lower number.
    """
    worthy = trials[trials["score"].notna() & (trials["status"] != "failed")]
    return worthy.sort_values(
        ["score", "trainable_params", "number"], ascending=[mode == "min", True, True], kind="stable"
    ).reset_index(drop=True)


def status_counts(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by status, every status present, in a fixed order."""
    counts = trials["status"].value_counts()
    return {status: int(counts.get(status, 0)) for status in STATUSES}


def by_cell(trials: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The best trial of each backbone and depth.

    Columns: backbone, unfrozen, trials (tried in this cell, failed ones too), score, val_accuracy, val_f1_macro,
    best_epoch, epochs_run, trainable_params, seconds, number, trial_id, all of the best trial. A cell whose trials have
    no score stands with NaN. Order: backbone's name, then depth.
    """
    keys = ["backbone", "unfrozen"]
    shown = ["score", "val_accuracy", "val_f1_macro", "best_epoch", "epochs_run", "trainable_params", "seconds"]
    tried = trials.groupby(keys, sort=False).size().rename("trials").reset_index()
    best = ranked(trials, mode).drop_duplicates(keys)[[*keys, *shown, "number", "trial_id"]]
    return _in_order(tried.merge(best, on=keys, how="left"))


def cell_grid(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """``column`` of ``by_cell`` as a grid: backbones by depth; NaN where nothing was tried or scored."""
    present = [name for name in (*UNFROZEN_ORDER, "unknown") if name in set(cells["unfrozen"])]
    return cells.pivot(index="backbone", columns="unfrozen", values=column).reindex(columns=present)


def stopped_by_depth(trials: pd.DataFrame, mode: str) -> pd.DataFrame:
    """How many trials of each depth the scheduler stopped early.

    Columns: unfrozen, trials, one per status, pruned_share (of finished and stopped; NaN if none), median_epochs,
    score (best).
    """
    rows = []
    for name in (*UNFROZEN_ORDER, "unknown"):
        of_depth = trials[trials["unfrozen"] == name]
        if of_depth.empty:
            continue
        counts = status_counts(of_depth)
        decided = counts["completed"] + counts["pruned"]
        winners = ranked(of_depth, mode)
        rows.append(
            {
                "unfrozen": name,
                "trials": len(of_depth),
                **counts,
                "pruned_share": counts["pruned"] / decided if decided else float("nan"),
                "median_epochs": float(of_depth["epochs_run"].median()),
                "score": float("nan") if winners.empty else float(winners["score"].iloc[0]),
            }
        )
    columns = ["unfrozen", "trials", *STATUSES, "pruned_share", "median_epochs", "score"]
    return pd.DataFrame(rows, columns=columns)


def varied(trials: pd.DataFrame) -> tuple[list[str], dict[str, object]]:
    """The hyperparameters (without ``param_``) that differ between trials, and those that are the same in all."""
    names = [str(name) for name in trials if str(name).startswith("param_")]
    differing, constant = [], {}
    for name in names:
        plain = name.removeprefix("param_")
        values = trials[name].astype(object).where(trials[name].notna(), None)
        if len({str(value) for value in values}) > 1:
            differing.append(plain)
        elif len(values):
            constant[plain] = values.iloc[0]
    return differing, constant


def all_trials(trials: pd.DataFrame, differing: Sequence[str]) -> pd.DataFrame:
    """Every trial: its outcome, what it cost, the hyperparameters that differ, and why it ended."""
    outcome = [
        "number",
        "status",
        "score",
        "backbone",
        "unfrozen",
        "val_accuracy",
        "val_f1_macro",
        "best_epoch",
    ]
    cost = ["epochs_run", "trainable_params", "seconds"]
    extra = [f"param_{name}" for name in differing if name not in HYPERPARAMETERS_HIDDEN]
    if LAYERS in set(trials["unfrozen"]):
        extra = ["param_unfreeze_layers", *extra]
    return trials[[*outcome, *cost, *extra, "reason", "trial_id"]]


def failures(trials: pd.DataFrame) -> pd.DataFrame:
    """Failed trials grouped by reason: reason, trials, numbers (text). The most frequent first."""
    failed = trials[trials["status"] == "failed"].assign(
        reason=lambda frame: frame["reason"].replace("", "no reason recorded")
    )
    rows = [
        {"reason": reason, "trials": len(group), "numbers": _number_list([int(n) for n in group["number"]])}
        for reason, group in failed.groupby("reason", sort=True)
    ]
    frame = pd.DataFrame(rows, columns=["reason", "trials", "numbers"])
    return frame.sort_values(["trials", "reason"], ascending=[False, True], kind="stable").reset_index(drop=True)


def _in_order(cells: pd.DataFrame) -> pd.DataFrame:
    order = {name: place for place, name in enumerate((*UNFROZEN_ORDER, "unknown"))}
    return (
        cells.assign(_place=cells["unfrozen"].map(order))
        .sort_values(["backbone", "_place"], kind="stable")
        .drop(columns="_place")
        .reset_index(drop=True)
    )


def _number_list(numbers: list[int], limit: int = 12) -> str:
    shown = ", ".join(str(number) for number in numbers[:limit])
    return shown if len(numbers) <= limit else f"{shown} and {len(numbers) - limit} more"
