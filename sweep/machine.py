"""What a machine, or each node of a cluster, offers to trials: CPUs, memory, GPUs, and what it is fast at.

All of it is read once, before a sweep: the same command then does the same whatever else runs meanwhile.
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
"""Files of a control group that limit its processes, of version 2 and of version 1: a quota, and its period if any."""
GRANTED = ("SLURM_CPUS_ON_NODE", "NSLOTS", "PBS_NUM_PPN", "LSB_DJOB_NUMPROC")
"""By which Slurm, Grid Engine, Torque and LSF tell a job how many CPUs it was granted."""
BF16_CAPABILITY = 8.0
"""CUDA compute capability from which on bf16 is computed by the hardware: Ampere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One machine. memory_bytes: that processes may use. fast_bf16: of its CPUs; fast_bf16_gpu: of all its GPUs."""

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
        """Whether every node that runs trials is fast at bf16; what is not known is not."""
        able = [node.fast_bf16_gpu if on_gpu else node.fast_bf16 for node in self.nodes if node.gpus or not on_gpu]
        return bool(able) and all(able)

    def slots(self, cpus_a_trial: int, gpus_a_trial: float) -> int:
        """How many trials run at once: whole ones on each node."""
        of_nodes = [trials_at_once(node.cpus, node.gpus, cpus_a_trial, gpus_a_trial) for node in self.nodes]
        together = trials_at_once(self.cpus, self.gpus, cpus_a_trial, gpus_a_trial)
        known = sum(node.gpus for node in self.nodes) >= self.gpus  # Not of GPUs that only Ray knows of.
        return min(together, sum(of_nodes)) if of_nodes[1:] and known else together

    @property
    def most_cpus(self) -> int:
        """Of one node: what a trial may have."""
        return min(self.cpus, max(node.cpus for node in self.nodes)) if self.nodes[1:] else self.cpus

    def trial_memory_bytes(self, cpus_a_trial: int, gpus_a_trial: float, concurrency: int | None) -> int:
        """Memory that each trial has on the smallest node, if they share it alike; 0 where nothing is known.

        concurrency: the most that run at once; None: as many as there is room for.
        """
        at_once = (
            (node.memory_bytes, trials_at_once(node.cpus, node.gpus, cpus_a_trial, gpus_a_trial)) for node in self.nodes
        )
        return min((memory // min(count, concurrency or count) for memory, count in at_once if count), default=0)


def trials_at_once(cpus: float, gpus: float, cpus_a_trial: int, gpus_a_trial: float) -> int:
    """How many trials so many CPUs and GPUs hold.

    Of several GPUs each holds whole trials: two thirds of a GPU leave room for one trial on it, not for 1.5.
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

    groups: where the kernel shows the limits of control groups, membership: in which of them this process is. A limit
    of 2.5 CPUs counts as 2, one below 1 as 1; in nested groups the lowest holds. Batch systems that do not enforce what
    they grant tell it by ``GRANTED``.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it knows the affinity, too
        count = os.process_cpu_count() or 1
    else:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = [int(value) for name in GRANTED if (value := os.environ.get(name, "")).isdecimal() and int(value)]
    return max(1, int(min([count, *granted, *_limits("cpu", groups, membership)])))


def available_memory_bytes(groups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Memory that processes like this one may use, all together: the machine's, or what a container is given."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_limits("memory", groups, membership)])


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """How many processes the kernel has ended so far as memory had run out, of the machine or of a container.

    None where it does not tell.
    """
    try:
        lines = vmstat.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _limits(controller: str, groups: Path, membership: Path) -> Iterator[int]:
    """What the groups that limit this process, and those above them, allow: whole CPUs, or bytes."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, place in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if controllers and controller not in controllers.split(","):
            continue
        root = groups / controller if controllers else groups
        files = LIMITS[controller][bool(controllers)]
        # In a container the folder of its own group may be shown as the root, whatever the group is called outside.
        group = Path(place.lstrip("/"))
        for above in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
                numbers = [int(word) for file in files for word in (root / above / file).read_text().split()]
                quota, period = (*numbers, 1)[:2]
                if quota > 0 and period > 0:
                    yield quota // period


def _fast_bf16_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether each processor multiplies bf16 numbers itself: by AMX, or by AVX-512's products of pairs."""
    flags = of_processors("flags", cpuinfo)
    return bool(flags) and all({"amx_bf16", "avx512_bf16"} & set(its.split()) for its in flags)


def of_processors(field: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """What the kernel says of each processor under ``field``; [] where it does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(field)]


def _gpu_capabilities() -> list[float]:
    """Compute capability of each NVIDIA GPU, whether or not this process was given one; [] where nothing tells."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
        return [float(line) for line in told.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
