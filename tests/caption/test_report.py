"""The report of a real captioning run that was scored."""

import pytest

from rlcf.report.main import main as report
from rlcf.report.parts import parts_of
from rlcf.report.runs import read_runs
from tests.caption.test_main import EVALUATE


def test_a_scored_runs_report_is_judged_by_cider(caption, capsys, tmp_path):
    run = caption(*EVALUATE)
    (part,) = parts_of(read_runs([run.folder]))
    metrics, found = run.metrics["json:clean"], {metric.name: metric for metric in part.metrics}
    assert part.metric == "CIDEr"
    for name in ("CIDEr", "BLEU-4", "reward"):
        scale = 1 if name == "reward" else 100
        assert found[name].after.mean == pytest.approx(scale * metrics["adapted"][name], abs=1e-4)
    rewards = [(r["zero_shot_reward"], r["adapted_reward"]) for r in run.records()]
    assert metrics["reward_rose"] == sum(after > before for before, after in rewards)
    assert metrics["reward_fell"] == sum(after < before for before, after in rewards)
    report([str(run.folder), "--output", str(tmp_path / "page.html")])
    assert "Reward against CIDEr" in (tmp_path / "page.html").read_text()
    assert "could not be read" not in capsys.readouterr().out
