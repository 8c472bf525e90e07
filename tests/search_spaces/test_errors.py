"""UserError: all problems of one input, in one answer."""

from __future__ import annotations

import pickle

import pytest

from search_spaces.errors import UserError, by_reason, raise_all, shown_problems, some, unknown


def test_the_message_holds_every_problem() -> None:
    assert str(UserError("no data", "no task")) == "no data\nno task"


def test_no_problem_raises_nothing() -> None:
    raise_all([])


def test_problems_are_raised_together() -> None:
    with pytest.raises(UserError) as caught:
        raise_all(["one", "two"])
    assert caught.value.problems == ("one", "two")


def test_the_error_survives_the_way_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(UserError("one", "two"))).problems == ("one", "two")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_allowed() -> None:
    assert (
        unknown("sampler", "tep", ["tpe", "random"]) == "unknown sampler 'tep': did you mean 'tpe'? "
        "allowed: random, tpe"
    )
    assert "did you mean" not in unknown("sampler", "xyz", ["tpe", "random"])


def test_what_was_left_out_for_one_reason_stands_together():
    assert by_reason({"W1": "asked", "W2": "no weights", "W3": "asked"}) == ["W1, W3: asked", "W2: no weights"]


def test_ten_problems_are_shown_and_the_others_counted() -> None:
    problems = [f"problem {number}" for number in range(320)]
    assert shown_problems(problems) == [*problems[:10], "… and 310 more"]
    assert shown_problems(problems[:10]) == problems[:10]


def test_the_first_of_many_names_are_given_and_the_others_counted() -> None:
    assert some(range(3), 3) == "0, 1, 2"
    assert some(("a", "b", "c"), 1) == "a and 2 more"


def test_of_each_kind_of_problem_one_is_shown_before_another_has_more() -> None:
    rows = [f"row {number}: the label is empty" for number in range(1, 301)]
    files = [f"/data/{number}.png stands 2 times" for number in range(20)]
    problems = [*rows, *files, "--metric: unknown metric 'x'"]
    assert shown_problems(problems) == [*rows[:8], files[0], problems[-1], "… and 311 more"]
