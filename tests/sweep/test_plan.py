"""What is said of a cluster whose nodes do not all have what the trials need; the real thing is in tests/cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweep.config import SweepConfig
from sweep.plan import Ask, node_problems, unseen


def cluster(**nodes: object) -> Ask:
    """Nodes by name, each with what it answers: an exception, or the options whose folders it lacks."""

    def ask(function: Callable[..., Any], folders: dict[str, str]) -> list[tuple[str, Any]]:
        assert function(folders) == [], "this machine has them all"
        return [
            (node, answer if isinstance(answer, Exception) else [option for option in folders if option in str(answer)])
            for node, answer in nodes.items()
        ]

    return ask


def test_a_cluster_that_has_all_is_fine(tmp_path: Path) -> None:
    assert node_problems(SweepConfig(weights=str(tmp_path)), tmp_path, cluster(first="", second="")) == []


def test_each_folder_is_told_once_with_all_nodes_that_lack_it(tmp_path: Path) -> None:
    config = SweepConfig(storage="/s", weights=str(tmp_path))
    nodes = cluster(first="", second="--storage /s", third=f"--storage /s --weights {tmp_path}")
    storage, weights = node_problems(config, tmp_path, nodes)
    assert storage.startswith("--storage /s is not seen by nodes second, third:")
    assert weights.startswith(f"--weights {tmp_path} is not seen by node third:")


def test_weights_without_a_folder_are_not_looked_for(tmp_path: Path) -> None:
    for weights in ("imagenet", "random", None):
        assert node_problems(SweepConfig(weights=weights), tmp_path, cluster(first="--weights")) == []


def test_a_weights_folder_that_is_nowhere_is_left_to_whoever_opens_it(tmp_path: Path) -> None:
    config = SweepConfig(weights=str(tmp_path / "none"))
    assert node_problems(config, tmp_path, cluster(first="--weights")) == []


def test_a_node_without_our_code_is_told_with_the_reason(tmp_path: Path) -> None:
    error = RuntimeError("The worker failed\nModuleNotFoundError: No module named 'sweep'")
    (problem,) = node_problems(SweepConfig(), tmp_path, cluster(first="", second=error))
    assert "node second cannot run trials (ModuleNotFoundError: No module named 'sweep')" in problem


def test_a_folder_is_unseen_where_it_is_not(tmp_path: Path) -> None:
    assert unseen({"here": str(tmp_path), "there": str(tmp_path / "none")}) == ["there"]
