import sys

import pytest

from clipscore import evaluate, match_captions
from clipscore.main import main
from rlcf import __version__
from rlcf.clip.loading import load_clip
from rlcf.errors import UserError
from tests.tools import run_script

from .conftest import CANDIDATES, REFERENCES

WITHOUT_JAVA = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr", "CLIPScore", "RefCLIPScore"]


def test_without_java_the_run_says_so_and_gives_every_metric_that_needs_none(run, without_java, capsys):
    result, each = run()
    told = capsys.readouterr()
    assert told.err.startswith(
        "no Java runtime starts: METEOR is left out; captions are split by the built-in tokenizer"
    )
    assert list(result["scores"]) == WITHOUT_JAVA
    assert result["tokenizer"] == "built-in (clipscore/tokenizer.py)"
    assert result["n"] == len(CANDIDATES)
    assert list(each) == list(CANDIDATES)
    assert all(list(row) == WITHOUT_JAVA for row in each.values())
    lines = told.out.splitlines()
    assert lines[0].startswith("5 captions, CLIPScore by ") and lines[0].endswith(result["tokenizer"])
    assert {line.split()[0]: float(line.split()[1]) for line in lines[1:]} == {
        name: pytest.approx(value, abs=1e-4) for name, value in result["scores"].items()
    }


def test_means_of_single_captions_are_the_scores_of_all(run):
    result, each = run("--no-java")
    for name in ("ROUGE-L", "CIDEr", "CLIPScore", "RefCLIPScore"):
        mean = sum(row[name] for row in each.values()) / len(each)
        assert result["scores"][name] == pytest.approx(mean, abs=1e-6)


def test_no_java_leaves_java_out_even_where_there_is_one(run, java_that, capsys):
    java_that("exit 1")
    result, _ = run("--no-java")
    assert list(result["scores"]) == WITHOUT_JAVA
    assert capsys.readouterr().err.startswith("--no-java: METEOR is left out")


def test_require_java_refuses_without_one(run, without_java):
    with pytest.raises(UserError, match=r"no Java runtime starts .*; install one or leave --require-java out"):
        run("--require-java")


def test_spice_without_java_is_left_out_with_a_word(run, without_java, capsys):
    result, _ = run("--spice")
    assert list(result["scores"]) == WITHOUT_JAVA
    assert "METEOR and SPICE are left out" in capsys.readouterr().err


def test_spice_without_its_files_is_refused_before_anything_else(run, java_that, monkeypatch, tmp_path):
    monkeypatch.setattr("clipscore.java.SPICE_LIB", tmp_path)
    java_that("exit 1")
    with pytest.raises(UserError, match="SPICE lacks"):
        run("--spice")


def test_without_references_there_is_clipscore_alone_and_no_word_of_java(run, without_java, capsys):
    result, each = run(references=None)
    told = capsys.readouterr()
    assert list(result["scores"]) == ["CLIPScore"]
    assert result["tokenizer"] is None
    assert list(each["red.png"]) == ["CLIPScore"]
    assert "Java" not in told.err
    assert len(told.out.splitlines()) == 2


def test_clipscore_does_not_depend_on_references_nor_on_the_order_of_candidates(run):
    _, with_references = run("--no-java")
    _, alone = run(candidates=dict(reversed(CANDIDATES.items())), references=None)
    for name in CANDIDATES:
        assert alone[name]["CLIPScore"] == pytest.approx(with_references[name]["CLIPScore"], abs=1e-6)


def test_the_embedded_models_score_scenes(run, images):
    scenes = {"red.png": "a dog on a red background", "blue.png": "a cat on a blue background"}
    result, each = run("--clip", "demo-reward", "--prefix", "", candidates=scenes, references=None)
    assert result["clip"] == "demo-reward"
    assert set(each) == set(scenes)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--clip", "ViT-B/33"], "unknown model 'ViT-B/33'"),
        (["--device", "cuda:99"], "no GPU 99"),
        (["--workers", "-1"], "--workers: '-1' is not a whole number from 0"),
        (["--precision", "fp8"], "--precision: invalid choice: 'fp8'"),
        (["--no-java", "--require-java"], "not allowed with argument"),
        (["--reference", "x"], "unrecognized arguments: --reference x; --help lists the flags"),
        (["--references", "gone.json"], "gone.json cannot be read as JSON"),
    ],
)
def test_a_wrong_flag_is_named(run, flags, told):
    with pytest.raises(UserError) as refusal:
        run(*flags)
    assert told in str(refusal.value)


def test_spice_needs_references(run):
    with pytest.raises(UserError, match="--spice compares with references; give --references too"):
        run("--spice", references=None)


def test_a_damaged_image_is_named(run, tmp_path):
    (tmp_path / "red.png").write_text("no picture")
    with pytest.raises(UserError, match=r"red\.png cannot be read as an image"):
        run(candidates={"red.png": "a dog"}, references=None, folder=tmp_path)


def test_an_output_that_cannot_be_written_is_told_before_the_work(run, tmp_path):
    for place in (tmp_path, tmp_path / "refs.json" / "scores.json"):
        with pytest.raises(UserError, match="cannot"):
            run("--no-java", "--output", str(place))


def test_candidates_must_be_given():
    with pytest.raises(UserError, match="the following arguments are required"):
        main([])


def test_a_users_mistake_is_one_sentence_and_exit_code_2(written, images, tmp_path):
    """As a user without Java runs it, from another folder."""
    refs = ["--references", written(REFERENCES, "refs.json")]
    flags = [written(CANDIDATES), images, *refs, "--require-java"]
    done = run_script("clipscore/main.py", *flags, cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no Java runtime starts") and done.stderr.count("\n") == 1


def test_the_function_gives_the_commands_scores_to_python(run, images, clip_file, capsys):
    result, each = run("--no-java", "--prefix", "a photo of ")
    capsys.readouterr()
    captions = match_captions(CANDIDATES, images, REFERENCES)
    evaluation = evaluate(captions, load_clip(str(clip_file)), prefix="a photo of ", workers=0)
    assert capsys.readouterr().out == ""
    assert evaluation.scores == result["scores"] and evaluation.per_instance == each
    assert (evaluation.n, evaluation.tokenizer) == (result["n"], result["tokenizer"])
    assert (evaluation.clip, evaluation.prefix, evaluation.precision) == (str(clip_file), "a photo of ", "fp32")


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"rlcf {__version__}\n"


def test_without_a_clip_there_are_the_metrics_against_references_and_no_image_is_looked_for(run, tmp_path, capsys):
    with_clip, _ = run("--no-java")
    capsys.readouterr()
    result, each = run("--no-java", "--clip", "none", folder=tmp_path / "gone")
    assert list(result["scores"]) == WITHOUT_JAVA[:-2]
    assert result["scores"] == {name: with_clip["scores"][name] for name in WITHOUT_JAVA[:-2]}
    assert (result["clip"], result["prefix"], result["precision"]) == (None, None, None)
    assert list(each["red.png"]) == WITHOUT_JAVA[:-2]
    assert "CLIP" not in capsys.readouterr().out


def test_without_a_clip_references_are_asked_for_and_with_one_the_images(run, written):
    with pytest.raises(UserError, match="--clip none leaves the metrics against references alone; give --references"):
        run("--clip", "none", references=None)
    with pytest.raises(UserError, match="needs the folder of the images"):
        main([written(CANDIDATES)])


def test_a_word_that_the_clip_does_not_know_is_told_before_the_metrics_that_take_long(run, monkeypatch):
    monkeypatch.setattr(sys.modules["clipscore.evaluate"], "reference_scores", None)
    with pytest.raises(UserError, match=r"demo-student knows a few words only, not all of 'A photo depicts A red sq"):
        run("--no-java", "--clip", "demo-student")


def test_captions_that_are_cut_at_the_context_are_counted(run, capsys):
    long = CANDIDATES | {"red.png": "a red square " * 30}
    references = REFERENCES | {"blue.png": ["a shirt", "a blue shirt " * 30]}
    result, _ = run("--no-java", candidates=long, references=references)
    assert result["cut"] == 2
    assert ", 2 captions or references cut at the CLIP's context" in capsys.readouterr().out
    assert run("--no-java")[0]["cut"] == 0
    assert "cut" not in capsys.readouterr().out


def test_a_clip_that_is_not_there_is_told_before_anything_is_loaded(run, monkeypatch):
    monkeypatch.setattr("clipscore.main.load", None)
    with pytest.raises(UserError, match=r"--clip: there is no CLIP gone/ViT-B-32.pt; '.* get ViT-B/32' downloads it"):
        run("--clip", "gone/ViT-B-32.pt")
