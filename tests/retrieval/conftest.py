"""Scenes of two emoji with five captions each, and runs on them with the shipped models."""

import json

import pytest

from demo.world import write_retrieval
from retrieval.main import main
from tests.tools import Results, write_picture

SCENES = 8
TEXTS = 5 * SCENES
MODELS = ["--student", "demo-student", "--reward", "demo-reward"]
RUN = ["--sample-k", "5", "--steps", "1", "--lr", "1e-3", "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Lists "clean" and "blur" of eight scenes each, with their pictures."""
    root = tmp_path_factory.mktemp("scenes")
    for style in ("clean", "blur"):
        write_retrieval(root, style, SCENES, seed=7)
    return root


@pytest.fixture
def write_list(tmp_path):
    """Writes tmp_path/data/list.json and an 8 x 8 picture for each of its images; returns tmp_path/data."""

    def write(entries, pictures=True, file="list.json"):
        root = tmp_path / "data"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(entries if isinstance(entries, str) else json.dumps(entries))
        images = [entry["image"] for entry in entries if "image" in entry] if pictures else []
        for number, image in enumerate(images):
            write_picture(root / image, number)
        return root

    return write


@pytest.fixture
def retrieve(scenes, tmp_path):
    """Runs the entry script's main on blurred scenes with the shipped models; flags win over that."""

    def run(*flags, output="run"):
        data = ["--data", str(scenes), "--datasets", "json:blur", "--output", str(tmp_path / output)]
        main([*data, *MODELS, *RUN, *map(str, flags)])
        return Results(tmp_path / output)

    return run
