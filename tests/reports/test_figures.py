"""Every figure: drawn from ordinary facts, from facts with gaps, and the same bytes again."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from reports import class_panels, figures
from reports.drawing import Drawing, inline_svg

pytestmark = pytest.mark.usefixtures("computed_anew")

NAN = float("nan")
NAMES = ("covid", "<b>$a$ & co</b>", "a name that is much too long for any axis at all")
COUNTS = np.array([[10, 2, 0], [1, 30, 4], [0, 0, 0]])
SHARES = np.array([[10 / 12, 2 / 12, 0], [1 / 35, 30 / 35, 4 / 35], [NAN, NAN, NAN]])
X = np.linspace(0, 1, 400)
BINS = np.append(np.linspace(0.1, 0.9, 9), NAN)
EPOCHS = pd.DataFrame(
    {"trial_id": ["a", "a", "b"], "epoch": [1, 2, 1], "train_f1": [0.4, NAN, NAN], "val_f1": [0.5, 0.6, 0.3]}
)
TRIALS = pd.DataFrame({"trial_id": ["a", "b", "c"], "status": ["completed", "pruned", "failed"]})
CELLS = pd.DataFrame([[0.8, NAN], [0.7, NAN]], index=["resnet18", "vgg16"], columns=["head only", "all blocks"])


def mark(kind: str, low: float = 0.7) -> dict[str, Any]:
    facts = {"name": NAMES[1], "kind": kind, "score": 0.8, "low": low, "high": 0.9}
    return facts | {"points": (0.7, 0.9), "text": "0.800"}


def courses(*search: float) -> pd.DataFrame:
    repeats = {"validation": (0.7, 0.8), "judged": (), "mean": 0.8, "low": NAN, "high": NAN}
    return pd.DataFrame([{"name": NAMES[1], "winner": True, "search": one} | repeats for one in search])


def prices(*numbers: int) -> pd.DataFrame:
    rows = [(number, 10.0**number, 0.1 * number, 0.01) for number in numbers]
    return pd.DataFrame(rows, columns=["number", "trainable_params", "score", "error"])


def slice_of(scale: Any, values: Any, first: int = 0) -> tuple[str, Any, pd.DataFrame]:
    numbers = range(first, first + len(values))
    facts = {"number": numbers, "value": pd.Series(values, dtype=object), "score": np.linspace(0, 1, len(values))}
    return "lr", scale, pd.DataFrame(facts)


def reliability(others: Any) -> class_panels.ReliabilityPanel:
    bins = pd.DataFrame({"confidence": BINS, "observed": BINS, "low": BINS - 0.1, "high": BINS + 0.1})
    return class_panels.ReliabilityPanel(NAMES[1], "ECE", bins.assign(counts=np.arange(10)), others)


PANEL = class_panels.CurvePanel(NAMES[1], [(X, X), (X, X**2)], "AUROC 0.5", points=[("decided", 0.2, 0.8)])
STAIRS = class_panels.CurvePanel("b", [(X, X)], "AP", level=0.2)
IMAGES = pd.DataFrame({"class": NAMES[:2], "train": [3, 0]})
FOUR = np.array([COUNTS[:2, :2]] * 4), np.array([SHARES[:2, :2]] * 4)
DRAWN: dict[str, Callable[[], Drawing]] = {
    "forest": lambda: figures.forest(
        pd.DataFrame([mark("winner"), mark("finalist"), mark("baseline", NAN)]), "macro F1"
    ),
    "courses": lambda: figures.courses(courses(0.9, NAN), "macro F1", "test"),
    "courses on validation": lambda: figures.courses(courses(0.9), "macro F1", ""),
    "bars": lambda: figures.bars(pd.DataFrame([(NAMES[0], 0.8, 0.7, 0.9), (NAMES[1], NAN, NAN, NAN)]), "F1"),
    "stacked bars": lambda: figures.stacked_bars(IMAGES),
    "heat map": lambda: figures.heat_map(CELLS, CELLS.notna() * 2.0, "macro F1", lower_is_better=False),
    "heat map of a loss": lambda: figures.heat_map(CELLS, CELLS * 0 + 1, "loss", lower_is_better=True),
    "confusion": lambda: figures.confusion(COUNTS, SHARES, NAMES),
    "confusion of many": lambda: figures.confusion(np.eye(12, dtype=np.int64), np.eye(12), list("abcdefghijkl")),
    "confusion of very many": lambda: figures.confusion(np.eye(60, dtype=np.int64), np.eye(60), [NAMES[1]] * 60),
    "label matrices": lambda: figures.label_matrices(FOUR[0], FOUR[1], list("abcd")),
    "mean maps": lambda: figures.mean_maps({NAMES[1]: np.eye(7) / 7, "b": np.zeros((7, 7))}, 0.1),
    "curve": lambda: figures.curve(EPOCHS, "train_f1", "val_f1", "F1", 2.0),
    "curve without training": lambda: figures.curve(EPOCHS, "none", "val_f1", "F1", NAN),
    "all curves": lambda: figures.all_curves(EPOCHS, TRIALS, "val_f1", "F1", [1, 3], "a"),
    "all curves of none": lambda: figures.all_curves(EPOCHS.iloc[:0], TRIALS, "val_f1", "F1", [], None),
    "cost": lambda: figures.cost(prices(*range(5)), prices(1), prices(2), "F1"),
    "cost without finalists": lambda: figures.cost(prices(*range(5)), prices(1), prices(), "F1"),
    "slices": lambda: figures.slices(
        [
            slice_of("categorical", ["vgg16", NAMES[1], "10", "9"]),
            slice_of("logarithmic", [1e-5, 1e-3, 1e-2], first=1),
            slice_of("linear", [0.0, 0.5]),
            slice_of("integer", range(300)),
        ],
        0,
        "F1",
    ),
    "ROC": lambda: class_panels.curves([PANEL, class_panels.CurvePanel("b", [], "undefined")], "x", "y"),
    "precision and recall": lambda: class_panels.curves([STAIRS] * 11, "recall", "precision"),
    "reliability": lambda: class_panels.reliability([reliability([(BINS, BINS)]), reliability([])]),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.filterwarnings("error")
def test_a_figure_is_sound_the_same_again_and_leaves_matplotlib_as_it_was(name):
    before = dict(mpl.rcParams)
    drawing = DRAWN[name]()
    assert drawing.saved.width_in > 0
    assert dict(mpl.rcParams) == before
    with mpl.rc_context({"font.size": 30, "figure.dpi": 20}):
        assert DRAWN[name]().saved == drawing.saved
    assert ET.fromstring(drawing.saved.svg).tag.endswith("svg")
    assert drawing.saved.png.startswith(b"\x89PNG")
    assert "<script" not in drawing.saved.svg


def test_a_matrix_of_many_classes_is_no_heavier_than_a_picture():
    saved = figures.confusion(np.eye(1000, dtype=np.int64), np.eye(1000), [f"class {k}" for k in range(1000)]).saved
    assert len(saved.svg) < 1_000_000
    assert saved.width_in < 12


def test_names_stand_in_the_figure_as_text_and_are_no_markup():
    text = "".join(ET.fromstring(DRAWN["forest"]().saved.svg).itertext())
    assert "<b>$a$ & co</b>" in text


def test_a_figure_names_a_font_that_every_reader_has():
    (label,) = (one for one in ET.fromstring(DRAWN["forest"]().saved.svg).iter() if one.text == "macro F1")
    assert "font-family: 'DejaVu Sans', sans-serif" in label.get("style", "")


def test_a_figure_on_the_page_has_ids_of_its_own():
    svg = DRAWN["ROC"]().saved.svg
    first, second = inline_svg(svg, "one"), inline_svg(svg, "two")
    ids = ET.fromstring(first).findall(".//*[@id]")
    assert ids
    assert not {one.get("id") for one in ids} & {one.get("id") for one in ET.fromstring(second).findall(".//*[@id]")}


def test_choices_stand_words_first_and_numbers_by_size():
    assert figures.choices_of(["512", "64", "none", "256+128", "64"]) == ["none", "64", "256+128", "512"]


def test_the_numbers_of_curves_and_bins_are_those_that_are_drawn():
    frame = class_panels.curve_frame([PANEL, class_panels.CurvePanel("b", [], "undefined")], "x", "y")
    assert frame.groupby("run").size().to_dict() == {1: len(X), 2: len(X)}
    np.testing.assert_array_equal(frame.loc[frame["run"] == 2, "y"], X**2)
    bins = class_panels.bin_frame([reliability([])])
    assert bins["counts"].tolist() == list(range(1, 10))
