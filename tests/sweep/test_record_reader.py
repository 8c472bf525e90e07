"""A value that does not fit is left out with its sentence, and the rest of the record is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.evaluation_records import EvaluationRecord
from sweep.record_reader import Number, Record, is_there, read_record
from sweep.records import DatasetRecord, SweepRecord
from sweep.trial_records import EpochRecord, Finals

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_what_fits_stays_as_it_is_and_nothing_is_said() -> None:
    problems: list[str] = []
    values: dict[str, Any] = {"settings": {"lr": 0.1}, "ended": None, "new": [1], "trials": 4.0}
    sound = values | {"epochs": 3, "command": ["--trials", "4"]}
    found = read_record(SweepRecord, sound, "sweep.json", problems)
    assert (found.epochs, found.command, found.settings, found.ended) == (3, ("--trials", "4"), {"lr": 0.1}, None)
    assert found.trials == 4
    assert problems == []


def test_what_does_not_fit_is_left_out_by_name_and_its_neighbours_stay() -> None:
    problems: list[str] = []
    dataset: dict[str, Any] = {
        "counts": {"val": {"a": "many", "b": 3, "c": None}},
        "classes": ["a", 2],
        "caveats": "none",
        "demo": True,
        "dropped": [{"path": "x.png"}, 3, {"path": 5, "reason": "torn"}],
        "source": ["x"],
    }
    found = read_record(DatasetRecord, dataset, "dataset.json", problems)
    assert (found.counts, found.classes, found.caveats, found.demo) == ({"val": {"b": 3}}, (), (), True)
    assert [(one.path, one.reason) for one in found.dropped] == [("x.png", ""), ("", "torn")]
    assert sorted(problems) == [
        "dataset.json: caveats is not a list: left out",
        "dataset.json: classes[1] is not text: left out",
        "dataset.json: counts: val: a is not a whole number: left out",
        "dataset.json: dropped[1] is not an object: left out",
        "dataset.json: dropped[2]: path is not text: left out",
        "dataset.json: source is not an object: left out",
    ]


def test_of_a_setting_that_is_text_or_a_number_all_else_is_left_out() -> None:
    problems: list[str] = []
    sweep: dict[str, Any] = {"concurrency": {"a": 1}, "epochs": 3}
    found = read_record(SweepRecord, sweep, "sweep.json", problems)
    assert (found.concurrency, found.epochs) == (None, 3)
    assert problems == ["sweep.json: concurrency is not text or a number: left out"]


class OneOfTwo(Record):
    """Pydantic names a kind of value behind the field: no step that leads anywhere in the JSON."""

    value: int | str = 0
    other: Number = 0.0


def test_what_cannot_be_found_by_its_name_is_not_looked_for_for_ever() -> None:
    problems: list[str] = []
    assert read_record(OneOfTwo, {"value": {}, "other": 1.0}, "a.json", problems) == OneOfTwo()
    assert problems
    assert all(problem.startswith("a.json: value") for problem in problems)


def test_an_undefined_score_survives_writing_and_reading() -> None:
    problems: list[str] = []
    line = json.loads('{"epoch": 2, "val_auroc:a": NaN, "val_nll": null, "val_loss": Infinity, "train_loss": 0.5}')
    found = EpochRecord.from_line(line, "result.jsonl line 1", problems)
    assert problems == []
    assert {key for key, value in found.metrics.items() if math.isnan(value)} == {"val_auroc:a", "val_nll", "val_loss"}
    again = EpochRecord.model_validate_json(found.model_dump_json())
    assert math.isnan(again.score("val_auroc:a"))
    assert again.score("train_loss") == 0.5


def test_an_epoch_names_the_metric_that_is_no_number() -> None:
    problems: list[str] = []
    found = EpochRecord.from_line({"epoch": 1, "val_f1": "high", "lr": [1], "val_nll": 1}, "line 1", problems)
    assert (found.epoch, found.lr, found.metrics) == (1, None, {"val_nll": 1.0})
    assert problems == ["line 1: val_f1 is not a number: left out", "line 1: lr is not a number: left out"]


@pytest.mark.parametrize("kind", [DatasetRecord, SweepRecord, EvaluationRecord, Finals])
@given(data=st.data())
def test_whatever_a_record_holds_what_is_kept_fits(kind: type[Record], data: st.DataObject) -> None:
    names = sorted(one.alias or name for name, one in kind.model_fields.items())
    found = read_record(kind, data.draw(st.dictionaries(st.sampled_from(names), JSON)), "a.json", [])
    problems: list[str] = []
    kept = json.loads(found.model_dump_json(by_alias=True))
    assert read_record(kind, kept, "a.json", problems).model_dump_json() == found.model_dump_json()
    assert problems == []


def test_what_may_not_be_looked_at_counts_as_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since Python 3.14 ``Path.exists`` says False of it."""
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert not is_there(tmp_path / "nothing")
    assert is_there(tmp_path / ("n" * 300))
