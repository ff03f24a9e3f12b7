"""What a launcher asks before it starts: `rlcf-data need`."""

import pytest

from rlcf.data.catalogue.weights import COOP, TRAIN_SET
from rlcf.data.main import main
from rlcf.data.need import read_settings
from rlcf.errors import UserError
from tests.tools import ROOT


@pytest.fixture
def need(tmp_path, capsys, monkeypatch):
    """The lines that `need` tells, and True if it lets the command start."""
    monkeypatch.setenv("RLCF_ROOT", str(tmp_path))
    monkeypatch.delenv("CLIP_ROOT", raising=False)

    def run(script, *flags):
        try:
            main(["need", script, *map(str, flags)])
            starts = True
        except UserError as error:
            assert "nothing was started" in str(error)
            starts = False
        return starts, capsys.readouterr().err.splitlines()

    return run


def test_a_dataset_that_is_missing_is_told_with_the_command_that_gets_it(need, tmp_path):
    starts, lines = need(
        "classification/main.py", "--data", tmp_path, "--datasets", "A", "I", "--student", "demo-student"
    )
    assert not starts and len(lines) == 2
    assert lines[0].startswith("missing: dataset A (ImageNet-A); get it: ")
    assert lines[0].endswith(f"rlcf-data.sh get A --data {tmp_path}") or lines[0].endswith(
        f"rlcf-data get A --data {tmp_path}"
    )
    assert "dataset I (ImageNet, validation); how to get it: " in lines[1]


def test_what_is_there_is_not_told(need, tmp_path):
    (tmp_path / "imagenet-a" / "n01498041").mkdir(parents=True)
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "ViT-B-16.pt").write_bytes(b"")
    flags = ["--data", tmp_path, "--datasets", "A", "folder:mine", "--student", "ViT-B/16", "--clip-root", clips]
    assert need("classification/main.py", *flags) == (True, [])


def test_the_preset_tells_what_flags_do_not(need, tmp_path):
    preset = ROOT / "classification" / "configs" / "rlcf-tune-ensemble.yaml"
    (tmp_path / "imagenet-a" / "n01498041").mkdir(parents=True)
    starts, lines = need("classification/main.py", "--config", preset, "--data", tmp_path, "--datasets", "A")
    assert starts and len(lines) == 1
    assert (
        "ViT-B/16, ViT-L/14@336px, ViT-L/14, RN50x64; open_clip takes them from its cache or downloads them" in lines[0]
    )
    assert f"get ViT-B/16 ViT-L/14@336px ViT-L/14 RN50x64 --data {tmp_path}" in lines[0]


def test_a_flat_imagenet_is_told_with_the_command_that_sorts_it(need, tmp_path):
    (tmp_path / "ImageNet" / "val").mkdir(parents=True)
    starts, lines = need("classification/main.py", "--data", tmp_path, "--datasets", "I", "--student", "demo-student")
    assert not starts and "make them: " in lines[0] and f"convert imagenet-val {tmp_path}/ImageNet/val" in lines[0]


def test_a_captioner_that_is_missing_is_told_with_what_gets_and_what_makes_it(need, tmp_path):
    checkpoint = tmp_path / "output" / "capdec_opt125m_transformer_coco_01"
    flags = ["--data", tmp_path, "--datasets", "folder", "--checkpoint", checkpoint, "--student", "demo-student"]
    starts, lines = need("caption/main.py", *flags)
    assert not starts and f"missing: {checkpoint}; get it: " in lines[0] and f"get capdec --data {tmp_path}" in lines[0]
    assert lines[0].endswith("or make it: bash " + str(ROOT / "scripts" / "train_capdec_coco.sh") + " 0")
    checkpoint.mkdir(parents=True)
    assert need("caption/main.py", *flags, "--checkpoint", "demo-clipcap")[0]
    assert need("caption/main.py", *flags)[0]


def test_a_coop_context_is_looked_for_and_words_are_not(need, tmp_path):
    flags = ["--data", tmp_path, "--datasets", "folder", "--student", "demo-student", "--context"]
    assert need("classification/main.py", *flags, "words")[0]
    starts, lines = need("classification/main.py", *flags, tmp_path / "pretrained" / "coop" / COOP)
    assert not starts and "how to get it: " in lines[0] and "get coop " in lines[0]


def test_training_wants_its_features_and_extraction_its_list(need, tmp_path):
    starts, lines = need("caption/train.py", "--data", tmp_path / "dataset" / "coco2014" / TRAIN_SET)
    assert not starts and f"get coco-features --data {tmp_path}" in lines[0] and "extract_coco.sh 0" in lines[0]
    flags = ["--data", tmp_path / "coco", "--captions", "coco_karpathy_train.json"]
    starts, lines = need("caption/extract_features.py", *flags)
    assert not starts and f"missing: {tmp_path}/coco/coco_karpathy_train.json; get it: " in lines[0]
    assert f"get coco-train --data {tmp_path}" in lines[0]


def test_scores_want_their_clip(need, tmp_path):
    flags = ["--data", tmp_path, "--datasets", "folder", "--student", "demo-student", "--checkpoint", "demo-clipcap"]
    assert need("caption/main.py", *flags, "--no-evaluate") == (True, [])
    starts, lines = need("caption/main.py", *flags, "--evaluate")
    assert starts and "ViT-B/32; open_clip takes it from its cache or downloads it" in lines[0]


def test_a_language_model_of_hugging_face_is_no_missing_file(need, tmp_path):
    starts, lines = need("caption/main.py", "--data", tmp_path, "--language-model", "facebook/opt-125m")
    assert starts and "transformers takes it from its cache or downloads it" in lines[0]


def test_settings_are_read_from_flags_of_every_form(tmp_path):
    (tmp_path / "p.yaml").write_text("datasets: [coco]\nreward: [ViT-L/14]\nsteps: 3\n")
    read = read_settings(["--config", str(tmp_path / "p.yaml"), "--datasets=A", "--steps", "4", "--evaluate"])
    assert read["datasets"] == ["A"] and read["reward"] == ["ViT-L/14"] and read["steps"] == ["4"]
    assert read["evaluate"] == []


@pytest.mark.parametrize("text", ["[", "- 1", "a: ${b}"])
def test_a_broken_preset_is_left_to_the_task(text, need, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    assert need("classification/main.py", "--config", tmp_path / "p.yaml", "--data", tmp_path) == (True, [])
