"""The chapter on the finalists: its tables, its words, and every state that a run can be in."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from baseline_files import POOR, write_baselines
from in_chapter import figures, results_of, tables, texts
from run_files import WriteRun, write

from reports.caveats import caveats
from reports.chapters import backbone_depth, finalists
from reports.comparisons import Comparison
from reports.intervals import interval
from reports.leaderboard import Leaderboard
from sweep.run_folder import RunPaths
from trainables.metrics import evaluate_predictions


def lead(difference: float, p_holm: float) -> Comparison:
    low, high = difference - 0.05, difference + 0.05
    return Comparison(difference=difference, low=low, high=high, p=p_holm / 2, p_holm=p_holm, warning="")


def test_the_table_of_finalists_has_search_score_repeats_gap_and_test_score_with_its_interval(
    write_run: WriteRun,
) -> None:
    results = results_of(write_run(finals={}))
    frame = tables(finalists.chapter(results))["finalists"].frame
    assert list(frame["number"]) == [0, 3, 1]
    assert list(frame["role"]) == ["winner", "", ""]
    for row, one in zip(frame.to_dict("records"), results.leaderboard.finalists, strict=True):
        known = interval(one.scores, "f1_macro")
        assert (row["score"], row["score_low"], row["score_high"]) == (known.estimate, known.low, known.high)
        assert (row["search_score"], row["mean"]) == (one.finalist.search_score, one.finalist.mean)
        assert row["gap"] == pytest.approx(row["search_score"] - row["mean"])
        assert row["repeated"] == f"{one.finalist.mean:.3f} ± {one.finalist.standard_error:.3f}"
        assert one.finalist.params["backbone"] in row["configuration"]


@pytest.mark.parametrize(("folds", "lucky"), [(None, True), (3, False)])
def test_a_gap_between_search_and_repeats_is_luck_where_both_validate_on_the_same_images(
    write_run: WriteRun, folds: int | None, lucky: bool
) -> None:
    root = write_run(finals={"folds": folds})
    chosen = json.loads(RunPaths(root).chosen.read_text())
    finalists_of_search = [one | {"search_score": 0.999} for one in chosen["finalists"]]
    RunPaths(root).chosen.write_text(json.dumps(chosen | {"finalists": finalists_of_search}))
    text = texts(finalists.chapter(results_of(root)))
    assert f"better than their {'folds' if folds else 'repeats'}" in text
    assert ("the luckiest" in text) == lucky


def test_every_repeat_stands_with_its_own_scores(write_run: WriteRun) -> None:
    results = results_of(write_run(finals={"failed": ("t0003/seed_1002",)}))
    frame = tables(finalists.chapter(results))["repeats"].frame
    assert len(frame) == 9
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert (failed["number"], failed["repeat"], failed["reason"]) == (3, "seed_1002", "RuntimeError: no memory")
    assert math.isnan(failed["score"])
    winner = frame[frame["number"] == 0]
    assert winner["score"].mean() == pytest.approx(results.winner.scores.estimate["f1_macro"])
    assert winner["validation"].mean() == pytest.approx(results.winner.finalist.mean)


def test_the_pairs_have_difference_p_and_a_verdict_in_words(write_run: WriteRun) -> None:
    results = results_of(write_run(finals={}))
    chapter = finalists.chapter(results)
    rows = tables(chapter)["finalists_paired"].frame.to_dict("records")
    for row, one in zip(rows, results.leaderboard.runners_up, strict=True):
        known = results.leaderboard.leads[one.trial_id]
        assert (row["difference"], row["p"], row["p_holm"]) == (known.difference, known.p, known.p_holm)
        assert row["verdict"] == "no significant difference"
    assert "detected 14 to 21 times in 100" in texts(chapter)
    assert (
        "of patients and on the variance between repeats, which accounts for other seeds"
        in tables(chapter)["finalists_paired"].caption
    )
    alone = finalists.chapter(results_of(write_run("alone", finals={"repeats": 1})))
    assert "variation between seeds is not known" in tables(alone)["finalists_paired"].caption


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    return results_of(write(tmp_path_factory.mktemp("board") / "run", finals={"repeats": 1})).leaderboard


@pytest.mark.parametrize(
    ("leads", "expected"),
    [
        ({"t0003": lead(0.1, 0.01), "t0001": lead(0.2, 0.002)}, "is better than trials 3 and 1"),
        ({"t0003": lead(0.1, 0.01), "t0001": lead(0.2, 0.002)}, "variation between seeds is not known."),
        ({"t0003": lead(0.1, 0.01), "t0001": lead(0.01, 0.4)}, "trial 3 (difference +0.100 (+0.050 to +0.150)"),
        ({"t0003": lead(0.01, 0.9), "t0001": lead(0.02, 0.6)}, "does not differ significantly from trials 3 and 1"),
        ({"t0003": lead(-0.1, 0.01), "t0001": lead(0.02, 0.6)}, "is worse than trial 3"),
        ({"t0003": lead(-0.1, 0.01), "t0001": lead(0.02, 0.6)}, "It remains the winner"),
        ({"t0003": lead(0.1, math.nan), "t0001": lead(0.02, 0.6)}, "could not be tested against trial 3"),
    ],
)  # fmt: skip
def test_the_verdict_says_no_more_than_the_corrected_p_values(
    board: Leaderboard, leads: dict[str, Comparison], expected: str
) -> None:
    assert expected in replace(board, leads=leads).sentence


@pytest.mark.parametrize(("finals", "expected"), [(None, "No finalists have been chosen"), ({}, "retrained 3 times")])
def test_the_state_of_the_finals_is_said(write_run: WriteRun, finals: dict[str, Any] | None, expected: str) -> None:
    assert expected in texts(finalists.chapter(results_of(write_run(finals=finals))))


def test_without_finalists_by_wish_the_chapter_says_what_is_lost(write_run: WriteRun) -> None:
    results = results_of(write_run(sweep={"finalists": 0}))
    assert "finalists 0" in texts(finalists.chapter(results)).replace("\\", "")


@pytest.mark.parametrize("file", ["selection.json", "finalists.json", "predictions of all", "test_access.jsonl"])
def test_damaged_files_are_said_and_the_rest_is_shown(write_run: WriteRun, file: str) -> None:
    root = write_run(finals={"compare": (2,)}, trials=6)
    paths = RunPaths(root)
    if file == "predictions of all":
        for folder in paths.repeat_folders():
            paths.trial(f"{folder.parent.name}/{folder.name}").predictions.write_bytes(b"x")
    else:
        (paths.finalists / file).write_text("{ torn")
    results = results_of(root)
    chapter = finalists.chapter(results)
    assert texts(chapter)
    assert tables(backbone_depth.chapter(results))
    if file == "selection.json":
        assert any("the winner is not known" in one.text for one in caveats(results))
    if file == "finalists.json":
        assert "is damaged" in texts(chapter)
    if file == "test_access.jsonl":
        assert results.leaderboard.split == "test"  # a torn line counts as an opening


def test_a_metric_where_lower_is_better_and_a_table_with_odd_names(write_run: WriteRun) -> None:
    nasty = ("<b>", "a|b$x$", "normal")
    root = write_run(classes=nasty, sweep={"metric": "val_nll", "mode": "min"}, finals={"repeats": 2})
    chapter = finalists.chapter(results_of(root))
    assert (tables(chapter)["finalists"].frame["score"] > 0).all()
    assert "negative log-likelihood" in tables(chapter)["finalists"].columns[-2].title
    assert "<b>" not in texts(chapter)


def test_hyperparameters_of_another_version_are_named_and_not_fatal(write_run: WriteRun) -> None:
    root = write_run(finals={"repeats": 1})
    paths = RunPaths(root)
    chosen = json.loads(paths.chosen.read_text())
    for row in chosen["finalists"]:
        row["params"] = {"backbone": "resnet18", "wings": 2}
    paths.chosen.write_text(json.dumps(chosen))
    frame = tables(finalists.chapter(results_of(root)))["finalists"].frame
    assert set(frame["configuration"]) == {"hyperparameters damaged"}


def test_the_table_sets_the_winners_mean_beside_every_baseline_on_both_splits(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    results = results_of(root)
    table = tables(finalists.chapter(results))["baselines"]
    rows = table.frame.set_index("name")
    assert list(rows.index) == ["winner", *POOR]
    assert rows.loc["frozen_resnet18", "kind"] == "frozen"
    assert rows.loc["majority", "kind"] == "shortcut"
    assert results.params.unfreeze_depth == 0
    assert rows.loc["winner", "how"] == "the head alone was trained"
    winner = [one for name, one in results.data.repeats.items() if name.startswith("t0000/")]
    entries = {entry["name"]: entry for entry in json.loads(RunPaths(root).baselines_table.read_text())["baselines"]}
    for split in ("val", "test"):
        for metric in ("accuracy", "f1_macro"):
            parts = [one.of(split) for one in winner]
            mean = np.mean(
                [evaluate_predictions(p.label, p.probability, p.classes, "single_label")[metric] for p in parts]
            )
            assert rows.loc["winner", f"{split}_{metric}"] == pytest.approx(mean)
            for name in POOR:
                assert rows.loc[name, f"{split}_{metric}"] == pytest.approx(entries[name][split][metric])
    low, high = rows["test_f1_macro_low"], rows["test_f1_macro_high"]
    assert ((low <= rows["test_f1_macro"]) & (rows["test_f1_macro"] <= high)).all()
    assert rows.loc["thumbnails", "lead"] == pytest.approx(
        rows.loc["winner", "test_f1_macro"] - rows.loc["thumbnails", "test_f1_macro"]
    )
    assert table.columns[-1].title == "share of the gain"
    assert (rows.loc["majority", "share"], rows.loc["winner", "share"]) == (0, 1)


def test_the_chapter_says_of_baselines_what_the_whole_page_says(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, {"majority": 0.0, "thumbnails": 0.1, "borders": 0.1, "frozen_resnet18": 3.0})
    results = results_of(root)
    text = texts(finalists.chapter(results)).replace("\\", "")
    assert results.judged_baselines.shortcut_sentence in text
    assert results.judged_baselines.frozen_sentence in text
    assert "No shortcut comes close" in text
    assert "Simple methods come close" not in text


def test_before_the_test_split_is_opened_nothing_of_it_is_shown(write_run: WriteRun) -> None:
    root = write_run(finals={})
    write_baselines(root, POOR)
    RunPaths(root).test_access.unlink()
    table = tables(finalists.chapter(results_of(root)))["baselines"]
    assert not [name for name in table.frame if str(name).startswith("test")]
    assert "test" not in " ".join(column.title for column in table.columns)


def test_without_baselines_the_chapter_says_so_and_a_failed_one_says_why(write_run: WriteRun) -> None:
    root = write_run(finals={})
    assert "No baselines were measured" in texts(finalists.chapter(results_of(root)))
    write_baselines(root, POOR, failed=("borders",))
    frame = tables(finalists.chapter(results_of(root)))["baselines"].frame.set_index("name")
    assert frame.loc["borders", "how"] == "not measured: out of memory"
    assert math.isnan(frame.loc["borders", "test_f1_macro"])


@pytest.mark.parametrize("names", [["backbone"], ["backbone", "unfreeze_depth"]])
def test_compared_cells_stand_in_a_table_with_a_figure(write_run: WriteRun, names: list[str]) -> None:
    cells = {"finalists": (0, 3), "compare": (1, 2, 4), "repeats": 2}
    results = results_of(write_run(trials=9, sweep={"compare": names}, finals=cells))
    chapter = backbone_depth.chapter(results)
    frame = tables(chapter)["compared_cells"].frame
    assert len(frame) == len(results.leaderboard.cells)
    assert "the winner itself" in set(frame["verdict"])
    assert set(names) <= set(frame.columns)
    for row in frame.to_dict("records"):
        one = next(each for each in results.leaderboard.configurations if each.finalist.number == row["number"])
        assert row["score"] == one.scores.estimate["f1_macro"]
    assert "compared_cells_map" in figures(chapter)
    assert "effects" in tables(chapter)


def test_the_comparison_joins_the_repeats_of_each_cells_best_trial(write_run: WriteRun) -> None:
    results = results_of(write_run(trials=9, statuses=("completed",), finals={"compare": (7,)}))
    cells = backbone_depth.repeated_cells(results)
    by_number = {one.finalist.number: one for one in results.leaderboard.configurations}
    joined = cells[cells["mean"].notna()]
    assert len(joined) >= 1
    assert set(joined["number"]) == set(cells["number"]) & set(by_number)
    for row in joined.to_dict("records"):
        one = by_number[row["number"]]
        assert row["judged"] == one.scores.estimate["f1_macro"]
        assert row["mean"] == one.finalist.mean
    chapter = backbone_depth.chapter(results)
    assert "a hint, not evidence" in texts(chapter)
    assert "backbone_depth_map" in figures(chapter)


def test_an_empty_run_has_nothing_to_compare(write_run: WriteRun) -> None:
    assert "nothing to compare" in texts(backbone_depth.chapter(results_of(write_run(trials=0))))
