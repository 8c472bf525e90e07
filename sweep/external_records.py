"""An external evaluation's folder read back. Imports neither torch nor ray."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from search_spaces.errors import UserError
from sweep.model_paths import EvaluationPaths
from trainables.predictions import Predictions, read_predictions


@dataclass(frozen=True)
class Evaluation:
    """facts: evaluation.json. predictions: their one split is "external". rows: rows.csv, of the form of splits.csv,
    every column as text, in the order of the predictions."""

    paths: EvaluationPaths
    facts: dict[str, Any]
    predictions: Predictions
    rows: pd.DataFrame


def read_evaluation(root: Path) -> Evaluation:
    """Read the folder that ``python -m sweep.evaluate`` wrote. Raises ``UserError`` if it is none, or damaged."""
    paths = EvaluationPaths(Path(root))
    if not paths.evaluation.is_file():
        raise UserError(f"{root} is no evaluation: it has no {paths.evaluation.name}")
    try:
        facts = json.loads(paths.evaluation.read_text(encoding="utf-8"))
        predictions = read_predictions(paths.predictions)
        rows = pd.read_csv(paths.rows, dtype=str, keep_default_na=False)
    except Exception as error:  # a damaged file ends in whatever error its first bytes lead to
        raise UserError(f"{root} cannot be read: {error}") from None
    if list(rows["path"]) != predictions.path.tolist():
        raise UserError(f"{root} is damaged: {paths.rows.name} and {paths.predictions.name} name other images")
    return Evaluation(paths, facts, predictions, rows)
