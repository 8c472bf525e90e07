"""Resamples of patients, scores on them and their intervals, against scikit-learn, scipy and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn import metrics as reference
from sklearn.metrics import average_precision_score
from statsmodels.stats.proportion import proportion_confint

from reports.bootstrap import Runs, draw_resamples, score_runs, with_means
from reports.intervals import bca, interval, wilson
from trainables.metrics import evaluate_predictions


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 2)), min_size=1, max_size=30),
    st.integers(0, 5),
)
def test_a_resample_draws_as_many_groups_as_there_are_and_has_every_class(rows, seed):
    groups, labels = [name for name, _ in rows], np.array([label for _, label in rows])
    resamples = draw_resamples(groups, labels, 3, replicates=20, seed=seed)
    assert resamples.groups == len({name for name in groups if name}) + groups.count("")
    assert (resamples.counts.sum(axis=1) == resamples.groups).all()
    weights = resamples.counts[:, resamples.member]
    for label in np.unique(labels):
        assert (weights[:, labels == label].sum(axis=1) > 0).all()
    for name in set(groups) - {""}:
        of_patient = weights[:, np.array(groups) == name]
        assert (of_patient == of_patient[:, :1]).all()


def test_images_without_a_group_are_drawn_one_by_one():
    resamples = draw_resamples(["", "p", "", "p", ""], np.zeros(5, dtype=int), 1)
    assert resamples.member.tolist() == [0, 1, 2, 1, 3]
    assert not resamples.one_image_each
    assert draw_resamples(["", "p", "q"], np.zeros(3, dtype=int), 1).one_image_each


def test_the_same_seed_gives_the_same_resamples_and_another_seed_others():
    labels = np.arange(60) % 3
    first, again, other = (draw_resamples([""] * 60, labels, 3, replicates=50, seed=seed).counts for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_group_is_drawn_once_on_average_with_the_variance_of_a_multinomial():
    counts = draw_resamples([""] * 40, np.zeros(40, dtype=int), 1, replicates=5000).counts
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.02)


def test_resamples_that_lack_a_class_are_redrawn_and_counted():
    labels = np.array([0, *[1] * 19])  # a resample lacks the one image of class 0 with probability .95^20 = .358
    resamples = draw_resamples([""] * 20, labels, 2, replicates=2000)
    assert resamples.replicates == 2000
    assert resamples.redrawn / (2000 + resamples.redrawn) == pytest.approx(0.95**20, abs=0.03)


def test_a_label_needs_an_image_with_it_and_one_without_it():
    labels = np.array([[1, 0], *[[1, 1]] * 9, *[[0, 1]] * 10])
    weights = draw_resamples([""] * 20, labels, 2, replicates=200).counts
    assert (weights[:, labels[:, 1] == 0].sum(axis=1) > 0).all()


def test_a_class_that_no_image_has_is_not_waited_for():
    resamples = draw_resamples([""] * 10, np.zeros(10, dtype=int), 3)
    assert (resamples.replicates, resamples.redrawn) == (2000, 0)
    every = draw_resamples([""] * 10, np.ones((10, 2), dtype=int), 2)
    assert (every.replicates, every.redrawn) == (2000, 0)


def test_where_hardly_any_resample_has_every_class_fewer_are_drawn():
    # All twelve of twelve: a share of 12! / 12^12 = .00005 of the resamples.
    resamples = draw_resamples([""] * 12, np.arange(12), 12, replicates=100)
    assert resamples.replicates < 10
    assert resamples.redrawn + resamples.replicates >= 5000


def test_each_group_is_left_out_once():
    resamples = draw_resamples(["p", "q", "p", ""], np.zeros(4, dtype=int), 1)
    np.testing.assert_array_equal(resamples.left_out.sum(axis=0), [2, 2, 2])
    np.testing.assert_array_equal(resamples.left_out.sum(axis=1), [2, 2, 2])
    assert draw_resamples(["p", "p"], np.zeros(2, dtype=int), 1).left_out.shape == (0, 1)
    many = draw_resamples([""] * 2500, np.zeros(2500, dtype=int), 1, replicates=1).left_out
    assert many.shape == (1000, 2500)
    assert ((many == 0).sum(axis=0) == 1).all()
    assert set((many == 0).sum(axis=1)) == {2, 3}, "in blocks of one size"


EPSILON = float(np.finfo(np.float32).eps)
TASKS = st.sampled_from(["single_label", "multi_label"])


def drawn(seed, task, *, images=40, classes=3, runs=1, decimals=None, missing=0.0):
    """labels, probabilities [runs, images, classes], groups; with ``decimals``, many ties; missing: share of labels."""
    rng = np.random.default_rng(seed)
    names = tuple("abcdefghijklmn"[:classes])
    groups = [f"p{rng.integers(images)}" if rng.random() < 0.7 else "" for _ in range(images)]
    if task == "single_label":
        labels = rng.integers(0, classes, images)
        probabilities = rng.dirichlet(np.ones(classes), size=(runs, images))
    else:
        labels, probabilities = rng.integers(0, 2, (images, classes)), rng.random((runs, images, classes))
        labels[rng.random(labels.shape) < missing] = -1
    probabilities = probabilities.astype(np.float32) if decimals is None else probabilities.round(decimals)
    return labels, probabilities, names, groups


@given(
    *(st.integers(0, 10**6), TASKS, st.integers(1, 30), st.integers(2, 10), st.sampled_from([None, 1])),
    *(st.sampled_from([0, 0.3, 1]), st.booleans()),
)
def test_scores_of_all_resamples_begin_with_those_of_the_images(
    seed, task, images, classes, decimals, missing, ordered
):
    labels, probabilities, names, groups = drawn(
        seed, task, images=images, classes=classes, decimals=decimals, missing=missing
    )
    resamples = draw_resamples(groups, labels, classes, replicates=3)
    scores = score_runs(labels, probabilities, names, resamples, ordered=ordered)
    expected = evaluate_predictions(labels, probabilities[0], names, task, ordered=ordered)
    for name, value in expected.items():
        if name in ("nll", "balanced_accuracy", "mcc", "kappa") or "macro" in name or name[:3] in ("ap:", "aur"):
            assert scores.estimate[name] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True)  # fractions summed
        else:
            np.testing.assert_equal(scores.estimate[name], value)
    assert set(scores.estimate) == {*expected, *(f"npv:{c}" for c in names)}


@settings(max_examples=40)
@given(st.integers(0, 10**6), TASKS, st.sampled_from([None, 1]), st.booleans())
def test_a_resample_is_scored_as_the_images_that_it_drew(seed, task, decimals, ordered):
    """Each as often as it was drawn, with missing labels; so are those that leave a patient out."""
    labels, probabilities, names, groups = drawn(seed, task, images=25, decimals=decimals, missing=0.3)
    resamples = draw_resamples(groups, labels, 3, replicates=3)
    scores = score_runs(labels, probabilities, names, resamples, ordered=ordered)
    for found, counts in ((scores.replicates, resamples.counts), (scores.left_out, resamples.left_out[:2])):
        for row, weights in enumerate(counts):
            rows = np.repeat(np.arange(len(labels)), weights[resamples.member])
            expected = evaluate_predictions(labels[rows], probabilities[0][rows], names, task, ordered=ordered)
            same = expected.pop("defined_classes") == len(scores.defined)
            for name, value in expected.items():
                if same or not name.endswith("_macro"):
                    assert found[name][row] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([None, 1]))
def test_single_label_scores_on_a_resample_are_those_of_scikit_learn_with_weights(seed, classes, decimals):
    labels, probabilities, names, groups = drawn(seed, "single_label", classes=classes, decimals=decimals)
    labels[:classes] = np.arange(classes)
    resamples = draw_resamples(groups, labels, classes, replicates=3)
    scores = score_runs(labels, probabilities, names, resamples).replicates
    decided = probabilities[0].argmax(axis=1)
    for b, weights in enumerate(resamples.counts[:, resamples.member].astype(float)):
        by = {"sample_weight": weights}
        assert scores["accuracy"][b] == pytest.approx(reference.accuracy_score(labels, decided, **by))
        balanced = reference.recall_score(labels, decided, average="macro", zero_division=0, **by)
        assert scores["balanced_accuracy"][b] == pytest.approx(balanced)
        f1 = reference.f1_score(labels, decided, average="macro", zero_division=0, **by)
        assert scores["f1_macro"][b] == pytest.approx(f1)
        true, answer = np.equal.outer(labels, range(classes)).T, np.equal.outer(decided, range(classes)).T
        each = [auc(true[c], probabilities[0, :, c], weights) for c in range(classes)]
        assert scores["auroc_macro"][b] == pytest.approx(np.mean(each))
        for c, name in enumerate(names):
            assert_two_by_two(scores, name, b, true[c], answer[c], weights)
            assert scores[f"auroc:{name}"][b] == pytest.approx(each[c])


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([None, 1]))
def test_multi_label_scores_on_a_resample_are_those_of_scikit_learn_with_weights(seed, classes, decimals):
    labels, probabilities, names, groups = drawn(seed, "multi_label", classes=classes, decimals=decimals)
    labels[:2] = [[0], [1]]
    resamples = draw_resamples(groups, labels, classes, replicates=3)
    thresholds = {names[0]: 0.3}
    scores = score_runs(labels, probabilities, names, resamples, thresholds=thresholds).replicates
    decided = probabilities[0].astype(float) >= [0.3, *[0.5] * (classes - 1)]
    for b, weights in enumerate(resamples.counts[:, resamples.member].astype(float)):
        exact = np.average((labels == decided).all(axis=1), weights=weights)
        assert scores["exact_match"][b] == scores["accuracy"][b] == pytest.approx(exact)
        hamming = np.average((labels == decided).mean(axis=1), weights=weights)
        assert scores["hamming_accuracy"][b] == pytest.approx(hamming)
        balanced = [reference.balanced_accuracy_score(t, d, sample_weight=weights) for t, d in pairs(labels, decided)]
        assert scores["balanced_accuracy"][b] == pytest.approx(np.mean(balanced))
        certain = np.clip(probabilities[0].astype(float), EPSILON, 1 - EPSILON)
        loss = [reference.log_loss(t, p, sample_weight=weights, labels=[0, 1]) for t, p in pairs(labels, certain)]
        assert scores["nll"][b] == pytest.approx(np.mean(loss), rel=1e-5)
        for c, name in enumerate(names):
            assert_two_by_two(scores, name, b, labels[:, c] == 1, decided[:, c], weights)
            assert scores[f"auroc:{name}"][b] == pytest.approx(auc(labels[:, c], probabilities[0, :, c], weights))


def pairs(labels, columns):
    return zip(labels.T, columns.T, strict=True)


def auc(truth, scores, weights):
    return reference.roc_auc_score(truth, scores, sample_weight=weights)


def assert_two_by_two(scores, name, b, truth, answer, weights):
    by = {"sample_weight": weights, "zero_division": 0}
    assert scores[f"precision:{name}"][b] == pytest.approx(reference.precision_score(truth, answer, **by))
    assert scores[f"recall:{name}"][b] == pytest.approx(reference.recall_score(truth, answer, **by))
    assert scores[f"specificity:{name}"][b] == pytest.approx(reference.recall_score(truth, answer, pos_label=0, **by))
    assert scores[f"npv:{name}"][b] == pytest.approx(reference.precision_score(truth, answer, pos_label=0, **by))
    assert scores[f"f1:{name}"][b] == pytest.approx(reference.f1_score(truth, answer, **by))


@given(st.integers(0, 10**6), TASKS)
def test_a_configurations_score_is_the_mean_over_its_runs_on_every_resample(seed, task):
    labels, probabilities, names, groups = drawn(seed, task, runs=3, decimals=2)
    resamples = draw_resamples(groups, labels, 3, replicates=10)
    together = score_runs(labels, probabilities, names, resamples)
    alone = [score_runs(labels, run[None], names, resamples) for run in probabilities]
    for name, values in together.replicates.items():
        np.testing.assert_allclose(values, np.mean([one.replicates[name] for one in alone], axis=0), rtol=1e-12)
        np.testing.assert_allclose(together.by_run[name], [one.estimate[name] for one in alone], rtol=1e-12)
        assert together.estimate[name] == pytest.approx(together.by_run[name].mean(), nan_ok=True)


def test_leaving_a_patient_out_is_scoring_the_others():
    labels, probabilities, names, groups = drawn(3, "single_label", images=30)
    resamples = draw_resamples(groups, labels, 3, replicates=5)
    scores = score_runs(labels, probabilities, names, resamples)
    for group in range(resamples.groups):
        others = resamples.member != group
        row = int(np.flatnonzero(resamples.left_out[:, group] == 0)[0])
        expected = evaluate_predictions(labels[others], probabilities[0][others], names, "single_label")
        if expected["defined_classes"] == 3:
            for name, value in expected.items():
                assert scores.left_out[name][row] == pytest.approx(value)


def test_an_auroc_that_leaving_a_patient_out_undefines_is_nan_there_alone():
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]])
    scores = score_runs(labels, probabilities, ("a", "b"), draw_resamples([""] * 4, labels, 2))
    assert np.isnan(scores.left_out["auroc:a"]).sum() == 1
    assert np.isfinite(scores.replicates["auroc:a"]).all()


def test_patients_and_images_behind_a_score_are_counted():
    labels = np.array([0, 0, 1, 1, 1])
    probabilities = np.eye(2)[[[0, 1, 1, 1, 1], [0, 1, 1, 1, 0]]]
    scores = score_runs(labels, probabilities, ("a", "b"), draw_resamples(["p", "p", "q", "r", ""], labels, 2))
    assert (scores.positives, scores.negatives) == ({"a": 1, "b": 3}, {"a": 3, "b": 1})
    assert scores.proportion_of["accuracy"] == 5
    assert (scores.proportion_of["recall:a"], scores.proportion_of["specificity:a"]) == (2, 3)
    assert (scores.proportion_of["precision:a"], scores.proportion_of["npv:a"]) == (1.5, 3.5)
    assert "f1:a" not in scores.proportion_of


def test_a_missing_label_counts_for_no_patient_and_no_proportion():
    labels = np.array([[1, -1], [-1, 0], [0, 1], [-1, -1]])
    probabilities = np.array([[[0.9, 0.9], [0.9, 0.1], [0.1, 0.2], [0.9, 0.9]]])
    scores = score_runs(labels, probabilities, ("a", "b"), draw_resamples(["p", "q", "r", "s"], labels, 2))
    assert (scores.positives, scores.negatives) == ({"a": 1, "b": 1}, {"a": 1, "b": 1})
    sizes = {name: scores.proportion_of[name] for name in ("accuracy", "recall:a", "specificity:b", "precision:b")}
    assert sizes == {"accuracy": 3, "recall:a": 1, "specificity:b": 1, "precision:b": 0}
    assert scores.estimate["exact_match"] == pytest.approx(2 / 3)


def test_an_image_is_decided_rightly_by_a_run_where_each_of_its_known_labels_is():
    labels = np.array([[1, 0], [1, -1], [0, 1]])
    wrong, said = np.where(labels == 1, 0.1, 0.9), [[0.9, 0.2], [0.9, 0.9], [0.9, 0.9]]
    probabilities = np.array([wrong, said], dtype=np.float32)
    runs = Runs(("first", "second"), ("a", "b"), labels, probabilities, np.array(["1", "2", "3"]), ("", "", ""))
    assert runs.right("first").tolist() == [False, False, False]
    assert runs.right("second").tolist() == [True, True, False]


def some_runs(seed: int, images: int, classes: int, *, multi_label: bool, decimals: int):
    """Labels, probabilities [2, N, C] with ties, and scores on resamples of patients."""
    rng = np.random.default_rng(seed)
    names = [f"c{place}" for place in range(classes)]
    if multi_label:
        labels = (rng.random((images, classes)) < 0.3).astype(np.uint8)
        probabilities = rng.random((2, images, classes)).round(decimals)
    else:
        labels = rng.integers(0, classes, images)
        probabilities = rng.dirichlet(np.ones(classes), (2, images)).round(decimals)
    groups = [f"patient {rng.integers(0, images)}" for _ in range(images)]
    resamples = draw_resamples(groups, labels, classes, replicates=8)
    return labels, probabilities, score_runs(labels, probabilities, names, resamples)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(5, 60),
    classes=st.integers(2, 4),
    multi_label=st.booleans(),
    decimals=st.integers(1, 6),
)
def test_average_precision_is_that_of_scikit_learn_on_the_images_and_on_every_resample(
    seed, images, classes, multi_label, decimals
):
    labels, probabilities, scores = some_runs(seed, images, classes, multi_label=multi_label, decimals=decimals)
    found = scores
    truth = labels == 1 if multi_label else labels[:, None] == np.arange(classes)
    member = scores.resamples.member
    for place, name in enumerate(scores.classes):
        one = truth[:, place]
        if not one.any() or one.all():
            assert math.isnan(found.estimate[f"ap:{name}"])
            continue
        of_runs = [average_precision_score(one, run[:, place]) for run in probabilities]
        np.testing.assert_allclose(found.by_run[f"ap:{name}"], of_runs)
        assert found.estimate[f"ap:{name}"] == pytest.approx(np.mean(of_runs))
        for row, counts in zip(found.replicates[f"ap:{name}"], scores.resamples.counts, strict=True):
            weights = counts[member]
            expected = [average_precision_score(one, run[:, place], sample_weight=weights) for run in probabilities]
            assert row == pytest.approx(np.mean(expected))


def test_a_mean_over_images_weighs_a_patient_as_often_as_it_was_drawn():
    labels, _, scores = some_runs(1, 30, 2, multi_label=False, decimals=3)
    values = np.random.default_rng(0).normal(size=(2, len(labels)))
    found = with_means(scores, {"size": values})
    np.testing.assert_allclose(found.by_run["size"], values.mean(axis=1))
    for row, counts in zip(found.replicates["size"], scores.resamples.counts, strict=True):
        weights = counts[scores.resamples.member]
        assert row == pytest.approx(np.mean([np.average(one, weights=weights) for one in values]))
    out = values[:, scores.resamples.member != 0].mean()
    assert found.left_out["size"][np.flatnonzero(scores.resamples.left_out[:, 0] == 0)[0]] == pytest.approx(out)


def test_an_image_without_a_value_takes_no_part_in_a_mean():
    labels, _, scores = some_runs(1, 30, 2, multi_label=False, decimals=3)
    values = np.random.default_rng(0).normal(size=(2, len(labels)))
    values[:, ::3] = np.nan
    found = with_means(scores, {"size": values})
    np.testing.assert_allclose(found.by_run["size"], np.nanmean(values, axis=1))
    for row, counts in zip(found.replicates["size"], scores.resamples.counts, strict=True):
        drawn_again = np.repeat(values, counts[scores.resamples.member], axis=1)
        assert row == pytest.approx(np.nanmean(drawn_again, axis=1).mean())


def test_an_added_score_gets_its_interval_like_the_others():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 80)
    probabilities = rng.dirichlet(np.ones(2), (3, 80))
    resamples = draw_resamples([""] * 80, labels, 2, replicates=400)
    found = interval(score_runs(labels, probabilities, ["a", "b"], resamples), "ap:b")
    assert found.method == "bootstrap"
    assert found.low < found.estimate < found.high


def test_a_mean_over_classes_says_of_which_few_patients_have_any():
    labels = np.repeat([0, 1], [100, 8])
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2), (1, 108))
    resamples = draw_resamples([f"p{place}" for place in range(108)], labels, 2, replicates=300)
    found = interval(score_runs(labels, probabilities, ["many", "few"], resamples), "ap_macro")
    assert found.warning == "fewer than 20 patients with few (8): interval too narrow"


def scored(labels, decided, groups=None, classes=("a", "b"), areas=False, **settings):
    """Scores of runs whose decisions are ``decided``, [images] or [runs, images]."""
    labels, decided = np.asarray(labels), np.atleast_2d(decided)
    resamples = draw_resamples(groups or [""] * len(labels), labels, len(classes), **settings)
    return score_runs(labels, np.eye(len(classes))[decided], classes, resamples, areas=areas)


def noisy(count, seed=0, right=0.85, class_count=2):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % class_count
    return labels, np.where(rng.random(count) < right, labels, (labels + 1) % class_count)


@given(st.integers(1, 2000), st.data())
def test_wilsons_interval_is_that_of_statsmodels(size, data):
    count = data.draw(st.integers(0, size))
    expected = proportion_confint(count, size, method="wilson")
    assert wilson(count / size, size) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(5, 60))
def test_bounds_are_those_of_scipy_from_the_same_resamples(seed, size):
    rng = np.random.default_rng(seed)
    data = rng.exponential(size=size).round(2) + np.arange(size) / 1000
    found = bootstrap((data,), np.mean, n_resamples=999, method="BCa", rng=rng)
    left_out = np.array([np.delete(data, i).mean() for i in range(size)])
    expected = found.confidence_interval
    assert bca(float(data.mean()), found.bootstrap_distribution, left_out) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_the_interval_of_ungrouped_images_is_that_of_scipys_own_bootstrap(name):
    labels, decided = noisy(200)
    scores = scored(labels, decided, groups=[""] * 200, replicates=4000)
    found = bca(scores.estimate[name], scores.replicates[name], scores.left_out[name])

    def statistic(truth, answer, axis=-1):
        right = truth == answer
        if name == "accuracy":
            return right.mean(axis=axis)
        f1 = [2 * (right & (truth == c)).sum(axis) / ((truth == c).sum(axis) + (answer == c).sum(axis)) for c in (0, 1)]
        return np.mean(f1, axis=0)

    expected = bootstrap(
        (labels, decided), statistic, paired=True, vectorized=True, n_resamples=4000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx(expected, abs=0.008)


def test_a_proportion_has_wilsons_interval_where_every_patient_has_one_image():
    labels, decided = noisy(80)
    scores = scored(labels, decided, groups=[f"p{i}" for i in range(80)], areas=True)
    right, positive, answered = labels == decided, labels == 1, decided == 1
    for name, share, size in (
        ("accuracy", right.mean(), 80),
        ("recall:b", right[positive].mean(), positive.sum()),
        ("specificity:b", right[~positive].mean(), (~positive).sum()),
        ("precision:b", right[answered].mean(), answered.sum()),
        ("npv:b", right[~answered].mean(), (~answered).sum()),
    ):
        found = interval(scores, name)
        assert found.method == "Wilson"
        expected = proportion_confint(round(share * size), size, method="wilson")
        assert (found.estimate, found.low, found.high) == pytest.approx((share, *expected))
    for name in ("f1_macro", "f1:a", "balanced_accuracy", "auroc:a", "nll"):
        assert interval(scores, name).method == "bootstrap"


def test_where_patients_have_several_images_a_proportion_is_resampled_by_patient():
    labels, decided = noisy(120)
    grouped = scored(labels, decided, groups=[f"p{i // 3}" for i in range(120)])
    assert (interval(grouped, "accuracy").method, grouped.resamples.groups) == ("bootstrap", 40)
    # Three copies of an image say no more than the image.
    copied = interval(
        scored(np.repeat(labels, 3), np.repeat(decided, 3), [f"p{i // 3}" for i in range(360)]), "f1_macro"
    )
    alone = interval(scored(labels, decided), "f1_macro")
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_an_interval_holds_its_estimate():
    labels, decided = noisy(150, class_count=3)
    scores = scored(labels, decided, groups=[f"p{i // 2}" for i in range(150)], classes=("a", "b", "c"), areas=True)
    for name in scores.estimate:
        found = interval(scores, name)
        assert found.low <= found.estimate <= found.high


def test_several_runs_share_an_interval_narrower_than_that_of_one():
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    runs = np.where(rng.random((5, 100)) < 0.8, labels, 1 - labels)
    grouped = [f"p{i // 2}" for i in range(100)]
    one, five = (
        interval(scored(labels, runs[:1], grouped), "f1_macro"),
        interval(scored(labels, runs, grouped), "f1_macro"),
    )
    assert five.high - five.low < 0.7 * (one.high - one.low)


def test_fewer_than_twenty_patients_is_said():
    labels, decided = noisy(76)
    few = interval(scored(labels, decided, groups=[f"p{i // 4}" for i in range(76)]), "f1_macro")
    assert few.warning == "fewer than 20 patients: interval too narrow"
    enough = interval(scored(*noisy(80), groups=[f"p{i // 4}" for i in range(80)]), "f1_macro")
    assert enough.warning == ""


def test_fewer_than_twenty_patients_of_a_class_is_said_where_that_class_counts():
    labels = np.array([0] * 12 + [1] * 88)
    decided = np.where(np.arange(100) % 7 == 0, 1 - labels, labels)
    scores = scored(labels, decided, groups=[f"p{i // 2}" for i in range(100)], classes=("covid", "normal"), areas=True)
    said = "fewer than 20 patients with covid (6): interval too narrow"
    assert interval(scores, "recall:covid").warning == said
    assert interval(scores, "f1_macro").warning == said
    assert interval(scores, "specificity:normal").warning == said.replace("with covid", "without normal")
    assert interval(scores, "auroc:normal").warning == said.replace("with covid", "without normal")
    assert interval(scores, "recall:normal").warning == interval(scores, "accuracy").warning == ""
    assert scores.resamples.groups == 50


def test_images_without_patients_are_called_images():
    assert interval(scored(*noisy(16)), "f1_macro").warning == "fewer than 20 images: interval too narrow"


def test_no_error_at_all_is_not_certainty():
    labels = np.arange(60) % 2
    alone = interval(scored(labels, labels), "accuracy")
    assert (alone.method, alone.low, alone.high) == ("Wilson", pytest.approx(60 / (60 + 1.96**2), abs=1e-4), 1.0)
    scores = scored(labels, labels, groups=[f"p{i // 2}" for i in range(60)])
    grouped = interval(scores, "accuracy")
    assert (grouped.method, grouped.low) == ("Wilson over groups", pytest.approx(30 / (30 + 1.96**2), abs=1e-4))
    assert "interval too narrow" in interval(scores, "f1_macro").warning


def test_a_class_without_an_error_is_as_sure_as_its_own_patients_are_many():
    # 20 images of 4 patients with covid, and 80 normal patients with an image each; 2 of these are taken for covid.
    labels = np.repeat([0, 1], [20, 80])
    groups = [f"covid {row // 5}" if row < 20 else f"normal {row}" for row in range(100)]
    decided = np.where(np.arange(100) < 98, labels, 0)
    scores = scored(labels, decided, groups, classes=("covid", "normal"))
    for name, patients in (("recall:covid", 4), ("specificity:normal", 4), ("precision:normal", 78), ("npv:covid", 78)):
        found = interval(scores, name)
        assert (found.method, found.estimate) == ("Wilson over groups", 1.0)
        assert (found.low, found.high) == pytest.approx(wilson(1.0, patients))


def test_an_interval_of_nothing_is_undefined_and_says_so():
    scores = scored([0, 0, 1, 1] * 10, [0] * 40, classes=("a", "b", "c"), areas=True)
    for name in ("auroc:c", "precision:b", "recall:c"):
        found = interval(scores, name)
        assert math.isnan(found.estimate)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert found.method == ""
        assert found.warning.startswith("undefined")


def test_classes_too_rare_to_resample_leave_no_interval():
    scores = scored(np.arange(12), np.arange(12) // 2, classes=tuple("abcdefghijkl"), replicates=300)
    found = interval(scores, "f1_macro")
    assert math.isnan(found.low)
    assert found.warning == "too few groups with each class to resample"


def test_redrawn_resamples_are_reported():
    labels = np.array([0] + [1] * 19)
    found = scored(labels, np.ones(20, dtype=int)).resamples
    assert found.redrawn > 500
    assert found.replicates == 2000


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1))
@example(values=[0.0], left_out=[0.0, 1e-152], estimate=0.0)
def test_bounds_are_finite_ordered_and_among_the_replicates(values, left_out, estimate):
    low, high = bca(estimate, np.array(values), np.array([*left_out, math.nan]))
    assert min(values) <= low <= high <= max(values)
