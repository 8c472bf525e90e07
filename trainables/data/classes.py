"""Which classes of a data set are kept, under which names and in which order."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, some, unknown
from trainables.data.config import DataConfig
from trainables.data.samples import MISSING, MOST_ITEMS, LeftOut, Samples

NOT_NAMED = "that --classes does not name"
WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?")
"""A whole number, also as a table of floats writes it (3.0)."""
NO_VALUE = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null"})
"""How programs write a missing value, in lower case."""
MOST_NAMES = 30


def keep_classes(samples: Samples, config: DataConfig, rename: bool = True) -> Samples:
    """Keep only the requested classes, under the requested names and in the requested order.

    Single label: rows of other classes, and of classes with fewer images than ``config.min_class_images``, are left out
    and counted. Multi-label: such labels are dropped, and the rows stay. rename: by ``config.class_names``. Raises
    ``UserError`` if a name of ``config.classes`` is not a class of the data, or no row is left.
    """
    if rename and config.class_names:
        classes, labels = renamed_classes(samples.task, samples.classes, samples.labels, config.class_names)
        samples = dataclasses.replace(samples, classes=classes, labels=labels)
    asked = asked_classes(config)
    strange = [name for name in asked if name not in samples.classes]
    if strange:
        kind = "class" if samples.task == "single_label" else "label"
        raise UserError(*(f"--classes {name}: {unknown(kind, name, samples.classes)}" for name in strange))
    if asked:
        samples = _without(samples, [name for name in samples.classes if name not in asked], NOT_NAMED)
    least = config.min_class_images or 0
    rare = {name: count for name, count in samples.counts.items() if count < least}
    samples = _without(samples, list(rare), f"of fewer than {least} images", rare)
    way_out = "; --classes and --min-class-images leave out the others" if asked or rare else ""
    few = ""
    if not samples.classes:
        few = f"--data {config.data}: no label; at least one is needed{way_out}"
        if samples.task == "single_label":
            raise UserError(few)
    elif samples.task == "single_label" and len(samples.classes) == 1:
        few = f"--data {config.data}: one class only ({samples.classes[0]!r}); at least two are needed{way_out}"
    samples = dataclasses.replace(samples, nothing_to_tell=few)
    if samples.task == "multi_label" and not config.ordered_classes:
        return samples
    order = [name for name in asked if name in samples.classes] if asked and config.ordered_classes else None
    return take_classes(samples, order or sorted(samples.classes, key=class_order))


def asked_classes(config: DataConfig) -> tuple[str, ...]:
    """``config.classes`` under their new names."""
    return tuple(dict.fromkeys(config.class_names.get(name, name) for name in config.classes))


def _without(samples: Samples, names: Sequence[str], why: str, counts: Mapping[str, int] | None = None) -> Samples:
    if not names:
        return samples
    shown = some((f"{name} ({counts[name]})" for name in names) if counts else names, MOST_NAMES)
    if samples.task == "multi_label":
        samples = dataclasses.replace(samples, notes=(*samples.notes, f"labels {why} are not used: {shown}"))
        return take_classes(samples, [name for name in samples.classes if name not in names])
    out = np.isin(samples.labels, [samples.classes.index(name) for name in names])
    examples = tuple(samples.paths[row] for row in np.flatnonzero(out)[:MOST_ITEMS])
    left_out = LeftOut(f"classes {why}: {shown}", int(out.sum()), examples)
    kept = take_classes(samples.subset(np.flatnonzero(~out)), [name for name in samples.classes if name not in names])
    return dataclasses.replace(kept, left_out=(*kept.left_out, left_out)) if out.any() else kept


def take_classes(samples: Samples, names: Sequence[str]) -> Samples:
    """Only the classes ``names``, in this order. Single label: no row may have another."""
    places = [samples.classes.index(name) for name in names]
    if samples.task == "multi_label":
        labels = samples.labels[:, places]
    else:
        new = np.zeros(len(samples.classes), dtype=np.int64)
        new[places] = np.arange(len(places))
        labels = new[samples.labels]
    return dataclasses.replace(samples, classes=tuple(names), labels=labels)


def renamed_classes(
    task: str, classes: tuple[str, ...], values: npt.NDArray[Any], class_names: Mapping[str, str]
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """``classes`` and ``values`` under new names; classes with the same new name are merged."""
    names = [class_names.get(name, name) for name in classes]
    new = tuple(dict.fromkeys(names))
    places = [new.index(name) for name in names]
    if task == "single_label":
        return new, np.array(places, dtype=np.int64)[values]
    united = np.full((len(values), len(new)), MISSING, dtype=np.int8)
    for old, place in enumerate(places):
        united[:, place] = np.maximum(united[:, place], values[:, old])  # 1 before 0 before missing
    return new, united


def class_order(name: str) -> tuple[bool, int, str]:
    """Sort key: whole numbers by value, before other names."""
    whole = re.fullmatch(r"(-?\d{1,18})(?:\.0*)?", name, re.ASCII)
    return (whole is None, 0 if whole is None else int(whole[1]), name)
