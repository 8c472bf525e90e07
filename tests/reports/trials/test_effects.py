"""Cells of --compare in pairs: which are held against which, corrected over all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.data import gather
from reports.scores.finals import stand
from reports.scores.paired import compare, holm
from reports.trials.effects import effects

# The backbone and depth of a written run's trials 0..6: see run_files.
CELLS = {"finalists": (0, 1), "compare": (2, 3, 4, 5, 6)}
SIZES = {"labels_per_split": {"train": 30, "val": 90, "test": 90}, "classes": ("a", "b", "c"), "trials": 2}


@pytest.fixture
def standing(write_run):
    changes = {"compare": ["backbone", "unfreeze_depth"]}
    return stand(gather(write_run(finals=CELLS, sweep=changes, **SIZES)))


def test_each_pair_differs_in_one_factor_and_numbers_are_held_against_the_lowest(standing):
    frame = effects(standing)
    cells = {values: one.finalist.params for values, one in standing.cells.items()}
    depths = {backbone: sorted(depth for name, depth in cells if name == backbone) for backbone, _ in cells}
    expected = sum(len(levels) - 1 for levels in depths.values())
    of_depth = frame[frame["factor"] == "unfreeze_depth"]
    assert len(of_depth) == expected
    for backbone, rows in of_depth.groupby("within"):
        assert set(rows["second"]) == {"head only"} or min(depths[str(backbone)]) > 0
    backbones = [sorted(name for name, other in cells if other == depth) for depth in {depth for _, depth in cells}]
    assert (frame["factor"] == "backbone").sum() == sum(len(same) * (len(same) - 1) // 2 for same in backbones)


def test_a_row_is_the_paired_comparison_and_p_is_corrected_over_all_rows(standing):
    frame = effects(standing)
    row = frame.iloc[0]
    assert row["factor"] == "backbone"
    by_words = {(values[0], str(values[1])): one for values, one in standing.cells.items()}
    names = {"head only": "0", "last block": "1", "last 2 blocks": "2", "last 3 blocks": "3", "all blocks": "4"}
    first, second = (by_words[row[key], names[row["within"]]].scores for key in ("first", "second"))
    alone = compare(first, {"other": second}, standing.metric)["other"]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (
        alone.difference, alone.low, alone.high, alone.p,
    )  # fmt: skip
    np.testing.assert_allclose(frame["p_holm"].astype(float), holm(frame["p"].tolist()))


def test_where_predictions_are_missing_nothing_is_tested(write_run):
    lost = [f"t0002/seed_{seed}" for seed in (1001, 1002, 1003)]
    root = write_run(finals=CELLS | {"failed": lost}, sweep={"compare": ["backbone"]}, **SIZES)
    frame = effects(stand(gather(root)))
    untested = frame[frame["second"] == "squeezenet1_1"]
    assert len(untested) == 2
    assert untested["p"].isna().all()
    assert all(math.isnan(value) for value in untested["verdict"])
    assert frame["p"].notna().sum() == 1


def test_a_run_that_compared_nothing_has_no_effects(write_run):
    assert effects(stand(gather(write_run(finals={})))).empty
