"""Scenes of two emoji with five captions each, and runs on them with the embedded models."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from demo.world import write_retrieval
from retrieval.main import main
from rlcf.clip.backbone import load_clip

SCENES = 8
RUN = ["--sample-k", "5", "--steps", "1", "--lr", "1e-3", "--workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
            (root / image).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / image, "JPEG")
        return root

    return write


@pytest.fixture(scope="session")
def clip():
    """A fresh embedded model."""
    return lambda name="demo-student": load_clip(name)


class Results:
    """What a run left in its folder."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def metrics(self):
        return json.loads((self.folder / "results.json").read_text())["datasets"]

    def records(self, direction="i2t", dataset="json-blur", seconds=False):
        file = self.folder / f"{dataset}-{direction}" / "records.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        return records if seconds else [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.fixture
def retrieve(scenes, tmp_path):
    """Runs the entry script's main on blurred scenes with the embedded models; flags win over that."""

    def run(*flags, output="run"):
        models = ["--student", "demo-student", "--reward", "demo-reward"]
        data = ["--data", str(scenes), "--datasets", "json:blur", "--output", str(tmp_path / output)]
        main([*data, *models, *RUN, *map(str, flags)])
        return Results(tmp_path / output)

    return run
