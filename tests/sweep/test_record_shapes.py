from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sweep.record_shapes import DATASET, SWEEP, fitting

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_what_fits_stays_as_it_is_and_nothing_is_said() -> None:
    problems: list[str] = []
    sound: dict[str, Any] = {
        "epochs": 3,
        "command": ["--trials", "4"],
        "set": {"lr": 0.1},
        "ended": None,
        "new": [1],
    }
    assert fitting(sound, SWEEP, "sweep.json", problems) == sound
    assert problems == []


def test_what_does_not_fit_is_left_out_by_name_and_its_neighbours_stay() -> None:
    problems: list[str] = []
    dataset = {"counts": {"val": {"a": "many", "b": 3}}, "classes": ["a", 2], "caveats": "none", "demo": True}
    assert fitting(dataset, DATASET, "dataset.json", problems) == {"counts": {"val": {"b": 3}}, "demo": True}
    assert problems == [
        "dataset.json: counts: val: a is not a whole number: left out",
        "dataset.json: classes[1] is not text: left out",
        "dataset.json: marks is not a list: left out",
    ]


@given(value=st.dictionaries(st.sampled_from(sorted(DATASET)), JSON))
def test_whatever_a_record_holds_what_is_kept_fits(value: dict[str, Any]) -> None:
    kept = fitting(value, DATASET, "dataset.json", [])
    problems: list[str] = []
    assert fitting(kept, DATASET, "dataset.json", problems) == kept
    assert problems == []
