"""What can be reached from other machines while a sweep runs on this one alone: nothing."""

from __future__ import annotations

import contextlib

import pytest
from whole_sweep import ray_folder

from sweep import cluster, ray_tune
from sweep.machine import this_node

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_on_one_machine_nothing_listens_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has no route to others, Ray takes its loopback address by itself."""
    import psutil  # Ray brings it along.

    with ray_folder() as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        with ray_tune.connected("local", 1):
            cluster.on_every_node(this_node)  # A worker has started, which listens, too.
            sockets = []
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):  # It has ended.
                    sockets += process.net_connections()
    listening = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
    assert listening
    assert listening <= LOOPBACK
