"""Each benchmark as a user starts it, on tiny models; what its table compares must agree."""

import json
from dataclasses import replace

import pytest

from benchmarks import captioning, classification, gallery, images_at_once, precision, retrieval, settled
from benchmarks.measure import GemmRate
from rlcf.errors import UserError


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """The table that a benchmark prints, and its JSON."""
    monkeypatch.setattr(GemmRate, "SIDES", {"cpu": 256})

    def start(script, *flags):
        file = tmp_path / "results" / "table.json"
        script.main([*flags, "--output", str(file)])
        return capsys.readouterr().out, json.loads(file.read_text())

    return start


def test_every_fast_path_of_classification_has_the_loops_logits(run):
    printed, content = run(classification, "--repeats", "1")
    rows = {row["work"]: row for row in content["rows"]}
    assert list(rows) == [
        "RLCF image-encoder, 200 classes, 3 steps",
        "RLCF prompt, 200 classes, 3 steps",
        "TPT prompt, 200 classes, 1 step",
        "CTPT prompt, 200 classes, 1 step",
        "RLCF prompt, 1000 classes, 3 steps (loop extrapolated)",
        "ZERO, 200 classes",
        "MTA, 200 classes",
    ]
    for work, row in rows.items():
        assert row["difference"] < 5e-4 and row["moved"] > 0.1 and work in printed
        assert row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"] and row["repeats"] == 1
        assert row["fast_mb"] > 100 and row["fast_fraction"] > 0
        assert row["gflops"] > 1
    assert content["size"] == "tiny"


def test_views_screened_in_bf16_are_measured_beside_those_that_are_not(run):
    printed, content = run(classification, "--repeats", "1", "--works", "screened")
    (row,) = content["rows"]
    assert row["work"] == "RLCF image-encoder, ours -> ours with the views screened in bf16" and row["work"] in printed
    assert row["difference"] < 1e-4 < row["moved"]
    with pytest.raises(UserError, match="leave out --precision"):
        run(classification, "--works", "screened", "--precision", "bf16")


def test_both_directions_of_retrieval_have_the_loops_logits(run):
    _, content = run(retrieval, "--repeats", "1")
    assert len(content["rows"]) == 2
    assert all(row["difference"] < 1e-4 < row["moved"] for row in content["rows"])


def test_several_images_at_once_have_the_answers_of_one_at_a_time(run, monkeypatch):
    monkeypatch.setattr(images_at_once, "COUNT", 3)
    monkeypatch.setattr(images_at_once, "CAPTIONS", replace(images_at_once.CAPTIONS, steps=1, sample_k=4))
    printed, content = run(images_at_once, "--repeats", "1")
    assert all(row["difference"] < 1e-3 and row["moved"] > 0.1 for row in content["rows"])
    assert "one at a time -> together, s" in printed


def test_chosen_rows_are_the_only_ones_and_bf16_is_that_of_both_sides(run):
    printed, content = run(classification, "--repeats", "1", "--works", "mta", "--precision", "bf16")
    (row,) = content["rows"]
    assert row["work"] == "MTA, 200 classes" and content["precision"] == "bf16" and "size tiny, bf16" in printed
    assert 1e-5 < row["difference"] < 0.1 * row["moved"]


def test_the_effect_of_bf16_is_counted(run):
    printed, content = run(precision, "--limit", "1")
    exact = [line for line in content["answers"] if line["variant"] == "fp32"]
    assert len(content["answers"]) == 6 and all(line["n"] == 2 for line in content["answers"])
    assert all(line["adapted_changed"] == line["zero_shot_changed"] == 0 for line in exact)
    assert [(found["views"], found["kept"], found["n"]) for found in content["selection"]] == [(12, 6, 2), (64, 6, 2)]
    assert printed.startswith("tuned") and "when ranked in bf16 alone" in printed


def test_what_settled_episodes_save_is_counted(run):
    printed, content = run(settled, "--limit", "2", "--styles", "blur", "--bounds", "1e-9", "2.5")
    for name, settings in settled.SETTINGS.items():
        off, never, ever = (line for line in content["lines"] if line["method"] == name)
        assert off["n"] == 2 and off["steps"] == 2 * settings["steps"] >= ever["steps"] >= 4
        assert {**never, "bound": 0.0} == off and off["settled"] == off["changed"] == 0
        assert off["seconds"] >= ever["seconds"] > 0 and name in printed


def test_captioning_has_the_loops_prefix(run):
    _, content = run(captioning, "--repeats", "1")
    (row,) = content["rows"]
    assert row["difference"] < 1e-4 < row["moved"]
    assert row["reference_passes"]["reward"] == row["fast_passes"]["reward"] or "texts" in row["fast_passes"]["reward"]


def test_the_memory_of_a_gallery_is_told_stage_by_stage(run):
    printed, content = run(gallery, "--texts", "250", "--queries", "1")
    names = [stage["name"] for stage in content["stages"]]
    assert names[-3:] == ["rlcf: 1 queries", "rlcf, candidates of both models: 1 queries", "kd: 1 queries"]
    assert all(0 < stage["own"] < stage["resident"] <= stage["peak"] for stage in content["stages"])
    assert all(name in printed for name in names) and "highest resident size: " in printed
