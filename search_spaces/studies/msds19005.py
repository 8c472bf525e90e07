"""Study msds19005: VGG-16 and ResNet-18, head only, last block or all of it; then three findings with focal loss.

What its page claims, run correctly. Two findings (infected, normal) are a single-label task. In the three-finding part
an image of covid counts as pneumonia, too: give it label columns in which both are set. BatchNorm of frozen layers went
on updating its statistics. Learning rate: our list of results has "plateau 1e-5 x10", taken as 1e-5 to begin with and
a tenth of it at each plateau of validation.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces.params import TrialParams
from search_spaces.studies.row import StudyRow

RESNET = TrialParams(
    backbone="resnet18",
    unfreeze_depth=0,
    head_widths=(150,),
    dropout=0.5,
    lr=1e-5,
    momentum=0.9,
    lr_schedule="plateau",
    batch_size=32,
)
VGG = replace(RESNET, backbone="vgg16")
RESNET_THREE = replace(RESNET, unfreeze_depth=4, loss="bce")
VGG_THREE = replace(VGG, unfreeze_depth=4, loss="bce")

FROZEN_BATCHNORM = "BatchNorm of the frozen layers went on updating its statistics"
NO_NUMBERS = "none: weights were published without a result"
GAMMA = "focal's gamma was given to the optimiser"

TRIALS = [
    StudyRow(
        id="Z1",
        task="single_label",
        epochs=50,
        params=RESNET,
        claim="test accuracy 89 %, F1 of normal .91",
        note=FROZEN_BATCHNORM,
    ),
    StudyRow(
        id="Z2",
        task="single_label",
        epochs=50,
        params=replace(RESNET, unfreeze_depth=4),
        claim="test accuracy 95 %, F1 of normal .96",
    ),
    StudyRow(
        id="Z3",
        task="single_label",
        epochs=50,
        params=VGG,
        claim="test accuracy 92 %, F1 of normal .93",
    ),
    StudyRow(
        id="Z4",
        task="single_label",
        epochs=50,
        params=replace(VGG, unfreeze_depth=4),
        claim="test accuracy 95 %, F1 of normal .96",
    ),
    StudyRow(
        id="Z5a",
        task="single_label",
        epochs=50,
        params=replace(RESNET, unfreeze_depth=1),  # the last block is layer4
        claim=NO_NUMBERS,
        note=FROZEN_BATCHNORM,
    ),
    StudyRow(
        id="Z5b",
        task="single_label",
        epochs=50,
        params=replace(VGG, unfreeze_depth=1),  # the last block's parameters are those of features.24, 26 and 28
        claim=NO_NUMBERS,
    ),
    StudyRow(
        id="Z6",
        task="multi_label",
        epochs=50,
        params=replace(RESNET_THREE, loss="focal", focal_gamma=2.0, focal_alpha=0.25),
        claim="validation accuracy 95 %, F1 .69; F1 covid .909 by its figure",
        note=f"{GAMMA}; table and figure disagree",
    ),
    StudyRow(
        id="Z7",
        task="multi_label",
        epochs=50,
        params=RESNET_THREE,
        claim="validation accuracy 96 %, F1 .68; F1 covid .681 by its figure",
    ),
    StudyRow(
        id="Z8",
        task="multi_label",
        epochs=50,
        params=replace(VGG_THREE, loss="focal", focal_gamma=2.0, focal_alpha=0.25),
        claim="validation accuracy 96 %, F1 .83; F1 covid .902 by its figure",
        note=f"{GAMMA}; by the table focal loss hurts (see Z9), by the text and the figures it helps (macro F1 .938)",
    ),
    StudyRow(
        id="Z9",
        task="multi_label",
        epochs=50,
        params=VGG_THREE,
        claim="validation accuracy 96 %, F1 .90; F1 covid .698 by its figure",
        note="table and figures contradict each other (macro F1 .858 by the figures): see Z8",
    ),
]
