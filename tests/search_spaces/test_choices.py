"""Choices that depend on the data: each offered one fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.choices import batch_size_near, batch_sizes, losses
from search_spaces.params import SpaceContext


def context(task: str = "single_label", train_count: int = 100) -> SpaceContext:
    return SpaceContext(task=task, class_count=3, train_count=train_count, backbones=("resnet18",))


@given(st.integers(1, 20_000), st.integers(1, 512))
def test_batch_sizes_are_filled_by_the_training_split(train_count: int, wanted: int) -> None:
    offered = batch_sizes(context(train_count=train_count))
    assert offered
    assert all(1 <= size <= train_count for size in offered)
    assert batch_size_near(wanted, context(train_count=train_count)) in offered


@pytest.mark.parametrize(
    ("train_count", "expected"), [(3, (3,)), (8, (8,)), (127, (8, 16, 32, 64)), (128, (8, 16, 32, 64, 128))]
)
def test_a_small_split_is_offered_small_batches(train_count: int, expected: tuple[int, ...]) -> None:
    assert batch_sizes(context(train_count=train_count)) == expected


def test_softmax_is_not_offered_for_several_labels() -> None:
    assert "cross_entropy" in losses(context("single_label"))
    assert "cross_entropy" not in losses(context("multi_label"))
