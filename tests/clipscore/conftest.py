"""Images with captions, a tiny CLIP, and machines with and without Java."""

import json

import open_clip
import pytest
import torch
from PIL import Image

from clipscore import java
from clipscore.main import main

CANDIDATES = {
    "red.png": "A red square isn't on the wall.",
    "green.png": "two dogs playing in the park",
    "blue.png": 'a man\'s blue t-shirt, "worn" by Mr. Smith',
    "grey.png": "nothing to see (here)",
    "white.png": "a café at 10:30 a.m. & 5% off",
}
REFERENCES = {
    "red.png": ["A square painted on the wall is red.", "red shape"],
    "green.png": ["dogs play outside", "Two dogs in a park!", "animals are running through the park"],
    "blue.png": ["Mr. Smith's shirt is blue", "a blue t-shirt worn by a man"],
    "grey.png": ["empty picture", "there's nothing here to see..."],
    "white.png": ["A café, open at 10:30 a.m.", "the cafe on the corner", "a white-walled bar w/ 5% off"],
    "unused.png": ["a picture that no candidate describes"],
}

needs_java = pytest.mark.skipif(java.java_version() is None, reason="no Java runtime starts")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in CANDIDATES:
        Image.new("RGB", (40, 32), name.removesuffix(".png")).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    """A checkpoint in OpenAI's layout."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 64},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
        quick_gelu=True,
    )
    file = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(model.state_dict(), file)
    return file


@pytest.fixture
def written(tmp_path):
    """Writes captions as JSON; returns the file's path."""

    def write(content, name="captions.json"):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(file)

    return write


@pytest.fixture
def run(written, images, clip_file, tmp_path):
    """The command on captions, in this process; returns what it wrote to --output and --save-per-instance."""

    def run_main(*flags, candidates=CANDIDATES, references=REFERENCES, folder=images):
        scores, each = tmp_path / "out" / "scores.json", tmp_path / "each.json"
        refs = [] if references is None else ["--references", written(references, "refs.json")]
        argv = [written(candidates, "candidates.json"), str(folder), *refs, "--clip", str(clip_file)]
        argv += ["--workers", "0", "--device", "cpu", "--output", str(scores), "--save-per-instance", str(each)]
        main([*argv, *flags])
        return json.loads(scores.read_text()), json.loads(each.read_text())

    return run_main


@pytest.fixture
def without_java(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def java_that(tmp_path, monkeypatch):
    """A Java of version 8 whose programs do what a shell script says; $OUT is the file after -out, if there is one."""

    def does(script, version="1.8.0_392"):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "java"
        program.write_text(
            f"""#!/bin/sh
if [ "$1" = -version ]; then echo 'openjdk version "{version}"' >&2; exit 0; fi
while [ $# -gt 0 ]; do if [ "$1" = -out ]; then OUT=$2; fi; shift; done
{script}
"""
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return does
