"""What a report is made of: sections of blocks, drawn as HTML, Markdown, CSV and LaTeX from one source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from reports.page.figure_style import Drawing


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The one number that a reader came for. ``value`` is text ready to show; ``detail`` says what it is worth."""

    kind: ClassVar[str] = "headline"
    value: str
    label: str
    detail: str


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Note:
    """Something that must not be overlooked. level: "info", "warning" or "error"."""

    kind: ClassVar[str] = "note"
    level: str
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class FactList:
    """Named facts: pairs of a name and its value as text. tiles: short values, side by side."""

    kind: ClassVar[str] = "facts"
    rows: tuple[tuple[str, str], ...]
    tiles: bool = False


@dataclass(frozen=True)
class Command:
    """Text to copy: a command or a file's content."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Column:
    """How a column of a table is shown. kind: a key of ``formats.FORMATS``."""

    key: str
    title: str
    kind: str = "text"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Facts in rows. ``frame`` holds raw values (they go to the CSV as they are); ``columns`` says how to show which.

    name: of the files tables/<name>.csv and .tex. filterable: sortable and filterable on the page (one a report).
    folded: closed on the page until it is opened. status_key: the column that the page's choice of a status filters.
    """

    kind: ClassVar[str] = "table"
    name: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    filterable: bool = False
    folded: bool = False
    status_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure. name: of figures/<name>.svg and .png; alt: what it shows, for who cannot see it."""

    kind: ClassVar[str] = "picture"
    name: str
    caption: str
    alt: str
    drawing: Drawing


@dataclass(frozen=True)
class Pictures:
    """Figures that stand side by side where there is room."""

    kind: ClassVar[str] = "pictures"
    items: tuple[Picture, ...]


@dataclass(frozen=True)
class Sample:
    """One small image. uri: a data URI, "" where there is no thumbnail; name: its file name as the user knows it.

    split: train, val or test. note: what stands below it in place of the split.
    """

    uri: str
    name: str
    split: str
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """Sample images of each class: pairs of a label and its images."""

    kind: ClassVar[str] = "samples"
    caption: str
    rows: tuple[tuple[str, tuple[Sample, ...]], ...]


Block = Headline | Text | Heading | Note | FactList | Command | Table | Picture | Pictures | Samples


@dataclass(frozen=True)
class Section:
    """A part of the page. id: of its anchor, unique."""

    id: str
    title: str
    blocks: tuple[Block, ...]

    def tables(self) -> list[Table]:
        return [block for block in self.blocks if isinstance(block, Table)]

    def pictures(self) -> list[Picture]:
        found: list[Picture] = []
        for block in self.blocks:
            if isinstance(block, Picture):
                found.append(block)
            elif isinstance(block, Pictures):
                found.extend(block.items)
        return found
