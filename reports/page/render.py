"""Sections as text: the HTML page, the Markdown page, and each table as CSV and LaTeX."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from reports.page import formats
from reports.page.blocks import Column, Picture, Section, Table
from reports.page.figure_style import inline_svg

MARKDOWN_ROWS = 50
DISCLAIMER = "Not for clinical use."
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}


@dataclass(frozen=True)
class Page:
    """A report's title, the line under it, and its sections."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def html_page(page: Page) -> str:
    """One self-contained page: style, script and figures inside, every name escaped."""
    environment = _environment(autoescape=True)
    environment.filters.update(options=_options, prose=_prose)
    environment.globals.update(cell=_cell, svg=_svg, is_number=formats.is_number, statuses=_statuses)
    return environment.get_template("index.html").render(page=page, disclaimer=DISCLAIMER)


def markdown_page(page: Page) -> str:
    """The same as Markdown; long tables are cut and point to their CSV."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = markdown_text
    environment.globals.update(table=_markdown_table, fence=_fence)
    text = environment.get_template("report.md").render(page=page, disclaimer=DISCLAIMER)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def attachments(sections: Iterable[Section]) -> dict[str, bytes]:
    """Each table as CSV and LaTeX and each picture as SVG and PNG, by its name below the page's folder."""
    files = {}
    for section in sections:
        for table in section.tables():
            files[f"tables/{table.name}.csv"] = encoded(csv_table(table))
            files[f"tables/{table.name}.tex"] = encoded(latex_table(table))
        for picture in section.pictures():
            files[f"figures/{picture.name}.svg"] = encoded(picture.drawing.svg)
            files[f"figures/{picture.name}.png"] = picture.drawing.png
    return files


def encoded(text: str) -> bytes:
    # A file name that is no UTF-8 arrives as surrogates; it must not end the report.
    return text.encode("utf-8", errors="backslashreplace")


def csv_table(table: Table) -> str:
    """All columns of the table's frame with full precision, headed by their keys; NaN is empty."""
    return table.frame.to_csv(index=False, lineterminator="\n")


def latex_table(table: Table) -> str:
    """A ``tabular`` with booktabs rules, of the columns and digits that the page shows."""
    align = "".join("r" if formats.is_number(column.kind) else "l" for column in table.columns)
    head = " & ".join(latex_text(column.title) for column in table.columns)
    rows = [" & ".join(latex_text(text) for text in row) + r" \\" for row in shown_rows(table)]
    lines = [f"% {_one_line(table.caption)}", rf"\begin{{tabular}}{{{align}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}", ""])


def shown_rows(table: Table) -> list[list[str]]:
    """The table's cells as text, in the order of ``columns``."""
    return [
        [formats.show(column.kind, value) for column, value in zip(table.columns, row, strict=True)]
        for row in _raw_rows(table)
    ]


def latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def markdown_text(text: str) -> str:
    """``text`` with what Markdown or HTML would read as markup escaped."""
    escaped = html.escape(_one_line(text), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", escaped)


def _environment(autoescape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("reports.page"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _raw_rows(table: Table) -> list[tuple[Any, ...]]:
    columns = [table.frame[column.key].astype(object) for column in table.columns]
    return list(zip(*columns, strict=True))


@dataclass(frozen=True)
class _Cell:
    text: str
    sort: str
    column: Column


def _cell(table: Table) -> list[list[_Cell]]:
    """Cells for the page; ``sort`` is the raw number, "" for none, so that the page can sort by value."""
    return [
        [
            _Cell(formats.show(column.kind, value), _sort_key(value), column)
            for column, value in zip(table.columns, row, strict=True)
        ]
        for row in _raw_rows(table)
    ]


def _sort_key(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return f"{value:.10g}"


def _statuses(table: Table) -> list[str]:
    return sorted({str(value) for value in table.frame[table.status_key]}) if table.status_key else []


def _options(text: str) -> Markup:
    """``text`` escaped, its command-line options kept whole: a browser would break a line within "--"."""
    escaped = str(Markup.escape(text))
    return Markup(
        re.sub(r"(?<!\S)\S?--[a-z][a-z-]{0,40}(?![^\s).,;:])[).,;:]*", r'<span class="option">\g<0></span>', escaped)
    )


def _prose(text: str) -> Markup:
    """``_options``, and no line ends between a number and its %."""
    return Markup(re.sub(r"(?<=\d) %", "\u00a0%", _options(text)))


def _svg(picture: Picture) -> Markup:
    # The drawing is ours: matplotlib has escaped the names in it.
    return Markup(inline_svg(picture.drawing.svg, picture.name))


def _markdown_table(table: Table) -> str:
    rows = shown_rows(table)[:MARKDOWN_ROWS]
    lines = ["| " + " | ".join(markdown_text(column.title) for column in table.columns) + " |"]
    lines.append("|" + "|".join("---:" if formats.is_number(column.kind) else "---" for column in table.columns) + "|")
    lines += ["| " + " | ".join(markdown_text(text) for text in row) + " |" for row in rows]
    return "\n".join(lines)


def _fence(text: str) -> str:
    """A code block that no run of backticks in ``text`` can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}sh\n{text}\n{mark}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
