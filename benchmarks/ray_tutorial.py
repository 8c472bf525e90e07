"""The sweep of Ray's tutorial "How to use Tune with PyTorch", with another network and other images.

    https://docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html

As there: a train function with DataLoaders, every layer run in every step, the network in train mode throughout,
validation and a checkpoint of network and optimiser after each epoch, ASHA with its settings. As in Ray's guide to
Optuna: ``OptunaSearch``. Different: a torchvision network with a new head, whose frozen layers have
``requires_grad=False``; an ``ImageFolder`` of the training images and one of the validation images; one torch thread.
Run by ``benchmarks.tutorial``, which passes the settings as JSON; it prints the seconds of each trial's epochs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
import torchvision
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.own_process import AT_ONCE
from search_spaces.params import TrialParams
from trainables.backbones import BACKBONES, part_of
from trainables.finetune import make_head, unfrozen_modules

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_data(data: str, size: int, augment: str) -> tuple[ImageFolder, ImageFolder]:
    """augment: "none", "flip" or "standard", which rotates and crops as ours does."""
    square: list[Any] = [transforms.Resize(size), transforms.CenterCrop(size)]
    tensor: list[Any] = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    flip = transforms.RandomHorizontalFlip()
    augmented = {
        "none": square,
        "flip": [*square, flip],
        "standard": [transforms.RandomRotation(30), transforms.RandomResizedCrop(size, scale=(0.5, 1.0)), flip],
    }
    train_set = ImageFolder(os.path.join(data, "train"), transforms.Compose([*augmented[augment], *tensor]))
    val_set = ImageFolder(os.path.join(data, "val"), transforms.Compose([*square, *tensor]))
    return train_set, val_set


def make_network(params: TrialParams, weights: str | None, class_count: int) -> nn.Module:
    """weights: a file with torchvision's parameter names; None = random."""
    network: nn.Module = torchvision.models.get_model(params.backbone, weights=None)
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    for parameter in network.parameters():
        parameter.requires_grad = False
    backbone = BACKBONES[params.backbone]
    for name in unfrozen_modules(backbone, params.unfreeze_depth):
        part_of(network, name).requires_grad_(True)
    head = make_head(backbone.feature_width, params.head_widths, params.dropout, class_count)
    if params.backbone.startswith("squeezenet"):  # Its classifier includes the pooling.
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
    network.set_submodule(backbone.dropped[0], head)
    return network


def train(config: dict[str, Any], settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    params = TrialParams.from_flat(settings["trials"][config["number"]])
    train_set, val_set = load_data(settings["data"], settings["image_size"], params.augment)
    net = make_network(params, settings["weights"].get(params.backbone), len(train_set.classes))

    criterion = nn.CrossEntropyLoss()
    optimizer: optim.Optimizer
    if params.optimizer == "sgd":
        optimizer = optim.SGD(net.parameters(), params.lr, params.momentum, weight_decay=params.weight_decay)
    else:
        optimizer = optim.AdamW(net.parameters(), params.lr, weight_decay=params.weight_decay)
    loaders = {"batch_size": params.batch_size, "shuffle": True, "num_workers": settings["num_workers"]}
    train_loader, val_loader = DataLoader(train_set, **loaders), DataLoader(val_set, **loaders)

    epoch_seconds: list[float] = []
    for _ in range(settings["epochs"]):
        began_s = time.perf_counter()
        running_loss = 0.0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()

        val_loss, correct = 0.0, 0
        for inputs, labels in val_loader:
            with torch.no_grad():
                outputs = net(inputs)
                correct += (outputs.argmax(dim=1) == labels).sum().item()
                val_loss += criterion(outputs, labels).item()

        with tempfile.TemporaryDirectory() as folder:
            torch.save((net.state_dict(), optimizer.state_dict()), os.path.join(folder, "checkpoint.pt"))
            epoch_seconds.append(time.perf_counter() - began_s)
            tune.report(
                {
                    "loss": val_loss / len(val_loader),
                    "accuracy": correct / len(val_set),
                    "epoch_seconds": epoch_seconds,
                },
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def main(settings: dict[str, Any], storage: str) -> list[list[float]]:
    """The seconds of the epochs of each of the ``settings["trials"]``, ``AT_ONCE`` trials at a time."""
    ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    numbers = list(range(len(settings["trials"])))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, settings=settings), {"cpu": 1}),
        param_space={"number": tune.choice(numbers)},
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            num_samples=len(numbers),
            search_alg=OptunaSearch(points_to_evaluate=[{"number": number} for number in numbers]),
            scheduler=ASHAScheduler(max_t=settings["epochs"], grace_period=1, reduction_factor=2),
        ),
        run_config=tune.RunConfig(name="tutorial", storage_path=storage, verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trials failed, the first with {results.errors[0]}")
    found = {result.config["number"]: result.metrics["epoch_seconds"] for result in results}
    assert sorted(found) == numbers, f"of trials {numbers} ran {sorted(found)}"
    return [found[number] for number in numbers]


if __name__ == "__main__":
    from benchmarks import ray_tutorial  # Ray's workers import the train function, which they cannot from __main__.

    with tempfile.TemporaryDirectory() as storage:
        print(json.dumps(ray_tutorial.main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), storage)))
