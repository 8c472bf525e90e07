"""What a user wrote becomes the value that it stands for, or a sentence about it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import UserError
from sweep.values import READERS, comma_names, hyperparameters, names, number, read_values, seconds, text, whole


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90s", 90),
        ("45m", 2700),
        ("45 min", 2700),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d 2h", 93600),
        ("2H", 7200),
        ("3600", 3600),
        (3600, 3600),
        (0.5, 0.5),
        ("-1", -1),
    ],
)
def test_a_time_is_read_in_seconds(written: object, meant: float) -> None:
    assert seconds(written) == meant


@pytest.mark.parametrize("written", ["", "h", "2x", "2h x", "two hours", "1h-30m", "nan", "inf", True, None, [1]])
def test_what_is_no_time_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match=r"such as 90s, 45m, 2h.*received"):
        seconds(written)


@settings(deadline=None)
@given(days=st.integers(0, 9), hours=st.integers(0, 99), minutes=st.integers(0, 99), rest=st.integers(0, 99))
def test_the_parts_of_a_time_add_up(days: int, hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{days}d{hours}h{minutes}m{rest}s") == days * 86400 + hours * 3600 + minutes * 60 + rest


@settings(deadline=None)
@given(st.integers())
def test_every_whole_number_is_read_exactly(value: int) -> None:
    assert whole(value) == whole(str(value)) == value


@pytest.mark.parametrize(("written", "meant"), [("20.0", 20), (20.0, 20), ("1e2", 100)])
def test_a_whole_number_may_be_written_as_a_fraction(written: object, meant: int) -> None:
    assert whole(written) == meant


@pytest.mark.parametrize("written", ["x", "20.5", 20.5, True, None, "", "inf", [20]])
def test_what_is_no_whole_number_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number, received"):
        whole(written)


@pytest.mark.parametrize("written", ["x", "nan", float("inf"), True, None])
def test_what_is_no_finite_number_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="must be a number, received"):
        number(written)


def test_text_that_is_empty_or_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        text("  ")
    with pytest.raises(ValueError, match="put it in quotes"):
        text(2024)


def test_names_come_alone_in_a_list_or_with_commas() -> None:
    assert names("covid, suspected") == ("covid, suspected",)
    assert names(["a", "b"]) == ("a", "b")
    assert comma_names(["resnet18, vgg16", "densenet121"]) == ("resnet18", "vgg16", "densenet121")
    with pytest.raises(ValueError, match="must not be empty"):
        comma_names("resnet18,")


@pytest.mark.parametrize("written", [["lr=1e-3", "batch_size = 16"], {"lr": "1e-3", "batch_size": 16}])
def test_hyperparameters_get_the_type_of_their_field(written: object) -> None:
    assert hyperparameters(written) == {"lr": 0.001, "batch_size": 16}


def test_everything_wrong_with_hyperparameters_is_told_together() -> None:
    with pytest.raises(UserError) as caught:
        hyperparameters(["lr", "lrr=1", "batch_size=many", "dropout=0", "dropout=0.5", "=3"])
    told = caught.value.problems
    assert [problem.split(":")[0] for problem in told] == [
        "--set lr",
        "--set =3",
        "--set lrr=1",
        "--set batch_size=many",
        "--set dropout is given twice",
    ]
    assert "did you mean 'lr'" in told[2]


def test_values_that_can_be_read_are_kept_beside_those_that_cannot() -> None:
    read, problems = read_values({"epochs": "five", "trials": "5", "epoch": 3})
    assert read == {"trials": 5}
    assert problems == [
        "--epochs must be a whole number, received 'five'",
        "unknown setting epoch: did you mean epochs? --help lists all",
    ]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(READERS)), st.one_of(st.text(), st.integers(), st.booleans(), st.none())))
def test_no_input_is_worse_than_a_sentence(raw: dict[str, object]) -> None:
    read, problems = read_values(raw)
    assert read.keys() <= raw.keys()
    assert len(read) + len(problems) >= len(raw)
