"""What tests of whole commands need."""

from __future__ import annotations

from pathlib import Path

import pytest
from refused import Answer, Asked, draw, files_below

from sweep.run import main


@pytest.fixture
def asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    """Runs a command that must not reach its first trial; what it said, and what it left in the storage.

    A decoded store may stay if it is whole: the next command on the same images finds it.
    """
    storage = tmp_path / "storage"

    def ask(*arguments: object, storage: Path = storage) -> Answer:
        before = files_below(storage)
        code = main([*map(str, arguments), "--storage", str(storage)])
        said = capsys.readouterr().err
        left = [name for name in files_below(storage) if name not in before]
        whole = {name.removesuffix(".json") for name in left if name.endswith(".json")}
        kept = [name for name in left if name.startswith(".image_cache") and name.rpartition(".")[0] in {*whole, ""}]
        return Answer(code, said.removeprefix("error: ").rstrip().split("\nerror: "), sorted(set(left) - set(kept)))

    return ask


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes, 12 training images and 6 to validate on."""
    root = tmp_path / "images"
    for split, count in (("train", 6), ("val", 3)):
        for level, name in ((80, "dark"), (160, "bright")):
            for number in range(count):
                draw(root / split / name / f"{name}{number}.png", level)
    return root
