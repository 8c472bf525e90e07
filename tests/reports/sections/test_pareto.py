"""What a score costs: who is on a front, and what is said where costs are not known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.data import gather
from reports.page.blocks import Text
from reports.sections import pareto
from sweep.run_folder import RunPaths

numbers = st.one_of(st.integers(-5, 5).map(float), st.just(math.nan))


@given(st.lists(st.tuples(numbers, numbers), max_size=12), st.sampled_from(["max", "min"]))
def test_a_trial_is_on_the_front_exactly_if_none_dominates_it(pairs, mode):
    costs = np.array([cost for cost, _ in pairs])
    scores = np.array([score for _, score in pairs])
    on = pareto.front(costs, scores, mode)
    sign = 1 if mode == "max" else -1
    known = [i for i in range(len(pairs)) if math.isfinite(costs[i]) and math.isfinite(scores[i])]

    def dominated(i):
        return any(
            costs[j] <= costs[i]
            and sign * scores[j] >= sign * scores[i]
            and (costs[j] < costs[i] or sign * scores[j] > sign * scores[i] or j < i)
            for j in known
            if j != i
        )

    assert sorted(on) == [i for i in known if not dominated(i)]
    assert list(costs[on]) == sorted(costs[on])


def words(section):
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def with_latency(root, milliseconds):
    for place, folder in enumerate(sorted(RunPaths(root).trial_folders())):
        path = folder / "result.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        timed = [row | {"inference_ms_per_image": milliseconds(place)} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in timed))


def test_the_table_names_for_each_trial_the_fronts_it_is_on(write_run):
    evidence = gather(write_run(trials=20))
    section = pareto.section(evidence)
    (table,) = section.tables()
    ranked = evidence.ranked
    for name, words_of in (("trainable_params", "trainable parameters"), ("seconds", "time to train")):
        for row in table.frame.to_dict("records"):
            cheaper = ranked[ranked[name] <= row[name]]
            assert (words_of in row["fronts"]) == (cheaper["score"].max() <= row["score"])
    assert [picture.name for picture in section.pictures()] == ["pareto_trainable_params", "pareto_seconds"]
    assert "Time to answer was not recorded" in words(section)


def test_time_to_answer_has_a_front_of_its_own_where_it_was_recorded(write_run):
    root = write_run(trials=12)
    with_latency(root, lambda place: 3.0 + place)
    section = pareto.section(gather(root))
    assert "pareto_inference_ms_per_image" in [picture.name for picture in section.pictures()]
    assert "compare it within this run only" in words(section)


def test_finalists_are_drawn_with_their_spread(write_run):
    section = pareto.section(gather(write_run(trials=12, finals={})))
    assert "Repeats of one configuration differ by a standard deviation of 0.0" in words(section)
    assert "finalist, repeated" in section.pictures()[0].drawing.svg
    alone = pareto.section(gather(write_run("alone", trials=12)))
    assert "finalist" not in words(alone)
    assert "finalist" not in alone.pictures()[0].drawing.svg


@pytest.mark.parametrize("trials", [0, 2])
def test_fewer_than_three_scores_are_not_weighed(write_run, trials):
    section = pareto.section(gather(write_run(trials=trials, statuses=("completed",))))
    assert section.tables() == []
    assert "Fewer than three trials have a score" in words(section)


def test_a_lower_metric_puts_the_lowest_on_the_front(write_run):
    evidence = gather(write_run(trials=12, statuses=("completed",), sweep={"metric": "val_nll", "mode": "min"}))
    (table,) = pareto.section(evidence).tables()
    assert table.frame["score"].iloc[0] == evidence.trials["score"].min()
