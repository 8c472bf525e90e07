"""Study msds18022: VGG-16 and ResNet-18 at several rates, batch sizes and momenta; then three findings.

What its page claims, run correctly. Two findings (infected, normal) are a single-label task. The three-finding part was
meant as a multi-label task; its targets marked covid images as normal, too, by a coding error: give it label columns
in which covid counts as pneumonia, as the other studies did. All its figures are of validation images, some under the
title "test", evaluated in train mode; every F1 of the first part is that of the last mini-batch alone.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces.params import TrialParams
from search_spaces.studies.row import StudyRow

VGG = TrialParams(backbone="vgg16", unfreeze_depth=0, head_widths=(320,), lr=1e-3, momentum=0.9, batch_size=8)
RESNET = replace(VGG, backbone="resnet18")
VGG_THREE = replace(VGG, unfreeze_depth=4, head_widths=(1024, 512), dropout=0.5, lr=5e-3, loss="bce")
RESNET_THREE = replace(RESNET, unfreeze_depth=4, head_widths=(256, 128), dropout=0.5, lr=1e-3, loss="bce")

NOTHING_UNFROZEN = "only the head was trained: the flag was set on the layer, not on its parameters"
TARGETS = "covid coded as covid and normal; a sigmoid before a loss that has its own; started from part 1's weights"
FOCAL = f"{TARGETS}; focal factor taken of the batch's mean loss; its alpha of 1 scaled all elements alike: off here"

TRIALS = [
    StudyRow(
        id="H1",
        task="single_label",
        epochs=5,
        params=replace(RESNET, lr=1e-4),
        claim="validation accuracy 84 %, F1 .844 (last mini-batch)",
        note="its confusion matrix gives 84.87 %",
    ),
    StudyRow(
        id="H2",
        task="single_label",
        epochs=5,
        params=replace(RESNET, lr=1e-2, momentum=0.95),
        claim="validation accuracy 59 %, F1 .371 (last mini-batch)",
        note="every image was called normal",
    ),
    StudyRow(
        id="H3",
        task="single_label",
        epochs=3,
        params=replace(VGG, batch_size=60),
        claim="validation accuracy 85 %, F1 .854 (last mini-batch)",
        note="its confusion matrix gives 85.60 %",
    ),
    StudyRow(
        id="H4",
        task="single_label",
        epochs=5,
        params=replace(VGG, lr=1e-2, momentum=0.95),
        claim="validation accuracy 87 %, F1 .899 (last mini-batch)",
    ),
    StudyRow(
        id="H5",
        task="single_label",
        epochs=5,
        params=replace(RESNET, unfreeze_depth=1, lr=1e-4, momentum=0.95),
        claim="validation accuracy 88 %, F1 1.0 (last mini-batch), last layer (layer4) unfrozen",
        note=f"{NOTHING_UNFROZEN}; its confusion matrix gives 86.80 %; its curve ends after 3 epochs",
    ),
    StudyRow(
        id="H6",
        task="single_label",
        epochs=5,
        params=replace(VGG, unfreeze_depth=None, unfreeze_layers=("features.28",), momentum=0.95),
        claim="validation accuracy 87 %, F1 .556 (last mini-batch), last convolution unfrozen",
        note=NOTHING_UNFROZEN,
    ),
    StudyRow(
        id="H7",
        task="single_label",
        epochs=3,
        params=None,
        claim="validation accuracy 87 %, F1 .911 (last mini-batch), all of VGG-16 trained",
        reason="the figure comes without learning rate, momentum and batch size",
    ),
    StudyRow(
        id="H8",
        task="multi_label",
        epochs=8,
        params=VGG_THREE,
        claim="validation accuracy 92 %, F1 .647 (definition unclear)",
        note=f"{TARGETS}; none of the 28 covid images was found",
    ),
    StudyRow(
        id="H9",
        task="multi_label",
        epochs=5,
        params=RESNET_THREE,
        claim="validation accuracy 92 %, F1 .654 (definition unclear)",
        note=TARGETS,
    ),
    StudyRow(
        id="H10",
        task="multi_label",
        epochs=8,
        params=replace(VGG_THREE, loss="focal", focal_gamma=2.0),
        claim="validation accuracy 92 %, F1 .653 (definition unclear)",
        note=f"{FOCAL}; none of the 28 covid images was found",
    ),
    StudyRow(
        id="H11",
        task="multi_label",
        epochs=8,
        params=replace(RESNET_THREE, lr=5e-3, loss="focal", focal_gamma=2.0),
        claim="validation accuracy 90 %, F1 .646 (definition unclear)",
        note=f"{FOCAL}; none of the 28 covid images was found",
    ),
    StudyRow(
        id="H13",
        task="single_label",
        epochs=3,
        params=None,
        claim="validation accuracy 88 %, F1 1.0 (last mini-batch), all of ResNet-18 trained",
        reason="a sentence of the page, without the head, learning rate, momentum and batch size",
    ),
]
