"""The regression against scikit-learn's, fitted from nothing at each strength."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trainables import regression
from trainables.regression import STRENGTHS, fit_regression

SIZES = {"train": 120, "val": 60, "test": 40}
CLASSES = ("a", "b", "c")


def draw(seed: int = 0, width: int = 20) -> tuple[dict, dict]:
    """Features on different scales, one of them constant, and a noisy class of each."""
    chance = np.random.default_rng(seed)
    direction = chance.normal(size=(width, len(CLASSES)))
    scale = 10.0 ** chance.uniform(-2, 2, width)
    features, labels = {}, {}
    for split, count in SIZES.items():
        plain = chance.normal(size=(count, width))
        plain[:, 0] = 1
        labels[split] = (plain @ direction + 3 * chance.normal(size=(count, len(CLASSES)))).argmax(axis=1)
        features[split] = (plain * scale + 5).astype(np.float32)
    return features, labels


def copied(features: dict) -> dict:
    return {split: matrix.copy() for split, matrix in features.items()}


@pytest.mark.parametrize("seed", range(4))
def test_strength_and_probabilities_are_those_of_plain_scikit_learn(seed: int) -> None:
    features, labels = draw(seed)
    plain = {c: make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000, tol=1e-8)) for c in STRENGTHS}
    for model in plain.values():
        model.fit(features["train"].astype(float), labels["train"])
    scores = {c: f1_score(labels["val"], m.predict(features["val"]), average="macro") for c, m in plain.items()}
    found = fit_regression(copied(features), labels, CLASSES, "single_label")
    assert scores[found.strength] > max(scores.values()) - 0.03  # An image at the boundary may fall to either side.
    assert found.unfinished == ()
    assert set(found.probabilities) == {"val", "test"}
    for split, probabilities in found.probabilities.items():
        expected = plain[found.strength].predict_proba(features[split].astype(float))
        np.testing.assert_allclose(probabilities, expected, atol=5e-3)
        assert probabilities.dtype == np.float32


def test_a_class_that_training_lacks_has_no_probability() -> None:
    features, labels = draw()
    labels["train"] = np.where(labels["train"] == 1, 2, labels["train"])
    found = fit_regression(features, labels, CLASSES, "single_label")
    assert (found.probabilities["test"][:, 1] == 0).all()
    np.testing.assert_allclose(found.probabilities["test"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_each_label_is_fitted_alone_and_one_that_never_changes_stays(threads: int) -> None:
    features, labels = draw()
    present = {split: np.eye(3, dtype=np.float32)[one] for split, one in labels.items()}
    wide = {split: np.insert(matrix, [1, 3], [1, 0], axis=1) for split, matrix in present.items()}
    wide["test"][:, 1] = 0
    found = fit_regression(copied(features), wide, "abcde", "multi_label", threads=threads)
    assert (found.probabilities["test"][:, 1] == 1).all()
    assert (found.probabilities["test"][:, 4] == 0).all()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=found.strength, max_iter=5000, tol=1e-8))
    for place, column in ((0, 0), (1, 2), (2, 3)):
        model.fit(features["train"].astype(float), present["train"][:, place])
        expected = model.predict_proba(features["test"].astype(float))[:, 1]
        np.testing.assert_allclose(found.probabilities["test"][:, column], expected, atol=5e-3)


def test_a_solver_that_does_not_converge_is_noted_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "MOST_ITERATIONS", 2)
    found = fit_regression(*draw(), CLASSES, "single_label")
    assert set(found.unfinished) >= {1e-2, 1e-1, 1.0}
    assert np.isfinite(found.probabilities["val"]).all()


def test_of_equal_strengths_the_strongest_penalty_is_taken() -> None:
    labels = {split: np.arange(count) % 3 for split, count in SIZES.items()}
    easy = {split: np.eye(3, dtype=np.float32)[one] for split, one in labels.items()}
    assert fit_regression(easy, labels, CLASSES, "single_label").strength == STRENGTHS[0]


def test_features_that_are_no_numbers_are_refused() -> None:
    features, labels = draw()
    features["train"][3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fit_regression(features, labels, CLASSES, "single_label")
