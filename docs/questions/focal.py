"""Does focal loss find more of a rare class than binary cross-entropy? One factor, nothing else.

    python -m sweep.run --space docs/questions/focal.py --sampler grid --trials 2 --scheduler none --finalists 2 \
        --repeats 4 --epochs 4 --image-size 96 --precision bf16 --data DATA/findings.csv --label-column findings \
        --group-column group_id --weights WEIGHTS --metric val_f1:covid

The labels are three findings; an image of covid is also one of pneumonia. The metric is F1 of the rare class, so that
the report compares the two by it. Gamma is 2, without alpha, which would weight the classes and so add a second factor.
"""


def space(trial, context):
    trial.suggest_categorical("loss", ["bce", "focal"])
    return {
        "focal_gamma": 2.0,  # changes nothing under bce
        "backbone": "squeezenet1_1",
        "unfreeze_depth": 4,
        "head_widths": "none",
        "dropout": 0.0,
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "batch_size": 16,
        "lr_schedule": "constant",
        "class_weights": "none",
        "augment": "none",
    }
