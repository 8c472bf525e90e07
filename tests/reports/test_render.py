"""The two writers: the same structure whatever a user's names are, strict prose, and the files beside the page."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pytest
import run_files
from baseline_files import POOR, write_baselines
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports import render
from reports.blocks import Chapter, Code, Column, Facts, Figure, Figures, Folded, Headline, Note, Samples, Table, Text
from reports.build import build
from reports.drawing import Drawing, blank
from reports.formats import escape

HOSTILE = (
    "![x](http://e/x.png)",
    "[a](javascript:x)",
    "# h",
    "1. x",
    "- x",
    "~~~",
    "|",
    "a`b",
    "</td><script>",
    "c\nd",
)
HARMLESS = tuple(f"name {place}" for place in range(len(HOSTILE)))
FEW = MappingProxyType(dict.fromkeys(("train", "val", "test"), 40))


class Structure(html.parser.HTMLParser):
    """The elements of a page in their order, with the text of each link and address; drawings are one element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: set[str] = set()
        self._in_drawing = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._in_drawing:
            self.tags.append(tag)
            self.addresses |= {value or "" for name, value in attrs if name in ("href", "src")}
        self._in_drawing |= tag == "svg"

    def handle_endtag(self, tag: str) -> None:
        self._in_drawing &= tag != "svg"
        if not self._in_drawing:
            self.tags.append(f"/{tag}")


def report(folder: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report of a run in which classes, files, columns, values, messages and the run itself bear ``names``."""
    of_class = dict(zip([f"{place}" for place in range(len(names))], names, strict=True))
    rows = run_files.make_rows
    monkeypatch.setattr(
        run_files,
        "make_rows",
        lambda *arguments: [
            dataclasses.replace(row, path=f"{row.path}{of_class[row.path.split('/')[1]]}") for row in rows(*arguments)
        ],
    )
    root = run_files.write(
        folder / "run",
        trials=3,
        epochs=2,
        classes=names,
        labels_per_split=dict(FEW),
        finals={"finalists": (0, 1), "repeats": 2},
        sweep={"name": names[0], "space": names[1], "data": names[5], "command": ["--data", *names]},
        dataset={
            "left_out": [{"why": name, "count": 2, "examples": [name, name]} for name in names],
            "notes": list(names),
            "preset": names[2],
            "missing": {"val": dict.fromkeys(names, 2)},
            "caveats": list(names),
            "groups": {"from": names[6], "counts": {"train": 3}},
            "subgroups": {name: dict.fromkeys(names, 3) for name in names[:2]},
            "source_by_class": {name: dict.fromkeys(names, 2) for name in names},
            "checks": [
                {"check": name, "severity": "info", "message": name, "count": 1, "items": [[name]]} for name in names
            ],
        },
        provenance={"missing_weights": dict.fromkeys(names, names[2]), "commit": names[3], "gpus": list(names)},
    )
    write_baselines(root, POOR)
    splits = pd.read_csv(root / "splits.csv", dtype=str, keep_default_na=False)
    for name in names:
        splits[f"subgroup_{name}"] = [names[row % 2] for row in range(len(splits))]
    splits.to_csv(root / "splits.csv", index=False)
    (root / "trials/t00002/params.json").write_text("{ torn " + names[4])
    return build(root).parent


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """With hostile names, with harmless ones."""
    found = []
    for names in (HOSTILE, HARMLESS):
        with pytest.MonkeyPatch.context() as patch:
            found.append(report(tmp_path_factory.mktemp("hostile"), names, patch))
    return found[0], found[1]


@given(st.lists(st.text(), min_size=1), st.text())
@example(["\r", "a\r=1", "=1", "-", "-1+1", "-5", "+1.5e-3"], "\t")
def test_no_cell_of_a_csv_is_a_formula_and_no_text_is_lost(texts: list[str], name: str) -> None:
    frame = pd.DataFrame({name: texts}).astype(object)
    cells = list(csv.reader(io.StringIO(render.csv(frame).decode(), newline="")))
    for cell, text in zip([row[0] if row else "" for row in cells], [name, *texts], strict=True):
        shown = text.replace("\r", " ")
        assert cell in (shown, "'" + shown)
        assert not cell.startswith(("=", "@", "\t", "\r"))
        if cell.startswith(("+", "-")):
            assert math.isfinite(float(cell)), "of these a number alone is no formula"
        if cell != shown:
            assert text.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_of_a_csv_stay_as_they_are() -> None:
    numbers = {"whole": [-1, 2], "real": [-1.5, float("nan")], "some": pd.array([1, None], dtype="Int64")}
    frame = pd.DataFrame(numbers | {"mixed": pd.Series([-1, float("nan")], dtype=object), "yes": [True, False]})
    assert render.csv(frame) == frame.to_csv(index=False, lineterminator="\n").encode()
    assert render.csv(frame.head(0)) == frame.head(0).to_csv(index=False, lineterminator="\n").encode()


def test_names_that_are_markup_change_no_element_of_the_page(reports):
    hostile, harmless = (Structure((one / "index.html").read_text(encoding="utf-8")) for one in reports)
    assert hostile.tags == harmless.tags
    outside = [one for one in hostile.addresses if not one.startswith(("#", "data:", "tables/", "figures/"))]
    assert outside == []


def test_names_that_are_markup_change_no_element_of_the_markdown(reports):
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    hostile, harmless = (Structure(parser.render((one / "report.md").read_text(encoding="utf-8"))) for one in reports)
    assert hostile.tags == harmless.tags
    assert all(one.startswith(("#", "tables/", "figures/")) for one in hostile.addresses)


def test_drawings_of_names_that_are_markup_hold_shapes_and_text_alone(reports):
    shapes = {
        "svg",
        "g",
        "defs",
        "path",
        "use",
        "text",
        "tspan",
        "style",
        "clipPath",
        "rect",
        "metadata",
        "image",
        "pattern",
    }
    for path in sorted((reports[0] / "figures").glob("*.svg")):
        root = ET.parse(path).getroot()
        tags = {one.tag.split("}")[1] for one in root.iter() if one.tag.startswith("{http://www.w3.org/2000/svg}")}
        assert tags <= shapes, path.name


def page_of(*blocks) -> str:
    return render.html_page(render.Page("t", "s", (Chapter("one", "One", blocks),)))


def markdown_of(*blocks) -> str:
    return render.markdown_page(render.Page("t", "s", (Chapter("one", "One", blocks),)))


@pytest.mark.parametrize(
    "prose",
    [
        "![x](http://e/x.png)",
        "[a](http://e)",
        "[a](javascript:x)",
        "<http://e>",
        "[a][b]\n\n[b]: http://e",
        "<b>x</b>",
        "<script>x</script>",
        "[a](../../secret)",
        "[a](//e)",
    ],
)
def test_prose_holds_no_image_no_html_and_no_link_to_elsewhere(prose):
    found = Structure(page_of(Text(prose)))
    assert not {"img", "b"} & set(found.tags)
    assert found.tags.count("script") == 1
    assert found.addresses == {"data:,", "#one"}


def test_prose_may_link_to_chapters_and_files_of_the_report():
    links = "[a](#one) [b](tables/trials.csv) [c](figures/x-1.png)"
    assert {"tables/trials.csv", "figures/x-1.png"} < Structure(page_of(Text(links))).addresses


def test_a_link_to_a_chapter_leads_to_its_heading_in_markdown():
    text = render.markdown_page(
        render.Page(
            "t",
            "s",
            (Chapter("one", "One", (Text("[a](#two)"),)), Chapter("two", "Methods, limits and checklists", ())),
        )
    )
    assert "## 2. Methods, limits and checklists" in text
    assert "[a](#2-methods-limits-and-checklists)" in text


def test_an_option_and_a_percentage_are_not_broken_over_lines():
    page = page_of(Text("With --max-images, 5 % of all."), Note("info", "See (--no-cache)."))
    assert '<span class="option">--max-images,</span>' in page
    assert '<span class="option">(--no-cache).</span>' in page
    assert "5\N{NO-BREAK SPACE}%" in page


def test_a_title_may_break_behind_an_underscore():
    page = render.html_page(render.Page("Report of a_b<i>", "s", (Chapter("one", "One", (Text("t"),)),)))
    assert "<h1>Report of a_<wbr>b&lt;i&gt;</h1>" in page


def test_a_command_is_copied_as_it_is():
    assert "&#39;10 % of all&#39;" in page_of(Code("python -m sweep.run --data '10 % of all'"))


FRAME = pd.DataFrame({"name": ["a|b_c & 50 %", "b"], "score": [0.5, float("nan")]})
TABLE = Table("t", "c", FRAME, (Column("name", "name"), Column("score", "F1", "score")), latex=True)
DRAWING = Drawing(lambda: blank(3, 2)[0])


def test_a_latex_table_escapes_its_cells_and_a_markdown_table_its_bars():
    assert r"a|b\_c \& 50 \% & 0.500 \\" in render.latex_table(TABLE)
    options = dataclasses.replace(TABLE, frame=pd.DataFrame({"name": ["[2cm]", "*"], "score": [0.5, 0.5]}))
    assert "\\midrule\n{[}2cm] & 0.500 \\\\\n{*} & 0.500 \\\\\n" in render.latex_table(options)
    assert r"| a\|b\_c &amp; 50 % | 0.500 |" in markdown_of(TABLE)
    assert "| b | – |" in markdown_of(TABLE)


def test_every_table_and_the_numbers_of_every_figure_are_files_beside_the_page():
    one, two = Figure("f", "c", "a", DRAWING, FRAME), Figure("g", "c", "a", DRAWING)
    plain = dataclasses.replace(TABLE, name="u", latex=False)
    found = render.attachments([Chapter("x", "X", (TABLE, Figures((one,)), Folded("more", (two, plain))))])
    assert sorted(found) == ["figures/f.png", "figures/f.svg", "figures/g.png", "figures/g.svg",
                             "tables/f.csv", "tables/t.csv", "tables/t.tex", "tables/u.csv"]  # fmt: skip
    assert found["tables/t.csv"] == found["tables/f.csv"] == b"name,score\na|b_c & 50 %,0.5\nb,\n"


def test_long_tables_are_folded_on_the_page_and_cut_in_markdown():
    long = dataclasses.replace(TABLE, frame=pd.concat([FRAME] * 30))
    assert "<details>" in page_of(long)
    assert "<details>" not in page_of(TABLE)
    assert "<details>" not in page_of(dataclasses.replace(long, filterable=True))
    assert "The first 50 of 60 rows; all: [t.csv](tables/t.csv)" in markdown_of(long)


def test_a_command_with_backticks_stays_one_block_of_code():
    tokens = MarkdownIt().parse(markdown_of(Code("a ``` b\n~~~")))
    fences = [token for token in tokens if token.type == "fence"]
    assert [(one.info, one.content) for one in fences] == [("sh", "a ``` b\n~~~\n")]


def test_every_kind_of_block_is_written_by_both_writers():
    blocks = (
        Headline("0.893", "label of it", "detail"),
        Text("### Part\n\n- " + escape("a*b*")),
        Note("warning", "beware", ("first", "second")),
        Facts((("key", "value"),), tiles=True),
        Code("run me"),
        TABLE,
        Figure("f", "caption of f", "alt of f", DRAWING),
        Samples("some images", (("covid", ()),)),
        Folded("closed", (Text("inside"),)),
    )
    words = ("0.893", "label of it", "detail", "Part", "beware", "second", "key", "value", "run me", "caption of f")
    for text in (page_of(*blocks), markdown_of(*blocks)):
        assert [word for word in (*words, "alt of f", "some images", "closed", "inside") if word not in text] == []
