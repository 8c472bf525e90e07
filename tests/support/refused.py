"""Commands that are refused: what they say, and what they leave behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SMALL = ("--weights", "random", "--backbones", "squeezenet1_1", "--image-size", "32", "--trials", "1", "--epochs", "1")


class Answer(NamedTuple):
    """problems: each without its "error: ". left: new files in the storage but for an image cache that is whole."""

    code: int
    problems: list[str]
    left: list[str]


Asked = Callable[..., Answer]


def expect(answer: Answer, *phrases: str | tuple[str, ...]) -> None:
    """Exactly these problems, in this order; each a phrase, or several that stand in it."""
    assert answer.code == 2
    assert len(answer.problems) == len(phrases), answer.problems
    for problem, phrase in zip(answer.problems, phrases, strict=True):
        for part in (phrase,) if isinstance(phrase, str) else phrase:
            assert part in problem
    assert answer.left == []


def draw(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(int.from_bytes(hashlib.sha256(str(path).encode()).digest()[:8], "big"))
    Image.fromarray(np.clip(chance.normal(level, 40, (32, 32)), 0, 255).astype(np.uint8)).save(path)


def files_below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*")] if folder.is_dir() else []
