"""``python impatient_sweep.py ...``: as ``python -m sweep.run``, which takes a cluster for lost after seconds."""

from __future__ import annotations

import runpy

from sweep import cluster

if __name__ == "__main__":
    cluster.LOST_AFTER_S = 4.0
    runpy.run_module("sweep.run", run_name="__main__")
