"""A trial as a Ray trainable: one ``step()`` is one epoch, and errors stay inside the trial.

The state to continue from is in the trial's own folder, written after every epoch, before the epoch is reported. A
trial that is started again, by Ray after a lost node or by ``--resume`` after a lost driver, finds it there, reports
its last epoch once more and continues: no epoch is trained twice. (Ray's own checkpoints would have to agree with its
snapshot of the experiment, taken every few seconds; this state does not depend on it.)
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import faulthandler
import gc
import json
import math
import os
import traceback
from pathlib import Path
from typing import IO, Any

import torch
from ray import cloudpickle, tune

from search_spaces.params import TrialParams
from trainables import FULL_COLLECTION
from trainables.atomic import denied_below, disk_error, write_text
from trainables.checkpoints import read_checkpoint, write_checkpoint
from trainables.trial import FinetuneTrial, TrialSettings

HANG_GRACE_S = 5.0
OWN_PART = 0.5
"""Part of a trial's share of a GPU: if memory runs out before the trial holds that much, others hold it."""


class FinetuneTrainable(tune.Trainable):
    """Fine-tune one network, one epoch per step.

    config: ``params`` (flat dict of ``TrialParams``), ``settings`` (dict of ``TrialSettings``), ``stream`` (of its
    random numbers, >= 0) and ``files``: the paths ``state``, ``result`` (the driver's), ``weights``, ``predictions``,
    ``error``, ``stacks``. Or ``call``: a pickled function and its arguments, called in the only step, for work in a
    process that has torch and the data at hand.
    A result holds ``epoch`` (from 1), ``score`` (the selection metric, NaN if undefined), ``record`` (the epoch's
    record as JSON text), ``begun_again`` (once: why the trial could not continue from an earlier process's state),
    ``note`` (the trial's), ``gpu`` (that Ray assigned, or "") and, when the trial ends by itself, ``done=True``,
    ``end`` ("budget", "plateau", "nan" or "error") and ``reason``. If only a disk stops a trial or a call:
    ``done=True`` and ``disk``, the errno and the path that could not be written.
    """

    _trial: FinetuneTrial | None
    _last: dict[str, Any]

    def setup(self, config: dict[str, Any]) -> None:
        # Imported objects are never freed; without this, each collection would scan them for a fifth of a second.
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION)
        atexit.register(gc.unfreeze)  # torch's libraries report objects that are left at exit as leaked.
        self._begin(config)

    def step(self) -> dict[str, Any]:
        if self._call is not None:
            result, self._poisoned = _called(self._call)
            return result
        try:
            self._watch()
            if self._trial is None:
                self._trial = self._open()
                if self._last:
                    return self._result(self._last)
            record = self._trial.run_epoch()
            best = self._trial.tracker.best_epoch
            if self._saved_epoch > best:  # That epoch has run again, and is not the best any more.
                self._trial = self._begin_again(self._trial, f"the weights of epoch {best} are lost")
                record = self._trial.run_epoch()
            self._last = record
            self._keep(self._trial)
            return self._result(record)
        except Exception as error:
            return self._failed(error)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process: the old network is freed before the new one is built."""
        if self._poisoned:
            os._exit(1)  # After a device error, every later call in the same CUDA context fails with it.
        self.cleanup()
        if self._poisoned:
            os._exit(1)
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._trial = None
        self._last = {}
        self._begun_again = ""
        self._saved_epoch = 0
        self._poisoned = False
        self._stacks: IO[str] | None = None
        self._call: bytes | None = config.get("call")
        if self._call is not None:
            return
        self._params = TrialParams.from_flat(config["params"])
        self._settings = TrialSettings(**config["settings"])
        self._stream = int(config["stream"])
        self._files = {name: Path(path) for name, path in config["files"].items()}
        if self._settings.use_gpu and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats()

    def _open(self) -> FinetuneTrial:
        stacks = self._files["stacks"]
        if stacks.exists() and (text := stacks.read_text(errors="replace").strip()):
            # The watchdog ended the process of an earlier attempt: another attempt would hang as long.
            raise TimeoutError(f"hung past its time limit of {self._settings.time_limit_s} s\n{text}")
        trial = FinetuneTrial(self._params, self._settings, self._stream)
        reported = _epochs_in(self._files["result"]) if "result" in self._files else None
        if not (reported or self._files["state"].exists()):
            return trial
        try:
            state = read_checkpoint(self._files["state"], ours=True)
            trial.load_state_dict(state["trial"])
            if reported is not None and (lost := {*range(1, trial.tracker.epoch)} - reported):
                raise ValueError(f"{self._files['result']} lacks epoch {min(lost)}")
            if trial.tracker.best_epoch:
                self._saved_epoch = trial.saved_epoch(self._files["weights"])
            self._last = state["last"]
        except Exception as error:  # a damaged file may raise any error
            if _passes(error) or _passes(error.__cause__):
                raise
            return self._begin_again(trial, _reason(error))
        return trial

    def _begin_again(self, trial: FinetuneTrial, why: str) -> FinetuneTrial:
        trial.close()
        self._saved_epoch = 0
        self._begun_again = f"its saved state is damaged or lost ({why})"
        return FinetuneTrial(self._params, self._settings, self._stream)

    def _keep(self, trial: FinetuneTrial) -> None:
        if trial.tracker.improved:
            trial.save_best(self._files["weights"], self._files["predictions"])
        state = {"trial": trial.state_dict(), "last": self._last}
        write_checkpoint(self._files["state"], state)

    def _result(self, record: dict[str, Any]) -> dict[str, Any]:
        score = record.get(self._settings.metric)
        result = {
            "epoch": record["epoch"],
            "score": math.nan if score is None else float(score),
            "record": json.dumps({key: _finite(value) for key, value in record.items()}, allow_nan=False),
            "done": bool(record.get("done")),
            "gpu": self._gpu,
        }
        note = "" if self._trial is None else self._trial.note
        result["begun_again"], self._begun_again = self._begun_again, ""
        return result | {"note": note} | {key: record[key] for key in ("end", "reason") if key in record}

    def _failed(self, error: Exception) -> dict[str, Any]:
        folder = self._files["state"].parent
        disk = disk_error(error) or denied_below(folder, error)
        if disk is None:
            try:
                write_text(self._files["error"], traceback.format_exc())
            except OSError as untold:
                disk = disk_error(untold) or denied_below(folder, untold)
        self._poisoned = self._settings.use_gpu and _is_of_device(error)
        reason = _reason(error)
        if isinstance(error, torch.OutOfMemoryError) and self._settings.use_gpu:
            own_bytes = self._settings.gpu_share * torch.cuda.mem_get_info()[1]
            if torch.cuda.max_memory_reserved() < OWN_PART * own_bytes:
                reason = "other processes use the memory of its GPU"
        self.cleanup()
        return _broken_off(reason, disk) | {"epoch": int(self._last.get("epoch", 0)), "gpu": self._gpu}

    @property
    def _gpu(self) -> str:
        """The GPU that Ray assigned to this process, by the machine's numbering; "" without one."""
        return os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._settings.use_gpu else ""

    def _watch(self) -> None:
        """Arm a watchdog that does not need the interpreter: it writes where the trial hangs and ends the process.

        FinetuneTrial itself raises between two batches; the watchdog is for a batch that never ends.
        """
        limit = self._settings.time_limit_s
        if limit is None:
            return
        if self._stacks is None:
            self._stacks = self._files["stacks"].open("a", encoding="utf-8")
        spent = self._trial.seconds if self._trial is not None else 0.0
        faulthandler.dump_traceback_later(max(limit - spent, 0.0) + HANG_GRACE_S, exit=True, file=self._stacks)

    def cleanup(self) -> None:
        if self._stacks is not None:
            self._stacks.close()
            self._stacks = None
        trial, self._trial = self._trial, None
        try:
            if trial is not None:
                trial.close()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError:  # After a GPU error, every later call fails with it.
            self._poisoned = True


def _epochs_in(path: Path) -> set[int]:
    """The epochs that the driver has recorded in a result.jsonl."""
    found: set[int] = set()
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
            found.add(json.loads(line)["epoch"])
    return found


def _called(pickled: bytes) -> tuple[dict[str, Any], bool]:
    """The result of a pickled call, and whether its error makes the process unusable."""
    try:
        function, arguments = cloudpickle.loads(pickled)
        function(*arguments)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # The last line of a CUDA error is advice for those who build torch.
        line = lines[0 if isinstance(error, RuntimeError) else -1]
        return _broken_off(line, disk_error(error)), torch.cuda.is_available() and _is_of_device(error)
    return {"epoch": 0, "score": math.nan, "record": "", "done": True, "end": "budget"}, False


def _is_of_device(error: Exception) -> bool:
    """Whether it may be a GPU error, after which the GPU cannot be used in this process."""
    return isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)


def _passes(error: BaseException | None) -> bool:
    """Whether a file that could not be read may still be intact: memory ran out, or a disk or a GPU did not answer."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL, errno.ENOENT)
    lacking = "can't allocate memory" in str(error) or "_STATUS_ALLOC_FAILED" in str(error)  # cuBLAS's and cuDNN's
    return lacking or isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError)


def _broken_off(reason: str, disk: OSError | None) -> dict[str, Any]:
    result: dict[str, Any] = {"epoch": 0, "score": math.nan, "record": "", "done": True}
    if disk is None:
        return result | {"end": "error", "reason": reason}
    return result | {"disk": [disk.errno, disk.filename]}


def _reason(error: Exception) -> str:
    """One line: an error's type and message; every out-of-memory error begins alike, whatever raised it."""
    text = f"{type(error).__name__}: {error}".strip().splitlines()[0].removesuffix(":")
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text
    return f"out of memory: {text}" if memory else text


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
