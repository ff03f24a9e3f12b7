"""Each example as a user starts it, on the shipped models."""

import re
import sys

import pytest

from demo.world import write_classification, write_retrieval
from examples import classify
from tests.tools import mistake, run_script

MODELS = ("--student", "demo-student", "--reward", "demo-reward")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of pictures: single/<class name>/0.png and scenes/blur/<n>.png."""
    folder = tmp_path_factory.mktemp("pictures")
    write_classification(folder / "single", "noto", 1, seed=3)
    write_retrieval(folder / "scenes", "blur", 3, seed=3)
    return folder


def lines_of(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_an_image_is_classified(pictures):
    done = run_script("examples/classify.py", "single/cat/0.png", "cat", "dog", *MODELS, cwd=pictures)
    (line,) = lines_of(done)
    assert re.fullmatch(r"0\.png: zero-shot (cat|dog) \(\d+%\), adapted (cat|dog) \(\d+%\)", line)


@pytest.mark.slow
def test_a_text_finds_images_of_a_folder(pictures):
    done = run_script("examples/retrieve.py", "scenes/blur", "a dog above a cat", *MODELS, cwd=pictures)
    found = [line.split(": ") for line in lines_of(done)]
    assert [when for when, _ in found] == ["zero-shot", "adapted"]
    assert all(set(names.split(", ")) == {"0.png", "1.png", "2.png"} for _, names in found)


@pytest.mark.slow
def test_all_images_of_a_folder_are_captioned(pictures):
    found = lines_of(run_script("examples/describe.py", "scenes/blur", cwd=pictures))
    assert [re.fullmatch(r"(\d)\.png: zero-shot '.+', adapted '.+'", line)[1] for line in found] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("gone.png", "cat", *MODELS), "gone.png cannot be read as an image"),
        (("single/cat/0.png", "cat", "--student", "demo-nobody"), "demo-nobody"),
    ],
)
def test_a_mistake_is_one_sentence(pictures, flags, sentence, monkeypatch, capsys):
    monkeypatch.chdir(pictures)
    monkeypatch.setattr(sys, "argv", ["classify.py", *flags])
    assert sentence in mistake(classify.main, capsys)
