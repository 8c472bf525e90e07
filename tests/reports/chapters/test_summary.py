"""The summary: the winner's score and interval, its rivals, its decisions, caveats, and how its model is used."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from baseline_files import POOR, write_baselines
from in_chapter import facts, figures, notes, results_of, texts
from run_files import keep_rows, rewrite

from reports.blocks import Block, Code, Folded, Headline, walk
from reports.caveats import caveats
from reports.chapters import finalists
from reports.chapters.summary import MOST_CAVEATS, chapter
from reports.intervals import interval
from sweep.run_folder import RunPaths


def headline(found: list[Block]) -> Headline:
    return next(block for block in found if isinstance(block, Headline))


def code(found: list[Block]) -> str:
    return "\n".join(block.text for block in walk(found) if isinstance(block, Code))


def test_the_headline_is_the_winners_mean_test_score_with_its_interval_and_every_seed(write_run):
    results = results_of(write_run(finals={}))
    scores = results.winner.scores
    known = interval(scores, "f1_macro")
    shown = headline(chapter(results))
    assert shown.value == f"{known.estimate:.3f}"
    assert f"{known.low:.3f}–{known.high:.3f}" in shown.label
    assert shown.label.startswith("Test macro F1 of the winner, trial 0")
    assert ", ".join(f"{value:.3f}" for value in scores.by_run["f1_macro"]) in shown.detail
    assert "on 169 test images of 113 patients" in shown.detail
    assert "Selected on validation (2026-01-05 11:20 UTC), before the test split was opened." in shown.detail


@pytest.mark.parametrize("metric", ["f1_macro", "kappa"])
def test_without_finalists_it_is_the_best_trials_with_its_interval_and_what_the_score_is(write_run, metric):
    results = results_of(write_run(sweep={"metric": f"val_{metric}"}))
    known = interval(results.judged_scores, metric)
    shown = headline(chapter(results)).label
    assert shown.lower().startswith(f"{results.metric_name} of the best trial".lower())
    assert f"{known.low:.3f}–{known.high:.3f}" in shown
    assert ("(unweighted)" in shown) == (metric == "kappa")


def test_a_winner_selected_again_after_test_was_opened_is_not_said_to_be_selected_before(write_run):
    root = write_run(finals={"opened": 2})
    paths = RunPaths(root)
    again = json.loads(paths.selection.read_text()) | {"selected": "2026-02-09T09:00:00+00:00"}
    paths.selection.write_text(json.dumps(again))
    detail = headline(chapter(results_of(root))).detail
    assert "(2026-02-09 09:00 UTC), again, after the test split had been opened for another selection." in detail
    paths.test_access.write_text("damaged\n")
    assert (
        detail.split(" Selected")[0] + " Selected on validation (2026-02-09 09:00 UTC)."
        == headline(chapter(results_of(root))).detail
    )


def test_the_forest_sets_the_winner_beside_runners_up_and_baselines_the_best_first(write_run):
    root = write_run(finals={})
    write_baselines(root, POOR)
    figure = figures(chapter(results_of(root)))["summary"]
    assert figure.frame["kind"].tolist() == ["winner", *["finalist"] * 2, *["baseline"] * 4]
    assert figure.frame["name"][0] == "trial 0, mobilenet_v2"
    baselines = figure.frame[figure.frame["kind"] == "baseline"]["score"]
    assert baselines.is_monotonic_decreasing
    for name in figure.frame["name"]:
        assert name in figure.alt


def test_without_baselines_the_majority_class_stands_beside_the_score_of_the_same_split(write_run):
    frame = figures(chapter(results_of(write_run(finals={"repeats": 1}))))["summary"].frame.set_index("name")
    share = 75 / 169
    assert frame["score"]["Majority class"] == pytest.approx(2 * share / (1 + share) / 3)


def test_a_few_classes_have_their_confusion_matrix_and_many_or_several_labels_a_bar_each(write_run):
    few = figures(chapter(results_of(write_run("few", trials=1, finals={"finalists": (0,), "repeats": 1}))))
    assert few["confusion_test"].frame.iloc[:, 1:].to_numpy().sum() == 169
    sizes = {"train": 70, "val": 70, "test": 70}
    many = write_run("many", trials=1, classes=tuple("abcdefg"), labels_per_split=sizes)
    recall = figures(chapter(results_of(many)))["summary_classes"].frame
    assert recall["recall"].is_monotonic_increasing
    assert sorted(recall["class"]) == list("abcdefg")
    several = write_run("several", trials=1, task="multi_label", classes=("a", "b"))
    assert set(figures(chapter(results_of(several)))["summary_classes"].frame) == {"class", "auroc", "low", "high"}


def test_labels_that_no_image_has_take_no_place_of_the_lowest(write_run):
    root = write_run(trials=1, task="multi_label", classes=tuple("abcd"))
    rewrite(RunPaths(root).trial("t00000").predictions, label=lambda arrays: arrays["label"] * np.array([0, 1, 1, 0]))
    frame = figures(chapter(results_of(root)))["summary_classes"].frame
    assert frame["class"].tolist()[2:] == ["a", "d"]
    assert frame["auroc"].isna().tolist() == [False, False, True, True]


@pytest.mark.parametrize(("repeats", "whose"), [(1, "Test: "), (3, "The model file, test: ")])
def test_the_matrix_of_one_repeat_beside_a_mean_over_several_says_whose_it_is(write_run, repeats, whose):
    found = figures(chapter(results_of(write_run(finals={"repeats": repeats}))))["confusion_test"]
    assert found.caption.startswith(whose)


@pytest.mark.parametrize("signal", [0.54, 3.0])
def test_a_shortcut_that_comes_close_is_a_caveat(write_run, signal):
    root = write_run(finals={"repeats": 1})
    write_baselines(root, POOR | {"thumbnails": signal})
    assert "A shortcut comes close to the winner: thumbnails of 16 x 16 pixels" in texts(chapter(results_of(root)))


def test_frozen_features_that_come_close_are_a_finding_beside_the_verdict_and_no_caveat(write_run):
    root = write_run(finals={"repeats": 1})
    write_baselines(root, POOR | {"frozen_resnet18": 3.0})
    results = results_of(root)
    found = texts(chapter(results))
    finding = "Training the head alone is not shown to improve on logistic regression on frozen features"
    deeper = replace(results.judged_baselines, tuned=True)
    assert deeper.frozen_sentence.startswith("Fine-tuning is not shown to improve on")
    before, _, caveats = found.partition("### Caveats")
    assert finding in before
    assert finding not in caveats


def test_four_caveats_stand_the_worst_first_and_a_link_leads_to_the_others(write_run):
    results = results_of(write_run(statuses=("running",), dataset={"caveats": [f"mark {k}" for k in range(6)]}))
    found = texts(chapter(results))
    assert found.count("- **") == MOST_CAVEATS
    assert "- **Caution:** The sweep has not ended" in found
    assert f"[and {len(caveats(results)) - MOST_CAVEATS} more](#methods)" in found


def test_the_model_file_its_own_scores_the_command_and_the_lines_that_load_it(write_run):
    root = write_run(finals={}, sweep={"storage": "my runs"})
    models = RunPaths(root).models
    models.mkdir()
    (models / "best.pt").write_bytes(b"x")
    (models / "best.json").write_text(json.dumps({"format": 1, "loading": "import torch, torchvision"}))
    results = results_of(root)
    found = chapter(results)
    assert "python -m sweep.predict 'my runs/run' IMAGES" in code(found)
    assert "import torch, torchvision" in code(found)
    own = facts(found)["Network"]
    assert f"validation macro F1 {results.winner.finalist.scores[0]:.3f}" in own
    assert f"test macro F1 {results.winner.scores.by_run['f1_macro'][0]:.3f}" in own


def test_without_a_model_file_the_command_that_makes_it_is_given(write_run):
    found = chapter(results_of(write_run(finals={"repeats": 1})))
    assert "models/best.pt does not exist" in texts(found)
    assert "python -m sweep.model runs/run" in code(found)


@pytest.mark.parametrize("damage", ["{", "[]", ""])
def test_a_damaged_description_of_the_model_leaves_out_the_lines_alone(write_run, damage):
    root = write_run(finals={"repeats": 1})
    models = RunPaths(root).models
    models.mkdir()
    (models / "best.pt").write_bytes(b"x")
    (models / "best.json").write_text(damage)
    found = chapter(results_of(root))
    assert "python -m sweep.predict runs/run IMAGES" in code(found)
    assert "with torchvision alone" not in texts(found)
    assert "models/best.json" in notes(found)


def test_the_command_that_trains_it_again_fixes_every_hyperparameter(write_run):
    command = code(chapter(results_of(write_run(trials=1))))
    again = (
        "--name run-again --trials 1 --epochs 6 --set backbone=mobilenet_v2 --set head_widths=none --set dropout=0.0"
    )
    assert again in command
    assert "--set unfreeze_depth=0" in command


def test_what_was_retrained_when_selected_and_how_often_opened_stand_among_the_facts(write_run):
    found = facts(chapter(results_of(write_run(finals={"opened": 2, "failed": ("t0001/seed_1001",)}))))
    assert found["Repeats"] == "9 for 3 configurations: 8 completed, 1 failed"
    assert found["Winner selected"] == "2026-01-05 11:20 UTC"
    assert found["Test split opened"] == "2 times, last 2026-01-05 11:20 UTC"
    assert found["Trials"] == "3 completed, 2 pruned, 1 failed, 0 running"
    assert found["Duration"] == "1 h 23 min"


def test_before_a_selection_the_best_of_the_search_stands_with_a_caveat(write_run):
    found = chapter(results_of(write_run(finals={"selected": False, "opened": 0})))
    assert headline(found).label.startswith("Validation macro F1 of the best trial")
    assert "no winner is selected" in texts(found)


def test_a_score_of_the_search_is_labelled_validation_has_its_interval_and_is_called_optimistic(write_run):
    results = results_of(write_run(trials=4))
    shown = headline(chapter(results))
    assert shown.value == f"{results.data.best['score']:.3f}"
    assert shown.label.startswith("Validation macro F1 of the best trial, 0, at epoch 6")
    known = interval(results.judged_scores, results.metric)
    assert f"{known.low:.3f}–{known.high:.3f}" in shown.label
    assert "optimistic" in shown.detail


def test_without_a_test_split_validation_stands_and_is_called_optimistic(write_run):
    images = {"images": {"train": 785, "val": 169, "test": 0}}
    shown = headline(chapter(results_of(write_run(finals={"opened": 0}, dataset=images))))
    assert shown.label.startswith("Validation macro F1 of the winner")
    assert "There is no test split" in shown.detail
    assert "optimistic" in shown.detail


def test_where_no_predictions_of_the_winner_can_be_read_the_recorded_mean_stands_without_interval(write_run):
    root = write_run(finals={"repeats": 2})
    for seed in (1001, 1002):
        RunPaths(root).trial(f"t0000/seed_{seed}").predictions.unlink()
    results = results_of(root)
    found = chapter(results)
    assert headline(found).value == f"{results.winner.finalist.mean:.3f}"
    assert headline(found).label.startswith("Validation macro F1 of the winner")
    assert "without an interval" in headline(found).detail
    assert "not compared with the others" in texts(found)
    assert "predictions.npz is missing" in notes(found)


@pytest.mark.parametrize(("metric", "mode"), [("val_nll", "min"), ("val_recall:covid", "max"), ("val_loss", "min")])
def test_another_selection_metric_gives_its_own_headline(write_run, metric, mode):
    root = write_run(sweep={"metric": metric, "mode": mode}, finals={"finalists": (0, 1), "repeats": 2})
    write_baselines(root, POOR)
    results = results_of(root)
    shown = headline(chapter(results))
    assert shown.value == f"{results.winner.scores.estimate[results.metric]:.3f}"
    if metric == "val_loss":
        assert shown.label.startswith("Test macro F1")
        course = finalists._course(results.leaderboard, results.winner)
        assert (course["validation"], math.isnan(course["search"])) == ([], True), "losses on an axis of scores"


def test_a_multi_label_run_says_that_it_is_judged_at_one_half(write_run):
    root = write_run(task="multi_label", classes=("a", "b", "c"), finals={"repeats": 2, "thresholds": {"a": 0.3}})
    assert "decided at a probability of 0.5" in headline(chapter(results_of(root))).detail


def test_a_run_without_a_score_says_why_and_draws_nothing(write_run):
    failed = chapter(results_of(write_run("failed", statuses=("failed",))))
    assert headline(failed).detail.startswith("All 6 trials failed")
    assert headline(chapter(results_of(write_run("none", trials=0)))).detail == "No trial has begun."
    assert figures(failed) == {}


def test_problems_found_while_reading_are_all_listed(write_run):
    root = write_run(trials=3)
    RunPaths(root).trial("t00002").params.write_text("{ torn")
    RunPaths(root).provenance.unlink()
    found = chapter(results_of(root))
    assert "t00002/params.json cannot be read" in notes(found)
    assert "provenance.json is missing" in notes(found)
    assert any(isinstance(block, Folded) and block.title.startswith("Problems") for block in found)


def test_predictions_of_the_winner_without_test_rows_leave_the_matrix_out(write_run):
    root = write_run(finals={"finalists": (0,), "repeats": 2})
    keep_rows(RunPaths(root).trial("t0000/seed_1001").predictions, lambda arrays: arrays["split"] != "test")
    assert headline(chapter(results_of(root))).value
