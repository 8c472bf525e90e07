"""Study bscs17028: VGG-16 and ResNet-18, head only, one or eight convolutions, or all of it; then three findings.

What its page claims, run correctly. Two findings (infected, normal) are a single-label task. In the three-finding part
an image of covid counts as pneumonia, too: give it label columns in which both are set. Throughout the study the
experiments were compared on the test images, once each, without repeats.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces.params import TrialParams
from search_spaces.studies.row import StudyRow

VGG = TrialParams(
    backbone="vgg16", unfreeze_depth=0, head_widths=(380,), dropout=0.5, lr=1e-3, momentum=0.9, batch_size=128
)
VGG_ALL = replace(VGG, unfreeze_depth=4)
RESNET = replace(VGG, backbone="resnet18")
RESNET_ALL = replace(RESNET, unfreeze_depth=4)
EIGHT_CONVOLUTIONS = tuple(f"features.{index}" for index in (0, 5, 10, 12, 19, 21, 26, 28))

EVALUATED_IN_TRAIN_MODE = "evaluated with dropout on"

TRIALS = [
    StudyRow(
        id="W1",
        task="single_label",
        epochs=10,
        params=VGG,
        claim="test accuracy 92.67 %, F1 of normal .941",
    ),
    StudyRow(
        id="W2",
        task="single_label",
        epochs=10,
        params=RESNET,
        claim="test accuracy 91.33 %, F1 of normal .926",
        note="BatchNorm of the frozen layers went on updating its statistics",
    ),
    StudyRow(
        id="W3",
        task="single_label",
        epochs=10,
        params=VGG_ALL,
        claim="test accuracy 95.53 %, F1 of normal .963",
    ),
    StudyRow(
        id="W4",
        task="single_label",
        epochs=10,
        params=RESNET_ALL,
        claim="test accuracy 96.13 %, F1 of normal .968",
    ),
    StudyRow(
        id="W5",
        task="single_label",
        epochs=10,
        params=replace(VGG, unfreeze_depth=None, unfreeze_layers=("features.10",)),
        claim="test accuracy 96.53 %, F1 of normal .97",
        note="the confusion matrix printed with it gives 96.20 %",
    ),
    StudyRow(
        id="W6",
        task="single_label",
        epochs=10,
        params=replace(VGG, unfreeze_depth=None, unfreeze_layers=EIGHT_CONVOLUTIONS),
        claim="test accuracy 95.53 %, F1 of normal .96",
        note="its confusion matrix is that of W3, number for number",
    ),
    StudyRow(
        id="W7",
        task="multi_label",
        epochs=20,
        params=replace(VGG_ALL, loss="bce"),
        claim="validation exact match 90.92 %, F1 covid .50, normal .950, pneumonia .910",
        note=EVALUATED_IN_TRAIN_MODE,
    ),
    StudyRow(
        id="W8",
        task="multi_label",
        epochs=20,
        params=replace(VGG_ALL, loss="focal", focal_gamma=1.5),
        claim="validation exact match 90.45 %, F1 covid .488, normal .949, pneumonia .889",
        note=EVALUATED_IN_TRAIN_MODE,
    ),
    StudyRow(
        id="W9",
        task="multi_label",
        epochs=20,
        params=replace(RESNET_ALL, loss="bce"),
        claim="validation exact match 89.17 %, F1 covid 0, normal .939, pneumonia .891",
        note=f"{EVALUATED_IN_TRAIN_MODE}, BatchNorm absorbing the images; none of the 28 covid images was found",
    ),
    StudyRow(
        id="W10",
        task="multi_label",
        epochs=20,
        params=replace(RESNET_ALL, loss="focal", focal_gamma=1.5),
        claim="validation exact match 91.72 %, F1 covid .636, normal .949, pneumonia .912",
        note=f"{EVALUATED_IN_TRAIN_MODE}, BatchNorm absorbing the images",
    ),
]
