"""A driver that dies in mid-sweep as a rebooted machine's does. Arguments: ours, plain or database; folder; cluster."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

TRIALS = 8
KILLED_AFTER = 4


def main(way: str, root: Path, address: str) -> None:
    # A snapshot after every event: what plain Ray loses is then not a matter of how old its last snapshot was.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "0.001"
    import ray
    from toy_trainable import each_worse_than_the_last, toy

    ray.init(address=address, log_to_driver=False)
    sweep = importlib.import_module("our_sweep" if way == "ours" else "plain_ray").sweep
    more = {"database": True} if way == "database" else {}
    sweep(root, toy(each_worse_than_the_last), trials=TRIALS, kill_after=KILLED_AFTER, **more)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
