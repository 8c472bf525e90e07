"""Each public set that is known trains as it was downloaded: by ``--data`` alone, or the option of its README row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from public_sets import MINIATURES
from refused import SMALL
from whole_sweep import run_sweep

from sweep.records import read_run
from trainables.data.config import DataConfig
from trainables.data.prepare import inspect

pytestmark = pytest.mark.long

UNCERTAIN = {"uncertain_label": "0"}
LAYOUTS: dict[str, dict[str, str]] = {  # of public_layouts.py, with what its user must decide
    "nih_chestxray14": {},
    "chexpert": UNCERTAIN,
    "rsna_pneumonia": {},
    "covidx": {},
    "covid19_radiography": {},
    "kermany_kaggle_zip": {},
    "ham10000": {},
    "aptos": {},
    "vindr_cxr": {},
    "mura": {},
}

FURTHER = ("mimic_cxr_jpg", "isic_2019", "hf_imagefolder", "medmnist_chest")
"""Of our own miniatures, those that are read in ways of their own; test_presets.py makes all of them ready."""


def trained(data: Path, storage: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Train one epoch on ``data``; its dataset.json. The split is the one that a dry run shows."""
    given = [
        f"--{name.replace('_', '-')}={value}"
        for name, values in options.items()
        for value in (values if isinstance(values, list | tuple) else [values])
    ]
    shown = inspect(DataConfig.model_validate({"data": str(data), **options}))
    done = run_sweep("--data", data, *SMALL, "--finalists", "0", "--storage", storage, "--name", "one", *given)
    assert done.code == 0, done.errors
    run = read_run(storage / "one")
    assert list(run.trials["status"]) == ["completed"]
    dataset: dict[str, Any] = json.loads((storage / "one" / "dataset.json").read_text())
    assert shown["images"] == dataset["images"]
    assert shown["left_out"] == dataset["left_out"]
    return dataset


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_public_set_trains_as_it_was_downloaded(layout: str, layouts: Path, tmp_path: Path) -> None:
    expected = json.loads((layouts / "expected.json").read_text())[layout]
    dataset = trained(layouts / layout, tmp_path, LAYOUTS[layout])
    assert dataset["preset"] is not None
    assert sum(dataset["images"].values()) == expected["images"]


@pytest.mark.parametrize("name", FURTHER)
def test_a_further_set_trains_as_it_was_downloaded(name: str, tmp_path: Path) -> None:
    right = MINIATURES[name](tmp_path / "set")
    dataset = trained(tmp_path / "set" / right.data[0], tmp_path / "runs", dict(right.options))
    assert (dataset["preset"] or "none") == right.preset
    assert tuple(dataset["classes"]) == right.classes
