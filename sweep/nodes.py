"""Whether every node of a cluster can run the trials: has our code, and sees the folders they read and write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweep.config import SweepConfig

Ask = Callable[..., Sequence[tuple[str, Any]]]
"""Calls a function with arguments on every node; gives each node's name with the result, or the exception."""


def node_problems(config: SweepConfig, beside: Path, ask: Ask) -> list[str]:
    """Why trials would fail on some nodes, one sentence for each folder and for each node without our code.

    beside: a folder made in the storage a moment ago: where the storage is not shared, no other machine has it.
    """
    folders = {f"--storage {config.storage}": beside}
    if config.weights not in (None, "imagenet", "random"):
        folders[f"--weights {config.weights}"] = Path(config.weights).expanduser()
    # What is missing here, too, is told by whoever opens it.
    seen_here = {option: str(folder.absolute()) for option, folder in folders.items() if folder.is_dir()}
    unseen_on: dict[str, list[str]] = {}
    problems = []
    for node, answer in ask(unseen, seen_here):
        if isinstance(answer, Exception):
            reason = str(answer).strip().splitlines()[-1]
            problems.append(f"node {node} cannot run trials ({reason}): install there what is installed here")
            continue
        for option in answer:
            unseen_on.setdefault(option, []).append(node)
    return problems + [
        f"{option} is not seen by {'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)}: "
        "give a folder that every node has under the same path, such as an NFS mount"
        for option, nodes in unseen_on.items()
    ]


def unseen(folders: dict[str, str]) -> list[str]:
    """The keys of those ``folders`` that this machine does not have."""
    return [option for option, folder in folders.items() if not Path(folder).is_dir()]
