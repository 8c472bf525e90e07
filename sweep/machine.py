"""The resources of a machine, or of each node of a cluster: CPUs, memory, GPUs, and whether it is fast at bf16.

They are read once, before a sweep, so that the same command does the same whatever else runs meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
LIMITS = {
    "cpu": (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")),
    "memory": (("memory.max",), ("memory.limit_in_bytes",)),
}
"""Limit files of a control group, of version 2 and of version 1: a quota, and its period if there is one."""
GRANTED = ("SLURM_CPUS_ON_NODE", "NSLOTS", "PBS_NUM_PPN", "LSB_DJOB_NUMPROC")
"""The environment variables of Slurm, Grid Engine, Torque and LSF for the CPUs granted to a job."""
BF16_CAPABILITY = 8.0
"""The lowest CUDA compute capability with bf16 in hardware (Ampere)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One machine. memory_bytes: what processes may use. fast_bf16: on its CPUs; fast_bf16_gpu: on all its GPUs."""

    cpus: int
    gpus: int
    memory_bytes: int
    fast_bf16: bool
    fast_bf16_gpu: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What the trials can use, over all ``nodes``: ``cpus`` and ``gpus`` as Ray counts them, and the GPUs' names."""

    cpus: int
    gpus: int
    gpu_names: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()

    def fast_bf16(self, on_gpu: bool) -> bool:
        """Whether every node that runs trials is fast at bf16; False if unknown."""
        able = [node.fast_bf16_gpu if on_gpu else node.fast_bf16 for node in self.nodes if node.gpus or not on_gpu]
        return bool(able) and all(able)

    def slots(self, cpus_a_trial: int, gpus_a_trial: float) -> int:
        """How many trials can run at once; a trial cannot span nodes."""
        of_nodes = [trials_at_once(node.cpus, node.gpus, cpus_a_trial, gpus_a_trial) for node in self.nodes]
        together = trials_at_once(self.cpus, self.gpus, cpus_a_trial, gpus_a_trial)
        known = sum(node.gpus for node in self.nodes) >= self.gpus  # Not if only Ray knows of some GPUs.
        return min(together, sum(of_nodes)) if of_nodes[1:] and known else together

    @property
    def most_cpus(self) -> int:
        """CPUs of the largest node: the most that a trial may have."""
        return min(self.cpus, max(node.cpus for node in self.nodes)) if self.nodes[1:] else self.cpus

    def trial_memory_bytes(self, cpus_a_trial: int, gpus_a_trial: float, concurrency: int | None) -> int:
        """Memory per trial on the node that has the least for each, shared equally; 0 if unknown.

        concurrency: the most that run at once; None = as many as there is room for.
        """
        at_once = (
            (node.memory_bytes, trials_at_once(node.cpus, node.gpus, cpus_a_trial, gpus_a_trial)) for node in self.nodes
        )
        return min((memory // min(count, concurrency or count) for memory, count in at_once if count), default=0)


def trials_at_once(cpus: float, gpus: float, cpus_a_trial: int, gpus_a_trial: float) -> int:
    """How many trials fit on so many CPUs and GPUs.

    A trial cannot span GPUs: at two thirds of a GPU per trial, each GPU holds one trial, not 1.5.
    """
    by_cpu = int(cpus / max(1, cpus_a_trial))
    return min(by_cpu, int(gpus) * int(1 / gpus_a_trial + 1e-9)) if gpus_a_trial > 0 else by_cpu


def this_node() -> Node:
    """The machine that this process runs on."""
    capabilities = _gpu_capabilities()
    return Node(
        cpus=available_cpus(),
        gpus=len(capabilities),
        memory_bytes=available_memory_bytes(),
        fast_bf16=_fast_bf16_cpu(),
        fast_bf16_gpu=bool(capabilities) and min(capabilities) >= BF16_CAPABILITY,
    )


def available_cpus(groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """CPUs this process may use: a container or a batch system may allow fewer than the machine has.

    groups: the kernel's folder of control groups; membership: the file that names those of this process. A limit of 2.5
    CPUs counts as 2, one below 1 as 1; of nested groups the lowest limit holds. ``GRANTED`` is for batch systems that
    do not enforce what they grant.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it knows the affinity, too
        count = os.process_cpu_count() or 1
    else:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = [int(value) for name in GRANTED if (value := os.environ.get(name, "")).isdecimal() and int(value)]
    return max(1, int(min([count, *granted, *_limits("cpu", groups, membership)])))


def available_memory_bytes(groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Memory that all processes here may use together: the machine's, or the limit of the container."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_limits("memory", groups, membership)])


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has killed so far for lack of memory, of the machine or of a container.

    None if unknown.
    """
    try:
        lines = vmstat.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _limits(controller: str, groups: Path, membership: Path) -> Iterator[int]:
    """The limits of this process's control groups and of those above them: whole CPUs, or bytes."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, place in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controller if controllers else groups
        files = LIMITS[controller][bool(controllers)]
        # In a container its own group may appear as the root, whatever the group's name outside.
        group = Path(place.lstrip("/"))
        for above in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
                numbers = [int(word) for file in files for word in (root / above / file).read_text().split()]
                quota, period = (*numbers, 1)[:2]
                if quota > 0 and period > 0:
                    yield quota // period


def _fast_bf16_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether each processor has instructions for products of bf16 numbers: AMX, or AVX-512's of pairs."""
    flags = of_processors("flags", cpuinfo)
    return bool(flags) and all({"amx_bf16", "avx512_bf16"} & set(its.split()) for its in flags)


def of_processors(field: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The kernel's value of ``field`` for each processor; [] if unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]


def _gpu_capabilities() -> list[float]:
    """Compute capability of each NVIDIA GPU of the machine, also of those hidden from this process; [] if unknown."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
        return [float(line) for line in told.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
