from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.cache_memory import anonymous_mb
from benchmarks.demo_sweep import trial_share
from benchmarks.drawn_images import CLASSES, draw_images
from benchmarks.own_process import answer_of
from benchmarks.table import Row, render
from sweep.records import DatasetRecord, ProvenanceRecord, Run, SweepRecord
from sweep.run_folder import RunPaths


def test_a_measurement_is_ok_up_to_its_limit() -> None:
    assert Row("time", 240.0, "s", 240.0).verdict == "ok"
    assert Row("time", 240.1, "s", 240.0).verdict == "over"
    assert Row("share", 0.9, "", 0.9, at_least=True).verdict == "ok"
    assert Row("share", 0.89, "", 0.9, at_least=True).verdict == "below"
    assert Row("for comparison", 5.0).verdict == ""


def test_what_could_not_be_measured_is_not_ok() -> None:
    assert Row("time", math.nan, "s", 240.0).verdict == "over"
    assert Row("share", math.nan, "", 0.9, at_least=True).verdict == "below"


def test_the_table_has_a_line_a_row_with_its_limit_and_verdict() -> None:
    lines = render([Row("demo", 180.4, "s", 240.0), Row("  beside it", 2.125, "s")]).splitlines()
    assert lines[2].split() == ["demo", "180", "s", "at", "most", "240", "s", "ok"]
    assert lines[3].split() == ["beside", "it", "2.12", "s"]


def test_drawn_images_are_gray_of_the_asked_size_and_number_and_no_two_are_alike(tmp_path: Path) -> None:
    draw_images(tmp_path, {"train": 6, "val": 3}, size=40)
    files = sorted(tmp_path.glob("*/*/*.jpg"))
    assert len(files) == 9
    assert {path.parent.name for path in files} == set(CLASSES)
    images = [np.asarray(Image.open(path)) for path in files]
    assert {image.shape for image in images} == {(40, 40)}
    assert len({image.tobytes() for image in images}) == 9


def test_anonymous_memory_is_read_from_the_kernels_text() -> None:
    text = "00400000-7fff0000 ---p 00000000 00:00 0 [rollup]\nRss:  900000 kB\nAnonymous:         1000 kB\n"
    assert anonymous_mb(text) == pytest.approx(1.024)


def test_the_share_of_the_trials_is_of_all_that_ran_at_once(tmp_path: Path) -> None:
    trials = pd.DataFrame({"seconds": [60.0, 90.0]})
    records = SweepRecord(concurrency=2), ProvenanceRecord(), DatasetRecord()
    run = Run(RunPaths(tmp_path), *records, trials, pd.DataFrame())
    assert trial_share(run, 100.0) == pytest.approx(75.0)


def test_a_measurement_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="No module named"):
        answer_of("benchmarks.no_such_benchmark")
