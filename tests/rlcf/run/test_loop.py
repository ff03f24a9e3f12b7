"""The loop over samples, on a task that adds ten to numbers."""

import itertools
import time

import pytest
import torch

from rlcf.adapt.groups import GroupGivenUp, Unreadable
from rlcf.errors import UserError
from rlcf.run import loop
from rlcf.run.dealing import shuffled
from rlcf.run.loop import Figure, Work, run_samples
from rlcf.run.record_values import number
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from rlcf.run.summary import OK, UNREADABLE
from tests.tools import Results, break_off_after

IDS = [f"{letter}.png" for letter in "abcdefg"]
ORDER = shuffled(len(IDS), 0, None)
FIGURE = Figure("sum", lambda record: (record["before"], record["after"]), digits=0)


@pytest.fixture
def numbers(folder):
    """Runs the loop over seven numbers; returns its records and the groups that were adapted to."""

    def run(torn=(), give_up=(), arrays=None, figure=FIGURE, at_once=1, **settings):
        config = Config(output=str(folder), **settings)
        groups = []

        def samples(indices):
            return ((index, Unreadable(f"{IDS[index]} is torn") if index in torn else index) for index in indices)

        def adapt(group):
            groups.append([index for index, _ in group])
            if len(group) > 1 and set(groups[-1]) & set(give_up):
                raise GroupGivenUp
            return [value + 10 for _, value in group]

        def describe(index, outcome):
            return {"status": OK, "before": index, "after": outcome}, {"x": torch.tensor([float(outcome)])}

        work = Work(
            name="numbers",
            ids=IDS,
            samples=samples,
            adapt=adapt,
            about=lambda index: {"label": index % 2},
            describe=describe,
            kinds=lambda record: {"before": number(), "after": number()},
            figure=figure,
            at_once=at_once,
            arrays=arrays or {},
        )
        return list(run_samples(work, config, Run(config, Shard()))), groups

    return run


def test_every_sample_has_a_record_of_what_it_is_and_what_came_out(numbers, folder):
    records, _ = numbers()
    assert [list(record) for record in records] == [
        ["index", "id", "label", "status", "before", "after", "seconds"]
    ] * len(IDS)
    assert [(r["index"], r["id"], r["label"], r["after"]) for r in records] == [
        (index, IDS[index], index % 2, index + 10) for index in range(len(IDS))
    ]
    assert records == Results(folder).records("numbers", seconds=True)


def test_samples_are_visited_in_the_seeds_order_up_to_the_limit(numbers):
    _, groups = numbers(seed=3, limit=4)
    assert [index for (index,) in groups] == shuffled(len(IDS), 3, 4)


def test_several_samples_are_adapted_to_at_once(numbers):
    _, groups = numbers(at_once=3)
    assert [len(group) for group in groups] == [3, 3, 1] and [i for group in groups for i in group] == ORDER


def test_a_group_that_is_given_up_is_adapted_to_one_by_one_with_the_same_records(numbers, folder, tmp_path):
    alone, _ = numbers()
    folder.rename(tmp_path / "alone")
    together, groups = numbers(at_once=3, give_up=[2])
    assert [{**r, "seconds": 0} for r in together] == [{**r, "seconds": 0} for r in alone]
    assert sorted(len(group) for group in groups) in ([1, 1, 1, 1, 3, 3], [1, 1, 3, 3])


def test_what_cannot_be_read_stops_the_run_and_its_sample_comes_again(numbers):
    with pytest.raises(UserError, match=r"^d.png is torn; mend it or pass --skip-bad-images$"):
        numbers(torn=[3])
    records, groups = numbers()
    assert len(records) == len(IDS) and [3] in groups and len(groups) < len(IDS)


def test_what_cannot_be_read_has_a_record_with_the_reason_where_it_may_be_skipped(numbers, folder):
    records, _ = numbers(torn=[3], skip_bad_images=True, arrays={"x": 1})
    assert records[3] == {
        "index": 3, "id": "d.png", "label": 1, "status": UNREADABLE, "reason": "d.png is torn",
    }  # fmt: skip
    rows = Results(folder).logits("numbers")["x"][:, 0]
    assert rows.isnan().tolist() == [index == 3 for index in range(len(IDS))] and rows[4].item() == 14.0
    assert "skipped: d.png is torn" in (folder / "log.txt").read_text()


def test_a_broken_off_run_adapts_to_what_is_left(numbers, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_off_after(3, patch)
        numbers()
    records, groups = numbers()
    assert len(groups) == len(IDS) - 3 and [record["after"] for record in records] == list(range(10, 17))


def test_a_finished_run_adapts_to_nothing_and_has_its_records_again(numbers):
    records, _ = numbers()
    assert numbers() == (records, [])


class Bar:
    """The texts that a progress bar showed."""

    def __init__(self, desc, initial, total, disable):
        self.begun, self.said, self.n = (desc, initial, total), [], initial
        Bar.latest = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        self.n += count

    def set_postfix_str(self, text, refresh):
        self.said.append(text)


def test_the_progress_bar_shows_the_mean_before_and_after_and_goes_on_with_it(numbers, monkeypatch):
    monkeypatch.setattr(loop, "progress_bar", Bar)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_off_after(2, patch)
        numbers()
    first = sum(ORDER[:2]) / 2
    assert Bar.latest.begun == ("numbers", 0, 7) and Bar.latest.said[-1] == f"sum {first:.0f} -> {first + 10:.0f}"
    numbers()
    assert Bar.latest.begun == ("numbers", 2, 7) and len(Bar.latest.said) == 5 and Bar.latest.n == 7
    assert Bar.latest.said[-1] == "sum 3 -> 13"


def test_records_without_a_number_leave_the_mean(numbers, monkeypatch):
    monkeypatch.setattr(loop, "progress_bar", Bar)
    even = Figure("even", lambda record: None if record["label"] else (record["before"], 1.0))
    numbers(torn=[0], skip_bad_images=True, figure=even)
    assert Bar.latest.said[-1] == "even 4.0 -> 1.0"  # of 2, 4 and 6


def test_the_speed_is_told_after_the_first_sample_with_an_estimate_of_the_whole(numbers, monkeypatch, capsys, folder):
    clock = itertools.count(step=90.0)  # each look at it is 90 seconds later
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    numbers(at_once=2, torn=[ORDER[0]], skip_bad_images=True)
    said = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "first sample" in line]
    assert said == ["numbers: 1 min 30 s for the first sample, at most about 9 min for the 6 left"]
    assert said[0] in (folder / "log.txt").read_text()


def test_of_a_short_while_no_speed_is_told(numbers, capsys):
    numbers()
    assert "first sample" not in capsys.readouterr().err
