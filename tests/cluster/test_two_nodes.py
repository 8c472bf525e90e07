"""A whole sweep on a cluster of two nodes with shared storage, and what becomes of it when one is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from whole_sweep import ray_folder, run_sweep

TRIALS = 8
EPOCHS = 4


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one CPU each, in a session folder of their own; only the second may be removed."""
    from ray.cluster_utils import Cluster

    with ray_folder() as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            nodes.add_node(num_cpus=1)
            yield nodes
        finally:
            nodes.shutdown()


def files_open_on(node: Any) -> set[str]:
    """What the workers of a node, the children of its raylet, have open."""
    raylet = node.all_processes["raylet"][0].process.pid
    workers = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    opened = set()
    for worker in workers:
        for link in Path(f"/proc/{worker}/fd").glob("*"):
            try:
                opened.add(str(link.readlink()))
            except OSError:  # closed in the meantime
                continue
    return opened


def test_a_lost_node_costs_no_trial_and_no_epoch(cluster: Any, small_data: Path, tmp_path: Path) -> None:
    (second,) = cluster.worker_nodes
    trials = tmp_path / "run" / "trials"
    lost: list[str] = []

    def lose_the_second_node(lines: list[str], process: subprocess.Popen[str]) -> None:
        """Once a trial that has trained an epoch or more, and goes on, runs there."""
        if lost or not lines[-1].startswith("["):
            return
        opened = files_open_on(second)
        begun = [state.parent for state in trials.glob("*/state.pt")]
        there = [trial.name for trial in begun if str(trial / "stacks.txt") in opened]
        if there:
            lost.extend(there)
            cluster.remove_node(second, allow_graceful=False)

    done = run_sweep(
        *("--address", cluster.address, "--data", small_data, "--storage", tmp_path, "--name", "run"),
        *("--weights", "random", "--backbones", "squeezenet1_1,resnet18", "--image-size", 32),
        *("--trials", TRIALS, "--epochs", EPOCHS, "--scheduler", "none", "--trial-time-limit", "10min"),
        at=lose_the_second_node,
    )

    assert done.code == 0, done.errors
    assert len(lost) == 1, done.text
    assert f"trial {lost[0]} lost its worker" in done.text
    table = pd.read_parquet(tmp_path / "run" / "trials.parquet")
    assert sorted(table.number) == list(range(TRIALS))
    assert set(table.status) == {"finished"}, done.text
    for trial in trials.iterdir():
        # An epoch that was trained again would stand there again, with other seconds.
        written = [json.loads(line)["epoch"] for line in (trial / "result.jsonl").read_text().splitlines()]
        assert written == list(range(1, EPOCHS + 1)), trial.name
