"""On what code and what machine a sweep ran."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "ray", "optuna", "scikit-learn", "pandas", "numpy", "pillow", "imagehash", "onnx")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What the trials can use, over all ``nodes``: ``cpus`` and ``gpus`` as Ray counts them, and the GPUs' names."""

    cpus: int
    gpus: int
    gpu_names: tuple[str, ...] = ()
    nodes: int = 1


def provenance(machine: Machine) -> dict[str, Any]:
    """Versions of what a result depends on, the commit of our code, and the machine that the driver ran on."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(Path(__file__).resolve().parents[1]),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": machine.cpus,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": list(machine.gpu_names),
        "nodes": machine.nodes,
    }


def available_cpus() -> int:
    """CPUs this process may use: a container or a batch system may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit of a checkout, with "+changes" if files differ from it; None where it is no checkout."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
