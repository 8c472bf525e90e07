"""Are smaller batches better at the same learning rate and number of epochs? One factor, nothing else.

    python -m sweep.run --space docs/questions/batch_size.py --sampler grid --trials 3 --scheduler none --finalists 3 \
        --repeats 4 --epochs 4 --image-size 96 --precision bf16 --data DATA/manifest.csv --label-column class \
        --group-column group_id --weights WEIGHTS

As in the studies, smaller batches take more steps per epoch at the same learning rate; the number of steps is not
equalised.
"""


def space(trial, context):
    trial.suggest_categorical("batch_size", [8, 32, 128])
    return {
        "backbone": "squeezenet1_1",
        "unfreeze_depth": 4,
        "head_widths": "none",
        "dropout": 0.0,
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "lr_schedule": "constant",
        "loss": "cross_entropy",
        "class_weights": "none",
        "augment": "none",
    }
