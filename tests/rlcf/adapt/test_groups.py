import pytest

from rlcf.adapt.groups import GroupGivenUp, Unreadable, in_groups, side_by_side

TORN = Unreadable("2.png is torn")


def adapter(calls, give_up=()):
    """Adapts by tens; a group of several gives up when one of `give_up` is in it."""

    def adapt(group):
        calls.append([index for index, _ in group])
        if len(group) > 1 and set(calls[-1]) & set(give_up):
            raise GroupGivenUp
        return [10 * sample for _, sample in group]

    return adapt


def test_every_sample_is_adapted_to_once_and_unreadable_ones_are_told():
    calls = []
    samples = [(4, 1), (2, TORN), (0, 2), (3, 3), (1, 4), (5, 5)]
    found = list(in_groups(iter(samples), 2, adapter(calls)))
    assert {index: outcome for index, outcome, _ in found} == {4: 10, 2: TORN, 0: 20, 3: 30, 1: 40, 5: 50}
    assert calls == [[4], [0, 3], [1, 5]]
    assert all((seconds == 0) == (outcome is TORN) for _, outcome, seconds in found)


def test_a_text_is_a_sample_and_never_an_error():
    found = list(in_groups(iter([(0, "dog"), (1, "cat")]), 2, lambda group: [text.upper() for _, text in group]))
    assert [outcome for _, outcome, _ in found] == ["DOG", "CAT"]


def test_one_at_a_time_keeps_the_order():
    calls = []
    samples = [(2, 1), (0, TORN), (1, 2)]
    found = [(index, outcome) for index, outcome, _ in in_groups(iter(samples), 1, adapter(calls))]
    assert found == [(2, 10), (0, TORN), (1, 20)] and calls == [[2], [1]]


def test_a_group_of_unreadable_samples_asks_nothing():
    calls = []
    assert [outcome for _, outcome, _ in in_groups(iter([(0, TORN), (1, TORN)]), 2, adapter(calls))] == [TORN, TORN]
    assert calls == []


def test_samples_share_the_seconds_of_their_group(monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 11.0])
    monkeypatch.setattr("rlcf.adapt.groups.time.perf_counter", lambda: next(clock))
    samples = iter([(0, 1), (1, 2), (2, TORN), (3, 4)])
    assert [seconds for *_, seconds in in_groups(samples, 2, adapter([]))] == [1.5, 1.5, 1.0, 0.0]


def test_when_one_of_several_is_given_up_each_is_adapted_to_alone():
    calls = []
    assert side_by_side([(5, 1), (6, 2), (7, 3)], adapter(calls, give_up={6})) == [10, 20, 30]
    assert calls == [[5, 6, 7], [5], [6], [7]]


def test_a_sample_alone_that_is_given_up_is_an_error_of_the_method():
    def adapt(group):
        raise GroupGivenUp

    with pytest.raises(GroupGivenUp):
        side_by_side([(0, 1)], adapt)


def test_a_group_of_none_asks_nothing():
    assert side_by_side([], adapter(calls := [])) == [] and calls == []
