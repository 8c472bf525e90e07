"""A Ray of one's own for the tests of one file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
import ray
from whole_sweep import ray_folder


@contextmanager
def own_cluster() -> Iterator[str]:
    """Its address. Two CPUs, and a folder short enough for the names of its sockets; Ray and Optuna are silent."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with ray_folder() as folder:
        try:
            context = ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=100_000_000,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                _temp_dir=folder,
            )
            yield context.address_info["gcs_address"]
        finally:
            ray.shutdown()
            optuna.logging.set_verbosity(level)


@contextmanager
def head_alone() -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster``, to which nodes can be added, of a head that runs no trials."""
    from ray.cluster_utils import Cluster

    with ray_folder() as folder, pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_health_check_period_ms", "500")  # A lost node is noticed in seconds.
        environment.setenv("RAY_health_check_failure_threshold", "2")
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()
