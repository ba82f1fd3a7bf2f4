"""The order of an epoch: everyone once, whoever asks, and exactly resumable."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthg.errors import FasthgError
from training.loading.sampling import EpochOrder

WORLDS = st.integers(1, 5)


def rows_of(order, epoch=0, start=0):
    return [batch.rows.tolist() for batch in order.batches(epoch, start)]


@settings(max_examples=60, deadline=None)
@given(num_people=st.integers(5, 60), batch_size=st.integers(1, 7), world=WORLDS, shuffle=st.booleans())
def test_the_ranks_see_everyone_exactly_once(num_people, batch_size, world, shuffle):
    orders = [EpochOrder(num_people, batch_size, 1, shuffle, rank, world) for rank in range(world)]
    seen = [row for order in orders for batch in rows_of(order, epoch=2) for row in batch]
    assert sorted(seen) == list(range(num_people))
    for order in orders:
        batches = rows_of(order, epoch=2)
        assert len(batches) == len(order)
        assert sum(map(len, batches)) == order.rows_per_epoch
        assert all(len(batch) == batch_size for batch in batches[:-1])


@settings(max_examples=60, deadline=None)
@given(num_people=st.integers(40, 90), batch_size=st.integers(1, 7), world=WORLDS)
def test_collective_training_gets_equally_many_whole_batches_on_every_rank(num_people, batch_size, world):
    ranks = [rows_of(EpochOrder(num_people, batch_size, 1, True, rank, world, drop_last=True)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {num_people // (batch_size * world)}
    assert {len(batch) for batches in ranks for batch in batches} == {batch_size}
    seen = [row for batches in ranks for batch in batches for row in batch]
    assert len(set(seen)) == len(seen)


def test_two_ranks_share_the_batch_that_one_process_would_take():
    alone = rows_of(EpochOrder(50, 8, seed=4, shuffle=True, drop_last=True), epoch=3)
    ranks = [rows_of(EpochOrder(50, 4, 4, True, rank, 2, drop_last=True), epoch=3) for rank in range(2)]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert sorted(whole) == sorted(first + second)


def test_the_order_is_a_function_of_seed_and_epoch():
    first = rows_of(EpochOrder(40, 6, seed=1, shuffle=True), epoch=5)
    assert first == rows_of(EpochOrder(40, 6, seed=1, shuffle=True), epoch=5)
    assert first != rows_of(EpochOrder(40, 6, seed=1, shuffle=True), epoch=6)
    assert first != rows_of(EpochOrder(40, 6, seed=2, shuffle=True), epoch=5)
    assert rows_of(EpochOrder(5, 2)) == [[0, 1], [2, 3], [4]]


def test_a_run_that_stopped_after_three_batches_goes_on_with_the_fourth():
    order = EpochOrder(40, 6, seed=1, shuffle=True, rank=1, world_size=2)
    assert rows_of(order, epoch=5, start=3) == rows_of(order, epoch=5)[3:]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"num_people": 10, "batch_size": 0}, "batch size is 0"),
        ({"num_people": 10, "batch_size": 2, "rank": 2, "world_size": 2}, "rank is 2 of 2"),
        ({"num_people": 10, "batch_size": 11, "drop_last": True}, "10 people make no batch of 11"),
        ({"num_people": 1, "batch_size": 1, "rank": 1, "world_size": 2}, "1 people make no batch"),
    ],
)
def test_what_makes_no_batch_is_refused(arguments, named):
    with pytest.raises(FasthgError, match=named):
        EpochOrder(**arguments)


def test_rows_index_the_people_as_int64():
    assert next(EpochOrder(5, 2).batches(0)).rows.dtype == np.int64
