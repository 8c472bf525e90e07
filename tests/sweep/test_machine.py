"""What a machine offers to trials, as control groups, the processor and the nodes of a cluster tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep import machine
from sweep.config import SweepConfig, resolve
from sweep.machine import GRANTED, Machine, Node, _fast_bf16_cpu, available_cpus, available_memory_bytes, this_node
from sweep.run import this_machine


def node(**values: Any) -> Node:
    """A node of 8 CPUs and 64 bytes that is fast at nothing, with these values changed."""
    plain = {"cpus": 8, "gpus": 0, "memory_bytes": 64, "fast_bf16": False, "fast_bf16_gpu": False}
    return Node(**(plain | values))


@pytest.mark.parametrize(
    ("nodes", "gpus", "expected"),
    [
        ((), 0, "fp32"),
        ((node(fast_bf16=True),), 0, "bf16"),
        ((node(fast_bf16=True), node()), 0, "fp32"),
        ((node(fast_bf16=True),), 1, "fp32"),
        ((node(gpus=1, fast_bf16_gpu=True), node()), 1, "bf16"),
        ((node(gpus=1, fast_bf16_gpu=True), node(gpus=1)), 1, "fp32"),
    ],
)
def test_bf16_is_chosen_only_where_every_node_that_runs_trials_is_fast_at_it(
    nodes: tuple[Node, ...], gpus: int, expected: str
) -> None:
    found = Machine(cpus=8, gpus=gpus, nodes=nodes)
    assert resolve(SweepConfig(precision="auto"), found).precision == expected
    assert resolve(SweepConfig(precision="bf16"), found).precision == "bf16"


def test_a_trial_has_its_share_of_the_smallest_nodes_memory() -> None:
    nodes = (node(cpus=16, memory_bytes=64), node(cpus=4, memory_bytes=24), node(cpus=4, gpus=2, memory_bytes=20))
    machine = Machine(cpus=24, gpus=2, nodes=nodes)
    assert machine.trial_memory_bytes(1, 0, 24) == 4
    assert machine.trial_memory_bytes(1, 0, 2) == 10
    assert machine.trial_memory_bytes(1, 0.5, 4) == 5
    assert machine.trial_memory_bytes(8, 0, 2) == 32, "the small nodes run none"
    assert Machine(cpus=2, gpus=0).trial_memory_bytes(1, 0, 2) == 0


def test_a_trial_has_the_cpus_of_one_node() -> None:
    machine = Machine(cpus=14, gpus=0, nodes=(node(cpus=6), node(cpus=6), node(cpus=2)))
    assert [machine.slots(cpus, 0) for cpus in (1, 4, 6, 8)] == [14, 2, 2, 0]
    assert machine.most_cpus == 6
    assert Machine(cpus=2, gpus=0, nodes=(node(cpus=4),)).most_cpus == 2


def control_groups(folder: Path, membership: str | None, limits: dict[str, str]) -> tuple[Path, Path]:
    """Where the kernel shows them, and in which of them this process is."""
    groups, own = folder / "cgroup", folder / "self"
    for name, text in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text + "\n")
    if membership is not None:
        own.write_text(membership)
    return groups, own


V1, V2 = "4:cpu,cpuacct:{}\n3:memory:{}\n", "0::{}\n"


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        (V2.format("/"), {"cpu.max": "max 100000"}, 8),
        (V2.format("/"), {"cpu.max": "400000 100000"}, 4),
        (V2.format("/a/b"), {"cpu.max": "600000 100000", "a/cpu.max": "250000 100000", "a/b/cpu.max": "max 1"}, 2),
        (V2.format("/docker/id"), {"cpu.max": "50000 100000"}, 1),  # the container's own folder is shown as the root
        (V2.format("/"), {"cpu.max": "a"}, 8),
        (V1.format("/", "/x"), {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1.format("/", "/x"), {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (V1.format("/a", "/x"), {"cpu/a/cpu.cfs_quota_us": "150000", "cpu/a/cpu.cfs_period_us": "50000"}, 3),
        ("3:memory:/\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("12:name=systemd:/x\nodd\n", {}, 8),
        (None, {"cpu.max": "100000 100000"}, 8),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str | None, limits: dict[str, str], expected: int
) -> None:
    for name in ("process_cpu_count", "cpu_count"):
        monkeypatch.setattr("os." + name, lambda: 8, raising=False)
    for name in GRANTED:
        monkeypatch.delenv(name, raising=False)
    files = control_groups(tmp_path, membership, limits)
    assert available_cpus(*files) == expected
    for granted, allowed in (("3", min(3, expected)), ("16", expected), ("", expected), ("3(x2)", expected)):
        monkeypatch.setenv("NSLOTS", granted)
        assert available_cpus(*files) == allowed


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        (V2.format("/"), {"memory.max": "max"}, None),
        (V2.format("/"), {"memory.max": "1000000"}, 10**6),
        (V2.format("/a/b"), {"memory.max": "3000000", "a/memory.max": "2000000", "a/b/memory.max": "max"}, 2 * 10**6),
        (V1.format("/", "/"), {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        (V1.format("/", "/"), {"memory/memory.limit_in_bytes": "1000000"}, 10**6),
        (None, {"memory.max": "1000000"}, None),
    ],
)
def test_the_memory_that_a_container_is_given_counts(
    tmp_path: Path, membership: str | None, limits: dict[str, str], expected: int | None
) -> None:
    """None: the whole machine's."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available_memory_bytes(*control_groups(tmp_path, membership, limits)) == (expected or whole)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu amx_bf16 amx_tile\n\nflags\t\t: fpu amx_bf16\n", True),
        ("flags\t\t: fpu amx_bf16\n\nflags\t\t: fpu avx512_bf16\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16\n\nflags\t\t: fpu avx512f\n", False),
        ("flags\t\t: fpu avx512f avx512_vnni\n", False),
        ("Features\t: fp asimd bf16\n", False),
        (None, False),
    ],
)
def test_a_processor_is_fast_at_bf16_if_it_says_so(tmp_path: Path, text: str | None, expected: bool) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert _fast_bf16_cpu(tmp_path / "cpuinfo") is expected


def test_this_machine_has_cpus_and_memory() -> None:
    found = this_node()
    assert found.cpus >= 1
    assert found.memory_bytes > 10**8


def test_the_gpus_of_this_machine_are_those_that_torch_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not all that the driver knows: of a new and an old one the new one may have been chosen."""
    monkeypatch.setattr(machine, "_gpu_capabilities", lambda: [8.9, 6.1])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "new")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 9))
    found = this_machine()
    assert (found.gpus, found.gpu_names, found.nodes[0].gpus, found.nodes[0].fast_bf16_gpu) == (1, ("new",), 1, True)
    assert found.trial_memory_bytes(1, 1.0, 1) > 0
