"""A run whose method carries something from sample to sample, broken off anywhere and taken up again."""

import math

import pytest
import torch

from rlcf.adapt.episode import Momentum
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from tests.tools import same

IDS = [f"{letter}.png" for letter in "abcdefgh"]
ALL = list(range(len(IDS)))


class Killed(BaseException):
    pass


DIRECTIONS = [-1.0, 2.0, -3.0, math.nan, 1.0, -2.0, -1.0, 3.0]
"""The value that the weight moves to, by sample."""


class Stream:
    """Episodes over one weight with a momentum buffer, recorded; `stop` = (sample, where) breaks off there."""

    def __init__(self, begin, how="interrupt"):
        self.records = begin({"x": 1}, buffer=Momentum(decay=0.3, every=3, weight=0.7))
        self.episodes = self.records.memory
        self.weight = self.episodes.tuned["p"]
        self.how = how

    def go(self, stop=(None, None)):
        error = {"interrupt": KeyboardInterrupt, "kill": Killed}[self.how]

        def reach(index, where):
            if stop == (index, where):
                raise error

        def loss(index):
            reach(index, "loss")
            return DIRECTIONS[index] * self.weight.sum()

        def answer(index):
            reach(index, "answer")
            return self.weight.item()

        try:
            if self.how == "interrupt":
                self.records.__enter__()
            for index in self.records.todo(ALL):
                value = self.episodes.run(lambda step, index=index: loss(index), lambda index=index: answer(index))
                reach(index, "record")
                status = "non-finite" if value is None else "ok"
                self.records.add(
                    {"index": index, "id": IDS[index], "status": status, "p": value},
                    {"x": torch.tensor([float(index)])},
                )
        finally:
            if self.how == "interrupt":
                self.records.__exit__()


@pytest.fixture
def uninterrupted(tmp_path, folder, begin):
    stream = Stream(begin)
    stream.go()
    result = stream.episodes.state_dict(), list(stream.records.finish())
    folder.rename(tmp_path / "uninterrupted")
    return result


@pytest.mark.parametrize("how", ["interrupt", "kill"])
@pytest.mark.parametrize("where", ["loss", "answer", "record"])
def test_a_run_with_momentum_goes_on_bit_for_bit_where_it_was_broken_off(
    folder, begin, uninterrupted, how, where, tmp_path
):
    state, expected = uninterrupted
    for stop in range(len(IDS)):
        if math.isnan(DIRECTIONS[stop]) and where == "answer":
            continue  # no answer is asked of a loss that is not finite
        with pytest.raises((KeyboardInterrupt, Killed)):
            Stream(begin, how).go((stop, where))
        again = Stream(begin, how)
        again.go()
        assert same(again.episodes.state_dict(), state)
        assert list(again.records.finish()) == expected
        assert again.records.saved_arrays()["x"][:, 0].tolist() == ALL
        folder.rename(tmp_path / f"stop{stop}")


def test_records_newer_than_the_momentum_state_come_again_after_a_kill(begin):
    with pytest.raises(Killed):
        Stream(begin, "kill").go((5, "loss"))
    assert list(Stream(begin).records.todo(ALL)) == [3, 4, 5, 6, 7]


def test_an_interrupted_run_with_momentum_loses_no_record(begin):
    with pytest.raises(KeyboardInterrupt):
        Stream(begin).go((5, "loss"))
    assert list(Stream(begin).records.todo(ALL)) == [5, 6, 7]


def test_the_momentum_state_goes_with_the_parts(folder, begin):
    stream = Stream(begin)
    stream.go()
    assert (folder / "d" / "momentum.safetensors").exists()
    stream.records.finish()
    names = sorted(file.name for file in (folder / "d").iterdir())
    assert names == ["identity.json", "logits.safetensors", "records.jsonl", "records.sums"]


# ---- any other memory ----


class Cache:
    """The memory of a method without gradients: the values of all samples so far."""

    def __init__(self, every=1):
        self.every, self.values = every, []

    @property
    def updates(self):
        return len(self.values)

    def state_dict(self):
        return {"values": torch.tensor(self.values)}

    def load_state_dict(self, state):
        self.values = state["values"].tolist() if state else []


def through(folder, cache, stop=None):
    """Records the sum of all values so far, sample by sample."""
    records = Run(Config(output=str(folder)), Shard()).records("d", IDS, cache)
    with records:
        for index in records.todo(ALL):
            if index == stop:
                raise KeyboardInterrupt
            cache.values.append(float(index))
            records.add({"index": index, "id": IDS[index], "status": "ok", "sum": sum(cache.values)})
    return records


@pytest.mark.parametrize("stop", ALL)
def test_any_memory_with_the_same_four_members_is_kept_and_taken_up(folder, stop):
    with pytest.raises(KeyboardInterrupt):
        through(folder, Cache(), stop)
    cache = Cache()
    records = through(folder, cache).finish()
    assert [record["sum"] for record in records] == [sum(range(index + 1)) for index in ALL] and cache.updates == len(
        ALL
    )


def test_a_memory_is_kept_on_disk_every_so_many_samples(folder, monkeypatch):
    kept = []
    monkeypatch.setattr("rlcf.run.carried.save_atomically", lambda file, state, told: kept.append(len(state["values"])))
    through(folder, Cache(every=3))
    assert kept == [3, 6, 8]  # and as the loop is left


def test_a_memory_that_has_seen_more_than_the_records_tell_is_not_kept(folder):
    through(folder, Cache(), None).finish()
    (folder / "d" / "records.jsonl").rename(folder / "d" / "records.part0.jsonl")
    ahead = Cache()
    records = Run(Config(output=str(folder)), Shard()).records("d", IDS, ahead)
    ahead.values = [1.0] * 99
    with records:
        pass
    assert not (folder / "d" / "momentum.safetensors").exists()
