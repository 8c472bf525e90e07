"""Study msds19042: VGG-16 and ResNet-18, head only, a few convolutions or all of it; then three findings.

What its notebook claims, run correctly. Both parts are single-label tasks: the three findings were one-hot targets for
binary cross-entropy and focal loss, and the highest output won. The study's own evaluation ran in train mode, and the
confusion matrices of the three-finding part were summed over ten epochs.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces.params import TrialParams
from search_spaces.studies.row import StudyRow

RESNET = TrialParams(backbone="resnet18", unfreeze_depth=0, lr=1e-3, momentum=0.9, batch_size=8)
RESNET_ALL = replace(RESNET, unfreeze_depth=4)
VGG = replace(RESNET, backbone="vgg16", head_widths=(4300,))
VGG_ALL = replace(VGG, unfreeze_depth=4)
LAYER1_CONVOLUTIONS = ("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2")
FIRST_CONVOLUTIONS = ("features.0", "features.2", "features.5", "features.7")

WIDE_OUTPUT = "the output had 4300 units for two classes"
FROZE_NOTHING = f"everything was trained, through a misspelt attribute; {WIDE_OUTPUT}"
ALPHA = "its alpha of 1 scaled all elements alike: off here"

TRIALS = [
    StudyRow(
        id="A1",
        task="single_label",
        epochs=10,
        params=RESNET,
        claim="test accuracy 96.8 %, F1 of infected .961, output layer alone trained",
        note=FROZE_NOTHING,
    ),
    StudyRow(
        id="A2",
        task="single_label",
        epochs=10,
        params=replace(RESNET, unfreeze_depth=None, unfreeze_layers=LAYER1_CONVOLUTIONS),
        claim="test accuracy 97.27 % by its matrix, convolutions of layer1 unfrozen",
        note=FROZE_NOTHING,
    ),
    StudyRow(
        id="A3",
        task="single_label",
        epochs=20,
        params=RESNET_ALL,
        claim="test accuracy 97.40 %, F1 of infected .968: the best two-finding result of the five studies",
        note=f"went on from the weights of A2; {WIDE_OUTPUT}",
    ),
    StudyRow(
        id="A4",
        task="single_label",
        epochs=10,
        params=VGG,
        claim="validation accuracy 81.2 %",
        note="the test figures printed for it are predictions of ResNet-18",
    ),
    StudyRow(
        id="A5",
        task="single_label",
        epochs=10,
        params=replace(VGG, unfreeze_depth=None, unfreeze_layers=FIRST_CONVOLUTIONS),
        claim="test accuracy 84.6 %, F1 of infected .789, first four convolutions unfrozen",
        note="only the head was trained: the flag was set on the layers, not on their parameters",
    ),
    StudyRow(
        id="A6",
        task="single_label",
        epochs=20,
        params=VGG_ALL,
        claim="test accuracy 96.47 %",
        note="went on from the weights of A5",
    ),
    StudyRow(
        id="A7",
        task="single_label",
        epochs=10,
        params=replace(RESNET_ALL, lr=5e-3, loss="bce"),
        claim="three findings: validation accuracy 94 %, F1 covid .783",
    ),
    StudyRow(
        id="A8",
        task="single_label",
        epochs=10,
        params=replace(VGG_ALL, head_widths=(), lr=5e-3, loss="bce"),
        claim="three findings: validation accuracy 92 %, F1 covid .389",
    ),
    StudyRow(
        id="A9",
        task="single_label",
        epochs=10,
        params=replace(RESNET_ALL, loss="focal", focal_gamma=2.0),
        claim="three findings: validation accuracy 89 %, F1 covid .600",
        note=ALPHA,
    ),
    StudyRow(
        id="A10",
        task="single_label",
        epochs=10,
        params=replace(VGG_ALL, loss="focal", focal_gamma=2.0),
        claim="three findings: validation accuracy 93 %, F1 covid .571",
        note=ALPHA,
    ),
]
