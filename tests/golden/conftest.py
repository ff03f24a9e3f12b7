"""Models, views and numbers of the authors' implementation."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rlcf.clip.loading import load_clip

DATA = Path(__file__).parent / "data"
DEVICE = os.environ.get("RLCF_TEST_DEVICE", "cpu")
"""Where the models are, to hold a GPU to the same numbers."""


@pytest.fixture(scope="session")
def golden():
    """File name without suffix -> its arrays."""

    def read(name):
        with np.load(DATA / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    return read


@pytest.fixture(scope="session")
def clip(golden, tmp_path_factory):
    """Loads a fresh tiny CLIP through the project's own loader; its views are normalised already."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def load(name):
        file = folder / f"{name}.pt"
        if not file.exists():
            torch.save({key: torch.from_numpy(value).float() for key, value in golden(name).items()}, file)
        backbone = load_clip(str(file), DEVICE)
        # The layout of the authors' run: a ResNet's runs at lr 1e-3 depend on the order of float operations.
        backbone.model.visual.to(memory_format=torch.contiguous_format)
        plain = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
        return dataclasses.replace(backbone, preprocess=backbone.preprocess | plain)

    return load


@pytest.fixture(scope="session")
def views(golden):
    """(8, 64, 3, 32, 32), view 0 the centre crop."""
    return torch.from_numpy(golden("views")["views"])


@pytest.fixture(scope="session")
def classnames(golden):
    return [str(name).replace("_", " ") for name in golden("views")["classnames"]]


def twice(views):
    """The same views at 64 px, what the tiny ResNet student takes."""
    return F.interpolate(views, scale_factor=2, mode="nearest")
