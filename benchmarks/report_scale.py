"""Time and memory of the report of a thousand trials: at most 30 s and 1 GB.

The run folder is generated as a sweep of so many trials leaves it: three classes, 20 epochs, 3 finalists x 3 repeats,
and ``IMAGES`` images each in validation and test. Its report is built in its own process.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.own_process import answer_of
from benchmarks.table import Row

TRIALS, EPOCHS = 1000, 20
IMAGES = (169, 1500)
LIMIT_S, LIMIT_MB = 30.0, 1000.0


def measure(quick: bool) -> list[Row]:
    from tests.support.run_files import write

    trials, sizes = (20, IMAGES[:1]) if quick else (TRIALS, IMAGES)
    rows = []
    for images in sizes:
        with tempfile.TemporaryDirectory() as folder:
            splits = {"train": 5 * images, "val": images, "test": images}
            classes = ("covid", "normal", "viral")
            root = write(
                Path(folder) / "run", trials=trials, epochs=EPOCHS, classes=classes, labels_per_split=splits, finals={}
            )
            seconds, megabytes = answer_of("benchmarks.report_scale", root)
        name = f"report of {trials:,} trials, {images:,} test images"
        rows += [Row(name, seconds, "s", LIMIT_S), Row(f"{name}: peak memory", megabytes, "MB", LIMIT_MB)]
    return rows


def cost(run: Path) -> tuple[float, float]:
    """Seconds that the report of ``run`` takes, including imports, and the peak memory of this process in MB."""
    began = time.monotonic()
    from reports.build import build

    build(run)
    return time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(cost(Path(sys.argv[1]))))
