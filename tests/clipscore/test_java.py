import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipscore import java
from rlcf.errors import UserError

from .conftest import CANDIDATES, REFERENCES, needs_java

ROOT = Path(__file__).resolve().parent.parent.parent

SHIPPED = """
import json, sys
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

candidates, references = (json.load(open(name)) for name in sys.argv[1:])
res = PTBTokenizer().tokenize({k: [{"caption": v}] for k, v in candidates.items()})
gts = PTBTokenizer().tokenize({k: [{"caption": r} for r in references[k]] for k in candidates})
bleu, each = Bleu(4).compute_score(gts, res, verbose=0)
found = {f"BLEU-{n + 1}": (bleu[n], list(each[n])) for n in range(4)}
for name, scorer in (("METEOR", Meteor()), ("ROUGE-L", Rouge()), ("CIDEr", Cider())):
    whole, parts = scorer.compute_score(gts, res)
    found[name] = (float(whole), list(parts))
print(json.dumps(found))
"""


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    processes = []
    popen = subprocess.Popen

    class Watched(popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            processes.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    return processes


@needs_java
def test_numbers_equal_pycocoevalcaps_own(written, images, clip_file, tmp_path):
    """The command as a user runs it, beside pycocoevalcap's own classes on the same captions."""
    files = written(CANDIDATES, "candidates.json"), written(REFERENCES, "refs.json")
    command = [sys.executable, ROOT / "clipscore" / "main.py", files[0], images, "--references", files[1]]
    command += ["--require-java", "--clip", clip_file, "--device", "cpu"]
    command += ["--output", "scores.json", "--save-per-instance", "each.json"]
    with subprocess.Popen([sys.executable, "-c", SHIPPED, *files], stdout=subprocess.PIPE, text=True) as shipped:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        expected = json.loads(shipped.communicate()[0])
    assert done.returncode == 0, done.stderr
    result, each = (json.loads((tmp_path / name).read_text()) for name in ("scores.json", "each.json"))
    assert list(result["scores"]) == [*list(expected)[:4], "METEOR", "ROUGE-L", "CIDEr", "CLIPScore", "RefCLIPScore"]
    for name, (whole, parts) in expected.items():
        assert result["scores"][name] == pytest.approx(whole, abs=1e-12)
        assert [row[name] for row in each.values()] == pytest.approx(parts, abs=1e-12)
    assert result["tokenizer"] == "PTB (Stanford CoreNLP 3.4.1)"
    lines = done.stdout.splitlines()
    assert lines[0].endswith("tokenizer: PTB (Stanford CoreNLP 3.4.1)")
    assert [line.split()[0] for line in lines[1:]] == list(result["scores"])


@needs_java
def test_letters_beyond_ascii_survive_whatever_the_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    assert java.tokenize(["Ein café in São Paulo", "狗"]) == ["ein café in são paulo", "狗"]


def test_without_java_there_is_no_version(without_java):
    assert java.java_version() is None


@pytest.mark.parametrize(("said", "version"), [("1.8.0_392", 8), ("11.0.2", 11), ("17", 17), ("21-ea", 21)])
def test_the_major_version_is_read(java_that, said, version):
    java_that("", version=said)
    assert java.java_version() == version


def test_a_java_that_fails_to_start_is_none(java_that, tmp_path):
    java_that("")
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\nexit 1\n")
    assert java.java_version() is None


def test_a_tokenizer_that_fails_is_told_with_its_reason(java_that):
    java_that("echo 'Error: no such class' >&2; exit 1")
    with pytest.raises(UserError, match=r"PTB tokenizer failed \(Error: no such class\).*--no-java"):
        java.tokenize(["a dog"])


def test_a_tokenizer_that_loses_a_caption_is_refused(java_that):
    java_that("echo -n a dog")
    with pytest.raises(UserError, match="1 lines for 2 captions"):
        java.tokenize(["a dog", "a cat"])


def test_a_meteor_that_dies_is_told_with_its_reason(java_that, started):
    java_that("read line; echo 'OutOfMemoryError' >&2; exit 1")
    with pytest.raises(UserError, match=r"METEOR failed \(OutOfMemoryError\)"):
        java.meteor(["a dog"] * 2000, [["a cat"]] * 2000)
    assert all(process.poll() is not None for process in started)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(java, "SLOW", 0.1)
    monkeypatch.setattr(java, "PATIENCE", (0.5, 0.0))


@pytest.mark.parametrize(
    ("called", "compute"),
    [
        ("METEOR", lambda: java.meteor(["a dog"], [["a cat"]])),
        ("the PTB tokenizer", lambda: java.tokenize(["a dog"])),
    ],
)
def test_a_program_that_does_not_answer_is_given_up_and_not_called_broken(
    java_that, started, impatient, capsys, called, compute
):
    java_that("exec sleep 1000")
    with pytest.raises(UserError, match=f"{called}: Java did not finish in .*less busy, or pass --no-java") as told:
        compute()
    assert "failed" not in str(told.value)
    assert f"{called}: Java has not answered for" in capsys.readouterr().err
    assert all(process.poll() is not None for process in started)


def test_a_java_that_does_not_tell_its_version_in_time_is_not_none(java_that, started, impatient, tmp_path):
    java_that("")
    (tmp_path / "bin" / "java").write_text("#!/bin/sh\nexec sleep 1000\n")
    with pytest.raises(UserError, match="java -version: Java did not finish in"):
        java.java_version()
    assert all(process.poll() is not None for process in started)


def test_a_slow_java_is_waited_for_with_a_word(java_that, monkeypatch, capsys):
    monkeypatch.setattr(java, "SLOW", 0.1)
    java_that("sleep 0.3; cat")
    assert java.tokenize(["a dog"]) == ["a dog"]
    assert capsys.readouterr().err.count("the PTB tokenizer: Java has not answered for") == 1


def test_a_meteor_that_is_interrupted_is_closed(java_that, started, monkeypatch):
    java_that("exec sleep 1000")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(java, "_talk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        java.meteor(["a dog"], [["a cat"]])
    assert all(process.poll() is not None for process in started)


def test_spice_is_the_mean_of_its_f_scores(java_that):
    rows = [{"image_id": i, "scores": {"All": {"f": f}, "Color": {"f": None}}} for i, f in ((1, 0.5), (0, 0.25))]
    java_that(f"echo '{json.dumps(rows)}' > \"$OUT\"")
    assert java.spice(["a dog", "a cat"], [["dog"], ["cat"]]) == (0.375, [0.25, 0.5])


def test_spice_without_a_score_for_each_caption_is_refused(java_that):
    java_that("echo '[]' > \"$OUT\"")
    with pytest.raises(UserError, match="SPICE failed"):
        java.spice(["a dog"], [["dog"]])


def test_spice_tells_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setattr(java, "SPICE_LIB", tmp_path)
    (tmp_path / java.SPICE_FILES[0]).touch()
    with pytest.raises(
        UserError, match=r"lacks stanford-corenlp-3\.6\.0-models\.jar; put .* into .*, or leave --spice"
    ):
        java.check_spice(8)
    (tmp_path / java.SPICE_FILES[1]).touch()
    java.check_spice(8)


def test_spice_refuses_a_java_without_a_javascript_engine():
    with pytest.raises(UserError, match="Java 8 to 14 and this is Java 17"):
        java.check_spice(17)
