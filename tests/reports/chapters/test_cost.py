"""Cost and accuracy: which trials no cheaper one beats, and what is said where there is nothing to weigh."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_chapter import figures, results_of, tables, texts
from run_files import WriteRun

from reports.chapters.cost import chapter, front

numbers = st.one_of(st.integers(-5, 5).map(float), st.just(math.nan))


@given(st.lists(st.tuples(numbers, numbers), max_size=12), st.sampled_from(["max", "min"]))
def test_a_trial_is_on_the_front_exactly_if_none_dominates_it(pairs: list[tuple[float, float]], mode: str) -> None:
    trials = pd.DataFrame(pairs, columns=["trainable_params", "score"], dtype="float64")
    costs, scores = (trials[name].to_numpy() for name in trials)
    on = front(trials.dropna(), mode).index.tolist()
    sign = 1 if mode == "max" else -1
    known = [i for i in range(len(pairs)) if math.isfinite(costs[i]) and math.isfinite(scores[i])]

    def dominated(i: int) -> bool:
        return any(
            costs[j] <= costs[i]
            and sign * scores[j] >= sign * scores[i]
            and (costs[j] < costs[i] or sign * scores[j] > sign * scores[i] or j < i)
            for j in known
            if j != i
        )

    assert sorted(on) == [i for i in known if not dominated(i)]
    assert list(costs[on]) == sorted(costs[on])


def test_one_plot_shows_the_front_and_its_table_is_folded(write_run: WriteRun) -> None:
    results = results_of(write_run(trials=20))
    found = chapter(results)
    assert list(figures(found)) == ["cost"]
    table = tables(found)["cost_front"]
    assert table.folded
    ranked = results.data.ranked
    for row in ranked.to_dict("records"):
        cheaper = ranked[ranked["trainable_params"] <= row["trainable_params"]]
        assert (row["number"] in set(table.frame["number"])) == (cheaper["score"].max() <= row["score"])


def test_finalists_are_drawn_with_their_spread(write_run: WriteRun) -> None:
    found = chapter(results_of(write_run(trials=12, finals={})))
    assert "Repeats of one configuration have a standard deviation of 0.0" in texts(found)
    assert "finalists, mean over repeats" in figures(found)["cost"].caption
    folded = chapter(results_of(write_run("folded", trials=12, finals={"folds": 3})))
    assert "standard deviation" not in texts(folded), "folds validate on other images each"
    alone = chapter(results_of(write_run("alone", trials=12)))
    assert "Repeats" not in texts(alone)
    assert "finalists" not in figures(alone)["cost"].caption


@pytest.mark.parametrize("trials", [0, 2])
def test_fewer_than_three_scores_are_not_weighed(write_run: WriteRun, trials: int) -> None:
    found = chapter(results_of(write_run(trials=trials, statuses=("completed",))))
    assert tables(found) == {}
    assert "Fewer than three trials have a score" in texts(found)


def test_a_lower_metric_puts_the_lowest_on_the_front(write_run: WriteRun) -> None:
    changes = {"metric": "val_nll", "mode": "min"}
    results = results_of(write_run(trials=12, statuses=("completed",), sweep=changes))
    frame = tables(chapter(results))["cost_front"].frame
    assert frame["score"].iloc[-1] == results.data.trials["score"].min()
