"""Whole sweeps on a cluster of two nodes: one of them is lost, or the storage is not shared."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from own_cluster import head_alone
from whole_sweep import epochs_of, run_sweep

pytestmark = pytest.mark.cluster

TRIALS = 4
EPOCHS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with head_alone() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def workers(cluster: Any) -> list[Any]:
    """Two nodes for one trial each; the last test that needs both of them loses one."""
    return [cluster.add_node(num_cpus=1) for _ in range(2)]


def place_of(trial: Path, nodes: list[Any]) -> tuple[Any, int]:
    """The node with a worker, a child of its raylet, that has the trial's file for stacks open, and its pid."""
    for node in nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        for worker in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split():
            links = Path(f"/proc/{worker}/fd").glob("*")
            if any(os.path.realpath(link) == str(trial / "stacks.txt") for link in links):
                return node, int(worker)
    raise LookupError(f"{trial.name} runs on no node")


def wait_for_end(pid: int) -> None:
    """Of a process that is nobody's child any more."""
    process = os.pidfd_open(pid)
    select.select([process], [], [])
    os.close(process)


def first_epoch(trial: Path, sweep: subprocess.Popen[str]) -> bool:
    """Wait until the first epoch of a trial is written down; False if the sweep ends before."""
    command = ["tail", "-n", "+1", "-F", trial / "result.jsonl"]
    ended = os.pidfd_open(sweep.pid)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        ready, _, _ = select.select([tail.stdout, ended], [], [])
        tail.kill()
    os.close(ended)
    return ended not in ready


def test_storage_that_only_the_first_machine_has_is_refused(
    cluster: Any, workers: list[Any], small_data: Path, tmp_path: Path
) -> None:
    """The nodes share this machine's disks, but what a process has open goes by this path in no other."""
    assert set(workers) <= cluster.worker_nodes
    storage = os.open(tmp_path, os.O_RDONLY)
    try:
        done = run_sweep(
            *("--address", cluster.address, "--data", small_data, "--storage", f"/proc/self/fd/{storage}"),
            *("--name", "run", "--weights", "random", "--backbones", "squeezenet1_1"),
            *("--image-size", 32, "--trials", 1),
            pass_fds=(storage,),
        )
    finally:
        os.close(storage)
    assert done.code == 2, done.text
    (line,) = done.errors.splitlines()
    assert "/proc/self/fd" in line
    assert "is not visible to nodes" in line
    assert list(tmp_path.iterdir()) == [], "it did not begin, and left something"


def test_a_lost_node_costs_no_trial_and_no_epoch(
    cluster: Any, workers: list[Any], small_data: Path, tmp_path: Path
) -> None:
    assert set(workers) <= cluster.worker_nodes
    second, let_go = tmp_path / "run" / "trials" / "t0001", tmp_path / "go on"
    lost: list[Any] = []

    def lose_the_node_of_the_second_trial(lines: list[str], process: subprocess.Popen[str]) -> None:
        if not lost and first_epoch(second, process):
            node, worker = place_of(second, workers)
            cluster.remove_node(node, allow_graceful=False)
            wait_for_end(worker)  # It sees within seconds that its node is gone, and would go on until then.
            lost.append(node)
            let_go.touch()

    done = run_sweep(
        *("--address", cluster.address, "--data", small_data, "--storage", tmp_path, "--name", "run"),
        *("--weights", "random", "--backbones", "squeezenet1_1", "--image-size", 32, "--set", "lr=0.001"),
        *("--trials", TRIALS, "--epochs", EPOCHS, "--scheduler", "none", "--finalists", 0),
        *("--trial-time-limit", "10min"),
        at=lose_the_node_of_the_second_trial,
        program="held_sweep.py",
        HELD="trials/t0001",
        LET_GO=str(let_go),
    )

    assert done.code == 0, done.errors
    assert lost, done.text
    assert "trial t0001 lost its worker" in done.text
    table = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    assert sorted(table.number) == list(range(TRIALS))
    assert set(table.status) == {"completed"}, done.text
    for trial in second.parent.iterdir():
        # An epoch that was trained again would stand there again, with other seconds.
        assert epochs_of(trial) == list(range(1, EPOCHS + 1)), trial.name


def test_who_has_no_token_is_told_so(cluster: Any, tmp_path: Path) -> None:
    done = run_sweep("--address", cluster.address, "--storage", tmp_path, RAY_AUTH_MODE="token", HOME=str(tmp_path))
    assert done.code == 2, done.text
    (line,) = done.errors.splitlines()
    assert line.startswith(f"error: --address {cluster.address}: ")
    assert "no authentication token was found" in line
