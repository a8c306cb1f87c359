"""Batches are the same on one process and on several."""

from __future__ import annotations

from itertools import chain

import pytest

from anomalyclip_monai.engines.prompts import GlobalBatches


def batches_of(rank: int, world: int, epoch: int = 1, seed: int = 111, count: int = 9) -> GlobalBatches:
    batches = GlobalBatches(count, 4, seed)
    batches.rank, batches.world = rank, world
    batches.set_epoch(epoch)
    return batches


def test_each_epoch_holds_every_sample_once_in_another_order():
    first, again, second = (list(batches_of(0, 1, epoch)) for epoch in (1, 1, 2))
    assert [len(batch) for batch in first] == [4, 4, 1]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(9))
    assert first == again != second
    assert first != list(batches_of(0, 1, seed=5))


@pytest.mark.parametrize("world", [2, 3])
def test_shares_of_a_batch_are_the_batch(world):
    whole = list(batches_of(0, 1))
    shares = [batches_of(rank, world) for rank in range(world)]
    for iteration, parts in enumerate(zip(*shares, strict=True), start=1):
        counted = []
        for share, part in zip(shares, parts, strict=True):
            mine, everyone = share.share(iteration)
            assert everyone == len(whole[iteration - 1])
            assert len(part) == max(1, mine)  # a process without a share computes something all the same
            counted += part[:mine]
        assert sorted(counted) == sorted(whole[iteration - 1])


def test_shares_go_on_in_the_next_epoch():
    batches = batches_of(1, 2)
    assert [batches.share(iteration) for iteration in range(1, 7)] == 2 * [(2, 4), (2, 4), (0, 1)]


def test_a_batch_holds_at_least_one_sample():
    with pytest.raises(ValueError, match="batch_size"):
        GlobalBatches(9, 0, 1)
