"""The report of a real run of both directions, and the records that it is made of."""

import pytest

from rlcf.report.main import main as report
from rlcf.report.parts import comparisons_of, parts_of
from rlcf.report.runs import read_runs


def test_both_directions_records_can_be_read_and_have_a_report(retrieve, scenes, capsys, tmp_path):
    results, other = retrieve("--limit", 6), retrieve("--limit", 6, "--method", "zeroshot", output="other")
    for direction in ("i2t", "t2i"):
        for record in results.records(f"json-blur-{direction}"):
            for name in ("zero_shot", "adapted"):
                assert record[f"{name}_found"] == record["names"][str(record[f"{name}_top10"][0])]
                assert 0 < record[f"{name}_confidence"] <= 1
            assert {str(place) for place in record["targets"]} <= record["names"].keys()
            assert ("query" in record) == (direction == "t2i")
        metrics = results.metrics[f"json:blur-{direction}"]
        ranks = [(r["zero_shot_rank"] == 1, r["adapted_rank"] == 1) for r in results.records(f"json-blur-{direction}")]
        assert (metrics["fixed"], metrics["spoilt"]) == (ranks.count((False, True)), ranks.count((True, False)))
    parts = parts_of(read_runs([results.folder, other.folder]))
    assert [part.dataset.name for part in parts[:2]] == ["json:blur-i2t", "json:blur-t2i"]
    for part, prefix in zip(parts[:2], ("txt", "img"), strict=True):
        metrics = results.metrics[part.dataset.name]
        assert part.metrics[0].after.mean == pytest.approx(metrics["adapted"][f"{prefix}_r1"])
        assert part.metrics[0].gain.mean == pytest.approx(metrics[f"{prefix}_r1_gain"]["mean"])
        assert part.dataset.images == scenes
    # Two directions are two tasks: they are not put together.
    assert [one.name for one in comparisons_of(parts)] == ["json:blur-i2t", "json:blur-t2i"]
    report([str(results.folder), str(other.folder), "--output", str(tmp_path / "page.html")])
    assert "could not be read" not in capsys.readouterr().out
