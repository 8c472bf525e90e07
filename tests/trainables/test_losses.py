"""Losses against torch's and torchvision's own, and what their weights do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables.losses import BALANCED_WEIGHT_CAP, Loss, make_loss, mean_loss, probabilities_of

LABELS = np.array([0] * 6 + [1] * 3 + [2])
CLASSES = ("a", "b", "c")
MULTI_HOT = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)


def loss_of(task="single_label", labels=LABELS, **params):
    return make_loss(TrialParams(backbone="resnet18", **params), task, labels, CLASSES)


def mean(loss, logits, labels):
    return loss.total(logits, labels) / loss.weight(labels)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, generator=generator) * 3, torch.randint(3, (8,), generator=generator)


def test_cross_entropy_is_that_of_torch(batch):
    assert torch.equal(mean(loss_of(), *batch), F.cross_entropy(*batch))


def test_balanced_cross_entropy_has_the_weights_and_the_mean_of_torch(batch):
    weight = torch.tensor([10 / (3 * 6), 10 / (3 * 3), 10 / 3])
    expected = F.cross_entropy(*batch, weight=weight)
    assert torch.allclose(mean(loss_of(class_weights="balanced"), *batch), expected)


def test_bce_on_one_label_an_image_acts_on_one_hot_targets(batch):
    logits, labels = batch
    expected = F.binary_cross_entropy_with_logits(logits, torch.eye(3)[labels])
    assert torch.allclose(mean(loss_of(loss="bce"), logits, labels), expected)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_focal_loss_with_gamma_0_and_no_alpha_is_exactly_bce(batch, class_weights):
    focal = loss_of(loss="focal", focal_gamma=0.0, class_weights=class_weights)
    assert torch.equal(mean(focal, *batch), mean(loss_of(loss="bce", class_weights=class_weights), *batch))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
def test_focal_loss_is_that_of_torchvision_for_every_element(batch, gamma, alpha):
    logits, labels = batch
    loss = loss_of(loss="focal", focal_gamma=gamma, focal_alpha=alpha)
    expected = sigmoid_focal_loss(logits, torch.eye(3)[labels], -1 if alpha is None else alpha, gamma, reduction="mean")
    assert torch.allclose(mean(loss, logits, labels), expected)


def test_balanced_focal_loss_weighs_positive_elements_by_the_ratio_of_negatives(batch):
    logits, labels = batch
    targets = torch.eye(3)[labels]
    plain = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2)
    pos_weight = torch.tensor([4 / 6, 7 / 3, 9 / 1])
    expected = (plain * (1 + (pos_weight - 1) * targets)).mean()
    assert torch.allclose(mean(loss_of(loss="focal", class_weights="balanced"), logits, labels), expected)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_focal_gradients_stay_finite_where_the_network_is_certain(gamma):
    logits = torch.tensor([[60.0, -60.0], [200.0, 0.0]], requires_grad=True)
    mean(Loss(kind="binary", class_count=2, gamma=gamma), logits, torch.tensor([0, 1])).backward()
    assert torch.isfinite(logits.grad).all()


def test_multi_label_losses_take_multi_hot_labels():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    loss = loss_of("multi_label", MULTI_HOT, loss="bce", class_weights="balanced")
    assert loss.class_weight.tolist() == pytest.approx([1 / 3, 1, BALANCED_WEIGHT_CAP])
    expected = F.binary_cross_entropy_with_logits(logits, torch.tensor(MULTI_HOT), pos_weight=loss.class_weight)
    assert torch.allclose(mean(loss, logits, torch.tensor(MULTI_HOT)), expected)


@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "focal"])
def test_no_class_weighs_more_than_the_cap(loss):
    labels = np.array([0] * 5000 + [1])
    assert loss_of(labels=labels, loss=loss, class_weights="balanced").class_weight.max() == BALANCED_WEIGHT_CAP


@pytest.mark.parametrize(
    "params",
    [
        {"loss": "bce"},
        {"loss": "bce", "class_weights": "balanced"},
        {"loss": "focal", "class_weights": "balanced"},
        {"loss": "focal", "focal_alpha": 0.25},
    ],
)
def test_a_missing_label_adds_nothing_to_loss_gradient_or_class_weights(params):
    """The mean over the known cells, as if each class had its own loss on the images whose label is known."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1, 0, np.nan], [np.nan, 1, np.nan], [0, np.nan, np.nan], [1, 0, np.nan]])
    loss = loss_of("multi_label", labels.numpy(), **params)
    if "class_weights" in params:
        assert loss.class_weight.tolist() == pytest.approx([1 / 2, 2, BALANCED_WEIGHT_CAP])
    logits = torch.randn(4, 3, generator=generator, requires_grad=True)
    found = mean(loss, logits, labels)
    found.backward()
    known = ~labels.isnan()
    assert (logits.grad[~known] == 0).all()
    assert (logits.grad[known] != 0).all()
    totals = []
    for place, rows in enumerate(known.T):
        weight = None if loss.class_weight is None else loss.class_weight[[place]]
        alone = replace(loss, class_count=1, class_weight=weight)
        totals.append(alone.total(logits[rows][:, [place]], labels[rows][:, [place]]))
    assert torch.allclose(found, sum(totals) / known.sum())


def test_a_batch_without_a_known_label_has_loss_0_and_gradient_0():
    logits = torch.randn(2, 3, requires_grad=True)
    labels = torch.full((2, 3), np.nan)
    loss = loss_of("multi_label", MULTI_HOT, loss="bce")
    found = mean_loss(loss.total(logits, labels), loss.weight(labels))
    found.backward()
    assert found.item() == 0
    assert (logits.grad == 0).all()


def test_cross_entropy_on_several_labels_an_image_is_refused():
    with pytest.raises(UserError, match="use bce or focal"):
        loss_of("multi_label", MULTI_HOT)


@pytest.mark.parametrize("params", [{}, {"class_weights": "balanced"}, {"loss": "bce"}, {"loss": "focal"}])
def test_parts_of_a_batch_add_up_to_its_mean(batch, params):
    logits, labels = batch
    loss = loss_of(**params)
    parts = sum(loss.total(logits[part], labels[part]) for part in (slice(0, 3), slice(3, 8)))
    assert torch.allclose(parts / loss.weight(labels), mean(loss, logits, labels))


def test_probabilities_are_softmax_or_sigmoid_in_float32():
    logits = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert torch.allclose(probabilities_of(logits, "single_label"), torch.tensor([[1.0, 2.0]]).softmax(1))
    assert torch.allclose(probabilities_of(logits, "multi_label"), torch.tensor([[1.0, 2.0]]).sigmoid())
