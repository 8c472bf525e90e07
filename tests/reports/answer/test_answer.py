"""The answer: the winner's test score and interval, what it may be compared with, and how its model is used."""

from __future__ import annotations

import json

import pytest
from baseline_files import POOR, write_baselines

from reports.answer import answer
from reports.data import gather
from reports.page.blocks import Command, FactList, Headline, Note, Picture, Section, Text
from reports.scores.statistics import interval
from sweep.run_folder import RunPaths


def headline(section: Section) -> Headline:
    return next(block for block in section.blocks if isinstance(block, Headline))


def words(section: Section) -> str:
    """Every sentence and fact of the section."""
    parts: list[str] = []
    for block in section.blocks:
        if isinstance(block, Text | Command):
            parts.append(block.text)
        elif isinstance(block, Note):
            parts += [block.text, *block.items]
        elif isinstance(block, FactList):
            parts += [f"{name}: {value}" for name, value in block.rows]
        elif isinstance(block, Headline):
            parts += [block.value, block.label, block.detail]
    return " ".join(parts)


def tiles(section: Section) -> dict[str, str]:
    return dict(next(block for block in section.blocks if isinstance(block, FactList) and block.tiles).rows)


def test_the_headline_is_the_winners_mean_test_score_with_its_interval_and_every_seed(write_run):
    evidence = gather(write_run(finals={}))
    scores = evidence.standing.winner.scores
    known = interval(scores, "f1_macro")
    shown = headline(answer.section(evidence))
    assert shown.value == f"{known.estimate:.3f}"
    assert f"{known.low:.3f}–{known.high:.3f}" in shown.label
    assert shown.label.startswith("Test macro F1 of the winner")
    assert ", ".join(f"{value:.3f}" for value in scores.by_run["f1_macro"]) in shown.detail
    assert "on 169 test images of 113 patients" in shown.detail
    assert "fewer than 20 patients with covid (13)" in shown.detail
    assert "fixed on validation on 2026-01-05 11:20 UTC; only then the test split was opened" in shown.detail


def test_other_scores_stand_as_tiles_and_class_counts_beside_them(write_run):
    evidence = gather(write_run(finals={}, sweep={"positive_class": "covid"}))
    section = answer.section(evidence)
    scores = evidence.standing.winner.scores
    found = tiles(section)
    wanted = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc_macro": "macro AUROC",
              "recall:covid": "sensitivity, covid", "specificity:covid": "specificity, covid"}  # fmt: skip
    assert len(found) == len(wanted)
    for name, title in wanted.items():
        known = interval(scores, name)
        value = next(value for key, value in found.items() if key.startswith(f"{title} ("))
        assert value == f"{known.estimate:.3f}"
        assert any(f"({known.low:.3f}–{known.high:.3f})" in key for key in found)
    assert words(section).count("Test split: 169 images (covid 19, normal 75, pneumonia 75)") >= 1


def test_of_two_classes_sensitivity_is_shown_unasked_and_of_three_not(write_run):
    two = answer.section(gather(write_run("two", classes=("no", "yes"), finals={"repeats": 1})))
    three = answer.section(gather(write_run("three", finals={"repeats": 1})))
    assert any(key.startswith("sensitivity, yes") for key in tiles(two))
    assert not any(key.startswith("sensitivity") for key in tiles(three))


def test_the_figure_sets_the_winner_beside_runners_up_and_simple_methods(write_run):
    root = write_run(finals={})
    write_baselines(root, POOR | {"thumbnails": 0.25, "borders": 0.1})
    section = answer.section(gather(root))
    picture = next(block for block in section.blocks if isinstance(block, Picture))
    for name in ("trial 0, mobilenet_v2", "trial 3,", "trial 1,", "Frozen features of resnet18", "Majority class"):
        assert name in picture.alt
    assert "Simple methods on the same images, in macro F1" in words(section)


@pytest.mark.parametrize(("signal", "does"), [(0.54, "comes close"), (3.0, "does as well or better")])
def test_a_shortcut_that_comes_close_is_a_warning_in_the_answer(write_run, signal, does):
    root = write_run(finals={"repeats": 1})
    write_baselines(root, POOR | {"thumbnails": signal})
    warnings = [block.text for block in answer.section(gather(root)).blocks if isinstance(block, Note)]
    assert any(f"A shortcut {does}: thumbnails of 16 x 16 pixels" in text for text in warnings)


def test_without_baselines_the_majority_stands_beside_the_score_of_the_same_split(write_run):
    assert "on test." in words(answer.section(gather(write_run("a", finals={"repeats": 1}))))
    assert "on validation." in words(answer.section(gather(write_run("b"))))


def test_the_model_file_its_own_scores_the_command_and_the_lines_that_load_it(write_run):
    root = write_run(finals={}, sweep={"storage": "my runs"})
    models = RunPaths(root).models
    models.mkdir()
    (models / "best.pt").write_bytes(b"x")
    (models / "best.json").write_text(json.dumps({"loading": "import torch, torchvision"}))
    evidence = gather(root)
    text = words(answer.section(evidence))
    winner = evidence.standing.winner
    assert "python -m sweep.predict 'my runs/run' IMAGES" in text
    assert "import torch, torchvision" in text
    assert f"validation macro F1 {winner.validation['seed_1001']:.3f}" in text
    assert f"test macro F1 {winner.scores.by_run['f1_macro'][0]:.3f} of its own" in text


def test_without_a_model_file_the_command_that_makes_it_is_given(write_run):
    text = words(answer.section(gather(write_run(finals={"repeats": 1}))))
    assert "models/best.pt is not written" in text
    assert "python -m sweep.model runs/run" in text


@pytest.mark.parametrize("damage", ["{", "[]", ""])
def test_a_damaged_description_of_the_model_leaves_out_the_lines_alone(write_run, damage):
    root = write_run(finals={"repeats": 1})
    models = RunPaths(root).models
    models.mkdir()
    (models / "best.pt").write_bytes(b"x")
    (models / "best.json").write_text(damage)
    text = words(answer.section(gather(root)))
    assert "python -m sweep.predict runs/run IMAGES" in text
    assert "with torchvision alone" not in text


def test_what_was_trained_again_when_decided_and_how_often_opened_stand_among_the_facts(write_run):
    text = words(answer.section(gather(write_run(finals={"opened": 2, "failed": ("t0001/seed_1001",)}))))
    assert "3 finalists with 3 fresh seeds: 8 of 9 trainings ended, 1 failed" in text
    assert "Winner fixed: 2026-01-05 11:20 UTC" in text
    assert "Test split opened: 2026-01-05 11:20 UTC, for the second time" in text
    assert "opened 2 times" in text


def test_before_a_decision_the_best_of_the_search_stands_with_a_warning(write_run):
    section = answer.section(gather(write_run(finals={"selected": False, "opened": 0})))
    assert headline(section).label.startswith("Validation macro F1 of the best configuration")
    assert "no winner has been fixed" in words(section)


def test_without_a_test_split_validation_stands_and_is_called_optimistic(write_run):
    images = {"images": {"train": 785, "val": 169, "test": 0}}
    section = answer.section(gather(write_run(finals={"opened": 0}, dataset=images)))
    assert headline(section).label.startswith("Validation macro F1 of the winner")
    assert "There is no test split" in headline(section).detail
    assert "optimistic" in headline(section).detail
    assert "not opened yet" not in words(section)


def test_where_no_predictions_of_the_winner_can_be_read_the_recorded_mean_stands_without_interval(write_run):
    root = write_run(finals={"repeats": 2})
    for seed in (1001, 1002):
        RunPaths(root).repeat(f"t0000/seed_{seed}").predictions.unlink()
    evidence = gather(root)
    section = answer.section(evidence)
    assert headline(section).value == f"{evidence.standing.winner.mean:.3f}"
    assert "without an interval" in headline(section).detail
    assert "it is not compared with the others" in words(section)
    assert "predictions.npz is missing" in words(section)


@pytest.mark.parametrize(("metric", "mode"), [("val_nll", "min"), ("val_recall:covid", "max"), ("val_loss", "min")])
def test_another_selection_metric_gives_its_own_headline(write_run, metric, mode):
    root = write_run(sweep={"metric": metric, "mode": mode}, finals={"finalists": (0, 1), "repeats": 2})
    write_baselines(root, POOR)
    evidence = gather(root)
    standing = evidence.standing
    shown = headline(answer.section(evidence))
    assert shown.value == f"{standing.winner.scores.estimate[standing.metric]:.3f}"
    if metric == "val_loss":
        assert shown.label.startswith("Test macro F1")


def test_a_multi_label_run_is_judged_at_one_half_and_calls_accuracy_exact_match(write_run):
    root = write_run(task="multi_label", classes=("a", "b", "c"), finals={"repeats": 2, "thresholds": {"a": 0.3}})
    section = answer.section(gather(root))
    assert any(key.startswith("exact match") for key in tiles(section))
    assert "At a probability of 0.5 for every label." in words(section)
