"""Each public set that is known trains as it was downloaded, or with the option of its README row."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from refused import SMALL
from trained_run import trained_run
from whole_sweep import run_sweep

from reports.build import build
from sweep.records import read_run
from trainables.data.config import DataConfig
from trainables.data.prepare import inspect

pytestmark = pytest.mark.long

LAYOUTS: dict[str, dict[str, str]] = {  # of public_layouts.py, with what its user must decide
    "nih_chestxray14": {},
    "chexpert": {"uncertain_label": "0"},
    "rsna_pneumonia": {},
    "kermany_kaggle_zip": {},
    "ham10000": {},
    "vindr_cxr": {},
}
"""The others are read by test_public_layouts.py, and our own miniatures made ready for trials by test_presets.py."""
BY_A_SWEEP = "chexpert"
"""It has an option; of the others a trial is run and a report built."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_public_set_trains_as_it_was_downloaded(layout: str, layouts: Path, tmp_path: Path) -> None:
    """The split is the one that a dry run shows."""
    options, root = LAYOUTS[layout], tmp_path / "one"
    request = DataConfig.model_validate({"data": str(layouts / layout), "image_size": 32, **options})
    shown = inspect(request)
    if layout == BY_A_SWEEP:
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        place = ("--storage", tmp_path, "--name", "one")
        done = run_sweep("--data", layouts / layout, *SMALL, "--finalists", "0", *place, *given)
        assert done.code == 0, done.errors
    else:
        trained_run(root, request)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of the process that draws the page nobody hears them.
            build(root)
    trials = read_run(root).trials
    assert list(trials["status"]) == ["completed"]
    assert trials["val_f1_macro"].notna().all()
    dataset = json.loads((root / "dataset.json").read_text())
    assert shown["images"] == dataset["images"]
    assert shown["left_out"] == dataset["left_out"]
    assert dataset["preset"] is not None
    expected = json.loads((layouts / "expected.json").read_text())[layout]
    assert sum(dataset["images"].values()) == expected["images"]
