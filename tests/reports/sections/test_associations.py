"""The section on what went with good scores: labelled as association, drawn only where there is enough to draw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from searched_run import write_searched

from reports.data import gather
from reports.page import association_figures
from reports.page.blocks import Note, Text
from reports.sections import associations
from reports.trials import importance


@pytest.fixture(autouse=True)
def few_shuffles(monkeypatch):
    """What the section draws does not hang on how finely chance was measured."""
    monkeypatch.setattr(importance, "SHUFFLES", 6)


def score(params, epoch):
    return 0.6 + 0.2 * (params.backbone == "resnet18") + 0.01 * params.dropout


def section_of(root):
    return associations.section(gather(root))


def words(section):
    return " ".join(block.text for block in section.blocks if isinstance(block, Text | Note))


def test_the_section_says_association_before_anything_else_and_draws_importance_slices_and_parallel_axes(tmp_path):
    section = section_of(write_searched(tmp_path / "run", score, trials=30, epochs=5))
    assert isinstance(section.blocks[0], Note)
    assert section.blocks[0].text.startswith("Associations, not causes.")
    names = [picture.name for picture in section.pictures()]
    assert names == ["importance", *(f"slice_{place}" for place in range(1, 7)), "parallel_coordinates"]
    assert [table.name for table in section.tables()] == ["importance"]
    assert "PED-ANOVA" in words(section)
    assert "backbone" in words(section).split("Beyond chance:")[1]
    assert all(len(picture.alt) > 15 for picture in section.pictures())


def test_the_same_run_gives_the_same_bytes(tmp_path):
    root = write_searched(tmp_path / "run", score, trials=20, epochs=3)
    first, second = section_of(root), section_of(root)
    assert [p.drawing for p in first.pictures()] == [p.drawing for p in second.pictures()]


def test_what_was_compared_and_left_out_is_said(tmp_path):
    root = write_searched(tmp_path / "run", score, trials=24, statuses=("completed", "pruned", "failed", "running"))
    text = words(section_of(root))
    assert "12 trials are compared by their best validation macro F1 within the first 3 epochs" in text
    assert "Left out: 6 failed and 6 without an end." in text


@pytest.mark.parametrize(("trials", "status"), [(0, "completed"), (9, "completed"), (30, "failed"), (12, "running")])
def test_too_few_trials_are_told_and_nothing_is_drawn(write_run, trials, status):
    section = section_of(write_run(trials=trials, statuses=(status,)))
    assert section.pictures() == []
    assert "can be compared" in words(section)
    assert "at least 10 are needed" in words(section)


def test_equal_scores_are_told(tmp_path):
    section = section_of(write_searched(tmp_path / "run", lambda params, epoch: 0.5, trials=16, epochs=2))
    assert "All trials have the same score" in words(section)


def test_a_search_in_which_nothing_mattered_says_so(tmp_path):
    root = write_searched(tmp_path / "run", lambda params, epoch: (params.weight_decay * 1e7) % 1, trials=14, seed=5)
    section = section_of(root)
    beyond = section.tables()[0].frame["times_chance"] > 1
    assert ("No parameter departs further" in words(section)) == (not beyond.any())


def test_a_thousand_marks_are_pixels_within_the_svg():
    rng = np.random.default_rng(0)
    values = pd.Series(rng.random(1000), dtype=object)
    drawing = association_figures.slice_plot(values, rng.random(1000), FloatDistribution(0, 1), "dropout", "score", 3)
    assert len(drawing.svg) < 150_000
    assert "<image" in drawing.svg
    few = association_figures.slice_plot(values[:50], rng.random(50), FloatDistribution(0, 1), "dropout", "score", 3)
    assert "<image" not in few.svg


def test_of_many_trials_the_best_and_some_others_have_a_line_and_that_is_said(tmp_path):
    section = section_of(write_searched(tmp_path / "run", score, trials=160, statuses=("completed",), epochs=1))
    parallel = section.pictures()[-1]
    assert "Drawn: the 40 best and 110 others, picked at random." in parallel.caption
    assert "Drawn" not in section_of(write_searched(tmp_path / "few", score, trials=20)).pictures()[-1].caption


def test_choices_with_markup_stand_in_a_figure_as_they_are():
    values = pd.Series(["<b>$x$</b>", "a & b"] * 4, dtype=object)
    kind = CategoricalDistribution(("<b>$x$</b>", "a & b"))
    drawing = association_figures.slice_plot(values, np.arange(8.0), kind, "head <i>", "score", 0)
    assert "&lt;b&gt;$x$&lt;/b&gt;" in drawing.svg
    assert "<b>" not in drawing.svg
    assert "<i>" not in drawing.svg


def test_head_widths_stand_by_size_and_words_first():
    values = pd.Series(["1024+512", "none", "128", "256+128", "1024"])
    assert association_figures.choices_of(values) == ["none", "128", "256+128", "1024", "1024+512"]
