"""Text that a spreadsheet would run is shown in tables for people, and kept as it is in a run's own files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainables.data.config import DataConfig
from trainables.data.prepare import prepare
from trainables.spreadsheet import RUN, shown_cell


@given(st.sampled_from(RUN), st.text().filter(lambda text: not any(one.isdigit() for one in text)))
def test_what_begins_as_a_formula_is_shown(first: str, rest: str) -> None:
    assert shown_cell(first + rest) == f"'{first}{rest}".replace("\r", " ")


@given(
    st.text().filter(lambda text: not text.startswith(RUN) and "\r" not in text)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.none()
)
def test_all_else_stays(value: object) -> None:
    assert shown_cell(value) == value


@pytest.mark.parametrize("value", ["-1.5", "+3", "-2.5e-07", "1=1", "", " =1"])
def test_a_number_stays_one(value: str) -> None:
    assert shown_cell(value) == value


@pytest.mark.parametrize("value", ["-a", "-2+3+cmd|' /C calc'!A0", "+1+1", "-1.5 (-2 to -1)"])
def test_a_sign_before_anything_else_may_begin_a_formula(value: str) -> None:
    assert shown_cell(value) == f"'{value}"


def test_the_files_of_a_run_hold_names_as_they_are(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("=a", "@b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = chance.integers(0, 256, (32, 32), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"+{number}.png")
    run = tmp_path / "run"
    prepare(DataConfig(data=str(tmp_path / "data"), image_size=32), run, tmp_path / "cache", workers=1)
    with (run / "splits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"=a", "@b"}
    assert all((tmp_path / "data" / row["path"]).is_file() for row in rows)
