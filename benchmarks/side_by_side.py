"""Do two trials on two cores do twice the work of one? Whole epochs with validation, in two processes.

Both processes build the same trial and train one epoch to warm up. Then each works alone while the other waits, then
both at once with one torch thread each, as in a sweep, and then with two each: the trap of a process that uses all
cores of the machine.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.drawn_images import draw_images
from benchmarks.table import Row
from trainables.data.config import DataConfig
from trainables.data.prepare import prepare

LIMIT = 0.9
SIZE = 96
COUNTS = {"train": 128, "val": 32}
TRIALS = {"resnet18, all layers": ("resnet18", 4), "mobilenet_v2, head alone": ("mobilenet_v2", 0)}


def measure(quick: bool) -> list[Row]:
    seconds = 2.0 if quick else 15.0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_images(root / "images", COUNTS, SIZE)
        prepare(DataConfig(data=str(root / "images"), image_size=SIZE), root / "run", root / "cache", workers=2)
        for name, (backbone, depth) in TRIALS.items():
            with _two_processes(root / "run", backbone, depth) as (first, second):
                alone = sum(_images_per_second([worker], 1, seconds) for worker in (first, second))
                both = _images_per_second([first, second], 1, seconds)
                trap = _images_per_second([first, second], 2, seconds)
            rows += [
                Row(f"two trials side by side, images/s of twice one alone: {name}", both / alone, "", LIMIT, True),
                Row("  one alone, mean of the two", alone / 2, "images/s"),
                Row("  both together, one thread each", both, "images/s"),
                Row("  both together, two threads each (the trap)", trap, "images/s"),
            ]
    return rows


@contextmanager
def _two_processes(run: Path, backbone: str, depth: int) -> Iterator[list[Connection]]:
    fresh = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for _ in range(2):
        ours, theirs = fresh.Pipe()
        process = fresh.Process(target=_work, args=(theirs, str(run), backbone, depth), daemon=True)
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    try:
        for end in ends:
            assert end.recv() == "ready"
        yield ends
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.join()


def _images_per_second(workers: list[Connection], threads: int, seconds: float) -> float:
    for worker in workers:
        worker.send((threads, seconds))
    return sum(worker.recv() for worker in workers)


def _work(orders: Connection, run: str, backbone: str, depth: int) -> None:
    """Train on request until the connection closes: receives (threads, seconds), sends images per second."""
    import torch

    from search_spaces.params import TrialParams
    from trainables.trial import FinetuneTrial, TrialSettings

    settings: dict[str, Any] = {"run_dir": run, "epochs": 1_000_000, "weights": "random", "precision": "fp32"}
    settings |= {"metric": "val_f1_macro", "patience": None, "time_limit_s": None, "seed": 0, "cpus": 1}
    settings |= {"use_gpu": False, "deterministic": False}
    params = TrialParams(backbone=backbone, unfreeze_depth=depth, batch_size=32, lr=1e-4, augment="flip")
    trial = FinetuneTrial(params, TrialSettings(**settings), 0)
    trial.run_epoch()
    orders.send("ready")
    while True:
        try:
            threads, seconds = orders.recv()
        except EOFError:
            return
        torch.set_num_threads(threads)
        began_s = time.perf_counter()
        epochs = 0
        while time.perf_counter() - began_s < seconds:
            assert "end" not in trial.run_epoch()
            epochs += 1
        orders.send(epochs * COUNTS["train"] / (time.perf_counter() - began_s))
