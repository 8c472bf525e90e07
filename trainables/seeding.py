"""Random numbers: for each trial, one seed or stream per purpose."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

PURPOSES = ("weights", "shuffling", "augmentation", "dropout")


class Randomness:
    """The random streams of one trial, independent of each other, of other trials and of the process.

    seed: of the sweep, >= 0; number: of the trial, >= 0. ``shuffling`` and ``augmentation`` are generators on the
    CPU, ``weights_seed`` seeds a new head or network. Dropout and stochastic depth can only draw from torch's global
    generators: ``for_dropout`` sets this trial's state in them and restores theirs afterwards.
    """

    def __init__(self, seed: int, number: int, device: torch.device) -> None:
        words = np.random.SeedSequence([seed, number]).generate_state(len(PURPOSES), dtype=np.uint32)
        seeds = dict(zip(PURPOSES, words.tolist(), strict=True))
        self.weights_seed: int = seeds["weights"]
        self.shuffling = torch.Generator().manual_seed(seeds["shuffling"])
        self.augmentation = torch.Generator().manual_seed(seeds["augmentation"])
        self._device = device
        self._dropout = {"cpu": torch.Generator().manual_seed(seeds["dropout"]).get_state()}
        if device.type == "cuda":
            self._dropout["cuda"] = torch.Generator(device).manual_seed(seeds["dropout"]).get_state()

    @contextmanager
    def for_dropout(self) -> Iterator[None]:
        """Run with this trial's state in torch's global generators, and keep their state at the end."""
        on_cuda = self._device.type == "cuda"
        with torch.random.fork_rng(devices=[self._device] if on_cuda else []):
            torch.set_rng_state(self._dropout["cpu"])
            if on_cuda:
                torch.cuda.set_rng_state(self._dropout["cuda"], self._device)
            yield
            self._dropout["cpu"] = torch.get_rng_state()
            if on_cuda:
                self._dropout["cuda"] = torch.cuda.get_rng_state(self._device)

    def state_dict(self) -> dict[str, Tensor]:
        """The state of every stream, uint8 tensors on the CPU."""
        generators = {"shuffling": self.shuffling.get_state(), "augmentation": self.augmentation.get_state()}
        return generators | {f"dropout_{name}": state for name, state in self._dropout.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict()``; in a trial that moves between CPU and GPU, dropout's stream starts anew."""
        self.shuffling.set_state(state["shuffling"])
        self.augmentation.set_state(state["augmentation"])
        self._dropout |= {name: state[f"dropout_{name}"] for name in self._dropout if f"dropout_{name}" in state}


def trunk_seed(seed: int, backbone: str) -> int:
    """The seed of a backbone's random weights: one for all trials of a sweep with this seed, which share them."""
    return int(np.random.SeedSequence([seed, *backbone.encode()]).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within ``with seeded(seed):`` torch's CPU random numbers follow from ``seed``; then the old state is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well.
        yield


def set_determinism(deterministic: bool) -> None:
    """Choose torch's deterministic algorithms, or any, for this process; cuDNN takes those it expects to be fastest.

    Only ``train_epoch`` lets it measure them, if that pays.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Read when cuBLAS starts, at the first product.
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = False
