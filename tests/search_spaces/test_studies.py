"""The five studies as fixed lists: every row stands there once, and runs what was claimed or says why not."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import torchvision

from search_spaces.errors import UserError
from search_spaces.params import SpaceContext, TrialParams
from search_spaces.space import load_space
from search_spaces.studies import DESCRIPTIONS, published, rows_of

STUDIES = {"bscs17028": "W", "msds18022": "H", "msds19058": "M", "msds19005": "Z", "msds19042": "A"}
ROWS = {"bscs17028": 10, "msds18022": 12, "msds19058": 33, "msds19005": 10, "msds19042": 10}
UNFIT = {"msds18022": {"H7", "H13"}, "msds19058": {"M8", "M10", "M28", "M29", "M30", "M31", "M32", "M33"}}


def params_of(row_id: str) -> TrialParams:
    (row,) = (row for study in STUDIES for row in rows_of(study) if row.id == row_id)
    assert row.params is not None
    return row.params


def context(task: str, train_count: int = 4200, backbones: tuple[str, ...] = ("resnet18", "vgg16")) -> SpaceContext:
    return SpaceContext(task=task, class_count=3, train_count=train_count, backbones=backbones)


@pytest.mark.parametrize("study", STUDIES)
def test_every_row_of_a_study_stands_there_once(study: str) -> None:
    ids = [row.id for row in rows_of(study)]
    assert len(ids) == len(set(ids)) == ROWS[study]
    assert {row_id[0] for row_id in ids} == {STUDIES[study]}
    assert {row.id for row in rows_of(study) if row.params is None} == UNFIT.get(study, set())


def test_the_rows_are_those_of_the_list_of_results(shared_dir: Path) -> None:
    with (shared_dir / "reference" / "study_results.csv").open(encoding="utf-8", newline="") as file:
        listed = {row["id"]: row for row in csv.DictReader(file)}
    ours = {row.id: row for study in STUDIES for row in rows_of(study)}
    assert ours.keys() == listed.keys()
    for row_id, row in ours.items():
        theirs = listed[row_id]
        assert row.epochs == int(theirs["epochs"])
        assert theirs["accuracy_pct"].removesuffix(".0") in row.claim
        if row.params is None:
            continue
        assert row.params.backbone == theirs["backbone"]
        assert row.params.batch_size == int(theirs["batch_size"])
        assert row.params.momentum == float(theirs["momentum"])
        assert row.params.dropout == float(theirs["dropout"])
        assert row.params.to_flat()["head_widths"] == theirs["head_widths"]
        assert row.params.loss == theirs["loss"]
        if theirs["lr"] != "plateau 1e-5 x10":
            assert row.params.lr == float(theirs["lr"])
        if theirs["focal_gamma"]:
            assert row.params.focal_gamma == float(theirs["focal_gamma"])
        if theirs["confusion"].startswith("{"):
            pneumonia = json.loads(theirs["confusion"])["pneumonia"]
            positives = pneumonia[2] + pneumonia[3]
            assert (row.task == "multi_label") == (positives == 228)  # 200 of pneumonia and the 28 of covid


@pytest.mark.parametrize(
    ("row_id", "depth", "layers"),
    [
        ("W1", 0, ()),
        ("W3", 4, ()),
        ("W5", None, ("features.10",)),
        ("H5", 1, ()),
        ("H6", None, ("features.28",)),
        ("M7", None, ("features.26", "features.28")),
        ("M11", None, ("layer4.1.bn1", "layer4.1.conv2", "layer4.1.bn2")),
        ("Z5a", 1, ()),
        ("Z5b", 1, ()),
        ("A2", None, ("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2")),
        ("A5", None, ("features.0", "features.2", "features.5", "features.7")),
    ],
)
def test_what_a_study_claims_to_unfreeze_is_unfrozen(row_id: str, depth: int | None, layers: tuple[str, ...]) -> None:
    params = params_of(row_id)
    assert (params.unfreeze_depth, params.unfreeze_layers) == (depth, layers)


@pytest.mark.parametrize(("row_id", "head", "last"), [("M7", "classifier.", 4), ("M11", "fc.", 5)])
def test_the_last_tensors_of_a_study_are_those_of_the_layers_it_is_given(row_id: str, head: str, last: int) -> None:
    params = params_of(row_id)
    with torch.device("meta"):  # names and shapes only: VGG-16's 138 million weights stay unallocated
        network = torchvision.models.get_model(params.backbone, weights=None)
    names = [name for name, _ in network.named_parameters() if not name.startswith(head)]
    chosen = [name for name in names if name.rpartition(".")[0] in params.unfreeze_layers]
    assert chosen == names[-last:]


def test_an_alpha_that_scaled_everything_is_off_and_one_that_weighs_is_kept() -> None:
    assert params_of("H10").focal_alpha is None
    assert params_of("A9").focal_alpha is None
    assert params_of("M18").focal_alpha == params_of("Z6").focal_alpha == 0.25


@pytest.mark.parametrize(
    ("study", "single", "multi"),
    [("bscs17028", 6, 4), ("msds18022", 6, 4), ("msds19058", 16, 9), ("msds19005", 6, 4)],
)
def test_a_study_runs_the_rows_of_the_task_at_hand_and_accounts_for_the_others(
    study: str, single: int, multi: int
) -> None:
    for task, expected in (("single_label", single), ("multi_label", multi)):
        space = load_space(f"studies.{study}", context(task))
        assert space.fixed is not None
        assert len(space.fixed) == len(space.rows) == expected
        assert tuple(row.params for row in space.rows) == space.fixed
        assert {row.task for row in space.rows} == {task}
        assert len(space.left_out) == ROWS[study] - expected
        assert all(space.left_out.values())


def test_a_study_without_a_row_for_the_task_says_so() -> None:
    with pytest.raises(UserError, match=r"studies.msds19042 has no multi_label trial: all its trials are single_label"):
        load_space("studies.msds19042", context("multi_label"))


def test_rows_that_do_not_fit_the_data_or_the_weights_are_left_out_with_the_reason() -> None:
    space = load_space("studies.msds18022", context("single_label", train_count=50, backbones=("vgg16",)))
    assert [row.id for row in space.rows] == ["H4", "H6"]
    assert "batch_size 60 is above the 50 images" in space.left_out["H3"]
    assert "backbone resnet18 is not one of this sweep's" in space.left_out["H1"]


def test_a_study_of_which_nothing_fits_is_refused_with_each_reason_once() -> None:
    with pytest.raises(UserError) as caught:
        load_space("studies.bscs17028", context("single_label", train_count=100))
    (problem,) = caught.value.problems
    assert "W1, W2, W3, W4, W5, W6: batch_size 128 is above the 100 images of the training split" in problem


def test_only_the_rows_that_are_asked_for_are_run_in_the_order_of_the_study() -> None:
    space = load_space("studies.msds19042", context("single_label"), rows=("A9", "A7"))
    assert [row.id for row in space.rows] == ["A7", "A9"]
    assert space.left_out["A1"] == "not among --rows"


def test_a_row_that_a_study_does_not_have_is_told_with_those_that_it_has() -> None:
    with pytest.raises(UserError, match=r"--rows: unknown row 'W4': allowed: A1, A10, A2"):
        load_space("studies.msds19042", context("single_label"), rows=("A1", "W4"))


def test_a_row_that_was_asked_for_is_never_left_out_in_silence() -> None:
    with pytest.raises(UserError) as caught:
        load_space("studies.bscs17028", context("single_label", backbones=("resnet18",)), rows=("W1", "W2", "W7"))
    assert caught.value.problems == (
        "--rows W1: studies.bscs17028 cannot run it here: backbone vgg16 is not one of this sweep's: resnet18; name it "
        "in --backbones",
        "--rows W7: studies.bscs17028 cannot run it here: a multi_label trial, and the task is single_label",
    )


def test_a_value_can_be_fixed_in_every_row_of_a_study() -> None:
    space = load_space("studies.bscs17028", context("single_label", train_count=100), {"batch_size": "32"})
    assert space.fixed is not None
    assert {params.batch_size for params in space.fixed} == {32}
    layers = {params.unfreeze_layers for params in space.fixed}
    assert ("features.10",) in layers


def test_a_value_that_a_row_cannot_take_is_refused_with_the_row() -> None:
    with pytest.raises(UserError, match=r"studies.msds19005 Z6: focal_alpha and class_weights=balanced"):
        load_space("studies.msds19005", context("multi_label"), {"class_weights": "balanced"})


def test_each_study_is_described() -> None:
    assert DESCRIPTIONS.keys() == STUDIES.keys()
    assert all(len(text) > 100 for text in DESCRIPTIONS.values())


def test_what_was_published_is_of_the_rows_that_can_be_run_and_the_others() -> None:
    ours = {row.id: row for study in STUDIES for row in rows_of(study)}
    studies = {row.id: study for study in STUDIES for row in rows_of(study)}
    printed = published()
    assert [row.id for row in printed if row.findings == "two_findings"] + [
        row.id for row in printed if row.findings == "three_findings"
    ] == [row.id for row in printed]
    assert {row.id: row.study for row in printed} == studies
    for row in printed:
        params = ours[row.id].params
        assert params is None or (params.backbone, params.loss) == (row.backbone, row.loss)
    assert [row.id for row in published("msds19042")] == [f"A{number}" for number in range(1, 11)]


def test_what_was_published_is_that_of_the_list_of_results(shared_dir: Path) -> None:
    with (shared_dir / "reference" / "study_results.csv").open(encoding="utf-8", newline="") as file:
        listed = {row["id"]: row for row in csv.DictReader(file)}
    for row in published():
        theirs = listed[row.id]
        assert row.accuracy == (float(theirs["accuracy_pct"]) / 100 if theirs["accuracy_pct"] else None)
        cells = re.findall(r"\d+", theirs["confusion"])
        assert not row.matrix or row.matrix == tuple(map(int, cells))
    (first,) = (row for row in published() if row.id == "W1")
    assert (first.matrix, first.flaws, first.split) == ((515, 100, 10, 875), (6, 8, 13, 19, 21), "test")
