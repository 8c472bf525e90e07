"""How finalists stand to each other, against direct computation from the predictions on disk."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from reports.data import gather
from reports.scores.paired import Comparison
from sweep.records import Run, read_repeat_predictions, read_run
from sweep.run_folder import RunPaths
from trainables.metrics import evaluate_predictions


def of(run: Run, trial_id: str, split: str) -> Any:
    finals = run.finals
    assert finals is not None
    repeat = next(one for each in finals.finalists for one in each.repeats if one.trial_id == trial_id)
    saved = read_repeat_predictions(run, repeat)
    assert saved is not None
    return saved.of(split)


def macro_f1(part: Any) -> float:
    answer = part.probability.argmax(axis=1)
    return float(f1_score(part.label, answer, average="macro", labels=range(len(part.classes)), zero_division=0))


def change(root: Path, trial_id: str, rows: Any) -> None:
    """Keep or reorder the rows of a repeat's predictions."""
    path = RunPaths(root).repeat(trial_id).predictions
    with np.load(path) as saved:
        arrays = {key: saved[key] for key in saved.files}
    moved = {key: arrays[key][rows] for key in ("path", "split", "label", "probability")}
    np.savez(path, **(arrays | moved))


def test_scores_are_means_over_repeats_on_test_and_the_winner_is_compared_with_each_other(write_run):
    root = write_run(finals={})
    standing = gather(root).standing
    run = read_run(root)
    assert (standing.split, standing.metric, standing.winner.trial_id) == ("test", "f1_macro", "t0000")
    assert [one.trial_id for one in standing.runners_up] == ["t0003", "t0001"]
    for one in standing.contenders:
        parts = [of(run, f"{one.trial_id}/seed_{seed}", "test") for seed in (1001, 1002, 1003)]
        assert one.scores.estimate["f1_macro"] == pytest.approx(statistics.fmean(map(macro_f1, parts)))
        assert one.scores.resamples is standing.resamples
        val = [macro_f1(of(run, f"{one.trial_id}/seed_{seed}", "val")) for seed in (1001, 1002, 1003)]
        assert list(one.validation.values()) == pytest.approx(val)
        assert one.mean == pytest.approx(statistics.fmean(val))
        assert one.standard_error == pytest.approx(statistics.stdev(val) / math.sqrt(3))
        assert standing.gap(one) == pytest.approx(one.finalist.search_score - statistics.fmean(val))
    winner = standing.winner.scores.estimate["f1_macro"]
    for one in standing.runners_up:
        lead = standing.leads[one.trial_id]
        assert lead.difference == pytest.approx(winner - one.scores.estimate["f1_macro"])
        assert lead.p <= lead.p_holm
    assert standing.tests == {}


def test_mcnemar_compares_the_model_file_with_the_same_seed_where_every_patient_has_one_image(write_run):
    root = write_run(finals={})
    rows = RunPaths(root).splits.read_text().splitlines()
    RunPaths(root).splits.write_text(
        "\n".join(row.rpartition(",")[0] + "," for row in rows[1:]).join([rows[0] + "\n", ""])
    )
    standing = gather(root).standing
    run = read_run(root)
    first, second = (of(run, f"{name}/seed_1001", "test") for name in ("t0000", "t0003"))
    right, other = (part.probability.argmax(axis=1) == part.label for part in (first, second))
    name, test = standing.tests["t0003"]
    assert (name, test.first_only, test.second_only) == ("seed_1001", (right & ~other).sum(), (other & ~right).sum())


def test_images_in_another_order_give_the_same_numbers_and_other_images_are_not_compared(write_run):
    root = write_run(finals={})
    before = gather(root).standing
    count = len(gather(root).repeats["t0003/seed_1002"].path)
    change(root, "t0003/seed_1002", np.arange(count)[::-1])
    for seed in (1001, 1002, 1003):
        change(root, f"t0001/seed_{seed}", np.arange(count - 1))
    after = gather(root).standing
    assert after.leads["t0003"].difference == pytest.approx(before.leads["t0003"].difference)
    assert "t0001" not in after.leads
    other = next(one for one in after.contenders if one.trial_id == "t0001")
    assert other.scores is not None
    assert any("other images" in remark for remark in other.remarks)


def test_repeats_that_failed_are_missing_damaged_or_contradicted_are_left_out_with_a_remark(write_run):
    root = write_run(finals={"failed": ("t0000/seed_1002",)})
    paths = RunPaths(root)
    paths.repeat("t0003/seed_1001").predictions.write_bytes(b"no zip")
    paths.repeat("t0003/seed_1002").predictions.unlink()
    result = paths.repeat("t0001/seed_1001").result
    rows = [json.loads(line) for line in result.read_text().splitlines()]
    result.write_text("".join(json.dumps(row | {"val_f1_macro": row["val_f1_macro"] / 2}) + "\n" for row in rows))
    winner, damaged, contradicted = gather(root).standing.contenders
    assert (winner.runs.names, len(winner.validation)) == (("seed_1001", "seed_1003"), 2)
    assert (damaged.runs.names, len(damaged.validation)) == (("seed_1003",), 3)
    assert [len(one.remarks) for one in (winner, damaged, contradicted)] == [1, 2, 1]
    assert "one of the two is damaged" in contradicted.remarks[0]


def test_without_a_decision_or_an_opening_validation_judges(write_run):
    undecided = gather(write_run("a", finals={"selected": False, "opened": 0})).standing
    assert (undecided.split, undecided.winner, undecided.leads) == ("val", None, {})
    assert len(undecided.runners_up) == 3
    closed = gather(write_run("b", finals={"opened": 0})).standing
    assert (closed.split, closed.winner.trial_id) == ("val", "t0000")
    damaged = write_run("c", finals={})
    RunPaths(damaged).decision.write_text("{")
    assert gather(damaged).standing.split == "val"
    assert gather(write_run("d")).standing is None


def test_with_folds_every_image_is_judged_by_the_network_that_was_not_trained_on_it(write_run):
    root = write_run(finals={"opened": 0})
    paths = RunPaths(root)
    paths.chosen.write_text(json.dumps(json.loads(paths.chosen.read_text()) | {"folds": 3}))
    run = read_run(root)
    whole = {seed: of(run, f"t0000/seed_{seed}", "val") for seed in (1001, 1002, 1003)}
    for trial in ("t0000", "t0001", "t0003"):
        for fold, seed in enumerate((1001, 1002, 1003)):
            split = read_repeat_predictions(run, next(o for o in run.finals.of(trial).repeats if o.seed == seed)).split
            place = np.flatnonzero(split == "val")
            change(root, f"{trial}/seed_{seed}", place[np.arange(len(place)) % 3 == fold])
    standing = gather(root).standing
    labels = np.concatenate([whole[seed].label[fold::3] for fold, seed in enumerate(whole)])
    answers = np.concatenate([whole[seed].probability[fold::3].argmax(axis=1) for fold, seed in enumerate(whole)])
    assert standing.winner.scores.estimate["accuracy"] == pytest.approx(accuracy_score(labels, answers))
    assert standing.winner.runs.names == ("all folds",)
    parts = [evaluate_predictions(p.label[f::3], p.probability[f::3], p.classes, "single_label")["f1_macro"]
             for f, p in enumerate(whole.values())]  # fmt: skip
    assert standing.winner.mean == pytest.approx(statistics.fmean(parts))
    assert len(standing.leads) == 2


@pytest.mark.parametrize(
    ("asked", "judged"),
    [
        ("val_f1_macro", "f1_macro"),
        ("val_nll", "nll"),
        ("val_recall:covid", "recall:covid"),
        ("val_auroc_macro", "auroc_macro"),
        ("val_loss", "f1_macro"),
        ("train_accuracy", "f1_macro"),
    ],
)
def test_the_selection_metric_is_judged_on_test_where_predictions_tell_it(write_run, asked, judged):
    mode = "min" if asked in ("val_nll", "val_loss") else "max"
    root = write_run(sweep={"metric": asked, "mode": mode}, finals={"finalists": (0, 1), "repeats": 1})
    standing = gather(root).standing
    assert standing.metric == judged
    assert all(math.isfinite(one.scores.estimate[judged]) for one in standing.contenders)
    assert math.isfinite(standing.leads["t0001"].p)


def test_where_lower_is_better_a_lower_score_is_a_better_verdict_and_a_flattering_gap_is_positive(write_run):
    root = write_run(sweep={"metric": "val_nll", "mode": "min"}, finals={"finalists": (0, 1), "repeats": 2})
    standing = gather(root).standing
    lead = Comparison(difference=-0.2, low=-0.3, high=-0.1, p=0.001, p_holm=0.002, warning="")
    assert standing.verdict(lead) == 1
    one = standing.winner
    assert standing.gap(one) == pytest.approx(one.mean - one.finalist.search_score)


def test_tuned_thresholds_stand_beside_one_half(write_run):
    root = write_run(task="multi_label", classes=("a", "b"), finals={"thresholds": {"a": 0.95, "b": 0.5}})
    winner = gather(root).standing.winner
    parts = [of(read_run(root), f"t0000/seed_{seed}", "test") for seed in (1001, 1002, 1003)]
    for scores, least in ((winner.scores, [0.5, 0.5]), (winner.tuned, [0.95, 0.5])):
        direct = [f1_score(p.label, p.probability >= np.array(least), average="macro", zero_division=0) for p in parts]
        assert scores.estimate["f1_macro"] == pytest.approx(statistics.fmean(direct))
    assert gather(root).standing.contenders[1].tuned is None


def test_the_cells_of_compare_hold_the_best_of_each_finalists_among_them(write_run):
    root = write_run(trials=9, sweep={"compare": ["backbone"]}, finals={"finalists": (0, 3), "compare": (1, 2)})
    standing = gather(root).standing
    assert standing.cell_names == ("backbone",)
    assert {key[0]: one.finalist.number for key, one in standing.cells.items()} == {
        "mobilenet_v2": 0, "resnet18": 1, "squeezenet1_1": 2}  # fmt: skip
    assert set(standing.cell_leads) == {"t0001", "t0002"}
    assert set(standing.leads) == {"t0003"}
