from rlcf.adapt.groups import in_groups, side_by_side


def adapter(calls, give_up=()):
    """Adapts by tens; a group of several gives up when one of `give_up` is in it."""

    def adapt(group):
        calls.append([index for index, _ in group])
        return [] if len(group) > 1 and set(calls[-1]) & set(give_up) else [10 * sample for _, sample in group]

    return adapt


def test_every_sample_is_adapted_to_once_and_unreadable_ones_are_told():
    calls = []
    samples = [(4, 1), (2, "torn"), (0, 2), (3, 3), (1, 4), (5, 5)]
    found = list(in_groups(iter(samples), 2, adapter(calls)))
    assert {index: outcome for index, outcome, _ in found} == {4: 10, 2: "torn", 0: 20, 3: 30, 1: 40, 5: 50}
    assert calls == [[4], [0, 3], [1, 5]]
    assert all(seconds >= 0 for *_, seconds in found)


def test_one_at_a_time_keeps_the_order():
    calls = []
    samples = [(2, 1), (0, "torn"), (1, 2)]
    found = [(index, outcome) for index, outcome, _ in in_groups(iter(samples), 1, adapter(calls))]
    assert found == [(2, 10), (0, "torn"), (1, 20)] and calls == [[2], [1]]


def test_when_one_of_several_is_given_up_each_is_adapted_to_alone():
    calls = []
    assert side_by_side([(5, 1), (6, 2), (7, 3)], adapter(calls, give_up={6})) == [10, 20, 30]
    assert calls == [[5, 6, 7], [5], [6], [7]]


def test_a_group_of_none_asks_nothing():
    assert side_by_side([], adapter(calls := [])) == [] and calls == []
