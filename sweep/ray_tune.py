"""The trials as Ray Tune runs them: a cluster to run on, the run of the trials, and what is done with their weights."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_spaces.errors import UserError
from sweep.address import silence_at
from sweep.callbacks import HistoryCallback, TimeBudget, TuneScheduler, name_of
from sweep.estimate import Machine
from sweep.history import TrialHistory
from sweep.plan import Plan
from sweep.progress import Progress
from sweep.pruning import PruningRule
from sweep.tune_searcher import TuneSearcher
from trainables.ray_trainable import FinetuneTrainable

RESTARTS_AFTER_LOST_WORKER = 3
NODE_ANSWERS_WITHIN_S = 60.0
OBJECT_STORE_BYTES = 200_000_000  # Images go through memory-mapped files: Ray has next to nothing to carry.


@dataclass(frozen=True)
class Outcome:
    """Why ``run_trials`` returned, where it was not because all was done."""

    interrupted: bool
    out_of_time: bool

    def then(self, after: Outcome) -> Outcome:
        """Of this and what came after it."""
        return Outcome(self.interrupted or after.interrupted, self.out_of_time or after.out_of_time)


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
    history: TrialHistory,
    searcher: TuneSearcher,
    stopping: PruningRule,
    progress: Progress,
    budget: TimeBudget,
    *,
    trials: int,
    trainable: type[tune.Trainable] = FinetuneTrainable,
    reuse_actors: bool = True,
) -> Outcome:
    """Run trials until ``trials`` in all have begun and ended, nothing new is left, the time is up, or Ctrl-C.

    What is unfinished then stays "running" in the history, and a resumed sweep goes on with it. trainable: reports an
    epoch a step, as ``FinetuneTrainable`` has it. reuse_actors: trials follow each other in the same processes.
    """
    remaining = len(history.unfinished()) + max(0, trials - len(history.entries))
    if not remaining:
        return Outcome(interrupted=False, out_of_time=False)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.concurrency)
    tuner = tune.Tuner(
        tune.with_resources(trainable, plan.resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=TuneScheduler(stopping, history, plan.concurrency if plan.config.deterministic else None),
            num_samples=remaining,
            reuse_actors=reuse_actors,
            trial_name_creator=name_of,
            trial_dirname_creator=name_of,
        ),
        run_config=tune.RunConfig(
            name=time.strftime("session-%Y%m%d-%H%M%S"),
            storage_path=str(history.paths.tune.absolute()),
            callbacks=[HistoryCallback(history, progress)],
            failure_config=tune.FailureConfig(max_failures=RESTARTS_AFTER_LOST_WORKER),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            stop=budget,
            verbose=0,
        ),
    )
    with _sigterm_as_ctrl_c():
        tuner.fit()
    # Between two trials none is unfinished, and still the sweep may have been interrupted.
    done = not history.unfinished() and (searcher.exhausted or len(history.entries) >= trials)
    out_of_time = not done and budget.stop_all()
    return Outcome(interrupted=not done and not out_of_time, out_of_time=out_of_time)


def run_tasks(plan: Plan, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call an importable ``function`` with each of ``arguments``, where and beside each other as the trials ran.

    The results in order; an exception where a call ended in one.
    """
    task = ray.remote(
        num_cpus=plan.resources["cpu"], num_gpus=plan.resources["gpu"], max_retries=RESTARTS_AFTER_LOST_WORKER
    )(function)
    results: list[Any] = []
    for answer in [task.remote(*one) for one in arguments]:
        try:
            results.append(ray.get(answer))
        except Exception as error:
            results.append(error)
    return results


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM, as a scheduler or a shutdown sends it, ends ``fit`` as cleanly as Ctrl-C (Ray listens to SIGUSR1)."""
    before = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
