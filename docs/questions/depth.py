"""Is training the whole network better than training its head alone? One factor, nothing else.

    python -m sweep.run --space docs/questions/depth.py --sampler grid --trials 2 --scheduler none --finalists 2 \
        --repeats 4 --epochs 4 --image-size 96 --precision bf16 --data DATA/manifest.csv --label-column class \
        --group-column group_id --weights WEIGHTS

Both are retrained with the same new seeds, and the report compares them. SqueezeNet 1.1, because training the head
alone needs a fully pretrained trunk; for another network add `--set backbone=mobilenet_v2`.
"""


def space(trial, context):
    trial.suggest_categorical("unfreeze_depth", [0, 4])
    return {
        "backbone": "squeezenet1_1",
        "head_widths": "none",
        "dropout": 0.0,
        "optimizer": "sgd",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "batch_size": 16,
        "lr_schedule": "constant",
        "loss": "cross_entropy",
        "class_weights": "none",
        "augment": "none",
    }
