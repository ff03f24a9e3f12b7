"""The report's numbers: worked out by hand, or those of the run's own summary."""

import json

import numpy as np
import pytest

from classification.metrics import summarise
from rlcf.metrics import calibration_error
from rlcf.report.numbers import main_metric
from rlcf.report.parts import TOGETHER, comparisons_of, parts_of
from rlcf.report.runs import read_runs
from tests.records import captioned, classified, retrieved, unreadable

# label, zero-shot, adapted: fixed, spoilt, right twice, wrong twice
ANSWERS = [(0, 1, 0), (1, 1, 2), (2, 2, 2), (0, 2, 1)]


def records(answers=ANSWERS, start=0, **changed):
    return [classified(start + i, *answer, **changed) for i, answer in enumerate(answers)]


def parts(*runs):
    return parts_of(read_runs(runs))


def test_the_metrics_are_those_of_the_runs_own_summary(write_run):
    rows = records(ANSWERS * 10)
    for i, row in enumerate(rows):
        row |= {"index": i, "id": f"{i}.png", "zero_shot_confidence": 0.3 + 0.01 * i}
    (part,) = parts(write_run({"folder": rows}, pictures=False))
    summary = summarise(rows)
    found = {metric.name: metric for metric in part.metrics}
    assert next(iter(found)) == part.metric == "top-1"
    for name, key in (("top-1", "top1"), ("top-5", "top5"), ("ECE", "ece")):
        for when in ("zero_shot", "adapted"):
            value = found[name].before if when == "zero_shot" else found[name].after
            assert value.mean == pytest.approx(summary[when][key]) and value.low <= value.mean <= value.high
    assert found["top-1"].gain.mean == pytest.approx(summary["top1_gain"]["mean"])
    assert part.kinds == {"fixed": summary["fixed"], "spoilt": summary["spoilt"], "unchanged": 20}


def test_a_sample_is_of_one_kind(write_run):
    rows = [*records(), classified(4, 0, 0, 0, status="non-finite"), unreadable(5, label=1, label_name="dog")]
    (part,) = parts(write_run({"folder": rows}))
    kinds = [sample.kind(part.metric) for sample in part.samples]
    assert kinds == ["fixed", "spoilt", "unchanged", "unchanged", "not finite", "unreadable"]
    assert part.metrics[0].n == 5  # an image that cannot be read counts nowhere


def test_the_reward_of_an_answer_is_its_mean_over_the_views_it_was_sampled_of(write_run):
    row = classified(0, 0, 1, 0, rewards=(0.5, 1.0, 0.25))
    (part,) = parts(write_run({"folder": [row]}))
    # "dog" has 1.0 from both views, "cat" 0.5 from one and 0.5 from the other.
    assert part.samples[0].rewards == (1.0, 0.5) and part.samples[0].reward_gain == -0.5
    row["steps"][0] |= {
        "answers": [[1, 2], [1, 2]],
        "rewards": [[1.0, 0.0], [0.5, None]],
        "advantages": [[0.5, -0.5], [0, None]],
    }
    (part,) = parts(write_run({"folder": [row]}, "other"))
    assert part.samples[0].rewards == (0.75, None) and part.samples[0].reward_gain is None


def test_pictures_without_labels_are_changed_or_not(write_run):
    rows = records()
    for row in rows:
        del row["label"], row["label_name"]
    (part,) = parts(write_run({"folder": rows}))
    assert part.metric is None and part.metrics == [] and part.groups == []
    assert part.kinds == {"changed": 3, "unchanged": 1}


def test_classes_have_their_accuracy_before_and_after(write_run):
    (part,) = parts(write_run({"folder": records()}))
    assert [(group.name, group.n, group.before, group.after) for group in part.groups] == [
        ("cat", 2, 0.0, 50.0),
        ("dog", 1, 100.0, 0.0),
        ("owl", 1, 100.0, 100.0),
    ]


def test_texts_of_one_image_are_not_independent(write_run):
    """Both texts of an image have the same fate, so that six texts are no more than three images."""
    rows = [retrieved(i, (2, 1) if i // 2 == 0 else (1, 1)) for i in range(6)]
    (part,) = parts(write_run({"json:x-t2i": rows}, task="retrieval"))
    assert part.metric == "R@1" and part.samples[0].query == "text 0" and part.samples[0].truth == ["a.png"]
    gain = part.metrics[0].gain
    assert gain.mean == pytest.approx(100 / 3) and gain.high == pytest.approx(100.0)


def test_captions_are_judged_by_cider_where_they_were_scored(write_run):
    rows = [captioned(0, "a", "b", (0.1, 0.5)), captioned(1, "c", "d", (0.4, 0.2)), captioned(2, "e", "e", (0.3, 0.3))]
    folder = write_run({"folder": rows}, task="captioning")
    (part,) = parts(folder)
    assert part.metric == "reward" and part.kinds == {"fixed": 1, "spoilt": 1, "unchanged": 1}
    scores = {"each-scores-zero-shot.json": (1.0, 0.5, 0.7), "each-scores.json": (0.5, 1.0, 0.7)}
    for name, values in scores.items():
        each = {f"{i}.png": {"CIDEr": value, "BLEU-4": value} for i, value in enumerate(values)}
        (folder / "folder" / name).write_text(json.dumps(each))
    held = json.loads((folder / "results.json").read_text())
    held["datasets"]["folder"] = {"zero_shot": {"BLEU-4": 0.31}, "adapted": {"BLEU-4": 0.32}}
    (folder / "results.json").write_text(json.dumps(held))
    (part,) = parts(folder)
    found = {metric.name: metric for metric in part.metrics}
    assert part.metric == "CIDEr" and [s.kind("CIDEr") for s in part.samples] == ["spoilt", "fixed", "unchanged"]
    assert found["CIDEr"].before.mean == pytest.approx(100 * np.mean([1.0, 0.5, 0.7]))
    assert (found["BLEU-4"].before.mean, found["BLEU-4"].after.mean) == pytest.approx((31.0, 32.0))  # of the corpus


def test_runs_are_compared_on_the_samples_that_both_have(write_run):
    first = write_run({"folder": records([(0, 1, 1)] * 30)}, "first")
    second = write_run({"folder": records([(0, 1, 0)] * 20, start=15)}, "second")
    (found,) = comparisons_of(parts(first, second))
    assert (found.matched, found.sizes) == (15, {"first": 30, "second": 20})
    assert [(m.name, m.value.mean) for m in found.methods] == [("zero-shot", 0.0), ("first", 0.0), ("second", 100.0)]
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.matched, pair.difference.mean) == ("first", "second", 15, 100.0)
    assert pair.p == pair.adjusted < 0.001
    assert found.methods[1].p == 1.0 and found.methods[0].seconds is None and found.methods[2].seconds > 0


def test_runs_that_share_no_sample_say_so(write_run):
    first, second = write_run({"folder": records()}, "first"), write_run({"folder": records(start=9)}, "second")
    (found,) = comparisons_of(parts(first, second))
    assert (found.matched, found.methods, found.pairs) == (0, [], [])


def test_samples_of_equal_ids_in_other_datasets_are_others(write_run):
    folders = [write_run({"folder:a": records(), "folder:b": records()}, name) for name in ("first", "second")]
    found = comparisons_of(parts(*folders))
    assert [(one.name, one.matched) for one in found] == [(TOGETHER, 8), ("folder:a", 4), ("folder:b", 4)]


def test_other_zero_shot_answers_are_told_apart(write_run):
    first = write_run({"folder": records()}, "first")
    second = write_run({"folder": records([(0, 0, 0)] * 4)}, "second")
    (found,) = comparisons_of(parts(first, second))
    assert [m.name for m in found.methods][:2] == ["zero-shot of first", "zero-shot of second"]
    assert found.zero_shot is None


def test_unreadable_images_alone_make_no_metric(write_run):
    (part,) = parts(write_run({"folder": [unreadable(0, label=0, label_name="cat")]}))
    assert (
        main_metric("classification", part.samples) is None and part.metrics == [] and part.kinds == {"unreadable": 1}
    )


def test_the_calibration_error_has_an_interval_around_it():
    assert calibration_error([0.9, 0.9], [1, 0]) == pytest.approx(40.0)
