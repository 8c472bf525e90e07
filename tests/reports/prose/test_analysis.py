"""The rules of the analysis: each speaks where its numbers support it, and is silent, or says less, where not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from searched_run import write_searched

from reports.data import gather
from reports.page.blocks import Heading, Table, Text
from reports.prose import analysis, analysis_limits, analysis_result, analysis_search
from reports.prose.analysis_facts import Facts
from sweep.run_folder import RunPaths

BIG = {"labels_per_split": {"train": 60, "val": 150, "test": 150}, "classes": ("a", "b", "c"), "trials": 2}


def said(rule, root):
    return rule(Facts(gather(root)))


def texts(rule, root):
    return " ".join(one.text for one in said(rule, root))


def skilled(root, trial_id, skill, splits=("train", "val", "test"), seed=0):
    """Make the saved predictions of every repeat of a finalist as good as ``skill`` (0: chance) on ``splits``."""
    folders = sorted((RunPaths(root).finalists / trial_id).iterdir())
    for place, folder in enumerate(folders):
        path = folder / "best" / "predictions.npz"
        with np.load(path) as saved:
            arrays = {key: saved[key] for key in saved.files}
        count = len(arrays["classes"])
        rng = np.random.default_rng(1000 * seed + place)
        logits = skill * np.eye(count)[arrays["label"]] + rng.normal(size=(len(arrays["label"]), count))
        probability = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
        chosen = np.isin(arrays["split"], splits)
        arrays["probability"][chosen] = probability[chosen]
        np.savez(path, **arrays)


def finalists(root, **changes):
    """Change what finalists.json says of each finalist, by trial_id."""
    path = RunPaths(root).chosen
    chosen = json.loads(path.read_text())
    for row in chosen["finalists"]:
        row |= changes.get(row["trial_id"], {})
    path.write_text(json.dumps(chosen))


# The result


def test_a_winner_is_called_better_only_where_the_corrected_comparison_says_so(write_run):
    root = write_run(finals={}, **BIG)
    for seed, (trial_id, skill) in enumerate({"t0000": 6, "t0003": 1, "t0001": 6}.items()):
        skilled(root, trial_id, skill, seed=seed)
    better, open_ = said(analysis_result.against_others, root)
    assert better.kind == "shown"
    assert "better test macro F1 than trial 3 by +0." in better.text
    assert "p < 0.001" in better.text
    assert "trial 1" not in better.text
    assert open_.kind == "open"
    assert "cannot be told apart from trial 1" in open_.text


def test_a_winner_that_is_worse_on_test_is_called_so_and_stays(write_run):
    root = write_run(finals={"finalists": (0, 3)}, **BIG)
    skilled(root, "t0000", 1)
    skilled(root, "t0003", 6)
    (finding,) = said(analysis_result.against_others, root)
    assert "worse test macro F1 than another finalist" in finding.text
    assert "the choice stands" in finding.text


def test_on_validation_alone_a_better_winner_is_no_more_than_open(write_run):
    root = write_run(finals={"finalists": (0, 3), "opened": 0}, **BIG)
    skilled(root, "t0000", 6)
    skilled(root, "t0003", 1)
    (finding,) = said(analysis_result.against_others, root)
    assert finding.kind == "open"
    assert "the test split would have to confirm it" in finding.text


def test_without_a_rival_nothing_is_compared(write_run):
    assert said(analysis_result.against_others, write_run()) == []
    assert said(analysis_result.against_others, write_run("alone", finals={"finalists": (0,)})) == []


def test_an_unrepeated_ranking_is_called_unknown(write_run):
    (finding,) = said(analysis_result.unrepeated, write_run())
    assert finding.kind == "open"
    assert "Which configuration is best is not known." in finding.text
    assert said(analysis_result.unrepeated, write_run("repeated", finals={})) == []
    assert said(analysis_result.unrepeated, write_run("single", trials=1)) == []


def test_the_score_is_shown_on_test_and_called_flattered_on_validation(write_run):
    (finding,) = said(analysis_result.score, write_run(finals={}))
    assert finding.kind == "shown"
    assert "mean of 3 repeats" in finding.text
    (finding,) = said(analysis_result.score, write_run("search"))
    assert finding.kind == "open"
    assert "which flatters it" in finding.text
    assert said(analysis_result.score, write_run("running", statuses=("running",))) == []


def small(write_run, name, **changes):
    sizes = {"train": 60, "val": 24, "test": 24}
    return write_run(name, finals={"finalists": (0,)}, labels_per_split=sizes, **{"classes": ("a", "b")} | changes)


def test_a_network_at_chance_is_not_said_to_have_learned(write_run):
    root = small(write_run, "run")
    skilled(root, "t0000", 0)
    (finding,) = said(analysis_result.against_guessing, root)
    assert finding.kind == "limit"
    assert "guessing gives 0.500" in finding.text
    (finding,) = said(analysis_result.against_majority, root)
    assert "is right for 50 % of the images" in finding.text
    skilled(root, "t0000", 4)
    (finding,) = said(analysis_result.against_guessing, root)
    assert finding.kind == "shown"
    assert said(analysis_result.against_majority, root) == []


def test_labels_decided_singly_are_held_against_a_coin(write_run):
    root = write_run(task="multi_label", classes=("a", "b", "c"), finals={})
    assert "guessing gives 0.500: something was learned" in texts(analysis_result.against_guessing, root)
    assert said(analysis_result.against_majority, root) == []


def baseline(root, name, skill):
    """Write baselines.json with the majority class and one more of that skill."""
    paths = RunPaths(root)
    entries = []
    with np.load(paths.repeat("t0000/seed_1001").predictions) as saved:
        arrays = {key: saved[key] for key in saved.files}
    for label, strength in (("majority", None), (name, skill)):
        count = len(arrays["classes"])
        logits = np.random.default_rng(7).normal(size=(len(arrays["label"]), count))
        logits += np.arange(count) * 90 if strength is None else strength * np.eye(count)[arrays["label"]]
        probability = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        paths.baselines.mkdir(exist_ok=True)
        np.savez(paths.baselines / f"{label}.npz", **arrays | {"probability": probability.astype(np.float32)})
        entries.append({"name": label, "label": label, "detail": "", "val": None, "test": None, "failed": None})
    paths.baselines_table.write_text(json.dumps({"baselines": entries}))


def test_a_shortcut_that_comes_close_weakens_the_result_and_one_that_does_not_supports_it(write_run):
    root = write_run(finals={"finalists": (0,)}, **BIG)
    skilled(root, "t0000", 5)
    baseline(root, "borders", 5)
    (finding,) = said(analysis_result.shortcuts, root)
    assert finding.kind == "limit"
    assert "borders (" in finding.text
    baseline(root, "borders", 1)
    (finding,) = said(analysis_result.shortcuts, root)
    assert finding.kind == "shown"
    assert "clear of the best simple method, borders, by +0." in finding.text
    assert said(analysis_result.shortcuts, write_run("none", finals={})) == []


def test_the_price_of_selection_is_a_claim_only_beyond_the_spread_of_repeats(write_run):
    root = write_run(finals={})
    finalists(root, t0000={"search_score": 2.0})
    first, over_all = said(analysis_result.selection, root)
    assert first.kind == "shown"
    assert "the search flattered it" in first.text
    assert over_all.kind == "open"
    assert "is to be taken off the search's best scores" in over_all.text
    mean = gather(root).run.finals.of("t0000").mean
    finalists(root, t0000={"search_score": mean}, t0003={"search_score": 0.1}, t0001={"search_score": 0.1})
    first, over_all = said(analysis_result.selection, root)
    assert first.kind == "open"
    assert "as far apart among themselves" in first.text
    assert "worse than the means of their repeats." in over_all.text
    assert said(analysis_result.selection, write_run("none")) == []


def test_a_search_score_away_from_equal_repeats_is_beyond_their_spread(write_run):
    root = write_run(finals={"finalists": (0,)}, **BIG)
    skilled(root, "t0000", 40)
    finalists(root, t0000={"search_score": 0.8})
    (finding,) = said(analysis_result.selection, root)
    assert "the search missed its worth" in finding.text


@pytest.mark.parametrize(
    ("validation", "test", "words", "kind"),
    [
        (6, 6, "lies within the interval", "shown"),
        (7, 2, "worse than validation promised", "shown"),
        (2, 7, "not equally hard", "limit"),
    ],
)
def test_test_is_held_against_what_validation_promised(write_run, validation, test, words, kind):
    root = write_run(finals={"finalists": (0,)}, **BIG)
    skilled(root, "t0000", validation, ("train", "val"))
    skilled(root, "t0000", test, ("test",))
    (finding,) = said(analysis_result.promise, root)
    assert words in finding.text
    assert finding.kind == kind


def test_without_an_opened_test_split_nothing_is_promised(write_run):
    assert said(analysis_result.promise, write_run(finals={"opened": 0})) == []


def test_overfitting_is_said_only_beyond_the_interval_of_validation(write_run):
    root = write_run(finals={"finalists": (0,)}, **BIG)
    skilled(root, "t0000", 9, ("train",))
    skilled(root, "t0000", 2, ("val",))
    assert "knows its training images better than new ones, by 0." in texts(analysis_result.overfitting, root)
    skilled(root, "t0000", 2, ("train",), seed=3)
    assert "no overfitting" in texts(analysis_result.overfitting, root)
    assert said(analysis_result.overfitting, write_run("running", statuses=("running",))) == []


# What weakens it


def test_the_recall_of_a_rare_class_comes_with_its_interval_and_ranks_nothing_where_that_is_wide(write_run):
    few = small(write_run, "small")
    skilled(few, "t0000", 1)
    (finding,) = said(analysis_limits.rarest_class, few)
    assert finding.kind == "limit"
    assert "ranks no two networks" in finding.text
    root = write_run(finals={"finalists": (0,)}, **BIG)
    skilled(root, "t0000", 6)
    (finding,) = said(analysis_limits.rarest_class, root)
    assert finding.kind == "shown"
    assert "Of a, the rarest class (50 images of 34 patients)" in finding.text


def test_a_class_that_is_never_the_answer_is_named(write_run):
    assert "covid is never the answer" in texts(analysis_limits.never_predicted, write_run(never_predicted="covid"))
    assert said(analysis_limits.never_predicted, write_run("fine")) == []


def test_the_spread_between_seeds_is_told_of_repeats_alone(write_run):
    assert "(3 repeats)" in texts(analysis_limits.seeds, write_run(finals={}))
    assert said(analysis_limits.seeds, write_run("search")) == []


def test_classes_with_few_patients_are_named(write_run):
    assert "fewer than 20 patients with covid (13)" in texts(analysis_limits.few_patients, write_run(finals={}))
    assert said(analysis_limits.few_patients, write_run("big", finals={}, **BIG)) == []


@pytest.mark.parametrize(("opened", "words"), [(0, ""), (1, ""), (3, "opened 3 times")])
def test_a_second_look_at_test_is_told(write_run, opened, words):
    found = texts(analysis_limits.test_access, write_run(finals={"opened": opened}))
    assert (words in found) if words else not found


def test_repeats_that_failed_are_told(write_run):
    assert "trial 0 (2 of 3)" in texts(analysis_limits.lost_repeats, write_run(finals={"failed": ["t0000/seed_1002"]}))
    assert said(analysis_limits.lost_repeats, write_run("whole", finals={})) == []


# The search


def test_failures_are_counted_and_pinned_to_a_backbone_only_beyond_chance(write_run):
    spread = texts(analysis_search.failures, write_run(trials=12))
    assert "3 of 12 trials failed: “RuntimeError: out of memory”" in spread
    assert "more than chance" not in spread
    one = write_run("one", trials=24, statuses=("failed", "completed", "completed"))
    found = texts(analysis_search.failures, one)
    assert "8 of them are of mobilenet_v2, more than chance would have it (Fisher's exact test, p < 0.001" in found
    assert said(analysis_search.failures, write_run("none", statuses=("completed",))) == []


def test_a_share_of_stopped_trials_differs_by_depth_only_where_the_exact_test_says_so(tmp_path, write_run):
    root = write_searched(tmp_path / "run", lambda params, epoch: 0.5, trials=40, statuses=("completed",))
    for folder in RunPaths(root).trial_folders():
        paths = RunPaths(root).trial(folder.name)
        if json.loads(paths.params.read_text())["params"]["unfreeze_depth"] > 0:
            paths.status.write_text(json.dumps({"status": "pruned", "reason": "asha"}))
    (finding,) = said(analysis_search.early_stopping, root)
    assert finding.kind == "limit"
    assert "deep configurations had less of a chance" in finding.text
    (finding,) = said(analysis_search.early_stopping, write_run("even", trials=20))
    assert finding.kind == "open"
    assert "no difference shown" in finding.text
    assert said(analysis_search.early_stopping, write_run("all", statuses=("completed",))) == []


def test_more_epochs_are_suggested_only_where_the_last_is_best_more_often_than_by_chance(tmp_path, write_run):
    found = texts(analysis_search.budget, write_run(trials=12, statuses=("completed",)))
    assert "12 of 12 trials that ran all 6 epochs were best in the last one (76 % to 100 %)" in found
    early = write_searched(tmp_path / "early", lambda p, epoch: -epoch, trials=12, statuses=("completed",))
    assert said(analysis_search.budget, early) == []
    assert said(analysis_search.budget, write_run("few", trials=3, statuses=("completed",))) == []


def test_a_best_trial_that_came_late_is_a_hint_to_search_on(tmp_path):
    late = write_searched(tmp_path / "late", lambda p, e: 0.5, trials=20, statuses=("completed",))
    lift(late, 19, 0.4)
    assert "number 19 of 20" in texts(analysis_search.late_find, late)
    early = write_searched(tmp_path / "early", lambda p, e: 0.5, trials=20, statuses=("completed",))
    lift(early, 2, 0.4)
    assert said(analysis_search.late_find, early) == []


def lift(root, number, by):
    path = RunPaths(root).trial(f"t{number:05d}").result
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"val_f1_macro": row["val_f1_macro"] + by}) + "\n" for row in rows))


def test_a_learning_rate_at_the_bound_of_its_range_is_a_hint_to_widen_it(tmp_path, write_run):
    root = write_searched(tmp_path / "run", lambda p, e: 0.5, trials=10, statuses=("completed",))
    path = RunPaths(root).trial("t00004").params
    record = json.loads(path.read_text())
    name = next(key for key in record["asked"]["suggested"] if key.startswith("lr."))
    highest = record["asked"]["distributions"][name]["attributes"]["high"]
    lift(root, 4, 0.3)
    record["asked"]["suggested"][name] = record["params"]["lr"] = 1e-3
    path.write_text(json.dumps(record))
    assert said(analysis_search.edge, root) == []
    record["asked"]["suggested"][name] = record["params"]["lr"] = highest
    path.write_text(json.dumps(record))
    assert "lies at the upper bound of its range" in texts(analysis_search.edge, root)
    assert said(analysis_search.edge, write_run("list", trials=12)) == [], "a list has no range but its own rates"


def test_backbones_and_depths_are_hints_until_repeats_compared_them(write_run):
    (finding,) = said(analysis_search.depth_and_backbone, write_run())
    assert finding.kind == "open"
    assert "These are hints" in finding.text
    compared = write_run("compared", finals={"compare": (2,)}, sweep={"compare": ["backbone"]})
    assert said(analysis_search.depth_and_backbone, compared) == []
    assert said(analysis_search.depth_and_backbone, write_run("one", trials=1)) == []


def compared_run(write_run, name, skills):
    """Three backbones repeated (--compare backbone), their predictions as good as ``skills``."""
    finals = {"finalists": (0, 1), "compare": (2,)}
    root = write_run(name, finals=finals, sweep={"compare": ["backbone"]}, **BIG)
    for seed, (trial_id, skill) in enumerate(zip(("t0000", "t0001", "t0002"), skills, strict=True)):
        skilled(root, trial_id, skill, seed=seed)
    return root


def test_a_factor_is_said_to_matter_only_by_paired_repeats(write_run):
    root = compared_run(write_run, "run", (6, 6, 1))
    shown, unclear = said(analysis_search.compared_factors, root)
    assert shown.kind == "shown"
    assert "mobilenet_v2 is better than squeezenet1_1 by 0." in shown.text
    assert "resnet18 is better than squeezenet1_1" in shown.text
    assert "other hyperparameters differ, too" in shown.text
    assert "Between values of backbone, 1 of 3 comparisons of paired repeats showed no difference" in unclear.text
    (finding,) = said(analysis_search.compared_factors, compared_run(write_run, "same", (4, 4, 4)))
    assert finding.kind == "open"
    assert said(analysis_search.compared_factors, write_run("plain", finals={})) == []


# The section


def section_of(root):
    return analysis.section(gather(root))


def test_the_section_sorts_what_was_found_by_how_sure_it_is(write_run):
    section = section_of(write_run(finals={}))
    headings = [block.text for block in section.blocks if isinstance(block, Heading)]
    assert headings == ["What is shown", "What is open: hints, and what cannot be told apart", "What weakens all this"]
    assert section.tables() == []


def test_compared_factors_stand_in_a_table_of_their_own(write_run):
    section = section_of(compared_run(write_run, "run", (6, 5, 1)))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert table.name == "effects"
    assert list(table.frame["factor"]) == ["backbone"] * 3
    assert set(table.frame["result"]) <= {"the first is better", "the second is better", "no difference shown"}


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("metric", ["val_f1_macro", "val_nll", "val_recall:a"])
def test_any_task_and_metric_is_analysed(write_run, task, metric):
    mode = "min" if metric == "val_nll" else "max"
    root = write_run(task=task, classes=("a", "b", "c"), finals={}, sweep={"metric": metric, "mode": mode})
    assert len(section_of(root).blocks) > 5


@pytest.mark.parametrize("statuses", [("failed",), ("running",), ("pruned",)])
@pytest.mark.parametrize("trials", [0, 3])
def test_a_run_with_little_in_it_is_analysed_with_that(write_run, statuses, trials):
    section = section_of(write_run(trials=trials, statuses=statuses))
    text = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    if not trials:
        assert "nothing to analyse yet" in text
    elif statuses == ("failed",):
        assert "3 of 3 trials failed" in text


def test_names_are_given_as_they_are(write_run):
    names = ("<b>x</b>", "b", "c")
    text = " ".join(one.text for one in said(analysis_limits.rarest_class, write_run(classes=names, finals={})))
    assert "&lt;" not in text
