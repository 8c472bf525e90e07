"""The time of Ray's published PyTorch tutorial on the same images, networks and trials as ours.

    python -m benchmarks.tutorial [--data FOLDER] [--weights FOLDER] [--backbone mobilenet_v2 --depth 0 ...]

The program is ``benchmarks.ray_tutorial``. Two trials run at once, one torch thread each, with each of --num-workers;
the fastest counts. A few epochs are measured and extrapolated. The fixed cost (the start of Ray, the start and the end
of a trial) is measured separately: what a sweep of two trials takes besides its epochs. It is counted once, not once
per trial, which favours the tutorial.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.own_process import AT_ONCE, ROOT, answer_of
from search_spaces.errors import UserError
from search_spaces.params import BACKBONE_NAMES, TrialParams
from trainables.weights import find_weights

NUM_WORKERS = (0, 1, 2)
SHARED = Path(os.environ.get("SHARED_DIR", ROOT.parent / "shared"))
DATA, WEIGHTS = SHARED / "data" / "xray_a", SHARED / "weights"


@dataclass(frozen=True)
class Tutorial:
    """A measured sweep. epoch_s: mean seconds of an epoch of each trial, while another trial runs. fixed_s: seconds of
    the whole command outside the epochs of its trials."""

    num_workers: int
    epoch_s: list[float]
    fixed_s: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with train/<class>/ and val/<class>/")
    parser.add_argument("--weights", default=str(WEIGHTS), help="a folder of weight files, as for sweep.run, or random")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default="mobilenet_v2")
    parser.add_argument("--depth", type=int, choices=range(5), default=0, help="blocks that train besides the head")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--trials", type=int, default=64, help="of the sweep that is reckoned (64)")
    parser.add_argument("--epochs", type=int, default=10, help="of each of its trials (10)")
    parser.add_argument("--measured-epochs", type=int, default=2, help="of each of the two measured trials (2)")
    parser.add_argument("--num-workers", type=_numbers, default=NUM_WORKERS, help="of the DataLoaders, each measured")
    parser.add_argument("--quick", action="store_true", help="64 px and one epoch: does it work at all?")
    asked = parser.parse_args(argv)
    size, epochs = (64, 1) if asked.quick else (asked.image_size, asked.measured_epochs)
    params = TrialParams(backbone=asked.backbone, unfreeze_depth=asked.depth, augment="flip")
    try:
        measured = [
            measure(asked.data, asked.weights, [params] * AT_ONCE, epochs, workers, size)
            for workers in asked.num_workers
        ]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(render(measured, asked.trials, asked.epochs))
    return 0


def measure(
    data: Path, weights: str, trials: Sequence[TrialParams], epochs: int, num_workers: int, image_size: int
) -> Tutorial:
    """Run the tutorial's sweep of ``trials``, at least two, for at most ``epochs`` epochs each (ASHA may stop some).

    ``UserError``: ``data`` has no folders train and val, or ``weights`` lacks a backbone.
    """
    check_folders(data)
    settings = {
        "data": str(data.absolute()),
        "weights": weight_files(weights, trials),
        "trials": [params.to_flat() for params in trials],
        "epochs": epochs,
        "num_workers": num_workers,
        "image_size": image_size,
    }
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # Ray's sockets need a short path.
        path = Path(folder) / "settings.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        began_s = time.perf_counter()
        seconds = answer_of("benchmarks.ray_tutorial", path, RAY_TMPDIR=folder)
        whole_s = time.perf_counter() - began_s
    in_epochs_s = sum(map(sum, seconds)) / AT_ONCE
    return Tutorial(num_workers, [statistics.fmean(of_trial) for of_trial in seconds], whole_s - in_epochs_s)


def check_folders(data: Path) -> None:
    """``UserError`` unless ``data`` has the folders that an ``ImageFolder`` reads."""
    missing = [name for name in ("train", "val") if not (data / name).is_dir()]
    if missing:
        raise UserError(
            f"--data {data} has no folder {' and no folder '.join(missing)}: give a folder with train/<class>/ and "
            "val/<class>/, as torchvision's ImageFolder reads them"
        )


def weight_files(weights: str, trials: Sequence[TrialParams]) -> dict[str, str]:
    """The file of each backbone that does not start from random weights; ``UserError`` names missing ones."""
    found, missing = find_weights(weights, list(dict.fromkeys(params.backbone for params in trials)))
    if missing:
        raise UserError(*missing.values())
    return {name: one.path for name, one in found.items() if one.path is not None}


def render(measured: Sequence[Tutorial], trials: int, epochs: int) -> str:
    """One line for each ``num_workers``; the fastest is marked."""
    best = min(measured, key=lambda one: statistics.fmean(one.epoch_s))
    lines = [
        f"{'num_workers':>11}  {'an epoch':>10}  {'fixed cost':>10}  {trials} trials x {epochs} epochs, two at once"
    ]
    for one in measured:
        epoch_s = statistics.fmean(one.epoch_s)
        total_s = trials * epochs * epoch_s / AT_ONCE
        mark = "  <- counts" if one is best else ""
        lines.append(
            f"{one.num_workers:>11}  {epoch_s:>8.2f} s  {one.fixed_s:>8.2f} s  {total_s:.0f} s + fixed cost{mark}"
        )
    return "\n".join(lines)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
