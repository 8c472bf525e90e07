"""Correctness, speed and the studies' ResNet-18 rows on a GPU, where Ray, Optuna and pydantic need not be installed.

    python -m benchmarks.gpu --part tests|speed|study --data FOLDER --weights FOLDER|random
                             [--device cuda|cpu] [--seconds 210] [--only TEXT] [--quick]

FOLDER holds train, val and test, each with one folder per class. Prints one line of JSON for the machine and one after
each row. --quick: tiny sizes, to see that it works; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import gpu_checks, gpu_speed, gpu_study
from benchmarks.gpu_session import QUICK_FILES, Session, decode_folder, machine, print_row
from search_spaces.errors import UserError

PARTS: dict[str, Callable[[Session], None]] = {
    "tests": gpu_checks.measure,
    "speed": gpu_speed.measure,
    "study": gpu_study.measure,
}
IMAGE_SIZE, QUICK_IMAGE_SIZE = 224, 32


def main() -> None:
    began_s = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of images: split/class/file")
    parser.add_argument("--weights", required=True, help="a folder of weight files, or random")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=210.0, help="no row is begun that would end later")
    parser.add_argument("--only", default="", help="of tests and speed, the rows whose name holds this text")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no GPU here: give --device cpu")
    print_row(machine(device) | {"part": arguments.part, "quick": arguments.quick})
    with tempfile.TemporaryDirectory() as folder:
        size, files = (QUICK_IMAGE_SIZE, QUICK_FILES) if arguments.quick else (IMAGE_SIZE, None)
        try:
            images = decode_folder(arguments.data, Path(folder) / "images.npy", size, files)
        except UserError as error:
            sys.exit(str(error))
        weights, quick, seconds = arguments.weights, arguments.quick, arguments.seconds
        session = Session(Path(folder), images, device, weights, quick, began_s, seconds, arguments.only)
        PARTS[arguments.part](session)


if __name__ == "__main__":
    main()
