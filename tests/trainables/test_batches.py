"""Which images stand in which batch, and that they come from the right rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.batches import Batches, batch_count, plan_batches

CPU = torch.device("cpu")


@given(count=st.integers(1, 200), size=st.integers(1, 40), seed=st.none() | st.integers(0, 5))
def test_every_image_stands_in_exactly_one_batch_and_none_is_left_alone(count, size, seed):
    plan = plan_batches(count, size, None if seed is None else torch.Generator().manual_seed(seed))
    assert sorted(np.concatenate(plan)) == list(range(count))
    assert all(len(batch) == size for batch in plan[:-1])
    assert size == 1 or count == 1 or all(len(batch) > 1 for batch in plan)
    assert len(plan) == batch_count(count, size)


def test_a_single_image_at_the_end_joins_the_batch_before():
    assert [len(batch) for batch in plan_batches(9, 4, None)] == [4, 5]
    assert [len(batch) for batch in plan_batches(10, 4, None)] == [4, 4, 2]


def test_without_a_generator_images_come_in_order_and_with_one_each_epoch_is_shuffled_anew():
    generator = torch.Generator().manual_seed(0)
    first, second = (plan_batches(50, 10, generator) for _ in range(2))
    assert np.concatenate(plan_batches(50, 10, None)).tolist() == list(range(50))
    assert set(first[0]) != set(second[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_holds_the_rows_of_its_images_from_a_read_only_map(tmp_path, channels):
    stored = np.random.default_rng(0).integers(0, 256, (12, channels, 5, 5), dtype=np.uint8)
    np.save(tmp_path / "store.npy", stored)
    rows = np.array([11, 3, 7, 0])
    batches = Batches(np.load(tmp_path / "store.npy", mmap_mode="r"), rows, np.array([2, 1, 0, 1]), CPU)
    images, labels = batches.take(np.array([0, 2]))
    assert (images.numpy() == stored[[11, 7]]).all()
    assert labels.tolist() == [2, 0]
    assert len(batches) == 4
