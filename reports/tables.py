"""Trials, data and starting weights of a run as frames, which chapters lay out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from reports import formats
from search_spaces.errors import some
from sweep.records import DatasetRecord, ProvenanceRecord
from sweep.trial_records import STATUSES, rank

LAYERS = "chosen layers"
UNFROZEN_ORDER = (*formats.DEPTH_NAMES.values(), LAYERS, "unknown")
SPLITS = ("train", "val", "test")
SEVERITIES = ("error", "warning", "info")
ALL_IMAGES = "all images"
MOST_EXAMPLES = 3
_TEXT = ("trial_id", "status", "reason", "param_backbone", "param_unfreeze_layers")
_NUMBERS = (
    *("number", "best_epoch", "score", "val_accuracy", "val_f1_macro", "epochs_run", "trainable_params"),
    *("total_params", "seconds", "images_per_second", "param_unfreeze_depth"),
)


def trial_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """``Run.trials`` with every column that the report names, in order of number.

    Missing numbers become NaN, missing text "". Adds ``backbone`` and ``unfrozen`` (one of ``UNFROZEN_ORDER``).
    """
    frame = trials.copy()
    for name in _TEXT:
        frame[name] = frame[name].fillna("").astype(str) if name in frame else ""
    for name in _NUMBERS:
        values = frame[name] if name in frame else pd.Series(float("nan"), index=frame.index)
        frame[name] = pd.to_numeric(values, errors="coerce").astype("float64")
    frame["backbone"] = frame["param_backbone"].replace("", "unknown")
    depths = frame["param_unfreeze_depth"].map(formats.DEPTH_NAMES)
    has_layers = ~frame["param_unfreeze_layers"].isin(["", "none"])
    frame["unfrozen"] = depths.astype(object).where(depths.notna(), has_layers.map({True: LAYERS, False: "unknown"}))
    return frame.sort_values(["number", "trial_id"], kind="stable").reset_index(drop=True)


def ranked(trials: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The trials that may win, in the order of ``sweep.trial_records.rank``."""
    rows: list[Any] = list(trials.itertuples())
    return trials.loc[[row.Index for row in rank(rows, mode)]].reset_index(drop=True)


def status_counts(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by status, every status present, in a fixed order."""
    return {status: int((trials["status"] == status).sum()) for status in STATUSES}


def by_cell(trials: pd.DataFrame, ranked: pd.DataFrame) -> pd.DataFrame:
    """The best trial of each backbone and depth. ranked: the trials that may win, the best first.

    Columns: backbone, unfrozen, trials (tried in this cell, failed ones too), score, val_accuracy, val_f1_macro,
    best_epoch, epochs_run, trainable_params, seconds, number, trial_id, all of the best trial. NaN in a cell whose
    trials have no score. Order: backbone's name, then depth.
    """
    keys = ["backbone", "unfrozen"]
    shown = ["score", "val_accuracy", "val_f1_macro", "best_epoch", "epochs_run", "trainable_params", "seconds"]
    tried = trials.groupby(keys, sort=False).size().rename("trials").reset_index()
    cells = tried.merge(ranked.drop_duplicates(keys)[[*keys, *shown, "number", "trial_id"]], on=keys, how="left")
    place = cells["unfrozen"].map(UNFROZEN_ORDER.index)
    return cells.assign(_place=place).sort_values(["backbone", "_place"]).drop(columns="_place").reset_index(drop=True)


def cell_grid(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """``column`` of ``by_cell`` as a grid: backbones by depth; NaN where nothing was tried or scored."""
    present = [name for name in UNFROZEN_ORDER if name in set(cells["unfrozen"])]
    return cells.pivot(index="backbone", columns="unfrozen", values=column).reindex(columns=present)


def stopped_by_depth(trials: pd.DataFrame, ranked: pd.DataFrame) -> pd.DataFrame:
    """How many trials of each depth were pruned. ranked: the trials that may win, the best first.

    Columns: unfrozen, trials, one per status, pruned_share (of finished and pruned; NaN if none), median_epochs,
    score (best).
    """
    depths = trials.groupby("unfrozen")
    counts = {status: (trials["status"] == status).groupby(trials["unfrozen"]).sum() for status in STATUSES}
    facts = pd.DataFrame(counts)
    facts.insert(0, "trials", depths.size())
    facts["pruned_share"] = facts["pruned"] / (facts["completed"] + facts["pruned"])
    facts["median_epochs"] = depths["epochs_run"].median()
    facts["score"] = ranked.drop_duplicates("unfrozen").set_index("unfrozen")["score"]
    return facts.reindex([name for name in UNFROZEN_ORDER if name in facts.index]).reset_index(names="unfrozen")


def varied(trials: pd.DataFrame) -> tuple[list[str], dict[str, object]]:
    """The hyperparameters (without ``param_``) that differ between trials, and those that are the same in all."""
    differing, constant = [], {}
    for name in (str(name) for name in trials if str(name).startswith("param_")):
        values = trials[name].astype(object).where(trials[name].notna(), None)
        if len({str(value) for value in values}) > 1:
            differing.append(name.removeprefix("param_"))
        elif len(values):
            constant[name.removeprefix("param_")] = values.iloc[0]
    return differing, constant


def all_trials(trials: pd.DataFrame, differing: Sequence[str]) -> pd.DataFrame:
    """Every trial: its outcome, what it cost, the hyperparameters that differ, and why it ended."""
    outcome = ["number", "status", "score", "backbone", "unfrozen", "val_accuracy", "val_f1_macro", "best_epoch"]
    layers = ["param_unfreeze_layers"] if LAYERS in set(trials["unfrozen"]) else []
    hidden = ("backbone", "unfreeze_depth", "unfreeze_layers")
    params = [f"param_{name}" for name in differing if name not in hidden]
    return trials[[*outcome, "epochs_run", "trainable_params", "seconds", *layers, *params, "reason", "trial_id"]]


def failures(trials: pd.DataFrame) -> pd.DataFrame:
    """Failed trials grouped by reason: reason, trials, numbers (text). The most frequent first."""
    failed = trials[trials["status"] == "failed"].replace({"reason": {"": "no reason recorded"}})
    numbers = failed["number"].map("{:.0f}".format).groupby(failed["reason"])
    frame = pd.DataFrame({"trials": numbers.size(), "numbers": numbers.agg(lambda of: some(of, 12))}).reset_index()
    return frame.sort_values(["trials", "reason"], ascending=[False, True], kind="stable").reset_index(drop=True)


def class_counts(dataset: DatasetRecord) -> pd.DataFrame:
    """Images of each class in each split: class, one column a split, total; the last row holds all images.

    In a multi-label set an image counts for each of its labels, so the columns need not add up to the last row. Where
    labels are missing, a column "<split>, missing" for each split counts them; its last row is their sum.
    """
    counts = dataset.counts
    splits = [name for name in SPLITS if name in counts] + sorted(set(counts) - set(SPLITS))
    names = [*dataset.classes, *sorted({name for split in splits for name in counts[split]} - set(dataset.classes))]
    rows: list[dict[str, Any]] = [
        {"class": name, **{split: counts[split].get(name, 0) for split in splits}} for name in names
    ]
    rows.append({"class": ALL_IMAGES, **{s: dataset.images.get(s, sum(counts[s].values())) for s in splits}})
    frame = pd.DataFrame(rows, columns=["class", *splits])
    frame = frame.assign(total=frame[splits].sum(axis=1).astype(int))
    for split in splits if missing_labels(dataset) else ():
        missing = [dataset.missing.get(split, {}).get(name, 0) for name in names]
        frame[f"{split}, missing"] = [*missing, sum(missing)]
    return frame


def missing_labels(dataset: DatasetRecord) -> int:
    """The number of labels of images that are not known."""
    return sum(sum(of_split.values()) for of_split in dataset.missing.values())


def majority_baseline(dataset: DatasetRecord, split: str) -> dict[str, float] | None:
    """The scores on ``split`` of always predicting the training split's most frequent class; single-label only.

    accuracy: share p of that class; f1_macro: 2p / (1 + p) / C, since every other class has F1 = 0.
    """
    train, there = dataset.counts.get("train", {}), dataset.counts.get(split, {})
    if dataset.task == "multi_label" or not sum(train.values()) or not sum(there.values()):
        return None
    share = there.get(min(train, key=lambda name: (-train[name], name)), 0) / sum(there.values())
    return {"accuracy": share, "f1_macro": 2 * share / (1 + share) / len(train)}


def checks(dataset: DatasetRecord) -> pd.DataFrame:
    """Findings about the images, most severe first: severity, check, count, message, examples (text, at most three)."""
    rank = {name: place for place, name in enumerate(SEVERITIES)}
    rows = [
        (
            *(one.severity or "info", one.check.replace("_", " "), one.count, one.message),
            "; ".join(" = ".join(files) for files in one.items[:MOST_EXAMPLES]),
        )
        for one in sorted(dataset.checks, key=lambda one: (rank.get(one.severity, len(rank)), one.check))
    ]
    return pd.DataFrame(rows, columns=["severity", "check", "count", "message", "examples"])


def left_out(dataset: DatasetRecord) -> pd.DataFrame:
    """Data that is not used: why, count (images or rows), examples (text, at most three). The only such list.

    First what a rule or an option excluded, then unreadable files, by reason.
    """
    rows = [(one.why, one.count, one.examples) for one in dataset.left_out or ()]
    by_reason: dict[str, list[str]] = {}
    for file in dataset.dropped:
        by_reason.setdefault(file.reason, []).append(file.path)
    rows += [(f"unreadable: {why}", len(paths), tuple(paths)) for why, paths in by_reason.items()]
    shown = [(why, count, "; ".join(examples[:MOST_EXAMPLES])) for why, count, examples in rows]
    return pd.DataFrame(shown, columns=["why", "count", "examples"])


def left_out_in_words(left_out: pd.DataFrame) -> str:
    """ "No images were excluded", "1,302 images or rows were excluded"."""
    count = left_out["count"].sum()
    if left_out.empty:
        return "No images were excluded"
    return f"{count:,} images or rows were excluded" if count != 1 else "1 image or row was excluded"


def image_properties(images: pd.DataFrame, rows: pd.DataFrame, dataset: DatasetRecord) -> pd.DataFrame:
    """Properties of the image files of each class, then of all: they may give a class away without its finding.

    images: ``Run.images``; rows: ``Run.rows``. Columns: class, images; width, height, jpeg_quality (text: the median,
    lowest to highest; "" where not known); mode, bits (text: each value and how many images); mean, sd (of the gray
    values 0 to 255, averaged over images). Empty without images.
    """
    known = images.merge(rows[["path", "label"]], on="path") if len(images) and "label" in rows else images.head(0)
    # A class may have "|" in its name.
    labels = [{label} if label in dataset.classes else set(label.split("|")) for label in known.get("label", ())]
    found = []
    for name in (*dataset.classes, ALL_IMAGES) if len(known) else ():
        part = known if name == ALL_IMAGES else known[[name in of_image for of_image in labels]]
        row = {"class": name, "images": len(part), "mean": part["mean"].mean(), "sd": part["sd"].mean()}
        row |= {key: _span(part[key].dropna()) for key in ("width", "height", "jpeg_quality")}
        found.append(row | {key: _counted(part[key]) for key in ("mode", "bits")})
    columns = ["class", "images", "width", "height", "mode", "bits", "jpeg_quality", "mean", "sd"]
    return pd.DataFrame(found, columns=columns)


def _span(values: pd.Series[float]) -> str:
    """ "512 (480 to 1,024)", "512" where all are equal."""
    if values.empty:
        return ""
    low, middle, high = (f"{value:,.0f}" for value in (values.min(), values.median(), values.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def _counted(values: pd.Series[Any]) -> str:
    """ "L 120, RGB 3"; "L" where all are equal."""
    counts = values.dropna().map(lambda value: value if isinstance(value, str) else f"{value:g}").value_counts()
    most = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return str(most[0][0]) if len(most) == 1 else ", ".join(f"{value} {count:,}" for value, count in most)


def subgroups(dataset: DatasetRecord) -> pd.DataFrame:
    """Images of each value of each subgroup column: column, value, images."""
    rows = [
        (column, value, count)
        for column, values in sorted(dataset.subgroups.items())
        for value, count in sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return pd.DataFrame(rows, columns=["column", "value", "images"])


def source_by_class(dataset: DatasetRecord) -> pd.DataFrame:
    """Images of each class from each source: the source, then one column a class; empty without a source column."""
    crossed = dataset.source_by_class or {}
    sources = sorted({source for counts in crossed.values() for source in counts})
    first = "source" if "source" not in crossed else "source of the images"
    rows = [{first: source, **{name: counts.get(source, 0) for name, counts in crossed.items()}} for source in sources]
    return pd.DataFrame(rows, columns=[first, *crossed])


def weights(provenance: ProvenanceRecord) -> pd.DataFrame:
    """The starting weights of each backbone: backbone, origin, file, sha256, batchnorm, note."""
    rows = [
        (
            backbone,
            found.origin or "",
            (found.path or found.url or "").replace("\\", "/").rpartition("/")[-1],
            (found.sha256 or "")[:16],
            "FOLDED" if found.folded_batchnorm else "normal",
            found.note or "",
        )
        for backbone, found in sorted(provenance.weights.items())
    ]
    return pd.DataFrame(rows, columns=["backbone", "origin", "file", "sha256", "batchnorm", "note"])
