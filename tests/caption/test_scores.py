"""The table of a run's scores."""

import json
import shutil

import pytest

import caption.main
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


def test_a_captioner_as_it_is_is_scored_by_its_preset(world, tmp_path, capsys):
    flickr = tmp_path / "dataset" / "flickr30k"
    shutil.copytree(world / "clean", flickr / "clean")
    shutil.copy(world / "clean.json", flickr / "flickr30k_test.json")
    models = ["--student", "demo-student", "--checkpoint", "demo-clipcap", "--language-model", "demo-lm"]
    scored = ["--evaluate-clip", "demo-student", "--evaluate-prefix", "", "--no-evaluate-java", "--limit", "2"]
    where = ["--data", str(tmp_path), "--output", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"]
    caption.main.main(["--config", "eval-c2f", *models, *scored, *where])
    capsys.readouterr()
    main([str(tmp_path / "run")])
    head, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[0] == "n" and {"CIDEr", "CLIPScore"} <= set(head) and row[:2] == ["flickr30k", "2"]
    held = json.loads((tmp_path / "run" / "flickr30k" / "scores.json").read_text())
    assert row[2:] == [f"{value:.4f}" for value in held["scores"].values()]
