"""The Ray cluster that a sweep runs on, possibly only this machine: joining it, its resources, and its loss."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search_spaces.errors import UserError, reason_of
from sweep.disk import is_full, ray_folder
from sweep.endings import CLUSTER_LOST, SweepStopped, say
from sweep.machine import Machine, Node, oom_kills, this_node, trials_at_once

NODE_ANSWERS_WITHIN_S = 60.0
ADDRESS_ANSWERS_WITHIN_S = 5.0
OBJECT_STORE_BYTES = 200_000_000  # Small: images are read from memory-mapped files, not sent through Ray.
ASK_EVERY_S = 2.0
LOST_AFTER_S = 60.0
RAY_WAITS_FOR_HEAD_S = 86_400
"""Longer than it takes to write the report after the head was lost."""
LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
"""Maximum bytes in the path of a Unix socket."""
_SOCKET = "/session_2026-11-28_00-00-00_000000_{}/sockets/plasma_store"
"""A socket's path below Ray's temporary folder; {} is the pid of the sweep."""
SAY_EVERY_S = 60.0
MOST_AT_ONCE = 1000
"""Maximum concurrent trials, however large the cluster."""


def in_use() -> list[str]:
    """Why no sweep can start Ray in this process, one sentence; [] if it can."""
    taken = "Ray is already running in this process: call ray.shutdown() first, or run the sweep in another process"
    return [taken] if ray.is_initialized() else []


def folder_problems() -> list[str]:
    """Why Ray's sockets cannot lie in its temporary folder, one sentence; [] if they can."""
    if len(os.fsencode(ray_folder())) + len(_SOCKET.format(os.getpid())) <= LONGEST_SOCKET:
        return []
    return [f"the path of Ray's temporary folder {ray_folder()} is too long for sockets: set RAY_TMPDIR to /tmp"]


def connect(
    address: str, cpus: int | None = None, wait_for_nodes: int | None = None, gpus: int | None = None
) -> Machine:
    """Start Ray on this machine (``address`` "local"), or join the cluster at ``address``; returns its resources.

    cpus, gpus: how many to use of this machine; None = all that Ray finds (it looks for GPUs with another library than
    torch does, and that library may be missing). wait_for_nodes: wait until so many machines with CPUs have joined.
    Raises ``UserError`` if Ray cannot be started here, or if there is no cluster at ``address``.
    """
    if address != "local":
        if silence := _silence_at(address):
            raise UserError(_no_cluster(address, silence))
        # Something other than Ray may answer: Ray would make twenty attempts of half a minute each.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    # Else Ray ends this process with the head, before ``ClusterWatch`` has reported why and the report is written.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(RAY_WAITS_FOR_HEAD_S))
    # At Ray's default niceness of 15, a trial gets almost no CPU time if anything else runs on the machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    local = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    # If off, the node's address is loopback, and Ray listens only there. _node_ip_address="127.0.0.1" does not do it:
    # Ray replaces it by the address by which others reach the machine.
    constants = ray._private.ray_constants
    clusters = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = clusters and address != "local"
    group = os.getpgrp()
    try:
        ray.init(
            address=address,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            **(local if address == "local" else {}),
        )
    except Exception as error:  # Ray raises many types, a bare Exception among them.
        if address == "local":
            full = f"the disk of its temporary folder {ray_folder()} is full: free space, or set RAY_TMPDIR to another"
            why = full if is_full(ray_folder()) else error
            raise UserError(f"Ray cannot be started on this machine: {why}") from error
        raise UserError(_no_cluster(address, str(error))) from None
    finally:
        constants.ENABLE_RAY_CLUSTER = clusters
        # On macOS Ray moves this process out of its group: Ctrl-C would reach ``make sweep`` but not the sweep.
        if os.getpgrp() != group:
            with contextlib.suppress(PermissionError):  # The group has no process left.
                os.setpgid(0, group)
    if wait_for_nodes is not None:
        _wait_for(wait_for_nodes)
    nodes = [this_node()] if address == "local" else [answer for _, answer in on_every_node(this_node)]
    resources = ray.cluster_resources()
    prefix = "accelerator_type:"
    return Machine(
        cpus=int(resources.get("CPU", 0)),
        gpus=int(resources.get("GPU", 0)),
        gpu_names=tuple(key.removeprefix(prefix) for key in resources if key.startswith(prefix)),
        nodes=tuple(node for node in nodes if isinstance(node, Node)),
    )


def _wait_for(count: int) -> None:
    """Wait until ``count`` machines with CPUs have joined; says how many have, at once and then every minute."""
    waited_s = 0.0
    while (found := sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())) < count:
        if waited_s % SAY_EVERY_S == 0:
            say(f"waiting for {count} machines of the cluster: {found} joined")
        time.sleep(ASK_EVERY_S)
        waited_s += ASK_EVERY_S


def can_start_gpus(config: Path = Path("~/ray_bootstrap_config.yaml")) -> bool:
    """Whether the cluster's autoscaler can start machines with GPUs; False if this process is not on the head.

    config: the file of ``ray up`` on the head.
    """
    try:
        kinds = yaml.safe_load(config.expanduser().read_text(encoding="utf-8"))["available_node_types"]
        return any(kind["resources"].get("GPU") and kind.get("max_workers", 1) for kind in kinds.values())
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError, RuntimeError):
        return False  # RuntimeError: a user without a home


def _silence_at(address: str) -> str | None:
    """Why nothing answers at ``address`` ("host:port", or "auto": ``$RAY_ADDRESS``); None if something does.

    Ray itself tries for a quarter of an hour before it gives up. Other forms of addresses are left to it (None).
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        return None
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ADDRESS_ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return reason_of(error)
    return None


def _no_cluster(address: str, why: str) -> str:
    return (
        f"--address {address}: no Ray cluster answers there ({why}); start one by `ray start --head` or "
        "`ray up cluster.yaml`, with RAY_AUTH_MODE=token on every host, or omit --address"
    )


def on_every_node(
    function: Callable[..., Any],
    *arguments: Any,
    ip: str | None = None,
    within_s: float = NODE_ANSWERS_WITHIN_S,
    **named: Any,
) -> list[tuple[str, Any]]:
    """Call an importable ``function`` on each node that has CPUs; each node's name with the result or the exception.

    ip: only on that node. named: keyword arguments of the function.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    asked = [
        (
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                *arguments, **named
            ),
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU") and ip in (None, node["NodeManagerAddress"])
    ]
    answers: list[tuple[str, Any]] = []
    for name, answer in asked:
        try:
            answers.append((name, ray.get(answer, timeout=within_s)))
        except RayError as error:
            answers.append((name, error))
    return answers


class ClusterWatch:
    """Asks the cluster every few seconds, in a thread, how many trials its live nodes can run at once: ``slots``.

    resources: of one trial, in Ray's terms. wanted: gives the number of trials to request from the cluster's
    autoscaler, if it has one; None = request nothing.
    """

    def __init__(self, resources: dict[str, float], wanted: Callable[[], int] | None = None) -> None:
        self.slots = 0
        self._resources = {"CPU": resources["cpu"], "GPU": resources["gpu"]}
        self._wanted = wanted
        self._asked_for = -1  # Not 0: the request of a killed sweep stands until it is replaced.
        self._oom_kills: dict[str, int | None] = {}
        self._own = ray.get_runtime_context().get_node_id()
        self._cut_off = False
        self._closed = threading.Event()
        self.begin()
        self._ask()
        self._thread = threading.Thread(target=self._watch, name="cluster", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Reset the waiting times; from now on ``check`` is called at least once a second."""
        self._checked_s = time.monotonic()
        self._silent_s = self._empty_s = self._waited_s = 0.0

    def check(self, patience_s: float | None = None) -> str | None:
        """A line for the user, or None; raises ``SweepStopped`` if the cluster is lost.

        patience_s: how long its head may stay silent; None = LOST_AFTER_S.
        """
        patience_s = LOST_AFTER_S if patience_s is None else patience_s
        now = time.monotonic()
        # At most 1 s a call: the time that this machine slept, or this process was stopped, is no waiting.
        passed_s, self._checked_s = min(now - self._checked_s, 1.0), now
        self._silent_s += passed_s
        self._empty_s += passed_s
        if self._cut_off:  # Final: Ray does not attach a process to another node, nor to a restarted one.
            raise SweepStopped(f"Ray has ended on {socket.gethostname()}, where the sweep runs", CLUSTER_LOST)
        if self._silent_s > patience_s:
            raise SweepStopped(f"the head of the Ray cluster has not answered for {patience_s:.0f} s", CLUSTER_LOST)
        if self._empty_s > LOST_AFTER_S:
            lost = f"no machine of the cluster has had room for a trial for {LOST_AFTER_S:.0f} s, and none was starting"
            raise SweepStopped(lost, CLUSTER_LOST)
        if self.slots:
            self._waited_s = 0.0
            return None
        before, self._waited_s = self._waited_s, self._waited_s + passed_s
        if before // SAY_EVERY_S == self._waited_s // SAY_EVERY_S:
            return None
        return f"no machine of the cluster has had room for a trial for {self._waited_s / 60:.0f} min: waiting"

    def killed_for_memory(self, ip: str) -> bool:
        """Whether the kernel of the node ``ip`` has killed processes for lack of memory since the last count."""
        before = self._oom_kills.get(ip)
        self._count_oom_kills(ip)
        after = self._oom_kills[ip]
        return before is not None and after is not None and after > before

    def close(self) -> None:
        """End the watch and withdraw the request to the autoscaler."""
        self._closed.set()
        self._thread.join(ADDRESS_ANSWERS_WITHIN_S + ASK_EVERY_S)  # It may be asking a node that has just joined.
        if self._asked_for > 0 and not self._thread.is_alive():
            self._ask_for(0)

    def _watch(self) -> None:
        while not self._closed.wait(ASK_EVERY_S):
            self._ask()

    def _ask(self) -> None:
        try:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            cpu, gpu = self._resources.values()
            offered = [node["Resources"] for node in nodes]
            self.slots = sum(trials_at_once(one.get("CPU", 0), one.get("GPU", 0), int(cpu), gpu) for one in offered)
            self._silent_s = 0.0
            self._cut_off = self._own not in {node["NodeID"] for node in nodes}
            if self.slots or _being_started():
                self._empty_s = 0.0
            for ip in {node["NodeManagerAddress"] for node in nodes} - {*self._oom_kills}:
                if self._closed.is_set():
                    break
                self._count_oom_kills(ip)
                self._silent_s = 0.0  # Each of many new nodes may take seconds.
            if self._wanted is not None and (wanted := min(self._wanted(), MOST_AT_ONCE)) != self._asked_for:
                self._ask_for(wanted)
        except Exception as error:  # Ray raises many types if the head does not answer.
            logging.getLogger("ray").warning("the cluster was asked for its nodes: %r", error)

    def _ask_for(self, trials: int) -> None:
        request_resources(bundles=[{name: value for name, value in self._resources.items() if value}] * trials)
        self._asked_for = trials

    def _count_oom_kills(self, ip: str) -> None:
        if ip == get_node_ip_address():
            self._oom_kills[ip] = oom_kills()
            return
        answers = [answer for _, answer in on_every_node(oom_kills, ip=ip, within_s=ADDRESS_ANSWERS_WITHIN_S)]
        self._oom_kills[ip] = answers[0] if answers and isinstance(answers[0], int) else None


def _being_started() -> bool:
    """Whether an autoscaler, of either version that Ray has, is starting a node now."""
    if is_autoscaler_v2():
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        return bool(status.pending_nodes or status.pending_launches)
    told = _internal_kv_get("__autoscaling_status")
    report = (json.loads(told) if told else {}).get("autoscaler_report") or {}
    return bool(report.get("pending_nodes") or report.get("pending_launches"))
