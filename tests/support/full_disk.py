"""Disks that take no more: a tiny one that can be filled up, and a process that may write no large file."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tiny_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount one at ``folder``; the test is skipped where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a disk of its own needs mounting, which is not permitted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a process that was killed may not be gone yet.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of ``disk``; returns the file that takes them."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    return filler


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Within it, this process cannot write behind the byte ``size`` of any file: File too large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
