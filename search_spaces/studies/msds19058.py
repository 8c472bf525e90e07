"""Study msds19058: VGG-16 and ResNet-18 at three rates and batch sizes, shallow and deep; then three findings.

What its page and notebook claim, run correctly. Two findings (infected, normal), on a part of the images, are a
single-label task. In the three-finding part an image of covid counts as pneumonia, too: give it label columns in which
both are set. Through a misspelt attribute no layer was ever frozen: every row trained the whole network; and ResNet-18
kept its old output, the new head hanging on an attribute that it never calls. Evaluation ran in train mode, on
augmented validation images, at another size for the test; the choice between experiments was made on the test images.

Unfrozen "tensors" are counted from the end of the convolutional part, weights and biases as one each.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces.params import TrialParams
from search_spaces.studies.row import StudyRow

VGG = TrialParams(backbone="vgg16", unfreeze_depth=0, head_widths=(680,), lr=1e-3, momentum=0.9, batch_size=8)
RESNET = replace(VGG, backbone="resnet18")
# The last four tensors of VGG's features are weight and bias of these two; ResNet-18's last five are these three's.
VGG_LAST_4 = replace(VGG, unfreeze_depth=None, unfreeze_layers=("features.26", "features.28"))
RESNET_LAST_5 = replace(RESNET, unfreeze_depth=None, unfreeze_layers=("layer4.1.bn1", "layer4.1.conv2", "layer4.1.bn2"))
VGG_THREE = replace(VGG, unfreeze_depth=4, batch_size=10, loss="bce")
RESNET_THREE = replace(VGG_THREE, backbone="resnet18")
VGG_FOCAL = replace(VGG_THREE, loss="focal", focal_gamma=2.0, focal_alpha=0.25)
RESNET_FOCAL = replace(VGG_FOCAL, backbone="resnet18")

ALL_TRAINED = "the whole network was trained"
OLD_OUTPUT = "the new head was never attached"
POOLED = "accuracy of all label bits pooled (Hamming)"
VGG_BIAS_ALONE = "the fifth tensor from the end is the bias of features.24 alone, half a layer"
RESNET_BIAS_ALONE = "the fourth tensor from the end is the bias of layer4.1.bn1 alone, half a layer"
UNSAID_LAYERS = "the table says task 2, in which some layers or all were unfrozen: not which"


def _two(
    number: int,
    params: TrialParams | None,
    claim: str,
    *,
    epochs: int = 5,
    note: str = ALL_TRAINED,
    reason: str = "",
) -> StudyRow:
    return StudyRow(
        id=f"M{number}", task="single_label", epochs=epochs, params=params, claim=claim, note=note, reason=reason
    )


def _three(number: int, params: TrialParams, claim: str, *, epochs: int = 5, note: str = "") -> StudyRow:
    return StudyRow(
        id=f"M{number}",
        task="multi_label",
        epochs=epochs,
        params=params,
        claim=f"validation {claim}, {POOLED}",
        note=note,
    )


TRIALS = [
    _two(1, VGG, "test accuracy 95 %, F1 infected .952, normal .962"),
    _two(2, replace(VGG, lr=8e-4, batch_size=20), "test accuracy 95 %, F1 infected .944, normal .960"),
    _two(3, replace(VGG, batch_size=20), "test accuracy 94 %, F1 infected .928, normal .950"),
    _two(4, RESNET, "test accuracy 88 %, F1 infected .875, normal .896", note=f"{ALL_TRAINED}; {OLD_OUTPUT}"),
    _two(
        5,
        replace(RESNET, lr=8e-4, batch_size=20),
        "test accuracy 92 %, F1 infected .906, normal .931",
        note=f"{ALL_TRAINED}; {OLD_OUTPUT}",
    ),
    _two(
        6,
        replace(RESNET, batch_size=25),
        "test accuracy 91 %, F1 infected .900, normal .929",
        note=f"{ALL_TRAINED}; {OLD_OUTPUT}",
    ),
    _two(7, VGG_LAST_4, "test accuracy 95 %, F1 infected .949, normal .960, last 4 tensors unfrozen"),
    _two(
        8,
        None,
        "test accuracy 94 %, F1 infected .938, normal .952, last 5 tensors unfrozen (lr 8e-4, batch 20)",
        reason=VGG_BIAS_ALONE,
    ),
    _two(
        9,
        replace(VGG, unfreeze_depth=4, batch_size=20),
        "test accuracy 92 %, F1 infected .905, normal .937",
        note="",
    ),
    _two(
        10,
        None,
        "test accuracy 91 %, F1 infected .902, normal .924, last 4 tensors unfrozen (lr 1e-3, batch 8)",
        note=f"{ALL_TRAINED}; {OLD_OUTPUT}",
        reason=RESNET_BIAS_ALONE,
    ),
    _two(
        11,
        replace(RESNET_LAST_5, lr=8e-4, batch_size=20),
        "test accuracy 89 %, F1 infected .883, normal .897, last 5 tensors unfrozen",
        note=f"{ALL_TRAINED}; {OLD_OUTPUT}",
    ),
    _two(
        12,
        replace(RESNET, unfreeze_depth=4, batch_size=25),
        "test accuracy 93 %, F1 infected .924, normal .944",
        note=OLD_OUTPUT,
    ),
    _three(13, VGG_THREE, "96.07 %"),
    _three(14, replace(VGG_THREE, head_widths=(1360,), lr=8e-4), "95.97 %"),
    _three(
        15,
        replace(VGG_THREE, lr=8e-4, batch_size=15),
        "95.97 % (train 97.53 %)",
        epochs=10,
        note="called the best of the page, below M13",
    ),
    _three(16, RESNET_THREE, "95.65 %", note=OLD_OUTPUT),
    _three(17, replace(RESNET_THREE, head_widths=(1360,), lr=8e-4), "94.53 %", note=OLD_OUTPUT),
    _three(18, VGG_FOCAL, "95.06 %"),
    _three(19, RESNET_FOCAL, "91.40 %", note=OLD_OUTPUT),
    _three(20, replace(RESNET_FOCAL, lr=8e-4), "91.40 %", note=OLD_OUTPUT),
    _three(21, replace(RESNET_FOCAL, lr=8e-4, batch_size=15), "92.30 %", epochs=10, note=OLD_OUTPUT),
    # The table of ten-epoch runs is an image and does not say whether its accuracy is of validation or of test.
    _two(22, VGG, "accuracy 91 %", epochs=10),
    _two(23, replace(VGG, lr=8e-4, batch_size=20), "accuracy 95 %", epochs=10),
    _two(24, replace(VGG, batch_size=25), "accuracy 92 %", epochs=10),
    _two(25, RESNET, "accuracy 89 %", epochs=10, note=f"{ALL_TRAINED}; {OLD_OUTPUT}"),
    _two(26, replace(RESNET, lr=8e-4, batch_size=20), "accuracy 92 %", epochs=10, note=f"{ALL_TRAINED}; {OLD_OUTPUT}"),
    _two(27, replace(RESNET, batch_size=25), "accuracy 92 %", epochs=10, note=f"{ALL_TRAINED}; {OLD_OUTPUT}"),
    _two(28, None, "VGG-16, accuracy 96 % (lr 1e-3, batch 8)", epochs=10, reason=UNSAID_LAYERS),
    _two(29, None, "VGG-16, accuracy 96 % (lr 8e-4, batch 20)", epochs=10, reason=UNSAID_LAYERS),
    _two(30, None, "VGG-16, accuracy 96 % (lr 1e-3, batch 25)", epochs=10, reason=UNSAID_LAYERS),
    _two(31, None, "ResNet-18, accuracy 91 % (lr 1e-3, batch 8)", epochs=10, reason=UNSAID_LAYERS),
    _two(32, None, "ResNet-18, accuracy 91 % (lr 8e-4, batch 20)", epochs=10, reason=UNSAID_LAYERS),
    _two(33, None, "ResNet-18, accuracy 90 % (lr 1e-3, batch 25)", epochs=10, reason=UNSAID_LAYERS),
]
