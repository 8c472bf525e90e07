"""The networks that a test of each of them builds at once, and those that ``make test-long`` adds."""

from __future__ import annotations

import pytest

from search_spaces.params import BACKBONE_NAMES

OF_A_KIND_EACH = (
    *("resnet18", "vgg16", "densenet121", "mobilenet_v2", "efficientnet_b0", "squeezenet1_1"),
    *("convnext_tiny", "vit_b_16", "swin_t"),
)
EVERY_NETWORK = [
    pytest.param(name, marks=() if name in OF_A_KIND_EACH else pytest.mark.long, id=name) for name in BACKBONE_NAMES
]
