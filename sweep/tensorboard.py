"""Curves for TensorBoard: an event file in each trial's folder, so that ``tensorboard --logdir RUN`` shows them all."""

from __future__ import annotations

import logging
import math
from typing import Any

from tensorboardX import SummaryWriter

from sweep.history import TrialHistory, TrialState

FLUSH_S = 10
_log = logging.getLogger(__name__)


class TensorBoardLog:
    """Writes every number of every epoch as it is reported to ``history``; never read by the sweep.

    A trial that goes on after a kill gets a second event file, which TensorBoard shows as one curve. Trouble with the
    files is logged and ends the writing, not the sweep.
    """

    def __init__(self, history: TrialHistory) -> None:
        self._history = history
        self._writers: dict[int, SummaryWriter] = {}
        self._broken = False
        history.on_report.append(self.epoch)
        history.on_end.append(self.end)

    def epoch(self, state: TrialState, record: dict[str, Any]) -> None:
        """Add one epoch's record: ``train_loss`` as train/loss, ``val_f1:a`` as val/f1/a, the rest under trial/."""
        if self._broken:
            return
        try:
            writer = self._writers.get(state.number)
            if writer is None:
                folder = self._history.files(state).root
                writer = self._writers[state.number] = SummaryWriter(
                    logdir=str(folder),
                    flush_secs=FLUSH_S,
                    filename_suffix=f".from_epoch_{record['epoch']}",  # two files of one second have one name
                )
            for key, value in record.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    writer.add_scalar(_tag(key), value, int(record["epoch"]))
        except Exception as error:
            self._broken = True
            _log.warning("TensorBoard's files cannot be written any more (%s): the sweep goes on without them", error)

    def end(self, state: TrialState) -> None:
        """Close the trial's file."""
        writer = self._writers.pop(state.number, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Close what is still open: trials that were interrupted."""
        for number in list(self._writers):
            self._writers.pop(number).close()


def _tag(key: str) -> str:
    for split in ("train", "val"):
        if key.startswith(f"{split}_"):
            return f"{split}/{key.removeprefix(f'{split}_').replace(':', '/', 1)}"
    return f"trial/{key}"
