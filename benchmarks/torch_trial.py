"""A trial that imports torch and ends. Its own module, so that a worker that loads it imports nothing else of ours."""

from __future__ import annotations

from typing import Any

from ray import tune


class TorchTrial(tune.Trainable):
    """One empty epoch, reported as ``FinetuneTrainable`` reports its last epoch."""

    def setup(self, config: dict[str, Any]) -> None:
        import torch

        self._score = float(torch.tensor(int(config["number"])))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        record = f'{{"epoch": 1, "val_f1_macro": {self._score}}}'
        result = {"epoch": 1, "score": self._score, "record": record}
        return result | {"done": True, "end": "budget", "reason": "nothing to train"}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        pass

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        pass
