"""How finalists stand to each other, against direct computation from the predictions on disk."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import keep_rows, rewrite_epochs, write
from sklearn.metrics import accuracy_score, f1_score

from reports.comparisons import Comparison, compare, holm
from reports.data import read_report_data
from reports.leaderboard import Leaderboard, contradict, effects, leaderboard
from sweep.records import Run, SweepRecord, read_predictions, read_run
from sweep.run_folder import RunPaths
from trainables.metrics import evaluate_predictions
from trainables.predictions import Predictions


def board_of(root: Path) -> Leaderboard:
    return leaderboard(read_report_data(root))


def of(run: Run, trial_id: str, split: str) -> Any:
    finals = run.finals
    assert finals is not None
    repeat = next(one for each in finals.finalists for one in each.repeats if one.trial_id == trial_id)
    saved = read_predictions(run, repeat.trial_id)
    assert saved is not None
    return saved.of(split)


def macro_f1(part: Any) -> float:
    answer = part.probability.argmax(axis=1)
    return float(f1_score(part.label, answer, average="macro", labels=range(len(part.classes)), zero_division=0))


def change(root: Path, trial_id: str, rows: Any) -> None:
    """Keep or reorder the rows of a repeat's predictions."""
    keep_rows(RunPaths(root).trial(trial_id).predictions, lambda _: rows)


def test_scores_are_means_over_repeats_on_test_and_the_winner_is_compared_with_each_other(write_run):
    root = write_run(finals={})
    board = board_of(root)
    run = read_run(root)
    assert (board.split, board.metric, board.winner.trial_id) == ("test", "f1_macro", "t0000")
    assert [one.trial_id for one in board.runners_up] == ["t0003", "t0001"]
    for one in board.configurations:
        parts = [of(run, f"{one.trial_id}/seed_{seed}", "test") for seed in (1001, 1002, 1003)]
        assert one.scores.estimate["f1_macro"] == pytest.approx(statistics.fmean(map(macro_f1, parts)))
        assert one.scores.resamples is board.winner.scores.resamples
        val = [macro_f1(of(run, f"{one.trial_id}/seed_{seed}", "val")) for seed in (1001, 1002, 1003)]
        assert one.finalist.scores == pytest.approx(val)
        assert one.finalist.mean == pytest.approx(statistics.fmean(val))
        assert one.finalist.standard_error == pytest.approx(statistics.stdev(val) / math.sqrt(3))
        assert board.gap(one) == pytest.approx(one.finalist.search_score - statistics.fmean(val))
    winner = board.winner.scores.estimate["f1_macro"]
    for one in board.runners_up:
        lead = board.leads[one.trial_id]
        assert lead.difference == pytest.approx(winner - one.scores.estimate["f1_macro"])
        assert lead.p <= lead.p_holm
    assert board.tests == {}


def test_mcnemar_compares_the_model_file_with_the_same_seed_where_every_patient_has_one_image(write_run):
    root = write_run(finals={})
    rows = RunPaths(root).splits.read_text().splitlines()
    RunPaths(root).splits.write_text(
        "\n".join(row.rpartition(",")[0] + "," for row in rows[1:]).join([rows[0] + "\n", ""])
    )
    board = board_of(root)
    run = read_run(root)
    first, second = (of(run, f"{name}/seed_1001", "test") for name in ("t0000", "t0003"))
    right, other = (part.probability.argmax(axis=1) == part.label for part in (first, second))
    name, test = board.tests["t0003"]
    assert (name, test.first_only, test.second_only) == ("seed_1001", (right & ~other).sum(), (other & ~right).sum())


def test_images_in_another_order_give_the_same_numbers_and_other_images_are_not_compared(write_run):
    root = write_run(finals={})
    before = board_of(root)
    count = len(read_report_data(root).repeats["t0003/seed_1002"].path)
    change(root, "t0003/seed_1002", np.arange(count)[::-1])
    for seed in (1001, 1002, 1003):
        change(root, f"t0001/seed_{seed}", np.arange(count - 1))
    after = board_of(root)
    assert after.leads["t0003"].difference == pytest.approx(before.leads["t0003"].difference)
    assert "t0001" not in after.leads
    other = next(one for one in after.configurations if one.trial_id == "t0001")
    assert other.scores is not None
    assert any("other images" in remark for remark in other.remarks)


def test_repeats_that_failed_are_missing_damaged_or_contradicted_are_left_out_with_a_remark(write_run):
    root = write_run(finals={"failed": ("t0000/seed_1002",)})
    paths = RunPaths(root)
    paths.trial("t0003/seed_1001").predictions.write_bytes(b"no zip")
    paths.trial("t0003/seed_1002").predictions.unlink()
    result = paths.trial("t0001/seed_1001").result
    rewrite_epochs(result, lambda row: row | {"val_f1_macro": row["val_f1_macro"] / 2})
    winner, damaged, contradicted = board_of(root).configurations
    assert (winner.runs.names, len(winner.finalist.scores)) == (("seed_1001", "seed_1003"), 2)
    assert (damaged.runs.names, len(damaged.finalist.scores)) == (("seed_1003",), 3)
    assert [len(one.remarks) for one in (winner, damaged, contradicted)] == [1, 2, 1]
    assert "one of the two is damaged" in contradicted.remarks[0]


def test_without_a_decision_or_an_opening_validation_judges(write_run):
    undecided = board_of(write_run("a", finals={"selected": False, "opened": 0}))
    assert (undecided.split, undecided.winner, undecided.leads) == ("val", None, {})
    assert len(undecided.runners_up) == 3
    closed = board_of(write_run("b", finals={"opened": 0}))
    assert (closed.split, closed.winner.trial_id) == ("val", "t0000")
    damaged = write_run("c", finals={})
    RunPaths(damaged).selection.write_text("{")
    assert board_of(damaged).split == "val"
    assert board_of(write_run("d")).configurations == ()


def test_with_folds_every_image_is_judged_by_the_network_that_was_not_trained_on_it(write_run):
    root = write_run(finals={"opened": 0, "folds": 3})
    run = read_run(root)
    whole = {seed: of(run, f"t0000/seed_{seed}", "val") for seed in (1001, 1002, 1003)}
    finalists = {one.trial_id: one for one in run.finals.finalists}
    for trial in ("t0000", "t0001", "t0003"):
        for fold, seed in enumerate((1001, 1002, 1003)):
            split = read_predictions(run, next(o for o in finalists[trial].repeats if o.seed == seed).trial_id).split
            place = np.flatnonzero(split == "val")
            change(root, f"{trial}/seed_{seed}", place[np.arange(len(place)) % 3 == fold])
    board = board_of(root)
    labels = np.concatenate([whole[seed].label[fold::3] for fold, seed in enumerate(whole)])
    answers = np.concatenate([whole[seed].probability[fold::3].argmax(axis=1) for fold, seed in enumerate(whole)])
    assert board.winner.scores.estimate["accuracy"] == pytest.approx(accuracy_score(labels, answers))
    assert board.winner.runs.names == ("all folds",)
    parts = [evaluate_predictions(p.label[f::3], p.probability[f::3], p.classes, "single_label")["f1_macro"]
             for f, p in enumerate(whole.values())]  # fmt: skip
    assert board.winner.finalist.mean == pytest.approx(statistics.fmean(parts))
    assert len(board.leads) == 2


@pytest.mark.parametrize(
    ("asked", "judged"),
    [
        ("val_f1_macro", "f1_macro"),
        ("val_nll", "nll"),
        ("val_recall:covid", "recall:covid"),
        ("val_auroc_macro", "auroc_macro"),
        ("val_kappa", "kappa"),
        ("val_mcc", "mcc"),
        ("val_sensitivity_at_90_specificity:covid", "sensitivity_at_90_specificity:covid"),
        ("val_loss", "f1_macro"),
        ("train_accuracy", "f1_macro"),
    ],
)
def test_the_selection_metric_is_judged_on_test_where_predictions_tell_it(write_run, asked, judged):
    mode = "min" if asked in ("val_nll", "val_loss") else "max"
    root = write_run(sweep={"metric": asked, "mode": mode}, finals={"finalists": (0, 1), "repeats": 1})
    board = board_of(root)
    assert board.metric == judged
    assert all(math.isfinite(one.scores.estimate[judged]) for one in board.configurations)
    assert math.isfinite(board.leads["t0001"].p)


def test_where_lower_is_better_a_lower_score_is_a_better_verdict_and_a_flattering_gap_is_positive(write_run):
    root = write_run(sweep={"metric": "val_nll", "mode": "min"}, finals={"finalists": (0, 1), "repeats": 2})
    board = board_of(root)
    lead = Comparison(difference=-0.2, low=-0.3, high=-0.1, p=0.001, p_holm=0.002, warning="")
    assert board.verdict(lead) == 1
    one = board.winner
    assert board.gap(one) == pytest.approx(one.finalist.mean - one.finalist.search_score)


def test_tuned_thresholds_stand_beside_one_half(write_run):
    root = write_run(task="multi_label", classes=("a", "b"), finals={"thresholds": {"a": 0.95, "b": 0.5}})
    winner = board_of(root).winner
    parts = [of(read_run(root), f"t0000/seed_{seed}", "test") for seed in (1001, 1002, 1003)]
    for scores, least in ((winner.scores, [0.5, 0.5]), (winner.tuned, [0.95, 0.5])):
        direct = [f1_score(p.label, p.probability >= np.array(least), average="macro", zero_division=0) for p in parts]
        assert scores.estimate["f1_macro"] == pytest.approx(statistics.fmean(direct))
    assert board_of(root).configurations[1].tuned is None


def test_the_cells_of_compare_hold_the_best_of_each_finalists_among_them(write_run):
    root = write_run(trials=9, sweep={"compare": ["backbone"]}, finals={"finalists": (0, 3), "compare": (1, 2)})
    board = board_of(root)
    assert board.cell_names == ("backbone",)
    assert {key[0]: one.finalist.number for key, one in board.cells.items()} == {
        "mobilenet_v2": 0, "resnet18": 1, "squeezenet1_1": 2}  # fmt: skip
    assert set(board.cell_leads) == {"t0001", "t0002"}
    assert set(board.leads) == {"t0003"}


# The backbone and depth of a written run's trials 0..6: see run_files.
CELLS = {"finalists": (0, 1), "compare": (2, 3, 4, 5, 6)}
SIZES = {"labels_per_split": {"train": 30, "val": 90, "test": 90}, "classes": ("a", "b", "c"), "trials": 2}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    changes = {"compare": ["backbone", "unfreeze_depth"]}
    root = write(tmp_path_factory.mktemp("cells") / "run", finals=CELLS, sweep=changes, **SIZES)
    return leaderboard(read_report_data(root))


def test_each_pair_differs_in_one_factor_and_numbers_are_held_against_the_lowest(board):
    frame = effects(board)
    cells = {values: one.finalist.params for values, one in board.cells.items()}
    depths = {backbone: sorted(depth for name, depth in cells if name == backbone) for backbone, _ in cells}
    expected = sum(len(levels) - 1 for levels in depths.values())
    of_depth = frame[frame["factor"] == "unfreeze_depth"]
    assert len(of_depth) == expected
    for backbone, rows in of_depth.groupby("within"):
        assert set(rows["second"]) == {"head only"} or min(depths[str(backbone)]) > 0
    backbones = [sorted(name for name, other in cells if other == depth) for depth in {depth for _, depth in cells}]
    assert (frame["factor"] == "backbone").sum() == sum(len(same) * (len(same) - 1) // 2 for same in backbones)


def test_a_row_is_the_paired_comparison_and_p_is_corrected_over_all_rows(board):
    frame = effects(board)
    row = frame.iloc[0]
    assert row["factor"] == "backbone"
    by_words = {(values[0], str(values[1])): one for values, one in board.cells.items()}
    names = {"head only": "0", "last block": "1", "last 2 blocks": "2", "last 3 blocks": "3", "all blocks": "4"}
    first, second = (by_words[row[key], names[row["within"]]].scores for key in ("first", "second"))
    alone = compare(first, {"other": second}, board.metric)["other"]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (
        alone.difference, alone.low, alone.high, alone.p,
    )  # fmt: skip
    np.testing.assert_allclose(frame["p_holm"].astype(float), holm(frame["p"].tolist()))


def test_where_predictions_are_missing_nothing_is_tested(write_run):
    lost = [f"t0002/seed_{seed}" for seed in (1001, 1002, 1003)]
    root = write_run(finals=CELLS | {"failed": lost}, sweep={"compare": ["backbone"]}, **SIZES)
    frame = effects(leaderboard(read_report_data(root)))
    untested = frame[frame["second"] == "squeezenet1_1"]
    assert len(untested) == 2
    assert untested["p"].isna().all()
    assert all(math.isnan(value) for value in untested["verdict"])
    assert frame["p"].notna().sum() == 1


@pytest.mark.parametrize(
    ("precision", "finalists", "differs"),
    [("fp32", 3, True), ("bf16", 3, False), ("bf16", 0, True)],  # without finalists nothing is predicted in fp32
)
def test_a_score_may_differ_from_the_recorded_one_as_far_as_precisions_do(precision, finalists, differs):
    def part(images: int) -> Predictions:
        labels, paths = np.repeat([0, 1], images), [f"{place}.png" for place in range(2 * images)]
        return Predictions.of_split("val", paths, labels, np.full((2 * images, 3), 1 / 3), ("a", "b", "c"), 1)

    sweep = SweepRecord(precision=precision, finalists=finalists)
    assert bool(contradict(0.893, 0.89, sweep, part(500))) == differs
    assert contradict(0.8902, 0.89, sweep, part(500)) == ""
    assert contradict(math.nan, 0.89, sweep, part(500)) == ""
    assert "one of the two is damaged" in contradict(0.5, 0.89, sweep, part(500))
    assert bool(contradict(0.7, 0.9, sweep, part(4))) == differs, "one image of four"


def test_a_run_that_compared_nothing_has_no_effects(write_run):
    assert effects(leaderboard(read_report_data(write_run(finals={})))).empty
