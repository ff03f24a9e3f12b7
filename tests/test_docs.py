"""What the README and docs/ show works as it stands: links lead somewhere, the code of the examples runs."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification import Classifier
from classification.datasets import LOADERS, load_dataset
from classification.methods import METHODS
from classification.objectives import OBJECTIVES
from rlcf.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
DEMO = {"student": "demo-student", "views": 6, "selection": 0.5}


def code_below(page, heading):
    """The first block of code below a heading of a page in docs/."""
    section = (ROOT / "docs" / page).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"(?:^ {4}.*\n|^\n(?=\n* {4}))+", section.partition("\n\n")[2], re.MULTILINE)
    return textwrap.dedent(block[0])


def picture(green=0):
    return Image.fromarray(np.full((64, 64, 3), (120, green, 120), np.uint8))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_project(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


def test_each_promise_of_reliability_names_tests_that_are_there():
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 20 and all((ROOT / file).is_file() for file in named)
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.endswith("| held by |")]
    assert len(rows) > 30
    assert [row for row in rows if "`tests/" not in row.split("|")[-2] and "the same" not in row.split("|")[-2]] == []


@pytest.fixture
def tables(monkeypatch):
    """The tables that the examples add to are what they were afterwards."""
    for table in (LOADERS, METHODS, OBJECTIVES):
        for name in ("flowers", "mean-entropy"):
            monkeypatch.setitem(table, name, None)  # which is undone at the end
            del table[name]


def test_the_data_set_that_the_layout_shows_is_read(tables, tmp_path):
    code = code_below("layout.md", "Adding a data set")
    assert len(code.splitlines()) < 30
    exec(code, {})
    with pytest.raises(UserError, match=r"dataset flowers was not found; there is no .*test.tsv"):
        load_dataset("flowers", str(tmp_path))
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "test.tsv").write_text("a.png\trose\nb.png\tlily\n")
    dataset = load_dataset("flowers", str(tmp_path))
    assert (dataset.ids, dataset.classnames) == (["a.png", "b.png"], ["lily", "rose"])
    assert [label for _, label in dataset.samples] == [1, 0]


def test_the_method_that_the_layout_shows_adapts(tables):
    code = code_below("layout.md", "Adding a method")
    assert len(code.splitlines()) < 30
    exec(code, {})
    settings = {"method": "mean-entropy", "tune": "prompt", "steps": 2, "lr": 1e-2}
    answer = Classifier(["cat", "dog", "owl"], **settings, **DEMO)(picture())
    losses = [step.loss for step in answer.trace]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_the_reward_that_the_layout_shows_scores(monkeypatch, tmp_path):
    code = code_below("layout.md", "Adding a reward")
    assert len(code.splitlines()) < 30
    (tmp_path / "greenness.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {"method": "rlcf", "tune": "prompt", "sample_k": 2, "reward": ["py:greenness:score"]}
    answer = Classifier(["green dog", "cat"], **settings, **DEMO)(picture(green=240))
    step = answer.trace[0]
    rewards = dict(zip(step.answers[0], step.rewards[0], strict=True))
    assert rewards == pytest.approx({0: 0.5, 1: 0.5})  # green is half of all: 240 of 480
