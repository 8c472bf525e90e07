"""Miniatures of public data sets, made by ``tools/public_layouts.py`` of ``$SHARED_DIR``: read as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.prepare import list_samples
from trainables.data.samples import Samples
from trainables.data.splits import assign_splits

NAMES = (
    *("nih_chestxray14", "chexpert", "rsna_pneumonia", "covidx", "covid19_radiography", "kermany_kaggle_zip"),
    *("ham10000", "aptos", "vindr_cxr", "split_suffix_folders", "duplicates_without_split", "mura", "wrapper_folder"),
    *("synology_eadir", "list_cells", "uncertain_and_blank", "missing_files", "rare_classes"),
    *("jsonl_and_parquet_and_gz", "three_csvs"),
)
REFUSALS = {  # what a refusal names, of what the entry says in prose
    "nih_chestxray14": ("images_001", "images_002", "images_003", "Data_Entry_2017.csv"),
    "ham10000": ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_metadata.csv"),
    "mura": ("XR_WRIST", "XR_SHOULDER", "--class-from"),
}
UNDECIDED = {
    "chexpert": {
        "--blank-label": ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
        "--uncertain-label": ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
    },
    "covidx": {"--columns": ("header",)},
    "mura": {"--columns": ("header",)},
    "uncertain_and_blank": {
        "--blank-label": ("'Pneumonia' has 6",),
        "--uncertain-label": ("'Edema' has 6", "'Pneumonia' 4"),
    },
    "missing_files": {"--skip-missing": ("img/scan_007.png", "img/scan_031.png")},
}


@pytest.fixture
def expected(layouts: Path) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads((layouts / "expected.json").read_text())
    return entries


def config_of(out: Path, entry: dict[str, Any], decided: bool = True) -> DataConfig:
    """What a user gives, of what the entry says."""
    columns, decide = entry["columns"] or {}, entry.get("decide", {}) if decided else {}
    beside = {split: str(out / file) for split, file in entry.get("with", {}).items()}
    given = {
        "path_column": columns.get("path"),
        "label_column": columns.get("label"),
        "group_column": columns.get("group"),
        "split_column": columns.get("split"),
        "columns": entry.get("header") if decided else None,
        "val_data": beside.get("val"),
        "test_data": beside.get("test"),
        "group_from": entry.get("group_from"),
        "class_from": entry.get("class_from"),
        "task": "multi_label" if entry["task"] == "multi_label" else None,
        "blank_label": decide.get("blank"),
        "uncertain_label": decide.get("uncertain"),
        "skip_missing": decide.get("missing") == "skip" or None,
        "min_class_images": decide.get("least_images_a_class"),
        "split_names": decide.get("split_names"),
    }
    given = {name: value for name, value in given.items() if value is not None}
    return DataConfig.model_validate({"data": str(out / entry["open"]), "preset": "none", **given})


def split_counts(samples: Samples, wanted: dict[str, int] | None) -> dict[str, int] | None:
    """Of the splits that are given; ``train_and_val`` once val is drawn."""
    if samples.splits is None:
        return None
    assert wanted is not None
    drawn = list(assign_splits(samples.splits, samples.labels, samples.groups, seed=0).splits)
    counts = {split: drawn.count(split) for split in ("train", "val", "test") if split in drawn}
    if "train_and_val" in wanted:
        counts["train_and_val"] = counts.pop("train") + counts.pop("val")
    return counts


def test_every_layout_is_tried(expected: dict[str, Any]) -> None:
    assert expected.keys() == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_is_read_as_its_documentation_says(layouts: Path, expected: dict[str, Any], name: str) -> None:
    for other in ({}, *expected[name].get("also", ())):
        entry = expected[name] | other
        if "refuse" in entry:
            with pytest.raises(UserError) as error:
                list_samples(DataConfig(data=str(layouts / entry["open"]), preset="none"))
            assert [word for word in REFUSALS[name] if word not in str(error.value)] == []
            continue
        samples = list_samples(config_of(layouts, entry))
        assert samples.problems == ()
        assert (samples.task, len(samples)) == (entry["task"], entry["images"])
        assert list(samples.classes) == entry.get("labels", entry.get("classes"))
        assert len(set(samples.files)) == len(samples)
        assert all(file.is_file() for file in samples.files)
        assert split_counts(samples, entry["splits"]) == entry["splits"]
        assert (samples.groups and len(set(samples.groups))) == entry["groups"]
        if "label_counts" in entry:
            counts = samples.hot.sum(axis=0).tolist()
            assert dict(zip(samples.classes, counts, strict=True)) == entry["label_counts"]
        wanted = entry["left_out"] or {"count": 0}
        assert sum(one.count for one in samples.left_out) == wanted["count"], samples.left_out


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_only_the_user_can_decide_is_asked(layouts: Path, expected: dict[str, Any], name: str) -> None:
    try:
        problems = list_samples(config_of(layouts, expected[name], decided=False)).problems
    except UserError as error:
        problems = error.problems
    for option, named in UNDECIDED[name].items():
        sentences = [problem for problem in problems if option in problem]
        assert len(sentences) == 1, problems
        assert [word for word in named if word not in sentences[0]] == []


def test_each_asked_column_is_named_with_its_number(layouts: Path, expected: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        list_samples(config_of(layouts, expected["chexpert"], decided=False))
    base = layouts / "chexpert" / "CheXpert-v1.0-small"
    lines = [
        line.split(",") for split in ("train", "valid") for line in (base / f"{split}.csv").read_text().splitlines()
    ]
    for cell, option in (("", "--blank-label"), ("-1.0", "--uncertain-label")):
        sentence = next(problem for problem in error.value.problems if option in problem)
        for name in expected["chexpert"]["columns"]["label"]:
            column = [line[lines[0].index(name)] for line in lines]
            assert re.search(rf"'{name}' (has )?{column.count(cell)}\b", sentence)


def test_what_is_united_or_counted_once_is_noted(layouts: Path, expected: dict[str, Any]) -> None:
    rsna = list_samples(config_of(layouts, expected["rsna_pneumonia"]))
    assert "14 rows repeat an image with equal labels: counted once" in rsna.notes
    vindr = list_samples(config_of(layouts, expected["vindr_cxr"]))
    assert any(
        note.startswith("20 images have rows of different labels: an image has the labels") for note in vindr.notes
    )
    assert any("files that no row names: 4" in note for note in vindr.notes)
