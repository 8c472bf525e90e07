"""The winner against the others: the same resamples, Holm and McNemar against statsmodels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, t
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from reports.bootstrap import draw_resamples, score_runs
from reports.comparisons import change, compare, holm, mcnemar

CLASSES = ("a", "b", "c")


def finalists(seed=0, images=200, rights=(0.9, 0.9, 0.7), group_size=1, replicates=2000, areas=False):
    """Scores by name of networks right on these shares of the images, and bool [networks, images] of where."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    groups = [f"p{i // group_size}" for i in range(images)]
    resamples = draw_resamples(groups, labels, 3, replicates=replicates)
    ease = rng.random(images)
    right = np.array([(0.7 * ease + 0.3 * rng.random(images)) < np.quantile(ease, share) for share in rights])
    decided = np.where(right, labels, (labels + rng.integers(1, 3, images)) % 3)
    runs = enumerate(np.eye(3)[decided][:, None])
    return {f"t{i}": score_runs(labels, one, CLASSES, resamples, areas=areas) for i, one in runs}, decided == labels


def test_a_clearly_worse_finalist_is_told_from_the_winner_and_an_equal_one_is_not():
    scores, _ = finalists()
    found = compare(scores["t0"], {name: scores[name] for name in ("t1", "t2")})
    assert found["t2"].low > 0
    assert found["t2"].p_holm < 0.01
    assert found["t1"].low < 0 < found["t1"].high
    assert found["t1"].p_holm > 0.05
    assert found["t2"].difference == scores["t0"].estimate["f1_macro"] - scores["t2"].estimate["f1_macro"]


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from(["f1_macro", "accuracy", "auroc_macro"]), st.sampled_from([300, 1999]))
def test_an_interval_excludes_no_difference_exactly_where_p_is_at_most_a_twentieth(seed, name, replicates):
    size = {"images": 40, "group_size": 2, "replicates": replicates}
    scores, _ = finalists(seed, rights=(0.9, 0.75), areas=name == "auroc_macro", **size)
    found = compare(scores["t0"], {"t1": scores["t1"]}, name)["t1"]
    assert (found.low > 1e-9 or found.high < -1e-9) == (found.p <= 0.05)
    assert found.low <= found.difference <= found.high
    assert 1 / (replicates + 1) <= found.p <= 1


@pytest.mark.parametrize("seed", range(3))
def test_a_change_between_two_sets_has_the_interval_of_independent_samples(seed):
    before, after = (
        finalists(10 * seed + place, images=600, rights=(share,))[0]["t0"] for place, share in enumerate((0.9, 0.7))
    )
    found = change(before, after, "accuracy")
    share, other = before.estimate["accuracy"], after.estimate["accuracy"]
    spread = ((share * (1 - share) + other * (1 - other)) / 600) ** 0.5
    assert found.difference == other - share
    assert found.high - found.difference == pytest.approx(1.96 * spread, rel=0.08)
    assert found.difference - found.low == pytest.approx(1.96 * spread, rel=0.08)
    assert found.significant
    assert not change(before, before, "accuracy").significant


def test_the_p_value_is_near_that_of_a_permutation_test():
    scores, right = finalists(seed=4, rights=(0.9, 0.84))
    found = compare(scores["t0"], {"t1": scores["t1"]}, "accuracy")["t1"]
    expected = permutation_test(
        (right[0].astype(float), right[1].astype(float)),
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        n_resamples=2000,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).pvalue
    assert found.p == pytest.approx(expected, abs=0.05)


def test_a_network_does_not_differ_from_itself():
    scores, _ = finalists()
    found = compare(scores["t0"], {"again": scores["t0"]})["again"]
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_more_comparisons_ask_for_a_smaller_p():
    scores, _ = finalists(seed=2, rights=(0.9, 0.87, 0.85, 0.9))
    alone = compare(scores["t0"], {"t1": scores["t1"]})["t1"]
    among = compare(scores["t0"], {name: scores[name] for name in ("t1", "t2", "t3")})
    assert alone.p == alone.p_holm == among["t1"].p
    assert [one.p_holm for one in among.values()] == pytest.approx(holm([one.p for one in among.values()]))
    assert compare(scores["t0"], {}) == {}


def seeded(spread, seed, images=300, runs=3):
    """Scores of two equally good configurations of several runs, whose accuracy a seed moves by ``spread`` (s.d.)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    resamples = draw_resamples([""] * images, labels, 3, replicates=400)
    found, alike = [], 0.7 * rng.random(images)
    for _ in range(2):
        hard = alike + 0.3 * rng.random((runs, images))
        # The sum of both has the density 1 / 0.7 in its middle.
        right = hard < 0.6 + 0.7 * spread * rng.normal(size=(runs, 1))
        decided = np.where(right, labels, (labels + 1) % 3)
        found.append(score_runs(labels, np.eye(3)[decided], CLASSES, resamples, areas=False))
    return found


def test_equal_configurations_whose_seeds_differ_are_seldom_told_apart():
    """By resamples of the patients alone nearly half of them would be."""
    told = 0
    for seed in range(50):
        winner, other = seeded(0.03, seed, images=1500)
        told += compare(winner, {"other": other}, "accuracy")["other"].p <= 0.05
    assert told <= 7


@pytest.mark.parametrize("spread", [0, 0.03])
def test_the_variance_between_runs_is_that_of_their_seeds_and_not_that_of_the_images(spread):
    pairs = [seeded(spread, seed) for seed in range(60)]
    between = np.mean([one.between_runs("accuracy") for pair in pairs for one in pair])
    plain = np.mean([one.by_run["accuracy"].var(ddof=1) for pair in pairs for one in pair])
    assert between == pytest.approx(spread**2, rel=0.3, abs=1.2e-4)
    assert between < plain - 1e-4


def test_networks_are_compared_without_what_other_seeds_may_change():
    winner, other = seeded(0.03, 1)
    assert winner.between_runs("f1_macro") > 0
    networks, configurations = (compare(winner, {"other": other}, seeded=how)["other"] for how in (False, True))
    assert networks.difference == configurations.difference
    assert networks.high - networks.low < configurations.high - configurations.low
    alone = replace(other, values={name: values[:1] for name, values in other.values.items()})
    single = compare(winner, {"alone": alone})["alone"]
    assert single.high - single.low > configurations.high - configurations.low, (
        "the winner's seeds tell of its seed, too"
    )


def test_what_other_seeds_may_change_is_students_t_of_the_variance_pooled_over_all_runs():
    scores, _ = finalists()

    def of_runs(*own):
        """Scores that no resample moves."""
        one = scores["t0"]
        columns = len(one.resamples.weights)
        return replace(one, values={"f1_macro": np.repeat(np.array(own)[:, None], columns, axis=1)})

    found = compare(of_runs(0.9, 0.8, 0.7), {"other": of_runs(0.85, 0.95)})["other"]
    variance = (2 * 0.01 + 1 * 0.005) / 3
    reach = t.ppf(0.975, 3) * (variance * (1 / 3 + 1 / 2)) ** 0.5
    assert (found.difference - found.low, found.high - found.difference) == pytest.approx((reach, reach), rel=0.01)


def test_scores_on_other_resamples_are_not_compared():
    (first, _), (second, _) = finalists(), finalists()
    with pytest.raises(AssertionError, match="same resamples"):
        compare(first["t0"], {"t1": second["t1"]})


def test_few_patients_are_said_beside_a_comparison():
    scores, _ = finalists(images=60, group_size=6)
    assert compare(scores["t0"], {"t1": scores["t1"]})["t1"].warning == "fewer than 20 patients: interval too narrow"


def test_too_few_resamples_leave_no_p_value():
    scores, _ = finalists(replicates=20)
    found = compare(scores["t0"], {"t1": scores["t1"]})["t1"]
    assert np.isnan([found.low, found.high, found.p, found.p_holm]).all()


def test_scores_that_no_image_counts_towards_are_not_compared():
    labels, rng = np.arange(60) % 2, np.random.default_rng(0)
    resamples = draw_resamples([""] * 60, labels, 3, replicates=300)
    first, second = (score_runs(labels, rng.dirichlet(np.ones(3), (1, 60)), CLASSES, resamples) for _ in range(2))
    found = compare(first, {"t1": second}, "recall:c")["t1"]
    assert np.isnan([found.difference, found.low, found.high, found.p, found.p_holm]).all()
    assert not np.isnan(compare(first, {"t1": second}, "recall:b")["t1"].difference)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemars_test_is_that_of_statsmodels_and_a_binomial_test(pairs):
    first, second = np.array(pairs).T
    found = mcnemar(first, second, draw_resamples([""] * len(pairs), np.zeros(len(pairs), dtype=int), 1, replicates=1))
    assert found is not None
    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    assert (found.first_only, found.second_only) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
    if discordant := found.first_only + found.second_only:
        assert found.p == pytest.approx(binomtest(found.first_only, discordant).pvalue)


def test_mcnemars_test_is_not_made_where_a_patient_has_several_images():
    resamples = draw_resamples(["p", "p", "q"], np.zeros(3, dtype=int), 1, replicates=1)
    assert mcnemar(np.ones(3), np.zeros(3), resamples) is None


@pytest.mark.parametrize(("count", "right"), [(1, 1), (12, 0), (40, 40)])
def test_a_change_to_a_score_that_no_resample_moves_has_newcombes_interval(count, right):
    def scores(size, of_them):
        labels = np.arange(size) % 2
        answers = np.where(np.arange(size) < of_them, labels, 1 - labels)
        probability = np.eye(2, dtype=np.float32)[answers][None]
        return score_runs(labels, probability, ("a", "b"), draw_resamples([""] * size, labels, 2))

    found = change(scores(90, 70), scores(count, right), "accuracy")
    low, high = confint_proportions_2indep(right, count, 70, 90, method="newcomb", compare="diff")
    assert (found.difference, found.low, found.high) == pytest.approx((right / count - 70 / 90, low, high), abs=1e-6)
