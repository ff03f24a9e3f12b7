"""Which samples are left, and how processes share them."""

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from rlcf.run.dealing import Dealt, left_to_do, shuffled
from rlcf.run.shard import Shard


def mask(size, done):
    found = np.zeros(size, bool)
    found[list(done)] = True
    return found


@pytest.mark.parametrize(
    ("done", "at_once", "left", "begun"),
    [
        ([], 1, [5, 3, 1, 4, 0, 2], []),
        ([3, 0], 1, [5, 1, 4, 2], []),
        ([5, 3], 2, [1, 4, 0, 2], []),
        ([5, 3, 4], 2, [1, 4, 0, 2], [4]),
        ([5, 3, 1, 4], 4, [0, 2], []),
        ([0], 4, [0, 2], [0]),
        (range(6), 4, [], []),
    ],
)
def test_groups_that_lack_a_record_are_left_whole(done, at_once, left, begun):
    if at_once == 4 and 5 not in done:
        left = [5, 3, 1, 4, *left]
    found = left_to_do([5, 3, 1, 4, 0, 2], mask(6, done), at_once)
    assert [part.tolist() for part in found] == [left, begun]


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.randoms())
def test_every_sample_goes_to_one_process_in_whole_groups(size, at_once, processes, random):
    store, order = dist.HashStore(), shuffled(size, 0, None)
    dealt = [Dealt(order, at_once, Shard(rank, processes, store)._counted("x")) for rank in range(processes)]
    portions, got = [each.portions() for each in dealt], [[] for _ in dealt]
    asking = list(range(processes))
    while asking:  # who asks next is chance
        rank = random.choice(asking)
        portion = next(portions[rank], None)
        if portion is None:
            asking.remove(rank)
        else:
            got[rank].append(portion)
    groups = [order[i : i + at_once] for i in range(0, size, at_once)]
    assert sorted(portion for own in got for portion in own) == sorted(groups)
    for each, own in zip(dealt, got, strict=True):
        assert own == [group for group in groups if group in own]  # in the order's order
        assert len(each) == size and each.others == size - sum(map(len, own))


def test_one_process_gets_all_in_their_order():
    dealt = Dealt([4, 2, 9], 2, Shard().numbers())
    assert list(dealt) == [4, 2, 9] and dealt.others == 0


def test_the_order_of_samples_is_a_permutation_that_the_seed_decides():
    assert sorted(shuffled(50, 0, None)) == list(range(50))
    assert shuffled(50, 0, None) == shuffled(50, 0, None) != shuffled(50, 1, None)
    assert shuffled(50, 0, 7) == shuffled(50, 0, None)[:7]
    assert shuffled(3, 0, 7) == shuffled(3, 0, None)
