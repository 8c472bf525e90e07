"""What the five course studies reported, as facts: their numbers, what follows from their matrices, and their flaws."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from reports.scores.statistics import wilson

CLASSES = {"two_findings": ("infected", "normal"), "three_findings": ("covid", "normal", "pneumonia")}
WATCHED = {"two_findings": "infected", "three_findings": "covid"}  # the class that must not be missed
_SYNONYMS = {"covid19": "covid", "infection": "infected", "healthy": "normal", "nofinding": "normal"}

# number: what went wrong, and how it stands with a run of ours
FLAWS: dict[int, tuple[str, str]] = {
    1: ("nothing was frozen, through a misspelt attribute", "what trains is checked and counted in every table"),
    2: ("nothing was unfrozen: the flag was set on layers, not on parameters", "what trains is checked and counted"),
    3: ("the new head was never used, or had thousands of outputs", "the width of the output is checked"),
    4: ("evaluated in training mode, with dropout or moving BatchNorm", "one evaluation, in evaluation mode"),
    5: ("BatchNorm of frozen layers moved on", "frozen blocks do not move"),
    6: ("chosen on the test split, or validation called test", "test is opened once, after the choice"),
    7: ("F1 of the last mini-batch alone", "every score is of a whole split"),
    8: ("F1 of one class only, or of pooled label bits", "macro F1, and each class by itself"),
    9: ("scores or images of another network", "predictions lie in their own trial's folder"),
    10: ("a confusion matrix summed over epochs or of an earlier run", "matrices are computed from saved predictions"),
    11: ("a loss computed wrongly", "losses are tested against their formulas"),
    12: ("best and worst images picked from the wrong list", "images are ranked with their file names"),
    13: ("one run, one seed, several things changed at once", "repeats, intervals and paired comparisons"),
    14: ("went on from another run's weights", "a trial starts from named weights"),
    15: ("predictions paired with the wrong file names", "predictions carry their file names"),
    16: ("validation images augmented, test images of another size", "all splits are prepared alike"),
    17: ("no covid image found at all, behind a high accuracy", "macro F1 selects; class counts stand by it"),
    18: ("“accuracy” of a kind that other studies do not mean", "each measure is named for what it is"),
    19: ("test scores above validation: the splits differ", "both are shown, with intervals"),
    20: (
        "images of validation were in the training of the weights it began with",
        "duplicates across splits stop a run",
    ),
    21: ("class and source of the images go together", "a source column is held against the class"),
    22: ("a number typed in by hand differs from the record", "every number comes from the records"),
    23: ("table, text and figure contradict each other", "every number comes from one record"),
}
# Of a study's pictures, not of a row's numbers.
OF_STUDIES = {9: "msds18022", 12: "bscs17028, msds18022", 15: "msds19005, msds19042", 22: "msds19058"}


def published() -> pd.DataFrame:
    """One row a published result, of published_studies.csv.

    Columns: id, study, task (two_findings, three_findings), split (test, val, "" where the study does not say),
    backbone, claimed (what was to train), really (what trained, "" if that), loss, accuracy (reported, a share),
    accuracy_is (its definition), f1 (as reported, text), flaws (tuple of keys of ``FLAWS``), and, computed by us from
    the reported matrix with ``zero_division=0``, NaN where there is none that allows it: accuracy_matrix, low, high
    (Wilson, as if every image were another patient), f1_macro, recall (of ``WATCHED``).
    """
    path = Path(__file__).with_name("published_studies.csv")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    frame["accuracy"] = pd.to_numeric(frame.pop("accuracy_pct"), errors="coerce") / 100
    frame["flaws"] = [tuple(int(number) for number in text.split()) for text in frame["flaws"]]
    computed = [_from_matrix(*row) for row in zip(frame["matrix_kind"], frame["matrix"], frame["task"], strict=True)]
    names = ("accuracy_matrix", "low", "high", "f1_macro", "recall")
    return frame.drop(columns=["matrix_kind", "matrix"]).assign(
        **{name: [row[place] for row in computed] for place, name in enumerate(names)}
    )


def task_of(classes: tuple[str, ...]) -> str | None:
    """The studies' task that has these classes, whatever their order and spelling; None if neither."""
    named = sorted(map(canonical, classes))
    return next((task for task, own in CLASSES.items() if named == sorted(own)), None)


def canonical(name: str) -> str:
    """A class name as the studies spell it, as far as it is one of theirs: "covid" for "COVID-19"."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SYNONYMS.get(plain, plain)


def flaws_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The flaws of these rows: number, flaw, rows (their ids, or "all"), here. And those of their studies' pictures."""
    found = []
    for number, (flaw, here) in FLAWS.items():
        ids = [str(row["id"]) for row in rows.to_dict("records") if number in row["flaws"]]
        where = "all" if ids and len(ids) == len(rows) else in_short(ids)
        studies = [name for name in OF_STUDIES.get(number, "").split(", ") if name and name in set(rows["study"])]
        if studies:
            where = "; ".join([*([where] if where else []), f"figures of {', '.join(studies)}"])
        if where:
            found.append({"number": number, "flaw": flaw, "rows": where, "here": here})
    return pd.DataFrame(found, columns=["number", "flaw", "rows", "here"])


def in_short(ids: list[str]) -> str:
    """ "M1–M8, M10, Z5a" for ids in their order."""
    parts: list[list[str]] = []
    for name in ids:
        if parts and _follows(parts[-1][-1], name):
            parts[-1].append(name)
        else:
            parts.append([name])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 2 else ", ".join(part) for part in parts)


def _follows(before: str, name: str) -> bool:
    first, second = re.fullmatch(r"([A-Z])(\d+)", before), re.fullmatch(r"([A-Z])(\d+)", name)
    return bool(first and second and first[1] == second[1] and int(second[2]) == int(first[2]) + 1)


def _from_matrix(kind: str, matrix: str, task: str) -> tuple[float, float, float, float, float]:
    """accuracy, its Wilson bounds, macro F1, recall of the watched class."""
    cells = np.array([int(cell) for cell in matrix.split()], dtype=np.float64)
    classes = CLASSES[task]
    nothing = (math.nan,) * 3
    if kind == "confusion":
        table = cells.reshape(len(classes), len(classes))
        hits, answered, there = np.diag(table), table.sum(axis=0), table.sum(axis=1)
        share = float(hits.sum() / table.sum())
        found = (share, *wilson(share, float(table.sum())))
    elif kind == "labels":  # TN, FP, FN, TP of each label
        tn_fp_fn_tp = cells.reshape(len(classes), 4)
        hits = tn_fp_fn_tp[:, 3]
        answered, there = hits + tn_fp_fn_tp[:, 1], hits + tn_fp_fn_tp[:, 2]
        found = nothing
    else:  # no matrix, or one of all labels pooled, which hides the single ones
        return (*nothing, math.nan, math.nan)
    f1 = _share(2 * hits, answered + there)
    return (*found, float(f1.mean()), float(_share(hits, there)[classes.index(WATCHED[task])]))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
