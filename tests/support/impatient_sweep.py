"""``python impatient_sweep.py ...``: as ``held_sweep.py``, and it takes a cluster for lost after seconds."""

from __future__ import annotations

from held_sweep import main

from sweep.endings import leave_with


def impatient() -> int:
    from sweep import cluster

    cluster.LOST_AFTER_S = 4.0
    return main()


if __name__ == "__main__":
    leave_with(impatient)
