"""The table of a run's scores."""

import json

import pytest

from caption.scores import main
from rlcf.errors import UserError


@pytest.fixture
def run(tmp_path):
    """Writes the scores and captions of a dataset or a domain."""

    def write(name, before, after, same=False):
        folder = tmp_path / "run" / name
        folder.mkdir(parents=True)
        for suffix, scores in (("-zero-shot", before), ("", after)):
            (folder / f"scores{suffix}.json").write_text(json.dumps({"n": 2, "scores": scores}))
            (folder / f"candidates{suffix}.json").write_text(json.dumps({"a.jpg": "x" if same else suffix}))
        return tmp_path / "run"

    return write


def test_each_dataset_and_domain_has_a_row(run, capsys):
    run("nocaps", {"CIDEr": 0.5}, {"CIDEr": 0.5, "CLIPScore": 0.75}, same=True)
    main([str(run("nocaps/in-domain", {"CIDEr": 0.6}, {"CIDEr": 0.6}, same=True))])
    assert capsys.readouterr().out.splitlines() == [
        "                  n   CIDEr  CLIPScore",
        "nocaps            2  0.5000     0.7500",
        "nocaps/in-domain  2  0.6000",
    ]


def test_captions_before_adaptation_have_a_row_where_they_are_others(run, capsys):
    main([str(run("coco", {"CIDEr": 0.5}, {"CIDEr": 0.75}))])
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["coco", "zero-shot", "2", "0.5000"],
        ["coco", "2", "0.7500"],
    ]


def test_a_run_without_scores_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no scores; captions are scored by"):
        main([str(tmp_path)])


def test_damaged_scores_are_told(run):
    folder = run("coco", {}, {})
    (folder / "coco" / "scores.json").write_text("{}")
    with pytest.raises(UserError, match=r"scores\.json holds no scores"):
        main([str(folder)])
