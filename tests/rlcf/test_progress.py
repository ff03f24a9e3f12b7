"""Progress bars: often on a terminal, seldom into a file."""

import os
import pty
import sys

from rlcf.progress import IN_A_FILE, progress_bar
from tests.tools import ROOT


def test_a_bar_into_a_file_writes_its_first_and_last_state_alone(tmp_path, monkeypatch):
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        for _ in progress_bar(range(5000), desc="work", miniters=1):
            pass
    states = (tmp_path / "log").read_text().replace("\r", "\n").split("\n")
    assert len([state for state in states if state.strip()]) == 2
    assert "0/5000" in states[1] and "5000/5000" in states[-2] + states[-1]


def test_a_bar_on_a_terminal_keeps_its_pace(monkeypatch):
    reading, writing = pty.openpty()
    with open(writing, "w") as terminal:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", terminal)
        assert progress_bar([], disable=False).mininterval < 1 < IN_A_FILE
    os.close(reading)


def test_every_bar_is_such_a_bar():
    packages = ("rlcf", "classification", "retrieval", "caption", "clipscore")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    assert [file.name for file in files if "tqdm(" in file.read_text()] == ["progress.py"]
