"""Chapters as text: the HTML page, the Markdown page, and the files of their tables and figures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup
from pandas.api.types import is_numeric_dtype

from reports import formats
from reports.blocks import Chapter, Column, Figure, Table, walk
from reports.drawing import inline_svg
from trainables.spreadsheet import shown_cell

MARKDOWN_ROWS = 50
FOLDED_ROWS = 16
"""Number of rows from which on a table is collapsed, unless it can be filtered."""
DISCLAIMER = "Not for clinical use."
_REPORT_LINK = re.compile(r"#[\w.-]+|(tables|figures)/[\w.-]+|report\.md|index\.html")
_OPTION = re.compile(r"(?<!\S)\S?--[a-z][a-z-]{0,40}(?![^\s).,;:])[).,;:]*")
_LATEX = {letter: rf"\{letter}" for letter in "&%$#_{}"} | {"<": r"\textless{}", ">": r"\textgreater{}", "–": "--"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"[": "{[}", "*": "{*}"}  # After the end of a row, or a rule, LaTeX would read these as its option.


@dataclass(frozen=True)
class Page:
    """A report's title, the line under it, and its chapters."""

    title: str
    subtitle: str
    chapters: tuple[Chapter, ...]


def page_files(page: Page, name: str) -> dict[str, bytes]:
    """All files of a page by their name below its folder, sorted: the HTML, called ``name``, the Markdown, and
    ``attachments``."""
    texts = {name: encoded(html_page(page)), "report.md": encoded(markdown_page(page))}
    return dict(sorted((texts | attachments(page.chapters)).items()))


def html_page(page: Page) -> str:
    """One self-contained page: style, script and figures inside, every name escaped."""
    environment = _environment(autoescape=True)
    environment.filters.update(prose=_prose, options=_options, markdown=_markdown_parser().render)
    environment.globals.update(cells=_cells, svg=_svg, is_number=formats.is_number, is_folded=is_folded)
    return environment.get_template("index.html").render(page=page, disclaimer=DISCLAIMER)


def markdown_page(page: Page) -> str:
    """The same as Markdown; long tables are cut and point to their CSV."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = formats.escape
    environment.globals.update(table=_markdown_table, fence=_fence, limit=MARKDOWN_ROWS)
    text = environment.get_template("report.md").render(page=page, disclaimer=DISCLAIMER)
    for number, chapter in enumerate(page.chapters, start=1):
        # The anchor that Markdown viewers make of the heading.
        anchor = re.sub(r"[^\w -]", "", f"{number} {chapter.title}".lower()).replace(" ", "-")
        text = text.replace(f"](#{chapter.id})", f"](#{anchor})")
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def attachments(chapters: Iterable[Chapter]) -> dict[str, bytes]:
    """The files of all tables and figures, by their name below the page's folder."""
    files: dict[str, bytes] = {}

    def add(name: str, content: bytes) -> None:
        assert name not in files, f"two blocks of one name: {name}"
        files[name] = content

    for block in (block for chapter in chapters for block in walk(chapter.blocks)):
        if isinstance(block, Table):
            add(f"tables/{block.name}.csv", csv(block.frame))
            if block.latex:
                add(f"tables/{block.name}.tex", encoded(latex_table(block)))
        elif isinstance(block, Figure):
            add(f"figures/{block.name}.svg", encoded(block.drawing.saved.svg))
            add(f"figures/{block.name}.png", block.drawing.saved.png)
            if block.frame is not None:
                add(f"tables/{block.name}.csv", csv(block.frame))
    return files


def encoded(text: str) -> bytes:
    # A file name that is not valid UTF-8 arrives with surrogates; it must not fail the report.
    return text.encode("utf-8", errors="backslashreplace")


def csv(frame: pd.DataFrame) -> bytes:
    """All columns in full precision, headed by their keys; NaN is empty. Spreadsheets do not run text as a formula."""
    shown = {
        place: column if is_numeric_dtype(column) else pd.Series([*map(shown_cell, column)], column.index, object)
        for place, (_, column) in enumerate(frame.items())
    }
    header = [shown_cell(str(name)) for name in frame]
    return encoded(pd.DataFrame(shown, frame.index).to_csv(index=False, header=header, lineterminator="\n"))


def latex_table(table: Table) -> str:
    """A ``tabular`` with booktabs rules, of the columns and digits that the page shows."""
    align = "".join("r" if formats.is_number(column.kind) else "l" for column in table.columns)
    head = " & ".join(_latex_text(column.title) for column in table.columns)
    rows = [" & ".join(_latex_text(text) for text in row) + r" \\" for row in _shown_rows(table)]
    caption = " ".join(table.caption.split())
    lines = [f"% {caption}", rf"\begin{{tabular}}{{{align}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}", ""])


def is_folded(table: Table) -> bool:
    """Whether the table is collapsed on the page."""
    return table.folded or (len(table.frame) >= FOLDED_ROWS and not table.filterable)


def _environment(autoescape: bool) -> jinja2.Environment:
    """The templates' environment; its filter ``kind`` gives the class name of a block."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment


def _markdown_parser() -> MarkdownIt:
    """CommonMark without images, HTML, and links out of the report."""
    parser = MarkdownIt("commonmark", {"html": False})
    parser.disable(["image", "autolink", "reference", "html_block", "html_inline", "lheading"])
    parser.validateLink = lambda url: _REPORT_LINK.fullmatch(url) is not None  # type: ignore[method-assign]
    parser.add_render_rule("text", _text_token)
    return parser


def _text_token(_: RendererHTML, tokens: Sequence[Token], place: int, options: OptionsDict, env: EnvType) -> str:
    return str(_prose(tokens[place].content))


def _prose(text: str) -> Markup:
    """``text`` escaped; no line break within a command-line option, or between a number and its %."""
    return Markup(re.sub(r"(?<=\d) %", "\u00a0%", str(_options(text))))


def _options(text: str) -> Markup:
    """``text`` escaped, unchanged when copied; no line break within a command-line option."""
    return Markup(_OPTION.sub(r'<span class="option">\g<0></span>', str(Markup.escape(text))))


def _svg(figure: Figure) -> Markup:
    # Safe: matplotlib has escaped the names.
    return Markup(inline_svg(figure.drawing.saved.svg, figure.name))


def _cells(table: Table) -> list[list[tuple[Column, str, str]]]:
    """Each cell's column and text, and its raw number ("" for none), so that the page can sort by value."""
    if table.frame.empty:  # a frame made of no rows may lack the columns
        return []
    return [
        [
            (column, formats.show(column.kind, value), _sort_key(value))
            for column, value in zip(table.columns, row, strict=True)
        ]
        for row in zip(*(table.frame[column.key].astype(object) for column in table.columns), strict=True)
    ]


def _sort_key(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return f"{value:.10g}"


def _shown_rows(table: Table) -> list[list[str]]:
    """The table's cells as text, in the order of ``columns``."""
    return [[text for _, text, _ in row] for row in _cells(table)]


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _markdown_table(table: Table) -> str:
    rule = ["---:" if formats.is_number(column.kind) else "---" for column in table.columns]
    rows = [[column.title for column in table.columns], *_shown_rows(table)[:MARKDOWN_ROWS]]
    lines = ["| " + " | ".join(map(formats.escape, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


def _fence(text: str, language: str) -> str:
    """A code block that backticks in ``text`` cannot close."""
    mark = "`" * max(3, max((len(run) + 1 for run in re.findall(r"`+", text)), default=0))
    return f"{mark}{language}\n{text}\n{mark}"
