from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks.coverage import CONFUSION, POPULATIONS, WORSE, Population, drawn_set, main, simulate, true_scores


def test_a_population_has_the_scores_that_are_taken_for_true():
    many = Population("many", 200_000, (0.5, 0.3, 0.2), 2)
    labels, groups, decided = drawn_set(many, [CONFUSION, WORSE], np.random.default_rng(0))
    assert len(set(groups)) == pytest.approx(200_000 / 1.7, rel=0.01)
    for runs, confusion in zip(decided, (CONFUSION, WORSE), strict=True):
        truth = true_scores(confusion)
        for run in runs:
            f1 = f1_score(labels, run, average=None)
            assert (run == labels).mean() == pytest.approx(truth["accuracy"], abs=0.005)
            assert f1.mean() == pytest.approx(truth["f1_macro"], abs=0.007)
            assert f1[0] == pytest.approx(truth["f1:covid"], abs=0.012)
            assert (run == labels)[labels == 0].mean() == pytest.approx(truth["recall:covid"], abs=0.012)


def test_images_of_a_patient_and_runs_of_a_configuration_err_alike():
    many = Population("many", 50_000, (0.0, 1.0, 0.0), 2)
    labels, _, ((first, second), (other, _)) = drawn_set(many, [CONFUSION, CONFUSION], np.random.default_rng(0))
    wrong = first != labels
    assert wrong[1::2][wrong[::2]].mean() > 2 * wrong.mean()
    of_the_same, of_another = (one != labels for one in (second, other))
    assert of_the_same[wrong].mean() > of_another[wrong].mean() > 2 * wrong.mean()


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    found = simulate(POPULATIONS[1], simulations=30, replicates=200, seed=1)
    for name in ("accuracy", "f1_macro"):
        assert found[name, "report"][:, 0].mean() > 0.85
    assert found["equal macro F1: p at most .05", "report"][:, 0].mean() < 0.15


def test_the_table_has_a_part_for_each_population(capsys):
    main(["--simulations", "1", "--replicates", "200"])
    shown = capsys.readouterr().out
    assert all(population.name in shown for population in POPULATIONS)
    assert "nan" not in shown
