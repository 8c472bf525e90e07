"""The whole report as a reader meets it, in headless Chromium: quiet, at home on any screen, alone in its file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from baseline_files import POOR, write_baselines
from browser import Browser, browse, installed
from run_files import write

from reports.build import build

WIDTHS = (400, 1000, 1600)
NASTY = ("<script>alert(1)</script>", "\"quoted\" & 'so'", "🫁 lung", "x" * 200)
FEW = {"train": 40, "val": 40, "test": 40}
LABELS = tuple(f"finding {number}" for number in range(10))
RUNS = {
    "names that are markup": {"classes": NASTY, "labels_per_split": FEW, "trials": 12, "sweep": {"name": "<b>run</b>"},
                              "finals": {"finalists": (0, 1), "repeats": 2},
                              "dataset": {"caveats": ["<img src=x onerror=alert(3)>"]}},
    "ten labels": {"classes": LABELS, "task": "multi_label", "labels_per_split": dict.fromkeys(FEW, 60),
                       "trials": 3, "finals": {"finalists": (0, 1), "repeats": 1}},
    "nothing finished": {"statuses": ("failed",)},
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    installed()
    with browse(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module", params=RUNS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report's index.html alone, in a folder without the files beside it."""
    root = write(tmp_path_factory.mktemp("runs") / "run", **RUNS[request.param])
    if "finals" in RUNS[request.param]:
        write_baselines(root, POOR)
    alone = tmp_path_factory.mktemp("alone") / "index.html"
    alone.write_bytes(build(root).read_bytes())
    return alone


def test_a_report_says_nothing_to_the_console_asks_for_no_other_file_and_never_scrolls_sideways(browser, page):
    for width in WIDTHS:
        browser.open(page, width)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run(OUTSIDE) == []
        assert browser.messages == []
        assert browser.requests == [page.resolve().as_uri()]


# What stands outside the page's width and lies in no box that scrolls by itself.
OUTSIDE = """
[...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, .drawing"))
  .map((one) => `${one.tagName} ${one.className}: ${one.textContent.slice(0, 40)}`)
"""


def test_a_minute_is_enough_winner_interval_confusion_and_caveats_stand_on_the_first_screen(browser, tmp_path):
    """A full summary of six classes: all that a reader needs lies within 1440 x 900, the headline on a telephone."""
    classes = ("effusion", "normal", "pneumonia", "covid", "edema", "atelectasis")
    sizes = dict.fromkeys(FEW, 120)
    finals = {"finalists": (0, 1, 3, 4), "repeats": 3}
    caveats = [f"{number} images are of patients of two splits" for number in range(2, 6)]
    root = write(tmp_path / "run", trials=6, statuses=("completed",), classes=classes, labels_per_split=sizes,
                 finals=finals, dataset={"caveats": caveats})  # fmt: skip
    write_baselines(root, POOR)
    page = build(root)
    bottom = "document.querySelector('%s').getBoundingClientRect().bottom"
    needed = (".headline", "#figure-summary", "#figure-confusion_test", "#summary .facts", "#summary ul", "nav")
    for width, height, parts in ((1440, 900, needed), (400, 800, (".headline",))):
        browser.open(page, width, height)
        assert {part: found for part in parts if (found := browser.run(bottom % part)) > height} == {}
        assert browser.run("scrollY") == 0
    browser.open(page, 1440, 900)
    browser.run("document.getElementById('trials').scrollIntoView({behavior: 'instant'})")
    assert 0 <= browser.run("document.querySelector('nav').getBoundingClientRect().top") < 900


def test_pictures_have_texts_headings_go_down_by_one_and_anchors_have_targets(browser, page):
    browser.open(page)
    assert (
        browser.run("""[...document.querySelectorAll("img, svg")].filter((one) => !(
        one.getAttribute("alt") || (one.closest("[role=img]") || one).getAttribute("aria-label"))).length""")
        == 0
    )
    headings = browser.run("""[...document.querySelectorAll("h1, h2, h3, h4")].map((one) => Number(one.tagName[1]))""")
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert (
        browser.run("""[...document.querySelectorAll('a[href^="#"]')]
        .filter((one) => !document.getElementById(one.hash.slice(1))).length""")
        == 0
    )
    assert browser.run("[...document.images].filter((one) => !one.complete || !one.naturalWidth).length") == 0
    assert browser.run("document.scripts.length") == 1


def test_the_table_of_all_trials_sorts_and_filters(browser, page):
    browser.open(page)
    scores = "[...rows].filter((row) => !row.hidden).map((row) => row.cells[column].dataset.v)"
    table = """(() => {
        const box = document.querySelector(".filterable");
        const heads = [...box.querySelectorAll("th")];
        const column = heads.findIndex((head) => head.textContent.trim() === "val macro F1");
        const press = (at) => heads[at].querySelector("button").click();
        const rows = box.querySelector("tbody").rows;
        %s
    })()"""
    down = browser.run(table % f"press(column); return {scores};")
    up = browser.run(table % f"press(column); return {scores};")
    numbers = [float(value) for value in down]
    assert numbers == sorted(numbers, reverse=True)
    assert [float(value) for value in up] == sorted(numbers)
    assert browser.run(table % "return heads[column].getAttribute('aria-sort');") == "ascending"
    type_in = "const field = box.querySelector('input'); field.value = '%s'; field.dispatchEvent(new Event('input'));"
    shown = "return [[...rows].filter((row) => !row.hidden).length, box.querySelector('.shown').textContent];"
    found, words = browser.run(table % (type_in % "mobilenet_v2" + shown))
    assert 0 < found < len(numbers)
    assert words == f"{found} of {len(numbers)} trials"
    assert browser.run(table % (type_in % "no such words" + shown)) == [0, f"0 of {len(numbers)} trials"]
    choose = "const list = box.querySelector('select'); list.value = 'failed'; list.dispatchEvent(new Event('change'));"
    failed, _ = browser.run(table % (type_in % "" + choose + shown))
    assert failed == browser.run(table % "return box.querySelectorAll('tbody .chip.failed').length;") > 0
    assert browser.messages == []
