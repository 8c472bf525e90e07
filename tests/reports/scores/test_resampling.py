"""Resamples of patients: whole ones, every class in each, the same for all who ask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.scores.resampling import draw_resamples


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 2)), min_size=1, max_size=30),
    st.integers(0, 5),
)
def test_a_resample_draws_as_many_groups_as_there_are_and_has_every_class(rows, seed):
    groups, labels = [name for name, _ in rows], np.array([label for _, label in rows])
    resamples = draw_resamples(groups, labels, 3, replicates=20, seed=seed)
    assert resamples.groups == len({name for name in groups if name}) + groups.count("")
    assert (resamples.counts.sum(axis=1) == resamples.groups).all()
    weights = resamples.counts[:, resamples.member]
    for label in np.unique(labels):
        assert (weights[:, labels == label].sum(axis=1) > 0).all()
    for name in set(groups) - {""}:
        of_patient = weights[:, np.array(groups) == name]
        assert (of_patient == of_patient[:, :1]).all()


def test_images_without_a_group_are_drawn_one_by_one():
    resamples = draw_resamples(["", "p", "", "p", ""], np.zeros(5, dtype=int), 1)
    assert resamples.member.tolist() == [0, 1, 2, 1, 3]
    assert not resamples.one_image_each
    assert draw_resamples(["", "p", "q"], np.zeros(3, dtype=int), 1).one_image_each


def test_the_same_seed_gives_the_same_resamples_and_another_seed_others():
    labels = np.arange(60) % 3
    first, again, other = (draw_resamples([""] * 60, labels, 3, replicates=50, seed=seed).counts for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_group_is_drawn_once_on_average_with_the_variance_of_a_multinomial():
    counts = draw_resamples([""] * 40, np.zeros(40, dtype=int), 1, replicates=5000).counts
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.08)
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.02)


def test_resamples_that_lack_a_class_are_redrawn_and_counted():
    labels = np.array([0, *[1] * 19])  # a resample lacks the one image of class 0 with probability .95^20 = .358
    resamples = draw_resamples([""] * 20, labels, 2, replicates=2000)
    assert resamples.replicates == 2000
    assert resamples.redrawn / (2000 + resamples.redrawn) == pytest.approx(0.95**20, abs=0.03)


def test_a_label_needs_an_image_with_it_and_one_without_it():
    labels = np.array([[1, 0], *[[1, 1]] * 9, *[[0, 1]] * 10])
    weights = draw_resamples([""] * 20, labels, 2, replicates=200).counts
    assert (weights[:, labels[:, 1] == 0].sum(axis=1) > 0).all()


def test_a_class_that_no_image_has_is_not_waited_for():
    resamples = draw_resamples([""] * 10, np.zeros(10, dtype=int), 3)
    assert (resamples.replicates, resamples.redrawn) == (2000, 0)
    every = draw_resamples([""] * 10, np.ones((10, 2), dtype=int), 2)
    assert (every.replicates, every.redrawn) == (2000, 0)


def test_where_hardly_any_resample_has_every_class_fewer_are_drawn():
    # All twelve of twelve: a share of 12! / 12^12 = .00005 of the resamples.
    resamples = draw_resamples([""] * 12, np.arange(12), 12, replicates=100)
    assert resamples.replicates < 10
    assert resamples.redrawn + resamples.replicates >= 5000


def test_each_group_is_left_out_once():
    resamples = draw_resamples(["p", "q", "p", ""], np.zeros(4, dtype=int), 1)
    np.testing.assert_array_equal(resamples.left_out.sum(axis=0), [2, 2, 2])
    np.testing.assert_array_equal(resamples.left_out.sum(axis=1), [2, 2, 2])
    assert draw_resamples(["p", "p"], np.zeros(2, dtype=int), 1).left_out.shape == (0, 1)
    many = draw_resamples([""] * 2500, np.zeros(2500, dtype=int), 1, replicates=1).left_out
    assert many.shape == (1000, 2500)
    assert ((many == 0).sum(axis=0) == 1).all()
