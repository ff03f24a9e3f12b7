"""Trees of tiny pictures, tiny CLIPs in OpenAI's layout, and emoji that the embedded models know."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from classification.main import main
from demo.world import write_classification
from rlcf.clip.backbone import load_clip

VIT = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}
RESNET = {"image_size": 64, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}

EMOJI = ("apple", "car", "cat", "dog", "key", "owl")
TINY_RUN = ["--views", "8", "--selection", "0.4", "--steps", "1", "--lr", "1e-3", "--workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def plant(tmp_path):
    """Writes 8 x 8 pictures at these paths below tmp_path/data, and makes folders of paths that end in '/'."""

    def write(*paths):
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        for number, path in enumerate(paths):
            file = root / path
            if path.endswith("/"):
                file.mkdir(parents=True, exist_ok=True)
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, "JPEG")
        return root

    return write


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The file of a tiny random CLIP: "vit" or "resnet"."""
    folder = tmp_path_factory.mktemp("clips")

    def write(kind):
        file = folder / f"{kind}.pt"
        if not file.exists():
            torch.manual_seed(1)
            vision = {"vit": VIT, "resnet": RESNET}[kind]
            model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=TEXT, quick_gelu=True)
            for parameter in (model.token_embedding.weight, model.positional_embedding):
                nn.init.normal_(parameter, std=0.5)
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    nn.init.uniform_(layer.weight, 0.5, 1.5)
                    nn.init.uniform_(layer.running_mean, -0.1, 0.1)
                    nn.init.uniform_(layer.running_var, 0.05, 0.15)
            torch.save(model.state_dict(), file)
        return file

    return write


@pytest.fixture(scope="session")
def clip(checkpoint):
    """A fresh tiny CLIP, "vit" or "resnet"."""
    loaded = {}

    def load(kind):
        if kind not in loaded:
            loaded[kind] = load_clip(str(checkpoint(kind)))
        return dataclasses.replace(loaded[kind], model=copy.deepcopy(loaded[kind].model))

    return load


@pytest.fixture(scope="session")
def emoji(tmp_path_factory):
    """A folder of image folders, "clean" and "blur": six classes, two pictures each."""
    root = tmp_path_factory.mktemp("emoji")
    for style in ("clean", "blur"):
        write_classification(root / style, style, per_class=2, seed=7)
        for folder in (root / style).iterdir():
            if folder.name not in EMOJI:
                shutil.rmtree(folder)
    return root


class Results:
    """What a run left in its folder."""

    def __init__(self, folder):
        self.folder = folder

    @property
    def metrics(self):
        return json.loads((self.folder / "results.json").read_text())["datasets"]

    def logits(self, dataset="folder-blur"):
        """What --save-logits kept: name -> (N, classes)."""
        return load_file(self.folder / dataset / "logits.safetensors")

    def records(self, dataset="folder-blur", seconds=False):
        file = self.folder / dataset / "records.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        return records if seconds else [{k: v for k, v in record.items() if k != "seconds"} for record in records]


@pytest.fixture
def classify(emoji, tmp_path):
    """Runs the entry script's main on blurred emoji with the embedded models; flags win over that."""

    def run(*flags, output="run"):
        models = ["--student", "demo-student", "--reward", "demo-reward"]
        data = ["--data", str(emoji), "--datasets", "folder:blur", "--output", str(tmp_path / output)]
        main([*data, *models, *TINY_RUN, *map(str, flags)])
        return Results(tmp_path / output)

    return run
