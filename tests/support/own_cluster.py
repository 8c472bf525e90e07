"""A Ray of one's own for the tests of one file."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import ray


@contextmanager
def own_cluster() -> Iterator[str]:
    """Its address. Two CPUs, and a folder short enough for the names of its sockets; Ray and Optuna are silent."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
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
        shutil.rmtree(folder, ignore_errors=True)
