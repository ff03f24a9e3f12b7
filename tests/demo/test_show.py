"""The demo: its runs, tables and pages."""

import dataclasses

import pytest

from demo import show
from tests.tools import ROOT


@pytest.mark.slow
def test_the_demo_leaves_runs_a_table_and_a_page(tmp_path, monkeypatch, capsys):
    shown = show.SHOWN["retrieval"]
    few = {name: [*flags, "--limit", "2"] for name, flags in shown.runs.items()}
    monkeypatch.setitem(show.SHOWN, "retrieval", dataclasses.replace(shown, size=6, runs=few))
    monkeypatch.setattr("sys.argv", ["show", str(tmp_path), "retrieval"])
    show.main()
    printed = capsys.readouterr().out
    assert (tmp_path / "results.md").read_text() in printed and "| reward |" in printed
    assert "rlcf: json:blur" in printed and f"report: {tmp_path / 'retrieval.html'}" in printed
    assert all((tmp_path / "retrieval" / run / "results.json").is_file() for run in ("rlcf", "reward"))


def test_the_demos_tables_fit_a_hundred_columns():
    """docs/world.md has them as the demo prints them."""
    tables = [line for line in (ROOT / "docs" / "world.md").read_text().splitlines() if line.startswith("|")]
    assert len(tables) > 30 and max(map(len, tables)) <= 100
