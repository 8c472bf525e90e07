"""Every file name of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The files of one run; ``root`` is ``<storage>/<name>``."""

    root: Path

    @property
    def sweep(self) -> Path:
        return self.root / "sweep.json"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def space(self) -> Path:
        """A copy of the user's own space file."""
        return self.root / "space.py"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset.json"

    @property
    def splits(self) -> Path:
        return self.root / "splits.csv"

    @property
    def thumbnails(self) -> Path:
        return self.root / "thumbnails.npz"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the sweep."""
        return self.root / ".lock"

    @property
    def log(self) -> Path:
        return self.root / "ray.log"

    @property
    def tune(self) -> Path:
        return self.root / "tune"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def trials_table(self) -> Path:
        return self.root / "trials.parquet"

    @property
    def epochs_table(self) -> Path:
        return self.root / "epochs.parquet"

    @property
    def study(self) -> Path:
        return self.root / "study.db"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def finalists(self) -> Path:
        return self.root / "finalists"

    @property
    def chosen(self) -> Path:
        """Which configurations are repeated, and how often."""
        return self.finalists / "finalists.json"

    @property
    def selection(self) -> Path:
        """The winner, fixed on validation before the test split is opened."""
        return self.finalists / "selection.json"

    @property
    def test_access(self) -> Path:
        """One line for each time that the test split was opened."""
        return self.finalists / "test_access.jsonl"

    @property
    def baselines(self) -> Path:
        """What simple methods reach on the same split: baselines.json and their predictions."""
        return self.root / "baselines"

    @property
    def baselines_table(self) -> Path:
        return self.baselines / "baselines.json"

    @property
    def models(self) -> Path:
        """The model to use: best.pt, best.onnx and a card."""
        return self.root / "models"

    def trial(self, trial_id: str) -> TrialPaths:
        return TrialPaths(self.trials / trial_id)

    def trial_folders(self) -> list[Path]:
        return sorted(entry for entry in self.trials.glob("*") if entry.is_dir())

    def repeat(self, trial_id: str) -> TrialPaths:
        """One repeat of a finalist; trial_id: such as "t0007/seed_1001"."""
        return TrialPaths(self.finalists / trial_id)

    def repeat_folders(self) -> list[Path]:
        kinds = ("*/seed_*", "*/fold_*")
        return sorted(entry for kind in kinds for entry in self.finalists.glob(kind) if entry.is_dir())

    def fold(self, fold: int) -> Path:
        """The split of one fold, counted from 1, in the form of splits.csv."""
        return self.finalists / "folds" / f"fold_{fold}.csv"


@dataclass(frozen=True)
class TrialPaths:
    """The files of one trial."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.json"

    @property
    def result(self) -> Path:
        return self.root / "result.jsonl"

    @property
    def status(self) -> Path:
        return self.root / "status.json"

    @property
    def error(self) -> Path:
        return self.root / "error.txt"

    @property
    def state(self) -> Path:
        """What an unfinished trial goes on from; removed when it ends."""
        return self.root / "state.pt"

    @property
    def stacks(self) -> Path:
        """Where a trial hung when the watchdog ended it."""
        return self.root / "stacks.txt"

    @property
    def weights(self) -> Path:
        return self.root / "best" / "weights.pt"

    @property
    def predictions(self) -> Path:
        return self.root / "best" / "predictions.npz"
