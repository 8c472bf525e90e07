"""The trials as Ray Tune runs them: resources, the stopping rule, and the callback that writes down what happens."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Ray reads these when it is imported. Its tables and its own loggers are for people who watch Ray; ours are in the
# run folder, and the snapshot that they would slow down is not what a sweep is resumed from.
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_GLOBAL_CHECKPOINT_S="600",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)

import ray
from ray import tune
from ray.exceptions import AuthenticationError, RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_spaces.params import TrialParams
from search_spaces.problems import UserError
from sweep.address import silence_at
from sweep.ledger import Entry, Ledger, trial_id
from sweep.plan import Plan
from sweep.progress import Progress
from sweep.provenance import Machine
from sweep.search import StudySearcher
from sweep.stopping import Stopping
from trainables.settings import TrialSettings
from trainables.trainable import FinetuneTrainable
from trainables.trial import predict_best

RESTARTS_AFTER_LOST_WORKER = 3
DIED = "its process died without a word: killed, or out of memory"
NODE_ANSWERS_WITHIN_S = 60.0
OBJECT_STORE_BYTES = 200_000_000  # Images go through memory-mapped files: Ray has next to nothing to carry.


@dataclass(frozen=True)
class Outcome:
    """Why ``run_trials`` returned, where it was not because all was done."""

    interrupted: bool
    out_of_time: bool


def connect(address: str, cpus: int | None = None) -> Machine:
    """Start Ray on this machine (``address`` "local"), or join the cluster at ``address``; what it has to offer.

    cpus: how many to use of this machine. Raises ``UserError`` if there is no cluster at ``address``.
    """
    if address != "local":
        if silence := silence_at(address):
            raise UserError(_no_cluster(address, silence))
        # What answers may be no Ray: one attempt takes it half a minute, and it would make twenty.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    local = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(
            address=address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            **(local if address == "local" else {}),
        )
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        if address == "local":
            raise UserError(f"Ray cannot be started on this machine: {error}") from error
        raise UserError(_no_cluster(address, str(error))) from None
    resources = ray.cluster_resources()
    names = tuple(key.removeprefix("accelerator_type:") for key in resources if key.startswith("accelerator_type:"))
    return Machine(
        cpus=int(resources.get("CPU", 0)), gpus=int(resources.get("GPU", 0)), gpu_names=names, nodes=len(ray.nodes())
    )


def _no_cluster(address: str, why: str) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({why}); start one by `ray start --head` or "
        "`ray up cluster.yaml`, with RAY_AUTH_MODE=token on every host, or leave --address out"
    )


def on_every_node(function: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Call an importable ``function`` on each node that has CPUs; the nodes' names with the results, or exceptions."""
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = [
        (
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                *arguments
            ),
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    answers: list[tuple[str, Any]] = []
    for name, answer in asked:
        try:
            answers.append((name, ray.get(answer, timeout=NODE_ANSWERS_WITHIN_S)))
        except RayError as error:
            answers.append((name, error))
    return answers


def log_to(path: Path) -> None:
    """Send what Ray and Optuna have to say into the file ``path``, away from the screen."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("ray", "optuna", "sweep"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO if name == "sweep" else logging.WARNING)
        logger.propagate = False
    # What its nodes say of dead workers, a paragraph each, Ray prints from a thread whatever its options are.
    ray._private.worker.print_to_stdstream = _logged


def _logged(message: dict[str, Any], **_: Any) -> None:
    logging.getLogger("ray").warning("%s: %s", message["pid"], "\n".join(message["lines"]))


def run_trials(
    plan: Plan,
    ledger: Ledger,
    searcher: StudySearcher,
    stopping: Stopping,
    progress: Progress,
    trainable: type[tune.Trainable] = FinetuneTrainable,
    reuse_actors: bool = True,
) -> Outcome:
    """Run trials until all of the plan have begun and ended, the space is exhausted, the time is up, or Ctrl-C.

    What is unfinished then stays "running" in the ledger, and a resumed sweep goes on with it. trainable: reports an
    epoch a step, as ``FinetuneTrainable`` has it. reuse_actors: trials follow each other in the same processes.
    """
    remaining = len(ledger.unfinished()) + max(0, plan.trials - len(ledger.entries))
    if not remaining:
        return Outcome(interrupted=False, out_of_time=False)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.concurrency)
    stopper = TimeBudget(plan.config.time_budget)
    tuner = tune.Tuner(
        tune.with_resources(trainable, plan.resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=RuleScheduler(stopping, ledger, plan.concurrency if plan.config.deterministic else None),
            num_samples=remaining,
            reuse_actors=reuse_actors,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=time.strftime("session-%Y%m%d-%H%M%S"),
            storage_path=str(ledger.paths.tune.absolute()),
            callbacks=[LedgerCallback(ledger, progress)],
            failure_config=tune.FailureConfig(max_failures=RESTARTS_AFTER_LOST_WORKER),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            stop=stopper,
            verbose=0,
        ),
    )
    with _sigterm_as_ctrl_c():
        tuner.fit()
    # Between two trials none is unfinished, and still the sweep may have been interrupted.
    done = not ledger.unfinished() and (searcher.exhausted or len(ledger.entries) >= plan.trials)
    out_of_time = not done and stopper.stop_all()
    return Outcome(interrupted=not done and not out_of_time, out_of_time=out_of_time)


def predict_kept(plan: Plan, ledger: Ledger, settings: TrialSettings) -> list[str]:
    """Predict the training split, too, with the kept weights of each ended trial that lacks it.

    Beside each other, as the trials ran; returns what failed, one sentence each.
    """
    entries = [entry for entry in ledger.entries.values() if entry.ended and ledger.files(entry).weights.exists()]
    predict = ray.remote(
        num_cpus=plan.resources["cpu"], num_gpus=plan.resources["gpu"], max_retries=RESTARTS_AFTER_LOST_WORKER
    )(_predict)
    tasks = [
        (entry, predict.remote(entry.params, settings, entry.number, ledger.files(entry).weights.absolute()))
        for entry in entries
    ]
    problems = []
    for entry, task in tasks:
        try:
            ray.get(task)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            problems.append(f"{entry.trial_id} could not be predicted on the training split: {reason}")
    return problems


def _predict(params: TrialParams, settings: TrialSettings, number: int, weights: Path) -> None:
    predict_best(params, settings, number, weights)


class RuleScheduler(FIFOScheduler):
    """Asks the stopping rule after every epoch. It keeps nothing: the rungs are what the ledger has written down."""

    def __init__(self, stopping: Stopping, ledger: Ledger, lag: int | None) -> None:
        super().__init__()
        self._stopping = stopping
        self._ledger = ledger
        self._lag = lag

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = _number_of(trial)
        self._ledger.report(number, result["epoch"], result["score"], result["record"])
        entries = self._ledger.entries
        peers = entries.keys() if self._lag is None else [k for k in entries if k <= number - self._lag]
        reason = self._stopping.reason_to_stop(self._ledger, number, result["epoch"], peers)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self._ledger.entries[number].reason = reason
        return str(TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerCallback(tune.Callback):
    """Writes every result and every end into the ledger, and shows them."""

    def __init__(self, ledger: Ledger, progress: Progress) -> None:
        self._ledger = ledger
        self._progress = progress

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        entry = self._entry(trial)
        self._progress.trial_started(entry.trial_id, entry.number, entry.params.summary())

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        entry = self._entry(trial)
        self._ledger.report(entry.number, result["epoch"], result["score"], result["record"])
        best = self._ledger.best_score(entry)
        self._progress.epoch(entry.trial_id, entry.number, result["epoch"], result["score"], best)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        entry = self._entry(trial)
        end = trial.last_result.get("end")
        if end in ("budget", "plateau"):
            self._end(entry, "finished", trial.last_result.get("reason", ""))
        elif end is not None:
            self._end(entry, "failed", trial.last_result.get("reason", end))
        else:
            self._end(entry, "stopped", entry.reason)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = self._entry(trial).trial_id
        self._progress.message(f"trial {name} lost its worker ({_reason_of(trial)}): started again where it was")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(self._entry(trial), "failed", _reason_of(trial))

    def _end(self, entry: Entry, status: str, reason: str) -> None:
        self._ledger.end(entry.number, status, reason)
        self._progress.trial_ended(entry.trial_id, entry.number, status, reason, self._ledger.best_score(entry))

    def _entry(self, trial: Trial) -> Entry:
        return self._ledger.entries[_number_of(trial)]

    def __getstate__(self) -> dict[str, Any]:
        return {}


class TimeBudget(tune.Stopper):
    """Ends the sweep, not the trials: what runs when the time is up stays unfinished and can be resumed."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def _reason_of(trial: Trial) -> str:
    lines = str(trial.get_error() or trial.get_pickled_error() or DIED).strip().splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), DIED)


def _name_of(trial: Trial) -> str:
    return trial_id(_number_of(trial))


def _number_of(trial: Trial) -> int:
    return int(trial.config["number"])


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, as a scheduler or a shutdown sends it, ends ``fit`` as cleanly as Ctrl-C (Ray listens to SIGUSR1)."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
