import json

import numpy as np
import pytest
import torch

from rlcf.errors import UserError
from rlcf.metrics import paired_bootstrap
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from rlcf.run.summary import NON_FINITE, OK, UNREADABLE, answered, gain, in_one_pass, interval, report, tail

CPU = torch.device("cpu")
RECORDS = [
    {"status": OK, "seconds": 1.0, "rank": 3},
    {"status": UNREADABLE},
    {"status": NON_FINITE, "seconds": 4.0, "rank": 2},
    {"status": OK, "seconds": 1.0, "rank": 1},
]
GAIN = {"mean": 12.5, "low": -8.0, "high": 17.26}


def test_samples_without_an_image_have_no_answer():
    assert list(answered(RECORDS)) == [RECORDS[0], RECORDS[2], RECORDS[3]]


def passed(records):
    return in_one_pass(iter(records), [("rank", "i4")], lambda record: (record["rank"],))


def test_a_dataset_of_unreadable_images_is_told():
    with pytest.raises(UserError, match=r"^none of the images could be read; records\.jsonl tells why$"):
        passed([{"status": UNREADABLE}] * 2)


def test_samples_are_counted_by_what_became_of_them_and_seconds_are_a_mean():
    counts, rows = passed(RECORDS)
    assert counts == {"n": 3, "unreadable": 1, "non_finite": 1, "seconds_per_sample": 2.0}
    assert rows["rank"].tolist() == [3, 2, 1] and rows["non_finite"].tolist() == [False, True, False]


def test_what_the_gate_saves_is_the_difference_of_the_mean_seconds():
    gated = [{"status": OK, "seconds": 0.5, "rank": 1, "gated": True}] * 2
    counts, _ = passed([*gated, *RECORDS])
    assert (counts["gated"], counts["seconds_saved"]) == (2, 2 * (2.0 - 0.5))
    assert "seconds_saved" not in passed(gated)[0]


def test_episodes_that_could_end_early_are_counted_with_their_mean_steps():
    further = [{"settled": True, "steps_taken": 2}, {}, {"settled": False, "steps_taken": 5}, {"gated": True}]
    found, _ = passed([record | more for record, more in zip(RECORDS, further, strict=True)])
    assert (found["settled"], found["mean_steps"], found["gated"]) == (1, 3.5, 1)


def test_a_gain_is_the_bootstraps_mean_and_interval_scaled():
    before, after, groups = np.array([0, 1, 0, 1]), np.array([1, 1, 0, 1]), [0, 0, 1, 1]
    expected = [100.0 * value for value in paired_bootstrap(before, after, groups=groups)]
    found = gain(before, after, scale=100.0, groups=groups)
    assert list(found) == ["mean", "low", "high"] and list(found.values()) == expected
    assert gain(before, after)["mean"] == 0.25


def test_a_gain_is_printed_with_its_sign_name_and_digits():
    assert interval(GAIN, digits=2, name="CIDEr") == "CIDEr +12.50, 95% interval -8.00 to +17.26"


@pytest.mark.parametrize(
    ("changed", "further", "expected"),
    [
        ({}, [], ", 2.000 s an image"),
        ({"non_finite": 3}, [], ", 2.000 s an image, 3 kept zero-shot (not finite)"),
        (
            {"settled": 4, "mean_steps": 2.25},
            [],
            ", 2.000 s an image, 4 ended early, settled (mean 2.2 steps)",
        ),
        ({"unreadable": 1}, [(0, "empty"), (2, "cut")], ", 2.000 s an image, 1 unreadable, 2 cut"),
    ],
)
def test_the_tail_tells_counts_that_are_not_zero(changed, further, expected):
    summary = {"seconds_per_sample": 2.0, "non_finite": 0, "unreadable": 0} | changed
    assert tail(summary, "an image", further) == expected


def test_a_report_is_written_and_printed(folder, capsys):
    report(Run(Config(output=str(folder)), Shard()), "d", {"n": 3}, "d: n 3", CPU)
    metrics = json.loads((folder / "results.json").read_text())["datasets"]["d"]
    assert metrics["n"] == 3 and metrics["peak_memory_mb"] > 0 and capsys.readouterr().out == "d: n 3\n"


def test_other_processes_report_nothing(folder, capsys):
    class Second(Shard):
        def from_first(self, work):
            return None

    report(Run(Config(output=str(folder)), Second(1, 2)), "d", {"n": 3}, "d: n 3", CPU)
    assert not (folder / "results.json").exists() and capsys.readouterr().out == ""
