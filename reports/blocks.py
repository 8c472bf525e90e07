"""What a report is made of: chapters of blocks, which ``render`` writes as HTML, Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from reports.drawing import Drawing


@dataclass(frozen=True)
class Headline:
    """The main number of a page. ``value`` is text ready to show; ``detail`` says how to interpret it."""

    value: str
    label: str
    detail: str


@dataclass(frozen=True)
class Text:
    """Prose as Markdown: paragraphs, lists, ``### `` headings. User text enters only through ``formats.escape``.

    Links lead only to ``#anchors`` of the page and to files of the report; images and HTML show as text.
    """

    markdown: str


@dataclass(frozen=True)
class Note:
    """Something that must not be overlooked, as plain text. level: "info", "warning" or "error"."""

    level: str
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Named facts: pairs of a name and its value, both plain text. tiles: short values, side by side."""

    rows: tuple[tuple[str, str], ...]
    tiles: bool = False


@dataclass(frozen=True)
class Code:
    """Text to copy: a command or a file's content."""

    text: str
    language: str = "sh"


@dataclass(frozen=True)
class Column:
    """How a column of a table is shown. kind: a key of ``formats.FORMATS``."""

    key: str
    title: str
    kind: str = "text"


KINDS = {
    "integer": (
        *("number", "images", "known", "patients", "trials", "TN", "FP", "FN", "TP", "best_epoch", "epochs_run", "of"),
        *("place", "completed", "pruned", "failed", "running", "zero", "count"),
    ),
    "score": (
        *("score", "val_accuracy", "val_f1_macro", "search_score", "precision", "recall", "f1", "probability"),
        *("given", "observed", "ECE", "Brier of the share"),
        *("validation", "accuracy", "reported", "matrix_accuracy", "matrix_low", "matrix_high", "matrix_f1_macro"),
        *("matrix_recall", "auroc", "winner", "test_auroc", "test_f1", "test_winner"),
    ),
    "si": ("trainable_params", "total_params"),
    "duration": ("seconds",),
    "percent": ("share", "pruned_share", "importance"),
    "general": ("times_chance", "median_epochs", "inference_ms_per_image", "mean", "sd"),
}
TITLES = {
    "number": "trial",
    "unfrozen": "trained",
    "path": "file",
    "trainable_params": "trainable",
    "seconds": "time",
    "val_accuracy": "val accuracy",
    "val_f1_macro": "val macro F1",
}


def columns(*keys: str, **titles: str) -> tuple[Column, ...]:
    """The columns of ``keys`` and then of ``titles``: kinds as in ``KINDS``, else text; titles as given, else as in
    ``TITLES``, else the key in words. A title for one of ``keys`` does not move it."""
    kinds = {key: kind for kind, of_kind in KINDS.items() for key in of_kind}
    titled = {key: TITLES.get(key, key.replace("_", " ")) for key in keys} | titles
    return tuple(
        Column(key, title, kinds.get(key, "general" if key.startswith("param_") else "text"))
        for key, title in titled.items()
    )


@dataclass(frozen=True)
class Table:
    """Facts in rows. ``frame`` holds the raw values for the CSV; ``columns`` says which to show, and how.

    name: of the file tables/<name>.csv, and .tex with latex. caption: plain text. folded: collapsed on the page.
    filterable: sortable and filterable on the page, also by its column "status".
    """

    name: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    folded: bool = False
    filterable: bool = False
    latex: bool = False


@dataclass(frozen=True)
class Figure:
    """name: of figures/<name>.svg and .png; caption: plain text; alt: what it shows, for readers who cannot see it.

    frame: the numbers that are drawn, written as tables/<name>.csv; None where a table of the report holds them.
    """

    name: str
    caption: str
    alt: str
    drawing: Drawing
    frame: pd.DataFrame | None = None


@dataclass(frozen=True)
class Figures:
    """Figures shown side by side if there is room."""

    items: tuple[Figure, ...]


@dataclass(frozen=True)
class Sample:
    """One small image. uri: a data URI, "" where there is no thumbnail; name: its file name as the user knows it.

    split: train, val or test. note: text shown below it in place of the split.
    """

    uri: str
    name: str
    split: str
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """Sample images of each class: pairs of a label and its images."""

    caption: str
    rows: tuple[tuple[str, tuple[Sample, ...]], ...]


@dataclass(frozen=True)
class Folded:
    """Blocks that are collapsed under their title: material for reviewers."""

    title: str
    blocks: tuple[Block, ...]


Block = Headline | Text | Note | Facts | Code | Table | Figure | Figures | Samples | Folded


@dataclass(frozen=True)
class Chapter:
    """A part of the page. id: of its anchor, unique."""

    id: str
    title: str
    blocks: tuple[Block, ...]


def walk(blocks: Iterable[Block]) -> Iterator[Block]:
    """Every block, including those in ``Figures`` and ``Folded``, in the order of the page."""
    for block in blocks:
        yield block
        if isinstance(block, Figures):
            yield from block.items
        elif isinstance(block, Folded):
            yield from walk(block.blocks)
