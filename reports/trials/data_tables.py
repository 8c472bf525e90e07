"""The data set of a run as facts, read from ``dataset.json`` alone: the images themselves may be gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

SPLITS = ("train", "val", "test")
SEVERITIES = ("error", "warning", "info")


def class_counts(dataset: Mapping[str, Any]) -> pd.DataFrame:
    """Images of each class in each split: class, one column a split, total; the last row holds all images.

    In a multi-label set an image counts for each of its labels, so the columns need not add up to the last row.
    """
    counts: dict[str, dict[str, int]] = dataset.get("counts") or {}
    images: dict[str, int] = dataset.get("images") or {}
    splits = [name for name in SPLITS if name in counts] + sorted(set(counts) - set(SPLITS))
    names = list(dataset.get("classes") or [])
    names += sorted({name for split in splits for name in counts[split]} - set(names))
    rows: list[dict[str, Any]] = [
        {"class": name, **{split: int(counts[split].get(name, 0)) for split in splits}} for name in names
    ]
    whole = {split: int(images.get(split, sum(counts[split].values()))) for split in splits}
    rows.append({"class": "all images", **whole})
    frame = pd.DataFrame(rows, columns=["class", *splits])
    frame["total"] = frame[splits].sum(axis=1).astype(int)
    return frame


def majority_baseline(dataset: Mapping[str, Any], split: str = "val") -> dict[str, float] | None:
    """What always answering the training split's most frequent class scores on ``split``; single label only.

    accuracy: share p of that class; f1_macro: 2p / (1 + p) / C, since every other class has F1 = 0.
    """
    counts: dict[str, dict[str, int]] = dataset.get("counts") or {}
    train, there = counts.get("train") or {}, counts.get(split) or {}
    if dataset.get("task") == "multi_label" or not sum(train.values()) or not sum(there.values()):
        return None
    most = min(train, key=lambda name: (-train[name], name))
    share = there.get(most, 0) / sum(there.values())
    return {"accuracy": share, "f1_macro": 2 * share / (1 + share) / max(len(train), 1)}


def hygiene(dataset: Mapping[str, Any]) -> pd.DataFrame:
    """Findings, the gravest first: severity, check, count, message, examples (text, at most three)."""
    found = [item for item in dataset.get("checks") or [] if isinstance(item, dict)]
    rank = {name: place for place, name in enumerate(SEVERITIES)}
    found.sort(key=lambda item: (rank.get(str(item.get("severity")), len(rank)), str(item.get("check"))))
    rows = [
        {
            "severity": str(item.get("severity", "info")),
            "check": str(item.get("check", "")).replace("_", " "),
            "count": item.get("count"),
            "message": str(item.get("message", "")),
            "examples": "; ".join(_words(group) for group in (item.get("items") or [])[:3]),
        }
        for item in found
    ]
    return pd.DataFrame(rows, columns=["severity", "check", "count", "message", "examples"])


def dropped(dataset: Mapping[str, Any]) -> pd.DataFrame:
    """Files that were left out: path, reason."""
    rows = [
        {"path": str(item.get("path", "")), "reason": str(item.get("reason", ""))}
        for item in dataset.get("dropped") or []
        if isinstance(item, dict)
    ]
    return pd.DataFrame(rows, columns=["path", "reason"])


def subgroups(dataset: Mapping[str, Any]) -> pd.DataFrame:
    """Images of each value of each subgroup column: column, value, images."""
    rows = [
        {"column": column, "value": str(value), "images": count}
        for column, values in sorted((dataset.get("subgroups") or {}).items())
        for value, count in sorted(values.items(), key=lambda pair: (-pair[1], str(pair[0])))
    ]
    return pd.DataFrame(rows, columns=["column", "value", "images"])


def source_by_class(dataset: Mapping[str, Any]) -> pd.DataFrame:
    """Images of each class from each source: the source, then one column a class; empty without a source column."""
    crossed: dict[str, dict[str, int]] = dataset.get("source_by_class") or {}
    sources = sorted({source for counts in crossed.values() for source in counts})
    first = "source" if "source" not in crossed else "source of the images"
    rows = [
        {first: source, **{name: int(counts.get(source, 0)) for name, counts in crossed.items()}} for source in sources
    ]
    return pd.DataFrame(rows, columns=[first, *crossed])


def weights(provenance: Mapping[str, Any]) -> pd.DataFrame:
    """The starting weights of each backbone: backbone, origin, file, sha256, batchnorm, note."""
    rows = [
        {
            "backbone": backbone,
            "origin": str(found.get("origin") or ""),
            "file": str(found.get("path") or found.get("url") or "").replace("\\", "/").rsplit("/", 1)[-1],
            "sha256": str(found.get("sha256") or found.get("sha256_prefix") or "")[:16],
            "batchnorm": "FOLDED" if found.get("folded_batchnorm") else "normal",
            "note": str(found.get("note") or ""),
        }
        for backbone, found in sorted((provenance.get("weights") or {}).items())
        if isinstance(found, dict)
    ]
    return pd.DataFrame(rows, columns=["backbone", "origin", "file", "sha256", "batchnorm", "note"])


def _words(group: Any) -> str:
    return " = ".join(str(path) for path in group) if isinstance(group, list | tuple) else str(group)
