"""Trees of folders that are built, and listed as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_spaces.errors import UserError
from trainables.data.config import DataConfig
from trainables.data.folder import list_folder
from trainables.data.samples import Samples


def listed(root: Path, **options: Any) -> Samples:
    return list_folder(root, DataConfig.model_validate({"data": str(root), **options}))


def make(root: Path, *paths: str) -> Path:
    """Empty files; ``a/#.png`` stands for a/1.png and a/2.png, and a path that ends in / for a folder. In a path of
    several words, ``train|test/x y/#.png`` stands for each combination.
    """
    for path in paths:
        *folders, name = path.split("/")
        places = [root]
        for choices in folders:
            places = [place / choice for place in places for choice in choices.split("|")]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
            for number in "12" if "#" in name else "1" if name else "":
                (place / name.replace("#", number)).touch()
    return root


def refusal(root: Path, **options: Any) -> str:
    """Why nothing can be trained on it."""
    try:
        samples = listed(root, **options)
    except UserError as error:
        return str(error)
    assert samples.nothing_to_tell, "nothing was refused"
    return samples.nothing_to_tell
