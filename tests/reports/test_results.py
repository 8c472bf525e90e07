"""Which network and which runs a report is about, what baselines are judged to be, and what is said to be wary of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from baseline_files import POOR, write_baselines
from in_chapter import results_of
from run_files import WriteRun, keep_rows, rewrite, rewrite_epochs
from searched_run import write_searched
from sklearn.metrics import roc_auc_score

from reports.caveats import caveats
from reports.comparisons import ClassShortcut, Comparison
from reports.results import Results
from sweep.records import BaselineRecord, read_run
from sweep.run_folder import RunPaths

BIG: dict[str, Any] = {
    "labels_per_split": {"train": 60, "val": 150, "test": 150},
    "classes": ("a", "b", "c"),
    "trials": 2,
}


def of_winner(root: Path, name: str) -> Path:
    return RunPaths(root).trial(f"t0000/{name}").predictions


def skilled(
    root: Path, trial_id: str, skill: float, splits: tuple[str, ...] = ("train", "val", "test"), seed: int = 0
) -> None:
    """Make the saved predictions of every repeat of a finalist as good as ``skill`` (0: chance) on ``splits``."""
    for place, folder in enumerate(sorted((RunPaths(root).finalists / trial_id).iterdir())):
        rng = np.random.default_rng(1000 * seed + place)

        def drawn(arrays: dict[str, Any], rng: np.random.Generator = rng) -> Any:
            count = len(arrays["classes"])
            logits = skill * np.eye(count)[arrays["label"]] + rng.normal(size=(len(arrays["label"]), count))
            new = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
            return np.where(np.isin(arrays["split"], splits)[:, None], new, arrays["probability"])

        rewrite(folder / "best" / "predictions.npz", probability=drawn)


def said(results: Results) -> str:
    return " ".join(one.text for one in caveats(results))


def lift(root: Path, number: int, by: float) -> None:
    result = RunPaths(root).trial(f"t{number:05d}").result
    rewrite_epochs(result, lambda row: row | {"val_f1_macro": row["val_f1_macro"] + by})


# Which network


def test_without_finalists_the_best_trial_is_shown_on_train_and_validation(write_run: WriteRun) -> None:
    results = results_of(write_run())
    model, best = results.model, results.data.best
    assert model is not None
    assert best is not None
    assert results.data.predictions is not None
    np.testing.assert_array_equal(model.predictions.probability, results.data.predictions.probability)
    assert model.title == f"trial {best['number']:.0f}"
    assert (model.splits, model.judged, model.thresholds) == (("train", "val"), "val", None)
    assert model.recorded == best["score"]
    assert (results.split, results.number) == ("val", best["number"])


def test_once_selected_and_opened_the_model_file_is_shown_on_all_three_splits(write_run: WriteRun) -> None:
    results = results_of(write_run(finals={}))
    model, finals = results.model, results.data.run.finals
    assert model is not None
    assert model.title == "repeat seed_1001 of trial 0 (the model file)"
    assert (model.splits, model.judged, model.remark) == (("train", "val", "test"), "test", "")
    assert finals is not None
    assert finals.winning is not None
    assert model.recorded == finals.winning.repeats[0].score
    assert results.runs("test").names == ("seed_1001", "seed_1002", "seed_1003")


def test_rows_of_a_test_split_that_was_not_opened_are_never_shown(write_run: WriteRun) -> None:
    root = write_run(finals={})
    RunPaths(root).test_access.unlink()
    results = results_of(root)
    assert results.model.splits == ("train", "val")
    assert not any((one.split == "test").any() for one in results.data.repeats.values())
    assert results.runs("test") is None
    assert results.scores("test") is None


def test_before_the_selection_the_best_trial_stays(write_run: WriteRun) -> None:
    assert not results_of(write_run(finals={"selected": False, "opened": 0})).model.retrained


def test_where_the_model_files_predictions_are_damaged_another_repeat_stands_in_and_is_named(
    write_run: WriteRun,
) -> None:
    root = write_run(finals={})
    RunPaths(root).trial("t0000/seed_1001").predictions.write_bytes(b"no zip")
    results = results_of(root)
    assert results.model.title == "repeat seed_1002 of trial 0"
    assert "t0000/seed_1001" in results.model.remark
    assert results.runs("test").names == ("seed_1002", "seed_1003")
    assert any("t0000/seed_1001" in problem for problem in results.data.run.problems)


def test_where_no_repeat_of_the_winner_can_be_read_the_best_trial_stands_in(write_run: WriteRun) -> None:
    root = write_run(finals={"repeats": 2})
    for name in ("seed_1001", "seed_1002"):
        RunPaths(root).trial(f"t0000/{name}").predictions.unlink()
    results = results_of(root)
    assert not results.model.retrained
    assert "the winner, trial 0" in results.model.remark
    assert "finalists/t0000/seed_1001/best/predictions.npz is missing" in results.data.run.problems
    assert len(results.runs("val").names) == 1


def test_nothing_is_shown_where_nothing_can_be_read(write_run: WriteRun) -> None:
    results = results_of(write_run(statuses=("failed",)))
    assert results.model is None
    assert results.runs("val") is None
    assert results.scores("val") is None
    assert results.judged_scores is None


def test_a_failed_repeat_is_no_run(write_run: WriteRun) -> None:
    results = results_of(write_run(finals={"failed": ("t0000/seed_1002",)}))
    assert results.runs("test").names == ("seed_1001", "seed_1003")


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_runs_that_list_the_images_in_another_order_are_brought_into_one(write_run: WriteRun, task: str) -> None:
    root = write_run(finals={}, task=task, classes=("a", "b"))
    before = results_of(root).runs("test")
    keep_rows(of_winner(root, "seed_1002"), lambda _: slice(None, None, -1))
    after = results_of(root).runs("test")
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    np.testing.assert_array_equal(after.labels, before.labels)


def test_a_run_on_other_images_is_left_out(write_run: WriteRun) -> None:
    root = write_run(finals={})
    rewrite(of_winner(root, "seed_1003"), path=lambda arrays: np.char.add("other/", arrays["path"]))
    assert results_of(root).runs("test").names == ("seed_1001", "seed_1002")


def test_folds_are_one_run_over_all_images_that_they_validated(write_run: WriteRun) -> None:
    root = write_run(finals={"folds": 3})
    for fold, name in enumerate(("seed_1001", "seed_1002", "seed_1003")):
        rewrite(of_winner(root, name), path=lambda arrays, fold=fold: np.char.add(f"{fold}/", arrays["path"]))
    results = results_of(root)
    runs = results.runs("val")
    assert runs.probabilities.shape[0] == 1
    assert runs.probabilities.shape[1] == len(runs.labels) == 3 * (results.model.predictions.split == "val").sum()


def test_groups_are_those_of_splits_csv_and_patients_are_counted(write_run: WriteRun) -> None:
    root = write_run(finals={})
    rows = read_run(root).rows
    expected = rows.loc[rows["split"] == "test", "group"]
    assert list(results_of(root).runs("test").groups) == expected.tolist()
    assert results_of(root).runs("test").patients == expected.nunique()
    RunPaths(root).splits.unlink()
    assert set(results_of(root).runs("test").groups) == {""}
    assert math.isnan(results_of(root).runs("test").patients)


def test_every_score_is_computed_once_and_an_auroc_is_the_mean_over_repeats(write_run: WriteRun) -> None:
    results = results_of(write_run(finals={}))
    scores, runs = results.scores("test"), results.runs("test")
    assert scores is results.scores("test") is results.leaderboard.winner.scores
    assert results.leaderboard is results.leaderboard
    of_runs = [roc_auc_score(runs.labels == 0, one[:, 0]) for one in runs.probabilities]
    assert scores.estimate["auroc:covid"] == pytest.approx(np.mean(of_runs))
    assert "auroc:covid" not in results.model_scores("test").estimate, "one AUROC a class on the whole page"


# Baselines: one judge a kind


def test_the_share_of_the_gain_runs_from_the_majority_to_the_winner(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    found = results_of(root).judged_baselines
    assert found.share_of_gain("majority") == 0
    of = {name: scores.estimate["f1_macro"] for name, scores in found.measured.items()}
    expected = (of["thumbnails"] - of["majority"]) / (found.winner.estimate["f1_macro"] - of["majority"])
    assert found.share_of_gain("thumbnails") == pytest.approx(expected)


def test_where_shortcuts_fall_short_nothing_warns_and_the_best_is_named(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR | {"thumbnails": 0.25, "borders": 0.1})
    results = results_of(root)
    found = results.judged_baselines
    assert found.close("shortcut") == []
    assert "No shortcut comes close" in found.shortcut_sentence
    assert "thumbnails of 16 x 16 pixels (macro F1 " in found.shortcut_sentence
    assert "shortcut" not in said(results).lower()


@pytest.mark.parametrize("name", ["thumbnails", "borders"])
def test_a_shortcut_that_comes_close_is_a_caveat(write_run: WriteRun, name: str) -> None:
    root = write_run(finals={})
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.1, "borders": 0.1} | {name: 3.0})
    results = results_of(root)
    assert [one.name for one in results.judged_baselines.close("shortcut")] == [name]
    assert results.judged_baselines.shortcut_sentence in said(results)
    assert "how the images were made" in said(results)


def test_a_class_that_a_shortcut_tells_is_named_though_it_tells_no_other(write_run: WriteRun) -> None:
    root = write_run(finals={}, **BIG)
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.1, "borders": 0.1})
    told, not_told = np.float32([0.1, 0.8, 0.1]), np.float32([0.45, 0.1, 0.45])
    borders = RunPaths(root).baselines / "borders.npz"
    rewrite(borders, probability=lambda arrays: np.where((arrays["label"] == 1)[:, None], told, not_told))
    results = results_of(root)
    judge = results.judged_baselines
    assert judge.close("shortcut") == []
    (one,) = judge.given_away
    assert (one.name, one.baseline.name, one.auroc, one.f1) == ("b", "borders", 1.0, 1.0)
    first = caveats(results)[0].text
    start = "A shortcut predicts b: image borders only, with AUROC 1.000 and F1 1.000 on validation"
    assert first.startswith(start)
    winner = judge.winner.estimate["f1:b"]
    assert first.endswith(f"(F1 on test: 1.000 and {winner:.3f}).")
    assert "No shortcut comes close to the winner over all classes" in judge.shortcut_sentence
    assert judge.shortcut_sentence.endswith(", but one predicts b.")


@pytest.mark.parametrize(
    ("auroc", "low", "high", "positives", "given"),
    [
        (0.9, 0.2, 0.4, 10, True),
        (0.89, 0.2, 0.4, 10, False),
        (0.75, -0.1, 0.4, 10, True),
        (0.75, 0.01, 0.05, 10, True),
        (0.75, 0.01, 0.06, 10, False),
        (0.74, -0.1, 0.01, 10, False),
        (1.0, -0.1, 0.01, 9, False),
        (math.nan, -0.1, 0.01, 10, False),
    ],
)
def test_when_a_class_is_given_away(auroc: float, low: float, high: float, positives: int, given: bool) -> None:
    lead = Comparison(difference=(low + high) / 2, low=low, high=high, p=0.5, p_holm=0.5, warning="")
    one = ClassShortcut("b", BaselineRecord(), auroc, 0.5, 0.5, lead, positives)
    assert one.gives_away is given


def test_frozen_features_that_come_close_are_a_finding_about_fine_tuning_and_no_shortcut(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.1, "borders": 0.1, "frozen_resnet18": 3.0})
    results = results_of(root)
    found = results.judged_baselines
    assert found.close("shortcut") == []
    assert "No shortcut comes close" in found.shortcut_sentence
    assert [one.name for one in found.close("frozen")] == ["frozen_resnet18"]
    assert "not shown to improve" in found.frozen_sentence
    assert "frozen" not in said(results)


@pytest.mark.parametrize(
    ("low", "words"), [(0.02, "improves little on"), (-0.02, "is not shown to improve on"), (math.nan, "is not shown")]
)
def test_of_frozen_features_close_to_the_winner_it_is_said_whether_it_is_better(
    write_run: WriteRun, low: float, words: str
) -> None:
    root = write_run(finals={})
    write_baselines(root, {"majority": 0.0, "frozen_resnet18": 3.0})
    found = results_of(root).judged_baselines
    lead = Comparison(difference=0.06, low=low, high=0.10, p=0.5, p_holm=0.5, warning="")
    assert words in replace(found, leads=found.leads | {"frozen_resnet18": lead}).frozen_sentence


def test_the_rule_for_close_is_one_for_both_kinds(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    found = results_of(root).judged_baselines
    for one in found.baselines:
        lead = found.leads[one.name]
        close = found.share_of_gain(one.name) >= 0.9 or lead.low <= 0 or lead.difference <= 0
        assert (one in [*found.close("shortcut"), *found.close("frozen")]) == close


def test_a_winner_that_answers_always_the_same_is_told_so(write_run: WriteRun) -> None:
    root = write_run(finals={})
    for name in ("seed_1001", "seed_1002", "seed_1003"):
        rewrite(
            of_winner(root, name),
            probability=lambda arrays: np.tile(np.float32([0.1, 0.2, 0.7]), (len(arrays["path"]), 1)),
        )
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.5})
    results = results_of(root)
    assert "no evidence that the network learned" in results.judged_baselines.shortcut_sentence
    assert math.isnan(results.judged_baselines.share_of_gain("thumbnails"))
    assert "is never predicted" in said(results)


def test_before_the_test_split_is_opened_no_baseline_is_compared_on_it(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    RunPaths(root).test_access.unlink()
    results = results_of(root)
    assert results.baselines("test") is None
    assert results.judged_baselines.split == "val"


def test_with_folds_baselines_are_compared_on_their_own_validation_images(write_run: WriteRun) -> None:
    root = write_run(finals={"opened": 0, "folds": 3})
    write_baselines(root, POOR, splits=("val",))
    for fold, name in enumerate(("seed_1001", "seed_1002", "seed_1003")):
        prefix = f"{fold}/" if fold else ""
        rewrite(of_winner(root, name), path=lambda arrays, prefix=prefix: np.char.add(prefix, arrays["path"]))
    results = results_of(root)
    count = int((results.model.predictions.split == "val").sum())
    assert len(results.runs("val").labels) == 3 * count
    assert len(results.judged_baselines.winner.resamples.member) == count


def test_a_baseline_of_other_images_or_that_failed_is_not_compared(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR, failed=("borders",))
    rewrite(RunPaths(root).baselines / "thumbnails.npz", path=lambda arrays: np.char.add("x", arrays["path"]))
    assert set(results_of(root).judged_baselines.measured) == {"majority", "frozen_resnet18"}


def test_a_damaged_baseline_is_told_once_though_it_is_of_two_splits(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    (RunPaths(root).baselines / "thumbnails.npz").write_bytes(b"no zip")
    results = results_of(root)
    assert {results.baselines(split) is None for split in ("val", "test")} == {False}
    assert len([one for one in results.data.run.problems if "baselines/thumbnails.npz" in one]) == 1


# Caveats


@pytest.mark.parametrize(
    ("changes", "words", "level"),
    [
        ({"statuses": ("completed", "running")}, "The sweep has not ended", "warning"),
        ({"dataset": {"caveats": ["leakage was allowed"]}}, "leakage was allowed.", "warning"),
        ({"dataset": {"demo": True}}, "phantoms drawn by a program", "warning"),
        ({"never_predicted": "covid"}, "covid is never predicted", "warning"),
        ({"finals": {}}, "Fewer than 20 test patients have covid (13)", "warning"),
        ({"finals": {"opened": 3}}, "opened 3 times", "warning"),
        ({"finals": {"failed": ["t0000/seed_1002"]}}, "trial 0 (2 of 3)", "warning"),
        ({"finals": {}}, "with the seed alone. Its interval covers variation between patients only", "info"),
        ({"finals": {"selected": False, "opened": 0}}, "no winner is selected", "warning"),
        ({"finals": {"opened": 0}}, "the test split has not been opened yet", "warning"),
        ({}, "optimistic", "warning"),
        ({"statuses": ("completed",)}, "The best epoch of the best trial is the last of the budget (6)", "info"),
        ({"trials": 12}, "3 of 12 trials failed; most often: RuntimeError: out of memory", "info"),
    ],
)
def test_what_must_be_known_is_a_caveat(write_run: WriteRun, changes: dict[str, Any], words: str, level: str) -> None:
    (found,) = [one for one in caveats(results_of(write_run(**changes))) if words in one.text]
    assert found.level == level


def test_a_sound_run_has_none_of_the_grave_caveats(write_run: WriteRun) -> None:
    assert [one for one in caveats(results_of(write_run(finals={}, **BIG))) if one.level != "info"] == []


def test_problems_of_files_and_a_lost_selection_are_errors(write_run: WriteRun) -> None:
    root = write_run(finals={})
    RunPaths(root).selection.write_text("{ torn")
    errors = [one.text for one in caveats(results_of(root)) if one.level == "error"]
    assert any("selection.json" in text for text in errors)
    assert any("the winner is not known" in text for text in errors)


def test_folded_batchnorm_is_a_caveat(write_run: WriteRun) -> None:
    weights = {"resnet18": {"path": "w.pth", "origin": "imagenet", "folded_batchnorm": True}}
    assert "Folded BatchNorm in the initial weights of resnet18" in said(
        results_of(write_run(provenance={"weights": weights}))
    )


def test_a_network_at_chance_is_not_said_to_have_learned(write_run: WriteRun) -> None:
    sizes = {"train": 60, "val": 24, "test": 24}
    root = write_run(finals={"finalists": (0,)}, labels_per_split=sizes, classes=("a", "b"))
    skilled(root, "t0000", 0)
    assert "is not above chance (0.500)" in said(results_of(root))
    assert "always predicting the most frequent class (0.500)" in said(results_of(root))
    skilled(root, "t0000", 4)
    assert "is not above" not in said(results_of(root))


def test_overfitting_is_said_only_beyond_the_interval_of_validation(write_run: WriteRun) -> None:
    root = write_run(finals={"finalists": (0,)}, **BIG)
    skilled(root, "t0000", 9, ("train",))
    skilled(root, "t0000", 2, ("val",))
    assert "Overfitting" in said(results_of(root))
    skilled(root, "t0000", 2, ("train",), seed=3)
    assert "Overfitting" not in said(results_of(root))


def test_the_recall_of_a_rare_class_is_a_caveat_where_its_interval_is_wide(write_run: WriteRun) -> None:
    sizes = {"train": 60, "val": 24, "test": 24}
    root = write_run(finals={"finalists": (0,)}, labels_per_split=sizes, classes=("a", "b"))
    skilled(root, "t0000", 1)
    assert "too wide to rank two networks" in said(results_of(root))
    big = write_run("big", finals={"finalists": (0,)}, **BIG)
    skilled(big, "t0000", 6)
    assert "too wide" not in said(results_of(big))


def test_failures_are_pinned_to_a_backbone_only_beyond_chance(write_run: WriteRun) -> None:
    assert "more often than by chance" not in said(results_of(write_run("even", trials=12)))
    one = write_run("one", trials=24, statuses=("failed", "completed", "completed"))
    assert "mobilenet_v2 failed more often than by chance" in said(results_of(one))


def test_unequal_pruning_is_said_only_where_the_exact_test_says_so(tmp_path: Path, write_run: WriteRun) -> None:
    root = write_searched(tmp_path / "run", lambda params, epoch: 0.5, trials=40, statuses=("completed",))
    for folder in RunPaths(root).trial_folders():
        paths = RunPaths(root).trial(folder.name)
        if json.loads(paths.params.read_text())["params"]["unfreeze_depth"] > 0:
            paths.status.write_text(json.dumps({"status": "pruned", "reason": "asha"}))
    assert "Trials that train more than the head were pruned more often (100 % against 0 %)" in said(results_of(root))
    assert "pruned more often" not in said(results_of(write_run("even", trials=20)))


def test_a_best_trial_that_came_late_is_a_hint_to_search_on(tmp_path: Path) -> None:
    late = write_searched(tmp_path / "late", lambda params, epoch: 0.5, trials=20, statuses=("completed",))
    lift(late, 19, 0.4)
    assert "number 19 of 20" in said(results_of(late))
    early = write_searched(tmp_path / "early", lambda params, epoch: 0.5, trials=20, statuses=("completed",))
    lift(early, 2, 0.4)
    assert "a longer search" not in said(results_of(early))


def test_the_gravest_caveats_come_first(write_run: WriteRun) -> None:
    root = write_run(finals={"failed": ["t0000/seed_1002"]})
    RunPaths(root).selection.write_text("{ torn")
    levels = [one.level for one in caveats(results_of(root))]
    assert set(levels) == {"error", "warning", "info"}
    assert levels == sorted(levels, key=["error", "warning", "info"].index)


# The verdict


def test_without_repeats_which_configuration_is_best_is_called_unknown(write_run: WriteRun) -> None:
    assert "which configuration is best is not known" in results_of(write_run()).verdict
    assert results_of(write_run("single", trials=1)).verdict == ""


def test_a_winner_is_called_better_only_where_the_corrected_comparison_says_so(write_run: WriteRun) -> None:
    root = write_run(finals={}, **BIG)
    for seed, (trial_id, skill) in enumerate({"t0000": 6, "t0003": 1, "t0001": 6}.items()):
        skilled(root, trial_id, skill, seed=seed)
    verdict = results_of(root).verdict
    assert "is better than trial 3 (difference +0." in verdict
    assert "does not differ significantly from trial 1" in verdict


def test_a_winner_that_is_worse_on_test_is_called_so_and_stays(write_run: WriteRun) -> None:
    root = write_run(finals={"finalists": (0, 3)}, **BIG)
    skilled(root, "t0000", 1)
    skilled(root, "t0003", 6)
    verdict = results_of(root).verdict
    assert "is worse than trial 3" in verdict
    assert "It remains the winner" in verdict


def test_on_validation_alone_a_verdict_says_what_it_rests_on(write_run: WriteRun) -> None:
    root = write_run(finals={"finalists": (0, 3), "opened": 0}, **BIG)
    skilled(root, "t0000", 6)
    skilled(root, "t0003", 1)
    verdict = results_of(root).verdict
    assert "is better than trial 3" in verdict
    assert "selected on these same images" in verdict
