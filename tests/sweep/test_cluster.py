"""What a sweep sees of its cluster: room that comes and goes, and demand that an autoscaler is told of."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from own_cluster import head_alone
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.experimental.internal_kv import _internal_kv_get

from search_spaces.errors import UserError
from sweep import cluster
from sweep.cluster import LONGEST_SOCKET, ClusterWatch, can_start_gpus, connect, folder_problems
from sweep.endings import CLUSTER_LOST, SweepStopped

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with head_alone() as made:
        yield made


def asked_of_the_autoscaler() -> list[dict[str, float]]:
    return list(json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL)))


def test_slots_follow_the_machines_that_come_and_go_and_none_for_too_long_ends_the_sweep(
    nodes: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = nodes.add_node(num_cpus=5)
    with monkeypatch.context() as meanwhile:  # Nodes are added by the main thread alone.
        meanwhile.setattr(cluster, "time", SimpleNamespace(sleep=lambda _: nodes.add_node(num_cpus=2, num_gpus=1)))
        machine = connect(nodes.address, wait_for_nodes=2)
    assert (machine.cpus, machine.gpus, len(machine.nodes)) == (7, 1, 2)
    assert capsys.readouterr().out == "waiting for 2 machines of the cluster: 1 joined\n"

    monkeypatch.setattr(cluster, "ASK_EVERY_S", 0.1)
    monkeypatch.setattr(cluster, "LOST_AFTER_S", 1.0)
    wanted = 3
    watch = ClusterWatch({"cpu": 2.0, "gpu": 0.0}, lambda: wanted)
    try:
        assert watch.slots == 3, "two on the node of five CPUs, one on that of two"
        assert watch.check() is None
        assert asked_of_the_autoscaler() == [{"CPU": 2.0}] * 3
        nodes.remove_node(first, allow_graceful=False)
        until(lambda: watch.slots == 1)
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        until(lambda: watch.slots == 0)
        watch.begin()
        with pytest.raises(SweepStopped, match="has had room for a trial") as stopped:
            until(lambda: watch.check() == "never")
        assert stopped.value.exit_code == CLUSTER_LOST
    finally:
        watch.close()
    assert asked_of_the_autoscaler() == []


def test_a_sweep_whose_own_node_is_lost_ends_though_the_cluster_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the soak: two of three machines had room, and nothing ever ran there again."""
    ray.shutdown()  # of the test before
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "2")
    monkeypatch.setattr(cluster, "ASK_EVERY_S", 0.1)
    with head_alone() as nodes:
        nodes.add_node(num_cpus=1)
        connect(nodes.address)
        watch = ClusterWatch({"cpu": 1.0, "gpu": 0.0})
        try:
            nodes.head_node.all_processes["raylet"][0].process.kill()
            with pytest.raises(SweepStopped, match=f"Ray has ended on {socket.gethostname()}, where") as stopped:
                until(lambda: watch.check() == "never")
            assert (stopped.value.exit_code, watch.slots) == (CLUSTER_LOST, 1)
        finally:
            watch.close()


def test_demand_is_withdrawn_though_nodes_that_have_just_joined_are_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def node(name: str) -> dict[str, Any]:
        return {"Alive": True, "NodeID": name, "NodeManagerAddress": name, "Resources": {"CPU": 1.0}}

    def slow(*_: Any, **__: Any) -> list[Any]:
        asking.set()
        threading.Event().wait(0.5)
        return []

    nodes, asking = [node("own")], threading.Event()
    demands: list[int] = []
    own = SimpleNamespace(get_node_id=lambda: "own")
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(nodes=lambda: nodes, get_runtime_context=lambda: own))
    monkeypatch.setattr(cluster, "get_node_ip_address", lambda: "own")
    monkeypatch.setattr(cluster, "on_every_node", slow)
    monkeypatch.setattr(cluster, "request_resources", lambda bundles: demands.append(len(bundles)))
    monkeypatch.setattr(cluster, "ASK_EVERY_S", 0.1)
    watch = ClusterWatch({"cpu": 1.0, "gpu": 0.0}, lambda: 3)
    nodes += [node(f"new {number}") for number in range(100)]
    assert asking.wait(10)
    watch.close()
    assert demands == [3, 0]


def until(holds: Any) -> None:
    """Wait; the whole run of the tests has an end."""
    while not holds():
        threading.Event().wait(0.05)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("available_node_types: {head: {resources: {CPU: 4}}, gpu: {resources: {GPU: 1}, max_workers: 2}}", True),
        ("available_node_types: {head: {resources: {CPU: 4}}, gpu: {resources: {GPU: 1}, max_workers: 0}}", False),
        ("provider: {type: local}", False),
        ("no: [yaml", False),
    ],
)
def test_whether_the_autoscaler_has_machines_with_gpus(content: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    assert can_start_gpus(tmp_path / "config.yaml") is expected
    assert not can_start_gpus(tmp_path / "none.yaml")


def test_a_temporary_folder_too_deep_for_sockets_is_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would say so when all images have been read. Batch systems give each job a folder with a long name."""
    room = LONGEST_SOCKET - len(f"/ray/session_2026-11-28_00-00-00_000000_{os.getpid()}/sockets/plasma_store")
    ray.shutdown()
    with tempfile.TemporaryDirectory(prefix="x" * (room + 1 - len("/tmp/") - 8), dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        (problem,) = folder_problems()
        assert "is too long for sockets: set RAY_TMPDIR" in problem
        with pytest.raises(UserError, match="AF_UNIX path length cannot exceed"):
            connect("local", 1)
        monkeypatch.setenv("RAY_TMPDIR", folder[:-1])
        assert folder_problems() == []


def test_ray_is_told_how_many_gpus_torch_has_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library that Ray asks is not there, as in containers for computing alone, it finds none."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **options: told.update(options))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    assert connect("local", 2, gpus=1).gpus == 1
    assert (told["num_cpus"], told["num_gpus"]) == (2, 1)


def test_ctrl_c_reaches_the_sweep_also_where_ray_makes_its_process_the_head_of_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS, where ``make sweep`` is in the group that the terminal sends it to."""
    own = [7]
    monkeypatch.setattr(os, "getpgrp", lambda: own[-1])
    monkeypatch.setattr(os, "setpgid", lambda pid, group: own.append(group))
    monkeypatch.setattr(ray, "init", lambda **options: own.append(os.getpid()))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    connect("local", 2)
    assert own == [7, os.getpid(), 7]
