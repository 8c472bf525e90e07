"""The file names of ``models/`` and of an external evaluation, below a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelPaths:
    """The files of the model to use; ``root`` is ``RunPaths.models``."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "best.pt"

    @property
    def onnx(self) -> Path:
        return self.root / "best.onnx"

    @property
    def facts(self) -> Path:
        """What stands in both, and their hashes, for who has no torch."""
        return self.root / "best.json"

    @property
    def card(self) -> Path:
        return self.root / "card.md"


@dataclass(frozen=True)
class EvaluationPaths:
    """The files of one evaluation on other images; ``root`` is ``<run>/external/<name>`` unless the user gave one."""

    root: Path

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation.json"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions.npz"

    @property
    def rows(self) -> Path:
        return self.root / "rows.csv"

    @property
    def page(self) -> Path:
        return self.root / "report.html"

    @property
    def markdown(self) -> Path:
        return self.root / "report.md"
