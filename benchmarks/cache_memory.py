"""The cost of 12,000 images: on disk, and in the private memory of a process that trains on all of them.

It measures ``Anonymous`` of /proc/self/smaps_rollup, the resident pages that belong to no file and that no other
process can share (pages of the mapped image cache belong to the kernel: one copy for all trials of a machine, released
when memory is short). The baseline: torch is imported, the network and its optimiser exist, and some batches of zeros
have been trained, so that the convolutions' own buffers exist. Then the data set is opened, every row is gathered in
batches, and some of the batches are trained. The cost of the data is the maximum above the baseline.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.drawn_images import draw_images
from benchmarks.own_process import answer_of
from benchmarks.table import Row
from trainables.data.config import DataConfig
from trainables.data.prepare import prepare

IMAGES, SIZE = 12_000, 224
CACHE_LIMIT_GB = 0.65
MEMORY_LIMIT_MB = 200.0
BATCH = 32
TRAINED_BATCHES = 4


def measure(quick: bool) -> list[Row]:
    images = 300 if quick else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_images(root / "images", {"train": images * 5 // 6, "val": images - images * 5 // 6}, SIZE)
        dataset = prepare(
            DataConfig(data=str(root / "images"), image_size=SIZE), root / "run", root / "cache", workers=2
        )
        cached_gb = sum(path.stat().st_size for path in (root / "cache").iterdir()) / 1e9
        assert dataset["images"]["train"] + dataset["images"]["val"] == images
        mapped, loaded = (
            float(answer_of("benchmarks.cache_memory", root / "run", how)) for how in ("mapped", "loaded")
        )
    name = f"{images:,} gray images at {SIZE} px"
    return [
        Row(f"{name}: image cache on disk", cached_gb, "GB", CACHE_LIMIT_GB),
        Row(f"{name}: private memory they add to a trial's process", mapped, "MB", MEMORY_LIMIT_MB),
        Row("  beside it, with the same array read by np.load into each process", loaded, "MB"),
    ]


def added_mb(run: Path, how: str) -> float:
    """Private memory, in MB, that the data set of ``run`` adds to this process.

    how: "mapped", as a trial does, or "loaded", with the images as an array in memory.
    """
    import torch

    from search_spaces.params import TrialParams
    from trainables.batches import ImageBatches, plan_batches
    from trainables.data.dataset import open_dataset
    from trainables.finetune import build_model
    from trainables.optimizers import make_optimizer
    from trainables.weights import find_weights

    torch.set_num_threads(1)
    params = TrialParams(backbone="mobilenet_v2", unfreeze_depth=1, optimizer="adamw")
    found, _ = find_weights("random", [params.backbone])
    model = build_model(params, 3, found[params.backbone], SIZE, seed=0).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(params, model.parameter_groups(params.lr, params.backbone_lr_factor))
    model.train()

    def train(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(TRAINED_BATCHES):
        train(torch.zeros(BATCH, 3, SIZE, SIZE), torch.zeros(BATCH, dtype=torch.int64))
    before = most = anonymous_mb(Path("/proc/self/smaps_rollup").read_text())
    data = open_dataset(run)
    images = data.images if how == "mapped" else np.array(data.images)
    shuffling = torch.Generator().manual_seed(0)
    for split in (data.train, data.val):
        batches = ImageBatches(images, split.rows, split.labels, torch.device("cpu"))
        for number, indices in enumerate(plan_batches(len(batches), BATCH, shuffling)):
            inputs, labels = batches.batch(indices)
            if number < TRAINED_BATCHES:
                train(inputs, labels)
            if number % 8 == 0:
                most = max(most, anonymous_mb(Path("/proc/self/smaps_rollup").read_text()))
    return most - before


def anonymous_mb(smaps_rollup: str) -> float:
    """Resident pages that belong to no file, in MB (10^6 bytes), from the text of /proc/self/smaps_rollup."""
    lines = (line.split() for line in smaps_rollup.splitlines())
    return next(int(words[1]) for words in lines if words[0] == "Anonymous:") * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(added_mb(Path(sys.argv[1]), sys.argv[2])))
