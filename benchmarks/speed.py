"""Speed and memory of the system compared with its limits, on two cores and without a GPU.

    python -m benchmarks.speed [--only demo,cache,overhead,pair,report,scale] [--quick]

Each ratio is of two measurements of the same run. Nothing else should be running. --quick: a few trials, images and
seconds, to see that the benchmarks work; its numbers mean nothing. Ends with code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import datetime

from benchmarks import cache_memory, data_scale, demo_sweep, report_scale, side_by_side, trial_overhead
from benchmarks.table import Row, render
from sweep.machine import available_cpus

CORES = 2
BENCHMARKS: dict[str, Callable[[bool], list[Row]]] = {
    "demo": demo_sweep.measure,
    "cache": cache_memory.measure,
    "overhead": trial_overhead.measure,
    "pair": side_by_side.measure,
    "report": report_scale.measure,
    "scale": data_scale.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, default=tuple(BENCHMARKS), help=f"some of {','.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    arguments = parser.parse_args()
    use_two_cores()
    load = os.getloadavg()[0]
    print(f"{datetime.now():%Y-%m-%d %H:%M}, {available_cpus()} cores, load before it began {load:.1f}", flush=True)
    rows = []
    for name in arguments.only:
        print(f"measuring: {name} ...", file=sys.stderr, flush=True)
        rows += BENCHMARKS[name](arguments.quick)
    print(render(rows))
    return int(any(row.verdict not in ("", "ok") for row in rows))


def use_two_cores() -> None:
    """Restrict this process and its children to two cores and no GPU, as the limits assume."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in BENCHMARKS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(BENCHMARKS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
