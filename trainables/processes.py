"""The name of a process, written beside its files, so that a reader can check whether that process still runs.

A pid alone is not enough: it is reused, and means nothing on another machine or in another container.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path


def this_process() -> str:
    """``host-boot-namespace-start-pid``, without blanks and slashes.

    boot: the machine's boot id; namespace: of the pid, as a container has its own; start: of the process, in clock
    ticks since the boot. Parts that the system does not provide are empty.
    """
    boot = _read(Path("/proc/sys/kernel/random/boot_id")).replace("-", "")[:12]
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
    pid = str(os.getpid())
    return "-".join((socket.gethostname(), boot, namespace, _state_and_start(pid)[1], pid))


def is_gone(name: str) -> bool | None:
    """Whether the process ``name`` has ended. None: unknown here, as ``name`` is of another host or container, or not
    such a name. Two machines with the same host name take each other for one that was rebooted."""
    parts, here = name.rsplit("-", 4), this_process().rsplit("-", 4)
    if len(parts) != 5 or parts[0] != here[0] or not parts[4].isdecimal():
        return None
    if parts[1] != here[1]:
        return True
    if parts[2] != here[2]:
        return None
    try:
        os.kill(int(parts[4]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    state, start = _state_and_start(parts[4])
    return (state == "Z" or start != parts[3]) if start else None


def _state_and_start(pid: str) -> tuple[str, str]:
    """Fields 3 and 22 of ``/proc/PID/stat``, see proc_pid_stat(5); empty where it cannot be read.

    State "Z" (zombie): it has ended, but its parent has not read its exit code yet.
    """
    fields = _read(Path("/proc", pid, "stat")).rpartition(")")[2].split()
    return (fields[0], fields[19]) if len(fields) > 19 else ("", "")


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
