"""Every metric against scikit-learn, on ordinary and on degenerate splits."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import f1_score, roc_curve

from trainables.metrics import (
    AREAS,
    FEWEST_POSITIVES,
    UNTUNED,
    confusion_matrix,
    decide,
    evaluate_predictions,
    metric_mode,
    metric_names,
    operating_point,
    shown_threshold,
    target_threshold,
    tune_thresholds,
)

EPSILON = float(np.finfo(np.float32).eps)
CLASSES = ("covid", "normal", "pneumonia", "other")


def softmax_rows(rng, count, class_count=4, decimals=None):
    probabilities = rng.dirichlet(np.ones(class_count), size=count)
    return probabilities.astype(np.float32) if decimals is None else probabilities.round(decimals)


def areas_of(values, name):
    return [values[f"{area}:{name}"] for area in AREAS]


def reference_areas(truth, scores):
    """AUROC, average precision and sensitivity at 90 % specificity."""
    fpr, tpr, _ = reference.roc_curve(truth, scores, drop_intermediate=False)
    at = tpr[fpr <= 0.1 + 1e-12].max()
    return [reference.roc_auc_score(truth, scores), reference.average_precision_score(truth, scores), at]


@pytest.mark.parametrize("seed", range(5))
def test_single_label_metrics_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 4, 200), softmax_rows(rng, 200)
    values = evaluate_predictions(labels, probabilities, CLASSES, "single_label")
    decided = probabilities.argmax(axis=1)
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(labels, decided))
    assert values["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, decided))
    assert values["f1_macro"] == pytest.approx(reference.f1_score(labels, decided, average="macro"))
    double = probabilities.astype(float)
    double /= double.sum(axis=1, keepdims=True)
    assert values["nll"] == pytest.approx(reference.log_loss(labels, double, labels=range(4)), rel=1e-5)
    auroc = reference.roc_auc_score(labels, double, multi_class="ovr", average="macro")
    assert values["auroc_macro"] == pytest.approx(auroc)
    assert values["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, decided))
    assert values["kappa"] == pytest.approx(reference.cohen_kappa_score(labels, decided))
    of_grades = evaluate_predictions(labels, probabilities, CLASSES, "single_label", ordered=True)
    assert of_grades.pop("kappa") == pytest.approx(reference.cohen_kappa_score(labels, decided, weights="quadratic"))
    assert of_grades == {name: value for name, value in values.items() if name != "kappa"}
    for name, score in (("precision", reference.precision_score), ("recall", reference.recall_score)):
        expected = score(labels, decided, average=None, zero_division=0)
        assert [values[f"{name}:{c}"] for c in CLASSES] == pytest.approx(list(expected))
    for index, name in enumerate(CLASSES):
        expected = reference.recall_score(labels != index, decided != index)
        assert values[f"specificity:{name}"] == pytest.approx(expected)
        assert areas_of(values, name) == pytest.approx(reference_areas(labels == index, double[:, index]))
    matrix = confusion_matrix(labels, probabilities, CLASSES, "single_label")
    assert (matrix == reference.confusion_matrix(labels, decided, labels=range(4))).all()


def test_many_classes_take_little_more_memory_than_their_probabilities_in_double_precision():
    """Each trial scores an epoch: of 150,000 images and 1,000 classes these are 1.2 GB."""
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 200, 4000), softmax_rows(rng, 4000, 200)
    classes = [str(number) for number in range(200)]
    tracemalloc.start()
    evaluate_predictions(labels, probabilities, classes, "single_label")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 3 * 8 * probabilities.size


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_metrics_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, (150, 4)), rng.random((150, 4)).astype(np.float32)
    values = evaluate_predictions(labels, probabilities, CLASSES, "multi_label")
    decided = (probabilities >= 0.5).astype(int)
    assert values["exact_match"] == values["accuracy"] == pytest.approx(reference.accuracy_score(labels, decided))
    assert values["hamming_accuracy"] == pytest.approx(1 - reference.hamming_loss(labels, decided))
    assert values["f1_macro"] == pytest.approx(reference.f1_score(labels, decided, average="macro"))
    assert values["auroc_macro"] == pytest.approx(reference.roc_auc_score(labels, probabilities))
    each = [reference.log_loss(labels[:, c], probabilities[:, c].astype(float)) for c in range(4)]
    assert values["nll"] == pytest.approx(np.mean(each), rel=1e-5)
    halves = [reference.balanced_accuracy_score(labels[:, c], decided[:, c]) for c in range(4)]
    assert values["balanced_accuracy"] == pytest.approx(np.mean(halves))
    for name, score in (("mcc", reference.matthews_corrcoef), ("kappa", reference.cohen_kappa_score)):
        each = [score(labels[:, c], decided[:, c]) for c in range(4)]
        assert values[name] == pytest.approx(np.mean(each))
    matrices = confusion_matrix(labels, probabilities, CLASSES, "multi_label")
    assert (matrices == reference.multilabel_confusion_matrix(labels, decided)).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(12, 80), missing=st.sampled_from([-1, np.nan]))
def test_a_missing_label_takes_part_in_no_score(seed, count, missing):
    """Also with ties, which count half in the AUROC and stand at one threshold in the others."""
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, (count, 4)).astype(float), rng.random((count, 4)).round(1)
    labels[rng.random((count, 4)) < 0.3] = np.nan
    labels[0] = missing  # an image of which nothing is known
    decided, known = probabilities >= 0.5, ~np.isnan(np.where(labels == missing, np.nan, labels))
    labels[~known] = missing
    values = evaluate_predictions(labels, probabilities, CLASSES, "multi_label")
    areas = {}
    for place, name in enumerate(CLASSES):
        rows = known[:, place]
        truth, answer = labels[rows, place].astype(int), decided[rows, place].astype(int)
        f1 = reference.f1_score(truth, answer, zero_division=0)
        assert values[f"f1:{name}"] == pytest.approx(f1)
        assert values[f"precision:{name}"] == pytest.approx(reference.precision_score(truth, answer, zero_division=0))
        expected = reference.recall_score(truth, answer, pos_label=0, zero_division=0)
        assert values[f"specificity:{name}"] == pytest.approx(expected)
        if 0 < truth.sum() < len(truth):
            areas[name] = reference_areas(truth, probabilities[rows, place])
            assert areas_of(values, name) == pytest.approx(areas[name])
        else:
            assert np.isnan(areas_of(values, name)).all()
    assert values["defined_classes"] == len(areas)
    if areas:
        macro = [values[f"{area}_macro"] for area in AREAS]
        assert macro == pytest.approx(np.mean(list(areas.values()), axis=0))
    assert values["hamming_accuracy"] == pytest.approx((decided == labels)[known].mean())
    whole = [(decided[row] == labels[row])[known[row]].all() for row in range(count) if known[row].any()]
    assert values["exact_match"] == values["accuracy"] == pytest.approx(np.mean(whole))
    sure = probabilities[known].clip(EPSILON, 1 - EPSILON)
    assert values["nll"] == pytest.approx(reference.log_loss(labels[known], sure, labels=[0, 1]), rel=1e-4)
    matrices = confusion_matrix(labels, probabilities, CLASSES, "multi_label")
    assert matrices.sum(axis=(1, 2)).tolist() == known.sum(axis=0).tolist()


def test_the_order_of_images_changes_no_area_not_even_in_the_last_bit():
    """Many have equal probabilities."""
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 4, 5000), softmax_rows(rng, 5000, decimals=2)
    shuffled = rng.permutation(5000)
    one, other = (
        evaluate_predictions(labels[rows], probabilities[rows].clip(0, 1), CLASSES, "single_label")
        for rows in (np.arange(5000), shuffled)
    )
    assert [areas_of(one, name) for name in CLASSES] == [areas_of(other, name) for name in CLASSES]


def test_where_nothing_is_known_no_class_is_defined():
    values = evaluate_predictions(np.full((2, 2), np.nan), np.eye(2), ("a", "b"), "multi_label")
    assert values["defined_classes"] == values["f1_macro"] == values["mcc"] == values["kappa"] == 0
    assert math.isnan(values["auroc_macro"])


def test_a_class_absent_from_the_split_counts_as_zero_and_its_auroc_is_left_out():
    rng = np.random.default_rng(1)
    labels, probabilities = rng.integers(0, 3, 60), softmax_rows(rng, 60)
    values = evaluate_predictions(labels, probabilities, CLASSES, "single_label")
    decided = probabilities.argmax(axis=1)
    expected = reference.f1_score(labels, decided, labels=range(4), average="macro", zero_division=0)
    assert values["f1_macro"] == pytest.approx(expected)
    recall = reference.recall_score(labels, decided, labels=range(4), average="macro", zero_division=0)
    assert values["balanced_accuracy"] == pytest.approx(recall)
    assert np.isnan(areas_of(values, "other")).all()
    for area in AREAS:
        assert values[f"{area}_macro"] == pytest.approx(np.mean([values[f"{area}:{c}"] for c in CLASSES[:3]]))
    assert values["defined_classes"] == 3
    assert values["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, decided))


def test_a_class_that_is_never_predicted_has_precision_zero():
    probabilities = np.tile([0.9, 0.1], (4, 1))
    values = evaluate_predictions(np.array([0, 0, 1, 1]), probabilities, ("a", "b"), "single_label")
    assert values["precision:b"] == values["recall:b"] == values["f1:b"] == 0
    assert values["auroc:a"] == 0.5
    assert values["mcc"] == values["kappa"] == 0


def test_a_label_that_every_image_has_gives_specificity_zero_and_no_auroc():
    labels = np.array([[1, 0], [1, 1]])
    values = evaluate_predictions(labels, np.array([[0.9, 0.2], [0.8, 0.7]]), ("a", "b"), "multi_label")
    assert values["specificity:a"] == 0
    assert math.isnan(values["auroc:a"])
    assert values["exact_match"] == 1


def test_a_certain_and_wrong_prediction_costs_a_finite_nll():
    values = evaluate_predictions(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]), ("a", "b"), "single_label")
    assert values["nll"] == pytest.approx(-math.log(np.finfo(np.float32).eps) / 2)


def test_half_is_a_positive_decision_and_the_first_of_tied_classes_wins():
    assert decide(np.array([[0.5, 0.49]]), "multi_label", "ab").tolist() == [[True, False]]
    assert decide(np.array([[0.4, 0.4, 0.2]]), "single_label", "abc").tolist() == [0]


@pytest.mark.parametrize(
    ("labels", "probabilities", "task", "said"),
    [
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], "single_label", "NaN"),
        ([0, 1], [[0.5, 0.5], [1.5, -0.5]], "single_label", "outside"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "single_label", "0 to 1"),
        ([0, 1], [[1.0], [1.0]], "single_label", r"\[2, 2\]"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.5]], "multi_label", r"\[2, 2\] for multi_label"),
        ([[0, 0.5]], [[0.5, 0.5]], "multi_label", "whole numbers"),
        ([], np.zeros((0, 2)), "single_label", "without images"),
        ([0], [[0.5, 0.5]], "regression", "regression"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, probabilities, task, said):
    with pytest.raises(ValueError, match=said):
        evaluate_predictions(np.array(labels), np.array(probabilities), ("a", "b"), task)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_every_value_has_a_name_to_select_by(task):
    labels = np.array([0, 1]) if task == "single_label" else np.eye(2)
    values = evaluate_predictions(labels, np.eye(2), ("a", "b"), task)
    named = metric_names(("a", "b"), task)
    scores = {f"val_{key}" for key in values if key != "defined_classes"}
    assert scores | {"val_loss"} == set(named), "and none of training, which rises while validation falls"
    assert len(named) == len(set(named))


def test_losses_are_minimised_and_everything_else_is_maximised():
    names = metric_names(("loss", "nll"), "single_label")
    lower = {name for name in names if metric_mode(name) == "min"}
    assert lower == {"val_loss", "val_nll"}


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), repeats=st.integers(1, 3), shift=st.floats(-2, 2))
def test_no_other_cut_has_a_better_f1(seed: int, repeats: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((120, 1)) < 0.5).astype(np.uint8)
    logits = 1.5 * truth + shift + rng.normal(size=(repeats, 120, 1))
    probability = (1 / (1 + np.exp(-logits))).round(2).astype(np.float32)
    threshold = tune_thresholds(truth, probability, ["effusion"])["effusion"]
    pooled = np.tile(truth[:, 0], repeats)
    scores = probability.reshape(-1)
    best = max(f1_score(pooled, scores >= cut, zero_division=0) for cut in np.linspace(0, 1, 101))
    assert f1_score(pooled, scores >= threshold, zero_division=0) >= best - 1e-12


def test_a_threshold_is_tuned_on_known_labels_alone() -> None:
    labels = np.repeat([[1], [0]], 40, axis=0)
    probability = np.repeat([[0.9], [0.3]], 40, axis=0)[None]
    unknown = np.full((40, 1), -1)
    with_missing = np.concatenate([labels, unknown]), np.concatenate([probability, [np.full((40, 1), 0.95)]], axis=1)
    assert tune_thresholds(*with_missing, ["a"]) == tune_thresholds(labels, probability, ["a"])


def test_a_label_with_few_positives_keeps_one_half() -> None:
    labels = np.zeros((200, 2), dtype=np.uint8)
    labels[: FEWEST_POSITIVES - 1, 0] = 1
    labels[:FEWEST_POSITIVES, 1] = 1
    probability = np.where(labels == 1, 0.2, 0.1)[None]
    found = tune_thresholds(labels, probability, ["rare", "known"])
    assert found["rare"] == UNTUNED
    assert 0.1 < found["known"] <= 0.2


def test_repeats_count_no_positive_twice() -> None:
    labels = np.zeros((200, 1), dtype=np.uint8)
    labels[:12] = 1
    probability = np.tile(np.where(labels == 1, 0.2, 0.1)[None], (5, 1, 1))
    assert tune_thresholds(labels, probability, ["rare"]) == {"rare": UNTUNED}


def test_of_equal_cuts_the_nearest_to_one_half_is_taken() -> None:
    labels = np.repeat([[1], [0]], 40, axis=0)
    probability = np.repeat([[0.9], [0.3]], 40, axis=0)[None]
    assert abs(tune_thresholds(labels, probability, ["a"])["a"] - 0.6) < 1e-9


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000), target=st.floats(0.01, 0.99), kind=st.sampled_from(["sensitivity", "specificity"]))
def test_a_threshold_reaches_its_target_as_scikit_learn_counts(seed: int, target: float, kind: str) -> None:
    rng = np.random.default_rng(seed)
    truth = np.append([True, False], rng.random(60) < 0.3)
    probability = (rng.random(62) * 0.7 + 0.3 * truth).round(1).astype(np.float32)  # with many ties
    fpr, tpr, thresholds = roc_curve(truth, probability, drop_intermediate=False)
    # The first threshold, above all probabilities, decides nothing; rates are quotients of counts.
    reached = (tpr if kind == "sensitivity" else 1 - fpr)[1:] >= target - 1e-12
    found = target_threshold(truth, probability, kind, target)
    assert (found is None) == (not reached.any())
    if found is not None:
        assert found == (max if kind == "sensitivity" else min)(thresholds[1:][reached])
        (tn, fp), (fn, tp) = sklearn_confusion(truth, probability >= found)
        assert (tp / (tp + fn) if kind == "sensitivity" else tn / (tn + fp)) >= target


def test_a_target_that_no_threshold_reaches_has_none() -> None:
    truth = np.array([True, False, False, False])
    assert target_threshold(truth, np.array([0.2, 0.9, 0.9, 0.1]), "specificity", 0.9) is None
    assert target_threshold(truth, np.array([0.2, 0.9, 0.9, 0.1]), "specificity", 0.3) == 0.2
    assert target_threshold(truth[1:], np.array([0.9, 0.9, 0.1]), "sensitivity", 0.1) is None
    assert target_threshold(~truth[1:], np.array([0.9, 0.9, 0.1]), "specificity", 0.1) is None


def test_a_share_that_equals_its_target_reaches_it() -> None:
    truth, probability = np.ones(20, dtype=bool), np.linspace(0.01, 0.2, 20).round(2)
    for caught in range(1, 20):
        assert target_threshold(truth, probability, "sensitivity", float(f"{caught / 20:.2f}")) == probability[-caught]


def test_the_repeats_are_pooled_and_no_image_counts_twice() -> None:
    labels = np.array([0, 1, 1, 0])
    probabilities = np.array([[[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.5, 0.5]], [[0.1, 0.9]] * 4])
    point = operating_point(labels, probabilities, ("a", "b"), "b", "sensitivity", 0.75)
    assert (point.threshold, point.positives, point.images, point.runs) == (0.7, 2, 4, 2)
    assert point.thresholds == {"b": 0.7}
    missing = np.array([[0, -1], [1, 1], [1, 1], [0, 0]])
    point = operating_point(missing, probabilities, ("a", "b"), "b", "specificity", 0.5)
    assert (point.threshold, point.positives, point.images) == (0.7, 2, 3)


def test_one_class_has_a_threshold_and_else_the_likeliest_other_is_decided() -> None:
    classes, chance = ("a", "b", "c"), np.random.default_rng(0)
    probabilities = chance.dirichlet(np.ones(3), size=(2, 50)).round(1)
    found = decide(probabilities, "single_label", classes, {"b": 0.2})
    for row, decided in zip(probabilities.reshape(-1, 3), found.reshape(-1), strict=True):
        assert decided == (1 if row[1] >= 0.2 else 0 if row[0] >= row[2] else 2)
    assert (decide(probabilities, "single_label", classes) == probabilities.argmax(axis=2)).all()
    given = decide(probabilities, "multi_label", classes, {"b": 0.2})
    assert (given == (probabilities >= np.array([0.5, 0.2, 0.5]))).all()


def test_scores_and_counts_are_of_the_decisions_at_a_threshold() -> None:
    labels, probabilities = (
        np.array([0, 1, 2, 1]),
        np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0, 0.1, 0.9], [1, 0, 0]]),
    )
    task, classes = "single_label", ("a", "b", "c")
    assert confusion_matrix(labels, probabilities, classes, task, {"b": 0.3}).tolist() == [
        [0, 1, 0],
        [1, 1, 0],
        [0, 0, 1],
    ]
    scores = evaluate_predictions(labels, probabilities, classes, task, thresholds={"b": 0.3})
    assert (scores["recall:b"], scores["precision:b"], scores["accuracy"]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0.7021, "0.702"),
        (0.1, "0.100"),
        (0.99997, "0.99997"),
        (4e-5, "0.00004"),
        (1e-30, "1e-30"),
        (1.0, "1"),
        (0.0, "0"),
    ],
)
def test_a_threshold_reads_as_0_or_1_only_if_it_is(threshold: float, text: str) -> None:
    assert shown_threshold(threshold) == text
