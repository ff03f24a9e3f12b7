"""The report of a real run, and the records that it is made of."""

import json

import pytest

from rlcf.report.main import main as report
from rlcf.report.parts import parts_of
from rlcf.report.runs import read_runs
from tests.classification.conftest import EMOJI


def test_a_record_can_be_read_by_itself(classify):
    for record in classify("--limit", 3, "--save-logits").records():
        assert record["label_name"] == EMOJI[record["label"]]
        assert record["zero_shot_name"] == EMOJI[record["zero_shot"]]
        assert record["adapted_name"] == EMOJI[record["adapted"]]
        sampled = {answer for step in record["steps"] for row in step["answers"] for answer in row}
        mentioned = sampled | {*record["zero_shot_top5"], *record["adapted_top5"]}
        assert record["names"] == {str(number): EMOJI[number] for number in sorted(mentioned)}


def test_results_name_the_fixed_and_the_spoilt(classify):
    results = classify("--tune", "norm")
    metrics, records = results.metrics["folder:blur"], results.records()
    right = [(r["zero_shot"] == r["label"], r["adapted"] == r["label"]) for r in records]
    assert (metrics["fixed"], metrics["spoilt"]) == (right.count((False, True)), right.count((True, False)))


@pytest.mark.parametrize("flags", [["--save-logits"], ["--method", "tpt"], ["--method", "zero"], ["--gate", "agree"]])
def test_a_runs_report_has_its_metrics_pictures_and_steps(classify, capsys, tmp_path, flags):
    results = classify("--limit", 5, *flags)
    report([str(results.folder), "--output", str(tmp_path / "page.html")])
    assert f"report: {tmp_path}/page.html" in capsys.readouterr().out
    (part,) = parts_of(read_runs([results.folder]))
    metrics = results.metrics["folder:blur"]
    assert part.metrics[0].after.mean == pytest.approx(metrics["adapted"]["top1"])
    assert [len(sample.steps) for sample in part.samples] == [len(record["steps"]) for record in results.records()]
    page = (tmp_path / "page.html").read_text()
    assert len(page.split('id="pictures-0">')[1].split("<")[0].splitlines()) == 5


def test_the_folder_of_the_images_is_told_and_is_no_part_of_a_runs_identity(classify, emoji):
    results = classify("--limit", 2)
    file = results.folder / "folder-blur" / "images.json"
    assert json.loads(file.read_text()) == {"folder": str(emoji / "blur")}
    file.write_text("{")
    classify("--limit", 2)  # is written anew
    assert json.loads(file.read_text()) == {"folder": str(emoji / "blur")}
