"""``python held_sweep.py ...``: as ``python -m sweep.run``, with trials that wait at the end of their second epoch.

So a test has all the time that it needs while they run, however fast the machine is. $HELD: a pattern of the folders of
those that wait, such as "trials/t000[1-9]". $LET_GO: the file that they wait for.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any

from sweep.endings import leave_with


def main() -> int:
    # Imported here, as the command itself does it: what they leave to be done at exit comes after ``leave_with``.
    from sweep import ray_tune, run
    from trainables.ray_trainable import FinetuneTrainable

    held, let_go = os.environ["HELD"], Path(os.environ["LET_GO"])

    class Held(FinetuneTrainable):
        def _keep(self, trial: Any) -> None:
            if self._last["epoch"] == 2 and self._files["state"].parent.match(held):
                while not let_go.exists():
                    time.sleep(0.01)
            super()._keep(trial)

    ray_tune.run_trials = functools.partial(ray_tune.run_trials, trainable=Held)  # type: ignore[assignment]
    return run.main()


if __name__ == "__main__":
    leave_with(main)
