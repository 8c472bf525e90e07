"""The losses, each as a sum and a weight, so that a batch can be computed in parts without changing its mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import UserError
from search_spaces.params import TrialParams
from trainables.metrics import has_class, is_known

BALANCED_WEIGHT_CAP = 20.0
"""The largest weight that ``balanced`` gives: with rarer classes, single images would be almost the whole gradient."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss whose mean over any set of images is ``mean_loss(total, weight)``, both sums over the images.

    A missing label (NaN, multi-label) adds nothing to either.

    kind: "cross_entropy" or "binary" (bce, and focal with gamma > 0), the latter one term per image and class.
    class_count: C.
    class_weight: float32 [C] or None: of the true class (cross_entropy) or of positive elements (binary).
    alpha: weight of positive elements, 1 - alpha that of negative ones; None = off.
    """

    kind: str
    class_count: int
    class_weight: Tensor | None = None
    gamma: float = 0.0
    alpha: float | None = None

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The summed loss, a float32 scalar. logits: float [B, C]; labels: int64 [B] or float32 [B, C] of 0, 1, NaN."""
        logits = logits.float()
        if self.kind == "cross_entropy":
            return F.cross_entropy(logits, labels, weight=self.class_weight, reduction="sum")
        if labels.ndim == 1:
            return self._binary(logits, F.one_hot(labels, self.class_count).float()).sum()
        # NaN is replaced by 0 first, so that the product with 0, and its gradient, are finite.
        return (self._binary(logits, (labels == 1).float()) * (labels >= 0)).sum()

    def weight(self, labels: Tensor) -> Tensor | float:
        """The divisor of ``total``: a number if it does not depend on the labels' values, else a float32 scalar.

        cross_entropy: the sum of the images' class weights (1 each if there are none), as torch's mean does;
        binary: the number of elements whose label is known, whatever their weights, as torch's mean does.
        """
        if self.kind == "cross_entropy" and self.class_weight is not None:
            return self.class_weight[labels].sum()
        if labels.ndim == 2:
            return (labels >= 0).sum().float()
        return float(len(labels) if self.kind == "cross_entropy" else len(labels) * self.class_count)

    def to(self, device: torch.device) -> Loss:
        """The same loss with its weights on ``device``."""
        return self if self.class_weight is None else replace(self, class_weight=self.class_weight.to(device))

    def _binary(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Focal loss per element (Lin et al. 2017, arXiv:1708.02002, equations 4 and 5), gamma 0 being BCE itself.

        ``torchvision.ops.sigmoid_focal_loss`` raises ``1 - p_t`` to gamma: its gradient is NaN for gamma < 1 where
        float32 rounds p_t to 1. The same factor as exp(gamma * log(1 - p_t)) has a finite gradient everywhere.
        """
        losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=self.class_weight, reduction="none")
        if self.gamma:
            sign = 2 * targets - 1
            losses = losses * torch.exp(self.gamma * F.logsigmoid(-sign * logits))
        if self.alpha is not None:
            losses = losses * (self.alpha * targets + (1 - self.alpha) * (1 - targets))
        return losses


def mean_loss(total: Tensor, weight: Tensor | float) -> Tensor:
    """The mean loss from sums of ``Loss.total`` and ``Loss.weight``; 0, with a gradient of 0, if no label is known."""
    return total / (weight if isinstance(weight, float) else torch.where(weight > 0, weight, 1))


def make_loss(params: TrialParams, task: str, train_labels: NDArray[Any], classes: Sequence[str]) -> Loss:
    """The loss that ``params`` ask for, on the CPU.

    train_labels: int [N] (single_label) or 0, 1, NaN [N, C] (multi_label), of the training split only. They give the
    weights of ``class_weights="balanced"``, at most ``BALANCED_WEIGHT_CAP``: with n images whose label c is known, n_c
    of them of class c, and C classes, n / (C n_c) for cross_entropy and (n - n_c) / n_c on positive elements for bce
    and focal.
    On a single_label task bce and focal act on one-hot targets. Raises UserError for cross_entropy on multi_label.
    """
    softmax, focal = params.loss == "cross_entropy", params.loss == "focal"
    if softmax and task == "multi_label":
        raise UserError("loss 'cross_entropy' needs one class per image, but the task is multi_label: use bce or focal")
    return Loss(
        kind="cross_entropy" if softmax else "binary",
        class_count=len(classes),
        class_weight=_class_weight(params, train_labels, len(classes)),
        gamma=params.focal_gamma if focal else 0.0,
        alpha=params.focal_alpha if focal else None,
    )


def probabilities_of(logits: Tensor, task: str) -> Tensor:
    """float32 [B, C]: softmax (single_label), whatever the loss, or sigmoid (multi_label) of logits [B, C].

    Softmax also if bce or focal trained the network, as the decision (argmax) is the same and the exported model needs
    one rule; such a softmax is sharper than the network's sigmoids, which ``nll`` shows.
    """
    return logits.float().softmax(dim=1) if task == "single_label" else logits.float().sigmoid()


def _class_weight(params: TrialParams, train_labels: NDArray[Any], class_count: int) -> Tensor | None:
    if params.class_weights == "none":
        return None
    of_class = has_class(train_labels, class_count).sum(axis=0)
    count = is_known(train_labels, class_count).sum(axis=0)
    whole = count / class_count if params.loss == "cross_entropy" else count - of_class
    weights = np.full(class_count, BALANCED_WEIGHT_CAP)
    np.divide(whole, of_class, out=weights, where=of_class > 0)
    return torch.tensor(np.minimum(weights, BALANCED_WEIGHT_CAP), dtype=torch.float32)
